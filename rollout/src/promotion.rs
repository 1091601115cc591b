//! The way of an analysed revision into the primary: `Promoting`, `Finalising`, `Succeeded`.

use std::time::Duration;

use aviary_crds::status::Phase;

use crate::effect::{Decision, Effect, HoldKind, Outcome, Scale};
use crate::message::{Message, Notice};
use crate::snapshot::{PrimaryView, Readiness, Split, TargetView};
use crate::steady::repair;
use crate::step::{Context, Step};
use aviary_crds::validated::WebhookType;

/// Copies the analysed revision to the primary and enters `Promoting`.
pub(crate) fn promote(context: Context, step: Step) -> Decision {
    let Context { plan, state, .. } = context;
    let step = step
        .effect(Effect::Promote { revision: state.last_applied.clone(), configs: state.tracked_configs.clone() })
        .emit(Message::Copying { target: plan.target_id(), primary: plan.primary_id() });
    enter(step)
}

/// Enters `Promoting`, the copy being made.
pub(crate) fn enter(step: Step) -> Decision {
    step.write(Phase::Promoting, |next| {
        // No soak before the first step back: it is made as soon as the primary is ready.
        next.last_step = None;
        next.metrics_unavailable_since = None;
    })
}

/// `skipAnalysis`: copy and finish, without asking anything.
pub(crate) fn skip(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    let to_primary = match context.to_primary() {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let mut step = context.step().effect_if(to_primary);
    let promoted = seen.primary.as_ref().is_some_and(|primary| primary.matches_target);
    if !promoted {
        step = step
            .effect(Effect::Promote { revision: state.last_applied.clone(), configs: target.configs.clone() })
            .emit(Message::Copying { target: plan.target_id(), primary: plan.primary_id() });
    }
    finish(context, step, target, Outcome::Skipped)
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
        Readiness::Waiting { reason, deadline } => {
            if let Some(decision) = repair(context, target) {
                return decision;
            }
            let message = Message::Obstacle(reason.clone());
            return context.hold(HoldKind::PrimaryNotReady, message, plan.interval, *deadline);
        }
        Readiness::Failed { reason } => return fail(context, target, reason),
    }
    let to_primary = match context.to_primary() {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    if seen.traffic.is_none() {
        return context.step().write(Phase::Finalising, |next| next.canary_weight = 0);
    }
    // Weight 0 means that the last step back was made and its status write was lost (Flagger hangs here, Q4).
    let step_back = plan.step_weight_promotion;
    if step_back == 0 || state.canary_weight == 0 {
        return context.step().effect_if(to_primary).emit(Message::RoutingToPrimary).write(Phase::Finalising, |next| {
            next.canary_weight = 0;
            next.iterations = 0;
            next.last_step = None;
        });
    }
    if let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
    {
        return match repair(context, target) {
            Some(decision) => decision,
            None => context.sleep_until(due),
        };
    }
    let weight = state.canary_weight.saturating_sub(step_back);
    let phase = if weight == 0 { Phase::Finalising } else { Phase::Promoting };
    context
        .step()
        .effect(Effect::SetTraffic(Split::to_canary(weight)))
        .emit(Message::AdvancePrimary { canary: plan.canary_id(), weight: 100 - weight })
        .write(phase, |next| {
            next.canary_weight = weight;
            next.last_step = (weight > 0).then_some(seen.now);
        })
}

/// Phase `Finalising`: the primary serves everybody; the canary is no longer needed, ready or not (Q31).
pub(crate) fn finalising(context: Context) -> Decision {
    let (target, primary) = match both_sides(context) {
        Ok(sides) => sides,
        Err(decision) => return *decision,
    };
    if let Readiness::Failed { reason } = &primary.readiness
        && target.available > 0
    {
        return fail(context, target, reason);
    }
    finish(context, context.step(), target, Outcome::Completed)
}

fn both_sides<'a>(context: Context<'a>) -> Result<(&'a TargetView, &'a PrimaryView), Box<Decision>> {
    let target = match &context.seen.target {
        Ok(target) => target,
        Err(text) => return Err(Box::new(context.obstacle(HoldKind::Target, text))),
    };
    match &context.seen.primary {
        Some(primary) => Ok((target, primary)),
        None => {
            let decision = repair(context, target).unwrap_or_else(|| context.idle());
            Err(Box::new(decision))
        }
    }
}

fn finish<'a>(context: Context<'a>, mut step: Step<'a>, target: &TargetView, outcome: Outcome) -> Decision {
    let Context { plan, state, .. } = context;
    if !target.scaled_to_zero {
        step = step.effect(Effect::ScaleTarget(Scale::Zero));
    }
    let (message, text) = match outcome {
        Outcome::Skipped => (
            Message::PromotedWithoutAnalysis { target: plan.target_id() },
            "Canary analysis was skipped, promotion finished.",
        ),
        Outcome::Completed | Outcome::Failed => (
            Message::Promoted { target: plan.target_id() },
            "Canary analysis completed successfully, promotion finished.",
        ),
    };
    call_post_rollout(context, step).effect(Effect::Count(outcome)).emit(message).alert(Notice::info(text)).write(
        Phase::Succeeded,
        |next| {
            next.canary_weight = 0;
            next.iterations = 0;
            next.last_promoted.clone_from(&state.last_applied);
            next.last_step = None;
            next.metrics_unavailable_since = None;
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
    if target.available == 0 {
        let message = Message::NowhereToGo { target: plan.target_id(), error: reason.to_owned() };
        return context.hold(HoldKind::NowhereToGo, message, Duration::ZERO, None);
    }
    let mut step = context.step();
    let routed = seen.traffic.is_some();
    if routed {
        step = step.effect(Effect::SetTraffic(Split::CANARY));
    }
    let step = step
        .emit(Message::PromotionFailed { target: plan.target_id(), error: reason.to_owned() })
        .alert(Notice::error(format!("Promotion failed, primary not ready: {reason}")))
        .effect(Effect::Count(Outcome::Failed));
    call_post_rollout(context, step).write(Phase::Failed, |next| {
        next.canary_weight = if routed { 100 } else { 0 };
        next.iterations = 0;
        next.last_step = None;
    })
}
