//! Integration tests: one crate, because each test binary links the whole stack.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod bad_input;
mod birdwatch;
mod calls;
mod certificates;
mod charts;
mod crossover;
mod dashboards;
mod differences;
mod faults;
mod fixtures_run;
mod flagger_e2e;
mod flagger_v1alpha1;
mod kills;
mod kubectl;
mod leadership;
mod lifecycle;
mod mesh_cluster;
mod metrics;
mod permissions;
mod process;
mod propagation;
mod quirks;
mod real;
mod sandbox;
mod scenarios;
mod settings;
mod simulate;
mod simulate_input;
mod steerer;
mod supervision;
mod support;
mod takeover;
mod webhooks;
