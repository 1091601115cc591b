//! The supervisor: one child for each canary, restarted when it dies, quarantined when it keeps dying.

use std::collections::{BTreeMap, BTreeSet};

use actix::{Actor, Addr, AsyncContext, Context, Handler, ResponseFuture, Supervised};
use aviary_rollout::{DEGRADED, Message as Note};
use tokio::sync::oneshot;

use crate::canary::{CanaryActor, Parent, with_complaint};
use crate::deps::Deps;
use crate::dialects;
use crate::messages::{
    CanariesChanged, CanaryGone, CanaryId, ChildDied, ChildRecovered, ChildRestarted, ChildRetired, Describe,
    DescribeCanaries, EffectDone, Epoch, EventSubject, Lane, Lead, Record, Reply, Retire, Shutdown, Write, WriteOrder,
};
use crate::supervision::{Exit, Hurry, PanicSupervisor, RestartPolicy, Verdict};

/// Spawns, restarts and retires the actors of canaries.
pub(crate) struct Supervisor {
    deps: Deps,
    children: BTreeMap<CanaryId, Child>,
    /// With the generation that they died of.
    quarantined: BTreeMap<CanaryId, Option<i64>>,
    /// Children that have died and wait for their next life.
    dead: BTreeSet<CanaryId>,
    /// Whether this process may act.
    leads: bool,
    started: bool,
    stopping: Option<oneshot::Sender<()>>,
}

struct Child {
    address: Addr<CanaryActor>,
    hurry: Hurry,
}

impl Supervisor {
    /// A supervisor without children; they are started when the caches are complete and this process leads.
    pub(crate) fn new(deps: Deps, leads: bool) -> Supervisor {
        Supervisor {
            deps,
            children: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            dead: BTreeSet::new(),
            leads,
            started: false,
            stopping: None,
        }
    }

    fn exists(&self, canary: &CanaryId) -> bool {
        self.deps.cache.contains(&canary.key())
    }

    /// Brings all children in line, once the caches are complete and this process leads.
    fn align_all(&mut self, context: &mut Context<Self>) {
        // Deciding on half a cache would take present objects for missing ones.
        if !self.leads || !self.deps.cache.is_synced() {
            return;
        }
        self.started = true;
        let present = dialects::watched().into_iter().flat_map(|kind| self.deps.cache.names(kind));
        let known: Vec<CanaryId> = self.children.keys().cloned().collect();
        for canary in present.chain(known).collect::<BTreeSet<_>>() {
            self.align(&canary, context);
        }
    }

    /// Brings the child of one canary in line with whether the canary exists.
    fn align(&mut self, canary: &CanaryId, context: &mut Context<Self>) {
        if self.stopping.is_some() {
            return;
        }
        match (self.exists(canary), self.children.get(canary)) {
            (true, None) => self.spawn(canary.clone(), context),
            (false, Some(child)) => {
                child.address.do_send(Retire);
                // A dead actor retires in its next life, and who creates the canary anew waits for that.
                child.hurry.restart_now();
                if self.quarantined.remove(canary).is_some() {
                    self.update_quarantine();
                }
            }
            (true, Some(child)) => {
                // Somebody has edited what its actor dies of, and may have mended it.
                let generation = self.generation_of(canary);
                if let Some(died_of) = self.quarantined.get_mut(canary)
                    && *died_of != generation
                {
                    *died_of = generation;
                    child.hurry.restart_now();
                }
            }
            (false, None) => {}
        }
    }

    fn generation_of(&self, canary: &CanaryId) -> Option<i64> {
        self.deps.cache.get(&canary.key()).and_then(|object| object.metadata.generation)
    }

    fn spawn(&mut self, canary: CanaryId, context: &mut Context<Self>) {
        let supervisor = context.address();
        let parent = Parent {
            restarted: supervisor.clone().recipient(),
            recovered: supervisor.clone().recipient(),
            retired: supervisor.clone().recipient(),
        };
        let (id, deps) = (canary.clone(), self.deps.clone());
        let (address, life) = PanicSupervisor::new(|_| CanaryActor::new(id.clone(), deps, parent), {
            let id = canary.clone();
            let mut policy = RestartPolicy::new(&id);
            move |exit: &Exit| match exit {
                // It stops only when it is retired.
                Exit::Stopped => Verdict::GiveUp,
                Exit::Panicked(reason) => {
                    let delay = policy.next_delay();
                    supervisor.do_send(ChildDied {
                        canary: id.clone(),
                        reason: reason.clone(),
                        quarantined: policy.is_quarantined(),
                        deaths: policy.deaths(),
                    });
                    Verdict::Restart(delay)
                }
            }
        });
        let hurry = life.hurry();
        actix_rt::spawn(self.deps.lifetime.limit(life));
        tracing::info!(canary = %canary, "Synced {}/{}", canary.namespace, canary.name);
        self.children.insert(canary, Child { address, hurry });
    }

    fn update_quarantine(&self) {
        self.deps.metrics.quarantined.set(i64::try_from(self.quarantined.len()).unwrap_or(i64::MAX));
    }

    /// Tells that a canary's actor keeps dying.
    fn tell_quarantine(&self, died: &ChildDied) {
        let Some(object) = self.deps.cache.get(&died.canary.key()) else { return };
        let text =
            format!("Quarantined after {} failures in a row, next try in 5 minutes: {}", died.deaths, died.reason);
        self.deps.recorder.do_send(Record {
            about: EventSubject {
                canary: died.canary.clone(),
                uid: object.metadata.uid.clone().unwrap_or_default(),
                resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            },
            note: Note::Obstacle(text),
            at: self.deps.clock.now(),
        });
    }

    /// Says on the object that its actor keeps dying, unless it says so already.
    fn mark_degraded(&self, died: &ChildDied, context: &mut Context<Self>) {
        let Some(object) = self.deps.cache.get(&died.canary.key()) else { return };
        let text = format!("the controller fails on this canary and tries again every 5 minutes: {}", died.reason);
        let now = self.deps.clock.now();
        let Some(status) = with_complaint(&object, DEGRADED, "True", "ActorCrashLooping", &text, now) else { return };
        let mut object = (*object).clone();
        object.data["status"] = status;
        self.deps.router.do_send(Write {
            canary: died.canary.clone(),
            lane: Lane::Upkeep,
            write: WriteOrder::Status(Box::new(object)),
            reply: Reply::new(Epoch::default(), context.address().recipient()),
        });
    }

    /// Done when no child has anything in flight any more. A dead one has not, and may stay dead for minutes.
    fn finish_stopping(&mut self) {
        if self.children.keys().all(|canary| self.dead.contains(canary))
            && let Some(done) = self.stopping.take()
        {
            let _ = done.send(());
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Supervised for Supervisor {}

impl Handler<CanariesChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, change: CanariesChanged, context: &mut Context<Self>) {
        match change {
            CanariesChanged::One(canary) if self.started => self.align(&canary, context),
            CanariesChanged::One(_) => {}
            CanariesChanged::Listed => self.align_all(context),
        }
    }
}

impl Handler<Lead> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Lead, context: &mut Context<Self>) {
        self.leads = true;
        self.align_all(context);
    }
}

impl Handler<ChildDied> for Supervisor {
    type Result = ();

    fn handle(&mut self, died: ChildDied, context: &mut Context<Self>) {
        tracing::error!(canary = %died.canary, deaths = died.deaths, "canary actor panicked: {}", died.reason);
        self.deps.metrics.restarts.with_label_values(&[died.canary.namespace.as_str()]).inc();
        self.dead.insert(died.canary.clone());
        self.finish_stopping();
        if !died.quarantined {
            return;
        }
        let generation = self.generation_of(&died.canary);
        if self.quarantined.insert(died.canary.clone(), generation).is_none() {
            self.update_quarantine();
            self.tell_quarantine(&died);
        }
        self.mark_degraded(&died, context);
    }
}

impl Handler<ChildRestarted> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildRestarted(canary): ChildRestarted, _: &mut Context<Self>) {
        self.dead.remove(&canary);
    }
}

impl Handler<ChildRecovered> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildRecovered(canary): ChildRecovered, _: &mut Context<Self>) {
        if self.quarantined.remove(&canary).is_some() {
            tracing::info!(%canary, "canary actor has recovered");
            self.update_quarantine();
        }
    }
}

impl Handler<ChildRetired> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildRetired(canary): ChildRetired, context: &mut Context<Self>) {
        self.children.remove(&canary);
        self.dead.remove(&canary);
        self.quarantined.remove(&canary);
        self.update_quarantine();
        if self.stopping.is_some() {
            self.finish_stopping();
            return;
        }
        tracing::info!(%canary, "Deleting {canary} from cache");
        self.deps.recorder.do_send(CanaryGone(canary.clone()));
        self.deps.courier.do_send(CanaryGone(canary.clone()));
        // It may have been created again meanwhile.
        self.align(&canary, context);
    }
}

/// The answer to the write of a quarantine notice; a notice that was not written is written with the next death.
impl Handler<EffectDone> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: EffectDone, _: &mut Context<Self>) {}
}

impl Handler<Shutdown> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, _: &mut Context<Self>) -> Self::Result {
        let (sender, receiver) = oneshot::channel();
        self.stopping = Some(sender);
        self.children.values().for_each(|child| child.address.do_send(Retire));
        self.finish_stopping();
        Box::pin(async move {
            let _ = receiver.await;
        })
    }
}

impl Handler<DescribeCanaries> for Supervisor {
    type Result = actix::MessageResult<DescribeCanaries>;

    fn handle(&mut self, _: DescribeCanaries, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(
            self.children
                .iter()
                .map(|(id, child)| (id.clone(), child.address.clone().recipient::<Describe>()))
                .collect(),
        )
    }
}
