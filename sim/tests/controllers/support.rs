//! A store with controllers on virtual time, and what the tests ask of it.

use std::sync::Arc;
use std::time::Duration;

use aviary_sim::clock::Clock;
use aviary_sim::controllers::{self, ControllerOptions, PodBehaviours, PodDetail, Utilisation, Workloads};
use aviary_sim::store::{ChangeType, Store, StoreEvent, kinds};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) const NAMESPACE: &str = "test";
pub(crate) const BOTH: [PodDetail; 2] = [PodDetail::Objects, PodDetail::CountsOnly];

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) workloads: Arc<Workloads>,
    pub(crate) behaviours: PodBehaviours,
    pub(crate) utilisation: Utilisation,
    pub(crate) began: Instant,
}

impl Bench {
    pub(crate) fn new(pods: PodDetail) -> Self {
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 7);
        let options = ControllerOptions { pods, ..ControllerOptions::default() };
        let (behaviours, utilisation) = (options.behaviours.clone(), options.utilisation.clone());
        let workloads = controllers::start(store.clone(), clock, options);
        Self { store, workloads, behaviours, utilisation, began: Instant::now() }
    }

    pub(crate) fn create(&self, deployment: Value) {
        self.store.create(&kinds::DEPLOYMENT, deployment).unwrap();
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.store.update(&kinds::DEPLOYMENT, NAMESPACE, name, change).unwrap();
    }

    pub(crate) fn set_image(&self, name: &str, image: &str) {
        self.change(name, |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
    }

    pub(crate) fn scale(&self, name: &str, replicas: i64) {
        self.change(name, |object| object["spec"]["replicas"] = replicas.into());
    }

    pub(crate) fn deployment(&self, name: &str) -> Arc<Value> {
        self.store.get(&kinds::DEPLOYMENT, NAMESPACE, name).unwrap()
    }

    /// Waits until a Deployment satisfies a condition; an hour of virtual time is for ever.
    pub(crate) async fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Arc<Value> {
        let mut events = self.store.subscribe();
        let reached = async {
            loop {
                let object = self.deployment(name);
                if condition(&object) {
                    return object;
                }
                events.recv().await.unwrap();
            }
        };
        match timeout(Duration::from_secs(3600), reached).await {
            Ok(object) => object,
            Err(_) => panic!("never {what}: {:#}", self.deployment(name)["status"]),
        }
    }

    pub(crate) async fn until_complete(&self, name: &str) -> Arc<Value> {
        self.until(name, "complete", is_complete).await
    }

    pub(crate) async fn at(&self, seconds: f64) {
        sleep_until(self.began + Duration::from_secs_f64(seconds)).await;
    }

    pub(crate) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn images(&self, name: &str) -> Vec<(String, u32)> {
        let versions = self.workloads.ready(NAMESPACE, name);
        versions.into_iter().map(|version| (version.image.to_string(), version.ready)).collect()
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Value>> {
        self.store.list(&kinds::POD, Some(NAMESPACE))
    }
}

pub(crate) fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 9898}]}]},
            },
        },
    })
}

pub(crate) fn number(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

pub(crate) fn is_observed(object: &Value) -> bool {
    object["metadata"]["generation"] == object["status"]["observedGeneration"]
}

pub(crate) fn is_complete(object: &Value) -> bool {
    let wanted = object["spec"]["replicas"].as_i64().unwrap();
    is_observed(object)
        && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| number(object, field) == wanted)
        && number(object, "terminatingReplicas") == 0
}

pub(crate) fn condition<'a>(object: &'a Value, condition_type: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == condition_type).unwrap()
}

pub(crate) fn reason(object: &Value, condition_type: &str) -> String {
    condition(object, condition_type)["reason"].as_str().unwrap().to_owned()
}

pub(crate) fn revision(object: &Value) -> &str {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap()
}

/// Every state of one Deployment that was stored, in order.
pub(crate) fn states(events: &mut tokio::sync::mpsc::UnboundedReceiver<StoreEvent>) -> Vec<Arc<Value>> {
    let mut states = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.kind == kinds::DEPLOYMENT && event.change != ChangeType::Deleted {
            states.push(Arc::clone(event.object()));
        }
    }
    states
}

pub(crate) fn pod_name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
}

pub(crate) fn autoscaler(min: i64, max: i64) -> Value {
    json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "minReplicas": min, "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    })
}

pub(crate) fn daemon_set() -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
            },
        },
    })
}
