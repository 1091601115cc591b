//! Canaries of Flagger 0.1 (`flagger.app/v1alpha1`). The same resource as Flagger's today, so that validation shares its steps.

use aviary_crds::v1alpha1::{self, Dialect as Version};
use aviary_crds::{CanaryStatus, ValidatedCanary, ValidationOptions};
use aviary_providers::ObjectKind;
use kube::core::DynamicObject;
use serde_json::Value;

use super::flagger::Flagger;
use super::{Claim, Dialect};

/// Flagger 0.1.
pub(super) struct FlaggerV1Alpha1;

impl Dialect for FlaggerV1Alpha1 {
    fn kind(&self) -> &'static ObjectKind {
        Flagger.kind()
    }

    fn recognises(&self, object: &DynamicObject) -> bool {
        let is_given = |path: &str| object.data.pointer(path).is_some_and(|value| !value.is_null());
        is_given("/spec/canaryAnalysis") && !is_given("/spec/analysis")
    }

    fn event_source(&self) -> &'static str {
        Flagger.event_source()
    }

    fn claims(&self, object: &DynamicObject) -> Vec<Claim> {
        Flagger.claims(object)
    }

    fn validate(&self, object: &DynamicObject, options: &ValidationOptions) -> Result<ValidatedCanary, String> {
        Flagger.validate(object, options)
    }

    fn status(&self, object: &DynamicObject) -> CanaryStatus {
        Flagger.status(object)
    }

    /// With `state` and `canaryRevision`, which its users look at.
    fn stored(&self, status: CanaryStatus) -> Value {
        serde_json::to_value(v1alpha1::with_fields_of(Version::V1Alpha1, status)).unwrap_or(Value::Null)
    }
}
