//! The generated ClusterIP services: `<apex>-canary` selects the target's pods, `<apex>-primary` and `<apex>` those of
//! the primary.
//!
//! On a service that exists, ports and selector are always put right. Labels and annotations are put right only where
//! the canary owns the service, except for the keys in `spec.service.unmanagedMetadata`. Everything else (type, cluster
//! IP, traffic distribution, fields nobody here knows) stays as it is found.

use aviary_crds::names::PRIMARY_SUFFIX;
use aviary_crds::service::CustomMetadata;
use aviary_crds::validated::TargetKind;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::object::kinds;
use crate::ownership::{
    Pairs, flux_annotations, is_controlled_by, last_applied, merge_pairs, new_object, remove_flux_annotations,
};
use crate::targets::{self, DiscoveredPort, Selector, TargetError};

/// Creates or repairs the `-canary` and `-primary` services. Of a Service target both are copies; here it is the canary's, the
/// other one is its primary.
pub fn reconcile_sides(subject: &Subject) -> Result<Vec<Change>, TargetError> {
    if subject.canary.target.kind == TargetKind::Service {
        return Ok(targets::service::reconcile_canary(subject)?.into_iter().collect());
    }
    let Some(target) = ServiceTarget::read(subject)? else { return Ok(Vec::new()) };
    let service = &subject.canary.service;
    let Selector { value, .. } = &target.selector;
    let sides = [
        target.reconcile(subject, &service.canary_name(), value, &service.canary_metadata),
        target.reconcile(subject, &service.primary_name(), &target.selector.primary_value(), &service.primary_metadata),
    ];
    Ok(sides.into_iter().flatten().collect())
}

/// Creates, adopts or repairs the apex service. Nothing to do for Service targets.
pub fn reconcile_apex(subject: &Subject) -> Result<Vec<Change>, TargetError> {
    let Some(target) = ServiceTarget::read(subject)? else { return Ok(Vec::new()) };
    let service = &subject.canary.service;
    let change = target.reconcile(subject, service.apex(), &target.selector.primary_value(), &service.apex_metadata);
    Ok(change.into_iter().collect())
}

/// Makes an apex service that was there before the canary select the target's pods again: what `kubectl apply` says, or
/// else the target's label. One that goes with the canary is left alone. As in Flagger, nothing but the selector is put
/// back, apart from what keeps Flux away.
pub fn revert_apex(subject: &Subject) -> Vec<Change> {
    if !is_generated(subject) {
        return Vec::new();
    }
    let apex = subject.canary.service.apex();
    let Some(present) = subject.get(&kinds::SERVICE, apex) else { return Vec::new() };
    if is_controlled_by(&present, &subject.canary.key) {
        return Vec::new();
    }
    let selector = present.data.pointer("/spec/selector");
    let wanted = last_applied(&present)
        .and_then(|applied| applied.pointer("/spec/selector").cloned())
        .or_else(|| {
            let selector = targets::for_subject(subject).ok()?.selector(subject).ok()?;
            Some(json!({selector.key: selector.value}))
        })
        .or_else(|| selector.map(without_primary_suffix));
    let mut desired = (*present).clone();
    if let Some(wanted) = wanted.filter(|wanted| !same_or_absent(selector, Some(wanted)))
        && let Some(spec) = desired.data.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.insert("selector".into(), wanted);
    }
    remove_flux_annotations(&mut desired);
    Change::update(subject.key(&kinds::SERVICE, apex), &present, &desired).into_iter().collect()
}

/// What the selector was, as far as it tells; the target is gone.
fn without_primary_suffix(selector: &Value) -> Value {
    let mut selector = selector.clone();
    for value in selector.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(name) = value.as_str().and_then(|name| name.strip_suffix(PRIMARY_SUFFIX)) {
            *value = Value::String(name.to_owned());
        }
    }
    selector
}

/// Whether services are made from pods here: a Service target brings its own, and so does whoever makes both workloads.
fn is_generated(subject: &Subject) -> bool {
    !matches!(subject.canary.target.kind, TargetKind::Service | TargetKind::DeploymentPair)
}

/// What services need to know about the workload.
struct ServiceTarget {
    selector: Selector,
    ports: Vec<Value>,
}

impl ServiceTarget {
    fn read(subject: &Subject) -> Result<Option<ServiceTarget>, TargetError> {
        if !is_generated(subject) {
            return Ok(None);
        }
        let target = targets::for_subject(subject)?;
        let selector = target.selector(subject)?;
        let ports = ports(subject, target.discovered_ports(subject)?);
        Ok(Some(ServiceTarget { selector, ports }))
    }

    fn reconcile(&self, subject: &Subject, name: &str, pods: &str, metadata: &CustomMetadata) -> Option<Change> {
        let key = subject.key(&kinds::SERVICE, name);
        let selector = json!({self.selector.key.clone(): pods});
        let mut labels = metadata.labels.clone();
        labels.insert(self.selector.key.clone(), name.to_owned());
        let mut annotations = metadata.annotations.clone();
        annotations.extend(flux_annotations());

        let Some(present) = subject.get(&kinds::SERVICE, name) else {
            let mut object = new_object(subject, &kinds::SERVICE, name, json!({"spec": self.spec(subject, selector)}));
            object.metadata.labels = Some(labels);
            object.metadata.annotations = Some(annotations);
            return Some(Change::create(key, object));
        };

        let repairs = self.repairs(&present, selector);
        let is_owned = is_controlled_by(&present, &subject.canary.key);
        let (present_labels, present_annotations) = (&present.metadata.labels, &present.metadata.annotations);
        if is_owned {
            let unmanaged = &subject.canary.service.unmanaged_metadata;
            labels = managed(labels, present_labels.as_ref(), &unmanaged.labels);
            annotations = managed(annotations, present_annotations.as_ref(), &unmanaged.annotations);
        }
        let metadata_differs = is_owned
            && (present_labels.as_ref() != Some(&labels) || present_annotations.as_ref() != Some(&annotations));
        // The usual case, at every look at every canary: nothing is copied for it.
        if repairs.is_empty() && !metadata_differs {
            return None;
        }
        let mut desired = (*present).clone();
        let spec_changed = !repairs.is_empty();
        if let Some(spec) = desired.data.get_mut("spec").and_then(Value::as_object_mut) {
            spec.extend(repairs);
        }
        if is_owned {
            desired.metadata.labels = Some(labels);
            desired.metadata.annotations = Some(annotations);
        } else if spec_changed {
            merge_pairs(&mut desired.metadata.annotations, flux_annotations().into());
        }
        Change::update(key, &present, &desired)
    }

    fn spec(&self, subject: &Subject, selector: Value) -> Map<String, Value> {
        let service = &subject.canary.service;
        let mut spec = Map::new();
        spec.insert("type".into(), "ClusterIP".into());
        spec.insert("selector".into(), selector);
        spec.insert("ports".into(), Value::Array(self.ports.clone()));
        if service.headless {
            spec.insert("clusterIP".into(), "None".into());
        }
        if let Some(distribution) = &service.traffic_distribution {
            spec.insert("trafficDistribution".into(), distribution.clone().into());
        }
        spec
    }

    /// The fields of the spec to replace; none if ports and selector are as they should be.
    fn repairs(&self, service: &DynamicObject, selector: Value) -> Map<String, Value> {
        let present_ports = service.data.pointer("/spec/ports").and_then(Value::as_array);
        let present_ports = present_ports.map_or(&[][..], Vec::as_slice);
        let ports: Vec<Value> = self.ports.iter().map(|port| with_node_port(port, present_ports)).collect();
        let ports_differ = ports != present_ports
            && !same_or_absent(Some(&by_number(present_ports.to_vec())), Some(&by_number(ports.clone())));
        let selector_differs = !same_or_absent(service.data.pointer("/spec/selector"), Some(&selector));
        let mut repairs = Map::new();
        if ports_differ {
            repairs.insert("ports".into(), Value::Array(ports));
        }
        if ports_differ || selector_differs {
            repairs.insert("selector".into(), selector);
        }
        repairs
    }
}

/// The declared entries, with unmanaged keys as they are found: neither changed, nor added, nor removed.
fn managed(declared: Pairs, present: Option<&Pairs>, unmanaged: &[String]) -> Pairs {
    let mut pairs = declared;
    for key in unmanaged {
        match present.and_then(|present| present.get(key)) {
            Some(value) => pairs.insert(key.clone(), value.clone()),
            None => pairs.remove(key),
        };
    }
    pairs
}

/// The port of `spec.service`, then the discovered ones.
fn ports(subject: &Subject, discovered: Vec<DiscoveredPort>) -> Vec<Value> {
    let service = &subject.canary.service;
    let target_port = match &service.target_port {
        IntOrString::Int(number) => json!(number),
        IntOrString::String(name) => json!(name),
    };
    let mut first = json!({
        "name": service.port_name,
        "protocol": "TCP",
        "port": service.port,
        "targetPort": target_port,
    });
    if let Some(protocol) = &service.app_protocol {
        first["appProtocol"] = protocol.clone().into();
    }
    let mut ports = vec![first];
    for port in discovered {
        // A service has each number and each name once; Flagger's would be refused by the API server.
        if ports.iter().any(|other| other["port"] == port.port) {
            continue;
        }
        let is_taken = ports.iter().any(|other| other["name"] == port.name.as_str());
        let name = if is_taken { format!("tcp-{}", port.port) } else { port.name };
        ports.push(json!({"name": name, "protocol": "TCP", "port": port.port, "targetPort": port.port}));
    }
    ports
}

/// The port with the node port that it already has, found by name or else by number.
fn with_node_port(port: &Value, present: &[Value]) -> Value {
    let by =
        |field: &str| present.iter().find(|other| other.get(field).is_some() && other.get(field) == port.get(field));
    let mut port = port.clone();
    if let Some(node_port) = by("name").or_else(|| by("port")).and_then(|other| other.get("nodePort")) {
        port["nodePort"] = node_port.clone();
    }
    port
}

/// The order of ports means nothing.
fn by_number(mut ports: Vec<Value>) -> Value {
    ports.sort_by_key(|port| port.get("port").and_then(Value::as_i64));
    Value::Array(ports)
}

#[cfg(test)]
mod tests;
