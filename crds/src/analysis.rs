//! `spec.analysis`: how a new revision is stepped up and judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canary::CrossNamespaceObjectReference;
use crate::serde_helpers::{float_as_go, null_as_default, optional_whole, whole_list};
use crate::service::HttpMatchRequest;

/// `spec.analysis` of a [`Canary`](crate::Canary).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAnalysis {
    /// Time between check rounds, as a Go duration. Default 60 s, at least 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Number of check rounds of a blue/green or A/B run.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub iterations: Option<i64>,
    /// Failed checks that end the run. Below 1 means 1.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub threshold: Option<i64>,
    /// Weight of the canary (percent) from which on it is promoted. Below 1 means 100.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub max_weight: Option<i64>,
    /// Percentage points that are added to the canary's weight per step.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub step_weight: Option<i64>,
    /// Weights of the canary (percent), one per step.
    #[serde(default, deserialize_with = "whole_list", skip_serializing_if = "Vec::is_empty")]
    pub step_weights: Vec<i64>,
    /// Percentage points per step of the way back to the promoted primary. 0 moves everything at once.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub step_weight_promotion: Option<i64>,
    /// Whether the canary first gets a copy of the traffic. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<bool>,
    /// Percentage of the traffic that is copied. 0 leaves it to the mesh, which copies all.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub mirror_weight: Option<i64>,
    /// Percentage of the primary's pods that must be available. Default 100.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub primary_ready_threshold: Option<i64>,
    /// Percentage of the canary's pods that must be available. Default 100.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub canary_ready_threshold: Option<i64>,
    /// Requests that reach the canary in an A/B run.
    #[serde(rename = "match", default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatchRequest>,
    /// What is measured.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<CanaryMetric>,
    /// Who is told. If empty, the controller's own channel.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<CanaryAlert>,
    /// Who is asked.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<CanaryWebhook>,
    /// Keeps a client on the side that it has met first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
}

/// One metric of an analysis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMetric {
    /// Name. `request-success-rate` and `request-duration` are built in.
    pub name: String,
    /// Window of the query, as a Go duration. Default `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// The older form of a limit: least success rate (percent), most milliseconds, or most of what a query yields.
    #[serde(default, serialize_with = "float_as_go", skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Least and most; wins over `threshold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_range: Option<ThresholdRange>,
    /// Inline query, sent to the metrics server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Query from a MetricTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<CrossNamespaceObjectReference>,
    /// What `{{ variables.x }}` stands for in the template.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub template_variables: BTreeMap<String, String>,
}

/// Limits of a metric, both inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdRange {
    /// Least; absent means no lower limit.
    #[serde(default, serialize_with = "float_as_go", skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Most; absent means no upper limit.
    #[serde(default, serialize_with = "float_as_go", skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// One alert of an analysis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryAlert {
    /// Name.
    pub name: String,
    /// `info`, `warn` or `error`: from which severity on it is sent. Empty means `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// The AlertProvider.
    pub provider_ref: CrossNamespaceObjectReference,
}

/// One webhook of an analysis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryWebhook {
    /// When it is called. Empty means `rollout`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub hook_type: Option<String>,
    /// Name.
    pub name: String,
    /// Address.
    pub url: String,
    /// Whether the alert of a closed gate is kept back. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mute_alert: Option<bool>,
    /// Timeout of one attempt, as a Go duration. Default 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How often a call is tried again. Default 0.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// Whether the certificate of the other side is not checked. Default false.
    #[serde(rename = "disableTLS", default, skip_serializing_if = "Option::is_none")]
    pub disable_tls: Option<bool>,
    /// Sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Cookies that keep a client on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinity {
    /// Name of the cookie of clients of the canary.
    pub cookie_name: String,
    /// Name of the cookie of clients of the primary. Without it, they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_cookie_name: Option<String>,
    /// Domain of the cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether scripts cannot read the cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    /// Life of the cookies in seconds. Default (and 0) 86400.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Whether the cookies are kept in partitioned storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitioned: Option<bool>,
    /// Path of the cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Strict`, `Lax` or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<String>,
    /// Whether the cookies are sent over HTTPS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
}
