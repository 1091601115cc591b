//! The traffic model: users send requests, routes and pods decide where they end, and proxies count them.
//!
//! Requests flow at constant rates between two changes of the cluster, so counters are straight lines that are computed
//! when a query asks for them. Nothing is scraped and no timer runs: a service without changes costs nothing.
//!
//! - **Users**: every service that a Canary or a VirtualService names gets [`TrafficOptions::default_load`] requests per
//!   second of `GET /` through the ingress gateway, from the moment it first has a ready pod.
//! - **Routes**: the VirtualService of the host decides, first rule first, over to another one where a rule delegates;
//!   without one the service's own selector does. A destination may be a subset, of which a DestinationRule says the labels. A share of the requests goes to the ready pods of each destination
//!   service, evenly. Destinations without a ready pod answer 503 (`UH`), requests without a route 404 (`NR`), as Envoy does.
//!   A TrafficSplit does the same for its service; what it leads to is a cluster of an Envoy in that namespace.
//! - **Lag**: a mesh takes a while to hear of a change ([`TrafficOptions::route_lag`], [`TrafficOptions::endpoint_lag`]). A
//!   pod that is gone refuses connections in the meantime; the gateway tries another pod of the same destination, as often
//!   as the route's `retries` say, and then answers 503 (`UF,URX`).
//! - **Versions**: [`Behaviour`] rules by image, workload and namespace set error ratio and latency.
//! - **Time**: behaviours and loads can change at a moment to come ([`Traffic::set_behaviour_at`], [`Traffic::set_load_at`]).
//! - **Metrics**: `istio_requests_total` and `istio_request_duration_milliseconds` with Istio's labels, as the proxies of
//!   workload (`reporter="destination"`) and gateway (`reporter="source"`) export them, and podinfo's own
//!   `http_requests_total` and `http_request_duration_seconds`; for the backends of TrafficSplits
//!   `envoy_cluster_upstream_rq` and `envoy_cluster_upstream_rq_time`, too. Series of pods end, with a stale marker, with the last pod
//!   of their version.
//!
//! What differs from a real mesh: the pods of a version are one target, not one each. An answer of the application is never
//! sent again, whatever `retryOn` says. Timeouts, fault injection and header rewrites of routes have no effect.

mod behaviour;
mod change;
mod counter;
mod flow;
mod report;
mod route;
mod series;
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

use aviary_promql::{Matcher, RangeBoundary, Series, SeriesSource};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

pub use behaviour::{Behaviour, BehaviourMatch, Latency};
pub use report::{TrafficReport, WorkloadTotals};
use series::NAMES;

use crate::clock::Clock;
use crate::controllers::{Utilisation, Workloads};
use crate::store::{Store, StoreEvent};
use change::{Change, Pod, Reader, WATCHED_KINDS};
use flow::Population;
use state::State;
use streams::Streams;
use topology::ServiceKey;

/// Settings of the traffic model.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// Requests per second to every service that a Canary or VirtualService names.
    pub default_load: f64,
    /// How often the metrics are scraped.
    pub scrape_interval: Duration,
    /// How long past requests are remembered, which is as far as a query can look back.
    pub history: Duration,
    /// From the write of a route until the proxies follow it. A mesh with Istio's defaults takes some 110 ms, of which
    /// 100 ms are the time it waits for more changes (`PILOT_DEBOUNCE_AFTER`); 25 ms where that is 10 ms.
    pub route_lag: Duration,
    /// From the moment at which a pod becomes ready, or is told to end, until the proxies know. Of the same order as
    /// [`Self::route_lag`], because the same push tells of it.
    pub endpoint_lag: Duration,
    /// How long a pod goes on answering after it was told to end. Zero, the worst case, is a server that closes its
    /// listener on SIGTERM; Istio's sidecar drains for 5 s.
    pub drain: Duration,
}

impl Default for TrafficOptions {
    /// 20 requests per second, so that a canary at 5 % gets a request per second and a check of one minute sees sixty;
    /// a scrape every 5 s, as the Prometheus that is bundled with Flagger; an hour, because no built-in check looks further
    /// back than its interval and a cluster that runs for days is to stay small; a mesh that knows of every change at once.
    fn default() -> Self {
        Self {
            default_load: 20.0,
            scrape_interval: Duration::from_secs(5),
            history: Duration::from_secs(3600),
            route_lag: Duration::ZERO,
            endpoint_lag: Duration::ZERO,
            drain: Duration::ZERO,
        }
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
    /// Something was put off. Only [`Traffic::report_load_to`] waits for it.
    put_off: Notify,
}

/// The state and the changes that it has yet to follow, under one lock so that changes are applied in their order.
struct Followed {
    changes: UnboundedReceiver<StoreEvent>,
    reader: Reader,
    lags: Lags,
    /// What takes effect later, by the time at which it does, in milliseconds, and the order in which it came. Nothing waits
    /// for that time: whoever looks at the state next brings it up to date.
    pending: BTreeMap<(i64, u64), Effect>,
    sequence: u64,
    state: State,
}

/// Milliseconds from a change until it takes effect.
#[derive(Clone, Copy, Debug)]
struct Lags {
    route: i64,
    endpoint: i64,
    drain: i64,
}

/// Users that [`Traffic::add_load`] added.
#[derive(Debug)]
#[must_use = "they stay until they are removed"]
pub struct AddedLoad {
    host: ServiceKey,
    number: u64,
}

/// Something that takes effect at a moment.
enum Effect {
    /// The proxies learn of a change.
    Known(Change),
    /// Pods begin or cease to answer, whatever the proxies know.
    Answering {
        name: ServiceKey,
        pod: Option<Pod>,
    },
    Behaviour {
        pods: BehaviourMatch,
        behaviour: Option<Behaviour>,
    },
    Load {
        host: ServiceKey,
        requests_per_second: f64,
    },
}

impl Traffic {
    /// Follows the changes of `store` from now on, in a task of its own. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(store: &Store, clock: Clock, options: &TrafficOptions) -> Self {
        Self::over(store, clock, options, Reader::default())
    }

    /// The same for a cluster whose pods are counted and are no objects
    /// ([`PodDetail::CountsOnly`](crate::controllers::PodDetail::CountsOnly)).
    #[must_use]
    pub fn of_counted_pods(store: &Store, clock: Clock, options: &TrafficOptions, pods: Arc<Workloads>) -> Self {
        Self::over(store, clock, options, Reader::counting(pods))
    }

    fn over(store: &Store, clock: Clock, options: &TrafficOptions, reader: Reader) -> Self {
        let changes = store.subscribe();
        let lags = Lags {
            route: milliseconds(options.route_lag),
            endpoint: milliseconds(options.endpoint_lag),
            drain: milliseconds(options.drain),
        };
        let mut followed = Followed {
            changes,
            reader,
            lags,
            pending: BTreeMap::new(),
            sequence: 0,
            state: State::new(
                options.default_load,
                Streams::new(milliseconds(options.scrape_interval), milliseconds(options.history)),
            ),
        };
        let now_ms = clock.now().as_millisecond();
        for kind in &WATCHED_KINDS {
            for object in store.list(kind, None) {
                followed.follow(&StoreEvent::of_present(kind.clone(), object), now_ms);
            }
        }
        let traffic = Self { inner: Arc::new(Inner { clock, followed: Mutex::new(followed), put_off: Notify::new() }) };
        tokio::spawn(follow(Arc::clone(&traffic.inner)));
        traffic
    }

    /// Sets how the pods that match behave from now on; a part of an image's name will do as `pods`. The rule that was set
    /// last wins; setting a rule again replaces it.
    pub fn set_behaviour(&self, pods: impl Into<BehaviourMatch>, behaviour: Behaviour) {
        self.at_once(Effect::Behaviour { pods: pods.into(), behaviour: Some(behaviour) });
    }

    /// The same from a moment to come on. Of several rules for the same pods the one whose time came last holds.
    pub fn set_behaviour_at(&self, at: Timestamp, pods: impl Into<BehaviourMatch>, behaviour: Behaviour) {
        self.later(at, Effect::Behaviour { pods: pods.into(), behaviour: Some(behaviour) });
    }

    /// Withdraws a rule of [`Self::set_behaviour`].
    pub fn clear_behaviour(&self, pods: impl Into<BehaviourMatch>) {
        self.at_once(Effect::Behaviour { pods: pods.into(), behaviour: None });
    }

    /// Withdraws a rule at a moment to come.
    pub fn clear_behaviour_at(&self, at: Timestamp, pods: impl Into<BehaviourMatch>) {
        self.later(at, Effect::Behaviour { pods: pods.into(), behaviour: None });
    }

    /// Sets the requests per second to a service, 0 for none. It need not be named by anything: load on
    /// `podinfo-canary` is what a load tester would send.
    pub fn set_load(&self, namespace: &str, host: &str, requests_per_second: f64) {
        self.at_once(Effect::Load { host: ServiceKey::new(namespace, host), requests_per_second });
    }

    /// The same from a moment to come on.
    pub fn set_load_at(&self, at: Timestamp, namespace: &str, host: &str, requests_per_second: f64) {
        self.later(at, Effect::Load { host: ServiceKey::new(namespace, host), requests_per_second });
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
        let headers = in_lower_case(headers);
        self.change(|state, now_ms| {
            let audiences = &mut state.loads.entry(host.clone()).or_default().audiences;
            audiences.retain(|audience| audience.headers != headers);
            audiences.push(Population { headers, requests_per_second });
            state.recompute(now_ms, &host);
        });
    }

    /// Adds users who send these headers, as a load tester does, on top of all others, even of those who send the same
    /// headers. They stay until [`Self::remove_load`].
    pub fn add_load(
        &self,
        namespace: &str,
        host: &str,
        headers: &BTreeMap<String, String>,
        requests_per_second: f64,
    ) -> AddedLoad {
        let host = ServiceKey::new(namespace, host);
        let population = Population { headers: in_lower_case(headers), requests_per_second };
        let mut added = AddedLoad { host: host.clone(), number: 0 };
        self.change(|state, now_ms| {
            let load = state.loads.entry(host.clone()).or_default();
            added.number = load.added.last_key_value().map_or(0, |(last, _)| last + 1);
            load.added.insert(added.number, population);
            state.recompute(now_ms, &host);
        });
        added
    }

    /// Takes away what [`Self::add_load`] added.
    pub fn remove_load(&self, load: AddedLoad) {
        let AddedLoad { host, number } = load;
        self.change(|state, now_ms| {
            state.loads.entry(host.clone()).or_default().added.remove(&number);
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

    /// Tells autoscalers of the load of every workload, as it changes. Must be called inside a tokio runtime.
    pub(crate) fn report_load_to(&self, utilisation: Utilisation) {
        self.inner.followed.lock().state.utilisation = Some(utilisation);
        tokio::spawn(keep_up(Arc::clone(&self.inner)));
    }

    /// How often the metrics are scraped, in milliseconds.
    pub(crate) fn scrape_interval_ms(&self) -> i64 {
        self.inner.followed.lock().state.streams.scrape_interval_ms
    }

    /// How long past requests are remembered, in milliseconds.
    pub(crate) fn history_ms(&self) -> i64 {
        self.inner.followed.lock().state.streams.history_ms
    }

    /// The series that satisfy all matchers, as Prometheus of this version stores what it scraped in `start_ms..=end_ms`.
    pub(crate) fn series(
        &self,
        version: RangeBoundary,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<Series> {
        let mut series = Vec::new();
        self.change(|state, now_ms| series = state.streams.select(version, matchers, start_ms, end_ms.min(now_ms)));
        series
    }

    /// Names of all metrics that services and their users can have.
    pub(crate) fn metric_names() -> impl Iterator<Item = &'static str> {
        let clusters = NAMES.cluster_requests.iter().chain(&NAMES.cluster_times);
        NAMES.mesh.iter().chain(&NAMES.application).chain(clusters).map(|family| &*family.name)
    }

    /// The present time of the cluster in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.clock.now().as_millisecond()
    }

    fn at_once(&self, effect: Effect) {
        self.change(|state, now_ms| effect.take(state, now_ms));
    }

    fn later(&self, at: Timestamp, effect: Effect) {
        self.inner.followed.lock().put(at.as_millisecond(), effect);
        self.inner.put_off.notify_one();
    }

    /// Runs `act` on a state that has followed every change that was committed before the call.
    fn change(&self, act: impl FnOnce(&mut State, i64)) {
        let now_ms = self.now_ms();
        let mut followed = self.inner.followed.lock();
        while let Ok(event) = followed.changes.try_recv() {
            followed.follow(&event, now_ms);
        }
        followed.catch_up(now_ms);
        act(&mut followed.state, now_ms);
    }
}

impl Followed {
    /// Takes note of a change that happens now.
    fn follow(&mut self, event: &StoreEvent, now_ms: i64) {
        for change in self.reader.read(event) {
            match change {
                Change::Pod { name, pod } => self.follow_pod(name, pod, now_ms),
                Change::Canary { .. } if self.pending.is_empty() => Effect::Known(change).take(&mut self.state, now_ms),
                Change::Canary { .. } => self.put(now_ms, Effect::Known(change)),
                Change::Service { .. } => self.put(now_ms + self.lags.endpoint, Effect::Known(change)),
                Change::VirtualService { .. } | Change::DestinationRule { .. } => {
                    self.put(now_ms + self.lags.route, Effect::Known(change))
                }
            }
        }
        self.catch_up(now_ms);
    }

    /// Pods answer before anyone knows of them. Pods that end are forgotten first where both happen at the same time: then
    /// nobody is sent to them.
    fn follow_pod(&mut self, name: ServiceKey, pod: Option<Pod>, now_ms: i64) {
        if self.lags.drain > 0 {
            // What was to come of an earlier change is not to undo this one.
            self.pending.retain(|_, effect| !matches!(effect, Effect::Answering { name: other, .. } if *other == name));
        }
        let serving = pod.as_ref().map_or(0, Pod::serving);
        let grows = serving >= self.state.topology.answering(&name);
        let answering = Effect::Answering { name: name.clone(), pod: pod.clone() };
        let known = Effect::Known(Change::Pod { name, pod });
        if grows {
            self.put(now_ms, answering);
            self.put(now_ms + self.lags.endpoint, known);
        } else {
            self.put(now_ms + self.lags.endpoint, known);
            self.put(now_ms + self.lags.drain, answering);
        }
    }

    fn put(&mut self, at_ms: i64, effect: Effect) {
        self.sequence += 1;
        self.pending.insert((at_ms, self.sequence), effect);
    }

    /// Lets everything take effect that is due, each at its own time.
    fn catch_up(&mut self, now_ms: i64) {
        while let Some(first) = self.pending.first_entry() {
            let (at_ms, _) = *first.key();
            if at_ms > now_ms {
                return;
            }
            first.remove().take(&mut self.state, at_ms);
        }
    }
}

impl Effect {
    fn take(self, state: &mut State, at_ms: i64) {
        match self {
            Self::Known(change) => {
                let touched = state.topology.apply(&change);
                state.touch(at_ms, touched);
            }
            Self::Answering { name, pod } => {
                let touched = state.topology.set_answering(&name, pod.as_ref());
                state.touch(at_ms, touched);
            }
            Self::Behaviour { pods, behaviour } => {
                match behaviour {
                    Some(behaviour) => state.behaviours.set(pods, behaviour),
                    None => state.behaviours.remove(&pods),
                }
                state.recompute_all(at_ms);
            }
            Self::Load { host, requests_per_second } => {
                state.loads.entry(host.clone()).or_default().anonymous = Some(requests_per_second);
                state.recompute(at_ms, &host);
            }
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// The series as the Prometheus of the cluster stores them, unless it was given another version.
impl SeriesSource for Traffic {
    fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        self.series(RangeBoundary::default(), matchers, start_ms, end_ms)
    }
}

/// Names of headers do not depend on case.
fn in_lower_case(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// Lets what was put off take effect when it is due, for those who do not ask.
async fn keep_up(inner: Arc<Inner>) {
    loop {
        let next = inner.followed.lock().pending.keys().next().map(|(at_ms, _)| *at_ms);
        let Some(at_ms) = next else {
            inner.put_off.notified().await;
            continue;
        };
        let left = u64::try_from(at_ms - inner.clock.now().as_millisecond()).unwrap_or(0);
        tokio::select! {
            // Chance must not decide between the two.
            biased;
            () = inner.put_off.notified() => {}
            () = inner.clock.sleep(Duration::from_millis(left)) => {
                inner.followed.lock().catch_up(inner.clock.now().as_millisecond().max(at_ms));
            }
        }
    }
}

/// Applies changes as they come, so that each has the time at which it happened; ends with the store.
async fn follow(inner: Arc<Inner>) {
    poll_fn(|context| {
        let mut followed = inner.followed.lock();
        loop {
            match followed.changes.poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    followed.follow(&event, inner.clock.now().as_millisecond());
                    if !followed.pending.is_empty() {
                        inner.put_off.notify_one();
                    }
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
