//! Building blocks of decisions.

use std::time::Duration;

use aviary_crds::status::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::effect::{Component, Decision, Effect, Hold, HoldKind, Question, Wake};
use crate::message::{Message, Notice};
use crate::plan::Plan;
use crate::snapshot::{Snapshot, Split, TargetView};
use crate::state::{PromotedCondition, State};
use aviary_crds::validated::WebhookType;

/// What every part of the core looks at.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) state: &'a State,
    pub(crate) seen: &'a Snapshot,
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
        let hold = Hold { kind, message, announce_after, alert: None };
        Decision { wake: Wake::OnChange.or_at(until), hold: Some(hold), ..self.idle() }
    }

    /// A hold that a person must act on: told at once.
    pub(crate) fn obstacle(self, kind: HoldKind, text: &str) -> Decision {
        self.hold(kind, Message::Obstacle(text.to_owned()), Duration::ZERO, None)
    }

    /// What brings all traffic to the primary: nothing where it is there already or nothing is routed. `Err` holds the
    /// decision to make where the primary cannot serve it, or the routes cannot be read.
    pub(crate) fn to_primary(self) -> Result<Option<Effect>, Box<Decision>> {
        match &self.seen.traffic {
            None => Ok(None),
            Some(Ok(split)) if *split == Split::PRIMARY => Ok(None),
            Some(Ok(_)) if self.primary_available() => Ok(Some(Effect::SetTraffic(Split::PRIMARY))),
            Some(Ok(_)) => {
                let message = Message::RollbackBlocked { canary: self.plan.canary_id() };
                Err(Box::new(self.hold(HoldKind::RollbackBlocked, message, Duration::ZERO, None)))
            }
            Some(Err(_)) if self.seen.pending.routes => Ok(Some(Effect::Apply(Component::Routes(Split::PRIMARY)))),
            Some(Err(text)) => Err(Box::new(self.obstacle(HoldKind::Routes, text))),
        }
    }

    /// `at` plus one analysis interval.
    pub(crate) fn interval_after(self, at: Timestamp) -> Timestamp {
        let interval = SignedDuration::try_from(self.plan.interval).unwrap_or(SignedDuration::MAX);
        at.checked_add(interval).unwrap_or(Timestamp::MAX)
    }

    /// Pods of the primary that can serve requests now.
    pub(crate) fn primary_available(self) -> bool {
        self.seen.primary.as_ref().is_some_and(|primary| primary.available > 0)
    }

    /// Whether the target differs from what was last seen, in revision or configs.
    pub(crate) fn is_new(self, target: &TargetView) -> bool {
        self.is_new_revision(target) || self.has_new_configs(target)
    }

    /// Whether the target's template is neither the last seen nor the promoted one.
    pub(crate) fn is_new_revision(self, target: &TargetView) -> bool {
        self.state.last_applied.is_empty()
            || (target.revision != self.state.last_applied && target.revision != self.state.last_promoted)
    }

    /// Whether tracked configs changed.
    pub(crate) fn has_new_configs(self, target: &TargetView) -> bool {
        let Some(present) = &target.configs else { return false };
        match &self.state.tracked_configs {
            None => !present.is_empty(),
            Some(tracked) => tracked != present,
        }
    }

    /// The state of a gate. An answer older than `since` no longer counts.
    pub(crate) fn gate(self, kind: WebhookType, since: Option<Timestamp>) -> Gate {
        if !self.plan.has_hooks(kind) {
            return Gate::Open(Vec::new());
        }
        let answer = self.seen.answers.hooks.get(&kind).filter(|answer| since.is_none_or(|since| answer.at >= since));
        let Some(answer) = answer else { return Gate::Ask };
        for hook in &answer.value {
            if let Err(error) = &hook.result {
                if since.is_none() && self.seen.now >= self.interval_after(answer.at) {
                    return Gate::Ask;
                }
                return Gate::Closed { hook: hook.name.clone(), error: error.clone(), at: answer.at };
            }
        }
        Gate::Open(answer.value.iter().map(|hook| hook.name.clone()).collect())
    }

    /// The split that must be in force: the state's weight, unless the canary has no pod to serve it.
    pub(crate) fn expected_split(self) -> Split {
        let canary_serves = self.seen.target.as_ref().is_ok_and(|target| target.available > 0);
        if self.state.canary_weight > 0 && !canary_serves && self.primary_available() {
            return Split::PRIMARY;
        }
        Split::to_canary(self.state.canary_weight)
    }
}

/// A step under construction.
pub(crate) struct Step<'a> {
    context: Context<'a>,
    effects: Vec<Effect>,
    next: State,
}

impl Step<'_> {
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

    pub(crate) fn emit(self, message: Message) -> Self {
        self.effect(Effect::Emit(message))
    }

    pub(crate) fn alert(self, notice: Notice) -> Self {
        self.effect(Effect::Alert(notice))
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
