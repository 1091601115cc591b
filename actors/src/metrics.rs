//! Prometheus metrics: Flagger's by its names and labels, and Aviary's own.
//!
//! Registered in one registry of our own; names and labels are listed in the README and asserted by a test.

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Buckets of Go's client, which Flagger's histogram uses, in seconds.
const GO_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for in-memory work, in seconds: 10 µs to 100 ms.
const FAST_BUCKETS: [f64; 9] = [1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 0.1];

/// Every metric, behind one cheap handle.
#[derive(Clone)]
pub struct Metrics(Arc<Collectors>);

impl std::ops::Deref for Metrics {
    type Target = Collectors;
    fn deref(&self) -> &Collectors {
        &self.0
    }
}

/// The collectors.
pub struct Collectors {
    registry: Registry,
    /// `flagger_info{version, mesh_provider}`.
    pub info: GaugeVec,
    /// `flagger_canary_total{namespace}`.
    pub canary_total: IntGaugeVec,
    /// `flagger_canary_status{name, namespace}`: 0 progressing, 1 fine, 2 failed. `name` is the target.
    pub canary_status: IntGaugeVec,
    /// `flagger_canary_weight{workload, namespace}`.
    pub canary_weight: IntGaugeVec,
    /// `flagger_canary_metric_analysis{name, namespace, metric}`; request-duration in seconds.
    pub metric_analysis: GaugeVec,
    /// `flagger_canary_duration_seconds{name, namespace}`: duration of one check round.
    pub canary_duration: HistogramVec,
    /// `flagger_canary_successes_total{name, namespace, deployment_strategy, analysis_status}`.
    pub successes: IntCounterVec,
    /// `flagger_canary_failures_total`, same labels.
    pub failures: IntCounterVec,

    /// `aviary_api_calls_total{verb, kind}`.
    pub api_calls: IntCounterVec,
    /// `aviary_router_queue`: writes that wait.
    pub router_queue: IntGauge,
    /// `aviary_router_in_flight`: writes under way.
    pub router_in_flight: IntGauge,
    /// `aviary_actor_restarts_total{namespace}`.
    pub restarts: IntCounterVec,
    /// `aviary_quarantined_canaries`.
    pub quarantined: IntGauge,
    /// `aviary_refused_canaries`: objects that are invalid or ask for what is not served.
    pub refused: IntGauge,
    /// `aviary_query_duration_seconds{backend}`.
    pub query_duration: HistogramVec,
    /// `aviary_queries_total{backend, result}`.
    pub queries: IntCounterVec,
    /// `aviary_decision_duration_seconds`: from wake-up to decision.
    pub decision_duration: Histogram,
    /// `aviary_invariant_violations_total{invariant}`. Anything but zero is a bug.
    pub violations: IntCounterVec,
    /// `aviary_events_dropped_total`: events that could not be recorded.
    pub events_dropped: IntCounter,
    /// `aviary_event_queue`: events that wait to be recorded.
    pub event_queue: IntGauge,
    /// `aviary_webhooks_total{type, result}`.
    pub webhooks: IntCounterVec,
    /// `aviary_alerts_total{result}`.
    pub alerts: IntCounterVec,
    /// `aviary_process_start_time_seconds`.
    pub start_time: Gauge,
    /// `leader_election_master_status{name}`, as the components of Kubernetes name it: 1 while this process leads. Without
    /// a series where there is no election.
    pub leader: IntGaugeVec,
}

/// Registers a collector; a name can only be taken twice by a programming error, which the tests would show.
fn add<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// A name is invalid or taken twice.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let r = &registry;
        let target = ["name", "namespace"];
        let run = ["name", "namespace", "deployment_strategy", "analysis_status"];
        let collectors = Collectors {
            info: add(
                r,
                GaugeVec::new(Opts::new("flagger_info", "Version and mesh provider"), &["version", "mesh_provider"]),
            )?,
            canary_total: add(
                r,
                IntGaugeVec::new(Opts::new("flagger_canary_total", "Total number of canary objects"), &["namespace"]),
            )?,
            canary_status: add(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "flagger_canary_status",
                        "Last canary analysis result: 0 running, 1 successful, 2 failed",
                    ),
                    &target,
                ),
            )?,
            canary_weight: add(
                r,
                IntGaugeVec::new(
                    Opts::new("flagger_canary_weight", "Traffic weight of a workload in percent"),
                    &["workload", "namespace"],
                ),
            )?,
            metric_analysis: add(
                r,
                GaugeVec::new(
                    Opts::new("flagger_canary_metric_analysis", "Last value of an analysed metric"),
                    &["name", "namespace", "metric"],
                ),
            )?,
            canary_duration: add(
                r,
                HistogramVec::new(
                    HistogramOpts::new("flagger_canary_duration_seconds", "Seconds spent on one canary check round")
                        .buckets(GO_BUCKETS.to_vec()),
                    &target,
                ),
            )?,
            successes: add(
                r,
                IntCounterVec::new(Opts::new("flagger_canary_successes_total", "Canary runs that were promoted"), &run),
            )?,
            failures: add(
                r,
                IntCounterVec::new(Opts::new("flagger_canary_failures_total", "Canary runs that failed"), &run),
            )?,
            api_calls: add(
                r,
                IntCounterVec::new(
                    Opts::new("aviary_api_calls_total", "Calls to the Kubernetes API"),
                    &["verb", "kind"],
                ),
            )?,
            router_queue: add(r, IntGauge::new("aviary_router_queue", "Writes that wait for their turn"))?,
            router_in_flight: add(r, IntGauge::new("aviary_router_in_flight", "Writes under way"))?,
            restarts: add(
                r,
                IntCounterVec::new(
                    Opts::new("aviary_actor_restarts_total", "Restarts of canary actors after a panic"),
                    &["namespace"],
                ),
            )?,
            quarantined: add(r, IntGauge::new("aviary_quarantined_canaries", "Canaries whose actor keeps dying"))?,
            refused: add(
                r,
                IntGauge::new(
                    "aviary_refused_canaries",
                    "Canary objects that are invalid or ask for an unsupported feature",
                ),
            )?,
            query_duration: add(
                r,
                HistogramVec::new(
                    HistogramOpts::new("aviary_query_duration_seconds", "Seconds until a metrics backend answered")
                        .buckets(GO_BUCKETS.to_vec()),
                    &["backend"],
                ),
            )?,
            queries: add(
                r,
                IntCounterVec::new(
                    Opts::new("aviary_queries_total", "Queries to metrics backends"),
                    &["backend", "result"],
                ),
            )?,
            decision_duration: add(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "aviary_decision_duration_seconds",
                        "Seconds from looking at the objects to a decision",
                    )
                    .buckets(FAST_BUCKETS.to_vec()),
                ),
            )?,
            violations: add(
                r,
                IntCounterVec::new(
                    Opts::new(
                        "aviary_invariant_violations_total",
                        "Decisions that broke an invariant; a bug if not zero",
                    ),
                    &["invariant"],
                ),
            )?,
            events_dropped: add(
                r,
                IntCounter::new("aviary_events_dropped_total", "Kubernetes events that could not be recorded"),
            )?,
            event_queue: add(r, IntGauge::new("aviary_event_queue", "Kubernetes events that wait to be recorded"))?,
            webhooks: add(
                r,
                IntCounterVec::new(Opts::new("aviary_webhooks_total", "Webhook calls"), &["type", "result"]),
            )?,
            alerts: add(r, IntCounterVec::new(Opts::new("aviary_alerts_total", "Alerts sent"), &["result"]))?,
            start_time: add(
                r,
                Gauge::new("aviary_process_start_time_seconds", "Start of the process in seconds since the epoch"),
            )?,
            leader: add(
                r,
                IntGaugeVec::new(
                    Opts::new("leader_election_master_status", "Whether this process leads: 1 if it does"),
                    &["name"],
                ),
            )?,
            registry,
        };
        Ok(Metrics(Arc::new(collectors)))
    }

    /// The exposition text.
    ///
    /// # Errors
    /// A collector holds no metric; cannot happen with the ones above.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Removes the series of a target.
    pub(crate) fn forget(&self, namespace: &str, target: &str, primary: &str, metrics: &[String]) {
        // Series that were never made are no loss.
        let _ = self.canary_status.remove_label_values(&[target, namespace]);
        let _ = self.canary_duration.remove_label_values(&[target, namespace]);
        for workload in [target, primary] {
            let _ = self.canary_weight.remove_label_values(&[workload, namespace]);
        }
        for metric in metrics {
            let _ = self.metric_analysis.remove_label_values(&[target, namespace, metric]);
        }
        for strategy in ["canary", "blue-green", "ab-testing"] {
            for status in ["completed", "skipped"] {
                let labels = [target, namespace, strategy, status];
                let _ = self.successes.remove_label_values(&labels);
                let _ = self.failures.remove_label_values(&labels);
            }
        }
    }
}
