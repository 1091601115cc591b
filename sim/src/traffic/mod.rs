//! The traffic model: users send requests, routes and pods decide where they end, and proxies count them.
//!
//! Requests flow at constant rates between two changes of the cluster, so counters are straight lines that are computed
//! when a query asks for them. Nothing is scraped and no timer runs: a service without changes costs nothing.
//!
//! - **Users**: every service that a Canary or a VirtualService names gets [`TrafficOptions::default_load`] requests per
//!   second of `GET /` through the ingress gateway, from the moment it first has a ready pod.
//! - **Routes**: the VirtualService of the host decides, first rule first; without one the service's own selector does.
//!   A share of the requests goes to the ready pods of each destination service, evenly. Destinations without a ready pod
//!   answer 503 (`UH`), requests without a route 404 (`NR`), as Envoy does.
//! - **Versions**: [`Behaviour`] rules by image, workload and namespace set error ratio and latency.
//! - **Metrics**: `istio_requests_total` and `istio_request_duration_milliseconds` with Istio's labels, as the proxies of
//!   workload (`reporter="destination"`) and gateway (`reporter="source"`) export them.

mod behaviour;
mod counter;
mod flow;
mod report;
mod route;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aviary_promql::{Matcher, Series, SeriesSource};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

pub use behaviour::{Behaviour, BehaviourMatch, Latency};
pub use report::{TrafficReport, WorkloadTotals};

use crate::clock::Clock;
use crate::controllers::Workloads;
use crate::store::{ChangeType, Store, StoreEvent};
use flow::Population;
use state::State;
use topology::{ServiceKey, Topology, WATCHED_KINDS};

/// Settings of the traffic model.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// Requests per second to every service that a Canary or VirtualService names.
    pub default_load: f64,
    /// How often the metrics are scraped.
    pub scrape_interval: Duration,
}

impl Default for TrafficOptions {
    /// 20 requests per second, so that a canary at 5 % gets a request per second and a check of one minute sees sixty;
    /// a scrape every 5 s, as the Prometheus that is bundled with Flagger.
    fn default() -> Self {
        Self { default_load: 20.0, scrape_interval: Duration::from_secs(5) }
    }
}

/// A handle to the traffic of the cluster.
#[derive(Clone)]
pub struct Traffic {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    followed: Mutex<Followed>,
}

/// The state and the changes that it has yet to follow, under one lock so that changes are applied in their order.
struct Followed {
    changes: UnboundedReceiver<StoreEvent>,
    state: State,
}

impl Traffic {
    /// Follows the changes of `store` from now on, in a task of its own. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(store: &Store, clock: Clock, options: &TrafficOptions) -> Self {
        Self::over(store, clock, options, Topology::default())
    }

    /// The same for a cluster whose pods are counted and are no objects
    /// ([`PodDetail::CountsOnly`](crate::controllers::PodDetail::CountsOnly)).
    #[must_use]
    pub fn of_counted_pods(store: &Store, clock: Clock, options: &TrafficOptions, pods: Arc<Workloads>) -> Self {
        Self::over(store, clock, options, Topology::counting(pods))
    }

    fn over(store: &Store, clock: Clock, options: &TrafficOptions, topology: Topology) -> Self {
        let changes = store.subscribe();
        let interval_ms = i64::try_from(options.scrape_interval.as_millis()).unwrap_or(i64::MAX);
        let mut state = State::new(topology, options.default_load, interval_ms);
        let now_ms = clock.now().as_millisecond();
        for kind in &WATCHED_KINDS {
            for object in store.list(kind, None) {
                let event = StoreEvent { change: ChangeType::Added, kind: kind.clone(), object, resource_version: 0 };
                let touched = state.topology.apply(&event);
                state.touch(now_ms, touched);
            }
        }
        let traffic = Self { inner: Arc::new(Inner { clock, followed: Mutex::new(Followed { changes, state }) }) };
        tokio::spawn(follow(Arc::clone(&traffic.inner)));
        traffic
    }

    /// Sets how the pods that match behave from now on; a part of an image's name will do as `pods`. The rule that was set
    /// last wins; setting a rule again replaces it.
    pub fn set_behaviour(&self, pods: impl Into<BehaviourMatch>, behaviour: Behaviour) {
        self.change(|state, now_ms| {
            state.behaviours.set(pods.into(), behaviour);
            state.recompute_all(now_ms);
        });
    }

    /// Withdraws a rule of [`Self::set_behaviour`].
    pub fn clear_behaviour(&self, pods: impl Into<BehaviourMatch>) {
        self.change(|state, now_ms| {
            state.behaviours.remove(&pods.into());
            state.recompute_all(now_ms);
        });
    }

    /// Sets the requests per second to a service, 0 for none. It need not be named by anything: load on
    /// `podinfo-canary` is what a load tester would send.
    pub fn set_load(&self, namespace: &str, host: &str, requests_per_second: f64) {
        let host = ServiceKey::new(namespace, host);
        self.change(|state, now_ms| {
            state.loads.entry(host.clone()).or_default().anonymous = Some(requests_per_second);
            state.recompute(now_ms, &host);
        });
    }

    /// Adds users who send these headers, for example the cookie of an A/B test. They come on top of
    /// [`Self::set_load`]; setting the same headers again replaces the rate.
    pub fn set_audience_load(
        &self,
        namespace: &str,
        host: &str,
        headers: &BTreeMap<String, String>,
        requests_per_second: f64,
    ) {
        let host = ServiceKey::new(namespace, host);
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        self.change(|state, now_ms| {
            let audiences = &mut state.loads.entry(host.clone()).or_default().audiences;
            audiences.retain(|audience| audience.headers != headers);
            audiences.push(Population { headers, requests_per_second });
            state.recompute(now_ms, &host);
        });
    }

    /// What the users of a host saw until now.
    #[must_use]
    pub fn report(&self, namespace: &str, host: &str) -> TrafficReport {
        let mut report = TrafficReport::default();
        self.change(|state, now_ms| report = state.report(now_ms, &ServiceKey::new(namespace, host)));
        report
    }

    /// The present time of the cluster in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.clock.now().as_millisecond()
    }

    /// Runs `act` on a state that has followed every change that was committed before the call.
    fn change(&self, act: impl FnOnce(&mut State, i64)) {
        let now_ms = self.now_ms();
        let mut followed = self.inner.followed.lock();
        while let Ok(event) = followed.changes.try_recv() {
            followed.apply(&event, now_ms);
        }
        act(&mut followed.state, now_ms);
    }
}

impl Followed {
    fn apply(&mut self, event: &StoreEvent, now_ms: i64) {
        let touched = self.state.topology.apply(event);
        self.state.touch(now_ms, touched);
    }
}

impl SeriesSource for Traffic {
    fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let mut series = Vec::new();
        self.change(|state, now_ms| series = state.streams.select(matchers, start_ms, end_ms.min(now_ms)));
        series
    }
}

/// Applies changes as they come, so that each has the time at which it happened; ends with the store.
async fn follow(inner: Arc<Inner>) {
    poll_fn(|context| {
        let mut followed = inner.followed.lock();
        loop {
            match followed.changes.poll_recv(context) {
                Poll::Ready(Some(event)) => followed.apply(&event, inner.clock.now().as_millisecond()),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
