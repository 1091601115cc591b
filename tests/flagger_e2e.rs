//! Flagger's end-to-end scripts: the same manifests, unmodified, the same steps, and what the scripts wait for and look at, within
//! the times that they allow.
//!
//! `fates` says of each manifest where it runs, or that it is refused, and by what name. Scripts are told once and run on the
//! hosts of the scenarios, the embedded cluster and real components.

mod fates;
mod istio;
mod kubernetes;
mod pod_metrics;
pub mod real;

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_loadtest::users::Users;
use aviary_providers::HttpRequest;
use futures::FutureExt;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use serde_json::{Value, json};

pub use self::fates::refused_name;
use crate::fixtures_run::documents;
use crate::scenarios::embedded::Embedded;
use crate::scenarios::host::Host;
use crate::scenarios::real::Real;
use crate::scenarios::scene::{CANARY, DEPLOYMENT, EVENT, Kind, SERVICE, Scene, VIRTUAL_SERVICE};
use crate::support::{World, api, create_through, in_virtual_time};

const IMAGE: &str = "ghcr.io/stefanprodan/podinfo";
/// What the scripts allow for the initialization, and for the end of a release after the promotion.
const INITIALIZED_WITHIN: Duration = Duration::from_secs(250);
/// What the scripts allow for a release until the primary has it.
const PROMOTED_WITHIN: Duration = Duration::from_secs(500);

/// What the load tester was asked to do.
type Tasks = Arc<Mutex<Vec<String>>>;

/// A script under way, in namespace `test`.
struct Script<'a> {
    scene: Scene<'a>,
    /// `None` where the load tester is a pod, which tells nobody.
    tasks: Option<Tasks>,
    /// Set where nobody sends what the load tester is asked to send, unless this script does.
    real: Option<&'a Real<'a>>,
}

/// Runs a script on an embedded cluster with the provider that it is for.
fn on_embedded_cluster(mesh: &str, script: impl AsyncFnOnce(&Script)) {
    in_virtual_time(async {
        let mut world = World::new(1);
        mesh.clone_into(&mut world.config.providers.mesh_provider);
        let tasks = Tasks::default();
        let asked = tasks.clone();
        let load_tester = Arc::new(move |request: HttpRequest| {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let task = body["metadata"]["cmd"].as_str().map_or(request.url, ToOwned::to_owned);
            asked.lock().unwrap().push(task);
            std::future::ready(Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("flagger-loadtester.test", load_tester);
        // What it sends when it is asked to.
        for service in ["podinfo-canary", "podinfo-svc-canary", "podinfo-ds-canary"] {
            world.traffic.set_load("test", service, 20.0);
        }
        if mesh == "kubernetes" {
            world.config.providers.include_label_prefixes = vec![kubernetes::LABEL_PREFIX.to_owned()];
        }
        world.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})).await;
        world.start();
        let host = Embedded(RefCell::new(world));
        script(&Script::begin(&host, Some(tasks)).await).await;
        host.0.into_inner().stop().await;
    });
}

impl<'a> Script<'a> {
    /// With the workloads that all scripts begin with.
    async fn begin(host: &'a dyn Host, tasks: Option<Tasks>) -> Script<'a> {
        let script = Script { scene: Scene::within(host, "test").await, tasks, real: None };
        script.apply("workloads/secret.yaml").await;
        script.apply("workloads/deployment.yaml").await;
        script.scene.wait_until_available("podinfo").await;
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
        let client = self.scene.host().client();
        let api: Api<DynamicObject> = api(client.clone(), group, version, &kind, Some(&text("/metadata/namespace")));
        match api.get_opt(&name).await.unwrap() {
            None => create_through(client, object).await,
            Some(present) => {
                object["metadata"]["resourceVersion"] = json!(present.metadata.resource_version);
                object["metadata"]["finalizers"] = json!(present.metadata.finalizers);
                api.replace(&name, &PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
            }
        }
    }

    /// Waits no longer than the script does.
    async fn within(&self, limit: Duration, what: &str, is_so: impl AsyncFn() -> bool) {
        let looks = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let waited = tokio::time::timeout(limit, looks).await;
        assert!(waited.is_ok(), "not within {limit:?}: {what}\n{:#}\n{:#?}", self.scene.status(), self.events().await);
    }

    async fn is_in_phase(&self, limit: Duration, phase: &str) {
        self.within(limit, phase, async || self.scene.status()["phase"] == phase).await;
    }

    async fn is_initialized(&self) {
        self.is_in_phase(INITIALIZED_WITHIN, "Initialized").await;
        self.scene.wait_until_scaled_down().await;
    }

    async fn set_image(&self, version: &str) -> String {
        let image = format!("{IMAGE}:{version}");
        self.scene.set_image(&image).await;
        image
    }

    /// `kubectl set image`, the new tag in the primary, and the end.
    async fn releases(&self, version: &str) {
        let image = self.set_image(version).await;
        let load = self.load().await;
        self.within(PROMOTED_WITHIN, "promotion", async || self.image_of_primary().await == image).await;
        // It would ask pods that go, and the next release would be judged by what it gets.
        drop(load);
        self.has_released().await;
    }

    /// What checks of Istio's metrics are about, as long as it is kept.
    async fn load(&self) -> Option<Users> {
        let real = self.real?;
        let canary = self.present(CANARY, "podinfo").await;
        let spec = &canary["spec"];
        let has_metrics = spec["analysis"]["metrics"].as_array().is_some_and(|metrics| !metrics.is_empty());
        if !has_metrics || spec["skipAnalysis"] == true || spec["provider"] == "kubernetes" {
            return None;
        }
        self.scene.wait_until_available("podinfo").await;
        Some(real.load("test", "podinfo-canary", spec["service"]["port"].as_u64().unwrap()).await)
    }

    async fn has_released(&self) {
        self.is_in_phase(INITIALIZED_WITHIN, "Succeeded").await;
        self.scene.wait_until_scaled_down().await;
        assert_eq!(self.count_events("Halt").await, 0, "{:#?}", self.events().await);
        assert_eq!(self.count_events("Error").await, 0, "{:#?}", self.events().await);
        let primary = self.present(DEPLOYMENT, "podinfo-primary").await;
        let container = &primary["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "podinfo-secret-primary");
        assert_eq!(self.scene.weight(), 0);
        self.has_asked_for_every_task().await;
    }

    /// The load tester was asked for everything that the hooks of the Canary say.
    async fn has_asked_for_every_task(&self) {
        let Some(tasks) = &self.tasks else { return };
        let canary = self.present(CANARY, "podinfo").await;
        let tasks = tasks.lock().unwrap();
        for hook in canary["spec"]["analysis"]["webhooks"].as_array().into_iter().flatten() {
            if canary["spec"]["skipAnalysis"] == true && hook["type"].is_null() {
                continue;
            }
            let task = hook["metadata"]["cmd"].as_str().or(hook["url"].as_str()).unwrap_or_default();
            assert!(tasks.iter().any(|asked| asked == task), "never asked: {task}\n{tasks:#?}");
        }
    }

    async fn image_of_primary(&self) -> String {
        let primary = self.present(DEPLOYMENT, "podinfo-primary").await;
        primary["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    }

    async fn present(&self, kind: Kind, name: &str) -> Value {
        self.scene.get(kind, name).await.unwrap_or_else(|| panic!("no {} {name}", kind.2))
    }

    /// Messages of the canary's events. Those of a former canary of its name outlive it.
    async fn events(&self) -> Vec<String> {
        let canaries = self.scene.list(CANARY).await;
        let is_of_canary =
            |event: &Value| canaries.iter().any(|canary| canary["metadata"]["uid"] == event["involvedObject"]["uid"]);
        let events = self.scene.list(EVENT).await.into_iter().filter(is_of_canary);
        events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// An event that repeats counts once.
    async fn count_events(&self, part: &str) -> usize {
        self.events().await.iter().filter(|event| event.contains(part)).count()
    }

    /// `kubectl delete canary`; then the target serves as it did before, and what Flagger made is gone.
    async fn deletes(&self) {
        let canary = self.present(CANARY, "podinfo").await;
        assert_eq!(canary["metadata"]["finalizers"], json!(["finalizer.flagger.app"]));
        self.scene.api(CANARY).delete("podinfo", &DeleteParams::default()).await.unwrap();
        let is_gone = async || self.scene.get(CANARY, "podinfo").await.is_none();
        self.within(INITIALIZED_WITHIN, "the deletion", is_gone).await;
        let target = self.present(DEPLOYMENT, "podinfo").await;
        assert_eq!((&target["spec"]["replicas"], &target["status"]["availableReplicas"]), (&json!(1), &json!(1)));
        let is_gone = async || self.scene.get(DEPLOYMENT, "podinfo-primary").await.is_none();
        self.within(INITIALIZED_WITHIN, "the primary goes with the canary", is_gone).await;
    }

    /// As the scripts end: nothing of the canary and of the user's routes is left, and the target is as it was in the beginning.
    async fn clear(&self) {
        self.clear_all(&[(CANARY, "podinfo"), (VIRTUAL_SERVICE, "podinfo"), (SERVICE, "podinfo")]).await;
    }

    /// The same for objects of other kinds and names.
    async fn clear_all(&self, objects: &[(Kind, &str)]) {
        // They would fail from now on, and the next script be told so.
        self.real.iter().for_each(|real| real.dismiss_users());
        for (kind, name) in objects {
            // What goes with the canary may be gone already.
            let _ = self.scene.api(*kind).delete(name, &DeleteParams::default()).await;
        }
        let are_gone = async || {
            let mut left = self.scene.get(DEPLOYMENT, "podinfo-primary").await.is_some();
            for (kind, name) in objects {
                left |= self.scene.get(*kind, name).await.is_some();
            }
            !left
        };
        self.within(INITIALIZED_WITHIN, "nothing is left", are_gone).await;
        self.apply("workloads/deployment.yaml").await;
        self.scene.wait_until_available("podinfo").await;
    }

    /// No user of `podinfo` was without an answer.
    fn has_disturbed_nobody(&self) {
        assert_ne!(self.scene.host().has_lost_requests("test"), Some(true), "requests failed");
    }
}
