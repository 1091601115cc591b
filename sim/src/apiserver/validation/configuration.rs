//! ConfigMaps, Secrets, ResourceQuotas, Leases and PodDisruptionBudgets.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::problems::Problems;
use super::workload::label_selector;
use crate::quotas::SCOPES;

/// `MaxSecretSize` upstream, which holds for both kinds: the values together, keys not counted.
const MOST_DATA_BYTES: usize = 1 << 20;

const KEY_PATTERN: &str = "[-._a-zA-Z0-9]+";

static KEY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!("^{KEY_PATTERN}$")).ok());

pub(super) fn config_map(value: &Value, present: Option<&Value>, problems: &mut Problems) {
    for key in keys(&value["data"]) {
        check_key("data", key, problems);
        if value["binaryData"].get(key).is_some() {
            problems.invalid(format!("data[{key}]"), &json!(key), "duplicate of key present in binaryData");
        }
    }
    for key in keys(&value["binaryData"]) {
        check_key("binaryData", key, problems);
    }
    if length_of_texts(&value["data"]) + length_of_bytes(&value["binaryData"]) > MOST_DATA_BYTES {
        // Upstream's path without a name.
        problems.too_long("[]", MOST_DATA_BYTES);
    }
    immutable_data(value, present, problems);
}

/// Names of resources and their quantities are not checked; scopes that the embedded cluster does not look at are refused, for such
/// a quota would count what it should not.
pub(super) fn quota(value: &Value, problems: &mut Problems) {
    for (index, scope) in value["spec"]["scopes"].as_array().into_iter().flatten().enumerate() {
        if !SCOPES.iter().any(|known| scope == known) {
            problems.unsupported(format!("spec.scopes[{index}]"), scope, &SCOPES);
        }
    }
    if value["spec"]["scopeSelector"].is_object() {
        let detail = "the embedded cluster has no scope selectors; use spec.scopes, or leave the scope out";
        problems.forbidden("spec.scopeSelector", detail);
    }
}

pub(super) fn secret(value: &Value, present: Option<&Value>, problems: &mut Problems) {
    for key in keys(&value["data"]) {
        check_key("data", key, problems);
    }
    if length_of_bytes(&value["data"]) > MOST_DATA_BYTES {
        problems.too_long("data", MOST_DATA_BYTES);
    }
    let required: &[&str] = match value["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        // One of the two is enough.
        Some("kubernetes.io/basic-auth")
            if ["username", "password"].iter().all(|key| value["data"].get(key).is_none()) =>
        {
            &["username", "password"]
        }
        Some("kubernetes.io/service-account-token") => {
            let annotation = "kubernetes.io/service-account.name";
            problems
                .present(format!("metadata.annotations[{annotation}]"), &value["metadata"]["annotations"][annotation]);
            &[]
        }
        _ => &[],
    };
    for key in required.iter().filter(|key| value["data"].get(**key).is_none()) {
        problems.required(format!("data[{key}]"), "");
    }
    if let Some(present) = present
        && value["type"] != present["type"]
    {
        problems.invalid("type", &value["type"], "field is immutable");
    }
    immutable_data(value, present, problems);
}

fn length_of_texts(data: &Value) -> usize {
    texts(data).map(str::len).sum()
}

/// Of what is given in base64.
fn length_of_bytes(data: &Value) -> usize {
    texts(data).map(|text| text.trim_end_matches('=').len() * 3 / 4).sum()
}

fn texts(data: &Value) -> impl Iterator<Item = &str> {
    data.as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str())
}

fn keys(data: &Value) -> impl Iterator<Item = &str> {
    data.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

/// `IsConfigMapKey`.
fn check_key(field: &str, key: &str, problems: &mut Problems) {
    let path = format!("{field}[{key}]");
    let value = json!(key);
    if key.len() > 253 {
        problems.invalid(&path, &value, "must be no more than 253 characters");
    }
    if !KEY.as_ref().is_some_and(|pattern| pattern.is_match(key)) {
        let detail = format!(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
             or 'key-name', regex used for validation is '{KEY_PATTERN}')"
        );
        problems.invalid(&path, &value, detail);
    }
    match key {
        "." => problems.invalid(&path, &value, "must not be '.'"),
        ".." => problems.invalid(&path, &value, "must not be '..'"),
        _ if key.starts_with("..") => problems.invalid(&path, &value, "must not start with '..'"),
        _ => {}
    }
}

fn immutable_data(value: &Value, present: Option<&Value>, problems: &mut Problems) {
    let Some(present) = present.filter(|present| present["immutable"] == true) else {
        return;
    };
    if value["immutable"] != true {
        problems.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for field in ["data", "binaryData"] {
        if value[field] != present[field] {
            problems.forbidden(field, "field is immutable when `immutable` is set");
        }
    }
}

pub(super) fn lease(value: &Value, problems: &mut Problems) {
    let spec = &value["spec"];
    let duration = &spec["leaseDurationSeconds"];
    if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
        problems.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0");
    }
    problems.not_negative("spec.leaseTransitions", &spec["leaseTransitions"]);
}

/// Claims are stored, not bound; what they have to say is looked at (`ValidatePersistentVolumeClaimSpec`).
pub(super) fn volume_claim(value: &Value, problems: &mut Problems) {
    let spec = &value["spec"];
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        problems.required("spec.accessModes", "at least 1 access mode is required");
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        problems.required("spec.resources[storage]", "");
    }
}

/// The priorities that every cluster has (`pkg/apis/scheduling/v1/helpers.go`), and the highest that people may give.
const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub(super) fn priority_class(value: &Value, present: Option<&Value>, problems: &mut Problems) {
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let priority = value["value"].as_i64().unwrap_or(0);
    if name.starts_with("system-") {
        if !SYSTEM_PRIORITIES.contains(&(name, priority)) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known \
                 system priority class"
            );
            problems.forbidden("metadata.name", &detail);
        }
    } else if priority > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        problems.forbidden("value", &detail);
    }
    let Some(present) = present else {
        let policies = ["Never", "PreemptLowerPriority"];
        problems.one_of("preemptionPolicy", &value["preemptionPolicy"], &policies);
        return;
    };
    if present["value"].as_i64().unwrap_or(0) != priority {
        problems.forbidden("value", "may not be changed in an update.");
    }
    if present["preemptionPolicy"] != value["preemptionPolicy"] {
        problems.invalid("preemptionPolicy", &value["preemptionPolicy"], "field is immutable");
    }
}

pub(super) fn disruption_budget(value: &Value, problems: &mut Problems) {
    let spec = &value["spec"];
    let (minimum, maximum) = (&spec["minAvailable"], &spec["maxUnavailable"]);
    if !minimum.is_null() && !maximum.is_null() {
        // The internal type is printed, with its Go field names.
        let shown = format!(
            "{{\"MinAvailable\":{minimum},\"Selector\":{},\"MaxUnavailable\":{maximum},\"UnhealthyPodEvictionPolicy\":{}}}",
            spec["selector"], spec["unhealthyPodEvictionPolicy"]
        );
        problems.invalid_text("spec", &shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for (field, amount) in [("minAvailable", minimum), ("maxUnavailable", maximum)] {
        problems.amount(&format!("spec.{field}"), amount);
        problems.at_most_all(&format!("spec.{field}"), amount);
    }
    label_selector("spec.selector", &spec["selector"], problems);
}
