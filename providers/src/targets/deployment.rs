//! Deployments.

use std::collections::BTreeMap;

use aviary_rollout::{PrimaryView, Readiness, Returned, Scale, TargetView};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::pod_template::rename_spread_selectors;
use super::workload::{Source, Workload};
use super::{DiscoveredPort, Selector, Target, TargetError, readiness, workload};
use crate::change::Change;
use crate::object::kinds;
use crate::{ObjectKind, Subject, scalers};

/// `apps/v1` Deployments.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentTarget;

impl Workload for DeploymentTarget {
    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DEPLOYMENT
    }

    fn name(&self) -> &'static str {
        "deployment"
    }

    fn carried_along(&self) -> &'static [&'static str] {
        &["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"]
    }

    fn adapt(&self, subject: &Subject, template: &mut Value) {
        rename_spread_selectors(template, &subject.canary.target.name, &subject.settings.selector_labels);
    }

    fn size(
        &self,
        subject: &Subject,
        target: &DynamicObject,
        primary: Option<&DynamicObject>,
        spec: &mut Map<String, Value>,
    ) {
        let wanted = replicas(target);
        // An autoscaler keeps its say. Otherwise the target's replicas are taken over. Never zero: the primary serves.
        let replicas = match primary {
            Some(primary) if subject.canary.autoscaler.is_some() || wanted == 0 => replicas(primary),
            _ => wanted,
        };
        spec.insert("replicas".into(), replicas.max(1).into());
    }
}

impl Target for DeploymentTarget {
    fn kind(&self) -> &'static str {
        "Deployment"
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DEPLOYMENT
    }

    fn observe(&self, subject: &Subject, now: Timestamp) -> Result<TargetView, TargetError> {
        let source = Source::read(&DeploymentTarget, subject)?;
        let analysis = &subject.canary.analysis;
        let name = &subject.canary.target.name;
        let readiness = readiness::deployment(
            source.target(),
            subject.canary.progress_deadline,
            analysis.canary_ready_threshold,
            now,
        );
        Ok(TargetView {
            revision: source.revision(),
            configs: source.checksums(subject),
            scaled_to_zero: replicas(source.target()) == 0,
            readiness: readiness::explained(readiness, &format!("canary deployment {name}.{}", subject.namespace())),
            available: available(source.target()),
        })
    }

    fn observe_primary(&self, subject: &Subject, now: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let name = subject.canary.target.primary_name();
        let primary = subject.get(&kinds::DEPLOYMENT, &name);
        // Read before the early return: the canary must be woken for whatever its primary is made from.
        let source = Source::read(&DeploymentTarget, subject);
        let Some(primary) = primary else { return Ok(None) };
        let threshold = subject.canary.analysis.primary_ready_threshold;
        let readiness: Readiness = readiness::deployment(&primary, subject.canary.progress_deadline, threshold, now);
        Ok(Some(PrimaryView {
            matches_target: source.is_ok_and(|source| source.matches(subject, &primary)),
            readiness: readiness::explained(readiness, &format!("{name}.{}", subject.namespace())),
            available: available(&primary),
        }))
    }

    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError> {
        Ok(Source::read(&DeploymentTarget, subject)?.apply_primary(subject))
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        Source::read(&DeploymentTarget, subject)?.promote(subject, revision, configs)
    }

    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError> {
        let target = workload::read_target(&DeploymentTarget, subject)?;
        let present = replicas(&target);
        let wanted = match scale {
            Scale::Zero => 0,
            Scale::Up if present > 0 => present,
            Scale::Up => canary_replicas(subject),
            Scale::Restore => present.max(everybodys_replicas(subject, present)),
        };
        if wanted == present {
            return Ok(Vec::new());
        }
        let key = subject.key(&kinds::DEPLOYMENT, &subject.canary.target.name);
        Ok(Change::set_in_spec(key, &target, "/spec/replicas", json!(wanted)).into_iter().collect())
    }

    fn returned(&self, subject: &Subject, now: Timestamp) -> Option<Returned> {
        let target = subject.get(&kinds::DEPLOYMENT, &subject.canary.target.name)?;
        let present = replicas(&target);
        let threshold = subject.canary.analysis.canary_ready_threshold;
        Some(Returned {
            is_short_of_pods: present < everybodys_replicas(subject, present),
            readiness: readiness::deployment(&target, subject.canary.progress_deadline, threshold, now),
            available: available(&target),
        })
    }

    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        workload::selector(&DeploymentTarget, subject)
    }

    fn discovered_ports(&self, subject: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        workload::discovered_ports(&DeploymentTarget, subject)
    }
}

/// `spec.replicas`; an API server fills in 1.
pub(super) fn replicas(object: &DynamicObject) -> i64 {
    object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

/// Available pods, but no more than are wanted: the others are on their way out.
pub(super) fn available(object: &DynamicObject) -> u32 {
    let available = object.data.pointer("/status/availableReplicas").and_then(Value::as_i64).unwrap_or(0);
    u32::try_from(available.min(replicas(object))).unwrap_or(0)
}

/// With how many replicas a canary starts that is at zero.
fn canary_replicas(subject: &Subject) -> i64 {
    let wanted = match scalers::for_subject(subject) {
        None => {
            subject.get(&kinds::DEPLOYMENT, &subject.canary.target.primary_name()).map(|primary| replicas(&primary))
        }
        Some(scaler) => scaler.min_replicas(subject),
    };
    wanted.unwrap_or(1).max(1)
}

/// How many pods everybody needs: as many as the primary has, which serves them now. A target that is not at zero is left to
/// its autoscaler, if it has one.
fn everybodys_replicas(subject: &Subject, present: i64) -> i64 {
    if subject.canary.autoscaler.is_some() && present > 0 {
        return present;
    }
    let primary = subject.get(&kinds::DEPLOYMENT, &subject.canary.target.primary_name());
    primary.map_or(1, |primary| replicas(&primary)).max(1)
}

#[cfg(test)]
mod tests;
