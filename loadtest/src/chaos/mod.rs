//! Releases under faults, by seed: every request of the controller may fail, be delayed or lose its answer; watches drop, the
//! API server restarts, Prometheus goes away, the controller is killed.
//!
//! A story is eight canaries of random shape, their releases, and what their users do meanwhile. It is played once without
//! any trouble, and then in several worlds, one for each seed, with trouble that the seed decides. In half of the stories the
//! mesh hears of routes and pods late. After every write, [`crate::checks`] must hold, users must be led away from what has
//! failed in time, and each world must end as the story did without trouble. In the last world of a
//! story the metrics lie: there a release may end either way, and the rest must be as it then should be.

mod gates;
mod report;
mod story;
#[cfg(test)]
mod tests;
mod troubles;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Context;

pub use report::{Failure, Report};
use troubles::Trouble;
use world::End;

/// The controller's user agent; faults hit its requests.
const CONTROLLER: &str = "aviary";
/// That of the users.
const USER: &str = "kubectl";
/// Worlds of one story. What it costs to play it without trouble is shared by them; more of them would be fewer stories.
const WORLDS: u64 = 4;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worlds are played until so many releases have ended, the last world to its end.
    pub rollouts: u64,
    /// The first world's seed; the others' follow it.
    pub seed: u64,
    /// Worlds that are played side by side, each on a thread of its own; at least one.
    pub threads: usize,
}

/// Plays worlds until there were enough rollouts, or one fails. `progress` is told from time to time how many rollouts
/// have ended.
///
/// # Errors
/// A thread cannot be started. A world that goes wrong is no error; the report tells.
pub fn run(options: &Options, progress: impl Fn(u64) + Sync) -> anyhow::Result<Report> {
    let started = Instant::now();
    let shared = Shared {
        next_seed: AtomicU64::new(options.seed),
        worlds: AtomicU64::new(0),
        rollouts: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        deaths: AtomicU64::new(0),
        misjudged: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let failures = thread::scope(|scope| -> anyhow::Result<Vec<Failure>> {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|index| {
                let worker = || shared.work(options.rollouts, &progress);
                thread::Builder::new().name(format!("world-{index}")).spawn_scoped(scope, worker)
            })
            .collect::<Result<_, _>>()
            .context("start a thread")?;
        // A worker catches what panics in its worlds.
        Ok(workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).collect())
    })?;
    Ok(Report {
        first_seed: options.seed,
        worlds: shared.worlds.load(Ordering::Relaxed),
        rollouts: shared.rollouts.load(Ordering::Relaxed),
        faults: shared.faults.load(Ordering::Relaxed),
        deaths: shared.deaths.load(Ordering::Relaxed),
        misjudged: shared.misjudged.load(Ordering::Relaxed),
        seconds: started.elapsed().as_secs_f64(),
        failures,
    })
}

/// What the threads share.
struct Shared {
    next_seed: AtomicU64,
    worlds: AtomicU64,
    rollouts: AtomicU64,
    faults: AtomicU64,
    deaths: AtomicU64,
    misjudged: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn work(&self, rollouts: u64, progress: &(impl Fn(u64) + Sync)) -> Option<Failure> {
        let is_over = || self.rollouts.load(Ordering::Relaxed) >= rollouts || self.stop.load(Ordering::Relaxed);
        while !is_over() {
            let mut story = Story::default();
            for seed in self.seeds_of_next_story() {
                if is_over() {
                    return None;
                }
                let played = catch_unwind(AssertUnwindSafe(|| story.play(seed)));
                let problems = match played {
                    Ok(Ok(outcome)) => {
                        self.worlds.fetch_add(1, Ordering::Relaxed);
                        self.faults.fetch_add(outcome.faults, Ordering::Relaxed);
                        self.deaths.fetch_add(outcome.deaths, Ordering::Relaxed);
                        self.misjudged.fetch_add(outcome.misjudged, Ordering::Relaxed);
                        let before = self.rollouts.fetch_add(outcome.rollouts, Ordering::Relaxed);
                        progress(before + outcome.rollouts);
                        outcome.problems
                    }
                    Ok(Err(error)) => vec![format!("{error:#}")],
                    Err(_) => vec!["it panicked; the message is on standard error".to_owned()],
                };
                if !problems.is_empty() {
                    self.stop.store(true, Ordering::Relaxed);
                    return Some(Failure { seed, problems });
                }
            }
        }
        None
    }

    fn seeds_of_next_story(&self) -> std::ops::Range<u64> {
        let end = |first: u64| (first / WORLDS + 1) * WORLDS;
        let first = self.next_seed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| Some(end(first)));
        // It has a next one always.
        let first = first.unwrap_or_else(|first| first);
        first..end(first)
    }
}

/// The story of some seeds, and how it ends without trouble.
#[derive(Default)]
struct Story {
    calm: Option<End>,
}

impl Story {
    /// Plays the world of a seed, and compares its end.
    fn play(&mut self, seed: u64) -> anyhow::Result<End> {
        let story = seed / WORLDS;
        if seed % WORLDS == WORLDS - 1 {
            return Ok(world::play(story, Trouble::Lying(seed))?.explained());
        }
        let calm = match &mut self.calm {
            Some(calm) => calm,
            none => none.insert(world::play(story, Trouble::None)?),
        };
        if !calm.problems.is_empty() {
            let mut calm = calm.clone().explained();
            calm.problems.insert(0, "it goes wrong without any trouble:".to_owned());
            return Ok(calm);
        }
        let mut end = world::play(story, Trouble::Honest(seed))?;
        let differences = crate::checks::differences(&calm.end, &end.end);
        if end.problems.is_empty() && !differences.is_empty() {
            end.problems.push(format!("ended otherwise than without trouble:\n{differences}"));
            end.problems.push(format!("without trouble:\n{}\nwith trouble:", calm.story));
        }
        Ok(end.explained())
    }
}

impl End {
    /// Problems are followed by what happened.
    fn explained(mut self) -> End {
        if !self.problems.is_empty() {
            self.problems.push(self.story.clone());
        }
        self
    }
}
