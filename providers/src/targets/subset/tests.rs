#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::testing::{World, birdwatch};

fn rule(production: &str, canary: &str) -> Value {
    json!({"metadata": {"name": "aleph"}, "spec": {
        "host": "aleph.test.svc.cluster.local",
        "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}},
        "subsets": [
            {"name": "production", "labels": {"version": production, "tier": "web"}},
            {"name": "canary", "labels": {"version": canary}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
            {"name": "of-others", "labels": {"version": "v01"}},
        ],
    }})
}

fn deployment(name: &str, labels: &Value, available: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"template": {"metadata": {"labels": labels}}},
        "status": {"availableReplicas": available}})
}

/// Version v04 is tried, v03 is in production.
fn world(canary: &str) -> World {
    let mut world = World::of(birdwatch(json!({})));
    world.put(&kinds::DESTINATION_RULE, "aleph", rule("v03", canary));
    world.put(&kinds::SERVICE, "aleph", json!({"metadata": {"name": "aleph"}, "spec": {"selector": {"app": "aleph"}}}));
    let labels = |version: &str| json!({"app": "aleph", "version": version, "tier": "web"});
    world.put(&kinds::DEPLOYMENT, "aleph-v03", deployment("aleph-v03", &labels("v03"), 3));
    world.put(&kinds::DEPLOYMENT, "aleph-v04", deployment("aleph-v04", &labels("v04"), 2));
    let others = json!({"app": "beth", "version": "v04", "tier": "web"});
    world.put(&kinds::DEPLOYMENT, "beth-v04", deployment("beth-v04", &others, 7));
    world
}

fn target(world: &World) -> TargetView {
    SubsetTarget.observe(&world.subject(), Timestamp::UNIX_EPOCH).unwrap()
}

fn production(world: &World) -> PrimaryView {
    SubsetTarget.observe_primary(&world.subject(), Timestamp::UNIX_EPOCH).unwrap().unwrap()
}

#[test]
fn pods_are_those_of_the_service_with_the_labels_of_the_subset() {
    let world = world("v04");
    assert_eq!((target(&world).available, production(&world).available), (2, 3));
    assert_eq!(target(&world).revision, "v04");
    assert!(!production(&world).matches_target);
}

#[test]
fn a_version_that_is_not_behind_its_subset_serves_nobody() {
    let view = target(&world("v02"));
    assert_eq!((view.scaled_to_zero, view.available), (true, 0));
}

#[test]
fn only_the_label_changes() {
    let mut world = world("v02");
    let before = world.json(&kinds::DESTINATION_RULE, "aleph");
    world.apply(SubsetTarget.scale(&world.subject(), Scale::Up).unwrap());
    assert_eq!(SubsetTarget.scale(&world.subject(), Scale::Up), Ok(Vec::new()));
    let mut expected = before["spec"].clone();
    expected["subsets"][1]["labels"]["version"] = json!("v04");
    assert_eq!(world.json(&kinds::DESTINATION_RULE, "aleph")["spec"], expected);
    assert!(!target(&world).scaled_to_zero);

    world.apply(SubsetTarget.promote(&world.subject(), "v04", &None).unwrap());
    expected["subsets"][0]["labels"]["version"] = json!("v04");
    assert_eq!(world.json(&kinds::DESTINATION_RULE, "aleph")["spec"], expected);
    assert!(production(&world).matches_target);
    for scale in [Scale::Zero, Scale::Restore] {
        assert_eq!(SubsetTarget.scale(&world.subject(), scale), Ok(Vec::new()), "no workload is touched");
    }
}

#[test]
fn a_version_that_was_not_analysed_is_not_promoted() {
    let refused = SubsetTarget.promote(&world("v04").subject(), "v03", &None);
    assert!(matches!(refused, Err(TargetError::Superseded { .. })), "{refused:?}");
}

#[test]
fn what_is_missing_is_told() {
    let mut world = world("v04");
    world.put(&kinds::DEPLOYMENT, "aleph-v04", deployment("aleph-v04", &json!({"app": "aleph"}), 2));
    let expected = "subset canary not ready: no available pods of service aleph with version=v04";
    assert_eq!(target(&world).readiness, Readiness::Waiting { reason: expected.into(), deadline: None });

    let mut rule = rule("v03", "v04");
    rule["spec"]["subsets"].as_array_mut().unwrap().remove(0);
    world.put(&kinds::DESTINATION_RULE, "aleph", rule);
    let text = SubsetTarget.observe(&world.subject(), Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert_eq!(text, "destinationrule aleph.test cannot be used: spec.subsets has none named production; add it");
}
