#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

use serde_json::json;

use super::*;
use crate::testing::{World, deployment};

fn world(service: Value) -> World {
    let mut world = World::new(json!({"service": service}));
    world.put(&kinds::DEPLOYMENT, "podinfo", deployment());
    world
}

fn reconcile(world: &mut World) -> usize {
    let mut changes = reconcile_sides(&world.subject()).unwrap();
    changes.extend(reconcile_apex(&world.subject()).unwrap());
    let count = changes.len();
    world.apply(changes);
    assert_eq!(reconcile_sides(&world.subject()), Ok(vec![]), "idempotent");
    assert_eq!(reconcile_apex(&world.subject()), Ok(vec![]), "idempotent");
    count
}

fn service(world: &World, name: &str) -> Value {
    world.json(&kinds::SERVICE, name)
}

fn flux() -> Value {
    json!({"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "helm.toolkit.fluxcd.io/driftDetection": "disabled"})
}

#[test]
fn three_services_are_made() {
    let mut world = world(json!({"port": 80}));
    assert_eq!(reconcile(&mut world), 3);
    for (name, pods) in
        [("podinfo", "podinfo-primary"), ("podinfo-primary", "podinfo-primary"), ("podinfo-canary", "podinfo")]
    {
        let service = service(&world, name);
        let ports = json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}]);
        assert_eq!(service["spec"], json!({"type": "ClusterIP", "selector": {"app": pods}, "ports": ports}), "{name}");
        assert_eq!(service["metadata"]["labels"], json!({"app": name}));
        assert_eq!(service["metadata"]["annotations"], flux());
        assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "canary-uid");
    }
}

#[test]
fn every_setting_shows() {
    let mut world = world(json!({
        "name": "web", "port": 80, "portName": "grpc", "appProtocol": "grpc", "targetPort": "http", "headless": true,
        "trafficDistribution": "PreferClose", "portDiscovery": true,
        "canary": {"labels": {"side": "canary"}, "annotations": {"a": "b"}},
    }));
    world.edit(
        &kinds::DEPLOYMENT,
        "podinfo",
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "app", "ports": [
                {"name": "http", "containerPort": 9898},
                {"name": "grpc", "containerPort": 9999},
                {"name": "plain", "containerPort": 80},
            ]},
        ]}}}}),
    );
    reconcile(&mut world);
    let service = service(&world, "web-canary");
    let expected = json!({
        "type": "ClusterIP",
        "clusterIP": "None",
        "trafficDistribution": "PreferClose",
        "selector": {"app": "podinfo"},
        "ports": [
            {"name": "grpc", "protocol": "TCP", "port": 80, "targetPort": "http", "appProtocol": "grpc"},
            // The name is taken, and port 80 is served already.
            {"name": "tcp-9999", "protocol": "TCP", "port": 9999, "targetPort": 9999},
        ],
    });
    assert_eq!(service["spec"], expected);
    assert_eq!(service["metadata"]["labels"], json!({"app": "web-canary", "side": "canary"}));
    assert_eq!(service["metadata"]["annotations"]["a"], "b");
}

#[test]
fn ports_and_selector_are_repaired_and_the_rest_is_left() {
    let mut world = world(json!({"port": 80}));
    reconcile(&mut world);
    let mine = json!({"spec": {
        "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "type": "NodePort",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": 30001}],
    }});
    world.edit(&kinds::SERVICE, "podinfo-canary", mine);
    assert_eq!(reconcile(&mut world), 0, "node ports are the cluster's");
    let wrong = json!({"spec": {
        "selector": {"app": "podinfo-primary", "tier": "x"},
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080, "targetPort": 80, "nodePort": 30001}],
    }});
    world.edit(&kinds::SERVICE, "podinfo-canary", wrong);
    assert_eq!(reconcile(&mut world), 1);
    let service = service(&world, "podinfo-canary");
    assert_eq!(service["spec"]["selector"], json!({"app": "podinfo"}));
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(service["spec"]["type"], "NodePort");
}

#[test]
fn the_order_of_ports_is_no_drift() {
    let mut world = world(json!({"port": 80, "targetPort": 9898, "portDiscovery": true}));
    world.edit(
        &kinds::DEPLOYMENT,
        "podinfo",
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "app", "ports": [{"name": "metrics", "containerPort": 9797}]},
        ]}}}}),
    );
    reconcile(&mut world);
    let mut ports = service(&world, "podinfo-canary")["spec"]["ports"].clone();
    ports.as_array_mut().unwrap().reverse();
    world.edit(&kinds::SERVICE, "podinfo-canary", json!({"spec": {"ports": ports}}));
    assert_eq!(reconcile(&mut world), 0);
}

#[test]
fn metadata_of_owned_services_is_kept_clean() {
    let mut world = world(json!({
        "port": 80,
        "apex": {"labels": {"team": "web", "absent": "1"}},
        "unmanagedMetadata": {"labels": ["argocd", "absent"], "annotations": ["cloud/neg"]},
    }));
    reconcile(&mut world);
    let edit = json!({"metadata": {
        "labels": {"argocd": "x", "stray": "1", "team": "changed"},
        "annotations": {"cloud/neg": "{}", "stray": "1"},
    }});
    world.edit(&kinds::SERVICE, "podinfo", json!({"metadata": {"labels": {"absent": null}}}));
    world.edit(&kinds::SERVICE, "podinfo", edit);
    assert_eq!(reconcile(&mut world), 1);
    let metadata = service(&world, "podinfo")["metadata"].clone();
    assert_eq!(metadata["labels"], json!({"app": "podinfo", "team": "web", "argocd": "x"}));
    assert_eq!(metadata["annotations"].get("stray"), None);
    assert_eq!(metadata["annotations"]["cloud/neg"], "{}");
}

#[test]
fn a_service_of_the_user_is_adopted_with_care() {
    let mut world = world(json!({"port": 80, "apex": {"labels": {"team": "web"}}}));
    let users = json!({
        "metadata": {"labels": {"mine": "1"}, "annotations": {"mine": "1"}},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.0.0.2", "externalTrafficPolicy": "Local",
            "selector": {"app": "podinfo"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80, "nodePort": 30002}],
        },
    });
    world.put(&kinds::SERVICE, "podinfo", users.clone());
    assert_eq!(reconcile(&mut world), 3);
    let adopted = service(&world, "podinfo");
    assert_eq!(adopted["spec"]["selector"], json!({"app": "podinfo-primary"}));
    assert_eq!(adopted["spec"]["ports"], users["spec"]["ports"]);
    assert_eq!(adopted["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(adopted["metadata"]["labels"], json!({"mine": "1"}), "labels of others are not touched");
    assert_eq!(adopted["metadata"]["annotations"]["mine"], "1");
    assert_eq!(adopted["metadata"]["annotations"]["helm.toolkit.fluxcd.io/driftDetection"], "disabled");
    assert_eq!(adopted["metadata"].get("ownerReferences"), None, "it does not die with the canary");
}

#[test]
fn service_targets_bring_their_own() {
    let mut world = World::new(json!({"targetRef": {"apiVersion": "v1", "kind": "Service", "name": "podinfo"}}));
    let users = json!({"metadata": {}, "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]}});
    world.put(&kinds::SERVICE, "podinfo", users.clone());
    assert_eq!(reconcile(&mut world), 1, "the canary's copy");
    assert_eq!(world.json(&kinds::SERVICE, "podinfo")["spec"], users["spec"], "the user's own is not touched");
    assert!(!world.exists(&kinds::SERVICE, "podinfo-primary"), "it is the primary, which is made later");
}

fn adopted(annotations: Value) -> World {
    let mut world = world(json!({"port": 80}));
    let service = json!({
        "metadata": {"annotations": annotations},
        "spec": {"selector": {"app": "podinfo", "tier": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 80}]},
    });
    world.put(&kinds::SERVICE, "podinfo", service);
    reconcile(&mut world);
    assert_eq!(service_selector(&world), json!({"app": "podinfo-primary"}));
    world
}

fn service_selector(world: &World) -> Value {
    service(world, "podinfo")["spec"]["selector"].clone()
}

fn give_back(world: &mut World) {
    world.apply(revert_apex(&world.subject()));
    assert_eq!(revert_apex(&world.subject()), [], "idempotent");
}

#[test]
fn an_adopted_service_selects_the_targets_pods_again() {
    let mut world = adopted(json!({"mine": "1"}));
    give_back(&mut world);
    assert_eq!(service_selector(&world), json!({"app": "podinfo"}));
    assert_eq!(service(&world, "podinfo")["metadata"]["annotations"], json!({"mine": "1"}));
}

#[test]
fn an_adopted_service_gets_back_what_kubectl_applied() {
    let applied = json!({"spec": {"selector": {"app": "podinfo", "tier": "web"}}}).to_string();
    let mut world = adopted(json!({"kubectl.kubernetes.io/last-applied-configuration": applied}));
    give_back(&mut world);
    assert_eq!(service_selector(&world), json!({"app": "podinfo", "tier": "web"}));
}

/// Q8: Flagger fails on every one of these.
#[test]
fn q8_a_service_is_given_back_although_the_target_is_gone() {
    let mut world = adopted(json!({}));
    world.remove(&kinds::DEPLOYMENT, "podinfo");
    give_back(&mut world);
    assert_eq!(service_selector(&world), json!({"app": "podinfo"}));
    world.remove(&kinds::SERVICE, "podinfo");
    give_back(&mut world);
}

#[test]
fn a_service_that_goes_with_the_canary_is_left_alone() {
    let mut world = world(json!({"port": 80}));
    reconcile(&mut world);
    assert_eq!(revert_apex(&world.subject()), []);
}
