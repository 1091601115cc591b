//! The way of an analysed revision into the primary: `Promoting`, `Finalising`, `Succeeded`.

use std::time::Duration;

use aviary_crds::status::Phase;
use jiff::Timestamp;

use crate::effect::{Decision, Effect, HoldKind, Outcome};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::repair::{repair, repair_objects, repair_weights, without_target};
use crate::snapshot::{PrimaryView, Readiness, Split, TargetView};
use crate::step::{Context, Step};
use aviary_crds::validated::WebhookType;

/// Copies the analysed revision to the primary and enters `Promoting`.
pub(crate) fn promote(context: Context, step: Step) -> Decision {
    let Context { plan, state, .. } = context;
    let step = step
        .effect(Effect::Promote { revision: state.last_applied.clone(), configs: state.tracked_configs.clone() })
        .emit(plan.copying(&state.last_applied));
    enter(step)
}

/// Enters `Promoting`, the copy being made.
pub(crate) fn enter(step: Step) -> Decision {
    step.write(Phase::Promoting, |next| {
        // No soak before the first step back: it is made as soon as the primary is ready.
        next.last_step = None;
        next.outage = None;
    })
}

/// `skipAnalysis`: copy and finish, without asking anything.
pub(crate) fn skip(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    let promoted = is_promoted(context);
    // The canary serves everybody because the primary cannot. The copy is what mends the primary, so it comes first.
    if context.canary_serves_all() && !context.primary_serves() && seen.traffic.is_some() {
        return if promoted { enter(context.step()) } else { promote(context, context.step()) };
    }
    match context.route(Split::PRIMARY) {
        Ok(None) => {}
        // The analysis was switched off in its middle: its weight is that of the state.
        Ok(Some(effect)) => {
            return context.step().effect(effect).write(state.phase, |next| {
                next.canary_weight = 0;
                next.iterations = 0;
            });
        }
        Err(decision) => return *decision,
    }
    if let Some(wait) = context.wait_until_settled() {
        return wait;
    }
    let mut step = context.step();
    if !promoted {
        step = step
            .effect(Effect::Promote { revision: state.last_applied.clone(), configs: state.tracked_configs.clone() })
            .emit(plan.copying(&state.last_applied));
    }
    finish(context, step, target, Outcome::Skipped)
}

/// Whether the primary already carries what the target says.
pub(crate) fn is_promoted(context: Context) -> bool {
    context.seen.primary.as_ref().is_some_and(|primary| primary.matches_target)
}

/// Phase `Promoting`: when the primary is ready, traffic goes back to it.
pub(crate) fn promoting(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    let (target, primary) = match both_sides(context) {
        Ok(sides) => sides,
        Err(decision) => return *decision,
    };
    match &primary.readiness {
        Readiness::Ready => {}
        Readiness::Waiting { reason, deadline } => return await_primary(context, reason, *deadline),
        Readiness::Failed { reason } if plan.holds_on_failure() => return await_primary(context, reason, None),
        Readiness::Failed { reason } => return context.look_again().unwrap_or_else(|| fail(context, target, reason)),
    }
    if let Some(decision) = repair_objects(context) {
        return decision;
    }
    let found = match &seen.traffic {
        None => {
            return context.step().write(Phase::Finalising, |next| {
                next.canary_weight = 0;
                next.iterations = 0;
            });
        }
        Some(Ok(split)) => *split,
        Some(Err(text)) => return context.obstacle(HoldKind::Routes, text),
    };
    // Weight 0 means that the last step back was made and its status write was lost (Flagger hangs here, Q4).
    let at_once = plan.step_weight_promotion == 0 || state.canary_weight == 0;
    if !at_once
        && let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
    {
        return repair_weights(context).unwrap_or_else(|| context.sleep_until(due));
    }
    // On the way back the canary never gains: where somebody has taken traffic from it already, the rest follows.
    let weight = match at_once {
        true => 0,
        false => state.canary_weight.saturating_sub(plan.step_weight_promotion).min(found.canary),
    };
    let route = match context.route(Split::to_canary(weight)) {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let message = match at_once {
        true => plan.to_primary(),
        false => Message::AdvancePrimary { canary: plan.canary_id(), weight: 100 - weight },
    };
    let phase = if weight == 0 { Phase::Finalising } else { Phase::Promoting };
    context.step().effect_if(route).emit(message).write(phase, |next| {
        next.canary_weight = weight;
        next.iterations = 0;
        next.last_step = (weight > 0).then_some(seen.now);
    })
}

/// Phase `Finalising`: the primary serves everybody; the canary is no longer needed, ready or not (Q31).
pub(crate) fn finalising(context: Context) -> Decision {
    let (target, primary) = match both_sides(context) {
        Ok(sides) => sides,
        Err(decision) => return *decision,
    };
    // The scale-down was made, its status write was lost: the run was complete.
    if context.is_at_rest(target) {
        return finish(context, context.step(), target, Outcome::Completed);
    }
    match &primary.readiness {
        Readiness::Ready => {}
        // The canary is the only side known to be good; it is kept until the primary is, too.
        Readiness::Waiting { reason, deadline } => return await_primary(context, reason, *deadline),
        Readiness::Failed { reason } if context.plan.holds_on_failure() => return await_primary(context, reason, None),
        Readiness::Failed { reason } => return context.look_again().unwrap_or_else(|| fail(context, target, reason)),
    }
    context.leave_canary().unwrap_or_else(|| finish(context, context.step(), target, Outcome::Completed))
}

fn await_primary(context: Context, reason: &str, deadline: Option<Timestamp>) -> Decision {
    repair(context).unwrap_or_else(|| {
        let message = Message::Obstacle(reason.to_owned());
        context.hold(HoldKind::PrimaryNotReady, message, context.plan.interval, deadline)
    })
}

fn both_sides<'a>(context: Context<'a>) -> Result<(&'a TargetView, &'a PrimaryView), Box<Decision>> {
    let target = match &context.seen.target {
        Ok(target) => target,
        Err(text) => return Err(Box::new(without_target(context, text))),
    };
    match &context.seen.primary {
        Some(primary) => Ok((target, primary)),
        None => {
            let decision = repair(context).unwrap_or_else(|| context.idle());
            Err(Box::new(decision))
        }
    }
}

fn finish<'a>(context: Context<'a>, step: Step<'a>, target: &TargetView, outcome: Outcome) -> Decision {
    let Context { plan, state, .. } = context;
    let step = if plan.uses_subsets { step } else { step.put_to_rest(target) };
    let (message, alert) = match outcome {
        Outcome::Skipped => (
            Message::PromotedWithoutAnalysis { target: plan.target_id() },
            Notice::info(Occasion::PromotedWithoutAnalysis, "Canary analysis was skipped, promotion finished."),
        ),
        Outcome::Completed | Outcome::Failed => {
            (plan.promoted(&state.last_applied), plan.promoted_alert(&state.last_applied))
        }
    };
    call_post_rollout(context, step).effect(Effect::Count(outcome)).emit(message).alert(alert).write(
        Phase::Succeeded,
        |next| {
            next.canary_weight = 0;
            next.iterations = 0;
            next.scale_down_due = false;
            next.last_promoted.clone_from(&state.last_applied);
            next.last_step = None;
            next.outage = None;
        },
    )
}

/// Post-rollout hooks hear of the end when traffic and pods are where they belong.
pub(crate) fn call_post_rollout<'a>(context: Context<'a>, step: Step<'a>) -> Step<'a> {
    let kind = WebhookType::PostRollout;
    step.effect_if(context.plan.has_hooks(kind).then_some(Effect::CallHooks(kind)))
}

/// The primary did not become ready: the canary, which was analysed and is healthy, serves everybody.
fn fail(context: Context, target: &TargetView, reason: &str) -> Decision {
    let Context { plan, seen, .. } = context;
    if !context.canary_serves() {
        if let Some(decision) = repair(context) {
            return decision;
        }
        return nowhere_to_go(context, Message::NowhereToGo { target: plan.target_id(), error: reason.to_owned() });
    }
    // Where the old primary's pods still serve, they are better than what nobody has looked at.
    if context.is_edited(target) && context.primary_serves() {
        let message = Message::UnanalysedTarget { target: plan.target_id(), error: reason.to_owned() };
        return repair(context).unwrap_or_else(|| nowhere_to_go(context, message));
    }
    let to_canary = match context.route(Split::CANARY) {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let routed = seen.traffic.is_some();
    let step = context.step().effect_if(to_canary);
    let step = step
        .emit(Message::PromotionFailed { target: plan.target_id(), error: reason.to_owned() })
        .alert(Notice::error(Occasion::PromotionFailed, format!("Promotion failed, primary not ready: {reason}")))
        .effect(Effect::Count(Outcome::Failed));
    call_post_rollout(context, step).write(Phase::Failed, |next| {
        next.canary_weight = if routed { 100 } else { 0 };
        next.scale_down_due = false;
        next.iterations = 0;
        next.last_step = None;
    })
}

fn nowhere_to_go(context: Context, message: Message) -> Decision {
    let alert = Notice::error(Occasion::NowhereToGo, message.to_string());
    context.hold(HoldKind::NowhereToGo, message, Duration::ZERO, None).with_alert(alert)
}
