//! The generated ClusterIP services.

use crate::Subject;
use crate::change::Change;
use crate::targets::TargetError;

/// Creates or repairs the `-canary` and `-primary` services. Nothing to do for Service targets.
pub fn reconcile_sides(_subject: &Subject) -> Result<Vec<Change>, TargetError> {
    Ok(Vec::new())
}

/// Creates, adopts or repairs the apex service: it selects the primary's pods. Nothing to do for Service targets.
pub fn reconcile_apex(_subject: &Subject) -> Result<Vec<Change>, TargetError> {
    Ok(Vec::new())
}
