//! Taking over a status whose revisions were computed by something else: Flagger, or another version of Aviary.
//!
//! Such hashes cannot be compared with ours, so nothing follows from their being different. What can be compared is what
//! the primary runs with what the target says (reference: Flagger core, 13.3).

use aviary_crds::status::Phase;

use crate::effect::{Decision, HoldKind};
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
        next.canary_weight = position.weight;
        next.iterations = position.iterations;
        if steady && promoted {
            next.last_promoted.clone_from(&target.revision);
        }
    }))
}

/// Where a run in flight stands. Flagger stores no weight for blue/green and A/B, and no mirroring: the routes tell.
fn position_in_force(context: Context) -> Result<Position, Box<Decision>> {
    let Context { plan, state, seen } = context;
    let stored = state.position();
    let in_flight =
        matches!(state.phase, Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising);
    let mirrors = match &plan.strategy {
        Strategy::Canary(canary) if !canary.mirror => return Ok(stored),
        Strategy::Canary(_) => true,
        Strategy::AbTesting(_) | Strategy::BlueGreen(_) => false,
    };
    match &seen.traffic {
        Some(Ok(found)) if in_flight && mirrors => {
            Ok(Position { iterations: u32::from(found.mirrored && stored.weight == 0), ..stored })
        }
        Some(Ok(found)) if in_flight => Ok(Position { weight: found.canary, ..stored }),
        // Broken routes are put right by the next step, and cannot tell.
        Some(Err(text)) if in_flight && !seen.pending.routes => Err(Box::new(context.obstacle(HoldKind::Routes, text))),
        Some(_) | None => Ok(stored),
    }
}

/// What stands before the colon: how a revision was computed. Flagger's have none.
fn tag(revision: &str) -> Option<&str> {
    revision.split_once(':').map(|(tag, _)| tag)
}
