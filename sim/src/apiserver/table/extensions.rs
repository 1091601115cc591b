//! Rows of what extends an API server, and of certificates. Here such objects are stored and nothing else.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, containers, items, labels, name, text, text_or};
use super::duration;

/// What is shown for a parameter that an object does not name.
const UNSET: &str = "<unset>";

fn count(object: &Value, pointer: &str) -> Value {
    json!(items(object, pointer).count())
}

pub(super) fn webhook_configuration(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(object, "/webhooks"), age(object, now)]
}

fn parameter_kind(object: &Value) -> Value {
    let kind = &object["spec"]["paramKind"];
    if kind.is_null() {
        return json!(UNSET);
    }
    json!(format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")))
}

pub(super) fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(object, "/spec/validations"), parameter_kind(object), age(object, now)]
}

pub(super) fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(object, "/spec/mutations"), parameter_kind(object), age(object, now)]
}

pub(super) fn policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let reference = &object["spec"]["paramRef"];
    let parameter = match text(reference, "/name") {
        "" => UNSET.to_owned(),
        parameter => format!("{}/{parameter}", text_or(reference, "/namespace", "*")),
    };
    vec![name(object), json!(text(object, "/spec/policyName")), json!(parameter), age(object, now)]
}

pub(super) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let service = match service {
        Value::Null => "Local".to_owned(),
        service => format!("{}/{}", text(service, "/namespace"), text(service, "/name")),
    };
    let available = items(object, "/status/conditions").find(|condition| condition["type"] == "Available");
    let available = match available {
        None => "Unknown".to_owned(),
        Some(condition) => match (text(condition, "/status"), text(condition, "/reason")) {
            (status @ "True", _) | (status, "") => status.to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    };
    vec![name(object), json!(service), json!(available), age(object, now)]
}

pub(super) fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let has = |wanted: &str| items(object, "/status/conditions").any(|condition| condition["type"] == wanted);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    let requested = object["spec"]["expirationSeconds"].as_i64();
    vec![
        name(object),
        age(object, now),
        json!(text_or(object, "/spec/signerName", NONE)),
        json!(text(object, "/spec/username")),
        json!(requested.map_or_else(|| NONE.to_owned(), duration::human)),
        json!(state),
    ]
}

pub(super) fn pod_template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object.pointer("/template/spec"));
    vec![name(object), names, images, json!(labels(object.pointer("/template/metadata/labels")))]
}
