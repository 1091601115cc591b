//! Single decisions that a run through a whole rollout would not pin down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

const OLD: u64 = 1;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn spec(replicas: i32, surge: &Value, unavailable: &Value) -> DeploymentSpec {
    DeploymentSpec::parse(&json!({
        "metadata": {"name": "app", "generation": 1},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"spec": {"containers": [{"image": "app:2"}]}},
        },
    }))
}

/// A set whose pods all exist, of which some are available. `desired` is the Deployment's size when it was last scaled.
fn set(name: &str, hash: u64, revision: i64, replicas: i32, available: i32, desired: i32, max: i32) -> SetView {
    SetView {
        name: name.to_owned(),
        template_hash: hash,
        created: at(revision),
        deleting: false,
        revision,
        replicas,
        min_ready: 0,
        desired_annotation: Some(desired),
        max_annotation: Some(max),
        status: SetStatus { replicas, ready: available, available, terminating: 0 },
        settled: true,
        failure: None,
    }
}

fn scale(name: &str, from: i32, to: i32) -> Operation {
    Operation::Scale { name: name.to_owned(), from, to }
}

/// The status of a Deployment whose pods are all available.
fn settled(replicas: i32) -> DeploymentStatus {
    DeploymentStatus {
        observed_generation: 1,
        replicas,
        updated_replicas: replicas,
        ready_replicas: replicas,
        available_replicas: replicas,
        ..DeploymentStatus::default()
    }
}

fn decide(spec: &DeploymentSpec, sets: Vec<SetView>) -> Vec<Operation> {
    plan(spec, &DeploymentStatus::default(), sets, at(100)).operations
}

#[test]
fn a_rollout_that_is_resized_keeps_its_proportions() {
    // The example of the Kubernetes documentation ("Proportional scaling"): 8 + 5 of 10 become 11 + 7 of 15.
    let spec = spec(15, &json!(3), &json!(2));
    let sets = vec![set("old", OLD, 1, 8, 8, 10, 13), set("new", spec.template_hash, 2, 5, 0, 10, 13)];
    assert_eq!(decide(&spec, sets), [scale("old", 8, 11), scale("new", 5, 7)]);
}

#[test]
fn scaling_down_in_mid_rollout_shares_the_loss_and_zero_takes_everything() {
    let smaller = spec(5, &json!(3), &json!(2));
    let sets = |hash| vec![set("old", OLD, 1, 8, 8, 10, 13), set("new", hash, 2, 5, 0, 10, 13)];
    let operations = decide(&smaller, sets(smaller.template_hash));
    assert_eq!(operations, [scale("old", 8, 5), scale("new", 5, 3)]);
    let zero = spec(0, &json!(3), &json!(2));
    let operations = decide(&zero, sets(zero.template_hash));
    assert_eq!(operations, [scale("old", 8, 0), scale("new", 5, 0)]);
}

#[test]
fn unhealthy_old_pods_go_before_healthy_ones() {
    // Ten wanted, two may be missing: 13 exist, the 5 new ones are not available, so no healthy old pod may go yet.
    let spec = spec(10, &json!(3), &json!(2));
    let new = || set("new", spec.template_hash, 3, 5, 0, 10, 13);
    let healthy = vec![set("old", OLD, 1, 8, 8, 10, 13), new()];
    assert_eq!(decide(&spec, healthy), []);
    let mixed = vec![set("old", OLD, 1, 4, 4, 10, 13), set("broken", 2, 2, 4, 1, 10, 13), new()];
    assert_eq!(decide(&spec, mixed), [], "13 - 8 - 5 leave no room even for broken pods");
    let new = set("new", spec.template_hash, 3, 5, 3, 10, 13);
    let mixed = vec![set("old", OLD, 1, 4, 4, 10, 13), set("broken", 2, 2, 4, 1, 10, 13), new];
    assert_eq!(decide(&spec, mixed), [scale("broken", 4, 1)]);
}

#[test]
fn old_sets_go_by_age_as_far_as_availability_allows() {
    let spec = spec(10, &json!(2), &json!(3));
    let sets = vec![
        set("younger", 2, 2, 4, 4, 10, 12),
        set("older", OLD, 1, 4, 4, 10, 12),
        set("new", spec.template_hash, 3, 4, 4, 10, 12),
    ];
    assert_eq!(decide(&spec, sets), [scale("older", 4, 0), scale("younger", 4, 3)]);
}

#[test]
fn a_new_set_starts_within_the_surge() {
    let spec = spec(4, &json!("25%"), &json!(0));
    let plan = plan(&spec, &settled(4), vec![set("old", OLD, 7, 4, 4, 4, 5)], at(100));
    let name = spec.new_set_name(0);
    assert_eq!(plan.operations, [Operation::Create { name: name.clone(), revision: 8, replicas: 1 }]);
    assert_eq!(plan.revision, Some(8));
    let progressing = plan.status.condition("Progressing").unwrap();
    assert_eq!(progressing.reason, "NewReplicaSetCreated");
    assert_eq!(progressing.message, format!("Created new replica set \"{name}\""));
    assert_eq!(plan.wake, Some(at(701)), "ten minutes and the second that Kubernetes adds");
}

#[test]
fn a_set_of_the_template_is_taken_over_and_renumbered() {
    let spec = spec(2, &json!(1), &json!(0));
    let sets = vec![set("b", OLD, 5, 2, 2, 2, 3), set("a", spec.template_hash, 4, 0, 0, 2, 3)];
    let plan = plan(&spec, &settled(2), sets, at(100));
    assert_eq!(plan.operations, [Operation::Refresh { name: "a".into(), revision: 6 }, scale("a", 0, 1)]);
    let progressing = plan.status.condition("Progressing").unwrap();
    assert_eq!(
        (progressing.reason.as_str(), progressing.message.as_str()),
        ("FoundNewReplicaSet", "Found new replica set \"a\"")
    );
}

#[test]
fn without_a_deadline_there_is_no_progress_condition_and_no_timer() {
    let mut spec = spec(2, &json!(1), &json!(0));
    spec.progress_deadline = None;
    let plan = plan(&spec, &DeploymentStatus::default(), Vec::new(), at(100));
    assert!(plan.status.condition("Progressing").is_none());
    assert!(plan.status.condition("Available").is_some());
    assert_eq!(plan.wake, None);
}

#[test]
fn a_deployment_that_is_being_deleted_only_reports() {
    let mut spec = spec(2, &json!(1), &json!(0));
    spec.deleting = true;
    assert_eq!(decide(&spec, vec![set("old", OLD, 1, 2, 2, 2, 3)]), []);
}

#[test]
fn a_count_that_is_older_than_the_size_moves_nothing() {
    // Eight replicas of one template became four of another: the old set was made smaller and has not counted its pods yet.
    let spec = spec(4, &json!(1), &json!(1));
    let new = || set("new", spec.template_hash, 2, 1, 0, 4, 5);
    let stale = SetView { replicas: 4, ..set("old", OLD, 1, 8, 8, 4, 5) };
    assert_eq!(decide(&spec, vec![stale, new()]), []);
    let counted = set("old", OLD, 1, 4, 4, 4, 5);
    assert_eq!(decide(&spec, vec![counted, new()]), [scale("old", 4, 3)]);
    let shrunk = SetView { replicas: 1, ..set("new", spec.template_hash, 2, 4, 4, 4, 5) };
    assert_eq!(decide(&spec, vec![set("old", OLD, 1, 3, 3, 4, 5), shrunk]), [scale("new", 1, 2)]);
}
