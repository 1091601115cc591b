//! Plain Services: what they select is released. The target itself is what users call, and is never touched; a mesh routes
//! its requests to two copies: `-canary` follows the target at once, `-primary` with a promotion.
//!
//! The copies are reached from inside the cluster only, whatever the target is. What the API server assigns to one service
//! (addresses, node ports) is not copied, nor is what others add to the copies touched. Nobody knows the pods: a service
//! counts as ready, as in Flagger. (Flagger writes the canary's copy at every tick; Q33.)

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_crds::names::LAST_APPLIED_ANNOTATION;
use aviary_rollout::{PrimaryView, Readiness, Returned, Scale, TargetView};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{DiscoveredPort, Selector, Target, TargetError, revision};
use crate::canonical::same;
use crate::change::Change;
use crate::object::kinds;
use crate::ownership::{Pairs, included_by_prefix, merge_pairs, new_object, without_toolkit};
use crate::{ObjectKind, Subject};

/// `v1` Services.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTarget;

const KIND: &str = "service";

/// Fields of the spec that are assigned to one service, or that only services reached from outside have.
const NOT_COPIED: [&str; 10] = [
    "clusterIP",
    "clusterIPs",
    "healthCheckNodePort",
    "externalIPs",
    "externalTrafficPolicy",
    "allocateLoadBalancerNodePorts",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "type",
];

/// Fields of the spec that a copy gets when it is made, and keeps: the API server refuses most changes.
const COPIED_ONCE: [&str; 2] = ["ipFamilies", "ipFamilyPolicy"];

/// Fields of the spec that go from the copies when they go from the target. Others may belong to somebody else.
const OWNED: [&str; 8] = [
    "selector",
    "ports",
    "externalName",
    "sessionAffinity",
    "sessionAffinityConfig",
    "publishNotReadyAddresses",
    "internalTrafficPolicy",
    "trafficDistribution",
];

impl Target for ServiceTarget {
    fn kind(&self) -> &'static str {
        "Service"
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::SERVICE
    }

    fn observe(&self, subject: &Subject, _: Timestamp) -> Result<TargetView, TargetError> {
        let target = read_target(subject)?;
        Ok(TargetView {
            revision: revision_of(&target),
            configs: None,
            scaled_to_zero: false,
            readiness: Readiness::Ready,
            available: 1,
        })
    }

    fn observe_primary(&self, subject: &Subject, _: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let primary = subject.get(&kinds::SERVICE, &subject.canary.target.primary_name());
        // Read before the early return: the canary must be woken for what its primary is made from.
        let target = read_target(subject);
        Ok(primary.map(|primary| PrimaryView {
            matches_target: target.is_ok_and(|target| routes_as(subject, &primary, &target)),
            readiness: Readiness::Ready,
            available: 1,
        }))
    }

    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError> {
        let target = read_target(subject)?;
        let name = subject.canary.target.primary_name();
        Ok(match subject.get(&kinds::SERVICE, &name) {
            None => vec![create(subject, &target, &name)],
            Some(primary) if routes_as(subject, &primary, &target) => Vec::new(),
            Some(primary) => update_primary(subject, &target, &primary),
        })
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        _: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        let target = read_target(subject)?;
        let present = revision_of(&target);
        if present != revision {
            return Err(TargetError::Superseded {
                kind: KIND,
                name: subject.canary.target.name.clone(),
                namespace: subject.namespace().to_owned(),
                what: format!("its revision is {present}, analysed was {revision}"),
            });
        }
        let name = subject.canary.target.primary_name();
        Ok(match subject.get(&kinds::SERVICE, &name) {
            None => vec![create(subject, &target, &name)],
            Some(primary) => update_primary(subject, &target, &primary),
        })
    }

    /// A service has no size.
    fn scale(&self, _: &Subject, _: Scale) -> Result<Vec<Change>, TargetError> {
        Ok(Vec::new())
    }

    fn returned(&self, subject: &Subject, _: Timestamp) -> Option<Returned> {
        subject.get(&kinds::SERVICE, &subject.canary.target.name)?;
        Some(Returned { is_short_of_pods: false, readiness: Readiness::Ready, available: 1 })
    }

    /// No service is generated that would need a label.
    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        Err(TargetError::Malformed {
            kind: KIND,
            name: subject.canary.target.name.clone(),
            namespace: subject.namespace().to_owned(),
            cause: "a service selects its pods itself".into(),
        })
    }

    fn discovered_ports(&self, _: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        Ok(Vec::new())
    }
}

/// Creates the canary's copy of the target, or brings it to the target as it is.
pub(crate) fn reconcile_canary(subject: &Subject) -> Result<Option<Change>, TargetError> {
    let target = read_target(subject)?;
    let name = subject.canary.service.canary_name();
    let Some(present) = subject.get(&kinds::SERVICE, &name) else { return Ok(Some(create(subject, &target, &name))) };
    let mut desired = updated(subject, &target, &present);
    merge_pairs(&mut desired.metadata.labels, without_toolkit(target.metadata.labels.as_ref()));
    merge_pairs(&mut desired.metadata.annotations, annotations(&target));
    Ok(Change::update(subject.key(&kinds::SERVICE, &name), &present, &desired))
}

fn read_target(subject: &Subject) -> Result<Arc<DynamicObject>, TargetError> {
    let name = &subject.canary.target.name;
    subject.get(&kinds::SERVICE, name).ok_or_else(|| TargetError::NotFound {
        kind: KIND,
        name: name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: kinds::SERVICE.not_found(name),
    })
}

fn create(subject: &Subject, target: &DynamicObject, name: &str) -> Change {
    let mut spec = carried(target);
    override_distribution(subject, &mut spec);
    for field in COPIED_ONCE {
        if let Some(value) = target.data.pointer(&format!("/spec/{field}")) {
            spec.insert(field.into(), value.clone());
        }
    }
    if target.data.pointer("/spec/clusterIP").and_then(Value::as_str) == Some("None") {
        spec.insert("clusterIP".into(), "None".into());
    }
    let mut object = new_object(subject, &kinds::SERVICE, name, json!({"spec": spec}));
    merge_pairs(&mut object.metadata.labels, without_toolkit(target.metadata.labels.as_ref()));
    merge_pairs(&mut object.metadata.annotations, annotations(target));
    Change::create(subject.key(&kinds::SERVICE, name), object)
}

fn update_primary(subject: &Subject, target: &DynamicObject, primary: &DynamicObject) -> Vec<Change> {
    let prefixes = &subject.settings.include_label_prefixes;
    let mut desired = updated(subject, target, primary);
    merge_pairs(&mut desired.metadata.labels, included_by_prefix(target.metadata.labels.as_ref(), prefixes));
    let mut included = included_by_prefix(target.metadata.annotations.as_ref(), prefixes);
    included.remove(LAST_APPLIED_ANNOTATION);
    merge_pairs(&mut desired.metadata.annotations, included);
    let key = subject.key(&kinds::SERVICE, &subject.canary.target.primary_name());
    Change::update(key, primary, &desired).into_iter().collect()
}

/// The copy with the spec that the target has now.
fn updated(subject: &Subject, target: &DynamicObject, copy: &DynamicObject) -> DynamicObject {
    let mut desired = copy.clone();
    if routes_as(subject, copy, target) {
        return desired;
    }
    let mut wanted = carried(target);
    override_distribution(subject, &mut wanted);
    if let Some(spec) = desired.data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| !OWNED.contains(&field.as_str()) || wanted.contains_key(field));
        spec.extend(wanted);
    }
    desired
}

/// Whether a copy has what the target says now.
fn routes_as(subject: &Subject, copy: &DynamicObject, target: &DynamicObject) -> bool {
    let mut wanted = carried(target);
    override_distribution(subject, &mut wanted);
    let mut present = carried(copy);
    present.retain(|field, _| OWNED.contains(&field.as_str()) || wanted.contains_key(field));
    same(&Value::Object(present), &Value::Object(wanted))
}

/// The part of a spec that the copies carry.
fn carried(service: &DynamicObject) -> Map<String, Value> {
    let mut spec = service.data.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let is_alias = spec.get("type").and_then(Value::as_str) == Some("ExternalName");
    spec.retain(|field, _| !NOT_COPIED.contains(&field.as_str()) && !COPIED_ONCE.contains(&field.as_str()));
    spec.insert("type".into(), if is_alias { "ExternalName" } else { "ClusterIP" }.into());
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
    spec
}

fn override_distribution(subject: &Subject, spec: &mut Map<String, Value>) {
    if let Some(distribution) = &subject.canary.service.traffic_distribution {
        spec.insert("trafficDistribution".into(), distribution.clone().into());
    }
}

fn revision_of(target: &DynamicObject) -> String {
    revision::revision_of(&Value::Object(carried(target)))
}

fn annotations(target: &DynamicObject) -> Pairs {
    let mut annotations = without_toolkit(target.metadata.annotations.as_ref());
    annotations.remove(LAST_APPLIED_ANNOTATION);
    annotations
}

#[cfg(test)]
mod tests;
