//! What only the embedded cluster has: faults, the call log, seeds, and the wiring of its parts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod cluster;
mod faults;
mod node;
mod proxy;
mod recorded;
mod support;
mod watches;
