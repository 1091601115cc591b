//! What may change of a pod once it is there (`ValidatePodUpdate` in `pkg/apis/core/validation`).

use serde_json::{Value, json};

use super::problems::{Problems, items};

/// Kubernetes goes on with a difference of two Go structs.
const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a pod's new spec against the one it has.
pub(super) fn pod_update(spec: &Value, before: &Value, problems: &mut Problems) {
    if spec == before {
        return;
    }
    for list in ["containers", "initContainers"] {
        if items(spec, list).len() != items(before, list).len() {
            problems.forbidden(format!("spec.{list}"), "pod updates may not add or remove containers");
            return;
        }
    }
    active_deadline(&spec["activeDeadlineSeconds"], &before["activeDeadlineSeconds"], problems);
    let is_kept = |former: &Value| {
        items(spec, "tolerations").iter().any(|toleration| {
            ["key", "operator", "value", "effect"].iter().all(|field| toleration[field] == former[field])
        })
    };
    if !items(before, "tolerations").iter().all(is_kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        problems.forbidden("spec.tolerations", detail);
    }
    if with_free_fields_of(spec, before) != *before {
        problems.forbidden("spec", FIXED);
    }
}

/// May be set, and brought forward.
fn active_deadline(deadline: &Value, before: &Value, problems: &mut Problems) {
    let field = "spec.activeDeadlineSeconds";
    match (deadline.as_i64(), before.as_i64()) {
        (Some(new), Some(old)) if new > old => {
            problems.invalid(field, deadline, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            problems.invalid(field, &json!(null), "must not update from a positive integer to nil value")
        }
        _ => {}
    }
}

/// A spec in which all that may change is as it was.
fn with_free_fields_of(spec: &Value, before: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (container, former) in containers.into_iter().flatten().zip(items(before, list)) {
            container["image"] = former["image"].clone();
        }
    }
    let was_negative = before["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0);
    let mut free = vec!["activeDeadlineSeconds", "tolerations"];
    if was_negative && spec["terminationGracePeriodSeconds"] == 1 {
        free.push("terminationGracePeriodSeconds");
    }
    for field in free {
        let Some(fields) = spec.as_object_mut() else { continue };
        match before.get(field) {
            Some(former) => fields.insert(field.to_owned(), former.clone()),
            None => fields.remove(field),
        };
    }
    spec
}
