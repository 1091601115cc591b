//! Canaries that are deleted, and created again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_sim::store::kinds;
use futures::FutureExt;
use serde_json::json;

use crate::support::{World, canary, in_virtual_time};

impl World {
    fn owned_objects(&self) -> Vec<String> {
        let owned = [
            (&kinds::DEPLOYMENT, "podinfo-primary"),
            (&kinds::SERVICE, "podinfo"),
            (&kinds::SERVICE, "podinfo-primary"),
            (&kinds::SERVICE, "podinfo-canary"),
            (&kinds::VIRTUAL_SERVICE, "podinfo"),
            (&kinds::DESTINATION_RULE, "podinfo-primary"),
            (&kinds::DESTINATION_RULE, "podinfo-canary"),
        ];
        let present = owned.iter().filter(|(kind, name)| self.get(kind, name).is_some());
        present.map(|(kind, name)| format!("{kind}/{name}")).collect()
    }
}

#[test]
fn a_deleted_canary_leaves_nothing_behind() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        assert!(world.metrics().contains("name=\"podinfo\""));
        assert_eq!(world.owned_objects().len(), 7);
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("the owned objects are gone", || world.owned_objects().is_empty()).await;
        world.pass(Duration::from_secs(60)).await;

        assert!(world.controller().handle().describe_all().await.is_empty());
        let metrics = world.metrics();
        let left: Vec<&str> = metrics.lines().filter(|line| line.contains("podinfo")).collect();
        assert!(left.is_empty(), "{left:#?}");
        assert_eq!(world.metric("flagger_canary_total{namespace=\"test\"}"), Some(0.0));
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo").is_some(), "the target is the user's");
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(crate::support::AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");
    });
}

#[test]
fn a_canary_of_the_same_name_starts_afresh() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("the owned objects are gone", || world.owned_objects().is_empty()).await;
        world.create(canary("test", "podinfo")).await;
        begins_and_releases(&world).await;
    });
}

/// The new object is there before anybody noticed that the old one went, in the middle of a step.
#[test]
fn a_canary_that_is_replaced_in_no_time_starts_afresh() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.create(canary("test", "podinfo")).await;
        begins_and_releases(&world).await;
    });
}

/// A step of the old object is in flight when the new one comes: what the step leads to must not be written to it.
#[test]
fn a_step_of_the_old_object_is_not_finished_on_the_new_one() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let called = Arc::new(AtomicBool::new(false));
        let is_called = called.clone();
        let slow = Arc::new(move |_: HttpRequest| {
            is_called.store(true, Ordering::Relaxed);
            async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })
            }
            .boxed()
        });
        world.services = std::mem::take(&mut world.services).and("hooks.test", slow);
        world
            .begin(|canary| {
                let hook =
                    json!({"name": "told", "type": "post-rollout", "url": "http://hooks.test/", "timeout": "10s"});
                canary["spec"]["analysis"]["webhooks"] = json!([hook]);
            })
            .await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Finalising").await;
        while !called.load(Ordering::Relaxed) {
            world.pass(Duration::from_millis(10)).await;
        }
        // All that is left of the step is to write `Succeeded`.
        world.delete(&kinds::CANARY, "podinfo").await;
        let journal = world.follow("test", "podinfo");
        world.create(canary("test", "podinfo")).await;
        world.pass(Duration::from_secs(2)).await;
        begins_and_releases(&world).await;
        let phases: Vec<String> = journal.steps().into_iter().map(|(phase, _)| phase).collect();
        assert_eq!(phases[..3], ["", "Initializing", "Initialized"], "{phases:?}");
    });
}

async fn begins_and_releases(world: &World) {
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.phase("podinfo"), "Initialized");
    assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
    assert_eq!(world.owned_objects().len(), 7, "{:?}", world.owned_objects());
    world.set_image("podinfo", "podinfo:6.0.2");
    world.wait_for_phase("podinfo", "Succeeded").await;
    assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.2");
}
