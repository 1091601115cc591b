//! A write to one object.

use kube::core::{DynamicObject, ObjectMeta};
use serde_json::{Map, Value, json};

use crate::object::ObjectKey;

/// A write to one object, decided from what was observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which object.
    pub key: ObjectKey,
    /// What to do with it.
    pub verb: Verb,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Create it as given.
    Create(Box<DynamicObject>),
    /// Merge-patch it. The patch holds only what Aviary owns and carries the observed `metadata.resourceVersion`, so
    /// that a write on top of somebody else's edit is refused and decided again.
    Patch(Value),
    /// Delete it, provided that it is the observed one.
    Delete {
        /// `metadata.uid` as observed.
        uid: String,
        /// `metadata.resourceVersion` as observed.
        version: String,
    },
    /// Set one field of the spec, provided that the spec is the observed one. For objects whose status their controller
    /// writes all the time: its writes are no reason to decide again.
    SetInSpec {
        /// `metadata.generation` as observed.
        generation: i64,
        /// `metadata.uid` as observed: another object of this name may have the same generation.
        uid: String,
        /// JSON pointer.
        path: &'static str,
        /// New value.
        value: Value,
    },
}

impl Verb {
    /// The operations (RFC 6902) of [`Verb::SetInSpec`]. An API server answers 422 if the tests fail.
    pub fn operations(generation: i64, uid: &str, path: &str, value: &Value) -> Value {
        json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/metadata/generation", "value": generation},
            {"op": "add", "path": path, "value": value},
        ])
    }
}

impl Change {
    /// Creates an object.
    pub fn create(key: ObjectKey, object: DynamicObject) -> Change {
        Change { key, verb: Verb::Create(Box::new(object)) }
    }

    /// Deletes an object as it was observed; `None` for one that no API server has.
    pub fn delete(key: ObjectKey, observed: &DynamicObject) -> Option<Change> {
        let (uid, version) = (observed.metadata.uid.clone()?, observed.metadata.resource_version.clone()?);
        Some(Change { key, verb: Verb::Delete { uid, version } })
    }

    /// Sets one field of the spec of `observed`, see [`Verb::SetInSpec`]. Without a generation to compare (no API server has
    /// such workloads) the whole object is.
    pub fn set_in_spec(key: ObjectKey, observed: &DynamicObject, path: &'static str, value: Value) -> Option<Change> {
        let metadata = &observed.metadata;
        if let (Some(generation), Some(uid)) = (metadata.generation, metadata.uid.clone()) {
            return Some(Change { key, verb: Verb::SetInSpec { generation, uid, path, value } });
        }
        let mut desired = observed.clone();
        let (parent, field) = path.rsplit_once('/')?;
        desired.data.pointer_mut(parent)?.as_object_mut()?.insert(field.to_owned(), value);
        Change::update(key, observed, &desired)
    }

    /// The smallest merge patch that turns `observed` into `desired`, or `None` if they are equal.
    ///
    /// `status` and server-managed metadata are not compared.
    pub fn update(key: ObjectKey, observed: &DynamicObject, desired: &DynamicObject) -> Option<Change> {
        let mut patch = Map::new();
        if let Some(metadata) = metadata_diff(&observed.metadata, &desired.metadata) {
            patch.insert("metadata".into(), metadata);
        }
        let no_data = Map::new();
        let before = observed.data.as_object().unwrap_or(&no_data);
        let after = desired.data.as_object().unwrap_or(&no_data);
        diff_fields(before, after, |field| field != "status", &mut patch);
        if patch.is_empty() {
            return None;
        }
        let mut patch = Value::Object(patch);
        if let Some(version) = &observed.metadata.resource_version {
            patch["metadata"]["resourceVersion"] = Value::String(version.clone());
        }
        Some(Change { key, verb: Verb::Patch(patch) })
    }
}

/// The difference in the metadata that a patch may touch. Nearly always there is none, and every look at a canary asks:
/// nothing is copied before a difference is known.
fn metadata_diff(before: &ObjectMeta, after: &ObjectMeta) -> Option<Value> {
    let is_same = before.labels == after.labels
        && before.annotations == after.annotations
        && before.owner_references == after.owner_references
        && before.finalizers == after.finalizers;
    if is_same {
        return None;
    }
    let comparable = |metadata: &ObjectMeta| {
        json!({
            "labels": metadata.labels,
            "annotations": metadata.annotations,
            "ownerReferences": metadata.owner_references,
            "finalizers": metadata.finalizers,
        })
    };
    merge_diff(&comparable(before), &comparable(after))
}

/// RFC 7386: the patch that turns `before` into `after`, `None` if there is nothing to do.
pub fn merge_diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    diff_fields(before, after, |_| true, &mut patch);
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn diff_fields(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    is_compared: impl Fn(&str) -> bool,
    patch: &mut Map<String, Value>,
) {
    for (key, value) in after.iter().filter(|(key, _)| is_compared(key)) {
        match before.get(key) {
            Some(present) => {
                if let Some(part) = merge_diff(present, value) {
                    patch.insert(key.clone(), part);
                }
            }
            None if value.is_null() => {}
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for (key, value) in before.iter().filter(|(key, _)| is_compared(key)) {
        if !value.is_null() && !after.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::object::kinds;

    #[test]
    fn equal_values_need_no_patch() {
        assert_eq!(merge_diff(&json!({"a": [1, 2], "b": null}), &json!({"a": [1, 2]})), None);
    }

    #[test]
    fn only_what_differs_is_in_the_patch() {
        let before = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}}, "x": true});
        let after = json!({"spec": {"a": 1, "b": {"c": 5}}, "x": true});
        assert_eq!(merge_diff(&before, &after), Some(json!({"spec": {"b": {"c": 5, "d": null}}})));
    }

    #[test]
    fn a_patch_holds_labels_and_spec_but_no_status() {
        let object = |label: &str, replicas: i64, ready: i64| -> DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": label}},
                "spec": {"replicas": replicas, "paused": false},
                "status": {"readyReplicas": ready},
            }))
            .unwrap()
        };
        let key = || ObjectKey { kind: &kinds::DEPLOYMENT, namespace: "test".into(), name: "a".into() };
        let update = |desired| Change::update(key(), &object("1", 1, 1), &desired).map(|change| change.verb);
        assert_eq!(update(object("1", 1, 5)), None);
        let spec = json!({"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 2}});
        assert_eq!(update(object("1", 2, 5)), Some(Verb::Patch(spec)));
        let labels = json!({"metadata": {"resourceVersion": "7", "labels": {"x": "2"}}});
        assert_eq!(update(object("2", 1, 1)), Some(Verb::Patch(labels)));
    }
}
