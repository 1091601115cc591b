//! Load tests for controllers of progressive delivery.
//!
//! [`fleet`] runs thousands of canaries through releases on an embedded cluster, in virtual time, and reports what that
//! cost and whether every release ended as it should. [`chaos`] runs releases under faults that a seed decides, and
//! compares how they end with how they would have ended.
//!
//! [`cluster_network`] and [`users`] stand beside a real cluster whose nodes run no containers: its pods answer, its services
//! lead to them, and users send requests all the time.
//!
//! [`serve`] is the load tester that webhooks of canaries call.

pub mod chaos;
pub mod checks;
pub mod cluster_network;
mod ending;
pub mod fleet;
mod ledger;
mod objects;
mod process;
mod promptness;
pub mod random;
pub mod serve;
pub mod users;
