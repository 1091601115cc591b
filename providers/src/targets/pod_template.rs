//! The primary's pod template.

use aviary_crds::names::POD_ID_ANNOTATION;
use serde_json::{Map, Value};

use super::Selector;
use crate::configs::{TrackedConfig, rewritten};

/// The target's template as the primary's: its own label value, its own copies of configs. Without a `flagger-id`.
pub(super) fn primary_template(template: &Value, selector: &Selector, configs: &[TrackedConfig]) -> Value {
    let mut template = rewritten(template, configs);
    if let Some(labels) = object_at(&mut template, &["metadata", "labels"]) {
        labels.insert(selector.key.clone(), Value::String(selector.primary_value()));
    }
    if let Some(Value::Object(annotations)) = template.pointer_mut("/metadata/annotations") {
        annotations.retain(|key, _| key != POD_ID_ANNOTATION && !key.contains("toolkit.fluxcd.io"));
    }
    template
}

/// Keeps the primary's pods apart from each other rather than from the target's: where a spread constraint or an
/// anti-affinity selects the target by name, the name gets the suffix. As in Flagger, affinity *to* pods is left alone.
pub(super) fn rename_spread_selectors(template: &mut Value, target: &str, labels: &[String]) {
    let Some(spec) = template.get_mut("spec") else { return };
    for constraint in list_at(spec, "/topologySpreadConstraints") {
        rename_selector(constraint.get_mut("labelSelector"), target, labels);
    }
    for term in list_at(spec, "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution") {
        rename_selector(term.get_mut("labelSelector"), target, labels);
    }
    for term in list_at(spec, "/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution") {
        rename_selector(term.pointer_mut("/podAffinityTerm/labelSelector"), target, labels);
    }
}

fn rename_selector(selector: Option<&mut Value>, target: &str, labels: &[String]) {
    let Some(selector) = selector else { return };
    for expression in list_at(selector, "/matchExpressions") {
        let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
        if !labels.iter().any(|label| label == key) {
            continue;
        }
        if let Some(value) = list_at(expression, "/values").find(|value| value.as_str() == Some(target)) {
            *value = Value::String(format!("{target}-primary"));
        }
    }
    for label in labels {
        if let Some(value) = selector.get_mut("matchLabels").and_then(|labels| labels.get_mut(label))
            && value.as_str() == Some(target)
        {
            *value = Value::String(format!("{target}-primary"));
        }
    }
}

fn list_at<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The object at a path, made if it is missing; `None` where something else is in the way.
pub(super) fn object_at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut fields = value.as_object_mut()?;
    for key in path {
        let next = fields.entry(*key).or_insert_with(|| Value::Object(Map::new()));
        if next.is_null() {
            *next = Value::Object(Map::new());
        }
        fields = next.as_object_mut()?;
    }
    Some(fields)
}

/// The `flagger-id` of a template.
pub(super) fn pod_id(template: &Value) -> Option<&str> {
    template.get("metadata")?.get("annotations")?.get(POD_ID_ANNOTATION)?.as_str()
}

/// The template with this `flagger-id`; without any, if there is none.
pub(super) fn with_pod_id(mut template: Value, id: Option<&str>) -> Value {
    match id {
        Some(id) => {
            if let Some(annotations) = object_at(&mut template, &["metadata", "annotations"]) {
                annotations.insert(POD_ID_ANNOTATION.into(), Value::String(id.to_owned()));
            }
        }
        None => {
            if let Some(Value::Object(annotations)) = template.pointer_mut("/metadata/annotations") {
                annotations.remove(POD_ID_ANNOTATION);
            }
        }
    }
    template
}

#[cfg(test)]
mod tests {
    use super::rename_spread_selectors;
    use serde_json::json;

    #[test]
    fn selectors_of_the_target_get_the_suffix() {
        let selector = |name: &str| {
            json!({
                "matchLabels": {"app": name, "tier": "podinfo"},
                "matchExpressions": [{"key": "app", "operator": "In", "values": ["other", name, "podinfo"]}],
            })
        };
        let template = |name: &str| {
            json!({"spec": {
                "topologySpreadConstraints": [{"labelSelector": selector(name)}],
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector("podinfo")}]},
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector(name)}],
                        "preferredDuringSchedulingIgnoredDuringExecution":
                            [{"weight": 1, "podAffinityTerm": {"labelSelector": selector(name)}}],
                    },
                },
            }})
        };
        let mut renamed = template("podinfo");
        rename_spread_selectors(&mut renamed, "podinfo", &["app".to_owned()]);
        assert_eq!(renamed, template("podinfo-primary"));
    }
}
