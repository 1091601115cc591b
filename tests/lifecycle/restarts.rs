//! Revisions that come, go, and come back.

use std::time::Duration;

use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use serde_json::json;

use super::assert_at_once;
use crate::support::{World, in_virtual_time};

#[test]
fn a_newer_revision_starts_the_analysis_over() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.pass(Duration::from_secs(4)).await;
        let journal = world.follow("test", "podinfo");
        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_weight(0).await;
        assert_at_once(edited, world.now(), "the restart");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        let events = world.events_from("podinfo", "New revision detected! Restarting");
        assert_eq!(events[0], "New revision detected! Restarting analysis for podinfo.test");
        // Events that repeat count up, so the second walk over the weights shows in the journal only.
        let steps = journal.steps();
        let weights: Vec<u64> =
            steps.iter().filter(|(phase, _)| phase == "Progressing").map(|(_, weight)| *weight).collect();
        assert_eq!(weights, [0, 10, 20, 30, 40, 50]);
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.2");
        world.assert_undisturbed();
    });
}

/// Flagger goes on and promotes it (Q15).
#[test]
fn going_back_to_the_promoted_revision_ends_the_analysis() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.pass(Duration::from_secs(4)).await;
        let primary = world.generation_of("podinfo-primary");
        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.0");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_at_once(edited, world.now(), "the end of the analysis");
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(
            world.events("podinfo").last().map(String::as_str),
            Some("podinfo.test is back at the promoted revision, canary analysis of podinfo.test stopped")
        );
        assert_eq!(world.phase("podinfo"), "Succeeded");
        assert_eq!((world.weight(), world.replicas_of("podinfo")), (0, 0));
        assert_eq!(world.generation_of("podinfo-primary"), primary, "the primary's pods are left alone");

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
        world.assert_undisturbed();
    });
}

/// `kubectl rollout restart` of the primary annotates its pods.
#[test]
fn a_primary_that_somebody_restarted_is_no_news() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.change(&kinds::DEPLOYMENT, "podinfo-primary", |primary| {
            let annotations = &mut primary["spec"]["template"]["metadata"]["annotations"];
            annotations["kubectl.kubernetes.io/restartedAt"] = json!("2026-01-01T00:00:00Z");
        });
        world.pass(Duration::from_secs(60)).await;
        let primary = world.generation_of("podinfo-primary");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.set_image("podinfo", "podinfo:6.0.0");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.count_events("podinfo", "Restarting analysis"), 0, "{}", world.story());
        assert_eq!(world.generation_of("podinfo-primary"), primary, "its pods are left alone");
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.2");
        world.assert_undisturbed();
    });
}

/// Flagger's nginx life cycle.
#[test]
fn a_failed_revision_can_be_left_and_tried_again() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.5));
        world.begin(|_| {}).await;
        let primary = world.generation_of("podinfo-primary");
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;

        world.set_image("podinfo", "podinfo:6.0.0");
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.phase("podinfo"), "Failed", "going back is no release");
        assert_eq!(world.generation_of("podinfo-primary"), primary, "the primary's pods are left alone");
        assert_eq!(world.replicas_of("podinfo"), 0);

        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Progressing").await;
        assert_at_once(edited, world.now(), "detection");
        world.wait_for_phase("podinfo", "Failed").await;

        // The fault was elsewhere, and is out of the window of the checks: the same revision is tried again, told by an
        // annotation.
        world.pass(Duration::from_secs(120)).await;
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::default());
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| {
            target["spec"]["template"]["metadata"]["annotations"] = json!({"retry": "1"});
        });
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.2");
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    });
}

/// Replicas, labels and the like of the Deployment itself are carried along with the next promotion.
#[test]
fn what_is_no_revision_starts_nothing() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| {
            target["metadata"]["labels"]["team"] = json!("a");
            target["spec"]["minReadySeconds"] = json!(1);
        });
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.phase("podinfo"), "Initialized");
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        assert!(primary["spec"]["minReadySeconds"].as_u64().unwrap_or(0) == 0, "{primary:#}");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        assert_eq!(primary["spec"]["minReadySeconds"], 1);
        world.assert_undisturbed();
    });
}
