//! An embedded cluster with a controller, in virtual time, and words to talk about it.

use std::time::Duration;

use aviary::embedded::{self, ServiceNames};
use aviary_actors::{Controller, ControllerConfig};
use aviary_sim::cluster::Cluster;
use aviary_sim::controllers::{ControllerOptions, PodDetail};
use aviary_sim::prometheus::Prometheus;
use aviary_sim::store::{GroupKind, kinds};
use aviary_sim::traffic::{Traffic, TrafficOptions};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

/// The controller's user agent.
pub const AGENT: &str = "aviary";

/// A world to test in.
pub struct World {
    pub cluster: Cluster,
    pub traffic: Traffic,
    pub prometheus: Prometheus,
    pub services: ServiceNames,
    pub config: ControllerConfig,
    controller: Option<Controller>,
}

/// Runs a test on a paused clock, on the one thread that actors need.
pub fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // RUST_LOG=info shows the controller's log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

impl World {
    /// A cluster with namespace `test` and a controller.
    pub fn new(seed: u64) -> World {
        World::with_pods(seed, PodDetail::Objects)
    }

    /// The same, choosing whether pods are objects.
    pub fn with_pods(seed: u64, pods: PodDetail) -> World {
        let mut options = embedded::cluster_options(seed);
        options.controllers = Some(ControllerOptions { pods, ..ControllerOptions::default() });
        let cluster = Cluster::new(options);
        let traffic = Traffic::new(cluster.store(), *cluster.clock(), &TrafficOptions::default());
        let prometheus = Prometheus::new(traffic.clone());
        let services = ServiceNames::with_prometheus(&prometheus);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
        cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
        World { cluster, traffic, prometheus, services, config: ControllerConfig::default(), controller: None }
    }

    /// Starts the controller.
    pub fn start(&mut self) {
        let controller = embedded::start_controller(self.config.clone(), &self.cluster, AGENT, &self.services).unwrap();
        self.controller = Some(controller);
    }

    pub fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("the controller was started")
    }

    /// Stops the controller in order.
    pub async fn stop(&mut self) -> bool {
        self.controller.take().expect("the controller was started").shutdown(Duration::from_secs(10)).await
    }

    /// Stops the controller as `kill -9` does.
    pub fn kill(&mut self) {
        self.controller.take().expect("the controller was started").kill();
    }

    /// Creates an object through the API, as `kubectl create` does: validated and with defaults.
    pub async fn create(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let client = self.cluster.client("kubectl");
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    pub fn get(&self, kind: &GroupKind, name: &str) -> Option<Value> {
        self.cluster.store().get(kind, "test", name).map(|object| (*object).clone())
    }

    pub fn change(&self, kind: &GroupKind, name: &str, change: impl FnOnce(&mut Value)) {
        self.cluster.store().update(kind, "test", name, change).unwrap();
    }

    /// Deployment `name` and a Canary of it.
    pub async fn deploy(&self, name: &str) {
        self.create(deployment("test", name, "podinfo:6.0.0")).await;
        self.create(canary("test", name)).await;
    }

    pub fn set_image(&self, name: &str, image: &str) {
        self.change(&kinds::DEPLOYMENT, name, |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        });
    }

    pub fn status(&self, name: &str) -> Value {
        self.get(&kinds::CANARY, name).map(|canary| canary["status"].clone()).unwrap_or_default()
    }

    pub fn phase(&self, name: &str) -> String {
        self.status(name)["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the canary is in the phase; fails after an hour of cluster time, with the story so far.
    pub async fn wait_for_phase(&self, name: &str, phase: &str) {
        self.wait_until(&format!("{name} is {phase}"), || self.phase(name) == phase).await;
    }

    /// Waits for a condition; fails after an hour of cluster time, with the story so far.
    pub async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let mut changes = self.cluster.store().subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
        while !condition() {
            let next = tokio::time::timeout_at(deadline, changes.recv()).await;
            assert!(next.is_ok(), "waited an hour for: {what}\n{}", self.story());
        }
    }

    /// Lets cluster time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Messages of the canary's events, in order.
    pub fn events(&self, name: &str) -> Vec<String> {
        let mut events: Vec<_> = self
            .cluster
            .store()
            .list(&kinds::EVENT, Some("test"))
            .into_iter()
            .filter(|event| event["involvedObject"]["name"] == name && event["involvedObject"]["kind"] == "Canary")
            .collect();
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What happened, for a failing test.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for canary in self.cluster.store().list(&kinds::CANARY, None) {
            story += &format!("{}: {:#}\n", canary["metadata"]["name"], canary["status"]);
        }
        for event in self.cluster.store().list(&kinds::EVENT, None) {
            story += &format!("{} {} {}\n", event["firstTimestamp"], event["involvedObject"]["name"], event["message"]);
        }
        story
    }
}

pub fn deployment(namespace: &str, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "podinfod", "image": image, "ports": [{"name": "http", "containerPort": 9898, "protocol": "TCP"}]}]},
            },
        },
    })
}

pub fn canary(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "progressDeadlineSeconds": 60,
            "service": {"port": 9898},
            "analysis": {
                "interval": "10s", "threshold": 3, "maxWeight": 50, "stepWeight": 10,
                "metrics": [
                    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
                    {"name": "request-duration", "interval": "1m", "thresholdRange": {"max": 500}},
                ],
            },
        },
    })
}
