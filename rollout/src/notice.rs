//! Alerts: what they say, and what tells two of them apart.

use std::fmt::Write;

use aviary_crds::status::whole_seconds;
use aviary_crds::validated::AlertSeverity;
use sha2::{Digest, Sha256};

use crate::plan::Plan;
use crate::state::State;

/// What an alert is about. One run gives at most one alert of each, whatever its text says by then; gates may close again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Occasion {
    /// Bootstrap is done.
    Initialized,
    /// The primary did not become ready for the first time.
    InitializationFailed,
    /// A run begins.
    NewRevision,
    /// A confirm-rollout gate is closed.
    WaitingForRollout,
    /// A confirm-traffic-increase gate is closed.
    WaitingForTrafficIncrease,
    /// A confirm-promotion gate is closed.
    WaitingForPromotion,
    /// A rollback hook asked for a rollback.
    RollbackRequested,
    /// Too many failed checks.
    ChecksFailed,
    /// The same, and the canary keeps its share.
    Frozen,
    /// The canary did not become ready in time.
    DeadlineExceeded,
    /// The primary did not become ready after the promotion; the canary serves.
    PromotionFailed,
    /// The same, and the canary cannot serve either.
    NowhereToGo,
    /// The run ended well.
    Promoted,
    /// A run without analysis ended well.
    PromotedWithoutAnalysis,
}

impl Occasion {
    /// Whether it may come about several times in one run.
    fn recurs(self) -> bool {
        matches!(
            self,
            Occasion::WaitingForRollout | Occasion::WaitingForTrafficIncrease | Occasion::WaitingForPromotion
        )
    }

    /// Part of the id, which must not change between two versions: the older one may have sent the alert.
    fn as_str(self) -> &'static str {
        match self {
            Occasion::Initialized => "initialized",
            Occasion::InitializationFailed => "initialization-failed",
            Occasion::NewRevision => "new-revision",
            Occasion::WaitingForRollout => "waiting-for-rollout",
            Occasion::WaitingForTrafficIncrease => "waiting-for-traffic-increase",
            Occasion::WaitingForPromotion => "waiting-for-promotion",
            Occasion::RollbackRequested => "rollback-requested",
            Occasion::ChecksFailed => "checks-failed",
            Occasion::Frozen => "frozen",
            Occasion::DeadlineExceeded => "deadline-exceeded",
            Occasion::PromotionFailed => "promotion-failed",
            Occasion::NowhereToGo => "nowhere-to-go",
            Occasion::Promoted => "promoted",
            Occasion::PromotedWithoutAnalysis => "promoted-without-analysis",
        }
    }
}

/// An alert. Texts are Flagger's (its reference, section 6.3), where Flagger has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub occasion: Occasion,
    /// Text.
    pub text: String,
    /// Severity, matched with `spec.analysis.alerts[].severity`.
    pub severity: AlertSeverity,
    /// Whether the alert carries the facts about target and analysis.
    pub with_facts: bool,
}

/// Characters of an id: 128 bits.
const ID_LENGTH: usize = 32;

impl Notice {
    /// An info alert with facts.
    pub fn info_with_facts(occasion: Occasion, text: impl Into<String>) -> Notice {
        Notice { occasion, text: text.into(), severity: AlertSeverity::Info, with_facts: true }
    }

    /// An info alert.
    pub fn info(occasion: Occasion, text: impl Into<String>) -> Notice {
        Notice { occasion, text: text.into(), severity: AlertSeverity::Info, with_facts: false }
    }

    /// A warning.
    pub fn warning(occasion: Occasion, text: impl Into<String>) -> Notice {
        Notice { occasion, text: text.into(), severity: AlertSeverity::Warn, with_facts: false }
    }

    /// An error.
    pub fn error(occasion: Occasion, text: impl Into<String>) -> Notice {
        Notice { occasion, text: text.into(), severity: AlertSeverity::Error, with_facts: false }
    }

    /// The id of this alert, decided in this state. It is made from what the status stores, and the status is written after
    /// the alert is sent: a step that is made again, also by another process, gives the same id, and the same thing that
    /// happens in a later run gives another.
    pub fn id(&self, plan: &Plan, state: &State) -> String {
        // The condition has been what it is since the run began (or the one before ended).
        let run = state.promoted.as_ref().map(|promoted| promoted.transitioned);
        let since = if self.occasion.recurs() { state.last_transition } else { run.or(state.last_transition) };
        let since = since.map(|at| whole_seconds(at).as_second()).unwrap_or_default().to_string();
        let mut hash = Sha256::new();
        for part in [&plan.canary_uid, &state.last_applied, &since, self.occasion.as_str()] {
            hash.update(part);
            // No part holds one, so that no two lists of parts read the same.
            hash.update([0]);
        }
        let mut id = String::with_capacity(ID_LENGTH);
        for byte in hash.finalize().iter().take(ID_LENGTH / 2) {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        id
    }
}
