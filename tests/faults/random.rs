//! Faults by seed: refusals, lost answers, delays, dropped watches, compaction, outages.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use aviary_sim::cluster::Cluster;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::traffic::Behaviour;

use super::{assert_no_request_lost, undisturbed};
use crate::support::checks::{Watchman, assert_same_end, final_state};
use crate::support::{AGENT, World, in_virtual_time};

/// Seeds that every run of the tests tries; `AVIARY_SEEDS` asks for more, `AVIARY_SEED` for a single one.
const SEEDS: u64 = 40;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of a few probabilities, often zero, so that each seed has a character of its own.
    fn probability(&mut self) -> f64 {
        [0.0, 0.0, 0.02, 0.05, 0.15][usize::try_from(self.below(5)).unwrap()]
    }
}

#[test]
fn releases_end_as_they_would_without_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("AVIARY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AVIARY_SEEDS").unwrap_or(SEEDS),
    };
    let good = undisturbed("podinfo:6.0.1", "Succeeded");
    let bad = undisturbed("podinfo:6.0.2", "Failed");
    let mut injected = 0;
    for seed in seeds {
        let (image, phase, expected) = match seed % 4 {
            3 => ("podinfo:6.0.2", "Failed", &bad),
            _ => ("podinfo:6.0.1", "Succeeded", &good),
        };
        let run = catch_unwind(AssertUnwindSafe(|| in_virtual_time(release_under_faults(seed, image, phase))));
        let run = run.and_then(|(end, faults, story)| {
            injected += faults;
            catch_unwind(|| assert_same_end(expected, &end, &format!("{phase}\n{story}")))
        });
        if let Err(panic) = run {
            eprintln!(
                "seed {seed} failed; replay it with\n  AVIARY_SEED={seed} RUST_LOG=info cargo test -p aviary --test main \
                 faults::random -- --nocapture"
            );
            resume_unwind(panic);
        }
    }
    assert!(injected > 0, "nothing was tried");
}

async fn release_under_faults(seed: u64, image: &str, phase: &str) -> (BTreeMap<String, String>, u64, String) {
    let mut random = Random(seed);
    // The same cluster for every seed, so that one end can be compared with all.
    let mut world = World::new(21);
    world.load_heavily();
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
    let mut watchman = Watchman::new(&world);
    world.deploy("podinfo").await;
    arm(&world.cluster, &mut random);
    let chaos = tokio::spawn(disturb(world.cluster.clone(), random));
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    world.set_image("podinfo", image);
    world.wait_for_phase("podinfo", phase).await;
    chaos.abort();
    let _ = chaos.await;
    world.cluster.faults().clear();
    world.pass(Duration::from_secs(180)).await;
    if phase == "Succeeded" {
        assert_no_request_lost(&world, &mut watchman);
    } else {
        assert_eq!(watchman.violations(), Vec::<String>::new(), "{}", world.story());
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0, "{}", world.story());
    }
    (final_state(&world), world.cluster.faults().injected(), world.story())
}

/// What a seed does once, it does again: only so a failure can be replayed.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 4] {
        let [once, again] = [(); 2].map(|()| {
            let (_, faults, story) = in_virtual_time(release_under_faults(seed, "podinfo:6.0.1", "Succeeded"));
            (faults, story)
        });
        assert_eq!(once, again);
    }
}

/// Requests of the controller fail in every way.
fn arm(cluster: &Cluster, random: &mut Random) {
    let delay = Duration::from_millis(random.below(5000));
    let retry_after = u32::try_from(1 + random.below(3)).unwrap();
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
        cluster.faults().add(Rule::new(action).client(AGENT).probability(random.probability()));
    }
}

/// The cluster's own troubles, now and then.
async fn disturb(cluster: Cluster, mut random: Random) {
    loop {
        tokio::time::sleep(Duration::from_secs(3 + random.below(40))).await;
        match random.below(4) {
            0 => cluster.faults().drop_watches(None),
            1 => {
                cluster.faults().compact();
                cluster.faults().drop_watches(None);
            }
            2 => {
                let outage = cluster.faults().add(Rule::new(Action::error(503)).client(AGENT));
                cluster.faults().drop_watches(None);
                tokio::time::sleep(Duration::from_secs(30)).await;
                cluster.faults().remove(outage);
            }
            _ => {}
        }
    }
}
