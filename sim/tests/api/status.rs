use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{Refusal, deployment, object, value, version_of, widget, world};

#[tokio::test(start_paused = true)]
async fn status_and_spec_are_written_apart() {
    let world = world().await;
    let widgets = world.widgets().await;
    let mut with_status = widget("w", &json!({"size": 1}));
    with_status.data["status"] = json!({"phase": "early"});
    let created = widgets.create(&PostParams::default(), &with_status).await.unwrap();
    assert!(created.data.get("status").is_none(), "ignored on create");

    let mut both = created.clone();
    both.data["spec"]["size"] = json!(5);
    both.data["status"] = json!({"phase": "running"});
    both.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let updated = widgets.replace_status("w", &PostParams::default(), &both).await.unwrap();
    assert_eq!(updated.data["spec"]["size"], 1);
    assert_eq!(updated.data["status"]["phase"], "running");
    assert_eq!(updated.metadata.labels, None);
    assert_eq!(updated.metadata.generation, Some(1));

    both.metadata.resource_version = updated.metadata.resource_version.clone();
    both.data["status"] = json!({"phase": "forged"});
    let updated = widgets.replace("w", &PostParams::default(), &both).await.unwrap();
    assert_eq!(updated.data["spec"]["size"], 5);
    assert_eq!(updated.data["status"]["phase"], "running");
    assert_eq!(updated.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn status_patches_touch_status_only_and_can_be_conditional() {
    let world = world().await;
    let widgets = world.widgets().await;
    let created = widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let patch = json!({
        "metadata": {"resourceVersion": version_of(&created), "labels": {"a": "b"}},
        "spec": {"size": 7}, "status": {"phase": "x"},
    });
    let patched = widgets.patch_status("w", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.data["status"], json!({"phase": "x"}));
    assert_eq!(patched.data["spec"]["size"], 1);
    assert_eq!(patched.metadata.labels, None);
    let refusal = widgets.patch_status("w", &PatchParams::default(), &Patch::Merge(&patch)).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (409, "Conflict"));
}

#[tokio::test(start_paused = true)]
async fn deployments_keep_spec_from_status_writes_and_scale_by_subresource() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("d", "podinfo:1")).await.unwrap();
    let patch = json!({"spec": {"replicas": 9}, "status": {"replicas": 1, "observedGeneration": 1}});
    let patched = deployments.patch_status("d", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.data["spec"]["replicas"], 1);
    assert_eq!(patched.data["status"]["replicas"], 1);

    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let scaled = deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 4}})))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    let status = scaled.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (1, Some("app=d")));
    let seen = deployments.get("d").await.unwrap();
    assert_eq!(value(&seen)["spec"]["replicas"], 4);
    assert_eq!(seen.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn kinds_without_status_have_no_such_path() {
    let world = world().await;
    let map = object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    world.config_maps().create(&PostParams::default(), &map).await.unwrap();
    let refusal = world.config_maps().get_status("a").await.refusal();
    assert_eq!(refusal.code, 404);
}
