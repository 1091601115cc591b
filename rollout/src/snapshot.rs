//! What is observed about one canary at one instant.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::analysis::Sample;
use crate::effect::Question;
use aviary_crds::validated::WebhookType;

/// How requests are divided between the two sides, in percent. The two weights sum to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Split {
    /// Share of the primary, 0–100.
    pub primary: u32,
    /// Share of the canary, 0–100.
    pub canary: u32,
    /// Whether requests to the primary are also copied to the canary.
    pub mirrored: bool,
}

impl Split {
    /// All requests to the primary.
    pub const PRIMARY: Split = Split { primary: 100, canary: 0, mirrored: false };
    /// All requests to the canary.
    pub const CANARY: Split = Split { primary: 0, canary: 100, mirrored: false };

    /// `weight` percent to the canary (capped at 100), the rest to the primary.
    pub fn to_canary(weight: u32) -> Split {
        let canary = weight.min(100);
        Split { primary: 100 - canary, canary, mirrored: false }
    }
}

/// Whether a workload has rolled out, as `kubectl rollout status` and Flagger judge it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Rolled out. A workload that is scaled to zero counts as ready, as in Flagger.
    Ready,
    /// Not yet, but it may still become ready.
    Waiting {
        /// Flagger's text, for example `waiting for rollout to finish: 1 out of 2 new replicas have been updated`.
        reason: String,
        /// When the same observation would turn into [`Readiness::Failed`], if nothing changes.
        deadline: Option<Timestamp>,
    },
    /// It will not become ready by waiting (progress deadline exceeded).
    Failed {
        /// Flagger's text.
        reason: String,
    },
}

impl Readiness {
    /// Whether the workload has rolled out.
    pub fn is_ready(&self) -> bool {
        matches!(self, Readiness::Ready)
    }
}

/// The workload named in `spec.targetRef` (Flagger calls it the canary).
#[derive(Clone, Debug, PartialEq)]
pub struct TargetView {
    /// Identity of the pod template (a tagged hash), see `providers::targets`.
    pub revision: String,
    /// Checksums of the ConfigMaps and Secrets that the template uses, keyed `configmap/NAME` or `secret/NAME`.
    /// `None` when configuration tracking is off.
    pub configs: Option<BTreeMap<String, String>>,
    /// Whether the workload is scaled to zero by its spec.
    pub scaled_to_zero: bool,
    /// Rollout state judged with the canary's ready threshold and progress deadline. The reason text is complete
    /// (`canary deployment podinfo.test not ready: …`).
    pub readiness: Readiness,
    /// Pods that can serve requests now.
    pub available: u32,
}

/// Whether tracked configs are others than those of a run. Where one of the two was tracked and the other was not, because
/// tracking was switched in between, only configs that nobody has seen are others.
pub fn are_other_configs(
    present: Option<&BTreeMap<String, String>>,
    tracked: Option<&BTreeMap<String, String>>,
) -> bool {
    match (present, tracked) {
        (None, _) => false,
        (Some(present), None) => !present.is_empty(),
        (Some(present), Some(tracked)) => present != tracked,
    }
}

/// The generated `<target>-primary` workload.
#[derive(Clone, Debug, PartialEq)]
pub struct PrimaryView {
    /// Whether promoting the target as it is now would change nothing: the primary's template (and the copies of the
    /// tracked configs) already carry it.
    pub matches_target: bool,
    /// Rollout state judged with the primary's ready threshold. The reason text is complete
    /// (`podinfo-primary.test not ready: …`).
    pub readiness: Readiness,
    /// Pods that can serve requests now.
    pub available: u32,
}

/// Which generated objects are missing or differ from what they must be. Weights are not part of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// The `-canary` and `-primary` services.
    pub services: bool,
    /// The primary's autoscaler.
    pub scaler: bool,
    /// The apex service.
    pub apex: bool,
    /// The mesh or ingress objects, weights aside.
    pub routes: bool,
}

/// An answer to one webhook call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAnswer {
    /// Name of the hook in `spec.analysis.webhooks`.
    pub name: String,
    /// `Err` holds the text that follows `failed` in the event.
    pub result: Result<(), String>,
}

/// The answers of one check round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundAnswer {
    /// The `rollout` hooks, in list order, up to and including the first that failed.
    pub hooks: Vec<HookAnswer>,
    /// One sample for each check of the plan, in the plan's order. Empty when a hook failed.
    pub samples: Vec<Sample>,
}

/// An answer and when it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// When the answer was complete.
    pub at: Timestamp,
    /// What was answered.
    pub value: T,
}

impl<T> Answer<T> {
    fn not_after(&mut self, now: Timestamp) {
        self.at = self.at.min(now);
    }
}

/// Answers to the questions that were asked under the present [`State`](crate::State). A new state starts empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Whether the metric providers answer (asked once, at bootstrap).
    pub providers: Option<Answer<Result<(), String>>>,
    /// The check round.
    pub round: Option<Answer<RoundAnswer>>,
    /// Hooks by type, in list order, up to and including the first that failed.
    pub hooks: BTreeMap<WebhookType, Answer<Vec<HookAnswer>>>,
    /// When the workloads were read from the API server itself; what was read is in the snapshot.
    pub workloads: Option<Answer<()>>,
}

impl Answers {
    /// The clock was set back: brings to `now` what came in later.
    pub fn not_after(&mut self, now: Timestamp) {
        if let Some(answer) = &mut self.providers {
            answer.not_after(now);
        }
        if let Some(answer) = &mut self.round {
            answer.not_after(now);
        }
        if let Some(answer) = &mut self.workloads {
            answer.not_after(now);
        }
        for answer in self.hooks.values_mut() {
            answer.not_after(now);
        }
    }
}

/// The target as it is given back.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// Whether it has fewer replicas than everybody needs.
    pub is_short_of_pods: bool,
    /// Rollout state judged with the canary's ready threshold. The reason text is that of Kubernetes, without a prefix.
    pub readiness: Readiness,
    /// Pods that can serve requests now.
    pub available: u32,
}

/// What is left to give back before a canary with `revertOnDeletion` may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Reverting {
    /// The target; `None` if it does not exist.
    pub target: Option<Returned>,
    /// Whether the apex service needs a write.
    pub apex: bool,
    /// Whether the mesh or ingress objects need a write.
    pub routes: bool,
}

/// Since when each side has had available pods without a break, as far as this process knows; `None` while it has none. A side
/// that users were led to at its start has had them for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServingSince {
    /// The primary.
    pub primary: Option<Timestamp>,
    /// The target.
    pub canary: Option<Timestamp>,
}

/// Everything observed about one canary at one instant.
///
/// Never older than the effects executed before: whoever builds it waits until the caches have seen its own writes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Now.
    pub now: Timestamp,
    /// Whether the canary object is being deleted.
    pub deleting: bool,
    /// Whether the canary object carries our finalizer.
    pub has_finalizer: bool,
    /// What is left to give back, or the text that says why it cannot be told. Looked at only while a canary with
    /// `revertOnDeletion` is being deleted and has our finalizer.
    pub reverting: Option<Result<Reverting, String>>,
    /// The target, or the text that says why it cannot be used (missing, no selector label, missing ConfigMap …).
    pub target: Result<TargetView, String>,
    /// The primary workload; `None` while it does not exist.
    pub primary: Option<PrimaryView>,
    /// Generated objects that need a write.
    pub pending: Pending,
    /// Whether the target's autoscaler keeps it without pods. `None` if it has none, or one that does nothing of its own
    /// accord about a target without pods (as a HorizontalPodAutoscaler).
    pub scaler_paused: Option<bool>,
    /// Whether repairs have to rest: they are refused, or undone by another writer again and again. Everything else,
    /// above all what keeps users off dead pods, goes on.
    pub repairs_paused: bool,
    /// Since when routes and the services behind them have been what they are, as far as this process knows: no earlier
    /// than its start.
    pub routed_since: Timestamp,
    /// Since when the sides have had available pods.
    pub serving_since: ServingSince,
    /// The split in force, or the text that says why it cannot be read. `None` where the provider routes nothing.
    pub traffic: Option<Result<Split, String>>,
    /// Answers to questions asked under the present state.
    pub answers: Answers,
    /// The question whose answer is awaited. Another one would take its place.
    pub asking: Option<Question>,
}
