//! Order and texts of events, phases and weights of the other strategies.

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{Effect, Plan, Split};

use crate::driver::{Event, REACH, Run, SETTLE};
use crate::scenarios;
use crate::world::{Side, seconds};

fn settled(scenario: fn() -> Run) -> Run {
    let mut run = scenario();
    run.settle();
    run
}

/// What is set, in order.
fn splits(run: &Run) -> Vec<Split> {
    let split = |effect: &Effect| match effect {
        Effect::SetTraffic(split) => Some(*split),
        _ => None,
    };
    run.effects.iter().filter_map(split).collect()
}

const MIRRORED: Split = Split { mirrored: true, ..Split::PRIMARY };

const BEGIN: [&str; 2] =
    ["New revision detected! Scaling up podinfo.default", "Starting canary analysis for podinfo.default"];
const ITERATIONS: [&str; 3] = [
    "Advance podinfo.default canary iteration 1/3",
    "Advance podinfo.default canary iteration 2/3",
    "Advance podinfo.default canary iteration 3/3",
];
const PROMOTED: [&str; 3] = [
    "Copying podinfo.default template spec to podinfo-primary.default",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down podinfo.default",
];

#[test]
fn an_ab_test() {
    let run = settled(scenarios::ab_test);
    assert_eq!(run.events, [&BEGIN[..], &ITERATIONS, &PROMOTED].concat());
    assert_eq!(splits(&run), [Split::CANARY, Split::PRIMARY]);
    use Phase::*;
    let expected = [
        (Progressing, 0),
        (Progressing, 100),
        (Progressing, 100),
        (Progressing, 100),
        (Promoting, 100),
        (Finalising, 0),
        (Succeeded, 0),
    ];
    assert_eq!(run.phases, expected);
    assert_eq!(run.seconds_to("Advance podinfo.default canary iteration 1/3"), 6 + REACH);
    assert_eq!(run.seconds_to("Advance podinfo.default canary iteration 3/3"), 26 + REACH);
    assert_eq!(run.seconds_to("Copying"), 36 + REACH);
    assert_eq!(run.seconds_to("Promotion completed"), 41 + REACH + SETTLE);
}

#[test]
fn an_ab_test_with_hooks() {
    let run = settled(scenarios::ab_with_hooks);
    let expected = [
        "Confirm-rollout check ConfirmRollout-webhook passed",
        BEGIN[0],
        BEGIN[1],
        "Pre-rollout check PreRollout-webhook passed",
        ITERATIONS[0],
        ITERATIONS[1],
        ITERATIONS[2],
        "Confirm-promotion check ConfirmPromotion-webhook passed",
        PROMOTED[0],
        "Advance podinfo.default primary weight 50",
        "Advance podinfo.default primary weight 100",
        "Post-rollout check PostRollout-webhook passed",
        PROMOTED[2],
    ];
    assert_eq!(run.events, expected);
    assert!(!run.calls.contains(&WebhookType::ConfirmTrafficIncrease), "nothing is increased");
}

#[test]
fn a_failing_ab_test_is_rolled_back() {
    let run = settled(scenarios::ab_fails);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 0));
    assert_eq!(splits(&run), [Split::CANARY, Split::PRIMARY]);
    assert_eq!(run.events.last().unwrap(), "Canary failed! Scaling down podinfo.default");
}

/// Everybody else depends on the primary all the while.
#[test]
fn an_ab_test_waits_for_an_unready_primary() {
    let mut run = scenarios::ab_test().at(20, Event::Crash(Side::Primary)).at(90, Event::Recover(Side::Primary));
    run.run_until(run.world.now + seconds(80));
    assert_eq!(run.state().iterations, 2);
    assert!(run.held().unwrap().contains("podinfo-primary.default not ready"));
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn a_promotion_that_failed_after_an_ab_test_can_be_mended() {
    let run = settled(scenarios::ab_mended_promotion);
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "c");
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn blue_green() {
    let run = settled(scenarios::blue_green);
    assert_eq!(run.events, [&BEGIN[..], &ITERATIONS, &["Routing all traffic to canary"], &PROMOTED].concat());
    assert_eq!(splits(&run), [Split::CANARY, Split::PRIMARY]);
    use Phase::*;
    let expected = [
        (Progressing, 0),
        (Progressing, 0),
        (Progressing, 0),
        (Progressing, 0),
        (Progressing, 100),
        (Promoting, 100),
        (Finalising, 0),
        (Succeeded, 0),
    ];
    assert_eq!(run.phases, expected);
    // One more round with everybody on the canary.
    assert_eq!(run.seconds_to("Routing all traffic to canary"), 36);
    assert_eq!(run.seconds_to("Copying"), 46);
}

#[test]
fn blue_green_with_copies_of_the_traffic() {
    let run = settled(scenarios::blue_green_mirrored);
    let switch = "Stop traffic mirroring and route all traffic to canary";
    assert_eq!(run.events, [&BEGIN[..], &ITERATIONS, &[switch], &PROMOTED].concat());
    assert_eq!(splits(&run), [MIRRORED, Split::CANARY, Split::PRIMARY]);
}

/// Q22: Flagger asks the gate of the promotion twice, the second time with everybody on the canary.
#[test]
fn q22_blue_green_asks_for_the_promotion_once_and_before_users_come() {
    let run = settled(scenarios::blue_green_with_hooks);
    let expected = [
        "Confirm-rollout check ConfirmRollout-webhook passed",
        BEGIN[0],
        BEGIN[1],
        "Pre-rollout check PreRollout-webhook passed",
        ITERATIONS[0],
        ITERATIONS[1],
        ITERATIONS[2],
        "Confirm-promotion check ConfirmPromotion-webhook passed",
        "Routing all traffic to canary",
        PROMOTED[0],
        PROMOTED[1],
        "Post-rollout check PostRollout-webhook passed",
        PROMOTED[2],
    ];
    assert_eq!(run.events, expected);

    let run = settled(scenarios::blue_green_behind_a_gate);
    assert!(run.phases.contains(&(Phase::WaitingPromotion, 0)), "{:?}", run.phases);
    assert_eq!(run.seconds_to("Stop traffic mirroring"), 206 + REACH);
    assert_eq!(splits(&run), [MIRRORED, Split::CANARY, Split::PRIMARY]);
    assert_eq!(run.ending().phase, Phase::Succeeded);
    // The pre-rollout hooks are not run again, whatever the gate says.
    assert_eq!(run.events.iter().filter(|event| event.starts_with("Starting")).count(), 1);
}

#[test]
fn blue_green_that_fails_with_everybody_on_it() {
    let run = settled(scenarios::blue_green_fails);
    assert_eq!(splits(&run), [Split::CANARY, Split::PRIMARY]);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 0));
}

#[test]
fn blue_green_overtaken_stops_the_copies() {
    let run = settled(scenarios::blue_green_overtaken);
    assert_eq!(splits(&run), [MIRRORED, Split::PRIMARY, MIRRORED, Split::CANARY, Split::PRIMARY]);
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "c");
}

#[test]
fn blue_green_where_nothing_is_routed() {
    let run = settled(scenarios::blue_green_unrouted);
    assert_eq!(run.events, [&BEGIN[..], &ITERATIONS, &[PROMOTED[0], PROMOTED[2]]].concat());
    assert_eq!(splits(&run), []);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn copies_come_before_the_first_weight() {
    let run = settled(scenarios::mirrored);
    let weights = [0, 20, 40].map(|weight| format!("Advance podinfo.default canary weight {weight}"));
    let weights = weights.each_ref().map(String::as_str);
    assert_eq!(run.events, [&BEGIN[..], &weights, &PROMOTED].concat());
    assert_eq!(splits(&run), [MIRRORED, Split::to_canary(20), Split::to_canary(40), Split::PRIMARY]);
    // The copies are judged like users: one round.
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 0"), 6 + REACH);
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 20"), 16 + REACH);
}

#[test]
fn copies_and_the_gates() {
    let run = settled(scenarios::mirrored_with_hooks);
    assert_eq!(splits(&run), [MIRRORED, Split::to_canary(5), Split::to_canary(50), Split::PRIMARY]);
    let increases = run.calls.iter().filter(|kind| **kind == WebhookType::ConfirmTrafficIncrease).count();
    // For the copies (with them the first weight), for 50 and for the promotion.
    assert_eq!(increases, 3);
    assert_eq!(run.calls.iter().filter(|kind| **kind == WebhookType::PreRollout).count(), 1);
}

#[test]
fn a_canary_that_fails_on_copies_sees_no_user() {
    let run = settled(scenarios::mirrored_fails);
    assert_eq!(splits(&run), [MIRRORED, Split::PRIMARY]);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 0));
}

#[test]
fn copies_are_put_right_and_do_not_move_the_run() {
    let run = settled(scenarios::mirrored_against_another_writer);
    let told = |text: &str| run.events.iter().filter(|event| *event == text).count();
    assert_eq!(told("Traffic mirroring of podinfo.default was off, turned on again"), 1);
    assert_eq!(told("Traffic mirroring of podinfo.default was on, turned off"), 2);
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

/// A spec that is edited in mid-run changes how the run goes on, and loses no analysis on the way.
#[test]
fn a_run_goes_on_with_another_strategy() {
    let switched = |from: Plan, to: Plan| {
        let mut run = scenarios::release(from).at(28, Event::Plan(Box::new(to)));
        run.settle();
        assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0), "{:#?}", run.events);
        run.events
    };
    let events = switched(crate::driver::plan(), scenarios::blue_green_plan(false));
    assert!(events.contains(&"Routing all traffic to canary".to_owned()), "{events:#?}");
    let events = switched(crate::driver::plan(), scenarios::ab_plan());
    assert!(events.contains(&ITERATIONS[2].to_owned()), "{events:#?}");
    switched(scenarios::blue_green_plan(true), crate::driver::plan());
    switched(scenarios::mirrored_plan(), scenarios::ab_plan());
}
