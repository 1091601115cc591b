//! Supervision that survives panics.
//!
//! `actix::Supervisor` restarts only after `stop()`, at once and without backoff, and never after a panic. This module
//! keeps the mailbox and every `Addr` of an actor alive over both.

mod panic_supervisor;
mod policy;

pub(crate) use panic_supervisor::panic_text;
pub use panic_supervisor::{Exit, Hurry, PanicSupervisor, Verdict};
pub use policy::RestartPolicy;
