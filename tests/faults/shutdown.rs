//! The controller is stopped in the middle of a step.

use std::time::Duration;

use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;

use super::{assert_no_request_lost, released_to, undisturbed};
use crate::support::checks::{Watchman, assert_same_end, final_state};
use crate::support::{AGENT, in_virtual_time};

#[test]
fn a_step_in_flight_is_finished_and_the_next_controller_goes_on() {
    for resource in ["virtualservices", "canaries"] {
        let end = in_virtual_time(async {
            let mut world = released_to(20).await;
            let mut watchman = Watchman::new(&world.cluster);
            let slow =
                Rule::new(Action::Delay(Duration::from_secs(3))).client(AGENT).writes().resource(resource).nth(1);
            world.cluster.faults().add(slow);
            // The soak ends in five seconds; half a second later the write is under way.
            world.pass(Duration::from_millis(5500)).await;
            let under_way = world.cluster.calls().entries().into_iter().rev().take(5);
            assert!(under_way.into_iter().any(|entry| entry.code == 0 && entry.call.key.resource == resource));
            let start = world.cluster.clock().now();
            assert!(world.stop().await, "everything in flight was finished");
            assert!(world.cluster.clock().now().duration_since(start).as_secs() >= 2, "the write was waited for");
            let routes = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap();
            assert_eq!(routes["spec"]["http"][0]["route"][1]["weight"], 30);
            assert_eq!(world.status("podinfo")["canaryWeight"], 30);
            assert_eq!(
                world.count_events("podinfo", "Advance podinfo.test canary weight 30"),
                1,
                "events are written out"
            );

            let calls = world.cluster.calls().snapshot();
            world.pass(Duration::from_secs(600)).await;
            assert_eq!(
                world.cluster.calls().since(&calls).of_client(AGENT).total(),
                0,
                "a stopped controller does nothing"
            );
            world.start();
            world.wait_for_phase("podinfo", "Succeeded").await;
            world.pass(Duration::from_secs(120)).await;
            assert_no_request_lost(&world, &mut watchman);
            final_state(&world.cluster)
        });
        assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, resource);
    }
}

#[test]
fn a_write_that_hangs_does_not_hold_up_the_end() {
    in_virtual_time(async {
        let mut world = released_to(20).await;
        world.cluster.faults().add(Rule::new(Action::Hang).client(AGENT).writes());
        world.pass(Duration::from_secs(6)).await;
        let start = world.cluster.clock().now();
        assert!(!world.stop().await, "a write was left");
        assert_eq!(world.cluster.clock().now().duration_since(start).as_secs(), 10);
    });
}

#[test]
fn events_that_are_left_are_written() {
    in_virtual_time(async {
        let mut world = released_to(20).await;
        let slow = Rule::new(Action::Delay(Duration::from_secs(3))).client(AGENT).writes().resource("events");
        world.cluster.faults().add(slow);
        world.pass(Duration::from_millis(5500)).await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 30);
        assert_eq!(world.count_events("podinfo", "canary weight 30"), 0);
        assert!(world.stop().await);
        assert_eq!(world.count_events("podinfo", "canary weight 30"), 1);
    });
}
