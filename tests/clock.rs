//! The controller's clock is set back by an hour, as NTP does to a machine whose clock was ahead. No wait may become an hour longer
//! by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_actors::{Clock, Controller, Metrics};
use aviary_providers::HttpRequest;
use aviary_sim::faults::{Action, Rule};
use futures::FutureExt;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// How far the controller's clock is behind that of the cluster, in seconds.
#[derive(Clone, Default)]
struct Behind(Arc<AtomicI64>);

impl Behind {
    fn set_back(&self) {
        self.0.store(3600, Ordering::SeqCst);
    }

    fn clock(&self, world: &World) -> Clock {
        let (behind, clock) = (self.0.clone(), *world.cluster.clock());
        Clock::from_fn(move || clock.now() - SignedDuration::from_secs(behind.load(Ordering::SeqCst)))
    }
}

async fn initialized(world: &mut World, object: serde_json::Value) -> Behind {
    let behind = Behind::default();
    world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
    world.create(object).await;
    let client = world.cluster.client(AGENT);
    let services = Arc::new(world.services.clone());
    let clock = behind.clock(world);
    let controller = Controller::start(world.config.clone(), &client, services, clock, Metrics::new().unwrap());
    world.run(controller);
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    behind
}

#[test]
fn pods_that_wait_for_the_mesh_go_soon_after_the_clock_was_set_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.config.traffic_settle_time = Duration::from_secs(30);
        let behind = initialized(&mut world, canary("test", "podinfo")).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Finalising").await;
        world.pass(Duration::from_secs(10)).await;
        behind.set_back();
        world.pass(Duration::from_secs(65)).await;
        assert_eq!(world.phase("podinfo"), "Succeeded", "{}", world.story());
    });
}

#[test]
fn a_gate_is_asked_again_soon_after_the_clock_was_set_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let status = Arc::new(AtomicI64::new(403));
        let answers = status.clone();
        let service = Arc::new(move |_: HttpRequest| {
            let status = u16::try_from(answers.load(Ordering::SeqCst)).unwrap();
            std::future::ready(Ok(HttpResponse { status, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("hooks.test", service);
        let mut object = canary("test", "podinfo");
        object["spec"]["analysis"]["webhooks"] =
            json!([{"name": "gate", "type": "confirm-traffic-increase", "url": "http://hooks.test/"}]);
        let behind = initialized(&mut world, object).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Progressing").await;
        world.pass(Duration::from_secs(25)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 0, "the gate is closed");
        behind.set_back();
        status.store(200, Ordering::SeqCst);
        // One interval until it is asked again, which a clock that is set back begins anew.
        world.pass(Duration::from_secs(25)).await;
        assert_ne!(world.status("podinfo")["canaryWeight"], 0, "{}", world.story());
    });
}

#[test]
fn what_failed_is_tried_again_soon_after_the_clock_was_set_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let behind = initialized(&mut world, canary("test", "podinfo")).await;
        let refused = Rule::new(Action::error(500)).client(AGENT).writes().resource("canaries");
        let refused = world.cluster.faults().add(refused);
        world.set_image("podinfo", "podinfo:6.0.1");
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(world.phase("podinfo"), "Initialized", "nothing is written");
        behind.set_back();
        world.cluster.faults().remove(refused);
        // The longest wait between two tries.
        world.pass(Duration::from_secs(125)).await;
        assert_ne!(world.phase("podinfo"), "Initialized", "{}", world.story());
    });
}
