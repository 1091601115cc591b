//! Deployments, after the deployment controller of Kubernetes 1.36: the same decisions in the same order, the same conditions
//! with the same reasons and texts.
//!
//! [`plan`] is a pure function from a Deployment, its ReplicaSets and the time to operations and a status. It does not know
//! whether ReplicaSets are stored objects or only counted, so both forms of the cluster roll out alike.

mod plan;
#[cfg(test)]
mod plan_tests;
mod spec;
mod status;

pub(super) use plan::{Operation, SetStatus, SetView, plan};
pub(super) use spec::DeploymentSpec;
pub(super) use status::{DeploymentStatus, REPLICA_FAILURE, replica_failure};

/// Annotation with the revision of a Deployment and of each of its ReplicaSets.
pub(super) const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a ReplicaSet: earlier revisions of a template that was rolled back to.
pub(super) const REVISION_HISTORY_ANNOTATION: &str = "deployment.kubernetes.io/revision-history";
/// Annotation of a ReplicaSet: `spec.replicas` of the Deployment when the set was last scaled.
pub(super) const DESIRED_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet: desired replicas plus surge when the set was last scaled.
pub(super) const MAX_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";
