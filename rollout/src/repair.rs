//! Puts right what Aviary owns and somebody else changed or deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_crds::status::Phase;

use crate::effect::{Component, Decision, Effect, HoldKind};
use crate::message::Message;
use crate::snapshot::Split;
use crate::step::{Context, Step};
use crate::strategy::Strategy;

/// The primary of a deleted canary is collected, and the watch of its kind may tell so before that of the canaries does.
/// Watches are fractions of a second apart, on a busy API server seconds.
const COLLECTED_WITHIN: Duration = Duration::from_secs(5);

/// The next repair, objects first. `None` when all is in shape.
pub(crate) fn repair(context: Context) -> Option<Decision> {
    repair_objects(context).or_else(|| repair_weights(context))
}

/// The target cannot be used: no user may be left on it, and somebody must look at it.
pub(crate) fn without_target(context: Context, text: &str) -> Decision {
    repair_weights(context).unwrap_or_else(|| context.obstacle(HoldKind::Target, text))
}

/// Missing or changed objects, one at a time.
pub(crate) fn repair_objects(context: Context) -> Option<Decision> {
    let pending = &context.seen.pending;
    let apply = |component| Some(context.step().effect(Effect::Apply(component)).done());
    if context.seen.repairs_paused {
        // With a promotion the primary's autoscaler is brought to the target's, and that is no repair.
        let is_promoted_with = pending.scaler && context.state.phase == Phase::Promoting;
        return if is_promoted_with { apply(Component::Scaler) } else { None };
    }
    if pending.services {
        return apply(Component::Services);
    }
    if takes_pods_away(context) {
        return Some(context.step().resume_scaler().done());
    }
    if needs_primary(context)
        && let Some(decision) = restore_primary(context)
    {
        return Some(decision);
    }
    if pending.scaler {
        return apply(Component::Scaler);
    }
    if pending.apex {
        return apply(Component::Apex);
    }
    if pending.routes {
        let split = context.served_or_found(context.expected_split());
        let step = context.step().effect(Effect::Apply(Component::Routes(split)));
        let served = context.seen.traffic.as_ref().and_then(|traffic| traffic.as_ref().ok());
        return Some(give_weight(context, step, served.map_or(0, |found| found.canary), split));
    }
    None
}

/// Ends a step that puts `split` in force. What the canary did not serve was not measured: a canary that comes and goes earns
/// no step by it, and soaks anew.
fn give_weight<'a>(context: Context<'a>, step: Step<'a>, found: u32, split: Split) -> Decision {
    let Context { state, seen, .. } = context;
    let analysing = matches!(state.phase, Phase::Progressing | Phase::WaitingPromotion);
    if analysing && split.canary > found {
        return step.write(state.phase, |next| next.last_step = Some(seen.now));
    }
    step.done()
}

/// Makes a missing primary again, or says why it cannot be made.
pub(crate) fn restore_primary(context: Context) -> Option<Decision> {
    let Context { plan, seen, .. } = context;
    if seen.primary.is_some() {
        return None;
    }
    if holds_analysed_revision(context) {
        return Some(context.step().effect(Effect::Apply(Component::Primary)).done());
    }
    let message = Message::PrimaryMissing { primary: plan.primary_id(), target: plan.target_id() };
    Some(context.hold(HoldKind::PrimaryMissing, message, COLLECTED_WITHIN, None))
}

/// Whether the target's autoscaler is told to take away pods that are needed. An analysis wakes its canary itself; a
/// promotion does not, and may need it if the primary fails.
fn takes_pods_away(context: Context) -> bool {
    if !context.scaler_is_paused() {
        return false;
    }
    let has_pods = context.seen.target.as_ref().is_ok_and(|target| !target.scaled_to_zero);
    let is_analysed = matches!(context.state.phase, Phase::Progressing | Phase::WaitingPromotion);
    (is_analysed && has_pods) || context.state.phase == Phase::Promoting || context.canary_serves_all()
}

/// While the canary serves everybody, a missing primary comes back with the next promotion. So it does after a failed A/B test,
/// but until there is one, those who do not meet the conditions have nobody.
fn needs_primary(context: Context) -> bool {
    let Context { plan, state, seen } = context;
    let is_at_rest = state.phase == Phase::Failed && seen.target.as_ref().is_ok_and(|target| !context.is_new(target));
    let serves_some = is_at_rest && matches!(plan.strategy, Strategy::AbTesting(_));
    !context.canary_serves_all() || serves_some || matches!(state.phase, Phase::Promoting | Phase::Finalising)
}

/// A primary is only ever made from what was analysed (Q25).
fn holds_analysed_revision(context: Context) -> bool {
    let Context { state, seen, .. } = context;
    let Ok(target) = &seen.target else { return false };
    let same_configs = !context.has_new_configs(target);
    if matches!(state.phase, Phase::Promoting | Phase::Finalising) {
        return target.revision == state.last_applied && same_configs;
    }
    if target.revision != state.last_promoted {
        return false;
    }
    // Set back on purpose. The status does not say which configs were promoted, it has those of the failed revision.
    if state.last_applied != state.last_promoted {
        return true;
    }
    // It may be the configs alone that are analysed, or failed.
    let configs_promoted = matches!(state.phase, Phase::Initialized | Phase::Succeeded);
    let configs_known = configs_promoted || target.configs.as_ref().is_none_or(BTreeMap::is_empty);
    configs_known && same_configs
}

/// Weights that differ from the state's.
pub(crate) fn repair_weights(context: Context) -> Option<Decision> {
    let Context { plan, state, seen } = context;
    let found = match seen.traffic.as_ref()? {
        Ok(split) => *split,
        Err(text) => return Some(context.obstacle(HoldKind::Routes, text)),
    };
    let expected = context.expected_split();
    if found == expected || is_half_done_step(context, found) || !context.is_served(found, expected) {
        return None;
    }
    if let Some(wait) = context.wait_until_reached(found, expected) {
        return Some(wait);
    }
    let protects_users = expected.canary != state.canary_weight;
    if seen.repairs_paused && !protects_users {
        return None;
    }
    let canary = plan.canary_id();
    let message = if protects_users {
        Message::CanaryUnavailable { canary }
    } else if found.canary == expected.canary {
        Message::MirroringRepaired { canary, mirrored: expected.mirrored }
    } else {
        Message::WeightsRepaired { canary, found: found.canary, weight: expected.canary }
    };
    let step = context.step().effect(Effect::SetTraffic(expected)).emit(message);
    Some(give_weight(context, step, found.canary, expected))
}

/// The weight that the routes give the canary, where that is less than it should be: the repair rests, because another
/// writer undoes it.
pub(crate) fn weight_kept_from_canary(context: Context) -> Option<u32> {
    let found = context.seen.traffic.as_ref()?.as_ref().ok()?.canary;
    (found < context.expected_split().canary).then_some(found)
}

/// Whether `found` is where the step after the present one leads: the route was written, the status was not yet. The
/// step itself settles the weights then.
fn is_half_done_step(context: Context, found: Split) -> bool {
    let Context { plan, state, seen } = context;
    let due = state.last_step.is_none_or(|at| seen.now >= context.interval_after(at));
    if !due {
        return false;
    }
    match state.phase {
        Phase::Promoting => {
            let step = if plan.step_weight_promotion == 0 { 100 } else { plan.step_weight_promotion };
            found == Split::to_canary(state.canary_weight.saturating_sub(step)) && context.primary_serves()
        }
        Phase::Progressing | Phase::WaitingPromotion => {
            let canary_ready = seen.target.as_ref().is_ok_and(|target| target.readiness.is_ready());
            plan.strategy.next(state.position()).is_some_and(|next| plan.strategy.split(next.to) == found)
                && canary_ready
                && context.canary_serves()
                && context.closed_gate().is_none()
        }
        Phase::Uninitialized
        | Phase::Initializing
        | Phase::Initialized
        | Phase::Waiting
        | Phase::Finalising
        | Phase::Succeeded
        | Phase::Failed
        | Phase::Terminating
        | Phase::Terminated => false,
    }
}
