//! Istio, where the VirtualService is the user's: of its HTTP rules that lead to both sides only the two weights are changed.
//! Everything else, in these rules and beside them, stays as it is found.
//!
//! Which destination is which side is told by its host or by its subset, see [`Destination`].

use std::sync::Arc;

use aviary_crds::validated::{Destination, UserRoute, ValidatedCanary};
use aviary_rollout::{Capabilities, Split};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{Istio, TrafficError, TrafficProvider};
use crate::Subject;
use crate::change::Change;
use crate::metrics::BuiltinMetric;
use crate::object::{ObjectKind, kinds};

/// Istio, with routes that the user has made.
#[derive(Clone, Copy, Debug)]
pub struct IstioWeights;

const KIND: &str = "VirtualService";

static WATCHED: [&ObjectKind; 1] = [&kinds::VIRTUAL_SERVICE];

impl TrafficProvider for IstioWeights {
    fn name(&self) -> &'static str {
        "istio"
    }

    fn capabilities(&self, _: &ValidatedCanary) -> Capabilities {
        Capabilities { weights: true, matching: false, mirroring: false, sessions: false }
    }

    /// Nothing is generated. Rules whose weights say nothing, or not the same, are brought to the split in force.
    fn reconcile(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        match weights(subject) {
            Ok(found) if found.split().is_none() => self.set(subject, split),
            // What is missing is told by whoever reads the split.
            Ok(_) | Err(_) => Ok(Vec::new()),
        }
    }

    fn observed(&self, subject: &Subject) -> Result<Split, TrafficError> {
        let found = weights(subject)?;
        found.split().ok_or_else(|| impossible(subject, found.problem()))
    }

    fn set(&self, subject: &Subject, split: Split) -> Result<Vec<Change>, TrafficError> {
        let (route, present) = read(subject)?;
        let mut desired = (*present).clone();
        let namespace = subject.namespace();
        for rule in rules_mut(&mut desired.data) {
            if Sides::of(rule, route, namespace).is_none() {
                continue;
            }
            for destination in destinations_mut(rule) {
                let weight = match side_of(destination, route, namespace) {
                    Some(Side::Primary) => split.primary,
                    Some(Side::Canary) => split.canary,
                    None => continue,
                };
                if weight_of(destination) != u64::from(weight) {
                    destination["weight"] = json!(weight);
                }
            }
        }
        let key = subject.key(&kinds::VIRTUAL_SERVICE, &route.virtual_service);
        Ok(Change::update(key, &present, &desired).into_iter().collect())
    }

    /// The routes are the user's, and stay with the weights that they have.
    fn revert(&self, _: &Subject) -> Vec<Change> {
        Vec::new()
    }

    fn builtin_query(&self, canary: &ValidatedCanary, metric: BuiltinMetric) -> &'static str {
        Istio.builtin_query(canary, metric)
    }

    fn groups_builtin_queries(&self, _: &ValidatedCanary) -> bool {
        true
    }

    fn watched(&self) -> &'static [&'static ObjectKind] {
        &WATCHED
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Primary,
    Canary,
}

/// The weights of one rule that leads to both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sides {
    primary: u64,
    canary: u64,
    others: u64,
}

impl Sides {
    /// `None` where the rule does not lead to both.
    fn of(rule: &Value, route: &UserRoute, namespace: &str) -> Option<Sides> {
        let (mut primary, mut canary, mut others) = (None, None, 0);
        for destination in rule.get("route").and_then(Value::as_array).into_iter().flatten() {
            let weight = weight_of(destination);
            match side_of(destination, route, namespace) {
                Some(Side::Primary) => primary = Some(weight),
                Some(Side::Canary) => canary = Some(weight),
                None => others += weight,
            }
        }
        Some(Sides { primary: primary?, canary: canary?, others })
    }
}

/// What the rules that lead to both sides say; at least one.
struct Found(Vec<Sides>);

impl Found {
    /// The split, if there is one in all of them.
    fn split(&self) -> Option<Split> {
        let first = self.0.first()?;
        let is_whole = first.primary + first.canary == 100 && first.others == 0;
        let agree = self.0.iter().all(|sides| sides == first);
        (is_whole && agree).then(|| Split::to_canary(u32::try_from(first.canary).unwrap_or(0)))
    }

    fn problem(&self) -> String {
        let text = |sides: &Sides| match sides.others {
            0 => format!("{} and {}", sides.primary, sides.canary),
            others => format!("{} and {} (others {others})", sides.primary, sides.canary),
        };
        match self.0.as_slice() {
            [only] => format!("weights {} do not sum to 100", text(only)),
            all => {
                let all: Vec<String> = all.iter().map(text).collect();
                format!("has rules of different weights: {}", all.join("; "))
            }
        }
    }
}

fn weights(subject: &Subject) -> Result<Found, TrafficError> {
    let (route, present) = read(subject)?;
    let rules = present.data.pointer("/spec/http").and_then(Value::as_array);
    let namespace = subject.namespace();
    let found: Vec<Sides> = rules.into_iter().flatten().filter_map(|rule| Sides::of(rule, route, namespace)).collect();
    if found.is_empty() {
        let (primary, canary) = (name_of(&route.primary), name_of(&route.canary));
        let problem = format!("has no HTTP rule that leads to both {primary} and {canary}; add both to one rule");
        return Err(impossible(subject, problem));
    }
    Ok(Found(found))
}

fn read<'a>(subject: &Subject<'a>) -> Result<(&'a UserRoute, Arc<DynamicObject>), TrafficError> {
    let namespace = subject.namespace().to_owned();
    let Some(route) = &subject.canary.user_route else {
        // Nobody chooses this provider for such a canary.
        let (name, apex) = (subject.canary.service.apex().to_owned(), subject.canary.service.apex().to_owned());
        return Err(TrafficError::NoRoutes { kind: KIND, name, namespace, apex });
    };
    let name = &route.virtual_service;
    match subject.get(&kinds::VIRTUAL_SERVICE, name) {
        Some(present) => Ok((route, present)),
        None => {
            let cause = kinds::VIRTUAL_SERVICE.not_found(name);
            Err(TrafficError::NotFound { kind: KIND, name: name.clone(), namespace, cause })
        }
    }
}

fn impossible(subject: &Subject, problem: String) -> TrafficError {
    let name = subject.canary.user_route.as_ref().map(|route| route.virtual_service.clone());
    let namespace = subject.namespace().to_owned();
    TrafficError::Impossible { kind: KIND, name: name.unwrap_or_default(), namespace, problem }
}

fn rules_mut(data: &mut Value) -> impl Iterator<Item = &mut Value> {
    data.pointer_mut("/spec/http").and_then(Value::as_array_mut).into_iter().flatten()
}

fn destinations_mut(rule: &mut Value) -> impl Iterator<Item = &mut Value> {
    rule.get_mut("route").and_then(Value::as_array_mut).into_iter().flatten()
}

/// An absent weight is none.
fn weight_of(destination: &Value) -> u64 {
    destination.get("weight").and_then(Value::as_u64).unwrap_or(0)
}

fn side_of(destination: &Value, route: &UserRoute, namespace: &str) -> Option<Side> {
    if is(destination, &route.primary, namespace) {
        Some(Side::Primary)
    } else if is(destination, &route.canary, namespace) {
        Some(Side::Canary)
    } else {
        None
    }
}

fn is(destination: &Value, wanted: &Destination, namespace: &str) -> bool {
    let text = |field: &str| destination.pointer(&format!("/destination/{field}")).and_then(Value::as_str);
    match wanted {
        Destination::Host(host) => text("host").is_some_and(|found| full(found, namespace) == full(host, namespace)),
        Destination::Subset(subset) => text("subset") == Some(subset),
    }
}

/// `name.namespace`, however much of a service's name inside the cluster is written out.
fn full(host: &str, namespace: &str) -> String {
    let host = host.trim_end_matches('.');
    let host = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
    if host.contains('.') { host.to_owned() } else { format!("{host}.{namespace}") }
}

fn name_of(destination: &Destination) -> String {
    match destination {
        Destination::Host(host) => host.clone(),
        Destination::Subset(subset) => format!("subset {subset}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::testing::{World, rollout};

    fn rule(primary: u32, canary: u32) -> Value {
        json!({
            "match": [{"uri": {"prefix": "/api"}}],
            "route": [
                {"destination": {"host": "podinfo", "port": {"number": 9898}}, "weight": primary},
                {"destination": {"host": "podinfo-canary.test.svc.cluster.local", "subset": "x"}, "weight": canary,
                 "headers": {"request": {"set": {"x-canary": "yes"}}}},
            ],
            "timeout": "30s",
            "retries": {"attempts": 3},
        })
    }

    fn world(rules: &Value) -> World {
        let mut world = World::of(rollout());
        let object = json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
            "metadata": {"labels": {"app": "podinfo"}},
            "spec": {"gateways": ["public"], "hosts": ["app.example.com", "podinfo"], "http": rules,
                     "tls": [{"match": [], "route": []}]},
        });
        world.put(&kinds::VIRTUAL_SERVICE, "podinfo", object);
        world
    }

    /// Steerer wrote the whole list of rules anew, and lost the timeout of its own example.
    #[test]
    fn only_the_two_weights_of_the_users_routes_change() {
        let elsewhere = json!({"match": [{"uri": {"prefix": "/old"}}], "route": [{"destination": {"host": "old"}}]});
        let mut world = world(&json!([elsewhere, rule(100, 0)]));
        let mut expected = world.json(&kinds::VIRTUAL_SERVICE, "podinfo");
        assert_eq!(IstioWeights.observed(&world.subject()), Ok(Split::PRIMARY));
        assert!(IstioWeights.reconcile(&world.subject(), Split::to_canary(50)).unwrap().is_empty());
        world.apply(IstioWeights.set(&world.subject(), Split::to_canary(30)).unwrap());
        expected["spec"]["http"][1] = rule(70, 30);
        let after = world.json(&kinds::VIRTUAL_SERVICE, "podinfo");
        assert_eq!(after["spec"], expected["spec"]);
        assert_eq!(after["metadata"]["labels"], expected["metadata"]["labels"]);
        assert_eq!(IstioWeights.observed(&world.subject()), Ok(Split::to_canary(30)));
        assert!(IstioWeights.set(&world.subject(), Split::to_canary(30)).unwrap().is_empty());
        assert!(IstioWeights.revert(&world.subject()).is_empty());
    }

    #[test]
    fn every_rule_that_leads_to_both_sides_is_moved_and_brought_in_line() {
        let mut world = world(&json!([rule(80, 20), rule(100, 0)]));
        let error = IstioWeights.observed(&world.subject()).unwrap_err().to_string();
        assert_eq!(error, "VirtualService podinfo.test has rules of different weights: 80 and 20; 100 and 0");
        world.apply(IstioWeights.reconcile(&world.subject(), Split::to_canary(20)).unwrap());
        assert_eq!(IstioWeights.observed(&world.subject()), Ok(Split::to_canary(20)));
    }

    #[test]
    fn routes_that_do_not_lead_to_both_are_told() {
        let text = |rules: Value| IstioWeights.observed(&world(&rules).subject()).unwrap_err().to_string();
        let missing = "VirtualService podinfo.test has no HTTP rule that leads to both podinfo and podinfo-canary; add both to one rule";
        assert_eq!(text(json!([{"route": [{"destination": {"host": "podinfo"}}]}])), missing);
        assert_eq!(text(json!([])), missing);
        assert_eq!(text(json!([rule(0, 0)])), "VirtualService podinfo.test weights 0 and 0 do not sum to 100");
        let world = World::of(rollout());
        assert!(matches!(IstioWeights.observed(&world.subject()), Err(TrafficError::NotFound { .. })));
    }

    #[test]
    fn sides_can_be_told_by_their_subsets() {
        let mut canary = rollout();
        let subset = |name: &str| Destination::Subset(name.to_owned());
        let route =
            UserRoute { virtual_service: "podinfo".into(), primary: subset("production"), canary: subset("canary") };
        canary.user_route = Some(route);
        let mut world = World::of(canary);
        let rules = json!([{"route": [
            {"destination": {"host": "podinfo", "subset": "production"}, "weight": 100},
            {"destination": {"host": "podinfo", "subset": "canary"}},
        ]}]);
        world.put(&kinds::VIRTUAL_SERVICE, "podinfo", json!({"metadata": {}, "spec": {"http": rules}}));
        assert_eq!(IstioWeights.observed(&world.subject()), Ok(Split::PRIMARY));
        world.apply(IstioWeights.set(&world.subject(), Split::to_canary(5)).unwrap());
        assert_eq!(IstioWeights.observed(&world.subject()), Ok(Split::to_canary(5)));
    }
}
