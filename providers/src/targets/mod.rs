//! Workloads that are released (`spec.targetRef`), and the primaries that are made from them.

mod daemon_set;
mod deployment;
mod pair;
mod pod_template;
mod readiness;
pub mod revision;
pub(crate) mod service;
pub mod subset;
mod workload;

use std::collections::BTreeMap;

use aviary_crds::validated::TargetKind;
use aviary_rollout::{PrimaryView, Returned, Scale, TargetView};
use jiff::Timestamp;
use thiserror::Error;

use crate::change::Change;
use crate::{ObjectKind, Subject};

pub use daemon_set::DaemonSetTarget;
pub use deployment::DeploymentTarget;
pub use pair::PairTarget;
pub use revision::is_own_revision;
pub use service::ServiceTarget;
pub use subset::SubsetTarget;

/// Why a workload cannot be read or written. The texts go into events as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The target does not exist.
    #[error("{kind} {name}.{namespace} get query error: {cause}")]
    NotFound {
        /// Kind in lower case.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// As the API server says it.
        cause: String,
    },
    /// None of the accepted label keys selects the target's pods.
    #[error(
        "getSelectorLabel failed: {kind} {name}.{namespace} spec.selector.matchLabels must contain one of [{}]",
        accepted.join(" ")
    )]
    NoSelectorLabel {
        /// Kind in lower case.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// `--selector-labels`.
        accepted: Vec<String>,
    },
    /// A ConfigMap or Secret that the target needs does not exist. Flagger says the text twice, too.
    #[error(
        "GetTargetConfigs failed: {kind} {name}.{namespace} get query error: {kind} {name}.{namespace} get query error: {cause}"
    )]
    MissingConfig {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// As the API server says it.
        cause: String,
    },
    /// The target has moved on since it was analysed; the analysis starts over before anything is promoted.
    #[error("{kind} {name}.{namespace} changed after its analysis, not promoting: {what}")]
    Superseded {
        /// Kind in lower case.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// What is not as it was.
        what: String,
    },
    /// The object is not what its kind promises.
    #[error("{kind} {name}.{namespace} cannot be used: {cause}")]
    Malformed {
        /// Kind in lower case.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// What is wrong.
        cause: String,
    },
    /// A DaemonSet whose pods would not follow a promotion.
    #[error("daemonset {name}.{namespace} must have RollingUpdate strategy but have {strategy}")]
    UpdateStrategy {
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// `spec.updateStrategy.type`.
        strategy: String,
    },
    /// A kind of target that this version does not release.
    #[error("target kind {kind} is not supported yet; supported: Deployment, DaemonSet, Service")]
    Unsupported {
        /// `spec.targetRef.kind`.
        kind: String,
    },
}

/// The label that selects the target's pods. The primary's pods carry the same key with the value `<value>-primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The first of `--selector-labels` that the target selects by.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Selector {
    /// The value that the primary's pods carry.
    pub fn primary_value(&self) -> String {
        format!("{}-primary", self.value)
    }
}

/// A container port that the services expose because of `portDiscovery`. Always TCP, as in Flagger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredPort {
    /// Name of the container port, or `tcp-<container>-<index>`.
    pub name: String,
    /// Port number, of the service and of the container.
    pub port: i64,
}

/// A kind of workload.
///
/// Every function reads the present objects through [`Subject::objects`] and is idempotent: on the result of its own
/// changes it returns none.
pub trait Target: Send + Sync {
    /// `spec.targetRef.kind`.
    fn kind(&self) -> &'static str;

    /// Kind of the target and of its primary.
    fn object_kind(&self) -> &'static ObjectKind;

    /// The target as it is.
    fn observe(&self, subject: &Subject, now: Timestamp) -> Result<TargetView, TargetError>;

    /// The primary as it is; `None` while it does not exist.
    fn observe_primary(&self, subject: &Subject, now: Timestamp) -> Result<Option<PrimaryView>, TargetError>;

    /// Whether its objects do not say since when they are not ready, so that whoever watches them has to measure
    /// `spec.progressDeadlineSeconds` and end a [`aviary_rollout::Readiness::Waiting`] without a deadline.
    fn waits_by_canary_deadline(&self) -> bool {
        false
    }

    /// Creates the primary and its copies of tracked configs, or brings them to the target as it is. The workload is
    /// the last change, so that its pods start with the right configs.
    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError>;

    /// As [`apply_primary`](Self::apply_primary), but refuses with [`TargetError::Superseded`] unless the target is at
    /// the revision, and its tracked configs at the checksums, that were analysed (Q16).
    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError>;

    /// Scales the target.
    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError>;

    /// The target as it is to be given back when the canary is deleted; `None` if it does not exist. Unlike
    /// [`observe`](Self::observe) it depends on nothing but the workloads, so that nothing else is in the way.
    fn returned(&self, subject: &Subject, now: Timestamp) -> Option<Returned>;

    /// The label that selects the target's pods.
    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError>;

    /// Container ports besides `spec.service.port`; empty unless `spec.service.portDiscovery`.
    fn discovered_ports(&self, subject: &Subject) -> Result<Vec<DiscoveredPort>, TargetError>;
}

/// The implementation for a kind.
pub fn for_kind(kind: TargetKind) -> &'static dyn Target {
    match kind {
        TargetKind::Deployment => &DeploymentTarget,
        TargetKind::DeploymentPair => &PairTarget,
        TargetKind::DaemonSet => &DaemonSetTarget,
        TargetKind::Service => &ServiceTarget,
        TargetKind::Subset => &SubsetTarget,
    }
}

/// The implementation for the subject's target, or the text that says that there is none.
pub fn for_subject(subject: &Subject) -> Result<&'static dyn Target, TargetError> {
    let target = &subject.canary.target;
    if target.is_knative() {
        return Err(TargetError::Unsupported { kind: format!("Service of {}", target.api_version) });
    }
    Ok(for_kind(target.kind))
}
