//! HorizontalPodAutoscalers.
use super::*;

/// `autoscaling/v2` HorizontalPodAutoscalers.
#[derive(Clone, Copy, Debug)]
pub struct HorizontalPodAutoscaler;

impl Scaler for HorizontalPodAutoscaler {
    fn kind(&self) -> &'static str {
        "HorizontalPodAutoscaler"
    }
    fn reconcile_primary(&self, _subject: &Subject, _update: bool) -> Result<Vec<Change>, ScalerError> {
        Ok(Vec::new())
    }
    fn min_replicas(&self, _subject: &Subject) -> Option<i64> {
        None
    }
}
