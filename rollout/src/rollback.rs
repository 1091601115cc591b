//! Back to the primary, and the canary to zero.

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;

use crate::effect::{Decision, Effect, Outcome, Question};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::promotion::call_post_rollout;
use crate::repair::{restore_primary, without_target};
use crate::snapshot::{Readiness, Split};
use crate::step::{Context, Step};

/// Why a run is rolled back.
pub(crate) enum Cause {
    /// Failed checks reached the threshold.
    Checks,
    /// The canary did not become ready in time.
    Deadline(String),
    /// A rollback hook asked for it.
    Hook(String),
}

/// Routes everything to the primary and ends the run as `Failed`. The pods of the target go when the mesh has followed.
///
/// Never onto a primary without an available pod, and never from a canary that serves everybody onto the broken primary
/// of a failed promotion (Q1): then it holds, and says so.
pub(crate) fn roll_back(context: Context, cause: &Cause) -> Decision {
    let Context { plan, state, seen } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return without_target(context, text),
    };
    let primary_failed =
        seen.primary.as_ref().is_some_and(|primary| matches!(primary.readiness, Readiness::Failed { .. }));
    if let Some(decision) = restore_primary(context) {
        return decision;
    }
    if context.canary_serves_all() && primary_failed {
        return context.hold_until_primary_serves();
    }
    let to_primary = match context.route(Split::PRIMARY) {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let step = context.step().effect_if(to_primary);
    let canary = plan.canary_id();
    let step = match cause {
        Cause::Checks => step
            .emit(Message::RollingBackChecks { canary: canary.clone(), failed: state.failed_checks })
            .alert(plan.failed_alert(state.failed_checks)),
        Cause::Deadline(error) => step
            .emit(Message::RollingBackDeadline { canary: canary.clone(), error: error.clone() })
            .alert(Notice::error(Occasion::DeadlineExceeded, format!("Progress deadline exceeded {error}"))),
        Cause::Hook(hook) => step
            .emit(Message::HookPassed { kind: WebhookType::Rollback, hook: hook.clone() })
            .emit(Message::RollingBackHook { canary: canary.clone() })
            .alert(Notice::warning(Occasion::RollbackRequested, "Rolling back manual webhook invoked")),
    };
    let step = step.emit(plan.failed());
    call_post_rollout(context, step).effect(Effect::Count(Outcome::Failed)).write(Phase::Failed, |next| {
        next.canary_weight = 0;
        next.scale_down_due = !plan.uses_subsets && !context.is_at_rest(target);
        // The revision is known already, except for one that was refused while it waited for approval.
        next.end_run(target);
    })
}

/// Rolls back if a rollback hook has asked for it: for these hooks, a success means that.
pub(crate) fn on_signal(context: Context) -> Option<Decision> {
    let answer = context.seen.answers.hooks.get(&WebhookType::Rollback)?;
    let signal = answer.value.iter().find(|hook| hook.result.is_ok())?;
    Some(roll_back(context, &Cause::Hook(signal.name.clone())))
}

/// Tells which rollback hooks were asked in vain. Once, when an analysis starts: they are asked again and again, and Flagger's
/// event on every tick uses up what an object may have of them (Q23).
pub(crate) fn tell_no_signal<'a>(context: Context, step: Step<'a>) -> Step<'a> {
    let answer = context.seen.answers.hooks.get(&WebhookType::Rollback);
    let silent = answer.into_iter().flat_map(|answer| &answer.value).filter(|hook| hook.result.is_err());
    silent.fold(step, |step, hook| step.emit(Message::NoRollback { hook: hook.name.clone() }))
}

/// Asks, and before that the rollback hooks if they were not asked for an interval. Only here do they hold anything up:
/// an answer that is there is acted on, and one under way is awaited, however long it takes, or slow hooks would outdate each
/// other for ever.
pub(crate) fn ask_with_rollback(context: Context, question: Question) -> Decision {
    let kind = WebhookType::Rollback;
    let is_under_way = context.seen.asking == Some(question);
    match context.plan.has_hooks(kind) && context.fresh_answer(kind).is_none() && !is_under_way {
        true => context.ask(Question::Hooks(kind)),
        false => context.ask(question),
    }
}
