//! Defaulting of built-in kinds, as far as rollouts see it (`pkg/apis/*/v1/defaults.go`).

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::{admission, job_defaults, service_defaults};
use crate::store::State;

pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Which of its templates a DaemonSet has, counted from 1.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Fills the defaults of an object of a built-in kind.
pub(crate) fn apply(group: &str, kind: &str, value: &mut Value) {
    match (group, kind) {
        ("apps", "Deployment") => deployment(value),
        ("apps", "ReplicaSet") => {
            set(&mut value["spec"], "replicas", json!(1));
            pod_spec(&mut value["spec"]["template"]["spec"]);
        }
        ("apps", "DaemonSet") => daemon_set(value),
        ("apps", "StatefulSet") => stateful_set(value),
        ("", "Pod") => pod(value),
        ("batch", "Job") => {
            pod_spec(&mut value["spec"]["template"]["spec"]);
            job_defaults::job(value);
        }
        ("batch", "CronJob") => {
            pod_spec(&mut value["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
            job_defaults::cron_job(value);
        }
        ("", "PersistentVolumeClaim") => set(&mut value["spec"], "volumeMode", json!("Filesystem")),
        ("", "Service") => service_defaults::apply(&mut value["spec"]),
        ("", "Secret") => secret(value),
        ("", "Namespace") => namespace(value),
        ("networking.k8s.io", "NetworkPolicy") => network_policy(&mut value["spec"]),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(value),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            set(&mut value["spec"], "minReplicas", json!(1));
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
            if value["spec"]["metrics"].as_array().is_none_or(Vec::is_empty) {
                value["spec"]["metrics"] = cpu;
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in items(value, "ports") {
                set(port, "name", json!(""));
                set(port, "protocol", json!("TCP"));
            }
        }
        _ => {}
    }
}

/// Fills what the server gives an object when it stores it: what registries and admission plugins set.
pub(super) fn allocate(group: &str, kind: &str, value: &mut Value, present: Option<&Value>, state: &mut State) {
    match (group, kind) {
        ("", "Pod") if present.is_none() => {
            admission::complete_pod_spec(&mut value["spec"]);
            value["status"] = json!({"phase": "Pending", "qosClass": admission::qos_class(&value["spec"])});
        }
        ("apps", "DaemonSet") => number_template(value, present),
        ("", "PersistentVolumeClaim") if present.is_none() => value["status"] = json!({"phase": "Pending"}),
        ("", "Service") => service_defaults::allocate(&mut value["spec"], present, state),
        ("", "Namespace") => {
            set(&mut value["spec"], "finalizers", json!(["kubernetes"]));
            set(&mut value["status"], "phase", json!("Active"));
        }
        _ => {}
    }
}

/// Counts a DaemonSet's templates (`daemonSetStrategy`): v1 shows the field of older versions as an annotation.
fn number_template(daemon_set: &mut Value, present: Option<&Value>) {
    let number = match present {
        None => 1,
        Some(present) => {
            let number = present["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
            let number: i64 = number.and_then(|number| number.parse().ok()).unwrap_or(1);
            number + i64::from(present["spec"]["template"] != daemon_set["spec"]["template"])
        }
    };
    daemon_set["metadata"]["annotations"][TEMPLATE_GENERATION] = json!(number.to_string());
}

pub(super) fn set(object: &mut Value, field: &str, default: Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let present = fields.entry(field.to_owned()).or_insert(Value::Null);
    if present.is_null() {
        *present = default;
    }
}

pub(super) fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn deployment(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "replicas", json!(1));
    set(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    set(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "maxSurge", json!("25%"));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", json!("25%"));
    }
    set(spec, "progressDeadlineSeconds", json!(600));
    set(spec, "revisionHistoryLimit", json!(10));
    pod_spec(&mut spec["template"]["spec"]);
}

fn daemon_set(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    set(strategy, "type", json!("RollingUpdate"));
    if strategy["type"] == "RollingUpdate" {
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "maxUnavailable", json!(1));
        set(&mut strategy["rollingUpdate"], "maxSurge", json!(0));
    }
    set(spec, "revisionHistoryLimit", json!(10));
    pod_spec(&mut spec["template"]["spec"]);
}

fn stateful_set(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "replicas", json!(1));
    set(spec, "podManagementPolicy", json!("OrderedReady"));
    set(spec, "updateStrategy", json!({}));
    set(&mut spec["updateStrategy"], "type", json!("RollingUpdate"));
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        set(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
        set(&mut spec["updateStrategy"]["rollingUpdate"], "partition", json!(0));
    }
    let retention = &mut spec["persistentVolumeClaimRetentionPolicy"];
    set(retention, "whenDeleted", json!("Retain"));
    set(retention, "whenScaled", json!("Retain"));
    set(spec, "revisionHistoryLimit", json!(10));
    pod_spec(&mut spec["template"]["spec"]);
}

fn pod(value: &mut Value) {
    pod_spec(&mut value["spec"]);
    set(&mut value["spec"], "enableServiceLinks", json!(true));
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    share_service_account(spec);
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
}

/// The name of the service account has an older name, too: the newer counts where there are both.
fn share_service_account(spec: &mut Value) {
    let given = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    let Some(account) = given("serviceAccountName").or_else(|| given("serviceAccount")).map(str::to_owned) else {
        return;
    };
    for field in ["serviceAccountName", "serviceAccount"] {
        spec[field] = json!(account);
    }
}

fn container(container: &mut Value) {
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    let policy = image_pull_policy(container["image"].as_str().unwrap_or_default());
    set(container, "imagePullPolicy", json!(policy));
    for port in items(container, "ports") {
        set(port, "protocol", json!("TCP"));
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(name).is_some_and(Value::is_object) {
            probe(&mut container[name]);
        }
    }
    for variable in items(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            set(reference, "apiVersion", json!("v1"));
        }
    }
}

/// `Always` for the tag latest or no tag, else `IfNotPresent`; a digest pins the image.
fn image_pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last_segment = image.rsplit('/').next().unwrap_or(image);
    match last_segment.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    set(probe, "timeoutSeconds", json!(1));
    set(probe, "periodSeconds", json!(10));
    set(probe, "successThreshold", json!(1));
    set(probe, "failureThreshold", json!(3));
    if probe.get("httpGet").is_some_and(Value::is_object) {
        set(&mut probe["httpGet"], "path", json!("/"));
        set(&mut probe["httpGet"], "scheme", json!("HTTP"));
    }
}

fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.keys().all(|field| field == "name")) {
        volume["emptyDir"] = json!({});
    }
    for source in ["configMap", "secret", "projected", "downwardAPI"] {
        if volume.get(source).is_some_and(Value::is_object) {
            set(&mut volume[source], "defaultMode", json!(420));
        }
    }
}

/// `stringData` is write-only: it ends up in `data`.
fn secret(value: &mut Value) {
    set(value, "type", json!("Opaque"));
    let Some(texts) = value.as_object_mut().and_then(|fields| fields.remove("stringData")) else {
        return;
    };
    for (name, text) in texts.as_object().into_iter().flatten() {
        let bytes = text.as_str().unwrap_or_default().as_bytes().to_vec();
        let encoded = serde_json::to_value(ByteString(bytes)).unwrap_or_default();
        set(value, "data", json!({}));
        value["data"][name.as_str()] = encoded;
    }
}

/// A policy is about what comes in, and about what goes out if it has rules for that.
fn network_policy(spec: &mut Value) {
    let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        spec["policyTypes"] = types;
    }
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| set(port, "protocol", json!("TCP")));
        }
    }
}

fn role_binding(value: &mut Value) {
    set(&mut value["roleRef"], "apiGroup", json!(RBAC_GROUP));
    for subject in items(value, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", json!(RBAC_GROUP));
        }
    }
}

fn namespace(value: &mut Value) {
    set(value, "spec", json!({}));
    set(value, "status", json!({}));
    let name = value["metadata"]["name"].clone();
    set(&mut value["metadata"], "labels", json!({}));
    value["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

#[cfg(test)]
mod tests {
    use super::image_pull_policy;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("podinfo", "Always"),
            ("ghcr.io/stefanprodan/podinfo:6.0.0", "IfNotPresent"),
            ("registry:5000/podinfo", "Always"),
            ("podinfo:latest", "Always"),
            ("podinfo@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(image_pull_policy(image), policy, "{image}");
        }
    }
}
