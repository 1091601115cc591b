//! What must hold at every instant, and what two ends of a story must have in common.

use std::collections::BTreeMap;

use aviary_sim::store::{GroupKind, StoreEvent, kinds};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::World;

/// Follows every change of the store, in its order.
pub struct Watchman {
    changes: UnboundedReceiver<StoreEvent>,
    /// Available pods by namespace and name of a Deployment.
    available: BTreeMap<(String, String), i64>,
    /// Weights by namespace and name of a VirtualService, then by host.
    weights: BTreeMap<(String, String), BTreeMap<String, i64>>,
}

impl Watchman {
    pub fn new(world: &World) -> Watchman {
        let store = world.cluster.store();
        let changes = store.subscribe();
        let mut watchman = Watchman { changes, available: BTreeMap::new(), weights: BTreeMap::new() };
        for deployment in store.list(&kinds::DEPLOYMENT, None) {
            watchman.available.insert(key_of(&deployment), available(&deployment));
        }
        for routes in store.list(&kinds::VIRTUAL_SERVICE, None) {
            let weights = rules(&routes).into_iter().flatten().collect();
            watchman.weights.insert(key_of(&routes), weights);
        }
        watchman
    }

    /// What was wrong after any of the changes so far.
    pub fn violations(&mut self) -> Vec<String> {
        let mut violations = Vec::new();
        while let Ok(event) = self.changes.try_recv() {
            let key = key_of(&event.object);
            if event.kind == kinds::DEPLOYMENT {
                self.available.insert(key, available(&event.object));
            } else if event.kind == kinds::VIRTUAL_SERVICE {
                violations.extend(self.check_routes(&key, &event));
            }
        }
        violations
    }

    fn check_routes(&mut self, key: &(String, String), event: &StoreEvent) -> Vec<String> {
        let mut violations = Vec::new();
        let version = event.resource_version;
        let mut weights = BTreeMap::new();
        for rule in rules(&event.object) {
            let sum: i64 = rule.iter().map(|(_, weight)| weight).sum();
            if sum != 100 {
                violations.push(format!("version {version}: weights of {key:?} sum to {sum}"));
            }
            weights.extend(rule);
        }
        let before = self.weights.insert(key.clone(), weights.clone()).unwrap_or_default();
        for (host, weight) in weights {
            // The canary service selects the pods of the target itself.
            let workload = host.strip_suffix("-canary").unwrap_or(&host).to_owned();
            let gained = weight > before.get(&host).copied().unwrap_or(0);
            let available = self.available.get(&(key.0.clone(), workload.clone())).copied().unwrap_or(0);
            if gained && available == 0 {
                violations
                    .push(format!("version {version}: {host} got {weight} %, but {workload} has no available pod"));
            }
        }
        violations
    }
}

fn key_of(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn available(deployment: &Value) -> i64 {
    deployment["status"]["availableReplicas"].as_i64().unwrap_or(0)
}

/// Hosts and weights of each HTTP rule.
fn rules(routes: &Value) -> Vec<Vec<(String, i64)>> {
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
const COMPARED: [GroupKind; 11] = [
    kinds::CANARY,
    kinds::DEPLOYMENT,
    kinds::REPLICA_SET,
    kinds::SERVICE,
    kinds::VIRTUAL_SERVICE,
    kinds::DESTINATION_RULE,
    kinds::HPA,
    kinds::CONFIG_MAP,
    kinds::SECRET,
    kinds::METRIC_TEMPLATE,
    kinds::NAMESPACE,
];

/// Fields that say when or in how many tries a state was reached, and nothing about the state.
const NOISE: [&str; 13] = [
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
    "clusterIP",
    "clusterIPs",
];

/// The cluster without what must differ between two runs: the same text means the same end.
pub fn final_state(world: &World) -> BTreeMap<String, String> {
    let mut objects = BTreeMap::new();
    for kind in &COMPARED {
        for object in world.cluster.store().list(kind, None) {
            let id = format!("{} {}/{}", kind.kind, object["metadata"]["namespace"], object["metadata"]["name"]);
            let mut object = (*object).clone();
            remove_noise(&mut object);
            objects.insert(id, format!("{object:#}"));
        }
    }
    objects
}

/// Says which objects differ, and how.
pub fn assert_same_end(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, context: &str) {
    let mut differences = String::new();
    for id in expected.keys().chain(found.keys().filter(|id| !expected.contains_key(*id))) {
        let (expected, found) = (expected.get(id), found.get(id));
        if expected == found {
            continue;
        }
        differences += &format!("{id}:\n");
        let lines =
            |text: Option<&String>| text.map_or_else(Vec::new, |text| text.lines().map(str::to_owned).collect());
        let (expected, found): (Vec<String>, Vec<String>) = (lines(expected), lines(found));
        expected.iter().filter(|line| !found.contains(line)).for_each(|line| differences += &format!("  - {line}\n"));
        found.iter().filter(|line| !expected.contains(line)).for_each(|line| differences += &format!("  + {line}\n"));
    }
    assert!(differences.is_empty(), "{context}: the cluster did not end as it should\n{differences}");
}

fn remove_noise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !NOISE.contains(&key.as_str()));
            fields.values_mut().for_each(remove_noise);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_noise),
        _ => {}
    }
}
