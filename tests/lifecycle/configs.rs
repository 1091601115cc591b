//! ConfigMaps, Secrets and autoscalers: released together with the pods that use them.

use std::time::Duration;

use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Value, json};

use super::assert_at_once;
use crate::support::{World, canary, deployment, in_virtual_time};

fn config(kind: &str, name: &str, value: &str) -> Value {
    // Base64 of a Secret's data would hide what the tests compare.
    let data = if kind == "Secret" { json!({"key": format!("{value}=")}) } else { json!({"key": value}) };
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "test", "name": name}, "data": data})
}

impl World {
    fn config_value(&self, kind: &GroupKind, name: &str) -> Value {
        self.get(kind, name).map(|config| config["data"]["key"].clone()).unwrap_or_default()
    }

    async fn begin_with_configs(&mut self) {
        self.create(config("ConfigMap", "settings", "old")).await;
        self.create(config("Secret", "token", "abc")).await;
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        let container = &mut target["spec"]["template"]["spec"]["containers"][0];
        container["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
        container["env"] = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "key"}}}]);
        self.create(target).await;
        self.create(canary("test", "podinfo")).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }
}

#[test]
fn changed_configs_are_released_like_a_revision() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_configs().await;
        assert_eq!(world.config_value(&kinds::CONFIG_MAP, "settings-primary"), "old");
        assert_eq!(world.config_value(&kinds::SECRET, "token-primary"), "abc=");
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        let container = &primary["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["envFrom"][0]["configMapRef"]["name"], "settings-primary");
        assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "token-primary");

        let edited = world.now();
        world.change(&kinds::CONFIG_MAP, "settings", |config| config["data"]["key"] = json!("new"));
        world.wait_for_phase("podinfo", "Progressing").await;
        assert_at_once(edited, world.now(), "detection");
        world.wait_for_weight(20).await;
        assert_eq!(world.config_value(&kinds::CONFIG_MAP, "settings-primary"), "old", "not before the promotion");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.config_value(&kinds::CONFIG_MAP, "settings-primary"), "new");

        world.change(&kinds::SECRET, "token", |secret| secret["data"]["key"] = json!("eHl6"));
        world.wait_for_phase("podinfo", "Progressing").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.config_value(&kinds::SECRET, "token-primary"), "eHl6");
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.phase("podinfo"), "Succeeded", "and that is the end of it");
        world.assert_undisturbed();
    });
}

/// The configs of a release that failed stay with the canary.
#[test]
fn configs_of_a_failed_release_never_reach_the_primary() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_configs().await;
        world.traffic.set_behaviour(
            aviary_sim::traffic::BehaviourMatch::image("podinfo").of_workload("podinfo"),
            aviary_sim::traffic::Behaviour::failing(0.5),
        );
        world.change(&kinds::CONFIG_MAP, "settings", |config| config["data"]["key"] = json!("bad"));
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.config_value(&kinds::CONFIG_MAP, "settings-primary"), "old");

        // Back at what is promoted: nothing to do. The failed value again: a release again.
        world.change(&kinds::CONFIG_MAP, "settings", |config| config["data"]["key"] = json!("old"));
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.phase("podinfo"), "Failed");
        world.change(&kinds::CONFIG_MAP, "settings", |config| config["data"]["key"] = json!("bad"));
        world.wait_for_phase("podinfo", "Progressing").await;
    });
}

#[test]
fn the_primary_gets_an_autoscaler_of_its_own() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let autoscaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": "test", "name": "podinfo"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "minReplicas": 2, "maxReplicas": 4,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
        });
        world.create(autoscaler).await;
        world
            .begin(|canary| {
                canary["spec"]["autoscalerRef"] =
                    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
            })
            .await;
        let spec = |world: &World| world.get(&kinds::HPA, "podinfo-primary").expect("created")["spec"].clone();
        assert_eq!(spec(&world)["scaleTargetRef"]["name"], "podinfo-primary");
        assert_eq!((&spec(&world)["minReplicas"], &spec(&world)["maxReplicas"]), (&json!(2), &json!(4)));

        world.utilisation.set_utilisation("test", "podinfo-primary", 160);
        world.wait_until("the primary is scaled", || world.replicas_of("podinfo-primary") == 4).await;
        world.change(&kinds::HPA, "podinfo", |autoscaler| autoscaler["spec"]["maxReplicas"] = json!(6));
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(spec(&world)["maxReplicas"], 4, "only a promotion updates it");
        assert_eq!(world.phase("podinfo"), "Initialized", "nor is it a release");

        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(spec(&world)["maxReplicas"], 6);
        assert!(world.replicas_of("podinfo-primary") >= 4, "the promotion leaves the scale to the autoscaler");
        world.assert_undisturbed();
    });
}
