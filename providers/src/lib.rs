//! Everything Aviary knows about other systems, sans-I/O: observed objects and an intent go in; changes, requests and
//! views come out. There is no client, no clock and no async here. One thing is one file; adding a provider is that
//! file and one line in its registry.
//!
//! - [`targets`]: workloads that are released (`spec.targetRef`)
//! - [`services`]: the generated ClusterIP services
//! - [`scalers`]: autoscalers of the primary (`spec.autoscalerRef`)
//! - [`traffic`]: meshes and ingresses
//! - [`metrics`]: metric backends, and the templates of queries
//! - [`notify`]: alert channels

mod canonical;
pub mod change;
mod configs;
pub mod finalizer;
pub mod http_request;
pub mod metrics;
pub mod notify;
pub mod object;
mod ownership;
pub mod scalers;
pub mod services;
pub mod takeover;
pub mod targets;
#[cfg(test)]
mod testing;
pub mod traffic;

pub use change::{Change, Verb};
pub use configs::required_configs;
pub use http_request::HttpRequest;
pub use object::{ObjectKey, ObjectKind, Objects, kinds};

use std::sync::Arc;

use aviary_crds::validated::ValidatedCanary;
use aviary_rollout::Cookies;
use kube::core::DynamicObject;

/// Settings of the controller that rendering depends on (see the flags of the same names).
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--mesh-provider`: provider of canaries that name none.
    pub mesh_provider: String,
    /// `--metrics-server`: Prometheus for built-in and inline metrics.
    pub metrics_server: String,
    /// `--selector-labels`, in order of preference.
    pub selector_labels: Vec<String>,
    /// `--include-label-prefix`: prefixes of labels and annotations that are copied to the primary; `*` copies all.
    pub include_label_prefixes: Vec<String>,
    /// `--enable-config-tracking`.
    pub config_tracking: bool,
    /// Whether `--kubeconfig-service-mesh` names another cluster than that of the workloads. Objects of the mesh have no owner
    /// then: a garbage collector that knows no canaries takes what belongs to one for orphaned.
    pub mesh_is_elsewhere: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mesh_provider: "istio".into(),
            metrics_server: "http://prometheus:9090".into(),
            selector_labels: ["app", "name", "app.kubernetes.io/name"].map(String::from).to_vec(),
            include_label_prefixes: Vec::new(),
            config_tracking: true,
            mesh_is_elsewhere: false,
        }
    }
}

/// One canary with the objects around it, as a provider sees it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The canary.
    pub canary: &'a ValidatedCanary,
    /// Settings of the controller.
    pub settings: &'a Settings,
    /// Observed objects.
    pub objects: &'a dyn Objects,
    /// Cookies that keep clients on their side, where the canary wants that. Those of its present state; only routes depend
    /// on them.
    pub cookies: Option<&'a Cookies>,
}

impl Subject<'_> {
    /// Namespace of the canary and of all its objects.
    pub fn namespace(&self) -> &str {
        &self.canary.key.namespace
    }

    /// `spec.provider`, or else `--mesh-provider`.
    pub fn provider_name(&self) -> &str {
        match self.canary.provider.as_deref() {
            None | Some("") => &self.settings.mesh_provider,
            Some(provider) => provider,
        }
    }

    /// `spec.metricsServer`, or else `--metrics-server`.
    pub fn metrics_server(&self) -> &str {
        match self.canary.metrics_server.as_deref() {
            None | Some("") => &self.settings.metrics_server,
            Some(address) => address,
        }
    }

    /// An object of the canary's namespace.
    fn get(&self, kind: &'static ObjectKind, name: &str) -> Option<Arc<DynamicObject>> {
        self.objects.get(kind, self.namespace(), name)
    }

    /// Key of an object of the canary's namespace.
    fn key(&self, kind: &'static ObjectKind, name: &str) -> ObjectKey {
        ObjectKey { kind, namespace: self.namespace().to_owned(), name: name.to_owned() }
    }
}
