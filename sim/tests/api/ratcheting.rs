//! An object that was valid when it was written stays usable when its schema is tightened (`CRDValidationRatcheting`).

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, object, value, world};

/// A test's clock may not stand for the server's: on a busy machine a definition is taken up within seconds, and a question takes
/// some milliseconds.
const ATTEMPTS: usize = 2000;
/// A size that an open schema takes and a tightened one does not.
const LARGE: &str = "large";

/// Replaces the schema of the widgets' spec and status, and waits until it is in force: a real API server takes it up a moment
/// later.
async fn tighten(world: &World, spec: Value, status: Value) {
    let spec_is_open = spec == open();
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
    let patch = Patch::<Value>::Json(serde_json::from_value(patch).unwrap());
    definitions.patch("widgets.example.com", &PatchParams::default(), &patch).await.unwrap();
    let widgets = world.api("example.com", "v1", "Widget");
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let probe = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "probe"}, "spec": {"size": LARGE},
    });
    for _ in 0..ATTEMPTS {
        if widgets.create(&dry_run, &object(probe.clone())).await.is_ok() == spec_is_open {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the definition is never taken up");
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

async fn widget_with(world: &World, spec: Value) -> kube::Api<kube::api::DynamicObject> {
    let widgets = world.widgets().await;
    tighten(world, open(), open()).await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec});
    widgets.create(&PostParams::default(), &object(widget)).await.unwrap();
    widgets
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_whatever_became_of_the_spec() {
    let world = world().await;
    let widgets = widget_with(&world, json!({"size": LARGE})).await;
    tighten(&world, json!({"type": "object", "properties": {"size": {"type": "integer"}}}), open()).await;
    let patch = Patch::Merge(json!({"status": {"phase": "Ready"}}));
    let written = widgets.patch_status("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(value(&written)["status"]["phase"], "Ready");
}

#[tokio::test(start_paused = true)]
async fn labels_can_be_set_and_other_fields_changed_but_not_the_invalid_one() {
    let world = world().await;
    let spec = json!({"size": LARGE, "ports": [{"name": "a", "port": -1}, {"name": "b", "port": 1}], "tags": ["x"]});
    let widgets = widget_with(&world, spec).await;
    let schema = json!({
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string", "minLength": 2}},
            "colour": {"type": "string"},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "port": {"type": "integer", "minimum": 0},
                }},
            },
        },
    });
    tighten(&world, schema, open()).await;
    let patch = |patch: Value| {
        let widgets = widgets.clone();
        async move { widgets.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await }
    };
    patch(json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    patch(json!({"spec": {"colour": "red"}})).await.unwrap();
    let reordered = json!([{"name": "b", "port": 2}, {"name": "a", "port": -1}]);
    patch(json!({"spec": {"ports": reordered}})).await.unwrap();
    for (change, field) in [
        (json!({"spec": {"size": "small"}}), "spec.size"),
        (json!({"spec": {"ports": [{"name": "a", "port": -2}]}}), "spec.ports[0].port"),
        (json!({"spec": {"ports": [{"name": "c", "port": -1}]}}), "spec.ports[0].port"),
        // Items of an atomic list have no identity: any change of the list brings all of them to account.
        (json!({"spec": {"tags": ["x", "yy"]}}), "spec.tags[0]"),
    ] {
        let refusal = patch(change).await.refusal();
        assert_eq!(refusal.code, 422);
        assert!(refusal.message.contains(field), "{}", refusal.message);
    }
}
