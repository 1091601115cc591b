//! The manifests of Flagger's own end-to-end tests and examples, unmodified: what this version serves is released, and the rest is
//! refused by name. Istio's scripts are in `flagger_e2e`.

mod keda;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_sim::store::{GroupKind, kinds};
use futures::FutureExt;
use serde_json::{Value, json};

use crate::flagger_e2e::refused_name;
use crate::support::{World, in_virtual_time};

/// Manifests of which this version serves the canary.
pub const SERVED: &[&str] = &[
    "e2e/istio-canary.yaml",
    "e2e/istio-skip-analysis.yaml",
    "e2e/istio-delegation.yaml",
    "e2e/istio-abtest.yaml",
    "e2e/istio-bluegreen.yaml",
    "e2e/istio-finalizer-existing-objects.yaml",
    "e2e/istio-finalizer.yaml",
    "e2e/istio-session-affinity.yaml",
    "e2e/keda-scaledobject.yaml",
    "e2e/kubernetes-daemonset-finalizer.yaml",
    "e2e/kubernetes-daemonset.yaml",
    "e2e/kubernetes-deployment.yaml",
    "e2e/kubernetes-hpa.yaml",
    "examples/istio-canary.yaml",
    "examples/istio-abtest.yaml",
];

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flagger")
}

pub fn documents(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join(file)).unwrap();
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("parse {file}: {error}"));
    documents.into_iter().filter(Value::is_object).collect()
}

fn holds(file: &str, kind: &str) -> bool {
    documents(file).iter().any(|object| object["kind"] == kind)
}

/// All manifests that hold a Canary.
fn manifests() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["e2e", "examples"] {
        for entry in std::fs::read_dir(fixtures().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let file = format!("{folder}/{name}");
            if name.ends_with(".yaml") && holds(&file, "Canary") {
                found.push(file);
            }
        }
    }
    found.sort();
    found
}

/// Flagger's scripts run each with a mesh of its own, named first in the file.
fn mesh_of(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or_default();
    match name.split('-').next().unwrap_or_default() {
        "gatewayapi" => "gatewayapi:v1",
        "keda" => "kubernetes",
        mesh => [
            "apisix",
            "contour",
            "gloo",
            "istio",
            "knative",
            "kubernetes",
            "kuma",
            "linkerd",
            "nginx",
            "skipper",
            "traefik",
        ]
        .into_iter()
        .find(|known| *known == mesh)
        .unwrap_or_else(|| panic!("{file}: no mesh known")),
    }
}

impl World {
    /// A world with the load tester, in which webhooks are answered 200.
    fn for_fixtures(mesh: &str) -> World {
        let mut world = World::new(1);
        mesh.clone_into(&mut world.config.providers.mesh_provider);
        let load_tester = Arc::new(|_: HttpRequest| {
            std::future::ready(Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("flagger-loadtester.test", load_tester);
        world
    }

    /// Creates what a file holds, if the cluster knows the kind; in namespace `test` where none is given.
    async fn create_fixture(&self, file: &str) {
        self.create_documents(file, documents(file)).await;
    }

    async fn create_documents(&self, file: &str, documents: Vec<Value>) {
        for mut object in documents {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("test").to_owned();
            object["metadata"]["namespace"] = json!(namespace);
            if self.cluster.store().get(&kinds::NAMESPACE, "", &namespace).is_none() {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
                self.create(namespace).await;
            }
            let kind = object["kind"].clone();
            if let Err(error) = self.try_create(object).await {
                let unserved = matches!(&error, kube::Error::Api(status) if status.code == 404);
                assert!(unserved && kind != "Canary", "{file}: {kind} was refused: {error}");
            }
        }
    }
}

/// What the Canary of a file is about.
struct Subject {
    /// Name of the canary.
    canary: String,
    kind: GroupKind,
    /// Name of the target.
    target: String,
    apex: String,
}

impl Subject {
    fn of(file: &str) -> Subject {
        let canary = documents(file).into_iter().find(|object| object["kind"] == "Canary").expect("in the file");
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let reference = &canary["spec"]["targetRef"];
        let target = text(&reference["name"]).expect("a name");
        Subject {
            canary: text(&canary["metadata"]["name"]).expect("a name"),
            kind: if reference["kind"] == "DaemonSet" { kinds::DAEMON_SET } else { kinds::DEPLOYMENT },
            apex: text(&canary["spec"]["service"]["name"]).unwrap_or_else(|| target.clone()),
            target,
        }
    }

    fn primary(&self) -> String {
        format!("{}-primary", self.target)
    }
}

fn released(file: &str) {
    released_with(file, &[]);
}

/// The target, what the canary refers to, and the canary; initialized, with users and a load tester.
async fn initialized(file: &str, more: &[&str]) -> World {
    let mut world = World::for_fixtures(mesh_of(file));
    // As Flagger's scripts install it.
    world.config.providers.include_label_prefixes = vec!["app.kubernetes.io".to_owned()];
    world.create_fixture("workloads/secret.yaml").await;
    world.create_fixture("workloads/deployment.yaml").await;
    world.create_fixture("workloads/daemonset.yaml").await;
    for file in more {
        world.create_fixture(file).await;
    }
    if !holds(file, "MetricTemplate") {
        // The scripts of Istio apply it once, with the first canary.
        let file = "e2e/istio-canary.yaml";
        let templates = documents(file).into_iter().filter(|object| object["kind"] == "MetricTemplate");
        world.create_documents(file, templates.collect()).await;
    }
    let subject = Subject::of(file);
    // What the load tester sends when it is asked to.
    world.traffic.set_load("test", &format!("{}-canary", subject.apex), 20.0);
    world.create_fixture(file).await;
    world.start();
    world.wait_for_phase(&subject.canary, "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    world
}

async fn release(world: &World, file: &str) {
    let Subject { canary, kind, target, .. } = &Subject::of(file);
    let primary = Subject::of(file).primary();
    world.change(kind, target, |workload| {
        workload["spec"]["template"]["spec"]["containers"][0]["image"] = json!("ghcr.io/stefanprodan/podinfo:6.0.1");
    });
    world.wait_for_phase(canary, "Progressing").await;
    world.wait_until("the end", || ["Succeeded", "Failed"].contains(&world.phase(canary).as_str())).await;
    assert_eq!(world.phase(canary), "Succeeded", "{}", world.story());
    let primary = world.get(kind, &primary).expect("exists");
    let container = &primary["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "ghcr.io/stefanprodan/podinfo:6.0.1");
    if *kind == kinds::DEPLOYMENT {
        assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "podinfo-secret-primary");
    }
    assert_eq!(world.count_events(canary, "Halt"), 0, "{}", world.story());
    assert_eq!(world.count_events(canary, "Error"), 0, "{}", world.story());
}

fn released_with(file: &str, more: &[&str]) {
    in_virtual_time(async {
        let world = initialized(file, more).await;
        release(&world, file).await;
    });
}

/// The ends that Flagger's script waits for: the finalizer is there; once the canary is deleted, the target has a pod.
async fn deleted(world: &World) {
    let canary = world.get(&kinds::CANARY, "podinfo").expect("exists");
    assert_eq!(canary["metadata"]["finalizers"], json!(["finalizer.flagger.app"]));
    world.delete(&kinds::CANARY, "podinfo").await;
    world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
    let target = world.get(&kinds::DEPLOYMENT, "podinfo").expect("exists");
    assert_eq!((&target["spec"]["replicas"], &target["status"]["availableReplicas"]), (&json!(1), &json!(1)));
    assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none(), "it goes with the canary");
}

#[test]
fn istio_example_with_an_autoscaler() {
    released_with("examples/istio-canary.yaml", &["podinfo/hpa.yaml"]);
}

#[test]
fn istio_ab_test_example_with_an_autoscaler() {
    released_with("examples/istio-abtest.yaml", &["podinfo/hpa.yaml"]);
}

#[test]
fn istio_finalizer() {
    released("e2e/istio-finalizer.yaml");
    in_virtual_time(async {
        let world = initialized("e2e/istio-finalizer.yaml", &[]).await;
        deleted(&world).await;
    });
}

#[test]
fn istio_finalizer_with_existing_objects() {
    in_virtual_time(async {
        let file = "e2e/istio-finalizer-existing-objects.yaml";
        let users =
            |kind: &str| documents(file).into_iter().find(|object| object["kind"] == kind).expect("in the file");
        let world = initialized(file, &[]).await;
        release(&world, file).await;
        deleted(&world).await;
        let report = world.traffic.report("test", "podinfo");
        assert_eq!(report.interruptions, 0, "{report:#?}\n{}", world.story());
        let service = world.get(&kinds::SERVICE, "podinfo").expect("is the user's");
        assert_eq!(service["spec"]["selector"], users("Service")["spec"]["selector"]);
        let routes = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("is the user's");
        assert_eq!(routes["spec"], users("VirtualService")["spec"]);
    });
}

/// No route moves a user: they meet the version when it is promoted.
#[test]
fn kubernetes_deployment() {
    in_virtual_time(async {
        let file = "e2e/kubernetes-deployment.yaml";
        let world = initialized(file, &[]).await;
        let service = world.get(&kinds::SERVICE, "podinfo-svc").expect("is the user's");
        assert_eq!(service["metadata"]["ownerReferences"], Value::Null, "it was there before");
        assert_eq!(service["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/reconcile"], "disabled");
        assert_eq!(service["metadata"]["annotations"]["helm.toolkit.fluxcd.io/driftDetection"], "disabled");
        assert_eq!(service["spec"]["selector"], json!({"app": "podinfo-primary"}));
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").expect("exists");
        assert_eq!(primary["metadata"]["labels"]["app.kubernetes.io/managed-by"], "test-label-prefix");
        assert_eq!(primary["metadata"]["annotations"]["app.kubernetes.io/instance"], "test-annotation-prefix");
        release(&world, file).await;
        let events = world.events_from("podinfo", "New revision");
        let expected = [
            "Starting canary analysis for podinfo.test",
            "Pre-rollout check acceptance-test passed",
            "Advance podinfo.test canary iteration 1/5",
            "Advance podinfo.test canary iteration 5/5",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "Promotion completed! Scaling down podinfo.test",
        ];
        let mut rest = events.iter();
        for event in expected {
            assert!(rest.any(|found| found == event), "{event}: {events:#?}");
        }
        assert_eq!(world.count_events("podinfo", "Confirm-rollout check gate passed"), 1, "{}", world.story());
        assert_eq!(world.count_events("podinfo", "Routing all traffic"), 0, "nothing is routed\n{}", world.story());
        let report = world.traffic.report("test", "podinfo-svc");
        assert!(report.requests() > 1000.0, "{report:#?}");
        assert_eq!((report.interruptions, report.failures()), (0, 0.0), "{report:#?}\n{}", world.story());
        assert!(world.get(&kinds::VIRTUAL_SERVICE, "podinfo-svc").is_none());
    });
}

#[test]
fn kubernetes_daemon_set() {
    released("e2e/kubernetes-daemonset.yaml");
}

#[test]
fn kubernetes_daemon_set_finalizer() {
    in_virtual_time(async {
        let file = "e2e/kubernetes-daemonset-finalizer.yaml";
        let world = initialized(file, &[]).await;
        let target = || world.get(&kinds::DAEMON_SET, "podinfo-ds").expect("exists");
        assert_eq!(target()["status"]["desiredNumberScheduled"], 0, "it is not needed");
        let canary = world.get(&kinds::CANARY, "podinfo-ds").expect("exists");
        assert_eq!(canary["metadata"]["finalizers"], json!(["finalizer.flagger.app"]));
        world.delete(&kinds::CANARY, "podinfo-ds").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo-ds").is_none()).await;
        assert_eq!(target()["status"]["numberAvailable"], 1, "it serves again");
        assert!(world.get(&kinds::DAEMON_SET, "podinfo-ds-primary").is_none(), "it goes with the canary");
    });
}

#[test]
fn kubernetes_hpa() {
    released("e2e/kubernetes-hpa.yaml");
}

#[test]
fn every_other_canary_is_refused_by_name() {
    let others = manifests().into_iter().filter(|file| !SERVED.contains(&file.as_str()));
    let refused: Vec<String> = others.collect();
    assert!(refused.len() >= 24, "{refused:#?}");
    for file in &refused {
        in_virtual_time(async {
            let mut world = World::for_fixtures(mesh_of(file));
            world.create_fixture("workloads/secret.yaml").await;
            world.create_fixture("workloads/deployment.yaml").await;
            world.create_fixture(file).await;
            world.start();
            world.pass(Duration::from_secs(60)).await;
            let canaries = world.cluster.store().list(&kinds::CANARY, None);
            assert_eq!(canaries.len(), 1, "{file}");
            let (namespace, name) = (&canaries[0]["metadata"]["namespace"], &canaries[0]["metadata"]["name"]);
            let events = world.events_in(namespace.as_str().unwrap(), name.as_str().unwrap());
            assert_eq!(events.len(), 1, "{file}: {events:#?}");
            let says_what = events[0].starts_with("spec.") && events[0].contains(" is not supported");
            assert!(says_what, "{file}: {}", events[0]);
            let name = refused_name(file);
            assert!(name.is_none_or(|name| events[0].contains(name)), "{file}: {name:?} is not in {}", events[0]);
            let accepted = canaries[0]["status"]["conditions"][0].clone();
            assert_eq!((&accepted["type"], &accepted["status"]), (&json!("Accepted"), &json!("False")), "{file}");
            assert_eq!(accepted["message"], events[0].as_str(), "{file}");
            let written = world.cluster.calls().snapshot().of_client(crate::support::AGENT);
            assert_eq!((written.writes(), written.event_writes()), (1, 1), "{file}: nothing but that\n{written}");
        });
    }
}
