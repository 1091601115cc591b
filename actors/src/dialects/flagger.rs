//! Canaries of Flagger 1.x (`flagger.app/v1beta1`).

use aviary_crds::names::EVENT_SOURCE;
use aviary_crds::v1alpha1::{self, Dialect as Version};
use aviary_crds::{Canary, CanaryStatus, ValidatedCanary, ValidationOptions, decode_object};
use aviary_providers::{ObjectKind, kinds};
use kube::core::DynamicObject;
use serde_json::Value;

use super::{Claim, Dialect, Role};

/// Flagger 1.x.
pub(super) struct Flagger;

impl Dialect for Flagger {
    fn kind(&self) -> &'static ObjectKind {
        &kinds::CANARY
    }

    fn event_source(&self) -> &'static str {
        EVENT_SOURCE
    }

    /// The target, and the service that its users call.
    fn claims(&self, object: &DynamicObject) -> Vec<Claim> {
        let text = |path: &str| object.data.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(kind), Some(name)) = (text("/spec/targetRef/kind"), text("/spec/targetRef/name")) else {
            return Vec::new();
        };
        let version = text("/spec/targetRef/apiVersion").and_then(|version| version.split_once('/'));
        let target = Claim {
            role: Role::Target,
            field: "spec.targetRef",
            group: version.map_or("", |(group, _)| group).to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let service = Claim {
            role: Role::Service,
            field: "spec.service.name",
            group: kinds::VIRTUAL_SERVICE.group.to_owned(),
            kind: kinds::VIRTUAL_SERVICE.kind.to_owned(),
            name: text("/spec/service/name").unwrap_or(name).to_owned(),
        };
        vec![target, service]
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
