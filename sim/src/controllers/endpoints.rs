//! EndpointSlices and Endpoints of Services that have a selector.

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{encode_hash, flag, template_hash, text};
use super::node::NODE_NAME;
use super::ports::{self, Target};
use super::queue::ObjectName;
use crate::store::{GroupKind, kinds};

/// A pod that stands behind a service.
struct Backend {
    address: String,
    /// The service's ports as the pod serves them.
    ports: Vec<Value>,
    reference: Value,
    /// Ready and not being deleted.
    ready: bool,
    /// Ready, though perhaps being deleted.
    serving: bool,
    terminating: bool,
}

impl Engine {
    pub(super) fn reconcile_service(&mut self, name: &ObjectName) {
        let Some(service) = self.store.get(&kinds::SERVICE, &name.namespace, &name.name) else {
            // Slices go with their owner; Endpoints have none.
            if self.store.get(&kinds::ENDPOINTS, &name.namespace, &name.name).is_some() {
                self.delete(&kinds::ENDPOINTS, name);
            }
            return;
        };
        let Some(selector) = self.cache.service_selector(name).cloned() else {
            return;
        };
        let pods = self.cache.select_pods(&name.namespace, &selector);
        let mut backends: Vec<Backend> = pods
            .into_iter()
            .filter(|(_, pod)| !pod.finished)
            .filter_map(|(pod_name, pod)| {
                let object = self.store.get(&kinds::POD, &pod_name.namespace, &pod_name.name)?;
                let serving = pod.ready_since.is_some();
                Some(Backend {
                    address: pod.address.clone()?,
                    ports: endpoint_ports(&service, &object),
                    reference: json!({
                        "kind": "Pod", "namespace": &*pod_name.namespace, "name": &*pod_name.name,
                        "uid": object["metadata"]["uid"],
                    }),
                    ready: serving && !pod.terminating,
                    serving,
                    terminating: pod.terminating,
                })
            })
            .collect();
        // As text, like the endpoints controller.
        backends.sort_by(|left, right| left.address.cmp(&right.address));
        let publish_not_ready = flag(&service, "/spec/publishNotReadyAddresses");

        let mut groups = by_ports(&backends);
        let endpoints = endpoints(&service, name, &groups, publish_not_ready);
        self.put(&kinds::ENDPOINTS, name, endpoints);
        if groups.is_empty() {
            groups.push((&[], Vec::new()));
        }
        for (index, (ports, backends)) in groups.iter().enumerate() {
            let slice_name = slice_name(&service, name, index);
            let slice = slice(&service, &slice_name, ports, backends, publish_not_ready);
            self.put(&kinds::ENDPOINT_SLICE, &slice_name, slice);
        }
        let surplus = (groups.len()..).map(|index| slice_name(&service, name, index));
        for slice_name in surplus.take_while(|name| self.is_stored(&kinds::ENDPOINT_SLICE, name)) {
            self.delete(&kinds::ENDPOINT_SLICE, &slice_name);
        }
    }

    fn is_stored(&self, kind: &GroupKind, name: &ObjectName) -> bool {
        self.store.get(kind, &name.namespace, &name.name).is_some()
    }

    /// Creates an object, or replaces everything in it but its metadata.
    fn put(&self, kind: &GroupKind, name: &ObjectName, object: Value) {
        if self.store.get(kind, &name.namespace, &name.name).is_none() {
            if let Err(error) = self.store.create(kind, object) {
                tracing::warn!(%kind, ?name, %error, "failed to create an object");
            }
            return;
        }
        let labels = object["metadata"]["labels"].clone();
        let Value::Object(fields) = object else { return };
        self.update(kind, name, |present| {
            present["metadata"]["labels"] = labels;
            for (field, value) in fields {
                if field != "metadata" {
                    present[field.as_str()] = value;
                }
            }
        });
    }
}

/// Pods that serve a service at other ports than the rest, as the two versions of a rollout may, are listed apart.
fn by_ports(backends: &[Backend]) -> Vec<(&[Value], Vec<&Backend>)> {
    let mut groups: Vec<(&[Value], Vec<&Backend>)> = Vec::new();
    for backend in backends {
        match groups.iter_mut().find(|(ports, _)| *ports == backend.ports.as_slice()) {
            Some((_, members)) => members.push(backend),
            None => groups.push((&backend.ports, vec![backend])),
        }
    }
    groups
}

/// The name of the n-th slice of a service.
fn slice_name(service: &Value, name: &ObjectName, index: usize) -> ObjectName {
    let collisions = i32::try_from(index).unwrap_or(i32::MAX);
    let uid = encode_hash(template_hash(&service["metadata"]["uid"]), collisions);
    let suffix: String = uid.chars().take(5).collect();
    name.sibling(&format!("{}-{suffix}", name.name))
}

/// Ports of a service as a pod serves them. A target port that the pod does not name is left out, as in Kubernetes.
fn endpoint_ports(service: &Value, pod: &Value) -> Vec<Value> {
    let named = ports::named(pod);
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let number = match ports::target(port)? {
                Target::Number(number) => number,
                Target::Named(name) => *named.get(&name)?,
            };
            let mut rendered = json!({
                "name": text(port, "/name").unwrap_or_default(),
                "port": number,
                "protocol": text(port, "/protocol").unwrap_or("TCP"),
            });
            if let Some(protocol) = port.get("appProtocol") {
                rendered["appProtocol"] = protocol.clone();
            }
            Some(rendered)
        })
        .collect()
}

fn slice(
    service: &Value,
    slice_name: &ObjectName,
    ports: &[Value],
    backends: &[&Backend],
    publish_not_ready: bool,
) -> Value {
    let endpoints: Vec<Value> = backends
        .iter()
        .map(|backend| {
            json!({
                "addresses": [backend.address],
                "conditions": {
                    "ready": backend.ready || publish_not_ready,
                    "serving": backend.serving,
                    "terminating": backend.terminating,
                },
                "nodeName": NODE_NAME,
                "targetRef": backend.reference,
            })
        })
        .collect();
    let service_name = text(service, "/metadata/name").unwrap_or_default();
    let mut labels = labels_of(service);
    labels["kubernetes.io/service-name"] = service_name.into();
    labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    let mut slice = json!({
        "metadata": {
            "name": &*slice_name.name,
            "namespace": &*slice_name.namespace,
            "generateName": format!("{service_name}-"),
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": service_name, "uid": service["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    });
    if text(service, "/spec/clusterIP") == Some("None") {
        slice["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into();
    }
    slice
}

/// Both kinds carry the labels of their service.
fn labels_of(service: &Value) -> Value {
    service.pointer("/metadata/labels").filter(|labels| labels.is_object()).cloned().unwrap_or_else(|| json!({}))
}

fn endpoints(
    service: &Value,
    name: &ObjectName,
    groups: &[(&[Value], Vec<&Backend>)],
    publish_not_ready: bool,
) -> Value {
    let mut labels = labels_of(service);
    labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
    // Without a port a pod is no address, but of a headless service that has none.
    let is_portless = service.pointer("/spec/ports").and_then(Value::as_array).is_none_or(Vec::is_empty);
    let needs_no_port = is_portless && text(service, "/spec/clusterIP") == Some("None");
    let subsets: Vec<Value> = groups
        .iter()
        .filter(|(ports, _)| needs_no_port || !ports.is_empty())
        .filter_map(|(ports, backends)| subset(ports, backends, publish_not_ready))
        .collect();
    json!({
        "metadata": {
            "name": &*name.name,
            "namespace": &*name.namespace,
            "labels": labels,
        },
        "subsets": subsets,
    })
}

fn subset(ports: &[Value], backends: &[&Backend], publish_not_ready: bool) -> Option<Value> {
    let (ready, not_ready): (Vec<&Backend>, Vec<&Backend>) =
        backends.iter().filter(|backend| !backend.terminating).partition(|backend| backend.ready || publish_not_ready);
    if ready.is_empty() && not_ready.is_empty() {
        return None;
    }
    let addresses = |backends: Vec<&Backend>| -> Vec<Value> {
        backends
            .into_iter()
            .map(|backend| json!({"ip": backend.address, "nodeName": NODE_NAME, "targetRef": backend.reference}))
            .collect()
    };
    let mut subset = json!({"ports": ports});
    for (field, backends) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        if !backends.is_empty() {
            subset[field] = addresses(backends).into();
        }
    }
    Some(subset)
}
