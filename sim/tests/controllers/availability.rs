//! Deployments whose size and template change together or in quick succession: nobody who serves is taken away for a count
//! that is out of date.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::{ChangeType, StoreEvent, kinds};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::support::*;

/// Pods that serve, and how few may, seen from the events of a namespace with one Deployment.
#[derive(Default)]
struct Watch {
    serving: BTreeMap<String, bool>,
    least: i64,
    violations: Vec<String>,
}

impl Watch {
    fn see(&mut self, event: &StoreEvent) {
        let object = event.object();
        if event.kind == kinds::DEPLOYMENT {
            self.least = least_available(object);
            return;
        }
        if event.kind != kinds::POD {
            return;
        }
        let count = |serving: &BTreeMap<String, bool>| serving.values().filter(|serves| **serves).count() as i64;
        let before = count(&self.serving);
        self.serving.insert(pod_name(object), event.change != ChangeType::Deleted && is_ready(object));
        let after = count(&self.serving);
        if after < before && after < self.least {
            self.violations.push(format!("{before} -> {after} where {} must serve", self.least));
        }
    }

    fn drain(&mut self, events: &mut UnboundedReceiver<StoreEvent>) {
        while let Ok(event) = events.try_recv() {
            self.see(&event);
        }
    }
}

/// Desired replicas less `maxUnavailable`, as `ResolveFenceposts` of Kubernetes reckons it.
fn least_available(deployment: &Value) -> i64 {
    let replicas = deployment["spec"]["replicas"].as_i64().unwrap();
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let part = |amount: &Value, up: i64| match amount {
        Value::String(text) => (text.trim_end_matches('%').parse::<i64>().unwrap() * replicas + up) / 100,
        amount => amount.as_i64().unwrap(),
    };
    let unavailable = match (part(&rolling["maxSurge"], 99), part(&rolling["maxUnavailable"], 0)) {
        (0, 0) => 1,
        (_, unavailable) => unavailable,
    };
    replicas - unavailable
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_shrinks_with_a_new_template_goes_on_serving() {
    for (before, after) in [(8, 4), (3, 2)] {
        let bench = Bench::new(PodDetail::Objects);
        bench.create(deployment("podinfo", before, "podinfo:1"));
        bench.until_complete("podinfo").await;
        let mut events = bench.store.subscribe();
        let mut watch = Watch::default();
        watch.serving.extend(bench.pods().iter().map(|pod| (pod_name(pod), true)));
        bench.change("podinfo", |object| {
            object["spec"]["replicas"] = after.into();
            object["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:2".into();
        });
        bench.until_complete("podinfo").await;
        watch.drain(&mut events);
        assert_eq!(watch.violations, Vec::<String>::new(), "{before} to {after}");
        assert_eq!(bench.images("podinfo"), [("podinfo:2".to_owned(), u32::try_from(after).unwrap())]);
    }
}

#[tokio::test(start_paused = true)]
async fn counted_pods_shrink_with_a_new_template_as_stored_ones_do() {
    let mut histories = Vec::new();
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 8, "podinfo:1"));
        bench.until_complete("podinfo").await;
        bench.at(10.0).await;
        let mut events = bench.store.subscribe();
        bench.change("podinfo", |object| {
            object["spec"]["replicas"] = 4.into();
            object["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:2".into();
        });
        bench.until_complete("podinfo").await;
        let states = states(&mut events);
        assert!(states.iter().all(|state| number(state, "availableReplicas") >= 3), "{detail:?}");
        histories.push((bench.elapsed().round(), states.last().unwrap()["status"].clone()));
    }
    assert_eq!(histories[0], histories[1]);
}

/// Another image, another size or both, and milliseconds until the next edit.
type Edit = (Option<u8>, Option<i64>, u64);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = (proptest::option::of(0_u8..3), proptest::option::of(1_i64..10), 0_u64..7_000);
    proptest::collection::vec(edit, 1..7)
}

fn amount() -> impl Strategy<Value = Value> {
    prop_oneof![(0_i64..4).prop_map(|count| json!(count)), (0_i64..5).prop_map(|part| json!(format!("{}%", part * 25)))]
}

async fn violations(surge: &Value, unavailable: &Value, edits: &[Edit]) -> Vec<String> {
    let bench = Bench::new(PodDetail::Objects);
    let mut events = bench.store.subscribe();
    let mut object = deployment("podinfo", 5, "podinfo:0");
    object["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    bench.create(object);
    bench.until_complete("podinfo").await;
    for (image, replicas, pause) in edits {
        // A rollout under way that is made smaller keeps the proportions of its sets, and what rounding leaves over is taken from
        // the largest one, whoever serves: so it is in Kubernetes.
        if replicas.is_some_and(|replicas| replicas < bench.deployment("podinfo")["spec"]["replicas"].as_i64().unwrap())
        {
            bench.until_complete("podinfo").await;
        }
        bench.change("podinfo", |object| {
            if let Some(image) = image {
                object["spec"]["template"]["spec"]["containers"][0]["image"] = format!("podinfo:{image}").into();
            }
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = (*replicas).into();
            }
        });
        sleep(Duration::from_millis(*pause)).await;
    }
    bench.until_complete("podinfo").await;
    let mut watch = Watch::default();
    watch.drain(&mut events);
    watch.violations
}

proptest! {
    // A case takes some tens of milliseconds.
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_takes_a_serving_pod_that_is_needed(surge in amount(), unavailable in amount(), edits in edits()) {
        let is_zero = |amount: &Value| *amount == json!(0) || *amount == json!("0%");
        prop_assume!(!(is_zero(&surge) && is_zero(&unavailable)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let violations = runtime.block_on(violations(&surge, &unavailable, &edits));
        prop_assert!(violations.is_empty(), "{violations:?}");
    }
}
