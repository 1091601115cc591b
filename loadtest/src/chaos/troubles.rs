//! What goes wrong in one world. Decided by the seed alone.

use std::time::Duration;

use aviary_sim::cluster::Cluster;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::prometheus::{PrometheusFault, WrongAnswer};
use http::StatusCode;

use super::CONTROLLER;
use super::gates::Gates;
use crate::promptness::Promptness;
use crate::random::Random;

/// What is disturbed, and who keeps the time that it takes.
pub(super) struct Surroundings {
    pub(super) cluster: Cluster,
    pub(super) gates: Gates,
    pub(super) promptness: Promptness,
}

/// What goes wrong in a world, and by which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// Everything that must not change how a release ends.
    Honest(u64),
    /// The metrics lie, too: they are nothing, not a number, a wrong number or an old one. That is a verdict, if a wrong
    /// one, so a release may end either way; but it must end, and nothing else may go wrong.
    Lying(u64),
}

impl Trouble {
    pub(super) fn lies(self) -> bool {
        matches!(self, Trouble::Lying(_))
    }
}

/// Requests of the controller fail in every way, each with a probability of the seed's own.
pub(super) fn arm(cluster: &Cluster, random: &mut Random) {
    let delay = Duration::from_millis(random.below(5000));
    let retry_after = random.pick([1, 2, 3]);
    let actions = [
        Action::error(500),
        Action::error(503),
        Action::error(504),
        Action::too_many_requests(retry_after),
        Action::error(409),
        Action::LoseResponse,
        Action::Delay(delay),
    ];
    for action in actions {
        // Often zero, so that each seed has a character of its own.
        let probability = random.pick([0.0, 0.0, 0.02, 0.05, 0.15]);
        cluster.faults().add(Rule::new(action).client(CONTROLLER).probability(probability));
    }
    // A connection that is cut off in silence costs half a minute each time, so there are few of them.
    let probability = random.pick([0.0, 0.0, 0.01, 0.03]);
    cluster.faults().add(Rule::new(Action::Hang).client(CONTROLLER).writes().probability(probability));
}

/// The cluster's own troubles, now and then, for ever.
pub(super) async fn disturb(around: Surroundings, mut random: Random, lies: bool) {
    let Surroundings { cluster, gates, promptness } = around;
    loop {
        tokio::time::sleep(Duration::from_secs(3 + random.below(60))).await;
        match random.below(7) {
            0 => cluster.faults().drop_watches(None),
            1 => {
                cluster.faults().compact();
                cluster.faults().drop_watches(None);
            }
            2 => restart(&cluster, Duration::from_secs(1 + random.below(30))).await,
            3 => {
                cluster.prometheus().set_fault(Some(no_metrics(&mut random)));
                // Far below the ten minutes after which missing answers count as failed checks.
                tokio::time::sleep(Duration::from_secs(1 + random.below(90))).await;
                cluster.prometheus().set_fault(None);
                promptness.note_trouble();
            }
            4 if lies => {
                cluster.prometheus().set_fault(Some(lie(&mut random)));
                tokio::time::sleep(Duration::from_secs(1 + random.below(300))).await;
                cluster.prometheus().set_fault(None);
                promptness.note_trouble();
            }
            5 => {
                gates.set_down(true);
                tokio::time::sleep(Duration::from_secs(1 + random.below(90))).await;
                gates.set_down(false);
            }
            _ => {}
        }
    }
}

/// No answer, or one of which nobody can believe that it is one.
fn no_metrics(random: &mut Random) -> PrometheusFault {
    random.pick([
        PrometheusFault::Down,
        PrometheusFault::Timeout,
        PrometheusFault::Status(StatusCode::SERVICE_UNAVAILABLE),
        PrometheusFault::Status(StatusCode::TOO_MANY_REQUESTS),
        PrometheusFault::Wrong(WrongAnswer::Page),
        PrometheusFault::Wrong(WrongAnswer::CutOff),
        PrometheusFault::Wrong(WrongAnswer::Error),
        PrometheusFault::Wrong(WrongAnswer::Scalar),
        PrometheusFault::Wrong(WrongAnswer::Series),
    ])
}

/// Answers that look right.
fn lie(random: &mut Random) -> PrometheusFault {
    let age = Duration::from_secs(30 + random.below(600));
    // For a success rate in percent and a duration in milliseconds, both limits of each and what no metric can be.
    let value = random.pick([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 99.0, 100.0, 250.0, 1e300]);
    random.pick([
        PrometheusFault::Empty,
        PrometheusFault::Wrong(WrongAnswer::Stale(age)),
        PrometheusFault::Wrong(WrongAnswer::Value(value)),
        PrometheusFault::Wrong(WrongAnswer::Value(value)),
    ])
}

/// The API server goes away with its watches and comes back without its history.
async fn restart(cluster: &Cluster, away: Duration) {
    let outage = cluster.faults().add(Rule::new(Action::error(503)).client(CONTROLLER));
    cluster.faults().drop_watches(None);
    tokio::time::sleep(away).await;
    cluster.faults().compact();
    cluster.faults().remove(outage);
}

/// Ends every trouble.
pub(super) fn end(cluster: &Cluster, gates: &Gates) {
    cluster.faults().clear();
    cluster.prometheus().set_fault(None);
    gates.set_down(false);
}

/// When the controller dies next: after so many writes, and how long until it is started again.
pub(super) fn next_death(random: &mut Random) -> (u64, Duration) {
    let down = if random.below(2) == 0 { 0 } else { random.below(30) };
    (1 + random.below(120), Duration::from_secs(down))
}
