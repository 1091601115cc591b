//! The series that Istio's proxies export, computed from [`Counter`]s when a query asks for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use aviary_promql::{Labels, METRIC_NAME, Matcher, Series};

use super::behaviour::BUCKET_BOUNDS_MS;
use super::counter::{Counter, Part, ScrapeGrid, Totals};
use super::topology::ServiceKey;

/// What Istio calls a workload that it does not know, here: where no pod was.
pub(crate) const UNKNOWN: &str = "unknown";

/// Requests of one kind: they share all labels but the metric's name, the reporter and the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    pub(crate) service: ServiceKey,
    /// The workload that answered; `unknown` in namespace `unknown` where there was none.
    pub(crate) workload: ServiceKey,
    pub(crate) response_code: u16,
    /// Envoy's reason for an answer that it gave itself, `-` for an answer of the workload.
    pub(crate) response_flags: &'static str,
}

impl StreamKey {
    /// Whether a workload saw the requests: only then is there a proxy that reports as the destination.
    fn arrives(&self) -> bool {
        self.workload.name != UNKNOWN
    }
}

#[derive(Debug)]
struct Stream {
    key: StreamKey,
    labels: Labels,
    destination_grid: ScrapeGrid,
    /// The rate to which each apex service contributes now.
    rates: BTreeMap<ServiceKey, Totals>,
    counter: Counter,
}

/// All streams, found by the namespace and name of their workload.
#[derive(Debug)]
pub(crate) struct Streams {
    scrape_interval_ms: i64,
    streams: Vec<Stream>,
    positions: HashMap<StreamKey, usize>,
    by_workload: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

impl Streams {
    pub(crate) fn new(scrape_interval_ms: i64) -> Self {
        Self {
            scrape_interval_ms: scrape_interval_ms.max(1),
            streams: Vec::new(),
            positions: HashMap::new(),
            by_workload: BTreeMap::new(),
        }
    }

    /// Sets what `apex` contributes to a stream, in requests per second; `None` for nothing any more.
    pub(crate) fn set_rate(&mut self, now_ms: i64, key: &StreamKey, apex: &ServiceKey, rate: Option<Totals>) {
        let position = self.position(key);
        let stream = &mut self.streams[position];
        match rate {
            Some(rate) => stream.rates.insert(apex.clone(), rate),
            None => stream.rates.remove(apex),
        };
        let total = stream.rates.values().fold(Totals::default(), |total, rate| total.plus(rate, 1.0));
        stream.counter.set_rate(now_ms, total);
    }

    fn position(&mut self, key: &StreamKey) -> usize {
        if let Some(position) = self.positions.get(key) {
            return *position;
        }
        let position = self.streams.len();
        self.streams.push(Stream {
            key: key.clone(),
            labels: labels(key),
            destination_grid: self.grid(&format!("{}/{}", key.workload.namespace, key.workload.name)),
            rates: BTreeMap::new(),
            counter: Counter::default(),
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

    /// The series that satisfy all matchers, with the samples that scrapes took in `start_ms..=end_ms`.
    pub(crate) fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let names = &*NAMES;
        let is_common = |matcher: &&Matcher| ![METRIC_NAME, "reporter", "le"].contains(&matcher.name());
        let common: Vec<&Matcher> = matchers.iter().filter(is_common).collect();
        let metrics: Vec<(Metric, &Arc<str>)> = Metric::ALL
            .into_iter()
            .zip(&names.metrics)
            .filter(|(_, name)| admits(matchers, METRIC_NAME, name))
            .collect();
        let gateway_grid = self.grid(GATEWAY);

        let mut found = Vec::new();
        for position in self.candidates(matchers) {
            let stream = &self.streams[position];
            if !common.iter().all(|matcher| matcher.matches_labels(&stream.labels)) {
                continue;
            }
            let reporters = [
                (&names.destination, stream.destination_grid, stream.key.arrives()),
                (&names.source, gateway_grid, true),
            ];
            for (reporter, grid, exists) in reporters {
                if !exists || !admits(matchers, "reporter", reporter) {
                    continue;
                }
                for (metric, metric_name) in &metrics {
                    for (part, bound) in metric.parts() {
                        if !admits(matchers, "le", bound.map_or("", |bound| bound)) {
                            continue;
                        }
                        let samples = stream.counter.samples(part, grid, start_ms, end_ms);
                        if samples.is_empty() {
                            continue;
                        }
                        let mut labels = stream.labels.clone();
                        labels.insert(Arc::clone(&names.metric_name), Arc::clone(metric_name));
                        labels.insert(Arc::clone(&names.reporter), Arc::clone(reporter));
                        if let Some(bound) = bound {
                            labels.insert(Arc::clone(&names.le), Arc::clone(bound));
                        }
                        found.push(Series { labels: Arc::new(labels), samples });
                    }
                }
            }
        }
        found
    }

    fn candidates(&self, matchers: &[Matcher]) -> Vec<usize> {
        let literals =
            |label: &str| matchers.iter().filter(|matcher| matcher.name() == label).find_map(Matcher::literals);
        let namespaces = select_keys(&self.by_workload, literals("destination_workload_namespace"));
        let workloads = literals("destination_workload");
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

#[derive(Clone, Copy, Debug)]
enum Metric {
    Requests,
    DurationBucket,
    DurationSum,
    DurationCount,
}

impl Metric {
    const ALL: [Self; 4] = [Self::Requests, Self::DurationBucket, Self::DurationSum, Self::DurationCount];

    /// The series of this metric: what each counts, and its bucket's bound.
    fn parts(self) -> Vec<(Part, Option<&'static Arc<str>>)> {
        match self {
            Self::Requests | Self::DurationCount => vec![(Part::Count, None)],
            Self::DurationSum => vec![(Part::SumMs, None)],
            Self::DurationBucket => {
                let bounds = NAMES.bounds.iter().enumerate();
                bounds.map(|(index, bound)| (Part::Bucket(index), Some(bound))).collect()
            }
        }
    }
}

/// The strings that every series shares.
struct Names {
    metric_name: Arc<str>,
    metrics: [Arc<str>; 4],
    reporter: Arc<str>,
    destination: Arc<str>,
    source: Arc<str>,
    le: Arc<str>,
    bounds: Vec<Arc<str>>,
    /// The other labels, in the order of the values in [`labels`].
    others: [Arc<str>; 10],
    http: Arc<str>,
    gateway: Arc<str>,
    gateway_namespace: Arc<str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    metric_name: METRIC_NAME.into(),
    metrics: [
        "istio_requests_total".into(),
        "istio_request_duration_milliseconds_bucket".into(),
        "istio_request_duration_milliseconds_sum".into(),
        "istio_request_duration_milliseconds_count".into(),
    ],
    reporter: "reporter".into(),
    destination: "destination".into(),
    source: "source".into(),
    le: "le".into(),
    bounds: BUCKET_BOUNDS_MS.iter().map(|bound| bound.to_string().into()).chain(["+Inf".into()]).collect(),
    others: [
        "destination_service".into(),
        "destination_service_name".into(),
        "destination_service_namespace".into(),
        "destination_workload".into(),
        "destination_workload_namespace".into(),
        "request_protocol".into(),
        "response_code".into(),
        "response_flags".into(),
        "source_workload".into(),
        "source_workload_namespace".into(),
    ],
    http: "http".into(),
    gateway: GATEWAY.into(),
    gateway_namespace: "istio-system".into(),
});

/// Users come through the ingress gateway, whose proxy reports as the source.
const GATEWAY: &str = "istio-ingressgateway";

fn labels(key: &StreamKey) -> Labels {
    let names = &*NAMES;
    let values: [Arc<str>; 10] = [
        key.service.host().into(),
        key.service.name.as_str().into(),
        key.service.namespace.as_str().into(),
        key.workload.name.as_str().into(),
        key.workload.namespace.as_str().into(),
        Arc::clone(&names.http),
        key.response_code.to_string().into(),
        key.response_flags.into(),
        Arc::clone(&names.gateway),
        Arc::clone(&names.gateway_namespace),
    ];
    names.others.iter().cloned().zip(values).collect()
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
        let mut streams = Streams::new(5_000);
        for index in 0..1_000 {
            for suffix in ["", "-primary"] {
                let workload = ServiceKey::new(&format!("team-{}", index % 10), &format!("app-{index}{suffix}"));
                let key = StreamKey {
                    service: workload.clone(),
                    workload: workload.clone(),
                    response_code: 200,
                    response_flags: "-",
                };
                streams.set_rate(0, &key, &workload, Some(Totals::new(20.0, LATENCY)));
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
        let looked_at = |matchers: &[Matcher]| streams.candidates(matchers).len();
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
            streams.select(&matchers, 0, 60_000).len()
        };
        let equal = |name, value| matcher(name, MatchOperator::Equal, value);
        // Two reporters with one counter and a histogram of 20 buckets, sum and count each.
        assert_eq!(selected(&[]), 2 * 23);
        assert_eq!(selected(&[equal("reporter", "source")]), 23);
        assert_eq!(selected(&[equal("__name__", "istio_request_duration_milliseconds_bucket"), equal("le", "25")]), 2);
        assert_eq!(selected(&[equal("le", "")]), 2 * 3);
        assert_eq!(selected(&[equal("response_code", "500")]), 0);
        assert_eq!(selected(&[matcher("response_code", MatchOperator::NotRegex, "5.*")]), 2 * 23);
        assert_eq!(selected(&[equal("destination_workload", "app-17-primary")]), 0, "contradicts the other matcher");
        assert_eq!(selected(&[equal("no_such_label", "x")]), 0);
    }
}
