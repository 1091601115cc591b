//! Which kinds the simulated cluster has, and what to say of an object of another kind.

use kube::Client;
use kube::api::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};

use super::scenario::nearest;

/// Kinds of Kubernetes' own groups that exist and that change nothing about a release here.
const PASSED_OVER: [&str; 9] = [
    "PersistentVolumeClaim",
    "PersistentVolume",
    "ResourceQuota",
    "LimitRange",
    "ReplicationController",
    "PodTemplate",
    "ControllerRevision",
    "ComponentStatus",
    "Binding",
];

/// A group that is gone: its kinds are in other ones.
const GONE: &str = "extensions";

/// Kinds of a cluster, with the versions that it serves.
pub(crate) struct Kinds(Vec<Kind>);

/// One version of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) is_namespaced: bool,
}

/// Why an object cannot be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// No cluster would take it, or none of this version.
    Refused(String),
    /// A cluster may have the kind; here it would change nothing.
    PassedOver,
}

impl Kinds {
    /// Asks the API server.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn of(client: &Client) -> kube::Result<Kinds> {
        let discovery = Discovery::new(client.clone()).run_aggregated().await?;
        let mut kinds = Vec::new();
        for group in discovery.groups_alphabetical() {
            // The preferred version is the first.
            for version in group.versions() {
                let resources = group.versioned_resources(version).into_iter();
                let resources = resources.filter(|(_, capabilities)| capabilities.supports_operation(verbs::CREATE));
                kinds.extend(resources.map(|(resource, capabilities)| Kind {
                    resource,
                    is_namespaced: capabilities.scope == Scope::Namespaced,
                }));
            }
        }
        Ok(Kinds(kinds))
    }

    /// A kind in one version.
    ///
    /// # Errors
    /// What to say of its objects.
    pub(crate) fn find(&self, api_version: &str, kind: &str) -> Result<&Kind, Unserved> {
        let known = |known: &&Kind| known.resource.api_version == api_version && known.resource.kind == kind;
        self.0.iter().find(known).ok_or_else(|| self.explain(api_version, kind))
    }

    /// A kind in the version that the server prefers, of the first group that has it.
    pub(crate) fn of_name(&self, kind: &str) -> Option<&Kind> {
        // Kubernetes' own come first: with Knative there is another Service.
        let mut found: Vec<&Kind> = self.0.iter().filter(|known| known.resource.kind == kind).collect();
        found.sort_by_key(|known| (known.resource.group.contains('.'), known.resource.group.clone()));
        found.first().copied()
    }

    /// Names of all kinds.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|known| known.resource.kind.as_str()).collect()
    }

    /// Names of all resources, in the plural.
    pub(crate) fn plurals(&self) -> Vec<&str> {
        let mut plurals: Vec<&str> = self.0.iter().map(|known| known.resource.plural.as_str()).collect();
        plurals.sort_unstable();
        plurals.dedup();
        plurals
    }

    fn explain(&self, api_version: &str, kind: &str) -> Unserved {
        let group = group_of(api_version);
        let served: Vec<&str> = self
            .0
            .iter()
            .filter(|known| known.resource.kind == kind)
            .filter(|known| known.resource.group == group || means(group, &known.resource.group))
            .map(|known| known.resource.api_version.as_str())
            .collect();
        if !served.is_empty() {
            return Unserved::Refused(format!(
                "apiVersion {api_version} is not served for {kind}; served: {}",
                served.join(", ")
            ));
        }
        let of_group: Vec<&str> = self
            .0
            .iter()
            .filter(|known| known.resource.group == group)
            .map(|known| known.resource.kind.as_str())
            .collect();
        // Istio and its like have many kinds that do not matter here, and are served in part.
        let is_kubernetes = !group.contains('.') || group.ends_with(".k8s.io") || group == aviary_crds::names::GROUP;
        if of_group.is_empty() || PASSED_OVER.contains(&kind) {
            return Unserved::PassedOver;
        }
        match nearest(kind, &of_group) {
            Some(meant) => {
                Unserved::Refused(format!("there is no kind {kind} in {api_version}; did you mean {meant}?"))
            }
            None if is_kubernetes => {
                let mut known = of_group;
                known.dedup();
                Unserved::Refused(format!("there is no kind {kind} in {api_version}; there are: {}", known.join(", ")))
            }
            None => Unserved::PassedOver,
        }
    }
}

/// Whether somebody who wrote `given` probably means `group`.
fn means(given: &str, group: &str) -> bool {
    given == GONE || (!given.is_empty() && !group.is_empty() && nearest(given, &[group]).is_some() && !is_istio(group))
}

/// Networking groups have much the same names, and kinds of the same name that are something else.
fn is_istio(group: &str) -> bool {
    group.ends_with("istio.io")
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kinds_that_are_not_served_are_explained() {
        let cluster = aviary_sim::Cluster::new(crate::embedded::cluster_options(1));
        let kinds = Kinds::of(&cluster.client("test")).await.unwrap();
        assert!(kinds.find("apps/v1", "Deployment").unwrap().is_namespaced);
        assert!(!kinds.find("v1", "Namespace").unwrap().is_namespaced);
        assert_eq!(kinds.of_name("Service").unwrap().resource.api_version, "v1");
        assert!(kinds.plurals().contains(&"virtualservices"));
        let explain = |api_version: &str, kind: &str| match kinds.find(api_version, kind) {
            Ok(_) => panic!("{kind} is served"),
            Err(Unserved::PassedOver) => "passed over".to_owned(),
            Err(Unserved::Refused(message)) => message,
        };
        assert_eq!(
            explain("apps/v1", "Deploymnet"),
            "there is no kind Deploymnet in apps/v1; did you mean Deployment?"
        );
        assert_eq!(
            explain("extensions/v1beta1", "Deployment"),
            "apiVersion extensions/v1beta1 is not served for Deployment; served: apps/v1"
        );
        assert_eq!(explain("app/v1", "Deployment"), "apiVersion app/v1 is not served for Deployment; served: apps/v1");
        assert!(explain("autoscaling/v2beta2", "HorizontalPodAutoscaler").contains("served: autoscaling/v2"));
        assert!(
            explain("flagger.app/v1alpha3", "Canary").ends_with("served: flagger.app/v1beta1, flagger.app/v1alpha1")
        );
        assert!(explain("v1", "Whatever").starts_with("there is no kind Whatever in v1; there are: "));
        for (api_version, kind) in [
            ("cert-manager.io/v1", "Certificate"),
            ("serving.knative.dev/v1", "Service"),
            ("gateway.networking.k8s.io/v1", "Gateway"),
            ("networking.istio.io/v1beta1", "ServiceEntry"),
            ("security.istio.io/v1", "PeerAuthentication"),
        ] {
            assert_eq!(explain(api_version, kind), "passed over", "{kind}");
        }
    }
}
