//! Create, update, patch and delete.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ApiServer;
use super::request::{Query, Target};
use super::response::{Answer, Encoder};
use super::strategy::{self, Ownership, Strategy, WriteOptions};
use super::{apply, body, dry_run, metadata, patch, protobuf, read, scale};
use crate::store::{
    Deletion, ObjectKey, Propagation, Record, StatusError, kinds, pod_grace_seconds, rehearsed_deletion,
    success_status, to_bytes,
};

/// The content type of Kubernetes' protobuf encoding.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The body of a write, not yet decoded.
pub(super) struct Body<'a> {
    pub(super) content_type: &'a str,
    pub(super) bytes: &'a [u8],
    /// The client's user agent.
    pub(super) client: &'a str,
}

impl Body<'_> {
    fn is_json(&self) -> bool {
        matches!(self.content_type, "" | "application/json")
    }
}

/// A request to write: what it is about, what it says, and how it is to be answered.
pub(super) struct WriteRequest<'a> {
    pub(super) target: &'a Target,
    /// The object's name in the path; empty for a collection.
    pub(super) name: &'a str,
    pub(super) query: &'a Query,
    pub(super) body: Body<'a>,
    pub(super) encoder: &'a Encoder,
}

/// How an object is replaced.
pub(super) struct Replacement<'a> {
    pub(super) strategy: Strategy<'a>,
    /// Nothing is stored.
    pub(super) dry_run: bool,
    pub(super) lock: metadata::Lock,
}

/// Namespaces that the admission plugin NamespaceLifecycle keeps.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

impl ApiServer {
    pub(super) fn create(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, query, body, .. } = request;
        if target.name.is_some() {
            return Err(StatusError::method_not_allowed());
        }
        let options = WriteOptions::parse(query, "CreateOptions")?;
        let (mut value, repeats_fields) = decode(target, body)?;
        let mut strategy = Strategy::new(target, self.store.clock(), options);
        strategy.ownership = Ownership::Update(apply::manager(query, body.client, "CreateOptions")?);
        if body.is_json() {
            strategy.set_document(body.bytes, repeats_fields);
        }
        metadata::check_kind(target, &value)?;
        strategy.decode(&mut value, patch::Origin::Body)?;
        if let Err(error) = metadata::check_api_version(target, &value) {
            return Err(error.with_warnings(strategy.warnings));
        }
        self.create_object(request, strategy, options.dry_run, value)
    }

    /// Creates an object that was read already.
    pub(super) fn create_object(
        &self,
        request: &WriteRequest<'_>,
        mut strategy: Strategy<'_>,
        dry_run: bool,
        value: Value,
    ) -> Result<Answer, StatusError> {
        let WriteRequest { target, encoder, .. } = request;
        if target.resource.namespaced && target.namespace.is_empty() {
            return Err(StatusError::bad_request("an empty namespace may not be set during creation"));
        }
        if let Err(error) = metadata::check_identity(target, None, &value) {
            return Err(error.with_warnings(strategy.warnings));
        }
        let mut value = to_stored(target, value);
        metadata::normalise(&mut value);
        let mut rehearsal = dry_run::Rehearsal::new(dry_run);
        let outcome = self.store.insert(&target.resource, &target.namespace, value, dry_run, |state, value| {
            if target.resource.namespaced {
                let namespace = state.record(&kinds::NAMESPACE, "", &target.namespace);
                check_namespace(target, value, namespace.map(|record| record.is_deleting()))?;
            }
            rehearsal.begin(state);
            strategy.prepare_create(state, value)?;
            // One that is no number is taken for none. What is only rehearsed is not looked at by the storage.
            if !dry_run && metadata::given_version(value).is_ok_and(|version| version != 0) {
                // ErrResourceVersionSetOnCreate is no status error, so it comes out as a plain 500.
                return Err(StatusError::new(500, "", "resourceVersion should not be set on objects to be created"));
            }
            self.store.check_quotas(state, &target.resource, &target.namespace, value)?;
            rehearsal.end_create(target, self.store.clock(), state, value)
        });
        let record = match rehearsal.outcome(outcome) {
            Ok(record) => record,
            Err(error) => return Err(error.with_warnings(strategy.warnings)),
        };
        note_checked(target, &record);
        let mut answer = Answer::json(201, encoder.object(&record)).changed(!dry_run);
        answer.warnings = strategy.warnings;
        Ok(answer)
    }

    pub(super) fn update(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, query, body, .. } = request;
        let options = WriteOptions::parse(query, "UpdateOptions")?;
        let manager = apply::manager(query, body.client, "UpdateOptions");
        if !options.dry_run
            && body.is_json()
            && let Ok(manager) = &manager
            && let Some(answer) = self.put_part(request, manager)
        {
            return Ok(answer);
        }
        let (mut value, repeats_fields) = decode(target, body)?;
        let mut strategy = Strategy::new(target, self.store.clock(), options);
        strategy.ownership = Ownership::Update(manager?);
        if body.is_json() {
            strategy.set_document(body.bytes, repeats_fields);
        }
        if target.subresource == "scale" {
            strategy.decode(&mut value, patch::Origin::Body)?;
            let lock = metadata::Lock { unconditional: false, by_uid: true };
            let replacement = Replacement { strategy, dry_run: options.dry_run, lock };
            return self.replace(request, replacement, |_, present| {
                check_scale_version(target, name, &value, present)?;
                scale::write(target, &value, present)
            });
        }
        metadata::check_kind(target, &value)?;
        strategy.decode(&mut value, patch::Origin::Body)?;
        let checked = metadata::check_api_version(target, &value)
            .and_then(|()| metadata::check_identity(target, Some(name), &value));
        if let Err(error) = checked {
            return Err(error.with_warnings(strategy.warnings));
        }
        let kind = &target.resource.group_kind;
        let creates = target.resource.create_on_update
            && target.subresource.is_empty()
            && self.store.record(kind, &target.namespace, name).is_none();
        if creates {
            forget_version(&mut value, options.dry_run)?;
            return self.create_object(request, strategy, options.dry_run, value);
        }
        let lock = metadata::Lock { unconditional: target.resource.unconditional_update, by_uid: true };
        let replacement = Replacement { strategy, dry_run: options.dry_run, lock };
        self.replace(request, replacement, |_, _| Ok(to_stored(target, value)))
    }

    pub(super) fn patch(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, query, body, .. } = request;
        if body.content_type == apply::CONTENT_TYPE {
            return self.apply(request);
        }
        patch::check_type(target, body.content_type)?;
        let options = WriteOptions::parse(query, "PatchOptions")?;
        apply::refuse_force(query)?;
        let manager = apply::manager(query, body.client, "PatchOptions")?;
        if !options.dry_run
            && let Some(answer) = self.patch_part(request, &manager)
        {
            return Ok(answer);
        }
        let mut strategy = Strategy::new(target, self.store.clock(), options);
        strategy.ownership = Ownership::Update(manager);
        strategy.look_for_repeats(&request.body);
        // A patch that leaves the version alone has the present one.
        let lock = metadata::Lock { unconditional: target.resource.unconditional_update, by_uid: false };
        let replacement = Replacement { strategy, dry_run: options.dry_run, lock };
        self.replace(request, replacement, |strategy, present| {
            if target.subresource == "scale" {
                let current = scale::read(scale::paths(target)?, present);
                let schema = strategy.schema();
                let (mut patched, origin) =
                    patch::apply(target, schema.as_deref(), body.content_type, body.bytes, current)?;
                strategy.decode(&mut patched, origin)?;
                check_scale_version(target, name, &patched, present)?;
                return scale::write(target, &patched, present);
            }
            let mut visible = match target.served_version().and_then(|version| version.view) {
                Some(view) => view.show(present.clone()),
                None => present.clone(),
            };
            visible["apiVersion"] = Value::String(target.api_version());
            apply::show_managed_fields(&mut visible, body.bytes);
            let schema = strategy.schema();
            let (mut patched, origin) =
                patch::apply(target, schema.as_deref(), body.content_type, body.bytes, visible)?;
            if matches!(origin, patch::Origin::Patch) {
                strategy.check_type_is_left(name, &patched)?;
            }
            let is_strategic = matches!(origin, patch::Origin::StrategicPatch(_));
            if is_strategic {
                // Go reads what comes of it into a struct of the kind, whatever it says of that.
                patched["apiVersion"] = Value::String(target.api_version());
                patched["kind"] = Value::String(target.resource.kind.clone());
            }
            strategy.decode_patched(&mut patched, origin, present)?;
            if !target.resource.custom && !is_strategic {
                metadata::check_kind(target, &patched)?;
            }
            metadata::check_identity(target, Some(name), &patched)?;
            Ok(to_stored(target, patched))
        })
    }

    /// Replaces an object by a candidate made from its present state.
    pub(super) fn replace(
        &self,
        request: &WriteRequest<'_>,
        replacement: Replacement<'_>,
        candidate: impl FnOnce(&mut Strategy<'_>, &Value) -> Result<Value, StatusError>,
    ) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, encoder, .. } = request;
        let Replacement { mut strategy, dry_run, lock } = replacement;
        let mut rehearsal = dry_run::Rehearsal::new(dry_run);
        let outcome = self.store.modify(&target.resource, &target.namespace, name, |state, present| {
            let mut value = candidate(&mut strategy, &present.value())?;
            metadata::normalise(&mut value);
            metadata::check_preconditions(target, name, &value, present, lock, dry_run)?;
            rehearsal.begin(state);
            let value = strategy.prepare_update(state, present, value)?;
            rehearsal.end_update(state, present, value)
        });
        let (record, changed) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => match rehearsal.outcome(Err(error)) {
                Ok(record) => (record, false),
                Err(error) => return Err(error.with_warnings(strategy.warnings)),
            },
        };
        note_checked(target, &record);
        let mut answer = if target.subresource == "scale" {
            scale::answer(target, &record, encoder, 200)?
        } else {
            Answer::json(200, encoder.object(&record))
        };
        answer.warnings = strategy.warnings;
        Ok(answer.changed(changed && !dry_run))
    }

    pub(super) fn delete(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, query, body, encoder } = request;
        if !target.subresource.is_empty() {
            return Err(StatusError::method_not_allowed());
        }
        if target.resource.group_kind == kinds::NAMESPACE && IMMORTAL_NAMESPACES.contains(name) {
            return Err(StatusError::forbidden(&target.resource, name, "this namespace may not be deleted"));
        }
        let options = DeleteOptions::parse(target, query, body)?;
        let mut rehearsal = dry_run::Rehearsal::new(options.dry_run);
        let mut uid = String::new();
        let (mut was_deleting, mut waits) = (false, false);
        let deletion = self.store.delete_checked(&target.resource, &target.namespace, name, |state, key, present| {
            options.check_preconditions(target, name, present)?;
            present.uid().clone_into(&mut uid);
            was_deleting = present.is_deleting();
            rehearsal.end_delete(|| {
                let waiting = options.rehearse(self, key, present);
                waits = waiting.is_some();
                waiting.unwrap_or_else(|| Arc::clone(present))
            })?;
            Ok(options.delete(self, state, key, present))
        });
        let deletion = match deletion {
            Err(error) => {
                let record = rehearsal.outcome(Err(error))?;
                if waits { Deletion::Marked(record) } else { Deletion::Removed(record) }
            }
            Ok(deletion) => deletion,
        };
        let answer = match deletion {
            Deletion::Removed(record) if target.resource.returns_deleted => {
                Answer::json(200, encoder.object(&record)).changed(!options.dry_run)
            }
            Deletion::Removed(_) => {
                let status = success_status(&target.resource, name, &uid);
                Answer::json(200, to_bytes(&status)).changed(!options.dry_run)
            }
            Deletion::Marked(record) => {
                Answer::json(200, encoder.object(&record)).changed(!was_deleting && !options.dry_run)
            }
        };
        Ok(answer)
    }

    pub(super) fn delete_collection(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, query, body, encoder, .. } = request;
        if target.resource.namespaced && target.namespace.is_empty() {
            return Err(StatusError::method_not_allowed());
        }
        let options = DeleteOptions::parse(target, query, body)?;
        let selectors = read::selectors(target, query)?;
        let kind = &target.resource.group_kind;
        let (records, _) = self.store.records(kind, target.scope(), None).unwrap_or_default();
        let mut deleted: Vec<Arc<Record>> = Vec::new();
        for record in records {
            if !selectors.selects(&record) {
                continue;
            }
            if options.dry_run {
                deleted.push(record);
                continue;
            }
            let outcome =
                self.store.delete_checked(&target.resource, &target.namespace, record.name(), |state, key, present| {
                    Ok(options.delete(self, state, key, present))
                });
            match outcome {
                // The list is of what was there; only what stays is told with its mark.
                Ok(Deletion::Removed(_)) => deleted.push(record),
                Ok(Deletion::Marked(record)) => deleted.push(record),
                // Its owner went first, and it with it.
                Err(error) if error.code() == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read::answer_list(target, encoder, &deleted).changed(!deleted.is_empty() && !options.dry_run))
    }
}

/// `metav1.DeleteOptions`, from the body or the query.
struct DeleteOptions {
    propagation: Propagation,
    grace_seconds: Option<u64>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    fn parse(target: &Target, query: &Query, body: &Body<'_>) -> Result<Self, StatusError> {
        let options = if body.bytes.is_empty() { json!({}) } else { decode(target, body)?.0 };
        let mut requested: Vec<&str> =
            options["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        requested.extend(query.get("dryRun"));
        let mut problems = Vec::new();
        let dry_run = strategy::dry_run(&requested, &mut problems);
        if !problems.is_empty() {
            return Err(StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &problems));
        }
        let policy = options["propagationPolicy"].as_str().or_else(|| query.get("propagationPolicy"));
        let orphans = options["orphanDependents"] == true || query.flag("orphanDependents");
        let propagation = match policy {
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            None if orphans => Propagation::Orphan,
            Some("Background") | None => Propagation::Background,
            Some(other) => {
                let problem = crate::store::FieldError {
                    reason: crate::store::FieldReason::NotSupported,
                    field: "propagationPolicy".to_owned(),
                    value: json!(other).to_string(),
                    detail: "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".to_owned(),
                };
                return Err(StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &[problem]));
            }
        };
        let grace_seconds = match options["gracePeriodSeconds"].as_u64() {
            Some(seconds) => Some(seconds),
            None => query.number("gracePeriodSeconds")?,
        };
        let precondition = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            propagation,
            grace_seconds,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run,
        })
    }

    /// `rest.BeforeDelete`.
    fn check_preconditions(&self, target: &Target, name: &str, present: &Record) -> Result<(), StatusError> {
        if let Some(uid) = &self.uid
            && uid != present.uid()
        {
            return Err(StatusError::conflict_of_kind(
                &target.resource,
                name,
                &format!(
                    "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                     deleted and then recreated",
                    present.uid()
                ),
            ));
        }
        if let Some(version) = &self.resource_version
            && *version != present.resource_version.to_string()
        {
            return Err(StatusError::conflict_of_kind(
                &target.resource,
                name,
                &format!(
                    "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). \
                     The object might have been modified",
                    present.resource_version
                ),
            ));
        }
        Ok(())
    }

    /// The object as it would wait for its end; `None` for one that would be gone.
    fn rehearse(&self, server: &ApiServer, key: &ObjectKey, present: &Record) -> Option<Arc<Record>> {
        let grace = pod_grace_seconds(key, present, self.grace_seconds);
        rehearsed_deletion(server.store.shared(), present, self.propagation, grace).map(Arc::new)
    }

    fn delete(
        &self,
        server: &ApiServer,
        state: &mut crate::store::State,
        key: &ObjectKey,
        present: &Record,
    ) -> Option<Deletion> {
        let shared = server.store.shared();
        match pod_grace_seconds(key, present, self.grace_seconds) {
            Some(seconds) => state.delete_after_grace(shared, key, seconds),
            None => state.delete(shared, key, self.propagation),
        }
    }
}

/// Notes what a later write to the status of the object need not do again.
fn note_checked(target: &Target, record: &Record) {
    if target.resource.custom
        && let Some(schema) = target.served_version().and_then(|version| version.schema.as_ref())
    {
        record.set_checked_by(schema.number());
    }
}

/// Forgets the version of an object that was there in the client's mind, and is made by this write (`Store.Update`). Only in a
/// rehearsal it is still to be seen.
pub(super) fn forget_version(value: &mut Value, dry_run: bool) -> Result<(), StatusError> {
    metadata::given_version(value)?;
    if !dry_run && let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    Ok(())
}

/// The form in which an object of a served version is stored.
fn to_stored(target: &Target, value: Value) -> Value {
    match target.served_version().and_then(|version| version.view) {
        Some(view) => view.store(value),
        None => value,
    }
}

/// Admission plugin NamespaceLifecycle.
fn check_namespace(target: &Target, value: &Value, namespace_is_deleting: Option<bool>) -> Result<(), StatusError> {
    match namespace_is_deleting {
        Some(false) => Ok(()),
        Some(true) => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            Err(StatusError::namespace_terminating(&target.resource, &target.namespace, name))
        }
        None => Err(StatusError::new(404, "NotFound", format!("namespaces \"{}\" not found", target.namespace))
            .with_details("", "namespaces", &target.namespace)),
    }
}

/// A `Scale` is locked by the version and uid of the object that it scales.
pub(super) fn check_scale_version(
    target: &Target,
    name: &str,
    scale: &Value,
    present: &Value,
) -> Result<(), StatusError> {
    for field in ["resourceVersion", "uid"] {
        let given = scale["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && scale["metadata"][field] != present["metadata"][field] {
            return Err(StatusError::modified(&target.resource, name));
        }
    }
    Ok(())
}

/// Reads a body; tells whether it is a JSON document that names a field twice.
fn decode(target: &Target, body: &Body<'_>) -> Result<(Value, bool), StatusError> {
    decode_body(body, !target.resource.custom)
}

/// The same where there is no target. Custom resources have no protobuf encoding.
pub(super) fn decode_body(body: &Body<'_>, takes_protobuf: bool) -> Result<(Value, bool), StatusError> {
    let invalid = |error: &dyn std::fmt::Display| {
        StatusError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    };
    match body.content_type {
        "" | "application/json" => body::parse(body.bytes).map_err(|error| invalid(&error)),
        "application/yaml" => {
            let text = std::str::from_utf8(body.bytes).map_err(|error| invalid(&error))?;
            serde_saphyr::from_str(text).map(|value| (value, false)).map_err(|error| invalid(&error))
        }
        PROTOBUF if takes_protobuf => {
            let value = protobuf::decode(body.bytes);
            value.map(|value| (value, false)).map_err(|error| StatusError::bad_request(error.to_string()))
        }
        _ => {
            let protobuf = if takes_protobuf { ", application/vnd.kubernetes.protobuf" } else { "" };
            Err(patch::unsupported(&format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml{protobuf}"
            )))
        }
    }
}
