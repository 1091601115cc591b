//! The systems whose objects are run. Each says how its objects are validated and what it stores; everything behind that, from the
//! plan to the actor, is the same for all. Adding one: a file here and a line in [`DIALECTS`].

mod flagger;
mod flagger_v1alpha1;

use aviary_crds::{CanaryStatus, ValidatedCanary, ValidationOptions};
use kube::core::DynamicObject;
use serde_json::Value;

/// One system.
pub(crate) trait Dialect: Sync {
    /// Whether an object is written for it.
    fn recognises(&self, object: &DynamicObject) -> bool;

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

/// The systems that are told by what an object says. Whatever none of them recognises is Flagger's.
static DIALECTS: [&dyn Dialect; 1] = [&flagger_v1alpha1::FlaggerV1Alpha1];

/// The system that an object is written for.
pub(crate) fn of(object: &DynamicObject) -> &'static dyn Dialect {
    DIALECTS.into_iter().find(|dialect| dialect.recognises(object)).unwrap_or(&flagger::Flagger)
}
