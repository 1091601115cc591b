//! What a scenario names must exist, and must happen in time: an entry that does nothing is a mistake that nobody sees.

use std::time::Duration;

use aviary_crds::duration::format_go_duration;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};

use super::kinds::{Kinds, Unserved};
use super::manifests::Manifests;
use super::objects;
use super::releases::Releases;
use super::scenario::{Action, Conduct, Load, Problem, Scenario, Window, nearest, unknown};
use super::schedule;
use super::subject::{self, Subject};

/// So many names are told of what exists.
const MOST_NAMES: usize = 20;

/// Entries that nothing corresponds to. Without releases nothing is said of versions.
pub(crate) fn dangling(
    scenario: &Scenario,
    subjects: &[Subject],
    releases: Option<&Releases>,
    manifests: &Manifests,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, load) in scenario.load.iter().enumerate() {
        problems.extend(service(scenario, load, &format!("load[{index}]"), subjects, manifests));
    }
    if let Some(releases) = releases {
        versions(scenario, subjects, releases, &mut problems);
    }
    let names = subject::names(subjects);
    let mut check = |what: &'static str, field: &str, keys: Vec<&String>| {
        let known = names.get(what).cloned().unwrap_or_default();
        for key in keys.into_iter().filter(|key| !known.contains(&key.as_str())) {
            let message = if known.is_empty() {
                format!("no canary has a {what}")
            } else {
                unknown(what, key, known.iter().copied())
            };
            problems.push(scenario.problem(&format!("{field}.{key}"), message));
        }
    };
    check("metric", "metrics", scenario.metrics.keys().collect());
    check("webhook", "webhooks", scenario.webhooks.keys().collect());
    for (name, metric) in &scenario.metrics {
        let Some(namespace) = &metric.namespace else { continue };
        let templates = subjects.iter().flat_map(Subject::templates).map(|(key, _)| key.namespace.as_str());
        let known: Vec<&str> = templates.chain(subjects.iter().map(Subject::namespace)).collect();
        if !known.contains(&namespace.as_str()) {
            let message = unknown("namespace", namespace, known.into_iter());
            problems.push(scenario.problem(&format!("metrics.{name}.namespace"), message));
        }
    }
    for (index, action) in scenario.actions.iter().enumerate().filter(|(_, action)| action.kind() == "Canary") {
        let namespace = action.namespace.as_deref().or_else(|| subjects.first().map(Subject::namespace));
        let is_there = |subject: &Subject| subject.name() == action.name && Some(subject.namespace()) == namespace;
        if !subjects.iter().any(is_there) {
            let message = super::releases::no_such_canary(Some(&action.name), subjects);
            problems.push(scenario.problem(&format!("actions[{index}].name"), message));
        }
    }
    problems
}

/// Users of a service that is no canary's, and that no manifest has.
fn service(
    scenario: &Scenario,
    load: &Load,
    path: &str,
    subjects: &[Subject],
    manifests: &Manifests,
) -> Option<Problem> {
    let services = schedule::services(load, subjects);
    let of_canary = |namespace: &str, name: &str| {
        subjects.iter().any(|subject| {
            subject.namespace() == namespace && schedule::names_of(subject).iter().any(|own| own == name)
        })
    };
    let exists = |namespace: &str, name: &str| {
        of_canary(namespace, name) || manifests.find("", "Service", namespace, name).is_some()
    };
    if !services.is_empty() && services.iter().all(|(namespace, name)| exists(namespace, name)) {
        return None;
    }
    let in_namespace = |namespace: &str| load.namespace.as_deref().is_none_or(|wanted| wanted == namespace);
    let of_canaries = subjects.iter().filter(|subject| in_namespace(subject.namespace())).flat_map(schedule::names_of);
    let of_manifests = manifests.of("", "Service").filter(|service| in_namespace(service.namespace()));
    let known: Vec<String> = of_canaries.chain(of_manifests.map(|service| service.name().to_owned())).collect();
    let (field, message) = match (&load.service, &load.namespace) {
        (Some(service), _) if !known.is_empty() => {
            ("service", unknown("service", service, known.iter().map(String::as_str)))
        }
        (_, Some(namespace)) => {
            let known = subjects.iter().map(Subject::namespace);
            ("namespace", unknown("namespace", namespace, known))
        }
        (service, None) => {
            let service = service.as_deref().unwrap_or_default();
            ("service", unknown("service", service, known.iter().map(String::as_str)))
        }
    };
    Some(scenario.problem(&format!("{path}.{field}"), message))
}

fn versions(scenario: &Scenario, subjects: &[Subject], releases: &Releases, problems: &mut Vec<Problem>) {
    for (key, version) in &scenario.versions {
        let path = format!("versions.{key}");
        if ["primary", "canary"].contains(&key.as_str()) {
            let fails = |conduct: &Conduct| conduct.pods.is_some();
            if version.startup_delay.is_some()
                || fails(&version.conduct)
                || version.changes.iter().any(|change| fails(&change.conduct))
            {
                let message = "pods and startupDelay belong to a version: current, new or a tag".to_owned();
                problems.push(scenario.problem(&path, message));
            }
            continue;
        }
        let images: Vec<String> = (0..subjects.len()).flat_map(|subject| releases.images_of(key, subject)).collect();
        if images.is_empty() && key == "new" {
            let message = "no release has a new image; `canary` is whatever the canary runs".to_owned();
            problems.push(scenario.problem(&path, message));
        } else if images.is_empty() {
            let all: Vec<String> = (0..subjects.len())
                .flat_map(|subject| {
                    [releases.images_of("current", subject), releases.images_of("new", subject)].concat()
                })
                .filter_map(|image| super::releases::tag(&image).map(str::to_owned))
                .collect();
            let known = ["current", "new", "primary", "canary"].into_iter().chain(all.iter().map(String::as_str));
            problems.push(scenario.problem(&path, unknown("version", key, known)));
        }
    }
}

/// Every time of a scenario at which something happens, with the path of its field.
fn times(scenario: &Scenario) -> Vec<(String, Duration)> {
    let mut windows: Vec<(String, Window)> = Vec::new();
    let mut add = |path: String, window: Window| windows.push((path, window));
    for (index, load) in scenario.load.iter().enumerate() {
        add(format!("load[{index}]"), load.window);
    }
    for (key, version) in &scenario.versions {
        for (index, change) in version.changes.iter().enumerate() {
            add(format!("versions.{key}.changes[{index}]"), change.window);
        }
    }
    for (key, metric) in &scenario.metrics {
        for (index, change) in metric.changes.iter().enumerate() {
            add(format!("metrics.{key}.changes[{index}]"), change.window);
        }
    }
    for (key, webhook) in &scenario.webhooks {
        for (index, window) in webhook.windows().enumerate() {
            add(format!("webhooks.{key}.changes[{index}]"), window);
        }
    }
    for (index, fault) in scenario.prometheus.iter().enumerate() {
        add(format!("prometheus[{index}]"), fault.window);
    }
    for (index, fault) in scenario.api.iter().enumerate() {
        add(format!("api[{index}]"), fault.window);
    }
    let mut times: Vec<(String, Duration)> =
        windows.into_iter().filter_map(|(path, window)| Some((format!("{path}.from"), window.from?))).collect();
    let at = |list: &str, index: usize| format!("{list}[{index}].at");
    let releases = scenario.releases.iter().enumerate();
    times.extend(releases.filter_map(|(index, release)| Some((at("releases", index), release.at?))));
    let actions = scenario.actions.iter().enumerate();
    times.extend(actions.filter_map(|(index, action)| Some((at("actions", index), action.at?))));
    times
}

/// Entries that begin after the time limit.
pub(crate) fn too_late(scenario: &Scenario, time_limit: Duration) -> Vec<Problem> {
    let late = times(scenario).into_iter().filter(|(_, at)| *at >= time_limit);
    late.map(|(path, at)| {
        let (at, end) = (format_go_duration(at), format_go_duration(time_limit));
        let message = format!("{at} is after the end: waiting ends at {end}; begin earlier, or raise timeLimit");
        scenario.problem(&path, message)
    })
    .collect()
}

/// Notes about what would have begun after everything was over.
pub(crate) fn missed(scenario: &Scenario, ended: Duration) -> Vec<String> {
    let missed = times(scenario).into_iter().filter(|(_, at)| *at > ended);
    missed
        .map(|(path, at)| {
            let line = scenario.problem(&path, String::new()).place.line;
            let (ended, at) = (format_go_duration(ended), format_go_duration(at));
            format!("{path}: {at} (line {line} of the scenario) came to nothing: everything was over at {ended}")
        })
        .collect()
}

/// What the API server must be asked for: resources that faults hit.
pub(crate) fn unknown_resources(scenario: &Scenario, kinds: &Kinds) -> Vec<Problem> {
    let plurals = kinds.plurals();
    let mut problems = Vec::new();
    for (index, fault) in scenario.api.iter().enumerate() {
        let Some(resource) = &fault.resource else { continue };
        if !plurals.contains(&resource.as_str()) {
            let message = unknown("resource", resource, plurals.iter().copied());
            problems.push(scenario.problem(&format!("api[{index}].resource"), message));
        }
    }
    problems
}

/// Actions on what does not exist, or that are not possible. Asked when every canary is initialized, so that what the
/// operator makes is there, too.
pub(crate) async fn impossible_actions(
    client: &Client,
    kinds: &Kinds,
    scenario: &Scenario,
    default_namespace: &str,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, action) in scenario.actions.iter().enumerate() {
        let path = format!("actions[{index}]");
        let Some(api) = objects::api_of(client, kinds, action, default_namespace) else {
            problems.push(unknown_kind(scenario, kinds, action, &path));
            continue;
        };
        // What an earlier action deletes was there; what it changes may make this one possible.
        if let Err(problem) = possible(&api, scenario, action, &path, default_namespace).await {
            problems.push(problem);
        }
    }
    problems
}

fn unknown_kind(scenario: &Scenario, kinds: &Kinds, action: &Action, path: &str) -> Problem {
    let kind = action.kind();
    match &action.api_version {
        Some(api_version) => {
            let message = match kinds.find(api_version, kind) {
                Err(Unserved::Refused(message)) => message,
                _ => format!("the simulated cluster has no kind {kind} in {api_version}"),
            };
            let field = if message.starts_with("apiVersion") { "apiVersion" } else { "kind" };
            scenario.problem(&format!("{path}.{field}"), message)
        }
        None => scenario.problem(&format!("{path}.kind"), unknown("kind", kind, kinds.names().into_iter())),
    }
}

async fn possible(
    api: &Api<DynamicObject>,
    scenario: &Scenario,
    action: &Action,
    path: &str,
    default_namespace: &str,
) -> Result<(), Problem> {
    let refused = |field: &str, error: &kube::Error| {
        let message = match error {
            kube::Error::Api(status) => objects::reasons(status).join("; "),
            other => other.to_string(),
        };
        scenario.problem(&format!("{path}.{field}"), message)
    };
    if api.get_opt(&action.name).await.map_err(|error| refused("name", &error))?.is_none() {
        let there = api.list(&ListParams::default()).await.map_err(|error| refused("name", &error))?;
        let names: Vec<&str> = there.items.iter().filter_map(|object| object.metadata.name.as_deref()).collect();
        let namespace = action.namespace.as_deref().unwrap_or(default_namespace);
        let what = format!("there is no {} {:?} in namespace {namespace:?}", action.kind(), action.name);
        let message = match nearest(&action.name, &names) {
            Some(meant) => format!("{what}; did you mean {meant:?}?"),
            None if names.is_empty() => format!("{what}, nor any other"),
            None => {
                format!("{what}; there are: {}", names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", "))
            }
        };
        return Err(scenario.problem(&format!("{path}.name"), message));
    }
    if let Some(patch) = objects::patch_of(action) {
        let parameters = PatchParams { dry_run: true, ..PatchParams::default() }.validation_strict();
        let answer = api.patch(&action.name, &parameters, &Patch::Merge(patch)).await;
        answer.map_err(|error| refused("patch", &error))?;
    }
    Ok(())
}
