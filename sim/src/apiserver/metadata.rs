//! Rules about `metadata`: what clients may set, what the server keeps, and how names and labels must look.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::openapi::definitions::Definition;
use super::request::Target;
use super::views::View;
use crate::store::{FieldError, Record, StatusError};

const SUBDOMAIN_PATTERN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE_PATTERN: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// Sum of the sizes of all annotations of an object (`TotalAnnotationSizeLimitB`).
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

static SUBDOMAIN: LazyLock<Option<Regex>> = LazyLock::new(|| anchored(SUBDOMAIN_PATTERN));
static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| anchored(LABEL_PATTERN));
static QUALIFIED_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| anchored(QUALIFIED_NAME_PATTERN));
static LABEL_VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| anchored(LABEL_VALUE_PATTERN));

fn anchored(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// Checks that the body speaks of the object that the URL names.
pub(super) fn check_identity(target: &Target, name: Option<&str>, body: &Value) -> Result<(), StatusError> {
    if !body.is_object() {
        return Err(StatusError::bad_request("the object provided is unrecognized"));
    }
    let metadata = &body["metadata"];
    check_metadata_shape(target, metadata)?;
    let given_namespace = metadata["namespace"].as_str().unwrap_or_default();
    if !given_namespace.is_empty() && given_namespace != target.namespace {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let Some(name) = name else {
        return Ok(());
    };
    let given_name = metadata["name"].as_str().unwrap_or_default();
    if given_name.is_empty() {
        return Err(no_name(name));
    }
    if given_name != name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({given_name}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// 400 for an object that does not say its name.
pub(super) fn no_name(name: &str) -> StatusError {
    StatusError::bad_request(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

pub(super) fn check_kind(target: &Target, body: &Value) -> Result<(), StatusError> {
    let given = |field: &str| body[field].as_str().filter(|text| !text.is_empty());
    let resource = &target.resource;
    let expected = target.api_version();
    if resource.custom {
        return if given("kind").is_some() { Ok(()) } else { Err(no_kind(target, body)) };
    }
    let api_version = given("apiVersion").unwrap_or(&expected);
    let kind = given("kind").unwrap_or(&resource.kind);
    if api_version == expected && kind == resource.kind {
        return Ok(());
    }
    let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
    let cause = if let Some(cause) = unregistered(api_version, kind) {
        cause
    } else {
        let package = resource.group.split('.').next().filter(|package| !package.is_empty()).unwrap_or("core");
        format!("converting ({version}.{kind}) to ({package}.{}): unknown conversion", resource.kind)
    };
    Err(StatusError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {}: {cause}",
        resource.kind
    )))
}

/// What the real server says of a kind that it does not have; `None` for one that it has.
pub(super) fn unregistered(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Definition::of_kind(group, version, kind).is_none().then(|| {
        format!(
            "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/runtime/scheme.go:111\""
        )
    })
}

/// Custom resources have to say what they are.
fn no_kind(target: &Target, body: &Value) -> StatusError {
    let text = body.to_string();
    // What the API server shows of a body that it cannot read.
    let summary: String = text.chars().take(30).collect();
    let more = if summary.len() < text.len() { " ..." } else { "" };
    StatusError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {} ({summary}{more})",
        target.resource.kind,
        kind_is_missing(&text)
    ))
}

/// The API server's words for an object of no kind.
pub(super) fn kind_is_missing(object: &str) -> String {
    format!("Object 'Kind' is missing in '{object}'")
}

/// Refuses a body of another version than that of the path. What a patch makes is judged with the rest of the object.
pub(super) fn check_api_version(target: &Target, body: &Value) -> Result<(), StatusError> {
    let given = body["apiVersion"].as_str().unwrap_or_default();
    let expected = target.api_version();
    if !target.resource.custom || given == expected {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "the API version in the data ({given}) does not match the expected API version ({expected})"
    )))
}

/// What an object says that it is, and is not.
#[derive(Clone, Debug)]
pub(super) struct WrongType {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) problems: Vec<FieldError>,
}

/// Why a custom resource is not of the kind and version that it is written as (`ValidateTypeMeta`).
pub(super) fn wrong_type(target: &Target, value: &Value) -> Option<WrongType> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let expected = target.api_version();
    let mut problems = Vec::new();
    for (field, expected) in [("kind", target.resource.kind.as_str()), ("apiVersion", expected.as_str())] {
        if text(field) != expected {
            problems.push(FieldError::invalid(field, &Value::from(text(field)), format!("must be {expected}")));
        }
    }
    if problems.is_empty() {
        return None;
    }
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    Some(WrongType { group: group.to_owned(), kind: text("kind").to_owned(), problems })
}

fn check_metadata_shape(target: &Target, metadata: &Value) -> Result<(), StatusError> {
    let fail = |field: &str, found: &Value, expected: &str| {
        let found = match found {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) | Value::Null => "object",
        };
        StatusError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal {found} into Go struct \
             field ObjectMeta.metadata.{field} of type {expected}",
            kind = target.resource.kind,
            version = target.version,
        ))
    };
    if !metadata.is_object() && !metadata.is_null() {
        return Err(fail("", metadata, "v1.ObjectMeta"));
    }
    for field in ["name", "namespace", "generateName", "resourceVersion", "uid"] {
        let value = &metadata[field];
        if !value.is_null() && !value.is_string() {
            return Err(fail(field, value, "string"));
        }
    }
    for field in ["labels", "annotations"] {
        let value = &metadata[field];
        if !value.is_null() && !value.is_object() {
            return Err(fail(field, value, "map[string]string"));
        }
        for child in value.as_object().into_iter().flat_map(Map::values) {
            if !child.is_string() {
                return Err(fail(field, child, "string"));
            }
        }
    }
    for field in ["finalizers", "ownerReferences", "managedFields"] {
        let value = &metadata[field];
        if !value.is_null() && !value.is_array() {
            return Err(fail(field, value, "[]string"));
        }
    }
    Ok(())
}

/// Drops what no client may set and what means nothing, as decoding into `ObjectMeta` does.
pub(super) fn normalise(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.remove("selfLink");
    let means_nothing = |name: &str, child: &Value| match child {
        Value::Null => true,
        // An empty list asks for them to be forgotten.
        Value::Array(_) if name == "managedFields" => false,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    // Rarely is there any, and looking costs less than `retain`.
    if metadata.iter().any(|(name, child)| means_nothing(name, child)) {
        metadata.retain(|name, child| !means_nothing(name, child));
    }
}

/// What a client may leave out of an update, and must not change. The server itself gives times to what is being deleted.
const SERVER_FIELDS: [&str; 3] = ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Takes over what an update cannot change (`rest.BeforeUpdate`).
pub(super) fn keep_server_fields(value: &mut Value, present: &Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    // The rest of what is not the client's is left to `update_problems`, if it was given at all.
    let is_given = |field: &str| metadata.contains_key(field);
    let is_deleting = !present["metadata"]["deletionTimestamp"].is_null();
    let mut kept = vec!["namespace", "creationTimestamp", "generation"];
    kept.extend(SERVER_FIELDS.into_iter().filter(|field| !is_given(field) || (is_deleting && *field != "uid")));
    for field in kept {
        match present["metadata"].get(field) {
            Some(kept) if metadata.get(field) == Some(kept) => None,
            Some(kept) => metadata.insert(field.to_owned(), kept.clone()),
            None => metadata.remove(field),
        };
    }
}

/// What a write is guarded by.
#[derive(Clone, Copy)]
pub(super) struct Lock {
    /// A candidate that names no version replaces any.
    pub(super) unconditional: bool,
    /// A candidate with another uid is meant for another object. A patch with one is a wrong patch.
    pub(super) by_uid: bool,
}

/// The optimistic lock and the uid precondition of a write.
pub(super) fn check_preconditions(
    target: &Target,
    name: &str,
    candidate: &Value,
    present: &Record,
    lock: Lock,
    dry_run: bool,
) -> Result<(), StatusError> {
    let metadata = &candidate["metadata"];
    let uid = metadata["uid"].as_str().unwrap_or_default();
    if lock.by_uid && !uid.is_empty() && uid != present.uid() {
        let is_service = target.resource.group.is_empty() && target.resource.plural == "services";
        // Beside what they say there are their endpoints.
        let prefix = match &target.resource {
            _ if is_service => "services/specs".to_owned(),
            resource if resource.custom => format!("{}/{}", resource.group, resource.plural),
            resource => resource.plural.to_string(),
        };
        let namespace = if target.namespace.is_empty() { String::new() } else { format!("/{}", target.namespace) };
        // What is only rehearsed does not get as far as where objects are.
        let root = if dry_run { "" } else { "/registry" };
        let registry_key = format!("{root}/{prefix}{namespace}/{name}");
        return Err(StatusError::conflict(
            &target.resource,
            name,
            &format!(
                "StorageError: invalid object, Code: 4, Key: {registry_key}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                present.uid()
            ),
        ));
    }
    let version = given_version(candidate)?;
    if version == 0 {
        if lock.unconditional {
            return Ok(());
        }
        let problem =
            FieldError::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
        // The registry calls a kind by its resource.
        return Err(StatusError::invalid(&target.resource.group, &target.resource.plural, name, &[problem]));
    }
    if version == present.resource_version {
        return Ok(());
    }
    Err(StatusError::modified(&target.resource, name))
}

/// The version that an object says it is of; 0 for none (`ObjectResourceVersion`).
///
/// # Errors
/// 500 for a text that is no number: it is no status error in the API server.
pub(super) fn given_version(value: &Value) -> Result<u64, StatusError> {
    let text = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Ok(0);
    }
    let invalid = |_| StatusError::new(500, "", format!("strconv.ParseUint: parsing \"{text}\": invalid syntax"));
    text.parse::<u64>().map_err(invalid)
}

pub(super) fn invalid(target: &Target, name: &str, problems: &[FieldError]) -> StatusError {
    // Both versions of an Event are called by the core group.
    let is_event = target.served_version().is_some_and(|version| version.view == Some(View::Event));
    let group = if is_event { "" } else { &target.resource.group };
    StatusError::invalid(group, &target.resource.kind, name, problems)
}

/// `ValidateObjectMeta`: name, labels, annotations, finalizers, owner references.
pub(super) fn problems(target: &Target, value: &Value) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let metadata = &value["metadata"];
    name_problems(target, &metadata["name"], &mut problems);
    problems.extend(map_problems(metadata));
    owner_problems(&metadata["ownerReferences"], &mut problems);
    finalizer_problems(target, &metadata["finalizers"], &mut problems);
    problems
}

/// Problems of the labels and annotations of an object's metadata.
pub(super) fn map_problems(metadata: &Value) -> Vec<FieldError> {
    let mut problems = Vec::new();
    label_problems("metadata.labels", &metadata["labels"], &mut problems);
    let mut size = 0;
    for (key, annotation) in fields(&metadata["annotations"]) {
        key_problems("metadata.annotations", &key.to_lowercase(), &mut problems);
        size += key.len() + annotation.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        problems.push(FieldError {
            reason: crate::store::FieldReason::TooLong,
            field: "metadata.annotations".to_owned(),
            value: String::new(),
            detail: format!("may not be more than {ANNOTATIONS_LIMIT} bytes"),
        });
    }
    problems
}

fn finalizer_problems(target: &Target, finalizers: &Value, problems: &mut Vec<FieldError>) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    for (index, finalizer) in finalizers.as_array().into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let known = problems.len();
        key_problems("metadata.finalizers", name, problems);
        let is_vague = !target.resource.custom && !name.contains('/') && !STANDARD.contains(&name);
        if is_vague && problems.len() == known {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            problems.push(FieldError::invalid(format!("metadata.finalizers[{index}]"), finalizer, detail));
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn name_problems(target: &Target, name: &Value, problems: &mut Vec<FieldError>) {
    let text = name.as_str().unwrap_or_default();
    if text.is_empty() {
        problems.push(no_name_or_base());
        return;
    }
    let is_label = target.resource.group.is_empty() && matches!(target.resource.kind.as_str(), "Namespace" | "Service");
    let fault = if is_label { label_fault(text) } else { subdomain_fault(text) };
    if let Some(detail) = fault {
        problems.push(FieldError::invalid("metadata.name", name, detail));
    }
}

/// What is wrong with an object that has no name and nothing to make one of.
pub(crate) fn no_name_or_base() -> FieldError {
    FieldError::required("metadata.name", "name or generateName is required")
}

/// What is wrong with a text that has to be a DNS label (`IsDNS1123Label`).
pub(super) fn label_fault(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    if text.contains('.') && matches(&SUBDOMAIN, text) {
        return Some("must not contain dots".to_owned());
    }
    (!matches(&LABEL, text)).then(|| {
        format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL_PATTERN}')"
        )
    })
}

/// What is wrong with a text that has to be a DNS name (`IsDNS1123Subdomain`).
pub(super) fn subdomain_fault(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!matches(&SUBDOMAIN, text)).then(|| {
        format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN_PATTERN}')"
        )
    })
}

/// Problems of labels, or of what has their form, at a path.
pub(super) fn label_problems(field: &str, labels: &Value, problems: &mut Vec<FieldError>) {
    for (key, label) in fields(labels) {
        key_problems(field, key, problems);
        label_value_problems(field, label, problems);
    }
}

/// `IsQualifiedName`.
pub(super) fn key_problems(field: &str, key: &str, problems: &mut Vec<FieldError>) {
    let mut refuse = |detail: String| problems.push(FieldError::invalid(field, &Value::String(key.to_owned()), detail));
    let name_rule = || {
        format!(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '{QUALIFIED_NAME_PATTERN}')"
        )
    };
    let (prefix, name) = match key.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            let name_rule = name_rule();
            refuse(format!(
                "a valid label key {name_rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return;
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    match prefix {
        Some("") => refuse("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if let Some(fault) = subdomain_fault(prefix) {
                refuse(format!("prefix part {fault}"));
            }
        }
        None => {}
    }
    if name.is_empty() {
        refuse("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        refuse("name part must be no more than 63 bytes".to_owned());
    }
    if !matches(&QUALIFIED_NAME, name) {
        refuse(format!("name part {}", name_rule()));
    }
}

/// Problems of annotations at a path.
pub(super) fn annotation_problems(field: &str, annotations: &Value, problems: &mut Vec<FieldError>) {
    for (key, _) in fields(annotations) {
        key_problems(field, &key.to_lowercase(), problems);
    }
}

pub(super) fn label_value_problems(field: &str, value: &Value, problems: &mut Vec<FieldError>) {
    let text = value.as_str().unwrap_or_default();
    if text.len() > 63 {
        let detail = "must be no more than 63 bytes";
        problems.push(FieldError::invalid(field, value, detail));
    }
    if !matches(&LABEL_VALUE, text) {
        let detail = format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{LABEL_VALUE_PATTERN}')"
        );
        problems.push(FieldError::invalid(field, value, detail));
    }
}

fn owner_problems(owners: &Value, problems: &mut Vec<FieldError>) {
    let mut controller: Option<&Value> = None;
    for owner in owners.as_array().into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let detail = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                problems.push(FieldError::invalid(
                    format!("metadata.ownerReferences.{field}"),
                    &Value::String(String::new()),
                    detail,
                ));
            }
        }
        if owner["controller"] != true {
            continue;
        }
        if let Some(first) = controller {
            let name = |owner: &Value| owner["name"].as_str().unwrap_or_default().to_owned();
            problems.push(FieldError::invalid(
                "metadata.ownerReferences",
                owners,
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    name(first),
                    name(owner)
                ),
            ));
        }
        controller = Some(owner);
    }
}

/// Rules for changes only: no new finalizers while the object is being deleted, creation time fixed.
pub(super) fn update_problems(value: &Value, present: &Record) -> Vec<FieldError> {
    let mut problems = changed_server_fields(value, present);
    problems.extend(new_finalizers(value, present));
    problems
}

/// `ValidateObjectMetaUpdate`.
fn changed_server_fields(value: &Value, present: &Record) -> Vec<FieldError> {
    let before = present.value();
    let is_changed = |field: &str| {
        let given = &value["metadata"][field];
        !given.is_null() && *given != before["metadata"][field]
    };
    let changed = SERVER_FIELDS.into_iter().filter(|field| is_changed(field));
    changed
        .map(|field| FieldError::invalid(format!("metadata.{field}"), &value["metadata"][field], "field is immutable"))
        .collect()
}

fn new_finalizers(value: &Value, present: &Record) -> Vec<FieldError> {
    if !present.is_deleting() {
        return Vec::new();
    }
    let before = present.finalizers();
    let added: Vec<&str> = value["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|name| !before.contains(name))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = added.iter().map(|name| format!("\"{name}\"")).collect();
    vec![FieldError::forbidden(
        "metadata.finalizers",
        format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            names.join(", ")
        ),
    )]
}
