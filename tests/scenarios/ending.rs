//! How a scenario ended, as text: the same on every host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::scene::{
    AUTOSCALER, CONFIG_MAP, DEPLOYMENT, DESTINATION_RULE, EVENT, Kind, SERVICE, Scene, VIRTUAL_SERVICE,
};

/// A line that differs on one host, and why it must.
pub struct Difference {
    pub host: &'static str,
    pub scenario: &'static str,
    /// The line as it is on the other hosts.
    pub expected: &'static str,
    /// What it is on this one.
    pub found: &'static str,
    #[allow(dead_code, reason = "for the reader")]
    pub why: &'static str,
}

/// Every difference that is granted.
pub const DIFFERENCES: &[Difference] = &[];

fn file(scenario: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/expected").join(format!("{scenario}.txt"))
}

/// The end that is expected on a host.
fn expected(scene: &Scene<'_>, scenario: &str) -> String {
    let host = scene.host().name();
    let mut text = std::fs::read_to_string(file(scenario)).unwrap_or_default();
    if scene.host().has_lost_requests(&scene.namespace).is_none() {
        text = text.replace(&users(true), "").replace(&users(false), "");
    }
    for difference in DIFFERENCES.iter().filter(|known| known.host == host && known.scenario == scenario) {
        let line = format!("{}\n", difference.expected);
        assert!(text.contains(&line), "{scenario}: no such line: {line}");
        text = text.replace(&line, &format!("{}\n", difference.found));
    }
    text
}

/// Compares the end with the expected one.
pub async fn assert_expected(scene: &Scene<'_>, scenario: &str) {
    // What comes too much comes soon.
    scene.pass(Duration::from_secs(5)).await;
    if std::env::var_os("UPDATE_GENERATED").is_some() && scene.host().name() == "embedded" {
        std::fs::write(file(scenario), describe(scene).await).unwrap();
        return;
    }
    assert_comes_to(scene, &expected(scene, scenario), str::to_owned).await;
}

/// The same without the events: an operator that is killed takes those along that it has not yet written, and its successor
/// tells again what it finds.
pub async fn assert_expected_but_events(scene: &Scene<'_>, scenario: &str) {
    scene.pass(Duration::from_secs(5)).await;
    assert_comes_to(scene, &without_events(&expected(scene, scenario)), without_events).await;
}

fn without_events(text: &str) -> String {
    let mut is_of_events = false;
    let mut kept = String::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_of_events = line == "events";
        }
        if !is_of_events {
            kept += &format!("{line}\n");
        }
    }
    kept
}

/// Pods that go and objects that are collected may take their time.
async fn assert_comes_to(scene: &Scene<'_>, expected: &str, compared: impl Fn(&str) -> String) {
    let deadline = tokio::time::Instant::now() + scene.host().patience() / 4;
    loop {
        let found = compared(&describe(scene).await);
        if found == expected {
            return;
        }
        if tokio::time::Instant::now() > deadline {
            panic!("it did not end as it should (- expected, + found)\n{}", difference(expected, &found));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What happened, for a failing test.
pub async fn story(scene: &Scene<'_>) -> String {
    format!("{:#}\n{}", scene.status(), describe(scene).await)
}

async fn describe(scene: &Scene<'_>) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("{title}\n");
            lines.iter().for_each(|line| text += &format!("  {line}\n"));
        }
    };
    section("canary", canary(&scene.status()));
    section("steps", scene.steps());
    section("events", events(scene).await);
    section("deployments", named(scene, DEPLOYMENT, deployment).await);
    section("autoscalers", named(scene, AUTOSCALER, autoscaler).await);
    section("configs", named(scene, CONFIG_MAP, |object| object["data"].to_string()).await);
    section("services", named(scene, SERVICE, |object| object["spec"]["selector"].to_string()).await);
    section("destination rules", named(scene, DESTINATION_RULE, |object| object["spec"]["host"].to_string()).await);
    section("routes", routes(scene).await);
    scene.host().requests_have_ended(&scene.namespace).await;
    if let Some(has_lost) = scene.has_lost_requests() {
        text += &users(has_lost);
    }
    normalised(&text, scene)
}

fn users(has_lost_requests: bool) -> String {
    let lost = if has_lost_requests { "some requests failed" } else { "no request failed" };
    format!("users\n  {lost}\n")
}

fn canary(status: &Value) -> Vec<String> {
    if !status.is_object() {
        return vec!["gone".to_owned()];
    }
    let promoted = if status["lastAppliedSpec"] == status["lastPromotedSpec"] { "is" } else { "is not" };
    let mut lines = vec![
        format!("{} {}", status["phase"].as_str().unwrap_or_default(), status["canaryWeight"]),
        format!("failed checks {}, iterations {}", status["failedChecks"], status["iterations"]),
        format!("the revision last seen {promoted} the promoted one"),
    ];
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        lines.push(format!("{} {} {}: {}", text("type"), text("status"), text("reason"), text("message")));
    }
    for field in ["sessionAffinityCookie", "previousSessionAffinityCookie", "primarySessionAffinityCookie"] {
        if let Some(cookie) = status[field].as_str().filter(|cookie| !cookie.is_empty()) {
            lines.push(format!("{field} {cookie}"));
        }
    }
    lines
}

/// Messages of the canary's events in the order in which they were last recorded. How often, which the events count, does
/// not matter, nor does the exact value of what was measured: of equal lines the last one counts. Whether pods
/// were waited for so long that it was told depends on how fast they start, and is left out; a rollback for that reason is not.
async fn events(scene: &Scene<'_>) -> Vec<String> {
    let mut events: Vec<Value> =
        scene.list(EVENT).await.into_iter().filter(|event| event["involvedObject"]["kind"] == "Canary").collect();
    // Versions are numbers that grow with every write, on real API servers too.
    events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| format!("{} {}", text(event, "type"), without_measurements(&text(event, "message"))))
        .collect();
    lines.retain(|line| {
        !line.contains("not ready") || !line.contains("waiting for rollout") || line.contains("Rolling")
    });
    let mut last = Vec::new();
    for line in lines.into_iter().rev() {
        if !last.contains(&line) {
            last.push(line);
        }
    }
    last.reverse();
    last
}

fn without_measurements(message: &str) -> String {
    let success_rate = Regex::new(r"success rate [0-9.]+%").unwrap();
    let duration = Regex::new(r"request duration [^ ]+").unwrap();
    let message = success_rate.replace_all(message, "success rate N%");
    duration.replace_all(&message, "request duration T").into_owned()
}

async fn named(scene: &Scene<'_>, kind: Kind, line: impl Fn(&Value) -> String) -> Vec<String> {
    let mut objects = scene.list(kind).await;
    objects.sort_by_key(|object| object["metadata"]["name"].to_string());
    // Every namespace of a real cluster has this one.
    objects.retain(|object| object["metadata"]["name"] != "kube-root-ca.crt");
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    objects.iter().map(|object| format!("{}: {}", name(object), line(object))).collect()
}

fn deployment(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let is_settled = status["observedGeneration"] == object["metadata"]["generation"];
    let settled = if is_settled { "" } else { ", its status is behind" };
    format!(
        "{} {} replicas, {} updated, {} available, {} in all{settled}",
        spec["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default(),
        spec["replicas"],
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
        number(&status["replicas"]),
    )
}

fn autoscaler(object: &Value) -> String {
    let spec = &object["spec"];
    format!("{} {}..{}", spec["scaleTargetRef"]["name"], spec["minReplicas"], spec["maxReplicas"])
}

/// Rules of the VirtualServices: conditions, destinations, copies and headers.
async fn routes(scene: &Scene<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut services = scene.list(VIRTUAL_SERVICE).await;
    services.sort_by_key(|object| object["metadata"]["name"].to_string());
    for service in services {
        let spec = &service["spec"];
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        lines.push(format!("{name}: hosts {} gateways {}", spec["hosts"], spec["gateways"]));
        for rule in spec["http"].as_array().into_iter().flatten() {
            let shown = ["match", "mirror", "mirrorPercentage", "timeout", "headers"];
            let mut line = Map::new();
            for field in shown.iter().filter(|field| rule.get(**field).is_some_and(|value| !value.is_null())) {
                line.insert((*field).to_owned(), rule[*field].clone());
            }
            let conditions = if line.is_empty() { String::new() } else { format!("{} ", json!(line)) };
            let destinations: Vec<String> = rule["route"].as_array().into_iter().flatten().map(destination).collect();
            lines.push(format!("{name}: {conditions}→ {}", destinations.join(", ")));
        }
    }
    lines
}

fn destination(route: &Value) -> String {
    let host = route["destination"]["host"].as_str().unwrap_or_default();
    let headers = route.get("headers").map(|headers| format!(" {headers}")).unwrap_or_default();
    match route["weight"].as_u64() {
        Some(weight) => format!("{host} {weight}{headers}"),
        None => format!("{host}{headers}"),
    }
}

/// Without what is the scenario's own: its namespace is `test`, and cookies are named after the field that they are in.
fn normalised(text: &str, scene: &Scene<'_>) -> String {
    let mut text = text.replace(&format!(".{}", scene.namespace), ".test");
    // They follow from uids.
    let status = scene.status();
    for (field, name) in [
        ("sessionAffinityCookie", "CANARY"),
        ("primarySessionAffinityCookie", "PRIMARY"),
        ("previousSessionAffinityCookie", "PREVIOUS"),
    ] {
        if let Some((_, value)) = status[field].as_str().and_then(|cookie| cookie.split_once('=')) {
            text = text.replace(value, name);
        }
    }
    text
}

fn difference(expected: &str, found: &str) -> String {
    let of = |sign: char, these: &str, others: &str| -> String {
        let others: Vec<&str> = others.lines().collect();
        these.lines().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    let lines = of('-', expected, found) + &of('+', found, expected);
    if lines.is_empty() { format!("the same lines in another order:\n{found}") } else { lines }
}
