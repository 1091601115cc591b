//! Between two runs: notice a new revision, keep what Aviary owns in shape, and otherwise do nothing at all.

use std::time::Duration;

use aviary_crds::status::Phase;

use crate::effect::{Component, Decision, Effect, HoldKind, Question, Scale};
use crate::message::{Message, Notice};
use crate::snapshot::{Readiness, TargetView};
use crate::step::{Context, Gate};
use aviary_crds::validated::WebhookType;

/// Phases `Initialized`, `Succeeded` and `Failed`.
pub(crate) fn decide(context: Context) -> Decision {
    let Context { state, seen, .. } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return context.obstacle(HoldKind::Target, text),
    };
    if let Some(decision) = repair(context, target) {
        return decision;
    }
    if context.is_new(target) {
        return detect(context, target);
    }
    // Back at the promoted revision after a failure: remember it, so that re-applying the failed one is a change.
    // Only this is adopted; Flagger records any revision seen in Failed and may lose it (Q3).
    if state.phase == Phase::Failed && target.revision == state.last_promoted && state.last_applied != target.revision {
        return context.step().write(Phase::Failed, |next| next.last_applied.clone_from(&target.revision));
    }
    context.idle()
}

/// Phase `Waiting`: a confirm-rollout gate is closed.
pub(crate) fn waiting(context: Context) -> Decision {
    let Context { state, seen, .. } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return context.obstacle(HoldKind::Target, text),
    };
    if let Some(decision) = repair(context, target) {
        return decision;
    }
    if !context.is_new(target) {
        // The change was taken back while it waited; there is nothing left to confirm.
        let phase = match target.revision == state.last_promoted && state.last_applied == state.last_promoted {
            true => Phase::Succeeded,
            false => Phase::Failed,
        };
        return context.step().write(phase, |_| {});
    }
    if let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
        && !seen.answers.hooks.contains_key(&WebhookType::ConfirmRollout)
    {
        return context.sleep_until(due);
    }
    detect(context, target)
}

/// A new revision (or new configs) was seen: start a run as soon as it is safe and allowed.
fn detect(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    // After a failed promotion the canary serves everybody; waiting for the broken primary would keep the fix out (Q1).
    let canary_serves_all = state.canary_weight == 100;
    if !plan.skip_analysis
        && !canary_serves_all
        && let Some(primary) = &seen.primary
    {
        match &primary.readiness {
            Readiness::Ready => {}
            Readiness::Waiting { reason, .. } | Readiness::Failed { reason } => {
                let message = Message::Obstacle(reason.clone());
                return context.hold(HoldKind::PrimaryNotReady, message, plan.interval, None);
            }
        }
    }
    let passed = match context.gate(WebhookType::ConfirmRollout, None) {
        Gate::Open(passed) => passed,
        Gate::Ask => return context.ask(Question::Hooks(WebhookType::ConfirmRollout)),
        Gate::Closed { hook, at, .. } => return await_approval(context, hook, context.interval_after(at)),
    };
    context
        .step()
        .passed(WebhookType::ConfirmRollout, passed)
        .effect(Effect::ScaleTarget(Scale::Up))
        .emit(Message::NewRevision { target: plan.target_id() })
        .alert(Notice::info_with_facts("New revision detected, progressing canary analysis."))
        .write(Phase::Progressing, |next| {
            next.failed_checks = 0;
            next.iterations = 0;
            next.last_applied.clone_from(&target.revision);
            next.tracked_configs.clone_from(&target.configs);
            next.last_step = canary_serves_all.then_some(seen.now);
            next.metrics_unavailable_since = None;
        })
}

fn await_approval(context: Context, hook: String, ask_again: jiff::Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let message = Message::WaitingForRollout { canary: plan.canary_id(), hook: hook.clone() };
    if state.phase == Phase::Waiting {
        return context.hold(HoldKind::Gate(WebhookType::ConfirmRollout), message, Duration::MAX, Some(ask_again));
    }
    let mut step = context.step().emit(message);
    if !is_muted(context, WebhookType::ConfirmRollout, &hook) {
        step = step.alert(Notice::warning("Canary is waiting for approval."));
    }
    step.write(Phase::Waiting, |next| next.last_step = Some(seen.now))
}

/// Whether the alert of this gate is muted.
pub(crate) fn is_muted(context: Context, kind: WebhookType, hook: &str) -> bool {
    context.plan.hooks_of(kind).any(|candidate| candidate.name == hook && candidate.mute_alert)
}

/// Puts right what Aviary owns and somebody else changed or deleted. `None` when all is in shape.
pub(crate) fn repair(context: Context, target: &TargetView) -> Option<Decision> {
    let Context { plan, state, seen } = context;
    let pending = &seen.pending;
    let apply = |component| Some(context.step().effect(Effect::Apply(component)).done());
    if pending.services {
        return apply(Component::Services);
    }
    // While the canary serves everybody, a missing primary comes back with the next promotion.
    if seen.primary.is_none() && state.canary_weight < 100 {
        // A primary is only ever made from a revision that was analysed (Q25).
        let analysed = target.revision == state.last_promoted
            || (matches!(state.phase, Phase::Promoting | Phase::Finalising) && target.revision == state.last_applied);
        if analysed {
            return apply(Component::Primary);
        }
        let message = Message::PrimaryMissing { primary: plan.primary_id(), target: plan.target_id() };
        return Some(context.hold(HoldKind::PrimaryMissing, message, Duration::ZERO, None));
    }
    if pending.scaler {
        return apply(Component::Scaler);
    }
    if pending.apex {
        return apply(Component::Apex);
    }
    if pending.routes {
        return apply(Component::Routes(context.expected_split()));
    }
    repair_weights(context)
}

fn repair_weights(context: Context) -> Option<Decision> {
    let Context { plan, state, seen } = context;
    let found = match seen.traffic.as_ref()? {
        Ok(split) => split,
        Err(text) => return Some(context.obstacle(HoldKind::Routes, text)),
    };
    let expected = context.expected_split();
    // While an advancing step may be half done, the step itself settles the weights.
    let due = matches!(state.phase, Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting);
    if *found == expected || (due && is_next_step(context, found.canary)) {
        return None;
    }
    let canary_serves = seen.target.as_ref().is_ok_and(|target| target.available > 0);
    let gains_on_canary = expected.canary > found.canary;
    if (gains_on_canary && !canary_serves) || (!gains_on_canary && !context.primary_available()) {
        return None;
    }
    let message = match expected.canary == state.canary_weight {
        true => Message::WeightsRepaired { canary: plan.canary_id(), found: found.canary, weight: expected.canary },
        false => Message::CanaryUnavailable { canary: plan.canary_id() },
    };
    Some(context.step().effect(Effect::SetTraffic(expected)).emit(message).done())
}

/// Whether `weight` is where the step after the present one leads: the route was written, the status was not yet.
fn is_next_step(context: Context, weight: u32) -> bool {
    let Context { plan, state, seen } = context;
    let step_is_due = state.last_step.is_none_or(|at| seen.now >= context.interval_after(at));
    match state.phase {
        Phase::Promoting => {
            let step = if plan.step_weight_promotion == 0 { 100 } else { plan.step_weight_promotion };
            step_is_due && weight == state.canary_weight.saturating_sub(step)
        }
        _ => step_is_due && plan.strategy.next_weight(state.canary_weight) == Some(weight),
    }
}
