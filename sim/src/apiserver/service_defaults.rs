//! Defaults, addresses and node ports of Services (`pkg/apis/core/v1/defaults.go`, `pkg/registry/core/service`).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::defaults::{items, set};
use crate::store::{FieldError, State, kinds};

/// First address given to services is 10.96.0.10; the ones below are left to the cluster's own services.
const FIRST_CLUSTER_IP: u32 = 0x0A60_000A;
/// kube-apiserver's own default of `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;

/// Whether a Service of this spec's type has a field.
type HasField = fn(&Value) -> bool;

/// Fields that only some types have, and that go when the type does.
const OF_TYPES: [(&str, HasField); 7] = [
    ("clusterIP", has_address),
    ("clusterIPs", has_address),
    ("ipFamilies", has_address),
    ("ipFamilyPolicy", has_address),
    ("internalTrafficPolicy", has_address),
    ("externalTrafficPolicy", has_node_ports),
    ("allocateLoadBalancerNodePorts", is_load_balancer),
];

fn has_address(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

fn has_node_ports(spec: &Value) -> bool {
    matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn is_load_balancer(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer"
}

pub(super) fn apply(spec: &mut Value) {
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
    }
    for port in items(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        if port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = Value::Null;
        }
        set(port, "targetPort", number);
    }
    if !has_address(spec) {
        return;
    }
    set(spec, "internalTrafficPolicy", json!("Cluster"));
    if has_node_ports(spec) {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if is_load_balancer(spec) {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
}

/// Takes away what a Service has from its former type and nobody changed (`dropTypeDependentFields`), so that a patch may change
/// the type alone.
pub(super) fn leave_former_type(spec: &mut Value, before: &Value) {
    let lost: Vec<&str> = OF_TYPES
        .into_iter()
        .filter(|(field, has)| has(before) && !has(spec) && spec.get(*field) == before.get(*field))
        .map(|(field, _)| field)
        .collect();
    let loses_node_ports = has_node_ports(before) && !has_node_ports(spec) && node_ports(spec) == node_ports(before);
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !lost.contains(&field.as_str()));
    }
    if !loses_node_ports {
        return;
    }
    for port in items(spec, "ports").filter_map(Value::as_object_mut) {
        port.remove("nodePort");
    }
}

/// Gives addresses and node ports; those that the Service had stay.
pub(super) fn allocate(spec: &mut Value, present: Option<&Value>, state: &mut State) {
    if !has_address(spec) {
        return;
    }
    keep_policy(spec, present);
    let is_dual = is_headless_without_selector(spec) && spec["ipFamilyPolicy"] != "SingleStack";
    set(spec, "ipFamilies", if is_dual { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    allocate_cluster_ip(spec, present, state);
    if !has_node_ports(spec) || spec["allocateLoadBalancerNodePorts"] == false {
        return;
    }
    if let Some(present) = present.filter(|present| has_node_ports(&present["spec"])) {
        keep_node_ports(spec, &present["spec"]);
    }
    if node_ports(spec).iter().all(|number| *number != 0) {
        return;
    }
    let mut taken = taken_node_ports(state, "");
    for port in items(spec, "ports").filter(|port| node_port(port) == 0) {
        // As many services as there are ports would fill the range; further ones then share the first.
        let number = NODE_PORTS
            .map(|_| {
                state.last_cluster_ip += 1;
                NODE_PORTS.start() + i64::from(state.last_cluster_ip) % (NODE_PORTS.end() - NODE_PORTS.start() + 1)
            })
            .find(|number| !taken.contains(number))
            .unwrap_or(*NODE_PORTS.start());
        taken.insert(number);
        port["nodePort"] = json!(number);
    }
}

/// A Service keeps its policy; a new one has one family of addresses, but for one whose endpoints somebody else tells.
fn keep_policy(spec: &mut Value, present: Option<&Value>) {
    let policy = match present.map(|present| &present["spec"]["ipFamilyPolicy"]).filter(|policy| policy.is_string()) {
        Some(policy) => policy.clone(),
        None if is_headless_without_selector(spec) => json!("RequireDualStack"),
        None => json!("SingleStack"),
    };
    set(spec, "ipFamilyPolicy", policy);
}

fn is_headless_without_selector(spec: &Value) -> bool {
    spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty)
}

/// What is wrong with node ports that somebody asked for. In a rehearsal Kubernetes looks only whether they are taken.
pub(super) fn node_port_problems(
    value: &Value,
    present: Option<&Value>,
    state: &State,
    dry_run: bool,
) -> Vec<FieldError> {
    let spec = &value["spec"];
    let before = present.map(|present| node_ports(&present["spec"])).unwrap_or_default();
    let numbers = node_ports(spec);
    let is_new = |number: &i64| *number != 0 && !before.contains(number);
    if !has_node_ports(spec) || !numbers.iter().any(is_new) {
        return Vec::new();
    }
    let own_uid = present.and_then(|present| present["metadata"]["uid"].as_str()).unwrap_or_default();
    let taken = taken_node_ports(state, own_uid);
    let range = format!("{}-{}", NODE_PORTS.start(), NODE_PORTS.end());
    let mut problems = Vec::new();
    for (index, number) in numbers.iter().enumerate().filter(|(_, number)| is_new(number)) {
        let detail = if !dry_run && !NODE_PORTS.contains(number) {
            format!("provided port is not in the valid range. The range of valid ports is {range}")
        } else if taken.contains(number) {
            "provided port is already allocated".to_owned()
        } else {
            continue;
        };
        problems.push(FieldError::invalid(format!("spec.ports[{index}].nodePort"), &json!(number), detail));
    }
    problems
}

/// What people are warned of (`GetWarningsForService`).
pub(super) fn warnings(spec: &Value) -> Vec<String> {
    let is_set = |field: &str| spec[field].as_str().is_some_and(|text| !text.is_empty());
    let has_external_addresses = spec["externalIPs"].as_array().is_some_and(|addresses| !addresses.is_empty());
    let mut warnings = Vec::new();
    if has_external_addresses {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    if spec["clusterIP"] == "None" {
        if is_set("loadBalancerIP") {
            warnings.push("spec.loadBalancerIP is ignored for headless services");
        }
        if has_external_addresses {
            warnings.push("spec.externalIPs is ignored for headless services");
        }
        if spec["sessionAffinity"] == "ClientIP" {
            warnings.push("spec.SessionAffinity is ignored for headless services");
        }
    }
    if has_address(spec) && is_set("externalName") {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    warnings.into_iter().map(str::to_owned).collect()
}

fn allocate_cluster_ip(spec: &mut Value, present: Option<&Value>, state: &mut State) {
    if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
        let kept = present.map(|present| present["spec"]["clusterIP"].clone()).filter(Value::is_string);
        spec["clusterIP"] = kept.unwrap_or_else(|| {
            let address = FIRST_CLUSTER_IP.wrapping_add(state.last_cluster_ip);
            state.last_cluster_ip += 1;
            json!(std::net::Ipv4Addr::from(address).to_string())
        });
    }
    let addresses = json!([spec["clusterIP"]]);
    set(spec, "clusterIPs", addresses);
}

/// Ports without a node port get that of the former port of the same name (`patchAllocatedValues`).
fn keep_node_ports(spec: &mut Value, before: &Value) {
    let mut used: HashSet<i64> = node_ports(spec).into_iter().filter(|number| *number != 0).collect();
    for port in items(spec, "ports").filter(|port| node_port(port) == 0) {
        let mut former = before["ports"].as_array().into_iter().flatten();
        let Some(number) = former.find(|former| former["name"] == port["name"]).map(node_port) else { continue };
        if number != 0 && used.insert(number) {
            port["nodePort"] = json!(number);
        }
    }
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or(0)
}

fn node_ports(spec: &Value) -> Vec<i64> {
    spec["ports"].as_array().into_iter().flatten().map(node_port).collect()
}

/// The node ports of all Services but the one with this uid.
fn taken_node_ports(state: &State, own_uid: &str) -> HashSet<i64> {
    let services = state.tables.get(&kinds::SERVICE).map(|table| table.records(None)).unwrap_or_default();
    let services = services.iter().map(|record| record.value());
    services
        .filter(|service| service["metadata"]["uid"] != own_uid)
        .flat_map(|service| node_ports(&service["spec"]))
        .filter(|number| *number != 0)
        .collect()
}
