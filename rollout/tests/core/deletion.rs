//! `revertOnDeletion`: the finalizer, and the way back from every state.

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{Effect, Plan, Reverted, Scale};

use crate::driver::{Event, REACH, Run, SETTLE, plan};
use crate::scenarios;
use crate::world::{Side, World, seconds};

fn reverting() -> Plan {
    Plan { revert_on_deletion: true, ..plan() }
}

/// Everything reverts, whatever the scenario.
fn made_to_revert(scenario: fn() -> Run) -> Run {
    let mut run = scenario();
    run.plan.revert_on_deletion = true;
    run
}

fn assert_given_back(run: &Run, context: &str) {
    assert!(run.world.gone, "{context}: {:?}, held {:?}", run.state(), run.held());
    let Some(target) = &run.world.target else { return };
    assert!(target.available(run.world.now) > 0, "{context}: the target serves");
    assert!(run.world.reverted.contains("apex"), "{context}");
    assert!(run.world.reverted.contains("routes") || run.world.routes.is_none(), "{context}");
}

#[test]
fn the_finalizer_comes_before_anything_is_taken_from_the_user() {
    let mut run = Run::new(reverting(), World::new("a"));
    run.settle();
    assert!(run.world.has_finalizer);
    let position = |which: &Effect| run.effects.iter().position(|effect| effect == which).unwrap();
    assert!(position(&Effect::SetFinalizer(true)) < position(&Effect::ScaleTarget(Scale::Zero)));
}

#[test]
fn what_was_taken_is_given_back_in_order() {
    let mut run = Run::initialized(reverting());
    run.apply(Event::DeleteCanary);
    run.settle();
    assert_given_back(&run, "idle");
    assert_eq!(run.events.first().unwrap(), "Terminating canary podinfo.default");
    assert_eq!(run.events.last().unwrap(), "Terminated canary podinfo.default");
    let writes: Vec<_> = run.effects.iter().filter(|effect| !matches!(effect, Effect::Emit(_))).cloned().collect();
    let expected = [
        Effect::WriteStatus,
        Effect::ScaleTarget(Scale::Restore),
        Effect::Revert(Reverted::Apex),
        Effect::Revert(Reverted::Routes),
        Effect::SetFinalizer(false),
    ];
    assert_eq!(writes, expected);
    assert_eq!(run.phases, [(Phase::Terminating, 0)]);
    // 5 s until the pods of the target are ready, and those of the primary go when the mesh has followed.
    assert_eq!(run.seconds_to("Terminated"), 5 + REACH + SETTLE);
}

/// Deleted after any effect of any scenario, and killed after any effect from then on.
#[test]
fn deletion_in_every_phase() {
    for (name, scenario) in scenarios::all() {
        let mut undisturbed = made_to_revert(scenario);
        undisturbed.settle();
        for count in 1..=undisturbed.effects.len() {
            let mut run = made_to_revert(scenario);
            run.interrupt = Some((count, vec![Event::DeleteCanary]));
            run.settle();
            run.end_script();
            run.apply(Event::Recover(Side::Target));
            run.settle();
            assert_given_back(&run, &format!("{name}, deleted after {count}"));
        }
    }
}

#[test]
fn a_kill_in_the_middle_of_a_deletion_changes_nothing() {
    for scenario in [scenarios::weighted, scenarios::failed_promotion, scenarios::blue_green_mirrored] {
        let deleted = || made_to_revert(scenario).at(28, Event::DeleteCanary);
        let mut undisturbed = deleted();
        undisturbed.settle();
        assert_given_back(&undisturbed, "undisturbed");
        for count in 1..=undisturbed.effects.len() {
            let mut run = deleted();
            run.interrupt = Some((count, vec![Event::Kill]));
            run.settle();
            assert_given_back(&run, &format!("killed after {count}"));
            assert_eq!(run.events.last().unwrap(), "Terminated canary podinfo.default");
        }
    }
}

/// Q8: Flagger waits for ever.
#[test]
fn q8_missing_objects_do_not_keep_a_deleted_canary() {
    for missing in [Event::DeleteTarget, Event::DeletePrimary, Event::DeleteRoutes] {
        let mut run = Run::initialized(reverting());
        run.apply(missing.clone());
        run.apply(Event::DeleteCanary);
        run.settle();
        assert_given_back(&run, &format!("{missing:?}"));
    }
}

#[test]
fn q8_a_finalizer_that_is_no_longer_wanted_goes() {
    let mut run = Run::initialized(reverting());
    // Turned off while nobody looked.
    run.apply(Event::Kill);
    run.plan.revert_on_deletion = false;
    run.settle();
    assert!(!run.world.has_finalizer);

    let mut run = Run::initialized(reverting());
    run.apply(Event::DeleteCanary);
    run.plan.revert_on_deletion = false;
    run.settle();
    assert!(run.world.gone);
    assert!(!run.effects.iter().any(|effect| matches!(effect, Effect::Revert(_))));
}

#[test]
fn users_stay_on_the_primary_until_the_target_is_ready() {
    let mut run = Run::initialized(reverting());
    run.world.never_ready.insert((false, "a".into()));
    run.apply(Event::DeleteCanary);
    run.run_until(run.world.now + seconds(600));
    assert!(!run.world.gone && run.world.reverted.is_empty());
    assert!(run.held().unwrap().starts_with("canary not ready during finalizing: "), "{:?}", run.held());
    run.apply(Event::Recover(Side::Target));
    run.settle();
    assert_given_back(&run, "at last");
}

/// Deleted in mid-analysis with a canary whose pods have died: its users do not wait for them.
#[test]
fn users_leave_a_dead_canary_before_it_is_given_back() {
    let mut run = scenarios::weighted().at(27, Event::Crash(Side::Target)).at(27, Event::DeleteCanary);
    run.plan.revert_on_deletion = true;
    run.run_until(run.world.now + seconds(60));
    assert_eq!(run.world.routes.unwrap().canary, 0);
    run.apply(Event::Recover(Side::Target));
    run.settle();
    assert_given_back(&run, "recovered");
}

#[test]
fn a_suspended_canary_is_given_back_too() {
    let mut run = Run::initialized(reverting());
    run.apply(Event::Suspend(true));
    run.apply(Event::Refuse(WebhookType::ConfirmRollout, true));
    run.apply(Event::DeleteCanary);
    run.settle();
    assert_given_back(&run, "suspended");
}
