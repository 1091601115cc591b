//! Targets whose autoscaler scales from zero by itself, as KEDA does.

use aviary_crds::status::Phase;
use aviary_rollout::{Effect, Plan, Scale, Split};

use crate::driver::{Event, Run, plan};
use crate::scenarios::{self, Scenario};
use crate::world::World;

/// What is done about the pods of the target, in order.
fn scaling(run: &Run) -> Vec<Effect> {
    let concerns_pods = |effect: &&Effect| matches!(effect, Effect::ScaleTarget(_) | Effect::PauseScaler(_));
    run.effects.iter().filter(concerns_pods).cloned().collect()
}

#[test]
fn the_scaler_rests_before_the_target_is_taken_down_and_goes_on_before_it_is_woken() {
    let mut run = scenarios::autoscaled_weighted();
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
    let expected = [
        Effect::PauseScaler(false),
        Effect::ScaleTarget(Scale::Up),
        Effect::PauseScaler(true),
        Effect::ScaleTarget(Scale::Zero),
    ];
    assert_eq!(scaling(&run), expected);
    assert_eq!((run.world.scaler_paused, run.world.target.unwrap().replicas), (Some(true), 0));
}

#[test]
fn no_other_autoscaler_is_told_anything() {
    let mut run = scenarios::weighted();
    run.settle();
    assert_eq!(scaling(&run), [Effect::ScaleTarget(Scale::Up), Effect::ScaleTarget(Scale::Zero)]);
}

/// Flagger pauses the target while the primary starts, so that its only pods are gone.
#[test]
fn a_bootstrap_pauses_the_scaler_only_when_the_primary_has_the_users() {
    let mut run = scenarios::autoscaled_bootstrap();
    run.world.never_ready.insert((true, "a".into()));
    run.settle();
    assert_eq!((run.ending().phase, run.world.scaler_paused), (Phase::Initializing, Some(false)));
    let mut run = scenarios::autoscaled_bootstrap();
    run.settle();
    assert_eq!((run.ending().phase, run.world.scaler_paused), (Phase::Initialized, Some(true)));
}

/// However a run ends, the scaler is left where the pods must be.
#[test]
fn the_scaler_ends_as_the_pods_do() {
    let scenarios: [(Scenario, bool); 6] = [
        (("weighted", scenarios::autoscaled_weighted), true),
        (("skipped", scenarios::autoscaled_skip_analysis), true),
        (("fails", scenarios::autoscaled_fails), true),
        (("restart", scenarios::autoscaled_restart), true),
        (("withdrawn", scenarios::autoscaled_withdrawn), true),
        (("mended promotion", scenarios::autoscaled_mended_promotion), true),
    ];
    for ((name, scenario), paused) in scenarios {
        let mut run = scenario();
        run.settle();
        assert_eq!(run.world.scaler_paused, Some(paused), "{name}");
        assert_eq!(run.world.target.as_ref().unwrap().replicas, 0, "{name}");
    }
    let mut run = scenarios::autoscaled_weighted();
    run.world.never_ready.insert((true, "b".into()));
    run.settle();
    assert_eq!(run.world.routes, Some(Split::CANARY), "the promotion has failed");
    assert_eq!(run.world.scaler_paused, Some(false), "the canary has everybody");
}

/// Somebody pauses the scaler, or lets it go on, at any moment: it ends the same.
#[test]
fn a_scaler_that_somebody_switches_is_put_right() {
    for (name, scenario) in [
        ("weighted", scenarios::autoscaled_weighted as fn() -> Run),
        ("skipped", scenarios::autoscaled_skip_analysis),
        ("fails", scenarios::autoscaled_fails),
        ("withdrawn", scenarios::autoscaled_withdrawn),
        ("mended promotion", scenarios::autoscaled_mended_promotion),
    ] {
        let mut undisturbed = scenario();
        undisturbed.settle();
        for paused in [true, false] {
            for count in 1..=undisturbed.effects.len() {
                let mut run = scenario();
                run.interrupt = Some((count, vec![Event::PauseScaler(paused)]));
                run.settle();
                let context = format!("{name}, {paused} after {count}: {:?}", undisturbed.effects[count - 1]);
                assert_eq!(run.ending().phase, undisturbed.ending().phase, "{context}");
                assert_eq!(run.world.scaler_paused, undisturbed.world.scaler_paused, "{context}");
                assert_eq!(run.world.routes, undisturbed.world.routes, "{context}");
                let replicas = |run: &Run| run.world.target.as_ref().unwrap().replicas;
                assert_eq!(replicas(&run), replicas(&undisturbed), "{context}");
            }
        }
    }
}

#[test]
fn a_deleted_canary_gives_the_scaler_back() {
    for (name, scenario) in [
        ("weighted", scenarios::autoscaled_weighted as fn() -> Run),
        ("by nobody", scenarios::autoscaled_by_nobody),
        ("fails", scenarios::autoscaled_fails),
    ] {
        let made_to_revert = || {
            let mut run = scenario();
            run.plan = Plan { revert_on_deletion: true, ..run.plan };
            run
        };
        let mut undisturbed = made_to_revert();
        undisturbed.settle();
        for count in 1..=undisturbed.effects.len() {
            let mut run = made_to_revert();
            run.interrupt = Some((count, vec![Event::DeleteCanary, Event::Kill]));
            run.settle();
            if !run.world.gone {
                run.apply(Event::DeleteCanary);
                run.settle();
            }
            assert!(run.world.gone, "{name}, after {count}: {:?}", run.held());
            assert_eq!(run.world.scaler_paused, Some(false), "{name}, after {count}");
            assert!(run.world.target.unwrap().replicas > 0, "{name}, after {count}");
        }
    }
}

/// It was paused by a canary that is gone.
#[test]
fn a_target_that_is_paused_already_is_adopted() {
    let mut world = World::new("a");
    world.scaler_paused = Some(true);
    world.autoscale();
    let mut run = Run::new(plan(), world);
    run.settle();
    assert_eq!(run.ending().phase, Phase::Initialized);
    assert_eq!(scaling(&run), []);
}
