//! Patches: JSON merge patch, JSON patch, and the strategic merge patch of built-in kinds.

use serde_json::{Map, Value};

use super::request::Target;
use crate::store::StatusError;

/// Applies a patch of the given content type to an object. The object is taken, so that the hot path copies it once only.
pub(super) fn apply(
    target: &Target,
    content_type: &str,
    patch: &[u8],
    mut object: Value,
) -> Result<Value, StatusError> {
    match content_type {
        "application/merge-patch+json" => {
            json_patch::merge(&mut object, &decode_object(patch)?);
            Ok(object)
        }
        "application/json-patch+json" => apply_json_patch(patch, object),
        "application/strategic-merge-patch+json" if !target.resource.custom => {
            strategic_merge(&mut object, &decode_object(patch)?);
            Ok(object)
        }
        "application/apply-patch+yaml" => {
            Err(unsupported("server-side apply (application/apply-patch+yaml) is not served by the embedded cluster"))
        }
        _ => {
            let mut accepted =
                vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
            if !target.resource.custom {
                accepted.push("application/strategic-merge-patch+json");
            }
            Err(unsupported(&format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            )))
        }
    }
}

pub(super) fn unsupported(message: &str) -> StatusError {
    StatusError::new(415, "UnsupportedMediaType", message)
}

fn decode_object(patch: &[u8]) -> Result<Value, StatusError> {
    let value: Value = serde_json::from_slice(patch)
        .map_err(|error| StatusError::bad_request(format!("error decoding patch: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(StatusError::bad_request("error decoding patch: the patch is not a JSON object"))
    }
}

fn apply_json_patch(patch: &[u8], mut object: Value) -> Result<Value, StatusError> {
    let operations: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|error| StatusError::bad_request(format!("error decoding patch: {error}")))?;
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
    json_patch::patch(&mut object, &operations).map_err(|error| {
        tracing::debug!(%error, "failed to apply a JSON patch");
        StatusError::new(422, "Invalid", "the server rejected our request due to an error in our request")
    })?;
    Ok(object)
}

/// The key by which a list of objects is merged (`patchMergeKey` of the Kubernetes types), by the list's field name.
/// `ports` has two: container ports and service ports.
fn merge_keys(field: &str) -> &'static [&'static str] {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets" => &["name"],
        "ports" => &["containerPort", "port"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "hostAliases" => &["ip"],
        "conditions" => &["type"],
        "ownerReferences" => &["uid"],
        "topologySpreadConstraints" => &["topologyKey"],
        _ => &[],
    }
}

fn strategic_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = without_directives(patch);
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            remove_primitives(fields, list, change);
        } else if name.starts_with('$') {
            continue;
        } else if change.is_null() || is_deletion(change) {
            fields.remove(name);
        } else {
            merge_field(fields, name, change);
        }
    }
    for (name, order) in patch {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            reorder(fields, list, order);
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, name: &str, change: &Value) {
    match change {
        Value::Object(_) => {
            let child = fields.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            strategic_merge(child, change);
        }
        Value::Array(changes) => {
            let present = fields.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
            fields.insert(name.to_owned(), merge_list(name, present, changes));
        }
        _ => {
            fields.insert(name.to_owned(), change.clone());
        }
    }
}

fn merge_list(field: &str, mut present: Vec<Value>, changes: &[Value]) -> Value {
    if field == "finalizers" {
        for change in changes {
            if !present.contains(change) {
                present.push(change.clone());
            }
        }
        return Value::Array(present);
    }
    let replaces = changes.iter().any(|change| change["$patch"] == "replace");
    let key = merge_keys(field).iter().find(|key| changes.iter().all(|change| replaces || change.get(**key).is_some()));
    let Some(key) = key.filter(|_| !replaces) else {
        let kept = changes.iter().filter(|change| change["$patch"] != "replace").cloned().collect();
        return Value::Array(kept);
    };
    for change in changes {
        let position = present.iter().position(|item| item.get(*key) == change.get(*key));
        match position {
            Some(position) if is_deletion(change) => {
                present.remove(position);
            }
            Some(position) => strategic_merge(&mut present[position], change),
            None if is_deletion(change) => {}
            None => {
                let mut added = Value::Null;
                strategic_merge(&mut added, change);
                present.push(added);
            }
        }
    }
    Value::Array(present)
}

fn is_deletion(change: &Value) -> bool {
    change.get("$patch").and_then(Value::as_str) == Some("delete")
}

fn without_directives(patch: &Map<String, Value>) -> Value {
    let kept = patch
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(kept)
}

fn remove_primitives(fields: &mut Map<String, Value>, list: &str, removed: &Value) {
    let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) else {
        return;
    };
    let removed = removed.as_array().cloned().unwrap_or_default();
    items.retain(|item| !removed.contains(item));
}

/// `$setElementOrder`: listed elements in that order; elements that only the server has keep their place behind them.
fn reorder(fields: &mut Map<String, Value>, list: &str, order: &Value) {
    let (Some(items), Some(order)) = (fields.get_mut(list).and_then(Value::as_array_mut), order.as_array()) else {
        return;
    };
    let rank = |item: &Value| {
        order
            .iter()
            .position(|wanted| match wanted {
                Value::Object(keys) => keys.iter().all(|(key, value)| item.get(key) == Some(value)),
                primitive => primitive == item,
            })
            .unwrap_or(usize::MAX)
    };
    items.sort_by_key(rank);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::strategic_merge;

    fn merged(mut object: Value, patch: &Value) -> Value {
        strategic_merge(&mut object, patch);
        object
    }

    #[test]
    fn lists_of_objects_merge_by_their_key() {
        let pod = json!({"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]},
            {"name": "b", "image": "b:1"},
        ]});
        let patch = json!({"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]},
            {"name": "b", "$patch": "delete"},
            {"name": "c", "image": "c:1"},
        ]});
        assert_eq!(
            merged(pod, &patch),
            json!({"containers": [
                {"name": "a", "image": "a:2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "c", "image": "c:1"},
            ]})
        );
    }

    #[test]
    fn directives_delete_replace_retain_and_order() {
        let object = json!({
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "finalizers": ["a", "b"], "args": ["x"], "selector": {"app": "a"}, "env": [{"name": "1"}, {"name": "2"}],
        });
        let patch = json!({
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "args": ["y"],
            "selector": {"$patch": "replace", "tier": "web"},
            "$setElementOrder/env": [{"name": "2"}, {"name": "1"}],
        });
        assert_eq!(
            merged(object, &patch),
            json!({
                "strategy": {"type": "Recreate"}, "finalizers": ["b", "c"], "args": ["y"], "selector": {"tier": "web"},
                "env": [{"name": "2"}, {"name": "1"}],
            })
        );
    }
}
