//! The decision core against a small pure model of a cluster, on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod clock;
mod crashes;
mod deadlines;
mod deletion;
mod driver;
mod golden;
mod golden_strategies;
mod holding;
mod properties;
mod quirks;
mod scalers;
mod scenarios;
mod sessions;
mod subsets;
mod takeover;
mod walk;
mod world;
