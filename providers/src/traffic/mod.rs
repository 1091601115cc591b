//! Meshes and ingresses: who gets which share of the requests.

mod istio;
mod istio_weights;
mod kubernetes;
pub mod smi;

use aviary_crds::validated::ValidatedCanary;
use aviary_rollout::{Capabilities, Split};
use thiserror::Error;

use crate::Subject;
use crate::change::Change;
use crate::metrics::BuiltinMetric;
use crate::object::ObjectKind;

pub use istio::Istio;
pub use istio_weights::IstioWeights;
pub use kubernetes::Kubernetes;

/// Why routes cannot be read or written. The texts go into events as they are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrafficError {
    /// The route object does not exist.
    #[error("{kind} {name}.{namespace} get query error {cause}")]
    NotFound {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// As the API server says it.
        cause: String,
    },
    /// The route object sends nothing to the two sides.
    #[error("{kind} {name}.{namespace} does not contain routes for {apex}-primary and {apex}-canary")]
    NoRoutes {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Name of the apex service.
        apex: String,
    },
    /// The canary asks for something that the provider cannot do.
    #[error("{kind} {name}.{namespace} {problem}")]
    Impossible {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// What.
        problem: String,
    },
}

/// A mesh or ingress.
///
/// Every function reads the present objects through [`Subject::objects`]. A change touches only what Aviary owns in an
/// object; the rest of it survives.
pub trait TrafficProvider: Send + Sync {
    /// As in `spec.provider` and in messages.
    fn name(&self) -> &'static str;

    /// Whether `spec.provider` or `--mesh-provider` means it.
    fn is_called(&self, name: &str) -> bool {
        name == self.name()
    }

    /// What it can do for this canary. What it cannot is refused before anything is touched.
    fn capabilities(&self, canary: &ValidatedCanary) -> Capabilities;

    /// What the canary asks for and the provider never does, in words for its author: each names the field, its value and the
    /// fix. Whatever is not listed here is refused in general words, by what [`capabilities`](Self::capabilities) lack.
    fn refusals(&self, _canary: &ValidatedCanary) -> Vec<String> {
        Vec::new()
    }

    /// Whether requests are routed at all. Where they are not, nobody asks for the split, and none is set.
    fn routes_requests(&self) -> bool {
        true
    }

    /// Creates or repairs the route objects. `split` is what is in force and is written wherever weights have to be
    /// (so a repair never resets a running analysis); weights that merely differ from it are left to
    /// [`set`](Self::set). Idempotent.
    fn reconcile(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError>;

    /// The split in force.
    fn observed(&self, subject: &Subject) -> Result<Split, TrafficError>;

    /// Moves the traffic. Touches nothing but weights and mirroring while the routes have the shape that
    /// [`reconcile`](Self::reconcile) gives them. Idempotent.
    fn set(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError>;

    /// Gives the route objects back to the user before the canary is gone: what they were before the canary came, or where
    /// they lead when its services are gone. Nothing to do for objects that go with it. Idempotent.
    fn revert(&self, subject: &Subject) -> Vec<Change>;

    /// The query of a built-in metric, a template for [`crate::metrics::template`].
    fn builtin_query(&self, canary: &ValidatedCanary, metric: BuiltinMetric) -> &'static str;

    /// Whether [`crate::metrics::grouped`] answers the built-in metrics of this canary together with those of others.
    fn groups_builtin_queries(&self, _canary: &ValidatedCanary) -> bool {
        false
    }

    /// Kinds of the objects that the provider reads.
    fn watched(&self) -> &'static [&'static ObjectKind];

    /// Those of them that are where the mesh's control plane is, where that is another cluster than the workloads'. An ingress,
    /// whose objects are always beside the workloads, has none.
    fn kept_with_the_mesh(&self) -> &'static [&'static ObjectKind] {
        self.watched()
    }
}

/// All providers of this version. Adding one is its file and a line here.
pub static ALL: &[&dyn TrafficProvider] =
    &[&Istio, &Kubernetes, &smi::CROSSOVER, &smi::V1ALPHA1, &smi::V1ALPHA2, &smi::V1ALPHA3];

/// Providers that Flagger or its guides have and this version has not.
static LATER: &[&str] = &[
    "apisix",
    "appmesh",
    "appmesh:v1beta2",
    "contour",
    "gatewayapi:v1",
    "gatewayapi:v1beta1",
    "gloo",
    "knative",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "traefik",
];

/// A provider that cannot be used. Flagger takes an unknown name for `istio`; Aviary refuses it, because routing
/// through the wrong mesh looks like success and moves nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnknownProvider {
    /// Flagger has it, this version has not.
    #[error("provider {name:?} is not supported yet; supported: {}", known_names())]
    NotYet {
        /// As given.
        name: String,
    },
    /// Nobody has it.
    #[error("provider {name:?} is unknown; supported: {}", known_names())]
    Unknown {
        /// As given.
        name: String,
    },
}

fn known_names() -> String {
    ALL.iter().map(|provider| provider.name()).collect::<Vec<_>>().join(", ")
}

/// The provider of this name.
pub fn for_name(name: &str) -> Result<&'static dyn TrafficProvider, UnknownProvider> {
    if let Some(provider) = ALL.iter().find(|provider| provider.is_called(name)) {
        return Ok(*provider);
    }
    let name = name.to_owned();
    // `gatewayapi:v1:...` and the like carry a suffix.
    if LATER.iter().any(|later| name == *later || name.starts_with(&format!("{later}:"))) {
        return Err(UnknownProvider::NotYet { name });
    }
    Err(UnknownProvider::Unknown { name })
}

/// The provider of the subject: that of its own routes, or else `spec.provider`, or else `--mesh-provider`.
pub fn for_subject(subject: &Subject) -> Result<&'static dyn TrafficProvider, UnknownProvider> {
    if subject.canary.user_route.is_some() {
        return Ok(&IstioWeights);
    }
    for_name(subject.provider_name())
}

#[cfg(test)]
mod conformance;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::{UnknownProvider, for_name};

    #[test]
    fn unknown_providers_are_refused_by_name() {
        assert_eq!(for_name("istio").map(super::TrafficProvider::name), Ok("istio"));
        let supported = "supported: istio, kubernetes, smi:crossover, smi:v1alpha1, smi:v1alpha2, smi:v1alpha3";
        let text = |name: &str| for_name(name).err().expect("refused").to_string();
        assert_eq!(text("linkerd"), format!("provider \"linkerd\" is not supported yet; {supported}"));
        assert_eq!(text("gatewayapi:v1:x"), format!("provider \"gatewayapi:v1:x\" is not supported yet; {supported}"));
        assert_eq!(text("isto"), format!("provider \"isto\" is unknown; {supported}"));
        assert_eq!(for_name("smi:v1alpha1:linkerd").map(super::TrafficProvider::name), Ok("smi:v1alpha1"));
        assert!(matches!(for_name("smi:v1alpha11"), Err(UnknownProvider::Unknown { .. })));
        assert!(matches!(for_name("gatewayapi"), Err(UnknownProvider::Unknown { .. })));
    }
}
