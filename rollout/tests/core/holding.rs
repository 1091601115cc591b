//! A failing check, or a workload that does not become ready, holds the canary where it is for ever.

use aviary_crds::status::Phase;
use aviary_rollout::{Effect, OnFailure, Plan, Readiness, Strategy, Weights, decide};

use crate::driver::{Event, Run, plan};
use crate::scenarios::release;
use crate::world::{Metrics, seconds};

fn holding() -> Plan {
    let strategy = Strategy::weighted(Weights::Linear { step: 30, max: 100 });
    Plan { on_failure: OnFailure::Hold, strategy, ..plan() }
}

/// Bad for an hour, and good again.
fn recovering() -> Run {
    release(holding()).at(28, Event::Metrics(Metrics::Bad)).at(3600, Event::Metrics(Metrics::Good))
}

#[test]
fn a_failing_check_holds_for_ever_and_counts_nothing() {
    let mut run = recovering();
    run.run_until(run.world.now + seconds(3000));
    let state = run.state();
    assert_eq!((state.phase, state.failed_checks), (Phase::Progressing, 0));
    assert!(state.canary_weight > 0 && state.canary_weight < 100, "{state:?}");
    let halts = run.events.iter().filter(|event| event.starts_with("Halt ")).count();
    assert!(halts > plan().threshold as usize, "{:?}", run.events);
    run.settle();
    assert_eq!(run.state().phase, Phase::Succeeded);
}

#[test]
fn a_kill_after_any_effect_of_a_hold_changes_nothing() {
    let mut undisturbed = recovering();
    undisturbed.settle();
    let expected = undisturbed.ending();
    for count in 1..=undisturbed.effects.len() {
        let mut run = recovering();
        run.interrupt = Some((count, vec![Event::Kill]));
        run.settle();
        assert_eq!(run.ending(), expected, "killed after {count}: {:?}", undisturbed.effects[count - 1]);
    }
}

#[test]
fn what_is_not_ready_in_time_is_waited_for() {
    let mut run = release(holding());
    run.run_until(run.world.now + seconds(15));
    let failed = || Readiness::Failed { reason: "not ready: exceeded its progress deadline".to_owned() };
    let mut seen = run.snapshot();
    seen.target.as_mut().unwrap().readiness = failed();
    let decision = decide(&run.plan, run.state(), &seen);
    assert!(decision.hold.is_some() && decision.effects.is_empty(), "{decision:?}");
    for phase in [Phase::Promoting, Phase::Finalising] {
        let mut state = run.state().clone();
        state.phase = phase;
        let mut seen = run.snapshot();
        seen.primary.as_mut().unwrap().readiness = failed();
        let decision = decide(&run.plan, &state, &seen);
        assert!(decision.hold.is_some() && decision.next.phase == phase, "{phase:?}: {decision:?}");
    }
}

#[test]
fn a_step_that_does_not_divide_100_ends_there_and_is_promoted() {
    let mut run = release(holding());
    run.settle();
    let weights = |effect: &Effect| match effect {
        Effect::SetTraffic(split) => Some(split.canary),
        _ => None,
    };
    let weights: Vec<u32> = run.effects.iter().filter_map(weights).collect();
    assert_eq!(weights, [30, 60, 90, 100, 0]);
}
