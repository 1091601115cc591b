//! Back to the primary, and the canary to zero.

use aviary_crds::status::Phase;

use crate::effect::{Decision, Effect, Outcome, Scale};
use crate::message::{Message, Notice};
use crate::promotion::call_post_rollout;
use crate::step::Context;
use aviary_crds::validated::WebhookType;

/// Why a run is rolled back.
pub(crate) enum Cause {
    /// Failed checks reached the threshold.
    Checks,
    /// The canary did not become ready in time.
    Deadline(String),
    /// A rollback hook asked for it.
    Hook(String),
}

/// Routes everything to the primary, scales the target to zero and ends the run as `Failed`.
///
/// Never onto a primary without an available pod: then it holds, and says so.
pub(crate) fn roll_back(context: Context, cause: &Cause) -> Decision {
    let Context { plan, state, seen } = context;
    let Ok(target) = &seen.target else { return context.idle() };
    let to_primary = match context.to_primary() {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let mut step = context.step().effect_if(to_primary);
    if !target.scaled_to_zero {
        step = step.effect(Effect::ScaleTarget(Scale::Zero));
    }
    let canary = plan.canary_id();
    let step = match cause {
        Cause::Checks => step
            .emit(Message::RollingBackChecks { canary: canary.clone(), failed: state.failed_checks })
            .alert(Notice::error(format!("Failed checks threshold reached {}", state.failed_checks))),
        Cause::Deadline(error) => step
            .emit(Message::RollingBackDeadline { canary: canary.clone(), error: error.clone() })
            .alert(Notice::error(format!("Progress deadline exceeded {error}"))),
        Cause::Hook(hook) => step
            .emit(Message::HookPassed { kind: WebhookType::Rollback, hook: hook.clone() })
            .emit(Message::RollingBackHook { canary: canary.clone() })
            .alert(Notice::warning("Rolling back manual webhook invoked")),
    };
    let step = step.emit(Message::CanaryFailed { canary });
    call_post_rollout(context, step).effect(Effect::Count(Outcome::Failed)).write(Phase::Failed, |next| {
        next.canary_weight = 0;
        next.failed_checks = 0;
        next.iterations = 0;
        next.last_step = None;
        next.metrics_unavailable_since = None;
    })
}
