//! Who an object belongs to, and which labels and annotations are handed on.

use std::collections::BTreeMap;

use aviary_crds::names::{
    API_VERSION, FLUX_DRIFT_ANNOTATION, FLUX_RECONCILE_ANNOTATION, LAST_APPLIED_ANNOTATION,
    ORIGINAL_CONFIGURATION_ANNOTATION,
};
use aviary_crds::validated::CanaryKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{DynamicObject, ObjectMeta};
use serde_json::Value;

use crate::Subject;
use crate::object::ObjectKind;

pub(crate) const CANARY_KIND: &str = "Canary";
const TOOLKIT: &str = "toolkit.fluxcd.io";

/// Labels or annotations.
pub(crate) type Pairs = BTreeMap<String, String>;

/// The reference that makes an object die with its canary.
pub(crate) fn owner_reference(canary: &CanaryKey) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.into(),
        kind: CANARY_KIND.into(),
        name: canary.name.clone(),
        uid: canary.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the canary of this name is the object's controller. The uid is not compared, as in Flagger: a canary that
/// was deleted and created again still owns what it made (and see [`crate::takeover`]).
pub(crate) fn is_controlled_by(object: &DynamicObject, canary: &CanaryKey) -> bool {
    controller(object).is_some_and(|owner| owner.kind == CANARY_KIND && owner.name == canary.name)
}

fn controller(object: &DynamicObject) -> Option<&OwnerReference> {
    object.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// What keeps Flux from undoing Aviary's writes.
pub(crate) fn flux_annotations() -> [(String, String); 2] {
    [FLUX_RECONCILE_ANNOTATION, FLUX_DRIFT_ANNOTATION].map(|key| (key.to_owned(), "disabled".to_owned()))
}

/// What `kubectl apply` has kept of an object, if it did.
pub(crate) fn last_applied(object: &DynamicObject) -> Option<Value> {
    let text = object.metadata.annotations.as_ref()?.get(LAST_APPLIED_ANNOTATION)?;
    serde_json::from_str(text).ok()
}

/// The spec that an object had before a canary took it over, where it is known.
pub(crate) fn former_spec(present: &DynamicObject) -> Option<Value> {
    if let Some(spec) = last_applied(present).and_then(|applied| applied.get("spec").cloned()) {
        return Some(spec);
    }
    let text = present.metadata.annotations.as_ref()?.get(ORIGINAL_CONFIGURATION_ANNOTATION)?;
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// Takes off what keeps Flux away, unless the user put it there.
pub(crate) fn remove_flux_annotations(object: &mut DynamicObject) {
    let applied = last_applied(object);
    let Some(annotations) = &mut object.metadata.annotations else { return };
    for (key, _) in flux_annotations() {
        let is_users = applied.as_ref().is_some_and(|applied| applied["metadata"]["annotations"].get(&key).is_some());
        if !is_users {
            annotations.remove(&key);
        }
    }
}

/// Without the keys by which Flux knows the objects that it applied; on a copy they would make Flux prune it.
pub(crate) fn without_toolkit(pairs: Option<&Pairs>) -> Pairs {
    let pairs = pairs.into_iter().flatten().filter(|(key, _)| !key.contains(TOOLKIT));
    pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Only the keys that begin with one of `--include-label-prefix` (`*` stands for all), and none of Flux's.
pub(crate) fn included_by_prefix(pairs: Option<&Pairs>, prefixes: &[String]) -> Pairs {
    let mut kept = without_toolkit(pairs);
    kept.retain(|key, _| prefixes.iter().any(|prefix| prefix == "*" || key.starts_with(prefix.as_str())));
    kept
}

/// Adds and overwrites entries; foreign ones stay.
pub(crate) fn merge_pairs(into: &mut Option<Pairs>, owned: Pairs) {
    if owned.is_empty() {
        return;
    }
    into.get_or_insert_default().extend(owned);
}

/// A new object of the canary's namespace that dies with the canary.
pub(crate) fn new_object(subject: &Subject, kind: &'static ObjectKind, name: &str, data: Value) -> DynamicObject {
    let mut object = DynamicObject::new(name, &kind.api_resource());
    object.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(subject.namespace().to_owned()),
        owner_references: Some(vec![owner_reference(&subject.canary.key)]),
        ..ObjectMeta::default()
    };
    object.data = data;
    object
}

/// A new object of the mesh, which dies with the canary where both are in one cluster.
pub(crate) fn new_mesh_object(subject: &Subject, kind: &'static ObjectKind, name: &str, data: Value) -> DynamicObject {
    let mut object = new_object(subject, kind, name, data);
    if subject.settings.mesh_is_elsewhere {
        object.metadata.owner_references = None;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_choose_what_is_handed_on() {
        let pairs = ["team", "app.kubernetes.io/part-of", "kustomize.toolkit.fluxcd.io/name"];
        let pairs: Pairs = pairs.into_iter().map(|key| (key.to_owned(), "x".to_owned())).collect();
        let kept = |prefixes: &[&str]| {
            let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            included_by_prefix(Some(&pairs), &prefixes).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(kept(&[]), Vec::<String>::new());
        assert_eq!(kept(&["app.kubernetes.io"]), ["app.kubernetes.io/part-of"]);
        assert_eq!(kept(&["*"]), ["app.kubernetes.io/part-of", "team"]);
    }
}
