//! Named properties that hold for every decision. Checked by unit and property tests, by simulation after every write,
//! and counted in production.

use aviary_crds::status::Phase;

use crate::effect::{Component, Decision, Effect, Scale, Wake};
use crate::phase::is_legal;
use crate::plan::{OnFailure, Plan};
use crate::snapshot::{Snapshot, Split, are_other_configs};
use crate::state::State;

/// A property that a decision broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// W1: the weights of a split sum to 100.
    WeightsSumTo100,
    /// W2: traffic is never moved to a side without an available pod.
    NoWeightToUnavailableSide,
    /// W3: at most one effect of a step changes traffic.
    OneTrafficChangePerStep,
    /// P1: only legal edges between phases.
    LegalEdges,
    /// P2: only the analysed revision is promoted.
    PromotedIsAnalysed,
    /// P3: a run that ends as failed never leaves the failed side with more traffic than it had, except after a failed
    /// promotion, where the canary is the healthy side.
    FailedSideGainsNothing,
    /// P4: once so many checks have failed as may, the canary's share never grows, unless for a new revision.
    NothingForWhatIsPastTheThreshold,
    /// P5: a promotion that fails leads nobody from pods that serve to a revision that was not analysed.
    NothingForWhatWasNotAnalysed,
    /// W4: the target is not scaled to zero, by us or by its autoscaler, while requests are routed to it, nor in the step that
    /// routes them away.
    NoScaleDownWhileServing,
    /// W5: nothing is given back, and a deleted canary does not go, before the target serves.
    NoRevertToUnavailableTarget,
    /// T1: a decision without effects does not ask to be made again at once.
    NoHotLoop,
    /// E1: the status write comes last, and the state changes only with it.
    StatusWriteLast,
    /// E2: a question is the only effect of its step.
    QuestionsStandAlone,
}

impl Violation {
    /// Short name, used as a label.
    pub fn name(self) -> &'static str {
        match self {
            Violation::WeightsSumTo100 => "weights_sum_to_100",
            Violation::NoWeightToUnavailableSide => "no_weight_to_unavailable_side",
            Violation::OneTrafficChangePerStep => "one_traffic_change_per_step",
            Violation::LegalEdges => "legal_edges",
            Violation::PromotedIsAnalysed => "promoted_is_analysed",
            Violation::FailedSideGainsNothing => "failed_side_gains_nothing",
            Violation::NothingForWhatIsPastTheThreshold => "nothing_for_what_is_past_the_threshold",
            Violation::NothingForWhatWasNotAnalysed => "nothing_for_what_was_not_analysed",
            Violation::NoScaleDownWhileServing => "no_scale_down_while_serving",
            Violation::NoRevertToUnavailableTarget => "no_revert_to_unavailable_target",
            Violation::NoHotLoop => "no_hot_loop",
            Violation::StatusWriteLast => "status_write_last",
            Violation::QuestionsStandAlone => "questions_stand_alone",
        }
    }
}

/// Checks one decision against all properties.
pub fn violations(plan: &Plan, state: &State, seen: &Snapshot, decision: &Decision) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut require = |holds: bool, violation| {
        if !holds {
            found.push(violation);
        }
    };
    let splits: Vec<Split> = decision.effects.iter().filter_map(split_of).collect();
    require(splits.iter().all(|split| split.primary + split.canary == 100), Violation::WeightsSumTo100);
    require(splits.iter().all(|split| is_served(seen, *split)), Violation::NoWeightToUnavailableSide);
    require(splits.len() <= 1, Violation::OneTrafficChangePerStep);
    require(is_legal(state.phase, decision.next.phase), Violation::LegalEdges);
    require(
        decision.effects.iter().all(|effect| match effect {
            Effect::Promote { revision, .. } => *revision == state.last_applied && !revision.is_empty(),
            Effect::Apply(_)
            | Effect::SetTraffic(_)
            | Effect::ScaleTarget(_)
            | Effect::PauseScaler(_)
            | Effect::SetFinalizer(_)
            | Effect::Revert(_)
            | Effect::DeleteObject
            | Effect::Ask(_)
            | Effect::CallHooks(_)
            | Effect::Emit(_)
            | Effect::Alert(_)
            | Effect::Count(_)
            | Effect::WriteStatus => true,
        }),
        Violation::PromotedIsAnalysed,
    );
    // Taken over from another controller: what the primary is seen to run.
    let runs = |revision: &str| {
        let target = seen.target.as_ref().is_ok_and(|target| target.revision == revision);
        target && seen.primary.as_ref().is_some_and(|primary| primary.matches_target)
    };
    require(
        decision.next.last_promoted == state.last_promoted
            || state.phase == Phase::Initializing
            || decision.next.last_promoted == state.last_applied
            || runs(&decision.next.last_promoted),
        Violation::PromotedIsAnalysed,
    );
    let ends_failed = decision.next.phase == Phase::Failed && state.phase != Phase::Failed;
    let by_analysis = matches!(state.phase, Phase::Progressing | Phase::WaitingPromotion);
    let after = splits.last().copied().or(seen.traffic.as_ref().and_then(|traffic| traffic.as_ref().ok().copied()));
    let canary_after = after.map_or(0, |split| split.canary);
    let may_keep = match plan.on_failure {
        OnFailure::RollBack | OnFailure::Hold => decision.next.canary_weight == 0 && canary_after == 0,
        OnFailure::Freeze => decision.next.canary_weight <= state.canary_weight && splits.is_empty(),
    };
    require(!(ends_failed && by_analysis) || may_keep, Violation::FailedSideGainsNothing);
    let past_threshold = by_analysis && !plan.skip_analysis && state.failed_checks >= plan.threshold;
    let canary_before = seen.traffic.as_ref().and_then(|traffic| traffic.as_ref().ok()).map_or(0, |split| split.canary);
    let is_new_revision = seen.target.as_ref().is_ok_and(|target| {
        target.revision != state.last_applied
            || are_other_configs(target.configs.as_ref(), state.tracked_configs.as_ref())
    });
    require(
        !past_threshold || is_new_revision || canary_after <= canary_before,
        Violation::NothingForWhatIsPastTheThreshold,
    );
    let promotes = matches!(state.phase, Phase::Promoting | Phase::Finalising);
    let primary_serves = seen.primary.as_ref().is_some_and(|primary| primary.available > 0);
    require(
        !(promotes && is_new_revision && primary_serves) || canary_after <= canary_before.max(state.canary_weight),
        Violation::NothingForWhatWasNotAnalysed,
    );
    let scales_down = decision
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::ScaleTarget(Scale::Zero) | Effect::PauseScaler(true)));
    require(!scales_down || (canary_after == 0 && splits.is_empty()), Violation::NoScaleDownWhileServing);
    let gives_back = decision
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Revert(_)) || (seen.deleting && *effect == Effect::SetFinalizer(false)));
    let target_serves = seen.reverting.as_ref().is_none_or(|reverting| {
        let target = reverting.as_ref().map(|reverting| &reverting.target);
        target.is_ok_and(|target| {
            target.as_ref().is_none_or(|target| target.readiness.is_ready() && target.available > 0)
        })
    });
    require(!gives_back || target_serves, Violation::NoRevertToUnavailableTarget);
    let awake = matches!(decision.wake, Wake::At(at) if at <= seen.now);
    require(!(awake && decision.effects.is_empty()), Violation::NoHotLoop);
    let writes = decision.effects.iter().filter(|effect| **effect == Effect::WriteStatus).count();
    let last = decision.effects.last() == Some(&Effect::WriteStatus);
    require((writes == 0 && decision.next == *state) || (writes == 1 && last), Violation::StatusWriteLast);
    let asks = decision.effects.iter().any(|effect| matches!(effect, Effect::Ask(_)));
    require(!asks || decision.effects.len() == 1, Violation::QuestionsStandAlone);
    found
}

fn split_of(effect: &Effect) -> Option<Split> {
    match effect {
        Effect::SetTraffic(split) | Effect::Apply(Component::Routes(split)) => Some(*split),
        Effect::Apply(_)
        | Effect::ScaleTarget(_)
        | Effect::PauseScaler(_)
        | Effect::SetFinalizer(_)
        | Effect::Revert(_)
        | Effect::Promote { .. }
        | Effect::DeleteObject
        | Effect::Ask(_)
        | Effect::CallHooks(_)
        | Effect::Emit(_)
        | Effect::Alert(_)
        | Effect::Count(_)
        | Effect::WriteStatus => None,
    }
}

/// Whether no side gains traffic that it cannot serve.
fn is_served(seen: &Snapshot, split: Split) -> bool {
    let Some(Ok(before)) = &seen.traffic else { return true };
    let primary_serves = seen.primary.as_ref().is_some_and(|primary| primary.available > 0);
    let canary_serves = seen.target.as_ref().is_ok_and(|target| target.available > 0);
    (split.primary <= before.primary || primary_serves) && (split.canary <= before.canary || canary_serves)
}
