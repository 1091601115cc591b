//! Deletion in each phase, with and without `revertOnDeletion`. `Finalising` passes at once, so a deletion from outside cannot
//! be sure to meet it; `lifecycle/reverting.rs` does, in virtual time.

use serde_json::{Value, json};

use super::scene::{DEPLOYMENT, Scene};
use crate::support::deployment;

/// Deleted as soon as it is in this phase. With `revert` there are a Service and routes of the user's, and the canary gives
/// back what it took, unnoticed by users who were there before it; without, it takes along what it made.
pub async fn in_phase(scene: &Scene<'_>, phase: &str, revert: bool) {
    let first = if phase == "Initializing" { "podinfo:6.0.0-start5" } else { "podinfo:6.0.0" };
    scene.create(deployment(&scene.namespace, "podinfo", first)).await;
    if revert {
        create_users_objects(scene).await;
        scene.wait_until_available("podinfo").await;
        scene.admit_users().await;
    }
    let object = scene.canary_object(|canary| {
        let spec = &mut canary["spec"];
        if revert {
            spec["revertOnDeletion"] = json!(true);
        }
        let analysis = &mut spec["analysis"];
        // Nobody answers: to a gate that is no.
        let gate = |kind: &str| json!([{"name": "gate", "type": kind, "url": "http://127.0.0.1:9/"}]);
        match phase {
            "Waiting" => analysis["webhooks"] = gate("confirm-rollout"),
            "WaitingPromotion" => analysis["webhooks"] = gate("confirm-promotion"),
            _ => {}
        }
        if phase != "Failed" {
            analysis["metrics"] = json!([]);
        }
    });
    scene.create(object).await;
    let image = match phase {
        "Initializing" | "Initialized" => None,
        "Failed" => Some("podinfo:6.0.1-err50"),
        // The primary's pods take their time to start.
        "Promoting" => Some("podinfo:6.0.1-start3"),
        _ => Some("podinfo:6.0.1"),
    };
    if let Some(image) = image {
        scene.wait_until_initialized().await;
        if phase == "Failed" && !revert {
            scene.admit_users().await;
        }
        scene.set_image(image).await;
    }
    match phase {
        "Initializing" => {
            // Its pods take their time to start.
            scene
                .eventually("the primary is made", async || scene.get(DEPLOYMENT, "podinfo-primary").await.is_some())
                .await;
        }
        "Progressing" => scene.wait_for_weight(25).await,
        "Failed" => {
            scene.wait_for_phase("Failed").await;
            scene.wait_until_scaled_down().await;
        }
        _ => scene.wait_for_phase(phase).await,
    }
    scene.delete_canary().await;
}

async fn create_users_objects(scene: &Scene<'_>) {
    let service: Value = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 80, "targetPort": 9898}]},
    });
    scene.create(service).await;
    let routes: Value = json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "podinfo"},
        "spec": {
            "gateways": ["istio-system/public-gateway"], "hosts": [format!("podinfo.{}.example.com", scene.namespace)],
            "http": [{"timeout": "5s", "route": [{"destination": {"host": "podinfo"}}]}],
        },
    });
    scene.create(routes).await;
}
