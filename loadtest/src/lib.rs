//! Load tests for controllers of progressive delivery.
//!
//! [`fleet`] runs thousands of canaries through releases on an embedded cluster, in virtual time, and reports what that
//! cost and whether every release ended as it should.

pub mod fleet;
mod process;
