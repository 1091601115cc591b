//! KEDA's ScaledObjects.

use std::sync::Arc;
use std::time::Duration;

use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::store::kinds;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::*;

/// Deployment and Service `podinfo`, whose users send so many requests a second, and a ScaledObject of it: one pod for ten of them.
fn scaled(requests: f64, bounds: &Value) -> Cluster {
    let cluster = Cluster::new(ClusterOptions::default());
    let store = cluster.store();
    store.create(&kinds::NAMESPACE, json!({"metadata": {"name": NAMESPACE}})).unwrap();
    store.create(&kinds::DEPLOYMENT, deployment("podinfo", 1, "podinfo:1")).unwrap();
    let service =
        json!({"metadata": {"name": "podinfo", "namespace": NAMESPACE}, "spec": {"selector": {"app": "podinfo"}}});
    store.create(&kinds::SERVICE, service).unwrap();
    cluster.traffic().set_load(NAMESPACE, "podinfo", requests);
    let mut object = json!({
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"name": "podinfo"}, "pollingInterval": 10, "cooldownPeriod": 20,
            "triggers": [{"type": "prometheus", "metadata": {
                "query": "sum(rate(http_requests_total{app=\"podinfo\"}[1m]))", "threshold": "10",
            }}],
        },
    });
    object["spec"].as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
    store.create(&kinds::SCALED_OBJECT, object).unwrap();
    cluster
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn replicas(cluster: &Cluster) -> Value {
    cluster.store().get(&kinds::DEPLOYMENT, NAMESPACE, "podinfo").unwrap()["spec"]["replicas"].clone()
}

fn scaler(cluster: &Cluster) -> Arc<Value> {
    cluster.store().get(&kinds::SCALED_OBJECT, NAMESPACE, "web").unwrap()
}

fn autoscaler_of(cluster: &Cluster, name: &str) -> Option<Arc<Value>> {
    cluster.store().get(&kinds::HPA, NAMESPACE, name)
}

fn pause(cluster: &Cluster, replicas: Option<&str>) {
    let annotate = |object: &mut Value| {
        object["metadata"]["annotations"] = match replicas {
            Some(replicas) => json!({"autoscaling.keda.sh/paused-replicas": replicas}),
            None => json!({}),
        };
    };
    cluster.store().update(&kinds::SCALED_OBJECT, NAMESPACE, "web", annotate).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_trigger_asks_for_pods_through_an_autoscaler() {
    let cluster = scaled(35.0, &json!({"minReplicaCount": 2, "maxReplicaCount": 6}));
    pass(1).await;
    assert_eq!(replicas(&cluster), 2, "the fewest");
    pass(300).await;
    assert_eq!(replicas(&cluster), 4);
    let autoscaler = autoscaler_of(&cluster, "keda-hpa-web").unwrap();
    let spec = &autoscaler["spec"];
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(6)));
    assert_eq!(spec["metrics"][0]["external"]["metric"]["name"], "s0-prometheus");
    assert_eq!(spec["metrics"][0]["external"]["target"], json!({"type": "AverageValue", "averageValue": "10"}));
    assert_eq!(reason(&autoscaler, "ScalingActive"), "ValidMetricFound");
    let object = scaler(&cluster);
    assert_eq!(object["metadata"]["labels"]["scaledobject.keda.sh/name"], "web");
    assert_eq!(object["status"]["hpaName"], "keda-hpa-web");
    assert_eq!(condition(&object, "Active")["status"], "True");

    cluster.traffic().set_load(NAMESPACE, "podinfo", 500.0);
    pass(180).await;
    assert_eq!(replicas(&cluster), 6, "the most");
    // Renamed, it is another one.
    cluster
        .store()
        .update(&kinds::SCALED_OBJECT, NAMESPACE, "web", |object| {
            object["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": "mine"}});
        })
        .unwrap();
    pass(1).await;
    assert!(autoscaler_of(&cluster, "keda-hpa-web").is_none() && autoscaler_of(&cluster, "mine").is_some());
    cluster.store().delete(&kinds::SCALED_OBJECT, NAMESPACE, "web").unwrap();
    pass(1).await;
    assert!(cluster.store().get(&kinds::SCALED_OBJECT, NAMESPACE, "web").is_none());
    assert!(autoscaler_of(&cluster, "mine").is_none(), "it goes with its owner");
}

#[tokio::test(start_paused = true)]
async fn a_paused_target_is_held_until_it_may_go_on() {
    let cluster = scaled(35.0, &json!({"minReplicaCount": 2}));
    pass(300).await;
    pause(&cluster, Some("0"));
    pass(1).await;
    assert_eq!(replicas(&cluster), 0);
    assert!(autoscaler_of(&cluster, "keda-hpa-web").is_none());
    assert_eq!(reason(&scaler(&cluster), "Paused"), "ScaledObjectPaused");
    // Whoever scales it is overruled.
    cluster
        .store()
        .update(&kinds::DEPLOYMENT, NAMESPACE, "podinfo", |object| object["spec"]["replicas"] = json!(3))
        .unwrap();
    pass(30).await;
    assert_eq!(replicas(&cluster), 0);
    let idle = cluster.store().revision();
    pass(3600).await;
    assert_eq!(cluster.store().revision(), idle, "nothing is written while it rests");
    pause(&cluster, None);
    pass(1).await;
    assert_eq!(replicas(&cluster), 2, "the fewest, at once");
    assert_eq!(reason(&scaler(&cluster), "Paused"), "ScaledObjectUnpaused");
    pass(300).await;
    assert_eq!(replicas(&cluster), 4);
    pause(&cluster, Some("3"));
    pass(1).await;
    assert_eq!(replicas(&cluster), 3);
}

#[tokio::test(start_paused = true)]
async fn a_target_without_work_is_taken_to_zero_after_a_while() {
    let cluster = scaled(35.0, &json!({"initialCooldownPeriod": 60}));
    pass(120).await;
    assert_eq!(replicas(&cluster), 4);
    cluster.traffic().set_load(NAMESPACE, "podinfo", 0.0);
    // The rate ends after a minute, and then the target cools down.
    pass(70).await;
    assert_ne!(replicas(&cluster), 0);
    pass(60).await;
    assert_eq!(replicas(&cluster), 0);
    assert_eq!(condition(&scaler(&cluster), "Active")["status"], "False");
}

#[tokio::test(start_paused = true)]
async fn a_scaled_object_without_a_target_or_with_somebody_elses_autoscaler_says_so() {
    let cluster = scaled(35.0, &json!({"minReplicaCount": 2}));
    let store = cluster.store();
    pass(1).await;
    store
        .update(&kinds::SCALED_OBJECT, NAMESPACE, "web", |object| {
            object["spec"]["scaleTargetRef"]["name"] = json!("no")
        })
        .unwrap();
    pass(1).await;
    assert_eq!(reason(&scaler(&cluster), "Ready"), "ScaledObjectCheckFailed");
    store.create(&kinds::HPA, autoscaler(1, 2)).unwrap();
    let named = |annotations: Value| {
        move |object: &mut Value| {
            object["metadata"]["annotations"] = annotations;
            object["spec"]["scaleTargetRef"]["name"] = json!("podinfo");
            object["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": "podinfo"}});
        }
    };
    store.update(&kinds::SCALED_OBJECT, NAMESPACE, "web", named(json!({}))).unwrap();
    pass(1).await;
    let message = condition(&scaler(&cluster), "Ready")["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("is already managed by the hpa 'podinfo'"), "{message}");
    let transfer = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    store.update(&kinds::SCALED_OBJECT, NAMESPACE, "web", named(transfer)).unwrap();
    pass(1).await;
    assert_eq!(reason(&scaler(&cluster), "Ready"), "ScaledObjectReady");
    assert_eq!(autoscaler_of(&cluster, "podinfo").unwrap()["metadata"]["ownerReferences"][0]["name"], "web");
}
