//! Sides that are subsets of a user's routes, judged by a first value: what BirdWatch needs.

use std::time::Duration;

use aviary_crds::status::Phase;
use aviary_crds::v1alpha1::Dialect;
use aviary_crds::validated::{NoData, Rise};
use aviary_rollout::{
    Answer, Answers, Check, CheckKind, Effect, Limit, OnFailure, OutagePolicy, Pending, Plan, PrimaryView, Question,
    Readiness, RoundAnswer, Sample, SampleError, Scale, ServingSince, Snapshot, Split, State, Strategy, TargetView,
    Wake, Weights, decide, invariants,
};
use jiff::{SignedDuration, Timestamp};

use crate::driver::plan;

fn subset_plan() -> Plan {
    Plan {
        dialect: Dialect::BirdWatch,
        uses_subsets: true,
        target_kind: "DestinationRule".into(),
        strategy: Strategy::weighted(Weights::Linear { step: 10, max: 100 }),
        interval: Duration::from_secs(5),
        threshold: 1,
        checks: vec![check(NoData::Zero, false)],
        outage: OutagePolicy::Hold { limit: Duration::from_secs(10) },
        ..plan()
    }
}

fn check(no_data: NoData, compares_previous: bool) -> Check {
    let limit = Limit::Rise(Rise { deviation: 0.5, compares_previous, no_data });
    Check { name: "metric".into(), index: 0, kind: CheckKind::Query, limit, window: Duration::from_secs(60) }
}

fn empty() -> Sample {
    Err(SampleError::NoValues("no values found".into()))
}

fn outage() -> Sample {
    Err(SampleError::Unavailable("connection refused".into()))
}

/// What the query says at a weight of the canary.
type Metric = Box<dyn Fn(u32) -> Sample>;

/// Two versions behind two subsets, the routes, and a query.
struct World {
    plan: Plan,
    now: Timestamp,
    state: State,
    answers: Answers,
    wanted: String,
    /// Versions behind the subsets production and canary.
    production: String,
    canary: String,
    split: Split,
    canary_pods: u32,
    metric: Metric,
    /// Weights as they were set.
    weights: Vec<u32>,
    told: Vec<String>,
    alerts: Vec<String>,
    questions: usize,
    deleted: bool,
}

impl World {
    fn new(plan: Plan, metric: impl Fn(u32) -> Sample + 'static) -> World {
        World {
            plan,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            state: State::default(),
            answers: Answers::default(),
            wanted: "v04".into(),
            production: "v03".into(),
            canary: "v02".into(),
            split: Split::PRIMARY,
            canary_pods: 2,
            metric: Box::new(metric),
            weights: Vec::new(),
            told: Vec::new(),
            alerts: Vec::new(),
            questions: 0,
            deleted: false,
        }
    }

    fn seen(&self) -> Snapshot {
        let is_behind = self.canary == self.wanted;
        let waiting = || Readiness::Waiting { reason: "no pods".into(), deadline: None };
        Snapshot {
            now: self.now,
            deleting: false,
            has_finalizer: false,
            reverting: None,
            target: Ok(TargetView {
                revision: self.wanted.clone(),
                configs: None,
                scaled_to_zero: !is_behind,
                readiness: if self.canary_pods > 0 { Readiness::Ready } else { waiting() },
                available: if is_behind { self.canary_pods } else { 0 },
            }),
            primary: Some(PrimaryView {
                matches_target: self.production == self.wanted,
                readiness: Readiness::Ready,
                available: 2,
            }),
            pending: Pending::default(),
            scaler_paused: None,
            repairs_paused: false,
            routed_since: Timestamp::MIN,
            serving_since: ServingSince { primary: Some(Timestamp::MIN), canary: Some(Timestamp::MIN) },
            traffic: Some(Ok(self.split)),
            answers: self.answers.clone(),
            asking: None,
        }
    }

    /// Runs until nothing happens any more, at most so many seconds.
    fn run(&mut self, seconds: i64) {
        let end = self.now + SignedDuration::from_secs(seconds);
        for _ in 0..10_000 {
            let seen = self.seen();
            let decision = decide(&self.plan, &self.state, &seen);
            let broken = invariants::violations(&self.plan, &self.state, &seen, &decision);
            assert!(broken.is_empty(), "{broken:?}\nstate {:?}\nseen {seen:?}\ndecision {decision:?}", self.state);
            if decision.effects.is_empty() {
                match decision.wake {
                    Wake::At(at) if at <= end => self.now = at,
                    Wake::At(_) => {
                        self.now = end;
                        return;
                    }
                    Wake::OnChange => return,
                }
                continue;
            }
            for effect in decision.effects.clone() {
                self.execute(effect, &decision.next);
            }
            if self.deleted {
                return;
            }
        }
        panic!("no end: {:?}", self.state);
    }

    fn execute(&mut self, effect: Effect, next: &State) {
        match effect {
            Effect::SetTraffic(split) => {
                self.split = split;
                self.weights.push(split.canary);
            }
            Effect::ScaleTarget(Scale::Up) => {
                assert_eq!(self.split, Split::PRIMARY, "users would meet another version");
                self.canary.clone_from(&self.wanted);
            }
            Effect::Promote { .. } => self.production.clone_from(&self.wanted),
            Effect::Ask(Question::Providers) => {
                self.answers.providers = Some(Answer { at: self.now, value: Ok(()) });
            }
            Effect::Ask(Question::Round) => {
                self.questions += 1;
                let samples = vec![(self.metric)(self.split.canary)];
                let value = RoundAnswer { hooks: Vec::new(), samples };
                self.answers.round = Some(Answer { at: self.now, value });
            }
            Effect::Emit(message) => self.told.push(message.to_string()),
            Effect::Alert(notice) => self.alerts.push(notice.text),
            Effect::Count(_) => {}
            Effect::DeleteObject => self.deleted = true,
            Effect::WriteStatus => {
                self.state = next.clone();
                self.answers = Answers::default();
            }
            other => panic!("not for subsets: {other:?}"),
        }
    }

    fn has_told(&self, text: &str) -> bool {
        self.told.iter().any(|told| told.contains(text))
    }
}

#[test]
fn a_good_version_is_released_step_by_step() {
    let mut world = World::new(subset_plan(), |_| Ok(3.0));
    world.run(600);
    assert_eq!(world.weights, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 0]);
    assert_eq!((world.production.as_str(), world.canary.as_str(), world.split), ("v04", "v04", Split::PRIMARY));
    assert_eq!((world.state.phase, world.state.baseline), (Phase::Succeeded, Some(3.0)));
    let told = [
        "New canary version v04 detected for podinfo.default",
        "Baseline of podinfo.default is 3.00, taken at canary weight 0",
        "Releasing version v04 to subset production of podinfo.default",
        "Routing all traffic to production",
        "Canary podinfo.default version v04 released to production",
    ];
    for text in told {
        assert!(world.has_told(text), "{text}: {:?}", world.told);
    }
}

/// The otomator's own steps: one weight each interval, from the first one on.
#[test]
fn an_interval_passes_at_each_weight() {
    let mut world = World::new(subset_plan(), |_| Ok(0.0));
    world.run(12);
    assert_eq!(world.weights, [10, 20, 30], "at once, after 5 s and after 10 s");
}

#[test]
fn a_bad_version_loses_its_traffic() {
    let mut world = World::new(subset_plan(), |weight| Ok(if weight >= 30 { 0.6 } else { 0.0 }));
    world.run(600);
    assert_eq!(world.weights, [10, 20, 30, 0]);
    assert_eq!((world.state.phase, world.production.as_str()), (Phase::Failed, "v03"));
    assert!(world.has_told("Halt podinfo.default advancement metric 0.60 is more than 0.5 above baseline 0.00"));
    assert!(world.has_told("Canary podinfo.default is sick, all traffic is back on production"));
    assert_eq!(world.alerts.len(), 2, "{:?}", world.alerts);
}

#[test]
fn a_bad_version_that_is_frozen_keeps_its_share() {
    let plan = Plan { on_failure: OnFailure::Freeze, ..subset_plan() };
    let mut world = World::new(plan, |weight| Ok(if weight >= 30 { 0.6 } else { 0.0 }));
    world.run(600);
    assert_eq!((world.weights.clone(), world.split), (vec![10, 20, 30], Split::to_canary(30)));
    assert_eq!((world.state.phase, world.state.canary_weight), (Phase::Failed, 30));
    assert_eq!(
        world.alerts.last().map(String::as_str),
        Some("Canary podinfo.default is sick, frozen at canary weight 30")
    );
}

/// Somebody looks into it, and moves the weights by hand.
#[test]
fn what_is_frozen_is_left_to_people_and_not_to_dead_pods() {
    let plan = Plan { on_failure: OnFailure::Freeze, ..subset_plan() };
    let mut world = World::new(plan, |weight| Ok(f64::from(weight)));
    world.run(600);
    assert_eq!((world.state.phase, world.split), (Phase::Failed, Split::to_canary(10)));
    world.split = Split::to_canary(5);
    world.run(600);
    assert_eq!(world.split, Split::to_canary(5), "taken over");
    world.split = Split::to_canary(10);
    world.canary_pods = 0;
    world.run(600);
    assert_eq!((world.split, world.state.canary_weight), (Split::PRIMARY, 0));
    world.canary_pods = 2;
    world.run(600);
    assert_eq!(world.split, Split::PRIMARY, "what has failed gets nothing back");
}

/// The otomator raised the weight before it acted: a canary found sick in its last step was released.
#[test]
fn a_version_found_sick_at_full_weight_is_not_released() {
    for on_failure in [OnFailure::RollBack, OnFailure::Freeze] {
        let plan = Plan { on_failure, ..subset_plan() };
        let mut world = World::new(plan, |weight| Ok(if weight == 100 { 9.0 } else { 0.0 }));
        world.run(600);
        assert_eq!((world.state.phase, world.production.as_str()), (Phase::Failed, "v03"), "{on_failure:?}");
    }
}

/// Cut to a whole number, 0.5 would allow no rise at all.
#[test]
fn a_rise_of_a_fraction_is_compared_as_it_is() {
    for (rise, expected) in [(0.5, Phase::Succeeded), (0.51, Phase::Failed)] {
        let mut world = World::new(subset_plan(), move |weight| Ok(if weight > 0 { 1.0 + rise } else { 1.0 }));
        world.run(600);
        assert_eq!(world.state.phase, expected, "{rise}");
    }
}

#[test]
fn a_fall_is_no_harm() {
    let mut world = World::new(subset_plan(), |weight| Ok(100.0 - f64::from(weight)));
    world.run(600);
    assert_eq!(world.state.phase, Phase::Succeeded);
}

/// From 10 to 8.8 and back to 9.4 is below the baseline, and a rise by 0.6 from one round to the next.
#[test]
fn the_previous_value_counts_only_if_that_is_asked_for() {
    let metric = |weight| {
        Ok(match weight {
            0 => 10.0,
            10 => 8.8,
            _ => 9.4,
        })
    };
    let mut world = World::new(subset_plan(), metric);
    world.run(600);
    assert_eq!(world.state.phase, Phase::Succeeded);
    let plan = Plan { checks: vec![check(NoData::Zero, true)], ..subset_plan() };
    let mut world = World::new(plan, metric);
    world.run(600);
    assert_eq!((world.state.phase, world.weights), (Phase::Failed, vec![10, 20, 0]));
    assert!(world.told.iter().any(|told| told.contains("above the previous value 8.80")), "{:?}", world.told);
}

/// The otomator took no data for zero before the canary had traffic, so that the first real value looked like a rise.
#[test]
fn no_data_before_there_is_traffic_is_no_baseline() {
    let mut world = World::new(subset_plan(), |weight| if weight == 0 { empty() } else { Ok(120.0) });
    world.run(600);
    assert_eq!((world.state.phase, world.state.baseline), (Phase::Succeeded, Some(120.0)));
    assert!(world.has_told("Baseline of podinfo.default is 120.00, taken at canary weight 10"));
}

/// A query that counts errors has no series as long as there are none: the README's own example.
#[test]
fn a_version_without_errors_is_released_although_its_query_is_empty() {
    for nothing in [empty(), Ok(f64::NAN)] {
        let mut world = World::new(subset_plan(), move |_| nothing.clone());
        world.run(600);
        assert_eq!((world.state.phase, world.state.baseline), (Phase::Succeeded, Some(0.0)));
        assert!(world.has_told("Baseline of podinfo.default is 0.00: the metric has no data at canary weight 10"));
    }
}

#[test]
fn errors_that_begin_later_are_a_rise_from_nothing() {
    let mut world = World::new(subset_plan(), |weight| if weight < 40 { empty() } else { Ok(0.6) });
    world.run(600);
    assert_eq!((world.state.phase, world.weights), (Phase::Failed, vec![10, 20, 30, 40, 0]));
}

#[test]
fn a_version_waits_for_data_if_that_is_asked_for() {
    let plan = Plan { checks: vec![check(NoData::Wait, false)], ..subset_plan() };
    let mut world = World::new(plan, |_| empty());
    world.run(600);
    assert_eq!((world.state.phase, world.weights.as_slice()), (Phase::Progressing, [10].as_slice()));
    world.metric = Box::new(|_| Ok(4.0));
    world.run(600);
    assert_eq!((world.state.phase, world.state.baseline), (Phase::Succeeded, Some(4.0)));
}

/// The otomator died of it: weights stayed, and neither freeze nor rollback came.
#[test]
fn a_query_that_fails_holds_and_counts_as_unhealthy_after_a_while() {
    let mut world = World::new(subset_plan(), |weight| if weight == 20 { outage() } else { Ok(0.0) });
    world.run(16);
    assert_eq!((world.state.phase, world.split), (Phase::Progressing, Split::to_canary(20)), "two errors");
    world.run(600);
    assert_eq!((world.state.phase, world.weights.as_slice()), (Phase::Failed, [10, 20, 0].as_slice()));
}

#[test]
fn a_query_that_recovers_goes_on_after_an_interval() {
    let mut world = World::new(subset_plan(), |weight| if weight == 20 { outage() } else { Ok(0.0) });
    world.run(11);
    assert_eq!(world.split, Split::to_canary(20));
    world.metric = Box::new(|_| empty());
    world.run(600);
    assert_eq!(world.state.phase, Phase::Succeeded);
}

/// A query that Prometheus refuses is found before anybody meets the canary.
#[test]
fn nobody_meets_a_version_whose_query_is_wrong() {
    let mut world = World::new(subset_plan(), |_| Err(SampleError::Broken("parse error".into())));
    world.run(9);
    assert!(world.weights.is_empty() && world.has_told("parse error"), "{:?}", world.told);
    world.metric = Box::new(|_| Ok(0.0));
    world.run(600);
    assert_eq!(world.state.phase, Phase::Succeeded);
}

/// Killed anywhere, another process goes on from the status: the otomator began again.
#[test]
fn a_restart_goes_on_and_what_is_finished_stays_so() {
    let metric = |weight| Ok(if weight >= 30 { 0.6 } else { 0.0 });
    let plan = Plan { on_failure: OnFailure::Freeze, ..subset_plan() };
    let mut world = World::new(plan, metric);
    for _ in 0..100 {
        world.run(1);
        let stored = world.state.to_status(&aviary_crds::CanaryStatus::default(), "DestinationRule", Some(1));
        let stored = serde_json::from_value(serde_json::to_value(&stored).unwrap()).unwrap();
        world.state = State::from_status(&stored);
        world.answers = Answers::default();
    }
    assert_eq!((world.weights.clone(), world.state.phase), (vec![10, 20, 30], Phase::Failed));
    let questions = world.questions;
    world.run(600);
    assert_eq!(world.questions, questions, "it is over");
}

#[test]
fn only_another_version_starts_another_run() {
    let mut world = World::new(subset_plan(), |weight| Ok(f64::from(weight)));
    world.run(600);
    assert_eq!(world.state.phase, Phase::Failed);
    let told = world.told.len();
    // Any other edit.
    world.plan.interval = Duration::from_secs(7);
    world.run(600);
    assert_eq!((world.told.len(), world.split), (told, Split::PRIMARY));
    world.wanted = "v05".into();
    world.metric = Box::new(|_| Ok(1.0));
    world.run(600);
    assert_eq!((world.state.phase, world.production.as_str()), (Phase::Succeeded, "v05"));
    assert_eq!(world.state.baseline, Some(1.0), "taken anew");
}

#[test]
fn another_version_in_a_run_starts_over_and_never_has_the_users_of_the_former_one() {
    let mut world = World::new(subset_plan(), |_| Ok(0.0));
    world.run(12);
    assert_eq!(world.split, Split::to_canary(30));
    world.wanted = "v05".into();
    world.run(600);
    assert_eq!(world.weights[..6], [10, 20, 30, 0, 10, 20]);
    assert_eq!((world.state.phase, world.production.as_str()), (Phase::Succeeded, "v05"));
}

#[test]
fn a_frozen_version_loses_its_users_before_another_one_is_tried() {
    let plan = Plan { on_failure: OnFailure::Freeze, ..subset_plan() };
    let mut world = World::new(plan, |weight| Ok(f64::from(weight)));
    world.run(600);
    assert_eq!(world.split, Split::to_canary(10));
    world.wanted = "v05".into();
    world.metric = Box::new(|_| Ok(1.0));
    world.run(600);
    assert_eq!((world.state.phase, world.production.as_str()), (Phase::Succeeded, "v05"));
    assert_eq!(world.weights[..4], [10, 0, 10, 20]);
}

#[test]
fn a_version_that_is_in_production_already_needs_no_run() {
    let mut world = World::new(subset_plan(), |_| Ok(0.0));
    world.production = "v04".into();
    world.split = Split::to_canary(30);
    world.run(600);
    assert_eq!((world.state.phase, world.questions, world.split), (Phase::Initialized, 0, Split::to_canary(30)));
}

#[test]
fn a_version_without_pods_waits() {
    let mut world = World::new(subset_plan(), |_| Ok(0.0));
    world.canary_pods = 0;
    world.run(600);
    assert!(world.weights.is_empty() && world.state.phase == Phase::Progressing);
    assert_eq!(world.questions, 0, "there is nothing to ask about");
    world.canary_pods = 1;
    world.run(600);
    assert_eq!(world.state.phase, Phase::Succeeded);
}

#[test]
fn a_finished_object_stays_unless_it_is_to_be_deleted() {
    for deletes in [false, true] {
        let plan = Plan { deletes_on_success: deletes, ..subset_plan() };
        let mut world = World::new(plan, |_| Ok(0.0));
        world.run(600);
        assert_eq!((world.state.phase, world.deleted), (Phase::Succeeded, deletes));
    }
    let plan = Plan { deletes_on_success: true, ..subset_plan() };
    let mut world = World::new(plan, |weight| Ok(f64::from(weight)));
    world.run(600);
    assert!(world.state.phase == Phase::Failed && !world.deleted, "what has failed stays");
}
