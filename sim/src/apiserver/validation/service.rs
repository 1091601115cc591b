//! Services and EndpointSlices (`ValidateService` in `pkg/apis/core/validation`, `pkg/apis/discovery/validation`).

use serde_json::{Value, json};

use super::pod::PROTOCOLS;
use super::problems::{Problems, items};
use crate::store::FieldError;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// `ValidateServiceStatusUpdate`.
pub(super) fn status(value: &Value, problems: &mut Problems) {
    let has_ingress = value["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|ingress| !ingress.is_empty());
    if has_ingress && value["spec"]["type"] != "LoadBalancer" {
        let field = "status.loadBalancer.ingress";
        problems.0.push(FieldError::forbidden(field, "may only be used when `spec.type` is 'LoadBalancer'"));
    }
}

pub(super) fn service(value: &Value, present: Option<&Value>, problems: &mut Problems) {
    let spec = &value["spec"];
    let ports = items(spec, "ports");
    let is_external_name = spec["type"] == "ExternalName";
    if ports.is_empty() && !is_external_name && spec["clusterIP"] != "None" {
        problems.required("spec.ports", "");
    }
    if is_external_name {
        let name = spec["externalName"].as_str().unwrap_or_default();
        if name.is_empty() {
            problems.required("spec.externalName", "");
        } else {
            problems.dns_subdomain("spec.externalName", &json!(name.trim_end_matches('.')));
        }
    }
    service_ports(ports, problems);
    problems.labels("spec.selector", &spec["selector"]);
    problems.one_of("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"]);
    let address = &spec["clusterIP"];
    if !is_external_name && address.as_str().is_some_and(|address| !address.is_empty() && address != "None") {
        problems.ip("spec.clusterIPs[0]", address);
    }
    for (index, address) in items(spec, "externalIPs").iter().enumerate() {
        problems.ip(format!("spec.externalIPs[{index}]"), address);
    }
    problems.one_of("spec.type", &spec["type"], &TYPES);
    if spec["type"] == "ClusterIP" {
        for (index, port) in ports.iter().enumerate() {
            if port["nodePort"].as_i64().is_some_and(|number| number != 0) {
                problems
                    .forbidden(format!("spec.ports[{index}].nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
        }
    }
    repeated_ports(ports, problems);
    problems.one_of("spec.internalTrafficPolicy", &spec["internalTrafficPolicy"], &["Cluster", "Local"]);
    let is_external =
        matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) || !items(spec, "externalIPs").is_empty();
    if !is_external && spec["externalTrafficPolicy"].is_string() {
        problems.invalid(
            "spec.externalTrafficPolicy",
            &spec["externalTrafficPolicy"],
            "may only be set for externally-accessible services",
        );
    }
    if let Some(present) = present
        && present["spec"]["clusterIP"].is_string()
        && spec["type"] != "ExternalName"
        && *address != present["spec"]["clusterIP"]
    {
        problems.invalid("spec.clusterIPs[0]", &json!([address]), "may not change once set");
    }
}

fn service_ports(ports: &[Value], problems: &mut Problems) {
    let mut names: Vec<&Value> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = &port["name"];
        if name.as_str().is_some_and(|name| !name.is_empty()) {
            problems.dns_label(format!("{path}.name"), name);
            if names.contains(&name) {
                problems.duplicate(format!("{path}.name"), name);
            }
            names.push(name);
        } else if ports.len() > 1 {
            problems.required(format!("{path}.name"), "");
        }
        problems.port(format!("{path}.port"), port["port"].as_i64().unwrap_or(0));
        problems.one_of(format!("{path}.protocol"), &port["protocol"], &PROTOCOLS);
        // The default is the port, which may be missing, too.
        let target = if port["targetPort"].is_null() { &Value::from(0) } else { &port["targetPort"] };
        problems.port_number_or_name(&format!("{path}.targetPort"), target);
    }
}

/// Two ports of the same number and protocol.
fn repeated_ports(ports: &[Value], problems: &mut Problems) {
    for (index, port) in ports.iter().enumerate() {
        let repeats = |other: &Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        if ports[..index].iter().any(repeats) {
            // The internal type is printed, with its Go field names, and nothing in it but what counts.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                port["protocol"], port["port"]
            );
            problems.duplicate_text(&format!("spec.ports[{index}]"), &shown);
        }
    }
}

pub(super) fn endpoint_slice(value: &Value, problems: &mut Problems) {
    let address_type = &value["addressType"];
    if problems.present("addressType", address_type) {
        problems.one_of("addressType", address_type, &["FQDN", "IPv4", "IPv6"]);
    }
    for (index, endpoint) in items(value, "endpoints").iter().enumerate() {
        let addresses = items(endpoint, "addresses");
        if addresses.is_empty() {
            problems.required(format!("endpoints[{index}].addresses"), "must contain at least 1 address");
        }
        for (position, address) in addresses.iter().enumerate() {
            if matches!(address_type.as_str(), Some("IPv4" | "IPv6")) {
                problems.ip(format!("endpoints[{index}].addresses[{position}]"), address);
            }
        }
    }
    for (index, port) in items(value, "ports").iter().enumerate() {
        if port["name"].as_str().is_some_and(|name| !name.is_empty()) {
            problems.dns_label(format!("ports[{index}].name"), &port["name"]);
        }
    }
}
