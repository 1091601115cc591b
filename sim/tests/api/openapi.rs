//! The OpenAPI v3 documents that `kubectl explain`, `apply` and `edit` read.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{World, widget_definition_in, world};

async fn get(world: &World, path: &str) -> Value {
    world.request("GET", path, "", "").await.unwrap()
}

/// A real server tells of a new definition some seconds after it serves it.
async fn until_described(world: &World, path: &str) {
    world.until(async || !get(world, "/openapi/v3").await["paths"][path].is_null()).await;
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|child| references(child, found));
        }
        Value::Array(items) => items.iter().for_each(|child| references(child, found)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn every_document_of_the_index_is_complete() {
    let world = world().await;
    world.widgets().await;
    until_described(&world, "apis/example.com/v1").await;
    let index = get(&world, "/openapi/v3").await;
    let paths = index["paths"].as_object().unwrap();
    for expected in ["api/v1", "apis/apps/v1", "apis/autoscaling/v2", "apis/example.com/v1"] {
        assert!(paths.contains_key(expected), "{expected} is missing");
    }
    for entry in paths.values() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert!(url.contains("?hash="), "{url}");
        let document = get(&world, url).await;
        let schemas = &document["components"]["schemas"];
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.get(name).is_some(), "{url} refers to {name}");
        }
        for (path, operations) in document["paths"].as_object().unwrap() {
            // What a proxy is asked is the affair of what is behind it.
            let Some(patch) = operations.get("patch").filter(|_| !path.contains("/proxy")) else {
                continue;
            };
            let parameters: Vec<&str> =
                patch["parameters"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
            assert!(
                parameters.contains(&"dryRun") && parameters.contains(&"fieldValidation"),
                "{path}: {parameters:?}"
            );
            assert!(patch["x-kubernetes-group-version-kind"]["kind"].is_string(), "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn kinds_are_described_with_what_merging_needs() {
    let world = world().await;
    world.widgets().await;
    until_described(&world, "apis/example.com/v1").await;
    let document = get(&world, "/openapi/v3/apis/apps/v1").await;
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert!(schemas["io.k8s.api.apps.v1.Deployment"]["description"].as_str().unwrap().contains("Deployment"));
    let document = get(&world, "/openapi/v3/apis/example.com/v1").await;
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["maximum"], 10);
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert!(widget["properties"]["metadata"]["allOf"][0]["$ref"].as_str().unwrap().ends_with("ObjectMeta"));
}

#[tokio::test(start_paused = true)]
async fn the_hash_follows_the_definitions() {
    let world = world().await;
    let before = get(&world, "/openapi/v3").await;
    let (group, path) = ("openapi.example.com", "apis/openapi.example.com/v1");
    assert!(before["paths"][path].is_null());
    world.define(widget_definition_in(group)).await;
    until_described(&world, path).await;
    let after = get(&world, "/openapi/v3").await;
    assert_eq!(before["paths"]["apis/apps/v1"], after["paths"]["apis/apps/v1"]);
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let patch = serde_json::json!([{
        "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/description", "value": "A widget.",
    }]);
    let patch = kube::api::Patch::<Value>::Json(serde_json::from_value(patch).unwrap());
    definitions.patch("widgets.openapi.example.com", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.until(async || get(&world, "/openapi/v3").await["paths"][path] != after["paths"][path]).await;
    assert!(world.request("GET", "/openapi/v3/apis/nobody.example/v1", "", "").await.is_err());
}
