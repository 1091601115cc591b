//! Brings the objects of the input into the cluster, as kubectl would.

use aviary_providers::metrics;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::manifests::{Manifest, Manifests};
use super::network;
use super::scenario::{Action, ActionKind, Scenario, nearest};
use super::subject::Subject;
use crate::embedded;

/// Kinds of Kubernetes' own groups that exist and that change nothing about a release here.
const PASSED_OVER: [&str; 9] = [
    "PersistentVolumeClaim",
    "PersistentVolume",
    "ResourceQuota",
    "LimitRange",
    "ReplicationController",
    "PodTemplate",
    "ControllerRevision",
    "ComponentStatus",
    "Binding",
];

/// Kinds that one writes, with the version in use. Those that are no kind of the cluster are passed over aloud.
pub(crate) const KINDS: [(&str, &str); 18] = [
    ("v1", "Namespace"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("v1", "Endpoints"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "ReplicaSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("flagger.app/v1beta1", "Canary"),
    ("flagger.app/v1beta1", "MetricTemplate"),
    ("flagger.app/v1beta1", "AlertProvider"),
    ("networking.istio.io/v1beta1", "VirtualService"),
    ("networking.istio.io/v1beta1", "DestinationRule"),
    ("networking.istio.io/v1beta1", "Gateway"),
];

/// Puts the scenario's values in the place of templates' backends.
///
/// # Errors
/// Templates in use whose backend is not built, and that the scenario does not answer.
pub(crate) fn simulate_templates(
    manifests: &mut Manifests,
    subjects: &[Subject],
    scenario: &Scenario,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    for manifest in manifests.objects.iter_mut().filter(|manifest| manifest.is("flagger.app", "MetricTemplate")) {
        let (namespace, name) = (manifest.namespace().to_owned(), manifest.name().to_owned());
        if network::metric_of(scenario, &namespace, &name).is_some() {
            if manifest.source.is_some() {
                notes.push(format!("{} is answered with the values of the scenario", manifest.title()));
            }
            manifest.object["spec"] = network::simulated_provider(&namespace, &name, None);
            continue;
        }
        let in_use = subjects
            .iter()
            .any(|subject| subject.templates().any(|(key, _)| key.namespace == namespace && key.name == name));
        let provider = manifest.object["spec"]["provider"]["type"].as_str().unwrap_or_default();
        if in_use && let Err(error) = metrics::for_type(provider) {
            let message = format!("{error}; a scenario can give its values: metrics.{name}");
            problems.push(manifest.message("spec.provider.type", &message));
        }
    }
    manifests.notes.extend(notes);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Creates everything, Canaries last.
///
/// # Errors
/// Every object that the API server refuses, with every reason.
pub(crate) async fn create(client: &Client, manifests: &mut Manifests) -> Result<(), Vec<String>> {
    let order = |manifest: &Manifest| match manifest.kind() {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "Canary" => 3,
        _ => 2,
    };
    manifests.objects.sort_by_key(order);
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    for manifest in &manifests.objects {
        match create_one(client, manifest, manifests).await {
            Ok(()) => {}
            // Every cluster has some.
            Err(Error::Api(status)) if status.code == 409 && manifest.kind() == "Namespace" => {}
            Err(Error::Api(status)) => match refused(manifest, &status) {
                Verdict::PassOver(note) => notes.push(manifest.message("", &note)),
                Verdict::Refuse(refusals) => problems.extend(refusals),
            },
            Err(error) => problems.push(manifest.message("", &error.to_string())),
        }
    }
    manifests.notes.extend(notes);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

async fn create_one(client: &Client, manifest: &Manifest, manifests: &Manifests) -> kube::Result<()> {
    let (group, kind) = (manifest.group(), manifest.kind());
    let version = manifest.api_version().rsplit('/').next().unwrap_or_default();
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let definitions = manifests.of("apiextensions.k8s.io", "CustomResourceDefinition");
    let names = definitions
        .map(|definition| &definition.object["spec"])
        .find(|spec| spec["group"] == group && spec["names"]["kind"] == kind);
    let mut namespace = Some(manifest.namespace()).filter(|namespace| !namespace.is_empty());
    if let Some(spec) = names {
        if let Some(plural) = spec["names"]["plural"].as_str() {
            plural.clone_into(&mut resource.plural);
        }
        if spec["scope"] == "Cluster" {
            namespace = None;
        }
    }
    let mut object: DynamicObject = serde_json::from_value(manifest.object.clone()).map_err(Error::SerdeError)?;
    object.metadata.namespace = namespace.map(str::to_owned);
    // What a server wrote once is not the user's.
    object.metadata.resource_version = None;
    object.metadata.uid = None;
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    embedded::create_strictly(client, &api, &object).await
}

enum Verdict {
    PassOver(String),
    Refuse(Vec<String>),
}

fn refused(manifest: &Manifest, status: &Status) -> Verdict {
    let kind = manifest.kind();
    if status.code == 409 {
        return Verdict::PassOver("it exists already, and is left as it is".to_owned());
    }
    if status.code != 404 {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let mut refusals: Vec<String> = causes
            .map(|cause| manifest.message(&cause.field, &format!("{}: {}", cause.field, cause.message)))
            .collect();
        if refusals.is_empty() {
            refusals.push(manifest.message("", &status.message));
        }
        return Verdict::Refuse(refusals);
    }
    let passed_over = || Verdict::PassOver(format!("ignored: the simulated cluster has no kind {kind}"));
    let of_kind: Vec<&str> = KINDS.iter().filter(|known| known.1 == kind).map(|known| known.0).collect();
    let same_group = |known: &&(&str, &str)| group_of(known.0) == manifest.group();
    let group_is_known = KINDS.iter().any(|known| same_group(&known));
    if of_kind.iter().any(|version| group_of(version) == manifest.group()) {
        let message = format!("apiVersion {} is not served; served: {}", manifest.api_version(), of_kind.join(", "));
        return Verdict::Refuse(vec![manifest.message("apiVersion", &message)]);
    }
    let kinds: Vec<&str> = KINDS.iter().filter(same_group).map(|known| known.1).collect();
    match nearest(kind, &kinds) {
        Some(meant) if group_is_known && !PASSED_OVER.contains(&kind) && !is_istio(manifest) => {
            let message = format!("no kind {kind} in {}; did you mean {meant}?", manifest.api_version());
            Verdict::Refuse(vec![manifest.message("kind", &message)])
        }
        _ => passed_over(),
    }
}

/// Istio has many kinds that do not matter here.
fn is_istio(manifest: &Manifest) -> bool {
    manifest.group().ends_with("istio.io")
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Does what a user does.
///
/// # Errors
/// What the API server says.
pub(crate) async fn act(client: &Client, action: &Action, default_namespace: &str) -> kube::Result<()> {
    let kind = action.kind.as_deref().unwrap_or("Canary");
    let known = KINDS.iter().find(|known| known.1 == kind).map_or("v1", |known| known.0);
    let api_version = action.api_version.as_deref().unwrap_or(known);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let namespace = action.namespace.as_deref().unwrap_or(default_namespace);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let merge = |patch: Value| async move {
        api.patch(&action.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    };
    match action.action {
        ActionKind::Suspend => merge(json!({"spec": {"suspend": true}})).await,
        ActionKind::Resume => merge(json!({"spec": {"suspend": false}})).await,
        ActionKind::Patch => merge(action.patch.clone().unwrap_or_default()).await,
        ActionKind::Delete => {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            api.delete(&action.name, &DeleteParams::default()).await.map(drop)
        }
    }
}

/// The words for an action in the timeline.
pub(crate) fn describe(action: &Action) -> String {
    let verb = match action.action {
        ActionKind::Suspend => "suspends",
        ActionKind::Resume => "resumes",
        ActionKind::Patch => "changes",
        ActionKind::Delete => "deletes",
    };
    let kind = action.kind.as_deref().unwrap_or("Canary");
    let patch = action.patch.as_ref().map(|patch| format!(": {patch}")).unwrap_or_default();
    format!("A user {verb} {kind} {}{patch}", action.name)
}
