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
            Err(cause) => problems.push(FieldError::invalid(&path, value, format!("is an invalid path: {cause}"))),
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

/// The type of the field that a path leads to.
fn field_type<'a>(path: &str, schema: &'a Value) -> Result<&'a str, String> {
    let Some(names) = path.strip_prefix('.') else {
        let found = path.split(['.', '[']).next().unwrap_or_default();
        return Err(format!("expected [ or . but got: {found}"));
    };
    if path.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    let mut found = schema;
    for (depth, name) in names.split('.').enumerate() {
        found = match found["properties"].get(name) {
            // Metadata have selectors of their own.
            Some(child) if depth > 0 || name != "metadata" => child,
            _ => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok(found["type"].as_str().unwrap_or_default())
}
