//! The Service Mesh Interface: a TrafficSplit named like the apex service, as Linkerd, Open Service Mesh and Crossover read it.
//!
//! Aviary owns `service` and `backends`, and of a backend its name and weight; everything else of the object belongs to others
//! and survives. Flagger sends everybody back to the primary when somebody else edits the object, cuts what it does not know
//! and takes only weights that sum to 100; Aviary does not. A TrafficSplit has weights and nothing else, so conditions, copies
//! and cookies are refused.

mod weight;

pub use weight::thousandths;

use std::sync::Arc;

use aviary_crds::names::{LAST_APPLIED_ANNOTATION, ORIGINAL_CONFIGURATION_ANNOTATION};
use aviary_crds::validated::ValidatedCanary;
use aviary_rollout::{Capabilities, Split};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::istio::{DURATION, SUCCESS_RATE};
use super::{TrafficError, TrafficProvider};
use crate::Subject;
use crate::change::Change;
use crate::metrics::BuiltinMetric;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{
    flux_annotations, former_spec, is_controlled_by, merge_pairs, new_mesh_object, remove_flux_annotations,
};

/// TrafficSplits of one version.
#[derive(Clone, Copy, Debug)]
pub struct Smi {
    name: &'static str,
    kind: &'static ObjectKind,
    watched: &'static [&'static ObjectKind],
    /// The first version writes weights as quantities, the later ones as numbers.
    has_quantities: bool,
}

/// `smi:crossover`: Flagger up to 1.7 wrote the first version for Crossover's guide; later ones take the name for `istio`.
pub static CROSSOVER: Smi = of_version("smi:crossover", &[&kinds::TRAFFIC_SPLIT_V1ALPHA1], true);
/// `smi:v1alpha1`.
pub static V1ALPHA1: Smi = of_version("smi:v1alpha1", &[&kinds::TRAFFIC_SPLIT_V1ALPHA1], true);
/// `smi:v1alpha2`.
pub static V1ALPHA2: Smi = of_version("smi:v1alpha2", &[&kinds::TRAFFIC_SPLIT_V1ALPHA2], false);
/// `smi:v1alpha3`.
pub static V1ALPHA3: Smi = of_version("smi:v1alpha3", &[&kinds::TRAFFIC_SPLIT_V1ALPHA3], false);

const fn of_version(name: &'static str, kind: &'static [&'static ObjectKind; 1], has_quantities: bool) -> Smi {
    Smi { name, kind: kind[0], watched: kind, has_quantities }
}

const KIND: &str = "TrafficSplit";

/// Where Istio's adapter for the interface looks for gateways, a list in JSON.
const GATEWAYS_ANNOTATION: &str = "VirtualService.v1alpha3.networking.istio.io/spec.gateways";

impl TrafficProvider for Smi {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Also with the mesh behind it, `smi:v1alpha1:linkerd`.
    fn is_called(&self, name: &str) -> bool {
        name.strip_prefix(self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    fn capabilities(&self, _: &ValidatedCanary) -> Capabilities {
        Capabilities { weights: true, matching: false, mirroring: false, sessions: false }
    }

    fn refusals(&self, canary: &ValidatedCanary) -> Vec<String> {
        let analysis = &canary.analysis;
        if canary.skip_analysis {
            return Vec::new();
        }
        let mut refusals = Vec::new();
        let mut refuse = |field: &str, value: &str| {
            refusals.push(format!(
                "spec.analysis.{field}: {value} is not supported by provider {}, whose TrafficSplit has weights only; remove \
                 it, or set spec.provider to one that can",
                self.name
            ));
        };
        match analysis.matches.len() {
            0 => {}
            1 => refuse("match", "an A/B test with 1 condition"),
            count => refuse("match", &format!("an A/B test with {count} conditions")),
        }
        if analysis.mirror {
            refuse("mirror", "true");
        }
        if let Some(affinity) = &analysis.session_affinity {
            refuse("sessionAffinity.cookieName", &affinity.cookie_name);
        }
        refusals
    }

    fn reconcile(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        let change = match self.read(subject) {
            None => Some(self.create(subject, split)),
            Some(present) => self.repair(subject, &present, split),
        };
        Ok(change.into_iter().collect())
    }

    fn observed(&self, subject: &Subject) -> Result<Split, TrafficError> {
        let present = self.existing(subject)?;
        let sides = Sides::of(subject);
        let (primary, canary) = weight::of_sides(backends(&present), &sides).ok_or_else(|| TrafficError::NoRoutes {
            kind: KIND,
            name: sides.apex.clone(),
            namespace: subject.namespace().to_owned(),
            apex: sides.apex.clone(),
        })?;
        weight::split(primary, canary).ok_or_else(|| TrafficError::Impossible {
            kind: KIND,
            name: sides.apex,
            namespace: subject.namespace().to_owned(),
            problem: "weights are not whole percents of their sum".into(),
        })
    }

    fn set(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        let present = self.existing(subject)?;
        let sides = Sides::of(subject);
        let mut desired = (*present).clone();
        set_field(&mut desired, "backends", Value::Array(self.with_split(backends(&present), &sides, split)));
        Ok(Change::update(self.key(subject), &present, &desired).into_iter().collect())
    }

    /// One that the user made gets the spec back that it had (Flagger leaves it with services that are gone). The others go
    /// with the canary.
    fn revert(&self, subject: &Subject) -> Vec<Change> {
        let Some(present) = self.read(subject) else { return Vec::new() };
        let Some(spec) = former_spec(&present) else { return Vec::new() };
        let mut desired = (*present).clone();
        desired.data["spec"] = spec;
        if let Some(annotations) = &mut desired.metadata.annotations {
            annotations.remove(ORIGINAL_CONFIGURATION_ANNOTATION);
        }
        remove_flux_annotations(&mut desired);
        Change::update(self.key(subject), &present, &desired).into_iter().collect()
    }

    /// Those of Istio, as in Flagger: the interface says nothing of metrics. Other meshes need a MetricTemplate.
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
        self.watched
    }
}

impl Smi {
    fn key(&self, subject: &Subject) -> crate::ObjectKey {
        subject.key(self.kind, subject.canary.service.apex())
    }

    fn read(&self, subject: &Subject) -> Option<Arc<DynamicObject>> {
        subject.get(self.kind, subject.canary.service.apex())
    }

    fn existing(&self, subject: &Subject) -> Result<Arc<DynamicObject>, TrafficError> {
        let name = subject.canary.service.apex();
        self.read(subject).ok_or_else(|| TrafficError::NotFound {
            kind: KIND,
            name: name.to_owned(),
            namespace: subject.namespace().to_owned(),
            cause: self.kind.not_found(name),
        })
    }

    fn create(&self, subject: &Subject, split: Split) -> Change {
        let sides = Sides::of(subject);
        let spec = json!({"service": root(subject), "backends": self.with_split(&[], &sides, split)});
        let mut object = new_mesh_object(subject, self.kind, &sides.apex, json!({"spec": spec}));
        self.merge_annotations(subject, &mut object);
        Change::create(self.key(subject), object)
    }

    fn repair(&self, subject: &Subject, present: &DynamicObject, split: Split) -> Option<Change> {
        let sides = Sides::of(subject);
        let found = backends(present);
        let weights = weight::of_sides(found, &sides);
        // A third backend gets a part of the requests that nobody analyses.
        let split = weights.and_then(|(primary, canary)| weight::split(primary, canary)).unwrap_or(split);
        let mut desired = present.clone();
        set_field(&mut desired, "service", root(subject).into());
        set_field(&mut desired, "backends", Value::Array(self.with_split(found, &sides, split)));
        let is_kept_by_kubectl =
            present.metadata.annotations.iter().flatten().any(|(key, _)| key == LAST_APPLIED_ANNOTATION);
        let was_somebody_elses =
            !is_kept_by_kubectl && weights.is_none() && !is_controlled_by(present, &subject.canary.key);
        if was_somebody_elses {
            let original = present.data.get("spec").unwrap_or(&Value::Null).to_string();
            let annotations = desired.metadata.annotations.get_or_insert_default();
            annotations.entry(ORIGINAL_CONFIGURATION_ANNOTATION.into()).or_insert(original);
        }
        self.merge_annotations(subject, &mut desired);
        Change::update(self.key(subject), present, &desired)
    }

    /// The backends with the weights of a split, as they stand where they mean that already.
    fn with_split(&self, found: &[Value], sides: &Sides, split: Split) -> Vec<Value> {
        let weights = weight::of_sides(found, sides);
        let is_split = weights.is_some_and(|(primary, canary)| weight::split(primary, canary) == Some(split));
        if is_split && found.len() == 2 {
            return found.to_vec();
        }
        // Flagger's order.
        [(&sides.canary, split.canary), (&sides.primary, split.primary)]
            .into_iter()
            .map(|(service, weight)| {
                let mut backend = found.iter().find(|backend| is_of(backend, service)).cloned();
                let weight = if self.has_quantities { json!(weight.to_string()) } else { json!(weight) };
                match backend.as_mut().and_then(Value::as_object_mut) {
                    Some(fields) => {
                        fields.insert("weight".into(), weight);
                        Value::Object(std::mem::take(fields))
                    }
                    None => json!({"service": service, "weight": weight}),
                }
            })
            .collect()
    }

    fn merge_annotations(&self, subject: &Subject, object: &mut DynamicObject) {
        let mut annotations: crate::ownership::Pairs = flux_annotations().into();
        let gateways = &subject.canary.service.gateways;
        let mesh = subject.provider_name().strip_prefix(self.name).and_then(|rest| rest.strip_prefix(':'));
        if mesh == Some("istio") && !gateways.is_empty() {
            annotations.insert(GATEWAYS_ANNOTATION.into(), json!(gateways).to_string());
        }
        merge_pairs(&mut object.metadata.annotations, annotations);
    }
}

/// Names of the three services.
struct Sides {
    apex: String,
    primary: String,
    canary: String,
}

impl Sides {
    fn of(subject: &Subject) -> Sides {
        let service = &subject.canary.service;
        Sides { apex: service.apex().to_owned(), primary: service.primary_name(), canary: service.canary_name() }
    }
}

/// The service whose requests are split.
fn root<'a>(subject: &'a Subject) -> &'a str {
    let service = &subject.canary.service;
    service.hosts.first().map_or_else(|| service.apex(), String::as_str)
}

fn backends(object: &DynamicObject) -> &[Value] {
    object.data.pointer("/spec/backends").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_of(backend: &Value, service: &str) -> bool {
    backend.get("service").and_then(Value::as_str) == Some(service)
}

fn set_field(object: &mut DynamicObject, field: &str, wanted: Value) {
    let Some(data) = object.data.as_object_mut() else { return };
    let spec = data.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    if let Some(spec) = spec.as_object_mut() {
        spec.insert(field.into(), wanted);
    }
}

#[cfg(test)]
mod tests;
