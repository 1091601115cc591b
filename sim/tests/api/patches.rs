use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{Refusal, config_map, deployment, value, version_of, widget, world};

#[tokio::test(start_paused = true)]
async fn merge_patches_set_and_remove() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let patch = json!({"data": {"key": null, "new": "2"}, "metadata": {"labels": null}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(patch.clone())).await.unwrap();
    assert_eq!(value(&patched)["data"], json!({"new": "2"}));
    assert_eq!(patched.metadata.labels, None);
    assert_ne!(version_of(&patched), version_of(&created));
    let again = maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(version_of(&again), version_of(&patched), "no change, no write");
}

#[tokio::test(start_paused = true)]
async fn a_version_in_a_patch_is_a_precondition() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let patch = json!({"metadata": {"resourceVersion": version_of(&created)}, "data": {"key": "2"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let refusal = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.refusal();
    assert_eq!(refusal.code, 409);
    assert!(refusal.message.contains("the object has been modified"));
}

#[tokio::test(start_paused = true)]
async fn json_patches_apply_in_order_or_not_at_all() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let patch = |operations| Patch::<serde_json::Value>::Json(serde_json::from_value(operations).unwrap());
    let good = json!([
        {"op": "test", "path": "/data/key", "value": "1"},
        {"op": "replace", "path": "/data/key", "value": "2"},
        {"op": "add", "path": "/data/other", "value": "3"},
    ]);
    let patched = maps.patch("a", &PatchParams::default(), &patch(good)).await.unwrap();
    assert_eq!(value(&patched)["data"], json!({"key": "2", "other": "3"}));
    let bad = json!([
        {"op": "replace", "path": "/data/other", "value": "9"},
        {"op": "test", "path": "/data/key", "value": "1"},
    ]);
    let refusal = maps.patch("a", &PatchParams::default(), &patch(bad)).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (422, "Invalid"));
    assert_eq!(refusal.message, "the server rejected our request due to an error in our request");
    assert_eq!(maps.get("a").await.unwrap(), patched);
}

#[tokio::test(start_paused = true)]
async fn strategic_patches_merge_containers_by_name_in_built_in_kinds_only() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "podinfo:2"}]}}}});
    let patched = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    let container = &value(&patched)["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "podinfo:2");
    assert_eq!(container["ports"][0]["containerPort"], 9898);
    assert_eq!(patched.metadata.generation, Some(2));

    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let refusal =
        widgets.patch("w", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"size": 2}}))).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (415, "UnsupportedMediaType"));
}

#[tokio::test(start_paused = true)]
async fn patches_cannot_rename_or_create() {
    let world = world().await;
    let maps = world.config_maps();
    let rename = Patch::Merge(json!({"metadata": {"name": "b"}}));
    let missing = maps.patch("a", &PatchParams::default(), &rename).await;
    assert_eq!(missing.refusal().code, 404);
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let refusal = maps.patch("a", &PatchParams::default(), &rename).await.refusal();
    assert_eq!(refusal.code, 400);
}

/// A patch given as text, for what a JSON value cannot say.
async fn patch_text(
    world: &crate::support::World,
    path: &str,
    content_type: &str,
    patch: &str,
) -> Result<serde_json::Value, kube::Error> {
    world.request("PATCH", path, content_type, patch).await
}

#[tokio::test(start_paused = true)]
async fn fields_that_a_patch_names_twice_are_refused_where_that_is_asked_for() {
    let world = world().await;
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    world.widgets().await.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let map = format!("/api/v1/namespaces/{}/configmaps/a", world.namespace);
    let custom = format!("/apis/example.com/v1/namespaces/{}/widgets/w", world.namespace);
    for (path, kind, patch, cause) in [
        (
            &map,
            "strategic-merge-patch",
            r#"{"data":{"x":"1","x":"3"},"dada":{}}"#,
            "duplicate field \"data.x\", unknown field \"dada\"",
        ),
        (&map, "merge-patch", r#"{"data":{"x":"1","x":"3"}}"#, "duplicate field \"data.x\""),
        (
            &custom,
            "merge-patch",
            r#"{"spec":{"size":1,"size":3},"dada":{}}"#,
            "duplicate field \"spec.size\", unknown field \"dada\"",
        ),
    ] {
        let content_type = format!("application/{kind}+json");
        let strict =
            patch_text(&world, &format!("{path}?fieldValidation=Strict"), &content_type, patch).await.refusal();
        assert_eq!((strict.code, strict.reason.as_str()), (422, "Invalid"));
        let expected = format!("strict decoding error: {cause}");
        assert!(strict.message.ends_with(&expected), "{}", strict.message);
        patch_text(&world, path, &content_type, patch).await.unwrap();
    }
    let map = world.config_maps().get("a").await.unwrap();
    assert_eq!(value(&map)["data"]["x"], "3", "the last one counts");
}
