#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aviary_rollout::Split;
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, canary};

const SPLIT: &ObjectKind = &kinds::TRAFFIC_SPLIT_V1ALPHA1;

fn reconcile(provider: &Smi, world: &mut World, split: Split) {
    let changes = provider.reconcile(&world.subject(), split).unwrap();
    world.apply(changes);
}

fn spec(world: &World, kind: &'static ObjectKind) -> Value {
    world.json(kind, "podinfo")["spec"].clone()
}

#[test]
fn the_split_is_flaggers_in_each_version() {
    for (provider, kind, weights) in [
        (&CROSSOVER, SPLIT, [json!("0"), json!("100")]),
        (&V1ALPHA1, SPLIT, [json!("0"), json!("100")]),
        (&V1ALPHA2, &kinds::TRAFFIC_SPLIT_V1ALPHA2, [json!(0), json!(100)]),
        (&V1ALPHA3, &kinds::TRAFFIC_SPLIT_V1ALPHA3, [json!(0), json!(100)]),
    ] {
        let mut world = World::new(json!({"service": {"port": 9898}}));
        reconcile(provider, &mut world, Split::PRIMARY);
        let expected = json!({"service": "podinfo", "backends": [
            {"service": "podinfo-canary", "weight": weights[0]}, {"service": "podinfo-primary", "weight": weights[1]},
        ]});
        assert_eq!(spec(&world, kind), expected, "{}", provider.name);
    }
}

#[test]
fn the_first_host_is_the_root_and_gateways_are_for_istios_adapter() {
    let mut world = World::new(json!({
        "provider": "smi:v1alpha1:istio",
        "service": {"port": 80, "hosts": ["app.example.com", "b"], "gateways": ["public"]},
    }));
    reconcile(&V1ALPHA1, &mut world, Split::PRIMARY);
    assert_eq!(spec(&world, SPLIT)["service"], "app.example.com");
    assert_eq!(world.json(SPLIT, "podinfo")["metadata"]["annotations"][GATEWAYS_ANNOTATION], "[\"public\"]");
    let mut world = World::new(json!({"provider": "smi:v1alpha1", "service": {"port": 80, "gateways": ["public"]}}));
    reconcile(&V1ALPHA1, &mut world, Split::PRIMARY);
    assert_eq!(world.json(SPLIT, "podinfo")["metadata"]["annotations"].get(GATEWAYS_ANNOTATION), None);
}

#[test]
fn an_edit_by_others_does_not_move_the_traffic() {
    let mut world = World::new(json!({}));
    reconcile(&CROSSOVER, &mut world, Split::to_canary(30));
    let edit = json!({"spec": {"service": "another", "matches": [{"kind": "HTTPRouteGroup", "name": "x"}], "backends": [
        {"service": "podinfo-primary", "weight": "700m", "note": 1}, {"service": "podinfo-canary", "weight": "300m"},
        {"service": "third", "weight": "500m"},
    ]}});
    world.edit(SPLIT, "podinfo", edit);
    reconcile(&CROSSOVER, &mut world, Split::PRIMARY);
    let expected = json!({
        "service": "podinfo", "matches": [{"kind": "HTTPRouteGroup", "name": "x"}],
        "backends": [
            {"service": "podinfo-canary", "weight": "30"}, {"service": "podinfo-primary", "weight": "70", "note": 1},
        ],
    });
    assert_eq!(spec(&world, SPLIT), expected);
    assert_eq!(CROSSOVER.observed(&world.subject()), Ok(Split::to_canary(30)));
}

#[test]
fn weights_that_mean_the_same_are_left_as_they_are_written() {
    let mut world = World::new(json!({}));
    reconcile(&CROSSOVER, &mut world, Split::PRIMARY);
    let backends = json!([{"service": "podinfo-primary", "weight": 9}, {"service": "podinfo-canary", "weight": "1"}]);
    world.edit(SPLIT, "podinfo", json!({"spec": {"backends": backends}}));
    assert_eq!(CROSSOVER.observed(&world.subject()), Ok(Split::to_canary(10)));
    assert_eq!(CROSSOVER.reconcile(&world.subject(), Split::PRIMARY), Ok(vec![]));
    assert_eq!(CROSSOVER.set(&world.subject(), Split::to_canary(10)), Ok(vec![]));
}

#[test]
fn weights_that_mean_nothing_are_told_and_repaired() {
    let mut world = World::new(json!({}));
    reconcile(&CROSSOVER, &mut world, Split::PRIMARY);
    let zero = |service: &str| json!({"service": service, "weight": "0"});
    world.edit(SPLIT, "podinfo", json!({"spec": {"backends": [zero("podinfo-primary"), zero("podinfo-canary")]}}));
    let error = CROSSOVER.observed(&world.subject()).unwrap_err().to_string();
    assert_eq!(error, "TrafficSplit podinfo.test weights are not whole percents of their sum");
    reconcile(&CROSSOVER, &mut world, Split::to_canary(20));
    assert_eq!(CROSSOVER.observed(&world.subject()), Ok(Split::to_canary(20)));
    world.edit(SPLIT, "podinfo", json!({"spec": {"backends": []}}));
    let error = CROSSOVER.observed(&world.subject()).unwrap_err().to_string();
    assert_eq!(error, "TrafficSplit podinfo.test does not contain routes for podinfo-primary and podinfo-canary");
}

#[test]
fn the_users_split_comes_back() {
    let users = json!({"service": "podinfo", "backends": [{"service": "podinfo", "weight": 1}]});
    let mut world = World::new(json!({}));
    world.put(SPLIT, "podinfo", json!({"metadata": {"annotations": {"mine": "1"}}, "spec": users}));
    reconcile(&CROSSOVER, &mut world, Split::PRIMARY);
    assert_ne!(spec(&world, SPLIT), users);
    world.apply(CROSSOVER.revert(&world.subject()));
    assert_eq!(spec(&world, SPLIT), users);
    assert_eq!(world.json(SPLIT, "podinfo")["metadata"]["annotations"], json!({"mine": "1"}));
    assert_eq!(CROSSOVER.revert(&world.subject()), []);
}

#[test]
fn what_a_split_cannot_do_is_refused_by_field_value_and_fix() {
    let refused = canary(json!({"provider": "smi:crossover", "analysis": {
        "mirror": true, "sessionAffinity": {"cookieName": "ck"},
    }}));
    let fix = "is not supported by provider smi:crossover, whose TrafficSplit has weights only; remove it, or set \
               spec.provider to one that can";
    let expected =
        [format!("spec.analysis.mirror: true {fix}"), format!("spec.analysis.sessionAffinity.cookieName: ck {fix}")];
    assert_eq!(CROSSOVER.refusals(&refused), expected);
    let test = canary(json!({"analysis": {
        "stepWeight": null, "maxWeight": null, "iterations": 5, "match": [{"headers": {"x-user": {"exact": "insider"}}}],
    }}));
    assert_eq!(CROSSOVER.refusals(&test), [format!("spec.analysis.match: an A/B test with 1 condition {fix}")]);
    assert_eq!(CROSSOVER.refusals(&canary(json!({}))), Vec::<String>::new());
}
