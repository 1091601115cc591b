//! Whether every release ended as it should, and nothing else happened.

use std::collections::HashMap;
use std::time::Duration;

use aviary_sim::cluster::Cluster;
use aviary_sim::store::{GroupKind, kinds};
use serde_json::Value;

use super::Options;
use super::ledger::{Ending, Ledger};
use super::objects::{self, Name};
use super::report::Releases;
use super::schedule::Release;

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
    let mut compare = |what: &str, is: String, should_be: String| {
        if is != should_be {
            problems.push(format!("{what}: {is} instead of {should_be}"));
        }
    };
    let phase_of = |release: &&Release| if release.fails { "Failed" } else { "Succeeded" };
    let ended: Vec<&str> = endings.iter().map(|ending| ending.phase.as_str()).collect();
    let should_end: Vec<&str> = releases.iter().map(phase_of).collect();
    compare("releases ended", format!("{ended:?}"), format!("{should_end:?}"));

    let get = |kind: &GroupKind, suffix: &str| {
        let object = cluster.store().get(kind, &name.namespace, &format!("{}{suffix}", name.name));
        object.map(|object| (*object).clone()).unwrap_or_default()
    };
    let canary = get(&kinds::CANARY, "");
    let phase = releases.last().map_or("Initialized", phase_of);
    compare("phase", text(&canary, "/status/phase"), phase.to_owned());
    compare("canary weight", text(&canary, "/status/canaryWeight"), "0".to_owned());

    let promoted = releases.iter().rfind(|release| !release.fails);
    let image = promoted.map_or_else(|| objects::image(0, false), |release| release.image.clone());
    let primary = get(&kinds::DEPLOYMENT, "-primary");
    compare("image of the primary", text(&primary, "/spec/template/spec/containers/0/image"), image);
    compare("ready pods of the primary", text(&primary, "/status/readyReplicas"), "2".to_owned());
    compare("replicas of the target", text(&get(&kinds::DEPLOYMENT, ""), "/spec/replicas"), "0".to_owned());

    let routes = get(&kinds::VIRTUAL_SERVICE, "");
    let weight = |side: &str| {
        let routes = routes.pointer("/spec/http/0/route").and_then(Value::as_array);
        let host = format!("{}-{side}", name.name);
        routes.into_iter().flatten().find(|route| route["destination"]["host"] == host).map_or(0, weight_of)
    };
    compare("routes", format!("{}:{}", weight("primary"), weight("canary")), "100:0".to_owned());

    let users = cluster.traffic().report(&name.namespace, &name.name);
    compare("interruptions", users.interruptions.to_string(), "0".to_owned());
    if releases.iter().all(|release| !release.fails) {
        compare("failed requests", users.failures().to_string(), "0".to_owned());
    }
    problems
}

fn weight_of(route: &Value) -> i64 {
    route["weight"].as_i64().unwrap_or(0)
}

fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "none".to_owned(),
    }
}
