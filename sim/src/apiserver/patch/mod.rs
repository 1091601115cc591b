//! Patches: JSON merge patch, JSON patch, and the strategic merge patch of built-in kinds.

mod json;
mod strategic;

use serde_json::{Map, Value};

use super::request::Target;
use super::schema::Schema;
use crate::store::{FieldError, StatusError};

/// What an object that is to be written was read from.
#[derive(Debug)]
pub(super) enum Origin {
    /// The request's body.
    Body,
    /// The object as a JSON or merge patch left it.
    Patch,
    /// The object as an applied configuration left it that has this namespace and name.
    Applied(String),
    /// The object as this strategic merge patch left it, which is shown as Go's merge leaves it in turn.
    StrategicPatch(Value),
}

/// Applies a patch of the given content type to an object. The object is taken, so that the hot path copies it once only.
pub(super) fn apply(
    target: &Target,
    schema: Option<&Schema>,
    content_type: &str,
    patch: &[u8],
    mut object: Value,
) -> Result<(Value, Origin), StatusError> {
    match content_type {
        "application/merge-patch+json" => {
            json_patch::merge(&mut object, &json::decode_object(patch, "error decoding patch: ")?);
            Ok((object, Origin::Patch))
        }
        "application/json-patch+json" => Ok((json::apply(patch, object)?, Origin::Patch)),
        "application/strategic-merge-patch+json" if !target.resource.custom => {
            let patch = json::decode_object(patch, "")?;
            let (Value::Object(fields), Value::Object(changes)) = (object, patch) else {
                return Err(StatusError::bad_request("invalid JSON document"));
            };
            let mut shown = changes.clone();
            strategic::leave_what_is_shown(&mut shown, &fields);
            let merged = strategic::merge(fields, changes, schema).map_err(StatusError::from)?;
            Ok((Value::Object(merged), Origin::StrategicPatch(Value::Object(shown))))
        }
        _ => Err(unknown_format(&accepted_types(target))),
    }
}

/// Refuses a patch of a type that the kind does not take; whether there is an object to patch does not matter then.
pub(super) fn check_type(target: &Target, content_type: &str) -> Result<(), StatusError> {
    let accepted = accepted_types(target);
    if accepted.contains(&content_type) { Ok(()) } else { Err(unknown_format(&accepted)) }
}

fn accepted_types(target: &Target) -> Vec<&'static str> {
    let mut accepted =
        vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    if !target.resource.custom {
        accepted.push("application/strategic-merge-patch+json");
    }
    accepted
}

fn unknown_format(accepted: &[&str]) -> StatusError {
    unsupported(&format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

pub(super) fn unsupported(message: &str) -> StatusError {
    StatusError::new(415, "UnsupportedMediaType", message)
}

/// 422 for a patch whose outcome cannot be read as an object of its kind.
pub(super) fn invalid(shown: String, cause: &str) -> StatusError {
    let problem = FieldError::invalid("patch", &Value::String(shown), cause);
    StatusError::invalid("", "", "", &[problem])
}

/// A value as Go's `%+v` prints it: `map[spec:map[replicas:3]]`.
pub(super) fn print_as_go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(print_as_go).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => print_map_as_go(fields),
    }
}

fn print_map_as_go(fields: &Map<String, Value>) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", print_as_go(value))).collect();
    format!("map[{}]", fields.join(" "))
}
