//! `/healthz`, `/livez`, `/readyz`, and what the server tells Prometheus of itself at `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::request::Query;
use super::response::Answer;
use crate::calls::CallLog;
use crate::store::Store;

/// The one check that there is: whether the server answers.
const PING: &str = "ping";

/// An endpoint's answer; with `verbose` it lists its checks.
pub(super) fn answer(endpoint: &str, check: Option<&str>, query: &Query) -> Answer {
    match check {
        Some(PING) => Answer::text(200, "ok"),
        Some(_) => Answer::unknown_path(),
        None if query.has("verbose") => Answer::text(200, &format!("[+]{PING} ok\n{endpoint} check passed\n")),
        None => Answer::text(200, "ok"),
    }
}

/// Requests and stored objects, under the names of kube-apiserver's metrics. Requests are not told apart by their answers.
pub(super) fn metrics(store: &Store, calls: &CallLog) -> Answer {
    let mut requests: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for (key, count) in calls.snapshot().iter() {
        // What is no resource counts as a subresource of nothing.
        let (resource, subresource) = match key.resource.strip_prefix('/') {
            Some(_) => (String::new(), key.resource.clone()),
            None => (key.resource.clone(), key.subresource.clone()),
        };
        *requests.entry((key.verb.as_str().to_uppercase(), resource, subresource)).or_insert(0) += count;
    }
    let mut text = String::new();
    text.push_str("# HELP apiserver_request_total Requests by verb, resource and subresource.\n");
    text.push_str("# TYPE apiserver_request_total counter\n");
    for ((verb, resource, subresource), count) in requests {
        let (resource, subresource) = (escaped(&resource), escaped(&subresource));
        let labels = format!("resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{verb}\"");
        // Writing to a text cannot fail.
        let _ = writeln!(text, "apiserver_request_total{{{labels}}} {count}");
    }
    text.push_str("# HELP apiserver_storage_objects Stored objects by resource.\n");
    text.push_str("# TYPE apiserver_storage_objects gauge\n");
    for (resource, count) in stored(store) {
        let _ = writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
    }
    let mut answer = Answer::text(200, &text);
    answer.content_type = Some("text/plain; version=0.0.4; charset=utf-8".to_owned());
    answer
}

/// How many objects there are of each resource. Resources that show what another stores are left out.
fn stored(store: &Store) -> BTreeMap<String, usize> {
    let kinds = store.registry(|registry| {
        let resources = registry.groups().flat_map(|(_, resources)| resources);
        let stored = resources.filter(|resource| resource.stored_as.is_none());
        stored.map(|resource| (resource.qualified_resource(), resource.group_kind.clone())).collect::<Vec<_>>()
    });
    let count = |kind| store.records(kind, None, None).map_or(0, |(records, _)| records.len());
    kinds.iter().map(|(resource, kind)| (resource.clone(), count(kind))).collect()
}

/// A label's value as the text format writes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
