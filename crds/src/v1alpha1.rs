//! The dialect of Flagger 0.1, `flagger.app/v1alpha1`.
//!
//! Its Canary is served beside that of `v1beta1` under the same name and with the same schema, and an API server that converts
//! nothing hands out every object in either version. So the version of an object says nothing: what it says itself does, and a
//! `canaryAnalysis` without an `analysis` is v1alpha1's.

use std::time::Duration;

use serde_json::Value;

use crate::canary::CanarySpec;
use crate::status::{CanaryStatus, Phase};
use crate::validated::MetricSource;

/// The version, served beside [`VERSION`](crate::names::VERSION).
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of its objects.
pub const API_VERSION: &str = "flagger.app/v1alpha1";
/// The only mesh that Flagger 0.1 knew.
pub const PROVIDER: &str = "istio";
/// Its status field for [`Phase`].
pub const STATE: &str = "state";
/// Its status field for the revision last seen.
pub const CANARY_REVISION: &str = "canaryRevision";

/// What a taken-over status without a revision is given: like a revision of Flagger, it cannot be compared with ours.
const UNKNOWN_REVISION: &str = "unknown";

/// As which API a Canary is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `flagger.app/v1beta1` of Flagger 1.x.
    #[default]
    V1Beta1,
    /// `flagger.app/v1alpha1` of Flagger 0.1.
    V1Alpha1,
    /// `apps.weave.works/v1beta1` of Steerer, a kind of its own.
    Steerer,
    /// `otomato.link/v1alpha1` of BirdWatch, a kind of its own.
    BirdWatch,
}

impl Dialect {
    /// The dialect that a spec is written in.
    pub fn of(spec: &CanarySpec) -> Dialect {
        if spec.analysis.is_none() && spec.canary_analysis.is_some() { Dialect::V1Alpha1 } else { Dialect::V1Beta1 }
    }

    /// Where the spec has its analysis.
    pub fn analysis_path(self) -> &'static str {
        match self {
            Dialect::V1Beta1 => "spec.analysis",
            Dialect::Steerer => "spec",
            Dialect::BirdWatch => "spec",
            Dialect::V1Alpha1 => "spec.canaryAnalysis",
        }
    }

    /// Time between check rounds where the analysis names none, and the least that it may name.
    pub(crate) fn intervals(self, control_loop: Duration, shortest: Duration) -> (Duration, Duration) {
        // Flagger's default of 1.x.
        const DEFAULT: Duration = Duration::from_secs(60);
        // Faster than Prometheus scrapes there is nothing new to see, and a zero would never let go of the processor.
        const LEAST_CONTROL_LOOP: Duration = Duration::from_secs(1);
        match self {
            Dialect::V1Beta1 | Dialect::BirdWatch => (DEFAULT, shortest.max(LEAST_CONTROL_LOOP)),
            // Both looked at all of them in their one interval, whatever that was.
            Dialect::V1Alpha1 | Dialect::Steerer => {
                (control_loop.max(LEAST_CONTROL_LOOP), shortest.min(control_loop.max(LEAST_CONTROL_LOOP)))
            }
        }
    }

    /// The built-in metric of this name. Version 0.1 went by the names of Istio's own series; today's names are read as well.
    pub(crate) fn built_in_metric(self, name: &str) -> Option<MetricSource> {
        match (self, name) {
            (_, "request-success-rate") | (Dialect::V1Alpha1, "istio_requests_total") => {
                Some(MetricSource::SuccessRate)
            }
            (_, "request-duration") => Some(MetricSource::Duration),
            (Dialect::V1Alpha1, "istio_request_duration_seconds_bucket") => Some(MetricSource::DurationInSeconds),
            _ => None,
        }
    }

    /// What to do about a metric that does not exist. Version 0.1 passed over it in silence.
    pub(crate) fn built_in_fix(self) -> &'static str {
        match self {
            Dialect::V1Beta1 | Dialect::BirdWatch => {
                "use request-success-rate or request-duration, or add a templateRef or a query"
            }
            Dialect::Steerer => "use istio_requests_total",
            Dialect::V1Alpha1 => "use istio_requests_total or istio_request_duration_seconds_bucket",
        }
    }
}

/// Reads what Flagger 0.1 stored: a `state` where nobody has written a phase yet.
///
/// Its revision (the pod spec in base64) is taken for one that cannot be compared, as those of Flagger 1.x are.
pub fn take_over(mut status: CanaryStatus) -> CanaryStatus {
    if status.phase != Phase::Uninitialized {
        return status;
    }
    let text = |field: &str| status.other.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(phase) = text(STATE).and_then(phase_of) else { return status };
    let revision = text(CANARY_REVISION).unwrap_or(UNKNOWN_REVISION).to_owned();
    status.phase = phase;
    status.last_applied_spec.get_or_insert(revision);
    status
}

/// Adds the fields that users of `dialect` look at, and takes away those that they do not.
pub fn with_fields_of(dialect: Dialect, mut status: CanaryStatus) -> CanaryStatus {
    let fields =
        [(STATE, state_of(status.phase).map(str::to_owned)), (CANARY_REVISION, status.last_applied_spec.clone())];
    for (field, value) in fields {
        match value.filter(|_| dialect == Dialect::V1Alpha1) {
            Some(value) => status.other.insert(field.to_owned(), Value::String(value)),
            None => status.other.remove(field),
        };
    }
    status
}

fn phase_of(state: &str) -> Option<Phase> {
    match state {
        "initialized" => Some(Phase::Initialized),
        "running" => Some(Phase::Progressing),
        "finished" => Some(Phase::Succeeded),
        "failed" => Some(Phase::Failed),
        _ => None,
    }
}

/// `None` before there is a primary, and while a deleted canary gives back what it changed: 0.1 had no word for these.
fn state_of(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Uninitialized | Phase::Initializing | Phase::Terminating | Phase::Terminated => None,
        Phase::Initialized => Some("initialized"),
        Phase::Waiting | Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising => {
            Some("running")
        }
        Phase::Succeeded => Some("finished"),
        Phase::Failed => Some("failed"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn status(stored: Value) -> CanaryStatus {
        serde_json::from_value(stored).expect("a status")
    }

    #[test]
    fn every_state_of_flagger_0_1_is_taken_over() {
        let cases = [
            ("initialized", Phase::Initialized),
            ("running", Phase::Progressing),
            ("finished", Phase::Succeeded),
            ("failed", Phase::Failed),
        ];
        for (state, phase) in cases {
            let taken = take_over(status(json!({"state": state, "canaryRevision": "eyJ9", "failedChecks": 2})));
            assert_eq!((taken.phase, taken.failed_checks), (phase, 2), "{state}");
            assert_eq!(taken.last_applied_spec.as_deref(), Some("eyJ9"));
        }
        let without_revision = take_over(status(json!({"state": "finished"})));
        assert_eq!(without_revision.last_applied_spec.as_deref(), Some("unknown"));
    }

    #[test]
    fn a_phase_wins_over_a_state_and_no_state_is_none() {
        let ours = status(json!({"phase": "Failed", "state": "finished", "canaryRevision": "x"}));
        assert_eq!(take_over(ours.clone()), ours);
        for stored in [json!({}), json!({"state": ""}), json!({"state": "flying"}), json!({"state": 1})] {
            assert_eq!(take_over(status(stored.clone())), status(stored));
        }
    }

    /// Whoever moves a canary on to v1beta1 does not keep a state that nobody renews.
    #[test]
    fn the_fields_come_and_go_with_the_dialect() {
        let stored = status(json!({"phase": "Succeeded", "lastAppliedSpec": "a:1", "ofTheFuture": 1}));
        let written = serde_json::to_value(with_fields_of(Dialect::V1Alpha1, stored.clone())).unwrap();
        assert_eq!((&written["state"], &written["canaryRevision"]), (&json!("finished"), &json!("a:1")));
        let back = with_fields_of(Dialect::V1Beta1, status(written));
        assert_eq!(back, stored);
    }

    #[test]
    fn what_is_written_reads_back_as_the_phase_that_wrote_it() {
        for phase in Phase::ALL {
            let written = with_fields_of(Dialect::V1Alpha1, CanaryStatus { phase, ..CanaryStatus::default() });
            assert_eq!(take_over(written).phase, phase);
        }
    }
}
