//! The state of a rollout: exactly what `.status` stores, in decided form.

use std::collections::BTreeMap;

use aviary_crds::status::{CanaryCondition, CanaryStatus, Phase, whole_seconds};
use jiff::Timestamp;

use crate::snapshot::TargetView;
use crate::strategy::Position;

/// What the `Promoted` condition says, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedCondition {
    /// The phase it was written for (its `reason`).
    pub phase: Phase,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Last time anything of the condition changed.
    pub updated: Timestamp,
    /// Last time `status` changed.
    pub transitioned: Timestamp,
}

/// State of a rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Phase.
    pub phase: Phase,
    /// Weight of the canary, 0–100. This is what the routes must say; in an A/B test, for those who meet the conditions.
    pub canary_weight: u32,
    /// Failed checks of the present analysis, cumulative.
    pub failed_checks: u32,
    /// Iterations done, see [`Position::iterations`].
    pub iterations: u32,
    /// Checksums of the configs of the revision last seen.
    pub tracked_configs: Option<BTreeMap<String, String>>,
    /// Revision last seen (the one under analysis, if there is one).
    pub last_applied: String,
    /// Revision that the primary runs.
    pub last_promoted: String,
    /// Time of the last status write.
    pub last_transition: Option<Timestamp>,
    /// Start of the soak interval: when the weight was set or the last check was counted.
    /// Absent means that the next step need not wait; during an analysis with canary traffic, that the soak starts when
    /// the canary is ready.
    pub last_step: Option<Timestamp>,
    /// The monitoring is away, or has not been back for long.
    pub outage: Option<Outage>,
    /// First value of the query that is compared with itself, in the present run or the last one.
    pub baseline: Option<f64>,
    /// Its last value.
    pub last_value: Option<f64>,
    /// Session cookie (`name=value`) of clients of the canary, while it has weight.
    pub session_cookie: Option<String>,
    /// The same for the primary.
    pub primary_session_cookie: Option<String>,
    /// Session cookie of the run that ended last.
    pub previous_session_cookie: Option<String>,
    /// Whether the target's pods, from which users were led away, are still to go.
    pub scale_down_due: bool,
    /// The `Promoted` condition.
    pub promoted: Option<PromotedCondition>,
    /// Whether the stored status carries a complaint of ours (`Accepted`, `Degraded`) that no longer holds: a plan
    /// exists and is being decided on.
    pub complaint: bool,
}

/// Condition type that Flagger writes.
pub const PROMOTED: &str = "Promoted";
/// Condition type of Aviary: `False` while the monitoring does not answer, absent otherwise.
pub const METRICS_AVAILABLE: &str = "MetricsAvailable";
/// Condition type of Aviary: `False` while the pods of a canary that has failed, or was taken back, are still to go; absent
/// otherwise. A condition and no field of its own, because Flagger's CRD would prune that.
pub const SCALED_DOWN: &str = "ScaledDown";
/// Condition type of Aviary: `False` while the object is not understood, absent otherwise.
pub const ACCEPTED: &str = "Accepted";
/// Condition type of Aviary: `True` while the canary's actor is quarantined, absent otherwise.
pub const DEGRADED: &str = "Degraded";

impl State {
    /// Where the analysis stands.
    pub fn position(&self) -> Position {
        Position { weight: self.canary_weight, iterations: self.iterations }
    }

    /// What the run of a revision begins with: nothing counted, nothing measured, no soak to wait for.
    pub(crate) fn begin_run(&mut self, target: &TargetView) {
        self.end_run(target);
        self.baseline = None;
        self.last_value = None;
    }

    /// What a run that is not promoted leaves: the revision that it was about, and what was measured last.
    pub(crate) fn end_run(&mut self, target: &TargetView) {
        self.failed_checks = 0;
        self.iterations = 0;
        self.last_applied.clone_from(&target.revision);
        self.tracked_configs.clone_from(&target.configs);
        self.last_step = None;
        self.outage = None;
    }

    /// Reads a status, whoever wrote it.
    pub fn from_status(status: &CanaryStatus) -> State {
        let promoted = status.conditions.iter().find(|condition| condition.condition_type == PROMOTED);
        State {
            phase: status.phase,
            canary_weight: percent(status.canary_weight),
            failed_checks: u32::try_from(status.failed_checks).unwrap_or(0),
            iterations: u32::try_from(status.iterations).unwrap_or(0),
            tracked_configs: status.tracked_configs.clone(),
            last_applied: status.last_applied_spec.clone().unwrap_or_default(),
            last_promoted: status.last_promoted_spec.clone().unwrap_or_default(),
            last_transition: status.last_transition_time,
            last_step: last_step(status),
            outage: Outage::from_status(status),
            baseline: status.baseline,
            last_value: status.last_value,
            session_cookie: non_empty(status.session_affinity_cookie.as_ref()),
            primary_session_cookie: non_empty(status.primary_session_affinity_cookie.as_ref()),
            previous_session_cookie: non_empty(status.previous_session_affinity_cookie.as_ref()),
            scale_down_due: status
                .conditions
                .iter()
                .any(|condition| condition.condition_type == SCALED_DOWN && condition.status == "False"),
            promoted: promoted.and_then(promoted_from),
            complaint: status
                .conditions
                .iter()
                .any(|condition| [ACCEPTED, DEGRADED].contains(&condition.condition_type.as_str())),
        }
    }

    /// Writes the state over `previous`; fields that the core does not decide are kept.
    ///
    /// Times are stored as Flagger stores them, in whole seconds, except `lastStepTime`, which times the next step.
    pub fn to_status(&self, previous: &CanaryStatus, target_kind: &str, generation: Option<i64>) -> CanaryStatus {
        let mut conditions = Vec::new();
        if let Some(promoted) = &self.promoted {
            conditions.push(CanaryCondition {
                condition_type: PROMOTED.to_owned(),
                status: promoted.status.clone(),
                reason: promoted.phase.to_string(),
                message: promoted_message(promoted.phase, target_kind),
                last_update_time: Some(whole_seconds(promoted.updated)),
                last_transition_time: Some(whole_seconds(promoted.transitioned)),
            });
        }
        conditions.extend(self.outage.map(Outage::condition));
        if self.scale_down_due {
            let since = self.last_transition.map(whole_seconds);
            conditions.push(CanaryCondition {
                condition_type: SCALED_DOWN.to_owned(),
                status: "False".to_owned(),
                reason: "Settling".to_owned(),
                message: "No user is routed to the canary; its pods go when the mesh has followed.".to_owned(),
                last_update_time: since,
                last_transition_time: since,
            });
        }
        let own = [PROMOTED, METRICS_AVAILABLE, SCALED_DOWN, ACCEPTED, DEGRADED];
        let foreign = previous.conditions.iter().filter(|condition| !own.contains(&condition.condition_type.as_str()));
        conditions.extend(foreign.cloned());
        CanaryStatus {
            phase: self.phase,
            failed_checks: i64::from(self.failed_checks),
            canary_weight: i64::from(self.canary_weight),
            iterations: i64::from(self.iterations),
            tracked_configs: self.tracked_configs.clone(),
            last_applied_spec: Some(self.last_applied.clone()).filter(|hash| !hash.is_empty()),
            last_promoted_spec: Some(self.last_promoted.clone()).filter(|hash| !hash.is_empty()),
            last_transition_time: self.last_transition.map(whole_seconds),
            last_step_time: self.last_step,
            metrics_unavailable_since: self.outage.map(|outage| outage.since),
            baseline: self.baseline,
            last_value: self.last_value,
            session_affinity_cookie: self.session_cookie.clone(),
            primary_session_affinity_cookie: self.primary_session_cookie.clone(),
            previous_session_affinity_cookie: self.previous_session_cookie.clone(),
            observed_generation: generation,
            conditions,
            ..previous.clone()
        }
    }
}

fn percent(weight: i64) -> u32 {
    u32::try_from(weight.clamp(0, 100)).unwrap_or(0)
}

fn non_empty(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// A status that Flagger wrote, or that went through Flagger's CRD, has no step time; its last write then was the step.
fn last_step(status: &CanaryStatus) -> Option<Timestamp> {
    let timed =
        matches!(status.phase, Phase::Progressing | Phase::WaitingPromotion | Phase::Waiting | Phase::Promoting);
    status.last_step_time.or(status.last_transition_time.filter(|_| timed && status.observed_generation.is_none()))
}

/// A time without complete answers of the monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when there has been no complete answer.
    pub since: Timestamp,
    /// Since when all backends answer again, although without values, in whole seconds.
    pub answered_since: Option<Timestamp>,
}

/// Reason of [`METRICS_AVAILABLE`]: no answer.
const METRICS_UNAVAILABLE: &str = "MetricsUnavailable";
/// Reason of [`METRICS_AVAILABLE`]: answers without values, since the condition's last update.
const NO_VALUES_YET: &str = "NoValuesYet";

impl Outage {
    /// Under Flagger's CRD the field for it is pruned, the condition is not.
    fn from_status(status: &CanaryStatus) -> Option<Outage> {
        let mut conditions = status.conditions.iter();
        let condition =
            conditions.find(|condition| condition.condition_type == METRICS_AVAILABLE && condition.status == "False");
        let since = status.metrics_unavailable_since.or_else(|| condition?.last_transition_time)?;
        let answers = condition.filter(|condition| condition.reason == NO_VALUES_YET);
        Some(Outage { since, answered_since: answers.and_then(|condition| condition.last_update_time) })
    }

    fn condition(self) -> CanaryCondition {
        let (reason, message) = match self.answered_since {
            None => (METRICS_UNAVAILABLE, "The metrics backend does not answer; the canary holds its weight."),
            Some(_) => (
                NO_VALUES_YET,
                "The metrics backend answers again, but has no values yet; the canary holds its weight.",
            ),
        };
        CanaryCondition {
            condition_type: METRICS_AVAILABLE.to_owned(),
            status: "False".to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_update_time: Some(whole_seconds(self.answered_since.unwrap_or(self.since))),
            last_transition_time: Some(whole_seconds(self.since)),
        }
    }
}

fn promoted_from(condition: &CanaryCondition) -> Option<PromotedCondition> {
    Some(PromotedCondition {
        phase: Phase::from_name(&condition.reason)?,
        status: condition.status.clone(),
        updated: condition.last_update_time?,
        transitioned: condition.last_transition_time?,
    })
}

/// What subsets are subsets of.
const SUBSETS: &str = "DestinationRule";

/// Message of the `Promoted` condition, as Flagger writes it.
fn promoted_message(phase: Phase, target_kind: &str) -> String {
    if target_kind == SUBSETS {
        return promoted_message_of_subsets(phase).to_owned();
    }
    match phase {
        Phase::Initialized => format!("{target_kind} initialization completed."),
        Phase::Waiting | Phase::WaitingPromotion => "Waiting for approval.".to_owned(),
        Phase::Progressing => "New revision detected, progressing canary analysis.".to_owned(),
        Phase::Promoting => "Canary analysis completed, starting primary rolling update.".to_owned(),
        Phase::Finalising => "Canary analysis completed, routing all traffic to primary.".to_owned(),
        Phase::Succeeded => "Canary analysis completed successfully, promotion finished.".to_owned(),
        Phase::Failed => format!("Canary analysis failed, {target_kind} scaled to zero."),
        Phase::Uninitialized | Phase::Initializing | Phase::Terminating | Phase::Terminated => {
            format!("New {target_kind} detected, starting initialization.")
        }
    }
}

fn promoted_message_of_subsets(phase: Phase) -> &'static str {
    match phase {
        Phase::Initialized => "Subsets and routes are found.",
        Phase::Waiting | Phase::WaitingPromotion => "Waiting for approval.",
        Phase::Progressing => "New version detected, its traffic grows.",
        Phase::Promoting => "The version is healthy, it becomes the production version.",
        Phase::Finalising => "The version is in production, which gets all traffic.",
        Phase::Succeeded => "The version is in production.",
        Phase::Failed => "The version is sick.",
        Phase::Uninitialized | Phase::Initializing | Phase::Terminating | Phase::Terminated => {
            "Looking for subsets and routes."
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_state_survives_its_status() {
        let state = State {
            phase: Phase::Progressing,
            canary_weight: 30,
            failed_checks: 2,
            iterations: 0,
            session_cookie: Some("canary=a".into()),
            primary_session_cookie: Some("primary=b".into()),
            previous_session_cookie: Some("canary=c".into()),
            tracked_configs: Some(BTreeMap::from([("configmap/a".into(), "0011".into())])),
            last_applied: "b".into(),
            last_promoted: "a".into(),
            last_transition: Some(at(1000)),
            last_step: Some(Timestamp::from_millisecond(1_000_123).unwrap()),
            outage: Some(Outage { since: at(900), answered_since: Some(at(950)) }),
            baseline: Some(0.25),
            last_value: Some(1.5),
            scale_down_due: true,
            promoted: Some(PromotedCondition {
                phase: Phase::Progressing,
                status: "Unknown".into(),
                updated: at(800),
                transitioned: at(700),
            }),
            complaint: false,
        };
        let status = state.to_status(&CanaryStatus::default(), "Deployment", Some(3));
        let stored: CanaryStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        assert_eq!(State::from_status(&stored), state);
    }

    #[test]
    fn foreign_fields_and_conditions_survive_and_own_complaints_do_not() {
        let previous: CanaryStatus = serde_json::from_value(serde_json::json!({
            "phase": "Initialized",
            "sessionAffinityCookie": "a=b",
            "somebodyElses": {"x": 1},
            "conditions": [
                {"type": "Accepted", "status": "False", "reason": "Invalid"},
                {"type": "Foreign", "status": "True", "reason": "Because"},
            ],
        }))
        .unwrap();
        let mut state = State::from_status(&previous);
        assert!(state.complaint);
        state.complaint = false;
        let status = state.to_status(&previous, "Deployment", None);
        let types: Vec<_> = status.conditions.iter().map(|condition| condition.condition_type.as_str()).collect();
        assert_eq!(types, ["Foreign"]);
        assert_eq!(status.session_affinity_cookie.as_deref(), Some("a=b"));
        assert_eq!(status.other["somebodyElses"]["x"], 1);
    }

    #[test]
    fn a_status_without_step_time_soaks_from_its_last_write() {
        let status: CanaryStatus = serde_json::from_value(serde_json::json!({
            "phase": "Progressing", "canaryWeight": 10, "iterations": -1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let state = State::from_status(&status);
        assert_eq!(state.last_step, status.last_transition_time);
        assert_eq!(state.iterations, 0);
    }
}
