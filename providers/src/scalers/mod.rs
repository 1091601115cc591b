//! Autoscalers (`spec.autoscalerRef`): the primary gets a copy of the target's.
//!
//! `spec.autoscalerRef.apiVersion` is not looked at, as in Flagger: each kind is served in one version, and the API server
//! converts.

mod hpa;
mod scaled_object;

use std::sync::Arc;

use aviary_crds::validated::{Autoscaler, AutoscalerKind};
use kube::core::DynamicObject;
use thiserror::Error;

use crate::Subject;
use crate::change::Change;
use crate::object::ObjectKind;

pub use hpa::HorizontalPodAutoscaler;
pub use scaled_object::ScaledObject;

/// Why an autoscaler cannot be read or written. The texts go into events as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScalerError {
    /// The target's autoscaler does not exist.
    #[error("{kind} {name}.{namespace} get query error: {cause}")]
    NotFound {
        /// Kind, as Flagger says it.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// As the API server says it.
        cause: String,
    },
}

/// A kind of autoscaler.
pub trait Scaler: Send + Sync {
    /// `spec.autoscalerRef.kind`.
    fn kind(&self) -> &'static str;

    /// The kind of its objects.
    fn object_kind(&self) -> &'static ObjectKind;

    /// What to install where the API server does not serve the kind.
    fn provided_by(&self) -> &'static str;

    /// Creates the primary's autoscaler if it is missing and, with `update` (while a revision is promoted), brings an
    /// existing one to the target's. Idempotent.
    fn reconcile_primary(&self, subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError>;

    /// Fewest replicas that the target's autoscaler wants, if it says so.
    fn min_replicas(&self, subject: &Subject) -> Option<i64>;

    /// Whether the target's autoscaler keeps it without pods; `None` for a kind that leaves a target without pods alone.
    fn is_paused(&self, subject: &Subject) -> Option<bool> {
        let _ = subject;
        None
    }

    /// Tells the target's autoscaler to keep it without pods, or to scale it again. Idempotent.
    fn pause(&self, subject: &Subject, paused: bool) -> Result<Vec<Change>, ScalerError> {
        let _ = (subject, paused);
        Ok(Vec::new())
    }
}

/// The implementation for a kind.
pub fn for_kind(kind: AutoscalerKind) -> &'static dyn Scaler {
    match kind {
        AutoscalerKind::HorizontalPodAutoscaler => &HorizontalPodAutoscaler,
        AutoscalerKind::ScaledObject => &ScaledObject,
    }
}

/// The implementation for the subject's autoscaler; `None` if it has none.
pub fn for_subject(subject: &Subject) -> Option<&'static dyn Scaler> {
    subject.canary.autoscaler.as_ref().map(|autoscaler| for_kind(autoscaler.kind))
}

/// As [`Scaler::reconcile_primary`]; nothing to do without an autoscaler.
pub fn reconcile_primary(subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError> {
    for_subject(subject).map_or(Ok(Vec::new()), |scaler| scaler.reconcile_primary(subject, update))
}

/// As [`Scaler::is_paused`]; `None` without an autoscaler.
pub fn is_paused(subject: &Subject) -> Option<bool> {
    for_subject(subject)?.is_paused(subject)
}

/// As [`Scaler::pause`]; nothing to do without an autoscaler.
pub fn pause(subject: &Subject, paused: bool) -> Result<Vec<Change>, ScalerError> {
    for_subject(subject).map_or(Ok(Vec::new()), |scaler| scaler.pause(subject, paused))
}

/// The target's autoscaler. `said` is the kind as Flagger calls it in this message.
fn source(
    subject: &Subject,
    kind: &'static ObjectKind,
    autoscaler: &Autoscaler,
    said: &'static str,
) -> Result<Arc<DynamicObject>, ScalerError> {
    subject.get(kind, &autoscaler.name).ok_or_else(|| ScalerError::NotFound {
        kind: said,
        name: autoscaler.name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: kind.not_found(&autoscaler.name),
    })
}
