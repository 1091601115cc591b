//! Merge patches of labels and annotations alone, as `kubectl label` and controllers send them.

use serde_json::{Map, Value};

use crate::apiserver::fields::{self, Before, Writer};
use crate::apiserver::metadata;
use crate::apiserver::schema::Schema;
use crate::store::{PartOutcome, Record};

/// The fields of metadata that are changed apart: maps of texts, which neither the store nor a schema asks for.
const MAPS: [&str; 2] = ["labels", "annotations"];

/// What a patch of `metadata` says of labels and annotations, if it says nothing else.
pub(super) struct Patch(Map<String, Value>);

impl Patch {
    pub(super) fn of_metadata(metadata: Value) -> Option<Self> {
        let Value::Object(fields) = metadata else {
            return None;
        };
        let is_map_of_texts = |(name, value): (&String, &Value)| {
            let Value::Object(entries) = value else {
                return false;
            };
            MAPS.contains(&name.as_str()) && entries.values().all(|value| value.is_string() || value.is_null())
        };
        (!fields.is_empty() && fields.iter().all(is_map_of_texts)).then_some(Self(fields))
    }

    /// What comes of the patch, unless there is something to be said about it.
    pub(super) fn outcome(self, schema: &Schema, writer: &Writer<'_>, present: &Record) -> Option<PartOutcome> {
        // The rest of the object is known to be as it has to be.
        if !present.is_checked_by(schema.number()) {
            return None;
        }
        let before: Value = serde_json::from_slice(&present.own_metadata()?.concat()).ok()?;
        let mut after = before.clone();
        let metadata = after.as_object_mut()?;
        for (name, changes) in self.0 {
            let mut entries = metadata.remove(&name).unwrap_or_default();
            json_patch::merge(&mut entries, &changes);
            // Empty ones mean nothing.
            if entries.as_object().is_some_and(|entries| !entries.is_empty()) {
                metadata.insert(name, entries);
            }
        }
        if before == after {
            return Some(PartOutcome::Unchanged);
        }
        if !metadata::map_problems(&after).is_empty() {
            return None;
        }
        let managed = present.managed_fields();
        let (before, mut after) = (super::only("metadata", before), super::only("metadata", after));
        let live = Before { object: &before, managed, is_new: false };
        let managed_fields = fields::track_update(writer, live, &after, &Value::Null);
        if managed_fields.is_some() != managed.is_some() {
            return None;
        }
        fields::store_text(&mut after, managed_fields);
        match after.get_mut("metadata").map(Value::take) {
            Some(Value::Object(metadata)) => Some(PartOutcome::MetadataChanged(metadata)),
            _ => None,
        }
    }
}
