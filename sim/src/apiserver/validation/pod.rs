//! Pod specs (`ValidatePodSpec` in `pkg/apis/core/validation`): what a person meets who writes one by hand.

use serde_json::{Value, json};

use super::problems::{Problems, items};
use crate::quantity;

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What of a pod environment variables can take from (`metadata.labels['…']` apart).
const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Checks a pod's spec at a path.
pub(super) fn spec(spec: &Value, path: &str, problems: &mut Problems) {
    volumes(items(spec, "volumes"), &format!("{path}.volumes"), problems);
    let volumes: Vec<&Value> = items(spec, "volumes").iter().map(|volume| &volume["name"]).collect();
    let containers = items(spec, "containers");
    if containers.is_empty() {
        problems.required(format!("{path}.containers"), "");
    }
    let shares_network = spec["hostNetwork"] == true;
    for (list, is_main) in [("containers", true), ("initContainers", false)] {
        let mut names: Vec<&Value> =
            if is_main { Vec::new() } else { containers.iter().map(|container| &container["name"]).collect() };
        for (index, item) in items(spec, list).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            container(item, &path, &volumes, problems);
            if names.contains(&&item["name"]) && item["name"].is_string() {
                problems.duplicate(format!("{path}.name"), &item["name"]);
            }
            names.push(&item["name"]);
            for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
                probe(kind, &item[kind], &format!("{path}.{kind}"), problems);
            }
            if shares_network {
                host_ports(item, &path, problems);
            }
        }
    }
    problems.one_of(format!("{path}.restartPolicy"), &spec["restartPolicy"], &RESTART_POLICIES);
    problems.one_of(format!("{path}.dnsPolicy"), &spec["dnsPolicy"], &DNS_POLICIES);
    problems.labels(&format!("{path}.nodeSelector"), &spec["nodeSelector"]);
    if spec["serviceAccountName"].is_string() {
        problems.dns_subdomain(format!("{path}.serviceAccountName"), &spec["serviceAccountName"]);
    }
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| seconds < 1) {
        problems.invalid(
            format!("{path}.activeDeadlineSeconds"),
            deadline,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for (index, item) in items(spec, "tolerations").iter().enumerate() {
        toleration(item, &format!("{path}.tolerations[{index}]"), problems);
    }
}

fn container(container: &Value, path: &str, volumes: &[&Value], problems: &mut Problems) {
    if problems.present(format!("{path}.name"), &container["name"]) {
        problems.dns_label(format!("{path}.name"), &container["name"]);
    }
    problems.present(format!("{path}.image"), &container["image"]);
    ports(items(container, "ports"), path, problems);
    for (index, variable) in items(container, "env").iter().enumerate() {
        environment(variable, &format!("{path}.env[{index}]"), problems);
    }
    let mut mount_paths: Vec<&Value> = Vec::new();
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if problems.present(format!("{path}.name"), &mount["name"]) && !volumes.contains(&&mount["name"]) {
            problems.not_found(format!("{path}.name"), &mount["name"]);
        }
        if problems.present(format!("{path}.mountPath"), &mount["mountPath"]) {
            if mount_paths.contains(&&mount["mountPath"]) {
                problems.invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique");
            }
            mount_paths.push(&mount["mountPath"]);
        }
    }
    problems.one_of(format!("{path}.imagePullPolicy"), &container["imagePullPolicy"], &PULL_POLICIES);
    resources(&container["resources"], &format!("{path}.resources"), problems);
}

fn ports(ports: &[Value], path: &str, problems: &mut Problems) {
    let mut names: Vec<&Value> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = &port["name"];
        if name.is_string() {
            let before = problems.0.len();
            problems.port_name(&format!("{path}.name"), name);
            if problems.0.len() == before && names.contains(&name) {
                problems.duplicate(format!("{path}.name"), name);
            }
            names.push(name);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => problems.required(format!("{path}.containerPort"), ""),
            number => problems.port(format!("{path}.containerPort"), number),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            problems.port(format!("{path}.hostPort"), number);
        }
        problems.one_of(format!("{path}.protocol"), &port["protocol"], &PROTOCOLS);
    }
}

fn host_ports(container: &Value, path: &str, problems: &mut Problems) {
    for (index, port) in items(container, "ports").iter().enumerate() {
        let host_port = &port["hostPort"];
        if !host_port.is_null() && *host_port != port["containerPort"] {
            problems.invalid(
                format!("{path}.ports[{index}].hostPort"),
                host_port,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
    }
}

fn environment(variable: &Value, path: &str, problems: &mut Problems) {
    let name = &variable["name"];
    if problems.present(format!("{path}.name"), name) {
        let printable = |byte: u8| (0x20..0x7F).contains(&byte) && byte != b'=';
        if !name.as_str().unwrap_or_default().bytes().all(printable) {
            problems.invalid(
                format!("{path}.name"),
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            );
        }
    }
    let source = &variable["valueFrom"];
    if !source.is_object() {
        return;
    }
    let path = format!("{path}.valueFrom");
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        if source[kind].is_object() {
            problems.present(format!("{path}.{kind}.key"), &source[kind]["key"]);
        }
    }
    if source["fieldRef"].is_object() {
        field_reference(&source["fieldRef"]["fieldPath"], &format!("{path}.fieldRef.fieldPath"), problems);
    }
    let empty = json!("");
    let given = SOURCES.iter().filter(|kind| source[**kind].is_object()).count();
    if given == 0 {
        problems.invalid(
            path,
            &empty,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if variable["value"].as_str().is_some_and(|value| !value.is_empty()) {
        problems.invalid(path, &empty, "may not be specified when `value` is not empty");
    } else if given > 1 {
        problems.invalid(path, &empty, "may not have more than one field specified at a time");
    }
}

fn field_reference(field_path: &Value, path: &str, problems: &mut Problems) {
    if !problems.present(path, field_path) {
        return;
    }
    let text = field_path.as_str().unwrap_or_default();
    let is_subscript = text.starts_with("metadata.labels[") || text.starts_with("metadata.annotations[");
    if !is_subscript && !FIELD_PATHS.contains(&text) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        problems.invalid(path, field_path, detail);
    }
}

fn resources(resources: &Value, path: &str, problems: &mut Problems) {
    for list in ["limits", "requests"] {
        for (name, amount) in resources[list].as_object().into_iter().flatten() {
            let path = format!("{path}.{list}[{name}]");
            let is_standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "storage")
                || name.starts_with("hugepages-");
            if !is_standard && !name.contains('/') {
                problems.invalid(&path, &json!(name), "must be a standard resource type or fully qualified");
                problems.invalid(&path, &json!(name), "must be a standard resource for containers");
            }
            if nanos(amount).is_some_and(|nanos| nanos < 0) {
                problems.invalid(&path, amount, "must be greater than or equal to 0");
            }
        }
    }
    for (name, requested) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name];
        if let (Some(amount), Some(most)) = (nanos(requested), nanos(limit))
            && amount > most
        {
            let most = limit.as_str().unwrap_or_default();
            let detail = format!("must be less than or equal to {name} limit of {most}");
            problems.invalid(format!("{path}.requests"), requested, detail);
        }
    }
}

fn nanos(amount: &Value) -> Option<i128> {
    quantity::nanos(amount.as_str()?).ok()
}

fn probe(kind: &str, probe: &Value, path: &str, problems: &mut Problems) {
    if !probe.is_object() {
        return;
    }
    let mut found = false;
    for handler in ["exec", "httpGet", "tcpSocket", "grpc"] {
        let action = &probe[handler];
        if !action.is_object() {
            continue;
        }
        let path = format!("{path}.{handler}");
        if found {
            problems.forbidden(path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match handler {
            "exec" if items(action, "command").is_empty() => problems.required(format!("{path}.command"), ""),
            "exec" => {}
            "grpc" => problems.port(format!("{path}.port"), action["port"].as_i64().unwrap_or(0)),
            _ => {
                problems.port_number_or_name(&format!("{path}.port"), &action["port"]);
                problems.one_of(format!("{path}.scheme"), &action["scheme"], &["HTTP", "HTTPS"]);
            }
        }
    }
    if !found {
        problems.required(path, "must specify a handler type");
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        problems.not_negative(format!("{path}.{field}"), &probe[field]);
    }
    let successes = &probe["successThreshold"];
    if kind != "readinessProbe" && successes.as_i64().is_some_and(|number| number != 1) {
        problems.invalid(format!("{path}.successThreshold"), successes, "must be 1");
    }
}

/// Sources of volumes in the order in which they are looked at (`validateVolumeSource`).
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

fn volumes(volumes: &[Value], path: &str, problems: &mut Problems) {
    let mut names: Vec<&Value> = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut sources: Vec<(&String, &Value)> =
            volume.as_object().into_iter().flatten().filter(|(field, _)| field.as_str() != "name").collect();
        let place = |source: &str| SOURCES.iter().position(|known| *known == source).unwrap_or(SOURCES.len());
        sources.sort_by_key(|(source, _)| place(source));
        for (position, (source, described)) in sources.into_iter().enumerate() {
            let path = format!("{path}.{source}");
            if position > 0 {
                problems.forbidden(path, "may not specify more than 1 volume type");
                continue;
            }
            let required = match source.as_str() {
                "configMap" => "name",
                "secret" => "secretName",
                "persistentVolumeClaim" => "claimName",
                "hostPath" => "path",
                _ => continue,
            };
            problems.present(format!("{path}.{required}"), &described[required]);
        }
        if problems.present(format!("{path}.name"), &volume["name"]) {
            problems.dns_label(format!("{path}.name"), &volume["name"]);
        }
        if names.contains(&&volume["name"]) {
            problems.duplicate(format!("{path}.name"), &volume["name"]);
        }
        names.push(&volume["name"]);
    }
}

fn toleration(toleration: &Value, path: &str, problems: &mut Problems) {
    let operator = &toleration["operator"];
    let text = operator.as_str().unwrap_or_default();
    let has_key = toleration["key"].as_str().is_some_and(|key| !key.is_empty());
    if !has_key && text != "Exists" {
        problems.invalid(
            format!("{path}.operator"),
            &json!(text),
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    match text {
        "" | "Equal" => {}
        "Exists" => {
            if toleration["value"].as_str().is_some_and(|value| !value.is_empty()) {
                problems.invalid(
                    format!("{path}.operator"),
                    &toleration["value"],
                    "value must be empty when `operator` is 'Exists'",
                );
            }
        }
        _ => problems.unsupported(format!("{path}.operator"), operator, &["Equal", "Exists"]),
    }
}
