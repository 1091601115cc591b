//! The effects of one step, executed in order.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{AsyncContext, Context};
use aviary_crds::Phase;
use aviary_crds::validated::WebhookType;
use aviary_providers::{Change, Subject, finalizer};
use aviary_rollout::{ACCEPTED, Component, Decision, Effect, HookAnswer, Message as Note, Notice, State};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;

use super::{CanaryActor, LOST};
use crate::cache::Lookups;
use crate::dialects;
use crate::hooks;
use crate::messages::{
    CallHooks, EffectOutcome, Epoch, Lane, Reply, RunEnded, SendAlert, Write, WriteError, WriteOrder,
};
use crate::router::lane_of;
use crate::snapshot::{NoChanges, changes};

/// Conflicts in a row on one status write before the step is decided anew. Each means that somebody else edited the
/// object in the milliseconds between; three in a row and it is better to look again.
const STATUS_CONFLICTS: u32 = 3;

/// The effects of one step.
pub(super) struct Run {
    pub(super) epoch: Epoch,
    /// Whether it only puts right what somebody else changed.
    pub(super) is_upkeep: bool,
    /// How urgent its writes are.
    lane: Lane,
    tasks: VecDeque<Task>,
    pub(super) next: State,
    /// The status as sent.
    written: Value,
    conflicts: u32,
}

enum Task {
    Do(Effect),
    /// Tell on the object itself that it is refused.
    Complain(Value),
    /// Let go of an object that is refused.
    Release(Box<Change>),
}

impl Run {
    pub(super) fn new(decision: Decision, is_upkeep: bool) -> Run {
        let lane = lane_of(&decision);
        let tasks = decision.effects.into_iter().map(Task::Do).collect();
        Run { epoch: Epoch::default(), is_upkeep, lane, tasks, next: decision.next, written: Value::Null, conflicts: 0 }
    }

    /// The weights are in force as of now: a soak that the step starts, starts now and not when it was decided.
    fn start_soak(&mut self, present: Option<&State>, now: Timestamp) {
        let before = present.and_then(|state| state.last_step);
        if let Some(start) = &mut self.next.last_step
            && before != Some(*start)
        {
            *start = now;
        }
    }

    /// Takes our finalizer off an object that is refused.
    fn release(change: Change) -> Run {
        Run { tasks: VecDeque::from([Task::Release(Box::new(change))]), ..Run::complaint(Value::Null, "") }
    }

    /// Tells on the object, and then in an event, why it is refused.
    fn complaint(status: Value, refusal: &str) -> Run {
        Run {
            epoch: Epoch::default(),
            is_upkeep: false,
            lane: Lane::Upkeep,
            tasks: VecDeque::from([Task::Complain(status), Task::Do(Effect::Emit(Note::Obstacle(refusal.to_owned())))]),
            next: State::default(),
            written: Value::Null,
            conflicts: 0,
        }
    }
}

impl CanaryActor {
    pub(super) fn start_run(&mut self, run: Run, context: &mut Context<Self>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.run = Some(Run { epoch: self.epoch, ..run });
        self.run_next(context);
    }

    /// The object that the run is about; not another one that has its name by now.
    pub(super) fn present_object(&self) -> Option<Arc<DynamicObject>> {
        self.deps.cache.get(&self.key()).filter(|object| !self.knowledge.is_about_another(object))
    }

    fn reply(&self, context: &mut Context<Self>) -> Reply {
        let epoch = self.run.as_ref().map_or(self.epoch, |run| run.epoch);
        Reply::new(epoch, context.address().recipient())
    }

    /// Goes on with the run until an effect has to be waited for.
    fn run_next(&mut self, context: &mut Context<Self>) {
        let Some(object) = self.present_object() else {
            self.run = None;
            context.notify(crate::messages::Nudge);
            return;
        };
        loop {
            let now = self.deps.clock.now();
            let Some(run) = &self.run else { return };
            let Some(task) = run.tasks.front() else {
                self.run = None;
                self.told.clear();
                self.called.clear();
                // The next step may follow at once; other actors have their turn first.
                context.notify(crate::messages::Nudge);
                return;
            };
            let effect = match task {
                Task::Do(effect) => effect.clone(),
                Task::Release(change) => {
                    let change = (**change).clone();
                    self.send_write(WriteOrder::Changes(vec![change]), context);
                    return;
                }
                Task::Complain(status) => {
                    let status = status.clone();
                    self.write_status(&object, status, context);
                    return;
                }
            };
            match effect {
                // What a step has told is told, also if its status write has to be decided on anew.
                Effect::Emit(_) | Effect::Alert(_) | Effect::Count(_) if self.told.contains(&effect) => {}
                Effect::Emit(ref note) => {
                    self.emit(note.clone(), &object, now);
                    self.told.push(effect);
                }
                // The status follows when the alert is on its way: a process that dies in between sends it once more.
                Effect::Alert(ref notice) => {
                    let is_awaited = self.alert(notice, || Some(self.reply(context)));
                    self.told.push(effect);
                    if is_awaited {
                        return;
                    }
                }
                Effect::Count(outcome) => {
                    self.count(outcome);
                    self.told.push(effect);
                }
                // Asked beside the runs, see `ask`.
                Effect::Ask(_) => {}
                Effect::CallHooks(kind) if self.called.contains(&(kind, run.next.phase)) => {}
                Effect::CallHooks(kind) => {
                    let (phase, reply) = (run.next.phase.to_string(), self.reply(context));
                    return self.call_hooks(kind, &phase, reply);
                }
                Effect::WriteStatus => {
                    let status = self.next_status(&object);
                    self.write_status(&object, status, context);
                    return;
                }
                Effect::Apply(_)
                | Effect::SetTraffic(_)
                | Effect::ScaleTarget(_)
                | Effect::PauseScaler(_)
                | Effect::SetFinalizer(_)
                | Effect::Revert(_)
                | Effect::DeleteObject
                | Effect::Promote { .. } => {
                    match self.write_changes(&effect, context) {
                        Ok(Started::Nothing) => {}
                        Ok(Started::Write) => return,
                        Err(NoChanges::Superseded) => {
                            // The next look sees the newer revision.
                            self.run = None;
                            context.notify(crate::messages::Nudge);
                            return;
                        }
                        Err(NoChanges::Obstacle(text)) => return self.fail(text, &object, now, context),
                    }
                }
            }
            self.pop();
        }
    }

    fn go_on(&mut self, context: &mut Context<Self>) {
        self.pop();
        self.run_next(context);
    }

    fn is_alerting(&self) -> bool {
        let task = self.run.as_ref().and_then(|run| run.tasks.front());
        matches!(task, Some(Task::Do(Effect::Alert(_))))
    }

    fn pop(&mut self) {
        if let Some(run) = &mut self.run {
            run.tasks.pop_front();
        }
    }

    /// An effect of the run is done.
    pub(super) fn effect_done(&mut self, outcome: EffectOutcome, context: &mut Context<Self>) {
        let now = self.deps.clock.now();
        let Some(object) = self.present_object() else {
            self.run = None;
            return self.step(context);
        };
        match outcome {
            // An alert that went astray is no reason to do the rest again.
            EffectOutcome::Lost if self.is_alerting() => self.go_on(context),
            EffectOutcome::Lost => self.fail(LOST.to_owned(), &object, now, context),
            EffectOutcome::Told => self.go_on(context),
            EffectOutcome::Written(result) => self.written(result, &object, now, context),
            EffectOutcome::Hooks(kind, answers) => {
                self.tell_hooks(kind, answers, &object, now);
                // Whatever they have set off, a status write that fails is no reason to set it off again.
                if let Some(run) = &self.run {
                    self.called.push((kind, run.next.phase));
                }
                self.go_on(context);
            }
            // Answers to questions, which are no part of a run.
            EffectOutcome::Providers(_) | EffectOutcome::Round(_) => {}
        }
    }

    fn tell_hooks(&self, kind: WebhookType, answers: Vec<HookAnswer>, object: &DynamicObject, now: Timestamp) {
        for HookAnswer { name: hook, result } in answers {
            let note = match result {
                Ok(()) => Note::HookPassed { kind, hook },
                Err(error) => Note::PostRolloutFailed { hook, error },
            };
            self.emit(note, object, now);
        }
    }

    fn written(
        &mut self,
        result: Result<(), WriteError>,
        object: &DynamicObject,
        now: Timestamp,
        context: &mut Context<Self>,
    ) {
        let Some(run) = &mut self.run else { return };
        let task = run.tasks.front();
        let is_status = matches!(task, Some(Task::Do(Effect::WriteStatus)));
        match result {
            Ok(()) => {
                self.retry.reset();
                self.last_failure = None;
                self.outpaced = 0;
                if is_status {
                    self.knowledge.wrote(self.id.kind, object, &run.written, run.next.clone());
                    self.void_answers();
                } else if matches!(task, Some(Task::Do(Effect::SetTraffic(_)))) {
                    run.start_soak(self.knowledge.state(), now);
                }
                self.pop();
                self.run_next(context);
            }
            // Only something else about the object changed (its spec, a label): the decision stands for this state.
            Err(WriteError::Conflict)
                if is_status && run.conflicts < STATUS_CONFLICTS && self.knowledge.has_status_of(object) =>
            {
                run.conflicts += 1;
                self.run_next(context);
            }
            Err(WriteError::Conflict) => {
                if run.is_upkeep {
                    self.upkeep.was_not_made();
                }
                self.run = None;
                self.was_outpaced(now, context);
            }
            Err(WriteError::Failed(text)) => self.fail(text, object, now, context),
        }
    }

    pub(super) fn call_hooks(&self, kind: WebhookType, phase: &str, reply: Reply) {
        let Ok((known, state)) = self.knowledge.understood() else { return };
        let checksum = hooks::checksum(state.tracked_configs.as_ref(), &state.last_applied);
        self.deps.courier.do_send(CallHooks {
            canary: self.id.clone(),
            kind,
            hooks: hooks::prepare(&known.canary, kind, phase, &checksum),
            reply,
        });
    }

    /// Sends an alert, with an answer to whoever waits for it. Returns whether anything is sent; it is not where nobody
    /// wants it.
    pub(super) fn alert(&self, notice: &Notice, reply: impl FnOnce() -> Option<Reply>) -> bool {
        let Ok((known, state)) = self.knowledge.understood() else { return false };
        let lookups = Lookups::new(&self.deps.cache);
        let subject = Subject {
            canary: &known.canary,
            settings: &self.deps.settings.providers,
            objects: &lookups,
            cookies: None,
        };
        let id = notice.id(&known.plan, state);
        let alerts = hooks::prepare_alerts(&known.plan, notice, &id, &subject, self.deps.settings.notifier.as_ref());
        if alerts.is_empty() {
            return false;
        }
        let (canary, reply) = (self.id.clone(), reply());
        self.deps.courier.do_send(SendAlert { canary, severity: notice.severity, id, alerts, reply });
        true
    }

    fn count(&self, outcome: aviary_rollout::Outcome) {
        let Ok((known, _)) = self.knowledge.understood() else { return };
        self.deps.recorder.do_send(RunEnded {
            canary: self.id.clone(),
            target: known.canary.target.name.clone(),
            strategy: known.canary.strategy().as_str(),
            outcome,
        });
    }

    fn write_changes(&self, effect: &Effect, context: &mut Context<Self>) -> Result<Started, NoChanges> {
        let Ok((known, state)) = self.knowledge.understood() else { return Ok(Started::Nothing) };
        let lookups = Lookups::new(&self.deps.cache);
        let cookies = known.plan.cookies(state);
        let subject = Subject {
            canary: &known.canary,
            settings: &self.deps.settings.providers,
            objects: &lookups,
            cookies: cookies.as_ref(),
        };
        let changes = match changes(known, &subject, state.phase, effect) {
            None => return Ok(Started::Nothing),
            Some(changes) => changes?,
        };
        if changes.is_empty() {
            return Ok(Started::Nothing);
        }
        self.send_write(WriteOrder::Changes(changes), context);
        Ok(Started::Write)
    }

    /// The status that the run leads to, as JSON.
    fn next_status(&self, object: &DynamicObject) -> Value {
        let (Some(run), Ok((known, _))) = (&self.run, self.knowledge.understood()) else { return Value::Null };
        let generation = object.metadata.generation;
        let dialect = dialects::of(self.id.kind, object);
        dialect.stored(run.next.to_status(&dialect.status(object), &known.plan.target_kind, generation))
    }

    fn write_status(&mut self, object: &DynamicObject, status: Value, context: &mut Context<Self>) {
        let mut object = object.clone();
        object.data["status"] = status.clone();
        if let Some(run) = &mut self.run {
            run.written = status;
        }
        self.send_write(WriteOrder::Status(Box::new(object)), context);
    }

    fn send_write(&self, write: WriteOrder, context: &mut Context<Self>) {
        self.deps.router.do_send(Write {
            canary: self.id.clone(),
            lane: self.run.as_ref().map_or(Lane::Upkeep, |run| run.lane),
            write,
            reply: self.reply(context),
        });
    }

    /// The object is not understood: says so on it, once, and leaves it alone.
    pub(super) fn refuse(
        &mut self,
        object: &DynamicObject,
        refusal: &str,
        now: Timestamp,
        context: &mut Context<Self>,
    ) {
        self.hold = None;
        // What it took cannot be given back without being understood, and nobody asks for that any more.
        let reverts = object.data.pointer("/spec/revertOnDeletion").and_then(Value::as_bool) == Some(true);
        if object.metadata.deletion_timestamp.is_some()
            // Nor what another canary has.
            && (!reverts || self.yields.is_some())
            && let Some(change) = finalizer::change(self.key(), object, false)
        {
            return self.start_run(Run::release(change), context);
        }
        let Some(status) = with_complaint(object, ACCEPTED, "False", "Invalid", refusal, now) else { return };
        self.start_run(Run::complaint(status, refusal), context);
    }
}

/// Whether a decision only puts right what somebody else changed. While bootstrapping, applying objects is the work
/// itself, and so is the autoscaler in a promotion.
pub(super) fn is_upkeep(state: &State, decision: &Decision) -> bool {
    let promotes = decision.next.phase == Phase::Promoting;
    let writes = |effect: &Effect| match effect {
        Effect::Apply(Component::Scaler) => !promotes,
        Effect::Apply(_) | Effect::SetTraffic(_) | Effect::PauseScaler(_) => true,
        Effect::ScaleTarget(_)
        | Effect::SetFinalizer(_)
        | Effect::Revert(_)
        | Effect::DeleteObject
        | Effect::Promote { .. }
        | Effect::Ask(_)
        | Effect::CallHooks(_)
        | Effect::Emit(_)
        | Effect::Alert(_)
        | Effect::Count(_)
        | Effect::WriteStatus => false,
    };
    // Weights that were put right in an analysis begin their soak anew, and the run is where it was.
    let leads_on = decision.next.phase != state.phase
        || decision.next.position() != state.position()
        || decision.next.last_applied != state.last_applied
        || decision.next.failed_checks != state.failed_checks;
    // An autoscaler is also told together with the target, in the course of a run.
    let goes_on = |effect: &Effect| match effect {
        Effect::WriteStatus => leads_on,
        other => matches!(other, Effect::ScaleTarget(_)),
    };
    let is_at_work = matches!(decision.next.phase, Phase::Initializing | Phase::Terminating);
    !is_at_work && decision.effects.iter().any(writes) && !decision.effects.iter().any(goes_on)
}

enum Started {
    Nothing,
    Write,
}

/// The status with one more condition, or `None` if it says so already.
pub(crate) fn with_complaint(
    object: &DynamicObject,
    condition_type: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    let at = aviary_crds::status::whole_seconds(now).to_string();
    let mut stored =
        object.data.get("status").cloned().filter(Value::is_object).unwrap_or_else(|| serde_json::json!({}));
    let mut conditions = stored.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_same = |condition: &Value| {
        condition["type"] == condition_type && condition["message"] == message && condition["status"] == status
    };
    if conditions.iter().any(is_same) {
        return None;
    }
    conditions.retain(|condition| condition["type"] != condition_type);
    conditions.push(serde_json::json!({
        "type": condition_type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": at,
        "lastTransitionTime": at,
    }));
    stored["conditions"] = Value::Array(conditions);
    Some(stored)
}
