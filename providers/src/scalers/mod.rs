//! Autoscalers (`spec.autoscalerRef`): the primary gets a copy of the target's.

mod hpa;

use aviary_crds::validated::AutoscalerKind;
use thiserror::Error;

use crate::Subject;
use crate::change::Change;

pub use hpa::HorizontalPodAutoscaler;

/// Why an autoscaler cannot be read or written. The texts go into events as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScalerError {
    /// The target's autoscaler does not exist.
    #[error("{kind} {name}.{namespace} get query error: {cause}")]
    NotFound {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// As the API server says it.
        cause: String,
    },
    /// A kind of autoscaler that this version does not copy.
    #[error("autoscaler kind {kind} is not supported yet; supported: HorizontalPodAutoscaler")]
    Unsupported {
        /// `spec.autoscalerRef.kind`.
        kind: String,
    },
}

/// A kind of autoscaler.
pub trait Scaler: Send + Sync {
    /// `spec.autoscalerRef.kind`.
    fn kind(&self) -> &'static str;

    /// Creates the primary's autoscaler if it is missing and, with `update` (while a revision is promoted), brings an
    /// existing one to the target's. Idempotent.
    fn reconcile_primary(&self, subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError>;

    /// Fewest replicas that the target's autoscaler wants, if it says so.
    fn min_replicas(&self, subject: &Subject) -> Option<i64>;
}

/// The implementation for a kind, if this version has one.
pub fn for_kind(kind: AutoscalerKind) -> Option<&'static dyn Scaler> {
    match kind {
        AutoscalerKind::HorizontalPodAutoscaler => Some(&HorizontalPodAutoscaler),
        _ => None,
    }
}

/// The implementation for the subject's autoscaler; `None` if it has none.
pub fn for_subject(subject: &Subject) -> Result<Option<&'static dyn Scaler>, ScalerError> {
    let Some(autoscaler) = &subject.canary.autoscaler else { return Ok(None) };
    match for_kind(autoscaler.kind) {
        Some(scaler) => Ok(Some(scaler)),
        None => Err(ScalerError::Unsupported { kind: autoscaler.kind.as_str().to_owned() }),
    }
}

/// As [`Scaler::reconcile_primary`]; nothing to do without an autoscaler.
pub fn reconcile_primary(subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError> {
    match for_subject(subject)? {
        Some(scaler) => scaler.reconcile_primary(subject, update),
        None => Ok(Vec::new()),
    }
}
