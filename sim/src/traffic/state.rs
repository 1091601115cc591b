//! The traffic of the whole cluster at this moment, and what it was until now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::behaviour::Behaviours;
use super::counter::Totals;
use super::flow::{Flow, Population, flows};
use super::report::{TrafficReport, WorkloadTotals};
use super::streams::{Rate, StreamKey, Streams, UNKNOWN};
use super::topology::{ServiceKey, Topology, Touched};
use crate::controllers::Utilisation;

/// The users of a host, as far as somebody set them.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Requests per second without particular headers; `None` for the default.
    pub(crate) anonymous: Option<f64>,
    pub(crate) audiences: Vec<Population>,
    /// Further ones, each of which goes by itself, by number.
    pub(crate) added: BTreeMap<u64, Population>,
}

/// A host that has, or had, users.
#[derive(Debug, Default)]
struct Apex {
    /// Users come once the service has answered for the first time: before that nobody knows it.
    started: bool,
    flows: Vec<Flow>,
    services: BTreeSet<ServiceKey>,
    ledger: BTreeMap<String, Ledger>,
    interruptions: u64,
}

/// Exact requests of users that one workload answered.
#[derive(Clone, Copy, Debug, Default)]
struct Ledger {
    since_ms: i64,
    requests: f64,
    failures: f64,
    requests_per_second: f64,
    failures_per_second: f64,
}

impl Ledger {
    #[allow(clippy::cast_precision_loss)]
    fn settled(&self, now_ms: i64) -> Self {
        let elapsed_seconds = (now_ms - self.since_ms) as f64 / 1000.0;
        Self {
            since_ms: now_ms,
            requests: self.requests + self.requests_per_second * elapsed_seconds,
            failures: self.failures + self.failures_per_second * elapsed_seconds,
            ..*self
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) topology: Topology,
    pub(crate) behaviours: Behaviours,
    pub(crate) default_load: f64,
    pub(crate) loads: HashMap<ServiceKey, Load>,
    pub(crate) streams: Streams,
    apexes: BTreeMap<ServiceKey, Apex>,
    /// The hosts whose flows pass each service.
    dependents: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// Who wants to know of the load of each workload, where somebody does.
    pub(crate) utilisation: Option<Utilisation>,
    /// Requests per second that each workload answers, by the host to which they were sent.
    workload_loads: HashMap<ServiceKey, BTreeMap<ServiceKey, f64>>,
}

impl State {
    pub(crate) fn new(default_load: f64, streams: Streams) -> Self {
        Self {
            topology: Topology::default(),
            behaviours: Behaviours::default(),
            default_load,
            loads: HashMap::new(),
            streams,
            apexes: BTreeMap::new(),
            dependents: HashMap::new(),
            utilisation: None,
            workload_loads: HashMap::new(),
        }
    }

    /// Follows a change of the cluster.
    pub(crate) fn touch(&mut self, now_ms: i64, touched: Touched) {
        let mut hosts: BTreeSet<ServiceKey> = touched.hosts.into_iter().collect();
        for service in touched.services {
            if let Some(dependents) = self.dependents.get(&service) {
                hosts.extend(dependents.iter().cloned());
            }
        }
        for host in hosts {
            self.recompute(now_ms, &host);
        }
        for (workload, identity) in touched.ended {
            self.streams.stop(now_ms, &workload, &identity);
        }
    }

    pub(crate) fn recompute_all(&mut self, now_ms: i64) {
        let hosts: Vec<ServiceKey> = self.apexes.keys().cloned().collect();
        for host in hosts {
            self.recompute(now_ms, &host);
        }
    }

    pub(crate) fn recompute(&mut self, now_ms: i64, host: &ServiceKey) {
        let started = self.apexes.get(host).is_some_and(|apex| apex.started);
        let populations = self.populations(host, started);
        if populations.is_empty() && !self.apexes.contains_key(host) {
            return;
        }
        let found = flows(&self.topology, &self.behaviours, host, &populations);
        let started = started || found.flows.iter().any(|flow| !flow.is_unanswered());
        let flows = if started { found.flows } else { Vec::new() };
        if self.topology.virtual_service(host).is_some_and(|routes| routes.is_traffic_split) {
            self.streams.clusters.extend(found.services.iter().filter(|service| *service != host).cloned());
        }
        self.depend(host, found.services.into_iter().collect());

        let apex = self.apexes.entry(host.clone()).or_default();
        apex.started = started;
        if apex.flows == flows {
            return;
        }
        if let Some(utilisation) = &self.utilisation {
            tell_load(utilisation, &mut self.workload_loads, host, &apex.flows, &flows);
        }
        let interrupted = |flows: &[Flow]| flows.iter().any(|flow| flow.fails_users() && flow.is_unanswered());
        if interrupted(&flows) && !interrupted(&apex.flows) {
            apex.interruptions += 1;
        }
        let rates = stream_rates(&flows);
        for (stream, _) in stream_rates(&apex.flows) {
            if !rates.contains_key(stream) {
                self.streams.set_rate(now_ms, stream, host, None);
            }
        }
        for (stream, rate) in rates {
            self.streams.set_rate(now_ms, stream, host, Some(rate));
        }
        settle(&mut apex.ledger, now_ms, &flows);
        apex.flows = flows;
    }

    /// Who sends requests to a host. A named service has users by default, and keeps them while it exists.
    fn populations(&self, host: &ServiceKey, started: bool) -> Vec<Population> {
        let load = self.loads.get(host);
        let has_users = self.topology.is_named(host) || (started && self.topology.service_exists(host));
        let default_load = if has_users { self.default_load } else { 0.0 };
        let anonymous = load.and_then(|load| load.anonymous).unwrap_or(default_load);
        let anonymous =
            (anonymous > 0.0).then(|| Population { headers: BTreeMap::new(), requests_per_second: anonymous });
        let audiences = load.into_iter().flat_map(|load| load.audiences.iter().chain(load.added.values()).cloned());
        anonymous.into_iter().chain(audiences).collect()
    }

    fn depend(&mut self, host: &ServiceKey, services: BTreeSet<ServiceKey>) {
        let apex = self.apexes.entry(host.clone()).or_default();
        for service in apex.services.difference(&services) {
            if let Some(dependents) = self.dependents.get_mut(service) {
                dependents.remove(host);
                if dependents.is_empty() {
                    self.dependents.remove(service);
                }
            }
        }
        for service in services.difference(&apex.services) {
            self.dependents.entry(service.clone()).or_default().insert(host.clone());
        }
        apex.services = services;
    }

    pub(crate) fn report(&self, now_ms: i64, host: &ServiceKey) -> TrafficReport {
        let Some(apex) = self.apexes.get(host) else {
            return TrafficReport::default();
        };
        let workloads = apex.ledger.iter().map(|(workload, ledger)| {
            let settled = ledger.settled(now_ms);
            let totals = WorkloadTotals { requests: settled.requests, failures: settled.failures };
            (workload.clone(), totals)
        });
        TrafficReport { workloads: workloads.collect(), interruptions: apex.interruptions }
    }
}

/// Tells how many requests the workloads answer that had some of a host's requests before, or have some now.
fn tell_load(
    utilisation: &Utilisation,
    loads: &mut HashMap<ServiceKey, BTreeMap<ServiceKey, f64>>,
    host: &ServiceKey,
    before: &[Flow],
    after: &[Flow],
) {
    let mut rates: BTreeMap<&ServiceKey, f64> = BTreeMap::new();
    for flow in before.iter().chain(after).filter(|flow| !flow.is_unanswered()) {
        rates.insert(&flow.stream.workload, 0.0);
    }
    for flow in after.iter().filter(|flow| !flow.is_unanswered()) {
        *rates.entry(&flow.stream.workload).or_default() += flow.requests_per_second;
    }
    for (workload, rate) in rates {
        let by_host = loads.entry(workload.clone()).or_default();
        by_host.insert(host.clone(), rate);
        utilisation.set_load(&workload.namespace, &workload.name, by_host.values().sum());
    }
}

/// The rate of every stream: several flows, for example those of two images of one workload, can share one.
fn stream_rates(flows: &[Flow]) -> BTreeMap<&StreamKey, Rate> {
    let mut rates: BTreeMap<&StreamKey, Rate> = BTreeMap::new();
    for flow in flows {
        let rate = Totals::new(flow.requests_per_second, flow.latency);
        let total = rates.entry(&flow.stream).or_default();
        let part = if flow.mirrored { &mut total.mirrored } else { &mut total.direct };
        *part = part.plus(&rate, 1.0);
    }
    rates
}

fn settle(ledger: &mut BTreeMap<String, Ledger>, now_ms: i64, flows: &[Flow]) {
    for entry in ledger.values_mut() {
        *entry = Ledger { requests_per_second: 0.0, failures_per_second: 0.0, ..entry.settled(now_ms) };
    }
    for flow in flows.iter().filter(|flow| !flow.mirrored) {
        let workload = if flow.is_unanswered() { UNKNOWN } else { &flow.stream.workload.name };
        let entry =
            ledger.entry(workload.to_owned()).or_insert_with(|| Ledger { since_ms: now_ms, ..Ledger::default() });
        entry.requests_per_second += flow.requests_per_second;
        if flow.fails_users() {
            entry.failures_per_second += flow.requests_per_second;
        }
    }
}
