//! How the API server behaves, seen through a `kube::Client` and nothing else, so that the same tests can run against a real
//! kube-apiserver.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod builtin;
mod cel;
mod crd;
mod deletion;
mod discovery;
mod dry_run;
mod errors;
mod lists;
mod openapi;
mod patches;
mod people;
mod ratcheting;
mod recorded;
mod status;
mod strategic;
mod support;
mod tables;
mod watches;
mod writes;
