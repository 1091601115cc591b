//! Every combination of what may be found, possible or not: there is a decision, and it breaks no invariant.

use aviary_crds::status::Phase;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{
    Answer, Answers, Decision, Effect, HookAnswer, Outage, Pending, Plan, PrimaryView, Readiness, RoundAnswer,
    SampleError, Scale, ServingSince, Snapshot, Split, State, TargetView, decide, invariants,
};
use jiff::Timestamp;

use crate::driver::{plan, with_hooks};
use crate::scenarios::{ALL_HOOKS, ab_plan, blue_green_plan, mirrored_plan, stepped_plan};
use crate::world::{configs, seconds};

fn readinesses(now: Timestamp) -> [(Readiness, u32); 7] {
    let waiting = Readiness::Waiting { reason: "waiting".into(), deadline: Some(now) };
    let failed = Readiness::Failed { reason: "failed".into() };
    [
        (Readiness::Ready, 2),
        (Readiness::Ready, 0),
        (waiting.clone(), 1),
        (waiting, 0),
        (failed.clone(), 1),
        (failed, 0),
        // Scaled to zero, its pods not yet gone.
        (Readiness::Ready, 1),
    ]
}

fn targets(now: Timestamp) -> Vec<Result<TargetView, String>> {
    let mut targets = vec![Err("missing".to_owned())];
    // Revision, configs, and which readinesses: all of them for the revision of the run.
    let contents = [("applied", "1", 0..7), ("applied", "2", 0..2), ("promoted", "1", 0..4), ("new", "2", 3..7)];
    for (revision, version, which) in contents {
        for (position, (readiness, available)) in readinesses(now).into_iter().enumerate() {
            if !which.contains(&position) {
                continue;
            }
            targets.push(Ok(TargetView {
                revision: revision.into(),
                configs: Some(configs(version)),
                scaled_to_zero: position == 6 || (position == 1 && version == "2"),
                readiness,
                available,
            }));
        }
    }
    targets
}

fn primaries(now: Timestamp) -> Vec<Option<PrimaryView>> {
    let mut primaries = vec![None];
    for (readiness, available) in readinesses(now).into_iter().take(6) {
        for matches_target in [true, false] {
            primaries.push(Some(PrimaryView { matches_target, readiness: readiness.clone(), available }));
        }
    }
    primaries
}

fn answers(now: Timestamp) -> Vec<Answers> {
    let hooks = |result: Result<(), String>, at| {
        let answer =
            |kind| (kind, Answer { at, value: vec![HookAnswer { name: "hook".into(), result: result.clone() }] });
        ALL_HOOKS.into_iter().chain([WebhookType::Rollback]).map(answer).collect()
    };
    let round = |sample, at| Some(Answer { at, value: RoundAnswer { hooks: Vec::new(), samples: vec![sample] } });
    let down = || Err(SampleError::Unavailable("down".into()));
    let no = || Err("no".to_owned());
    let before = now - seconds(10);
    vec![
        Answers::default(),
        Answers { round: round(Ok(100.0), now), hooks: hooks(no(), now), ..Answers::default() },
        Answers {
            round: round(Ok(100.0), now),
            hooks: hooks(Ok(()), now),
            workloads: Some(Answer { at: now, value: () }),
            ..Answers::default()
        },
        Answers { round: round(Ok(1.0), now), hooks: hooks(no(), before), ..Answers::default() },
        Answers { round: round(down(), before), hooks: hooks(no(), before), ..Answers::default() },
    ]
}

fn states(phase: Phase, now: Timestamp) -> Vec<State> {
    let mut states = Vec::new();
    for canary_weight in [0, 10, 100] {
        for last_step in [None, Some(now - seconds(20))] {
            for failed_checks in [0, 3] {
                states.push(State {
                    phase,
                    canary_weight,
                    failed_checks,
                    last_step,
                    last_applied: "applied".into(),
                    last_promoted: "promoted".into(),
                    tracked_configs: Some(configs("1")),
                    outage: last_step.map(|since| Outage { since, answered_since: None }),
                    ..State::default()
                });
            }
        }
    }
    states
}

fn plans() -> [Plan; 5] {
    let skip = Plan { skip_analysis: true, ..plan() };
    let hooks: Vec<_> = ALL_HOOKS.into_iter().chain([WebhookType::Rollback]).collect();
    let [ab_test, blue_green] = [ab_plan(), blue_green_plan(true)].map(|plan| with_hooks(plan, &hooks));
    [mirrored_plan(), with_hooks(stepped_plan(), &hooks), skip, ab_test, blue_green]
}

/// Whether users of pods that serve them are led to the others.
fn leads_users_away(seen: &Snapshot, decision: &Decision) -> bool {
    let Some(Ok(found)) = &seen.traffic else { return false };
    let primary_serves = seen.primary.as_ref().is_some_and(|primary| primary.available > 0);
    let target_serves = seen.target.as_ref().is_ok_and(|target| target.available > 0);
    decision.effects.iter().any(|effect| match effect {
        Effect::SetTraffic(split) => {
            (split.primary > found.primary && target_serves) || (split.canary > found.canary && primary_serves)
        }
        _ => false,
    })
}

fn walk(phases: &[Phase]) {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let splits = [0, 10, 30, 100].map(|weight| Some(Ok(Split::to_canary(weight))));
    let mut traffics = splits.to_vec();
    traffics.push(Some(Ok(Split { mirrored: true, ..Split::PRIMARY })));
    traffics.extend([None, Some(Err("unreadable".to_owned()))]);
    let mut seen = Snapshot {
        now,
        deleting: false,
        has_finalizer: false,
        reverting: None,
        target: Err(String::new()),
        primary: None,
        pending: Pending::default(),
        scaler_paused: None,
        repairs_paused: false,
        routed_since: now,
        serving_since: ServingSince::default(),
        traffic: None,
        answers: Answers::default(),
        asking: None,
    };
    let (targets, primaries, answers, plans) = (targets(now), primaries(now), answers(now), plans());
    for state in phases.iter().flat_map(|phase| states(*phase, now)) {
        for target in &targets {
            seen.target.clone_from(target);
            for primary in &primaries {
                seen.primary.clone_from(primary);
                for traffic in &traffics {
                    seen.traffic.clone_from(traffic);
                    // Broken routes are mended before any answer is looked at.
                    for (answers, routes) in answers.iter().map(|answers| (answers, false)).chain([(&answers[0], true)])
                    {
                        seen.answers.clone_from(answers);
                        seen.pending.routes = routes;
                        // An autoscaler that keeps itself to its state, or against what the run needs.
                        for (index, (plan, settled)) in
                            plans.iter().flat_map(|plan| [(plan, true), (plan, false)]).enumerate()
                        {
                            seen.scaler_paused = [None, Some(true), Some(false)][index % 3];
                            let since = if settled { now - seconds(10) } else { now };
                            seen.routed_since = since;
                            seen.serving_since = ServingSince { primary: Some(since), canary: Some(since) };
                            let decision = decide(plan, &state, &seen);
                            let broken = invariants::violations(plan, &state, &seen, &decision);
                            assert!(broken.is_empty(), "{broken:?}\n{state:?}\n{seen:?}\n{decision:?}");
                            let takes_pods_away = decision.effects.iter().any(|effect| {
                                matches!(effect, Effect::ScaleTarget(Scale::Zero) | Effect::PauseScaler(true))
                            });
                            assert!(settled || !takes_pods_away, "{state:?}\n{seen:?}\n{decision:?}");
                            assert!(
                                settled || !leads_users_away(&seen, &decision),
                                "{state:?}\n{seen:?}\n{decision:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn steady_phases() {
    walk(&[Phase::Uninitialized, Phase::Initialized, Phase::Failed, Phase::Terminating]);
}

#[test]
fn bootstrap_and_waiting() {
    walk(&[Phase::Initializing, Phase::Waiting]);
}

#[test]
fn analysis() {
    walk(&[Phase::Progressing, Phase::WaitingPromotion]);
}

#[test]
fn promotion() {
    walk(&[Phase::Promoting, Phase::Finalising, Phase::Succeeded]);
}
