//! What custom resources say that they are, and what their schema does not know: when that is told, and in which words. Found by
//! random sequences (`tests/differential`).

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, deployment, value, widget, world};

const WIDGETS: &str = "/apis/example.com/v1/namespaces/test/widgets";

async fn with_a_widget() -> (World, Api<DynamicObject>, DynamicObject) {
    let world = world().await;
    let widgets = world.widgets().await;
    let created = widgets.create(&PostParams::default(), &widget("a", &json!({"size": 1}))).await.unwrap();
    (world, widgets, created)
}

async fn patch(world: &World, subresource: &str, body: Value) -> Result<Value, kube::Error> {
    let path = format!("{WIDGETS}/a{subresource}");
    world.request("PATCH", &path, "application/merge-patch+json", &body.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_patch_to_another_type_is_refused_as_an_invalid_object() {
    let (world, ..) = with_a_widget().await;
    let cases = [
        (
            json!({"kind": "Other"}),
            "Other.example.com \"a\" is invalid: kind: Invalid value: \"Other\": must be Widget",
        ),
        (
            json!({"apiVersion": "v9"}),
            "Widget \"a\" is invalid: apiVersion: Invalid value: \"v9\": must be example.com/v1",
        ),
    ];
    for (body, expected) in cases {
        let refusal = patch(&world, "", body).await.refusal();
        assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_has_the_type_of_its_object_and_loses_who_owns_what() {
    let (world, widgets, created) = with_a_widget().await;
    assert!(created.metadata.managed_fields.is_some());
    let body = json!({"kind": "Other", "status": {"phase": "x"}});
    let patched = patch(&world, "/status", body).await.unwrap();
    assert_eq!((&patched["apiVersion"], &patched["kind"]), (&json!("example.com/v1"), &json!("Widget")));
    assert_eq!((&patched["status"]["phase"], &patched["metadata"]["managedFields"]), (&json!("x"), &json!(null)));
    let body = json!({"apiVersion": "v9", "status": {"phase": "y"}});
    let patched = patch(&world, "/status", body).await.unwrap();
    assert_eq!((&patched["apiVersion"], &patched["status"]["phase"]), (&json!("example.com/v1"), &json!("y")));
    assert_eq!(widgets.get("a").await.unwrap().metadata.managed_fields, None);
}

#[tokio::test(start_paused = true)]
async fn a_type_that_a_patch_takes_away_is_missed() {
    let (world, ..) = with_a_widget().await;
    let refusal = patch(&world, "", json!({"kind": null})).await.refusal();
    assert_eq!(refusal.code, 422);
    assert!(refusal.message.contains("Object 'Kind' is missing in '{"), "{}", refusal.message);
    let refusal = patch(&world, "", json!({"apiVersion": null})).await.refusal();
    let expected = "Internal error occurred: Object 'apiVersion' is missing in 'object has no apiVersion field'";
    assert_eq!((refusal.code, refusal.message.as_str()), (500, expected));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_no_version_is_refused_in_the_words_of_the_reader() {
    let (world, ..) = with_a_widget().await;
    let body = json!({"apiVersion": null, "kind": "Widget", "metadata": {"name": "b"}, "spec": {"size": 1}});
    let refusal = world.request("POST", WIDGETS, "application/json", &body.to_string()).await.refusal();
    let expected = "Widget in version \"\" cannot be handled as a Widget: .apiVersion accessor error: <nil> is of the type <nil>, \
                    expected string";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn where_a_body_belongs_is_looked_at_before_its_kind() {
    let (world, ..) = with_a_widget().await;
    let body =
        json!({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "a", "namespace": "other"}});
    let refusal = world.request("POST", WIDGETS, "application/json", &body.to_string()).await.refusal();
    let expected = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
    // And so is the version of what it replaces.
    let body = json!({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "a"}, "spec": {"size": 1}});
    let path = format!("{WIDGETS}/a");
    let refusal = world.request("PUT", &path, "application/json", &body.to_string()).await.refusal();
    assert!(refusal.message.contains("must be specified for an update"), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn metadata_of_the_wrong_type_are_told_by_the_kind_of_the_body() {
    let (world, ..) = with_a_widget().await;
    let body = json!({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "b", "finalizers": {}}});
    let refusal = world.request("POST", WIDGETS, "application/json", &body.to_string()).await.refusal();
    let expected = "Other in version \"v1\" cannot be handled as a Widget: json: cannot unmarshal object into Go struct field \
                    ObjectMeta.finalizers of type []string";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_refused_before_all_else() {
    let (world, ..) = with_a_widget().await;
    let path = format!("{WIDGETS}/a?fieldValidation=Strict");
    let body = value(&widget("a", &json!({"size": 1, "unheard": 1}))).to_string();
    let refusal = world.request("PUT", &path, "application/json", &body).await.refusal();
    let expected =
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.unheard\"";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_managed_fields_says_nothing_of_a_custom_resource() {
    let (_world, widgets, created) = with_a_widget().await;
    let managed = created.metadata.managed_fields.clone();
    assert!(managed.is_some());
    let none = Patch::Merge(json!({"metadata": {"managedFields": []}}));
    let patched = widgets.patch("a", &PatchParams::default(), &none).await.unwrap();
    assert_eq!(patched.metadata.managed_fields, managed);
    assert_eq!(patched.metadata.resource_version, created.metadata.resource_version);
    // An empty entry is what has them forgotten.
    let reset = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
    let patched = widgets.patch("a", &PatchParams::default(), &reset).await.unwrap();
    assert_eq!(patched.metadata.managed_fields, None);
}

#[tokio::test(start_paused = true)]
async fn replicas_below_zero_are_refused_wherever_they_are_written() {
    let (world, ..) = with_a_widget().await;
    let spec =
        "Widget.example.com \"a\" is invalid: .spec.replicas: Invalid value: -1: should be a non-negative integer";
    let status = spec.replace(".spec", ".status");
    let spec_body = json!({"spec": {"replicas": -1}});
    assert_eq!(patch(&world, "/scale", spec_body.clone()).await.refusal().message, spec);
    assert_eq!(patch(&world, "", spec_body).await.refusal().message, spec);
    assert_eq!(patch(&world, "/status", json!({"status": {"replicas": -1}})).await.refusal().message, status);
}

#[tokio::test(start_paused = true)]
async fn a_scale_of_a_custom_resource_that_cannot_be_read_is_no_known_type() {
    let (world, ..) = with_a_widget().await;
    let body =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": "x"}});
    let path = format!("{WIDGETS}/a/scale");
    let refusal = world.request("PUT", &path, "application/json", &body.to_string()).await.refusal();
    let expected = "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn a_strategic_patch_has_no_say_in_the_type_of_an_object() {
    let world = world().await;
    world.deployments().create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    let patch = Patch::Strategic(json!({"apiVersion": "v9", "kind": "Other", "spec": {"replicas": 2}}));
    let patched = value(&world.deployments().patch("web", &PatchParams::default(), &patch).await.unwrap());
    assert_eq!((&patched["kind"], &patched["spec"]["replicas"]), (&json!("Deployment"), &json!(2)));
}
