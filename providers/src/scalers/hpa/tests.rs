#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::testing::World;

fn world(overrides: Value) -> World {
    let mut reference = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    if !overrides.is_null() {
        reference["primaryScalerReplicas"] = overrides;
    }
    World::new(json!({"autoscalerRef": reference}))
}

fn source() -> Value {
    json!({
        "metadata": {
            "labels": {"team": "web", "kustomize.toolkit.fluxcd.io/name": "apps"},
            "annotations": {"note": "1"},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "minReplicas": 2,
            "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
        "status": {"currentReplicas": 2},
    })
}

const KIND: &crate::object::ObjectKind = &kinds::HORIZONTAL_POD_AUTOSCALER;

fn reconcile(world: &mut World, update: bool) -> usize {
    let changes = HorizontalPodAutoscaler.reconcile_primary(&world.subject(), update).unwrap();
    let count = changes.len();
    world.apply(changes);
    assert_eq!(HorizontalPodAutoscaler.reconcile_primary(&world.subject(), update), Ok(vec![]), "idempotent");
    count
}

#[test]
fn the_primary_gets_a_copy() {
    let mut world = world(Value::Null);
    world.put(KIND, "podinfo", source());
    assert_eq!(reconcile(&mut world, false), 1);
    let copy = world.json(KIND, "podinfo-primary");
    let mut spec = source()["spec"].clone();
    spec["scaleTargetRef"]["name"] = json!("podinfo-primary");
    assert_eq!(copy["spec"], spec);
    assert_eq!(copy["metadata"]["labels"], json!({"team": "web"}));
    assert_eq!(copy["metadata"].get("annotations"), None);
    assert_eq!(copy["metadata"]["ownerReferences"][0]["uid"], "canary-uid");
    assert_eq!(copy.get("status"), None);
}

#[test]
fn the_primarys_bounds_can_differ() {
    let mut world = world(json!({"minReplicas": 5, "maxReplicas": 10}));
    world.put(KIND, "podinfo", source());
    reconcile(&mut world, false);
    let spec = world.json(KIND, "podinfo-primary")["spec"].clone();
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(5), &json!(10)));
}

#[test]
fn it_is_only_updated_while_a_revision_is_promoted() {
    let mut world = world(Value::Null);
    world.put(KIND, "podinfo", source());
    reconcile(&mut world, false);
    world.edit(KIND, "podinfo-primary", json!({"metadata": {"labels": {"mine": "1"}}, "spec": {"somethingNew": 1}}));
    world.edit(
        KIND,
        "podinfo",
        json!({"metadata": {"labels": {"team": "ops"}}, "spec": {"maxReplicas": 8, "behavior": null}}),
    );
    assert_eq!(reconcile(&mut world, false), 0);
    assert_eq!(reconcile(&mut world, true), 1);
    let copy = world.json(KIND, "podinfo-primary");
    assert_eq!(copy["spec"]["maxReplicas"], 8);
    assert_eq!(copy["spec"].get("behavior"), None);
    assert_eq!(copy["spec"]["somethingNew"], 1);
    assert_eq!(copy["spec"]["scaleTargetRef"]["name"], "podinfo-primary");
    assert_eq!(copy["metadata"]["labels"], json!({"team": "ops", "mine": "1"}));
}

/// Flagger asks for `autoscaling/v2` whatever the reference says, and copies metrics as they are.
#[test]
fn any_version_is_meant_and_selectors_of_metrics_are_kept() {
    for version in ["autoscaling/v1", "autoscaling/v2beta2", "autoscaling/v2", "whatever"] {
        let reference = json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
        let mut world = World::new(json!({"autoscalerRef": reference}));
        let mut source = source();
        source["spec"]["metrics"] = json!([
            {"type": "Object", "object": {
                "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "podinfo"},
                "metric": {"name": "requests", "selector": {"matchLabels": {"app": "podinfo"}}},
                "target": {"type": "Value", "value": "10k"},
            }},
            {"type": "External", "external": {
                "metric": {"name": "queue", "selector": {"matchLabels": {"queue": "podinfo"}}},
                "target": {"type": "AverageValue", "averageValue": "30"},
            }},
        ]);
        let metrics = source["spec"]["metrics"].clone();
        world.put(KIND, "podinfo", source);
        reconcile(&mut world, false);
        let copy = world.json(KIND, "podinfo-primary");
        assert_eq!(copy["apiVersion"], "autoscaling/v2", "{version}");
        assert_eq!(copy["spec"]["metrics"], metrics);
    }
}

#[test]
fn one_replica_is_the_default() {
    let mut world = world(Value::Null);
    world.put(KIND, "podinfo", source());
    world.edit(KIND, "podinfo", json!({"spec": {"minReplicas": 1}}));
    reconcile(&mut world, false);
    world.edit(KIND, "podinfo", json!({"spec": {"minReplicas": null}}));
    assert_eq!(reconcile(&mut world, true), 0);
}

#[test]
fn a_missing_autoscaler_is_named_and_watched() {
    let world = world(Value::Null);
    let error = HorizontalPodAutoscaler.reconcile_primary(&world.subject(), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "HorizontalPodAutoscaler podinfo.test get query error: horizontalpodautoscalers.autoscaling \"podinfo\" not found"
    );
    assert!(world.was_asked_for(KIND, "podinfo") && world.was_asked_for(KIND, "podinfo-primary"));
}

#[test]
fn without_a_reference_there_is_nothing_to_do() {
    let world = World::new(json!({}));
    assert_eq!(super::super::reconcile_primary(&world.subject(), true), Ok(vec![]));
}
