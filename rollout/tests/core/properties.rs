//! Random plans and random worlds. The driver checks the invariants on every decision, that nothing unanalysed reaches
//! the primary, and that nothing loops; here is what must hold in the end.

use std::time::Duration;

use aviary_crds::status::{CanaryStatus, Phase};
use aviary_crds::validated::WebhookType;
use aviary_rollout::{
    AbTesting, BlueGreen, OutagePolicy, Plan, Split, Strategy as Traffic, Wake, Weighted, Weights, decide,
};
use proptest::prelude::*;

use crate::driver::{Event, Run, plan, with_hooks};
use crate::world::{Metrics, Side, World, seconds};

const HOOKS: [WebhookType; 7] = [
    WebhookType::ConfirmRollout,
    WebhookType::PreRollout,
    WebhookType::Rollout,
    WebhookType::ConfirmTrafficIncrease,
    WebhookType::ConfirmPromotion,
    WebhookType::PostRollout,
    WebhookType::Rollback,
];

fn plans() -> impl Strategy<Value = Plan> {
    let linear = (1..=100u32, 1..=100u32).prop_map(|(step, max)| Weights::Linear { step: step.max(5), max });
    let list = prop::collection::btree_set(1..=100u32, 1..5).prop_map(|set| Weights::List(set.into_iter().collect()));
    let weighted = (prop_oneof![linear, list], prop::bool::weighted(0.2))
        .prop_map(|(weights, mirror)| Traffic::Canary(Weighted { weights, mirror }));
    let ab_test = (1..5u32).prop_map(|iterations| Traffic::AbTesting(AbTesting { iterations }));
    let blue_green = (1..5u32, any::<bool>())
        .prop_map(|(iterations, mirror)| Traffic::BlueGreen(BlueGreen { iterations, mirror, switches: true }));
    let outage = prop_oneof![
        3 => (0..90u64).prop_map(|limit| OutagePolicy::Hold { limit: Duration::from_secs(limit) }),
        1 => Just(OutagePolicy::Fail),
    ];
    (
        prop_oneof![2 => weighted, 1 => ab_test, 1 => blue_green],
        prop::sample::select(vec![0, 0, 50, 30, 100]),
        1..4u32,
        prop::sample::select(vec![1, 10, 60]),
        prop::bool::weighted(0.1),
        prop::sample::subsequence(HOOKS.to_vec(), 0..=HOOKS.len()),
        outage,
    )
        .prop_map(|(strategy, back, threshold, interval, skip_analysis, hooks, outage)| {
            let plan = Plan {
                strategy,
                step_weight_promotion: back,
                threshold,
                interval: Duration::from_secs(interval),
                skip_analysis,
                outage,
                ..plan()
            };
            with_hooks(plan, &hooks)
        })
}

fn events() -> impl Strategy<Value = Event> {
    let side = || prop::sample::select(vec![Side::Target, Side::Primary]);
    let metrics = vec![Metrics::Truth, Metrics::Good, Metrics::Bad, Metrics::NoValues, Metrics::Outage];
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(|name| Event::Revision(name.into())),
        2 => prop::sample::select(vec!["1", "2", "3"]).prop_map(|version| Event::Configs(version.into())),
        2 => side().prop_map(Event::Crash),
        3 => side().prop_map(Event::Recover),
        2 => (0..=100u32).prop_map(Event::ForeignWeight),
        1 => any::<bool>().prop_map(Event::ForeignMirroring),
        1 => Just(Event::DeletePrimary),
        1 => Just(Event::DeleteRoutes),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => plans().prop_map(|plan| Event::Plan(Box::new(plan))),
        4 => prop::sample::select(metrics).prop_map(Event::Metrics),
        2 => (prop::sample::select(HOOKS.to_vec()), any::<bool>()).prop_map(|(kind, no)| Event::Refuse(kind, no)),
        3 => Just(Event::Kill),
    ]
}

/// Revisions that never become ready, by side.
fn broken() -> impl Strategy<Value = Vec<(bool, String)>> {
    let revision = prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned);
    prop::collection::vec((any::<bool>(), revision), 0..3)
}

/// The fault ends: everything becomes ready, metrics are good, gates are open, nobody else writes.
fn calm(run: &mut Run) {
    run.end_script();
    run.apply(Event::Suspend(false));
    run.apply(Event::Metrics(Metrics::Good));
    run.world.never_ready.clear();
    for kind in HOOKS {
        run.apply(Event::Refuse(kind, kind == WebhookType::Rollback));
    }
    // Without its primary, a canary waits for a revision that may become one.
    if run.world.primary.is_none() {
        let state = run.state();
        let wanted = match state.phase {
            Phase::Promoting | Phase::Finalising => (&state.last_applied, state.tracked_configs.clone()),
            _ => (&state.last_promoted, state.tracked_configs.clone()),
        };
        if !wanted.0.is_empty() {
            let version = wanted.1.and_then(|configs| configs.into_values().next());
            run.world.edit(Some(&wanted.0.clone()), version.as_deref());
        }
    }
    run.apply(Event::Recover(Side::Target));
    run.apply(Event::Recover(Side::Primary));
}

proptest! {
    // Two thousand take about five seconds. A failure prints its shortest form; it becomes a named test.
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_storm_the_cluster_is_in_order(
        plan in plans(),
        script in prop::collection::vec((0..40i64, events()), 0..14),
        broken in broken(),
        latency in prop::sample::select(vec![0, 0, 1, 7]),
        interrupt in prop::option::of(0..60usize),
    ) {
        let mut run = Run::new(plan, World::new("a"));
        run.latency = seconds(latency);
        run.world.never_ready.extend(broken);
        run.world.bad.insert("c".into());
        run.interrupt = interrupt.map(|count| (count, vec![Event::Kill]));
        let mut when = 0;
        for (pause, event) in script {
            when += pause;
            run = run.at(when, event);
        }
        run.run_until(run.world.now + seconds(600));
        calm(&mut run);
        run.settle();
        if run.held().is_some_and(|text| text.contains("delete and re-create the canary")) {
            // As the event says: the way out where it cannot be known which configs were promoted.
            prop_assert!(run.world.primary.is_none());
            run.world.status = CanaryStatus::default();
            run.apply(Event::Kill);
            run.settle();
        }

        let ending = run.ending();
        let state = run.state();
        prop_assert!(
            matches!(ending.phase, Phase::Initialized | Phase::Succeeded | Phase::Failed),
            "{ending:?}, held {:?}", run.held()
        );
        // All on the primary, unless a failed promotion left the canary serving.
        prop_assert_eq!(run.world.routes, Some(Split::to_canary(state.canary_weight)));
        let target = run.world.target.as_ref().unwrap();
        if state.canary_weight == 0 {
            prop_assert_eq!(target.replicas, 0, "{:?}", ending);
        } else {
            prop_assert_eq!((ending.phase, state.canary_weight), (Phase::Failed, 100));
        }
        let primary = run.world.primary.as_ref();
        if ending.phase != Phase::Failed {
            prop_assert_eq!(&state.last_promoted, &state.last_applied);
            prop_assert_eq!(Some(&state.last_promoted), primary.map(|primary| &primary.revision));
            prop_assert_eq!(&target.revision, &state.last_promoted);
        }
        prop_assert_eq!(state.outage, None);
        let decision = decide(&run.plan, state, &run.snapshot());
        prop_assert_eq!((decision.effects.len(), decision.wake, decision.hold), (0, Wake::OnChange, None));
    }
}
