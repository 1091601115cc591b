//! Writes with `dryRun=All` do everything but store.

use futures::StreamExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::bench;
use crate::support::{Refusal, config_map, deployment, object, value, version_of, world};

fn create() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

fn patch() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_validated_defaulted_and_not_stored() {
    let world = world().await;
    let deployments = world.deployments();
    let made = deployments.create(&create(), &deployment("a", "nginx:1")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(made.metadata.resource_version, None);
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(value(&made)["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(deployments.get("a").await.refusal().code, 404);
    let mut without_image = deployment("a", "");
    without_image.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!(null);
    assert_eq!(deployments.create(&create(), &without_image).await.refusal().code, 422);
    deployments.create(&PostParams::default(), &deployment("a", "nginx:1")).await.unwrap();
    assert_eq!(deployments.create(&create(), &deployment("a", "nginx:1")).await.refusal().code, 409);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_generated() {
    let world = world().await;
    let mut unnamed = config_map("x");
    unnamed.metadata.name = None;
    unnamed.metadata.generate_name = Some("x-".to_owned());
    let named = world.config_maps().create(&create(), &unnamed).await.unwrap();
    assert!(named.metadata.name.unwrap().starts_with("x-"));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_not_used_up() {
    let world = world().await;
    let services = world.api("", "v1", "Service");
    let service = |name: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]},
        }))
    };
    let at_address = |name: &str| {
        let mut service = service(name);
        service.data["spec"]["clusterIP"] = json!("10.0.77.7");
        service
    };
    services.create(&create(), &at_address("a")).await.unwrap();
    services.create(&PostParams::default(), &at_address("b")).await.unwrap();
    if bench::inside().is_none() {
        // A real server draws addresses at random, this one in a row.
        let rehearsed = services.create(&create(), &service("c")).await.unwrap();
        let made = services.create(&PostParams::default(), &service("d")).await.unwrap();
        assert_eq!(value(&made)["spec"]["clusterIP"], value(&rehearsed)["spec"]["clusterIP"]);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_and_deletions_leave_no_trace() {
    let world = world().await;
    let maps = world.config_maps();
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let mut watch = maps.watch(&WatchParams::default(), &version_of(&created)).await.unwrap().boxed();

    let patched = maps.patch("a", &patch(), &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    assert_eq!(value(&patched)["data"]["key"], "2");
    assert_eq!(version_of(&patched), version_of(&created));
    let mut changed = created.clone();
    changed.data["data"]["key"] = json!("3");
    let updated = maps.replace("a", &create(), &changed).await.unwrap();
    assert_eq!(value(&updated)["data"]["key"], "3");
    maps.delete("a", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.unwrap();
    maps.delete_collection(&DeleteParams { dry_run: true, ..DeleteParams::default() }, &ListParams::default())
        .await
        .unwrap();
    let invalid = json!({"metadata": {"labels": {"a b": "c"}}});
    assert_eq!(maps.patch("a", &patch(), &Patch::Merge(invalid)).await.refusal().code, 422);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"key": "4"}});
    assert_eq!(maps.patch("a", &patch(), &Patch::Merge(stale)).await.refusal().code, 409);

    assert_eq!(value(&maps.get("a").await.unwrap()), value(&created));
    // The next event is that of the first real change.
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "5"}}))).await.unwrap();
    match watch.next().await {
        Some(Ok(WatchEvent::Modified(seen))) => assert_eq!(value(&seen)["data"]["key"], "5"),
        other => panic!("unexpected event: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn other_values_of_dry_run_are_refused() {
    let world = world().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    let path = "/api/v1/namespaces/test/configmaps?dryRun=Some";
    let refusal = world.request("POST", path, "application/json", body).await.refusal();
    assert_eq!(
        refusal.message,
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
    );
    let path = "/api/v1/namespaces/test/configmaps/a?dryRun=Some";
    let refusal = world.request("DELETE", path, "application/json", "").await.refusal();
    assert!(refusal.message.starts_with("DeleteOptions.meta.k8s.io \"\" is invalid: dryRun:"), "{}", refusal.message);
}
