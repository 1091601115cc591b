//! Order and texts of events, effects and phases.

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{Effect, Scale, Split, Wake, decide};

use crate::driver::{REACH, Run, SETTLE};
use crate::scenarios;
use crate::world::seconds;

fn settled(scenario: fn() -> Run) -> Run {
    let mut run = scenario();
    run.settle();
    run
}

fn count(run: &Run, which: fn(&Effect) -> bool) -> usize {
    run.effects.iter().filter(|effect| which(effect)).count()
}

/// The end of a good release.
const PROMOTED: [&str; 3] = [
    "Copying podinfo.default template spec to podinfo-primary.default",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down podinfo.default",
];

fn advance(weight: u32) -> String {
    format!("Advance podinfo.default canary weight {weight}")
}

#[test]
fn a_release_in_five_steps() {
    let run = settled(scenarios::weighted);
    let mut expected = vec![
        "New revision detected! Scaling up podinfo.default".to_owned(),
        "Starting canary analysis for podinfo.default".to_owned(),
    ];
    expected.extend([10, 20, 30, 40, 50].map(advance));
    expected.extend(PROMOTED.map(str::to_owned));
    assert_eq!(run.events, expected);
    assert_eq!(
        run.alerts,
        [
            "New revision detected, progressing canary analysis.",
            "Canary analysis completed successfully, promotion finished."
        ]
    );
    assert_eq!(count(&run, |effect| matches!(effect, Effect::SetTraffic(_))), 6);
    assert_eq!(count(&run, |effect| *effect == Effect::WriteStatus), 9);
    assert_eq!(count(&run, |effect| *effect == Effect::ScaleTarget(Scale::Up)), 1);
    assert_eq!(count(&run, |effect| *effect == Effect::ScaleTarget(Scale::Zero)), 1);
    assert_eq!(count(&run, |effect| matches!(effect, Effect::Promote { .. })), 1);
    assert_eq!(count(&run, |effect| matches!(effect, Effect::Apply(_))), 0);
    use Phase::*;
    let phases: Vec<_> = run.phases.iter().map(|(phase, _)| *phase).collect();
    let expected = [
        Progressing,
        Progressing,
        Progressing,
        Progressing,
        Progressing,
        Progressing,
        Promoting,
        Finalising,
        Succeeded,
    ];
    assert_eq!(phases, expected);
}

/// What waits, and what does not: five intervals of 10 s, twice 5 s until pods are ready, and the settle time.
#[test]
fn only_checks_wait_an_interval() {
    let run = settled(scenarios::weighted);
    assert_eq!(run.seconds_to("New revision"), 1);
    assert_eq!(run.seconds_to("Starting"), 6 + REACH);
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 10"), 6 + REACH);
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 50"), 46 + REACH);
    assert_eq!(run.seconds_to("Copying"), 56 + REACH);
    assert_eq!(run.seconds_to("Routing all"), 61 + REACH);
    assert_eq!(run.seconds_to("Promotion completed"), 61 + REACH + SETTLE);
}

/// While the mesh follows, `describe` says what is waited for; no event does.
#[test]
fn pods_are_kept_until_the_mesh_has_followed() {
    let mut run = scenarios::threshold();
    let settled = settled(scenarios::threshold);
    let told = settled.times[settled.times.len() - 1];
    run.run_until(told + seconds(SETTLE - 1));
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    assert_eq!(run.world.target.as_ref().unwrap().replicas, 1);
    assert_eq!(run.held().unwrap(), "podinfo.default keeps its pods until the mesh has followed the new routes");
    run.run_until(told + seconds(SETTLE));
    assert_eq!(run.world.target.as_ref().unwrap().replicas, 0);
    assert!(!settled.events.iter().any(|event| event.contains("keeps its pods")));
}

/// Routes would reach the mesh before the pods they lead to, where the cluster gathers changes of endpoints.
#[test]
fn new_pods_get_users_once_the_mesh_has_heard_of_them() {
    let mut run = scenarios::weighted();
    run.run_until(run.world.now + seconds(6));
    assert_eq!(run.world.target.as_ref().unwrap().available(run.world.now), 1);
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    assert_eq!(run.held().unwrap(), "podinfo.default leads nobody to its new pods until the mesh has heard of them");
    run.run_until(run.world.now + seconds(REACH));
    assert_eq!(run.world.routes, Some(Split::to_canary(10)));

    // The routes and the Service of a running target become the primary's.
    let mut run = scenarios::bootstrap_with_hooks();
    run.run_until(run.world.now + seconds(5));
    assert_eq!(run.world.primary.as_ref().unwrap().available(run.world.now), 1);
    assert!(run.world.pending.apex && run.world.routes.is_none(), "users stay where they are");
    run.run_until(run.world.now + seconds(REACH));
    assert!(!run.world.pending.apex && run.world.routes == Some(Split::PRIMARY));
}

#[test]
fn an_idle_canary_sleeps_until_something_changes() {
    for scenario in [scenarios::weighted, scenarios::threshold, scenarios::withdrawn, scenarios::failed_promotion] {
        let run = settled(scenario);
        let decision = decide(&run.plan, run.state(), &run.snapshot());
        assert_eq!((decision.effects.len(), decision.wake, decision.hold), (0, Wake::OnChange, None));
    }
}

/// The golden sequence of Flagger's webhook test, with the hooks' own lines.
#[test]
fn bootstrap_and_stepped_promotion_with_hooks() {
    let run = settled(scenarios::bootstrap_with_hooks);
    let expected = [
        "all the metrics providers are available!",
        "podinfo-primary.default not ready: waiting for rollout to finish: 0 out of 1 new replicas have been updated",
        "Initialization done! podinfo.default",
        "Confirm-rollout check ConfirmRollout-webhook passed",
        "New revision detected! Scaling up podinfo.default",
        "Starting canary analysis for podinfo.default",
        "Pre-rollout check PreRollout-webhook passed",
        "Confirm-traffic-increase check ConfirmTrafficIncrease-webhook passed",
        "Advance podinfo.default canary weight 100",
        "Confirm-traffic-increase check ConfirmTrafficIncrease-webhook passed",
        "Confirm-promotion check ConfirmPromotion-webhook passed",
        "Copying podinfo.default template spec to podinfo-primary.default",
        "Advance podinfo.default primary weight 50",
        "Advance podinfo.default primary weight 100",
        "Post-rollout check PostRollout-webhook passed",
        "Promotion completed! Scaling down podinfo.default",
    ];
    assert_eq!(run.events, expected);
    let calls = |kind| run.calls.iter().filter(|called| **called == kind).count();
    assert_eq!(calls(WebhookType::ConfirmRollout), 1);
    assert_eq!(calls(WebhookType::PreRollout), 1);
    assert_eq!(calls(WebhookType::Rollout), 1);
    assert_eq!(calls(WebhookType::ConfirmTrafficIncrease), 2);
    assert_eq!(calls(WebhookType::ConfirmPromotion), 1);
    assert_eq!(calls(WebhookType::PostRollout), 1);
}

#[test]
fn stepped_promotion_phases() {
    use Phase::*;
    let run = settled(scenarios::stepped);
    let expected =
        [(Progressing, 0), (Progressing, 100), (Promoting, 100), (Promoting, 50), (Finalising, 0), (Succeeded, 0)];
    assert_eq!(run.phases, expected);
    // The first step back is made when the primary is ready, the second one interval later.
    assert_eq!(run.seconds_to("Advance podinfo.default primary weight 50"), 21 + REACH);
    assert_eq!(run.seconds_to("Advance podinfo.default primary weight 100"), 31 + REACH);
}

#[test]
fn skip_analysis() {
    let run = settled(scenarios::skip_analysis);
    let expected = [
        "Confirm-rollout check ConfirmRollout-webhook passed",
        "New revision detected! Scaling up podinfo.default",
        "Copying podinfo.default template spec to podinfo-primary.default",
        "Post-rollout check PostRollout-webhook passed",
        "Promotion completed! Canary analysis was skipped for podinfo.default",
    ];
    assert_eq!(run.events, expected);
    assert_eq!(run.alerts.last().unwrap(), "Canary analysis was skipped, promotion finished.");
}

#[test]
fn rollback_on_the_threshold() {
    let run = settled(scenarios::threshold);
    let failed = "Halt podinfo.default advancement success rate 50.00% < 99%";
    let expected = [
        "New revision detected! Scaling up podinfo.default",
        "Starting canary analysis for podinfo.default",
        "Advance podinfo.default canary weight 10",
        failed,
        failed,
        failed,
        "Rolling back podinfo.default failed checks threshold reached 3",
        "Canary failed! Scaling down podinfo.default",
    ];
    assert_eq!(run.events, expected);
    assert_eq!(run.alerts.last().unwrap(), "Failed checks threshold reached 3");
    // At once with the last failure, not an interval later.
    assert_eq!(run.seconds_to("Rolling back"), 36 + REACH);
}

#[test]
fn rollback_on_the_deadline() {
    let run = settled(scenarios::deadline);
    let text = "canary deployment podinfo.default not ready: ";
    let expected = [
        "New revision detected! Scaling up podinfo.default".to_owned(),
        format!("{text}waiting for rollout to finish: 0 out of 1 new replicas have been updated"),
        format!("Rolling back podinfo.default progress deadline exceeded {text}exceeded its progress deadline"),
        "Canary failed! Scaling down podinfo.default".to_owned(),
    ];
    assert_eq!(run.events, expected);
    // Q10: Flagger sends no alert here.
    assert_eq!(run.alerts.last().unwrap(), &format!("Progress deadline exceeded {text}exceeded its progress deadline"));
    assert_eq!(run.seconds_to("Rolling back"), 61);
    assert_eq!(run.ending().phase, Phase::Failed);
}

#[test]
fn restart_on_a_newer_revision() {
    let run = settled(scenarios::restart);
    let mut expected = vec![
        "New revision detected! Scaling up podinfo.default".to_owned(),
        "Starting canary analysis for podinfo.default".to_owned(),
        advance(10),
        advance(20),
        "New revision detected! Restarting analysis for podinfo.default".to_owned(),
        "Starting canary analysis for podinfo.default".to_owned(),
    ];
    expected.extend([10, 20, 30, 40, 50].map(advance));
    expected.extend(PROMOTED.map(str::to_owned));
    assert_eq!(run.events, expected);
    assert_eq!(run.seconds_to("New revision detected! Restarting"), 25);
    assert_eq!(run.world.primary.unwrap().revision, "c");
}

/// The newer revision would go on with the weight of the former one, and skip all steps up to it.
#[test]
fn a_restart_waits_for_a_primary_that_the_mesh_has_not_heard_of() {
    let mut run = scenarios::weighted();
    run.run_until(run.world.now + seconds(20));
    assert_eq!(run.world.routes, Some(Split::to_canary(20)));
    let mut seen = run.snapshot();
    seen.target.as_mut().unwrap().revision = "c".to_owned();

    seen.serving_since.primary = Some(seen.now);
    let decision = decide(&run.plan, run.state(), &seen);
    assert_eq!((decision.effects, decision.wake), (Vec::new(), Wake::At(seen.now + seconds(REACH))));
    assert_eq!(decision.next.last_applied, "b");

    seen.serving_since.primary = Some(seen.now - seconds(REACH));
    let decision = decide(&run.plan, run.state(), &seen);
    assert_eq!(decision.effects[0], Effect::SetTraffic(Split::PRIMARY));
    assert_eq!((decision.next.canary_weight, decision.next.last_applied.as_str()), (0, "c"));
}

#[test]
fn failed_promotion_leaves_the_canary_serving() {
    let run = settled(scenarios::failed_promotion);
    let error = "podinfo-primary.default not ready: exceeded its progress deadline";
    assert_eq!(run.events.last().unwrap(), &format!("Promotion of podinfo.default failed, primary not ready: {error}"));
    assert_eq!(run.alerts.last().unwrap(), &format!("Promotion failed, primary not ready: {error}"));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    assert_eq!(run.world.routes.unwrap().canary, 100);
    assert_eq!(run.world.target.unwrap().replicas, 1);
}

#[test]
fn metrics_outage_holds_and_resumes() {
    let run = settled(scenarios::outage);
    let outage = "Hold podinfo.default at canary weight 10, metrics are unavailable: request-success-rate: connection \
                  refused (counts as a failed check after 1m0s)";
    assert_eq!(run.events[3], outage);
    assert_eq!(run.events[4], "Metrics are available again, resuming analysis of podinfo.default");
    assert_eq!(run.events[5], advance(20));
    assert_eq!(run.events.len(), 12);
    assert_eq!(run.ending().phase, Phase::Succeeded);
    assert_eq!(run.seconds_to("Hold"), 16 + REACH);
    // Asked again every interval: at 26, 36, 46 and 56, when the monitoring is back.
    assert_eq!(run.seconds_to("Metrics are available"), 56 + REACH);
    assert_eq!(run.state().outage, None);
}

/// A rate needs two scrapes: what a Prometheus that was started anew does not know yet is no failed check.
#[test]
fn empty_answers_after_an_outage_are_part_of_it() {
    let run = settled(scenarios::outage_with_an_empty_end);
    assert_eq!(run.events, settled(scenarios::outage).events);
    assert_eq!(run.seconds_to("Metrics are available"), 56 + REACH);
}

/// Users of a version that reports nothing wait for the window of the query (30 s) and an interval (10 s) after the first
/// answer, at 36, and not until the outage's limit.
#[test]
fn a_short_outage_does_not_hide_for_long_that_there_are_no_values() {
    let run = settled(scenarios::outage_that_hides_silence);
    assert_eq!(run.events[4], "Metrics are available again, resuming analysis of podinfo.default");
    assert_eq!(run.seconds_to("Metrics are available"), 36 + REACH + 40);
    assert_eq!(run.seconds_to("Rolling back"), 36 + REACH + 40 + 20);
}

/// It was back for a moment only, so the time begins anew with the next answer, at 66.
#[test]
fn monitoring_that_goes_away_again_has_its_time_anew() {
    let run = settled(scenarios::flickering_monitoring);
    assert_eq!(run.events.iter().filter(|event| event.starts_with("Hold")).count(), 1);
    assert_eq!(run.seconds_to("Rolling back"), 66 + REACH + 40 + 20);
}

#[test]
fn metrics_outage_beyond_its_limit_counts_every_round() {
    let run = settled(scenarios::long_outage);
    let failed = "Prometheus query failed: connection refused";
    let tail: Vec<_> = run.events[4..].iter().map(String::as_str).collect();
    let expected = [
        failed,
        failed,
        failed,
        "Rolling back podinfo.default failed checks threshold reached 3",
        "Canary failed! Scaling down podinfo.default",
    ];
    assert_eq!(tail, expected);
    assert_eq!(run.seconds_to(failed), 16 + REACH + 60);
    assert_eq!(run.seconds_to("Rolling back"), 16 + REACH + 60 + 20);
}

#[test]
fn metrics_errors_fail_is_flaggers_way() {
    let run = settled(scenarios::outage_as_failure);
    assert_eq!(run.events[3], "Prometheus query failed: connection refused");
    assert_eq!(run.seconds_to("Rolling back"), 36 + REACH);
}

/// The second outage starts its own clock, however long the gate kept the first one's recovery from being written.
#[test]
fn an_outage_ends_although_a_gate_is_closed() {
    let run = settled(scenarios::outage_behind_a_gate);
    let lines = |start: &str| run.events.iter().filter(|event| event.starts_with(start)).count();
    assert_eq!(lines("Hold"), 2);
    assert_eq!(lines("Metrics are available again"), 2);
    assert_eq!(lines("Prometheus query failed"), 0);
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn closed_gates_are_told_once_and_asked_every_interval() {
    let run = settled(scenarios::closed_gates);
    let lines = |start: &str| run.events.iter().filter(|event| event.starts_with(start)).count();
    assert_eq!(lines("Halt podinfo.default advancement waiting for approval"), 1);
    assert_eq!(lines("Halt podinfo.default advancement waiting for traffic increase approval"), 1);
    assert_eq!(lines("Halt podinfo.default advancement waiting for promotion approval"), 1);
    assert_eq!(run.alerts.iter().filter(|alert| alert.contains("waiting for approval")).count(), 3);
    // 1, 11, …, 91 refused, 101 passed.
    assert_eq!(run.seconds_to("Confirm-rollout check"), 101);
    assert_eq!(run.seconds_to("New revision"), 101);
    assert_eq!(run.calls.iter().filter(|kind| **kind == WebhookType::ConfirmRollout).count(), 11);
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 10"), 206);
    assert!(run.phases.contains(&(Phase::WaitingPromotion, 50)));
    assert_eq!(run.seconds_to("Confirm-promotion check"), 406);
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn a_failing_pre_rollout_hook_ends_in_a_rollback_without_traffic() {
    let run = settled(scenarios::pre_rollout_fails);
    let failed = "Halt podinfo.default advancement pre-rollout check PreRollout-webhook failed no";
    let expected = [
        "New revision detected! Scaling up podinfo.default",
        "Starting canary analysis for podinfo.default",
        failed,
        failed,
        failed,
        "Rolling back podinfo.default failed checks threshold reached 3",
        "Canary failed! Scaling down podinfo.default",
        "Post-rollout check PostRollout-webhook passed",
    ];
    assert_eq!(run.events, expected);
    assert_eq!(run.seconds_to("Rolling back"), 26);
    assert_eq!(count(&run, |effect| matches!(effect, Effect::SetTraffic(_))), 0);
}

#[test]
fn a_rollback_hook_ends_the_run() {
    let run = settled(scenarios::rollback_hook);
    let tail: Vec<_> = run.events.iter().rev().take(3).rev().map(String::as_str).collect();
    let expected = [
        "Rollback check Rollback-webhook passed",
        "Rolling back podinfo.default manual webhook invoked",
        "Canary failed! Scaling down podinfo.default",
    ];
    assert_eq!(tail, expected);
    assert_eq!(run.seconds_to("Rolling back"), 36 + REACH);
}

/// It is asked at each interval, and Flagger tells each time (Q23).
#[test]
fn a_rollback_hook_that_asks_for_none_is_told_once() {
    let run = settled(scenarios::rollback_hook);
    let line = "Rollback hook Rollback-webhook not signaling a rollback";
    let told: Vec<usize> =
        run.events.iter().enumerate().filter(|(_, event)| *event == line).map(|(index, _)| index).collect();
    assert_eq!(told.len(), 1, "{:#?}", run.events);
    assert_eq!(run.events[told[0] + 1], "Starting canary analysis for podinfo.default");
    assert!(run.calls.iter().filter(|kind| **kind == WebhookType::Rollback).count() > 2);
}

#[test]
fn config_releases() {
    let run = settled(scenarios::config_release);
    assert_eq!(run.world.primary.clone().unwrap().configs, crate::world::configs("2"));
    assert_eq!(run.ending().phase, Phase::Succeeded);
    let run = settled(scenarios::config_withdrawn);
    assert!(run.events.last().unwrap().contains("is back at the promoted revision"));
    let phases: Vec<_> = run.phases.iter().map(|(phase, _)| *phase).collect();
    use Phase::*;
    assert_eq!(phases, [Progressing, Progressing, Progressing, Succeeded, Succeeded], "the second when its pods go");
    assert_eq!(run.state().tracked_configs, Some(crate::world::configs("1")));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn weights_from_a_list() {
    let run = settled(scenarios::listed);
    let weights: Vec<_> = run.phases.iter().map(|(_, weight)| *weight).collect();
    assert_eq!(weights, [0, 1, 2, 10, 80, 80, 0, 0]);
}

#[test]
fn foreign_weights_are_put_right_and_do_not_move_the_run() {
    let run = settled(scenarios::mid_run_foreign_weight);
    assert!(run.events.contains(&"Canary weight of podinfo.default was 77 instead of 20, set to 20".to_owned()));
    let weights: Vec<_> = run.phases.iter().map(|(_, weight)| *weight).collect();
    // The edit at 30 took users away from the canary; its soak starts anew.
    assert_eq!(weights, [0, 10, 20, 30, 30, 40, 50, 50, 0, 0]);
}

/// Flagger's nginx/test-lifecycle: back to the promoted revision stays Failed, the failed one again is a new run.
#[test]
fn the_failed_revision_can_be_tried_again() {
    let mut run = scenarios::failed_then_reverted_then_again();
    run.run_until(run.world.now + crate::world::seconds(250));
    assert_eq!(run.ending().phase, Phase::Failed);
    assert_eq!(run.state().last_applied, "a");
    assert!(!run.events.iter().skip(8).any(|event| event.contains("New revision")), "{:#?}", run.events);
    run.settle();
    assert_eq!(run.events.iter().filter(|event| event.starts_with("New revision")).count(), 2);
    assert_eq!(run.ending().phase, Phase::Failed);
}
