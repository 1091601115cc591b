//! The manifests with autoscalers: what Flagger's scripts assert, and what they mean to.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use super::documents;
use crate::support::{World, in_virtual_time};

const NEW: &str = "ghcr.io/stefanprodan/podinfo:6.0.1";

/// The target and what a file holds, initialized.
async fn initialized(file: &str, documents: Vec<Value>) -> World {
    let mut world = World::for_fixtures("kubernetes");
    world.create_fixture("workloads/secret.yaml").await;
    world.create_fixture("workloads/deployment.yaml").await;
    world.create_documents(file, documents).await;
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world
}

async fn promoted(world: &World) {
    world.wait_until("the end", || ["Succeeded", "Failed"].contains(&world.phase("podinfo").as_str())).await;
    assert_eq!(world.phase("podinfo"), "Succeeded", "{}", world.story());
    assert_eq!(world.image_of("podinfo-primary"), NEW);
}

async fn scaled_by_keda(documents: Vec<Value>) {
    let world = initialized("e2e/keda-scaledobject.yaml", documents).await;
    let paused = |world: &World| {
        let object = world.get(&kinds::SCALED_OBJECT, "podinfo-so").expect("exists");
        object["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"].clone()
    };
    let replicas =
        |world: &World| world.get(&kinds::DEPLOYMENT, "podinfo").expect("exists")["spec"]["replicas"].clone();
    let primary = world.get(&kinds::SCALED_OBJECT, "podinfo-so-primary").expect("exists");
    let query = "sum(rate(http_requests_total{ app=\"podinfo-primary\" }[30s]))";
    assert_eq!(primary["spec"]["triggers"][0]["metadata"]["query"], query);
    assert_eq!((paused(&world), replicas(&world)), (json!("0"), json!(0)));

    world.set_image("podinfo", NEW);
    world.wait_for_phase("podinfo", "Progressing").await;
    // `hey -z 2m -q 20 -c 2`, which the canary asks for.
    world.traffic.set_load("test", "podinfo-svc-canary", 40.0);
    world.wait_until("it is let loose", || paused(&world).is_null()).await;
    world.wait_until("KEDA scales the canary", || replicas(&world) == 3).await;
    promoted(&world).await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!((paused(&world), replicas(&world)), (json!("0"), json!(0)), "{}", world.story());
}

#[test]
fn keda_scaled_object() {
    in_virtual_time(scaled_by_keda(documents("e2e/keda-scaledobject.yaml")));
}

/// Of the primary's autoscaler, too, which Flagger's own script does not look at.
async fn with_autoscaler(documents: Vec<Value>) {
    let world = initialized("e2e/kubernetes-hpa.yaml", documents).await;
    let percent = |world: &World| {
        let autoscaler = world.get(&kinds::HPA, "podinfo-primary").expect("exists");
        autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"].clone()
    };
    assert_eq!(percent(&world), 99);
    world.change(&kinds::HPA, "podinfo", |autoscaler| {
        autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = json!(50);
    });
    // What the load tester sends when it is asked to.
    world.traffic.set_load("test", "podinfo-svc-canary", 20.0);
    world.set_image("podinfo", NEW);
    world.wait_for_phase("podinfo", "Progressing").await;
    promoted(&world).await;
    assert_eq!(percent(&world), 50);
}

#[test]
fn kubernetes_hpa_of_the_primary() {
    in_virtual_time(with_autoscaler(documents("e2e/kubernetes-hpa.yaml")));
}
