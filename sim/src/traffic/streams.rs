//! Streams of requests and the counters that proxies and applications keep of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aviary_promql::{Labels, Matcher, RangeBoundary, Series};

use super::change::PodIdentity;
use super::counter::{Counter, ScrapeGrid, Totals, samples};
use super::flow::ANSWERED;
use super::series::{
    APPLICATION, CLUSTERS, Family, GATEWAY, NAMES, Reporter, application_labels, cluster_labels, mesh_labels,
};
use super::topology::ServiceKey;

/// What Istio calls a workload that it does not know, here: where no pod was.
pub(crate) const UNKNOWN: &str = "unknown";

/// Requests of one kind: they share all labels but the metric's name, the reporter and the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    pub(crate) service: ServiceKey,
    /// The workload that answered; `unknown` in namespace `unknown` where there was none.
    pub(crate) workload: ServiceKey,
    pub(crate) identity: Arc<PodIdentity>,
    pub(crate) response_code: u16,
    /// Envoy's reason for an answer that it gave itself, `-` for an answer of the workload.
    pub(crate) response_flags: &'static str,
}

impl StreamKey {
    /// Whether a workload saw the requests: only then is there a proxy that reports as the destination.
    pub(crate) fn arrives(&self) -> bool {
        self.response_flags == ANSWERED
    }
}

/// Requests per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    pub(crate) direct: Totals,
    /// Copies of requests: the gateway does not count them.
    pub(crate) mirrored: Totals,
}

impl Rate {
    fn plus(self, other: &Self) -> Self {
        Self { direct: self.direct.plus(&other.direct, 1.0), mirrored: self.mirrored.plus(&other.mirrored, 1.0) }
    }
}

#[derive(Debug)]
struct Stream {
    key: StreamKey,
    labels: Labels,
    destination_grid: ScrapeGrid,
    /// The rate to which each apex service contributes now.
    rates: BTreeMap<ServiceKey, Rate>,
    /// What the pods and their proxies count. It begins again when the pods are replaced.
    destination: Counter,
    /// What the gateway counts, once that is something else.
    source: Option<Counter>,
}

impl Stream {
    fn set_rate(&mut self, now_ms: i64) {
        let total = self.rates.values().fold(Rate::default(), Rate::plus);
        if total.mirrored != Totals::default() {
            self.source.get_or_insert_with(|| self.destination.clone());
        }
        if let Some(source) = &mut self.source {
            source.set_rate(now_ms, total.direct);
        }
        self.destination.set_rate(now_ms, total.direct.plus(&total.mirrored, 1.0));
    }

    fn counter(&self, reporter: Reporter) -> &Counter {
        match reporter {
            Reporter::Source => self.source.as_ref().unwrap_or(&self.destination),
            Reporter::Destination => &self.destination,
        }
    }
}

/// All streams, found by the namespace and name of their workload.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) scrape_interval_ms: i64,
    /// How long their counters remember.
    pub(super) history_ms: i64,
    streams: Vec<Stream>,
    positions: HashMap<StreamKey, usize>,
    by_workload: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// Services for which an Envoy that follows TrafficSplits has a cluster.
    pub(super) clusters: BTreeSet<ServiceKey>,
}

impl Streams {
    pub(crate) fn new(scrape_interval_ms: i64, history_ms: i64) -> Self {
        Self {
            scrape_interval_ms: scrape_interval_ms.max(1),
            history_ms,
            streams: Vec::new(),
            positions: HashMap::new(),
            by_workload: BTreeMap::new(),
            clusters: BTreeSet::new(),
        }
    }

    /// Sets what `apex` contributes to a stream, in requests per second; `None` for nothing any more.
    pub(crate) fn set_rate(&mut self, now_ms: i64, key: &StreamKey, apex: &ServiceKey, rate: Option<Rate>) {
        let position = self.position(key);
        let stream = &mut self.streams[position];
        match rate {
            Some(rate) => stream.rates.insert(apex.clone(), rate),
            None => stream.rates.remove(apex),
        };
        stream.set_rate(now_ms);
    }

    /// The last pod of a version is gone: its series end. The gateway goes on counting.
    pub(crate) fn stop(&mut self, now_ms: i64, workload: &ServiceKey, identity: &PodIdentity) {
        let positions = self.by_workload.get(&workload.namespace).and_then(|workloads| workloads.get(&workload.name));
        for position in positions.into_iter().flatten() {
            let stream = &mut self.streams[*position];
            if *stream.key.identity == *identity && stream.key.arrives() {
                stream.source.get_or_insert_with(|| stream.destination.clone());
                stream.destination.stop(now_ms);
            }
        }
    }

    fn position(&mut self, key: &StreamKey) -> usize {
        if let Some(position) = self.positions.get(key) {
            return *position;
        }
        let position = self.streams.len();
        self.streams.push(Stream {
            key: key.clone(),
            labels: mesh_labels(key),
            destination_grid: self.grid(&format!("{}/{}", key.workload.namespace, key.workload.name)),
            rates: BTreeMap::new(),
            destination: Counter::new(self.history_ms),
            source: None,
        });
        self.positions.insert(key.clone(), position);
        self.by_workload
            .entry(key.workload.namespace.clone())
            .or_default()
            .entry(key.workload.name.clone())
            .or_default()
            .push(position);
        position
    }

    /// Prometheus spreads its targets over the interval by a hash of their address.
    fn grid(&self, target: &str) -> ScrapeGrid {
        // FNV-1a: the same on every run and machine, unlike the standard library's hasher.
        let hash = target
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let offset = hash % self.scrape_interval_ms.unsigned_abs();
        ScrapeGrid { interval_ms: self.scrape_interval_ms, offset_ms: i64::try_from(offset).unwrap_or(0) }
    }

    /// The series that satisfy all matchers, with the samples that scrapes took in `start_ms..=end_ms`, as Prometheus of this
    /// version stores them.
    pub(crate) fn select(
        &self,
        version: RangeBoundary,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<Series> {
        let query = Selection { version, matchers, start_ms, end_ms };
        let mut found = self.mesh_series(query);
        found.append(&mut self.application_series(query));
        found.append(&mut self.cluster_series(query));
        found
    }

    /// What the proxies of Istio export.
    fn mesh_series(&self, query: Selection) -> Vec<Series> {
        let matchers = query.matchers;
        let families = admitted(&NAMES.mesh, matchers);
        if families.is_empty() {
            return Vec::new();
        }
        let own = ["__name__", "reporter", "connection_security_policy", "le"];
        let common: Vec<&Matcher> = matchers.iter().filter(|matcher| !own.contains(&matcher.name())).collect();
        let gateway_grid = self.grid(GATEWAY);
        let mut found = Vec::new();
        for position in self.candidates(matchers, "destination_workload_namespace", Some("destination_workload")) {
            let stream = &self.streams[position];
            if !common.iter().all(|matcher| matcher.matches_labels(&stream.labels)) {
                continue;
            }
            for reporter in [Reporter::Destination, Reporter::Source] {
                let exists = reporter == Reporter::Source || stream.key.arrives();
                let reporter_labels = NAMES.reporter_labels(reporter);
                if !exists || !reporter_labels.iter().all(|(name, value)| admits(matchers, name, value)) {
                    continue;
                }
                let grid = match reporter {
                    Reporter::Destination => stream.destination_grid,
                    Reporter::Source => gateway_grid,
                };
                let mut labels = stream.labels.clone();
                for (name, value) in reporter_labels {
                    labels.insert(name, value);
                }
                render(query, &families, &labels, &[stream.counter(reporter)], grid, &mut found);
            }
        }
        found
    }

    /// What the applications export themselves: podinfo's metrics, whatever the image is.
    fn application_series(&self, query: Selection) -> Vec<Series> {
        let matchers = query.matchers;
        let families = admitted(&NAMES.application, matchers);
        if families.is_empty() {
            return Vec::new();
        }
        let own = ["__name__", "le", "method", "path"];
        let common: Vec<&Matcher> = matchers.iter().filter(|matcher| !own.contains(&matcher.name())).collect();
        // An application does not know by which service it was called.
        let mut processes: BTreeMap<(&ServiceKey, &PodIdentity, u16), Vec<usize>> = BTreeMap::new();
        for position in self.candidates(matchers, "kubernetes_namespace", None) {
            let key = &self.streams[position].key;
            if key.arrives() {
                processes.entry((&key.workload, &key.identity, key.response_code)).or_default().push(position);
            }
        }
        let mut found = Vec::new();
        for ((workload, identity, code), positions) in processes {
            let labels = application_labels(workload, identity, code);
            if !common.iter().all(|matcher| matcher.matches_labels(&labels)) {
                continue;
            }
            let counters: Vec<&Counter> =
                positions.iter().map(|position| &self.streams[*position].destination).collect();
            let grid = self.grid(&format!("{APPLICATION}/{}/{}", workload.namespace, workload.name));
            render(query, &families, &labels, &counters, grid, &mut found);
        }
        found
    }

    /// What an Envoy that follows TrafficSplits exports of its clusters. Only the requests have a response code.
    fn cluster_series(&self, query: Selection) -> Vec<Series> {
        let matchers = query.matchers;
        let counted = admitted(&NAMES.cluster_requests, matchers);
        let timed = admitted(&NAMES.cluster_times, matchers);
        if self.clusters.is_empty() || (counted.is_empty() && timed.is_empty()) {
            return Vec::new();
        }
        let mut clusters: BTreeMap<(&ServiceKey, Option<u16>), Vec<&Counter>> = BTreeMap::new();
        for stream in self.streams.iter().filter(|stream| self.clusters.contains(&stream.key.service)) {
            let counter = stream.counter(Reporter::Source);
            for code in [None, Some(stream.key.response_code)] {
                clusters.entry((&stream.key.service, code)).or_default().push(counter);
            }
        }
        let common: Vec<&Matcher> =
            matchers.iter().filter(|matcher| !["__name__", "le"].contains(&matcher.name())).collect();
        let mut found = Vec::new();
        for ((service, code), counters) in clusters {
            let labels = cluster_labels(service, code);
            if !common.iter().all(|matcher| matcher.matches_labels(&labels)) {
                continue;
            }
            let families = if code.is_some() { &counted } else { &timed };
            render(query, families, &labels, &counters, self.grid(CLUSTERS), &mut found);
        }
        found
    }

    /// Positions of the streams that can satisfy matchers on these labels.
    fn candidates(&self, matchers: &[Matcher], namespace: &str, workload: Option<&str>) -> Vec<usize> {
        let literals =
            |label: &str| matchers.iter().filter(|matcher| matcher.name() == label).find_map(Matcher::literals);
        let namespaces = select_keys(&self.by_workload, literals(namespace));
        let workloads = workload.and_then(literals);
        namespaces.into_iter().flat_map(|namespace| select_keys(namespace, workloads)).flatten().copied().collect()
    }
}

fn select_keys<'a, V>(map: &'a BTreeMap<String, V>, keys: Option<&[String]>) -> Vec<&'a V> {
    match keys {
        Some(keys) => {
            let mut keys: Vec<&String> = keys.iter().collect();
            keys.sort_unstable();
            keys.dedup();
            keys.into_iter().filter_map(|key| map.get(key)).collect()
        }
        None => map.values().collect(),
    }
}

fn admits(matchers: &[Matcher], label: &str, value: &str) -> bool {
    matchers.iter().filter(|matcher| matcher.name() == label).all(|matcher| matcher.matches(value))
}

fn admitted<'a>(families: &'a [Family], matchers: &[Matcher]) -> Vec<&'a Family> {
    families.iter().filter(|family| admits(matchers, "__name__", &family.name)).collect()
}

/// Which series are asked for, and of which time.
#[derive(Clone, Copy)]
struct Selection<'q> {
    version: RangeBoundary,
    matchers: &'q [Matcher],
    start_ms: i64,
    end_ms: i64,
}

/// Adds the series of one target that the matchers admit.
fn render(
    query: Selection,
    families: &[&Family],
    labels: &Labels,
    counters: &[&Counter],
    grid: ScrapeGrid,
    found: &mut Vec<Series>,
) {
    let Selection { version, matchers, start_ms, end_ms } = query;
    for family in families {
        if !family.constants.iter().all(|(name, value)| admits(matchers, name, value)) {
            continue;
        }
        for (part, bound) in &family.parts {
            let bound = bound.as_ref().map(|bound| bound.label(version));
            if !admits(matchers, "le", bound.map(|bound| &**bound).unwrap_or_default()) {
                continue;
            }
            let samples = samples(counters, *part, grid, start_ms, end_ms);
            if samples.is_empty() {
                continue;
            }
            let mut labels = labels.clone();
            labels.insert(Arc::clone(&NAMES.metric_name), Arc::clone(&family.name));
            for (name, value) in &family.constants {
                labels.insert(Arc::clone(name), Arc::clone(value));
            }
            if let Some(bound) = bound {
                labels.insert(Arc::clone(&NAMES.le), Arc::clone(bound));
            }
            found.push(Series { labels: Arc::new(labels), samples });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::traffic::behaviour::Latency;
    use aviary_promql::MatchOperator;

    const LATENCY: Latency = Latency { p50_ms: 20.0, p99_ms: 60.0 };

    /// A hundred canaries with primaries in each of ten namespaces.
    fn fleet() -> Streams {
        let mut streams = Streams::new(5_000, 3_600_000);
        for index in 0..1_000 {
            for suffix in ["", "-primary"] {
                let workload = ServiceKey::new(&format!("team-{}", index % 10), &format!("app-{index}{suffix}"));
                let key = StreamKey {
                    service: workload.clone(),
                    workload: workload.clone(),
                    identity: Arc::default(),
                    response_code: 200,
                    response_flags: "-",
                };
                let rate = Rate { direct: Totals::new(20.0, LATENCY), ..Rate::default() };
                streams.set_rate(0, &key, &workload, Some(rate));
            }
        }
        streams
    }

    fn matcher(name: &str, operator: MatchOperator, value: &str) -> Matcher {
        Matcher::new(name, operator, value).unwrap()
    }

    #[test]
    fn a_query_of_one_workload_looks_at_no_other() {
        let streams = fleet();
        let namespace = || matcher("destination_workload_namespace", MatchOperator::Equal, "team-7");
        let looked_at = |matchers: &[Matcher]| {
            streams.candidates(matchers, "destination_workload_namespace", Some("destination_workload")).len()
        };
        let workload = |value| matcher("destination_workload", MatchOperator::Regex, value);
        assert_eq!(looked_at(&[namespace(), workload("app-17")]), 1);
        assert_eq!(looked_at(&[namespace(), workload("app-17|app-17-primary")]), 2);
        assert_eq!(looked_at(&[namespace(), workload("app-18")]), 0, "another namespace's");
        assert_eq!(looked_at(&[namespace(), workload("app-1.*")]), 200);
        assert_eq!(looked_at(&[workload("app-17")]), 1);
        assert_eq!(looked_at(&[]), 2_000);
    }

    #[test]
    fn every_matcher_counts() {
        let streams = fleet();
        let selected = |extra: &[Matcher]| {
            let mut matchers = vec![
                matcher("destination_workload_namespace", MatchOperator::Equal, "team-7"),
                matcher("destination_workload", MatchOperator::Equal, "app-17"),
            ];
            matchers.extend_from_slice(extra);
            streams.select(RangeBoundary::LeftOpen, &matchers, 0, 60_000).len()
        };
        let equal = |name, value| matcher(name, MatchOperator::Equal, value);
        // Two reporters with one counter and a histogram of 20 buckets, sum and count each.
        assert_eq!(selected(&[]), 2 * 23);
        assert_eq!(selected(&[equal("reporter", "source")]), 23);
        assert_eq!(
            selected(&[equal("__name__", "istio_request_duration_milliseconds_bucket"), equal("le", "25.0")]),
            2
        );
        assert_eq!(selected(&[equal("le", "25")]), 0, "the name of the bucket in Prometheus 2");
        assert_eq!(selected(&[equal("le", "")]), 2 * 3);
        assert_eq!(selected(&[equal("response_code", "500")]), 0);
        assert_eq!(selected(&[matcher("response_code", MatchOperator::NotRegex, "5.*")]), 2 * 23);
        assert_eq!(selected(&[equal("destination_workload", "app-17-primary")]), 0, "contradicts the other matcher");
        assert_eq!(selected(&[equal("no_such_label", "x")]), 0);
    }
}
