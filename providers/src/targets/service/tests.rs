#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::testing::World;
use crate::{services, takeover};

const TARGET: ServiceTarget = ServiceTarget;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The Service `podinfo` as an API server holds it.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "labels": {"team": "web", "kustomize.toolkit.fluxcd.io/name": "apps"},
            "annotations": {LAST_APPLIED_ANNOTATION: "{}", "note": "1"},
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30100,
            "allocateLoadBalancerNodePorts": true, "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "selector": {"app": "podinfo", "version": "v1"},
            "ports": [{"name": "http", "port": 80, "targetPort": 9898, "protocol": "TCP", "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
    })
}

fn world() -> World {
    let mut world = World::new(json!({"targetRef": {"apiVersion": "v1", "kind": "Service"}}));
    world.put(&kinds::SERVICE, "podinfo", service());
    let changes = services::reconcile_sides(&world.subject()).unwrap();
    world.apply(changes);
    let changes = TARGET.apply_primary(&world.subject()).unwrap();
    world.apply(changes);
    world
}

fn spec(world: &World, name: &str) -> Value {
    world.json(&kinds::SERVICE, name)["spec"].clone()
}

fn select(world: &mut World, version: &str) {
    world.edit(&kinds::SERVICE, "podinfo", json!({"spec": {"selector": {"version": version}}}));
}

fn is_promoted(world: &World) -> bool {
    TARGET.observe_primary(&world.subject(), now()).unwrap().unwrap().matches_target
}

#[test]
fn copies_have_what_routes_and_nothing_that_is_the_targets_alone() {
    let world = world();
    let expected = json!({
        "type": "ClusterIP", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None", "selector": {"app": "podinfo", "version": "v1"},
        "ports": [{"name": "http", "port": 80, "targetPort": 9898, "protocol": "TCP"}],
    });
    for name in ["podinfo-canary", "podinfo-primary"] {
        assert_eq!(spec(&world, name), expected, "{name}");
        let metadata = &world.json(&kinds::SERVICE, name)["metadata"];
        assert_eq!(metadata["labels"], json!({"team": "web"}), "{name}");
        assert_eq!(metadata["annotations"], json!({"note": "1"}), "{name}");
        assert_eq!(metadata["ownerReferences"][0]["uid"], "canary-uid", "{name}");
    }
    assert!(is_promoted(&world));
    let mut headless = World::new(json!({"targetRef": {"apiVersion": "v1", "kind": "Service"}}));
    headless.put(
        &kinds::SERVICE,
        "podinfo",
        json!({"metadata": {}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
    );
    let changes = services::reconcile_sides(&headless.subject()).unwrap();
    headless.apply(changes);
    assert_eq!(spec(&headless, "podinfo-canary")["clusterIP"], "None");
}

/// Flagger writes the canary's copy again and again, and over what others added to it (Q33).
#[test]
fn q33_the_canarys_copy_is_written_when_the_target_changes_and_keeps_what_others_added() {
    let mut world = world();
    let others = json!({
        "metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}},
        "spec": {"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.8"], "theirs": true},
    });
    for name in ["podinfo-canary", "podinfo-primary"] {
        world.edit(&kinds::SERVICE, name, others.clone());
    }
    assert_eq!(services::reconcile_sides(&world.subject()), Ok(vec![]), "nothing has changed");
    let before = TARGET.observe(&world.subject(), now()).unwrap().revision;

    select(&mut world, "v2");
    assert_ne!(TARGET.observe(&world.subject(), now()).unwrap().revision, before);
    let changes = services::reconcile_sides(&world.subject()).unwrap();
    assert_eq!(changes.len(), 1);
    world.apply(changes);
    assert_eq!(spec(&world, "podinfo-canary")["selector"]["version"], "v2");
    assert_eq!(spec(&world, "podinfo-primary")["selector"]["version"], "v1", "it is not promoted yet");
    assert!(!is_promoted(&world));

    let revision = TARGET.observe(&world.subject(), now()).unwrap().revision;
    let changes = TARGET.promote(&world.subject(), &revision, &None).unwrap();
    world.apply(changes);
    assert!(is_promoted(&world));
    for name in ["podinfo-canary", "podinfo-primary"] {
        assert_eq!(spec(&world, name)["selector"]["version"], "v2", "{name}");
        assert_eq!(spec(&world, name)["clusterIP"], "10.0.0.8", "{name}");
        assert_eq!(spec(&world, name)["theirs"], true, "{name}");
        assert_eq!(world.json(&kinds::SERVICE, name)["metadata"]["labels"]["theirs"], "1", "{name}");
        assert_eq!(world.json(&kinds::SERVICE, name)["metadata"]["annotations"]["theirs"], "1", "{name}");
    }
    assert_eq!(TARGET.promote(&world.subject(), &revision, &None), Ok(vec![]), "promoting twice");
    let stale = TARGET.promote(&world.subject(), &before, &None).unwrap_err();
    assert!(matches!(stale, TargetError::Superseded { kind: "service", .. }), "{stale}");
}

#[test]
fn what_goes_from_the_target_goes_from_the_copies() {
    let mut world = world();
    let sticky = |config: Value| json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}});
    world.edit(&kinds::SERVICE, "podinfo", sticky(json!({"clientIP": {"timeoutSeconds": 60}})));
    let changes = services::reconcile_sides(&world.subject()).unwrap();
    world.apply(changes);
    assert_eq!(spec(&world, "podinfo-canary")["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 60);
    world.edit(&kinds::SERVICE, "podinfo", sticky(json!(null)));
    let changes = services::reconcile_sides(&world.subject()).unwrap();
    world.apply(changes);
    assert_eq!(spec(&world, "podinfo-canary").get("sessionAffinityConfig"), None);
}

/// An address or a node port is assigned anew when a service is made again; it is no other version of what it selects.
#[test]
fn what_the_api_server_assigns_is_no_revision() {
    let mut world = world();
    let before = TARGET.observe(&world.subject(), now()).unwrap().revision;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 9898, "protocol": "TCP", "nodePort": 31000}]);
    world.edit(&kinds::SERVICE, "podinfo", json!({"spec": {"clusterIP": "10.0.0.9", "ports": ports}}));
    assert_eq!(TARGET.observe(&world.subject(), now()).unwrap().revision, before);
    assert!(is_promoted(&world));
}

#[test]
fn the_apex_is_the_users_own() {
    let world = world();
    assert_eq!(services::reconcile_apex(&world.subject()), Ok(vec![]));
    assert_eq!(services::revert_apex(&world.subject()), []);
    assert_eq!(TARGET.scale(&world.subject(), Scale::Zero), Ok(vec![]));
}

#[test]
fn the_copies_of_a_former_canary_are_taken_over_once_each() {
    let mut world = world();
    world.canary.key.uid = "another-uid".into();
    let changes = takeover::take_over(&world.subject(), &[]);
    let mut names: Vec<&str> = changes.iter().map(|change| change.key.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["podinfo-canary", "podinfo-primary"]);
    world.apply(changes);
    assert_eq!(takeover::take_over(&world.subject(), &[]), []);
}
