//! The embedded cluster in this process, in virtual time; each scenario has one of its own.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use aviary_sim::controllers::PodDetail;
use aviary_sim::traffic::TrafficOptions;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use kube::Client;

use super::host::{Headers, Host};
use super::{Kills, all, report, run_one};
use crate::support::{World, in_virtual_time};

/// Requests per second to every host. Many, so that the first check of each weight has values to judge by.
pub(super) const USERS: f64 = 200.0;
/// Requests per second of those whose way is looked at: all others are a trifle beside them.
pub(super) const WATCHED_USERS: f64 = 100_000.0;

#[test]
fn on_the_embedded_cluster() {
    run_each(None);
}

#[test]
fn on_the_embedded_cluster_with_kills() {
    run_each(Some(Kills));
}

fn run_each(kills: Option<Kills>) {
    let scenarios = all();
    let failures = scenarios.iter().filter_map(|scenario| {
        in_virtual_time(async {
            let traffic = TrafficOptions { default_load: USERS, ..TrafficOptions::default() };
            let mut world = World::with_traffic(1, PodDetail::Objects, traffic);
            world.start();
            let host = Embedded(RefCell::new(world));
            let failure = run_one(&host, scenario, kills).await;
            host.0.into_inner().stop().await;
            failure
        })
    });
    report("embedded", scenarios.len(), &failures.collect::<Vec<_>>());
}

pub struct Embedded(pub RefCell<World>);

impl Host for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn client(&self) -> Client {
        self.0.borrow().cluster.client("kubectl")
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn kill_and_start_operator(&self) -> LocalBoxFuture<'_, ()> {
        let mut world = self.0.borrow_mut();
        world.kill();
        world.start();
        std::future::ready(()).boxed_local()
    }

    fn pass(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed_local()
    }

    fn admit_users(&self, namespace: &str, host: &str, headers: &Headers) -> LocalBoxFuture<'_, ()> {
        if !headers.is_empty() {
            self.0.borrow().traffic.set_audience_load(namespace, host, headers, USERS);
        }
        std::future::ready(()).boxed_local()
    }

    fn has_lost_requests(&self, namespace: &str) -> Option<bool> {
        Some(self.0.borrow().traffic.report(namespace, "podinfo").failures() > 0.0)
    }

    fn answers_to(&self, namespace: &str, headers: &Headers) -> LocalBoxFuture<'_, BTreeSet<String>> {
        let (namespace, mut headers) = (namespace.to_owned(), headers.clone());
        // Users with exactly the same headers may be there already, and stay.
        headers.insert("x-watched".to_owned(), "yes".to_owned());
        async move {
            let traffic = self.0.borrow().traffic.clone();
            let before = traffic.report(&namespace, "podinfo");
            traffic.set_audience_load(&namespace, "podinfo", &headers, WATCHED_USERS);
            self.pass(Duration::from_secs(1)).await;
            traffic.set_audience_load(&namespace, "podinfo", &headers, 0.0);
            let after = traffic.report(&namespace, "podinfo");
            let answered =
                |name: &&String| after.workload(name).requests - before.workload(name).requests > WATCHED_USERS / 50.0;
            after.workloads.keys().filter(answered).cloned().collect()
        }
        .boxed_local()
    }
}
