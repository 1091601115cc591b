//! Rollouts of Steerer (`apps.weave.works/v1beta1`).

use aviary_crds::steerer::{self, Rollout};
use aviary_crds::{CanaryStatus, ValidatedCanary, ValidationOptions, decode_object};
use aviary_providers::{ObjectKind, kinds};
use kube::core::DynamicObject;
use serde_json::Value;

use super::{Claim, Dialect};

/// Steerer.
pub(super) struct Steerer;

impl Dialect for Steerer {
    fn kind(&self) -> &'static ObjectKind {
        &kinds::ROLLOUT
    }

    fn event_source(&self) -> &'static str {
        steerer::EVENT_SOURCE
    }

    fn claims(&self, object: &DynamicObject) -> Vec<Claim> {
        let (deployment, routes) = (&kinds::DEPLOYMENT, &kinds::VIRTUAL_SERVICE);
        let named =
            [("spec.canary.name", deployment), ("spec.primary.name", deployment), ("spec.virtualService.name", routes)];
        named.into_iter().filter_map(|(field, kind)| Claim::of_name(object, field, kind.group, kind.kind)).collect()
    }

    fn validate(&self, object: &DynamicObject, options: &ValidationOptions) -> Result<ValidatedCanary, String> {
        let rollout: Rollout = decode_object(object).map_err(|error| error.to_string())?;
        rollout.validated(options).map_err(|problems| problems.to_string())
    }

    fn status(&self, object: &DynamicObject) -> CanaryStatus {
        let raw = object.data.get("status").cloned().unwrap_or(Value::Null);
        steerer::take_over(serde_json::from_value(raw).unwrap_or_default(), &object.metadata)
    }

    fn stored(&self, status: CanaryStatus) -> Value {
        serde_json::to_value(steerer::with_own_fields(status)).unwrap_or(Value::Null)
    }
}
