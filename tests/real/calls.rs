//! What the controller costs an API server, counted by that.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::ListParams;
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
        // A Deployment's controller writes its status as the Deployment is scaled, and whether that meets a write of Aviary is
        // chance: several tries.
        let promoted = ["promoted-a", "promoted-b", "promoted-c", "promoted-d"];
        for name in ["resting", "failed"].iter().chain(&promoted) {
            create_through(client.clone(), deployment("test", name, "podinfo:6.0.0")).await;
            let mut object = canary("test", name);
            object["spec"]["analysis"]["threshold"] = json!(1);
            // Where nobody asks, metrics have no values, and the check fails.
            if *name != "failed" {
                object["spec"]["analysis"]["metrics"] = json!([]);
            }
            create_through(client.clone(), object).await;
        }
        let start = bench.audit();
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
        for name in ["resting", "failed"].iter().chain(&promoted) {
            in_phase(&client, name, "Initialized").await;
        }
        assert_start_up(&start);

        set_image(&client, "failed", "podinfo:6.2.0").await;
        for release in 1..=if is_full_set() { 5 } else { 1 } {
            releases_of_five_steps(&bench, &client, &promoted, &format!("podinfo:6.1.{release}")).await;
        }
        in_phase(&client, "failed", "Failed").await;
        idle(&bench, &client).await;
    });
}

async fn in_phase(client: &Client, name: &str, phase: &str) {
    let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
    eventually(&format!("{name} is {phase}"), async || get(&canaries, name).await.unwrap()["status"]["phase"] == phase)
        .await;
}

fn assert_start_up(start: &Audit) {
    let is_look = |call: &Call| call.verb == "list" && call.uri.ends_with("limit=1");
    let looks: BTreeMap<_, _> = OWN.iter().map(|kind| (format!("list {kind}"), 1)).collect();
    assert_eq!(start.count(is_look), looks, "whether the definitions are there");
    let mut expected = calls_of_start_up();
    expected.retain(|call, _| !UNSERVED.iter().any(|kind| *call == format!("watch {kind}")));
    assert_eq!(start.count(|call| call.fills_a_cache() && !is_look(call)), expected);
    let reads = start.count(|call| call.verb == "get");
    assert_eq!(reads, BTreeMap::from([("get /version".to_owned(), 1)]));
}

async fn releases_of_five_steps(bench: &Inside, client: &Client, canaries: &[&str], image: &str) {
    let audit = bench.audit();
    for canary in canaries {
        set_image(client, canary, image).await;
    }
    for phase in ["Progressing", "Succeeded"] {
        for canary in canaries {
            in_phase(client, canary, phase).await;
        }
    }
    for canary in canaries {
        let is_its_own = |call: &Call| {
            let rest = call.name.strip_prefix(canary);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.'])) && !call.fills_a_cache()
        };
        let of_events = |call: &Call| is_its_own(call) && call.resource == "events";
        // Nobody waits for an event. One that has been told before is counted in the same object.
        eventually("ten events", async || audit.count(of_events).values().sum::<u64>() >= 10).await;
        assert_eq!(audit.count(of_events).values().sum::<u64>(), 10);
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
    let others: Vec<_> = audit.calls().into_iter().filter(|call| call.verb == "get" || call.code >= 300).collect();
    assert!(others.is_empty(), "reads, and writes that were refused: {others:#?}");
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
    let time = Duration::from_secs(if is_full_set() { 600 } else { 20 });
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
