//! Writes that change one part of a custom resource, its spec or its status, and nothing else: what an operator's writes mostly
//! are, as merge patches, JSON patches and PUTs. Merge patches of labels and annotations too.
//!
//! The rest of the object is neither decoded nor checked again: the new part is spliced into the stored JSON. A write is left to
//! the general way unless everything is as usual; whatever is wrong with it is told there.

mod document;
mod labels;

use serde_json::{Map, Value};

use self::document::Document;
use super::ApiServer;
use super::body;
use super::fields::{self, Before, Writer};
use super::request::Target;
use super::response::Answer;
use super::scale;
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
            "application/merge-patch+json" => match merge_patch(request.target, part, request.body.bytes)? {
                Merge::Part(change) => change,
                Merge::Labels(patch) => return self.patch_labels(request, manager, patch),
            },
            "application/json-patch+json" => operations_on_part(part, request.body.bytes)?,
            _ => return None,
        };
        self.write_part(request, part, manager, change, |_| true)
    }

    /// Answers a valid PUT that leaves all but one part as it is. `None`, and no write, for every other one.
    pub(super) fn put_part(&self, request: &WriteRequest<'_>, manager: &str) -> Option<Answer> {
        let part = part_of(request.target)?;
        if let Some(answer) = self.put_verbatim(request, part, manager) {
            return Some(answer);
        }
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
            Part::Status => document.names(request, present) && document.says_nothing_beside_status(present),
        })
    }

    /// Answers a valid PUT whose body is the stored JSON but for one part, byte by byte: what a client in whose language fields are
    /// sorted makes of what it has read. `None`, and no write, for every other one.
    fn put_verbatim(&self, request: &WriteRequest<'_>, part: Part, manager: &str) -> Option<Answer> {
        let target = request.target;
        let isolates_status = target.served_version().is_some_and(|version| version.status);
        if !isolates_status || target.api_version() != target.resource.storage_api_version() {
            return None;
        }
        let schema = schema_apart(target, part.name())?;
        self.change(request, manager, |writer, present| {
            let json = present.part_replaced_in(part, request.body.bytes)?;
            let Ok((value @ Value::Object(_), false)) = body::parse(json) else {
                return None;
            };
            outcome(schema, writer, part, present, Change::Replace(value))
        })
    }

    fn patch_labels(&self, request: &WriteRequest<'_>, manager: &str, patch: labels::Patch) -> Option<Answer> {
        let schema = schema_apart(request.target, "metadata")?;
        self.change(request, manager, |writer, present| patch.outcome(schema, writer, present))
    }

    fn write_part(
        &self,
        request: &WriteRequest<'_>,
        part: Part,
        manager: &str,
        change: Change,
        is_about: impl FnOnce(&Record) -> bool,
    ) -> Option<Answer> {
        let schema = schema_apart(request.target, part.name())?;
        self.change(request, manager, |writer, present| {
            let outcome = || outcome(schema, writer, part, present, change);
            is_about(present).then(outcome).flatten()
        })
    }

    fn change(
        &self,
        request: &WriteRequest<'_>,
        manager: &str,
        outcome: impl FnOnce(&Writer<'_>, &Record) -> Option<PartOutcome>,
    ) -> Option<Answer> {
        let target = request.target;
        let writer = Writer {
            resource: &target.resource,
            version: &target.version,
            subresource: &target.subresource,
            manager,
            now: self.store.clock().now(),
        };
        let (record, changed) =
            self.store
                .modify_part(&target.resource, &target.namespace, request.name, |present| outcome(&writer, present))?;
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

/// The schema by which a field of the object is judged without the rest.
fn schema_apart<'a>(target: &'a Target, field: &str) -> Option<&'a SchemaRef> {
    let version = target.served_version().filter(|version| version.view.is_none())?;
    version.schema.as_ref().filter(|schema| schema.judges_apart(field))
}

/// What a merge patch is about.
enum Merge {
    Part(Change),
    Labels(labels::Patch),
}

/// What a merge patch says of one part, or of labels and annotations, if it says nothing else, and nothing twice. It may say what
/// the object is.
fn merge_patch(target: &Target, part: Part, patch: &[u8]) -> Option<Merge> {
    let Ok((Value::Object(mut patch), false)) = body::parse(patch) else {
        return None;
    };
    let merge = match patch.remove(part.name()) {
        Some(value) => Merge::Part(Change::Merge(value.is_object().then_some(value)?)),
        // A write to the status leaves metadata alone.
        None if part == Part::Spec => Merge::Labels(labels::Patch::of_metadata(patch.remove("metadata")?)?),
        None => return None,
    };
    for (name, expected) in [("apiVersion", &target.api_version()), ("kind", &target.resource.kind)] {
        if let Some(given) = patch.remove(name)
            && given.as_str() != Some(expected)
        {
            return None;
        }
    }
    patch.is_empty().then_some(merge)
}

/// Operations of a JSON patch, if they all are about what is inside a part. Copies may grow without end, and are left to the general
/// way, where they are counted.
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
            PatchOperation::Copy(_) => return false,
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
    let scale = writer.own_version().and_then(|version| version.scale.as_ref());
    if scale.is_some_and(|paths| !scale::problems(paths, &after, part == Part::Status).is_empty()) {
        return None;
    }
    let managed = present.managed_fields();
    let live = Before { object: &before, managed, is_new: false };
    let managed_fields = fields::track_update(writer, live, &after, &Value::Null);
    if managed_fields.is_some() != managed.is_some() {
        return None;
    }
    // A part is seldom much longer than it was.
    let mut json = Vec::with_capacity(present.part_json(part)?.len() + 64);
    serde_json::to_writer(&mut json, value).ok()?;
    Some(PartOutcome::Changed(PartChange { part, json, managed_fields }))
}

fn only(name: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), value)]))
}

#[cfg(test)]
mod tests;
