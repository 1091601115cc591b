//! The status of a Canary: the rollout's whole memory.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::serde_helpers::{null_as_default, whole_or_zero};

/// `status` of a [`Canary`](crate::Canary).
///
/// Everything but `lastStepTime`, `metricsUnavailableSince` and `observedGeneration` is Flagger's. Those three are
/// optional, so that a status written by Flagger can be taken over and given back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// Where the rollout is.
    #[serde(default, deserialize_with = "null_as_default")]
    pub phase: Phase,
    /// Failed checks of the current analysis, cumulative.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub failed_checks: i64,
    /// Percentage of traffic that the canary gets. Decides: routes that say something else are put right.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub canary_weight: i64,
    /// Iterations done in the current analysis (A/B and blue/green). Flagger may leave -1 here.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub iterations: i64,
    /// Session cookie (`name=value`) of the run before, which clients are told to forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_session_affinity_cookie: Option<String>,
    /// Session cookie (`name=value`) that keeps clients on the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_cookie: Option<String>,
    /// Session cookie (`name=value`) that keeps clients on the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_session_affinity_cookie: Option<String>,
    /// `configmap/NAME` or `secret/NAME` to checksum (16 hex digits), of the configs of the revision last seen.
    /// Absent before the first look, empty if the target uses none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked_configs: Option<BTreeMap<String, String>>,
    /// Hash of the revision last seen: the one under analysis, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_spec: Option<String>,
    /// Hash of the revision that the primary runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_promoted_spec: Option<String>,
    /// When this status was last written. Flagger writes whole seconds, see [`whole_seconds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// Start of the present soak interval: when the weight was set or the last check was counted. Aviary's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step_time: Option<Timestamp>,
    /// Since when the monitoring does not answer; absent while it does. Aviary's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_unavailable_since: Option<Timestamp>,
    /// First value of a metric that is compared with itself ([`Rise`](crate::validated::Rise)). Aviary's own.
    #[serde(default, serialize_with = "crate::serde_helpers::float_as_go", skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// Its last value. Aviary's own.
    #[serde(default, serialize_with = "crate::serde_helpers::float_as_go", skip_serializing_if = "Option::is_none")]
    pub last_value: Option<f64>,
    /// Generation of the spec that this status was decided from. Aviary's own.
    #[serde(
        default,
        deserialize_with = "crate::serde_helpers::optional_whole",
        skip_serializing_if = "Option::is_none"
    )]
    pub observed_generation: Option<i64>,
    /// `Promoted` always; `MetricsAvailable`, `Accepted` and `Degraded` while there is something to say.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<CanaryCondition>,
    /// Fields that this version does not know. Kept, so that a status write takes nothing away.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One condition of a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryCondition {
    /// Type of condition; always `Promoted`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The phase that it was written for.
    #[serde(default, deserialize_with = "null_as_default")]
    pub reason: String,
    /// For people.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When anything of it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// Cuts a time to whole seconds, the precision in which Kubernetes and Flagger store times.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was written yet: the canary is new. Stored as an empty string.
    #[default]
    #[serde(rename = "")]
    Uninitialized,
    /// The primary and the routes are being created.
    Initializing,
    /// The primary serves; no revision was analysed yet.
    Initialized,
    /// A new revision waits for a `confirm-rollout` gate.
    Waiting,
    /// A new revision is being analysed.
    Progressing,
    /// The analysis has passed and waits for a `confirm-promotion` gate.
    WaitingPromotion,
    /// The primary is being brought to the analysed revision.
    Promoting,
    /// Traffic is back on the primary and the canary is being scaled down.
    Finalising,
    /// The last revision was promoted.
    Succeeded,
    /// The last revision was rolled back, or its promotion failed.
    Failed,
    /// The canary is being deleted and reverts what it changed.
    Terminating,
    /// Everything is reverted. Declared by Flagger, which never writes it.
    Terminated,
}

impl Phase {
    /// Every phase, in the order of a rollout.
    pub const ALL: [Phase; 12] = [
        Phase::Uninitialized,
        Phase::Initializing,
        Phase::Initialized,
        Phase::Waiting,
        Phase::Progressing,
        Phase::WaitingPromotion,
        Phase::Promoting,
        Phase::Finalising,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Terminating,
        Phase::Terminated,
    ];

    /// The name as stored in `status.phase`; empty for [`Phase::Uninitialized`].
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Uninitialized => "",
            Phase::Initializing => "Initializing",
            Phase::Initialized => "Initialized",
            Phase::Waiting => "Waiting",
            Phase::Progressing => "Progressing",
            Phase::WaitingPromotion => "WaitingPromotion",
            Phase::Promoting => "Promoting",
            Phase::Finalising => "Finalising",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Terminating => "Terminating",
            Phase::Terminated => "Terminated",
        }
    }

    /// The phase with this stored name.
    pub fn from_name(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
