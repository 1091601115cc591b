//! Which port of a pod a port of a service means (`FindPort` of the endpoint controllers of Kubernetes).

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{integer, text};

/// What tells the ports of a pod apart: their name and protocol.
pub(crate) type PortName = (String, String);

/// Where a port of a service leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// This port, whether a container declares it or not.
    Number(i64),
    /// The port of that name, in the pods that have one.
    Named(PortName),
}

fn protocol(port: &Value) -> String {
    text(port, "/protocol").unwrap_or("TCP").to_owned()
}

/// The target of one entry of a service's `spec.ports`; without a target port it is the port itself.
pub(crate) fn target(service_port: &Value) -> Option<Target> {
    match service_port.get("targetPort") {
        Some(Value::String(name)) => Some(Target::Named((name.clone(), protocol(service_port)))),
        Some(Value::Number(number)) => number.as_i64().map(Target::Number),
        _ => integer(service_port, "/port").map(Target::Number),
    }
}

/// The named ports of a pod's containers and of its sidecars (init containers that are restarted always).
pub(crate) fn named(pod: &Value) -> BTreeMap<PortName, i64> {
    let list = |field: &str| pod.pointer(field).and_then(Value::as_array).into_iter().flatten();
    let sidecars = list("/spec/initContainers").filter(|container| container["restartPolicy"] == "Always");
    let mut ports = BTreeMap::new();
    for container in list("/spec/containers").chain(sidecars) {
        let declared = container.get("ports").and_then(Value::as_array);
        for port in declared.into_iter().flatten() {
            if let (Some(name), Some(number)) = (text(port, "/name"), integer(port, "/containerPort")) {
                // The first container that has the name wins.
                ports.entry((name.to_owned(), protocol(port))).or_insert(number);
            }
        }
    }
    ports
}
