//! What the controller costs an API server, counted by that.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use kube::Client;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::json;

use super::audit::{Audit, Call};
use super::bench::is_full_set;
use super::{Inside, api, canary, create_through, deployment, eventually, get, in_bench, set_image};
use crate::support::calls_of_start_up;

/// Kinds of Aviary's own, which are looked for before anything else is done.
const OWN: [&str; 3] = ["alertproviders", "canaries", "metrictemplates"];
/// Kinds that the bench does not serve: asked for once, and not again as no canary needs them.
const UNSERVED: [&str; 2] = ["scaledobjects", "trafficsplits"];
/// A watch is asked for so long.
const WATCH: Duration = Duration::from_secs(290);

#[test]
fn the_api_server_is_asked_for_what_changes_and_nothing_else() {
    in_bench("real::calls::the_api_server_is_asked_for_what_changes_and_nothing_else", async |bench: Inside| {
        let client = bench.client("admin").await;
        let promoted = ["promoted-a", "promoted-b", "promoted-c", "promoted-d"];
        for name in ["resting", "failed"].iter().chain(&promoted) {
            create_through(client.clone(), deployment("test", name, "podinfo:6.0.0")).await;
            let mut object = canary("test", name);
            object["spec"]["analysis"]["threshold"] = json!(1);
            object["spec"]["analysis"]["interval"] = json!("2s");
            // Where nobody asks, metrics have no values, and the check fails.
            if *name != "failed" {
                object["spec"]["analysis"]["metrics"] = json!([]);
            }
            create_through(client.clone(), object).await;
        }
        ask_for_custom_resources(&client).await;
        let start = bench.audit();
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio", "--shortest-interval=2s"]);
        for name in ["resting", "failed"].iter().chain(&promoted) {
            in_phase(&client, name, "Initialized").await;
        }
        assert_start_up(&start).await;

        set_image(&client, "failed", "podinfo:6.2.0").await;
        for release in 1..=if is_full_set() { 5 } else { 1 } {
            releases_of_five_steps(&bench, &client, &promoted, &format!("podinfo:6.1.{release}")).await;
        }
        in_phase(&client, "failed", "Failed").await;
        idle(&bench, &client).await;
    });
}

/// What nobody has asked for before, the API server reads when somebody does; a watch of it is refused until then, or ends at once
/// and is listed anew. This is not about that.
async fn ask_for_custom_resources(client: &Client) {
    let kinds = [
        ("flagger.app", "v1beta1", "Canary"),
        ("flagger.app", "v1beta1", "MetricTemplate"),
        ("flagger.app", "v1beta1", "AlertProvider"),
        ("apps.weave.works", "v1beta1", "Rollout"),
        ("otomato.link", "v1alpha1", "BirdWatch"),
        ("networking.istio.io", "v1", "VirtualService"),
        ("networking.istio.io", "v1", "DestinationRule"),
    ];
    let watched = kinds.map(async |(group, version, kind)| {
        let objects = api(client.clone(), group, version, kind, None);
        let can_be_watched = async || {
            let version = objects.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
            let Ok(events) = objects.watch(&WatchParams::default().timeout(1), &version).await else { return false };
            events.all(async |event| !matches!(event, Err(_) | Ok(WatchEvent::Error(_)))).await
        };
        eventually(&format!("{kind} can be watched"), can_be_watched).await;
    });
    join_all(watched).await;
}

/// Kinds that are not served are asked for all the same.
fn is_unserved(call: &Call) -> bool {
    UNSERVED.contains(&call.resource.as_str())
}

/// How often it was told that pods of this canary are waited for.
async fn waits_told(client: &Client, canary: &str) -> u64 {
    let events = api(client.clone(), "", "v1", "Event", Some("test")).list(&ListParams::default()).await.unwrap();
    let is_wait = |event: &&DynamicObject| {
        let message = event.data["message"].as_str().unwrap_or_default();
        event.data["involvedObject"]["kind"] == "Canary"
            && event.data["involvedObject"]["name"] == canary
            && message.contains("not ready: waiting for rollout")
    };
    events.items.iter().filter(is_wait).map(|event| event.data["count"].as_u64().unwrap_or(1)).sum()
}

/// Promoted, and at rest again.
async fn is_released(client: &Client, name: &str, image: &str) {
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
    let runs = async || {
        let primary = get(&deployments, &format!("{name}-primary")).await.unwrap();
        primary["spec"]["template"]["spec"]["containers"][0]["image"] == image
    };
    eventually(&format!("{image} is promoted in {name}"), runs).await;
    in_phase(client, name, "Succeeded").await;
}

async fn in_phase(client: &Client, name: &str, phase: &str) {
    let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
    eventually(&format!("{name} is {phase}"), async || get(&canaries, name).await.unwrap()["status"]["phase"] == phase)
        .await;
}

async fn assert_start_up(start: &Audit) {
    let is_look = |call: &Call| call.verb == "list" && call.uri.ends_with("limit=1");
    let looks: BTreeMap<_, _> = OWN.iter().map(|kind| (format!("list {kind}"), 1)).collect();
    assert_eq!(start.count(is_look), looks, "whether the definitions are there");
    let mut expected = calls_of_start_up();
    expected.retain(|call, _| !UNSERVED.iter().any(|kind| *call == format!("watch {kind}")));
    let caches = || start.count(|call| call.fills_a_cache() && !is_look(call) && !is_put_off(call));
    // A canary may be initialized before the last watch of what it does not need has begun.
    eventually("every kind is watched", async || expected.keys().all(|call| caches().contains_key(call))).await;
    assert_eq!(caches(), expected);
    assert_eq!(start.number(|call| call.resource == "/version"), 1);
    let others: Vec<_> =
        start.calls().into_iter().filter(|call| call.resource != "/version" && !is_unserved(call)).collect();
    assert_reads_follow_conflicts(&others);
}

async fn releases_of_five_steps(bench: &Inside, client: &Client, canaries: &[&str], image: &str) {
    let audit = bench.audit();
    let mut waits_before = BTreeMap::new();
    for canary in canaries {
        waits_before.insert(canary, waits_told(client, canary).await);
        set_image(client, canary, image).await;
    }
    for canary in canaries {
        is_released(client, canary, image).await;
    }
    for canary in canaries {
        let is_its_own = |call: &Call| {
            let rest = call.name.strip_prefix(canary);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
                && !call.fills_a_cache()
                && call.succeeded()
                && call.verb != "get"
        };
        let of_events = |call: &Call| is_its_own(call) && call.resource == "events";
        // Nobody waits for an event. One that has been told before is counted in the same object. Whether pods are waited for longer
        // than an interval, which is told, depends on the machine.
        let expected_events = async || 10 + waits_told(client, canary).await - waits_before[canary];
        let events = || audit.count(of_events).values().sum::<u64>();
        eventually("ten events", async || events() >= expected_events().await).await;
        assert_eq!(events(), expected_events().await);
        let expected = [
            // Target up, primary, target to zero.
            ("patch deployments".to_owned(), 3),
            // Five weights and back.
            ("patch virtualservices".to_owned(), 6),
            // Detected, five weights, promoting, finalising, succeeded.
            ("update canaries/status".to_owned(), 9),
        ];
        let calls: Vec<_> = audit.calls().iter().filter(|call| is_its_own(call)).map(Call::to_string).collect();
        let counts = audit.count(|call| is_its_own(call) && call.resource != "events");
        assert_eq!(counts, BTreeMap::from(expected), "{canary}\n{}", calls.join("\n"));
    }
    let lists = audit.count(|call| call.verb == "list" && !is_unserved(call));
    assert_eq!(lists, BTreeMap::new(), "what is watched is not listed in the course of a release");
    assert_reads_follow_conflicts(&audit.calls());
}

/// A kind that nobody has asked for before is still being read by the API server, which puts off the watch.
fn is_put_off(call: &Call) -> bool {
    call.verb == "watch" && call.code == 429
}

/// An object is read when a write of it was refused because somebody else has written it meanwhile, and then once; and nothing else is
/// refused. Whether the status that a Deployment's controller writes meets a write of Aviary is chance, so it may, but nobody
/// writes to what else Aviary writes.
fn assert_reads_follow_conflicts(calls: &[Call]) {
    let mut conflicts: BTreeMap<String, i64> = BTreeMap::new();
    for call in calls {
        let open = conflicts.entry(format!("{} {}.{}", call.resource, call.name, call.namespace)).or_default();
        if call.met_another_writer() {
            assert_eq!(call.resource, "deployments", "nobody else writes there: {call}");
            *open += 1;
            println!("met another writer: {call}");
        } else {
            assert!(call.succeeded() || is_put_off(call), "{call}");
        }
        *open -= i64::from(call.verb == "get");
        assert!(*open >= 0, "a read without need: {call}");
    }
}

/// A canary at rest in each of the phases of rest.
async fn idle(bench: &Inside, client: &Client) {
    // Its last event, for which nobody waits.
    let events = api(client.clone(), "", "v1", "Event", Some("test"));
    eventually("the event of the rollback", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.items.iter().any(|event| event.data["message"] == "Canary failed! Scaling down failed.test")
    })
    .await;
    let time = Duration::from_secs(if is_full_set() { 600 } else { 60 });
    let audit = bench.audit();
    tokio::time::sleep(time).await;
    assert_eq!(audit.count(|call| !call.fills_a_cache()), BTreeMap::new(), "in {time:?}");
    let reopened = audit.count(Call::fills_a_cache);
    let most = time.as_secs() / WATCH.as_secs() + 1;
    println!("watches opened again in {time:?}: {reopened:?}");
    for (call, count) in &reopened {
        assert!(call.starts_with("watch") && *count <= most, "{call} {count} times in {time:?}");
    }
}
