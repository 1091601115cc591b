//! Deadlines pass by the clock, and what was seen last may be out of date by then.

use aviary_crds::status::Phase;
use aviary_rollout::{Answer, Component, Effect, Question, Readiness, decide};

use crate::driver::{Run, plan};
use crate::scenarios::release;
use crate::world::seconds;

const LATE: &str = "not ready: exceeded its progress deadline";

fn failed() -> Readiness {
    Readiness::Failed { reason: LATE.to_owned() }
}

fn look() -> Vec<Effect> {
    vec![Effect::Ask(Question::Workloads)]
}

/// A release at 10 %.
fn under_way() -> Run {
    let mut run = release(plan());
    run.run_until(run.world.now + seconds(15));
    assert_eq!(run.state().phase, Phase::Progressing);
    run
}

#[test]
fn a_canary_that_missed_its_deadline_is_looked_at_once_more_before_it_is_rolled_back() {
    let run = under_way();
    let mut seen = run.snapshot();
    seen.target.as_mut().unwrap().readiness = failed();
    assert_eq!(decide(&run.plan, run.state(), &seen).effects, look());
    // It is ready after all: the release goes on.
    seen.answers.workloads = Some(Answer { at: seen.now, value: () });
    seen.target.as_mut().unwrap().readiness = Readiness::Ready;
    assert_eq!(decide(&run.plan, run.state(), &seen).next.phase, Phase::Progressing);
    // It is not.
    seen.target.as_mut().unwrap().readiness = failed();
    assert_eq!(decide(&run.plan, run.state(), &seen).next.phase, Phase::Failed);
    // A look of long ago says nothing about now.
    seen.now += seconds(10);
    assert_eq!(decide(&run.plan, run.state(), &seen).effects, look());
}

#[test]
fn a_promotion_fails_only_after_a_look_at_the_primary() {
    for phase in [Phase::Promoting, Phase::Finalising] {
        let run = under_way();
        let mut state = run.state().clone();
        state.phase = phase;
        let mut seen = run.snapshot();
        seen.primary.as_mut().unwrap().readiness = failed();
        assert_eq!(decide(&run.plan, &state, &seen).effects, look(), "{phase:?}");
        seen.answers.workloads = Some(Answer { at: seen.now, value: () });
        assert_eq!(decide(&run.plan, &state, &seen).next.phase, Phase::Failed, "{phase:?}");
    }
}

/// The primary is promoted with its autoscaler, whatever else is fought over.
#[test]
fn repairs_that_rest_keep_no_autoscaler_from_its_promotion() {
    let run = under_way();
    let mut state = run.state().clone();
    let mut seen = run.snapshot();
    seen.pending.scaler = true;
    seen.pending.services = true;
    seen.repairs_paused = true;
    assert_ne!(decide(&run.plan, &state, &seen).effects, [Effect::Apply(Component::Scaler)]);
    state.phase = Phase::Promoting;
    assert_eq!(decide(&run.plan, &state, &seen).effects, [Effect::Apply(Component::Scaler)]);
}
