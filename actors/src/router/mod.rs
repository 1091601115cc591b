//! The router: every write to the cluster, serialised per object.

mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message, Supervised};
use aviary_crds::Phase;
use aviary_providers::ObjectKey;
use aviary_rollout::{Decision, Effect, Message as Note};
use futures::FutureExt;
use kube::Client;

use crate::cache::Cache;
use crate::lifetime::Lifetime;
use crate::messages::{EffectOutcome, Lane, Reply, Write, WriteError, WriteOrder};
use crate::metrics::Metrics;
use crate::queue::{Queue, Slots, Taken, Waiting};
use write::Doubts;

/// Writes under way at once. An API server serves each in some milliseconds, so 32 keep up with thousands of canaries
/// (Flagger's default client limit is 100 a second), and stay well below the concurrency that API priority and fairness
/// grants a single client.
const MAX_IN_FLIGHT: usize = 32;
/// Of them, those that only rollbacks get: where four namespaces hang at once, users of the others are still protected.
const KEPT_FOR_ROLLBACKS: usize = 4;
/// Writes of one namespace under way at once. Its webhooks, or its quota, may make each take half a minute: a quarter of the
/// slots, so that the others hardly notice, and at some milliseconds each still more than a thousand writes a second.
const MAX_OF_NAMESPACE: usize = 8;
/// What a namespace may have beside those for its rollbacks: they are not to wait for its own slow writes either.
const ROLLBACKS_OF_NAMESPACE: usize = 4;

/// Writes to the cluster, one at a time for each object, different objects side by side.
pub(crate) struct Router {
    client: Client,
    cache: Arc<Cache>,
    metrics: Metrics,
    lifetime: Lifetime,
    doubts: Arc<Doubts>,
    queue: Queue<Job>,
}

struct Job {
    canary: ObjectKey,
    write: WriteOrder,
    reply: Reply,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Finished {
    taken: Taken,
    result: Result<(), WriteError>,
    reply: Reply,
}

impl Router {
    /// A router with nothing to do.
    pub(crate) fn new(client: Client, cache: Arc<Cache>, metrics: Metrics, lifetime: Lifetime) -> Router {
        Router { client, cache, metrics, lifetime, doubts: Arc::default(), queue: Queue::new(slots) }
    }

    fn start_waiting(&mut self, context: &mut Context<Self>) {
        while let Some((job, taken)) = self.queue.pop() {
            let router = context.address();
            let (client, cache, doubts) = (self.client.clone(), self.cache.clone(), self.doubts.clone());
            let Job { canary, write, reply } = job;
            self.lifetime.spawn(async move {
                let writing = AssertUnwindSafe(write::execute(client, cache, doubts, canary, write)).catch_unwind();
                let result = writing.await.unwrap_or_else(|_| Err(WriteError::Failed("the write panicked".to_owned())));
                router.do_send(Finished { taken, result, reply });
            });
        }
        self.metrics.router_queue.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        self.metrics.router_in_flight.set(i64::try_from(self.queue.in_flight()).unwrap_or(i64::MAX));
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
        let Finished { taken, result, reply } = finished;
        self.queue.release(taken);
        reply.send(EffectOutcome::Written(result));
        self.start_waiting(context);
    }
}

fn slots(lane: Lane) -> Slots {
    match lane {
        Lane::Rollback => Slots { total: MAX_IN_FLIGHT, of_namespace: MAX_OF_NAMESPACE + ROLLBACKS_OF_NAMESPACE },
        Lane::Promotion | Lane::Advance | Lane::Upkeep => {
            Slots { total: MAX_IN_FLIGHT - KEPT_FOR_ROLLBACKS, of_namespace: MAX_OF_NAMESPACE }
        }
    }
}

/// The lane of a step's writes: by the phase that it leads to, unless it leads users away from pods that are gone.
pub(crate) fn lane_of(decision: &Decision) -> Lane {
    let saves_users = |effect: &Effect| matches!(effect, Effect::Emit(Note::CanaryUnavailable { .. }));
    if decision.effects.iter().any(saves_users) {
        return Lane::Rollback;
    }
    match decision.next.phase {
        Phase::Failed => Lane::Rollback,
        Phase::Promoting | Phase::Finalising | Phase::Succeeded => Lane::Promotion,
        Phase::Progressing | Phase::WaitingPromotion | Phase::Waiting => Lane::Advance,
        Phase::Uninitialized | Phase::Initializing | Phase::Initialized | Phase::Terminating | Phase::Terminated => {
            Lane::Upkeep
        }
    }
}

#[cfg(test)]
mod tests {
    use aviary_rollout::{Split, State, Wake};

    use super::*;

    #[test]
    fn users_of_dead_pods_are_as_urgent_as_a_rollback() {
        let state = State { phase: Phase::Progressing, ..State::default() };
        let repair = |note| Decision {
            effects: vec![Effect::SetTraffic(Split::PRIMARY), Effect::Emit(note)],
            next: state.clone(),
            wake: Wake::OnChange,
            hold: None,
        };
        let canary = "podinfo.test".to_owned();
        assert_eq!(lane_of(&repair(Note::CanaryUnavailable { canary: canary.clone() })), Lane::Rollback);
        assert_eq!(lane_of(&repair(Note::WeightsRepaired { canary, found: 30, weight: 20 })), Lane::Advance);
    }
}
