//! HorizontalPodAutoscalers (`pkg/apis/autoscaling/validation`).

use serde_json::{Value, json};

use super::problems::{Problems, items};

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(super) fn autoscaler(value: &Value, problems: &mut Problems) {
    let spec = &value["spec"];
    for field in ["kind", "name"] {
        problems.present(format!("spec.scaleTargetRef.{field}"), &spec["scaleTargetRef"][field]);
    }
    let minimum = spec["minReplicas"].as_i64().unwrap_or(1);
    let maximum = spec["maxReplicas"].as_i64().unwrap_or(0);
    if minimum < 1 {
        problems.invalid("spec.minReplicas", &json!(minimum), "must be greater than or equal to 1");
    }
    if maximum < 1 {
        problems.required("spec.maxReplicas", "must be set and greater than 0");
    }
    if maximum < minimum {
        problems.invalid("spec.maxReplicas", &json!(maximum), "must be greater than or equal to `minReplicas`");
    }
    let group = &spec["scaleTargetRef"]["apiVersion"];
    if group.as_str().is_none_or(str::is_empty) {
        problems.invalid("spec.scaleTargetRef.apiVersion", &json!(""), "apiVersion must specify API group");
    }
    let metrics = items(spec, "metrics");
    for (index, metric) in metrics.iter().enumerate() {
        check_metric(metric, &format!("spec.metrics[{index}]"), problems);
    }
    let can_wake = metrics.iter().any(|metric| matches!(metric["type"].as_str(), Some("Object" | "External")));
    if minimum == 0 && !can_wake {
        problems.forbidden(
            "spec.metrics",
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            check_rules(rules, &format!("spec.behavior.{direction}"), problems);
        }
    }
}

fn check_metric(metric: &Value, path: &str, problems: &mut Problems) {
    let source = metric["type"].as_str().unwrap_or_default();
    if source.is_empty() {
        problems.required(format!("{path}.type"), "must specify a metric source type");
    }
    if !SOURCES.contains(&source) {
        problems.unsupported(format!("{path}.type"), &json!(source), &SOURCES);
        return;
    }
    let mut field = source.to_owned();
    field[..1].make_ascii_lowercase();
    let path = format!("{path}.{field}");
    let described = &metric[&field];
    if !described.is_object() {
        problems.required(path, "must populate information for the given metric source");
        return;
    }
    if matches!(source, "Resource" | "ContainerResource") && described["name"].as_str().is_none_or(str::is_empty) {
        problems.required(format!("{path}.name"), "must specify a resource name");
    }
    check_target(source, &described["target"], &format!("{path}.target"), problems);
}

fn check_target(source: &str, target: &Value, path: &str, problems: &mut Problems) {
    let kind = target["type"].as_str().unwrap_or_default();
    if kind.is_empty() {
        problems.required(format!("{path}.type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        problems.invalid(format!("{path}.type"), &json!(kind), detail);
    }
    let utilization = &target["averageUtilization"];
    if utilization.as_i64().is_some_and(|percent| percent < 1) {
        problems.invalid(format!("{path}.averageUtilization"), utilization, "must be greater than 0");
    }
    let by_resource = matches!(source, "Resource" | "ContainerResource");
    if by_resource && utilization.is_null() && target["averageValue"].is_null() {
        problems.required(
            format!("{path}.averageUtilization"),
            "must set either a target raw value or a target utilization",
        );
    }
}

fn check_rules(rules: &Value, path: &str, problems: &mut Problems) {
    let window = &rules["stabilizationWindowSeconds"];
    if let Some(seconds) = window.as_i64() {
        let path = format!("{path}.stabilizationWindowSeconds");
        if seconds < 0 {
            problems.invalid(path, window, "must be greater than or equal to zero");
        } else if seconds > 3600 {
            problems.invalid(path, window, "must be less than or equal to 3600");
        }
    }
    problems.one_of(format!("{path}.selectPolicy"), &rules["selectPolicy"], &["Disabled", "Max", "Min"]);
    for (index, policy) in items(rules, "policies").iter().enumerate() {
        let path = format!("{path}.policies[{index}]");
        problems.one_of(format!("{path}.type"), &policy["type"], &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy[field].as_i64().unwrap_or(0);
            if number <= 0 {
                problems.invalid(format!("{path}.{field}"), &json!(number), "must be greater than zero");
            }
        }
        if policy["periodSeconds"].as_i64().is_some_and(|seconds| seconds > 1800) {
            let detail = "must be less than or equal to 1800";
            problems.invalid(format!("{path}.periodSeconds"), &policy["periodSeconds"], detail);
        }
    }
}
