use kube::api::{Api, DynamicObject, PostParams};
use serde_json::json;

use crate::support::{Refusal, config_map, object, resource, widget, world};

#[tokio::test(start_paused = true)]
async fn missing_taken_and_homeless_objects() {
    let world = world().await;
    let maps = world.config_maps();
    let refusal = maps.get("a").await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (404, "NotFound"));
    assert_eq!(refusal.message, "configmaps \"a\" not found");
    let widgets = world.widgets().await;
    assert_eq!(widgets.get("a").await.refusal().message, "widgets.example.com \"a\" not found");
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let refusal = maps.create(&PostParams::default(), &config_map("a")).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(refusal.message, "configmaps \"a\" already exists");
    let elsewhere: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), "nowhere", &resource("", "v1", "ConfigMap"));
    let refusal = elsewhere.create(&PostParams::default(), &config_map("a")).await.refusal();
    assert_eq!(refusal.code, 404);
    assert_eq!(refusal.message, "namespaces \"nowhere\" not found");
}

#[tokio::test(start_paused = true)]
async fn unknown_kinds_are_not_found() {
    let world = world().await;
    let of_its_own = "the server could not find the requested resource";
    for (group, version, kind, expected) in [
        ("networking.k8s.io", "v1", "Unicorn", of_its_own),
        ("", "v1", "Unicorn", of_its_own),
        ("apps", "v1beta9", "Deployment", of_its_own),
        ("", "v1", "Node", of_its_own),
        ("flagger.app", "v1", "Canary", "404 page not found"),
        ("unheard.example.com", "v1", "Unicorn", "404 page not found"),
    ] {
        let refusal = world.api(group, version, kind).list(&kube::api::ListParams::default()).await.refusal();
        assert_eq!((refusal.code, refusal.message.trim()), (404, expected), "{group} {version} {kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_and_labels_are_validated() {
    let world = world().await;
    let maps = world.config_maps();
    let refusal = maps.create(&PostParams::default(), &config_map("Not_Valid")).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (422, "Invalid"));
    assert!(
        refusal.message.starts_with(
            "ConfigMap \"Not_Valid\" is invalid: metadata.name: Invalid value: \"Not_Valid\": a lowercase RFC 1123 subdomain must"
        ),
        "{}",
        refusal.message
    );
    let mut nameless = config_map("x");
    nameless.metadata.name = None;
    let refusal = maps.create(&PostParams::default(), &nameless).await.refusal();
    assert!(
        refusal.message.contains("metadata.name: Required value: name or generateName is required"),
        "{}",
        refusal.message
    );
    let mut labelled = config_map("x");
    labelled.metadata.labels = Some([("a".to_owned(), "not valid".to_owned())].into());
    let refusal = maps.create(&PostParams::default(), &labelled).await.refusal();
    assert!(
        refusal.message.contains("metadata.labels: Invalid value: \"not valid\": a valid label must be"),
        "{}",
        refusal.message
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_must_fit_the_request() {
    let world = world().await;
    let path = "/api/v1/namespaces/test/configmaps";
    let json = "application/json";
    let elsewhere = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"other"}}"#;
    let refusal = world.request("POST", path, json, elsewhere).await.refusal();
    assert_eq!(refusal.code, 400);
    assert_eq!(
        refusal.message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let other_kind = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#;
    assert_eq!(world.request("POST", path, json, other_kind).await.refusal().code, 400);
    assert_eq!(world.request("POST", path, json, "{").await.refusal().code, 400);
    let protobuf = "application/vnd.kubernetes.unknown";
    assert_eq!(world.request("POST", path, protobuf, "{}").await.refusal().code, 415);
    let versioned = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"5"}}"#;
    let refusal = world.request("POST", path, json, versioned).await.refusal();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (500, "resourceVersion should not be set on objects to be created")
    );
    let refusal = world.request("POST", &format!("{path}/a"), json, "{}").await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (405, "MethodNotAllowed"));
}

#[tokio::test(start_paused = true)]
async fn a_terminating_namespace_takes_nothing_new() {
    let world = world().await;
    let mut held = config_map("held");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    world.config_maps().create(&PostParams::default(), &held).await.unwrap();
    world.cluster_api("", "v1", "Namespace").delete("test", &kube::api::DeleteParams::default()).await.unwrap();
    let refusal = world.config_maps().create(&PostParams::default(), &config_map("late")).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        refusal.message,
        "configmaps \"late\" is forbidden: unable to create new content in namespace test because it is being terminated"
    );
}

#[tokio::test(start_paused = true)]
async fn owner_references_are_checked() {
    let world = world().await;
    let owned = object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": ""}]},
    }));
    let refusal = world.config_maps().create(&PostParams::default(), &owned).await.refusal();
    assert!(
        refusal.message.contains("metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"),
        "{}",
        refusal.message
    );
}

#[tokio::test(start_paused = true)]
async fn strict_field_validation_refuses_unknown_fields() {
    let world = world().await;
    world.widgets().await;
    let body = serde_json::to_string(&widget("w", &json!({"size": 1, "typo": true}))).unwrap();
    let path = "/apis/example.com/v1/namespaces/test/widgets?fieldValidation=Strict";
    let refusal = world.request("POST", path, "application/json", &body).await.refusal();
    assert_eq!(refusal.code, 400);
    assert_eq!(
        refusal.message,
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.typo\""
    );
}
