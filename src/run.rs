//! `aviary run`: everything wired and kept running until a signal.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aviary_actors::transport::{Network, Transport};
use aviary_actors::{Clock, Controller, ControllerHandle, Metrics};
use aviary_providers::metrics::{self, ProviderConfig};
use aviary_providers::HttpRequest;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::RunArgs;
use crate::{admin, kubernetes, logging, settings, version};

/// Threads for watches, decoding, TLS and HTTP; actors decide on a thread of their own. Two keep up with ten thousand
/// watched objects, and each costs memory.
const WORKERS: usize = 2;
/// Writes in flight get this long after a signal; a pod is killed after 30 s by default.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// If it cannot start; the message says what is missing.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let (level, is_known_level) = args.log_level();
    logging::init(level, args.zap_encoding).context("start logging")?;
    if !is_known_level {
        tracing::warn!(value = args.log_level, "--log-level is not known, logging at info");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build().context("start the runtime")?;
    actix_rt::System::with_tokio_rt(|| runtime).block_on(serve(args))
}

async fn serve(args: RunArgs) -> anyhow::Result<ExitCode> {
    let (version, revision, provider) = (version::VERSION, version::REVISION, &args.mesh_provider);
    tracing::info!("Starting aviary version {version} revision {revision} mesh provider {provider}");
    for unused in args.unused_flags() {
        tracing::warn!(flag = unused.flag, "--{} is accepted, but {}", unused.flag, unused.consequence);
    }
    let mut signals = Signals::new()?;
    let metrics = Metrics::new().context("register metrics")?;
    let listener = admin::bind(args.port).await?;
    let client = kubernetes::client(&args, &metrics).await?;
    let namespaces = args.namespaces();
    tokio::select! {
        verified = kubernetes::verify(&client, &namespaces) => verified?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    }
    if !namespaces.is_empty() {
        tracing::info!("Watching namespace {}", namespaces.join(","));
    }
    let transport: Arc<dyn Transport> = Arc::new(Network::default());
    tokio::spawn(probe_metrics_server(args.metrics_server.clone(), transport.clone()));

    let config = settings::controller_config(&args);
    log_notifier(&args, config.notifier.as_ref().map(|notifier| notifier.target.address.as_str()));
    tracing::info!("Waiting for canary informer cache to sync");
    let controller = Controller::start(config, client, transport, Clock::system(), metrics);
    tracing::info!("Starting HTTP server on port {}", args.port);
    tokio::spawn(admin::serve(listener, admin::router(Arc::new(controller.handle()))));
    tokio::spawn(log_when_synced(controller.handle()));

    signals.next().await;
    tracing::info!("Shutting down operator workers");
    tokio::select! {
        finished = controller.shutdown(SHUTDOWN_DEADLINE) => {
            if !finished {
                tracing::warn!("some writes were not finished in time; they are repeated at the next start");
            }
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let handle = |kind| signal(kind).context("handle signals");
        Ok(Signals { interrupt: handle(SignalKind::interrupt())?, terminate: handle(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Asks once whether the metrics server is there, for the log only: it may well come later.
async fn probe_metrics_server(address: String, transport: Arc<dyn Transport>) {
    let origin = HttpRequest::get(address.clone()).origin();
    match probe(&address, transport).await {
        Ok(()) => tracing::info!("Connected to metrics server {origin}"),
        Err(error) => tracing::error!("Metrics server {origin} unreachable {error:#}"),
    }
}

async fn probe(address: &str, transport: Arc<dyn Transport>) -> anyhow::Result<()> {
    let prometheus = metrics::for_type("prometheus")?;
    let request = prometheus.probe(&ProviderConfig::metrics_server(address), Clock::system().now())?;
    let answer = transport.send(request).await?;
    Ok(prometheus.check_probe(answer.status, &answer.body)?)
}

/// Only the host: the path of a chat's webhook is its password.
fn log_notifier(args: &RunArgs, address: Option<&str>) {
    match address {
        Some(address) => tracing::info!("Notifications enabled for {}", HttpRequest::get(address.to_owned()).origin()),
        None if !args.slack_url.is_empty() => tracing::error!("Notifier empty Slack channel: no notifications are sent"),
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
