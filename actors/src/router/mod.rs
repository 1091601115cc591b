//! The router: every write to the cluster, serialised per object.

mod queue;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message, Supervised};
use aviary_providers::ObjectKey;
use futures::FutureExt;
use kube::Client;

use crate::cache::Cache;
use crate::lifetime::Lifetime;
use crate::messages::{EffectOutcome, Lane, Reply, Write, WriteError, WriteOrder};
use crate::metrics::Metrics;
use queue::{Queue, Waiting};
use write::Doubts;

/// Writes under way at once. An API server serves each in some milliseconds, so 32 keep up with thousands of canaries
/// (Flagger's default client limit is 100 a second), and stay well below the concurrency that API priority and fairness
/// grants a single client.
const MAX_IN_FLIGHT: usize = 32;

/// Writes to the cluster, one at a time for each object, different objects side by side.
pub(crate) struct Router {
    client: Client,
    cache: Arc<Cache>,
    metrics: Metrics,
    lifetime: Lifetime,
    doubts: Arc<Doubts>,
    queue: Queue<Job>,
    in_flight: usize,
}

struct Job {
    canary: ObjectKey,
    write: WriteOrder,
    reply: Reply,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Finished {
    objects: Vec<ObjectKey>,
    result: Result<(), WriteError>,
    reply: Reply,
}

impl Router {
    /// A router with nothing to do.
    pub(crate) fn new(client: Client, cache: Arc<Cache>, metrics: Metrics, lifetime: Lifetime) -> Router {
        Router { client, cache, metrics, lifetime, doubts: Arc::default(), queue: Queue::default(), in_flight: 0 }
    }

    fn start_waiting(&mut self, context: &mut Context<Self>) {
        while self.in_flight < MAX_IN_FLIGHT {
            let Some(Waiting { objects, job, .. }) = self.queue.pop() else { break };
            self.in_flight += 1;
            let router = context.address();
            let (client, cache, doubts) = (self.client.clone(), self.cache.clone(), self.doubts.clone());
            let Job { canary, write, reply } = job;
            self.lifetime.spawn(async move {
                let writing = AssertUnwindSafe(write::execute(client, cache, doubts, canary, write)).catch_unwind();
                let result = writing.await.unwrap_or_else(|_| Err(WriteError::Failed("the write panicked".to_owned())));
                router.do_send(Finished { objects, result, reply });
            });
        }
        self.metrics.router_queue.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        self.metrics.router_in_flight.set(i64::try_from(self.in_flight).unwrap_or(i64::MAX));
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Supervised for Router {}

impl Handler<Write> for Router {
    type Result = ();

    fn handle(&mut self, order: Write, context: &mut Context<Self>) {
        let Write { canary, lane, write, reply } = order;
        let canary = canary.key();
        let namespace = canary.namespace.clone();
        let objects = match &write {
            WriteOrder::Changes(changes) => changes.iter().map(|change| change.key.clone()).collect(),
            WriteOrder::Status(_) => vec![canary.clone()],
            WriteOrder::Refresh(objects) => objects.clone(),
        };
        self.queue.push(Waiting { namespace, lane, objects, job: Job { canary, write, reply } });
        self.start_waiting(context);
    }
}

impl Handler<Finished> for Router {
    type Result = ();

    fn handle(&mut self, finished: Finished, context: &mut Context<Self>) {
        let Finished { objects, result, reply } = finished;
        self.queue.release(&objects);
        self.in_flight -= 1;
        reply.send(EffectOutcome::Written(result));
        self.start_waiting(context);
    }
}

/// The lane of a write that leads to this phase.
pub(crate) fn lane_for(next: aviary_crds::Phase) -> Lane {
    use aviary_crds::Phase;
    match next {
        Phase::Failed => Lane::Rollback,
        Phase::Promoting | Phase::Finalising | Phase::Succeeded => Lane::Promotion,
        Phase::Progressing | Phase::WaitingPromotion | Phase::Waiting => Lane::Advance,
        Phase::Uninitialized | Phase::Initializing | Phase::Initialized | Phase::Terminating | Phase::Terminated => {
            Lane::Upkeep
        }
    }
}
