//! Istio: a VirtualService named like the apex service, and a DestinationRule for each side.
//!
//! Aviary owns `hosts`, `gateways` and the routes of its protocol; on a VirtualService that was there before it takes
//! them over, after keeping the former spec in an annotation. Within a route of its own it owns [`routes::OWNED`];
//! other fields of the route, of the spec and of the metadata belong to others and survive. (Flagger sometimes leaks the
//! selector label of the apex service to the VirtualService. Aviary does not, but leaves it where it finds it.)

mod destination_rule;
mod revert;
mod routes;
mod sessions;

use std::sync::Arc;

use aviary_crds::names::{LAST_APPLIED_ANNOTATION, ORIGINAL_CONFIGURATION_ANNOTATION};
use aviary_crds::validated::ValidatedCanary;
use aviary_rollout::{Capabilities, Split};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{TrafficError, TrafficProvider};
use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::metrics::BuiltinMetric;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{flux_annotations, is_controlled_by, merge_pairs, new_mesh_object};
use routes::Sides;

/// Istio.
#[derive(Clone, Copy, Debug)]
pub struct Istio;

const KIND: &str = "VirtualService";

static WATCHED: [&ObjectKind; 2] = [&kinds::VIRTUAL_SERVICE, &kinds::DESTINATION_RULE];

pub(super) const SUCCESS_RATE: &str = r#"sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}",response_code!~"5.*"}[{{ interval }}])) / sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) * 100"#;

pub(super) const DURATION: &str = r#"histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) by (le))"#;

impl TrafficProvider for Istio {
    fn name(&self) -> &'static str {
        "istio"
    }

    fn capabilities(&self, canary: &ValidatedCanary) -> Capabilities {
        match protocol(canary) {
            Protocol::Http => Capabilities::ALL,
            // A TCP route has weights and ports, and nothing else.
            Protocol::Tcp => Capabilities { weights: true, matching: false, mirroring: false, sessions: false },
        }
    }

    fn reconcile(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        let present = read(subject);
        let rules = destination_rule::reconcile(subject);
        let hosts = hosts(subject)?;
        let mut changes = rules;
        match present {
            None => changes.push(create(subject, hosts, split)),
            Some(present) => changes.extend(repair(subject, &present, hosts, split)),
        }
        Ok(changes)
    }

    fn observed(&self, subject: &Subject) -> Result<Split, TrafficError> {
        let present = existing(subject)?;
        let sides = Sides::of(subject);
        let routes = routes::list(&present.data, protocol(subject.canary));
        let found = routes::weights(routes, &sides).ok_or_else(|| no_routes(subject))?;
        let split = found.split().ok_or_else(|| TrafficError::Impossible {
            kind: KIND,
            name: sides.apex.clone(),
            namespace: subject.namespace().to_owned(),
            problem: format!("weights {} and {} do not sum to 100", found.primary, found.canary),
        })?;
        Ok(split)
    }

    fn set(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        let present = existing(subject)?;
        let protocol = protocol(subject.canary);
        let sides = Sides::of(subject);
        let found = routes::list(&present.data, protocol);
        let rendered = routes::render(subject, &sides, split);
        let wanted = if !routes::has_shape_of(found, &rendered) {
            rendered
        } else if subject.canary.sessions().is_some() {
            // Conditions and headers of such routes change with the weights.
            routes::overlaid(subject, found, rendered, &sides)
        } else {
            routes::with_split(subject, found, &sides, split)
        };
        let mut desired = (*present).clone();
        set_field(&mut desired.data, protocol.field(), Some(Value::Array(wanted)));
        let key = subject.key(&kinds::VIRTUAL_SERVICE, &sides.apex);
        Ok(Change::update(key, &present, &desired).into_iter().collect())
    }

    fn revert(&self, subject: &Subject) -> Vec<Change> {
        revert::revert(subject).into_iter().collect()
    }

    fn builtin_query(&self, _: &ValidatedCanary, metric: BuiltinMetric) -> &'static str {
        match metric {
            BuiltinMetric::RequestSuccessRate => SUCCESS_RATE,
            BuiltinMetric::RequestDuration => DURATION,
        }
    }

    fn groups_builtin_queries(&self, _: &ValidatedCanary) -> bool {
        true
    }

    fn watched(&self) -> &'static [&'static ObjectKind] {
        &WATCHED
    }
}

/// Which list of routes is Aviary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Tcp,
}

impl Protocol {
    fn field(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
        }
    }

    fn other(self) -> Protocol {
        match self {
            Protocol::Http => Protocol::Tcp,
            Protocol::Tcp => Protocol::Http,
        }
    }
}

fn protocol(canary: &ValidatedCanary) -> Protocol {
    let is_tcp = canary.service.app_protocol.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("tcp"));
    if is_tcp { Protocol::Tcp } else { Protocol::Http }
}

/// `hosts` and `gateways` of the VirtualService; a delegate has neither.
#[derive(Clone, Debug, Default)]
struct Hosts {
    hosts: Option<Value>,
    gateways: Option<Value>,
}

fn hosts(subject: &Subject) -> Result<Hosts, TrafficError> {
    let service = &subject.canary.service;
    if service.delegation {
        if service.hosts.is_empty() && service.gateways.is_empty() {
            return Ok(Hosts::default());
        }
        return Err(TrafficError::Impossible {
            kind: KIND,
            name: service.apex().to_owned(),
            namespace: subject.namespace().to_owned(),
            problem: "cannot have hosts and gateways when delegation enabled".into(),
        });
    }
    let mut hosts = service.hosts.clone();
    if !hosts.iter().any(|host| host == service.apex() || host == "*") {
        hosts.push(service.apex().to_owned());
    }
    let gateways = if service.gateways.is_empty() { json!(["mesh"]) } else { json!(service.gateways) };
    Ok(Hosts { hosts: Some(json!(hosts)), gateways: Some(gateways) })
}

fn read(subject: &Subject) -> Option<Arc<DynamicObject>> {
    subject.get(&kinds::VIRTUAL_SERVICE, subject.canary.service.apex())
}

fn existing(subject: &Subject) -> Result<Arc<DynamicObject>, TrafficError> {
    let name = subject.canary.service.apex();
    read(subject).ok_or_else(|| TrafficError::NotFound {
        kind: KIND,
        name: name.to_owned(),
        namespace: subject.namespace().to_owned(),
        cause: kinds::VIRTUAL_SERVICE.not_found(name),
    })
}

fn no_routes(subject: &Subject) -> TrafficError {
    let apex = subject.canary.service.apex().to_owned();
    TrafficError::NoRoutes { kind: KIND, name: apex.clone(), namespace: subject.namespace().to_owned(), apex }
}

fn create(subject: &Subject, hosts: Hosts, split: Split) -> Change {
    let sides = Sides::of(subject);
    let mut spec = Map::new();
    spec.extend(hosts.hosts.map(|hosts| ("hosts".to_owned(), hosts)));
    spec.extend(hosts.gateways.map(|gateways| ("gateways".to_owned(), gateways)));
    spec.insert(protocol(subject.canary).field().into(), Value::Array(routes::render(subject, &sides, split)));
    let mut object = new_mesh_object(subject, &kinds::VIRTUAL_SERVICE, &sides.apex, json!({"spec": spec}));
    merge_metadata(subject, &mut object);
    Change::create(subject.key(&kinds::VIRTUAL_SERVICE, &sides.apex), object)
}

fn repair(subject: &Subject, present: &DynamicObject, hosts: Hosts, split: Split) -> Option<Change> {
    let sides = Sides::of(subject);
    let protocol = protocol(subject.canary);
    let found = routes::list(&present.data, protocol);
    let split_found = routes::weights(found, &sides).and_then(routes::Weights::split);

    let mut desired = present.clone();
    set_field(&mut desired.data, "hosts", hosts.hosts);
    set_field(&mut desired.data, "gateways", hosts.gateways);
    let others = routes::foreign(routes::list(&present.data, protocol.other()), &sides);
    set_field(&mut desired.data, protocol.other().field(), (!others.is_empty()).then_some(Value::Array(others)));
    let as_found =
        split_found.map(|split| routes::overlaid(subject, found, routes::render(subject, &sides, split), &sides));
    let routes = match as_found {
        // Nothing is wrong with the routes but, perhaps, the weights. They are not judged here.
        Some(routes) if same_or_absent(Some(&json!(routes)), Some(&json!(found))) => found.to_vec(),
        _ => routes::overlaid(subject, found, routes::render(subject, &sides, split), &sides),
    };
    set_field(&mut desired.data, protocol.field(), Some(Value::Array(routes)));

    let spec_differs = desired.data != present.data;
    merge_metadata(subject, &mut desired);
    if spec_differs && was_somebody_elses(subject, present, split_found) {
        let original = present.data.get("spec").unwrap_or(&Value::Null).to_string();
        let annotations = desired.metadata.annotations.get_or_insert_default();
        annotations.entry(ORIGINAL_CONFIGURATION_ANNOTATION.into()).or_insert(original);
    }
    Change::update(subject.key(&kinds::VIRTUAL_SERVICE, &sides.apex), present, &desired)
}

/// Whether the spec is one to go back to when the canary is deleted: not made by Aviary or Flagger, and not kept by
/// `kubectl apply` already.
fn was_somebody_elses(subject: &Subject, present: &DynamicObject, split_found: Option<Split>) -> bool {
    let kept_by_kubectl = present.metadata.annotations.iter().flatten().any(|(key, _)| key == LAST_APPLIED_ANNOTATION);
    !kept_by_kubectl && split_found.is_none() && !is_controlled_by(present, &subject.canary.key)
}

fn merge_metadata(subject: &Subject, object: &mut DynamicObject) {
    let metadata = &subject.canary.service.apex_metadata;
    merge_pairs(&mut object.metadata.labels, metadata.labels.clone());
    let mut annotations = metadata.annotations.clone();
    annotations.extend(flux_annotations());
    merge_pairs(&mut object.metadata.annotations, annotations);
}

/// Writes a field of the spec unless it already means the same.
fn set_field(data: &mut Value, field: &str, wanted: Option<Value>) {
    let Some(object) = data.as_object_mut() else { return };
    let spec = object.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    let Some(spec) = spec.as_object_mut() else { return };
    if same_or_absent(spec.get(field), wanted.as_ref()) {
        return;
    }
    match wanted {
        Some(value) => spec.insert(field.into(), value),
        None => spec.remove(field),
    };
}

#[cfg(test)]
mod tests;
