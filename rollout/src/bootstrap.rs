//! From a new canary object to `Initialized`: the primary is made, proven ready, and given all traffic before the
//! target is scaled down.
//!
//! Every decision here does the next missing thing; nothing is remembered but what can be observed. A bootstrap that
//! does not get through never scales the target, which may be the only serving workload (Flagger's Q5), and goes on by
//! itself when the target is corrected.

use std::time::Duration;

use aviary_crds::status::Phase;

use crate::effect::{Component, Decision, Effect, HoldKind, Question};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::pair;
use crate::snapshot::{PrimaryView, Readiness, Split};
use crate::step::Context;
use crate::subsets;

/// How long a target, or the user's routes, may be missing before it is told. Each kind has a watch of its own, and nothing orders them: a target
/// that was created just before its canary may be seen just after it, some milliseconds as a rule, more on a busy machine.
pub(crate) const UNSEEN: Duration = Duration::from_secs(1);

/// Says whether the metric providers answered (asked once, while bootstrapping).
pub fn providers_message(answer: &Result<(), String>) -> Message {
    match answer {
        Ok(()) => Message::ProvidersAvailable,
        Err(error) => Message::ProvidersUnavailable(error.clone()),
    }
}

pub(crate) fn start(context: Context) -> Decision {
    context.step().write(Phase::Initializing, |_| {})
}

pub(crate) fn decide(context: Context) -> Decision {
    let Context { plan, seen, .. } = context;
    let target = match &seen.target {
        Ok(target) => target,
        Err(text) => {
            let message = Message::Obstacle(text.clone());
            return context.hold(HoldKind::Target, message, UNSEEN, None);
        }
    };
    if plan.is_made_by_user {
        return pair::bootstrap(context);
    }
    if !plan.skip_analysis && seen.answers.providers.is_none() {
        return context.ask(Question::Providers);
    }
    if plan.uses_subsets {
        return subsets::bootstrap(context, target);
    }
    if seen.pending.services {
        return apply(context, Component::Services);
    }
    let primary = match &seen.primary {
        // The primary follows the target until the bootstrap is done, so that a broken first revision can be mended.
        Some(primary) if primary.matches_target || is_in_service(context, primary) => primary,
        _ => return apply(context, Component::Primary),
    };
    match &primary.readiness {
        Readiness::Ready => {}
        Readiness::Waiting { reason, deadline } => {
            let message = Message::Obstacle(reason.clone());
            return context.hold(HoldKind::PrimaryNotReady, message, Duration::ZERO, *deadline);
        }
        Readiness::Failed { reason } => {
            let alert = Notice::error(
                Occasion::InitializationFailed,
                format!("Initialization failed, primary not ready: {reason}"),
            );
            return context.obstacle(HoldKind::PrimaryNotReady, &alert.text).with_alert(alert);
        }
    }
    // Ready means rolled out, and nothing is soon rolled out to no pods. As long as the target serves, it goes on.
    if !context.primary_serves() && target.available > 0 {
        let message = Message::Obstacle(format!("{} not ready: no available pods", plan.primary_id()));
        return context.hold(HoldKind::PrimaryNotReady, message, Duration::ZERO, None);
    }
    if seen.pending.scaler {
        return apply(context, Component::Scaler);
    }
    let leads_users = seen.pending.apex || seen.pending.routes;
    if leads_users
        && target.available > 0
        && let Some(wait) = context.wait_since_served(seen.serving_since.primary)
    {
        return wait;
    }
    if seen.pending.apex {
        return apply(context, Component::Apex);
    }
    if seen.pending.routes {
        return apply(context, Component::Routes(context.served_or_found(Split::PRIMARY)));
    }
    match context.route(Split::PRIMARY) {
        Ok(None) => {}
        Ok(Some(effect)) => return context.step().effect(effect).done(),
        Err(decision) => return *decision,
    }

    let known = primary.matches_target;
    let mut step = context.step();
    if known && !context.is_at_rest(target) {
        if let Some(wait) = context.wait_until_settled() {
            return wait;
        }
        step = step.put_to_rest(target);
    }
    step.emit(Message::Initialized { canary: plan.canary_id() })
        .alert(Notice::info_with_facts(
            Occasion::Initialized,
            format!("New {} detected, initialization completed.", plan.target_kind),
        ))
        .write(Phase::Initialized, |next| {
            next.canary_weight = 0;
            next.failed_checks = 0;
            next.iterations = 0;
            next.last_step = None;
            // Otherwise what the primary runs has no name, and the target holds a revision that was never analysed.
            if known {
                next.last_applied.clone_from(&target.revision);
                next.last_promoted.clone_from(&target.revision);
                next.tracked_configs.clone_from(&target.configs);
            }
        })
}

/// A primary that serves behind routes of ours was promoted once, whatever became of the status: restored from a backup
/// without it, wiped, or left behind by a canary of the same name. It must not be overwritten with a revision that nobody
/// has analysed.
fn is_in_service(context: Context, primary: &PrimaryView) -> bool {
    let pending = &context.seen.pending;
    let routed = context.seen.traffic.as_ref().is_none_or(Result::is_ok);
    primary.available > 0 && routed && !pending.services && !pending.apex && !pending.routes
}

fn apply(context: Context, component: Component) -> Decision {
    context.step().effect(Effect::Apply(component)).done()
}
