//! A fleet of canaries on an embedded cluster, in virtual time.
//!
//! Users create Deployments and Canaries, the controller makes them ready, nothing happens for a while, and then
//! workloads are released at random times. The controller is wired as `aviary run` wires it and reaches the cluster
//! only through the API; only the API server, the workload controllers and Prometheus are embedded ones.

mod measure;
mod report;
mod schedule;
mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use aviary::embedded::{self, ServiceNames};
use aviary_actors::{Controller, ControllerConfig};
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::{ControllerOptions, PodDetail};
use aviary_sim::traffic::Behaviour;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::objects::{self, Name, api, create};
use crate::process;
use measure::Reading;
pub use report::{Calls, Decisions, Memory, Queries, Releases, Report, Stretch};
use schedule::Release;

/// The controller's user agent, under which its calls are counted.
const CONTROLLER: &str = "aviary";
/// Those of the users.
const USER: &str = "kubectl";
/// How long the bootstrapped fleet is left alone: ten minutes, long enough for every watch to end once and for anything
/// that is done every few minutes to show.
const QUIET: Duration = Duration::from_secs(600);
/// The bootstrap is given up after this much virtual time. It takes seconds.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(3600);

/// What is run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Canaries, each with a Deployment of its own.
    pub canaries: usize,
    /// Namespaces that they are spread over.
    pub namespaces: usize,
    /// New revisions, at random times.
    pub releases: usize,
    /// Share of the releases that fails a tenth of its requests, 0 to 1.
    pub failing: f64,
    /// Interval of the analysis.
    pub interval: Duration,
    /// Virtual time in which the releases happen.
    pub time: Duration,
    /// Decides which canaries release what and when.
    pub seed: u64,
}

impl Default for Options {
    /// A thousand canaries and two hundred releases in one hour, of which half fail.
    fn default() -> Self {
        Options {
            canaries: 1000,
            namespaces: 20,
            releases: 200,
            failing: 0.5,
            interval: Duration::from_secs(10),
            time: Duration::from_secs(3600),
            seed: 1,
        }
    }
}

/// Runs the fleet on a runtime of its own, on this thread.
///
/// # Errors
/// The options cannot be met, or the embedded cluster refuses what the users do. A release that ends otherwise than it
/// should is no error; the report tells.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let releases = schedule::releases(options)?;
    let runtime = virtual_runtime()?;
    tokio::task::LocalSet::new().block_on(&runtime, run_here(options, &releases))
}

/// Bootstraps the fleet in virtual time, stops its controller, and serves the cluster over HTTP in real time, for a
/// controller process to be measured. Releases nothing. `ready` is called when requests are answered.
///
/// # Errors
/// The address cannot be used, or the embedded cluster refuses what the users do.
pub fn serve(options: &Options, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let runtime = virtual_runtime()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let fleet = Fleet::new(options, &[]).await?;
        let controller = fleet.bootstrap().await?;
        stop(controller).await?;
        tokio::time::resume();
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        ready(listener.local_addr()?);
        match fleet.cluster.serve(listener).await {}
    })
}

fn virtual_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
}

async fn stop(controller: Controller) -> anyhow::Result<()> {
    let stopped = controller.shutdown(Duration::from_secs(10)).await;
    anyhow::ensure!(stopped, "the controller did not stop within ten seconds");
    Ok(())
}

async fn run_here(options: &Options, releases: &[Release]) -> anyhow::Result<Report> {
    let resident_before = process::resident_bytes();
    let fleet = Fleet::new(options, releases).await?;
    let resident_cluster = process::resident_bytes();

    let start = fleet.read(None);
    let controller = fleet.bootstrap().await?;
    let ready = fleet.read(Some(&controller));
    let resident_ready = process::resident_bytes();

    tokio::time::sleep(QUIET).await;
    let quiet = fleet.read(Some(&controller));

    fleet.release_all(releases).await?;
    let end = fleet.read(Some(&controller));

    let outcome = verdict::judge(&fleet.cluster, options, releases, &fleet.ledger);
    let idle_calls = measure::idle_calls(&fleet.cluster, options, releases, &quiet)?;
    stop(controller).await?;
    let memory = Memory::new(options.canaries, resident_before, resident_cluster, resident_ready);
    Ok(Report::new(options, outcome, &[start, ready, quiet, end], idle_calls, memory))
}

/// The cluster with its users.
struct Fleet {
    options: Options,
    cluster: Cluster,
    ledger: Ledger,
    user: Client,
}

impl Fleet {
    /// Everything that users create, before the controller starts.
    async fn new(options: &Options, releases: &[Release]) -> anyhow::Result<Fleet> {
        let cluster = Cluster::new(ClusterOptions {
            controllers: Some(ControllerOptions { pods: PodDetail::CountsOnly, ..ControllerOptions::default() }),
            logged_calls: measure::log_capacity(releases.len()),
            ..embedded::cluster_options(options.seed)
        });
        cluster.traffic().set_behaviour(objects::BROKEN, Behaviour::failing(0.1));
        let ledger = Ledger::follow(cluster.store());
        let user = cluster.client(USER);
        let fleet = Fleet { options: options.clone(), cluster, ledger, user };
        for index in 0..options.namespaces.max(1) {
            create(&fleet.user, &objects::namespace(&format!("team-{index}"))).await?;
        }
        for name in fleet.names() {
            create(&fleet.user, &objects::deployment(&name)).await?;
            create(&fleet.user, &objects::canary(&name, options.interval)).await?;
        }
        // Pods start.
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(fleet)
    }

    fn names(&self) -> impl Iterator<Item = Name> {
        let namespaces = self.options.namespaces;
        (0..self.options.canaries).map(move |index| objects::name(index, namespaces))
    }

    /// Starts the controller and waits until every canary is initialized.
    async fn bootstrap(&self) -> anyhow::Result<Controller> {
        let services = ServiceNames::with_prometheus(self.cluster.prometheus());
        let config = ControllerConfig::default();
        let controller = embedded::start_controller(config, &self.cluster, CONTROLLER, &services);
        let controller = controller.context("start the controller")?;
        let initialized = self.ledger.wait_for_phase("Initialized", self.options.canaries);
        let is_ready = tokio::time::timeout(BOOTSTRAP_LIMIT, initialized).await.is_ok();
        anyhow::ensure!(is_ready, "not all are initialized after an hour of virtual time: {}", self.ledger.phases());
        // The events of the last ones are being written.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(controller)
    }

    fn read(&self, controller: Option<&Controller>) -> Reading {
        Reading::take(&self.cluster, CONTROLLER, controller.map(Controller::metrics))
    }

    /// Makes every release at its time, and waits for the end of the time.
    async fn release_all(&self, releases: &[Release]) -> anyhow::Result<()> {
        let start = Instant::now();
        for release in releases {
            tokio::time::sleep_until(start + release.at).await;
            let name = objects::name(release.canary, self.options.namespaces);
            self.ledger.expect(&name);
            let deployments = api(&self.user, "apps", "v1", "Deployment", &name.namespace);
            let patch = Patch::Strategic(objects::image_patch(&release.image));
            let patched = deployments.patch(&name.name, &PatchParams::default(), &patch).await;
            patched.with_context(|| format!("release {} in {}", name.name, name.namespace))?;
        }
        tokio::time::sleep_until(start + self.options.time).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
