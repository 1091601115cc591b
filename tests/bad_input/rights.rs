//! Rights that the controller does not have.

use std::time::Duration;

use aviary_sim::faults::{Action, Rule};
use serde_json::json;

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// Only the canary that needs the kind waits, and says what to grant. Once that is done it goes on by itself.
#[test]
fn a_kind_that_may_not_be_listed() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let forbidden = Rule::new(Action::error(403)).client(AGENT).resource("horizontalpodautoscalers");
        let forbidden = world.cluster.faults().add(forbidden);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world
            .create(json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"namespace": "test", "name": "podinfo"},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                    "minReplicas": 2, "maxReplicas": 4,
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
                },
            }))
            .await;
        let mut object = canary("test", "podinfo");
        object["spec"]["autoscalerRef"] =
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
        world.create(object).await;
        world.start_beside_another().await;
        world.release_the_other().await;
        world.assert_told_once(&["the API server forbids listing HorizontalPodAutoscaler: \
             grant get, list and watch on horizontalpodautoscalers.autoscaling"]);
        world.cluster.faults().remove(forbidden);
        world.pass(Duration::from_secs(90)).await;
        world.wait_for_phase("podinfo", "Initialized").await;
    });
}
