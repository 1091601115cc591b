//! The same suite against a real kube-apiserver: what a test says of the embedded one has to be true of that, too.

use std::path::Path;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use serde_json::json;

use crate::bench::{self, Bench};
use crate::support::{World, object};

/// Tests that say something of the embedded cluster alone, and why. The same list, in the same words, is in `sim/README.md`. A prefix
/// stands for all that begin with it.
const EMBEDDED_ONLY: &[(&str, &str)] = &[
    (
        "cel::a_rule_costs_what_it_does_and_not_what_it_might",
        "a real server refuses rules of this cost with the definition",
    ),
    ("cel::libraries_that_are_not_there_are_refused_by_name", "a real server has them"),
    ("cel::texts_are_split_and_joined", "a real server refuses rules of this cost with the definition"),
    (
        "cel::what_a_rule_walks_through_in_its_loops_counts",
        "a real server refuses rules of this cost with the definition",
    ),
    ("discovery::the_older_openapi_document_points_at_the_newer_ones", "a real server has the whole of it"),
    (
        "discovery::the_server_counts_requests_and_objects",
        "a real server counts by more labels, and objects once a minute",
    ),
    (
        "lists::a_version_of_the_future_is_too_large",
        "the answer of a real server makes the client repeat the request until the version is there",
    ),
    ("people::a_container_that_waits_has_no_log", "it has a cluster of its own, with nodes"),
    ("people::a_cordoned_node_takes_no_more_pods", "it has a cluster of its own, with nodes"),
    ("people::a_job_completes_when_its_pods_have_succeeded", "it has a cluster of its own, with nodes"),
    ("people::a_pod_that_is_there_keeps_its_spec", "it has a cluster of its own, with nodes"),
    ("people::a_stateful_set_keeps_the_names_of_its_pods", "it has a cluster of its own, with nodes"),
    ("people::an_eviction_is_a_deletion_that_budgets_may_refuse", "it has a cluster of its own, with nodes"),
    ("people::every_namespace_has_its_account_and_gets_it_back", "it has a cluster of its own, with nodes"),
    ("people::fields_that_are_left_out_when_false_are_found_as_false", "it has a cluster of its own, with nodes"),
    ("people::logs_tell_what_started_and_that_nothing_runs", "it has a cluster of its own, with nodes"),
    ("people::streams_into_containers_are_refused_in_words", "it has a cluster of its own, with nodes"),
    ("real::", "it is about this list"),
    (
        "tables::objects_that_extend_a_server_are_stored_and_shown",
        "a real server acts on them, and has some of its own",
    ),
    ("tables::protobuf_is_passed_over", "a real server speaks it"),
    ("watches::bookmarks_come_once_a_minute_and_carry_the_clusters_version", "a minute of virtual time"),
];

/// So many tests hold for both servers, and maybe more.
const FEWEST: usize = 125;

#[test]
fn the_suite_holds_for_a_real_api_server() {
    if bench::inside().is_some() {
        return;
    }
    let Some(bench) = Bench::up() else { return };
    // One at a time: definitions and the namespace are everybody's.
    let mut arguments = vec!["--test-threads=1"];
    for (name, _) in EMBEDDED_ONLY {
        arguments.extend(["--skip", *name]);
    }
    bench.run_tests(&arguments, FEWEST);
}

#[test]
fn the_readme_lists_what_holds_for_the_embedded_server_alone() {
    let readme = include_str!("../../README.md");
    let heading = "## Tests of the API that hold for the embedded server alone";
    let section = readme.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let listed: Vec<(&str, &str)> = rows.collect();
    assert_eq!(listed, EMBEDDED_ONLY);
}

#[test]
fn every_test_that_is_said_to_hold_for_the_embedded_server_alone_exists() {
    let tests = bench::tests(std::process::Command::new(std::env::current_exe().unwrap()));
    for (name, _) in EMBEDDED_ONLY {
        let is_whole_name = !name.ends_with("::");
        let exists = tests.iter().any(|test| if is_whole_name { test == name } else { test.starts_with(name) });
        assert!(exists, "there is no test {name}");
    }
}

/// The real server as a test finds it: nothing in the namespace `test`.
pub(crate) async fn world(directory: &Path) -> World {
    // Tests that need no real server pause time, and with it all that waits for an answer.
    tokio::time::resume();
    let client = bench::client(directory, "api-tests").await;
    let world = World { client, namespace: "test".to_owned() };
    let namespaces = world.cluster_api("", "v1", "Namespace");
    empty(&world).await;
    if namespaces
        .get_opt("test")
        .await
        .unwrap()
        .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    {
        until_gone(&namespaces, "test").await;
    }
    if namespaces.get_opt("test").await.unwrap().is_none() {
        let namespace = object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    world
}

/// Deletes what other tests left in the namespace.
async fn empty(world: &World) {
    for kind in ["Widget", "Gauge", "Car"] {
        delete_all(&world.api("example.com", "v1", kind)).await;
    }
    let discovery = Discovery::new(world.client.clone()).run_aggregated().await.unwrap();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.scope != Scope::Namespaced || !capabilities.supports_operation(verbs::DELETE) {
                continue;
            }
            if capabilities.supports_operation(verbs::LIST) && !resource.group.starts_with("events") {
                delete_all(&Api::namespaced_with(world.client.clone(), &world.namespace, &resource)).await;
            }
        }
    }
}

async fn delete_all(api: &Api<DynamicObject>) {
    // What is gone by now is as good as deleted.
    let Ok(found) = api.list(&ListParams::default()).await else { return };
    for item in found.items {
        let name = item.metadata.name.unwrap_or_default();
        let _ = api.delete(&name, &DeleteParams::background()).await;
        if item.metadata.finalizers.is_some() {
            let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = api.patch(&name, &PatchParams::default(), &release).await;
        }
        until_gone(api, &name).await;
    }
}

async fn until_gone(api: &Api<DynamicObject>, name: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Ok(Some(_)) = api.get_opt(name).await {
        assert!(tokio::time::Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
