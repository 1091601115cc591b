//! Flagger's end-to-end scripts: the same manifests, unmodified, the same steps, and what the scripts wait for and look at, within
//! the times that they allow.
//!
//! `fates` says of each manifest where it runs, or that it is refused, and by what name.

mod fates;
mod istio;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_sim::store::{GroupKind, kinds};
use futures::FutureExt;
use kube::api::PostParams;
use serde_json::{Value, json};

pub use self::fates::refused_name;
use crate::fixtures_run::documents;
use crate::support::{World, api};

const IMAGE: &str = "ghcr.io/stefanprodan/podinfo";
/// What the scripts allow for the initialization and for the end of a release, and for the promotion.
const INITIALIZED_WITHIN: Duration = Duration::from_secs(250);
const PROMOTED_WITHIN: Duration = Duration::from_secs(500);

/// A script under way: the workloads that all begin with, a load tester, and users.
struct Script {
    world: World,
    /// What the load tester was asked to do.
    tasks: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn begin(mesh: &str) -> Script {
        let mut world = World::new(1);
        mesh.clone_into(&mut world.config.providers.mesh_provider);
        let tasks = Arc::<Mutex<Vec<String>>>::default();
        let asked = tasks.clone();
        let load_tester = Arc::new(move |request: HttpRequest| {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let task = body["metadata"]["cmd"].as_str().map_or(request.url, ToOwned::to_owned);
            asked.lock().unwrap().push(task);
            std::future::ready(Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("flagger-loadtester.test", load_tester);
        // What it sends when it is asked to.
        world.traffic.set_load("test", "podinfo-canary", 20.0);
        let istio = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}});
        world.create(istio).await;
        let mut script = Script { world, tasks };
        script.apply("workloads/secret.yaml").await;
        script.apply("workloads/deployment.yaml").await;
        script.world.start();
        script.world.pass(Duration::from_secs(30)).await;
        script
    }

    /// What `kubectl apply` does, also with what exists.
    async fn apply(&self, file: &str) {
        for document in documents(file) {
            self.apply_one(document).await;
        }
    }

    async fn apply_one(&self, mut object: Value) {
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("test");
        }
        let applied = object.to_string();
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(applied);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (types, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = types.split_once('/').unwrap_or(("", &types));
        let client = self.world.cluster.client("kubectl");
        let api = api(client, group, version, &kind, Some(&text("/metadata/namespace")));
        match api.get_opt(&name).await.unwrap() {
            None => self.world.create(object).await,
            Some(present) => {
                object["metadata"]["resourceVersion"] = json!(present.metadata.resource_version);
                object["metadata"]["finalizers"] = json!(present.metadata.finalizers);
                api.replace(&name, &PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
            }
        }
    }

    /// Waits no longer than the script does.
    async fn within(&self, limit: Duration, what: &str, is_so: impl Fn() -> bool) {
        let waited = tokio::time::timeout(limit, self.world.wait_until(what, is_so)).await;
        assert!(waited.is_ok(), "not within {limit:?}: {what}\n{}", self.world.story());
    }

    async fn is_initialized(&self) {
        self.within(INITIALIZED_WITHIN, "initialization", || self.world.phase("podinfo") == "Initialized").await;
        self.world.pass(Duration::from_secs(120)).await;
    }

    /// `kubectl set image`, the new tag in the primary, and the end.
    async fn releases(&self, version: &str) {
        let image = format!("{IMAGE}:{version}");
        self.world.set_image("podinfo", &image);
        self.within(PROMOTED_WITHIN, "promotion", || self.image_of_primary() == image).await;
        self.within(INITIALIZED_WITHIN, "the end", || self.world.phase("podinfo") == "Succeeded").await;
        self.world.pass(Duration::from_secs(30)).await;
        assert_eq!(self.world.count_events("podinfo", "Halt"), 0, "{}", self.world.story());
        assert_eq!(self.world.count_events("podinfo", "Error"), 0, "{}", self.world.story());
        let primary = self.present(&kinds::DEPLOYMENT, "podinfo-primary");
        let container = &primary["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "podinfo-secret-primary");
        assert_eq!(self.world.status("podinfo")["canaryWeight"], 0);
        self.has_asked_for_every_task();
    }

    /// The load tester was asked for everything that the hooks of the Canary say.
    fn has_asked_for_every_task(&self) {
        let canary = self.present(&kinds::CANARY, "podinfo");
        let tasks = self.tasks.lock().unwrap();
        for hook in canary["spec"]["analysis"]["webhooks"].as_array().into_iter().flatten() {
            if canary["spec"]["skipAnalysis"] == true && hook["type"].is_null() {
                continue;
            }
            let task = hook["metadata"]["cmd"].as_str().or(hook["url"].as_str()).unwrap_or_default();
            assert!(tasks.iter().any(|asked| asked == task), "never asked: {task}\n{tasks:#?}");
        }
    }

    fn image_of_primary(&self) -> String {
        let primary = self.present(&kinds::DEPLOYMENT, "podinfo-primary");
        primary["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    }

    fn present(&self, kind: &GroupKind, name: &str) -> Value {
        self.world.get(kind, name).unwrap_or_else(|| panic!("no {kind} {name}\n{}", self.world.story()))
    }

    /// `kubectl delete canary`; then the target serves as it did before.
    async fn deletes(&self) {
        let canary = self.present(&kinds::CANARY, "podinfo");
        assert_eq!(canary["metadata"]["finalizers"], json!(["finalizer.flagger.app"]));
        self.world.delete(&kinds::CANARY, "podinfo").await;
        let is_gone = || self.world.get(&kinds::CANARY, "podinfo").is_none();
        self.within(INITIALIZED_WITHIN, "the deletion", is_gone).await;
        let target = self.present(&kinds::DEPLOYMENT, "podinfo");
        assert_eq!((&target["spec"]["replicas"], &target["status"]["availableReplicas"]), (&json!(1), &json!(1)));
        let primary = || self.world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none();
        self.within(INITIALIZED_WITHIN, "the primary goes with the canary", primary).await;
    }

    /// No user was without an answer.
    fn has_disturbed_nobody(&self) {
        let report = self.world.traffic.report("test", "podinfo");
        assert!(report.requests() > 0.0, "no users");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}\n{}", self.world.story());
    }
}
