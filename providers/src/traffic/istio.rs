//! Istio.
use super::*;
use crate::object::kinds;

/// Istio.
#[derive(Clone, Copy, Debug)]
pub struct Istio;

static WATCHED: [&ObjectKind; 2] = [&kinds::VIRTUAL_SERVICE, &kinds::DESTINATION_RULE];

impl TrafficProvider for Istio {
    fn name(&self) -> &'static str {
        "istio"
    }
    fn reconcile(&self, _subject: &Subject, _split: Split) -> Result<Vec<Change>, TrafficError> {
        Ok(Vec::new())
    }
    fn observed(&self, _subject: &Subject) -> Result<Split, TrafficError> {
        Ok(Split::PRIMARY)
    }
    fn set(&self, _subject: &Subject, _split: Split) -> Result<Vec<Change>, TrafficError> {
        Ok(Vec::new())
    }
    fn builtin_query(&self, _metric: BuiltinMetric) -> &'static str {
        ""
    }
    fn watched(&self) -> &'static [&'static ObjectKind] {
        &WATCHED
    }
}
