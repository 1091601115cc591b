//! `aviary run`: everything wired and kept running until a signal.

#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use aviary_actors::messages::{CanaryId, CanaryView};
use aviary_actors::transport::{Network, Transport};
use aviary_actors::{Clock, Controller, ControllerHandle, Metrics};
use aviary_providers::HttpRequest;
use aviary_providers::metrics::{self, ProviderConfig};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::Introspect;
use crate::args::{LogLevel, RunArgs};
use crate::kubernetes::Connection;
use crate::leader::{Candidate, Fence};
use crate::{admin, kubernetes, logging, settings, version};

/// Threads for watches, decoding, TLS and HTTP; actors decide on a thread of their own. Two keep up with ten thousand
/// watched objects, and each costs memory.
const WORKERS: usize = 2;
/// Writes in flight get this long after a signal; a pod is killed after 30 s by default.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// If it cannot start and nothing is logged (`--log-level=fatal`); otherwise the log says what is missing.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (level, is_known_level) = args.log_level();
    logging::init(level, args.zap_encoding).context("start logging")?;
    if !is_known_level {
        tracing::warn!(value = args.log_level, "--log-level is not known, logging at info");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build().context("start the runtime")?;
    let end = actix_rt::System::with_tokio_rt(|| runtime).block_on(async {
        let listener = admin::bind(args.port).await?;
        serve(args, listener, &mut signals()?).await
    });
    match end {
        Err(error) if level != LogLevel::Off => {
            tracing::error!("{}", crate::one_line(&error));
            Ok(ExitCode::FAILURE)
        }
        end => end,
    }
}

/// Serves until `stops` says so; a second time ends it at once.
async fn serve(args: &RunArgs, listener: TcpListener, stops: &mut mpsc::Receiver<()>) -> anyhow::Result<ExitCode> {
    let (version, revision, provider) = (version::VERSION, version::REVISION, &args.mesh_provider);
    tracing::info!("Starting aviary version {version} revision {revision} mesh provider {provider}");
    for unused in args.unused_flags() {
        tracing::warn!(flag = unused.flag, "--{} is accepted, but {}", unused.flag, unused.consequence);
    }
    let metrics = Metrics::new().context("register metrics")?;
    metrics.start_time.set(Clock::system().now().as_duration().as_secs_f64());
    let operator = Arc::new(Starting { metrics: metrics.clone(), controller: OnceLock::new() });
    tracing::info!("Starting HTTP server on port {}", listener.local_addr().context("read the port")?.port());
    tokio::spawn(admin::serve(listener, admin::router(operator.clone())));

    let election = args.election();
    // Its own clock, whatever the cluster's is: it measures this machine.
    let fence = Fence::new(args.election_timing(), Clock::system());
    let cluster = kubernetes::connect(args, &metrics, election.as_ref().map(|_| &fence)).await?;
    let namespaces = args.namespaces();
    tokio::select! {
        verified = cluster.verify(&namespaces) => verified?,
        _ = stops.recv() => return Ok(ExitCode::SUCCESS),
    }
    if !namespaces.is_empty() {
        tracing::info!("Watching namespace {}", namespaces.join(","));
    }
    let (clock, transport) = surroundings(&cluster).await?;
    if !args.metrics_server.is_empty() {
        tokio::spawn(probe_metrics_server(args.metrics_server.clone(), transport.clone(), clock.clone()));
    }

    let mut config = settings::controller_config(args);
    config.follows = election.is_some();
    config.providers.mesh_is_elsewhere = cluster.mesh_is_elsewhere();
    log_notifier(args, config.notifier.as_ref().map(|notifier| notifier.target.address.as_str()));
    tracing::info!("Waiting for canary informer cache to sync");
    let controller = Controller::start(config, &cluster.client, transport, clock, metrics.clone());
    // Set once, here.
    let _ = operator.controller.set(controller.handle());
    tokio::spawn(log_when_synced(controller.handle()));

    let mut candidate =
        election.map(|settings| Candidate::stand(cluster.election, settings, fence, metrics, Clock::system()));
    let lost = async {
        match &mut candidate {
            Some(candidate) => candidate.lead_until_lost(&controller).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stops.recv() => {}
        () = lost => {
            // What is in flight is cut off: another may lead by now.
            controller.kill();
            bail!("Leadership lost");
        }
    }
    tracing::info!("Shutting down operator workers");
    tokio::select! {
        finished = controller.shutdown(SHUTDOWN_DEADLINE) => {
            match candidate {
                Some(candidate) if finished => candidate.release().await,
                // The API server may still be at work on a write; the lease runs out after that.
                Some(_) | None => {}
            }
            if !finished {
                tracing::warn!("some writes were not finished in time; they are repeated at the next start");
            }
            Ok(ExitCode::SUCCESS)
        }
        _ = stops.recv() => Ok(ExitCode::FAILURE),
    }
}

/// The time and the network: the system's, or a sandbox's where the cluster is one.
async fn surroundings(cluster: &Connection) -> anyhow::Result<(Clock, Arc<dyn Transport>)> {
    let Some(sandbox) = &cluster.sandbox else {
        return Ok((Clock::system(), Arc::new(Network::default())));
    };
    let (clock, speed) = (sandbox.clock().await?, sandbox.speed());
    tracing::info!("Following the clock of a sandbox, {speed} times real time, and the names of its services");
    Ok((clock, sandbox.transport()))
}

/// SIGINT and SIGTERM, as they come.
fn signals() -> anyhow::Result<mpsc::Receiver<()>> {
    // The first one and the one that ends everything; more say nothing new.
    let (sender, receiver) = mpsc::channel(2);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind).context("handle signals")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // Full: there are two already.
                let _ = sender.try_send(());
            }
        });
    }
    Ok(receiver)
}

/// What the endpoints tell from the beginning: the kubelet must not kill a process that waits for the API server.
struct Starting {
    metrics: Metrics,
    controller: OnceLock<ControllerHandle>,
}

impl Introspect for Starting {
    fn awaited(&self) -> Vec<String> {
        match self.controller.get() {
            Some(controller) => controller.awaited(),
            None => vec!["the Kubernetes API".to_owned()],
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn describe(&self, canary: CanaryId) -> BoxFuture<'_, Option<CanaryView>> {
        match self.controller.get() {
            Some(controller) => Introspect::describe(controller, canary),
            None => Box::pin(async { None }),
        }
    }

    fn describe_all(&self) -> BoxFuture<'_, Vec<CanaryView>> {
        match self.controller.get() {
            Some(controller) => Introspect::describe_all(controller),
            None => Box::pin(async { Vec::new() }),
        }
    }
}

/// Asks once whether the metrics server is there, for the log only: it may well come later.
async fn probe_metrics_server(address: String, transport: Arc<dyn Transport>, clock: Clock) {
    let shown = without_secrets(&address);
    match probe(&address, transport, &clock).await {
        Ok(()) => tracing::info!("Connected to metrics server {shown}"),
        Err(error) => tracing::error!("Metrics server {shown} unreachable: {}", brief(&crate::one_line(&error))),
    }
}

/// An address without user, password and query. A path is often what is wrong with it.
fn without_secrets(address: &str) -> String {
    let path = address.parse::<http::Uri>().map(|uri| uri.path().trim_end_matches('/').to_owned()).unwrap_or_default();
    format!("{}{path}", HttpRequest::get(address.to_owned()).origin())
}

/// Characters of an error in a log line: a whole sentence of Prometheus, and no more than the head of a proxy's HTML page.
const BRIEF: usize = 200;

/// The beginning of a text, in one line.
fn brief(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

async fn probe(address: &str, transport: Arc<dyn Transport>, clock: &Clock) -> anyhow::Result<()> {
    let prometheus = metrics::for_type("prometheus")?;
    let request = prometheus.probe(&ProviderConfig::metrics_server(address), clock.now())?;
    let answer = transport.send(request).await?;
    Ok(prometheus.check_probe(answer.status, &answer.body)?)
}

/// Only the host: the path of a chat's webhook is its password.
fn log_notifier(args: &RunArgs, address: Option<&str>) {
    match address {
        Some(address) => tracing::info!("Notifications enabled for {}", HttpRequest::get(address.to_owned()).origin()),
        None if !args.slack_url.is_empty() => {
            tracing::error!("Notifier empty Slack channel: no notifications are sent")
        }
        None => {}
    }
}

/// The caches tell nobody when they are complete; a tenth of a second late is early enough for a log line.
const SYNC_POLL: Duration = Duration::from_millis(100);

async fn log_when_synced(operator: ControllerHandle) {
    while !operator.is_ready() {
        tokio::time::sleep(SYNC_POLL).await;
    }
    tracing::info!("Started operator workers");
}
