//! Primaries that are deleted by hand.

use std::time::Duration;

use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;

use crate::support::{World, in_virtual_time};

impl World {
    /// Nobody knows how many pods it had; as in Flagger it begins with one where the target has none.
    fn primary_serves(&self, image: &str) -> bool {
        self.get(&kinds::DEPLOYMENT, "podinfo-primary").is_some_and(|primary| {
            primary["status"]["availableReplicas"] == 1
                && primary["spec"]["template"]["spec"]["containers"][0]["image"] == image
        })
    }
}

#[test]
fn a_deleted_primary_comes_back_at_the_promoted_revision() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        for image in ["podinfo:6.0.0", "podinfo:6.0.1"] {
            if world.image_of("podinfo") != image {
                world.set_image("podinfo", image);
                world.wait_for_phase("podinfo", "Succeeded").await;
                world.pass(Duration::from_secs(60)).await;
            }
            let phase = world.phase("podinfo");
            world.delete(&kinds::DEPLOYMENT, "podinfo-primary").await;
            world.wait_until("it serves again", || world.primary_serves(image)).await;
            world.pass(Duration::from_secs(60)).await;
            assert_eq!(world.phase("podinfo"), phase, "nothing is released");
            assert_eq!(world.replicas_of("podinfo"), 0);
        }
        assert_eq!(world.count_events("podinfo", "cannot be restored"), 0, "{}", world.story());
    });
}

/// The target holds a revision that has failed: only a person can say what the primary is to be.
#[test]
fn a_deleted_primary_is_never_made_from_a_failed_revision() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.2));
        world.begin(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(60)).await;
        world.delete(&kinds::DEPLOYMENT, "podinfo-primary").await;
        world.pass(Duration::from_secs(60)).await;
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none());
        assert_eq!(world.count_events("podinfo", "podinfo-primary.test is missing and cannot be restored"), 1);
        world.set_image("podinfo", "podinfo:6.0.0");
        world.wait_until("it serves again", || world.primary_serves("podinfo:6.0.0")).await;
    });
}
