//! What every canary's actor is given.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use aviary_crds::ValidationOptions;
use aviary_rollout::OutagePolicy;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::courier::Courier;
use crate::hooks::GlobalNotifier;
use crate::lifetime::Lifetime;
use crate::messages::CanaryId;
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::recorder::Recorder;
use crate::router::Router;

/// Settings that canaries depend on.
#[derive(Clone)]
pub(crate) struct CanarySettings {
    /// Settings of providers.
    pub providers: aviary_providers::Settings,
    /// How objects are validated.
    pub validation: ValidationOptions,
    /// What a missing answer of the monitoring means.
    pub outage: OutagePolicy,
    /// How long a mesh may take to follow a change of routes.
    pub traffic_settle_time: Duration,
    /// How long a mesh may take to hear of pods that became available.
    pub endpoints_settle_time: Duration,
    /// `--cluster-name`.
    pub cluster_name: Option<String>,
    /// What receives the events of canaries without event hooks; a secret.
    pub event_webhook: Option<String>,
    /// Where alerts go by default.
    pub notifier: Option<GlobalNotifier>,
}

/// Called at the beginning of every step. Tests use it to make an actor panic.
pub type FaultHook = Arc<dyn Fn(&CanaryId) + Send + Sync>;

/// What every canary's actor is given.
#[derive(Clone)]
pub(crate) struct Deps {
    /// Observed objects.
    pub cache: Arc<Cache>,
    /// The time of day.
    pub clock: Clock,
    /// Settings.
    pub settings: Arc<CanarySettings>,
    /// Metrics.
    pub metrics: Metrics,
    /// Writes to the cluster.
    pub router: Addr<Router>,
    /// Metric queries.
    pub observer: Addr<Observer>,
    /// Events and metrics.
    pub recorder: Addr<Recorder>,
    /// Webhooks and alerts.
    pub courier: Addr<Courier>,
    /// Ends with the controller.
    pub(crate) lifetime: Lifetime,
    /// Faults, in tests.
    pub fault: Option<FaultHook>,
}
