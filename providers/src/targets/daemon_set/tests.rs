#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aviary_rollout::Readiness;

use super::*;
use crate::takeover;
use crate::testing::{World, deployment};

const TARGET: DaemonSetTarget = DaemonSetTarget;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The DaemonSet `podinfo` as an API server holds it.
fn daemon_set() -> Value {
    let mut object = deployment();
    object["kind"] = "DaemonSet".into();
    object["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "7".into();
    let spec = object["spec"].as_object_mut().unwrap();
    spec.retain(|key, _| !["replicas", "strategy", "paused", "progressDeadlineSeconds"].contains(&key.as_str()));
    spec.insert("updateStrategy".into(), json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}));
    object["status"] = json!({
        "observedGeneration": 1, "desiredNumberScheduled": 4, "updatedNumberScheduled": 4, "numberAvailable": 4,
    });
    object
}

fn world() -> World {
    let mut world = World::new(json!({"targetRef": {"kind": "DaemonSet"}}));
    world.put(&kinds::DAEMON_SET, "podinfo", daemon_set());
    world
}

fn observed(world: &World) -> TargetView {
    TARGET.observe(&world.subject(), now()).unwrap()
}

fn scale(world: &mut World, scale: Scale) {
    let changes = TARGET.scale(&world.subject(), scale).unwrap();
    world.apply(changes);
    assert_eq!(TARGET.scale(&world.subject(), scale), Ok(vec![]), "scaling twice");
}

fn selector(world: &World, name: &str) -> Value {
    world.json(&kinds::DAEMON_SET, name)["spec"]["template"]["spec"]["nodeSelector"].clone()
}

#[test]
fn the_switch_is_no_part_of_the_revision() {
    for own in [json!(null), json!({"disk": "fast"})] {
        let mut world = world();
        world.edit(&kinds::DAEMON_SET, "podinfo", json!({"spec": {"template": {"spec": {"nodeSelector": own}}}}));
        let revision = observed(&world).revision;
        scale(&mut world, Scale::Zero);
        let zero = observed(&world);
        assert!(zero.scaled_to_zero);
        assert_eq!((zero.revision, zero.available), (revision.clone(), 0));
        assert_eq!(selector(&world, "podinfo")[SCALE_TO_ZERO_SELECTOR], "true");
        scale(&mut world, Scale::Up);
        assert!(!observed(&world).scaled_to_zero);
        assert_eq!(observed(&world).revision, revision);
        let left = selector(&world, "podinfo");
        assert!(left == own || (own.is_null() && left == json!({})), "{left}");
    }
}

#[test]
fn a_primary_never_has_the_switch() {
    let mut world = world();
    world.edit(
        &kinds::DAEMON_SET,
        "podinfo",
        json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "fast", SCALE_TO_ZERO_SELECTOR: "true"}}}}}),
    );
    let changes = TARGET.apply_primary(&world.subject()).unwrap();
    world.apply(changes);
    assert_eq!(selector(&world, "podinfo-primary"), json!({"disk": "fast"}));
    let primary = world.json(&kinds::DAEMON_SET, "podinfo-primary");
    assert_eq!(primary["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1);
    assert_eq!(primary["spec"]["selector"], json!({"matchLabels": {"app": "podinfo-primary"}}));
    assert_eq!(primary["spec"].get("replicas"), None);
    assert_eq!(primary["metadata"]["annotations"].get("deprecated.daemonset.template.generation"), None);
    assert!(TARGET.observe_primary(&world.subject(), now()).unwrap().unwrap().matches_target);

    let mut containers = world.json(&kinds::DAEMON_SET, "podinfo")["spec"]["template"]["spec"]["containers"].clone();
    containers[0]["image"] = "podinfo:2".into();
    world.edit(&kinds::DAEMON_SET, "podinfo", json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    let view = observed(&world);
    let changes = TARGET.promote(&world.subject(), &view.revision, &view.configs).unwrap();
    world.apply(changes);
    assert_eq!(selector(&world, "podinfo-primary"), json!({"disk": "fast"}));
    let primary = world.json(&kinds::DAEMON_SET, "podinfo-primary");
    assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], "podinfo:2");
    assert_eq!(TARGET.promote(&world.subject(), &view.revision, &view.configs), Ok(vec![]), "promoting twice");
    let stale = TARGET.promote(&world.subject(), "another", &view.configs).unwrap_err();
    assert!(matches!(stale, TargetError::Superseded { kind: "daemonset", .. }), "{stale}");
}

#[test]
fn a_strategy_that_keeps_old_pods_is_refused() {
    let mut world = world();
    let strategy = |name: &str| json!({"spec": {"updateStrategy": {"type": name, "rollingUpdate": null}}});
    world.edit(&kinds::DAEMON_SET, "podinfo", strategy("OnDelete"));
    let text = "daemonset podinfo.test must have RollingUpdate strategy but have OnDelete";
    assert_eq!(TARGET.observe(&world.subject(), now()).unwrap_err().to_string(), text);
    assert_eq!(TARGET.apply_primary(&world.subject()).unwrap_err().to_string(), text);
    assert!(TARGET.returned(&world.subject(), now()).is_some(), "it can be given back nevertheless");
    world.edit(&kinds::DAEMON_SET, "podinfo", strategy("RollingUpdate"));
    observed(&world);
}

#[test]
fn readiness_has_flaggers_texts() {
    let mut world = world();
    let waiting = |reason: &str| {
        let reason = format!("canary daemonset podinfo.test not ready: waiting for rollout to finish: {reason}");
        Readiness::Waiting { reason, deadline: None }
    };
    let status = |updated: u32, available: u32| json!({"metadata": {"generation": 1}, "status": {"updatedNumberScheduled": updated, "numberAvailable": available}});
    assert_eq!(observed(&world).readiness, Readiness::Ready);
    world.edit(&kinds::DAEMON_SET, "podinfo", json!({"metadata": {"generation": 2}}));
    assert_eq!(observed(&world).readiness, waiting("observed daemonset generation less than desired generation"));
    world.edit(&kinds::DAEMON_SET, "podinfo", status(3, 4));
    assert_eq!(observed(&world).readiness, waiting("3 out of 4 new pods have been updated"));
    world.edit(&kinds::DAEMON_SET, "podinfo", status(4, 1));
    assert_eq!(observed(&world).readiness, waiting("1 of 4 (readyThreshold 100%) updated pods are available"));
    world.canary.analysis.canary_ready_threshold = 50;
    assert_eq!(observed(&world).readiness, waiting("1 of 2 (readyThreshold 50%) updated pods are available"));
    world.edit(&kinds::DAEMON_SET, "podinfo", status(4, 2));
    assert_eq!(observed(&world).readiness, Readiness::Ready);
}

#[test]
fn names_label_and_ports_are_found_as_in_a_deployment() {
    let mut world = world();
    assert_eq!(TARGET.selector(&world.subject()).unwrap().value, "podinfo");
    world.canary.service.port_discovery = true;
    let ports = TARGET.discovered_ports(&world.subject()).unwrap();
    assert_eq!(ports, [DiscoveredPort { name: "http".into(), port: 9898 }]);
    world.remove(&kinds::DAEMON_SET, "podinfo");
    let error = TARGET.observe(&world.subject(), now()).unwrap_err().to_string();
    assert_eq!(error, "daemonset podinfo.test get query error: daemonsets.apps \"podinfo\" not found");
}

#[test]
fn the_primary_of_a_former_canary_is_taken_over() {
    let mut world = world();
    let changes = TARGET.apply_primary(&world.subject()).unwrap();
    world.apply(changes);
    world.canary.key.uid = "another-uid".into();
    let changes = takeover::take_over(&world.subject(), &[]);
    assert_eq!(
        changes.iter().map(|change| (change.key.kind, change.key.name.as_str())).collect::<Vec<_>>(),
        [(&kinds::DAEMON_SET, "podinfo-primary")]
    );
    world.apply(changes);
    let owner = world.json(&kinds::DAEMON_SET, "podinfo-primary")["metadata"]["ownerReferences"][0].clone();
    assert_eq!(owner["uid"], "another-uid");
    assert_eq!(takeover::take_over(&world.subject(), &[]), []);
}
