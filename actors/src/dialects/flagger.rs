//! Canaries of Flagger 1.x (`flagger.app/v1beta1`).

use aviary_crds::v1alpha1::{self, Dialect as Version};
use aviary_crds::{Canary, CanaryStatus, ValidatedCanary, ValidationOptions, decode_object};
use kube::core::DynamicObject;
use serde_json::Value;

use super::Dialect;

/// Flagger 1.x.
pub(super) struct Flagger;

impl Dialect for Flagger {
    fn recognises(&self, _: &DynamicObject) -> bool {
        true
    }

    fn validate(&self, object: &DynamicObject, options: &ValidationOptions) -> Result<ValidatedCanary, String> {
        let canary: Canary = decode_object(object).map_err(|error| error.to_string())?;
        ValidatedCanary::parse(&canary, options).map_err(|problems| problems.to_string())
    }

    /// Flagger 0.1 may have written it last: users move a canary on to `v1beta1` whenever they like.
    fn status(&self, object: &DynamicObject) -> CanaryStatus {
        let raw = object.data.get("status").cloned().unwrap_or(Value::Null);
        v1alpha1::take_over(serde_json::from_value(raw).unwrap_or_default())
    }

    fn stored(&self, status: CanaryStatus) -> Value {
        serde_json::to_value(v1alpha1::with_fields_of(Version::V1Beta1, status)).unwrap_or(Value::Null)
    }
}
