//! What Flagger does wrong, done right; named after the reference's quirk list.

use aviary_crds::status::{CanaryStatus, Phase};
use aviary_crds::validated::WebhookType;
use aviary_rollout::{Component, Effect, Plan, Scale, Split, Strategy, Weights, decide};

use crate::driver::{Event, Run, plan, with_hooks};
use crate::scenarios::{self, release, revision};
use crate::world::{Metrics, Side, seconds};

#[test]
fn q1_a_fix_after_a_failed_promotion_goes_through_without_cutting_traffic() {
    let mut run = scenarios::mended_promotion();
    run.run_until(run.world.now + seconds(290));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    let before = run.effects.len();
    run.settle();
    let promoted = run.effects.iter().rposition(|effect| matches!(effect, Effect::Promote { .. })).unwrap();
    let traffic = |effect: &&Effect| matches!(effect, Effect::SetTraffic(_) | Effect::ScaleTarget(Scale::Zero));
    assert_eq!(run.effects[before..promoted].iter().filter(traffic).count(), 0);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "c");
}

/// The fix is analysed for an interval of its own, counted from when its pods are ready.
#[test]
fn q1_the_fix_soaks_before_it_is_promoted() {
    let mut run = scenarios::mended_promotion();
    run.world.delay = seconds(25);
    run.settle();
    let copied = run.events.iter().rposition(|event| event.starts_with("Copying")).unwrap();
    let started = run.events.iter().rposition(|event| event.starts_with("New revision")).unwrap();
    assert_eq!(run.times[copied].duration_since(run.times[started]).as_secs(), 25 + 10);
}

#[test]
fn q1_a_bad_fix_does_not_roll_back_onto_the_broken_primary() {
    let mut run = scenarios::mended_promotion().at(600, revision("d"));
    run.world.bad.insert("c".into());
    run.run_until(run.world.now + seconds(590));
    assert_eq!(run.state().failed_checks, 3);
    assert_eq!(run.world.routes, Some(Split::CANARY));
    let held = run.held().unwrap();
    assert_eq!(held, "Canary podinfo.default is waiting to route traffic back: the primary cannot take it");
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary.unwrap().revision, "d");
}

/// The old primary's pods still serve: half of the users stay with them, until the target has what was analysed again.
#[test]
fn q1_a_revision_pushed_into_a_broken_promotion_gets_no_more_traffic() {
    let mut run = scenarios::failed_promotion().at(100, revision("c")).at(900, revision("b")).at(1200, revision("d"));
    run.run_until(run.world.now + seconds(890));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Promoting, 50));
    assert_eq!(run.world.routes, Some(Split::to_canary(50)));
    let held = run.held().unwrap();
    assert!(held.starts_with("Promotion of podinfo.default failed and what it holds now was not analysed"), "{held}");
    run.run_until(run.world.now + seconds(300));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary.unwrap().revision, "d");
}

#[test]
fn q1_going_back_to_the_promoted_revision_mends_the_primary() {
    let mut run = scenarios::reverted_promotion();
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary.unwrap().revision, "a");
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
}

#[test]
fn q1_skipping_the_analysis_mends_the_primary_first() {
    let mut run = scenarios::failed_promotion();
    run.settle();
    run.apply(Event::Crash(Side::Primary));
    run.apply(Event::Plan(Box::new(Plan { skip_analysis: true, ..plan() })));
    run.apply(revision("c"));
    // The canary needs 5 s to become ready, and then the primary.
    run.run_until(run.world.now + seconds(8));
    assert_eq!(run.phases.last().unwrap(), &(Phase::Promoting, 100));
    assert_eq!(run.world.routes, Some(Split::CANARY));
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn q3_a_revision_seen_while_failed_is_not_lost() {
    let mut run = scenarios::threshold();
    run.settle();
    run.apply(Event::Crash(Side::Primary));
    run.apply(revision("c"));
    run.settle();
    assert_eq!(run.ending().phase, Phase::Failed);
    assert!(run.held().unwrap().contains("podinfo-primary.default not ready"));
    run.apply(Event::Kill);
    run.settle();
    run.apply(Event::Recover(Side::Primary));
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
    assert_eq!(run.world.primary.unwrap().revision, "c");
}

#[test]
fn q4_a_reset_route_does_not_hang_a_stepped_promotion() {
    let mut run = scenarios::stepped();
    let after = run.world.now + seconds(25);
    run.run_until(after);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Promoting, 50));
    run.apply(Event::ForeignWeight(0));
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);

    let mut state = run.state().clone();
    state.phase = Phase::Promoting;
    // Traffic that somebody took from the canary already does not go back to it.
    state.canary_weight = 100;
    let mut seen = run.snapshot();
    seen.traffic = Some(Ok(Split::to_canary(20)));
    assert_eq!(decide(&run.plan, &state, &seen).next.canary_weight, 20);
    state.canary_weight = 0;
    let decision = decide(&run.plan, &state, &run.snapshot());
    assert_eq!(decision.next.phase, Phase::Finalising, "a status left behind by Flagger");
}

#[test]
fn q5_a_bootstrap_that_fails_never_scales_the_target() {
    let mut run = scenarios::broken_bootstrap();
    run.run_until(run.world.now + seconds(190));
    assert_eq!(run.ending().phase, Phase::Initializing);
    assert!(!run.effects.contains(&Effect::ScaleTarget(Scale::Zero)));
    assert_eq!(run.world.routes, None);
    run.settle();
    assert_eq!(run.ending().phase, Phase::Initialized);
    assert_eq!(run.world.primary.unwrap().revision, "a");
}

/// Where nothing is routed, the target serves behind the apex service until the primary is ready.
#[test]
fn q5_a_bootstrap_that_fails_where_nothing_is_routed_never_scales_the_target() {
    let mut run = scenarios::broken_bootstrap();
    run.world.routed = false;
    run.run_until(run.world.now + seconds(190));
    assert_eq!(run.ending().phase, Phase::Initializing);
    let harmful = |effect: &&Effect| matches!(effect, Effect::ScaleTarget(_) | Effect::Apply(Component::Apex));
    assert_eq!(run.effects.iter().filter(harmful).count(), 0, "{:?}", run.effects);
    run.settle();
    assert_eq!(run.ending().phase, Phase::Initialized, "the next revision mends it");
}

/// Flagger leads users to a primary that is not ready, and scales the target down.
#[test]
fn q6_a_bootstrap_without_analysis_waits_for_the_primary() {
    let mut run = Run::new(Plan { skip_analysis: true, ..plan() }, crate::world::World::new("a"));
    run.world.never_ready.insert((true, "a".into()));
    run.run_until(run.world.now + seconds(600));
    assert_eq!(run.ending().phase, Phase::Initializing);
    assert!(!run.effects.contains(&Effect::ScaleTarget(Scale::Zero)));
    assert_eq!(run.world.routes, None);
    run.apply(Event::Recover(Side::Primary));
    run.settle();
    assert_eq!(run.ending().phase, Phase::Initialized);
}

#[test]
fn q9_a_rollback_hook_ends_the_wait_for_approval() {
    let hooks = [WebhookType::ConfirmRollout, WebhookType::Rollback];
    let mut run = release(with_hooks(plan(), &hooks)).at(35, Event::Refuse(WebhookType::Rollback, false));
    run.world.refusing.insert(WebhookType::ConfirmRollout);
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 0));
    assert_eq!(run.state().last_applied, "b", "it is not started again by itself");
}

#[test]
fn q12_an_unready_primary_delays_a_release_and_fails_none() {
    let mut run = Run::initialized(plan());
    run.apply(Event::Crash(Side::Primary));
    run = run.at(200, revision("b")).at(400, Event::Recover(Side::Primary));
    run.settle();
    assert_eq!(run.seconds_to("New revision"), 400);
    assert_eq!(run.ending().phase, Phase::Succeeded);

    let mut run = scenarios::weighted().at(20, Event::Crash(Side::Primary)).at(400, Event::Recover(Side::Primary));
    run.settle();
    assert_eq!(run.seconds_to("Advance podinfo.default canary weight 30"), 400);
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn q15_a_withdrawn_revision_ends_the_run_and_restarts_nothing() {
    let mut before = Run::initialized(plan());
    before.settle();
    let mut run = scenarios::withdrawn();
    run.settle();
    assert_eq!(run.seconds_to("podinfo.default is back at the promoted revision"), 25);
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary, before.world.primary);
    assert_eq!((run.state().last_applied.as_str(), run.state().last_promoted.as_str()), ("a", "a"));
    assert_eq!(run.events.iter().filter(|event| event.starts_with("New revision")).count(), 1);
}

#[test]
fn q16_an_edit_during_the_promotion_is_not_promoted_unanalysed() {
    let mut run = scenarios::weighted();
    run.edit_before_promotion = Some("c".into());
    run.settle();
    let tail: Vec<_> = run.events.iter().filter(|event| event.starts_with("Copying")).collect();
    assert_eq!(tail.len(), 1, "the first one did not happen");
    assert!(run.events.iter().any(|event| event.starts_with("New revision detected! Restarting")));
    assert_eq!(run.world.primary.unwrap().revision, "c");
}

#[test]
fn q17_a_list_edited_during_the_run_goes_on_with_the_next_greater_weight() {
    let listed = |weights: &[u32]| Plan { strategy: Strategy::weighted(Weights::List(weights.to_vec())), ..plan() };
    let mut run = release(listed(&[5, 20, 50])).at(20, Event::Plan(Box::new(listed(&[10, 30, 60]))));
    run.settle();
    let weights: Vec<_> = run.phases.iter().map(|(_, weight)| *weight).collect();
    assert_eq!(weights, [0, 5, 20, 30, 60, 60, 0, 0]);
}

/// Flagger's status says weight 0 and iteration -1 there.
#[test]
fn q21_the_status_tells_weight_and_iterations_while_it_waits_for_the_promotion() {
    let hooks = [WebhookType::ConfirmPromotion];
    let ab_test = Strategy::AbTesting(aviary_rollout::AbTesting { iterations: 3 });
    for (strategy, weight, iterations) in [(plan().strategy, 50, 0), (ab_test, 100, 3)] {
        let mut run = release(with_hooks(Plan { strategy, ..plan() }, &hooks));
        run.world.refusing.insert(WebhookType::ConfirmPromotion);
        run.run_until(run.world.now + seconds(300));
        let status = &run.world.status;
        assert_eq!(
            (status.phase, status.canary_weight, status.iterations),
            (Phase::WaitingPromotion, weight, iterations)
        );
        assert_eq!(run.world.routes.map(|split| i64::from(split.canary)), Some(weight));
    }
}

#[test]
fn q31_a_canary_that_crashes_after_its_promotion_fails_nothing() {
    let mut undisturbed = scenarios::weighted();
    undisturbed.settle();
    let writes: Vec<_> = undisturbed
        .effects
        .iter()
        .enumerate()
        .filter(|(_, effect)| **effect == Effect::WriteStatus)
        .map(|(position, _)| position + 1)
        .collect();
    let finalising = writes[writes.len() - 2];
    let mut run = scenarios::weighted();
    run.interrupt = Some((finalising, vec![Event::Crash(Side::Target)]));
    run.settle();
    assert_eq!(run.ending(), undisturbed.ending());
}

/// The promotion is complete only while the primary is ready: until then the canary is kept.
#[test]
fn a_primary_that_breaks_after_the_shift_gives_traffic_back() {
    let mut undisturbed = scenarios::weighted();
    undisturbed.settle();
    let positions: Vec<_> =
        (0..undisturbed.effects.len()).filter(|at| undisturbed.effects[*at] == Effect::WriteStatus).collect();
    let finalising = positions[positions.len() - 2] + 1;
    let mut run = scenarios::weighted();
    run.interrupt = Some((finalising, vec![Event::Crash(Side::Primary)]));
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    assert_eq!(run.world.routes, Some(Split::CANARY));
    assert_eq!(run.world.target.unwrap().replicas, 1);
}

#[test]
fn no_request_goes_to_a_canary_that_is_gone() {
    let mut run = scenarios::weighted().at(20, Event::DeleteTarget);
    run.settle();
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    assert_eq!(run.held().unwrap(), "deployment podinfo.default get query error: not found");

    let mut run = scenarios::weighted().at(20, Event::Crash(Side::Target)).at(40, Event::Recover(Side::Target));
    run.run_until(run.world.now + seconds(30));
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    assert_eq!(run.state().canary_weight, 20);
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

#[test]
fn suspended_means_untouched() {
    let mut run = scenarios::weighted().at(20, Event::Suspend(true)).at(500, Event::Suspend(false));
    run.run_until(run.world.now + seconds(490));
    assert_eq!(run.state().canary_weight, 20);
    assert_eq!(run.held().unwrap(), "skipping canary run as object is suspended");
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

/// A check that would fail is not hidden by another backend's outage.
#[test]
fn an_outage_of_one_backend_hides_no_failure_of_another() {
    let mut run = scenarios::weighted();
    run.run_until(run.world.now + seconds(10));
    let mut seen = run.snapshot();
    let mut plan = plan();
    plan.checks.push(aviary_rollout::Check { name: "errors".into(), index: 1, ..plan.checks[0].clone() });
    seen.now += seconds(20);
    let down = || Err(aviary_rollout::SampleError::Unavailable("timeout".into()));
    let answer = |samples| {
        Some(aviary_rollout::Answer { at: seen.now, value: aviary_rollout::RoundAnswer { hooks: Vec::new(), samples } })
    };
    let mut judged = seen.clone();
    judged.answers.round = answer(vec![down(), Ok(1.0)]);
    assert_eq!(decide(&plan, run.state(), &judged).next.failed_checks, 1);
    judged.answers.round = answer(vec![down(), Ok(100.0)]);
    assert_eq!(decide(&plan, run.state(), &judged).next.failed_checks, 0);
    // A check that was not made, or has no number, is no pass.
    judged.answers.round = answer(vec![Ok(100.0)]);
    assert_eq!(decide(&plan, run.state(), &judged).next.canary_weight, 10);
    judged.answers.round = answer(vec![Ok(100.0), Ok(f64::NAN)]);
    assert_eq!(decide(&plan, run.state(), &judged).next.failed_checks, 1);
}

#[test]
fn q25_a_deleted_primary_comes_back_only_from_what_was_promoted() {
    let mut run = scenarios::weighted();
    run.settle();
    run.apply(Event::DeletePrimary);
    run.settle();
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "b");

    let missing = |run: &Run| run.held().is_some_and(|text| text.contains("is missing and cannot be restored"));
    // The failed revision must not become the primary, the promoted one may.
    let mut run = scenarios::threshold();
    run.settle();
    run.apply(Event::DeletePrimary);
    run.settle();
    assert!(missing(&run) && run.world.primary.is_none());
    run.apply(revision("a"));
    run.settle();
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "a");

    // It was the configs that failed.
    let mut run = scenarios::config_release();
    run.world.metrics = Metrics::Bad;
    run.settle();
    assert_eq!(run.ending().phase, Phase::Failed);
    run.apply(Event::DeletePrimary);
    run.settle();
    assert!(missing(&run) && run.world.primary.is_none());
}

/// In an A/B test the canary serves only those who meet the conditions, also after its promotion has failed.
#[test]
fn a_primary_deleted_after_a_failed_promotion_of_an_ab_test_is_told_missing_and_comes_back_with_the_next() {
    let mut run = scenarios::ab_failed_promotion();
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Failed, 100));
    run.apply(Event::DeletePrimary);
    run.settle();
    assert!(run.held().is_some_and(|text| text.contains("is missing and cannot be restored")), "{:?}", run.held());
    run.apply(revision("c"));
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
    assert_eq!(run.world.primary.unwrap().revision, "c");
}

/// The watch of Deployments may tell of what was collected before the watch of canaries tells why.
#[test]
fn a_primary_that_went_with_its_canary_is_not_called_missing() {
    let mut run = scenarios::threshold();
    run.settle();
    run.apply(Event::DeletePrimary);
    let is_told = |run: &Run| run.events.iter().any(|event| event.contains("is missing and cannot be restored"));
    run.run_until(run.world.now + seconds(4));
    assert!(!is_told(&run));
    run.run_until(run.world.now + seconds(6));
    assert!(is_told(&run));
}

/// Ready means rolled out, and a workload of no pods is.
#[test]
fn nothing_is_routed_to_a_primary_without_pods() {
    let mut run = Run::new(plan(), crate::world::World::new("a"));
    run.run_until(run.world.now + seconds(2));
    run.world.primary.as_mut().unwrap().replicas = 0;
    run.settle();
    assert_eq!(run.held().unwrap(), "podinfo-primary.default not ready: no available pods");
    assert!(!run.effects.contains(&Effect::ScaleTarget(Scale::Zero)));
}

/// The status is gone in mid-analysis (restored without it, wiped by hand): what the primary serves stays.
fn wiped_status() -> Run {
    let mut run = release(plan());
    run.run_until(run.world.now + seconds(25));
    assert_eq!(run.state().phase, Phase::Progressing);
    run.world.status = CanaryStatus::default();
    run.apply(Event::Kill);
    run
}

#[test]
fn a_lost_status_brings_no_unanalysed_revision_into_a_serving_primary() {
    let mut run = wiped_status();
    run.world.bad.insert("b".into());
    run.settle();
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "a");
    assert_eq!(run.phases.last().unwrap().0, Phase::Failed);
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
}

#[test]
fn a_lost_status_does_not_stop_a_good_revision() {
    let mut run = wiped_status();
    run.settle();
    assert_eq!(run.world.primary.as_ref().unwrap().revision, "b");
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0));
}

#[test]
fn a_time_from_the_future_delays_nothing_for_longer_than_an_interval() {
    let mut run = release(plan());
    run.run_until(run.world.now + seconds(25));
    let weight = run.state().canary_weight;
    run.world.status.last_step_time = Some(run.world.now + seconds(86_400));
    run.apply(Event::Kill);
    let before = run.world.now;
    run.run_until(before + seconds(11));
    assert!(run.state().canary_weight > weight, "{:?}", run.state());
}

#[test]
fn repairs_that_rest_hold_up_no_check() {
    let mut run = release(plan());
    run.run_until(run.world.now + seconds(25));
    let mut seen = run.snapshot();
    seen.pending.services = true;
    assert!(matches!(decide(&run.plan, run.state(), &seen).effects[..], [Effect::Apply(_)]));
    seen.repairs_paused = true;
    seen.now += seconds(60);
    assert!(matches!(decide(&run.plan, run.state(), &seen).effects[..], [Effect::Ask(_)]));
}

/// A canary that comes and goes serves only while it is well; that earns it no step.
#[test]
fn a_canary_that_gets_its_weight_back_soaks_anew() {
    let mut run = release(plan());
    run.run_until(run.world.now + seconds(25));
    let weight = run.state().canary_weight;
    run.apply(Event::Crash(Side::Target));
    run.run_until(run.world.now + seconds(3));
    assert_eq!(run.world.routes, Some(Split::PRIMARY));
    run.apply(Event::Recover(Side::Target));
    run.run_until(run.world.now + seconds(1));
    let back = run.world.now;
    assert_eq!(run.world.routes, Some(Split::to_canary(weight)));
    run.run_until(back + seconds(8));
    assert_eq!(run.state().canary_weight, weight, "an interval has not passed since");
}
