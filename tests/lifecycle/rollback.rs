//! Bad releases.

use std::time::Duration;

use aviary_sim::controllers::{PodBehaviour, PodOutcome};
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use jiff::SignedDuration;
use serde_json::json;

use super::{SETTLE, assert_after, assert_at_once};
use crate::support::{AGENT, World, in_virtual_time};

#[test]
fn too_many_failed_checks_roll_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
        // Many users, so that the first scrapes show what goes on.
        world.traffic.set_load("test", "podinfo", 1000.0);
        world.begin(|_| {}).await;
        alerts.lock().unwrap().clear();
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;

        // The measured value varies a little with the times of the scrapes; equal values are one event.
        let is_halt =
            |text: &str| text.starts_with("Halt podinfo.test advancement success rate 9") && text.ends_with("% < 99%");
        let mut events = world.events_from("podinfo", "New revision");
        events.iter_mut().filter(|event| is_halt(event)).for_each(|event| "Halt".clone_into(event));
        events.dedup();
        assert_eq!(
            events,
            [
                "New revision detected! Scaling up podinfo.test",
                "Starting canary analysis for podinfo.test",
                "Advance podinfo.test canary weight 10",
                "Halt",
                "Rolling back podinfo.test failed checks threshold reached 3",
                "Canary failed! Scaling down podinfo.test",
            ]
        );
        let events = world.cluster.store().list(&kinds::EVENT, Some("test"));
        let halts = events.iter().filter(|event| is_halt(event["message"].as_str().unwrap_or_default()));
        let halts: Vec<(u64, &serde_json::Value)> =
            halts.map(|event| (event["count"].as_u64().unwrap_or_default(), &event["type"])).collect();
        assert_eq!(halts.iter().map(|(count, _)| count).sum::<u64>(), 3, "{halts:?}");
        assert!(halts.iter().all(|(_, severity)| *severity == "Warning"));
        assert_eq!(
            *alerts.lock().unwrap(),
            ["New revision detected, progressing canary analysis.", "Failed checks threshold reached 3"]
        );
        let rounds = SignedDuration::from_secs(30);
        assert_after(journal.time_of("Progressing", 10), journal.time_of("Failed", 0), rounds, "three rounds");
        let status = world.status("podinfo");
        assert_eq!((&status["canaryWeight"], &status["failedChecks"]), (&json!(0), &json!(0)));
        assert_eq!((world.replicas_of("podinfo"), world.replicas_of("podinfo-primary")), (0, 2));
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.0");
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
        let before = world.traffic.report("test", "podinfo").workload("podinfo");
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.traffic.report("test", "podinfo").workload("podinfo"), before);
    });
}

/// A release that has failed two checks, with a threshold that is far away.
async fn with_two_failed_checks() -> World {
    let mut world = World::new(1);
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
    world.begin(|canary| canary["spec"]["analysis"]["threshold"] = json!(100)).await;
    world.set_image("podinfo", "podinfo:6.0.2");
    world.wait_until("two failed checks", || world.status("podinfo")["failedChecks"] == 2).await;
    world
}

#[test]
fn a_lowered_threshold_rolls_back_at_once() {
    in_virtual_time(async {
        let world = with_two_failed_checks().await;
        world.pass(Duration::from_secs(3)).await;
        let edited = world.now();
        world.patch_canary("podinfo", json!({"analysis": {"threshold": 2}})).await;
        let to_canary =
            || world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap()["spec"]["http"][0]["route"][1].clone();
        world.wait_until("users are led away", || to_canary()["weight"] == 0).await;
        assert_at_once(edited, world.now(), "the way back of the users");
        world.wait_for_phase("podinfo", "Failed").await;
        assert_at_once(edited, world.now(), "the rollback");
        world.wait_until("the pods go", || world.replicas_of("podinfo") == 0).await;
        assert_after(edited, world.now(), SETTLE, "the end of the pods");
    });
}

/// A rollback is no repair: a write that is refused for a moment is tried again soon.
#[test]
fn a_rollback_whose_route_is_refused_for_a_second_leads_users_away_soon() {
    for status in [403, 500] {
        in_virtual_time(async {
            let world = with_two_failed_checks().await;
            let refusal = Rule::new(Action::error(status)).client(AGENT).writes().resource("virtualservices");
            let refusal = world.cluster.faults().add(refusal);
            let edited = world.now();
            world.patch_canary("podinfo", json!({"analysis": {"threshold": 2}})).await;
            world.pass(Duration::from_secs(1)).await;
            world.cluster.faults().remove(refusal);
            world.wait_for_phase("podinfo", "Failed").await;
            let took = world.now().duration_since(edited);
            assert!(took <= SignedDuration::from_secs(4), "{status}: {took:#}");
            assert_eq!(world.count_events("podinfo", "another writer"), 0, "{}", world.story());
        });
    }
}

/// Flagger is silent about the deadline (Q10).
#[test]
fn a_canary_that_does_not_start_is_rolled_back_at_its_deadline() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world.begin(|_| {}).await;
        alerts.lock().unwrap().clear();
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1-crash");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let waiting = "canary deployment podinfo.test not ready: waiting for rollout to finish: \
                       0 of 2 (readyThreshold 100%) updated replicas are available";
        assert_eq!(
            world.events_from("podinfo", "New revision"),
            [
                "New revision detected! Scaling up podinfo.test".to_owned(),
                waiting.to_owned(),
                format!("Rolling back podinfo.test progress deadline exceeded {waiting}"),
                "Canary failed! Scaling down podinfo.test".to_owned(),
            ]
        );
        assert_eq!(alerts.lock().unwrap().last(), Some(&format!("Progress deadline exceeded {waiting}")));
        let took = journal.time_of("Failed", 0).duration_since(journal.time_of("Progressing", 0));
        // Kubernetes writes times in whole seconds.
        assert!((59..=62).contains(&took.as_secs()), "progressDeadlineSeconds is 60: {took:#}");
        assert_eq!(world.traffic.report("test", "podinfo").workload("podinfo").requests, 0.0);
        world.assert_undisturbed();
    });
}

/// The promoted revision cannot start as primary: the canary serves everybody, and the fix must get through (Q1).
#[test]
fn a_failed_promotion_is_mended_by_the_next_revision() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world
            .begin(|canary| {
                let analysis = &mut canary["spec"]["analysis"];
                analysis["interval"] = json!("2m");
                (analysis["stepWeight"], analysis["maxWeight"]) = (json!(25), json!(50));
            })
            .await;
        // The primary takes it over with the promotion. While old pods serve, only this deadline counts.
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| target["spec"]["progressDeadlineSeconds"] = json!(60));
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Promoting").await;
        // The pods of the canary are older than this; those of the primary would become ready after the fix is through.
        let start_delay = Some(Duration::from_secs(235));
        world.pods.set("podinfo:6.0.1", PodBehaviour { start_delay, outcome: PodOutcome::Ready });
        alerts.lock().unwrap().clear();
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(1)).await;
        let exceeded = "podinfo-primary.test not ready: deployment \"podinfo-primary\" exceeded its progress deadline";
        assert_eq!(
            world.events("podinfo").last(),
            Some(&format!("Promotion of podinfo.test failed, primary not ready: {exceeded}"))
        );
        assert_eq!(*alerts.lock().unwrap(), [format!("Promotion failed, primary not ready: {exceeded}")]);
        assert_eq!((world.weight(), world.replicas_of("podinfo")), (100, 2), "the canary serves everybody");

        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.3");
        world.wait_for_phase("podinfo", "Progressing").await;
        assert_at_once(edited, world.now(), "detection of the fix");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(10)).await;
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.3");
        assert_eq!(world.replicas_of("podinfo"), 0);
        let failed = journal.steps().iter().filter(|(phase, _)| phase == "Failed").count();
        assert_eq!(failed, 1, "{:#?}", journal.entries());
        world.assert_undisturbed();
    });
}
