//! Workloads and routes that the user has made, both sides of them (Steerer's way). There is nothing to make before the first
//! release, and a user who scales the canary to zero has stopped it.

use std::time::Duration;

use aviary_crds::status::Phase;

use crate::bootstrap::UNSEEN;
use crate::effect::{Decision, HoldKind};
use crate::message::Message;
use crate::snapshot::{Split, TargetView};
use crate::step::Context;

/// Begins from the weight that the routes have: somebody may have moved users already.
pub(crate) fn bootstrap(context: Context) -> Decision {
    let found = match &context.seen.traffic {
        None => Split::PRIMARY,
        Some(Ok(found)) => *found,
        Some(Err(text)) => return context.hold(HoldKind::Routes, Message::Obstacle(text.clone()), UNSEEN, None),
    };
    context.step().write(Phase::Initialized, |next| {
        next.canary_weight = found.canary;
        next.failed_checks = 0;
        next.iterations = 0;
        next.last_step = None;
    })
}

/// What is there before the first release may not be meant to be released: that begins with the canary's first pods.
pub(crate) fn await_first_pods(context: Context, target: &TargetView) -> Option<Decision> {
    let is_first = context.plan.is_made_by_user && context.state.last_applied.is_empty();
    (is_first && target.scaled_to_zero).then(|| hold_without_pods(context))
}

/// Whoever scaled the canary to zero wants it to stop. Goes on with its pods, or with another revision.
pub(crate) fn hold_without_pods(context: Context) -> Decision {
    let text = format!("{} is scaled to zero; the rollout goes on when it has pods", context.plan.target_id());
    // Steerer stopped in silence.
    context.hold(HoldKind::CanaryNotReady, Message::Obstacle(text), Duration::MAX, None)
}
