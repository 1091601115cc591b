//! What a real kube-apiserver answered, request by request (`sim/tests/fixtures/apply`), and what the embedded cluster answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service;

use crate::support::bare_cluster;

const SCENARIOS: &str = include_str!("../fixtures/apply/scenarios.json");
const ANSWERS: &str = include_str!("../fixtures/apply/answers.json");

async fn send(server: &mut aviary_sim::apiserver::ApiServer, step: &Value) -> (u16, Value) {
    let text = |field: &str| step[field].as_str().unwrap().to_owned();
    let separator = if text("query").is_empty() { "" } else { "?" };
    let body = if step["method"] == "GET" { String::new() } else { text("body") };
    let request = http::Request::builder()
        .method(text("method").as_str())
        .uri(format!("{}{separator}{}", text("path"), text("query")))
        .header("Content-Type", text("contentType"))
        .header("User-Agent", text("agent"))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = server.call(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({"message": String::from_utf8_lossy(&bytes)}));
    (code, body)
}

/// The counterpart of `answers.py`.
fn shorten(keep: &str, code: u16, body: &Value, versions: &mut BTreeMap<String, Vec<String>>) -> Value {
    if code >= 400 {
        return shorten_refusal(code, body);
    }
    let mut answer = json!({"code": code});
    if keep == "nothing" {
        return answer;
    }
    let metadata = &body["metadata"];
    answer["managedFields"] = managed_fields(metadata);
    if keep == "managed" || body["kind"] == "Scale" {
        return answer;
    }
    let or_empty = |value: &Value, empty: Value| if value.is_null() { empty } else { value.clone() };
    answer["labels"] = or_empty(&metadata["labels"], json!({}));
    answer["annotations"] = or_empty(&metadata["annotations"], json!({}));
    answer["finalizers"] = or_empty(&metadata["finalizers"], json!([]));
    if keep == "deployment" {
        answer["replicas"] = body["spec"]["replicas"].clone();
        answer["containers"] = body["spec"]["template"]["spec"]["containers"].clone();
        return answer;
    }
    let order = versions.entry(metadata["uid"].as_str().unwrap().to_owned()).or_default();
    let version = metadata["resourceVersion"].as_str().unwrap().to_owned();
    if !order.contains(&version) {
        order.push(version.clone());
    }
    answer["write"] = json!(order.iter().position(|candidate| *candidate == version));
    answer["generation"] = metadata["generation"].clone();
    for field in ["data", "spec", "status"] {
        if let Some(value) = body.get(field) {
            answer[field] = value.clone();
        }
    }
    answer
}

fn shorten_refusal(code: u16, body: &Value) -> Value {
    let mut causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
    causes.sort_by_key(|cause| (cause["field"].to_string(), cause["message"].to_string()));
    let message = body["message"].as_str().unwrap_or_default();
    let mut lines: Vec<&str> = message.split('\n').collect();
    lines.sort_unstable();
    if message.starts_with("error decoding YAML") || code == 415 {
        lines.clear();
    }
    let reason = body["reason"].as_str().unwrap_or_default();
    json!({"code": code, "reason": reason, "message": lines, "causes": causes})
}

fn managed_fields(metadata: &Value) -> Value {
    let mut entries = metadata["managedFields"].as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        entry["time"] = json!(if entry.get("time").is_some() { "set" } else { "unset" });
    }
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries.sort_by_key(|entry| ["operation", "manager", "apiVersion", "subresource"].map(|field| text(entry, field)));
    Value::Array(entries)
}

/// Where two values differ, a line for each place.
fn differences(path: &str, expected: &Value, found: &Value, lines: &mut String) {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) => {
            let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names {
                let at =
                    |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or(json!("(absent)"));
                differences(&format!("{path}/{name}"), &at(left), &at(right), lines);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}/{index}"), left, right, lines);
            }
        }
        _ if expected != found => writeln!(lines, "  {path}\n    real: {expected}\n    here: {found}").unwrap(),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn answers_about_ownership_are_those_of_a_real_api_server() {
    let scenarios: BTreeMap<String, Value> = serde_json::from_str(SCENARIOS).unwrap();
    let answers: Value = serde_json::from_str(ANSWERS).unwrap();
    let cluster = bare_cluster(1);
    let mut server = cluster.api_server();
    let mut report = String::new();
    // They follow each other in the order of the file that made them.
    let order = [
        "setup",
        "ownership",
        "refusals",
        "writers",
        "custom resources",
        "deployments",
        "client-side apply",
        "creators",
    ];
    assert_eq!(order.len(), scenarios.len(), "every scenario has its place");
    for name in order {
        let scenario = &scenarios[name];
        let mut versions = BTreeMap::new();
        for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
            let (code, body) = send(&mut server, step).await;
            let found = shorten(scenario["keep"].as_str().unwrap(), code, &body, &mut versions);
            let mut lines = String::new();
            differences("", &answers[name][index], &found, &mut lines);
            if !lines.is_empty() {
                let place = format!("{name} {index}: {} {} {}", step["method"], step["path"], step["query"]);
                writeln!(report, "{place}\n  {}\n{lines}", step["body"]).unwrap();
            }
        }
    }
    assert!(report.is_empty(), "differs from the recorded answers:\n{report}");
}
