//! One world: a cluster, its users, its controller, and what goes wrong.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use aviary::embedded::{self, ServiceNames};
use aviary_actors::{Controller, ControllerConfig};
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::{ControllerOptions, PodDetail};
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use kube::Client;
use kube::api::{Patch, PatchParams};
use tokio::task::LocalSet;

use super::story::{Quality, Revision, Tale};
use super::{CONTROLLER, USER, story, troubles};
use crate::checks::{Watchman, final_state};
use crate::ending::{self, Expected};
use crate::ledger::Ledger;
use crate::objects::{self, Name, api, create};
use crate::random::Random;

/// Requests per second and canary: so many that the first check of any weight has two scrapes to judge by.
const LOAD: f64 = 2000.0;
/// A release takes some minutes; one that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// Time after the last release in which repairs that rest are tried again, and everything comes to rest.
const SETTLING: Duration = Duration::from_secs(600);

/// How a world ended.
pub(super) struct End {
    pub(super) rollouts: u64,
    pub(super) faults: u64,
    pub(super) deaths: u64,
    pub(super) problems: Vec<String>,
    pub(super) end: BTreeMap<String, String>,
    pub(super) story: String,
}

/// Plays the world of a seed, with or without trouble, on a runtime of its own in virtual time.
pub(super) fn play(seed: u64, with_trouble: bool) -> anyhow::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    // Actors that are dropped with the local set serve what is left in their mailboxes, which needs the runtime.
    let _entered = runtime.enter();
    LocalSet::new().block_on(&runtime, play_here(seed, with_trouble))
}

async fn play_here(seed: u64, with_trouble: bool) -> anyhow::Result<End> {
    let mut random = Random::new(seed);
    let tales = story::tales(&mut random);
    let world = World::new(seed, &tales).await?;
    let mut watchman = Watchman::new(&world.cluster).forbidding(&[
        Quality::Failing.suffix(),
        Quality::Broken.suffix(),
        Quality::Slow.suffix(),
        Quality::Unready.suffix(),
        Quality::Crashing.suffix(),
    ]);

    let operator = Rc::new(Operator::new(&world.cluster)?);
    let mut trouble = Vec::new();
    if with_trouble {
        troubles::arm(&world.cluster, &mut random);
        let of_cluster = Random::new(random.next());
        trouble.push(tokio::task::spawn_local(troubles::disturb(world.cluster.clone(), of_cluster)));
        trouble.push(tokio::task::spawn_local(Operator::die_and_rise(Rc::clone(&operator), random)));
    }
    let acts = tales.iter().map(|tale| tokio::time::timeout(PATIENCE, world.act(tale)));
    let acted = futures::future::join_all(acts).await;
    for task in trouble {
        task.abort();
        // Either cancelled, as asked, or a panic that is told already.
        let _ = task.await;
    }
    troubles::end(&world.cluster);
    operator.rise()?;
    tokio::time::sleep(SETTLING).await;

    let mut problems = watchman.violations();
    for (tale, acted) in tales.iter().zip(acted) {
        let Name { namespace, name } = &tale.name;
        match acted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(format!("{namespace}/{name}: {error:#}")),
            Err(_) => problems.push(format!("{namespace}/{name}: did not end within {PATIENCE:?}")),
        }
        problems.extend(world.problems(tale).into_iter().map(|text| format!("{namespace}/{name}: {text}")));
    }
    problems.extend(operator.end());
    Ok(End {
        rollouts: tales.iter().map(|tale| tale.releases.len() as u64).sum(),
        faults: world.cluster.faults().injected(),
        deaths: operator.deaths.get(),
        problems,
        end: final_state(&world.cluster),
        story: world.story(),
    })
}

struct World {
    cluster: Cluster,
    user: Client,
    ledger: Ledger,
}

impl World {
    /// A cluster with everything that users create.
    async fn new(seed: u64, tales: &[Tale]) -> anyhow::Result<World> {
        // Pods as objects cost most of the time; what they add is tried in some of the worlds.
        let pods = if seed.is_multiple_of(8) { PodDetail::Objects } else { PodDetail::CountsOnly };
        let cluster = Cluster::new(ClusterOptions {
            controllers: Some(ControllerOptions { pods, ..ControllerOptions::default() }),
            logged_calls: 0,
            ..embedded::cluster_options(seed)
        });
        let traffic = cluster.traffic();
        traffic.set_behaviour(Quality::Failing.suffix(), Behaviour::failing(0.1));
        traffic.set_behaviour(Quality::Broken.suffix(), Behaviour::failing(1.0));
        traffic.set_behaviour(Quality::Slow.suffix(), Behaviour::slow(1000.0, 2000.0));
        let user = cluster.client(USER);
        for tale in tales {
            let Name { namespace, name } = &tale.name;
            if cluster.store().get(&kinds::NAMESPACE, "", namespace).is_none() {
                create(&user, &objects::namespace(namespace)).await?;
            }
            traffic.set_load(namespace, name, LOAD);
            create(&user, &objects::deployment(&tale.name)).await?;
            create(&user, &tale.canary).await?;
        }
        let ledger = Ledger::follow(cluster.store());
        // Pods start.
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(World { cluster, user, ledger })
    }

    /// Makes the releases of one canary, each after the last has ended.
    async fn act(&self, tale: &Tale) -> anyhow::Result<()> {
        self.ledger.wait_for(&tale.name, "Initialized").await;
        for (index, revision) in tale.releases.iter().enumerate() {
            tokio::time::sleep(revision.pause).await;
            if let Some((image, time)) = &revision.replaces {
                self.set_image(&tale.name, image).await?;
                tokio::time::sleep(*time).await;
            }
            self.set_image(&tale.name, &revision.image).await?;
            let phase = self.ledger.wait_for_ending(&tale.name, index + 1).await;
            let expected = revision.expected_phase();
            anyhow::ensure!(phase == expected, "{} ended as {phase} instead of {expected}", revision.image);
        }
        Ok(())
    }

    async fn set_image(&self, name: &Name, image: &str) -> anyhow::Result<()> {
        let deployments = api(&self.user, "apps", "v1", "Deployment", &name.namespace);
        let patch = Patch::Strategic(objects::image_patch(image));
        let patched = deployments.patch(&name.name, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("release {image}"))?;
        Ok(())
    }

    fn problems(&self, tale: &Tale) -> Vec<String> {
        let promoted = tale.releases.iter().rfind(|release| release.quality == Quality::Good);
        let first = objects::image(0, "");
        let expected = Expected {
            phase: tale.releases.last().map_or("Initialized", Revision::expected_phase),
            image: promoted.map_or(&first, |release| &release.image),
            requests_fail: tale.fails_requests(),
        };
        ending::problems(&self.cluster, &tale.name, &expected)
    }

    /// Statuses and events, for whoever has to find out what went wrong.
    fn story(&self) -> String {
        let mut story = String::new();
        for canary in self.cluster.store().list(&kinds::CANARY, None) {
            story.push_str(&format!("{}: {}\n", canary["metadata"]["name"], canary["status"]));
        }
        for event in self.cluster.store().list(&kinds::EVENT, None) {
            if event["involvedObject"]["kind"] == "Canary" {
                let name = &event["involvedObject"]["name"];
                story.push_str(&format!("{} {name} {}\n", event["firstTimestamp"], event["message"]));
            }
        }
        story
    }
}

/// The controller, over its lives.
struct Operator {
    cluster: Cluster,
    services: ServiceNames,
    alive: RefCell<Option<Controller>>,
    deaths: Cell<u64>,
    violations: RefCell<Vec<String>>,
}

impl Operator {
    fn new(cluster: &Cluster) -> anyhow::Result<Operator> {
        let operator = Operator {
            cluster: cluster.clone(),
            services: ServiceNames::with_prometheus(cluster.prometheus()),
            alive: RefCell::new(None),
            deaths: Cell::new(0),
            violations: RefCell::new(Vec::new()),
        };
        operator.rise()?;
        Ok(operator)
    }

    /// Starts a controller if none is alive.
    fn rise(&self) -> anyhow::Result<()> {
        let mut alive = self.alive.borrow_mut();
        if alive.is_none() {
            self.cluster.faults().revive(CONTROLLER);
            let config = ControllerConfig::default();
            let controller = embedded::start_controller(config, &self.cluster, CONTROLLER, &self.services);
            *alive = Some(controller.context("start the controller")?);
        }
        Ok(())
    }

    /// Ends the controller as `kill -9` does, and keeps what it counted against itself.
    fn die(&self) {
        let Some(controller) = self.alive.borrow_mut().take() else { return };
        let metrics = controller.metrics().render().unwrap_or_default();
        let violations = metrics.lines().filter(|line| line.starts_with("aviary_invariant_violations_total"));
        self.violations.borrow_mut().extend(violations.map(str::to_owned));
        controller.kill();
    }

    /// Dies right after a write, again and again, and is started anew.
    async fn die_and_rise(self: Rc<Self>, mut random: Random) {
        loop {
            let (writes, down) = troubles::next_death(&mut random);
            let faults = self.cluster.faults();
            faults.kill_client_after_writes(CONTROLLER, writes);
            faults.wait_killed(CONTROLLER).await;
            self.die();
            self.deaths.set(self.deaths.get() + 1);
            tokio::time::sleep(down).await;
            if let Err(error) = self.rise() {
                self.violations.borrow_mut().push(format!("{error:#}"));
                return;
            }
        }
    }

    /// Ends it for good; what it counted against itself in all its lives.
    fn end(&self) -> Vec<String> {
        self.die();
        self.violations.take()
    }
}
