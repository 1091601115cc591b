//! A write to one object.

use kube::core::DynamicObject;
use serde_json::Value;

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
}

impl Change {
    /// Creates an object.
    pub fn create(key: ObjectKey, object: DynamicObject) -> Change {
        Change { key, verb: Verb::Create(Box::new(object)) }
    }

    /// The smallest merge patch that turns `observed` into `desired`, or `None` if they are equal.
    ///
    /// `status` and server-managed metadata are not compared.
    pub fn update(key: ObjectKey, observed: &DynamicObject, desired: &DynamicObject) -> Option<Change> {
        let before = comparable(observed);
        let after = comparable(desired);
        let mut patch = merge_diff(&before, &after)?;
        if let Some(version) = &observed.metadata.resource_version {
            patch["metadata"]["resourceVersion"] = Value::String(version.clone());
        }
        Some(Change { key, verb: Verb::Patch(patch) })
    }
}

/// The part of an object that a patch may touch.
fn comparable(object: &DynamicObject) -> Value {
    let mut value = serde_json::json!({
        "metadata": {
            "labels": object.metadata.labels,
            "annotations": object.metadata.annotations,
            "ownerReferences": object.metadata.owner_references,
            "finalizers": object.metadata.finalizers,
        }
    });
    if let Value::Object(data) = &object.data {
        for (key, part) in data {
            if key != "status" {
                value[key.as_str()] = part.clone();
            }
        }
    }
    value
}

/// RFC 7386: the patch that turns `before` into `after`, `None` if there is nothing to do.
pub fn merge_diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = serde_json::Map::new();
    for (key, value) in after {
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
    for (key, value) in before {
        if !value.is_null() && !after.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::merge_diff;
    use serde_json::json;

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
}
