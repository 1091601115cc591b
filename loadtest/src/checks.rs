//! What must hold at every instant, and what two ends of a story must have in common.

use std::collections::{BTreeMap, BTreeSet};

use aviary_crds::Phase;
use aviary_rollout::is_legal;
use aviary_sim::cluster::Cluster;
use aviary_sim::store::{ChangeType, GroupKind, Store, StoreEvent, kinds};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// Follows every change of the store, in its order, and knows what must hold after each.
pub struct Watchman {
    changes: UnboundedReceiver<StoreEvent>,
    workloads: BTreeMap<Key, Workload>,
    /// Services that are released themselves. Nobody knows their pods.
    unknown_pods: BTreeSet<Key>,
    /// Weights of a VirtualService by host.
    weights: BTreeMap<Key, BTreeMap<String, i64>>,
    phases: BTreeMap<Key, Phase>,
    /// Canaries that are to be rolled back, or were, and the revision that has failed.
    failed: BTreeMap<Key, Revision>,
    forbidden_images: Vec<String>,
}

/// What is analysed: the template's hash and the checksums of the configs, as the status has them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision(Value, Value);

impl Revision {
    pub(crate) fn of(canary: &Value) -> Revision {
        let status = &canary["status"];
        Revision(status["lastAppliedSpec"].clone(), status["trackedConfigs"].clone())
    }
}

/// Whether the status of a canary under analysis says that it is to be rolled back: as many checks have failed as may.
pub(crate) fn is_past_threshold(canary: &Value) -> bool {
    let (spec, status) = (&canary["spec"], &canary["status"]);
    let analysing = matches!(status["phase"].as_str(), Some("Progressing" | "WaitingPromotion"));
    let threshold = spec["analysis"]["threshold"].as_i64().unwrap_or(0);
    analysing && spec["skipAnalysis"] != true && status["failedChecks"].as_i64().unwrap_or(0) >= threshold
}

/// Kinds that are released, and have pods.
const WORKLOADS: [GroupKind; 2] = [kinds::DEPLOYMENT, kinds::DAEMON_SET];

/// What counts of a workload. A DaemonSet has one replica, or none.
#[derive(Clone, Copy, Default)]
struct Workload {
    available: i64,
    replicas: i64,
}

impl Watchman {
    /// Follows the cluster from now on. Objects that exist are taken as they are.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Watchman {
        Watchman::of(cluster.store())
    }

    fn of(store: &Store) -> Watchman {
        let mut watchman = Watchman {
            changes: store.subscribe(),
            workloads: BTreeMap::new(),
            unknown_pods: BTreeSet::new(),
            weights: BTreeMap::new(),
            phases: BTreeMap::new(),
            failed: BTreeMap::new(),
            forbidden_images: Vec::new(),
        };
        for kind in &WORKLOADS {
            for object in store.list(kind, None) {
                watchman.workloads.insert(key_of(&object), workload(&object));
            }
        }
        for routes in store.list(&kinds::VIRTUAL_SERVICE, None) {
            watchman.weights.insert(key_of(&routes), greatest_weights(rules(&routes)));
        }
        for canary in store.list(&kinds::CANARY, None) {
            watchman.note_failure(&key_of(&canary), &canary);
        }
        watchman
    }

    /// A primary must never run an image that has one of these in its name.
    #[must_use]
    pub fn forbidding(mut self, images: &[&str]) -> Watchman {
        self.forbidden_images = images.iter().map(|image| (*image).to_owned()).collect();
        self
    }

    /// What was wrong after any of the changes since the last call.
    pub fn violations(&mut self) -> Vec<String> {
        let mut violations = Vec::new();
        while let Ok(event) = self.changes.try_recv() {
            if ![kinds::DEPLOYMENT, kinds::DAEMON_SET, kinds::VIRTUAL_SERVICE, kinds::CANARY].contains(&event.kind) {
                continue;
            }
            let key = key_of(event.object());
            let found = match &event.kind {
                kind if WORKLOADS.contains(kind) => self.check_workload(&key, &event),
                kind if *kind == kinds::VIRTUAL_SERVICE => self.check_routes(&key, &event),
                kind if *kind == kinds::CANARY => {
                    self.note_failure(&key, event.object());
                    self.check_phase(&key, &event)
                }
                _ => continue,
            };
            let (namespace, name) = key;
            let version = event.resource_version;
            violations.extend(found.into_iter().map(|text| format!("version {version}: {namespace}/{name}: {text}")));
        }
        violations
    }

    fn check_workload(&mut self, key: &Key, event: &StoreEvent) -> Vec<String> {
        let mut violations = Vec::new();
        let now = workload(event.object());
        let before = self.workloads.insert(key.clone(), now).unwrap_or_default();
        let (namespace, name) = key;
        if let Some(routed) = name.strip_suffix("-primary").or(Some(name))
            && now.replicas == 0
            && before.replicas > 0
        {
            let host = if routed == name { format!("{name}-canary") } else { name.clone() };
            let routes = self.weights.get(&(namespace.clone(), routed.to_owned()));
            let weight = routes.and_then(|weights| weights.get(&host)).copied().unwrap_or(0);
            if weight > 0 {
                violations.push(format!("scaled to zero while {host} has {weight} %"));
            }
        }
        let image = event.object()["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        if name.ends_with("-primary") && self.forbidden_images.iter().any(|part| image.contains(part)) {
            violations.push(format!("runs {image}"));
        }
        violations
    }

    fn check_routes(&mut self, key: &Key, event: &StoreEvent) -> Vec<String> {
        let mut violations = Vec::new();
        let rules = rules(event.object());
        for rule in &rules {
            let sum: i64 = rule.iter().map(|(_, weight)| weight).sum();
            if sum != 100 {
                violations.push(format!("weights sum to {sum}"));
            }
        }
        let weights = greatest_weights(rules);
        let before = self.weights.insert(key.clone(), weights.clone()).unwrap_or_default();
        let has_failed = self.failed.contains_key(key);
        for (host, weight) in weights {
            if weight <= before.get(&host).copied().unwrap_or(0) {
                continue;
            }
            // The canary service selects the pods of the target itself.
            let workload = host.strip_suffix("-canary").unwrap_or(&host).to_owned();
            let available = self.workloads.get(&(key.0.clone(), workload.clone())).map_or(0, |now| now.available);
            let primary = host.strip_suffix("-primary").unwrap_or(&workload).to_owned();
            if available == 0 && !self.unknown_pods.contains(&(key.0.clone(), primary)) {
                violations.push(format!("{host} got {weight} %, but {workload} has no available pod"));
            }
            if has_failed && host.ends_with("-canary") {
                let before = before.get(&host).copied().unwrap_or(0);
                violations.push(format!("{FAILED_SIDE_GAINS_NOTHING}: {host} got {weight} % instead of {before} %"));
            }
        }
        violations
    }

    /// The cause of a rollback stays until there is a new revision, whatever becomes of the status in between.
    fn note_failure(&mut self, key: &Key, canary: &Value) {
        let revision = Revision::of(canary);
        // After a failed promotion the canary is the healthy side, and has everybody.
        let was_rolled_back = canary["status"]["phase"] == "Failed" && canary["status"]["canaryWeight"] != 100;
        if was_rolled_back || is_past_threshold(canary) {
            self.failed.insert(key.clone(), revision);
        } else if self.failed.get(key).is_some_and(|failed| *failed != revision) {
            self.failed.remove(key);
        }
    }

    fn check_phase(&mut self, key: &Key, event: &StoreEvent) -> Vec<String> {
        if event.change == ChangeType::Deleted {
            self.phases.remove(key);
            self.failed.remove(key);
            return Vec::new();
        }
        let target = &event.object()["spec"]["targetRef"];
        if target["kind"] == "Service"
            && let Some(name) = target["name"].as_str()
        {
            self.unknown_pods.insert((key.0.clone(), name.to_owned()));
        }
        let Ok(phase) = serde_json::from_value::<Phase>(event.object()["status"]["phase"].clone()) else {
            return Vec::new();
        };
        match self.phases.insert(key.clone(), phase) {
            Some(before) if !is_legal(before, phase) => vec![format!("went from {before:?} to {phase:?}")],
            _ => Vec::new(),
        }
    }
}

/// Name of the invariant: from the moment at which the cause of a rollback is in the status, until there is a new revision,
/// the canary never gets a greater share.
pub(crate) const FAILED_SIDE_GAINS_NOTHING: &str = "failed_side_gains_nothing";

pub(crate) fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn workload(object: &Value) -> Workload {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if object["kind"] == "DaemonSet" {
        let is_off = object.pointer("/spec/template/spec/nodeSelector/flagger.app~1scale-to-zero").is_some();
        return Workload { available: number("/status/numberAvailable"), replicas: i64::from(!is_off) };
    }
    Workload { available: number("/status/availableReplicas"), replicas: number("/spec/replicas") }
}

/// The greatest share that each host has of the requests of any rule: users who meet the conditions of one rule are users.
pub(crate) fn greatest_weights(rules: Vec<Vec<(String, i64)>>) -> BTreeMap<String, i64> {
    let mut greatest = BTreeMap::new();
    for (host, weight) in rules.into_iter().flatten() {
        let known = greatest.entry(host).or_insert(0);
        *known = weight.max(*known);
    }
    greatest
}

/// Hosts and weights of each HTTP rule.
pub(crate) fn rules(routes: &Value) -> Vec<Vec<(String, i64)>> {
    let rules = routes["spec"]["http"].as_array().cloned().unwrap_or_default();
    let of_rule = |rule: &Value| {
        let routes = rule["route"].as_array().cloned().unwrap_or_default();
        let only = routes.len() == 1;
        let weight = |route: &Value| route["weight"].as_i64().unwrap_or(if only { 100 } else { 0 });
        let host = |route: &Value| route["destination"]["host"].as_str().unwrap_or_default().to_owned();
        routes.iter().map(|route| (host(route), weight(route))).collect()
    };
    rules.iter().map(of_rule).collect()
}

/// Kinds whose objects tell how a story ended.
const COMPARED: [GroupKind; 13] = [
    kinds::CANARY,
    kinds::DAEMON_SET,
    kinds::DEPLOYMENT,
    kinds::REPLICA_SET,
    kinds::SERVICE,
    kinds::VIRTUAL_SERVICE,
    kinds::DESTINATION_RULE,
    kinds::HPA,
    kinds::SCALED_OBJECT,
    kinds::CONFIG_MAP,
    kinds::SECRET,
    kinds::METRIC_TEMPLATE,
    kinds::NAMESPACE,
];

/// Fields that say when or in how many tries a state was reached, and nothing about the state.
const NOISE: [&str; 18] = [
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "lastStepTime",
    "lastScaleTime",
    "lastActiveTime",
    // Of an autoscaler: what was measured last.
    "currentMetrics",
    "clusterIP",
    "clusterIPs",
    // Of an old ReplicaSet: how far its Deployment was scaled when it was replaced.
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    // The same as `generation`.
    "deprecated.daemonset.template.generation",
];

/// The cluster without what must differ between two runs, by object: the same texts mean the same end.
#[must_use]
pub fn final_state(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut objects = BTreeMap::new();
    for kind in &COMPARED {
        for object in cluster.store().list(kind, None) {
            let id = format!("{} {}/{}", kind.kind, object["metadata"]["namespace"], object["metadata"]["name"]);
            let mut object = (*object).clone();
            remove_noise(&mut object);
            objects.insert(id, format!("{object:#}"));
        }
    }
    // They follow from uids.
    for cookie in cookies(cluster) {
        objects.values_mut().for_each(|text| *text = text.replace(&cookie, "COOKIE"));
    }
    objects
}

/// The values of the cookies by which canaries keep users on their side.
fn cookies(cluster: &Cluster) -> Vec<String> {
    let canaries = cluster.store().list(&kinds::CANARY, None);
    let of = |canary: &Value| {
        ["sessionAffinityCookie", "previousSessionAffinityCookie"]
            .iter()
            .filter_map(|field| canary["status"][field].as_str()?.split_once('=').map(|(_, value)| value.to_owned()))
            .filter(|value| !value.is_empty())
            .collect::<Vec<_>>()
    };
    canaries.iter().flat_map(|canary| of(canary)).collect()
}

/// Which objects differ between two ends, and how; empty if none does.
#[must_use]
pub fn differences(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> String {
    let mut differences = String::new();
    for id in expected.keys().chain(found.keys().filter(|id| !expected.contains_key(*id))) {
        let (expected, found) = (expected.get(id), found.get(id));
        if expected == found {
            continue;
        }
        let lines = |text: Option<&String>| -> Vec<String> {
            text.map_or_else(Vec::new, |text| text.lines().map(str::to_owned).collect())
        };
        let (expected, found) = (lines(expected), lines(found));
        let of = |sign: char, these: &[String], others: &[String]| -> String {
            these.iter().filter(|line| !others.contains(line)).map(|line| format!("  {sign} {line}\n")).collect()
        };
        let changed = of('-', &expected, &found) + &of('+', &found, &expected);
        let changed = if changed.is_empty() { "  the same lines in another order\n" } else { &changed };
        differences.push_str(&format!("{id}:\n{changed}"));
    }
    differences
}

/// Takes away what must differ between two runs that come to the same end.
pub fn remove_noise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !NOISE.contains(&key.as_str()));
            // A map by type, in the order in which they came to be.
            if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
                conditions.sort_by_key(|condition| condition["type"].to_string());
            }
            fields.values_mut().for_each(remove_noise);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_noise),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
