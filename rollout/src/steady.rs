//! Between two runs: notice a new revision, keep what Aviary owns in shape, and otherwise do nothing at all.

use std::time::Duration;

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;

use crate::effect::{Decision, HoldKind, Question};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::pair;
use crate::repair::{repair, without_target};
use crate::rollback::{ask_with_rollback, on_signal};
use crate::snapshot::{Readiness, Split, TargetView};
use crate::step::{Context, Gate, Validity};
use crate::subsets;

/// Phases `Initialized`, `Succeeded` and `Failed`.
pub(crate) fn decide(context: Context) -> Decision {
    let Context { state, seen, .. } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return without_target(context, text),
    };
    if context.plan.uses_subsets {
        return subsets::between_runs(context, target);
    }
    if let Some(decision) = repair(context) {
        return decision;
    }
    if context.is_new(target) {
        return detect(context, target);
    }
    // Back at what the primary runs: remember it, so that re-applying the failed revision is a change. Only this is
    // adopted; Flagger records any revision seen in Failed and may lose it (Q3).
    let unrecorded = state.last_applied != target.revision || context.has_new_configs(target);
    if target.revision == state.last_promoted && unrecorded {
        return context.step().write(state.phase, |next| {
            next.last_applied.clone_from(&target.revision);
            next.tracked_configs.clone_from(&target.configs);
        });
    }
    scale_down(context, target).or_else(|| context.keep_at_rest()).unwrap_or_else(|| context.idle())
}

/// Phase `Waiting`: a confirm-rollout gate is closed.
pub(crate) fn waiting(context: Context) -> Decision {
    let Context { state, seen, .. } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return without_target(context, text),
    };
    if let Some(decision) = repair(context) {
        return decision;
    }
    if let Some(decision) = scale_down(context, target) {
        return decision;
    }
    if !context.is_new(target) {
        // The change was taken back while it waited; there is nothing left to confirm.
        let unchanged = seen.primary.as_ref().is_some_and(|primary| primary.matches_target);
        let promoted = unchanged && state.last_applied == state.last_promoted && !context.canary_serves_all();
        return context.step().write(if promoted { Phase::Succeeded } else { Phase::Failed }, |_| {});
    }
    if let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
    {
        return context.sleep_until(due);
    }
    // Flagger documents rollback hooks for this phase and does not call them (Q9).
    if !context.canary_serves_all()
        && let Some(decision) = on_signal(context)
    {
        return decision;
    }
    detect(context, target)
}

/// The end of a run that was rolled back or taken back: its pods go when the mesh has followed. Not while the primary has
/// none, though nobody is led to either then.
fn scale_down(context: Context, target: &TargetView) -> Option<Decision> {
    if !context.state.scale_down_due {
        return None;
    }
    let mut step = context.step();
    if !context.is_at_rest(target) {
        if !context.primary_serves() || !matches!(context.route(Split::PRIMARY), Ok(None)) {
            return None;
        }
        if let Some(wait) = context.wait_until_settled() {
            return Some(wait);
        }
        step = step.put_to_rest(target);
    }
    Some(step.write(context.state.phase, |next| next.scale_down_due = false))
}

/// A new revision (or new configs) was seen: start a run as soon as it is safe and allowed.
pub(crate) fn detect(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    if let Some(decision) = pair::await_first_pods(context, target) {
        return decision;
    }
    // After a failed promotion the canary serves everybody; waiting for the broken primary would keep the fix out (Q1).
    if !plan.skip_analysis
        && !context.canary_serves_all()
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
    let passed = match context.gate(WebhookType::ConfirmRollout, Validity::Fresh) {
        Gate::Open(passed) => passed,
        Gate::Ask => {
            let question = Question::Hooks(WebhookType::ConfirmRollout);
            return match state.phase == Phase::Waiting && !context.canary_serves_all() {
                true => ask_with_rollback(context, question),
                false => context.ask(question),
            };
        }
        Gate::Closed { hook, at, .. } => return await_approval(context, &hook, context.interval_after(at)),
    };
    let mut step = context.step();
    if plan.is_made_by_user {
        // From then on, a canary without pods is one that somebody has stopped.
        step = step.wake_target(target);
    }
    step.passed(WebhookType::ConfirmRollout, passed)
        .emit(plan.detected(&target.revision))
        .alert(plan.detected_alert(&target.revision))
        .write(Phase::Progressing, |next| {
            next.scale_down_due = false;
            next.begin_run(target);
        })
}

fn await_approval(context: Context, hook: &str, ask_again: jiff::Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let message = Message::WaitingForRollout { canary: plan.canary_id(), hook: hook.to_owned() };
    if state.phase == Phase::Waiting {
        return context.hold(HoldKind::Gate(WebhookType::ConfirmRollout), message, Duration::MAX, Some(ask_again));
    }
    let mut step = context.step().emit(message);
    if !context.is_muted(WebhookType::ConfirmRollout, hook) {
        step = step.alert(Notice::warning(Occasion::WaitingForRollout, "Canary is waiting for approval."));
    }
    step.write(Phase::Waiting, |next| next.last_step = Some(seen.now))
}
