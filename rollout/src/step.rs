//! Building blocks of decisions.

use std::time::Duration;

use aviary_crds::status::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::effect::{Component, Decision, Effect, Hold, HoldKind, Question, Wake};
use crate::message::Message;
use crate::notice::Notice;
use crate::plan::Plan;
use crate::session;
use crate::snapshot::{Answer, HookAnswer, Snapshot, Split, TargetView, are_other_configs};
use crate::state::{PromotedCondition, State};
use crate::words;
use aviary_crds::validated::WebhookType;

/// What every part of the core looks at.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) state: &'a State,
    pub(crate) seen: &'a Snapshot,
}

/// How long the answer of a gate counts.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    /// One interval.
    Fresh,
    /// A yes lasts, a no counts for one interval.
    Lasting,
    /// It must not be older than this.
    Since(Timestamp),
}

/// A gate of confirm hooks (or any hooks that must all pass).
pub(crate) enum Gate {
    /// No hook, or all passed (their names).
    Open(Vec<String>),
    /// Must be asked now.
    Ask,
    /// The named hook said no.
    Closed { hook: String, error: String, at: Timestamp },
}

impl<'a> Context<'a> {
    /// Starts a step.
    pub(crate) fn step(self) -> Step<'a> {
        Step { context: self, effects: Vec::new(), next: self.state.clone() }
    }

    /// Nothing to do until something changes.
    pub(crate) fn idle(self) -> Decision {
        Decision { effects: Vec::new(), next: self.state.clone(), wake: Wake::OnChange, hold: None }
    }

    /// Nothing to do until then.
    pub(crate) fn sleep_until(self, at: Timestamp) -> Decision {
        Decision { wake: Wake::At(at), ..self.idle() }
    }

    /// Finds something out.
    pub(crate) fn ask(self, question: Question) -> Decision {
        Decision { effects: vec![Effect::Ask(question)], ..self.idle() }
    }

    /// Holds, and tells after `announce_after`.
    pub(crate) fn hold(
        self,
        kind: HoldKind,
        message: Message,
        announce_after: Duration,
        until: Option<Timestamp>,
    ) -> Decision {
        let (message, announce_after) = match words::of_system(self.plan, message.clone()) {
            Some(worded) => (worded, announce_after),
            None => (message, Duration::MAX),
        };
        let hold = Hold { kind, message, announce_after, alert: None };
        let until = until.map(|at| at.max(self.soon()));
        Decision { wake: Wake::OnChange.or_at(until), hold: Some(hold), ..self.idle() }
    }

    /// A hold that a person must act on: told at once.
    pub(crate) fn obstacle(self, kind: HoldKind, text: &str) -> Decision {
        self.hold(kind, Message::Obstacle(text.to_owned()), Duration::ZERO, None)
    }

    /// What makes `split` the one in force: nothing where it is already, or where nothing is routed. `Err` holds the
    /// decision to make where a side that would gain traffic cannot serve it, or the routes cannot be read.
    pub(crate) fn route(self, split: Split) -> Result<Option<Effect>, Box<Decision>> {
        match &self.seen.traffic {
            None => Ok(None),
            Some(Ok(found)) if *found == split => Ok(None),
            Some(Ok(found)) if self.is_served(*found, split) => match self.wait_until_reached(*found, split) {
                Some(wait) => Err(Box::new(wait)),
                None => Ok(Some(Effect::SetTraffic(split))),
            },
            Some(Ok(found)) if split.primary > found.primary => Err(Box::new(self.hold_until_primary_serves())),
            Some(Ok(_)) => Err(Box::new(self.hold_until_canary_serves())),
            Some(Err(_)) if self.seen.pending.routes => Ok(Some(Effect::Apply(Component::Routes(split)))),
            Some(Err(text)) => Err(Box::new(self.obstacle(HoldKind::Routes, text))),
        }
    }

    /// Whether no side that gains traffic between the two splits is without pods.
    pub(crate) fn is_served(self, found: Split, split: Split) -> bool {
        (split.primary <= found.primary || self.primary_serves())
            && (split.canary <= found.canary || self.canary_serves())
    }

    /// `split`, or where a side could not serve it, the split in force.
    pub(crate) fn served_or_found(self, split: Split) -> Split {
        match self.seen.traffic {
            Some(Ok(found)) if !self.is_served(found, split) => found,
            _ => split,
        }
    }

    /// Holds because traffic should go to the primary, but cannot.
    pub(crate) fn hold_until_primary_serves(self) -> Decision {
        let message = Message::RollbackBlocked { canary: self.plan.canary_id() };
        self.hold(HoldKind::RollbackBlocked, message, Duration::ZERO, None)
    }

    /// Holds because the canary has no pods to serve with, although it counts as ready.
    pub(crate) fn hold_until_canary_serves(self) -> Decision {
        let kind = self.plan.target_kind.to_lowercase();
        let text = format!("canary {kind} {} not ready: no available pods", self.plan.target_id());
        self.hold(HoldKind::CanaryNotReady, Message::Obstacle(text), self.plan.interval, None)
    }

    /// The wait before pods that users were just routed away from may go: a mesh hears of new routes a while after they
    /// are written, and of pods that are gone possibly sooner. `None` once it is over.
    pub(crate) fn wait_until_settled(self) -> Option<Decision> {
        let wait = SignedDuration::try_from(self.plan.traffic_settle_time).unwrap_or(SignedDuration::MAX);
        let settled = self.seen.routed_since.checked_add(wait).unwrap_or(Timestamp::MAX);
        if self.seen.now >= settled {
            return None;
        }
        Some(self.settling_until(settled, Message::Settling { canary: self.plan.canary_id() }))
    }

    fn settling_until(self, at: Timestamp, message: Message) -> Decision {
        let hold = Hold { kind: HoldKind::Settling, message, announce_after: Duration::MAX, alert: None };
        Decision { wake: Wake::At(at), hold: Some(hold), ..self.idle() }
    }

    /// The wait before a side that gains traffic between the two splits may have it, see [`Context::wait_since_served`].
    pub(crate) fn wait_until_reached(self, found: Split, split: Split) -> Option<Decision> {
        let since = self.seen.serving_since;
        let target_serves = self.seen.target.as_ref().is_ok_and(|target| target.available > 0);
        // Where nobody serves those who are led away, nothing is gained by waiting.
        let gains_primary = (split.primary > found.primary && target_serves).then_some(since.primary);
        let gains_canary = split.canary > found.canary || (split.mirrored && !found.mirrored);
        let gains_canary = (gains_canary && self.primary_serves()).then_some(since.canary);
        [gains_primary, gains_canary].into_iter().flatten().find_map(|since| self.wait_since_served(since))
    }

    /// The wait before users of pods that serve them are led to others that have served only since then: a mesh hears of pods
    /// a while after they became available, possibly later than of routes to them, and meanwhile fails what is sent to them.
    pub(crate) fn wait_since_served(self, since: Option<Timestamp>) -> Option<Decision> {
        let wait = SignedDuration::try_from(self.plan.endpoints_settle_time).unwrap_or(SignedDuration::MAX);
        let reached = since.unwrap_or(self.seen.now).checked_add(wait).unwrap_or(Timestamp::MAX);
        let message = Message::Introducing { canary: self.plan.canary_id() };
        (self.seen.now < reached).then(|| self.settling_until(reached, message))
    }

    /// What has to be done before the canary's pods may go: users are routed away from them, and the mesh has followed.
    /// `None` once both are done.
    pub(crate) fn leave_canary(self) -> Option<Decision> {
        match self.route(Split::PRIMARY) {
            Ok(Some(effect)) => Some(self.step().effect(effect).done()),
            Ok(None) => self.wait_until_settled(),
            Err(decision) => Some(*decision),
        }
    }

    /// The earliest time worth waking up for. A deadline that has just passed may not show yet: Kubernetes writes times
    /// in whole seconds.
    fn soon(self) -> Timestamp {
        self.seen.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX)
    }

    /// `at` plus one analysis interval.
    pub(crate) fn interval_after(self, at: Timestamp) -> Timestamp {
        let interval = SignedDuration::try_from(self.plan.interval).unwrap_or(SignedDuration::MAX);
        at.checked_add(interval).unwrap_or(Timestamp::MAX)
    }

    /// Whether the primary has pods that can serve requests now.
    pub(crate) fn primary_serves(self) -> bool {
        self.seen.primary.as_ref().is_some_and(|primary| primary.available > 0)
    }

    /// Whether the target has pods that can serve requests now, and is to keep them.
    pub(crate) fn canary_serves(self) -> bool {
        self.seen.target.as_ref().is_ok_and(|target| target.available > 0 && !self.is_going_to_rest(target))
    }

    /// Whether all requests are the canary's by design: at the end of an analysis up to 100 %, or after a promotion that
    /// failed.
    pub(crate) fn canary_serves_all(self) -> bool {
        self.state.canary_weight == 100 && self.plan.strategy.is_for_everybody(self.state.position())
    }

    /// Whether the target holds something that is neither what was last seen nor what the primary runs.
    pub(crate) fn is_new(self, target: &TargetView) -> bool {
        let State { last_applied, last_promoted, .. } = self.state;
        if last_applied.is_empty() {
            return true;
        }
        let changed = self.is_edited(target);
        // After a failed promotion, going back to the promoted revision must be brought to the primary, too.
        if self.canary_serves_all() || target.revision != *last_promoted {
            return changed;
        }
        // Going back to the promoted revision is no news where the primary runs it, configs included. It is where a
        // promotion has failed and nothing is routed.
        changed && self.seen.primary.as_ref().is_none_or(|primary| !primary.matches_target)
    }

    /// Whether the target holds something else than the run is about.
    pub(crate) fn is_edited(self, target: &TargetView) -> bool {
        target.revision != self.state.last_applied || self.has_new_configs(target)
    }

    /// Whether tracked configs changed.
    pub(crate) fn has_new_configs(self, target: &TargetView) -> bool {
        are_other_configs(target.configs.as_ref(), self.state.tracked_configs.as_ref())
    }

    /// The answer of hooks of this kind, if it is not older than an interval.
    pub(crate) fn fresh_answer(self, kind: WebhookType) -> Option<&'a Answer<Vec<HookAnswer>>> {
        self.seen.answers.hooks.get(&kind).filter(|answer| self.seen.now < self.interval_after(answer.at))
    }

    /// The look at a workload that seems to have failed, before that is believed; `None` once it was made. A deadline passes by
    /// the clock, also while no watch tells that the pods have become ready.
    pub(crate) fn look_again(self) -> Option<Decision> {
        let looked_at = self.seen.answers.workloads.as_ref();
        let is_fresh = looked_at.is_some_and(|answer| self.seen.now < self.interval_after(answer.at));
        (!is_fresh).then(|| self.ask(Question::Workloads))
    }

    /// The state of a gate.
    pub(crate) fn gate(self, kind: WebhookType, validity: Validity) -> Gate {
        if !self.plan.has_hooks(kind) {
            return Gate::Open(Vec::new());
        }
        let fresh = self.fresh_answer(kind);
        let answer = match validity {
            Validity::Fresh => fresh,
            Validity::Lasting => {
                let passed = |answer: &&Answer<Vec<HookAnswer>>| answer.value.iter().all(|hook| hook.result.is_ok());
                fresh.or_else(|| self.seen.answers.hooks.get(&kind).filter(passed))
            }
            Validity::Since(since) => self.seen.answers.hooks.get(&kind).filter(|answer| answer.at >= since),
        };
        let Some(answer) = answer else { return Gate::Ask };
        for hook in &answer.value {
            if let Err(error) = &hook.result {
                return Gate::Closed { hook: hook.name.clone(), error: error.clone(), at: answer.at };
            }
        }
        Gate::Open(answer.value.iter().map(|hook| hook.name.clone()).collect())
    }

    /// The confirm gate of a running analysis that said no last: its kind, hook and when.
    pub(crate) fn closed_gate(self) -> Option<(WebhookType, String, Timestamp)> {
        [WebhookType::ConfirmTrafficIncrease, WebhookType::ConfirmPromotion]
            .into_iter()
            .filter(|kind| self.plan.has_hooks(*kind))
            .filter_map(|kind| {
                let answer = self.seen.answers.hooks.get(&kind)?;
                let hook = answer.value.iter().find(|hook| hook.result.is_err())?;
                Some((kind, hook.name.clone(), answer.at))
            })
            .max_by_key(|(_, _, at)| *at)
    }

    /// Whether the alert of this gate is muted.
    pub(crate) fn is_muted(self, kind: WebhookType, hook: &str) -> bool {
        self.plan.hooks_of(kind).any(|candidate| candidate.name == hook && candidate.mute_alert)
    }

    /// The split that must be in force: that of the state, unless the canary has no pod to serve it.
    pub(crate) fn expected_split(self) -> Split {
        if self.state.canary_weight > 0 && !self.canary_serves() && self.primary_serves() {
            return Split::PRIMARY;
        }
        match self.state.phase {
            Phase::Progressing | Phase::WaitingPromotion => self.plan.strategy.split(self.state.position()),
            Phase::Uninitialized
            | Phase::Initializing
            | Phase::Initialized
            | Phase::Waiting
            | Phase::Promoting
            | Phase::Finalising
            | Phase::Succeeded
            | Phase::Failed
            | Phase::Terminating
            | Phase::Terminated => Split::to_canary(self.state.canary_weight),
        }
    }
}

/// A step under construction.
pub(crate) struct Step<'a> {
    context: Context<'a>,
    effects: Vec<Effect>,
    next: State,
}

impl Step<'_> {
    /// What the step was decided on.
    pub(crate) fn seen(&self) -> &Snapshot {
        self.context.seen
    }

    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// An effect that may not be needed.
    pub(crate) fn effect_if(self, effect: Option<Effect>) -> Self {
        match effect {
            Some(effect) => self.effect(effect),
            None => self,
        }
    }

    /// Tells it, in the words of the canary's system.
    pub(crate) fn emit(self, message: Message) -> Self {
        let message = words::of_system(self.context.plan, message);
        self.effect_if(message.map(Effect::Emit))
    }

    /// The plan that the step follows.
    pub(crate) fn plan(&self) -> &Plan {
        self.context.plan
    }

    pub(crate) fn alert(self, notice: Notice) -> Self {
        self.effect(Effect::Alert(notice))
    }

    /// Keeps a value of the query that is compared with itself; the first one is the baseline. A status write must follow.
    pub(crate) fn remember(mut self, value: f64) -> Self {
        self.next.baseline.get_or_insert(value);
        self.next.last_value = Some(value);
        self
    }

    /// Events for hooks that passed.
    pub(crate) fn passed(mut self, kind: WebhookType, hooks: Vec<String>) -> Self {
        for hook in hooks {
            self = self.emit(Message::HookPassed { kind, hook });
        }
        self
    }

    /// The phase that the step starts from.
    pub(crate) fn phase(&self) -> Phase {
        self.context.state.phase
    }

    /// A step without a status write.
    pub(crate) fn done(self) -> Decision {
        Decision { effects: self.effects, next: self.next, wake: Wake::OnChange, hold: None }
    }

    /// Ends the step with a status write that leads to `phase`.
    pub(crate) fn write(mut self, phase: Phase, change: impl FnOnce(&mut State)) -> Decision {
        let now = self.context.seen.now;
        self.next.phase = phase;
        self.next.last_transition = Some(now);
        self.next.complaint = false;
        change(&mut self.next);
        session::settle(self.context.plan.sessions.as_ref(), self.context.state, &mut self.next);
        self.next.promoted = Some(promoted_condition(self.context.state.promoted.as_ref(), phase, now));
        self.effects.push(Effect::WriteStatus);
        self.done()
    }
}

/// Status of the `Promoted` condition in a phase.
pub(crate) fn promoted_status(phase: Phase) -> &'static str {
    match phase {
        Phase::Initialized | Phase::Succeeded => "True",
        Phase::Failed => "False",
        Phase::Uninitialized
        | Phase::Initializing
        | Phase::Waiting
        | Phase::Progressing
        | Phase::WaitingPromotion
        | Phase::Promoting
        | Phase::Finalising
        | Phase::Terminating
        | Phase::Terminated => "Unknown",
    }
}

/// Rewritten only if status or reason changes; the transition time moves only with the status.
fn promoted_condition(previous: Option<&PromotedCondition>, phase: Phase, now: Timestamp) -> PromotedCondition {
    let status = promoted_status(phase);
    match previous {
        Some(previous) if previous.phase == phase && previous.status == status => previous.clone(),
        Some(previous) if previous.status == status => PromotedCondition { phase, updated: now, ..previous.clone() },
        _ => PromotedCondition { phase, status: status.to_owned(), updated: now, transitioned: now },
    }
}
