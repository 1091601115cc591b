//! What may not grow, and what may not change.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, config_map, object, value, widget, widget_definition_in, world};

async fn patched(api: &Api<DynamicObject>, name: &str, patch: Value) -> Result<DynamicObject, kube::Error> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

fn json_patch(operations: Vec<Value>) -> Patch<Value> {
    Patch::Json(serde_json::from_value(Value::Array(operations)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_json_patch_copies_no_more_than_three_mebibytes() {
    let world = world().await;
    let widgets = world.widgets().await;
    let mut growing = widget("growing", &json!({"size": 1, "free": {"text": "0123456789abcdef"}}));
    widgets.create(&PostParams::default(), &growing).await.unwrap();
    // Each copy holds all that were made before.
    let doubled = |times: usize| {
        let copy = |index: usize| json!({"op": "copy", "from": "/spec/free", "path": format!("/spec/free/x{index}")});
        json_patch((0..times).map(copy).collect())
    };
    let refusal = widgets.patch("growing", &PatchParams::default(), &doubled(18)).await.refusal();
    let expected = "the server rejected our request due to an error in our request";
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
    growing = widgets.patch("growing", &PatchParams::default(), &doubled(8)).await.unwrap();
    assert_eq!(value(&growing)["spec"]["free"].as_object().unwrap().len(), 9);

    let maps = world.config_maps();
    let mut map = config_map("large");
    map.data["data"]["key"] = json!("x".repeat(100_000));
    maps.create(&PostParams::default(), &map).await.unwrap();
    // Nothing of it is left in the end.
    let copies = (0..32).map(|_| json!({"op": "copy", "from": "/data/key", "path": "/data/other"}));
    let operations = copies.chain([json!({"op": "remove", "path": "/data/other"})]).collect();
    let refusal = maps.patch("large", &PatchParams::default(), &json_patch(operations)).await.refusal();
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
}

#[tokio::test(start_paused = true)]
async fn config_maps_and_secrets_hold_one_mebibyte() {
    let world = world().await;
    let maps = world.config_maps();
    let with_data = |kind: &str, name: &str, data: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        crate::support::object(object)
    };
    let half = "x".repeat(512 << 10);
    // 384 KiB each: four characters are three bytes.
    let encoded = "AAAA".repeat(512 << 10 >> 2);
    let full = with_data("ConfigMap", "full", json!({"data": {"a": half, "b": half}}));
    maps.create(&PostParams::default(), &full).await.unwrap();
    let refusal = patched(&maps, "full", json!({"data": {"c": "x"}})).await.refusal();
    let expected = "ConfigMap \"full\" is invalid: []: Too long: may not be more than 1048576 bytes";
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
    let both = json!({"data": {"a": half}, "binaryData": {"b": encoded, "c": encoded}});
    let refusal = maps.create(&PostParams::default(), &with_data("ConfigMap", "both", both)).await.refusal();
    assert_eq!(refusal.code, 422);

    let secrets = world.api("", "v1", "Secret");
    let text = |length: usize| json!({"stringData": {"a": "x".repeat(length)}});
    secrets.create(&PostParams::default(), &with_data("Secret", "full", text(1 << 20))).await.unwrap();
    let refusal =
        secrets.create(&PostParams::default(), &with_data("Secret", "more", text((1 << 20) + 1))).await.refusal();
    let expected = "Secret \"more\" is invalid: data: Too long: may not be more than 1048576 bytes";
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_whose_spec_is_no_object_has_no_replicas_and_is_refused() {
    let world = world().await;
    let mut definition = widget_definition_in("shapeless.example.com");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    world.define(definition).await;
    let widgets = world.api("shapeless.example.com", "v1", "Widget");
    world.until_served(&widgets).await;
    let cases = [("text", json!("text"), "text", "string"), ("list", json!([1, "b"]), "[1 b]", "[]interface {}")];
    for (name, spec, text, found) in cases {
        let mut shapeless = widget(name, &spec);
        shapeless.types.as_mut().unwrap().api_version = "shapeless.example.com/v1".to_owned();
        let refusal = widgets.create(&PostParams::default(), &shapeless).await.refusal();
        let expected = format!(
            "Widget.shapeless.example.com \"{name}\" is invalid: .spec.replicas: Invalid value: 0: .spec.replicas accessor error: \
             {text} is of the type {found}, expected map[string]interface{{}}"
        );
        assert_eq!((refusal.code, refusal.message), (422, expected));
    }
}

async fn with_job(name: &str, more: Value) -> (World, Api<DynamicObject>) {
    let world = world().await;
    let jobs = world.api("batch", "v1", "Job");
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "a:1"}]}}},
    });
    job["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jobs.create(&PostParams::default(), &object(job)).await.unwrap();
    (world, jobs)
}

fn of_template(more: &Value) -> Value {
    json!({"spec": {"template": more}})
}

#[tokio::test(start_paused = true)]
async fn a_job_keeps_its_pods_and_their_number() {
    let (_world, jobs) = with_job("job", json!({})).await;
    for (field, change) in [
        ("spec.template", of_template(&json!({"spec": {"containers": [{"name": "app", "image": "a:2"}]}}))),
        ("spec.template", of_template(&json!({"metadata": {"annotations": {"a": "b"}}}))),
        ("spec.completions", json!({"spec": {"completions": 5}})),
        ("spec.selector", json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}})),
        ("spec.completionMode", json!({"spec": {"completionMode": "Indexed"}})),
    ] {
        let refusal = patched(&jobs, "job", change).await.refusal();
        assert_eq!(refusal.code, 422, "{field}");
        assert!(refusal.message.contains(&format!("{field}: Invalid value")), "{field}: {}", refusal.message);
        assert!(refusal.message.contains("field is immutable"), "{field}: {}", refusal.message);
    }
    let free = json!({"parallelism": 3, "backoffLimit": 1, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5, "suspend": true});
    let changed = patched(&jobs, "job", json!({"spec": free})).await.unwrap();
    assert_eq!(value(&changed)["spec"]["parallelism"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_not_started_may_still_be_directed_elsewhere() {
    let (_world, jobs) = with_job("waiting", json!({"suspend": true})).await;
    let directed = json!({
        "metadata": {"labels": {"queue": "a"}, "annotations": {"a": "b"}},
        "spec": {"nodeSelector": {"zone": "a"}, "tolerations": [{"operator": "Exists"}]},
    });
    patched(&jobs, "waiting", of_template(&directed)).await.unwrap();
    let refusal = patched(&jobs, "waiting", of_template(&json!({"spec": {"hostNetwork": true}}))).await.refusal();
    assert_eq!(refusal.code, 422, "{}", refusal.message);
    let free = json!({"spec": {"suspend": false, "template": {"spec": {"nodeSelector": {"zone": "b"}}}}});
    patched(&jobs, "waiting", free).await.unwrap();
    let refusal =
        patched(&jobs, "waiting", of_template(&json!({"spec": {"nodeSelector": {"zone": "c"}}}))).await.refusal();
    assert_eq!(refusal.code, 422, "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_may_wait_for_more_if_it_runs_more() {
    let (_world, jobs) =
        with_job("indexed", json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2})).await;
    let refusal = patched(&jobs, "indexed", json!({"spec": {"completions": 3}})).await.refusal();
    assert!(refusal.message.contains("can only be modified in tandem with spec.parallelism"), "{}", refusal.message);
    patched(&jobs, "indexed", json!({"spec": {"completions": 3, "parallelism": 3}})).await.unwrap();
}
