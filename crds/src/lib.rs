//! Resource types of the APIs that Aviary serves, and their validated forms.
//!
//! Three layers, each stricter than the one before:
//!
//! 1. [`schema`]: what an API server admits. The CRDs in `crds/yaml` are generated from it.
//! 2. [`Canary`], [`MetricTemplate`], [`AlertProvider`]: what an object says, field by field, decoded one object at a
//!    time by [`decode()`] so that a bad object hurts nobody else.
//! 3. [`validated::ValidatedCanary`]: what the operator acts on. Defaults are applied, texts are parsed, and whatever
//!    would get a rollout stuck has been refused, all problems at once.
//!
//! Field names, defaults and meanings are those of `flagger.app/v1beta1` as of Flagger 1.44, and of [`v1alpha1`] as of Flagger 0.1.

pub mod alert_provider;
pub mod analysis;
pub mod birdwatch;
pub mod canary;
pub mod decode;
pub mod duration;
pub mod metric_template;
pub mod names;
mod resource;
pub mod schema;
mod serde_helpers;
pub mod service;
pub mod status;
pub mod steerer;
pub mod v1alpha1;
pub mod validated;

pub use alert_provider::AlertProvider;
pub use birdwatch::BirdWatch;
pub use canary::Canary;
pub use decode::{DecodeError, decode, decode_object};
pub use metric_template::MetricTemplate;
pub use status::{CanaryStatus, Phase};
pub use steerer::Rollout;
pub use validated::{ValidatedCanary, ValidationOptions};
