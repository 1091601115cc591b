//! The entry of the decision core.

use std::time::Duration;

use aviary_crds::status::Phase;

use crate::effect::{Decision, HoldKind};
use crate::message::Message;
use crate::plan::Plan;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::step::Context;
use crate::{bootstrap, deletion, progress, promotion, steady, takeover};

/// What to do next for one canary.
///
/// Pure and total: equal arguments give equal answers, and every combination has one. A decision makes at most one
/// step; when its effects are done, decide again.
pub fn decide(plan: &Plan, state: &State, seen: &Snapshot) -> Decision {
    let context = Context { plan, state, seen };
    if let Some(decision) = deletion::decide(context) {
        return decision;
    }
    // Also while suspended: the complaint no longer holds.
    if state.complaint && state.phase != Phase::Uninitialized {
        return context.step().write(state.phase, |_| {});
    }
    // Flagger writes the first status of a suspended canary, too.
    if plan.suspended && state.phase != Phase::Uninitialized {
        return context.hold(HoldKind::Suspended, Message::Suspended, Duration::ZERO, None);
    }
    // Written by a machine whose clock is ahead: waiting for that time might take days.
    if state.last_step.is_some_and(|at| at > context.interval_after(seen.now)) {
        return context.step().write(state.phase, |next| next.last_step = Some(seen.now));
    }
    if let Some(decision) = takeover::adopt(context) {
        return decision;
    }
    match state.phase {
        Phase::Uninitialized => bootstrap::start(context),
        Phase::Initializing => bootstrap::decide(context),
        Phase::Initialized | Phase::Succeeded | Phase::Failed => steady::decide(context),
        Phase::Waiting => steady::waiting(context),
        Phase::Progressing | Phase::WaitingPromotion => progress::decide(context),
        Phase::Promoting => promotion::promoting(context),
        Phase::Finalising => promotion::finalising(context),
        Phase::Terminating | Phase::Terminated => context.idle(),
    }
}
