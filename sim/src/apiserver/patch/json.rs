//! JSON patch, and the reading of patch documents.

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, CopyOperation, PatchOperation, ReplaceOperation};
use serde_json::Value;

use crate::store::StatusError;

/// How much of an object the copies of one patch may repeat (`JSONPatchMaxCopyBytes`): each may double what there is.
const MOST_COPIED_BYTES: usize = 3 << 20;

/// Reads a patch that has to be an object. `context` is what the API server puts before the decoder's words.
pub(super) fn decode_object(patch: &[u8], context: &str) -> Result<Value, StatusError> {
    let refuse = |cause: &str| StatusError::bad_request(format!("{context}{cause}"));
    let value: Value = serde_json::from_slice(patch).map_err(|error| refuse(&syntax_error(&error)))?;
    if value.is_object() {
        return Ok(value);
    }
    let found = type_name(&value);
    Err(refuse(&format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")))
}

pub(super) fn apply(patch: &[u8], mut object: Value) -> Result<Value, StatusError> {
    let refuse = |cause: &str| StatusError::bad_request(format!("error decoding patch: {cause}"));
    let value: Value = serde_json::from_slice(patch).map_err(|error| refuse(&syntax_error(&error)))?;
    if !value.is_array() {
        let found = type_name(&value);
        return Err(refuse(&format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp")));
    }
    // An operation that is none is told when it is applied.
    let operations: json_patch::Patch = serde_json::from_value(value).map_err(|error| {
        tracing::debug!(%error, "failed to read a JSON patch");
        rejected()
    })?;
    // 10,000 operations is the API server's own limit (`maxJSONPatchOperations`).
    if operations.0.len() > 10_000 {
        return Err(StatusError::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got {}",
                operations.0.len()
            ),
        ));
    }
    let mut copied = 0;
    for operation in operations.0 {
        copied += copied_bytes(&operation, &object);
        if copied > MOST_COPIED_BYTES {
            tracing::debug!(copied, "a JSON patch copies too much");
            return Err(rejected());
        }
        apply_one(operation, &mut object)?;
    }
    Ok(object)
}

/// The length of the JSON that an operation repeats.
fn copied_bytes(operation: &PatchOperation, object: &Value) -> usize {
    let PatchOperation::Copy(copy) = operation else { return 0 };
    copy.from.resolve(object).map_or(0, |value| value.to_string().len())
}

/// As the library of the API server does it (evanphx/json-patch 4), not as RFC 6902 says: what is missing in an object can be
/// replaced, and is null to a test and to a copy.
fn apply_one(operation: PatchOperation, object: &mut Value) -> Result<(), StatusError> {
    let is_missing = |path: &Pointer| {
        let holder = path.parent().and_then(|parent| parent.resolve(object).ok());
        holder.is_some_and(Value::is_object) && path.resolve(object).is_err()
    };
    let operation = match operation {
        PatchOperation::Replace(ReplaceOperation { path, value }) if is_missing(&path) => {
            PatchOperation::Add(AddOperation { path, value })
        }
        PatchOperation::Copy(CopyOperation { from, path }) if is_missing(&from) => {
            PatchOperation::Add(AddOperation { path, value: Value::Null })
        }
        PatchOperation::Test(test) if test.value.is_null() && is_missing(&test.path) => return Ok(()),
        operation => operation,
    };
    json_patch::patch(object, &[operation]).map_err(|error| {
        tracing::debug!(%error, "failed to apply a JSON patch");
        rejected()
    })
}

fn rejected() -> StatusError {
    StatusError::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_causes(Vec::new())
}

fn syntax_error(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
