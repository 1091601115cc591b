//! Releases on a cluster where things go wrong.

mod api_server;
mod chaos;
mod foreign_writers;
mod monitoring;
mod shutdown;

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::traffic::Behaviour;

use crate::support::checks::{Watchman, final_state};
use crate::support::{World, in_virtual_time};

/// A world whose canary `podinfo` is initialized and has been served for two minutes.
async fn served() -> World {
    let mut world = World::new(21);
    world.load_heavily();
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
    world.deploy("podinfo").await;
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    world
}

/// A release that has come to this weight, five seconds ago.
async fn released_to(weight: u64) -> World {
    let world = served().await;
    world.set_image("podinfo", "podinfo:6.0.1");
    wait_for_weight(&world, weight).await;
    world.pass(Duration::from_secs(5)).await;
    world
}

async fn wait_for_weight(world: &World, weight: u64) {
    world.wait_until("weight", || world.status("podinfo")["canaryWeight"] == weight).await;
}

/// How a release of this image ends where nothing goes wrong.
fn undisturbed(image: &'static str, phase: &'static str) -> BTreeMap<String, String> {
    in_virtual_time(async move {
        let world = served().await;
        world.set_image("podinfo", image);
        world.wait_for_phase("podinfo", phase).await;
        world.pass(Duration::from_secs(120)).await;
        final_state(&world.cluster)
    })
}

/// Users were always served, by pods that could.
fn assert_no_request_lost(world: &World, watchman: &mut Watchman) {
    let violations = watchman.violations();
    assert!(violations.is_empty(), "{violations:#?}\n{}", world.story());
    let report = world.traffic.report("test", "podinfo");
    assert_eq!(report.interruptions, 0, "{}", world.story());
    assert!(report.failures() < 1e-6, "{report:?}\n{}", world.story());
    assert!(report.requests() > 1000.0, "{report:?}");
}
