//! The entry of the decision core.

use std::time::Duration;

use aviary_crds::status::{Phase, whole_seconds};
use jiff::Timestamp;

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
    if let Some(decision) = forget_the_future(context) {
        return decision;
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

/// Brings to now what a machine whose clock was ahead has written: waiting for that time might take days. A little ahead is nothing,
/// no two clocks are alike.
fn forget_the_future(context: Context) -> Option<Decision> {
    let Context { state, seen, .. } = context;
    let is_ahead = |at: Timestamp| at > context.interval_after(seen.now);
    let outage_is_ahead =
        state.outage.is_some_and(|outage| is_ahead(outage.since) || outage.answered_since.is_some_and(is_ahead));
    if !state.last_step.is_some_and(is_ahead) && !outage_is_ahead {
        return None;
    }
    Some(context.step().write(state.phase, |next| {
        let not_ahead = |at: Timestamp| at.min(seen.now);
        next.last_step = next.last_step.map(not_ahead);
        if let Some(outage) = &mut next.outage {
            outage.since = not_ahead(outage.since);
            outage.answered_since = outage.answered_since.map(not_ahead).map(whole_seconds);
        }
    }))
}
