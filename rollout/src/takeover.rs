//! Taking over a status whose revisions were computed by something else: Flagger, or another version of Aviary.
//!
//! Such hashes cannot be compared with ours, so nothing follows from their being different. What can be compared is what
//! the primary runs with what the target says (reference: Flagger core, 13.3).

use aviary_crds::status::Phase;

use crate::effect::Decision;
use crate::step::Context;

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
    // A run in flight keeps its promoted revision, unless it has none to go back to.
    let steady = matches!(state.phase, Phase::Initialized | Phase::Succeeded | Phase::Waiting | Phase::Failed);
    Some(context.step().write(state.phase, |next| {
        next.last_applied.clone_from(&target.revision);
        if steady && promoted {
            next.last_promoted.clone_from(&target.revision);
        }
    }))
}

/// What stands before the colon: how a revision was computed. Flagger's have none.
fn tag(revision: &str) -> Option<&str> {
    revision.split_once(':').map(|(tag, _)| tag)
}
