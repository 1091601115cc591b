//! How a cluster must look once a canary has come to rest.

use std::sync::Arc;

use aviary_sim::cluster::Cluster;
use aviary_sim::store::{GroupKind, kinds};
use serde_json::Value;

use crate::objects::Name;

/// What is expected of one canary.
pub(crate) struct Expected<'a> {
    pub(crate) phase: &'a str,
    /// The image that was promoted last.
    pub(crate) image: &'a str,
    /// Whether a version that fails requests got some.
    pub(crate) requests_fail: bool,
}

/// What is otherwise than it should be; each in words.
pub(crate) fn problems(cluster: &Cluster, name: &Name, expected: &Expected<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut compare = |what: &str, is: String, should_be: &str| {
        if is != should_be {
            problems.push(format!("{what}: {is} instead of {should_be}"));
        }
    };
    let get = |kind: &GroupKind, suffix: &str| object(cluster, kind, name, suffix).unwrap_or_default();
    let canary = get(&kinds::CANARY, "");
    compare("phase", text(&canary, "/status/phase"), expected.phase);
    compare("canary weight", text(&canary, "/status/canaryWeight"), "0");

    let primary = get(&kinds::DEPLOYMENT, "-primary");
    compare("image of the primary", text(&primary, "/spec/template/spec/containers/0/image"), expected.image);
    compare("ready pods of the primary", text(&primary, "/status/readyReplicas"), "2");
    compare("replicas of the target", text(&get(&kinds::DEPLOYMENT, ""), "/spec/replicas"), "0");

    let routes = get(&kinds::VIRTUAL_SERVICE, "");
    let weight = |side: &str| {
        let routes = routes.pointer("/spec/http/0/route").and_then(Value::as_array);
        let host = format!("{}-{side}", name.name);
        routes.into_iter().flatten().find(|route| route["destination"]["host"] == host).map_or(0, weight_of)
    };
    compare("routes", format!("{}:{}", weight("primary"), weight("canary")), "100:0");

    let users = cluster.traffic().report(&name.namespace, &name.name);
    compare("interruptions", users.interruptions.to_string(), "0");
    if !expected.requests_fail {
        compare("failed requests", users.failures().to_string(), "0");
    }
    problems
}

/// The same for a canary that was deleted; `replicas` are those that its target must have.
pub(crate) fn problems_of_deleted(cluster: &Cluster, name: &Name, replicas: u32) -> Vec<String> {
    let mut problems = Vec::new();
    for (kind, suffix) in [(&kinds::CANARY, ""), (&kinds::DEPLOYMENT, "-primary"), (&kinds::SERVICE, "-primary")] {
        if object(cluster, kind, name, suffix).is_some() {
            problems.push(format!("{} {}{suffix} is still there", kind.kind, name.name));
        }
    }
    let target = object(cluster, &kinds::DEPLOYMENT, name, "").unwrap_or_default();
    let found = text(&target, "/spec/replicas");
    if found != replicas.to_string() {
        problems.push(format!("replicas of the target: {found} instead of {replicas}"));
    }
    problems
}

fn object(cluster: &Cluster, kind: &GroupKind, name: &Name, suffix: &str) -> Option<Arc<Value>> {
    cluster.store().get(kind, &name.namespace, &format!("{}{suffix}", name.name))
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
