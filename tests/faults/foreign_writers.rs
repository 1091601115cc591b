//! Somebody else writes to what Aviary works with, in the middle of a release.

use std::time::Duration;

use aviary_sim::calls::{CallCounts, Verb};
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use serde_json::{Value, json};

use super::{released_to, undisturbed};
use crate::support::checks::assert_same_end;
use crate::support::{AGENT, World, checks, in_virtual_time};

/// Waits for the good end of the release.
async fn promoted(world: &World) {
    world.wait_for_phase("podinfo", "Succeeded").await;
    world.pass(Duration::from_secs(120)).await;
}

fn weights(world: &World) -> Vec<(String, i64)> {
    let routes = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("routes");
    let routes = routes["spec"]["http"][0]["route"].as_array().cloned().unwrap_or_default();
    let weight = |route: &Value| {
        let host = route["destination"]["host"].as_str().unwrap_or_default().to_owned();
        (host, route["weight"].as_i64().unwrap_or_default())
    };
    routes.iter().map(weight).collect()
}

fn split(primary: i64, canary: i64) -> Vec<(String, i64)> {
    vec![("podinfo-primary".to_owned(), primary), ("podinfo-canary".to_owned(), canary)]
}

fn set_weights(world: &World, primary: i64, canary: i64) {
    world.change(&kinds::VIRTUAL_SERVICE, "podinfo", |routes| {
        routes["spec"]["http"][0]["route"][0]["weight"] = json!(primary);
        routes["spec"]["http"][0]["route"][1]["weight"] = json!(canary);
    });
}

#[test]
fn edited_weights_are_put_right_and_told_once() {
    // More, less, the next weight too early, all, none, and a sum that no mesh would take.
    for (primary, canary) in [(40, 60), (95, 5), (70, 30), (0, 100), (100, 0), (50, 40)] {
        let end = in_virtual_time(async {
            let world = released_to(20).await;
            assert_eq!(weights(&world), split(80, 20));
            set_weights(&world, primary, canary);
            world.pass(Duration::from_secs(1)).await;
            assert_eq!(weights(&world), split(80, 20), "{primary} {canary}");
            assert_eq!(world.status("podinfo")["canaryWeight"], 20);
            // Weights that are no split at all are repaired with the routes that they are in.
            let told = if primary + canary == 100 { 1 } else { 0 };
            assert_eq!(world.count_events("podinfo", "instead of 20"), told, "{primary} {canary}\n{}", world.story());
            promoted(&world).await;
            checks::final_state(&world.cluster)
        });
        assert_same_end(
            &undisturbed("podinfo:6.0.1", "Succeeded"),
            &end,
            &format!("weights set to {primary}/{canary}"),
        );
    }
}

#[test]
fn what_others_add_to_the_routes_survives() {
    in_virtual_time(async {
        let world = released_to(20).await;
        world.change(&kinds::VIRTUAL_SERVICE, "podinfo", |routes| {
            // Retries are declared in the canary (`spec.service.retries`), or there are none.
            routes["spec"]["http"][0]["retries"] = json!({"attempts": 3});
            routes["spec"]["http"][0]["name"] = json!("main");
            routes["spec"]["http"][0]["route"][0]["headers"] = json!({"response": {"set": {"x-side": "primary"}}});
            routes["spec"]["exportTo"] = json!(["."]);
            routes["metadata"]["labels"]["team"] = json!("payments");
            routes["metadata"]["annotations"]["note"] = json!("kept");
        });
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(weights(&world), split(80, 20));
        promoted(&world).await;
        let routes = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("routes");
        assert_eq!(routes["spec"]["http"][0].get("retries"), None, "{routes:#}");
        assert_eq!(routes["spec"]["http"][0]["name"], "main");
        assert_eq!(routes["spec"]["http"][0]["route"][0]["headers"]["response"]["set"]["x-side"], "primary");
        assert_eq!(routes["spec"]["exportTo"], json!(["."]));
        assert_eq!(routes["metadata"]["labels"]["team"], "payments");
        assert_eq!(routes["metadata"]["annotations"]["note"], "kept");
        assert_eq!(weights(&world), split(100, 0));
    });
}

#[test]
fn deleted_objects_come_back_as_they_were() {
    let expected = undisturbed("podinfo:6.0.1", "Succeeded");
    let objects = [
        (&kinds::SERVICE, "podinfo-canary"),
        (&kinds::SERVICE, "podinfo-primary"),
        (&kinds::SERVICE, "podinfo"),
        (&kinds::VIRTUAL_SERVICE, "podinfo"),
        (&kinds::DESTINATION_RULE, "podinfo-canary"),
    ];
    for (kind, name) in objects {
        let end = in_virtual_time(async {
            let world = released_to(20).await;
            world.cluster.store().delete(kind, "test", name).unwrap();
            world.pass(Duration::from_secs(1)).await;
            assert!(world.get(kind, name).is_some(), "{name}");
            assert_eq!(weights(&world), split(80, 20), "{kind} {name}");
            promoted(&world).await;
            checks::final_state(&world.cluster)
        });
        assert_same_end(&expected, &end, &format!("{kind} {name} deleted"));
    }
}

/// The status is where the state lives: what is written there is what the routes are brought to.
#[test]
fn an_edited_status_is_followed() {
    for weight in [0, 10, 40] {
        let end = in_virtual_time(async {
            let world = released_to(20).await;
            world.change(&kinds::CANARY, "podinfo", |canary| canary["status"]["canaryWeight"] = json!(weight));
            world.pass(Duration::from_secs(1)).await;
            // At weight 0 the analysis begins, which it does at once.
            let expected = if weight == 0 { 10 } else { weight };
            assert_eq!(weights(&world), split(100 - expected, expected), "{}", world.story());
            promoted(&world).await;
            checks::final_state(&world.cluster)
        });
        assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, &format!("status set to weight {weight}"));
    }
}

#[test]
fn a_scaled_primary_and_a_scaled_canary_are_promoted() {
    for name in ["podinfo-primary", "podinfo"] {
        in_virtual_time(async {
            let world = released_to(20).await;
            world.change(&kinds::DEPLOYMENT, name, |workload| workload["spec"]["replicas"] = json!(5));
            promoted(&world).await;
            let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").expect("primary");
            // The primary takes over the target's replicas.
            assert_eq!(primary["spec"]["replicas"], if name == "podinfo" { 5 } else { 2 });
            assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
            assert_eq!(weights(&world), split(100, 0));
            let report = world.traffic.report("test", "podinfo");
            assert_eq!(report.interruptions, 0, "{}", world.story());
        });
    }
}

#[test]
fn a_namespace_that_is_deleted_goes_with_its_canary() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
            kube::Api::all(world.cluster.client("kubectl"));
        namespaces.delete("test", &kube::api::DeleteParams::default()).await.unwrap();
        let is_gone = || world.cluster.store().get(&kinds::NAMESPACE, "", "test").is_none();
        world.wait_until("the namespace is gone", is_gone).await;
        for kind in [&kinds::CANARY, &kinds::DEPLOYMENT, &kinds::POD, &kinds::EVENT] {
            assert_eq!(world.cluster.store().list(kind, Some("test")).len(), 0, "{kind}");
        }
    });
}

/// The write that scales the target down takes a second, of which half has passed; and the calls before the release ended.
async fn in_the_middle_of_the_scale_down() -> (World, CallCounts) {
    let world = released_to(50).await;
    let slow = Rule::new(Action::Delay(Duration::from_secs(1))).client(AGENT).verbs(&[Verb::Patch]);
    world.cluster.faults().add(slow.resource("deployments").name("podinfo").nth(1));
    let before = world.cluster.calls().snapshot();
    world.wait_for_phase("podinfo", "Finalising").await;
    // Three seconds for the mesh to follow, and half of the delay.
    world.pass(Duration::from_millis(3500)).await;
    (world, before)
}

/// The Deployment controller writes the status whenever it likes; that is no reason to look again.
#[test]
fn a_status_write_does_not_hold_up_a_scale_down() {
    in_virtual_time(async {
        let (world, before) = in_the_middle_of_the_scale_down().await;
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| target["status"]["collisionCount"] = json!(1));
        world.wait_for_phase("podinfo", "Succeeded").await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        // The primary's promotion and the target's scale-down, once each.
        assert_eq!((calls.count(Verb::Patch, "deployments"), calls.count(Verb::Get, "deployments")), (2, 0), "{calls}");
    });
}

/// An edit of the spec in that moment is: the revision is another one.
#[test]
fn a_scale_down_is_not_written_over_an_edit() {
    in_virtual_time(async {
        let (world, before) = in_the_middle_of_the_scale_down().await;
        world.set_image("podinfo", "podinfo:6.0.3");
        world.pass(Duration::from_secs(1)).await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        assert_eq!(calls.count(Verb::Get, "deployments"), 1, "{calls}");
        promoted(&world).await;
        world.wait_until("the edit is promoted", || world.image_of("podinfo-primary") == "podinfo:6.0.3").await;
    });
}

/// A controller that owns the weights, too, and undoes each repair, wins nothing but the time that it takes.
#[test]
fn a_fight_over_the_weights_of_an_analysis_comes_to_rest() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let before = world.cluster.calls().snapshot();
        for _ in 0..300 {
            if weights(&world) != split(95, 5) {
                set_weights(&world, 95, 5);
            }
            world.pass(Duration::from_secs(1)).await;
        }
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        // Five a minute, and no more statuses.
        assert!((5..=25).contains(&calls.count(Verb::Patch, "virtualservices")), "{calls}");
        assert!(calls.count(Verb::Update, "canaries") <= 25, "{calls}");
        assert_eq!(world.count_events("podinfo", "changed by another writer"), 1, "{}", world.story());
        assert_eq!(world.count_events("podinfo", "another writer keeps the routes at 5"), 1, "{}", world.story());
        // What got 5 % earns no step of 20 %.
        assert_eq!(world.status("podinfo")["canaryWeight"], 20, "{}", world.story());
        assert_eq!(world.status("podinfo")["phase"], "Progressing", "{}", world.story());
        promoted(&world).await;
    });
}

/// A repair that is not made, because somebody else was faster, is none of those that are undone again and again.
#[test]
fn conflicts_are_no_repairs() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let rule = Rule::new(Action::error(409)).client(AGENT).writes().resource("virtualservices").times(8);
        world.cluster.faults().add(rule);
        set_weights(&world, 100, 0);
        world.pass(Duration::from_secs(4)).await;
        assert_eq!(weights(&world), split(80, 20), "{}", world.story());
        assert_eq!(world.count_events("podinfo", "changed by another writer"), 0, "{}", world.story());
        promoted(&world).await;
    });
}

/// Whoever writes a Canary all the time gets his way, and nobody is told that something is wrong, or the same thing twice.
#[test]
fn a_busy_writer_of_the_canary_is_outwaited_in_silence() {
    in_virtual_time(async {
        let world = super::served().await;
        let rule = Rule::new(Action::error(409)).client(AGENT).writes().resource("canaries").subresource("status");
        let busy = world.cluster.faults().add(rule);
        world.set_image("podinfo", "podinfo:6.0.1");
        let before = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(60)).await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        // Five steps of four tries each, and again after 1, 2, 4 … seconds.
        assert!((100..=140).contains(&calls.count(Verb::Update, "canaries")), "{calls}");
        world.cluster.faults().remove(busy);
        promoted(&world).await;
        assert_eq!(world.count_events("podinfo", "does not take hold"), 0, "{}", world.story());
        for told in ["New revision detected!", "Starting canary analysis"] {
            let events = world.cluster.store().list(&kinds::EVENT, Some("test"));
            let counts: Vec<&Value> = events
                .iter()
                .filter(|event| event["message"].as_str().is_some_and(|message| message.starts_with(told)))
                .map(|event| &event["count"])
                .collect();
            assert_eq!(counts, [&json!(1)], "{told}\n{}", world.story());
        }
    });
}
