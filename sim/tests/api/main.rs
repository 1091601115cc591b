//! How the API server behaves, seen through a `kube::Client` and nothing else. The same tests run against a real kube-apiserver,
//! see `real.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../bench/mod.rs"]
mod bench;

mod apply;
mod builtin;
mod cel;
mod crd;
mod deletion;
mod discovery;
mod dry_run;
mod errors;
mod found;
mod found_types;
mod found_writes;
mod limits;
mod lists;
mod openapi;
mod patches;
mod people;
mod quotas;
mod ratcheting;
mod real;
mod recorded;
mod rights;
mod services;
mod status;
mod strategic;
mod support;
mod tables;
mod watches;
mod writes;
