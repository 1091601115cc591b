//! Whole rollouts: real actors on the embedded cluster, in virtual time.

use std::time::Duration;

use aviary_sim::traffic::Behaviour;

use crate::support::{World, in_virtual_time};

#[test]
fn a_good_release_is_promoted_step_by_step() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        let events = world.events("podinfo");
        let release = events.iter().position(|event| event.starts_with("New revision")).expect("detected");
        assert_eq!(
            events[release..],
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
    });
}

#[test]
fn a_bad_release_is_rolled_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour { error_ratio: 0.1, ..Behaviour::default() });
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let events = world.events("podinfo");
        assert!(events.iter().any(|event| event.contains("advancement success rate 9")), "{}", world.story());
        assert_eq!(events.last().map(String::as_str), Some("Canary failed! Scaling down podinfo.test"));
    });
}
