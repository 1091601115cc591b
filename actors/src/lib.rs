//! The operator: one actor per canary, and what they share.
//!
//! ```text
//!  watches (worker threads) ──▶ Cache ──nudges (level, never edge)──┐
//!                                                                   ▼
//!  Supervisor ──spawns, restarts, quarantines──▶ CanaryActor × N    looks at the cache, decides, hands out effects
//!                 ┌───────────────┬────────────────┬───────────────┐
//!                 ▼               ▼                ▼               ▼
//!              Router         Observer         Recorder         Courier     shared, one of each
//!          writes, one at   queries, each    events and       webhooks and
//!          a time per       asked once       metrics          alerts, bounded
//!          object                                             per tenant
//! ```
//!
//! Actors decide on one arbiter and never wait: whatever takes time is spawned onto the tokio workers and comes back as
//! a message that carries the epoch it was asked under. Any actor can be thrown away at any time; a canary's is rebuilt
//! from the caches.

pub mod cache;
mod canary;
pub mod checks;
pub mod clock;
mod controller;
mod courier;
mod deps;
mod dialects;
pub mod hooks;
mod lifetime;
pub mod messages;
pub mod metrics;
mod observer;
mod patience;
mod queue;
mod recorder;
mod retry;
mod router;
mod snapshot;
pub mod supervision;
mod supervisor;
pub mod transport;
pub mod watches;

pub use clock::Clock;
pub use controller::{Controller, ControllerConfig, ControllerHandle};
pub use deps::FaultHook;
pub use metrics::Metrics;
