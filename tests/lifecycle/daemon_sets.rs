//! DaemonSets: the same rollouts, scaled by a node selector.

use std::time::Duration;

use aviary_sim::store::kinds;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{World, canary, daemon_set, in_virtual_time};

impl World {
    /// Creates DaemonSet `podinfo` and this Canary of it, starts a controller, and lets users arrive.
    async fn begin_with_daemon_set(&mut self, change: impl FnOnce(&mut Value)) {
        let mut object = canary("test", "podinfo");
        object["spec"]["targetRef"]["kind"] = json!("DaemonSet");
        change(&mut object);
        self.create(daemon_set("test", "podinfo", "podinfo:6.0.0")).await;
        self.create(object).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }

    fn pod_spec_of(&self, name: &str) -> Value {
        self.get(&kinds::DAEMON_SET, name).expect("exists")["spec"]["template"]["spec"].clone()
    }

    fn is_switched_off(&self, name: &str) -> bool {
        self.pod_spec_of(name)["nodeSelector"]["flagger.app/scale-to-zero"] == "true"
    }
}

#[test]
fn a_good_release_of_a_daemon_set_disturbs_nobody() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_daemon_set(|_| {}).await;
        assert!(world.is_switched_off("podinfo") && !world.is_switched_off("podinfo-primary"));
        let journal = world.follow("test", "podinfo");
        world.set_image_of(&kinds::DAEMON_SET, "podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        let weights: Vec<u64> =
            journal.steps().into_iter().map(|(_, weight)| weight).filter(|weight| *weight > 0).collect();
        assert_eq!(weights, [10, 20, 30, 40, 50, 50], "{:#?}\n{}", journal.steps(), world.story());
        assert_eq!(world.pod_spec_of("podinfo-primary")["containers"][0]["image"], "podinfo:6.0.1");
        assert!(world.is_switched_off("podinfo") && !world.is_switched_off("podinfo-primary"));
        assert_eq!(world.count_events("podinfo", "Initialization done"), 1);
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.phase("podinfo"), "Succeeded", "switching it off is no revision\n{}", world.story());
        world.assert_undisturbed();
    });
}

/// Flagger counts from the last write of the status, which may be long ago.
#[test]
fn q11_a_daemon_set_has_its_whole_deadline() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_daemon_set(|_| {}).await;
        world.pass(Duration::from_secs(7200)).await;
        let journal = world.follow("test", "podinfo");
        world.set_image_of(&kinds::DAEMON_SET, "podinfo", "podinfo:6.0.1-noready");
        world.wait_for_phase("podinfo", "Failed").await;
        let took = journal.time_of("Failed", 0).duration_since(journal.time_of("Progressing", 0));
        let deadline = SignedDuration::from_secs(60);
        assert!(took >= deadline && took < deadline + SignedDuration::from_secs(2), "{took:#}\n{}", world.story());
        assert_eq!(world.count_events("podinfo", "exceeded its progressDeadlineSeconds: 60"), 1, "{}", world.story());
        world.wait_until("its pods are gone", || world.is_switched_off("podinfo")).await;
        world.assert_undisturbed();
    });
}

/// What the target holds is what was promoted, and a switch that the primary must not have.
#[test]
fn q25_a_deleted_primary_of_a_daemon_set_comes_back_with_pods() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_daemon_set(|_| {}).await;
        world.delete(&kinds::DAEMON_SET, "podinfo-primary").await;
        let available = |world: &World| {
            let primary = world.get(&kinds::DAEMON_SET, "podinfo-primary");
            primary.is_some_and(|primary| primary["status"]["numberAvailable"] == 1)
        };
        world.wait_until("it has a pod", || available(&world)).await;
        assert!(!world.is_switched_off("podinfo-primary"));
    });
}

#[test]
fn a_daemon_set_that_keeps_old_pods_is_told_and_left_alone() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut target = daemon_set("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        world.create(target).await;
        let mut object = canary("test", "podinfo");
        object["spec"]["targetRef"]["kind"] = json!("DaemonSet");
        world.create(object).await;
        world.start();
        world.pass(Duration::from_secs(600)).await;
        let text = "daemonset podinfo.test must have RollingUpdate strategy but have OnDelete";
        assert_eq!(world.events("podinfo"), [text]);
        assert!(world.get(&kinds::DAEMON_SET, "podinfo-primary").is_none());
        world.change(&kinds::DAEMON_SET, "podinfo", |target| {
            target["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
        });
        world.wait_for_phase("podinfo", "Initialized").await;
    });
}
