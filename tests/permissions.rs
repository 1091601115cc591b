//! The table of permissions and the calls that the operator makes.

use std::collections::BTreeSet;

use aviary::rbac::{Feature, PERMISSIONS};
use aviary_sim::store::kinds;
use serde_json::json;

use crate::birdwatch::{BIRD_WATCH, in_steps_of_ten};
use crate::steerer::{ROLLOUT, guide_of};
use crate::support::checks::operator_calls;
use crate::support::{AGENT, World, canary, daemon_set, deployment, in_virtual_time};

/// What no call of the scenario below needs: `get` follows a conflict (`tests/faults`), and the finalizers are asked for by an
/// admission plugin that only some clusters have.
fn is_left_out(verb: &str, resource: &str) -> bool {
    verb == "get" || resource == "canaries/finalizers"
}

/// One canary with everything, over its whole life. (That no call lacks a permission is looked at in every scenario.)
#[test]
fn every_permission_is_used() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "settings"}, "data": {"a": "1"}}))
            .await;
        world
            .create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "test", "name": "passwords"}, "stringData": {"a": "1"}}))
            .await;
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "passwords"}}]);
        world.create(target).await;
        let autoscaler = |most: u32| {
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"namespace": "test", "name": "podinfo"},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                    "minReplicas": 2, "maxReplicas": most,
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
                },
            })
        };
        world.create(autoscaler(4)).await;
        let mut object = canary("test", "podinfo");
        object["spec"]["revertOnDeletion"] = json!(true);
        object["spec"]["autoscalerRef"] =
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
        object["spec"]["service"]["trafficPolicy"] = json!({"tls": {"mode": "DISABLE"}});
        world.create(object).await;
        // The other autoscaler: its target's is paused, and the primary's made.
        world.create(deployment("test", "web", "podinfo:6.0.0")).await;
        let triggers = json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}]);
        world
            .create(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"namespace": "test", "name": "web"},
                "spec": {"scaleTargetRef": {"name": "web"}, "minReplicaCount": 2, "triggers": triggers},
            }))
            .await;
        let mut object = canary("test", "web");
        object["spec"]["autoscalerRef"] =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web"});
        world.create(object).await;
        world.start();
        world.wait_for_phase("web", "Initialized").await;
        world.wait_for_phase("podinfo", "Initialized").await;
        // Everything of the primary changes, and every service and rule.
        world.change(&kinds::CONFIG_MAP, "settings", |config| config["data"]["a"] = json!("2"));
        world.change(&kinds::SECRET, "passwords", |secret| secret["data"]["a"] = json!("Mg=="));
        world.change(&kinds::HPA, "podinfo", |scaler| scaler["spec"]["maxReplicas"] = json!(5));
        let service = json!({"service": {"port": 9899, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}});
        world.patch_canary("podinfo", service).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        // The same failure each interval is one event, counted.
        world.set_image("podinfo", "podinfo:6.0.2");
        world.traffic.set_behaviour("podinfo:6.0.2", aviary_sim::traffic::Behaviour::failing(1.0));
        world.wait_for_phase("podinfo", "Failed").await;
        world.create(daemon_set("test", "agent", "podinfo:6.0.0")).await;
        let mut object = canary("test", "agent");
        object["spec"]["targetRef"]["kind"] = json!("DaemonSet");
        world.create(object).await;
        world.wait_for_phase("agent", "Initialized").await;
        world.create(deployment("test", "split", "podinfo:6.0.0")).await;
        let mut object = canary("test", "split");
        object["spec"]["provider"] = json!("smi:crossover");
        world.create(object).await;
        world.wait_for_phase("split", "Initialized").await;
        world.set_image("split", "podinfo:6.0.1");
        world.wait_for_phase("split", "Succeeded").await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("the canary is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        // Of another system.
        world.with_service("aleph").await;
        let mut object = in_steps_of_ten();
        object["spec"]["delete_on_success"] = json!(true);
        world.create(object).await;
        world.wait_until("its version is in production", || world.get(&BIRD_WATCH, "aleph").is_none()).await;
        for object in guide_of("steered") {
            world.create(object).await;
        }
        let state = || world.get(&ROLLOUT, "steered").map(|rollout| rollout["status"]["state"].clone());
        world.wait_until("the rollout has begun", || state() == Some(json!("running"))).await;

        let used: BTreeSet<(String, String)> = operator_calls(&world.cluster, &[AGENT]);
        let wanted = PERMISSIONS.iter().filter(|permission| permission.feature != Feature::LeaderElection);
        let unused: Vec<_> = wanted
            .flat_map(|permission| permission.verbs.iter().map(|verb| (*verb, permission.resource)))
            .filter(|(verb, resource)| !is_left_out(verb, resource))
            .filter(|(verb, resource)| !used.contains(&((*verb).to_owned(), (*resource).to_owned())))
            .collect();
        assert!(unused.is_empty(), "nothing needs {unused:?}; used: {used:?}");
    });
}
