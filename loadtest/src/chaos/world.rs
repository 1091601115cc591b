//! One world: a cluster, its users, its controller, and what goes wrong.

mod user;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use aviary::embedded::{self, ServiceNames};
use aviary_actors::{Controller, ControllerConfig};
use aviary_sim::cluster::Cluster;
use tokio::task::LocalSet;

use super::CONTROLLER;
use super::story::{self, GATES, Quality, Tale};
use super::troubles::{self, Surroundings, Trouble};
use crate::checks::{Watchman, final_state};
use crate::objects::Name;
use crate::promptness::Promptness;
use crate::random::Random;
use user::World;

/// A release takes some minutes; one that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// Time after the last release in which repairs that rest are tried again, and everything comes to rest.
const SETTLING: Duration = Duration::from_secs(600);
/// How often what has changed is looked at. It must hold after each change, whenever it is looked at; changes that wait keep
/// every version of every object in memory.
const ROUND: Duration = Duration::from_secs(60);

/// How a world ended.
#[derive(Clone)]
pub(super) struct End {
    pub(super) rollouts: u64,
    /// Those of them that ended otherwise than honest metrics would have had it.
    pub(super) misjudged: u64,
    pub(super) faults: u64,
    pub(super) deaths: u64,
    pub(super) problems: Vec<String>,
    pub(super) end: BTreeMap<String, String>,
    pub(super) story: String,
}

/// Plays a story, with or without trouble, on a runtime of its own in virtual time.
pub(super) fn play(story: u64, trouble: Trouble) -> anyhow::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    // Actors that are dropped with the local set serve what is left in their mailboxes, which needs the runtime.
    let _entered = runtime.enter();
    LocalSet::new().block_on(&runtime, play_here(story, trouble))
}

async fn play_here(story: u64, trouble: Trouble) -> anyhow::Result<End> {
    let tales = story::tales(&mut Random::new(story));
    let world = World::new(story, trouble, &tales).await?;
    let watchman = Watchman::new(&world.cluster).forbidding(&forbidden_images(trouble));
    let patrol = Rc::new(Patrol::new(watchman));
    let patrolling = tokio::task::spawn_local(Patrol::go_round(Rc::clone(&patrol)));

    let promptness = Promptness::follow(&world.cluster);
    let operator = Rc::new(Operator::new(&world, promptness.clone())?);
    let mut tasks = vec![patrolling];
    if let Trouble::Honest(seed) | Trouble::Lying(seed) = trouble {
        let mut random = Random::new(seed);
        troubles::arm(&world.cluster, &mut random);
        let of_cluster = Random::new(random.next());
        let surroundings =
            Surroundings { cluster: world.cluster.clone(), gates: world.gates.clone(), promptness: promptness.clone() };
        let disturb = troubles::disturb(surroundings, of_cluster, trouble.lies());
        tasks.push(tokio::task::spawn_local(disturb));
        tasks.push(tokio::task::spawn_local(Operator::die_and_rise(Rc::clone(&operator), random)));
    }
    let acts = tales.iter().map(|tale| tokio::time::timeout(PATIENCE, world.act(tale)));
    let acted = futures::future::join_all(acts).await;
    for task in tasks {
        task.abort();
        // Either cancelled, as asked, or a panic that is told already.
        let _ = task.await;
    }
    troubles::end(&world.cluster, &world.gates);
    // Its next death may be arranged already, and nobody would wake it: pods go some seconds after a release has ended.
    world.cluster.faults().revive(CONTROLLER);
    operator.rise()?;
    tokio::time::sleep(SETTLING).await;

    let mut problems = patrol.violations();
    problems.extend(promptness.violations());
    let mut misjudged = 0;
    for (tale, acted) in tales.iter().zip(acted) {
        let Name { namespace, name } = &tale.name;
        let found = match acted {
            Ok(Ok(phases)) => {
                misjudged += tale.misjudged(&phases);
                world.problems(tale, &phases)
            }
            Ok(Err(error)) => vec![format!("{error:#}")],
            Err(_) => vec![format!("did not end within {PATIENCE:?}")],
        };
        problems.extend(found.into_iter().map(|text| format!("{namespace}/{name}: {text}")));
    }
    problems.extend(operator.end());
    Ok(End {
        rollouts: tales.iter().map(Tale::rollouts).sum(),
        misjudged,
        faults: world.cluster.faults().injected(),
        deaths: operator.deaths.get(),
        problems,
        end: final_state(&world.cluster),
        story: world.story(&tales),
    })
}

/// What a primary must never run.
fn forbidden_images(trouble: Trouble) -> Vec<&'static str> {
    let not_ready = [Quality::Unready, Quality::Crashing];
    let bad = [Quality::Failing, Quality::Broken, Quality::Slow];
    // Where the metrics lie, a version that is bad may well be promoted.
    not_ready.iter().chain(bad.iter().filter(|_| !trouble.lies())).map(|quality| quality.suffix()).collect()
}

/// Looks at all changes, from time to time.
struct Patrol(RefCell<(Watchman, Vec<String>)>);

impl Patrol {
    fn new(watchman: Watchman) -> Patrol {
        Patrol(RefCell::new((watchman, Vec::new())))
    }

    async fn go_round(self: Rc<Self>) {
        loop {
            tokio::time::sleep(ROUND).await;
            let (watchman, found) = &mut *self.0.borrow_mut();
            found.extend(watchman.violations());
        }
    }

    /// All that was wrong until now.
    fn violations(&self) -> Vec<String> {
        let (watchman, found) = &mut *self.0.borrow_mut();
        found.extend(watchman.violations());
        std::mem::take(found)
    }
}

/// The controller, over its lives.
struct Operator {
    cluster: Cluster,
    services: ServiceNames,
    promptness: Promptness,
    alive: RefCell<Option<Controller>>,
    deaths: Cell<u64>,
    violations: RefCell<Vec<String>>,
}

impl Operator {
    fn new(world: &World, promptness: Promptness) -> anyhow::Result<Operator> {
        let operator = Operator {
            cluster: world.cluster.clone(),
            services: ServiceNames::with_prometheus(world.cluster.prometheus()).and(GATES, world.gates.service()),
            promptness,
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
            self.promptness.note_controller(false);
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
        self.promptness.note_controller(true);
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
