//! BirdWatch (`otomato.link/v1alpha1`): the subsets of a service whose routes are the user's.

use aviary_crds::{BirdWatch as Object, CanaryStatus, Phase, ValidatedCanary, ValidationOptions, decode_object};
use aviary_providers::{ObjectKind, kinds};
use kube::core::DynamicObject;
use serde_json::Value;

use super::{Claim, Dialect};

/// BirdWatch.
pub(super) struct BirdWatch;

impl Dialect for BirdWatch {
    fn kind(&self) -> &'static ObjectKind {
        &kinds::BIRD_WATCH
    }

    fn event_source(&self) -> &'static str {
        "birdwatch"
    }

    /// The routes and the subsets, until the version has had its end: the next one may have an object of its own.
    fn claims(&self, object: &DynamicObject) -> Vec<Claim> {
        let is_reviewed = object.data.pointer("/spec/review").and_then(Value::as_bool) == Some(true);
        if is_reviewed || is_finished(object) {
            return Vec::new();
        }
        let claim = |kind: &ObjectKind| Claim::of_name(object, "spec.service", kind.group, kind.kind);
        [&kinds::VIRTUAL_SERVICE, &kinds::DESTINATION_RULE].into_iter().filter_map(claim).collect()
    }

    fn validate(&self, object: &DynamicObject, _: &ValidationOptions) -> Result<ValidatedCanary, String> {
        let object: Object = decode_object(object).map_err(|error| error.to_string())?;
        object.validated().map_err(|problems| problems.to_string())
    }

    fn status(&self, object: &DynamicObject) -> CanaryStatus {
        let raw = object.data.get("status").cloned().unwrap_or(Value::Null);
        serde_json::from_value(raw).unwrap_or_default()
    }

    fn stored(&self, status: CanaryStatus) -> Value {
        serde_json::to_value(status).unwrap_or(Value::Null)
    }
}

/// Whether the version that the object names was released, or found sick.
fn is_finished(object: &DynamicObject) -> bool {
    let text = |path: &str| object.data.pointer(path).and_then(Value::as_str);
    let phase = text("/status/phase").and_then(Phase::from_name);
    let has_ended = matches!(phase, Some(Phase::Succeeded | Phase::Failed));
    has_ended && text("/status/lastAppliedSpec") == text("/spec/canary_version")
}
