//! What a decision asks the world to do.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::message::Message;
use crate::notice::Notice;
use crate::snapshot::Split;
use crate::state::State;
use aviary_crds::validated::WebhookType;

/// A group of generated objects that is created or repaired together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The `-canary` and `-primary` services.
    Services,
    /// The primary workload and its copies of tracked configs, made from (or brought to) the target as it is.
    Primary,
    /// The primary's autoscaler.
    Scaler,
    /// The apex service.
    Apex,
    /// Mesh or ingress objects; the given split is the one in force.
    Routes(Split),
}

/// Which way the target workload is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    /// To no pods.
    Zero,
    /// To the replicas that a canary needs.
    Up,
    /// To the replicas that everybody needs: the canary is being deleted, and the target serves again.
    Restore,
}

/// What is given back when the canary is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reverted {
    /// The apex service selects the target's pods again, unless it goes with the canary.
    Apex,
    /// The mesh or ingress objects are what they were, unless they go with the canary.
    Routes,
}

/// Something to find out. The answer comes back in [`Answers`](crate::Answers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// Do the metric providers answer?
    Providers,
    /// One check round: `rollout` hooks, then the metrics.
    Round,
    /// Call the hooks of one type.
    Hooks(WebhookType),
    /// Look at the workloads anew, whatever the watches have told.
    Workloads,
}

/// How a run ended, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Promoted after an analysis.
    Completed,
    /// Promoted without an analysis (`skipAnalysis`).
    Skipped,
    /// Rolled back, or the promotion failed.
    Failed,
}

/// One thing to do. Executed in order; a failure ends the step, and the next decision starts over.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Create or repair generated objects.
    Apply(Component),
    /// Set the weights.
    SetTraffic(Split),
    /// Scale the target.
    ScaleTarget(Scale),
    /// Tell the target's autoscaler to keep it without pods (`true`), or to scale it again. Only for one that would
    /// otherwise bring the pods back, see [`Snapshot::scaler_paused`](crate::Snapshot::scaler_paused).
    PauseScaler(bool),
    /// Bring the primary (created if it is missing) to the target's revision, provided the target still is at it.
    Promote {
        /// The analysed revision.
        revision: String,
        /// The analysed configs.
        configs: Option<BTreeMap<String, String>>,
    },
    /// Puts our finalizer on the canary object, or takes it off.
    SetFinalizer(bool),
    /// Gives back what was the user's before.
    Revert(Reverted),
    /// Deletes the canary object, whose work is done.
    DeleteObject,
    /// Find something out. Always the only effect of its step. Asked again on every decision until the answer is there;
    /// whoever executes it ignores a question that is already being asked.
    Ask(Question),
    /// Call the hooks of one type, tell how it went, and go on either way.
    CallHooks(WebhookType),
    /// Record a Kubernetes event (and log line, and event hook).
    Emit(Message),
    /// Send an alert.
    Alert(Notice),
    /// Count a finished run.
    Count(Outcome),
    /// Store the decision's next state in `.status`. Always last.
    WriteStatus,
}

/// When to decide again, if nothing is observed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Only when something changes.
    OnChange,
    /// At the latest then.
    At(Timestamp),
}

impl Wake {
    /// The earlier of the two.
    pub fn or_at(self, at: Option<Timestamp>) -> Wake {
        match (self, at) {
            (wake, None) => wake,
            (Wake::OnChange, Some(at)) => Wake::At(at),
            (Wake::At(a), Some(b)) => Wake::At(a.min(b)),
        }
    }
}

/// Why nothing is done although something is wanted. Two holds of one kind are one episode, told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldKind {
    /// `spec.suspend`.
    Suspended,
    /// The target is missing or unusable.
    Target,
    /// The primary is not ready.
    PrimaryNotReady,
    /// The primary is missing and cannot be made from what the target holds now.
    PrimaryMissing,
    /// The canary is not ready.
    CanaryNotReady,
    /// The weights cannot be read, or another writer keeps them from the canary.
    Routes,
    /// The monitoring does not answer.
    MetricsOutage,
    /// The monitoring has nothing to say yet.
    NoData,
    /// A confirm gate is closed.
    Gate(WebhookType),
    /// Traffic should go to the primary, but that has no available pod (or is the broken one of a failed promotion).
    RollbackBlocked,
    /// The canary is being deleted, and its users cannot go back yet.
    Reverting,
    /// Routes or pods have just changed, and the mesh may not have followed yet.
    Settling,
    /// The promotion is broken and the canary has no available pod either.
    NowhereToGo,
}

/// A hold, with its text and how long it must last before it is worth an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// What kind of hold.
    pub kind: HoldKind,
    /// The text for event, log and `describe`.
    pub message: Message,
    /// An event is recorded when the hold has lasted this long. Zero for what a person must act on; one interval for
    /// what usually passes by itself (pods that start), which is when Flagger would first see it.
    pub announce_after: Duration,
    /// Sent together with the event.
    pub alert: Option<Notice>,
}

impl Decision {
    /// The same, whose hold is told in an alert, too.
    pub(crate) fn with_alert(mut self, alert: Notice) -> Decision {
        if let Some(hold) = &mut self.hold {
            hold.alert = Some(alert);
        }
        self
    }
}

/// The answer of [`decide`](crate::decide).
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do, in order. Empty when there is nothing to do now.
    pub effects: Vec<Effect>,
    /// The state after the step. Differs from the present one only if the last effect is [`Effect::WriteStatus`].
    pub next: State,
    /// When to decide again.
    pub wake: Wake,
    /// Why nothing is done.
    pub hold: Option<Hold>,
}
