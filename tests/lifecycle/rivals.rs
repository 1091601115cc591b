//! Canaries of one target, and services that get another name.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::{AGENT, World, canary, in_virtual_time};

const YIELDS: &str = "spec.targetRef: Deployment/podinfo is the target of canary podinfo, too, which is older; this canary does \
                      nothing until that one is deleted or has another target";

/// A second canary of Deployment `podinfo`, with a service of its own.
fn rival() -> Value {
    let mut object = canary("test", "rival");
    object["spec"]["targetRef"]["name"] = json!("podinfo");
    object["spec"]["service"]["name"] = json!("rival");
    object
}

fn refusal_of(world: &World, name: &str) -> Option<String> {
    let condition = world.condition(name, "Accepted")?;
    assert_eq!(condition["status"], "False");
    condition["message"].as_str().map(str::to_owned)
}

#[test]
fn of_two_canaries_with_one_target_the_older_one_has_it_and_both_say_so() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.create(rival()).await;
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(refusal_of(&world, "rival").as_deref(), Some(YIELDS));
        assert_eq!(world.events("rival"), [YIELDS]);
        assert_eq!(
            world.events("podinfo").last().map(String::as_str),
            Some(
                "Found more than one canary with the same target Deployment/podinfo: rival does nothing, delete it or give it \
                 another target"
            )
        );
        assert_eq!(refusal_of(&world, "podinfo"), None);
        assert!(world.get(&kinds::SERVICE, "rival").is_none(), "it touches nothing");
        let views = world.controller().handle().describe_all().await;
        assert_eq!(views[1].refused.as_deref(), Some(YIELDS));

        // The older one is not disturbed, and neither says it again.
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.count_events("podinfo", "more than one canary"), 1);
        assert_eq!(world.events("rival").len(), 1);
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");
        world.assert_undisturbed();

        // It is told once more after a restart, for nobody remembers; Kubernetes counts it.
        world.kill();
        world.start();
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(refusal_of(&world, "rival").as_deref(), Some(YIELDS));

        // With another target it is a canary like any other.
        world.create(crate::support::deployment("test", "rival", "podinfo:6.0.0")).await;
        world.patch_canary("rival", json!({"targetRef": {"name": "rival"}})).await;
        world.wait_for_phase("rival", "Initialized").await;
        assert_eq!(refusal_of(&world, "rival"), None);
    });
}

const LEAVES_THE_SERVICE: &str = "spec.service.name: podinfo is the service of canary podinfo, too, which is older; this canary does \
                                  nothing until one of them has another service or that one is deleted";

#[test]
fn of_two_canaries_with_one_service_the_older_one_has_it_and_both_say_so() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.create(crate::support::deployment("test", "rival", "podinfo:6.0.0")).await;
        let mut younger = canary("test", "rival");
        younger["spec"]["service"]["name"] = json!("podinfo");
        world.create(younger).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(refusal_of(&world, "rival").as_deref(), Some(LEAVES_THE_SERVICE));
        assert_eq!(world.events("rival"), [LEAVES_THE_SERVICE]);
        assert_eq!(world.replicas_of("rival"), 2, "its workload serves on");
        assert_eq!(
            world.events("podinfo").last().map(String::as_str),
            Some(
                "Found more than one canary with the same service podinfo: rival does nothing, delete it or give it another \
                 service"
            )
        );
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.assert_undisturbed();

        world.patch_canary("rival", json!({"service": {"name": "rival"}})).await;
        world.wait_for_phase("rival", "Initialized").await;
        assert_eq!(refusal_of(&world, "rival"), None);
    });
}

#[test]
fn the_younger_canary_takes_over_when_the_older_one_is_gone() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|canary| canary["spec"]["revertOnDeletion"] = json!(true)).await;
        let mut younger = rival();
        younger["spec"]["revertOnDeletion"] = json!(true);
        world.create(younger).await;
        world.pass(Duration::from_secs(30)).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_for_phase("rival", "Initialized").await;
        assert!(world.get(&kinds::CANARY, "podinfo").is_none(), "not before the older one has given back");
        assert_eq!(refusal_of(&world, "rival"), None);
        assert!(world.get(&kinds::SERVICE, "rival-primary").is_some());
    });
}

/// It never had the target, so it has nothing to give back, whatever it says.
#[test]
fn a_canary_that_does_nothing_can_be_deleted() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        let mut younger = rival();
        younger["spec"]["revertOnDeletion"] = json!(true);
        younger["metadata"]["finalizers"] = json!(["finalizer.flagger.app"]);
        world.create(younger).await;
        world.pass(Duration::from_secs(30)).await;
        world.delete(&kinds::CANARY, "rival").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "rival").is_none()).await;
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(world.replicas_of("podinfo"), 0, "the target is the older one's");
        world.assert_undisturbed();
    });
}

#[test]
fn a_renamed_service_is_told_and_the_old_objects_stay() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin(|_| {}).await;
        world.patch_canary("podinfo", json!({"service": {"name": "web"}})).await;
        world.pass(Duration::from_secs(30)).await;
        let warning = "The service name changed to web, remove podinfo objects to avoid routing conflicts".to_owned();
        assert_eq!(world.events("podinfo").iter().filter(|event| **event == warning).count(), 1, "{}", world.story());
        for name in ["podinfo", "podinfo-primary", "podinfo-canary", "web", "web-primary", "web-canary"] {
            assert!(world.get(&kinds::SERVICE, name).is_some(), "{name}");
        }
        for name in ["podinfo", "web"] {
            assert!(world.get(&kinds::VIRTUAL_SERVICE, name).is_some(), "{name}");
        }
        // Those who still use the old name are served as before.
        world.assert_undisturbed();
        world.traffic.set_load("test", "web", 100.0);
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.count_events("podinfo", "The service name changed"), 1);
        world.assert_undisturbed();
        let report = world.traffic.report("test", "web");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
    });
}
