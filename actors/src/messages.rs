//! Every message between actors, grouped by receiver. Facts are in the past tense, orders are imperative, and questions
//! are called `Describe`.

use std::fmt;

use actix::{Message, Recipient};
use aviary_crds::validated::{AlertSeverity, WebhookType};
use aviary_providers::{Change, ObjectKey, ObjectKind, kinds};
use aviary_rollout::{HookAnswer, Message as Note, Outcome, RoundAnswer};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde::Serialize;

use crate::checks::PreparedCheck;
use crate::hooks::{PreparedAlert, PreparedHook};

/// Which object is run: a Canary, or one of another system's kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct CanaryId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Kind.
    #[serde(serialize_with = "name_of_kind")]
    pub kind: &'static ObjectKind,
}

impl CanaryId {
    /// A Canary.
    pub fn canary(namespace: impl Into<String>, name: impl Into<String>) -> CanaryId {
        CanaryId { namespace: namespace.into(), name: name.into(), kind: &kinds::CANARY }
    }

    /// Key of the object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl From<ObjectKey> for CanaryId {
    fn from(ObjectKey { kind, namespace, name }: ObjectKey) -> CanaryId {
        CanaryId { namespace, name, kind }
    }
}

fn name_of_kind<S: serde::Serializer>(kind: &&'static ObjectKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.kind)
}

/// `name.namespace`, as Flagger writes it.
impl fmt::Display for CanaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Counts the steps of one canary's actor. An answer that was asked for under another epoch is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Epoch(pub u64);

// ---- to a canary ---------------------------------------------------------------------------------------------------

/// Something that the canary looked at has changed. Carries nothing: the canary looks again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Nudge;

/// An effect is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EffectDone {
    /// When it was asked for.
    pub epoch: Epoch,
    /// How it went.
    pub outcome: EffectOutcome,
}

/// How an effect went.
#[derive(Debug)]
pub enum EffectOutcome {
    /// Writes, or reads that take turns with them.
    Written(Result<(), WriteError>),
    /// Whether the metric providers answer.
    Providers(Result<(), String>),
    /// A check round.
    Round(RoundAnswer),
    /// Hooks of one type.
    Hooks(WebhookType, Vec<HookAnswer>),
    /// An alert was sent, or is being retried.
    Told,
    /// Whoever was to do it failed inside; whether it was done is not known.
    Lost,
}

/// Where the answer to an order goes. Every order is answered: dropped without an answer (by a panic on the way, say),
/// it answers [`EffectOutcome::Lost`], so that no canary waits for ever.
pub struct Reply {
    epoch: Epoch,
    to: Option<Recipient<EffectDone>>,
}

impl Reply {
    /// To this recipient, about this epoch.
    pub fn new(epoch: Epoch, to: Recipient<EffectDone>) -> Reply {
        Reply { epoch, to: Some(to) }
    }

    /// Answers.
    pub fn send(mut self, outcome: EffectOutcome) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: EffectOutcome) {
        if let Some(to) = self.to.take() {
            to.do_send(EffectDone { epoch: self.epoch, outcome });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.deliver(EffectOutcome::Lost);
    }
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The object is not what it was when the write was decided. The cache holds the present one; decide again.
    #[error("the object has changed")]
    Conflict,
    /// The API server refused, or did not answer; the write may have been made.
    #[error("{0}")]
    Failed(String),
}

/// Finish what is in flight, then stop deciding.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Retire;

/// What is the canary doing, and why?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "CanaryView")]
pub struct Describe;

/// The answer to [`Describe`].
#[derive(Clone, Debug, Serialize)]
pub struct CanaryView {
    /// Which canary.
    pub canary: CanaryId,
    /// Its phase.
    pub phase: String,
    /// Its weight.
    pub canary_weight: u32,
    /// Its failed checks.
    pub failed_checks: u32,
    /// Steps since the actor started.
    pub epoch: Epoch,
    /// Whether effects are in flight.
    pub busy: bool,
    /// Why nothing is done, if something is wanted.
    pub waiting_for: Option<String>,
    /// When it will look again by itself; absent when only a change wakes it.
    pub next_wake: Option<Timestamp>,
    /// What the object is refused for.
    pub refused: Option<String>,
}

// ---- to the supervisor ---------------------------------------------------------------------------------------------

/// Canaries came, changed or went.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub enum CanariesChanged {
    /// This one.
    One(CanaryId),
    /// A list of some kind was read, or the kind is not served, or we may not see it.
    Listed,
}

/// A canary's actor died and will be restarted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildDied {
    /// Which one.
    pub canary: CanaryId,
    /// What the panic said.
    pub reason: String,
    /// Whether it keeps dying.
    pub quarantined: bool,
    /// Deaths in a row.
    pub deaths: u32,
}

/// A canary's actor was restarted after a panic.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildRestarted(pub CanaryId);

/// A canary's actor made a step after a restart.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildRecovered(pub CanaryId);

/// A canary's actor has nothing in flight any more and will not decide again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ChildRetired(pub CanaryId);

/// Stop everything in order; answered when the effects in flight are done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown;

/// This process leads: start to act.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Lead;

/// Which canaries are there, and who answers for them?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<(CanaryId, Recipient<Describe>)>")]
pub struct DescribeCanaries;

// ---- to the router -------------------------------------------------------------------------------------------------

/// Which writes go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Users are hurting.
    Rollback,
    /// Users wait for the way back to a scaled primary.
    Promotion,
    /// The next weight.
    Advance,
    /// Bootstrap and repairs.
    Upkeep,
}

/// Write, and answer with [`EffectDone`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Write {
    /// Who wants it.
    pub canary: CanaryId,
    /// How urgent.
    pub lane: Lane,
    /// What.
    pub write: WriteOrder,
    /// Where the answer goes.
    pub reply: Reply,
}

/// What to write.
#[derive(Debug)]
pub enum WriteOrder {
    /// These changes, one after the other; the first failure ends it.
    Changes(Vec<Change>),
    /// The status of this canary object, which carries the version that was read.
    Status(Box<DynamicObject>),
    /// No write: these objects are read into the cache, in their turn between the writes.
    Refresh(Vec<ObjectKey>),
}

// ---- to the observer -----------------------------------------------------------------------------------------------

/// Take one sample of each check, and answer with [`EffectOutcome::Round`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct TakeSamples {
    /// Who wants it.
    pub canary: CanaryId,
    /// The checks, in the order of the plan.
    pub checks: Vec<PreparedCheck>,
    /// Hooks that were called before; part of the answer.
    pub hooks: Vec<HookAnswer>,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Ask whether the backends of these checks answer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ProbeBackends {
    /// The checks.
    pub checks: Vec<PreparedCheck>,
    /// Where the answer goes.
    pub reply: Reply,
}

// ---- to the recorder -----------------------------------------------------------------------------------------------

/// Record an event.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Record {
    /// About which canary object.
    pub about: EventSubject,
    /// What.
    pub note: Note,
    /// When; the recorder may be late.
    pub at: Timestamp,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSubject {
    /// Which canary.
    pub canary: CanaryId,
    /// Its uid.
    pub uid: String,
    /// The version that was looked at.
    pub resource_version: String,
}

/// The state of a canary, for the gauges.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Observed {
    /// Which canary.
    pub canary: CanaryId,
    /// Name of its target, which is what the metrics carry.
    pub target: String,
    /// Name of its primary, for the weights.
    pub primary: String,
    /// 0 progressing, 1 fine, 2 failed, as in Flagger.
    pub status: i64,
    /// Weights of canary and primary, where known.
    pub weights: Option<(u32, u32)>,
}

/// The value of one check, for the gauge.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Measured {
    /// Which canary.
    pub canary: CanaryId,
    /// Name of the metric.
    pub metric: String,
    /// Value; request-duration in seconds.
    pub value: f64,
}

/// A check round took this long.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RoundTook {
    /// Which canary.
    pub canary: CanaryId,
    /// Seconds.
    pub seconds: f64,
}

/// A run ended.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RunEnded {
    /// Which canary.
    pub canary: CanaryId,
    /// Name of its target.
    pub target: String,
    /// `canary`, `blue-green` or `ab-testing`.
    pub strategy: &'static str,
    /// How.
    pub outcome: Outcome,
}

/// Answered when every event that was ordered before is written, or has failed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct WriteOut;

/// A canary is gone; so are its series.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct CanaryGone(pub CanaryId);

// ---- to the courier ------------------------------------------------------------------------------------------------

/// Call these hooks in order until one decides the matter, and answer with [`EffectOutcome::Hooks`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct CallHooks {
    /// Who wants it.
    pub canary: CanaryId,
    /// Their type.
    pub kind: WebhookType,
    /// The calls.
    pub hooks: Vec<PreparedHook>,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Call the event hooks of a canary, after those of its earlier events. Failures are logged.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SendEvent {
    /// Whose event.
    pub canary: CanaryId,
    /// The calls.
    pub hooks: Vec<PreparedHook>,
}

/// Send an alert through these channels, unless it was sent before. Answers with [`EffectOutcome::Told`] when each channel
/// was tried once, or after a while; failures are retried and logged.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SendAlert {
    /// About which canary.
    pub canary: CanaryId,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// What tells this alert from others, see [`Notice::id`](aviary_rollout::Notice::id).
    pub id: String,
    /// Where to.
    pub alerts: Vec<PreparedAlert>,
    /// Where the answer goes, if somebody waits for it.
    pub reply: Option<Reply>,
}
