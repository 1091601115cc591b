//! DaemonSets.
//!
//! They have no replicas: one that must not run is given a node selector that no node fulfils. That selector is no part of
//! a revision, and neither a new primary nor a promoted one gets it (Flagger's new primary does, and has no pods then; Q25).

use std::collections::BTreeMap;

use aviary_crds::names::SCALE_TO_ZERO_SELECTOR;
use aviary_rollout::{PrimaryView, Returned, Scale, TargetView};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::workload::{Source, Workload};
use super::{DiscoveredPort, Selector, Target, TargetError, readiness, workload};
use crate::change::Change;
use crate::object::kinds;
use crate::{ObjectKind, Subject};

/// `apps/v1` DaemonSets.
#[derive(Clone, Copy, Debug)]
pub struct DaemonSetTarget;

/// The only update strategy with which a promotion reaches the pods.
const ROLLING_UPDATE: &str = "RollingUpdate";

impl Workload for DaemonSetTarget {
    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DAEMON_SET
    }

    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn carried_along(&self) -> &'static [&'static str] {
        &["minReadySeconds", "revisionHistoryLimit", "updateStrategy"]
    }

    fn template(&self, target: &DynamicObject) -> Value {
        let mut template = target.data.pointer("/spec/template").cloned().unwrap_or(Value::Null);
        if let Some(Value::Object(spec)) = template.get_mut("spec")
            && let Some(Value::Object(selector)) = spec.get_mut("nodeSelector")
            && selector.remove(SCALE_TO_ZERO_SELECTOR).is_some()
            && selector.is_empty()
        {
            spec.remove("nodeSelector");
        }
        template
    }

    fn check(&self, subject: &Subject, target: &DynamicObject) -> Result<(), TargetError> {
        match target.data.pointer("/spec/updateStrategy/type").and_then(Value::as_str) {
            None | Some("" | ROLLING_UPDATE) => Ok(()),
            Some(strategy) => Err(TargetError::UpdateStrategy {
                name: subject.canary.target.name.clone(),
                namespace: subject.namespace().to_owned(),
                strategy: strategy.to_owned(),
            }),
        }
    }
}

impl Target for DaemonSetTarget {
    fn kind(&self) -> &'static str {
        "DaemonSet"
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DAEMON_SET
    }

    fn observe(&self, subject: &Subject, _: Timestamp) -> Result<TargetView, TargetError> {
        let source = Source::read(&DaemonSetTarget, subject)?;
        let target = source.target();
        let name = &subject.canary.target.name;
        let readiness = readiness::daemon_set(target, subject.canary.analysis.canary_ready_threshold);
        Ok(TargetView {
            revision: source.revision(),
            configs: source.checksums(subject),
            scaled_to_zero: is_scaled_to_zero(target),
            readiness: readiness::explained(readiness, &format!("canary daemonset {name}.{}", subject.namespace())),
            available: available(target),
        })
    }

    fn observe_primary(&self, subject: &Subject, _: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let name = subject.canary.target.primary_name();
        let primary = subject.get(&kinds::DAEMON_SET, &name);
        // Read before the early return: the canary must be woken for whatever its primary is made from.
        let source = Source::read(&DaemonSetTarget, subject);
        let Some(primary) = primary else { return Ok(None) };
        let readiness = readiness::daemon_set(&primary, subject.canary.analysis.primary_ready_threshold);
        Ok(Some(PrimaryView {
            matches_target: source.is_ok_and(|source| source.matches(subject, &primary)),
            readiness: readiness::explained(readiness, &format!("primary daemonset {name}.{}", subject.namespace())),
            available: available(&primary),
        }))
    }

    fn waits_by_canary_deadline(&self) -> bool {
        true
    }

    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError> {
        Ok(Source::read(&DaemonSetTarget, subject)?.apply_primary(subject))
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        Source::read(&DaemonSetTarget, subject)?.promote(subject, revision, configs)
    }

    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError> {
        let target = workload::read_target(&DaemonSetTarget, subject)?;
        let to_zero = scale == Scale::Zero;
        if is_scaled_to_zero(&target) == to_zero {
            return Ok(Vec::new());
        }
        let mut selector = node_selector(&target).cloned().unwrap_or_default();
        if to_zero {
            selector.insert(SCALE_TO_ZERO_SELECTOR.to_owned(), json!("true"));
        } else {
            selector.remove(SCALE_TO_ZERO_SELECTOR);
        }
        let key = subject.key(&kinds::DAEMON_SET, &subject.canary.target.name);
        let selector = Value::Object(selector);
        Ok(Change::set_in_spec(key, &target, "/spec/template/spec/nodeSelector", selector).into_iter().collect())
    }

    fn returned(&self, subject: &Subject, _: Timestamp) -> Option<Returned> {
        let target = subject.get(&kinds::DAEMON_SET, &subject.canary.target.name)?;
        Some(Returned {
            is_short_of_pods: is_scaled_to_zero(&target),
            readiness: readiness::daemon_set(&target, subject.canary.analysis.canary_ready_threshold),
            available: available(&target),
        })
    }

    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        workload::selector(&DaemonSetTarget, subject)
    }

    fn discovered_ports(&self, subject: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        workload::discovered_ports(&DaemonSetTarget, subject)
    }
}

fn node_selector(object: &DynamicObject) -> Option<&Map<String, Value>> {
    object.data.pointer("/spec/template/spec/nodeSelector")?.as_object()
}

fn is_scaled_to_zero(object: &DynamicObject) -> bool {
    node_selector(object).is_some_and(|selector| selector.contains_key(SCALE_TO_ZERO_SELECTOR))
}

/// Available pods; none of one that is scaled to zero, whose pods are on their way out.
fn available(object: &DynamicObject) -> u32 {
    if is_scaled_to_zero(object) {
        return 0;
    }
    let available = object.data.pointer("/status/numberAvailable").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(available).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
