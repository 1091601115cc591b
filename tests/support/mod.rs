//! An embedded cluster with a controller, in virtual time, and words to talk about it.

pub mod checks;
pub mod process;

use std::collections::BTreeMap;
use std::time::Duration;

use aviary::embedded::{self, ServiceNames};
use aviary_actors::{Controller, ControllerConfig};
use aviary_sim::cluster::Cluster;
use aviary_sim::controllers::{ControllerOptions, PodBehaviours, PodDetail, Utilisation};
use aviary_sim::prometheus::Prometheus;
use aviary_sim::store::{GroupKind, kinds};
use aviary_sim::traffic::{Traffic, TrafficOptions};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The controller's user agent.
pub const AGENT: &str = "aviary";
/// Kinds that are watched whatever the provider is. TrafficSplits are, in three versions: a cluster may serve only one of them.
pub const WATCHED_KINDS: [&str; 17] = [
    "alertproviders",
    "birdwatches",
    "canaries",
    "configmaps",
    "daemonsets",
    "deployments",
    "destinationrules",
    "horizontalpodautoscalers",
    "metrictemplates",
    "rollouts",
    "scaledobjects",
    "secrets",
    "services",
    "trafficsplits",
    "trafficsplits",
    "trafficsplits",
    "virtualservices",
];

/// How often each kind is listed and watched at the start.
pub fn calls_of_start_up() -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for kind in WATCHED_KINDS {
        for verb in ["list", "watch"] {
            *calls.entry(format!("{verb} {kind}")).or_default() += 1;
        }
    }
    calls
}

/// A world to test in.
pub struct World {
    pub cluster: Cluster,
    pub traffic: Traffic,
    pub prometheus: Prometheus,
    pub services: ServiceNames,
    pub config: ControllerConfig,
    /// The user agent of the next controller; calls and faults are told apart by it.
    pub agent: String,
    /// How pods behave, by image.
    pub pods: PodBehaviours,
    /// How busy pods are, for autoscalers.
    pub utilisation: Utilisation,
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
    // Actors that are dropped with the local set serve what is left in their mailboxes, which needs the runtime.
    let _entered = runtime.enter();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

impl World {
    /// A cluster with namespace `test` and a controller.
    pub fn new(seed: u64) -> World {
        World::with_pods(seed, PodDetail::Objects)
    }

    /// The same, choosing whether pods are objects.
    pub fn with_pods(seed: u64, pods: PodDetail) -> World {
        World::with_traffic(seed, pods, TrafficOptions::default())
    }

    /// The same, choosing how users behave and how late the mesh hears of changes.
    pub fn with_traffic(seed: u64, pods: PodDetail, traffic: TrafficOptions) -> World {
        let mut options = embedded::cluster_options(seed);
        options.traffic = traffic;
        let controllers = ControllerOptions { pods, ..ControllerOptions::default() };
        let (pods, utilisation) = (controllers.behaviours.clone(), controllers.utilisation.clone());
        options.controllers = Some(controllers);
        let cluster = Cluster::new(options);
        let traffic = cluster.traffic().clone();
        let prometheus = cluster.prometheus().clone();
        let services = ServiceNames::with_prometheus(&prometheus);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
        cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
        let config = ControllerConfig::default();
        World {
            cluster,
            traffic,
            prometheus,
            services,
            config,
            agent: AGENT.to_owned(),
            pods,
            utilisation,
            controller: None,
        }
    }

    /// So many requests to `podinfo` that the first check of any weight has two scrapes to judge by. With the default load,
    /// the first request may come so late that it is in one scrape only, which is no value and a failed check, as it is
    /// with a real Prometheus.
    pub fn load_heavily(&self) {
        self.traffic.set_load("test", "podinfo", 2000.0);
    }

    /// Starts the controller.
    pub fn start(&mut self) {
        let controller =
            embedded::start_controller(self.config.clone(), &self.cluster, &self.agent, &self.services).unwrap();
        self.controller = Some(controller);
    }

    /// Takes a controller that was started differently.
    pub fn run(&mut self, controller: Controller) {
        self.controller = Some(controller);
    }

    pub fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("the controller was started")
    }

    /// Stops the controller in order.
    pub async fn stop(&mut self) -> bool {
        self.assert_no_violations();
        self.controller.take().expect("the controller was started").shutdown(Duration::from_secs(10)).await
    }

    /// Stops the controller as `kill -9` does.
    pub fn kill(&mut self) {
        self.assert_no_violations();
        self.controller.take().expect("the controller was started").kill();
    }

    /// Creates an object through the API, as `kubectl create` does: validated and with defaults.
    pub async fn create(&self, object: Value) {
        create_through(self.cluster.client("kubectl"), object).await;
    }

    /// The same, for what the API server may refuse.
    pub async fn try_create(&self, object: Value) -> kube::Result<()> {
        try_create_through(self.cluster.client("kubectl"), object).await
    }

    /// Deletes an object of namespace `test`, as `kubectl delete` does.
    pub async fn delete(&self, kind: &GroupKind, name: &str) {
        let version = if kind.group == "flagger.app" { "v1beta1" } else { "v1" };
        let api = self.api(&kind.group, version, &kind.kind, Some("test"));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Merges into the spec of a Canary of namespace `test`, as `kubectl patch` does.
    pub async fn patch_canary(&self, name: &str, spec: Value) {
        let api = self.api("flagger.app", "v1beta1", "Canary", Some("test"));
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    }

    fn api(&self, group: &str, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        api(self.cluster.client("kubectl"), group, version, kind, namespace)
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

    /// The same for this Canary of Deployment `podinfo`, with a controller, and with users who arrive once it is initialized.
    pub async fn initialize(&mut self, canary: Value) {
        self.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        self.create(canary).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }

    /// The image of a Deployment.
    pub fn image_of(&self, name: &str) -> String {
        let deployment = self.get(&kinds::DEPLOYMENT, name).expect("the deployment exists");
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    }

    pub fn set_image(&self, name: &str, image: &str) {
        self.set_image_of(&kinds::DEPLOYMENT, name, image);
    }

    pub fn set_image_of(&self, kind: &GroupKind, name: &str, image: &str) {
        self.change(kind, name, |workload| {
            workload["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
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
        self.events_in("test", name)
    }

    /// Messages of the events of a canary in another namespace, in order.
    pub fn events_in(&self, namespace: &str, name: &str) -> Vec<String> {
        let mut events: Vec<_> = self
            .cluster
            .store()
            .list(&kinds::EVENT, Some(namespace))
            .into_iter()
            .filter(|event| event["involvedObject"]["name"] == name && event["involvedObject"]["kind"] == "Canary")
            .collect();
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Messages of the canary's events from the first one that starts like this.
    pub fn events_from(&self, name: &str, start: &str) -> Vec<String> {
        let mut events = self.events(name);
        let first = events.iter().position(|event| event.starts_with(start));
        let first = first.unwrap_or_else(|| panic!("no event {start:?}\n{}", self.story()));
        events.split_off(first)
    }

    /// How many events of the canary hold this text. An event that repeats counts once.
    pub fn count_events(&self, name: &str, part: &str) -> usize {
        self.events(name).iter().filter(|event| event.contains(part)).count()
    }

    /// A condition of the canary.
    pub fn condition(&self, name: &str, condition_type: &str) -> Option<Value> {
        let status = self.status(name);
        status["conditions"].as_array()?.iter().find(|condition| condition["type"] == condition_type).cloned()
    }

    /// Starts to write down every change of phase or weight of a canary, with its time.
    pub fn follow(&self, namespace: &str, name: &str) -> Journal {
        let journal = Journal::default();
        let (entries, clock) = (journal.0.clone(), *self.cluster.clock());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let mut changes = self.cluster.store().subscribe();
        tokio::spawn(async move {
            while let Some(event) = changes.recv().await {
                let object = event.object();
                if event.kind != kinds::CANARY
                    || object["metadata"]["namespace"] != namespace.as_str()
                    || object["metadata"]["name"] != name.as_str()
                {
                    continue;
                }
                let phase = object["status"]["phase"].as_str().unwrap_or_default().to_owned();
                let weight = object["status"]["canaryWeight"].as_u64().unwrap_or_default();
                let mut entries = entries.lock().unwrap();
                if entries.last().is_none_or(|last: &Entry| last.phase != phase || last.weight != weight) {
                    entries.push(Entry { at: clock.now(), phase, weight });
                }
            }
        });
        journal
    }

    /// The exposition text of the controller's metrics.
    pub fn metrics(&self) -> String {
        self.controller().metrics().render().unwrap()
    }

    /// The value of one series, given as in the exposition text.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// No decision of the running controller broke an invariant.
    pub fn assert_no_violations(&self) {
        let Some(controller) = &self.controller else { return };
        let text = controller.metrics().render().unwrap();
        let violations: Vec<&str> =
            text.lines().filter(|line| line.starts_with("aviary_invariant_violations_total")).collect();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.story());
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

impl Drop for World {
    /// Whatever a test is about, no invariant may break on the way, and nothing be asked for that is not granted.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_no_violations();
            checks::assert_calls_are_granted(&self.cluster, &[AGENT]);
        }
    }
}

/// One phase or weight of a canary, and since when.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub at: jiff::Timestamp,
    pub phase: String,
    pub weight: u64,
}

/// Phases and weights of a canary, in order.
#[derive(Clone, Default)]
pub struct Journal(std::sync::Arc<std::sync::Mutex<Vec<Entry>>>);

impl Journal {
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    /// Phases and weights without their times.
    pub fn steps(&self) -> Vec<(String, u64)> {
        self.entries().into_iter().map(|entry| (entry.phase, entry.weight)).collect()
    }

    /// When the canary was first in this phase with this weight.
    pub fn time_of(&self, phase: &str, weight: u64) -> jiff::Timestamp {
        let entries = self.entries();
        let found = entries.iter().find(|entry| entry.phase == phase && entry.weight == weight);
        found.unwrap_or_else(|| panic!("never {phase} at {weight}: {entries:#?}")).at
    }
}

pub fn api(client: Client, group: &str, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    }
}

/// Creates an object through the API, as `kubectl create` does: validated and with defaults.
pub async fn create_through(client: Client, object: Value) {
    try_create_through(client, object).await.unwrap();
}

async fn try_create_through(client: Client, object: Value) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let api = api(client, group, version, &types.kind, object.metadata.namespace.as_deref());
    api.create(&PostParams::default(), &object).await.map(drop)
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

/// A DaemonSet whose new pod starts beside the old one.
pub fn daemon_set(namespace: &str, name: &str, image: &str) -> Value {
    let mut object = deployment(namespace, name, image);
    object["kind"] = json!("DaemonSet");
    let spec = object["spec"].as_object_mut().unwrap();
    spec.remove("replicas");
    let surging = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    spec.insert("updateStrategy".to_owned(), surging);
    object
}

/// A Service for the pods of this Deployment.
pub fn service(namespace: &str, name: &str, pods: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": pods}, "ports": [{"name": "http", "port": 9898, "targetPort": 9898}]},
    })
}

/// Makes an analysis a blue/green one.
pub fn iterations(canary: &mut Value, count: u32) {
    let analysis = canary["spec"]["analysis"].as_object_mut().unwrap();
    analysis.retain(|key, _| key != "stepWeight" && key != "maxWeight");
    analysis.insert("iterations".to_owned(), json!(count));
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
