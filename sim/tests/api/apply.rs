//! Server-side apply as its documentation tells it, and what kubectl does around it.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, config_map, deployment, object, value, version_of, widget, world};

fn applied(manager: &str) -> PatchParams {
    PatchParams::apply(manager)
}

async fn apply(api: &Api<DynamicObject>, manager: &str, config: &DynamicObject) -> DynamicObject {
    let name = config.metadata.name.clone().unwrap();
    api.patch(&name, &applied(manager), &Patch::Apply(config)).await.unwrap()
}

fn with_replicas(replicas: Option<i64>, image: &str) -> DynamicObject {
    let mut config = value(&deployment("web", image));
    if let Some(replicas) = replicas {
        config["spec"]["replicas"] = json!(replicas);
    }
    object(config)
}

/// The fields of a manager's entry, null without one.
fn owned(object: &DynamicObject, manager: &str) -> Value {
    let object = value(object);
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|entry| entry["manager"] == manager).map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[tokio::test(start_paused = true)]
async fn a_conflict_names_the_owner_and_force_takes_over() {
    let world = world().await;
    let deployments = world.deployments();
    apply(&deployments, "kubectl", &with_replicas(Some(3), "podinfo:1")).await;
    let scale = json!({"spec": {"replicas": 5}});
    let params = PatchParams { field_manager: Some("edit".to_owned()), ..PatchParams::default() };
    deployments.patch("web", &params, &Patch::Merge(scale)).await.unwrap();
    let config = with_replicas(Some(3), "podinfo:1");
    let refusal = deployments.patch("web", &applied("kubectl"), &Patch::Apply(&config)).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (409, "Conflict"));
    assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"edit\" using apps/v1: .spec.replicas");
    let cause = &refusal.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    let forced = deployments.patch("web", &applied("kubectl").force(), &Patch::Apply(&config)).await.unwrap();
    assert_eq!(value(&forced)["spec"]["replicas"], 3);
    assert_eq!(owned(&forced, "edit"), Value::Null, "nothing is left to it");
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_takes_replicas_over_when_the_applier_lets_go() {
    let world = world().await;
    let deployments = world.deployments();
    apply(&deployments, "user", &with_replicas(Some(2), "podinfo:1")).await;
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 6}});
    deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    // The user's configuration no longer says how many; the autoscaler's number stays.
    let handed_over = apply(&deployments, "user", &with_replicas(None, "podinfo:2")).await;
    assert_eq!(value(&handed_over)["spec"]["replicas"], 6);
    assert_eq!(owned(&handed_over, "user")["f:spec"]["f:replicas"], Value::Null);
    assert_eq!(owned(&handed_over, "api-tests"), json!({"f:spec": {"f:replicas": {}}}));
}

#[tokio::test(start_paused = true)]
async fn applying_the_same_again_writes_nothing() {
    let world = world().await;
    let deployments = world.deployments();
    let first = apply(&deployments, "kubectl", &with_replicas(Some(2), "podinfo:1")).await;
    world.pass_seconds(60).await;
    let second = apply(&deployments, "kubectl", &with_replicas(Some(2), "podinfo:1")).await;
    assert_eq!(first, second);
    let shared = apply(&deployments, "other", &with_replicas(Some(2), "podinfo:1")).await;
    assert_ne!(version_of(&shared), version_of(&second), "a second owner is a change");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let world = world().await;
    let maps = world.config_maps();
    let config =
        |data: Value| object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}));
    apply(&maps, "one", &config(json!({"mine": "1", "shared": "1", "edited": "1"}))).await;
    apply(&maps, "two", &config(json!({"shared": "1"}))).await;
    let params = PatchParams { field_manager: Some("edit".to_owned()), ..PatchParams::default() };
    maps.patch("m", &params, &Patch::Merge(json!({"data": {"edited": "2"}}))).await.unwrap();
    let left = apply(&maps, "one", &config(json!({"new": "1"}))).await;
    assert_eq!(value(&left)["data"], json!({"edited": "2", "new": "1", "shared": "1"}));
}

#[tokio::test(start_paused = true)]
async fn kubectl_edits_scales_and_sets_images_after_an_apply() {
    let world = world().await;
    let deployments = world.deployments();
    apply(&deployments, "kubectl", &with_replicas(Some(2), "podinfo:1")).await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "podinfo:2"}]}}}});
    let set = PatchParams { field_manager: Some("kubectl-set".to_owned()), ..PatchParams::default() };
    let patched = deployments.patch("web", &set, &Patch::Strategic(&image)).await.unwrap();
    let container = r#"k:{"name":"app"}"#;
    let image_of = |object: &DynamicObject, manager: &str| {
        owned(object, manager)["f:spec"]["f:template"]["f:spec"]["f:containers"][container]["f:image"].clone()
    };
    assert_eq!((image_of(&patched, "kubectl-set"), image_of(&patched, "kubectl")), (json!({}), Value::Null));
    let config = with_replicas(Some(2), "podinfo:3");
    let refusal = deployments.patch("web", &applied("kubectl"), &Patch::Apply(&config)).await.refusal();
    assert!(refusal.message.ends_with(r#".spec.template.spec.containers[name="app"].image"#), "{}", refusal.message);
    // Without the ports the item stays, since its other fields are applied.
    let config = object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "podinfo:2"}]},
        }},
    }));
    let kept = value(&apply(&deployments, "kubectl", &config).await);
    let container = &kept["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["ports"]), (&json!("podinfo:2"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_controller_owns_the_status_and_an_applier_cannot_touch_it() {
    let world = world().await;
    let widgets = world.widgets().await;
    apply(&widgets, "user", &widget("w", &json!({"size": 1}))).await;
    let status = json!({"status": {"phase": "Ready"}, "spec": {"size": 7}});
    let written = widgets.patch_status("w", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let entries = value(&written)["metadata"]["managedFields"].clone();
    let entry = entries.as_array().unwrap().iter().find(|entry| entry["manager"] == "api-tests").cloned().unwrap();
    assert_eq!((&entry["subresource"], &entry["operation"]), (&json!("status"), &json!("Update")));
    assert_eq!(entry["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
    let mut config = value(&widget("w", &json!({"size": 2})));
    config["status"] = json!({"phase": "Broken"});
    let applied = apply(&widgets, "user", &object(config)).await;
    assert_eq!(value(&applied)["status"], json!({"phase": "Ready"}));
    assert_eq!(owned(&applied, "user"), json!({"f:spec": {"f:size": {}}}));
}

#[tokio::test(start_paused = true)]
async fn times_tell_the_last_change_of_each_owner() {
    let world = world().await;
    let maps = world.config_maps();
    maps.create(&PostParams::default(), &config_map("m")).await.unwrap();
    let time = |object: &DynamicObject| value(object)["metadata"]["managedFields"][0]["time"].clone();
    let created = maps.get("m").await.unwrap();
    world.pass_seconds(60).await;
    let same = maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "1"}}))).await.unwrap();
    assert_eq!(same, created, "no change, no write");
    let changed = maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    assert_ne!(time(&changed), time(&created));
    assert_eq!(owned(&changed, "api-tests"), owned(&created, "api-tests"));
}

#[tokio::test(start_paused = true)]
async fn a_rehearsed_apply_stores_nothing() {
    let world = world().await;
    let maps = world.config_maps();
    let dry = PatchParams { dry_run: true, ..applied("one") };
    let rehearsed = maps.patch("a", &dry, &Patch::Apply(config_map("a"))).await.unwrap();
    assert_eq!(owned(&rehearsed, "one")["f:data"], json!({"f:key": {}}));
    assert_eq!(maps.get("a").await.refusal().code, 404);
    let stored = apply(&maps, "one", &config_map("a")).await;
    let mut changed = config_map("a");
    changed.data["data"] = json!({"key": "2"});
    let rehearsed = maps.patch("a", &dry, &Patch::Apply(&changed)).await.unwrap();
    assert_eq!(value(&rehearsed)["data"], json!({"key": "2"}));
    assert_eq!(maps.get("a").await.unwrap(), stored);
}
