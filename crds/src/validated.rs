//! The validated form of a Canary: defaults applied, texts parsed, contradictions refused.
//!
//! [`ValidatedCanary::parse`] is the only way to get one. What it accepts, the operator can run: nothing in it gets a
//! rollout stuck. What Flagger accepts and can run is accepted here as well, out-of-range weights included (they are
//! capped, as Flagger does).

mod analysis;
mod metric;
mod parse;
mod problems;
mod service;
#[cfg(test)]
mod tests;
mod texts;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use crate::analysis::ThresholdRange;
use crate::canary::{CrossNamespaceObjectReference, LocalObjectReference};
use crate::names::{KNATIVE_API_VERSION, PRIMARY_SUFFIX};
use crate::service::HttpMatchRequest;
use crate::v1alpha1::Dialect;
pub(crate) use analysis::skipped as skipped_analysis;
pub use metric::{MetricCheck, MetricLimit, MetricSource, NoData, Rise};
pub use problems::{Problem, Problems};
pub use service::ValidatedService;
pub(crate) use service::undemanding as validated_service;
pub use webhook::{ValidatedWebhook, WebhookType};

/// Rules that depend on how the controller is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationOptions {
    /// `--no-cross-namespace-refs`: a canary may only refer to objects of its own namespace.
    pub no_cross_namespace_refs: bool,
    /// `--control-loop-interval`: time between check rounds of canaries of Flagger 0.1, which name none.
    pub control_loop_interval: Duration,
    /// Shorter intervals of canaries count as this. Flagger's 10 s, except in tests, which would wait most of their time.
    pub shortest_interval: Duration,
}

impl Default for ValidationOptions {
    /// With the defaults of Flagger's flags.
    fn default() -> Self {
        ValidationOptions {
            no_cross_namespace_refs: false,
            control_loop_interval: Duration::from_secs(10),
            shortest_interval: Duration::from_secs(10),
        }
    }
}

/// A Canary that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCanary {
    /// Which object it is.
    pub key: CanaryKey,
    /// As which API it is written.
    pub dialect: Dialect,
    /// Generation of the spec, if the object came from a server.
    pub generation: Option<i64>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.skipAnalysis`, or there is no analysis at all.
    pub skip_analysis: bool,
    /// `spec.revertOnDeletion`.
    pub revert_on_deletion: bool,
    /// Whether a canary whose checks fail stays where it is until they pass, instead of being rolled back.
    pub holds_on_failure: bool,
    /// Routes that the user has made and of which only two weights are to be changed. `None`: routes are generated.
    pub user_route: Option<UserRoute>,
    /// Whether a canary that has failed keeps its share of the requests.
    pub freezes: bool,
    /// Whether the object is deleted when its revision is promoted.
    pub deletes_on_success: bool,
    /// Of a [`TargetKind::Subset`]: value of the label that tells the pods to be tried.
    pub subset_version: Option<String>,
    /// How long a workload may take to become ready. Default 600 s.
    pub progress_deadline: Duration,
    /// Mesh or ingress; `None` means the controller's default.
    pub provider: Option<String>,
    /// Prometheus of built-in and inline metrics; `None` means the controller's default.
    pub metrics_server: Option<String>,
    /// What is released.
    pub target: Target,
    /// Autoscaler of the target.
    pub autoscaler: Option<Autoscaler>,
    /// Ingress (NGINX, Skipper).
    pub ingress: Option<LocalObjectReference>,
    /// Route (APISIX).
    pub route: Option<LocalObjectReference>,
    /// Upstream (Gloo).
    pub upstream: Option<CrossNamespaceObjectReference>,
    /// Generated services and routing. For a Knative target without `spec.service`: the target's name and port 80,
    /// where Knative services answer; everything else as if unset.
    pub service: ValidatedService,
    /// Steps and judgement. Without an analysis in the spec: all defaults and [`Steps::None`].
    pub analysis: ValidatedAnalysis,
}

impl ValidatedCanary {
    /// How traffic is moved, by Flagger's rule: iterations make a blue/green run, and an A/B run if there are match
    /// conditions; otherwise it is a weighted canary.
    pub fn strategy(&self) -> Strategy {
        match self.analysis.steps {
            Steps::Iterations(_) if self.analysis.matches.is_empty() => Strategy::BlueGreen,
            Steps::Iterations(_) => Strategy::AbTesting,
            Steps::Weight { .. } | Steps::Weights(_) | Steps::None => Strategy::Canary,
        }
    }
}

impl ValidatedCanary {
    /// How clients are kept on their side, if they are: in an analysis of a weighted canary that all requests take part in.
    pub fn sessions(&self) -> Option<&ValidatedSessionAffinity> {
        let is_weighted = matches!(self.analysis.steps, Steps::Weight { .. } | Steps::Weights(_));
        let takes_part = is_weighted && self.analysis.matches.is_empty() && !self.skip_analysis;
        self.analysis.session_affinity.as_ref().filter(|_| takes_part)
    }
}

/// Identity of a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanaryKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique over time; empty if the object did not come from a server.
    pub uid: String,
}

impl fmt::Display for CanaryKey {
    /// `<name>.<namespace>`, as events and metrics name a canary.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.name, self.namespace)
    }
}

/// How traffic is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// By weight.
    Canary,
    /// By request attributes.
    AbTesting,
    /// All at once, after the checks.
    BlueGreen,
}

impl Strategy {
    /// Name as in Flagger's metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Canary => "canary",
            Strategy::AbTesting => "ab-testing",
            Strategy::BlueGreen => "blue-green",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The workload that is released.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Group and version as written.
    pub api_version: String,
    /// Kind.
    pub kind: TargetKind,
    /// Name.
    pub name: String,
    /// Name of the primary workload, where the user has made that as well.
    pub primary: Option<String>,
}

impl Target {
    /// Name of the primary workload; that of a generated one, if the user has made none.
    pub fn primary_name(&self) -> String {
        self.primary.clone().unwrap_or_else(|| format!("{}{PRIMARY_SUFFIX}", self.name))
    }

    /// Whether it is a Knative Service (and not a core one).
    pub fn is_knative(&self) -> bool {
        self.kind == TargetKind::Service && self.api_version == KNATIVE_API_VERSION
    }
}

/// Routes that the user has made, to both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoute {
    /// Name of the Istio VirtualService.
    pub virtual_service: String,
    /// Where the primary's requests go.
    pub primary: Destination,
    /// Where the canary's requests go.
    pub canary: Destination,
}

/// What tells a destination from others in a VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The service.
    Host(String),
    /// The subset, of whatever service.
    Subset(String),
}

/// Kind of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// The same, with a primary that the user has made as well.
    DeploymentPair,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// Subset of an Istio DestinationRule, whose pods are not Aviary's business.
    Subset,
    /// Core Service whose backends others manage, or a Knative Service, see [`Target::is_knative`].
    Service,
}

impl TargetKind {
    /// The kind as manifests and messages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetKind::Deployment | TargetKind::DeploymentPair => "Deployment",
            TargetKind::DaemonSet => "DaemonSet",
            TargetKind::Service => "Service",
            TargetKind::Subset => "DestinationRule",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The autoscaler of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    /// Group and version as written.
    pub api_version: String,
    /// Kind.
    pub kind: AutoscalerKind,
    /// Name.
    pub name: String,
    /// KEDA trigger name to the query that the primary's copy has.
    pub primary_queries: BTreeMap<String, String>,
    /// Fewest pods of the primary, if not the target's; at least 1.
    pub primary_min_replicas: Option<u32>,
    /// Most pods of the primary, if not the target's; at least 1.
    pub primary_max_replicas: Option<u32>,
}

impl Autoscaler {
    /// Name of the primary's copy.
    pub fn primary_name(&self) -> String {
        format!("{}{PRIMARY_SUFFIX}", self.name)
    }
}

/// Kind of an autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AutoscalerKind {
    /// `autoscaling/v2`.
    HorizontalPodAutoscaler,
    /// KEDA.
    ScaledObject,
}

impl AutoscalerKind {
    /// The kind as manifests and messages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            AutoscalerKind::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            AutoscalerKind::ScaledObject => "ScaledObject",
        }
    }
}

/// Steps and judgement of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedAnalysis {
    /// Time between check rounds, at least 10 s.
    pub interval: Duration,
    /// Failed checks that end the run, at least 1.
    pub threshold: u32,
    /// Answers in a row that must fail to come before they count as a failed check; `None` leaves it to the controller.
    pub query_errors: Option<u32>,
    /// How a run proceeds.
    pub steps: Steps,
    /// Weight of the canary (percent) from which on it is promoted, 1–100. Has no effect on [`Steps::Weights`].
    pub max_weight: u32,
    /// `maxWeight` as written, 0 if absent. For alerts, which show it so.
    pub declared_max_weight: u32,
    /// Percentage points per step of the way back to the promoted primary, 0–100. 0 moves everything at once.
    pub step_weight_promotion: u32,
    /// Whether the canary first gets a copy of the traffic.
    pub mirror: bool,
    /// Percentage of the traffic that is copied, 0–100. 0 leaves it to the mesh.
    pub mirror_weight: u32,
    /// Percentage of the primary's pods that must be available, 0–100.
    pub primary_ready_threshold: u32,
    /// Percentage of the canary's pods that must be available, 0–100.
    pub canary_ready_threshold: u32,
    /// Requests that reach the canary in an A/B run.
    pub matches: Vec<HttpMatchRequest>,
    /// What is measured, in the order of judgement: built-in and inline metrics as listed, then those with a template.
    /// An entry that is several of them (Flagger runs each) occurs several times.
    pub metrics: Vec<MetricCheck>,
    /// Who is told; if empty, the controller's own channel.
    pub alerts: Vec<ValidatedAlert>,
    /// Who is asked, in list order.
    pub webhooks: Vec<ValidatedWebhook>,
    /// Cookies that keep a client on one side.
    pub session_affinity: Option<ValidatedSessionAffinity>,
}

/// How a run proceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steps {
    /// The weight grows by `step` until it is at least `max`. It may end above `max`, but never above 100.
    Weight {
        /// Percentage points, 1–100.
        step: u32,
        /// Percent, 1–100.
        max: u32,
    },
    /// The weight takes these values (percent, 1–100, increasing, at least one).
    Weights(Vec<u32>),
    /// So many check rounds, at least 1.
    Iterations(u32),
    /// None are needed, because the analysis is skipped.
    None,
}

/// Namespace and name of an object whose kind is known from where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace; the canary's, if the spec gives none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedAlert {
    /// Name.
    pub name: String,
    /// From which severity on.
    pub severity: AlertSeverity,
    /// The AlertProvider.
    pub provider: ObjectKey,
}

/// Severity of an alert, in increasing order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertSeverity {
    /// Everything. Also what an empty severity means, as Flagger's documentation (not its code) has it.
    #[default]
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors.
    Error,
}

impl AlertSeverity {
    /// Name as in `spec.analysis.alerts[].severity`.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertSeverity::Info => "info",
            AlertSeverity::Warn => "warn",
            AlertSeverity::Error => "error",
        }
    }
}

/// Cookies that keep a client on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedSessionAffinity {
    /// Name of the cookie of clients of the canary.
    pub cookie_name: String,
    /// Name of the cookie of clients of the primary, if they have one; differs from `cookie_name`.
    pub primary_cookie_name: Option<String>,
    /// Domain attribute.
    pub domain: Option<String>,
    /// HttpOnly attribute.
    pub http_only: bool,
    /// Max-Age attribute. Default 86400 s.
    pub max_age: Duration,
    /// Partitioned attribute.
    pub partitioned: bool,
    /// Path attribute.
    pub path: Option<String>,
    /// SameSite attribute: `Strict`, `Lax` or `None`.
    pub same_site: Option<String>,
    /// Secure attribute.
    pub secure: bool,
}
