//! Everything wired: the same for `aviary run`, for the demo and for tests.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use aviary_crds::{ValidatedCanary, ValidationOptions};
use aviary_providers::{ObjectKind, traffic};
use aviary_rollout::OutagePolicy;
use kube::Client;
use kube::core::DynamicObject;

use crate::cache::Cache;
use crate::canary::understand;
use crate::clock::Clock;
use crate::courier::Courier;
use crate::deps::{CanarySettings, Deps, FaultHook};
use crate::dialects;
use crate::hooks::{GlobalNotifier, WebhookSuccess};
use crate::lifetime::{KillSwitch, Lifetime};
use crate::messages::{CanaryId, CanaryView, Describe, DescribeCanaries, Lead, Shutdown, WriteOut};
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::recorder::Recorder;
use crate::router::Router;
use crate::supervisor::Supervisor;
use crate::transport::Transport;
use crate::watches::{self, Scope};

/// Settings of the controller.
#[derive(Clone)]
pub struct ControllerConfig {
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
    /// Where alerts of canaries go that list none.
    pub notifier: Option<GlobalNotifier>,
    /// Address that receives the events of canaries without event hooks (`--event-webhook`).
    pub event_webhook: Option<String>,
    /// Which answers of webhooks are a yes.
    pub webhook_success: WebhookSuccess,
    /// Where to look for canaries.
    pub scope: Scope,
    /// Whether to watch only, until [`Controller::lead`].
    pub follows: bool,
    /// Version, for `flagger_info`.
    pub version: String,
    /// Called at the beginning of every step of every canary. For tests of supervision; `None` otherwise.
    pub fault: Option<FaultHook>,
}

/// Monitoring outages are waited out this long by default.
pub(crate) const DEFAULT_OUTAGE_LIMIT: Duration = Duration::from_secs(600);

/// Istio pushes routes some 100 ms after a change, in a large mesh a second or two. Three seconds cost a
/// release nothing: all it waits with are pods that nobody needs.
pub(crate) const DEFAULT_TRAFFIC_SETTLE_TIME: Duration = Duration::from_secs(3);

/// Large clusters gather changes of EndpointSlices for half a second, and the mesh follows 100 ms later. Every release waits
/// for it once, so it is no longer than that needs.
pub(crate) const DEFAULT_ENDPOINTS_SETTLE_TIME: Duration = Duration::from_secs(1);

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig {
            providers: aviary_providers::Settings::default(),
            validation: ValidationOptions::default(),
            outage: OutagePolicy::Hold { limit: DEFAULT_OUTAGE_LIMIT },
            traffic_settle_time: DEFAULT_TRAFFIC_SETTLE_TIME,
            endpoints_settle_time: DEFAULT_ENDPOINTS_SETTLE_TIME,
            cluster_name: None,
            notifier: None,
            event_webhook: None,
            webhook_success: WebhookSuccess::default(),
            scope: Scope::default(),
            follows: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fault: None,
        }
    }
}

impl ControllerConfig {
    fn canary_settings(&self) -> CanarySettings {
        CanarySettings {
            providers: self.providers.clone(),
            validation: self.validation,
            outage: self.outage,
            traffic_settle_time: self.traffic_settle_time,
            endpoints_settle_time: self.endpoints_settle_time,
            cluster_name: self.cluster_name.clone(),
            notifier: self.notifier.clone(),
            event_webhook: self.event_webhook.clone(),
        }
    }

    /// Why a controller with these settings would not run a Canary: one problem a line, each with its field path.
    /// `None` if it would.
    pub fn refusal(&self, canary: &DynamicObject) -> Option<String> {
        self.validated(canary).err()
    }

    /// What a controller with these settings makes of an object, whatever system it is written for.
    ///
    /// # Errors
    /// Why it would not run it, as [`refusal`](Self::refusal) has it.
    pub fn validated(&self, object: &DynamicObject) -> Result<ValidatedCanary, String> {
        understand(dialects::of_manifest(object), object, &self.canary_settings()).map(|understood| understood.canary)
    }
}

/// A running controller. It ends when this is dropped, as with [`kill`](Self::kill).
#[must_use = "it ends when it is dropped"]
pub struct Controller {
    handle: ControllerHandle,
    recorder: Addr<Recorder>,
    client: Client,
    scope: Scope,
    kill_switch: KillSwitch,
}

/// A way to ask a running controller from any thread.
#[derive(Clone)]
pub struct ControllerHandle {
    supervisor: Addr<Supervisor>,
    cache: Arc<Cache>,
    metrics: Metrics,
}

impl Controller {
    /// Starts all actors on the current arbiter (or `LocalSet`), and the watches on the current tokio runtime.
    pub fn start(
        config: ControllerConfig,
        client: &Client,
        transport: Arc<dyn Transport>,
        clock: Clock,
        metrics: Metrics,
    ) -> Controller {
        let mesh_provider = config.providers.mesh_provider.clone();
        metrics.info.with_label_values(&[config.version.as_str(), mesh_provider.as_str()]).set(1.0);
        let cache = Arc::new(Cache::default());
        let (kill_switch, lifetime) = Lifetime::new();
        let recorder = lifetime.start(Recorder::new(client, metrics.clone(), &lifetime));
        let observer =
            Observer::new(transport.clone(), clock.clone(), metrics.clone(), recorder.clone(), lifetime.clone());
        let observer = lifetime.start(observer);
        let deps = Deps {
            cache: cache.clone(),
            clock,
            settings: Arc::new(config.canary_settings()),
            metrics: metrics.clone(),
            router: lifetime.start(Router::new(client.clone(), cache.clone(), metrics.clone(), lifetime.clone())),
            observer,
            recorder: recorder.clone(),
            courier: lifetime
                .start(Courier::new(transport, metrics.clone(), lifetime.clone()).accepting(config.webhook_success)),
            lifetime: lifetime.clone(),
            fault: config.fault,
        };
        let supervisor = lifetime.start(Supervisor::new(deps, !config.follows));
        let kinds: Vec<&'static ObjectKind> =
            traffic::ALL.iter().flat_map(|provider| provider.watched()).copied().collect();
        watches::start(client, &cache, &config.scope, &kinds, &supervisor.clone().recipient(), &lifetime);
        let handle = ControllerHandle { supervisor, cache, metrics };
        Controller { handle, recorder, client: client.clone(), scope: config.scope, kill_switch }
    }

    /// Begins to act, if it followed until now.
    ///
    /// Before, all Canaries are listed once more: a watch may be behind, and what the former leader made of a Canary must
    /// be known before anything is decided about it. Other objects need no such look, because every write of them carries
    /// the version that was seen.
    ///
    /// # Errors
    /// If the Canaries cannot be listed; it still follows then.
    pub async fn lead(&self) -> kube::Result<()> {
        watches::list_canaries(&self.client, &self.handle.cache, &self.scope).await?;
        // It ends with the controller, and then there is nothing to lead.
        let _ = self.handle.supervisor.send(Lead).await;
        Ok(())
    }

    /// A way to ask this controller from any thread.
    pub fn handle(&self) -> ControllerHandle {
        self.handle.clone()
    }

    /// Whether every watched kind was listed.
    pub fn is_ready(&self) -> bool {
        self.handle.is_ready()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.handle.metrics
    }

    /// Finishes the effects in flight, decides nothing more, records the events that are left, and ends everything.
    /// Returns whether everything was finished before the deadline.
    pub async fn shutdown(self, deadline: Duration) -> bool {
        let finish =
            async { self.handle.supervisor.send(Shutdown).await.is_ok() && self.recorder.send(WriteOut).await.is_ok() };
        let finished = tokio::time::timeout(deadline, finish).await.unwrap_or(false);
        self.kill();
        finished
    }

    /// Ends at once, as a killed process would: nothing in flight is finished or told, and no actor, timer or watch
    /// runs another line.
    pub fn kill(self) {
        drop(self.kill_switch);
    }
}

impl ControllerHandle {
    /// Whether every watched kind was listed.
    pub fn is_ready(&self) -> bool {
        self.cache.is_synced()
    }

    /// The kinds that have yet to be listed, as `resource.group`.
    pub fn awaited(&self) -> Vec<String> {
        self.cache.awaited().into_iter().collect()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What one canary is doing; `None` if there is no such canary or its actor does not answer.
    pub async fn describe(&self, canary: &CanaryId) -> Option<CanaryView> {
        let all = self.supervisor.send(DescribeCanaries).await.ok()?;
        let (_, actor) = all.into_iter().find(|(id, _)| id == canary)?;
        ask(&actor).await
    }

    /// What every canary is doing, as far as their actors answer.
    pub async fn describe_all(&self) -> Vec<CanaryView> {
        let Ok(all) = self.supervisor.send(DescribeCanaries).await else { return Vec::new() };
        let views = futures::future::join_all(all.iter().map(|(_, actor)| ask(actor))).await;
        views.into_iter().flatten().collect()
    }
}

/// An actor that is being restarted answers late; a person who looks will not wait longer.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

async fn ask(actor: &actix::Recipient<Describe>) -> Option<CanaryView> {
    tokio::time::timeout(DESCRIBE_TIMEOUT, actor.send(Describe)).await.ok()?.ok()
}
