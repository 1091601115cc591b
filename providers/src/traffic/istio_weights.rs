//! Istio, where the VirtualService is the user's: of its HTTP rules that lead to both sides only the two weights are changed.
//! Everything else, in these rules and beside them, stays as it is found. A rule that two weights cannot describe, because it has two
//! destinations for one side or leads elsewhere, too, is refused and keeps its weights.
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
        weights(subject)?;
        let mut desired = (*present).clone();
        let namespace = subject.namespace();
        for rule in rules_mut(&mut desired.data) {
            if Weights::of(rule, route, namespace).sides().is_none() {
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

/// The weights of one rule, destination by destination.
#[derive(Debug, Default)]
struct Weights {
    primary: Vec<u64>,
    canary: Vec<u64>,
    others: u64,
}

impl Weights {
    fn of(rule: &Value, route: &UserRoute, namespace: &str) -> Weights {
        let mut weights = Weights::default();
        for destination in rule.get("route").and_then(Value::as_array).into_iter().flatten() {
            let weight = weight_of(destination);
            match side_of(destination, route, namespace) {
                Some(Side::Primary) => weights.primary.push(weight),
                Some(Side::Canary) => weights.canary.push(weight),
                None => weights.others += weight,
            }
        }
        weights
    }

    /// `None` where the rule does not lead to both.
    fn sides(&self) -> Option<Sides> {
        Some(Sides { primary: *self.primary.first()?, canary: *self.canary.first()? })
    }

    /// Why two weights cannot say how requests are divided by `spec.http[index]`, which leads to both sides. How two destinations
    /// of a side share its weight, or who pays for what is led elsewhere, is for the user to say.
    fn problem(&self, index: usize, route: &UserRoute) -> Option<String> {
        let (primary, canary) = (name_of(&route.primary), name_of(&route.canary));
        for (weights, side) in [(&self.primary, &primary), (&self.canary, &canary)] {
            if weights.len() > 1 {
                let each: Vec<String> = weights.iter().map(u64::to_string).collect();
                return Some(format!(
                    "has {} destinations for {side} in spec.http[{index}].route (weights {}), and a side has one weight; leave one \
                     of them",
                    weights.len(),
                    each.join(", ")
                ));
            }
        }
        (self.others > 0).then(|| {
            format!(
                "leads {} % to neither {primary} nor {canary} in spec.http[{index}].route; give that weight to {primary}, or lead \
                 to it by a rule of its own",
                self.others
            )
        })
    }
}

/// The weights of one rule that leads to both sides, and to nobody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sides {
    primary: u64,
    canary: u64,
}

/// What the rules that lead to both sides say; at least one.
struct Found(Vec<Sides>);

impl Found {
    /// The split, if there is one in all of them.
    fn split(&self) -> Option<Split> {
        let first = self.0.first()?;
        let is_whole = first.primary + first.canary == 100;
        let agree = self.0.iter().all(|sides| sides == first);
        (is_whole && agree).then(|| Split::to_canary(u32::try_from(first.canary).unwrap_or(0)))
    }

    fn problem(&self) -> String {
        let text = |sides: &Sides| format!("{} and {}", sides.primary, sides.canary);
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
    let mut found = Vec::new();
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let weights = Weights::of(rule, route, namespace);
        let Some(sides) = weights.sides() else { continue };
        if let Some(problem) = weights.problem(index, route) {
            return Err(impossible(subject, problem));
        }
        found.push(sides);
    }
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

    /// Nobody looks at it, and nobody writes to it.
    fn assert_refused(canary: Option<ValidatedCanary>, rules: &Value, expected: &str) {
        let mut world = world(rules);
        if let Some(canary) = canary {
            world.canary = canary;
        }
        let before = world.json(&kinds::VIRTUAL_SERVICE, "podinfo");
        world.apply(IstioWeights.reconcile(&world.subject(), Split::to_canary(30)).unwrap());
        assert_eq!(world.json(&kinds::VIRTUAL_SERVICE, "podinfo"), before, "the user's own weights are lost");
        let subject = world.subject();
        assert_eq!(IstioWeights.observed(&subject).unwrap_err().to_string(), expected);
        assert_eq!(IstioWeights.set(&subject, Split::to_canary(30)).unwrap_err().to_string(), expected);
    }

    /// Each would get the whole weight of its side, and the canary less than its share.
    #[test]
    fn a_side_with_two_destinations_in_one_rule_is_refused_and_keeps_its_weights() {
        let destination = |host: &str, subset: &str, weight: u32| json!({"destination": {"host": host, "subset": subset}, "weight": weight});
        let primary_twice = json!([
            rule(100, 0),
            {"route": [
                destination("podinfo", "v1", 50),
                destination("podinfo.test.svc.cluster.local", "v2", 50),
                destination("podinfo-canary", "v3", 0),
            ]},
        ]);
        assert_refused(
            None,
            &primary_twice,
            "VirtualService podinfo.test has 2 destinations for podinfo in spec.http[1].route (weights 50, 50), and a side has \
             one weight; leave one of them",
        );
        let canary_twice = json!([{"route": [
            destination("podinfo", "v1", 100),
            destination("podinfo-canary", "v2", 0),
            destination("podinfo-canary", "v3", 0),
        ]}]);
        assert_refused(
            None,
            &canary_twice,
            "VirtualService podinfo.test has 2 destinations for podinfo-canary in spec.http[0].route (weights 0, 0), and a side \
             has one weight; leave one of them",
        );
        let of_two_hosts = json!([{"route": [
            destination("podinfo", "production", 80),
            destination("elsewhere", "production", 20),
            destination("podinfo", "canary", 0),
        ]}]);
        assert_refused(
            Some(of_subsets()),
            &of_two_hosts,
            "VirtualService podinfo.test has 2 destinations for subset production in spec.http[0].route (weights 80, 20), and a \
             side has one weight; leave one of them",
        );
        let elsewhere = json!({"route": [destination("podinfo", "v1", 50), destination("podinfo", "v2", 50)]});
        let fine = world(&json!([rule(100, 0), elsewhere]));
        assert_eq!(
            IstioWeights.observed(&fine.subject()),
            Ok(Split::PRIMARY),
            "a rule without the canary is the user's"
        );
    }

    #[test]
    fn a_share_of_neither_side_is_refused_and_nothing_is_written_over() {
        let mut shared = rule(50, 0);
        let third = json!({"destination": {"host": "old"}, "weight": 50});
        shared["route"].as_array_mut().unwrap().push(third);
        let expected = "VirtualService podinfo.test leads 50 % to neither podinfo nor podinfo-canary in spec.http[0].route; give \
                        that weight to podinfo, or lead to it by a rule of its own";
        assert_refused(None, &json!([shared.clone()]), expected);
        shared["route"][2]["weight"] = json!(0);
        let mut fine = world(&json!([shared]));
        fine.apply(IstioWeights.reconcile(&fine.subject(), Split::PRIMARY).unwrap());
        assert_eq!(IstioWeights.observed(&fine.subject()), Ok(Split::PRIMARY));
    }

    fn of_subsets() -> ValidatedCanary {
        let subset = |name: &str| Destination::Subset(name.to_owned());
        let route =
            UserRoute { virtual_service: "podinfo".into(), primary: subset("production"), canary: subset("canary") };
        ValidatedCanary { user_route: Some(route), ..rollout() }
    }

    #[test]
    fn sides_can_be_told_by_their_subsets() {
        let mut world = World::of(of_subsets());
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
