//! Rows of nodes, namespaces, access rules, storage and everything else that is no workload.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, UNKNOWN, age, items, name, number, plain, text, text_or};

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| text_or(object, &format!("/status/nodeInfo/{field}"), UNKNOWN).to_owned();
    let address = |address_type: &str| {
        items(object, "/status/addresses")
            .find(|address| address["type"] == address_type)
            .map_or(NONE, |address| text(address, "/address"))
    };
    let mut kernel = info("kernelVersion");
    let architecture = text(object, "/status/nodeInfo/architecture");
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(object),
        json!(node_status(object)),
        json!(node_roles(object)),
        age(object, now),
        json!(text(object, "/status/nodeInfo/kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(kernel),
        json!(info("containerRuntimeVersion")),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").find(|condition| condition["type"] == "Ready");
    let status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node["spec"]["unschedulable"] == true { format!("{status},SchedulingDisabled") } else { status.to_owned() }
}

fn node_roles(node: &Value) -> String {
    let mut roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            None if key == "kubernetes.io/role" => value.as_str(),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), json!(text(object, "/status/phase")), age(object, now)]
}

fn size(object: &Value, field: &str) -> usize {
    object[field].as_object().map_or(0, serde_json::Map::len)
}

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), json!(size(object, "data") + size(object, "binaryData")), age(object, now)]
}

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), json!(text_or(object, "/type", "Opaque")), json!(size(object, "data")), age(object, now)]
}

pub(super) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), json!(text(object, "/spec/holderIdentity")), age(object, now)]
}

pub(super) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// For kinds without a printer a real server gives the time and leaves the age to the client.
pub(super) fn name_and_creation(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), object["metadata"]["creationTimestamp"].clone()]
}

pub(super) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = items(object, "/subjects")
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
                _ => text(subject, "/name").to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    vec![
        name(object),
        json!(format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"))),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/value")),
        json!(object["globalDefault"] == true),
        age(object, now),
        json!(text_or(object, "/preemptionPolicy", "PreemptLowerPriority")),
    ]
}

pub(super) fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let condition = object.pointer("/conditions/0").unwrap_or(&Value::Null);
    let status = match condition["status"].as_str() {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    };
    vec![name(object), json!(status), json!(text(condition, "/message")), json!(text(condition, "/error"))]
}

pub(super) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut requests = Vec::new();
    let mut limits = Vec::new();
    for (resource, hard) in object.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten() {
        let used = plain(&object["status"]["used"][resource]);
        let used = if used.is_empty() { "0" } else { &used };
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", plain(hard)));
    }
    vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
}

pub(super) fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = object["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
    let suffix = if is_default { " (default)" } else { "" };
    vec![
        json!(format!("{}{suffix}", text(object, "/metadata/name"))),
        json!(text(object, "/provisioner")),
        json!(text_or(object, "/reclaimPolicy", "Delete")),
        json!(text_or(object, "/volumeBindingMode", "Immediate")),
        json!(object["allowVolumeExpansion"] == true),
        age(object, now),
    ]
}

const UNSET: &str = "<unset>";

pub(super) fn volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let is_bound = !text(object, "/spec/volumeName").is_empty();
    let phase = match object.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating",
        None => text(object, "/status/phase"),
    };
    let of_bound = |shown: String| if is_bound { shown } else { String::new() };
    vec![
        name(object),
        json!(phase),
        json!(text(object, "/spec/volumeName")),
        json!(of_bound(plain(&object["status"]["capacity"]["storage"]))),
        json!(of_bound(access_modes(object, "/status/accessModes"))),
        json!(text(object, "/spec/storageClassName")),
        json!(text_or(object, "/spec/volumeAttributesClassName", UNSET)),
        age(object, now),
        json!(text_or(object, "/spec/volumeMode", UNSET)),
    ]
}

pub(super) fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let phase = match object.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating",
        None => text(object, "/status/phase"),
    };
    let claim = object
        .pointer("/spec/claimRef")
        .map(|claim| format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")))
        .unwrap_or_default();
    vec![
        name(object),
        json!(plain(&object["spec"]["capacity"]["storage"])),
        json!(access_modes(object, "/spec/accessModes")),
        json!(text_or(object, "/spec/persistentVolumeReclaimPolicy", "Retain")),
        json!(phase),
        json!(claim),
        json!(text(object, "/spec/storageClassName")),
        json!(text_or(object, "/spec/volumeAttributesClassName", UNSET)),
        json!(text(object, "/status/reason")),
        age(object, now),
        json!(text_or(object, "/spec/volumeMode", UNSET)),
    ]
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let has = |mode: &str| items(object, pointer).any(|given| given == mode);
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
        .into_iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| short)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{node, resource_quota, role_binding};

    #[test]
    fn a_cordoned_node_says_so() {
        let object = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge", "x": "y"}},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let row = node(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&row[1], &row[2], &row[7]),
            (&json!("Ready,SchedulingDisabled"), &json!("edge,worker"), &json!("<unknown>"))
        );
    }

    #[test]
    fn bindings_and_quotas_list_what_they_hold() {
        let binding = json!({
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}],
        });
        let row = role_binding(&binding, Timestamp::UNIX_EPOCH);
        assert_eq!((&row[1], &row[3], &row[5]), (&json!("Role/r"), &json!("a"), &json!("n/s")));
        let quota = json!({"status": {"hard": {"limits.cpu": "4", "pods": "10"}, "used": {"pods": "3"}}});
        let row = resource_quota(&quota, Timestamp::UNIX_EPOCH);
        assert_eq!((&row[1], &row[2]), (&json!("pods: 3/10"), &json!("limits.cpu: 0/4")));
    }
}
