//! The recorder: Kubernetes events and the metrics of canaries.

mod events;

use std::collections::{BTreeMap, BTreeSet};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, Supervised};
use aviary_crds::validated::AlertSeverity;
use aviary_rollout::Outcome;
use kube::Client;
use tokio::sync::oneshot;

use crate::lifetime::Lifetime;
use crate::messages::{CanaryGone, CanaryId, Lane, Measured, Observed, Record, RoundTook, RunEnded, WriteOut};
use crate::metrics::Metrics;
use crate::queue::{Queue, Slots, Taken, Waiting};
use events::Writer;

/// Events that may wait for the API server: a minute of what a thousand busy canaries say. Beyond it the namespace that has
/// most of them loses its newest, which is counted; the log has them all.
const QUEUE: usize = 10_000;
/// Events that are written at once: four namespaces, or more, whose events take long do not hold up those of the others.
const MAX_IN_FLIGHT: usize = 16;
/// Of one namespace. At some milliseconds each, hundreds a second.
const MAX_OF_NAMESPACE: usize = 4;

/// An event that waits, with its number.
struct Job {
    number: u64,
    record: Record,
}

/// Records events and keeps the gauges and counters of canaries.
pub(crate) struct Recorder {
    writer: Writer,
    lifetime: Lifetime,
    queue: Queue<Job>,
    /// Events so far.
    recorded: u64,
    /// Numbers of those that are not written yet.
    unwritten: BTreeSet<u64>,
    /// Who waits for all events up to a number.
    awaiting: Vec<(u64, oneshot::Sender<()>)>,
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

#[derive(Message)]
#[rtype(result = "()")]
struct Finished {
    taken: Taken,
    number: u64,
    result: Result<(), String>,
}

fn slots(_: Lane) -> Slots {
    Slots { total: MAX_IN_FLIGHT, of_namespace: MAX_OF_NAMESPACE }
}

impl Recorder {
    /// A recorder with nothing to do.
    pub(crate) fn new(client: &Client, metrics: Metrics, lifetime: &Lifetime) -> Recorder {
        Recorder {
            writer: Writer::new(client.clone()),
            lifetime: lifetime.clone(),
            queue: Queue::new(slots),
            recorded: 0,
            unwritten: BTreeSet::new(),
            awaiting: Vec::new(),
            metrics,
            series: BTreeMap::new(),
            totals: BTreeMap::new(),
        }
    }

    fn start_waiting(&mut self, context: &mut Context<Self>) {
        while let Some((Job { number, record }, taken)) = self.queue.pop() {
            let (writer, recorder) = (self.writer.clone(), context.address());
            self.lifetime.spawn(async move {
                let result = writer.record(&record, number).await;
                recorder.do_send(Finished { taken, number, result });
            });
        }
        self.metrics.event_queue.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
    }

    /// An event is written, or lost.
    fn is_over(&mut self, number: u64) {
        self.unwritten.remove(&number);
        let first = self.unwritten.first().copied().unwrap_or(u64::MAX);
        for (_, done) in self.awaiting.extract_if(.., |(last, _)| *last < first) {
            let _ = done.send(());
        }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

impl Supervised for Recorder {}

impl Handler<Record> for Recorder {
    type Result = ();

    fn handle(&mut self, record: Record, context: &mut Context<Self>) {
        let canary = record.about.canary.to_string();
        match record.note.severity() {
            AlertSeverity::Error => tracing::error!(canary, "{}", record.note),
            AlertSeverity::Info | AlertSeverity::Warn => tracing::info!(canary, "{}", record.note),
        }
        self.recorded += 1;
        let number = self.recorded;
        self.unwritten.insert(number);
        // Events of one canary stay in order.
        let objects = vec![record.about.canary.key()];
        let namespace = record.about.canary.namespace.clone();
        self.queue.push(Waiting { namespace, lane: Lane::Upkeep, objects, job: Job { number, record } });
        if self.queue.len() > QUEUE
            && let Some(lost) = self.queue.drop_from_longest()
        {
            self.metrics.events_dropped.inc();
            self.is_over(lost.number);
        }
        self.start_waiting(context);
    }
}

impl Handler<Finished> for Recorder {
    type Result = ();

    fn handle(&mut self, finished: Finished, context: &mut Context<Self>) {
        let Finished { taken, number, result } = finished;
        self.queue.release(taken);
        if let Err(problem) = result {
            self.metrics.events_dropped.inc();
            tracing::warn!(error = problem, "event was not recorded");
        }
        self.is_over(number);
        self.start_waiting(context);
    }
}

impl Handler<WriteOut> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: WriteOut, _: &mut Context<Self>) -> Self::Result {
        let (sender, receiver) = oneshot::channel();
        match self.unwritten.is_empty() {
            true => drop(sender),
            false => self.awaiting.push((self.recorded, sender)),
        }
        Box::pin(async move {
            let _ = receiver.await;
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
