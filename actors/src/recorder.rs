//! The recorder: Kubernetes events and the metrics of canaries.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture, Supervised};
use aviary_crds::names::EVENT_REASON;
use aviary_crds::validated::AlertSeverity;
use aviary_rollout::Outcome;
use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::dialects;
use crate::lifetime::Lifetime;
use crate::messages::{CanaryGone, CanaryId, EventSubject, Measured, Observed, Record, RoundTook, RunEnded, WriteOut};
use crate::metrics::Metrics;
use crate::retry::Retry;

/// Events that may wait for the API server: a minute of what a thousand busy canaries say. More are dropped and counted;
/// the log has them all.
const QUEUE: usize = 10_000;
/// Workers that write events. Events of one canary always go through one of them, so they stay in order.
const WORKERS: usize = 8;
/// An event that takes longer to write is given up: as long as any other write, so that one lost connection does not hold up
/// the events of other canaries for longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// An event that repeats within this time raises the count of the first one, as `kubectl describe` shows it.
const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Events remembered for that, for each worker. Beyond it the oldest are forgotten and a repetition is a new event.
const REMEMBERED: usize = 2_000;

/// Tries to record an event while the API server is away, and first and longest wait in between: a minute and a half in
/// all, as long as the API server of a cluster without a spare one takes for an upgrade. (client-go: 12 tries as well.)
const TRIES: u32 = 12;
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Events that are forbidden are tried again until they have been for this long: an API server that was started anew knows
/// nobody's roles yet and forbids everything to everybody, for about a second. Where the right is missing, the worker waits
/// this long once for each namespace, and never again until the right is there.
const REFUSAL_DOUBTED: Duration = Duration::from_secs(10);

/// What a worker does.
enum Job {
    Record(Record),
    /// Answer; everything before is done then.
    Acknowledge(oneshot::Sender<()>),
}

/// Records events and keeps the gauges and counters of canaries.
pub(crate) struct Recorder {
    workers: Vec<mpsc::Sender<Job>>,
    metrics: Metrics,
    /// Target and metric names with a series, for each canary.
    series: BTreeMap<CanaryId, Series>,
    totals: BTreeMap<String, BTreeSet<CanaryId>>,
}

#[derive(Default)]
struct Series {
    target: String,
    primary: String,
    metrics: BTreeSet<String>,
}

impl Recorder {
    /// A recorder; its workers run on the current runtime.
    pub(crate) fn new(client: &Client, metrics: Metrics, lifetime: &Lifetime) -> Recorder {
        let workers = (0..WORKERS)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(QUEUE / WORKERS);
                let worker = Worker {
                    client: client.clone(),
                    metrics: metrics.clone(),
                    recent: HashMap::new(),
                    created: 0,
                    refused_since: HashMap::new(),
                };
                lifetime.spawn(worker.run(receiver));
                sender
            })
            .collect();
        Recorder { workers, metrics, series: BTreeMap::new(), totals: BTreeMap::new() }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

impl Supervised for Recorder {}

impl Handler<Record> for Recorder {
    type Result = ();

    fn handle(&mut self, record: Record, _: &mut Context<Self>) {
        let canary = record.about.canary.to_string();
        match record.note.severity() {
            AlertSeverity::Error => tracing::error!(canary, "{}", record.note),
            AlertSeverity::Info | AlertSeverity::Warn => tracing::info!(canary, "{}", record.note),
        }
        let worker = hash(&record.about.canary) % self.workers.len().max(1);
        let sent = self.workers.get(worker).is_some_and(|worker| worker.try_send(Job::Record(record)).is_ok());
        match sent {
            true => self.metrics.event_queue.inc(),
            false => self.metrics.events_dropped.inc(),
        }
    }
}

fn hash(canary: &CanaryId) -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    canary.hash(&mut hasher);
    usize::try_from(hasher.finish() % 1024).unwrap_or(0)
}

#[derive(Clone)]
struct Recent {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Worker {
    client: Client,
    metrics: Metrics,
    recent: HashMap<(String, String), Recent>,
    /// Makes names of events of one instant differ.
    created: u64,
    /// Namespaces whose last event was refused, and since when they are.
    refused_since: HashMap<String, Instant>,
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let record = match job {
                Job::Record(record) => record,
                Job::Acknowledge(done) => {
                    let _ = done.send(());
                    continue;
                }
            };
            self.metrics.event_queue.dec();
            // Neither a panic nor an API server that never answers may end the events of an eighth of all canaries.
            let problem = match AssertUnwindSafe(self.write_patiently(&record)).catch_unwind().await {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => problem,
                Err(_) => "the write panicked".to_owned(),
            };
            self.metrics.events_dropped.inc();
            tracing::warn!(error = problem, "event was not recorded");
        }
    }

    /// Waits for an API server that is away: what happened meanwhile is what people will ask about.
    async fn write_patiently(&mut self, record: &Record) -> Result<(), String> {
        self.created += 1;
        let name = event_name(record, self.created);
        let mut retry = Retry::new(RETRY.0, RETRY.1, &name);
        let mut tries = 1;
        loop {
            match tokio::time::timeout(TIMEOUT, self.write(record, &name)).await {
                Ok(Ok(())) => {
                    self.refused_since.remove(&record.about.canary.namespace);
                    return Ok(());
                }
                // An earlier try arrived after all.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && tries > 1 => return Ok(()),
                Ok(Err(error)) if is_away(&error) && tries < TRIES => tokio::time::sleep(retry.next_delay()).await,
                // Nobody can read it any more: client-go, too, says this to debuggers only.
                Ok(Err(kube::Error::Api(status))) if is_of_gone_namespace(&status) => {
                    tracing::debug!("an event was not recorded: {}", status.message);
                    return Ok(());
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 403 && self.doubts_refusal(record) => {
                    tokio::time::sleep(retry.next_delay()).await;
                }
                Ok(Err(kube::Error::Api(status))) => return Err(status.message.clone()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("no answer from the API server within {TIMEOUT:?}")),
            }
            tries += 1;
        }
    }

    /// Whether a refusal may be that of an API server that has just been started.
    fn doubts_refusal(&mut self, record: &Record) -> bool {
        let namespace = record.about.canary.namespace.clone();
        self.refused_since.entry(namespace).or_insert_with(Instant::now).elapsed() < REFUSAL_DOUBTED
    }

    async fn write(&mut self, record: &Record, name: &str) -> kube::Result<()> {
        let at = record.at;
        let namespace = record.about.canary.namespace.clone();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let text = record.note.to_string();
        let key = (record.about.uid.clone(), text.clone());
        if let Some(recent) = self.recent.get(&key).filter(|recent| is_repeat(recent, at)).cloned() {
            let count = recent.count + 1;
            let patch = serde_json::json!({"count": count, "lastTimestamp": Time(whole(at))});
            match events.patch(&recent.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.remember(key, Recent { count, last: at, ..recent });
                    return Ok(());
                }
                // The event was deleted meanwhile (they live for an hour); record it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = event(name, &record.about, &text, record.note.severity(), at);
        let created = events.create(&PostParams::default(), &event).await?;
        if let Some(name) = created.metadata.name {
            self.remember(key, Recent { name, count: 1, last: at });
        }
        Ok(())
    }

    fn remember(&mut self, key: (String, String), recent: Recent) {
        if self.recent.len() >= REMEMBERED {
            let now = recent.last;
            self.recent.retain(|_, known| is_repeat(known, now));
            if self.recent.len() >= REMEMBERED {
                self.recent.clear();
            }
        }
        self.recent.insert(key, recent);
    }
}

/// Whether an event is refused because its namespace is going or gone.
fn is_of_gone_namespace(status: &kube::core::Status) -> bool {
    let details = status.details.as_ref();
    let is_terminating = details
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
        || (status.code == 403 && status.message.ends_with("because it is being terminated"));
    is_terminating || (status.code == 404 && details.is_some_and(|details| details.kind == "namespaces"))
}

/// Whether the API server may well take the event later. A 500 is not it: it comes from the webhook of some tenant, for
/// which the others do not wait.
fn is_away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503),
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// client-go's naming, the object and the time in hexadecimal nanoseconds; with our own name in between, because a
/// workload of the canary's name has events of its own.
fn event_name(record: &Record, number: u64) -> String {
    let nanoseconds = record.at.as_nanosecond().saturating_add(number.into());
    format!("{}.aviary.{nanoseconds:x}", record.about.canary.name)
}

fn is_repeat(recent: &Recent, at: Timestamp) -> bool {
    at.duration_since(recent.last).unsigned_abs() < REPEAT_WINDOW
}

fn whole(at: Timestamp) -> Timestamp {
    aviary_crds::status::whole_seconds(at)
}

fn event(name: &str, about: &EventSubject, text: &str, severity: AlertSeverity, at: Timestamp) -> Event {
    let time = Time(whole(at));
    let source = dialects::event_source(about.canary.kind);
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(about.canary.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(about.canary.kind.api_version()),
            kind: Some(about.canary.kind.kind.to_owned()),
            namespace: Some(about.canary.namespace.clone()),
            name: Some(about.canary.name.clone()),
            uid: Some(about.uid.clone()),
            resource_version: Some(about.resource_version.clone()),
            ..ObjectReference::default()
        },
        type_: Some(match severity {
            AlertSeverity::Info => "Normal".to_owned(),
            AlertSeverity::Warn | AlertSeverity::Error => "Warning".to_owned(),
        }),
        reason: Some(EVENT_REASON.to_owned()),
        message: Some(text.to_owned()),
        source: Some(EventSource { component: Some(source.to_owned()), ..EventSource::default() }),
        reporting_component: Some(source.to_owned()),
        first_timestamp: Some(time.clone()),
        last_timestamp: Some(time),
        count: Some(1),
        ..Event::default()
    }
}

impl Handler<WriteOut> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: WriteOut, _: &mut Context<Self>) -> Self::Result {
        let workers = self.workers.clone();
        Box::pin(async move {
            join_all(workers.iter().map(|worker| async move {
                let (sender, receiver) = oneshot::channel();
                if worker.send(Job::Acknowledge(sender)).await.is_ok() {
                    let _ = receiver.await;
                }
            }))
            .await;
        })
    }
}

impl Handler<Observed> for Recorder {
    type Result = ();

    fn handle(&mut self, seen: Observed, _: &mut Context<Self>) {
        let Observed { canary, target, primary, status, weights } = seen;
        let namespace = canary.namespace.as_str();
        self.metrics.canary_status.with_label_values(&[target.as_str(), namespace]).set(status);
        if let Some((canary_weight, primary_weight)) = weights {
            self.metrics.canary_weight.with_label_values(&[target.as_str(), namespace]).set(canary_weight.into());
            self.metrics.canary_weight.with_label_values(&[primary.as_str(), namespace]).set(primary_weight.into());
        }
        let known = self.totals.entry(canary.namespace.clone()).or_default();
        if known.insert(canary.clone()) {
            let total = i64::try_from(known.len()).unwrap_or(i64::MAX);
            self.metrics.canary_total.with_label_values(&[namespace]).set(total);
        }
        let series = self.series.entry(canary.clone()).or_default();
        if series.target != target || series.primary != primary {
            let former = std::mem::replace(series, Series { target, primary, ..Series::default() });
            let metrics: Vec<String> = former.metrics.into_iter().collect();
            self.metrics.forget(namespace, &former.target, &former.primary, &metrics);
        }
    }
}

impl Handler<Measured> for Recorder {
    type Result = ();

    fn handle(&mut self, measured: Measured, _: &mut Context<Self>) {
        let Some(series) = self.series.get_mut(&measured.canary) else { return };
        let labels = [series.target.as_str(), measured.canary.namespace.as_str(), measured.metric.as_str()];
        self.metrics.metric_analysis.with_label_values(&labels).set(measured.value);
        series.metrics.insert(measured.metric);
    }
}

impl Handler<RoundTook> for Recorder {
    type Result = ();

    fn handle(&mut self, round: RoundTook, _: &mut Context<Self>) {
        let Some(series) = self.series.get(&round.canary) else { return };
        let labels = [series.target.as_str(), round.canary.namespace.as_str()];
        self.metrics.canary_duration.with_label_values(&labels).observe(round.seconds);
    }
}

impl Handler<RunEnded> for Recorder {
    type Result = ();

    fn handle(&mut self, run: RunEnded, _: &mut Context<Self>) {
        let RunEnded { canary, target, strategy, outcome } = run;
        let (counter, status) = match outcome {
            Outcome::Completed => (&self.metrics.successes, "completed"),
            Outcome::Skipped => (&self.metrics.successes, "skipped"),
            Outcome::Failed => (&self.metrics.failures, "completed"),
        };
        counter.with_label_values(&[target.as_str(), canary.namespace.as_str(), strategy, status]).inc();
    }
}

impl Handler<CanaryGone> for Recorder {
    type Result = ();

    fn handle(&mut self, CanaryGone(canary): CanaryGone, _: &mut Context<Self>) {
        if let Some(series) = self.series.remove(&canary) {
            let metrics: Vec<String> = series.metrics.into_iter().collect();
            self.metrics.forget(&canary.namespace, &series.target, &series.primary, &metrics);
        }
        let Some(known) = self.totals.get_mut(&canary.namespace) else { return };
        known.remove(&canary);
        let total = i64::try_from(known.len()).unwrap_or(i64::MAX);
        self.metrics.canary_total.with_label_values(&[canary.namespace.as_str()]).set(total);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_a_namespace_that_goes_are_no_matter() {
        let status = |value| serde_json::from_value::<kube::core::Status>(value).unwrap();
        let message =
            "events \"a\" is forbidden: unable to create new content in namespace test because it is being terminated";
        assert!(is_of_gone_namespace(&status(
            json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": message})
        )));
        let gone = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "namespaces \"test\" not found",
            "details": {"kind": "namespaces", "name": "test"}});
        assert!(is_of_gone_namespace(&status(gone)));
        let forbidden =
            json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": "events is forbidden: no role"});
        assert!(!is_of_gone_namespace(&status(forbidden)));
    }
}
