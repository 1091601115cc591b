//! The systems whose objects are run. Each says which kind is watched for it, how its objects are validated, what they dispose of
//! and what it stores; everything behind that, from the plan to the actor, is the same for all. Adding one: a file here and a
//! line in [`DIALECTS`].
//!
//! Canaries are what Aviary is there for. A kind of any other system is taken up where the API server serves it, also from some
//! time after its CRD was installed, and missed by nobody elsewhere.

mod birdwatch;
mod claim;
mod flagger;
mod flagger_v1alpha1;
mod steerer;

use std::collections::BTreeSet;

use aviary_crds::{CanaryStatus, ValidatedCanary, ValidationOptions};
use aviary_providers::{ObjectKind, kinds};
use kube::core::DynamicObject;
use serde_json::Value;

pub(crate) use claim::{Claim, Role, contested};

/// One system.
pub(crate) trait Dialect: Sync {
    /// The kind of its objects.
    fn kind(&self) -> &'static ObjectKind;

    /// Whether an object of this kind is written for it. Of one kind, the first that says so has it.
    fn recognises(&self, _object: &DynamicObject) -> bool {
        true
    }

    /// Who is said to be the source of the events of its objects.
    fn event_source(&self) -> &'static str;

    /// What an object disposes of, as far as it names it.
    fn claims(&self, object: &DynamicObject) -> Vec<Claim>;

    /// Decodes and validates an object.
    ///
    /// # Errors
    /// What a person needs to mend the object: one problem a line, each with its field path.
    fn validate(&self, object: &DynamicObject, options: &ValidationOptions) -> Result<ValidatedCanary, String>;

    /// What is stored in an object, in the form that states are read from. What cannot be decoded counts as nothing.
    fn status(&self, object: &DynamicObject) -> CanaryStatus;

    /// The status as it is stored, in the place of what [`status`](Self::status) has read.
    fn stored(&self, status: CanaryStatus) -> Value;
}

static DIALECTS: [&dyn Dialect; 4] =
    [&flagger_v1alpha1::FlaggerV1Alpha1, &flagger::Flagger, &steerer::Steerer, &birdwatch::BirdWatch];

/// The system that an object of a kind is written for.
pub(crate) fn of(kind: &ObjectKind, object: &DynamicObject) -> &'static dyn Dialect {
    let dialect = DIALECTS.into_iter().find(|dialect| dialect.kind() == kind && dialect.recognises(object));
    dialect.unwrap_or(&flagger::Flagger)
}

/// The same for an object that says of which kind it is; whatever no system knows counts as a Canary.
pub(crate) fn of_manifest(object: &DynamicObject) -> &'static dyn Dialect {
    of(kind_of(object), object)
}

/// The kind of an object that is run; whatever no system knows counts as a Canary.
pub(crate) fn kind_of(object: &DynamicObject) -> &'static ObjectKind {
    let is_of = |kind: &ObjectKind| {
        let types = object.types.as_ref();
        types.is_some_and(|types| {
            let group = types.api_version.split_once('/').map_or("", |(group, _)| group);
            types.kind == kind.kind && group == kind.group
        })
    };
    watched().into_iter().find(|kind| is_of(kind)).unwrap_or(&kinds::CANARY)
}

/// The kinds whose objects are run.
pub(crate) fn watched() -> BTreeSet<&'static ObjectKind> {
    DIALECTS.iter().map(|dialect| dialect.kind()).collect()
}

/// Whether objects of this kind are run.
pub(crate) fn is_run(kind: &ObjectKind) -> bool {
    DIALECTS.iter().any(|dialect| dialect.kind() == kind)
}

/// Whether the kind is one of another system, which a cluster need not serve.
pub(crate) fn is_optional(kind: &ObjectKind) -> bool {
    *kind != kinds::CANARY && is_run(kind)
}

/// Who is said to be the source of the events of a kind.
pub(crate) fn event_source(kind: &ObjectKind) -> &'static str {
    let dialect = DIALECTS.iter().find(|dialect| dialect.kind() == kind);
    dialect.map_or(aviary_crds::names::EVENT_SOURCE, |dialect| dialect.event_source())
}
