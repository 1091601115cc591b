//! Deployments.
use super::*;

/// `apps/v1` Deployments.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentTarget;

impl Target for DeploymentTarget {
    fn kind(&self) -> &'static str {
        "Deployment"
    }
    fn observe(&self, _subject: &Subject, _now: Timestamp) -> Result<TargetView, TargetError> {
        Err(TargetError::Unsupported { kind: "Deployment".into() })
    }
    fn observe_primary(&self, _subject: &Subject, _now: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        Ok(None)
    }
    fn apply_primary(&self, _subject: &Subject) -> Result<Vec<Change>, TargetError> {
        Ok(Vec::new())
    }
    fn promote(&self, _: &Subject, _: &str, _: &Option<BTreeMap<String, String>>) -> Result<Vec<Change>, TargetError> {
        Ok(Vec::new())
    }
    fn scale(&self, _subject: &Subject, _scale: Scale) -> Result<Vec<Change>, TargetError> {
        Ok(Vec::new())
    }
    fn selector(&self, _subject: &Subject) -> Result<Selector, TargetError> {
        Err(TargetError::Unsupported { kind: "Deployment".into() })
    }
    fn discovered_ports(&self, _subject: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        Ok(Vec::new())
    }
}
