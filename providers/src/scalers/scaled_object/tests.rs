#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::testing::World;

const PAUSED: &str = "autoscaling.keda.sh/paused-replicas";

fn world(more: &Value) -> World {
    let mut reference = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
    for (key, value) in more.as_object().into_iter().flatten() {
        reference[key] = value.clone();
    }
    let mut world = World::new(json!({"autoscalerRef": reference}));
    world.put(&kinds::SCALED_OBJECT, "podinfo-so", source_object());
    world
}

fn source_object() -> Value {
    json!({
        "metadata": {
            "labels": {
                "team": "web",
                "scaledobject.keda.sh/name": "podinfo-so",
                "kustomize.toolkit.fluxcd.io/name": "apps",
            },
            "annotations": {
                "scaledobject.keda.sh/transfer-hpa-ownership": "true",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
        "spec": {
            "scaleTargetRef": {"name": "podinfo", "envSourceContainerName": "podinfod"},
            "pollingInterval": 10,
            "cooldownPeriod": 20,
            "minReplicaCount": 1,
            "maxReplicaCount": 3,
            "advanced": {"horizontalPodAutoscalerConfig": {"name": "podinfo-hpa", "behavior": {"scaleDown": {}}}},
            "fallback": {"failureThreshold": 3, "replicas": 2},
            "initialCooldownPeriod": 60,
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {"serverAddress": "http://podinfo:9090", "query": "sum(rate(x{app=\"podinfo\"}[30s]))", "threshold": "5"},
                },
                {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}},
            ],
        },
        "status": {"hpaName": "podinfo-hpa"},
    })
}

fn reconcile(world: &mut World, update: bool) -> usize {
    let changes = ScaledObject.reconcile_primary(&world.subject(), update).unwrap();
    let count = changes.len();
    world.apply(changes);
    assert_eq!(ScaledObject.reconcile_primary(&world.subject(), update), Ok(vec![]), "idempotent");
    count
}

fn primary(world: &World) -> Value {
    world.json(&kinds::SCALED_OBJECT, "podinfo-so-primary")
}

#[test]
fn the_primary_gets_a_copy_that_asks_about_itself() {
    let mut world = world(&json!({}));
    assert_eq!(reconcile(&mut world, false), 1);
    let copy = primary(&world);
    let mut spec = source_object()["spec"].clone();
    spec["scaleTargetRef"]["name"] = json!("podinfo-primary");
    spec["advanced"]["horizontalPodAutoscalerConfig"]["name"] = json!("podinfo-hpa-primary");
    spec["triggers"][0]["metadata"]["query"] = json!("sum(rate(x{app=\"podinfo-primary\"}[30s]))");
    assert_eq!(copy["spec"], spec, "and everything else as it is, the address of the server too");
    assert_eq!(copy["metadata"]["labels"], json!({"team": "web"}));
    let annotations = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    assert_eq!(copy["metadata"]["annotations"], annotations);
    assert_eq!(copy["metadata"]["ownerReferences"][0]["uid"], "canary-uid");
    assert_eq!(copy.get("status"), None);
}

#[test]
fn the_primarys_bounds_and_queries_can_be_given() {
    let mut world = world(&json!({
        "primaryScalerReplicas": {"minReplicas": 2, "maxReplicas": 15},
        "primaryScalerQueries": {"requests": "sum(y)", "": "never"},
    }));
    let trigger = |name: &str| {
        let mut trigger = json!({"type": "prometheus", "metadata": {"query": "sum(x{app=\"podinfo\"})"}});
        if !name.is_empty() {
            trigger["name"] = json!(name);
        }
        trigger
    };
    world.edit(
        &kinds::SCALED_OBJECT,
        "podinfo-so",
        json!({"spec": {"triggers": [trigger(""), trigger("requests"), trigger("other")]}}),
    );
    reconcile(&mut world, false);
    let spec = primary(&world)["spec"].clone();
    assert_eq!((&spec["minReplicaCount"], &spec["maxReplicaCount"]), (&json!(2), &json!(15)));
    let query = |index: usize| spec["triggers"][index]["metadata"]["query"].as_str().unwrap().to_owned();
    let derived = "sum(x{app=\"podinfo-primary\"})";
    assert_eq!([query(0), query(1), query(2)], [derived, "sum(y)", derived], "those that are not named are derived");
}

/// Flagger replaces labels and annotations by those of the primary that fit `--include-label-prefix`.
#[test]
fn it_is_updated_while_a_revision_is_promoted_and_keeps_what_others_wrote() {
    let mut world = world(&json!({}));
    reconcile(&mut world, false);
    world.edit(
        &kinds::SCALED_OBJECT,
        "podinfo-so-primary",
        json!({"metadata": {
            "labels": {"mine": "1", "scaledobject.keda.sh/name": "podinfo-so-primary"},
            "annotations": {"mine": "1"},
        }}),
    );
    world.edit(
        &kinds::SCALED_OBJECT,
        "podinfo-so",
        json!({"metadata": {"labels": {"team": "ops"}}, "spec": {"pollingInterval": 30, "fallback": null}}),
    );
    assert_eq!(reconcile(&mut world, false), 0);
    assert_eq!(reconcile(&mut world, true), 1);
    let copy = primary(&world);
    assert_eq!((&copy["spec"]["pollingInterval"], copy["spec"].get("fallback")), (&json!(30), None));
    assert_eq!(copy["spec"]["scaleTargetRef"]["name"], "podinfo-primary");
    let labels = json!({"team": "ops", "mine": "1", "scaledobject.keda.sh/name": "podinfo-so-primary"});
    assert_eq!(copy["metadata"]["labels"], labels, "KEDA's own label is left to KEDA");
    let annotations = json!({"mine": "1", "scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    assert_eq!(copy["metadata"]["annotations"], annotations);
}

#[test]
fn q25_a_paused_target_does_not_pause_the_primary() {
    let mut world = world(&json!({}));
    world.edit(&kinds::SCALED_OBJECT, "podinfo-so", json!({"metadata": {"annotations": {PAUSED: "0"}}}));
    reconcile(&mut world, false);
    assert_eq!(primary(&world)["metadata"]["annotations"].get(PAUSED), None);
    // Flagger has left one behind; and a number of pods is somebody's wish.
    for (found, kept) in [("0", None), ("4", Some("4"))] {
        world.edit(&kinds::SCALED_OBJECT, "podinfo-so-primary", json!({"metadata": {"annotations": {PAUSED: found}}}));
        reconcile(&mut world, true);
        assert_eq!(primary(&world)["metadata"]["annotations"].get(PAUSED).and_then(Value::as_str), kept);
    }
}

#[test]
fn the_target_is_paused_and_resumed() {
    let mut world = world(&json!({}));
    assert_eq!(ScaledObject.is_paused(&world.subject()), Some(false));
    for paused in [true, false] {
        let changes = ScaledObject.pause(&world.subject(), paused).unwrap();
        assert_eq!(changes.len(), 1);
        world.apply(changes);
        assert_eq!(ScaledObject.is_paused(&world.subject()), Some(paused));
        assert_eq!(ScaledObject.pause(&world.subject(), paused), Ok(vec![]), "idempotent");
        let annotations = world.json(&kinds::SCALED_OBJECT, "podinfo-so")["metadata"]["annotations"].clone();
        assert_eq!(annotations.get(PAUSED).and_then(Value::as_str), paused.then_some("0"));
        assert_eq!(annotations["scaledobject.keda.sh/transfer-hpa-ownership"], "true");
    }
    world.edit(&kinds::SCALED_OBJECT, "podinfo-so", json!({"metadata": {"annotations": {PAUSED: "2"}}}));
    assert_eq!(ScaledObject.is_paused(&world.subject()), Some(false), "it has pods");
    assert_eq!(ScaledObject.pause(&world.subject(), false), Ok(vec![]), "a number that somebody else wants");
}

#[test]
fn a_missing_scaled_object_is_named() {
    let mut world = world(&json!({}));
    world.remove(&kinds::SCALED_OBJECT, "podinfo-so");
    let error = ScaledObject.reconcile_primary(&world.subject(), false).unwrap_err().to_string();
    assert_eq!(
        error,
        "Keda ScaledObject podinfo-so.test get query error: scaledobjects.keda.sh \"podinfo-so\" not found"
    );
    assert!(world.was_asked_for(&kinds::SCALED_OBJECT, "podinfo-so"), "its appearance wakes the canary");
    assert!(world.was_asked_for(&kinds::SCALED_OBJECT, "podinfo-so-primary"));
    assert_eq!(ScaledObject.is_paused(&world.subject()), None);
}

#[test]
fn a_canary_starts_with_the_fewest_replicas() {
    let mut world = world(&json!({}));
    assert_eq!(ScaledObject.min_replicas(&world.subject()), Some(1));
    world.edit(&kinds::SCALED_OBJECT, "podinfo-so", json!({"spec": {"minReplicaCount": null}}));
    assert_eq!(ScaledObject.min_replicas(&world.subject()), None);
}
