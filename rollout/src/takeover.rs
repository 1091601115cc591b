//! Taking over a status whose revisions were computed by something else: Flagger, or another version of Aviary.
//!
//! Such hashes cannot be compared with ours, so nothing follows from their being different. What can be compared is what
//! the primary runs with what the target says (reference: Flagger core, 13.3).

use aviary_crds::status::Phase;

use crate::effect::{Decision, HoldKind};
use crate::snapshot::Split;
use crate::step::Context;
use crate::strategy::{Position, Strategy};

/// The step that records the present revision in our own terms, where that is due.
pub(crate) fn adopt(context: Context) -> Option<Decision> {
    let Context { state, seen, .. } = context;
    let target = seen.target.as_ref().ok()?;
    if state.last_applied.is_empty() || tag(&state.last_applied) == tag(&target.revision) {
        return None;
    }
    let promoted = seen.primary.as_ref().is_some_and(|primary| primary.matches_target);
    let applied = match state.phase {
        // Not what the primary runs: a new revision, which the phase itself finds.
        Phase::Initialized | Phase::Succeeded | Phase::Waiting => promoted,
        // Which revision failed is unknown; the present one is not tried again by itself.
        Phase::Failed => true,
        Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising => true,
        Phase::Uninitialized | Phase::Initializing | Phase::Terminating | Phase::Terminated => false,
    };
    if !applied {
        return None;
    }
    let position = match position_in_force(context) {
        Ok(position) => position,
        Err(decision) => return Some(*decision),
    };
    // A run in flight keeps its promoted revision, unless it has none to go back to.
    let steady = matches!(state.phase, Phase::Initialized | Phase::Succeeded | Phase::Waiting | Phase::Failed);
    Some(context.step().write(state.phase, |next| {
        next.last_applied.clone_from(&target.revision);
        // Flagger 0.1 tracked none, nor does one with -enable-config-tracking=false: a promotion needs to know which to take along.
        if next.tracked_configs.is_none() {
            next.tracked_configs.clone_from(&target.configs);
        }
        next.canary_weight = position.weight;
        next.iterations = position.iterations;
        if steady && promoted {
            next.last_promoted.clone_from(&target.revision);
        }
    }))
}

/// Where a run in flight stands. Aviary's status tells, of whatever version. Flagger goes by the routes, and its status lags
/// behind them or says something else: no weight for blue/green and A/B and while it waits for the promotion, no mirroring.
fn position_in_force(context: Context) -> Result<Position, Box<Decision>> {
    let Context { state, seen, .. } = context;
    let stored = state.position();
    let in_flight =
        matches!(state.phase, Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising);
    if !in_flight || tag(&state.last_applied).is_some() {
        return Ok(stored);
    }
    match &seen.traffic {
        Some(Ok(found)) => Ok(position_left(context, *found)),
        // Broken routes are put right by the next step, and cannot tell.
        Some(Err(text)) if !seen.pending.routes => Err(Box::new(context.obstacle(HoldKind::Routes, text))),
        Some(Err(_)) => Ok(stored),
        None => Ok(Position { iterations: iterations_left(context), ..stored }),
    }
}

/// What Flagger's routes and its count of iterations amount to.
fn position_left(context: Context, found: Split) -> Position {
    let Context { plan, state, .. } = context;
    let weight = found.canary;
    let iterations = match &plan.strategy {
        Strategy::Canary(_) => u32::from(found.mirrored && weight == 0),
        Strategy::AbTesting(_) => iterations_left(context),
        // Everybody is on the canary: after all iterations and an open gate, or else since a promotion failed, and then (as
        // where the gate has closed again) the gate is asked before the promotion.
        Strategy::BlueGreen(run) if weight == 100 => {
            let was_confirmed = state.phase == Phase::Progressing && state.iterations >= run.iterations;
            if was_confirmed { run.iterations.saturating_add(1) } else { 0 }
        }
        Strategy::BlueGreen(_) => iterations_left(context),
    };
    Position { weight, iterations }
}

/// While it waits for the promotion, Flagger counts one iteration less than were done, to ask the gate once more.
fn iterations_left(context: Context) -> u32 {
    let Context { plan, state, .. } = context;
    let all = match &plan.strategy {
        Strategy::Canary(_) => return 0,
        Strategy::AbTesting(run) => run.iterations,
        Strategy::BlueGreen(run) => run.iterations,
    };
    if state.phase == Phase::WaitingPromotion { state.iterations.max(all) } else { state.iterations }
}

/// What stands before the colon: how a revision was computed. Flagger's have none.
fn tag(revision: &str) -> Option<&str> {
    revision.split_once(':').map(|(tag, _)| tag)
}
