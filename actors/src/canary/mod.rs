//! The actor of one canary: looks, decides, and hands effects to the shared actors, one at a time.
//!
//! It owns its timer and its state and nothing else. Everything it knows comes from the caches and can be rebuilt from
//! them at any time; that is what a restart does.

mod ask;
mod doubts;
mod knowledge;
mod rivals;
mod run;
mod set_back;
mod telling;
mod upkeep;

pub(crate) use knowledge::understand;
pub(crate) use run::with_complaint;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, SpawnHandle, Supervised};
use aviary_crds::Phase;
use aviary_crds::validated::WebhookType;
use aviary_providers::{ObjectKey, Subject, finalizer};
use aviary_rollout::{Answers, Decision, Effect, ServingSince, Wake, decide, invariants};
use jiff::Timestamp;
use kube::core::DynamicObject;

use crate::cache::{Lookups, Seen, version};
use crate::deps::Deps;
use crate::messages::{
    CanaryId, CanaryView, ChildRecovered, ChildRestarted, ChildRetired, Describe, EffectDone, Epoch, Nudge, Observed,
    Retire,
};
use crate::patience::Patience;
use crate::retry::Retry;
use crate::snapshot::{Circumstances, Routing, generations, look, serving_since};
use ask::Asking;
use knowledge::Knowledge;
use run::{Run, is_upkeep};
use telling::HoldEpisode;
use upkeep::Upkeep;

/// First and longest wait after a write that failed. The first is short because most failures are a hiccup; the longest
/// is what a person who has just repaired something is ready to wait.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Steps and questions in a row, without a moment in which there is nothing to do. The longest row is a bootstrap or a
/// promotion whose pods are ready at once, about ten; twice that means that an effect does not take hold.
const MAX_SPINS: u32 = 20;
/// Steps in a row that somebody else's writes were faster than, before the next one waits as after a failure. Each step
/// tries its status four times; whoever outpaces five of them writes all the time.
const MAX_OUTPACED: u32 = 5;

/// What is told when an actor that was asked died over it.
const LOST: &str = "a part of the controller failed; see its log";
/// What is told when another writer undoes every repair.
const FOUGHT_OVER: &str =
    "objects of this canary are changed by another writer again and again; repairing them once a minute";

/// The supervisor, as its children see it.
#[derive(Clone)]
pub(crate) struct Parent {
    /// Hears of a restart.
    pub restarted: Recipient<ChildRestarted>,
    /// Hears of a recovery.
    pub recovered: Recipient<ChildRecovered>,
    /// Hears of a retirement.
    pub retired: Recipient<ChildRetired>,
}

/// The actor of one canary.
pub(crate) struct CanaryActor {
    id: CanaryId,
    deps: Deps,
    parent: Parent,
    /// Cleared before each look, so that a change during it wakes the actor again.
    nudged: Arc<AtomicBool>,
    interests: BTreeSet<ObjectKey>,
    knowledge: Knowledge,
    answers: Answers,
    epoch: Epoch,
    run: Option<Run>,
    asking: Option<Asking>,
    upkeep: Upkeep,
    routing: Option<Routing>,
    /// Since when the sides have had available pods, as seen last.
    serving_since: Option<ServingSince>,
    patience: Patience,
    timer: Option<SpawnHandle>,
    next_wake: Option<Timestamp>,
    hold: Option<HoldEpisode>,
    retry: Retry,
    retry_at: Option<Timestamp>,
    /// A change of something looked at ends the wait for `retry_at` from then on.
    hurry_from: Option<Timestamp>,
    last_failure: Option<String>,
    /// Other canaries of the same target that were told of.
    rivals: BTreeSet<String>,
    /// Queries that were looked at for what their author would not want.
    doubted: BTreeSet<String>,
    /// Why the target is left to another canary.
    yields: Option<String>,
    spins: u32,
    /// Steps in a row that ended because somebody else wrote the object meanwhile.
    outpaced: u32,
    /// What was told by steps that were not completed, under the present state.
    told: Vec<Effect>,
    /// Hooks that such steps have called, and the phase that they told them.
    called: Vec<(WebhookType, Phase)>,
    after_restart: bool,
    retiring: bool,
}

impl CanaryActor {
    /// An actor that has not yet looked.
    pub(crate) fn new(id: CanaryId, deps: Deps, parent: Parent) -> CanaryActor {
        CanaryActor {
            retry: Retry::new(RETRY.0, RETRY.1, &id),
            id,
            deps,
            parent,
            nudged: Arc::default(),
            interests: BTreeSet::new(),
            knowledge: Knowledge::default(),
            answers: Answers::default(),
            epoch: Epoch::default(),
            run: None,
            asking: None,
            upkeep: Upkeep::default(),
            routing: None,
            serving_since: None,
            patience: Patience::default(),
            timer: None,
            next_wake: None,
            hold: None,
            retry_at: None,
            hurry_from: None,
            last_failure: None,
            rivals: BTreeSet::new(),
            doubted: BTreeSet::new(),
            yields: None,
            spins: 0,
            outpaced: 0,
            told: Vec::new(),
            called: Vec::new(),
            after_restart: false,
            retiring: false,
        }
    }

    fn key(&self) -> ObjectKey {
        self.id.key()
    }

    /// One look and what follows from it. Does nothing while effects are in flight; their end looks again.
    fn step(&mut self, context: &mut Context<Self>) {
        if self.run.is_some() {
            return;
        }
        self.disarm(context);
        if self.retiring {
            self.retire(context);
            return;
        }
        self.nudged.store(false, Ordering::Release);
        if let Some(fault) = &self.deps.fault {
            fault(&self.id);
        }
        let now = self.deps.clock.now();
        self.forget_the_future(now);
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            self.arm(at, now, context);
            return;
        }
        self.retry_at = None;
        // A canary that is gone is retired by the supervisor.
        let Some(object) = self.deps.cache.get(&self.key()) else { return };
        self.look_and_decide(&object, now, context);
        if self.after_restart && self.run.is_none() {
            self.after_restart = false;
            self.parent.recovered.do_send(ChildRecovered(self.id.clone()));
        }
    }

    fn look_and_decide(&mut self, object: &DynamicObject, now: Timestamp, context: &mut Context<Self>) {
        let started = std::time::Instant::now();
        let deps = self.deps.clone();
        if self.knowledge.is_about_another(object) {
            self.void_answers();
            self.hold = None;
        }
        let news = self.knowledge.learn(self.id.kind, object, &deps.settings, &deps.metrics);
        if news.answers_are_void {
            self.void_answers();
            self.told.clear();
            self.called.clear();
        }
        if let Some((before, now_called)) = news.renamed {
            self.emit(rivals::renamed(&before, &now_called), object, now);
        }
        self.compare_with_rivals(object, now);
        let phase = self.knowledge.state().map_or("", |state| state.phase.as_str());
        let CanaryId { namespace, name, .. } = &self.id;
        let _step = tracing::info_span!("canary.step", namespace, name, phase, epoch = self.epoch.0).entered();
        let lookups = Lookups::new(&deps.cache);
        let decision = match self.knowledge.understood() {
            Err(refusal) => Err(refusal.to_owned()),
            Ok((understood, state)) if self.yields.is_none() => {
                let cookies = understood.plan.cookies(state);
                let subject = Subject {
                    canary: &understood.canary,
                    settings: &deps.settings.providers,
                    objects: &lookups,
                    cookies: cookies.as_ref(),
                };
                let around = Circumstances {
                    now,
                    deleting: object.metadata.deletion_timestamp.is_some(),
                    has_finalizer: finalizer::is_on(object),
                    state,
                    answers: &self.answers,
                    asking: self.asking.as_ref().map(|asking| asking.question),
                    repairs_paused: self.upkeep.is_paused(now),
                };
                let mut seen = look(understood, &subject, &deps.cache, &around);
                let routing = Routing::of(&seen, self.routing.as_ref());
                seen.routed_since = routing.since();
                self.routing = Some(routing);
                seen.serving_since = serving_since(&seen, self.serving_since, &understood.plan, state);
                self.serving_since = Some(seen.serving_since);
                if understood.target.waits_by_canary_deadline() {
                    let deadline = understood.canary.progress_deadline;
                    self.patience.limit(&mut seen, generations(understood, &subject), deadline);
                }
                let decision = decide(&understood.plan, state, &seen);
                for violation in invariants::violations(&understood.plan, state, &seen, &decision) {
                    deps.metrics.violations.with_label_values(&[violation.name()]).inc();
                    tracing::error!(canary = %self.id, invariant = violation.name(), ?decision, "decision breaks an invariant");
                }
                let weights = seen.traffic.as_ref().and_then(|traffic| traffic.as_ref().ok());
                deps.recorder.do_send(Observed {
                    canary: self.id.clone(),
                    target: understood.canary.target.name.clone(),
                    primary: understood.canary.target.primary_name(),
                    status: status_gauge(state.phase),
                    weights: weights.map(|split| (split.canary, split.primary)),
                });
                Ok(decision)
            }
            Ok(_) => Err(self.yields.clone().unwrap_or_default()),
        };
        deps.metrics.decision_duration.observe(started.elapsed().as_secs_f64());
        self.update_interests(lookups.into_seen(), object);
        match decision {
            Ok(decision) => self.follow(decision, object, now, context),
            Err(refusal) => self.refuse(object, &refusal, now, context),
        }
    }

    /// Follows a decision: starts its effects, or waits.
    fn follow(&mut self, decision: Decision, object: &DynamicObject, now: Timestamp, context: &mut Context<Self>) {
        // A step in between (a question asked, a status written) does not end an episode of holding; doing nothing does.
        if decision.effects.is_empty() {
            self.spins = 0;
            let wake = self.note_hold(decision.hold, decision.wake, object, now);
            let wake = wake.or_at(self.upkeep.paused_until(now));
            if let Wake::At(at) = wake {
                self.arm(at, now, context);
            }
            return;
        }
        self.spins += 1;
        if self.spins > MAX_SPINS {
            tracing::error!(canary = %self.id, effects = ?decision.effects, "the same step again and again");
            self.fail("an effect does not take hold; see the log of the controller".to_owned(), object, now, context);
            // It is its own changes that wake it.
            self.hurry_from = None;
            return;
        }
        if let [Effect::Ask(question)] = decision.effects[..] {
            self.ask(question, context);
            return;
        }
        let is_upkeep = self.knowledge.state().is_some_and(|state| is_upkeep(state, &decision));
        if is_upkeep && !self.upkeep.may_repair(now) {
            self.rest_repairs(FOUGHT_OVER.to_owned(), object, now, context);
            return;
        }
        self.start_run(Run::new(decision, is_upkeep), context);
    }

    /// Something failed: tell it once, and try again later.
    fn fail(&mut self, text: String, object: &DynamicObject, now: Timestamp, context: &mut Context<Self>) {
        if self.run.take().is_some_and(|run| run.is_upkeep) {
            return self.rest_repairs(text, object, now, context);
        }
        self.spins = 0;
        let wait = self.retry.next_delay();
        let at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        self.retry_at = Some(at);
        self.hurry_from = now.checked_add(RETRY.0).ok();
        self.tell_failure(text, object, now);
        self.arm(at, now, context);
    }

    /// Somebody else wrote what the step was to write. It is decided anew, and that says nothing about its effects. A writer
    /// who is always faster is given some time, in silence: it is nobody's fault.
    fn was_outpaced(&mut self, now: Timestamp, context: &mut Context<Self>) {
        self.spins = self.spins.saturating_sub(1);
        self.outpaced += 1;
        if self.outpaced < MAX_OUTPACED {
            context.notify(Nudge);
            return;
        }
        self.outpaced = 0;
        let at = now.checked_add(self.retry.next_delay()).unwrap_or(Timestamp::MAX);
        self.retry_at = Some(at);
        // It is the changes of the other writer that would wake it.
        self.hurry_from = None;
        self.arm(at, now, context);
    }

    /// A repair was refused, or is undone again and again. It rests for a while; what keeps users safe goes on.
    fn rest_repairs(&mut self, text: String, object: &DynamicObject, now: Timestamp, context: &mut Context<Self>) {
        let rest = self.retry.next_delay().max(upkeep::SHORTEST_REST);
        self.upkeep.rest_until(now.checked_add(rest).unwrap_or(Timestamp::MAX));
        self.tell_failure(text, object, now);
        context.notify(Nudge);
    }

    fn update_interests(&mut self, mut seen: Seen, object: &DynamicObject) {
        seen.insert(self.key(), Some(version(object)));
        if seen.keys().eq(&self.interests) {
            return;
        }
        if self.deps.cache.watch_for(&self.id, &self.interests, &seen) {
            self.deps.cache.wake_canary(&self.id);
        }
        self.interests = seen.into_keys().collect();
    }

    fn arm(&mut self, at: Timestamp, now: Timestamp, context: &mut Context<Self>) {
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        self.next_wake = Some(at);
        self.timer = Some(context.run_later(self.deps.clock.timer(wait), |actor, context| {
            actor.timer = None;
            actor.next_wake = None;
            actor.step(context);
        }));
    }

    fn disarm(&mut self, context: &mut Context<Self>) {
        self.next_wake = None;
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
    }

    fn retire(&mut self, context: &mut Context<Self>) {
        self.deps.cache.unregister(&self.id, &std::mem::take(&mut self.interests));
        self.knowledge.forget(&self.deps.metrics);
        self.parent.retired.do_send(ChildRetired(self.id.clone()));
        context.stop();
    }
}

/// Flagger's gauge: 0 progressing, 2 failed, 1 everything else.
fn status_gauge(phase: Phase) -> i64 {
    match phase {
        Phase::Progressing => 0,
        Phase::Failed => 2,
        Phase::Uninitialized
        | Phase::Initializing
        | Phase::Initialized
        | Phase::Waiting
        | Phase::WaitingPromotion
        | Phase::Promoting
        | Phase::Finalising
        | Phase::Succeeded
        | Phase::Terminating
        | Phase::Terminated => 1,
    }
}

impl Actor for CanaryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.nudged = self.deps.cache.register(&self.id, context.address().recipient());
        context.notify(Nudge);
    }
}

impl Supervised for CanaryActor {
    /// A new life: nothing is kept but the count of epochs, so that answers to the old one are told apart.
    fn restarting(&mut self, _: &mut Context<Self>) {
        let interests = std::mem::take(&mut self.interests);
        self.deps.cache.unregister(&self.id, &interests);
        self.knowledge.forget(&self.deps.metrics);
        self.parent.restarted.do_send(ChildRestarted(self.id.clone()));
        let fresh = CanaryActor::new(self.id.clone(), self.deps.clone(), self.parent.clone());
        let epoch = Epoch(self.epoch.0 + 1);
        *self = CanaryActor { epoch, after_restart: true, retiring: self.retiring, ..fresh };
    }
}

impl Handler<Nudge> for CanaryActor {
    type Result = ();

    fn handle(&mut self, _: Nudge, context: &mut Context<Self>) {
        if let (Some(at), Some(earliest)) = (self.retry_at, self.hurry_from) {
            self.retry_at = Some(at.min(earliest));
        }
        self.step(context);
    }
}

impl Handler<EffectDone> for CanaryActor {
    type Result = ();

    fn handle(&mut self, done: EffectDone, context: &mut Context<Self>) {
        if self.run.as_ref().is_some_and(|run| run.epoch == done.epoch) {
            self.effect_done(done.outcome, context);
        } else if self.asking.as_ref().is_some_and(|asking| asking.epoch == done.epoch) {
            self.answered(done.outcome, context);
        }
    }
}

impl Handler<Retire> for CanaryActor {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Context<Self>) {
        self.retiring = true;
        self.step(context);
    }
}

impl Handler<Describe> for CanaryActor {
    type Result = actix::MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Context<Self>) -> Self::Result {
        let (phase, canary_weight, failed_checks) = self
            .knowledge
            .state()
            .map_or((Phase::default(), 0, 0), |state| (state.phase, state.canary_weight, state.failed_checks));
        let failure = self.last_failure.clone().filter(|_| self.retry_at.is_some());
        let hold = self.hold.as_ref().map(|episode| episode.hold.message.to_string());
        actix::MessageResult(CanaryView {
            canary: self.id.clone(),
            phase: phase.to_string(),
            canary_weight,
            failed_checks,
            epoch: self.epoch,
            busy: self.run.is_some() || self.asking.is_some(),
            waiting_for: failure.or(hold),
            next_wake: self.next_wake,
            refused: self.knowledge.understood().err().or(self.yields.as_deref()).map(ToOwned::to_owned),
        })
    }
}
