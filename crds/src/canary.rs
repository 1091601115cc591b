//! The Canary resource: what is released, how traffic reaches it, and how it is judged.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::analysis::CanaryAnalysis;
use crate::resource::flagger_resource;
use crate::serde_helpers::{null_as_default, optional_whole};
use crate::service::CanaryService;
use crate::status::CanaryStatus;

/// A canary: the release automation of one workload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Canary {
    /// Name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: CanarySpec,
    /// What the controller observed and decided. The only place where a rollout's state is kept, next to the weights
    /// in the mesh objects.
    #[serde(default)]
    pub status: Option<CanaryStatus>,
}

flagger_resource!(Canary, kind: "Canary", plural: "canaries");

/// `spec` of a [`Canary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    /// Mesh or ingress that moves the traffic, such as `istio` or `gatewayapi:v1`. Absent or empty means the
    /// controller's `--mesh-provider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Address of the Prometheus for built-in and inline metrics of this canary. Absent or empty means the
    /// controller's `--metrics-server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_server: Option<String>,
    /// The workload that is released.
    pub target_ref: LocalObjectReference,
    /// Autoscaler of the target; the primary gets a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler_ref: Option<AutoscalerReference>,
    /// Ingress of the target (NGINX, Skipper).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_ref: Option<LocalObjectReference>,
    /// Route of the target (APISIX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<LocalObjectReference>,
    /// Upstream whose settings the generated upstreams copy (Gloo).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_ref: Option<CrossNamespaceObjectReference>,
    /// Generated services and routing. Absent only for Knative targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<CanaryService>,
    /// How a new revision is judged. Wins over [`canary_analysis`](Self::canary_analysis).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<CanaryAnalysis>,
    /// The analysis of Flagger 0.1; without `analysis`, the canary is one of its [dialect](crate::v1alpha1::Dialect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_analysis: Option<CanaryAnalysis>,
    /// Seconds that a workload may take to become ready before the rollout fails. Default 600.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i64>,
    /// Promote without analysis. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_analysis: Option<bool>,
    /// Give the target its replicas, service and routes back when the canary is deleted. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert_on_deletion: Option<bool>,
    /// Leave everything as it is until this is false again. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

impl CanarySpec {
    /// The analysis in force: `analysis`, or else the former `canaryAnalysis`.
    pub fn effective_analysis(&self) -> Option<&CanaryAnalysis> {
        self.analysis.as_ref().or(self.canary_analysis.as_ref())
    }
}

/// Names an object in the canary's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// Names an object that may be in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrossNamespaceObjectReference {
    /// Group and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace. Absent or empty means that of the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl CrossNamespaceObjectReference {
    /// The namespace of the referenced object, for a canary in `own`.
    pub fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        match self.namespace.as_deref() {
            None | Some("") => own,
            Some(namespace) => namespace,
        }
    }
}

/// Names the autoscaler of the target and says what is different in the primary's copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalerReference {
    /// Group and version, such as `autoscaling/v2`.
    pub api_version: String,
    /// `HorizontalPodAutoscaler` or `ScaledObject`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// KEDA trigger name to query, used in the primary's ScaledObject as it is. Queries that are not named here are
    /// derived from the target's.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub primary_scaler_queries: BTreeMap<String, String>,
    /// Bounds of the primary's replicas, if they differ from the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_scaler_replicas: Option<ScalerReplicas>,
}

/// Bounds of the replicas of a primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalerReplicas {
    /// Fewest pods, at least 1.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i64>,
    /// Most pods, at least 1.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i64>,
}
