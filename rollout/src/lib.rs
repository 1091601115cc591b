//! The decision core of Aviary: what to do next for one canary, given what is known.
//!
//! Everything here is sans-I/O and total. No clock, no client, no randomness: whatever a decision needs comes in as
//! an argument, so that every transition can be tested as a plain function call.
//!
//! ```text
//! Plan (validated spec) ─┐
//! State (= .status)      ├─▶ decide ─▶ Decision { effects, next state, wake, hold }
//! Snapshot (observed)   ─┘
//! ```
//!
//! **Guarantees**
//! - The status write is the last effect of a step; every other effect is idempotent. A process killed between any two
//!   effects therefore repeats the step and ends in the same cluster.
//! - At most one effect of a step changes traffic.
//! - Traffic is never moved to a side that has no available pod.
//! - Only the analysed revision is promoted.

#![deny(clippy::wildcard_enum_match_arm)]

mod analysis;
mod bootstrap;
mod decide;
mod deletion;
mod effect;
pub mod invariants;
mod message;
mod notice;
mod pair;
mod phase;
mod plan;
mod progress;
mod promotion;
mod repair;
mod rest;
mod rollback;
mod session;
mod snapshot;
mod state;
mod steady;
mod step;
mod strategy;
mod subsets;
mod takeover;
mod words;

pub use analysis::{Check, CheckKind, Limit, Sample, SampleError};
pub use bootstrap::providers_message;
pub use decide::decide;
pub use effect::{Component, Decision, Effect, Hold, HoldKind, Outcome, Question, Reverted, Scale, Wake};
pub use message::{Breach, Message};
pub use notice::{Notice, Occasion};
pub use phase::is_legal;
pub use plan::{AlertFacts, Capabilities, Hook, OnFailure, OutagePolicy, Plan, Settings, Unsupported};
pub use session::{Cookie, Cookies, Sessions};
pub use snapshot::{
    Answer, Answers, HookAnswer, Pending, PrimaryView, Readiness, Returned, Reverting, RoundAnswer, ServingSince,
    Snapshot, Split, TargetView, are_other_configs,
};
pub use state::{ACCEPTED, DEGRADED, METRICS_AVAILABLE, Outage, PROMOTED, PromotedCondition, SCALED_DOWN, State};
pub use strategy::{AbTesting, Advance, BlueGreen, News, Position, Strategy, Weighted, Weights};
