//! Writes that change one part of a custom resource, its spec or its status, and nothing else: what an operator's writes mostly
//! are, as merge patches, JSON patches and PUTs.
//!
//! The rest of the object is neither decoded nor checked again: the new part is spliced into the stored JSON. A write is left to
//! the general way unless everything is as usual; whatever is wrong with it is told there.

mod document;

use serde_json::{Map, Value};

use self::document::Document;
use super::ApiServer;
use super::body;
use super::fields::{self, Before, Writer};
use super::request::Target;
use super::response::Answer;
use super::schema::{Schema, SchemaRef};
use super::write::WriteRequest;
use crate::store::{Part, PartChange, PartOutcome, Record};

/// What a write makes of a part.
enum Change {
    Replace(Value),
    Merge(Value),
    /// Operations on the part alone, with its name in their paths.
    Operations(json_patch::Patch),
}

impl ApiServer {
    /// Answers a valid patch that says nothing but of one part. `None`, and no write, for every other one.
    pub(super) fn patch_part(&self, request: &WriteRequest<'_>, manager: &str) -> Option<Answer> {
        let part = part_of(request.target)?;
        let change = match request.body.content_type {
            "application/merge-patch+json" => merge_of_part(request.target, part, request.body.bytes)?,
            "application/json-patch+json" => operations_on_part(part, request.body.bytes)?,
            _ => return None,
        };
        self.write_part(request, part, manager, change, |_| true)
    }

    /// Answers a valid PUT that leaves all but one part as it is. `None`, and no write, for every other one.
    pub(super) fn put_part(&self, request: &WriteRequest<'_>, manager: &str) -> Option<Answer> {
        let part = part_of(request.target)?;
        let (document, value) = Document::parse(request.body.bytes, part)?;
        if document.api_version != request.target.api_version() || document.kind != request.target.resource.kind {
            return None;
        }
        let isolates_status = request.target.served_version().is_some_and(|version| version.status);
        if part == Part::Spec && (document.has_other_fields || !isolates_status) {
            return None;
        }
        self.write_part(request, part, manager, Change::Replace(value), |present| match part {
            Part::Spec => present.has_usual_parts_alone() && document.keeps_metadata(present),
            Part::Status => document.names(request, present),
        })
    }

    fn write_part(
        &self,
        request: &WriteRequest<'_>,
        part: Part,
        manager: &str,
        change: Change,
        is_about: impl FnOnce(&Record) -> bool,
    ) -> Option<Answer> {
        let target = request.target;
        let schema = schema_apart(target, part)?;
        let writer = Writer {
            resource: &target.resource,
            version: &target.version,
            subresource: &target.subresource,
            manager,
            now: self.store.clock().now(),
        };
        let (record, changed) =
            self.store.modify_part(&target.resource, &target.namespace, request.name, |present| {
                let outcome = || outcome(schema, &writer, part, present, change);
                is_about(present).then(outcome).flatten()
            })?;
        Some(Answer::json(200, request.encoder.object(&record)).changed(changed))
    }
}

/// The part that writes to a custom resource's path are about.
fn part_of(target: &Target) -> Option<Part> {
    match target.subresource.as_str() {
        _ if !target.resource.custom => None,
        "" => Some(Part::Spec),
        "status" => Some(Part::Status),
        _ => None,
    }
}

/// The schema by which a part is judged without the rest.
fn schema_apart(target: &Target, part: Part) -> Option<&SchemaRef> {
    let version = target.served_version().filter(|version| version.view.is_none())?;
    version.schema.as_ref().filter(|schema| schema.judges_apart(part.name()))
}

/// What a merge patch says of a part, if it says nothing else, and nothing twice. It may say what the object is.
fn merge_of_part(target: &Target, part: Part, patch: &[u8]) -> Option<Change> {
    let Ok((Value::Object(mut patch), false)) = body::parse(patch) else {
        return None;
    };
    let value = patch.remove(part.name()).filter(Value::is_object)?;
    for (name, expected) in [("apiVersion", &target.api_version()), ("kind", &target.resource.kind)] {
        if let Some(given) = patch.remove(name)
            && given.as_str() != Some(expected)
        {
            return None;
        }
    }
    patch.is_empty().then_some(Change::Merge(value))
}

/// Operations of a JSON patch, if they all are about what is inside a part.
fn operations_on_part(part: Part, patch: &[u8]) -> Option<Change> {
    use json_patch::PatchOperation;
    /// Where the API server draws the line (`maxJSONPatchOperations`).
    const MOST_OPERATIONS: usize = 10_000;
    let operations: json_patch::Patch = serde_json::from_slice(patch).ok()?;
    let is_inside = |path: &str| {
        let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(part.name()));
        below.is_some_and(|below| below.starts_with('/'))
    };
    let all_inside = operations.0.iter().all(|operation| {
        let source = match operation {
            PatchOperation::Move(operation) => Some(operation.from.as_str()),
            PatchOperation::Copy(operation) => Some(operation.from.as_str()),
            _ => None,
        };
        is_inside(operation.path().as_str()) && source.is_none_or(is_inside)
    });
    (all_inside && operations.0.len() <= MOST_OPERATIONS).then_some(Change::Operations(operations))
}

/// What comes of a write, unless there is something to be said about it.
fn outcome(schema: &Schema, writer: &Writer<'_>, part: Part, present: &Record, change: Change) -> Option<PartOutcome> {
    // The rest of the object is known to be as it has to be.
    if !present.is_checked_by(schema.number()) {
        return None;
    }
    let name = part.name();
    let before = only(name, serde_json::from_slice(present.part_json(part)?).ok()?);
    let mut after = match change {
        Change::Replace(value) => only(name, value),
        Change::Merge(patch) => {
            let mut after = before.clone();
            json_patch::merge(after.get_mut(name)?, &patch);
            after
        }
        Change::Operations(operations) => {
            let mut after = before.clone();
            json_patch::patch(&mut after, &operations).ok()?;
            after
        }
    };
    if !schema.conform(&mut after).unknown_fields.is_empty() {
        return None;
    }
    // Defaults of other root fields are in the object already; whoever writes this part did not set them.
    after.as_object_mut()?.retain(|field, _| field == name);
    let value = after.get(name).filter(|value| value.is_object())?;
    if before.get(name) == Some(value) {
        return Some(PartOutcome::Unchanged);
    }
    let found = schema.validate_update(&after, &before, Some(name));
    if !found.is_empty() || !schema.broken_rules(&after, Some(&before), &found).is_empty() {
        return None;
    }
    let managed = present.managed_fields();
    let live = Before { object: &before, managed, is_new: false };
    let managed_fields = fields::track_update(writer, live, &after, &Value::Null);
    if managed_fields.is_some() != managed.is_some() {
        return None;
    }
    Some(PartOutcome::Changed(PartChange { part, json: serde_json::to_vec(value).ok()?, managed_fields }))
}

fn only(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

#[cfg(test)]
mod tests;
