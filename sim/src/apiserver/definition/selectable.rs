//! `selectableFields` of a CustomResourceDefinition: which fields a field selector may name besides name and namespace.

use serde_json::Value;

use crate::store::{FieldError, FieldReason};

/// Problems of the declared fields of a version with this schema (`ValidateCustomResourceSelectableFields`).
pub(super) fn problems(fields: &Value, schema: &Value, path: &str) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}].jsonPath");
        let value = &field["jsonPath"];
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            problems.push(FieldError::required(path, ""));
            continue;
        };
        match field_type(text, schema) {
            Err(cause) => {
                problems.push(FieldError::invalid(&path, value, format!("is an invalid path: {cause}")));
                continue;
            }
            Ok("string" | "boolean" | "integer") => {}
            Ok(_) => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                              formats are allowed.";
                problems.push(FieldError::invalid(&path, value, detail));
            }
        }
        if seen.contains(&text) {
            problems.push(FieldError {
                reason: FieldReason::Duplicate,
                field: path,
                value: value.to_string(),
                detail: String::new(),
            });
        }
        seen.push(text);
    }
    problems
}

/// The type of the field that a path leads to (`ValidFieldPath`, which finds problems from left to right).
fn field_type<'a>(path: &str, schema: &'a Value) -> Result<&'a str, String> {
    let (mut found, mut rest, mut is_root) = (schema, path, true);
    while !rest.is_empty() {
        let separator = token(rest);
        match separator {
            "." => {}
            "[" => return Err("array notation is not allowed".to_owned()),
            other => return Err(format!("expected [ or . but got: {other}")),
        }
        let name = token(&rest[separator.len()..]);
        if name.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        rest = &rest[separator.len() + name.len()..];
        let child = match (&found["properties"], &found["additionalProperties"]) {
            (Value::Object(properties), _) => properties.get(name),
            (_, values @ Value::Object(_)) => Some(values),
            _ => None,
        };
        found = match child {
            // Metadata have selectors of their own.
            Some(child) if !is_root || name != "metadata" => child,
            _ => return Err("does not refer to a valid field".to_owned()),
        };
        is_root = false;
    }
    Ok(found["type"].as_str().unwrap_or_default())
}

/// What stands first: one of the three signs, or the text before the next of them.
fn token(text: &str) -> &str {
    let is_sign = |character: char| matches!(character, '.' | '[' | ']');
    let end = match text.find(is_sign) {
        Some(0) => 1,
        Some(end) => end,
        None => text.len(),
    };
    &text[..end]
}
