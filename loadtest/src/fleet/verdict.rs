//! Whether every release ended as it should, and nothing else happened.

use std::collections::HashMap;
use std::time::Duration;

use aviary_sim::cluster::Cluster;

use super::Options;
use super::report::Releases;
use super::schedule::Release;
use crate::ending::{self, Expected};
use crate::ledger::{Ending, Ledger};
use crate::objects::{self, Name};

pub(super) fn judge(cluster: &Cluster, options: &Options, releases: &[Release], ledger: &Ledger) -> Releases {
    let mut of_canary: HashMap<usize, Vec<&Release>> = HashMap::new();
    for release in releases {
        of_canary.entry(release.canary).or_default().push(release);
    }
    let mut result = Releases { started: releases.len(), ..Releases::default() };
    let mut took = Vec::new();
    for index in 0..options.canaries {
        let name = objects::name(index, options.namespaces);
        let releases = of_canary.remove(&index).unwrap_or_default();
        let endings = ledger.endings(&name);
        result.promoted += endings.iter().filter(|ending| ending.phase == "Succeeded").count();
        result.rolled_back += endings.iter().filter(|ending| ending.phase == "Failed").count();
        took.extend(endings.iter().map(|ending| ending.took));
        let problems = problems(cluster, &name, &releases, &endings);
        result.wrong.extend(problems.into_iter().map(|problem| format!("{}/{}: {problem}", name.namespace, name.name)));
    }
    took.sort_unstable();
    let quantile = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied();
    result.median_seconds = quantile(50).map(|took: Duration| took.as_secs_f64());
    result.longest_seconds = took.last().map(Duration::as_secs_f64);
    result
}

fn problems(cluster: &Cluster, name: &Name, releases: &[&Release], endings: &[Ending]) -> Vec<String> {
    let mut problems = Vec::new();
    let phase_of = |release: &&Release| if release.fails { "Failed" } else { "Succeeded" };
    let ended: Vec<&str> = endings.iter().map(|ending| ending.phase.as_str()).collect();
    let should_end: Vec<&str> = releases.iter().map(phase_of).collect();
    if ended != should_end {
        problems.push(format!("releases ended: {ended:?} instead of {should_end:?}"));
    }

    let promoted = releases.iter().rfind(|release| !release.fails);
    problems.extend(ending::problems(
        cluster,
        name,
        &Expected {
            phase: releases.last().map_or("Initialized", phase_of),
            image: &promoted.map_or_else(|| objects::image(0, ""), |release| release.image.clone()),
            requests_fail: releases.iter().any(|release| release.fails),
        },
    ));
    problems
}
