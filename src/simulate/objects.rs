//! Brings the objects of the input into the cluster, as kubectl would.

use aviary_providers::metrics;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::{Value, json};

use super::kinds::{Kind, Kinds, Unserved};
use super::manifests::{Manifest, Manifests};
use super::network;
use super::scenario::{Action, ActionKind, Scenario, nearest};
use super::schema::{self, Misfit};
use super::subject::Subject;
use crate::embedded;

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
    let order = |manifest: &&Manifest| match manifest.kind() {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        "Canary" | aviary_crds::steerer::KIND => 3,
        _ => 2,
    };
    // A release comes when everything else is there.
    let is_release = |manifest: &&Manifest| manifest.is(aviary_crds::birdwatch::GROUP, aviary_crds::birdwatch::KIND);
    let mut objects: Vec<&Manifest> = manifests.objects.iter().filter(|manifest| !is_release(manifest)).collect();
    objects.sort_by_key(order);
    let definitions = objects.iter().take_while(|manifest| order(manifest) == 0).count();
    let mut outcome = Creation { client, notes: Vec::new(), problems: Vec::new() };
    // What they define is known afterwards only.
    for objects in [objects.get(..definitions), objects.get(definitions..)].into_iter().flatten() {
        outcome.create(objects).await;
    }
    let Creation { notes, problems, .. } = outcome;
    manifests.notes.extend(notes);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Creates an object that is a release itself.
pub(crate) async fn create_release(client: &Client, object: &Value) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(Error::SerdeError)?;
    let resource = aviary_providers::kinds::BIRD_WATCH.api_resource();
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    embedded::create_strictly(client, &api, &object).await
}

struct Creation<'c> {
    client: &'c Client,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Creation<'_> {
    async fn create(&mut self, objects: &[&Manifest]) {
        let kinds = match Kinds::of(self.client).await {
            Ok(kinds) => kinds,
            Err(error) => return self.problems.push(format!("ask which kinds there are: {error}")),
        };
        for manifest in objects {
            let kind = match kinds.find(manifest.api_version(), manifest.kind()) {
                Ok(kind) => kind,
                Err(Unserved::PassedOver) => {
                    let (kind, api_version) = (manifest.kind(), manifest.api_version());
                    let note = format!("ignored: the simulated cluster has no kind {kind} in {api_version}");
                    self.notes.push(manifest.message("", &note));
                    continue;
                }
                Err(Unserved::Refused(message)) => {
                    let field = if message.starts_with("apiVersion") { "apiVersion" } else { "kind" };
                    self.problems.push(manifest.message(field, &message));
                    continue;
                }
            };
            match create_one(self.client, manifest, kind).await {
                Ok(()) => {}
                // Every cluster has some.
                Err(Error::Api(status)) if status.code == 409 && manifest.kind() == "Namespace" => {}
                Err(Error::Api(status)) if status.code == 409 => {
                    self.notes.push(manifest.message("", "it exists already, and is left as it is"));
                }
                Err(Error::Api(status)) => self.problems.extend(refusals(manifest, &status)),
                Err(error) => self.problems.push(manifest.message("", &error.to_string())),
            }
        }
    }
}

async fn create_one(client: &Client, manifest: &Manifest, kind: &Kind) -> kube::Result<()> {
    let mut object: DynamicObject = serde_json::from_value(manifest.object.clone()).map_err(Error::SerdeError)?;
    // What a server wrote once is not the user's.
    object.metadata.resource_version = None;
    object.metadata.uid = None;
    let api: Api<DynamicObject> = if kind.is_namespaced {
        Api::namespaced_with(client.clone(), manifest.namespace(), &kind.resource)
    } else {
        object.metadata.namespace = None;
        Api::all_with(client.clone(), &kind.resource)
    };
    embedded::create_strictly(client, &api, &object).await
}

/// What the API server said, field by field.
fn refusals(manifest: &Manifest, status: &Status) -> Vec<String> {
    let unknown = unknown_fields(manifest, &status.message);
    if !unknown.is_empty() {
        return unknown;
    }
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    let is_required =
        |path: &str| causes().any(|cause| cause.field == path && cause.message.contains("Required value"));
    let mut refusals = Vec::new();
    for cause in causes().filter(|cause| !cause.message.contains(NOT_CHECKED)) {
        let Some((path, problem)) = alternatives(manifest, &cause.message) else {
            refusals.push(manifest.message(&cause.field, &format!("{}: {}", cause.field, cause.message)));
            continue;
        };
        match problem {
            // The server asks for each of them, too.
            Alternatives::Misfit(Misfit::Missing(names))
                if names.iter().all(|name| is_required(&format!("{path}.{name}"))) => {}
            problem => refusals.push(manifest.message(&path, &format!("{path}: {}", problem.words()))),
        }
    }
    if refusals.is_empty() {
        refusals.push(manifest.message("", &status.message));
    }
    refusals
}

/// What the API server said of a change, field by field where it does.
pub(crate) fn reasons(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes = causes.filter(|cause| !cause.message.contains(NOT_CHECKED) && !cause.message.contains(STRICT));
    let causes: Vec<String> = causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if !causes.is_empty() {
        return causes;
    }
    // In front of it stands the whole object.
    let message = status.message.split_once(STRICT).map_or(status.message.as_str(), |(_, reason)| reason);
    vec![message.trim().to_owned()]
}

/// What a server says before it names a field that it does not know.
const STRICT: &str = "strict decoding error: ";
/// A server adds this to other findings.
const NOT_CHECKED: &str = "some validation rules were not checked";

/// A server says this of a field that the schema does not have.
const UNKNOWN_FIELD: &str = "unknown field \"";

/// Fields that the kind does not have, each with its line.
fn unknown_fields(manifest: &Manifest, message: &str) -> Vec<String> {
    let Some((_, fields)) = message.split_once(STRICT) else { return Vec::new() };
    let fields = fields.split(UNKNOWN_FIELD).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
    fields
        .map(|path| {
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
            let known = schema::fields(manifest, parent);
            let meant = nearest(name, &known).map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
            manifest.message(path, &format!("unknown field {path:?}{meant}"))
        })
        .collect()
}

/// What is wrong with an object that has several forms.
enum Alternatives {
    Misfit(Misfit),
    /// The schema says no more.
    Other(String),
}

impl Alternatives {
    fn words(self) -> String {
        match self {
            Alternatives::Misfit(Misfit::Conflict(names)) => {
                format!("only one of these may be given: {}", names.join(", "))
            }
            Alternatives::Misfit(Misfit::Missing(names)) => format!("missing: {}", names.join(", ")),
            Alternatives::Misfit(Misfit::OneMissing(names)) => {
                format!("one of these is missing: {}", names.join(", "))
            }
            Alternatives::Other(message) => message,
        }
    }
}

/// The field and what is wrong with it, of a finding about the alternatives that a schema has (`oneOf`, `anyOf`, `not`): a server
/// names the field in the text only, and not what it found there.
fn alternatives(manifest: &Manifest, message: &str) -> Option<(String, Alternatives)> {
    let (_, rest) = message.split_once('"')?;
    // The text begins with an empty value.
    let rest = rest.strip_prefix("\": \"").unwrap_or(rest);
    let (path, rest) = rest.split_once("\" must ")?;
    let value = at_path(&manifest.object, path)?;
    let given = value.as_object().map(|entries| entries.keys().cloned().collect::<Vec<_>>());
    let is_about_forms = ["valid alternatives", "oneOf", "anyOf"].iter().any(|words| rest.contains(words));
    if let Some(misfit) =
        given.as_ref().filter(|_| is_about_forms).and_then(|given| schema::misfit(manifest, path, given))
    {
        return Some((path.to_owned(), Alternatives::Misfit(misfit)));
    }
    let given = given.map(|given| given.join(", "));
    let message = match given {
        Some(given) if rest.contains("valid alternatives") && !rest.contains("Found none") => {
            format!("only one of these may be given: {given}")
        }
        Some(given) if rest.contains("oneOf") || rest.contains("anyOf") => {
            format!("none of the forms that it may have is complete with: {given}")
        }
        _ => format!("this form is not allowed: {value}"),
    };
    Some((path.to_owned(), Alternatives::Other(message)))
}

/// The value at a path such as `spec.match[0].headers.x`. Keys may have dots of their own.
fn at_path<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    match value {
        Value::Object(entries) => entries.iter().find_map(|(key, value)| {
            let rest = path.strip_prefix(key.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
            is_whole.then(|| at_path(value, rest.strip_prefix('.').unwrap_or(rest)))?
        }),
        Value::Array(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            at_path(items.get(index.parse::<usize>().ok()?)?, rest.strip_prefix('.').unwrap_or(rest))
        }
        _ => None,
    }
}

/// What a user does something with.
pub(crate) fn api_of(
    client: &Client,
    kinds: &Kinds,
    action: &Action,
    default_namespace: &str,
) -> Option<Api<DynamicObject>> {
    let kind = action.kind();
    let kind = match &action.api_version {
        Some(api_version) => kinds.find(api_version, kind).ok()?,
        None => kinds.of_name(kind)?,
    };
    let namespace = action.namespace.as_deref().unwrap_or(default_namespace);
    Some(match kind.is_namespaced {
        true => Api::namespaced_with(client.clone(), namespace, &kind.resource),
        false => Api::all_with(client.clone(), &kind.resource),
    })
}

/// Does what a user does.
///
/// # Errors
/// What the API server says.
pub(crate) async fn act(api: &Api<DynamicObject>, action: &Action) -> kube::Result<()> {
    match patch_of(action) {
        Some(patch) => api.patch(&action.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop),
        None => api.delete(&action.name, &DeleteParams::default()).await.map(drop),
    }
}

/// What changes; nothing if the object is deleted.
pub(crate) fn patch_of(action: &Action) -> Option<Value> {
    match action.action {
        ActionKind::Suspend => Some(json!({"spec": {"suspend": true}})),
        ActionKind::Resume => Some(json!({"spec": {"suspend": false}})),
        ActionKind::Patch => Some(action.patch.clone().unwrap_or_default()),
        ActionKind::Delete => None,
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
    let kind = action.kind();
    let patch = action.patch.as_ref().map(|patch| format!(": {patch}")).unwrap_or_default();
    format!("A user {verb} {kind} {}{patch}", action.name)
}
