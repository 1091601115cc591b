//! What happens when: releases, changes of versions and load, faults, and what users do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aviary_sim::calls::Verb;
use aviary_sim::faults::{Action as Fault, Rule};

use super::releases::Releases;
use super::scenario::{ApiFault, ApiFaultKind, Load, Scenario};
use super::subject::Subject;

/// A restart of the API server takes this long by default: the lease of a kube-apiserver that is gone is noticed, and the
/// next one is up.
const RESTART: Duration = Duration::from_secs(5);
/// Watches are dropped this often by default.
const DROP_INTERVAL: Duration = Duration::from_secs(30);

/// Watches are dropped this often at most, so that a scenario without an end stays small: twelve hours of one drop every five
/// seconds.
const MOST_DROPS: usize = 10_000;

/// Something to do. Numbers are positions in the scenario or in the list of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Versions may behave differently now.
    Versions,
    /// Load may be different now.
    Load,
    /// A fault of the API server begins.
    BeginFault(usize),
    /// Watches end.
    DropWatches(usize),
    /// A fault of the API server ends.
    EndFault(usize),
    /// A release.
    Release(usize),
    /// Something that a user does.
    Act(usize),
}

/// Steps in their order, with their times after the first release. Those of the start of the cluster are not in it.
pub(crate) fn schedule(scenario: &Scenario, releases: &Releases, limit: Duration) -> Vec<(Duration, Step)> {
    let mut steps = BTreeSet::new();
    for change in scenario.versions.values().flat_map(|version| &version.changes) {
        steps.insert((change.window.from.unwrap_or_default(), Step::Versions));
        steps.extend(change.window.until.map(|until| (until, Step::Versions)));
    }
    for load in &scenario.load {
        let times = [load.window.from, load.window.until];
        steps.extend(times.into_iter().flatten().map(|time| (time, Step::Load)));
    }
    for (index, fault) in scenario.api.iter().enumerate() {
        steps.extend(fault.from().map(|from| (from, Step::BeginFault(index))));
        let until = end_of(fault);
        steps.extend(until.map(|until| (until, Step::EndFault(index))));
        if fault.fault == ApiFaultKind::DropWatches {
            let every = fault.every.unwrap_or(DROP_INTERVAL).max(Duration::from_secs(1));
            let from = fault.from().unwrap_or_default();
            let times = std::iter::successors(Some(from), |at| at.checked_add(every)).take(MOST_DROPS);
            let times = times.take_while(|at| *at < until.unwrap_or(limit));
            steps.extend(times.map(|at| (at, Step::DropWatches(index))));
        }
    }
    for (index, planned) in releases.planned.iter().enumerate() {
        steps.insert((planned.at, Step::Release(index)));
    }
    for (index, action) in scenario.actions.iter().enumerate() {
        steps.insert((action.at.unwrap_or_default(), Step::Act(index)));
    }
    steps.into_iter().collect()
}

/// Until when it makes sense to wait for things to happen: the last release or action.
pub(crate) fn last_deed(steps: &[(Duration, Step)]) -> Duration {
    let deeds = steps.iter().filter(|(_, step)| matches!(step, Step::Release(_) | Step::Act(_)));
    deeds.map(|(at, _)| *at).max().unwrap_or_default()
}

fn end_of(fault: &ApiFault) -> Option<Duration> {
    match fault.fault {
        ApiFaultKind::Restart => Some(fault.window.until.unwrap_or(fault.from().unwrap_or_default() + RESTART)),
        _ => fault.window.until,
    }
}

/// The rule of a fault; `None` for what happens at once.
pub(crate) fn rule(fault: &ApiFault, client: &str) -> Option<Rule> {
    let action = match fault.fault {
        ApiFaultKind::Error => Fault::error(fault.status.unwrap_or(500)),
        ApiFaultKind::Conflict => Fault::error(409),
        ApiFaultKind::TooManyRequests => {
            let seconds = fault.retry_after.unwrap_or(Duration::from_secs(1)).as_secs().max(1);
            Fault::too_many_requests(u32::try_from(seconds).unwrap_or(u32::MAX))
        }
        ApiFaultKind::Delay => Fault::Delay(fault.delay.unwrap_or(Duration::from_secs(1))),
        ApiFaultKind::LoseResponse => Fault::LoseResponse,
        ApiFaultKind::Restart => return Some(Rule::new(Fault::error(503)).client(client)),
        ApiFaultKind::DropWatches | ApiFaultKind::Compact => return None,
    };
    let mut rule = Rule::new(action).client(client).probability(fault.probability.unwrap_or(1.0));
    rule = if fault.verbs.is_empty() { rule.writes() } else { rule.verbs(&verbs(&fault.verbs)) };
    if let Some(resource) = &fault.resource {
        rule = rule.resource(resource);
    }
    if let Some(times) = fault.times {
        rule = rule.times(times);
    }
    Some(rule)
}

fn verbs(names: &[String]) -> Vec<Verb> {
    let all = [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
    all.into_iter().filter(|verb| names.iter().any(|name| name == verb.as_str())).collect()
}

/// Users of one service: namespace, name, headers.
pub(crate) type Audience = (String, String, BTreeMap<String, String>);

/// Everybody's requests per second at a time after the first release (`None`: before it). Audiences that a scenario names
/// and that send nothing now are in it with what they send otherwise.
pub(crate) fn loads(
    scenario: &Scenario,
    subjects: &[Subject],
    at: Option<Duration>,
    default: f64,
) -> BTreeMap<Audience, f64> {
    let mut loads = BTreeMap::new();
    for load in &scenario.load {
        for (namespace, service) in services(load, subjects) {
            let is_of_canary = subjects
                .iter()
                .any(|subject| subject.namespace() == namespace && subject.canary.service.apex() == service);
            let otherwise = if is_of_canary && load.headers.is_empty() { default } else { 0.0 };
            let present = loads.entry((namespace, service, load.headers.clone())).or_insert(otherwise);
            if load.window.holds(at) {
                *present = load.requests_per_second;
            }
        }
    }
    loads
}

/// Services that an entry is about, with their namespaces.
pub(crate) fn services(load: &Load, subjects: &[Subject]) -> Vec<(String, String)> {
    let in_namespace = |namespace: &str| load.namespace.as_deref().is_none_or(|wanted| wanted == namespace);
    let subjects = subjects.iter().filter(|subject| in_namespace(subject.namespace()));
    match &load.service {
        None => {
            subjects.map(|subject| (subject.namespace().to_owned(), subject.canary.service.apex().to_owned())).collect()
        }
        Some(service) => {
            let mut namespaces: BTreeSet<String> = subjects
                .filter(|subject| names_of(subject).contains(service))
                .map(|subject| subject.namespace().to_owned())
                .collect();
            if namespaces.is_empty() {
                namespaces.extend(load.namespace.clone());
            }
            namespaces.into_iter().map(|namespace| (namespace, service.clone())).collect()
        }
    }
}

/// Services of a canary.
pub(crate) fn names_of(subject: &Subject) -> [String; 3] {
    let service = &subject.canary.service;
    [service.apex().to_owned(), service.primary_name(), service.canary_name()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_happens_at_a_moment_happens_with_the_release_and_what_lasts_is_there_before() {
        let text =
            "api: [{fault: Restart}, {fault: Compact}, {fault: DropWatches, every: 1h}, {fault: Error, until: 1m}]";
        let scenario = Scenario::parse(text).unwrap();
        let steps = schedule(&scenario, &Releases::default(), Duration::from_secs(90));
        let at = Duration::from_secs;
        let expected = [
            (at(0), Step::BeginFault(0)),
            (at(0), Step::BeginFault(1)),
            (at(0), Step::BeginFault(2)),
            (at(0), Step::DropWatches(2)),
            (at(5), Step::EndFault(0)),
            (at(60), Step::EndFault(3)),
        ];
        assert_eq!(steps, expected);
        let before: Vec<bool> = scenario.api.iter().map(|fault| fault.from().is_none()).collect();
        assert_eq!(before, [false, false, false, true]);
    }
}
