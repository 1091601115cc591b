//! The effects of one step, executed in order.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{AsyncContext, Context};
use aviary_crds::validated::WebhookType;
use aviary_providers::Subject;
use aviary_rollout::{
    ACCEPTED, Answer, Answers, Decision, Effect, HookAnswer, Message as Note, Notice, Question, RoundAnswer, State,
    providers_message,
};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::Value;

use super::CanaryActor;
use super::knowledge::status_of;
use crate::cache::Lookups;
use crate::checks;
use crate::hooks;
use crate::messages::{
    CallHooks, EffectOutcome, Epoch, ProbeBackends, Reply, RunEnded, SendAlert, TakeSamples, Write, WriteError,
    WriteOrder,
};
use crate::router::lane_for;
use crate::snapshot::{NoChanges, changes};

/// Conflicts in a row on one status write before the step is decided anew. Each means that somebody else edited the
/// object in the milliseconds between; three in a row and it is better to look again.
const STATUS_CONFLICTS: u32 = 3;

/// The effects of one step.
pub(super) struct Run {
    tasks: VecDeque<Task>,
    next: State,
    /// The status as sent.
    written: Value,
    conflicts: u32,
}

enum Task {
    Do(Effect),
    /// Tell on the object itself that it is refused.
    Complain(Value),
}

impl Run {
    pub(super) fn new(decision: Decision) -> Run {
        let tasks = decision.effects.into_iter().map(Task::Do).collect();
        Run { tasks, next: decision.next, written: Value::Null, conflicts: 0 }
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

    fn complaint(status: Value) -> Run {
        Run {
            tasks: VecDeque::from([Task::Complain(status)]),
            next: State::default(),
            written: Value::Null,
            conflicts: 0,
        }
    }
}

impl CanaryActor {
    pub(super) fn start_run(&mut self, run: Run, context: &mut Context<Self>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.run = Some(run);
        self.run_next(context);
    }

    /// The object that the run is about; not another one that has its name by now.
    fn present_object(&self) -> Option<Arc<DynamicObject>> {
        self.deps.cache.get(&self.key()).filter(|object| !self.knowledge.is_about_another(object))
    }

    fn reply(&self, context: &mut Context<Self>) -> Reply {
        Reply::new(self.epoch, context.address().recipient())
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
                // The next step may follow at once; other actors have their turn first.
                context.notify(crate::messages::Nudge);
                return;
            };
            let effect = match task {
                Task::Do(effect) => effect.clone(),
                Task::Complain(status) => {
                    let status = status.clone();
                    self.write_status(&object, status, context);
                    return;
                }
            };
            match effect {
                Effect::Emit(note) => self.emit(note, &object, now),
                Effect::Alert(notice) => self.alert(notice),
                Effect::Count(outcome) => self.count(outcome),
                Effect::Ask(question) => return self.ask(question, context),
                Effect::CallHooks(kind) => {
                    let phase = run.next.phase.to_string();
                    return self.call_hooks(kind, &phase, context);
                }
                Effect::WriteStatus => {
                    let status = self.next_status(&object);
                    self.write_status(&object, status, context);
                    return;
                }
                Effect::Apply(_) | Effect::SetTraffic(_) | Effect::ScaleTarget(_) | Effect::Promote { .. } => {
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
            EffectOutcome::Lost => {
                let text = "a part of the controller failed; see its log".to_owned();
                return self.fail(text, &object, now, context);
            }
            EffectOutcome::Written(result) => return self.written(result, &object, now, context),
            EffectOutcome::Providers(result) => {
                self.emit(providers_message(&result), &object, now);
                self.answers.providers = Some(Answer { at: now, value: result });
            }
            EffectOutcome::Round(round) => self.answers.round = Some(Answer { at: now, value: round }),
            EffectOutcome::Hooks(kind, answers) => {
                if self.is_calling(kind) {
                    self.tell_hooks(kind, answers, &object, now);
                } else if kind == WebhookType::Rollout {
                    return self.after_rollout_hooks(answers, context);
                } else {
                    self.answers.hooks.insert(kind, Answer { at: now, value: answers });
                }
            }
        }
        self.spins = 0;
        self.pop();
        self.run_next(context);
    }

    fn is_calling(&self, kind: WebhookType) -> bool {
        let task = self.run.as_ref().and_then(|run| run.tasks.front());
        matches!(task, Some(Task::Do(Effect::CallHooks(called))) if *called == kind)
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
                if is_status {
                    self.knowledge.wrote(object, &run.written, run.next.clone());
                    self.answers = Answers::default();
                    self.spins = 0;
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
                self.run = None;
                context.notify(crate::messages::Nudge);
            }
            Err(WriteError::Failed(text)) => self.fail(text, object, now, context),
        }
    }

    fn ask(&mut self, question: Question, context: &mut Context<Self>) {
        match question {
            Question::Providers => {
                let checks = self.prepare_checks();
                self.deps.observer.do_send(ProbeBackends { checks, reply: self.reply(context) });
            }
            Question::Round => {
                let has_hooks =
                    self.knowledge.understood().is_ok_and(|(known, _)| known.plan.has_hooks(WebhookType::Rollout));
                match has_hooks {
                    true => self.ask_hooks(WebhookType::Rollout, context),
                    false => self.take_samples(Vec::new(), context),
                }
            }
            Question::Hooks(kind) => self.ask_hooks(kind, context),
        }
    }

    /// Hooks come before metrics, and the first failure ends the round.
    fn after_rollout_hooks(&mut self, hooks: Vec<HookAnswer>, context: &mut Context<Self>) {
        if hooks.iter().all(|hook| hook.result.is_ok()) {
            return self.take_samples(hooks, context);
        }
        let round = RoundAnswer { hooks, samples: Vec::new() };
        self.effect_done(EffectOutcome::Round(round), context);
    }

    fn take_samples(&mut self, hooks: Vec<HookAnswer>, context: &mut Context<Self>) {
        let order =
            TakeSamples { canary: self.id.clone(), checks: self.prepare_checks(), hooks, reply: self.reply(context) };
        self.deps.observer.do_send(order);
    }

    /// Templates and secrets are looked up without becoming wake-up reasons: a change of them counts from the next
    /// round on.
    fn prepare_checks(&self) -> Vec<checks::PreparedCheck> {
        let lookups = Lookups::new(&self.deps.cache);
        match self.knowledge.understood() {
            Err(_) => Vec::new(),
            Ok((known, _)) => {
                let settings = &self.deps.settings.providers;
                let subject = Subject { canary: &known.canary, settings, objects: &lookups };
                checks::prepare(&known.plan, &subject, known.traffic)
            }
        }
    }

    fn ask_hooks(&self, kind: WebhookType, context: &mut Context<Self>) {
        let phase = self.knowledge.state().map(|state| state.phase.to_string()).unwrap_or_default();
        self.call_hooks(kind, &phase, context);
    }

    fn call_hooks(&self, kind: WebhookType, phase: &str, context: &mut Context<Self>) {
        let Ok((known, state)) = self.knowledge.understood() else { return };
        let checksum = hooks::checksum(state.tracked_configs.as_ref(), &state.last_applied);
        self.deps.courier.do_send(CallHooks {
            canary: self.id.clone(),
            kind,
            hooks: hooks::prepare(&known.canary, kind, phase, &checksum),
            reply: self.reply(context),
        });
    }

    pub(super) fn alert(&self, notice: Notice) {
        let Ok((known, _)) = self.knowledge.understood() else { return };
        let lookups = Lookups::new(&self.deps.cache);
        let subject = Subject { canary: &known.canary, settings: &self.deps.settings.providers, objects: &lookups };
        let alerts = hooks::prepare_alerts(&known.plan, &notice, &subject, self.deps.settings.notifier.as_ref());
        if !alerts.is_empty() {
            self.deps.courier.do_send(SendAlert { canary: self.id.clone(), notice, alerts });
        }
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
        let subject = Subject { canary: &known.canary, settings: &self.deps.settings.providers, objects: &lookups };
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
        let status = run.next.to_status(&status_of(object), &known.plan.target_kind, generation);
        serde_json::to_value(status).unwrap_or(Value::Null)
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
        let next = self.run.as_ref().map(|run| run.next.phase).unwrap_or_default();
        self.deps.router.do_send(Write {
            canary: self.id.clone(),
            lane: lane_for(next),
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
        let Some(status) = with_complaint(object, ACCEPTED, "False", "Invalid", refusal, now) else { return };
        self.emit(Note::Obstacle(refusal.to_owned()), object, now);
        self.start_run(Run::complaint(status), context);
    }
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
