//! What goes wrong in one world. Decided by the seed alone.

use std::time::Duration;

use aviary_sim::cluster::Cluster;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::prometheus::PrometheusFault;
use http::StatusCode;

use super::CONTROLLER;
use crate::random::Random;

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
}

/// The cluster's own troubles, now and then, for ever.
pub(super) async fn disturb(cluster: Cluster, mut random: Random) {
    loop {
        tokio::time::sleep(Duration::from_secs(3 + random.below(60))).await;
        match random.below(6) {
            0 => cluster.faults().drop_watches(None),
            1 => {
                cluster.faults().compact();
                cluster.faults().drop_watches(None);
            }
            2 => restart(&cluster, Duration::from_secs(1 + random.below(30))).await,
            3 => {
                let fault = random.pick([
                    PrometheusFault::Down,
                    PrometheusFault::Timeout,
                    PrometheusFault::Status(StatusCode::SERVICE_UNAVAILABLE),
                    PrometheusFault::Status(StatusCode::TOO_MANY_REQUESTS),
                ]);
                cluster.prometheus().set_fault(Some(fault));
                // Far below the ten minutes after which missing answers count as failed checks.
                tokio::time::sleep(Duration::from_secs(1 + random.below(90))).await;
                cluster.prometheus().set_fault(None);
            }
            _ => {}
        }
    }
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
pub(super) fn end(cluster: &Cluster) {
    cluster.faults().clear();
    cluster.prometheus().set_fault(None);
}

/// When the controller dies next: after so many writes, and how long until it is started again.
pub(super) fn next_death(random: &mut Random) -> (u64, Duration) {
    let down = if random.below(2) == 0 { 0 } else { random.below(30) };
    (1 + random.below(120), Duration::from_secs(down))
}
