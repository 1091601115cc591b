//! Targets that KEDA scales.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use super::assert_at_once;
use crate::support::{World, in_virtual_time};

const PAUSED: &str = "autoscaling.keda.sh/paused-replicas";

fn scaled_object() -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"namespace": "test", "name": "podinfo-so", "labels": {"team": "web"}},
        "spec": {
            "scaleTargetRef": {"name": "podinfo"},
            "pollingInterval": 10, "cooldownPeriod": 20, "minReplicaCount": 2, "maxReplicaCount": 6,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": "http://prometheus:9090",
                "query": "sum(rate(http_requests_total{app=\"podinfo\"}[1m]))",
                "threshold": "50",
            }}],
        },
    })
}

impl World {
    async fn begin_with_keda(&mut self, change: impl FnOnce(&mut Value)) {
        self.create(scaled_object()).await;
        self.traffic.set_load("test", "podinfo", 200.0);
        self.begin(|canary| {
            canary["spec"]["autoscalerRef"] =
                json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
            change(canary);
        })
        .await;
    }

    fn paused(&self, name: &str) -> Option<String> {
        let object = self.get(&kinds::SCALED_OBJECT, name).expect("the ScaledObject exists");
        object["metadata"]["annotations"][PAUSED].as_str().map(str::to_owned)
    }

    fn pause_target(&self, replicas: Value) {
        self.change(&kinds::SCALED_OBJECT, "podinfo-so", |object| {
            object["metadata"]["annotations"][PAUSED] = replicas;
            object["metadata"]["annotations"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        });
    }

    fn assert_target_rests(&self) {
        assert_eq!(self.paused("podinfo-so").as_deref(), Some("0"), "{}", self.story());
        assert_eq!(self.replicas_of("podinfo"), 0);
        assert!(self.get(&kinds::HPA, "keda-hpa-podinfo-so").is_none(), "KEDA has taken it away");
    }
}

#[test]
fn keda_scales_each_side_by_its_own_load_and_the_canary_only_in_a_run() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|_| {}).await;
        world.assert_target_rests();
        let primary = world.get(&kinds::SCALED_OBJECT, "podinfo-so-primary").expect("created");
        let query = &primary["spec"]["triggers"][0]["metadata"]["query"];
        assert_eq!(query, "sum(rate(http_requests_total{app=\"podinfo-primary\"}[1m]))");
        world.wait_until("KEDA scales the primary", || world.replicas_of("podinfo-primary") == 4).await;
        world.pass(Duration::from_secs(600)).await;
        world.assert_target_rests();

        world.change(&kinds::SCALED_OBJECT, "podinfo-so", |object| object["spec"]["maxReplicaCount"] = json!(8));
        let edited = world.now();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("the canary is woken", || world.replicas_of("podinfo") > 0).await;
        assert_at_once(edited, world.now(), "scaling up");
        assert_eq!((world.paused("podinfo-so"), world.replicas_of("podinfo")), (None, 2));
        world.wait_for_weight(50).await;
        world.wait_until("half of the load is the canary's", || world.replicas_of("podinfo") == 2).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        let most = |world: &World| {
            world.get(&kinds::SCALED_OBJECT, "podinfo-so-primary").unwrap()["spec"]["maxReplicaCount"].clone()
        };
        assert_eq!(most(&world), 8, "updated with the promotion");
        assert!(world.replicas_of("podinfo-primary") >= 2, "the promotion leaves the scale to KEDA");
        world.pass(Duration::from_secs(600)).await;
        world.assert_target_rests();
        assert_eq!(world.replicas_of("podinfo-primary"), 4);
        world.assert_undisturbed();
    });
}

/// Flagger copies the pause of the target: the primary has no pods, and the Canary says Succeeded.
#[test]
fn q25_a_primary_scaler_that_is_made_again_is_not_paused() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|_| {}).await;
        world.cluster.store().delete(&kinds::SCALED_OBJECT, "test", "podinfo-so-primary").unwrap();
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.paused("podinfo-so-primary"), None);
        assert!(world.replicas_of("podinfo-primary") >= 2);
        world.assert_target_rests();
        world.assert_undisturbed();
    });
}

/// An HPA at zero is inert; a ScaledObject that is let loose would keep pods that nobody uses.
#[test]
fn a_target_that_somebody_lets_loose_is_put_to_rest_again() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|_| {}).await;
        world.pause_target(Value::Null);
        world.wait_until("it is paused again", || world.paused("podinfo-so").is_some()).await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_target_rests();
        // In the course of a run the other way round.
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        world.pause_target(json!("0"));
        world.wait_until("it goes on", || world.paused("podinfo-so").is_none()).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_target_rests();
    });
}

#[test]
fn a_rollback_and_a_withdrawn_release_end_with_a_paused_target() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.2-err20");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_target_rests();
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_weight(20).await;
        assert_eq!(world.paused("podinfo-so"), None);
        world.set_image("podinfo", "podinfo:6.0.0");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_target_rests();
    });
}

/// Q: a promotion without an analysis has no phase in which an autoscaler is brought along.
#[test]
fn without_an_analysis_the_primarys_scaler_is_updated_too() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|canary| canary["spec"]["skipAnalysis"] = json!(true)).await;
        world.change(&kinds::SCALED_OBJECT, "podinfo-so", |object| object["spec"]["maxReplicaCount"] = json!(9));
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        let primary = world.get(&kinds::SCALED_OBJECT, "podinfo-so-primary").unwrap();
        assert_eq!(primary["spec"]["maxReplicaCount"], 9);
        world.pass(Duration::from_secs(60)).await;
        world.assert_target_rests();
    });
}

/// Without `revertOnDeletion` it stays paused, as in Flagger; whoever takes it over finds it so.
#[test]
fn a_deleted_canary_leaves_a_target_that_can_be_taken_over_or_is_given_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_keda(|_| {}).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(10)).await;
        world.assert_target_rests();
        for gone in ["podinfo-so-primary", "keda-hpa-podinfo-so-primary"] {
            let kind = if gone.starts_with("keda") { &kinds::HPA } else { &kinds::SCALED_OBJECT };
            assert!(world.get(kind, gone).is_none(), "{gone} goes with the canary");
        }
        let mut canary = crate::support::canary("test", "podinfo");
        canary["spec"]["autoscalerRef"] =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
        canary["spec"]["revertOnDeletion"] = json!(true);
        world.create(canary).await;
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.paused("podinfo-so-primary"), None);
        assert!(world.replicas_of("podinfo-primary") >= 2);

        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.paused("podinfo-so"), None);
        assert!(world.replicas_of("podinfo") >= 2);
        assert!(world.get(&kinds::HPA, "keda-hpa-podinfo-so").is_some());
    });
}

#[test]
fn a_cluster_without_keda_is_named() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(scaled_object()).await;
        world.cluster.store().delete(&kinds::CUSTOM_RESOURCE_DEFINITION, "", "scaledobjects.keda.sh").unwrap();
        world.create(crate::support::deployment("test", "podinfo", "podinfo:6.0.0")).await;
        let mut canary = crate::support::canary("test", "podinfo");
        canary["spec"]["autoscalerRef"] =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
        world.create(canary).await;
        world.start();
        world.pass(Duration::from_secs(60)).await;
        let told = "the API server does not serve ScaledObject (keda.sh/v1alpha1): install KEDA, \
                    or choose another spec.autoscalerRef";
        assert_eq!(world.count_events("podinfo", told), 1, "{}", world.story());
        assert_eq!(world.replicas_of("podinfo"), 2, "nothing of it is touched");
    });
}
