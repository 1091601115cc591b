//! Statuses that Flagger wrote: each phase goes on from where Flagger left it, and nothing is started by the change of the
//! controller.

use aviary_crds::status::{CanaryStatus, Phase};
use aviary_crds::validated::WebhookType;
use aviary_rollout::{
    AbTesting, BlueGreen, Effect, Plan, Question, Scale, Sessions, Split, State, Strategy, Weighted, Weights,
};

use crate::driver::{Event, Run, plan, with_hooks};
use crate::scenarios::{self, revision, stepped_plan};
use crate::world::{Metrics, Side, World, seconds};

const PROMOTED: &str = "aviary-1:a";
const NEW: &str = "aviary-1:b";
const CONFIRM: WebhookType = WebhookType::ConfirmPromotion;

fn mirrored() -> Split {
    Split { mirrored: true, ..Split::PRIMARY }
}

/// A run in flight as Flagger leaves it: the new revision in the target, its hashes, its conditions, none of our fields.
struct Left {
    phase: &'static str,
    weight: i64,
    iterations: i64,
    failed_checks: i64,
    routes: Split,
    /// What the primary runs.
    primary: &'static str,
    scaled_to_zero: bool,
}

impl Left {
    fn in_phase(phase: &'static str, weight: i64, routes: Split) -> Left {
        Left { phase, weight, iterations: 0, failed_checks: 0, routes, primary: PROMOTED, scaled_to_zero: false }
    }

    /// Before anything is decided.
    fn found(self, plan: Plan) -> Run {
        let mut run = Run::new(plan, World::new(PROMOTED));
        run.settle();
        run.apply(revision(NEW));
        if !self.scaled_to_zero {
            run.world.scale(Scale::Up).unwrap();
            run.apply(Event::Recover(Side::Target));
        }
        self.primary.clone_into(&mut run.world.primary.as_mut().unwrap().revision);
        run.world.routes = Some(self.routes);
        run.world.now += seconds(1);
        let condition = serde_json::json!({
            "type": "Promoted", "status": "Unknown", "reason": self.phase, "message": "of Flagger",
            "lastUpdateTime": run.world.now, "lastTransitionTime": run.world.now,
        });
        run.world.status = serde_json::from_value(serde_json::json!({
            "phase": self.phase, "canaryWeight": self.weight, "failedChecks": self.failed_checks,
            "iterations": self.iterations, "lastAppliedSpec": "5f56684589", "lastPromotedSpec": "4cb74184589",
            "trackedConfigs": {"configmap/app": "1"}, "lastTransitionTime": run.world.now,
            "conditions": [condition],
        }))
        .unwrap();
        run.forget();
        run.apply(Event::Kill);
        run
    }

    /// Taken over, with all that follows at once.
    fn taken_over(self, plan: Plan) -> Run {
        let mut run = self.found(plan);
        run.run_until(run.world.now + seconds(1));
        run
    }

    /// Told and routed until the end, which is a good one.
    fn finished(self, plan: Plan) -> (Vec<String>, Vec<Split>) {
        let mut run = self.found(plan);
        run.settle();
        assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0), "{:?}", run.events);
        assert_eq!(run.world.primary.as_ref().unwrap().revision, NEW);
        assert_eq!(run.world.routes, Some(Split::PRIMARY));
        assert_eq!(run.state().last_promoted, NEW);
        let splits = run.effects.iter().filter_map(|effect| match effect {
            Effect::SetTraffic(split) => Some(*split),
            _ => None,
        });
        (run.events, splits.collect())
    }
}

fn blue_green() -> Plan {
    Plan { strategy: Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: false, switches: true }), ..plan() }
}

fn ab_testing() -> Plan {
    Plan { strategy: Strategy::AbTesting(AbTesting { iterations: 3 }), ..plan() }
}

/// A closed gate stays closed: nothing is told, moved or copied. Then it opens.
fn waits_for_the_gate(left: Left, plan: Plan) {
    let routes = left.routes;
    let mut run = left.found(with_hooks(plan, &[CONFIRM]));
    run.apply(Event::Refuse(CONFIRM, true));
    run.run_until(run.world.now + seconds(60));
    assert_eq!(run.events, Vec::<String>::new());
    assert_eq!((run.state().phase, run.world.routes), (Phase::WaitingPromotion, Some(routes)));
    assert!(run.calls.contains(&CONFIRM), "it is asked again");
    run.apply(Event::Refuse(CONFIRM, false));
    run.run_until(run.world.now + seconds(600));
    assert_eq!(run.ending().phase, Phase::Succeeded, "{:?}", run.events);
    assert_eq!(run.world.primary.unwrap().revision, NEW);
}

fn flagger_status(phase: &str) -> CanaryStatus {
    serde_json::from_value(serde_json::json!({
        "phase": phase, "canaryWeight": 0, "failedChecks": 0, "iterations": 0,
        "lastAppliedSpec": "5f56684589", "lastPromotedSpec": "4cb74184589",
        "trackedConfigs": {"configmap/app": "1"}, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

/// Between two runs, with a target that was edited since or not.
fn between_runs(phase: &str, edited: bool) -> Run {
    let mut run = Run::new(plan(), World::new(PROMOTED));
    run.settle();
    run.world.status = flagger_status(phase);
    if edited {
        run.apply(revision(NEW));
    }
    run.forget();
    run.apply(Event::Kill);
    run.settle();
    run
}

#[test]
fn nothing_is_started_between_two_runs() {
    for phase in ["Initialized", "Succeeded", "Failed"] {
        let run = between_runs(phase, false);
        assert_eq!(run.events, Vec::<String>::new(), "{phase}");
        assert_eq!(run.state().phase.to_string(), phase);
        assert_eq!((run.state().last_applied.as_str(), run.state().last_promoted.as_str()), (PROMOTED, PROMOTED));
        let others = run.effects.iter().filter(|effect| !matches!(effect, Effect::WriteStatus)).count();
        assert_eq!(others, 0, "{phase}: {:?}", run.effects);
    }
}

#[test]
fn what_failed_under_flagger_is_not_tried_again() {
    let run = between_runs("Failed", true);
    assert_eq!((run.events.len(), run.ending().phase), (0, Phase::Failed));
}

#[test]
fn what_was_edited_while_no_controller_ran_is_released() {
    for phase in ["Initialized", "Succeeded"] {
        let run = between_runs(phase, true);
        assert_eq!(run.ending().phase, Phase::Succeeded);
        assert_eq!(run.world.primary.unwrap().revision, NEW);
    }
}

#[test]
fn a_release_that_waits_for_its_approval_goes_on_waiting() {
    let hooks = with_hooks(plan(), &[WebhookType::ConfirmRollout]);
    let left = || Left { scaled_to_zero: true, ..Left::in_phase("Waiting", 0, Split::PRIMARY) };
    let mut run = left().found(hooks.clone());
    run.apply(Event::Refuse(WebhookType::ConfirmRollout, true));
    run.run_until(run.world.now + seconds(60));
    assert_eq!((run.events.len(), run.state().phase), (0, Phase::Waiting));
    run.apply(Event::Refuse(WebhookType::ConfirmRollout, false));
    run.run_until(run.world.now + seconds(600));
    assert_eq!(run.events[1], "New revision detected! Scaling up podinfo.default");
    assert_eq!(run.ending().phase, Phase::Succeeded);

    // Taken back meanwhile.
    let mut run = left().found(hooks);
    run.apply(revision(PROMOTED));
    run.settle();
    assert_eq!((run.events.len(), run.ending().phase), (0, Phase::Succeeded));
}

#[test]
fn a_weighted_analysis_goes_on_from_its_routes() {
    // Flagger was stopped between the route and the status.
    let (events, splits) = Left::in_phase("Progressing", 10, Split::to_canary(20)).finished(plan());
    assert_eq!(events[0], "Advance podinfo.default canary weight 30");
    assert_eq!(splits, [30, 40, 50, 0].map(Split::to_canary));
    // Its steps were those of a list that is shorter now.
    let list = Plan { strategy: Strategy::weighted(Weights::List(vec![5, 40])), ..plan() };
    let (events, _) = Left::in_phase("Progressing", 20, Split::to_canary(20)).finished(list);
    assert_eq!(events[0], "Advance podinfo.default canary weight 40");
}

#[test]
fn an_analysis_that_has_just_begun_begins() {
    let (events, splits) = Left::in_phase("Progressing", 0, Split::PRIMARY).finished(plan());
    assert_eq!(events[0], "Starting canary analysis for podinfo.default");
    assert_eq!(splits.len(), 6);
}

#[test]
fn failed_checks_of_flagger_count() {
    let left = |failed_checks| Left { failed_checks, ..Left::in_phase("Progressing", 20, Split::to_canary(20)) };
    let mut run = left(2).found(plan());
    run.world.metrics = Metrics::Bad;
    run.settle();
    assert_eq!(run.ending().phase, Phase::Failed);
    assert!(run.events.contains(&"Rolling back podinfo.default failed checks threshold reached 3".to_owned()));
    // The last tick of Flagger counted the failure that is one too many.
    let run = left(3).taken_over(plan());
    assert_eq!((run.state().phase, run.world.routes), (Phase::Failed, Some(Split::PRIMARY)));
}

#[test]
fn the_interval_that_runs_is_waited_for() {
    let run = Left::in_phase("Progressing", 20, Split::to_canary(20)).taken_over(plan());
    assert_eq!(run.events, Vec::<String>::new());
    assert_eq!(run.world.routes, Some(Split::to_canary(20)));
}

/// Flagger's status says weight 0 and iteration -1 there, whatever the routes say (Q21).
#[test]
fn a_weighted_canary_that_waits_for_its_promotion_keeps_its_users() {
    let left = || Left { iterations: -1, ..Left::in_phase("WaitingPromotion", 0, Split::to_canary(50)) };
    waits_for_the_gate(left(), plan());
    let run = left().taken_over(with_hooks(plan(), &[CONFIRM]));
    assert_eq!((run.state().canary_weight, run.state().iterations), (50, 0));
    let copies = Strategy::Canary(Weighted { weights: Weights::Linear { step: 10, max: 50 }, mirror: true });
    waits_for_the_gate(left(), Plan { strategy: copies, ..plan() });
}

#[test]
fn copies_of_requests_are_counted_once() {
    let strategy = Strategy::Canary(Weighted { weights: Weights::Linear { step: 25, max: 50 }, mirror: true });
    let (events, splits) = Left::in_phase("Progressing", 0, mirrored()).finished(Plan { strategy, ..plan() });
    assert_eq!(events[0], "Advance podinfo.default canary weight 25");
    assert_eq!(splits, [25, 50, 0].map(Split::to_canary));
}

#[test]
fn an_ab_test_goes_on_with_its_next_iteration() {
    let left = Left { iterations: 2, ..Left::in_phase("Progressing", 0, Split::CANARY) };
    let (events, splits) = left.finished(ab_testing());
    assert_eq!(events[0], "Advance podinfo.default canary iteration 3/3");
    assert_eq!(splits, [Split::PRIMARY]);
}

#[test]
fn an_ab_test_that_waits_for_its_promotion_makes_no_more_iterations() {
    waits_for_the_gate(Left { iterations: 2, ..Left::in_phase("WaitingPromotion", 0, Split::CANARY) }, ab_testing());
}

#[test]
fn blue_green_goes_on_with_its_next_iteration() {
    let left = |routes| Left { iterations: 2, ..Left::in_phase("Progressing", 0, routes) };
    let (events, splits) = left(Split::PRIMARY).finished(blue_green());
    assert_eq!(events[0], "Advance podinfo.default canary iteration 3/3");
    assert_eq!(splits, [Split::CANARY, Split::PRIMARY]);

    let strategy = Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: true, switches: true });
    let (events, splits) = left(mirrored()).finished(Plan { strategy, ..plan() });
    assert_eq!(
        events[..2],
        ["Advance podinfo.default canary iteration 3/3", "Stop traffic mirroring and route all traffic to canary"]
    );
    assert_eq!(splits, [Split::CANARY, Split::PRIMARY]);
}

/// With everybody on the canary, Flagger has asked the gate already, and asks it once more (Q22).
#[test]
fn blue_green_with_everybody_on_the_canary_is_promoted_after_its_check() {
    for iterations in [3, 4] {
        let left = Left { iterations, ..Left::in_phase("Progressing", 0, Split::CANARY) };
        let mut run = left.found(with_hooks(blue_green(), &[CONFIRM]));
        run.settle();
        assert_eq!(run.events[0], "Copying podinfo.default template spec to podinfo-primary.default");
        assert_eq!((run.calls.len(), run.ending().phase), (0, Phase::Succeeded));
        let round = run.effects.iter().position(|effect| *effect == Effect::Ask(Question::Round)).unwrap();
        let copied = run.effects.iter().position(|effect| matches!(effect, Effect::Promote { .. })).unwrap();
        assert!(round < copied, "analysed with its users");
    }
}

#[test]
fn blue_green_that_waits_for_its_promotion_asks_its_gate() {
    let left = |routes| Left { iterations: 2, ..Left::in_phase("WaitingPromotion", 0, routes) };
    waits_for_the_gate(left(Split::PRIMARY), blue_green());
    // The gate has closed again between Flagger's two questions.
    waits_for_the_gate(left(Split::CANARY), blue_green());
}

/// Provider `kubernetes`: what is not routed cannot tell, so the count of iterations does.
#[test]
fn blue_green_without_routes_goes_on_from_its_iterations() {
    let strategy = Strategy::BlueGreen(BlueGreen { iterations: 3, mirror: false, switches: false });
    let plan = with_hooks(Plan { strategy, ..plan() }, &[CONFIRM]);
    let found = |left: Left| {
        let mut run = left.found(plan.clone());
        run.world.routed = false;
        run.world.routes = None;
        run.apply(Event::Kill);
        run
    };
    let mut run = found(Left { iterations: 2, ..Left::in_phase("Progressing", 0, Split::PRIMARY) });
    run.settle();
    assert_eq!(run.events[0], "Advance podinfo.default canary iteration 3/3");
    assert_eq!(run.ending().phase, Phase::Succeeded);
    // Flagger counts the gate's answer as one iteration more.
    for (phase, iterations) in [("WaitingPromotion", 2), ("Progressing", 4)] {
        let mut run = found(Left { iterations, ..Left::in_phase(phase, 0, Split::PRIMARY) });
        run.settle();
        assert_eq!(run.events[1], "Copying podinfo.default template spec to podinfo-primary.default", "{phase}");
        assert_eq!((run.calls.as_slice(), run.ending().phase), (&[CONFIRM][..], Phase::Succeeded));
    }
}

#[test]
fn a_promotion_is_finished() {
    let left = || Left { primary: NEW, ..Left::in_phase("Promoting", 50, Split::to_canary(50)) };
    let (events, splits) = left().finished(plan());
    assert_eq!(events, ["Routing all traffic to primary", "Promotion completed! Scaling down podinfo.default"]);
    assert_eq!(splits, [Split::PRIMARY]);
    // Flagger's status has no weight of these: users stay on the canary until the primary is ready.
    for plan in [blue_green(), ab_testing()] {
        let left = Left { primary: NEW, iterations: 4, ..Left::in_phase("Promoting", 0, Split::CANARY) };
        let (events, splits) = left.finished(plan);
        assert_eq!((events[0].as_str(), splits.as_slice()), ("Routing all traffic to primary", &[Split::PRIMARY][..]));
    }
}

#[test]
fn a_promotion_in_steps_goes_on_step_by_step() {
    // The status was not written after the last step back.
    let left = || Left { primary: NEW, ..Left::in_phase("Promoting", 100, Split::to_canary(50)) };
    let (events, splits) = left().finished(stepped_plan());
    assert_eq!(events[0], "Advance podinfo.default primary weight 100");
    assert_eq!(splits, [Split::PRIMARY]);
    // Flagger waits for ever there (Q4).
    let left = Left { primary: NEW, ..Left::in_phase("Promoting", 50, Split::PRIMARY) };
    left.finished(stepped_plan());
}

#[test]
fn a_copy_that_was_made_is_not_made_again() {
    let left = Left { primary: NEW, ..Left::in_phase("Progressing", 50, Split::to_canary(50)) };
    let mut run = left.found(plan());
    run.settle();
    assert_eq!(run.ending().phase, Phase::Succeeded);
    assert!(!run.effects.iter().any(|effect| matches!(effect, Effect::Promote { .. })), "{:?}", run.effects);
}

#[test]
fn a_promotion_that_is_complete_is_ended() {
    for scaled_to_zero in [false, true] {
        let left = Left { primary: NEW, scaled_to_zero, ..Left::in_phase("Finalising", 0, Split::PRIMARY) };
        let (events, splits) = left.finished(plan());
        assert_eq!(events, ["Promotion completed! Scaling down podinfo.default"]);
        assert_eq!(splits, []);
    }
}

#[test]
fn a_rollback_is_finished() {
    let left = Left { failed_checks: 3, scaled_to_zero: true, ..Left::in_phase("Progressing", 30, Split::PRIMARY) };
    let mut run = left.found(plan());
    run.settle();
    assert_eq!((run.ending().phase, run.world.routes), (Phase::Failed, Some(Split::PRIMARY)));
    assert_eq!(run.world.primary.unwrap().revision, PROMOTED);
}

/// Everybody is on the canary, since the primary cannot serve what was copied to it (Flagger 1.44).
#[test]
fn a_failed_promotion_is_left_as_it_is_and_mended_by_the_next_revision() {
    let left = Left { primary: NEW, ..Left::in_phase("Failed", 100, Split::CANARY) };
    let mut run = left.found(plan());
    run.apply(Event::Crash(Side::Primary));
    run.run_until(run.world.now + seconds(300));
    assert_eq!((run.events.len(), run.world.routes), (0, Some(Split::CANARY)));
    assert!(run.world.target.as_ref().unwrap().replicas > 0, "it serves");
    run.apply(revision("aviary-1:c"));
    run.settle();
    assert_eq!(run.phases.last().unwrap(), &(Phase::Succeeded, 0), "{:?}", run.events);
    assert_eq!(run.world.primary.unwrap().revision, "aviary-1:c");
}

#[test]
fn a_bootstrap_is_finished() {
    let mut run = Run::new(plan(), World::new(PROMOTED));
    run.run_until(run.world.now + seconds(2));
    assert_eq!((run.state().phase, run.world.primary.is_some()), (Phase::Initializing, true));
    run.world.status = serde_json::from_value(serde_json::json!({
        "phase": "Initializing", "canaryWeight": 0, "failedChecks": 0, "iterations": 0,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    run.forget();
    run.apply(Event::Kill);
    run.settle();
    assert_eq!(run.events.last().unwrap(), "Initialization done! podinfo.default");
    assert_eq!(run.ending().phase, Phase::Initialized);
}

/// Users hold it; another one would move them.
#[test]
fn a_cookie_of_flagger_stays_for_its_run() {
    let sessions = Sessions {
        canary_uid: "uid".into(),
        cookie_name: "canary-ck".into(),
        primary_cookie_name: Some("primary-ck".into()),
    };
    let plan = Plan { sessions: Some(sessions), ..plan() };
    let mut run = Left::in_phase("Progressing", 20, Split::to_canary(20)).found(plan);
    run.world.status.session_affinity_cookie = Some("canary-ck=AAAAAAAAAA".into());
    run.world.status.primary_session_affinity_cookie = Some("primary-ck=BBBBBBBBBB".into());
    run.apply(Event::Kill);
    run.run_until(run.world.now + seconds(15));
    assert_eq!(run.state().canary_weight, 30);
    assert_eq!(run.state().session_cookie.as_deref(), Some("canary-ck=AAAAAAAAAA"));
    assert_eq!(run.state().primary_session_cookie.as_deref(), Some("primary-ck=BBBBBBBBBB"));
    run.settle();
    assert_eq!(run.state().previous_session_cookie.as_deref(), Some("canary-ck=AAAAAAAAAA"));
}

#[test]
fn configs_that_changed_meanwhile_start_the_analysis_over() {
    let mut run = Left::in_phase("Progressing", 20, Split::to_canary(20)).found(plan());
    run.apply(Event::Configs("2".into()));
    run.settle();
    assert_eq!(run.events[0], "New revision detected! Restarting analysis for podinfo.default");
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

/// Flagger 0.1 tracks none, nor does one with `-enable-config-tracking=false`. A promotion that does not say which configs were
/// analysed copies nothing, and the run never ended.
#[test]
fn a_run_that_tracked_no_configs_is_promoted() {
    let mut run = Left::in_phase("Progressing", 20, Split::to_canary(20)).found(plan());
    run.world.status.tracked_configs = None;
    run.settle();
    assert!(run.state().tracked_configs.is_some());
    assert_eq!(run.ending().phase, Phase::Succeeded);
}

/// Under Flagger's CRD our own fields are pruned. The outage still reaches its limit.
#[test]
fn pruned_fields_do_not_stretch_an_outage() {
    let mut run = scenarios::weighted();
    run.world.metrics = Metrics::Outage;
    run.run_until(run.world.now + seconds(20));
    let mut status = run.world.status.clone();
    assert!(status.metrics_unavailable_since.is_some());
    (status.metrics_unavailable_since, status.last_step_time, status.observed_generation) = (None, None, None);
    let state = State::from_status(&status);
    assert_eq!(state.outage, run.state().outage);
    assert!(state.last_step.is_some());
}
