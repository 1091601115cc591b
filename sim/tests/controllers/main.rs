//! The workload controllers on virtual time, written against the store alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod autoscalers;
mod availability;
mod daemon_sets;
mod endpoints;
mod fidelity;
mod history;
mod keda;
mod pods;
mod rollouts;
mod scheduling;
mod support;

use std::time::Duration;

use aviary_sim::clock::Clock;
use aviary_sim::controllers::{self, ControllerOptions};
use aviary_sim::store::{Store, kinds};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use support::{BOTH, Bench, NAMESPACE, autoscaler, daemon_set, deployment, is_complete};

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_stays_silent_for_a_day() {
    for detail in BOTH {
        let bench = Bench::new(detail);
        bench.create(deployment("podinfo", 3, "podinfo:1"));
        bench.create(deployment("zero", 0, "podinfo:1"));
        bench.store.create(&kinds::DAEMON_SET, daemon_set()).unwrap();
        bench.store.create(&kinds::HPA, autoscaler(1, 5)).unwrap();
        bench.until_complete("podinfo").await;
        bench.set_image("podinfo", "podinfo:2");
        bench.until_complete("podinfo").await;
        sleep(Duration::from_secs(60)).await;
        let before = bench.store.revision();
        let table = bench.workloads.subscribe();
        sleep(Duration::from_secs(24 * 3600)).await;
        assert_eq!(bench.store.revision(), before, "{detail:?}");
        assert!(!table.has_changed().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_keep_up_with_writers_on_other_threads() {
    for pods in BOTH {
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 7);
        let short = Duration::from_millis(1);
        let options =
            ControllerOptions { pods, start_delay: short, termination_delay: short, ..ControllerOptions::default() };
        let workloads = controllers::start(store.clone(), clock, options);
        let writers: Vec<_> = (0..20)
            .map(|index| {
                let store = store.clone();
                tokio::spawn(async move {
                    let name = format!("app-{index}");
                    store.create(&kinds::DEPLOYMENT, deployment(&name, 2, "app:0")).unwrap();
                    for version in 1..=20 {
                        let change = |object: &mut Value| {
                            object["spec"]["template"]["spec"]["containers"][0]["image"] =
                                format!("app:{version}").into();
                            object["spec"]["replicas"] = (version % 4).into();
                        };
                        store.update(&kinds::DEPLOYMENT, NAMESPACE, &name, change).unwrap();
                        tokio::task::yield_now().await;
                    }
                    store
                        .update(&kinds::DEPLOYMENT, NAMESPACE, &name, |object| object["spec"]["replicas"] = 3.into())
                        .unwrap();
                })
            })
            .collect();
        let mut events = store.subscribe();
        for writer in writers {
            writer.await.unwrap();
        }
        let all_complete = || store.list(&kinds::DEPLOYMENT, None).iter().all(|object| is_complete(object));
        let settled = async {
            while !all_complete() {
                events.recv().await.unwrap();
            }
        };
        timeout(Duration::from_secs(60), settled).await.expect("all rollouts end");
        for index in 0..20 {
            let versions = workloads.ready(NAMESPACE, &format!("app-{index}"));
            assert_eq!(
                versions.iter().map(|version| (&*version.image, version.ready)).collect::<Vec<_>>(),
                [("app:20", 3)]
            );
        }
    }
}
