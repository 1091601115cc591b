//! The scale subresource.

use serde_json::{Value, json};

use super::fields::{go_text, go_type};
use super::request::Target;
use super::response::{Answer, Encoder};
use crate::store::{FieldError, Record, ScalePaths, StatusError, to_bytes};

/// The replicas of a custom resource that has none, to the write that has to set them (`invalidSpecReplicas`).
const NEVER_SET: i64 = i32::MIN as i64;

pub(super) fn answer(target: &Target, record: &Record, encoder: &Encoder, code: u16) -> Result<Answer, StatusError> {
    let (paths, object) = (paths(target)?, record.value());
    check_shape(paths, &object)?;
    if at(&object, &paths.spec_replicas).is_null() {
        return Err(StatusError::internal(&format!(
            "the spec replicas field \"{}\" does not exist",
            dotted_path(&paths.spec_replicas)
        )));
    }
    let scale = read(paths, &object);
    let body = match &encoder.table {
        Some(table) => table.object(&scale),
        None => scale,
    };
    Ok(Answer::json(code, to_bytes(&body)))
}

/// The object as an `autoscaling/v1` `Scale`.
pub(super) fn read(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut kept = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": number_at(object, &paths.status_replicas)});
    let selector = match &paths.selector {
        Some(path) => at(object, path).as_str().map(str::to_owned),
        None => selector_text(&object["spec"]["selector"]["matchLabels"]),
    };
    if let Some(selector) = selector {
        status["selector"] = json!(selector);
    }
    // Of these two zeros the type leaves one out.
    let replicas = &at(object, &paths.spec_replicas);
    let spec = match replicas.as_i64().unwrap_or(if replicas.is_null() { NEVER_SET } else { 0 }) {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": kept, "spec": spec, "status": status})
}

/// Refuses an object in which something else stands where the replicas' parents should be: a schema may let it.
fn check_shape(paths: &ScalePaths, object: &Value) -> Result<(), StatusError> {
    for path in [&paths.spec_replicas, &paths.status_replicas] {
        if let Some(cause) = accessor_error(path, object) {
            return Err(StatusError::internal(&cause));
        }
    }
    Ok(())
}

/// Why nothing can stand at the path, in the words of `unstructured.NestedInt64`.
fn accessor_error(path: &[String], object: &Value) -> Option<String> {
    let mut holder = object;
    for (index, segment) in path.iter().enumerate() {
        if !holder.is_object() && !holder.is_null() {
            let field = dotted_path(path.get(..=index).unwrap_or_default());
            let (text, found) = (go_text(holder), go_type(holder));
            return Some(format!(
                "{field} accessor error: {text} is of the type {found}, expected map[string]interface{{}}"
            ));
        }
        holder = &holder[segment.as_str()];
    }
    None
}

fn dotted_path(path: &[String]) -> String {
    path.iter().map(|segment| format!(".{segment}")).collect()
}

/// The object with the replicas that a `Scale` asks for.
pub(super) fn write(target: &Target, scale: &Value, object: &Value) -> Result<Value, StatusError> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas == NEVER_SET {
        return Err(StatusError::bad_request(format!(
            "the spec replicas field \"{}\" cannot be empty",
            dotted_path(&paths(target)?.spec_replicas)
        )));
    }
    // Those of custom resources are judged with the rest of the object.
    if replicas < 0 && !target.resource.custom {
        let problem = FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(StatusError::invalid("autoscaling", "Scale", name, &[problem]));
    }
    let paths = paths(target)?;
    check_shape(paths, object)?;
    let mut changed = object.clone();
    let mut field = &mut changed;
    for segment in &paths.spec_replicas {
        field = &mut field[segment.as_str()];
    }
    *field = json!(replicas);
    Ok(changed)
}

/// What is wrong with the replicas of a custom resource (`ValidateScaleSpec`, `ValidateScaleStatus`). A write to the status answers
/// for those there alone.
pub(super) fn problems(paths: &ScalePaths, object: &Value, is_status: bool) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let counted = [(&paths.spec_replicas, !is_status), (&paths.status_replicas, true)];
    for (path, _) in counted.into_iter().filter(|(_, is_judged)| *is_judged) {
        if let Some(error) = accessor_error(path, object) {
            problems.push(FieldError::invalid(dotted_path(path), &json!(0), error));
            continue;
        }
        let Some(replicas) = at(object, path).as_i64() else { continue };
        let detail = if replicas < 0 {
            "should be a non-negative integer".to_owned()
        } else if replicas > i64::from(i32::MAX) {
            format!("should be less than or equal to {}", i32::MAX)
        } else {
            continue;
        };
        problems.push(FieldError::invalid(dotted_path(path), &json!(replicas), detail));
    }
    problems
}

/// Whether two objects differ in their replicas.
pub(super) fn differ(paths: &ScalePaths, old: &Value, new: &Value) -> bool {
    at(old, &paths.spec_replicas) != at(new, &paths.spec_replicas)
}

pub(super) fn paths(target: &Target) -> Result<&ScalePaths, StatusError> {
    target.served_version().and_then(|version| version.scale.as_ref()).ok_or_else(StatusError::method_not_allowed)
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, segment| &value[segment.as_str()])
}

fn number_at(object: &Value, path: &[String]) -> i64 {
    at(object, path).as_i64().unwrap_or(0)
}

fn selector_text(labels: &Value) -> Option<String> {
    let pairs: Vec<String> = labels
        .as_object()?
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    Some(pairs.join(","))
}
