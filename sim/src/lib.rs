//! The embedded cluster: an in-memory Kubernetes API server, the workload controllers, a traffic model and the metrics that a
//! real cluster would export, all in one process, on real or on virtual time.
//!
//! Whatever this cluster does, a real one does too: status codes, message texts, resource versions, watch semantics and
//! defaulting follow kube-apiserver 1.36. [`cluster::Cluster`] wires the parts.

pub mod apiserver;
pub mod calls;
pub mod clock;
pub mod cluster;
pub mod controllers;
pub mod faults;
pub mod http;
pub mod image_tag;
mod keda;
pub mod prometheus;
pub mod services;
pub mod store;
pub mod traffic;

mod quantity;
mod quotas;
pub mod random;

pub use cluster::{Cluster, ClusterOptions};
