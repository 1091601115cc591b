//! The analysis: phases `Progressing` and `WaitingPromotion`.

use std::time::Duration;

use aviary_crds::status::Phase;
use jiff::Timestamp;

use crate::analysis::{Verdict, judge};
use crate::effect::{Decision, Effect, HoldKind, Question, Scale};
use crate::message::{Message, Notice};
use crate::plan::OutagePolicy;
use crate::promotion;
use crate::rollback::{Cause, roll_back};
use crate::snapshot::{Readiness, Split, TargetView};
use crate::steady::{is_muted, repair};
use crate::step::{Context, Gate, Step};
use aviary_crds::validated::WebhookType;

pub(crate) fn decide(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return context.obstacle(HoldKind::Target, text),
    };
    if target.revision != state.last_applied {
        return match target.revision == state.last_promoted && !context.has_new_configs(target) {
            true => withdraw(context),
            false => restart(context, target),
        };
    }
    if context.has_new_configs(target) {
        return restart(context, target);
    }
    if state.failed_checks >= plan.threshold && !plan.skip_analysis {
        return roll_back(context, &Cause::Checks);
    }
    // The promotion's write took effect, the status does not yet say so.
    if promotion_was_cut(context) {
        return promotion::enter(context.step());
    }
    if let Some(decision) = repair(context, target) {
        return decision;
    }
    if let Some(decision) = wait_for_primary(context) {
        return decision;
    }
    if target.scaled_to_zero {
        return context.step().effect(Effect::ScaleTarget(Scale::Up)).done();
    }
    match &target.readiness {
        Readiness::Ready => {}
        Readiness::Waiting { reason, deadline } => {
            let message = Message::Obstacle(reason.clone());
            return context.hold(HoldKind::CanaryNotReady, message, plan.interval, *deadline);
        }
        Readiness::Failed { reason } => return roll_back(context, &Cause::Deadline(reason.clone())),
    }
    if plan.skip_analysis {
        return promotion::skip(context, target);
    }
    if state.canary_weight == 0 {
        return begin(context);
    }
    check(context)
}

/// The target is back at the promoted revision: there is nothing to analyse (Flagger goes on and promotes it, Q15).
fn withdraw(context: Context) -> Decision {
    let Context { plan, state, .. } = context;
    let to_primary = match context.to_primary() {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    context
        .step()
        .effect_if(to_primary)
        .effect(Effect::ScaleTarget(Scale::Zero))
        .emit(Message::RevisionWithdrawn { canary: plan.canary_id(), target: plan.target_id() })
        .write(Phase::Succeeded, |next| {
            next.canary_weight = 0;
            next.failed_checks = 0;
            next.iterations = 0;
            next.last_applied.clone_from(&state.last_promoted);
            next.last_step = None;
            next.metrics_unavailable_since = None;
        })
}

/// A newer revision always wins: back to no canary traffic, counters to zero, analysis from the start.
fn restart(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    // Where the primary cannot take over (a failed promotion is being mended), the canary goes on serving everybody.
    let (to_primary, weight) = match context.to_primary() {
        Ok(effect) => (effect, 0),
        Err(_) => (None, state.canary_weight),
    };
    let mut step = context.step().effect_if(to_primary);
    if target.scaled_to_zero {
        step = step.effect(Effect::ScaleTarget(Scale::Up));
    }
    step.emit(Message::Restarting { target: plan.target_id() }).write(Phase::Progressing, |next| {
        next.canary_weight = weight;
        next.failed_checks = 0;
        next.iterations = 0;
        next.last_applied.clone_from(&target.revision);
        next.tracked_configs.clone_from(&target.configs);
        next.last_step = (weight > 0).then_some(seen.now);
        next.metrics_unavailable_since = None;
    })
}

fn promotion_was_cut(context: Context) -> bool {
    let Context { plan, state, seen } = context;
    let at_promotion_point = state.canary_weight > 0 && plan.strategy.next_weight(state.canary_weight).is_none();
    at_promotion_point && seen.primary.as_ref().is_some_and(|primary| primary.matches_target)
}

/// An unready primary stops the analysis, unless the canary serves everybody anyway. It never causes a rollback onto it
/// (Q12).
fn wait_for_primary(context: Context) -> Option<Decision> {
    let Context { plan, state, seen } = context;
    if plan.skip_analysis || state.canary_weight == 100 {
        return None;
    }
    match &seen.primary.as_ref()?.readiness {
        Readiness::Ready => None,
        Readiness::Waiting { reason, .. } | Readiness::Failed { reason } => {
            let message = Message::Obstacle(reason.clone());
            Some(context.hold(HoldKind::PrimaryNotReady, message, plan.interval, None))
        }
    }
}

/// Weight 0: pre-rollout hooks, then the first weight, at once.
fn begin(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    if state.failed_checks > 0
        && let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
    {
        return context.sleep_until(due);
    }
    if let Some(decision) = ask_rollback_hooks(context, state.last_step) {
        return decision;
    }
    let mut step = context.step();
    if state.failed_checks == 0 {
        step = step.emit(Message::Starting { target: plan.target_id() });
    }
    match context.gate(WebhookType::PreRollout, None) {
        Gate::Open(passed) => step = step.passed(WebhookType::PreRollout, passed),
        Gate::Ask => return context.ask(Question::Hooks(WebhookType::PreRollout)),
        Gate::Closed { hook, error, .. } => {
            let message = Message::PreRolloutFailed { canary: plan.canary_id(), hook, error };
            return count_failure(step, message, seen.now);
        }
    }
    match context.gate(WebhookType::ConfirmTrafficIncrease, None) {
        Gate::Open(passed) => advance(context, step.passed(WebhookType::ConfirmTrafficIncrease, passed)),
        Gate::Ask => context.ask(Question::Hooks(WebhookType::ConfirmTrafficIncrease)),
        Gate::Closed { hook, at, .. } => hold_traffic_increase(context, hook, context.interval_after(at)),
    }
}

/// Weight above 0: one round per interval, and what follows from it.
fn check(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    let gates = [WebhookType::ConfirmTrafficIncrease, WebhookType::ConfirmPromotion];
    let closed =
        gates.iter().filter_map(|kind| Some((*kind, closed_gate(context, *kind)?))).max_by_key(|(_, gate)| gate.1);
    // A soak interval starts with the last step; a gate that said no starts another one.
    let soak_start = state.last_step.max(closed.as_ref().map(|(_, gate)| gate.1));
    let due = soak_start.map(|at| context.interval_after(at));

    let answer = seen.answers.round.as_ref().filter(|answer| soak_start.is_none_or(|start| answer.at >= start));
    let Some(answer) = answer else {
        if let Some(due) = due.filter(|due| seen.now < *due) {
            return match closed {
                Some((kind, (hook, _))) => hold_gate(context, kind, hook, due),
                None => context.sleep_until(due),
            };
        }
        if let Some(decision) = ask_rollback_hooks(context, due) {
            return decision;
        }
        return context.ask(Question::Round);
    };
    let step = context.step();
    match judge(plan, state, answer) {
        Verdict::Pass => proceed(context, settle_outage(context, step), answer.at),
        Verdict::Fail(message) => count_failure(settle_outage(context, step), message, seen.now),
        Verdict::Unknown(error) => hold_for_monitoring(context, error, answer.at),
    }
}

/// The hook that closed this gate, and when.
fn closed_gate(context: Context, kind: WebhookType) -> Option<(String, Timestamp)> {
    let answer = context.seen.answers.hooks.get(&kind)?;
    let hook = answer.value.iter().find(|hook| hook.result.is_err())?;
    Some((hook.name.clone(), answer.at))
}

/// The round passed: on to the next weight, or to the promotion.
fn proceed(context: Context, step: Step, round_at: Timestamp) -> Decision {
    let Context { plan, state, .. } = context;
    let kind = WebhookType::ConfirmTrafficIncrease;
    let step = if state.phase == Phase::WaitingPromotion {
        step
    } else {
        match context.gate(kind, Some(round_at)) {
            Gate::Open(passed) => step.passed(kind, passed),
            Gate::Ask => return context.ask(Question::Hooks(kind)),
            Gate::Closed { hook, at, .. } => return hold_traffic_increase(context, hook, context.interval_after(at)),
        }
    };
    if plan.strategy.next_weight(state.canary_weight).is_some() {
        return advance(context, step);
    }
    match context.gate(WebhookType::ConfirmPromotion, Some(round_at)) {
        Gate::Open(passed) => promotion::promote(context, step.passed(WebhookType::ConfirmPromotion, passed)),
        Gate::Ask => context.ask(Question::Hooks(WebhookType::ConfirmPromotion)),
        Gate::Closed { hook, at, .. } => hold_promotion(context, hook, context.interval_after(at)),
    }
}

fn advance(context: Context, step: Step) -> Decision {
    let Context { plan, state, seen } = context;
    let Some(weight) = plan.strategy.next_weight(state.canary_weight) else { return context.idle() };
    step.effect(Effect::SetTraffic(Split::to_canary(weight)))
        .emit(Message::AdvanceCanary { canary: plan.canary_id(), weight })
        .write(Phase::Progressing, |next| {
            next.canary_weight = weight;
            next.last_step = Some(seen.now);
            next.metrics_unavailable_since = None;
        })
}

fn count_failure(step: Step, message: Message, now: Timestamp) -> Decision {
    let phase = step.phase();
    step.emit(message).write(phase, |next| {
        next.failed_checks += 1;
        next.last_step = Some(now);
        next.metrics_unavailable_since = None;
    })
}

fn settle_outage<'a>(context: Context<'a>, step: Step<'a>) -> Step<'a> {
    match context.state.metrics_unavailable_since {
        Some(_) => step.emit(Message::MetricsRecovered { canary: context.plan.canary_id() }),
        None => step,
    }
}

/// The monitoring does not answer. That says nothing about the canary, so it stays where it is.
fn hold_for_monitoring(context: Context, error: String, at: Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let limit = match plan.outage {
        OutagePolicy::Hold { limit } => limit,
        OutagePolicy::Fail => Duration::ZERO,
    };
    let message = Message::MetricsOutage { canary: plan.canary_id(), weight: state.canary_weight, error, limit };
    if state.metrics_unavailable_since.is_none() {
        return context.step().emit(message).write(state.phase, |next| {
            next.metrics_unavailable_since = Some(at);
            next.last_step = Some(seen.now);
        });
    }
    let ask_again = context.interval_after(at);
    if seen.now >= ask_again {
        return context.ask(Question::Round);
    }
    context.hold(HoldKind::MetricsOutage, message, Duration::MAX, Some(ask_again))
}

fn hold_gate(context: Context, kind: WebhookType, hook: String, until: Timestamp) -> Decision {
    match kind {
        WebhookType::ConfirmPromotion => hold_promotion(context, hook, until),
        _ => hold_traffic_increase(context, hook, until),
    }
}

fn hold_traffic_increase(context: Context, hook: String, until: Timestamp) -> Decision {
    let muted = is_muted(context, WebhookType::ConfirmTrafficIncrease, &hook);
    let message = Message::WaitingForTrafficIncrease { canary: context.plan.canary_id(), hook };
    let kind = WebhookType::ConfirmTrafficIncrease;
    let alert = (!muted).then(|| Notice::warning("Canary traffic increase is waiting for approval."));
    let mut decision = context.hold(HoldKind::Gate(kind), message, Duration::ZERO, Some(until));
    if let Some(hold) = &mut decision.hold {
        hold.alert = alert;
    }
    decision
}

fn hold_promotion(context: Context, hook: String, until: Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let kind = WebhookType::ConfirmPromotion;
    let message = Message::WaitingForPromotion { canary: plan.canary_id(), hook: hook.clone() };
    if state.phase == Phase::WaitingPromotion {
        return context.hold(HoldKind::Gate(kind), message, Duration::MAX, Some(until));
    }
    let mut step = context.step().emit(message);
    if !is_muted(context, kind, &hook) {
        step = step.alert(Notice::warning("Canary promotion is waiting for approval."));
    }
    step.write(Phase::WaitingPromotion, |next| next.last_step = Some(seen.now))
}

/// Rollback hooks are asked before each round; a success means "roll back".
fn ask_rollback_hooks(context: Context, since: Option<Timestamp>) -> Option<Decision> {
    if !context.plan.has_hooks(WebhookType::Rollback) {
        return None;
    }
    let answers = &context.seen.answers.hooks;
    let answer = answers.get(&WebhookType::Rollback).filter(|answer| since.is_none_or(|since| answer.at >= since));
    let Some(answer) = answer else { return Some(context.ask(Question::Hooks(WebhookType::Rollback))) };
    let signal = answer.value.iter().find(|hook| hook.result.is_ok())?;
    Some(roll_back(context, &Cause::Hook(signal.name.clone())))
}
