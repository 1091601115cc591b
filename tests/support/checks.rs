//! What must hold at every instant, and what two ends of a story must have in common.

use std::collections::{BTreeMap, BTreeSet};

pub use aviary_loadtest::checks::{Watchman, final_state};
use aviary_sim::cluster::Cluster;

/// Says which objects differ, and how.
pub fn assert_same_end(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>, context: &str) {
    let differences = aviary_loadtest::checks::differences(expected, found);
    assert!(differences.is_empty(), "{context}: the cluster did not end as it should\n{differences}");
}

/// Verb and resource of every call of clients whose names begin so; what is no resource, and grants nothing, is left out.
pub fn operator_calls(cluster: &Cluster, clients: &[&str]) -> BTreeSet<(String, String)> {
    let snapshot = cluster.calls().snapshot();
    let keys = snapshot.iter().map(|(key, _)| key);
    let keys = keys.filter(|key| clients.iter().any(|client| key.client.starts_with(client)));
    let calls = keys.filter(|key| !key.resource.starts_with('/')).map(|key| {
        let slash = if key.subresource.is_empty() { "" } else { "/" };
        (key.verb.to_string(), format!("{}{slash}{}", key.resource, key.subresource))
    });
    calls.collect()
}

/// The operator called nothing that `aviary rbac` does not grant.
pub fn assert_calls_are_granted(cluster: &Cluster, clients: &[&str]) {
    for (verb, resource) in operator_calls(cluster, clients) {
        assert!(aviary::rbac::is_granted(&verb, None, &resource), "no permission to {verb} {resource}");
    }
}
