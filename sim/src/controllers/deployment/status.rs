//! `.status` of a Deployment and the rules by which its conditions change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::json::{condition, whole_second};
use super::spec::DeploymentSpec;

pub(crate) const AVAILABLE: &str = "Available";
pub(crate) const PROGRESSING: &str = "Progressing";
/// Condition of a ReplicaSet whose pods are refused, and of its Deployment.
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(crate) const MINIMUM_REPLICAS_AVAILABLE: &str = "MinimumReplicasAvailable";
pub(crate) const MINIMUM_REPLICAS_UNAVAILABLE: &str = "MinimumReplicasUnavailable";
pub(crate) const NEW_REPLICA_SET_CREATED: &str = "NewReplicaSetCreated";
pub(crate) const FOUND_NEW_REPLICA_SET: &str = "FoundNewReplicaSet";
pub(crate) const REPLICA_SET_UPDATED: &str = "ReplicaSetUpdated";
pub(crate) const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(crate) const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
pub(crate) const DEPLOYMENT_PAUSED: &str = "DeploymentPaused";
pub(crate) const DEPLOYMENT_RESUMED: &str = "DeploymentResumed";

/// One entry of `.status.conditions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) condition_type: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_update_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_transition_time: Option<Timestamp>,
}

impl Condition {
    pub(crate) fn new(condition_type: &str, status: &str, reason: &str, message: String, now: Timestamp) -> Self {
        let now = whole_second(now);
        Self {
            condition_type: condition_type.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_update_time: Some(now),
            last_transition_time: Some(now),
        }
    }
}

/// What keeps a ReplicaSet from making its pods, as a condition of its Deployment (`ReplicaSetToDeploymentCondition`).
pub(crate) fn replica_failure(set: &Value) -> Option<Condition> {
    let mut failure = Condition::deserialize(condition(set, REPLICA_FAILURE)?).ok()?;
    failure.last_update_time = failure.last_transition_time;
    Some(failure)
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// `.status` of a Deployment. Zero counts are left out, as the Go types of Kubernetes do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentStatus {
    pub(crate) observed_generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) updated_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ready_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) available_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) unavailable_replicas: i32,
    pub(crate) terminating_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) collision_count: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
}

impl DeploymentStatus {
    /// What is stored; a status nobody wrote yet, or one this controller cannot read, counts as empty and is rebuilt.
    pub(crate) fn parse(deployment: &Value) -> Self {
        deployment.get("status").and_then(|status| Self::deserialize(status).ok()).unwrap_or_default()
    }

    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    pub(crate) fn condition(&self, condition_type: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.condition_type == condition_type)
    }

    /// A condition with the same status and reason is left as it is, message and times included; one with the same status
    /// keeps its transition time.
    pub(crate) fn set_condition(&mut self, mut condition: Condition) {
        if let Some(current) = self.condition(&condition.condition_type) {
            if current.status == condition.status && current.reason == condition.reason {
                return;
            }
            if current.status == condition.status {
                condition.last_transition_time = current.last_transition_time;
            }
        }
        self.remove_condition(&condition.condition_type.clone());
        self.conditions.push(condition);
    }

    pub(crate) fn remove_condition(&mut self, condition_type: &str) {
        self.conditions.retain(|condition| condition.condition_type != condition_type);
    }

    /// Every pod is of the new template, available, and no old one is left.
    pub(crate) fn is_complete(&self, spec: &DeploymentSpec) -> bool {
        self.updated_replicas == spec.replicas
            && self.replicas == spec.replicas
            && self.available_replicas == spec.replicas
            && self.observed_generation >= spec.generation
    }

    /// Whether this status is further along than `before`.
    pub(crate) fn has_progressed_since(&self, before: &Self) -> bool {
        let old_before = before.replicas - before.updated_replicas;
        let old_now = self.replicas - self.updated_replicas;
        self.updated_replicas > before.updated_replicas
            || old_now < old_before
            || self.ready_replicas > before.ready_replicas
            || self.available_replicas > before.available_replicas
    }
}
