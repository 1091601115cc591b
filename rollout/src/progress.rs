//! The analysis: phases `Progressing` and `WaitingPromotion`.

use std::time::Duration;

use aviary_crds::status::{Phase, whole_seconds};
use aviary_crds::validated::WebhookType;
use jiff::Timestamp;

use crate::analysis::{PassedValue, Verdict, first_value, judge, passed_value};
use crate::effect::{Decision, Effect, HoldKind, Outcome, Question};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::pair;
use crate::plan::{OnFailure, OutagePolicy, Plan};
use crate::promotion::{self, call_post_rollout};
use crate::repair::{repair, weight_kept_from_canary, without_target};
use crate::rollback::{Cause, ask_with_rollback, on_signal, roll_back, tell_no_signal};
use crate::snapshot::{Readiness, RoundAnswer, Split, TargetView};
use crate::state::Outage;
use crate::step::{Context, Gate, Step, Validity};
use crate::strategy::{Advance, News};

pub(crate) fn decide(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => return without_target(context, text),
    };
    if context.is_edited(target) {
        return change(context, target);
    }
    if state.failed_checks >= plan.threshold && !plan.skip_analysis {
        return match plan.on_failure {
            OnFailure::RollBack | OnFailure::Hold => roll_back(context, &Cause::Checks),
            OnFailure::Freeze => freeze(context),
        };
    }
    // The promotion's write took effect, the status does not yet say so.
    if plan.skip_analysis && promotion::is_promoted(context) && context.is_going_to_rest(target) {
        return promotion::skip(context, target);
    }
    if !plan.skip_analysis && promotion_was_cut(context) {
        return promotion::enter(context.step());
    }
    // Before anything is repaired: a canary that will not become ready gets no traffic back.
    if let Readiness::Failed { reason } = &target.readiness
        && !target.scaled_to_zero
        && !plan.holds_on_failure()
    {
        return context.look_again().unwrap_or_else(|| roll_back(context, &Cause::Deadline(reason.clone())));
    }
    if let Some(decision) = repair(context) {
        return decision;
    }
    if let Some(decision) = wait_for_primary(context) {
        return decision;
    }
    if target.scaled_to_zero {
        if plan.is_made_by_user {
            return pair::hold_without_pods(context);
        }
        // Whoever is behind the subset loses its users first, as far as the mesh knows.
        if plan.uses_subsets
            && let Some(wait) = context.wait_until_settled()
        {
            return wait;
        }
        return context.step().wake_target(target).done();
    }
    match &target.readiness {
        Readiness::Ready => {}
        Readiness::Waiting { reason, deadline } => {
            let message = Message::Obstacle(reason.clone());
            return context.hold(HoldKind::CanaryNotReady, message, plan.interval, *deadline);
        }
        // Rolled back above, unless it is waited for whatever happens.
        Readiness::Failed { reason } => {
            return context.hold(HoldKind::CanaryNotReady, Message::Obstacle(reason.clone()), plan.interval, None);
        }
    }
    if plan.skip_analysis {
        return promotion::skip(context, target);
    }
    if !context.canary_serves() {
        return context.hold_until_canary_serves();
    }
    if !state.position().has_begun() {
        return begin(context);
    }
    match state.last_step {
        Some(last_step) => check(context, last_step),
        // The canary took its traffic over from another revision: its soak starts now that it is ready.
        None => context.step().write(state.phase, |next| next.last_step = Some(seen.now)),
    }
}

/// The target is no longer what the run was started for.
fn change(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, seen } = context;
    if plan.uses_subsets && promotion::is_promoted(context) {
        return withdraw(context, target);
    }
    if target.revision != state.last_promoted {
        return restart(context, target);
    }
    match &seen.primary {
        // Withdrawn, if the primary still runs it: a promotion may have been cut short.
        Some(primary) if primary.matches_target => withdraw(context, target),
        Some(_) => restart(context, target),
        None => repair(context).unwrap_or_else(|| restart(context, target)),
    }
}

/// The target is back at the promoted revision: there is nothing to analyse (Flagger goes on and promotes it, Q15).
fn withdraw(context: Context, target: &TargetView) -> Decision {
    let Context { plan, .. } = context;
    let to_primary = match route_back(context) {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let step = context.step().effect_if(to_primary);
    step.emit(Message::RevisionWithdrawn { canary: plan.canary_id(), target: plan.target_id() }).write(
        Phase::Succeeded,
        |next| {
            next.canary_weight = 0;
            next.scale_down_due = !plan.uses_subsets && !context.is_at_rest(target);
            next.end_run(target);
            next.last_promoted.clone_from(&target.revision);
        },
    )
}

/// A newer revision always wins: back to no canary traffic, counters to zero, analysis from the start.
fn restart(context: Context, target: &TargetView) -> Decision {
    let Context { plan, state, .. } = context;
    let (to_primary, weight) = match route_back(context) {
        Ok(effect) => (effect, 0),
        // It can take over in a moment: the newer revision would keep the weight that another one has earned.
        Err(wait) if wait.hold.as_ref().is_some_and(|hold| hold.kind == HoldKind::Settling) => return *wait,
        // Where the primary cannot take over (a failed promotion is being mended), the canary goes on serving.
        Err(_) => (None, state.canary_weight),
    };
    let mut step = context.step().effect_if(to_primary);
    if !plan.uses_subsets {
        step = step.wake_target(target);
    }
    step.emit(Message::Restarting { target: plan.target_id() }).write(Phase::Progressing, |next| {
        next.canary_weight = weight;
        next.begin_run(target);
    })
}

/// The canary keeps the share that it has, and the run is over.
fn freeze(context: Context) -> Decision {
    let Context { plan, state, .. } = context;
    let message = Message::Frozen { canary: plan.canary_id(), weight: state.canary_weight };
    let alert = Notice::error(Occasion::Frozen, message.to_string());
    let step = context.step().emit(message).alert(alert);
    call_post_rollout(context, step).effect(Effect::Count(Outcome::Failed)).write(Phase::Failed, |next| {
        next.failed_checks = 0;
        next.iterations = 0;
        next.last_step = None;
        next.outage = None;
    })
}

/// What brings all traffic to the primary. A canary that serves everybody keeps it until the primary is ready again:
/// the run would wait for the primary, and only the promotion of a good revision mends that (Q1).
fn route_back(context: Context) -> Result<Option<Effect>, Box<Decision>> {
    let primary_ready = context.seen.primary.as_ref().is_some_and(|primary| primary.readiness.is_ready());
    if context.canary_serves_all() && context.seen.traffic.is_some() && !primary_ready {
        return Err(Box::new(context.hold_until_primary_serves()));
    }
    context.route(Split::PRIMARY)
}

fn promotion_was_cut(context: Context) -> bool {
    let Context { plan, state, .. } = context;
    let at = state.position();
    at.has_begun() && plan.strategy.next(at).is_none() && promotion::is_promoted(context)
}

/// An unready primary stops the analysis, unless the canary serves everybody anyway. It never causes a rollback onto it
/// (Q12).
fn wait_for_primary(context: Context) -> Option<Decision> {
    let Context { plan, seen, .. } = context;
    if plan.skip_analysis || context.canary_serves_all() {
        return None;
    }
    match &seen.primary.as_ref()?.readiness {
        Readiness::Ready => None,
        Readiness::Waiting { reason, .. } | Readiness::Failed { reason } => {
            let message = Message::Obstacle(reason.clone());
            Some(context.hold(HoldKind::PrimaryNotReady, message, plan.interval, None))
        }
    }
}

/// Nothing was done yet: pre-rollout hooks, then the first step, at once.
fn begin(context: Context) -> Decision {
    let Context { plan, state, seen } = context;
    if state.failed_checks > 0
        && let Some(due) = state.last_step.map(|at| context.interval_after(at))
        && seen.now < due
    {
        return context.sleep_until(due);
    }
    if let Some(decision) = on_signal(context) {
        return decision;
    }
    let rollback = WebhookType::Rollback;
    if plan.has_hooks(rollback) && !seen.answers.hooks.contains_key(&rollback) {
        return context.ask(Question::Hooks(rollback));
    }
    let mut step = context.step();
    if state.failed_checks == 0 {
        step = tell_no_signal(context, step).emit(plan.starting());
    }
    match context.gate(WebhookType::PreRollout, Validity::Lasting) {
        Gate::Open(passed) => step = step.passed(WebhookType::PreRollout, passed),
        Gate::Ask => return ask_with_rollback(context, Question::Hooks(WebhookType::PreRollout)),
        Gate::Closed { hook, error, .. } => {
            let message = Message::PreRolloutFailed { canary: plan.canary_id(), hook, error };
            return count_failure(step, message, seen.now);
        }
    }
    if let Some((position, _)) = plan.relative_check() {
        match take_baseline(context, step, position) {
            Ok(with_baseline) => step = with_baseline,
            Err(decision) => return *decision,
        }
    }
    let Some(next) = plan.strategy.next(state.position()) else { return context.idle() };
    if !plan.strategy.asks_before_increase(state.position()) {
        return advance(context, step, next);
    }
    match context.gate(WebhookType::ConfirmTrafficIncrease, Validity::Fresh) {
        Gate::Open(passed) => advance(context, step.passed(WebhookType::ConfirmTrafficIncrease, passed), next),
        Gate::Ask => ask_with_rollback(context, Question::Hooks(WebhookType::ConfirmTrafficIncrease)),
        Gate::Closed { hook, at, .. } => hold_traffic_increase(context, hook, context.interval_after(at)),
    }
}

/// The first value of the query that is compared with itself, from before the canary has traffic, if there is one. Otherwise it is
/// the first one under traffic: what has no traffic has no data, and zero would make a rise of whatever comes next.
fn take_baseline<'a>(context: Context<'a>, step: Step<'a>, position: usize) -> Result<Step<'a>, Box<Decision>> {
    let Context { plan, state, seen } = context;
    let Some(round) = &seen.answers.round else {
        return Err(Box::new(ask_with_rollback(context, Question::Round)));
    };
    match first_value(position, &round.value) {
        Ok(None) => Ok(step),
        Ok(Some(value)) => {
            let message =
                Message::Baseline { canary: plan.canary_id(), value, weight: state.canary_weight, is_empty: false };
            Ok(step.emit(message).remember(value))
        }
        Err(error) => Err(Box::new(hold_for_monitoring(context, error, round.at))),
    }
}

/// Under way: one round per interval, and what follows from it.
fn check(context: Context, last_step: Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    if let Some(decision) = on_signal(context) {
        return decision;
    }
    // A soak interval starts with the last step; a gate that said no starts another one.
    let closed = context.closed_gate();
    let soak_start = closed.as_ref().map_or(last_step, |(_, _, at)| last_step.max(*at));
    let due = context.interval_after(soak_start);
    if seen.now < due {
        return match closed {
            Some((WebhookType::ConfirmPromotion, hook, _)) => hold_promotion(context, &hook, due),
            Some((_, hook, _)) => hold_traffic_increase(context, hook, due),
            None => context.sleep_until(due),
        };
    }
    let Some(round) = seen.answers.round.as_ref().filter(|round| round.at >= due) else {
        return ask_with_rollback(context, Question::Round);
    };
    let verdict = judge(plan, state, round);
    if let (Verdict::Pass, Some(found)) = (&verdict, weight_kept_from_canary(context)) {
        return hold_for_weight(context, found, round.at);
    }
    match verdict {
        Verdict::Pass if state.outage.is_some() && has_gates(plan) => {
            // A gate may stay closed for long; the outage must not look as if it lasted until then.
            settle_outage(context).write(state.phase, |next| next.outage = None)
        }
        // A query that is compared with itself may be empty at first, and that would be a value.
        Verdict::Pass if state.outage.is_some() && plan.relative_check().is_some() => {
            settle_outage(context).write(state.phase, |next| {
                next.outage = None;
                next.last_step = Some(seen.now);
            })
        }
        Verdict::Pass => proceed(context, compared(context, settle_outage(context), &round.value), round.at),
        Verdict::NoData => hold_for_data(context, round.at),
        Verdict::Fail(message) => count_failure(settle_outage(context), message, seen.now),
        Verdict::Missing(message) => {
            let outage = state.outage;
            let mut decision = count_failure(context.step(), message, seen.now);
            decision.next.outage = outage;
            decision
        }
        Verdict::Unknown(error) => hold_for_monitoring(context, error, round.at),
        Verdict::Recovering { text, counts_after } => hold_for_values(context, text, counts_after, round.at),
    }
}

/// A step that leaves the value of its round behind for those to come.
fn compared<'a>(context: Context<'a>, step: Step<'a>, round: &RoundAnswer) -> Step<'a> {
    let Context { plan, state, .. } = context;
    let Some(PassedValue { value, is_empty }) = passed_value(plan, round) else { return step };
    let canary = plan.canary_id();
    let first = Message::Baseline { canary, value, weight: state.canary_weight, is_empty };
    let step = if state.baseline.is_none() { step.emit(first) } else { step };
    step.remember(value)
}

/// The query has nothing to say yet, and the canary waits until it has.
fn hold_for_data(context: Context, at: Timestamp) -> Decision {
    let Context { plan, state, .. } = context;
    let message = Message::AwaitingData { canary: plan.canary_id(), weight: state.canary_weight };
    ask_again_after(context, HoldKind::NoData, message, plan.interval, at)
}

/// What the canary did not serve, was not measured.
fn hold_for_weight(context: Context, found: u32, at: Timestamp) -> Decision {
    let Context { plan, state, .. } = context;
    let message = Message::WeightNotInForce { canary: plan.canary_id(), found, weight: state.canary_weight };
    ask_again_after(context, HoldKind::Routes, message, plan.interval, at)
}

fn has_gates(plan: &Plan) -> bool {
    plan.has_hooks(WebhookType::ConfirmTrafficIncrease) || plan.has_hooks(WebhookType::ConfirmPromotion)
}

/// The round passed: on to the next step, or to the promotion.
fn proceed(context: Context, mut step: Step, round_at: Timestamp) -> Decision {
    let Context { plan, state, .. } = context;
    let at = state.position();
    let next = plan.strategy.next(at);
    let was_confirmed = next.is_none() && state.phase == Phase::WaitingPromotion;
    if plan.strategy.asks_before_increase(at) && !was_confirmed {
        let kind = WebhookType::ConfirmTrafficIncrease;
        step = match context.gate(kind, Validity::Since(round_at)) {
            Gate::Open(passed) => step.passed(kind, passed),
            Gate::Ask => return context.ask(Question::Hooks(kind)),
            Gate::Closed { hook, at, .. } => return hold_traffic_increase(context, hook, context.interval_after(at)),
        };
    }
    if plan.strategy.asks_before_promotion(at) {
        let kind = WebhookType::ConfirmPromotion;
        step = match context.gate(kind, Validity::Since(round_at)) {
            Gate::Open(passed) => step.passed(kind, passed),
            Gate::Ask => return context.ask(Question::Hooks(kind)),
            Gate::Closed { hook, at, .. } => return hold_promotion(context, &hook, context.interval_after(at)),
        };
    }
    match next {
        Some(next) => advance(context, step, next),
        None => promotion::promote(context, step),
    }
}

fn advance(context: Context, step: Step, next: Advance) -> Decision {
    let Context { plan, seen, .. } = context;
    let route = match context.route(plan.strategy.split(next.to)) {
        Ok(effect) => effect,
        Err(decision) => return *decision,
    };
    let canary = plan.canary_id();
    let message = match next.news {
        News::Weight(weight) => Message::AdvanceCanary { canary, weight },
        News::Iteration { number, of } => Message::AdvanceIteration { canary, number, of },
        News::AllToCanary { was_mirrored } => Message::RoutingToCanary { was_mirrored },
    };
    step.effect_if(route).emit(message).write(Phase::Progressing, |state| {
        state.canary_weight = next.to.weight;
        state.iterations = next.to.iterations;
        state.last_step = Some(seen.now);
        state.outage = None;
    })
}

fn count_failure(step: Step, message: Message, now: Timestamp) -> Decision {
    let phase = step.phase();
    let counts = !step.plan().holds_on_failure();
    step.emit(message).write(phase, |next| {
        next.failed_checks = next.failed_checks.saturating_add(u32::from(counts));
        next.last_step = Some(now);
        next.outage = None;
    })
}

/// Starts a step that follows from a real answer of the monitoring.
fn settle_outage(context: Context) -> Step {
    match context.state.outage {
        Some(_) => context.step().emit(Message::MetricsRecovered { canary: context.plan.canary_id() }),
        None => context.step(),
    }
}

/// The monitoring does not answer. That says nothing about the canary, so it stays where it is.
fn hold_for_monitoring(context: Context, error: String, at: Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let limit = match plan.outage {
        OutagePolicy::Hold { limit } => limit,
        OutagePolicy::Fail => Duration::ZERO,
    };
    let message = Message::MetricsOutage { canary: plan.canary_id(), weight: state.canary_weight, error, limit };
    let Some(outage) = state.outage else {
        return context.step().emit(message).write(state.phase, |next| {
            next.outage = Some(Outage { since: at, answered_since: None });
            next.last_step = Some(seen.now);
        });
    };
    // It was back for a moment only.
    if outage.answered_since.is_some() {
        return context.step().write(state.phase, |next| next.outage = Some(Outage { answered_since: None, ..outage }));
    }
    ask_again_after(context, HoldKind::MetricsOutage, message, Duration::MAX, at)
}

/// The monitoring is back, but has not seen enough yet. That is waited for as well, though not for as long.
fn hold_for_values(context: Context, error: String, limit: Duration, at: Timestamp) -> Decision {
    let Context { plan, state, .. } = context;
    if let Some(outage @ Outage { answered_since: None, .. }) = state.outage {
        let answered_since = Some(whole_seconds(at));
        return context.step().write(state.phase, |next| next.outage = Some(Outage { answered_since, ..outage }));
    }
    let message = Message::MetricsOutage { canary: plan.canary_id(), weight: state.canary_weight, error, limit };
    ask_again_after(context, HoldKind::MetricsOutage, message, Duration::MAX, at)
}

/// Holds until another round is due, one interval after the one at `at`.
fn ask_again_after(
    context: Context,
    kind: HoldKind,
    message: Message,
    announce_after: Duration,
    at: Timestamp,
) -> Decision {
    let ask_again = context.interval_after(at);
    if context.seen.now >= ask_again {
        return ask_with_rollback(context, Question::Round);
    }
    context.hold(kind, message, announce_after, Some(ask_again))
}

fn hold_traffic_increase(context: Context, hook: String, until: Timestamp) -> Decision {
    let muted = context.is_muted(WebhookType::ConfirmTrafficIncrease, &hook);
    let message = Message::WaitingForTrafficIncrease { canary: context.plan.canary_id(), hook };
    let kind = WebhookType::ConfirmTrafficIncrease;
    let decision = context.hold(HoldKind::Gate(kind), message, Duration::ZERO, Some(until));
    if muted {
        return decision;
    }
    let text = "Canary traffic increase is waiting for approval.";
    decision.with_alert(Notice::warning(Occasion::WaitingForTrafficIncrease, text))
}

fn hold_promotion(context: Context, hook: &str, until: Timestamp) -> Decision {
    let Context { plan, state, seen } = context;
    let kind = WebhookType::ConfirmPromotion;
    let message = Message::WaitingForPromotion { canary: plan.canary_id(), hook: hook.to_owned() };
    if state.phase == Phase::WaitingPromotion {
        return context.hold(HoldKind::Gate(kind), message, Duration::MAX, Some(until));
    }
    let mut step = context.step().emit(message);
    if !context.is_muted(kind, hook) {
        let text = "Canary promotion is waiting for approval.";
        step = step.alert(Notice::warning(Occasion::WaitingForPromotion, text));
    }
    step.write(Phase::WaitingPromotion, |next| next.last_step = Some(seen.now))
}
