//! `revertOnDeletion`: a finalizer keeps a deleted canary until its users are back on the target.
//!
//! Every decision here does the next missing thing, and nothing is remembered but what can be observed. What is gone
//! already needs no reverting, so that nothing that is missing keeps the object for ever (Flagger hangs, Q8). Nothing else
//! is decided meanwhile, so that no repair points users back to a primary that is about to go (Q7).

use aviary_crds::status::Phase;

use crate::effect::{Decision, Effect, HoldKind, Reverted, Scale};
use crate::message::Message;
use crate::snapshot::{Readiness, Returned, Split};
use crate::step::Context;

/// What a deletion, or the wish to be told of one, asks for; `None` if nothing.
pub(crate) fn decide(context: Context) -> Option<Decision> {
    let Context { plan, seen, .. } = context;
    if seen.deleting {
        return Some(deleting(context));
    }
    // By what is there and not by what has changed: a change may be missed.
    let wanted = plan.revert_on_deletion;
    (wanted != seen.has_finalizer).then(|| context.step().effect(Effect::SetFinalizer(wanted)).done())
}

fn deleting(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    if !seen.has_finalizer {
        return context.idle();
    }
    if !plan.revert_on_deletion {
        return context.step().effect(Effect::SetFinalizer(false)).done();
    }
    if state.phase != Phase::Terminating {
        let message = Message::Terminating { canary: plan.canary_id() };
        return context.step().emit(message).write(Phase::Terminating, |_| {});
    }
    let reverting = match &seen.reverting {
        Some(Ok(reverting)) => reverting,
        Some(Err(text)) => return context.obstacle(HoldKind::Reverting, text),
        None => return context.idle(),
    };
    if let Some(target) = &reverting.target
        && let Some(decision) = wait_for_target(context, target)
    {
        return decision;
    }
    let leads_users = reverting.apex || reverting.routes;
    if leads_users
        && reverting.target.is_some()
        && context.primary_serves()
        && let Some(wait) = context.wait_since_served(seen.serving_since.canary)
    {
        return wait;
    }
    if reverting.apex {
        return context.step().effect(Effect::Revert(Reverted::Apex)).done();
    }
    if reverting.routes {
        return context.step().effect(Effect::Revert(Reverted::Routes)).done();
    }
    // With the finalizer goes what the canary owns, the primary's pods too.
    if let Some(wait) = context.wait_until_settled() {
        return wait;
    }
    let message = Message::Terminated { canary: plan.canary_id() };
    context.step().emit(message).effect(Effect::SetFinalizer(false)).done()
}

/// Users stay on the primary until the target can take them.
fn wait_for_target(context: Context, target: &Returned) -> Option<Decision> {
    let Context { plan, seen, .. } = context;
    if target.available == 0 && context.primary_serves() && matches!(&seen.traffic, Some(Ok(found)) if found.canary > 0)
    {
        return Some(context.step().effect(Effect::SetTraffic(Split::PRIMARY)).done());
    }
    if target.is_short_of_pods || context.scaler_is_paused() {
        let restore = target.is_short_of_pods.then_some(Effect::ScaleTarget(Scale::Restore));
        return Some(context.step().resume_scaler().effect_if(restore).done());
    }
    let reason = match &target.readiness {
        Readiness::Ready if target.available > 0 => return None,
        Readiness::Ready => "no available pods",
        Readiness::Waiting { reason, .. } | Readiness::Failed { reason } => reason,
    };
    let message = Message::NotReadyForDeletion { canary: plan.canary_id(), reason: reason.to_owned() };
    Some(context.hold(HoldKind::Reverting, message, plan.interval, None))
}
