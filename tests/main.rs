//! Integration tests: one crate, because each test binary links the whole stack.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lifecycle;
mod process;
mod support;
mod webhooks;
