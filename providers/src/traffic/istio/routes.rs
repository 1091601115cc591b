//! Routes of a VirtualService: rendering them, and reading and writing their weights.

use aviary_crds::service::HttpMatchRequest;
use aviary_rollout::Split;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Protocol, sessions};
use crate::Subject;

/// Fields of a route that are Aviary's. `mirror` and `mirrorPercentage` are too, while they point to the canary.
pub(super) const OWNED: [&str; 7] = ["match", "rewrite", "timeout", "retries", "corsPolicy", "headers", "route"];

const MIRROR: [&str; 2] = ["mirror", "mirrorPercentage"];

/// Names of the three services.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    pub(super) apex: String,
    pub(super) primary: String,
    pub(super) canary: String,
}

impl Sides {
    pub(super) fn of(subject: &Subject) -> Sides {
        let service = &subject.canary.service;
        Sides { apex: service.apex().to_owned(), primary: service.primary_name(), canary: service.canary_name() }
    }
}

/// The routes of a protocol.
pub(super) fn list(data: &Value, protocol: Protocol) -> &[Value] {
    data.get("spec").and_then(|spec| spec.get(protocol.field())).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The routes as they are for a split.
pub(super) fn render(subject: &Subject, sides: &Sides, split: Split) -> Vec<Value> {
    match super::protocol(subject.canary) {
        Protocol::Http => render_http(subject, sides, split),
        Protocol::Tcp => vec![tcp_route(subject, weighted(subject, sides, split))],
    }
}

fn render_http(subject: &Subject, sides: &Sides, split: Split) -> Vec<Value> {
    let service = &subject.canary.service;
    let conditions = &subject.canary.analysis.matches;
    if let (Some(affinity), Some(cookies)) = (subject.canary.sessions(), subject.cookies) {
        let mut routes = sessions::render(subject, sides, split, affinity, cookies);
        // The last one is that of all who hold no cookie (Flagger mirrors the first).
        if let Some(by_weight) = routes.last_mut() {
            set_mirror(subject, by_weight, sides, split);
        }
        return routes;
    }
    if conditions.is_empty() {
        let mut route = http_route(subject, &service.matches, weighted(subject, sides, split));
        set_mirror(subject, &mut route, sides, split);
        return vec![route];
    }
    // A/B: those who meet the conditions are divided, everybody else gets the primary.
    let everybody_else = vec![destination(subject, &sides.primary, 100)];
    vec![
        http_route(subject, &merged(conditions, &service.matches), weighted(subject, sides, split)),
        http_route(subject, &service.matches, everybody_else),
    ]
}

pub(super) fn http_route(subject: &Subject, matches: &[HttpMatchRequest], destinations: Vec<Value>) -> Value {
    let service = &subject.canary.service;
    let mut route = Map::new();
    if !matches.is_empty() {
        route.insert("match".into(), to_json(&matches));
    }
    if let Some(rewrite) = &service.rewrite {
        let mut rewrite = rewrite.clone();
        // Only the Gateway API knows a type.
        rewrite.rewrite_type = None;
        route.insert("rewrite".into(), to_json(&rewrite));
    }
    if let Some(timeout) = service.timeout.as_ref().filter(|timeout| !timeout.is_empty()) {
        route.insert("timeout".into(), timeout.clone().into());
    }
    route.extend(service.retries.as_ref().map(|retries| ("retries".to_owned(), to_json(retries))));
    route.extend(service.cors_policy.as_ref().map(|policy| ("corsPolicy".to_owned(), to_json(policy))));
    route.extend(service.headers.as_ref().map(|headers| ("headers".to_owned(), to_json(headers))));
    route.insert("route".into(), Value::Array(destinations));
    Value::Object(route)
}

fn tcp_route(subject: &Subject, destinations: Vec<Value>) -> Value {
    let ports: Vec<Value> = subject
        .canary
        .service
        .matches
        .iter()
        .filter_map(|condition| condition.port)
        .map(|port| json!({"port": port}))
        .collect();
    let mut route = Map::new();
    if !ports.is_empty() {
        route.insert("match".into(), Value::Array(ports));
    }
    route.insert("route".into(), Value::Array(destinations));
    Value::Object(route)
}

pub(super) fn weighted(subject: &Subject, sides: &Sides, split: Split) -> Vec<Value> {
    vec![destination(subject, &sides.primary, split.primary), destination(subject, &sides.canary, split.canary)]
}

pub(super) fn destination(subject: &Subject, host: &str, weight: u32) -> Value {
    let service = &subject.canary.service;
    // Sidecars find the port by the request; a gateway and a delegate have to be told when there are several.
    let behind_gateway = service.gateways.first().is_some_and(|gateway| gateway != "mesh");
    let mut destination = json!({"host": host});
    if service.port_discovery && (behind_gateway || service.delegation) {
        destination["port"] = json!({"number": service.port});
    }
    json!({"destination": destination, "weight": weight})
}

/// Every condition of the analysis together with every one of the service. Within a pair, headers and source labels of
/// the analysis replace those of the service, as in Flagger; query parameters are added to them (Flagger loses those).
pub(super) fn merged(conditions: &[HttpMatchRequest], service: &[HttpMatchRequest]) -> Vec<HttpMatchRequest> {
    if service.is_empty() {
        return conditions.to_vec();
    }
    let mut merged = Vec::new();
    for condition in conditions {
        for base in service {
            let mut pair = base.clone();
            if !condition.headers.is_empty() {
                pair.headers.clone_from(&condition.headers);
            }
            if !condition.source_labels.is_empty() {
                pair.source_labels.clone_from(&condition.source_labels);
            }
            pair.query_params.extend(condition.query_params.clone());
            merged.push(pair);
        }
    }
    merged
}

fn set_mirror(subject: &Subject, route: &mut Value, sides: &Sides, split: Split) {
    let Some(route) = route.as_object_mut() else { return };
    if split.mirrored {
        route.insert("mirror".into(), json!({"host": sides.canary}));
        let percent = subject.canary.analysis.mirror_weight;
        if percent > 0 {
            route.insert("mirrorPercentage".into(), json!({"value": percent}));
        } else {
            route.remove("mirrorPercentage");
        }
    } else if mirrors_to_canary(route, sides) {
        for field in MIRROR {
            route.remove(field);
        }
    }
}

fn mirrors_to_canary(route: &Map<String, Value>, sides: &Sides) -> bool {
    route.get("mirror").and_then(|mirror| mirror.get("host")).and_then(Value::as_str) == Some(&sides.canary)
}

/// Weights as they are written, which may be nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) primary: u64,
    pub(super) canary: u64,
    mirrored: bool,
}

impl Weights {
    /// The split, if the weights sum to 100.
    pub(super) fn split(self) -> Option<Split> {
        let (primary, canary) = (u32::try_from(self.primary).ok()?, u32::try_from(self.canary).ok()?);
        let sums_up = primary.checked_add(canary) == Some(100);
        sums_up.then_some(Split { primary, canary, mirrored: self.mirrored })
    }
}

/// The weights of the last route that leads to the canary; `None` if there is none, or if it leads nowhere.
pub(super) fn weights(routes: &[Value], sides: &Sides) -> Option<Weights> {
    let route = routes.iter().rev().find(|route| hosts(route).any(|host| host == sides.canary))?;
    let mirrored = route.as_object().is_some_and(|route| mirrors_to_canary(route, sides));
    let weight_of = |side: &str| {
        destinations(route)
            .filter(|entry| host(entry) == side)
            .map(|entry| entry.get("weight").and_then(Value::as_u64).unwrap_or(0))
            .sum()
    };
    let weights = Weights { primary: weight_of(&sides.primary), canary: weight_of(&sides.canary), mirrored };
    (weights.primary > 0 || weights.canary > 0).then_some(weights)
}

/// Whether two lists of routes lead to the same places, in the same order.
pub(super) fn has_shape_of(found: &[Value], rendered: &[Value]) -> bool {
    found.len() == rendered.len()
        && found.iter().zip(rendered).all(|(found, rendered)| hosts(found).eq(hosts(rendered)))
}

/// The found routes with the weights and the mirroring of a split, and nothing else touched. They have to have the
/// shape of rendered ones.
pub(super) fn with_split(subject: &Subject, found: &[Value], sides: &Sides, split: Split) -> Vec<Value> {
    let mut routes = found.to_vec();
    for route in &mut routes {
        if !hosts(route).any(|host| host == sides.canary) {
            continue;
        }
        for entry in route.get_mut("route").and_then(Value::as_array_mut).into_iter().flatten() {
            let weight = if host(entry) == sides.canary { split.canary } else { split.primary };
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("weight".into(), weight.into());
            }
        }
        let can_mirror =
            super::protocol(subject.canary) == Protocol::Http && subject.canary.analysis.matches.is_empty();
        if can_mirror {
            set_mirror(subject, route, sides, split);
        }
    }
    routes
}

/// The rendered routes, with whatever others have added to the found ones if these have the same shape.
pub(super) fn overlaid(subject: &Subject, found: &[Value], rendered: Vec<Value>, sides: &Sides) -> Vec<Value> {
    if !has_shape_of(found, &rendered) {
        return rendered;
    }
    let sets_cookies = subject.canary.sessions().is_some();
    let pairs = rendered.into_iter().zip(found);
    pairs.map(|(rendered, found)| overlaid_route(found, rendered, sides, sets_cookies)).collect()
}

fn overlaid_route(found: &Value, rendered: Value, sides: &Sides, sets_cookies: bool) -> Value {
    let (Value::Object(found), Value::Object(mut rendered)) = (found, rendered) else { return Value::Null };
    let mut route = found.clone();
    for field in OWNED {
        route.remove(field);
    }
    if mirrors_to_canary(&route, sides) || rendered.contains_key("mirror") {
        for field in MIRROR {
            route.remove(field);
        }
    }
    let found_entries = found.get("route").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if let Some(entries) = rendered.get_mut("route").and_then(Value::as_array_mut) {
        for (entry, found) in entries.iter_mut().zip(found_entries) {
            let (Some(entry), Value::Object(found)) = (entry.as_object_mut(), found) else { continue };
            // What sets cookies is ours, also where it was and is no longer.
            for (key, value) in found.iter().filter(|(key, _)| !(sets_cookies && *key == "headers")) {
                entry.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    route.extend(rendered);
    Value::Object(route)
}

/// Whether a route leads to one of the two sides.
pub(super) fn leads_to_a_side(route: &Value, sides: &Sides) -> bool {
    hosts(route).any(|host| host == sides.canary || host == sides.primary)
}

/// The one route to the apex service, for a canary that is about to go.
pub(super) fn to_apex(subject: &Subject, sides: &Sides) -> Value {
    let destination = vec![destination(subject, &sides.apex, 100)];
    match super::protocol(subject.canary) {
        Protocol::Http => http_route(subject, &subject.canary.service.matches, destination),
        Protocol::Tcp => tcp_route(subject, destination),
    }
}

/// Routes that do not lead to either side.
pub(super) fn foreign(routes: &[Value], sides: &Sides) -> Vec<Value> {
    routes.iter().filter(|route| !leads_to_a_side(route, sides)).cloned().collect()
}

fn destinations(route: &Value) -> impl Iterator<Item = &Value> {
    route.get("route").and_then(Value::as_array).into_iter().flatten()
}

fn host(entry: &Value) -> &str {
    entry.get("destination").and_then(|destination| destination.get("host")).and_then(Value::as_str).unwrap_or_default()
}

fn hosts(route: &Value) -> impl Iterator<Item = &str> {
    destinations(route).map(host)
}

/// These types hold nothing that JSON cannot: their maps have text keys.
fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
