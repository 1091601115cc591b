//! ConfigMaps and Secrets that a pod template uses: what is tracked, their checksums, and the primary's copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_crds::names::{CONFIG_TRACKING_ANNOTATION, PRIMARY_SUFFIX};
use kube::core::DynamicObject;
use serde_json::{Map, Value};

use crate::Subject;
use crate::canonical::{same_or_absent, short_digest};
use crate::change::Change;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{included_by_prefix, merge_pairs, new_object, owner_reference};
use crate::targets::TargetError;

/// Types of Secrets that belong to an application. Others (service account tokens, Helm releases …) are machinery.
const TRACKED_SECRET_TYPES: [&str; 4] =
    ["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"];

/// Which of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConfigKind {
    ConfigMap,
    Secret,
}

impl ConfigKind {
    /// As in messages and in `status.trackedConfigs`.
    fn name(self) -> &'static str {
        match self {
            ConfigKind::ConfigMap => "configmap",
            ConfigKind::Secret => "secret",
        }
    }

    fn object_kind(self) -> &'static ObjectKind {
        match self {
            ConfigKind::ConfigMap => &kinds::CONFIG_MAP,
            ConfigKind::Secret => &kinds::SECRET,
        }
    }
}

/// A ConfigMap or Secret that is tracked, as it is.
#[derive(Clone, Debug)]
pub(crate) struct TrackedConfig {
    kind: ConfigKind,
    name: String,
    object: Arc<DynamicObject>,
}

impl TrackedConfig {
    fn primary_name(&self) -> String {
        format!("{}{PRIMARY_SUFFIX}", self.name)
    }
}

/// Checksums, keyed `configmap/NAME` or `secret/NAME`, comparable with those that Flagger left in
/// `status.trackedConfigs`.
pub(crate) fn checksums(configs: &[TrackedConfig]) -> BTreeMap<String, String> {
    configs.iter().map(|config| (format!("{}/{}", config.kind.name(), config.name), checksum(&config.object))).collect()
}

/// Everything that the template uses and that is tracked. Looks up all of it, so that changes wake the canary.
pub(crate) fn tracked_configs(subject: &Subject, template: &Value) -> Result<Vec<TrackedConfig>, TargetError> {
    if !subject.settings.config_tracking {
        return Ok(Vec::new());
    }
    let mut configs = Vec::new();
    let mut missing = None;
    for ((kind, name), optional) in references(template) {
        match subject.get(kind.object_kind(), &name) {
            Some(object) if is_tracked(kind, &object) => configs.push(TrackedConfig { kind, name, object }),
            Some(_) => {}
            None if optional => {}
            None => missing = missing.or(Some((kind, name))),
        }
    }
    let Some((kind, name)) = missing else { return Ok(configs) };
    Err(TargetError::MissingConfig {
        kind: kind.name(),
        cause: kind.object_kind().not_found(&name),
        name,
        namespace: subject.namespace().to_owned(),
    })
}

fn is_tracked(kind: ConfigKind, object: &DynamicObject) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    let opted_out = annotations
        .and_then(|annotations| annotations.get(CONFIG_TRACKING_ANNOTATION))
        .is_some_and(|value| value.starts_with("disable"));
    let type_fits = match kind {
        ConfigKind::ConfigMap => true,
        ConfigKind::Secret => {
            let secret_type = object.data.get("type").and_then(Value::as_str).unwrap_or("Opaque");
            TRACKED_SECRET_TYPES.contains(&secret_type)
        }
    };
    type_fits && !opted_out
}

/// First 16 hex digits of the SHA-256 over `data` as Go writes it. `binaryData`, which Flagger ignores, is added only
/// where there is some, so that all other checksums are Flagger's.
fn checksum(object: &DynamicObject) -> String {
    let mut text = go_json(object.data.get("data"));
    if let Some(binary) = object.data.get("binaryData").filter(|binary| !same_or_absent(Some(binary), None)) {
        text.push('\n');
        text.push_str(&go_json(Some(binary)));
    }
    short_digest(&text)
}

/// A map of strings as Go's encoder writes it: sorted, without spaces, and safe to embed in HTML.
fn go_json(value: Option<&Value>) -> String {
    let Some(Value::Object(entries)) = value else { return "null".into() };
    let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
    let entries: Vec<String> =
        sorted.into_iter().map(|(key, value)| format!("{}:{value}", Value::String(key.clone()))).collect();
    let mut text = format!("{{{}}}", entries.join(","));
    for (character, escape) in
        [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
    {
        text = text.replace(character, escape);
    }
    text
}

/// Where a template names a ConfigMap or Secret: kind, path of the source object, name field in it.
/// The same places are read by [`references`] and written by [`rewritten`].
fn visit_references(template: &mut Value, visit: &mut impl FnMut(ConfigKind, &'static str, &mut Map<String, Value>)) {
    use ConfigKind::{ConfigMap, Secret};
    let mut source = |kind: ConfigKind, field: &'static str, holder: &mut Value, key: &str| {
        if let Some(Value::Object(source)) = holder.get_mut(key) {
            visit(kind, field, source);
        }
    };
    let Some(spec) = template.get_mut("spec") else { return };
    for volume in items(spec, "volumes") {
        source(ConfigMap, "name", volume, "configMap");
        source(Secret, "secretName", volume, "secret");
        if let Some(projected) = volume.get_mut("projected") {
            for projection in items(projected, "sources") {
                source(ConfigMap, "name", projection, "configMap");
                source(Secret, "name", projection, "secret");
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            for variable in items(container, "env") {
                if let Some(value_from) = variable.get_mut("valueFrom") {
                    source(ConfigMap, "name", value_from, "configMapKeyRef");
                    source(Secret, "name", value_from, "secretKeyRef");
                }
            }
            for variables in items(container, "envFrom") {
                source(ConfigMap, "name", variables, "configMapRef");
                source(Secret, "name", variables, "secretRef");
            }
        }
    }
}

fn items<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// What the template uses, and whether it can do without. Of several references to one object the last decides, as in
/// Flagger (volumes, then containers, then init containers).
fn references(template: &Value) -> BTreeMap<(ConfigKind, String), bool> {
    let mut references = BTreeMap::new();
    let mut template = template.clone();
    visit_references(&mut template, &mut |kind, field, source| {
        let Some(name) = source.get(field).and_then(Value::as_str) else { return };
        let optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
        references.insert((kind, name.to_owned()), optional);
    });
    references
}

/// ConfigMaps and Secrets that a template names, tracked or not.
pub(crate) fn referenced(template: &Value) -> impl Iterator<Item = (&'static ObjectKind, String)> {
    references(template).into_keys().map(|(kind, name)| (kind.object_kind(), name))
}

/// ConfigMaps and Secrets that a pod template cannot do without.
pub fn required_configs(template: &Value) -> impl Iterator<Item = (&'static ObjectKind, String)> {
    let required = references(template).into_iter().filter(|(_, optional)| !optional);
    required.map(|((kind, name), _)| (kind.object_kind(), name))
}

/// See [`rewrite`].
pub(crate) fn rewritten(template: &Value, configs: &[TrackedConfig]) -> Value {
    let mut template = template.clone();
    visit_references(&mut template, &mut |kind, field, source| {
        let Some(name) = source.get(field).and_then(Value::as_str) else { return };
        if let Some(config) = configs.iter().find(|config| config.kind == kind && config.name == name) {
            source.insert(field.into(), Value::String(config.primary_name()));
        }
    });
    template
}

/// See [`copies`].
pub(crate) fn copy_changes(subject: &Subject, configs: &[TrackedConfig]) -> Vec<Change> {
    configs.iter().filter_map(|config| copy_change(subject, config)).collect()
}

/// The parts of a config that are copied. `immutable` is not: the copy changes with every promotion.
const COPIED: [&str; 3] = ["data", "binaryData", "type"];

fn copy_change(subject: &Subject, config: &TrackedConfig) -> Option<Change> {
    let name = config.primary_name();
    let kind = config.kind.object_kind();
    let key = subject.key(kind, &name);
    let labels = included_by_prefix(config.object.metadata.labels.as_ref(), &subject.settings.include_label_prefixes);
    let Some(present) = subject.get(kind, &name) else {
        let mut data = Map::new();
        copy_parts(&config.object, &mut data);
        let mut object = new_object(subject, kind, &name, Value::Object(data));
        merge_pairs(&mut object.metadata.labels, labels);
        return Some(Change::create(key, object));
    };
    let is_owned = present.metadata.owner_references.iter().flatten().any(|owner| owner.uid == subject.canary.key.uid);
    let is_equal = COPIED.iter().all(|part| same_or_absent(present.data.get(*part), config.object.data.get(*part)));
    if is_owned && is_equal {
        return None;
    }
    let mut desired = (*present).clone();
    if let Value::Object(data) = &mut desired.data {
        copy_parts(&config.object, data);
    }
    merge_pairs(&mut desired.metadata.labels, labels);
    if !is_owned {
        // A copy may serve several canaries: each keeps it alive, the first one controls it.
        let owners = desired.metadata.owner_references.get_or_insert_default();
        let mut owner = owner_reference(&subject.canary.key);
        if owners.iter().any(|other| other.controller == Some(true)) {
            owner.controller = Some(false);
        }
        owners.push(owner);
    }
    Change::update(key, &present, &desired)
}

fn copy_parts(from: &DynamicObject, into: &mut Map<String, Value>) {
    for part in COPIED {
        match from.data.get(part) {
            Some(value) => into.insert(part.to_owned(), value.clone()),
            None => into.remove(part),
        };
    }
}

#[cfg(test)]
mod tests;
