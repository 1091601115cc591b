//! Deployments, ReplicaSets, DaemonSets and StatefulSets (`pkg/apis/apps/validation`).

use serde_json::{Value, json};

use super::pod;
use super::problems::{Problems, is_zero_amount, items};

/// Deployments and their like. The order of the checks is upstream's, which is the order of the messages.
pub(super) fn workload(kind: &str, value: &Value, present: Option<&Value>, problems: &mut Problems) {
    let spec = &value["spec"];
    match kind {
        "StatefulSet" => stateful_set_strategy(spec, problems),
        _ => {
            if kind != "DaemonSet" {
                problems.not_negative("spec.replicas", &spec["replicas"]);
            }
        }
    }
    if kind == "ReplicaSet" {
        problems.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    }
    selector(kind, spec, problems);
    if kind == "StatefulSet" {
        problems.not_negative("spec.replicas", &spec["replicas"]);
        problems.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    }
    let claims = match kind {
        "StatefulSet" => items(spec, "volumeClaimTemplates"),
        _ => &[],
    };
    template(kind, &spec["template"], claims, problems);
    match kind {
        "Deployment" => deployment_rest(spec, problems),
        "DaemonSet" => {
            problems.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
            daemon_set_strategy(&spec["updateStrategy"], problems);
            problems.not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
        }
        "StatefulSet" => problems.not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]),
        _ => {}
    }
    if let Some(present) = present {
        immutable(kind, spec, &present["spec"], problems);
    }
}

/// `ValidateDeploymentStatus`.
pub(super) fn deployment_status(status: &Value, problems: &mut Problems) {
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ] {
        problems.not_negative(format!("status.{field}"), &json!(number(field)));
    }
    let parts = [
        ("updatedReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    for (part, whole, name) in parts {
        if number(part) > number(whole) {
            let detail = format!("cannot be greater than {name}");
            problems.invalid(format!("status.{part}"), &json!(number(part)), detail);
        }
    }
}

fn immutable(kind: &str, spec: &Value, present: &Value, problems: &mut Problems) {
    if kind != "StatefulSet" {
        if spec["selector"] != present["selector"] {
            problems.invalid("spec.selector", &spec["selector"], "field is immutable");
        }
        return;
    }
    const CHANGEABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !CHANGEABLE.contains(&name.as_str()));
        }
        spec
    };
    if fixed(spec) != fixed(present) {
        problems.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

fn selector(kind: &str, spec: &Value, problems: &mut Problems) {
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let has_no = |list: &str| match &selector[list] {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    let mismatch = |problems: &mut Problems| {
        problems.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
    };
    if selector.is_null() {
        // A DaemonSet without one selects nothing, and is told that only.
        if kind != "DaemonSet" {
            problems.required("spec.selector", "");
        }
        mismatch(problems);
        return;
    }
    if has_no("matchLabels") && has_no("matchExpressions") {
        let subject = match kind {
            "ReplicaSet" => "deployment",
            "DaemonSet" => "daemonset",
            "StatefulSet" => "statefulset",
            _ => "deployment",
        };
        problems.invalid("spec.selector", selector, format!("empty selector is invalid for {subject}"));
        return;
    }
    if !label_selector("spec.selector", selector, problems) {
        problems.invalid("spec.selector", selector, "invalid label selector");
        return;
    }
    if !selector_matches(selector, labels) {
        mismatch(problems);
    }
}

/// `ValidateLabelSelector`; tells whether the selector can be used.
pub(super) fn label_selector(path: &str, selector: &Value, problems: &mut Problems) -> bool {
    let before = problems.0.len();
    problems.labels(&format!("{path}.matchLabels"), &selector["matchLabels"]);
    for (index, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let has_values = expression["values"].as_array().is_some_and(|values| !values.is_empty());
        match expression["operator"].as_str() {
            Some("In" | "NotIn") if !has_values => {
                problems.required(format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            Some("Exists" | "DoesNotExist") if has_values => {
                problems.forbidden(
                    format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => problems.invalid(
                format!("{path}.operator"),
                &json!(expression["operator"].as_str().unwrap_or_default()),
                "not a valid selector operator",
            ),
        }
    }
    problems.0.len() == before
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

fn template(kind: &str, template: &Value, claims: &[Value], problems: &mut Problems) {
    problems.labels("spec.template.labels", &template["metadata"]["labels"]);
    problems.annotations("spec.template.annotations", &template["metadata"]["annotations"]);
    let spec = &template["spec"];
    if claims.is_empty() {
        pod::spec(spec, "spec.template.spec", problems);
    } else {
        pod::spec(&with_claims(spec, claims), "spec.template.spec", problems);
    }
    if spec["restartPolicy"].as_str().is_some_and(|policy| policy != "Always") {
        problems.unsupported("spec.template.spec.restartPolicy", &spec["restartPolicy"], &["Always"]);
    }
    let owner = match kind {
        "Deployment" | "ReplicaSet" => "ReplicaSet",
        other => other,
    };
    if !spec["activeDeadlineSeconds"].is_null() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        problems.forbidden("spec.template.spec.activeDeadlineSeconds", &detail);
    }
}

/// The pods that a StatefulSet makes of its template: every claim is a volume, and takes the place of one of the same name.
fn with_claims(spec: &Value, claims: &[Value]) -> Value {
    let name = |claim: &Value| claim["metadata"]["name"].clone();
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(name)
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let names: Vec<Value> = claims.iter().map(name).collect();
    volumes.extend(items(spec, "volumes").iter().filter(|volume| !names.contains(&volume["name"])).cloned());
    let mut spec = spec.clone();
    spec["volumes"] = volumes.into();
    spec
}

fn deployment_rest(spec: &Value, problems: &mut Problems) {
    deployment_strategy(&spec["strategy"], problems);
    problems.not_negative("spec.minReadySeconds", &spec["minReadySeconds"]);
    problems.not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
    let deadline = &spec["progressDeadlineSeconds"];
    problems.not_negative("spec.progressDeadlineSeconds", deadline);
    let wait = spec["minReadySeconds"].as_i64().unwrap_or(0);
    if deadline.as_i64().is_some_and(|deadline| deadline <= wait) {
        problems.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
}

fn deployment_strategy(strategy: &Value, problems: &mut Problems) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("Recreate") if rolling.is_object() => {
            problems.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        }
        Some("Recreate") | None => {}
        Some("RollingUpdate") => {
            let path = "spec.strategy.rollingUpdate";
            problems.amount(&format!("{path}.maxUnavailable"), &rolling["maxUnavailable"]);
            problems.amount(&format!("{path}.maxSurge"), &rolling["maxSurge"]);
            if is_zero_amount(&rolling["maxUnavailable"]) && is_zero_amount(&rolling["maxSurge"]) {
                let value = &rolling["maxUnavailable"];
                problems.invalid(format!("{path}.maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
            }
            problems.at_most_all(&format!("{path}.maxUnavailable"), &rolling["maxUnavailable"]);
        }
        // The internal type is printed, with its Go field names.
        Some(other) => {
            let rolling = match rolling {
                Value::Object(_) => {
                    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
                    format!("{{\"MaxUnavailable\":{unavailable},\"MaxSurge\":{surge}}}")
                }
                _ => "null".to_owned(),
            };
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", json!(other));
            problems.unsupported_text("spec.strategy", &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn daemon_set_strategy(strategy: &Value, problems: &mut Problems) {
    let rolling = &strategy["rollingUpdate"];
    let path = "spec.updateStrategy.rollingUpdate";
    match strategy["type"].as_str() {
        Some("OnDelete") | None => {}
        Some("RollingUpdate") => {
            problems.amount(&format!("{path}.maxUnavailable"), &rolling["maxUnavailable"]);
            problems.amount(&format!("{path}.maxSurge"), &rolling["maxSurge"]);
            let set = |field: &str| !rolling[field].is_null() && !is_zero_amount(&rolling[field]);
            match (set("maxUnavailable"), set("maxSurge")) {
                (true, true) => problems.invalid(
                    format!("{path}.maxSurge"),
                    &rolling["maxSurge"],
                    "may not be set when maxUnavailable is non-zero",
                ),
                (false, false) => {
                    problems.required(format!("{path}.maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
            problems.at_most_all(&format!("{path}.maxUnavailable"), &rolling["maxUnavailable"]);
            problems.at_most_all(&format!("{path}.maxSurge"), &rolling["maxSurge"]);
        }
        Some(other) => {
            let shown = json!({"Type": other, "RollingUpdate": null});
            problems.unsupported_text("spec.updateStrategy", &go_strategy(&shown), &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn stateful_set_strategy(spec: &Value, problems: &mut Problems) {
    let policy = &spec["podManagementPolicy"];
    match policy.as_str() {
        None | Some("") => problems.required("spec.podManagementPolicy", ""),
        Some("OrderedReady" | "Parallel") => {}
        Some(_) => {
            problems.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'");
        }
    }
    match spec["updateStrategy"]["type"].as_str() {
        None | Some("OnDelete" | "RollingUpdate") => {}
        Some(other) => {
            let shown = go_strategy(&json!({"Type": other, "RollingUpdate": null}));
            problems.invalid_text("spec.updateStrategy", &shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// A strategy as Go's encoder writes the internal type: in the order of its fields.
fn go_strategy(strategy: &Value) -> String {
    format!("{{\"Type\":{},\"RollingUpdate\":{}}}", strategy["Type"], strategy["RollingUpdate"])
}
