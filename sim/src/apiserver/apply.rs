//! Server-side apply over the wire: options, the configuration, upserts and conflicts.

use kube::core::response::StatusCause;
use serde_json::{Value, json};

use super::fields::{self, Apply, ApplyError, Before, Conflict};
use super::patch::Origin;
use super::request::{Query, Target};
use super::response::Answer;
use super::schema::conform::make_all_whole;
use super::strategy::{Ownership, Strategy, WriteOptions};
use super::write::{self, Replacement, WriteRequest};
use super::{ApiServer, metadata, scale};
use crate::store::{FieldError, FieldReason, StatusError};

pub(super) const CONTENT_TYPE: &str = "application/apply-patch+yaml";

/// The name of the options of this request.
const OPTIONS: &str = "PatchOptions";

/// The API server's limit of a manager's name (`FieldManagerMaxLength`), in bytes.
const MANAGER_LIMIT: usize = 128;

/// The name under which a write counts: what the client says, or its program's name (`managerOrUserAgent`).
///
/// # Errors
/// 422 for a name that is too long or not printable.
pub(super) fn manager(query: &Query, client: &str, options: &str) -> Result<String, StatusError> {
    if let Some(given) = query.get("fieldManager") {
        check_manager(given, options)?;
        return Ok(given.to_owned());
    }
    let program = client.split('/').next().unwrap_or_default();
    let mut name = String::with_capacity(program.len());
    for character in program.chars().filter(|character| !character.is_control()) {
        if name.len() + character.len_utf8() > MANAGER_LIMIT {
            break;
        }
        name.push(character);
    }
    Ok(name)
}

fn check_manager(name: &str, options: &str) -> Result<(), StatusError> {
    let field = "fieldManager".to_owned();
    let mut problems = Vec::new();
    if name.len() > MANAGER_LIMIT {
        let detail = format!("may not be more than {MANAGER_LIMIT} bytes");
        problems.push(FieldError { reason: FieldReason::TooLong, field: field.clone(), value: String::new(), detail });
    }
    for (position, character) in name.char_indices().filter(|(_, character)| character.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {position})", u32::from(character));
        problems.push(FieldError::invalid(&field, &json!(name), detail));
    }
    refuse_options(options, &problems)
}

fn refuse_options(options: &str, problems: &[FieldError]) -> Result<(), StatusError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid("meta.k8s.io", options, "", problems))
}

/// `force` is for apply alone.
pub(super) fn refuse_force(query: &Query) -> Result<(), StatusError> {
    if query.get("force").is_none() {
        return Ok(());
    }
    let problem = FieldError::forbidden("force", "may not be specified for non-apply patch");
    refuse_options(OPTIONS, &[problem])
}

/// What a patch sees of managed fields: nothing, unless it asks for them. A patch that leaves them alone has no say in them.
pub(super) fn show_managed_fields(object: &mut Value, patch: &[u8]) {
    const NAME: &[u8] = b"managedFields";
    if patch.windows(NAME.len()).any(|window| window == NAME) {
        fields::expand(object);
    } else {
        fields::take_text(object);
    }
}

/// How often an apply looks again whether there is an object when others create and delete it all the time. The API server tries
/// a patch five times in all (`MaxRetryWhenPatchConflicts`).
const UPSERT_RETRIES: usize = 4;

impl ApiServer {
    /// Applies a configuration; creates the object where there is none.
    pub(super) fn apply(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, .. } = request;
        let exists = self.store.record(&target.resource.group_kind, &target.namespace, name).is_some();
        self.apply_to_what_was_seen(request, exists)
    }

    /// The same, by what was there a moment ago.
    fn apply_to_what_was_seen(&self, request: &WriteRequest<'_>, mut exists: bool) -> Result<Answer, StatusError> {
        let is_whole = request.target.subresource.is_empty();
        for _ in 0..UPSERT_RETRIES {
            match self.apply_to(request, exists) {
                // Somebody else created it in the meantime, so that there is something to apply to; or deleted it.
                Err(error) if !exists && error.reason() == "AlreadyExists" => exists = true,
                Err(error) if exists && is_whole && error.code() == 404 => exists = false,
                outcome => return outcome,
            }
        }
        self.apply_to(request, exists)
    }

    /// Applies a configuration to an object, or to nothing, whichever it is taken for.
    fn apply_to(&self, request: &WriteRequest<'_>, exists: bool) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, query, body, .. } = request;
        let Some(manager) = query.get("fieldManager") else {
            let problem = FieldError::required("fieldManager", "is required for apply patch");
            return Err(StatusError::invalid("meta.k8s.io", OPTIONS, "", &[problem]));
        };
        check_manager(manager, OPTIONS)?;
        let options = WriteOptions::parse(query, OPTIONS)?;
        let strategy = Strategy::new(target, self.store.clock(), options);
        let mut config = decode(body.bytes)?;
        if target.resource.custom {
            make_all_whole(&mut config);
        }
        let is_forced = query.flag("force");
        if !exists {
            if !target.subresource.is_empty() {
                return Err(StatusError::not_found(&target.resource, name));
            }
            return self.apply_to_nothing(request, strategy, options.dry_run, manager, &config);
        }
        let lock = metadata::Lock { unconditional: target.resource.unconditional_update, by_uid: false };
        let replacement = Replacement { strategy, dry_run: options.dry_run, lock };
        self.replace(request, replacement, |strategy, present| {
            if target.subresource == "scale" {
                return apply_scale(strategy, target, name, manager, &config, is_forced, present);
            }
            check_config(target, &config)?;
            let mut live = present.clone();
            fields::take_text(&mut live);
            live["apiVersion"] = Value::String(target.api_version());
            let apply = Apply { writer: strategy.writer(manager), config: &config, is_forced };
            let before = Before { object: &live, managed: fields::stored_text(present), is_new: false };
            let applied = apply.run(before).map_err(|error| refusal(&error))?;
            strategy.ownership = Ownership::Applied(applied.managed);
            let value = decode_applied(target, strategy, &config, applied.value)?;
            metadata::check_identity(target, Some(name), &value)?;
            Ok(value)
        })
    }

    fn apply_to_nothing(
        &self,
        request: &WriteRequest<'_>,
        mut strategy: Strategy<'_>,
        dry_run: bool,
        manager: &str,
        config: &Value,
    ) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, .. } = request;
        check_config(target, config)?;
        let nothing = json!({"apiVersion": target.api_version(), "kind": target.resource.kind});
        let apply = Apply { writer: strategy.writer(manager), config, is_forced: false };
        let before = Before { object: &nothing, managed: None, is_new: true };
        let applied = apply.run(before).map_err(|error| refusal(&error))?;
        strategy.ownership = Ownership::Applied(applied.managed);
        let mut value = decode_applied(target, &mut strategy, config, applied.value)?;
        if let Some(uid) = value["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            let cause =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(StatusError::conflict(&target.resource, name, &cause));
        }
        metadata::check_identity(target, Some(name), &value)?;
        write::forget_version(&mut value, dry_run)?;
        self.create_object(request, strategy, dry_run, value)
    }
}

/// Reads what applying made as any other body of a write.
fn decode_applied(
    target: &Target,
    strategy: &mut Strategy<'_>,
    config: &Value,
    mut value: Value,
) -> Result<Value, StatusError> {
    if !target.resource.custom {
        fields::drop_nulls(&mut value);
    }
    let given = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
    strategy.decode(&mut value, Origin::Applied(format!("{}/{}", given("namespace"), given("name"))))?;
    Ok(value)
}

fn decode(bytes: &[u8]) -> Result<Value, StatusError> {
    let invalid = |error: String| StatusError::bad_request(format!("error decoding YAML: {error}"));
    // JSON, which most clients send, is the faster of the two to read.
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
    serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))
}

/// The configuration's type, and that it leaves managed fields to the server.
fn check_config(target: &Target, config: &Value) -> Result<(), StatusError> {
    check_type(config, &target.api_version(), &target.resource.kind)?;
    if config["metadata"]["managedFields"].is_array() {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn check_type(config: &Value, api_version: &str, kind: &str) -> Result<(), StatusError> {
    let given_version = config["apiVersion"].as_str().unwrap_or_default();
    let given_kind = config["kind"].as_str().unwrap_or_default();
    if given_version == api_version && given_kind == kind {
        return Ok(());
    }
    let separator = if given_version.contains('/') { "" } else { "/" };
    Err(StatusError::bad_request(format!("invalid object type: {separator}{given_version}, Kind={given_kind}")))
}

fn refusal(error: &ApplyError) -> StatusError {
    match error {
        ApplyError::Conflicts(conflicts) => conflict(conflicts),
        // No status error in the API server either, so that it comes out as a plain 500.
        ApplyError::Untyped(problem) => StatusError::new(500, "", problem.clone()),
    }
}

fn conflict(conflicts: &[Conflict]) -> StatusError {
    let (message, causes) = fields::describe(conflicts);
    let causes = causes
        .into_iter()
        .map(|(message, field)| StatusCause { reason: "FieldManagerConflict".to_owned(), message, field })
        .collect();
    StatusError::new(409, "Conflict", message).with_causes(causes)
}

/// Applies a `Scale`, of which replicas are the only thing to own.
fn apply_scale(
    strategy: &mut Strategy<'_>,
    target: &Target,
    name: &str,
    manager: &str,
    config: &Value,
    is_forced: bool,
    present: &Value,
) -> Result<Value, StatusError> {
    check_type(config, "autoscaling/v1", "Scale")?;
    let paths = scale::paths(target)?;
    let mut wanted = scale::read(paths, present);
    json_patch::merge(&mut wanted, config);
    write::check_scale_version(target, name, &wanted, present)?;
    let value = scale::write(target, &wanted, present)?;
    let is_changed = scale::differ(paths, present, &value);
    let managed = fields::stored_text(present);
    let applied = fields::apply_scale(&strategy.writer(manager), &paths.spec_replicas, is_changed, is_forced, managed);
    strategy.ownership = Ownership::Applied(applied.map_err(|conflicts| conflict(&conflicts))?);
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::super::request::{Query, Route};
    use super::super::write::{Body, WriteRequest};
    use super::CONTENT_TYPE;
    use crate::store::kinds;
    use crate::{Cluster, ClusterOptions};

    /// Applies with a stale idea of whether the object is there.
    fn apply(cluster: &Cluster, name: &str, options: &str, manager: &str, data: &Value, exists: bool) -> u16 {
        let server = cluster.api_server();
        let Route::Resource(target) =
            Route::parse(cluster.store(), &format!("/api/v1/namespaces/default/configmaps/{name}"))
        else {
            panic!("config maps are served");
        };
        let query = Query::parse(Some(&format!("fieldManager={manager}{options}")));
        let encoder = server.encoder(&target, &query, "").unwrap();
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string();
        let body = Body { content_type: CONTENT_TYPE, bytes: config.as_bytes(), client: manager };
        let request = WriteRequest { target: &target, name, query: &query, body, encoder: &encoder };
        let outcome = server.apply_to_what_was_seen(&request, exists);
        outcome.map_or_else(|error| error.code(), |answer| answer.code)
    }

    #[tokio::test]
    async fn an_apply_that_finds_the_object_just_created_updates_it() {
        let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
        assert_eq!(apply(&cluster, "shared", "", "first", &json!({"a": "1"}), false), 201);
        for options in ["&dryRun=All", ""] {
            assert_eq!(apply(&cluster, "shared", options, "second", &json!({"b": "2"}), false), 200, "{options}");
        }
        assert_eq!(apply(&cluster, "shared", "", "third", &json!({"a": "3"}), false), 409, "a conflict stays one");
        let shared = cluster.store().get(&kinds::CONFIG_MAP, "default", "shared").unwrap();
        assert_eq!(shared["data"], json!({"a": "1", "b": "2"}));
        assert_eq!(apply(&cluster, "gone", "", "first", &json!({"a": "1"}), true), 201, "deleted in the meantime");
    }
}
