//! The process is killed after every effect of every scenario; the cluster must end as if it had not been.

use std::collections::BTreeSet;

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{Effect, Occasion, Plan, Scale, Split};

use crate::driver::{Event, Run, plan, with_hooks};
use crate::scenarios::{self, Scenario, revision};
use crate::world::Side;

#[test]
fn a_kill_after_any_effect_changes_nothing() {
    for (name, scenario) in scenarios::all() {
        let mut undisturbed = scenario();
        undisturbed.settle();
        let expected = undisturbed.ending();
        for count in 1..=undisturbed.effects.len() {
            let mut run = scenario();
            run.interrupt = Some((count, vec![Event::Kill]));
            run.settle();
            assert_eq!(run.ending(), expected, "{name}, killed after {count}: {:?}", undisturbed.effects[count - 1]);
        }
    }
}

/// At least once: nothing that people and pipelines wait for is lost with the process (Flagger sends it after the
/// status, at most once).
#[test]
fn a_kill_loses_no_final_news() {
    for scenario in [scenarios::bootstrap_with_hooks, scenarios::skip_analysis, scenarios::pre_rollout_fails] {
        let mut undisturbed = scenario();
        undisturbed.settle();
        for count in 1..=undisturbed.effects.len() {
            let mut run = scenario();
            run.interrupt = Some((count, vec![Event::Kill]));
            run.settle();
            let last = undisturbed.events.last().unwrap();
            assert!(run.events.contains(last), "{last} missing, killed after {count}");
            assert_eq!(run.calls.last(), undisturbed.calls.last());
            assert!(run.alerts.contains(undisturbed.alerts.last().unwrap()));
        }
    }
}

/// Each alert goes out once; a process that dies at the worst moment sends it once more, with the same id.
#[test]
fn a_kill_repeats_alerts_under_their_ids_and_loses_none() {
    let mut repeated = 0;
    for (name, scenario) in scenarios::all() {
        let mut undisturbed = scenario();
        undisturbed.settle();
        let ids = |run: &Run| run.alert_ids.iter().cloned().collect::<BTreeSet<_>>();
        let occasions = |ids: &BTreeSet<(Occasion, String)>| ids.iter().map(|(about, _)| *about).collect::<Vec<_>>();
        let expected = ids(&undisturbed);
        assert_eq!(expected.len(), undisturbed.alert_ids.len(), "{name}: sent once: {:?}", undisturbed.alert_ids);
        for count in 1..=undisturbed.effects.len() {
            let mut run = scenario();
            run.interrupt = Some((count, vec![Event::Kill]));
            run.settle();
            let found = ids(&run);
            let killed_after = &undisturbed.effects[count - 1];
            assert_eq!(occasions(&found), occasions(&expected), "{name}, killed after {count}: {killed_after:?}");
            repeated += usize::from(run.alert_ids.len() > found.len());
        }
    }
    assert!(repeated > 10, "a kill between an alert and the status repeats it: {repeated}");
}

/// The same thing that happens again is another alert.
#[test]
fn the_alerts_of_two_runs_have_different_ids() {
    let mut run = scenarios::pre_rollout_fails();
    run.settle();
    let first = run.alert_ids.clone();
    run.world.edit(Some("another"), None);
    run.settle();
    let ids: BTreeSet<_> = run.alert_ids.iter().collect();
    assert!(run.alert_ids.len() > first.len(), "{:?}", run.alert_ids);
    assert_eq!(ids.len(), run.alert_ids.len(), "{:?}", run.alert_ids);
}

/// Killed after the first effect that matches.
fn killed_after(scenario: fn() -> Run, which: impl Fn(&Effect) -> bool) -> Run {
    interrupted_after(scenario, which, Vec::new())
}

/// Killed there, and this happens while it is down.
fn interrupted_after(scenario: fn() -> Run, which: impl Fn(&Effect) -> bool, mut down: Vec<Event>) -> Run {
    let mut undisturbed = scenario();
    undisturbed.settle();
    let position = undisturbed.effects.iter().position(which).expect("the effect occurs");
    down.push(Event::Kill);
    let mut run = scenario();
    run.interrupt = Some((position + 1, down));
    run.settle();
    run
}

fn lines(run: &Run, start: &str) -> usize {
    run.events.iter().filter(|event| event.starts_with(start)).count()
}

#[test]
fn row_scale_up_before_progressing() {
    let run = killed_after(scenarios::weighted, |effect| *effect == Effect::ScaleTarget(Scale::Up));
    assert_eq!(lines(&run, "New revision"), 1);
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn row_route_before_weight_makes_no_double_step() {
    let run = killed_after(scenarios::weighted, |effect| *effect == Effect::SetTraffic(Split::to_canary(20)));
    let weights: Vec<_> = run.phases.iter().map(|(_, weight)| *weight).collect();
    assert_eq!(weights, [0, 10, 20, 30, 40, 50, 50, 0, 0]);
    assert_eq!(lines(&run, "Canary weight of"), 0, "our own half step is no foreign writer");
}

#[test]
fn row_promote_before_promoting_restarts_the_primary_once() {
    let mut undisturbed = scenarios::weighted();
    undisturbed.settle();
    let run = killed_after(scenarios::weighted, |effect| matches!(effect, Effect::Promote { .. }));
    assert_eq!(run.effects.iter().filter(|effect| matches!(effect, Effect::Promote { .. })).count(), 1);
    assert_eq!(run.world.primary, undisturbed.world.primary);
}

/// Flagger rolls back onto the broken primary here.
#[test]
fn row_promote_before_promoting_with_a_broken_primary() {
    let run = killed_after(scenarios::failed_promotion, |effect| matches!(effect, Effect::Promote { .. }));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    assert_eq!(run.world.routes.unwrap(), Split::CANARY);
}

/// The copy was made, then the target went back to the revision that the primary no longer runs.
#[test]
fn row_promote_before_promoting_and_then_a_revert() {
    let promote = |effect: &Effect| matches!(effect, Effect::Promote { .. });
    let run = interrupted_after(scenarios::weighted, promote, vec![revision("a")]);
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "a");
    assert_eq!(run.state().last_promoted, "a");
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn row_route_to_primary_before_finalising() {
    let back = |effect: &Effect| *effect == Effect::SetTraffic(Split::PRIMARY);
    for scenario in [scenarios::weighted, scenarios::stepped] {
        let run = killed_after(scenario, back);
        assert_eq!(run.ending().phase, Phase::Succeeded);
    }
}

#[test]
fn row_scale_to_zero_before_succeeded_does_not_wake_the_target() {
    for scenario in [scenarios::weighted, scenarios::skip_analysis] {
        let run = killed_after(scenario, |effect| *effect == Effect::ScaleTarget(Scale::Zero));
        assert_eq!(run.effects.iter().filter(|effect| **effect == Effect::ScaleTarget(Scale::Up)).count(), 1);
        assert_eq!(run.ending().phase, Phase::Succeeded);
    }
}

/// The run was complete; what happens to the primary later is not its business.
#[test]
fn row_scale_to_zero_before_succeeded_although_the_primary_breaks() {
    let zero = |effect: &Effect| *effect == Effect::ScaleTarget(Scale::Zero);
    let run = interrupted_after(scenarios::weighted, zero, vec![Event::Crash(Side::Primary)]);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn row_rollback_between_route_scale_and_status() {
    let back = |effect: &Effect| *effect == Effect::SetTraffic(Split::PRIMARY);
    let zero = |effect: &Effect| *effect == Effect::ScaleTarget(Scale::Zero);
    for scenario in [scenarios::threshold, scenarios::deadline, scenarios::rollback_hook] {
        let run = killed_after(scenario, zero);
        assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 0));
    }
    let run = killed_after(scenarios::threshold, back);
    let canary_gained = run.effects.iter().skip_while(|effect| !back(effect)).any(|effect| match effect {
        Effect::SetTraffic(split) => split.canary > 0,
        _ => false,
    });
    assert!(!canary_gained, "the failed side gets nothing back");
}

#[test]
fn row_restart_between_route_and_status() {
    let run = killed_after(scenarios::restart, |effect| *effect == Effect::SetTraffic(Split::PRIMARY));
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "c");
    assert_eq!(lines(&run, "New revision detected! Restarting"), 1);
}

/// Whatever goes wrong between two effects of a promotion, users and analysis are safe; the invariants are checked by
/// the driver on every decision.
#[test]
fn events_between_any_two_effects() {
    let (edit, edit_and_kill) = ([revision("x")], [revision("x"), Event::Kill]);
    let disturbances: [&[Event]; 7] = [
        &[Event::Crash(Side::Target)],
        &[Event::Crash(Side::Primary)],
        &[Event::ForeignWeight(100)],
        &[Event::ForeignWeight(0)],
        &[Event::DeleteRoutes],
        &edit,
        &edit_and_kill,
    ];
    let scenarios: [Scenario; 10] = [
        ("stepped", scenarios::stepped),
        ("skip_analysis", scenarios::skip_analysis),
        ("restart", scenarios::restart),
        ("withdrawn", scenarios::withdrawn),
        ("mended_promotion", scenarios::mended_promotion),
        ("rollback_hook", scenarios::rollback_hook),
        ("ab_with_hooks", scenarios::ab_with_hooks),
        ("ab_mended_promotion", scenarios::ab_mended_promotion),
        ("blue_green_mirrored", scenarios::blue_green_mirrored),
        ("mirrored_with_hooks", scenarios::mirrored_with_hooks),
    ];
    for (name, scenario) in scenarios {
        let mut undisturbed = scenario();
        undisturbed.settle();
        for disturbance in disturbances {
            for count in 1..=undisturbed.effects.len() {
                let mut run = scenario();
                let events = disturbance.to_vec();
                let edited = events.contains(&revision("x"));
                run.interrupt = Some((count, events));
                run.settle();
                run.apply(Event::Recover(Side::Target));
                run.apply(Event::Recover(Side::Primary));
                run.settle();
                let ending = run.ending();
                let steady = matches!(ending.phase, Phase::Initialized | Phase::Succeeded | Phase::Failed);
                assert!(steady, "{name}, {disturbance:?} after {count}: {ending:?}, held {:?}", run.held());
                let weight = run.state().canary_weight;
                assert_eq!(
                    run.world.routes.unwrap(),
                    Split::to_canary(weight),
                    "{name}, {disturbance:?} after {count}"
                );
                if edited && ending.phase == Phase::Succeeded && run.world.target.as_ref().unwrap().revision == "x" {
                    assert_eq!(run.world.primary.as_ref().unwrap().revision, "x", "{name}, after {count}");
                }
            }
        }
    }
}

/// Led away from a canary, users never come back to it, whatever becomes of the reason while its pods are kept.
#[test]
fn a_rollback_is_decided_for_good() {
    let forgiving = Plan { threshold: 100, ..with_hooks(plan(), &[]) };
    let disturbances = [
        vec![Event::Kill],
        vec![Event::Plan(Box::new(forgiving))],
        vec![Event::Suspend(true), Event::Kill, Event::Suspend(false)],
        vec![Event::Crash(Side::Primary)],
        vec![Event::Recover(Side::Target)],
        vec![Event::Refuse(WebhookType::Rollback, true), Event::Kill],
    ];
    let scenarios = [
        scenarios::threshold,
        scenarios::deadline,
        scenarios::rollback_hook,
        scenarios::withdrawn,
        scenarios::ab_fails,
    ];
    for scenario in scenarios {
        let mut undisturbed = scenario();
        undisturbed.settle();
        let is_away = |effect: &Effect| *effect == Effect::ScaleTarget(Scale::Zero);
        let gone = undisturbed.effects.iter().rposition(is_away).expect("the pods go");
        let decided = undisturbed.effects[..gone].iter().rposition(|effect| *effect == Effect::WriteStatus).unwrap();
        for disturbance in &disturbances {
            for count in decided + 1..=undisturbed.effects.len() {
                let mut run = scenario();
                run.interrupt = Some((count, disturbance.clone()));
                run.settle();
                run.apply(Event::Recover(Side::Primary));
                run.settle();
                let later = &run.effects[count..];
                let regains = later.iter().any(|effect| matches!(effect, Effect::SetTraffic(to) if to.canary > 0));
                assert!(!regains, "{disturbance:?} after {count}: {later:?}");
                assert_eq!(run.ending().phase, undisturbed.ending().phase, "{disturbance:?} after {count}");
                assert_eq!(run.world.target.as_ref().unwrap().replicas, 0, "{disturbance:?} after {count}");
            }
        }
    }
}
