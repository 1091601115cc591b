//! What random sequences have found to be otherwise in a real server (`tests/differential`), and was mended.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, config_map, deployment, value, widget, world};

async fn json_patch(world: &crate::support::World, operations: Value) -> Result<Value, kube::Error> {
    let path = "/api/v1/namespaces/test/configmaps/a";
    world.request("PATCH", path, "application/json-patch+json", &operations.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_json_patch_replaces_what_is_missing_and_tests_it_for_null() {
    let world = world().await;
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    let operations = json!([
        {"op": "test", "path": "/data/new", "value": null}, {"op": "replace", "path": "/data/new", "value": "1"},
    ]);
    assert_eq!(json_patch(&world, operations).await.unwrap()["data"]["new"], "1");
    let nowhere = json!([{"op": "replace", "path": "/nothing/new", "value": "1"}]);
    assert_eq!(json_patch(&world, nowhere).await.refusal().code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_patch_cannot_change_what_is_the_servers() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    for (field, given) in [("uid", json!("other")), ("deletionTimestamp", json!("2026-01-01T00:00:00Z"))] {
        let patch = Patch::Merge(json!({"metadata": {field: given}}));
        let refusal = maps.patch("a", &PatchParams::default(), &patch).await.refusal();
        let expected =
            format!("ConfigMap \"a\" is invalid: metadata.{field}: Invalid value: {given}: field is immutable");
        assert_eq!((refusal.code, refusal.message), (422, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_for_the_collector_answers_with_the_object() {
    let world = world().await;
    let maps = world.config_maps();
    for (params, finalizer) in [(DeleteParams::foreground(), "foregroundDeletion"), (DeleteParams::orphan(), "orphan")]
    {
        maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
        let marked = maps.delete("a", &params).await.unwrap().left().unwrap();
        assert_eq!(marked.metadata.finalizers, Some(vec![finalizer.to_owned()]));
        while maps.get_opt("a").await.unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn custom_resources_take_no_strategic_patch_even_where_there_is_none() {
    let world = world().await;
    world.widgets().await;
    let path = "/apis/example.com/v1/namespaces/test/widgets/a";
    let refusal = world.request("PATCH", path, "application/strategic-merge-patch+json", "{}").await.refusal();
    assert_eq!(refusal.code, 415);
}

#[tokio::test(start_paused = true)]
async fn lists_of_custom_resources_say_that_nothing_follows() {
    let world = world().await;
    let widgets = world.widgets().await;
    assert_eq!(widgets.list(&ListParams::default()).await.unwrap().metadata.continue_.as_deref(), Some(""));
    let maps = world.config_maps().list(&ListParams::default()).await.unwrap();
    assert_eq!(maps.metadata.continue_, None);
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_without_version_is_refused_under_the_name_of_its_resource() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("a", &json!({"size": 1}))).await.unwrap();
    let expected = "widgets.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    let refusal = widgets.replace("a", &PostParams::default(), &widget("a", &json!({"size": 2}))).await.refusal();
    assert_eq!(refusal.message, expected);
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": ""}, "spec": {"size": 2}}));
    assert_eq!(widgets.patch("a", &PatchParams::default(), &patch).await.refusal().message, expected);
}

const WIDGET_A: &str = "/apis/example.com/v1/namespaces/test/widgets/a";

#[tokio::test(start_paused = true)]
async fn a_version_that_is_no_number_is_an_error_of_the_server() {
    let world = world().await;
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    let refusal = json_patch(&world, json!([{"op": "add", "path": "/metadata/resourceVersion", "value": "9x"}])).await;
    let refusal = refusal.refusal();
    assert_eq!((refusal.code, refusal.message.as_str()), (500, "strconv.ParseUint: parsing \"9x\": invalid syntax"));
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_takes_a_built_in_objects_version_leaves_nothing_of_it() {
    let world = world().await;
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    let refusal = json_patch(&world, json!([{"op": "remove", "path": "/apiVersion"}])).await.refusal();
    let expected = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn replicas_that_a_custom_resource_does_not_have_cannot_be_read_but_set() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("a", &json!({"size": 1}))).await.unwrap();
    let refusal = world.request("GET", &format!("{WIDGET_A}/scale"), "", "").await.refusal();
    let expected = "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist";
    assert_eq!((refusal.code, refusal.message.as_str()), (500, expected));
    let patch = async |body: Value| {
        world.request("PATCH", &format!("{WIDGET_A}/scale"), "application/merge-patch+json", &body.to_string()).await
    };
    let refusal = patch(json!({"metadata": {}})).await.refusal();
    let expected = "the spec replicas field \".spec.replicas\" cannot be empty";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
    assert_eq!(patch(json!({"spec": {"replicas": 2}})).await.unwrap()["spec"]["replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_to_the_status_of_a_custom_resource_is_told_of_unknown_fields_anywhere_and_keeps_the_kind() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("a", &json!({"size": 1}))).await.unwrap();
    let patch = async |query: &str, body: Value| {
        let path = format!("{WIDGET_A}/status{query}");
        world.request("PATCH", &path, "application/merge-patch+json", &body.to_string()).await
    };
    let refusal = patch("?fieldValidation=Strict", json!({"spec": {"unheard": 1}})).await.refusal();
    assert_eq!(refusal.code, 422);
    assert!(refusal.message.contains("strict decoding error: unknown field \"spec.unheard\""), "{}", refusal.message);
    let other = patch("", json!({"kind": "Other", "status": {"phase": "Ready"}})).await.unwrap();
    assert_eq!((&other["kind"], &other["status"]["phase"]), (&json!("Widget"), &json!("Ready")));
}

#[tokio::test(start_paused = true)]
async fn a_scale_of_zero_does_not_say_so() {
    let world = world().await;
    let mut object = value(&deployment("web", "podinfo:1"));
    object["spec"]["replicas"] = json!(0);
    let path = "/apis/apps/v1/namespaces/test/deployments";
    world.request("POST", path, "application/json", &object.to_string()).await.unwrap();
    let scale = world.request("GET", &format!("{path}/web/scale"), "", "").await.unwrap();
    assert_eq!((&scale["spec"], &scale["status"]["replicas"]), (&json!({}), &json!(0)));
}
