//! The legal edges between phases (reference: Flagger's state machine).

use aviary_crds::status::Phase;

/// Whether a status write may lead from `from` to `to`. Staying in a phase is always legal.
pub fn is_legal(from: Phase, to: Phase) -> bool {
    from == to || successors(from).contains(&to)
}

fn successors(phase: Phase) -> &'static [Phase] {
    use Phase::*;
    match phase {
        Uninitialized => &[Initializing, Terminating],
        Initializing => &[Initialized, Terminating],
        Initialized | Succeeded | Failed => &[Progressing, Waiting, Terminating],
        Waiting => &[Progressing, Initialized, Succeeded, Failed, Terminating],
        Progressing => &[WaitingPromotion, Promoting, Succeeded, Failed, Terminating],
        WaitingPromotion => &[Progressing, Promoting, Succeeded, Failed, Terminating],
        Promoting => &[Finalising, Failed, Succeeded, Terminating],
        Finalising => &[Succeeded, Failed, Terminating],
        Terminating => &[Terminated],
        Terminated => &[],
    }
}
