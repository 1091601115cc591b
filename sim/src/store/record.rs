//! Stored objects and their changes, each serialised at most once per form.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::kinds::GroupKind;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeType {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone; the event carries its last state with the version of the deletion.
    Deleted,
}

/// A committed change, as in-process controllers see it.
#[derive(Clone, Debug)]
pub struct StoreEvent {
    /// What happened.
    pub change: ChangeType,
    /// The object's kind.
    pub kind: GroupKind,
    /// The object after the change (for a deletion: its last state).
    pub object: Arc<Value>,
    /// The version of the change, cluster-wide and rising.
    pub resource_version: u64,
}

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) value: Arc<Value>,
    pub(crate) resource_version: u64,
    json: OnceLock<Bytes>,
    item_json: OnceLock<Bytes>,
}

impl Record {
    pub(crate) fn new(value: Value, resource_version: u64) -> Self {
        Self { value: Arc::new(value), resource_version, json: OnceLock::new(), item_json: OnceLock::new() }
    }

    /// The object's JSON in its storage version.
    pub(crate) fn json(&self) -> Bytes {
        self.json.get_or_init(|| to_bytes(&self.value)).clone()
    }

    /// The object's JSON without `apiVersion` and `kind`: the form in which lists of built-in kinds carry their items.
    pub(crate) fn item_json(&self) -> Bytes {
        self.item_json
            .get_or_init(|| {
                let Value::Object(fields) = &*self.value else {
                    return to_bytes(&self.value);
                };
                let kept: serde_json::Map<String, Value> = fields
                    .iter()
                    .filter(|(name, _)| name.as_str() != "apiVersion" && name.as_str() != "kind")
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                to_bytes(&Value::Object(kept))
            })
            .clone()
    }

    pub(crate) fn metadata(&self, field: &str) -> Option<&Value> {
        self.value.get("metadata")?.get(field)
    }

    pub(crate) fn metadata_str(&self, field: &str) -> &str {
        self.metadata(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.metadata_str("namespace")
    }

    pub(crate) fn name(&self) -> &str {
        self.metadata_str("name")
    }

    pub(crate) fn uid(&self) -> &str {
        self.metadata_str("uid")
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.metadata("deletionTimestamp").is_some()
    }

    pub(crate) fn finalizers(&self) -> Vec<&str> {
        self.metadata("finalizers")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    pub(crate) fn owner_uids(&self) -> Vec<&str> {
        owner_uids(&self.value)
    }
}

pub(crate) fn owner_uids(value: &Value) -> Vec<&str> {
    value
        .get("metadata")
        .and_then(|metadata| metadata.get("ownerReferences"))
        .and_then(Value::as_array)
        .map(|owners| owners.iter().filter_map(|owner| owner.get("uid")?.as_str()).collect())
        .unwrap_or_default()
}

pub(crate) fn to_bytes(value: &Value) -> Bytes {
    // Serialising a `Value` cannot fail: its keys are strings.
    serde_json::to_vec(value).map_or_else(|_| Bytes::new(), Bytes::from)
}

/// A change in the log of a kind.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) change: ChangeType,
    pub(crate) record: Arc<Record>,
    /// The object before, for selectors that it may have entered or left, and for reading an older version of a list.
    pub(crate) previous: Option<Arc<Record>>,
}

impl Change {
    pub(crate) fn resource_version(&self) -> u64 {
        self.record.resource_version
    }
}
