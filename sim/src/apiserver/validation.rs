//! Validation of built-in kinds, as far as users of rollouts meet it (`pkg/apis/*/validation`).

use serde_json::{Value, json};

use crate::store::{FieldError, FieldReason};

/// All problems of a new or changed object of a built-in kind.
pub(super) fn problems(group: &str, kind: &str, value: &Value, present: Option<&Value>) -> Vec<FieldError> {
    let mut problems = Vec::new();
    match (group, kind) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") => {
            workload(value, present, &mut problems);
        }
        ("", "Pod") => containers(&value["spec"], "spec", &mut problems),
        ("", "Service") => service(value, present, &mut problems),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(value, &mut problems),
        ("", "ConfigMap" | "Secret") => immutable_data(value, present, &mut problems),
        _ => {}
    }
    problems
}

fn workload(value: &Value, present: Option<&Value>, problems: &mut Vec<FieldError>) {
    let spec = &value["spec"];
    if let Some(replicas) = spec["replicas"].as_i64()
        && replicas < 0
    {
        problems.push(FieldError::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let is_empty = |list: &Value| list.as_object().is_none_or(serde_json::Map::is_empty);
    if selector.is_null() {
        problems.push(FieldError::required("spec.selector", ""));
    } else if is_empty(&selector["matchLabels"]) && selector["matchExpressions"].is_null() {
        problems.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    } else if !selector_matches(selector, labels) {
        problems.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        ));
    }
    if let Some(present) = present
        && *selector != present["spec"]["selector"]
    {
        problems.push(FieldError::invalid("spec.selector", selector, "field is immutable"));
    }
    containers(&spec["template"]["spec"], "spec.template.spec", problems);
}

fn selector_matches(selector: &Value, labels: &Value) -> bool {
    let equal =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector["matchExpressions"].as_array();
    equal
        && expressions.into_iter().flatten().all(|expression| {
            let key = expression["key"].as_str().unwrap_or_default();
            let value = labels.get(key);
            let listed =
                value.is_some_and(|value| expression["values"].as_array().is_some_and(|values| values.contains(value)));
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

fn containers(spec: &Value, path: &str, problems: &mut Vec<FieldError>) {
    let path = format!("{path}.containers");
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        problems.push(FieldError::required(path, ""));
        return;
    }
    for (index, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().is_none_or(str::is_empty) {
                problems.push(FieldError::required(format!("{path}[{index}].{field}"), ""));
            }
        }
        let repeated = containers[..index].iter().any(|other| other["name"] == container["name"]);
        if repeated {
            problems.push(FieldError {
                reason: FieldReason::Duplicate,
                field: format!("{path}[{index}].name"),
                value: container["name"].to_string(),
                detail: String::new(),
            });
        }
    }
}

fn service(value: &Value, present: Option<&Value>, problems: &mut Vec<FieldError>) {
    let spec = &value["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let needs_ports = spec["type"] != "ExternalName" && spec["clusterIP"] != "None";
    if ports.is_empty() && needs_ports {
        problems.push(FieldError::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if ports.len() > 1 && port["name"].as_str().is_none_or(str::is_empty) {
            problems.push(FieldError::required(format!("spec.ports[{index}].name"), ""));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            problems.push(FieldError::invalid(
                format!("spec.ports[{index}].port"),
                &json!(number),
                "must be between 1 and 65535, inclusive",
            ));
        }
        let clash =
            ports[..index].iter().any(|other| other["port"] == port["port"] && other["protocol"] == port["protocol"]);
        if clash {
            problems.push(FieldError {
                reason: FieldReason::Duplicate,
                field: format!("spec.ports[{index}]"),
                value: json!({"protocol": port["protocol"], "port": port["port"]}).to_string(),
                detail: String::new(),
            });
        }
    }
    if let Some(present) = present
        && present["spec"]["clusterIP"].is_string()
        && spec["type"] != "ExternalName"
        && spec["clusterIP"] != present["spec"]["clusterIP"]
    {
        problems.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &json!([spec["clusterIP"]]),
            "may not change once set",
        ));
    }
}

fn autoscaler(value: &Value, problems: &mut Vec<FieldError>) {
    let spec = &value["spec"];
    let minimum = spec["minReplicas"].as_i64().unwrap_or(1);
    let maximum = spec["maxReplicas"].as_i64().unwrap_or(0);
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().is_none_or(str::is_empty) {
            problems.push(FieldError::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
    if maximum < 1 {
        problems.push(FieldError::invalid("spec.maxReplicas", &json!(maximum), "must be greater than 0"));
    }
    if minimum < 1 {
        problems.push(FieldError::invalid("spec.minReplicas", &json!(minimum), "must be greater than or equal to 1"));
    }
    if maximum < minimum {
        problems.push(FieldError::invalid(
            "spec.maxReplicas",
            &json!(maximum),
            "must be greater than or equal to `minReplicas`",
        ));
    }
}

fn immutable_data(value: &Value, present: Option<&Value>, problems: &mut Vec<FieldError>) {
    let Some(present) = present else {
        return;
    };
    if value["kind"] == "Secret" && value["type"] != present["type"] {
        problems.push(FieldError::invalid("type", &value["type"], "field is immutable"));
    }
    if present["immutable"] != true {
        return;
    }
    if value["immutable"] != true {
        problems.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in ["data", "binaryData"] {
        if value[field] != present[field] {
            problems.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}
