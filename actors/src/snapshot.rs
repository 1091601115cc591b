//! From cached objects to what the decision core looks at, and from its effects to changes of objects. Pure reads.

use aviary_crds::Phase;
use aviary_crds::validated::ValidatedCanary;
use aviary_providers::targets::{Target, TargetError, subset};
use aviary_providers::traffic::TrafficProvider;
use aviary_providers::{Change, ObjectKind, Subject, finalizer, kinds, scalers, services, takeover};
use aviary_rollout::{
    Answers, Component, Effect, Pending, Plan, Question, Reverted, Reverting, ServingSince, Snapshot, Split, State,
    TargetView,
};
use jiff::Timestamp;

use crate::cache::{Cache, KindState};
use crate::patience::Generations;
use crate::watches::forbidden;

/// A canary that is understood.
pub(crate) struct Understood {
    /// The validated object.
    pub canary: ValidatedCanary,
    /// Its plan.
    pub plan: Plan,
    /// How its workload is handled.
    pub target: &'static dyn Target,
    /// How its traffic is routed.
    pub traffic: &'static dyn TrafficProvider,
}

/// What is known when a snapshot is taken, apart from the objects.
pub(crate) struct Circumstances<'a> {
    /// Now.
    pub now: Timestamp,
    /// Whether the canary is being deleted.
    pub deleting: bool,
    /// Whether it carries our finalizer.
    pub has_finalizer: bool,
    /// The present state.
    pub state: &'a State,
    /// Answers under the present state.
    pub answers: &'a Answers,
    /// The question whose answer is awaited.
    pub asking: Option<Question>,
    /// Whether repairs rest.
    pub repairs_paused: bool,
}

/// What decides where requests go, apart from pods, as it was seen last, and since when it was seen to be so.
#[derive(Debug)]
pub(crate) struct Routing {
    since: Timestamp,
    traffic: Option<Result<Split, String>>,
    pending: Pending,
    reverting: Option<(bool, bool)>,
}

impl Routing {
    /// Since when the routes are what `seen` says, as far as is known from `previous`, which is what was seen before.
    pub(crate) fn of(seen: &Snapshot, previous: Option<&Routing>) -> Routing {
        let reverting = seen.reverting.as_ref().and_then(|reverting| reverting.as_ref().ok());
        let present = Routing {
            since: seen.now,
            traffic: seen.traffic.clone(),
            // The autoscaler of the primary routes nothing.
            pending: Pending { scaler: false, ..seen.pending },
            reverting: reverting.map(|reverting| (reverting.apex, reverting.routes)),
        };
        match previous {
            Some(previous) if present.is_like(previous) => Routing { since: previous.since, ..present },
            _ => present,
        }
    }

    fn is_like(&self, other: &Routing) -> bool {
        (&self.traffic, self.pending, self.reverting) == (&other.traffic, other.pending, other.reverting)
    }

    /// Since when.
    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    /// The clock was set back.
    pub(crate) fn not_after(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
    }
}

/// Since when the sides have had available pods, from what was seen before. At the first look nothing was: pods that users are led
/// to already were waited for by whoever led them there, and a way back to them must not be delayed. All others may have become
/// available just now: a predecessor that was killed told nobody.
pub(crate) fn serving_since(
    seen: &Snapshot,
    previous: Option<ServingSince>,
    plan: &Plan,
    state: &State,
) -> ServingSince {
    let split = seen.traffic.as_ref().and_then(|traffic| traffic.as_ref().ok());
    // Routes that are yet to be written lead nobody.
    let split = split.filter(|_| !seen.pending.routes && !seen.pending.apex);
    let is_for_some = !plan.strategy.is_for_everybody(state.position());
    let primary_has_users = split.is_some_and(|split| split.primary > 0 || is_for_some);
    let canary_has_users = split.is_some_and(|split| split.canary > 0 || split.mirrored);
    let since = |available: Option<u32>, before: fn(ServingSince) -> Option<Timestamp>, has_users: bool| {
        let at_first = if has_users { Timestamp::MIN } else { seen.now };
        let is_serving = available.is_some_and(|available| available > 0);
        is_serving.then(|| previous.map_or(at_first, |previous| before(previous).unwrap_or(seen.now)))
    };
    let primary = seen.primary.as_ref().map(|primary| primary.available);
    let canary = seen.target.as_ref().ok().map(|target| target.available);
    ServingSince {
        primary: since(primary, |since| since.primary, primary_has_users),
        canary: since(canary, |since| since.canary, canary_has_users),
    }
}

/// The attempts at which target and primary are.
pub(crate) fn generations(understood: &Understood, subject: &Subject) -> Generations {
    let target = &understood.canary.target;
    let generation = |name: &str| {
        let object = subject.objects.get(understood.target.object_kind(), subject.namespace(), name)?;
        object.metadata.generation
    };
    Generations { target: generation(&target.name), primary: generation(&target.primary_name()) }
}

/// Looks at everything around a canary.
pub(crate) fn look(understood: &Understood, subject: &Subject, cache: &Cache, around: &Circumstances) -> Snapshot {
    // Also where the target cannot be used: its users have to go somewhere.
    let primary = understood.target.observe_primary(subject, around.now);
    let present = present(understood, subject, cache, around);
    let traffic = understood.traffic.observed(subject).map_err(|error| error.to_string());
    // Users are not moved without a look at the routes and at the pods behind them.
    let mut blinding =
        [understood.target.object_kind()].into_iter().chain(understood.traffic.watched().iter().copied());
    let traffic = match blinding.find(|kind| is_forbidden(cache, subject, kind)) {
        Some(kind) => Err(forbidden(kind)),
        None => traffic,
    };
    let (target, primary, pending) = match (present, primary) {
        (Ok((target, pending)), Ok(primary)) => (Ok(target), primary, pending),
        (Ok(_), Err(error)) => (Err(error.to_string()), None, Pending::default()),
        (Err(text), primary) => (Err(text), primary.unwrap_or(None), Pending::default()),
    };
    let scaler_paused = scalers::is_paused(subject);
    let has_finalizer = around.has_finalizer;
    let reverts = around.deleting && has_finalizer && understood.plan.revert_on_deletion;
    Snapshot {
        now: around.now,
        deleting: around.deleting,
        has_finalizer,
        reverting: reverts.then(|| reverting(understood, subject, cache, around.now)),
        target,
        primary,
        pending,
        scaler_paused,
        repairs_paused: around.repairs_paused,
        routed_since: around.now,
        serving_since: ServingSince::default(),
        traffic: understood.traffic.routes_requests().then_some(traffic),
        answers: around.answers.clone(),
        asking: around.asking,
    }
}

/// What is left to give back. What cannot be seen cannot be given back; what does not exist need not be.
fn reverting(understood: &Understood, subject: &Subject, cache: &Cache, now: Timestamp) -> Result<Reverting, String> {
    let mut needed = [understood.target.object_kind(), &kinds::SERVICE]
        .into_iter()
        .chain(understood.traffic.watched().iter().copied());
    if let Some(kind) = needed.find(|kind| is_forbidden(cache, subject, kind)) {
        return Err(forbidden(kind));
    }
    Ok(Reverting {
        target: understood.target.returned(subject, now),
        apex: !services::revert_apex(subject).is_empty(),
        routes: !understood.traffic.revert(subject).is_empty(),
    })
}

/// The target, and what of the generated objects is not in place.
fn present(
    understood: &Understood,
    subject: &Subject,
    cache: &Cache,
    around: &Circumstances,
) -> Result<(TargetView, Pending), String> {
    let mut needed = needed_kinds(understood, subject).into_iter();
    if let Some(kind) = needed.find(|kind| is_forbidden(cache, subject, kind)) {
        return Err(forbidden(kind));
    }
    for kind in understood.traffic.watched() {
        if cache.kind(kind, subject.namespace()) == Some(KindState::Unserved) {
            return Err(format!(
                "the API server does not serve {} ({}): install the CRDs of {}, or choose another spec.provider",
                kind.kind,
                kind.api_version(),
                understood.traffic.name()
            ));
        }
    }
    if let Some(scaler) = scalers::for_subject(subject)
        && cache.kind(scaler.object_kind(), subject.namespace()) == Some(KindState::Unserved)
    {
        let kind = scaler.object_kind();
        return Err(format!(
            "the API server does not serve {} ({}): install {}, or choose another spec.autoscalerRef",
            kind.kind,
            kind.api_version(),
            scaler.provided_by()
        ));
    }
    let target = understood.target.observe(subject, around.now).map_err(|error| error.to_string())?;
    if understood.plan.uses_subsets {
        let split = Split::to_canary(around.state.canary_weight);
        let routes = is_pending(understood.traffic.reconcile(subject, split))?;
        return Ok((target, Pending { routes, ..Pending::default() }));
    }
    let split = Split::to_canary(around.state.canary_weight);
    let pending = Pending {
        services: is_pending(side_services(understood, subject))?,
        scaler: is_pending(scalers::reconcile_primary(subject, updates_scaler(subject, around.state.phase)))?,
        apex: is_pending(services::reconcile_apex(subject))?,
        routes: is_pending(understood.traffic.reconcile(subject, split))?,
    };
    Ok((target, pending))
}

fn is_forbidden(cache: &Cache, subject: &Subject, kind: &'static ObjectKind) -> bool {
    cache.kind(kind, subject.namespace()) == Some(KindState::Forbidden)
}

/// What a canary cannot do without. Of an object of such a kind that is not seen, nobody can tell whether it exists.
fn needed_kinds(understood: &Understood, subject: &Subject) -> Vec<&'static ObjectKind> {
    let mut needed = vec![understood.target.object_kind(), &kinds::SERVICE];
    if understood.plan.uses_subsets {
        needed.extend(understood.traffic.watched());
        needed.push(&kinds::DEPLOYMENT);
        return needed;
    }
    if subject.settings.config_tracking {
        needed.extend([&kinds::CONFIG_MAP, &kinds::SECRET]);
    }
    needed.extend(scalers::for_subject(subject).map(scalers::Scaler::object_kind));
    needed.extend(understood.traffic.watched());
    needed
}

/// The services of the two sides. Before anything else, whatever the garbage collector would delete is taken over: it must
/// not wait for anything, and whether the primary is in service can be told only when nothing of it is pending.
fn side_services(understood: &Understood, subject: &Subject) -> Result<Vec<Change>, TargetError> {
    let taken_over = takeover::take_over(subject, understood.traffic.watched());
    // Nothing else is written to the same objects by the same look.
    if taken_over.is_empty() { services::reconcile_sides(subject) } else { Ok(taken_over) }
}

fn is_pending<E: std::fmt::Display>(changes: Result<Vec<Change>, E>) -> Result<bool, String> {
    changes.map(|changes| !changes.is_empty()).map_err(|error| error.to_string())
}

/// The primary's autoscaler is brought to the target's only with a promotion, as its pods are. Without an analysis there is
/// no phase for that: nothing speaks against it from the start.
fn updates_scaler(subject: &Subject, phase: Phase) -> bool {
    phase == Phase::Promoting || (phase == Phase::Progressing && subject.canary.skip_analysis)
}

/// Why an effect was not turned into changes.
pub(crate) enum NoChanges {
    /// The target is no longer at the analysed revision.
    Superseded,
    /// An object cannot be used; the text says which and why.
    Obstacle(String),
}

impl From<TargetError> for NoChanges {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Superseded { .. } => NoChanges::Superseded,
            other => NoChanges::Obstacle(other.to_string()),
        }
    }
}

/// The changes that make an effect; empty if it is in force already. `None` for effects that change no object.
pub(crate) fn changes(
    understood: &Understood,
    subject: &Subject,
    phase: Phase,
    effect: &Effect,
) -> Option<Result<Vec<Change>, NoChanges>> {
    let obstacle = |error: &dyn std::fmt::Display| NoChanges::Obstacle(error.to_string());
    let changes = match effect {
        Effect::Apply(Component::Services) => side_services(understood, subject).map_err(NoChanges::from),
        Effect::Apply(Component::Primary) => understood.target.apply_primary(subject).map_err(NoChanges::from),
        Effect::Apply(Component::Scaler) => {
            scalers::reconcile_primary(subject, updates_scaler(subject, phase)).map_err(|error| obstacle(&error))
        }
        Effect::Apply(Component::Apex) => services::reconcile_apex(subject).map_err(NoChanges::from),
        Effect::Apply(Component::Routes(split)) => {
            understood.traffic.reconcile(subject, *split).map_err(|error| obstacle(&error))
        }
        Effect::SetFinalizer(wanted) => Ok(finalizer::set(subject, *wanted)),
        Effect::Revert(Reverted::Apex) => Ok(services::revert_apex(subject)),
        Effect::Revert(Reverted::Routes) => Ok(understood.traffic.revert(subject)),
        Effect::SetTraffic(split) => understood.traffic.set(subject, *split).map_err(|error| obstacle(&error)),
        Effect::ScaleTarget(scale) => understood.target.scale(subject, *scale).map_err(NoChanges::from),
        Effect::DeleteObject => Ok(subset::deletion(subject).into_iter().collect()),
        Effect::PauseScaler(paused) => scalers::pause(subject, *paused).map_err(|error| obstacle(&error)),
        Effect::Promote { revision, configs } => {
            understood.target.promote(subject, revision, configs).map_err(NoChanges::from)
        }
        Effect::Ask(_)
        | Effect::CallHooks(_)
        | Effect::Emit(_)
        | Effect::Alert(_)
        | Effect::Count(_)
        | Effect::WriteStatus => return None,
    };
    Some(changes)
}
