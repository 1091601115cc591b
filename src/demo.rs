//! `aviary demo`: a good and a bad release, on an embedded cluster, with the operator as it ships.
//!
//! The clock is virtual. A pacer lets it run at a multiple of real time, so that one can watch.

mod pacer;
mod report;
mod rollout;
mod screen;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use aviary_actors::Controller;
use aviary_crds::Phase;
use aviary_sim::Cluster;
use aviary_sim::cluster::ClusterOptions;
use aviary_sim::traffic::{Behaviour, TrafficOptions};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::json;

use crate::args::{DemoArgs, RunArgs, Speed};
use crate::embedded::{self, ServiceNames};
use crate::requests::Requests;
use crate::settings;
pub use report::{Release, Report};
use rollout::Rollout;
use screen::Screen;

/// How the demo runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How fast the cluster's clock runs.
    pub speed: Speed,
    /// Part of the requests that version 6.0.1 fails, 0 to 1.
    pub good_error_rate: f64,
    /// Part of the requests that version 6.0.2 fails, 0 to 1.
    pub bad_error_rate: f64,
    /// Whether the state of the rollout is redrawn below the events; needs a terminal.
    pub live: bool,
    /// Whether to use colours.
    pub color: bool,
}

impl From<DemoArgs> for Options {
    /// Plain lines without colours; the caller knows whether there is a terminal.
    fn from(args: DemoArgs) -> Options {
        let DemoArgs { speed, good_error_rate, bad_error_rate, .. } = args;
        Options { speed, good_error_rate, bad_error_rate, live: false, color: false }
    }
}

/// The manifests that the demo applies.
const MANIFESTS: &str = include_str!("demo/podinfo.yaml");
/// User agent of the operator; its calls are counted under it.
const OPERATOR: &str = "aviary";
/// User agent of whoever applies manifests and watches.
const KUBECTL: &str = "kubectl-demo";

const NAMESPACE: &str = "test";
const NAME: &str = "podinfo";
const IMAGE: &str = "ghcr.io/stefanprodan/podinfo";
const GOOD: &str = "6.0.1";
const BAD: &str = "6.0.2";

/// Requests of users per second. The first step gives the canary ten of them, so a check round of ten seconds sees a hundred.
const USERS: f64 = 100.0;
/// Noon, so that times read well: 2026-01-01T12:00:00Z.
const START: i64 = 1_767_268_800;
/// Any will do; a fixed one makes two runs equal.
const SEED: u64 = 1;
/// A release takes two minutes; one that has not ended after this time never will.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Time after a verdict in which its last events arrive and the pods of the canary go.
const SETTLING: Duration = Duration::from_secs(5);
/// How far back the queries of the Canary look.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// Plays the demo and writes what happens to `out`.
///
/// # Errors
/// If the output cannot be written, or a release has no verdict after half an hour of cluster time. A verdict that is
/// not the expected one is no error; see [`Report::is_as_expected`].
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<Report> {
    // Everything runs on this thread: a paused clock moves on when the thread has nothing left to do.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().context("start the runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, play(options, out))
}

async fn play(options: &Options, out: &mut dyn Write) -> anyhow::Result<Report> {
    if let Speed::Times(times) = options.speed {
        tokio::spawn(pacer::pace(times));
    }
    let cluster = cluster(options)?;
    let mut demo = Demo::start(cluster, Screen::new(out, options))?;
    demo.screen.introduce(USERS)?;
    demo.install().await?;
    let good = demo.release(GOOD).await?;
    // Both versions count as workload `podinfo`, here as in Istio.
    demo.screen.act("sleep 60", "the queries look back one minute; now they will see the next version only")?;
    demo.follow_for(LOOK_BACK).await?;
    let bad = demo.release(BAD).await?;
    let report = Report { releases: vec![good, bad] };
    demo.screen.end()?;
    report.print(&mut demo.screen)?;
    demo.controller.shutdown(SETTLING).await;
    Ok(report)
}

fn cluster(options: &Options) -> anyhow::Result<Cluster> {
    let cluster = Cluster::new(ClusterOptions {
        base_time: Timestamp::from_second(START)?,
        traffic: TrafficOptions { default_load: USERS, ..TrafficOptions::default() },
        ..embedded::cluster_options(SEED)
    });
    for (version, error_rate) in [(GOOD, options.good_error_rate), (BAD, options.bad_error_rate)] {
        cluster.traffic().set_behaviour(format!("podinfo:{version}").as_str(), Behaviour::failing(error_rate));
    }
    Ok(cluster)
}

struct Demo<'a> {
    cluster: Cluster,
    kubectl: Client,
    controller: Controller,
    rollout: Rollout,
    screen: Screen<'a>,
    /// Events of the present release that tell of a failed check.
    halts: Vec<String>,
}

impl<'a> Demo<'a> {
    /// Starts the operator with the settings that `aviary run` has without flags.
    fn start(cluster: Cluster, screen: Screen<'a>) -> anyhow::Result<Demo<'a>> {
        let config = settings::controller_config(&RunArgs::without_flags()?);
        let services = ServiceNames::with_prometheus(cluster.prometheus());
        let controller =
            embedded::start_controller(config, &cluster, OPERATOR, &services).context("start the operator")?;
        let kubectl = cluster.client(KUBECTL);
        let rollout = Rollout::watch(&kubectl);
        Ok(Demo { cluster, kubectl, controller, rollout, screen, halts: Vec::new() })
    }

    /// Applies the manifests and waits until the operator has made its objects.
    async fn install(&mut self) -> anyhow::Result<()> {
        self.screen
            .act("kubectl apply -f podinfo.yaml", "a Deployment of podinfo 6.0.0, and a Canary that releases it")?;
        for object in serde_saphyr::from_multiple::<DynamicObject>(MANIFESTS).context("read podinfo.yaml")? {
            create(&self.kubectl, &object).await?;
        }
        self.follow_until("Initialized", |rollout| rollout.phase() == Phase::Initialized).await?;
        self.follow_for(SETTLING).await
    }

    /// Sets the image, and waits for the verdict.
    async fn release(&mut self, version: &str) -> anyhow::Result<Release> {
        let error_rate = self.screen.error_rate(version) * 100.0;
        let command = format!("kubectl -n {NAMESPACE} set image deployment/{NAME} podinfod={IMAGE}:{version}");
        self.screen.act(&command, &format!("this version fails {error_rate} % of the requests"))?;
        let (started, real_started) = (self.cluster.clock().now(), Instant::now());
        let traffic = self.cluster.traffic().report(NAMESPACE, NAME);
        let calls = self.cluster.calls().snapshot();
        let previous = self.rollout.revision().map(str::to_owned);
        self.halts.clear();

        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(self.kubectl.clone(), NAMESPACE);
        let container = json!({"name": "podinfod", "image": format!("{IMAGE}:{version}")});
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
        deployments.patch(NAME, &PatchParams::default(), &patch).await.context("set the image")?;
        self.follow_until("Succeeded or Failed", |rollout| {
            matches!(rollout.phase(), Phase::Succeeded | Phase::Failed) && rollout.revision() != previous.as_deref()
        })
        .await?;

        let verdict = self.rollout.verdict();
        let (cluster_time, real_time) = (self.cluster.clock().now().duration_since(started), real_started.elapsed());
        self.follow_for(SETTLING).await?;
        let primary = format!("{NAME}{}", aviary_crds::names::PRIMARY_SUFFIX);
        let traffic = Requests::between(&traffic, &self.cluster.traffic().report(NAMESPACE, NAME), NAME, &primary);
        let calls = self.cluster.calls().since(&calls).of_client(OPERATOR);
        Ok(Release {
            version: version.to_owned(),
            phase: verdict.0,
            message: verdict.1,
            halts: std::mem::take(&mut self.halts),
            cluster_time: cluster_time.unsigned_abs(),
            real_time,
            requests: traffic,
            writes: calls.writes(),
            event_writes: calls.event_writes(),
            reads: calls.reads(),
        })
    }

    async fn follow_until(&mut self, what: &str, is_done: impl Fn(&Rollout) -> bool) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_done(&self.rollout) {
            let step = tokio::time::timeout_at(deadline, self.step());
            step.await.with_context(|| format!("wait for podinfo to be {what}: nothing after 30 minutes"))??;
        }
        Ok(())
    }

    async fn follow_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(step) = tokio::time::timeout_at(deadline, self.step()).await {
            step?;
        }
        Ok(())
    }

    /// Waits for news or for the next picture, and shows it.
    async fn step(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            news = self.rollout.next() => {
                if let Some(line) = news? {
                    if line.is_halt() {
                        self.halts.push(line.message.clone());
                    }
                    self.screen.news(&line)?;
                }
            }
            () = self.screen.next_picture() => {}
        }
        self.screen.draw(&self.rollout, self.controller.metrics(), self.cluster.clock().now())?;
        Ok(())
    }
}

async fn create(kubectl: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    let types = object.types.as_ref().context("read podinfo.yaml: an object has no kind")?;
    let resource = ApiResource::from_gvk(&types.try_into().context("read podinfo.yaml")?);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(kubectl.clone(), namespace, &resource),
        None => Api::all_with(kubectl.clone(), &resource),
    };
    api.create(&PostParams::default(), object).await.with_context(|| format!("create {}", types.kind))?;
    Ok(())
}
