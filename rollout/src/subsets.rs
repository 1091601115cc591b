//! Sides that are subsets of routes which a user has made: before the first run, and between two.
//!
//! Nothing is generated, and no workload is touched. "Waking" the canary puts its version behind the canary subset, promoting it
//! puts that behind the production subset; both are labels that the target's provider writes.

use aviary_crds::status::Phase;

use crate::effect::{Decision, Effect};
use crate::message::Message;
use crate::snapshot::{Split, TargetView};
use crate::steady::detect;
use crate::step::Context;

/// The first look: what is in production has no name yet, unless it is the very version that is to be released.
pub(crate) fn bootstrap(context: Context, target: &TargetView) -> Decision {
    let Context { seen, .. } = context;
    if seen.primary.as_ref().is_some_and(|primary| primary.matches_target) {
        return context.step().write(Phase::Initialized, |next| {
            next.last_applied.clone_from(&target.revision);
            next.last_promoted.clone_from(&target.revision);
        });
    }
    match context.route(Split::PRIMARY) {
        Ok(None) => context.step().write(Phase::Initialized, |_| {}),
        Ok(Some(effect)) => context.step().effect(effect).done(),
        Err(decision) => *decision,
    }
}

/// The routes are the user's own again, with two exceptions: nobody is left on a frozen canary without pods, and a frozen canary
/// loses its users before another version takes its place.
pub(crate) fn between_runs(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    let frozen = Split::to_canary(state.canary_weight);
    let keeps_users = state.canary_weight > 0 && seen.traffic == Some(Ok(frozen));
    let is_new = context.is_new(target);
    // Another version behind the subset is somebody else's release.
    let has_lost_pods = !target.scaled_to_zero && !context.canary_serves();
    if keeps_users && (is_new || has_lost_pods) {
        let route = match context.route(Split::PRIMARY) {
            Ok(effect) => effect,
            Err(decision) => return *decision,
        };
        let mut step = context.step().effect_if(route);
        if !is_new {
            step = step.emit(Message::CanaryUnavailable { canary: plan.canary_id() });
        }
        return step.write(state.phase, |next| next.canary_weight = 0);
    }
    if is_new && state.canary_weight > 0 {
        return context.step().write(state.phase, |next| next.canary_weight = 0);
    }
    if is_new && seen.primary.as_ref().is_some_and(|primary| primary.matches_target) {
        return context.step().write(Phase::Succeeded, |next| {
            next.last_applied.clone_from(&target.revision);
            next.last_promoted.clone_from(&target.revision);
        });
    }
    if is_new {
        return detect(context, target);
    }
    if plan.deletes_on_success && state.phase == Phase::Succeeded {
        return context.step().effect(Effect::DeleteObject).done();
    }
    context.idle()
}
