//! A scenario's own namespace, with a Deployment `podinfo` and a Canary of it, and words to tell its story.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::host::{Headers, Host};
use crate::support::{api, canary, create_through, deployment};

/// A kind of object: group, version, kind.
pub type Kind = (&'static str, &'static str, &'static str);

pub const CANARY: Kind = ("flagger.app", "v1beta1", "Canary");
pub const DEPLOYMENT: Kind = ("apps", "v1", "Deployment");
pub const DAEMON_SET: Kind = ("apps", "v1", "DaemonSet");
pub const SERVICE: Kind = ("", "v1", "Service");
pub const CONFIG_MAP: Kind = ("", "v1", "ConfigMap");
pub const EVENT: Kind = ("", "v1", "Event");
pub const AUTOSCALER: Kind = ("autoscaling", "v2", "HorizontalPodAutoscaler");
pub const SCALED_OBJECT: Kind = ("keda.sh", "v1alpha1", "ScaledObject");
pub const VIRTUAL_SERVICE: Kind = ("networking.istio.io", "v1beta1", "VirtualService");
pub const DESTINATION_RULE: Kind = ("networking.istio.io", "v1beta1", "DestinationRule");

pub struct Scene<'a> {
    host: &'a dyn Host,
    pub namespace: String,
    client: Client,
    /// The Canary as it is; `None` where there is none.
    canary: watch::Receiver<Option<Value>>,
    steps: Arc<Mutex<Vec<String>>>,
    has_users: Cell<bool>,
    following: JoinHandle<()>,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl<'a> Scene<'a> {
    /// A namespace of this name, in which nothing is yet.
    pub async fn open(host: &'a dyn Host, name: &str) -> Scene<'a> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create_through(host.client(), namespace).await;
        Scene::within(host, name).await
    }

    /// A namespace that exists.
    pub async fn within(host: &'a dyn Host, name: &str) -> Scene<'a> {
        let client = host.client();
        let (sender, canary) = watch::channel(None);
        let steps = Arc::<Mutex<Vec<String>>>::default();
        let (group, version, kind) = CANARY;
        let canaries = api(client.clone(), group, version, kind, Some(name));
        let (listed, is_listed) = tokio::sync::oneshot::channel();
        let following = tokio::spawn(follow(canaries, sender, steps.clone(), listed));
        let scene =
            Scene { host, namespace: name.to_owned(), client, canary, steps, has_users: Cell::new(false), following };
        // Nothing is missed after this.
        is_listed.await.expect("canaries can be watched");
        scene
    }

    /// Deployment `podinfo` of version 6.0.0 and this Canary of it, up to its initialization.
    pub async fn begin(&self, change: impl FnOnce(&mut Value)) {
        self.create(deployment(&self.namespace, "podinfo", "podinfo:6.0.0")).await;
        self.create(self.canary_object(change)).await;
        self.wait_until_initialized().await;
    }

    /// Waits until all pods of a Deployment are available.
    pub async fn wait_until_available(&self, name: &str) {
        self.eventually(&format!("{name} is available"), async || {
            let Some(object) = self.get(DEPLOYMENT, name).await else { return false };
            let (spec, status) = (&object["spec"], &object["status"]);
            status["observedGeneration"] == object["metadata"]["generation"]
                && status["updatedReplicas"] == spec["replicas"]
                && status["availableReplicas"] == spec["replicas"]
        })
        .await;
    }

    /// Waits until the primary serves and the last pod of the target is gone, as it is before most releases.
    pub async fn wait_until_initialized(&self) {
        self.wait_for_phase("Initialized").await;
        self.wait_until_scaled_down().await;
    }

    /// Waits until the last pod of the target is gone. Users are led away from it some time before.
    pub async fn wait_until_scaled_down(&self) {
        self.eventually("the target has no pods", async || {
            let target = self.get(DEPLOYMENT, "podinfo").await.unwrap();
            target["spec"]["replicas"] == 0 && target["status"]["replicas"].as_u64().unwrap_or(0) == 0
        })
        .await;
    }

    /// Canary `podinfo` with two steps of 25 %, changed.
    pub fn canary_object(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut object = canary(&self.namespace, "podinfo");
        let spec = &mut object["spec"];
        // Long enough for pods that start, and not longer than a test needs.
        spec["progressDeadlineSeconds"] = json!(60);
        spec["service"] = json!({
            "port": 80, "targetPort": 9898, "gateways": ["istio-system/public-gateway"],
            "hosts": [format!("podinfo.{}.example.com", self.namespace)],
        });
        let analysis = &mut spec["analysis"];
        (analysis["stepWeight"], analysis["maxWeight"], analysis["threshold"]) = (json!(25), json!(50), json!(2));
        for metric in analysis["metrics"].as_array_mut().unwrap() {
            metric["interval"] = json!("30s");
            if metric["name"] == "request-duration" {
                // A busy machine is no slow version.
                metric["thresholdRange"]["max"] = json!(10_000);
            }
        }
        change(&mut object);
        object
    }

    pub fn api(&self, kind: Kind) -> Api<DynamicObject> {
        let (group, version, kind) = kind;
        api(self.client.clone(), group, version, kind, Some(&self.namespace))
    }

    /// Creates an object in the scenario's namespace.
    pub async fn create(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.namespace);
        create_through(self.client.clone(), object).await;
    }

    pub async fn merge(&self, kind: Kind, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        let object = self.api(kind).get_opt(name).await.unwrap();
        object.map(|object| serde_json::to_value(object).unwrap())
    }

    pub async fn list(&self, kind: Kind) -> Vec<Value> {
        let list = self.api(kind).list(&ListParams::default()).await.unwrap();
        list.items.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    pub async fn set_image(&self, image: &str) {
        let containers = json!([{"name": "podinfod", "image": image}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let deployments = self.api(DEPLOYMENT);
        deployments.patch("podinfo", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    pub async fn patch_canary(&self, spec: Value) {
        self.merge(CANARY, "podinfo", json!({"spec": spec})).await;
    }

    pub async fn delete_canary(&self) {
        self.api(CANARY).delete("podinfo", &DeleteParams::default()).await.unwrap();
        self.wait("the canary is gone", Option::is_none).await;
    }

    pub async fn wait_for_phase(&self, phase: &str) {
        self.wait_for(phase, |status| status["phase"] == phase).await;
    }

    pub async fn wait_for_weight(&self, weight: u64) {
        self.wait_for(&format!("weight {weight}"), |status| status["canaryWeight"] == weight).await;
    }

    /// Waits for a status of the Canary.
    pub async fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.wait(what, |canary| canary.as_ref().is_some_and(|canary| is_so(&canary["status"]))).await;
    }

    async fn wait(&self, what: &str, is_so: impl Fn(&Option<Value>) -> bool) {
        let mut canary = self.canary.clone();
        let waited = tokio::time::timeout(self.host.patience(), canary.wait_for(|canary| is_so(canary))).await;
        if waited.is_err() {
            panic!("waited in vain for: {what}\n{}", super::ending::story(self).await);
        }
    }

    /// Waits until the cluster is so. Nobody tells of it, so it is looked at again and again.
    pub async fn eventually(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = tokio::time::Instant::now() + self.host.patience();
        while !is_so().await {
            if tokio::time::Instant::now() > deadline {
                panic!("waited in vain for: {what}\n{}", super::ending::story(self).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn pass(&self, time: Duration) {
        self.host.pass(time).await;
    }

    pub fn host(&self) -> &dyn Host {
        self.host
    }

    pub fn weight(&self) -> u64 {
        self.status()["canaryWeight"].as_u64().unwrap_or_default()
    }

    pub fn status(&self) -> Value {
        self.canary.borrow().as_ref().map(|canary| canary["status"].clone()).unwrap_or_default()
    }

    /// Phases and weights of the Canary until now.
    pub fn steps(&self) -> Vec<String> {
        self.steps.lock().unwrap().clone()
    }

    /// Users of `podinfo`.
    pub async fn admit_users(&self) {
        self.admit_users_with(&[]).await;
    }

    pub async fn admit_users_with(&self, headers: &[(&str, &str)]) {
        self.has_users.set(true);
        self.host.admit_users(&self.namespace, "podinfo", &to_headers(headers)).await;
    }

    /// Whether a request of these users failed; `None` where there are none, or nobody counts.
    pub fn has_lost_requests(&self) -> Option<bool> {
        self.host.has_lost_requests(&self.namespace).filter(|_| self.has_users.get())
    }

    /// Requests to the canary itself, as load testers send them. A route of the gateway leads there, so that the proxy counts
    /// them.
    pub async fn load_canary(&self) {
        self.create(json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "podinfo-canary"},
            "spec": {
                "gateways": ["istio-system/public-gateway"], "hosts": [format!("podinfo-canary.{}.example.com", self.namespace)],
                "http": [{"route": [{"destination": {"host": "podinfo-canary"}}]}],
            },
        }))
        .await;
        self.host.admit_users(&self.namespace, "podinfo-canary", &Headers::new()).await;
    }

    /// Users with these headers are led to this workload, and to no other. A mesh needs a moment to follow its routes.
    pub async fn assert_led_to(&self, headers: &[(&str, &str)], workload: &str) {
        let headers_sent = to_headers(headers);
        let deadline = tokio::time::Instant::now() + self.host.patience() / 4;
        let mut answered = BTreeSet::new();
        while tokio::time::Instant::now() < deadline {
            answered = self.host.answers_to(&self.namespace, &headers_sent).await;
            if answered.len() == 1 && answered.contains(workload) {
                return;
            }
        }
        panic!("{headers:?} are led to {answered:?} and not to {workload}\n{}", super::ending::story(self).await);
    }
}

fn to_headers(headers: &[(&str, &str)]) -> Headers {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Keeps up with the Canary of a namespace, and writes down its phases and weights.
async fn follow(
    canaries: Api<DynamicObject>,
    canary: watch::Sender<Option<Value>>,
    steps: Arc<Mutex<Vec<String>>>,
    listed: tokio::sync::oneshot::Sender<()>,
) {
    let mut listed = Some(listed);
    let mut events = watcher(canaries, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                let object = serde_json::to_value(object).unwrap();
                let status = &object["status"];
                if let Some(phase) = status["phase"].as_str().filter(|phase| !phase.is_empty()) {
                    let step = format!("{phase} {}", status["canaryWeight"].as_u64().unwrap_or_default());
                    let mut steps = steps.lock().unwrap();
                    if steps.last() != Some(&step) {
                        steps.push(step);
                    }
                }
                canary.send_replace(Some(object));
            }
            Ok(watcher::Event::Delete(_)) => {
                canary.send_replace(None);
            }
            Ok(watcher::Event::InitDone) => {
                if let Some(listed) = listed.take() {
                    let _ = listed.send(());
                }
            }
            // The watcher tries again.
            Ok(watcher::Event::Init) | Err(_) => {}
        }
    }
}
