//! Provider `kubernetes`: users follow the apex service, and meet a version when it is promoted.

use std::time::Duration;

use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use serde_json::{Value, json};

use crate::support::{World, canary, deployment, in_virtual_time, iterations, service};

fn without_mesh(canary: &mut Value) {
    canary["spec"]["provider"] = json!("kubernetes");
    iterations(canary, 2);
}

impl World {
    /// The service that users call was there before the canary.
    async fn begin_without_mesh(&mut self, change: impl FnOnce(&mut Value)) {
        self.create(service("test", "podinfo", "podinfo")).await;
        // What a load tester sends.
        self.traffic.set_load("test", "podinfo-canary", 20.0);
        self.begin(|object| {
            without_mesh(object);
            change(object);
        })
        .await;
    }

    fn users_go_to(&self) -> Value {
        self.get(&kinds::SERVICE, "podinfo").expect("exists")["spec"]["selector"]["app"].clone()
    }
}

/// The target serves everybody, and nothing leads them away from it (Q5).
#[test]
fn q5_a_bootstrap_that_fails_without_a_mesh_leaves_the_users_where_they_are() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(service("test", "podinfo", "podinfo")).await;
        world.pass(Duration::from_secs(60)).await;
        // What the primary is made from never starts; the pods of the target go on.
        world.set_image("podinfo", "podinfo:6.0.1-noready");
        let mut object = canary("test", "podinfo");
        without_mesh(&mut object);
        world.create(object).await;
        world.start();
        world.pass(Duration::from_secs(1800)).await;
        assert_eq!(world.phase("podinfo"), "Initializing");
        assert_eq!((world.users_go_to(), world.replicas_of("podinfo")), (json!("podinfo"), 2), "{}", world.story());
        world.assert_undisturbed();
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!((world.users_go_to(), world.replicas_of("podinfo")), (json!("podinfo-primary"), 0));
        world.assert_undisturbed();
    });
}

#[test]
fn a_bad_version_is_taken_back_before_users_meet_it() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_without_mesh(|_| {}).await;
        world.traffic.set_behaviour("podinfo:6.0.1", Behaviour::failing(0.5));
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Failed").await;
        world.wait_until("its pods are gone", || world.replicas_of("podinfo") == 0).await;
        assert_eq!(world.users_go_to(), "podinfo-primary");
        assert_eq!(world.count_events("podinfo", "success rate 50.00% < 99%"), 1, "{}", world.story());
        world.assert_undisturbed();
    });
}

/// Nobody is moved by hand, either: there is no route whose weights could be repaired.
#[test]
fn a_good_version_comes_with_its_promotion() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_without_mesh(|_| {}).await;
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        let phases: Vec<String> = journal.steps().into_iter().map(|(phase, _)| phase).collect();
        assert_eq!(phases, ["Progressing", "Promoting", "Finalising", "Succeeded"], "{}", world.story());
        assert!(journal.steps().iter().all(|(_, weight)| *weight == 0), "{:#?}", journal.steps());
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
        assert!(world.get(&kinds::VIRTUAL_SERVICE, "podinfo").is_none());
        world.assert_undisturbed();
    });
}

#[test]
fn a_promotion_that_fails_without_a_mesh_is_told_and_the_old_pods_go_on() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_without_mesh(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Promoting").await;
        world.change(&kinds::DEPLOYMENT, "podinfo-primary", |primary| {
            primary["spec"]["progressDeadlineSeconds"] = json!(30);
            primary["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:6.0.1-noready");
        });
        world.wait_for_phase("podinfo", "Failed").await;
        assert_eq!(world.status("podinfo")["canaryWeight"], 0, "nobody was routed to it");
        assert_eq!(world.users_go_to(), "podinfo-primary");
        world.assert_undisturbed();
    });
}

#[test]
fn the_users_service_is_given_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_without_mesh(|canary| canary["spec"]["revertOnDeletion"] = json!(true)).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!((world.users_go_to(), world.replicas_of("podinfo")), (json!("podinfo"), 2), "{}", world.story());
        let annotations = world.get(&kinds::SERVICE, "podinfo").expect("exists")["metadata"]["annotations"].clone();
        assert!(!annotations.to_string().contains("toolkit.fluxcd.io"), "{annotations}");
        world.assert_undisturbed();
    });
}
