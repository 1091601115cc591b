//! A good release: its order, its times, and what users notice of it.

use std::time::Duration;

use aviary_sim::store::kinds;
use jiff::SignedDuration;
use serde_json::json;

use super::{SETTLE, assert_after, assert_at_once};
use crate::support::{World, canary, deployment, in_virtual_time};

const INTERVAL: SignedDuration = SignedDuration::from_secs(10);

#[test]
fn a_good_release_is_promoted_step_by_step() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world.begin(|_| {}).await;
        alerts.lock().unwrap().clear();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(
            world.events_from("podinfo", "New revision"),
            [
                "New revision detected! Scaling up podinfo.test",
                "Starting canary analysis for podinfo.test",
                "Advance podinfo.test canary weight 10",
                "Advance podinfo.test canary weight 20",
                "Advance podinfo.test canary weight 30",
                "Advance podinfo.test canary weight 40",
                "Advance podinfo.test canary weight 50",
                "Copying podinfo.test template spec to podinfo-primary.test",
                "Routing all traffic to primary",
                "Promotion completed! Scaling down podinfo.test",
            ]
        );
        assert_eq!(
            *alerts.lock().unwrap(),
            [
                "New revision detected, progressing canary analysis.",
                "Canary analysis completed successfully, promotion finished.",
            ]
        );
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
        assert_eq!((world.replicas_of("podinfo"), world.replicas_of("podinfo-primary")), (0, 2));
    });
}

/// DESIGN: what waits for an interval, and what happens as soon as its condition is seen.
#[test]
fn only_check_rounds_wait_for_an_interval() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        let journal = world.follow("test", "podinfo");
        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;

        assert_at_once(edited, journal.time_of("Progressing", 0), "detection");
        // Pods of the embedded cluster take three seconds to start, and the mesh one to hear of them.
        assert_after(edited, journal.time_of("Progressing", 10), SignedDuration::from_secs(4), "the first weight");
        for weight in [20, 30, 40, 50] {
            let (before, after) = (journal.time_of("Progressing", weight - 10), journal.time_of("Progressing", weight));
            assert_after(before, after, INTERVAL, &format!("weight {weight}"));
        }
        let (last, promoted) = (journal.time_of("Progressing", 50), journal.time_of("Promoting", 50));
        assert_after(last, promoted, INTERVAL, "the promotion");
        assert_after(journal.time_of("Finalising", 0), journal.time_of("Succeeded", 0), SETTLE, "the end");
        let rolled_out = journal.time_of("Finalising", 0).duration_since(promoted);
        assert!(rolled_out < INTERVAL, "two pods, one after the other, take six seconds: {rolled_out:#}");
        assert_eq!(journal.steps().len(), 9, "{:#?}", journal.entries());
    });
}

#[test]
fn the_share_of_the_users_follows_each_weight_and_none_is_lost() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        for weight in [10_u32, 20, 30, 40, 50] {
            world.wait_for_weight(u64::from(weight)).await;
            world.pass(Duration::from_millis(100)).await;
            let before = world.traffic.report("test", "podinfo");
            world.pass(Duration::from_secs(9)).await;
            let after = world.traffic.report("test", "podinfo");
            let canary = after.workload("podinfo").requests - before.workload("podinfo").requests;
            let share = canary / (after.requests() - before.requests());
            assert!((share - f64::from(weight) / 100.0).abs() < 1e-6, "{weight}: {share}");
        }
        world.wait_for_phase("podinfo", "Succeeded").await;
        let before = world.traffic.report("test", "podinfo");
        world.pass(Duration::from_secs(60)).await;
        let after = world.traffic.report("test", "podinfo");
        assert_eq!(after.workload("podinfo"), before.workload("podinfo"), "nothing is left on the canary");
        assert!(after.requests() > before.requests());
        world.assert_undisturbed();
    });
}

#[test]
fn a_run_without_analysis() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world.begin(|canary| canary["spec"]["skipAnalysis"] = json!(true)).await;
        let events = world.events("podinfo");
        assert!(events.iter().all(|event| !event.contains("metrics providers")), "{events:#?}");
        alerts.lock().unwrap().clear();
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(
            world.events_from("podinfo", "New revision"),
            [
                "New revision detected! Scaling up podinfo.test",
                "Copying podinfo.test template spec to podinfo-primary.test",
                "Promotion completed! Canary analysis was skipped for podinfo.test",
            ]
        );
        assert_eq!(
            *alerts.lock().unwrap(),
            ["New revision detected, progressing canary analysis.", "Canary analysis was skipped, promotion finished.",]
        );
        assert!(journal.steps().iter().all(|(_, weight)| *weight == 0));
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
        world.assert_undisturbed();
    });
}

#[test]
fn listed_weights_are_walked_in_order() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin(|canary| {
                let analysis = &mut canary["spec"]["analysis"];
                analysis["stepWeights"] = json!([1, 2, 10, 80]);
                analysis.as_object_mut().unwrap().retain(|key, _| key != "stepWeight" && key != "maxWeight");
            })
            .await;
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(1)).await;
        let weights: Vec<u64> =
            journal.steps().into_iter().filter(|(phase, _)| phase == "Progressing").map(|(_, weight)| weight).collect();
        assert_eq!(weights, [0, 1, 2, 10, 80]);
        world.assert_undisturbed();
    });
}

#[test]
fn the_way_back_is_walked_in_steps() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin(|canary| {
                let analysis = &mut canary["spec"]["analysis"];
                (analysis["stepWeight"], analysis["maxWeight"]) = (json!(100), json!(100));
                analysis["stepWeightPromotion"] = json!(50);
            })
            .await;
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        let expected = [
            ("Progressing", 0),
            ("Progressing", 100),
            ("Promoting", 100),
            ("Promoting", 50),
            ("Finalising", 0),
            ("Succeeded", 0),
        ];
        let found = journal.steps();
        let found: Vec<(&str, u64)> = found.iter().map(|(phase, weight)| (phase.as_str(), *weight)).collect();
        // The journal begins with the object as it was, if anything about it changed before the release.
        assert_eq!(found[found.len() - expected.len()..], expected);
        assert_after(
            journal.time_of("Promoting", 50),
            journal.time_of("Finalising", 0),
            INTERVAL,
            "the last step back",
        );
        assert_eq!(
            world.events_from("podinfo", "Advance"),
            [
                "Advance podinfo.test canary weight 100",
                "Copying podinfo.test template spec to podinfo-primary.test",
                "Advance podinfo.test primary weight 50",
                "Advance podinfo.test primary weight 100",
                "Promotion completed! Scaling down podinfo.test",
            ]
        );
        world.assert_undisturbed();
    });
}

#[test]
fn a_suspended_canary_stands_still_and_goes_on() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.patch_canary("podinfo", json!({"suspend": true})).await;
        world.pass(Duration::from_secs(1)).await;
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.weight(), 20);
        let calls = world.cluster.calls().since(&calls).of_client(crate::support::AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");
        let told = "skipping canary run as object is suspended";
        assert_eq!(world.count_events("podinfo", told), 1);

        let resumed = world.now();
        world.patch_canary("podinfo", json!({"suspend": false})).await;
        world.wait_for_weight(30).await;
        assert_at_once(resumed, world.now(), "the round that was due");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.count_events("podinfo", told), 1);
        let event =
            world.cluster.store().list(&kinds::EVENT, Some("test")).into_iter().find(|event| event["message"] == told);
        assert_eq!(event.expect("exists")["count"], 1);
    });
}

#[test]
fn a_canary_that_is_created_suspended_says_that_it_is_to_be_initialized() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut object = canary("test", "podinfo");
        object["spec"]["suspend"] = json!(true);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(object).await;
        world.start();
        world.wait_for_phase("podinfo", "Initializing").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.phase("podinfo"), "Initializing");
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none(), "nothing is made yet");
        assert_eq!(world.events("podinfo"), ["skipping canary run as object is suspended"]);
        world.patch_canary("podinfo", json!({"suspend": false})).await;
        world.wait_for_phase("podinfo", "Initialized").await;
    });
}

#[test]
fn an_edited_spec_counts_at_once() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|canary| canary["spec"]["analysis"]["interval"] = json!("10m")).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(10).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.weight(), 10);
        let edited = world.now();
        world.patch_canary("podinfo", json!({"analysis": {"interval": "10s"}})).await;
        world.wait_for_weight(20).await;
        assert_at_once(edited, world.now(), "the round that is due under the new interval");
        world.wait_for_weight(30).await;
        assert_after(edited, world.now(), INTERVAL, "the next round");
    });
}
