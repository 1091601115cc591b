//! From a new object to `Initialized`.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::{World, canary, deployment, in_virtual_time};

#[test]
fn a_new_canary_is_initialized() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let alerts = world.notify_chat();
        world.deploy("podinfo").await;
        let journal = world.follow("test", "podinfo");
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(600)).await;

        let events = world.events("podinfo");
        assert_eq!(events.len(), 3, "{events:#?}");
        assert_eq!(events[0], "all the metrics providers are available!");
        assert!(
            events[1].starts_with("podinfo-primary.test not ready: waiting for rollout to finish: "),
            "{events:#?}"
        );
        assert_eq!(events[2], "Initialization done! podinfo.test");
        assert_eq!(*alerts.lock().unwrap(), ["New Deployment detected, initialization completed."]);
        let phases: Vec<String> = journal.steps().into_iter().map(|(phase, _)| phase).collect();
        assert_eq!(phases, ["Initializing", "Initialized"]);

        assert_eq!((world.replicas_of("podinfo"), world.replicas_of("podinfo-primary")), (0, 2));
        let selector =
            |name: &str| world.get(&kinds::SERVICE, name).expect("exists")["spec"]["selector"]["app"].clone();
        assert_eq!(selector("podinfo"), "podinfo-primary");
        assert_eq!(selector("podinfo-primary"), "podinfo-primary");
        assert_eq!(selector("podinfo-canary"), "podinfo");
        let conditions = world.status("podinfo")["conditions"].clone();
        assert_eq!(conditions.as_array().map(Vec::len), Some(1), "{conditions:#}");
        assert_eq!(conditions[0]["type"], "Promoted");
        assert_eq!(conditions[0]["status"], "True");
        assert_eq!(conditions[0]["reason"], "Initialized");
        assert_eq!(conditions[0]["message"], "Deployment initialization completed.");
        world.assert_undisturbed();
    });
}

/// A first revision that cannot start leaves the target, the only workload, as it is (Q5), and is mended by an edit.
#[test]
fn a_broken_first_revision_is_mended_by_the_next() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0-crash")).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.pass(Duration::from_secs(1200)).await;
        assert_eq!(world.phase("podinfo"), "Initializing");
        assert_eq!(world.replicas_of("podinfo"), 2);
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
    });
}

fn user_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "test", "name": "podinfo", "labels": {"mine": "yes"}},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 9898, "targetPort": 9898}]},
    })
}

fn user_virtual_service() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"namespace": "test", "name": "podinfo"},
        "spec": {
            "hosts": ["podinfo"],
            "http": [{"route": [{"destination": {"host": "podinfo", "port": {"number": 9898}}}]}],
        },
    })
}

#[test]
fn an_existing_service_and_route_are_taken_over_without_an_interruption() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(user_service()).await;
        world.create(user_virtual_service()).await;
        world.pass(Duration::from_secs(60)).await;
        let before = world.traffic.report("test", "podinfo");
        assert!(before.workload("podinfo").requests > 0.0, "{before:#?}");

        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_undisturbed();
        let served = world.traffic.report("test", "podinfo");
        assert!(served.workload("podinfo-primary").requests > 0.0, "{served:#?}");
        let service = world.get(&kinds::SERVICE, "podinfo").expect("still there");
        assert_eq!(service["metadata"]["labels"]["mine"], "yes");
        assert!(service["metadata"].get("ownerReferences").is_none(), "it stays the user's: {service:#}");

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_undisturbed();
    });
}

#[test]
fn canaries_of_two_namespaces_are_released_side_by_side() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
        world.create(namespace).await;
        world.create(deployment("other", "podinfo", "podinfo:6.0.0")).await;
        world.create(canary("other", "podinfo")).await;
        world.deploy("podinfo").await;
        let (here, there) = (world.follow("test", "podinfo"), world.follow("other", "podinfo"));
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.1");
        let image = json!("podinfo:7.0.0");
        let change = |object: &mut Value| object["spec"]["template"]["spec"]["containers"][0]["image"] = image;
        world.cluster.store().update(&kinds::DEPLOYMENT, "other", "podinfo", change).unwrap();
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(here.steps(), there.steps());
        for journal in [&here, &there] {
            super::assert_at_once(edited, journal.time_of("Progressing", 0), "detection");
        }
        let there = world.events_in("other", "podinfo");
        assert!(there.iter().any(|event| event == "Promotion completed! Scaling down podinfo.other"), "{there:#?}");
        assert!(there.iter().all(|event| !event.contains("podinfo.test")), "{there:#?}");
        world.assert_undisturbed();
    });
}
