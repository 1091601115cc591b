use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, object, value, widget, world};

async fn message(widgets: &Api<DynamicObject>, spec: Value) -> String {
    let refusal = widgets.create(&PostParams::default(), &widget("w", &spec)).await.refusal();
    assert_eq!((refusal.code, refusal.reason.as_str()), (422, "Invalid"));
    refusal.message
}

#[tokio::test(start_paused = true)]
async fn violations_are_refused_in_the_servers_words() {
    let world = world().await;
    let widgets = world.widgets().await;
    let prefix = "Widget.example.com \"w\" is invalid: ";
    for (spec, expected) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": "big"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({"size": 11}), "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"),
        (
            json!({"size": 1, "interval": "1h"}),
            "spec.interval: Invalid value: \"1h\": spec.interval in body should match '^[0-9]+(m|s)$'",
        ),
        (
            json!({"size": 1, "colour": "blue"}),
            "spec.colour: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (
            json!({"size": 1, "labels": {"a": 1}}),
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
        ),
        (
            json!({"size": 1, "source": {"url": "u", "file": "f"}}),
            "<nil>: Invalid value: \"\": \"spec.source\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
    ] {
        assert_eq!(message(&widgets, spec).await, format!("{prefix}{expected}"));
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_pruned_and_defaults_filled() {
    let world = world().await;
    let widgets = world.widgets().await;
    let created = widgets
        .create(
            &PostParams::default(),
            &widget("w", &json!({"size": 1, "typo": 1, "free": {"any": [1]}, "port": "http", "colour": null})),
        )
        .await
        .unwrap();
    assert_eq!(value(&created)["spec"], json!({"size": 1, "interval": "60s", "free": {"any": [1]}, "port": "http"}));
    let merge = Patch::Merge(json!({"spec": {"interval": null, "extra": 1}}));
    let patched = widgets.patch("w", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(
        patched.metadata.resource_version, created.metadata.resource_version,
        "the default comes back, the unknown field does not stay"
    );
}

#[tokio::test(start_paused = true)]
async fn patches_are_validated_as_a_whole() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let refusal =
        widgets.patch("w", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": null}}))).await.refusal();
    assert_eq!(refusal.message, "Widget.example.com \"w\" is invalid: spec.size: Required value");
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_established_and_goes_with_its_objects() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("w", &json!({"size": 1}))).await.unwrap();
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definition = value(&definitions.get("widgets.example.com").await.unwrap());
    let established = definition["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    assert!(established);
    assert_eq!(definition["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    definitions.delete("widgets.example.com", &kube::api::DeleteParams::default()).await.unwrap();
    world.until(async || widgets.list(&ListParams::default()).await.is_err()).await;
    assert_eq!(widgets.list(&ListParams::default()).await.refusal().code, 404);
}

#[tokio::test(start_paused = true)]
async fn a_definition_must_be_named_after_its_resource() {
    let world = world().await;
    let definition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "wrong.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }));
    let refusal = world
        .cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
        .create(&PostParams::default(), &definition)
        .await
        .refusal();
    assert_eq!(refusal.code, 422);
    assert!(refusal.message.contains("must be spec.names.plural+\".\"+spec.group"), "{}", refusal.message);
}

/// A definition of cars, or another kind, whose schema knows colour, doors, an engine, seats and labels, with these selectable fields.
/// In a real cluster a definition remembers what it was, so that each test has its own.
fn car_definition(kind: &str, fields: &[&str]) -> DynamicObject {
    let plural = format!("{}s", kind.to_lowercase());
    let selectable: Vec<Value> = fields.iter().map(|path| json!({"jsonPath": path})).collect();
    let spec = json!({"type": "object", "properties": {
        "colour": {"type": "string"}, "doors": {"type": "integer"}, "engine": {"type": "object"},
        "seats": {"type": "array", "items": {"type": "string"}}, "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "selectableFields": selectable,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    }))
}

#[tokio::test(start_paused = true)]
async fn declared_fields_select_custom_resources() {
    let world = world().await;
    world.define(value(&car_definition("Van", &[".spec.colour", ".spec.doors"]))).await;
    let cars = world.api("example.com", "v1", "Van");
    world.until_served(&cars).await;
    for (name, spec) in [("a", json!({"colour": "blue", "doors": 3})), ("b", json!({"colour": "red"}))] {
        let car = json!({"apiVersion": "example.com/v1", "kind": "Van", "metadata": {"name": name}, "spec": spec});
        cars.create(&PostParams::default(), &object(car)).await.unwrap();
    }
    for (selector, expected) in [
        ("spec.colour=blue", ["a"].as_slice()),
        ("spec.colour!=blue", &["b"]),
        ("spec.doors=3", &["a"]),
        ("spec.doors=", &["b"]),
        ("spec.colour=red,metadata.name=a", &[]),
    ] {
        let found = cars.list(&ListParams::default().fields(selector)).await.unwrap();
        let names: Vec<String> = found.items.iter().map(|car| car.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, expected, "{selector}");
    }
    let refusal = cars.list(&ListParams::default().fields("spec.engine=x")).await.refusal();
    assert_eq!((refusal.code, refusal.message.as_str()), (400, "field label not supported: spec.engine"));
}

#[tokio::test(start_paused = true)]
async fn fields_that_cannot_be_selected_are_refused_in_the_servers_words() {
    let world = world().await;
    let fields = [
        ".spec.shape",
        "spec.colour",
        ".metadata.name",
        ".spec.engine",
        ".spec.colour",
        ".spec.colour",
        ".spec.l[0]",
        ".spec.seats[0]",
        ".spec.",
        ".spec.labels.any",
    ];
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let refusal = definitions.create(&PostParams::default(), &car_definition("Car", &fields)).await.refusal();
    assert_eq!(
        refusal.message,
        "CustomResourceDefinition.apiextensions.k8s.io \"cars.example.com\" is invalid: \
         [spec.selectableFields[0].jsonPath: Invalid value: \".spec.shape\": is an invalid path: does not refer to a valid field, \
         spec.selectableFields[1].jsonPath: Invalid value: \"spec.colour\": is an invalid path: expected [ or . but got: spec, \
         spec.selectableFields[2].jsonPath: Invalid value: \".metadata.name\": is an invalid path: does not refer to a valid field, \
         spec.selectableFields[3].jsonPath: Invalid value: \".spec.engine\": must point to a field of type string, boolean or \
         integer. Enum string fields and strings with formats are allowed., \
         spec.selectableFields[5].jsonPath: Duplicate value: \".spec.colour\", \
         spec.selectableFields[6].jsonPath: Invalid value: \".spec.l[0]\": is an invalid path: does not refer to a valid field, \
         spec.selectableFields[7].jsonPath: Invalid value: \".spec.seats[0]\": is an invalid path: array notation is not allowed, \
         spec.selectableFields[8].jsonPath: Invalid value: \".spec.\": is an invalid path: unexpected end of JSON path]"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_in_which_objects_were_stored_has_to_stay() {
    let world = world().await;
    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    world.define(value(&car_definition("Truck", &[]))).await;
    let trucks = world.api("example.com", "v1", "Truck");
    world.until_served(&trucks).await;
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let old = json!({"name": "v1", "served": true, "storage": false, "deprecated": true, "schema": schema});
    let new = json!({"name": "v2", "served": true, "storage": true, "schema": schema});
    let change = async |versions: Value| {
        let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
        definitions.patch("trucks.example.com", &PatchParams::default(), &patch).await
    };
    change(json!([old, new])).await.unwrap();
    let definition = value(&definitions.get("trucks.example.com").await.unwrap());
    assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
    let path = format!("/apis/example.com/v1/namespaces/{}/trucks", world.namespace);
    let warning = async || {
        let request = http::Request::get(&path).body(kube::client::Body::empty()).unwrap();
        let answer = world.client.clone().send(request).await.unwrap();
        answer.headers().get("warning").map(|text| text.to_str().unwrap().to_owned())
    };
    world.until(async || warning().await.is_some()).await;
    assert_eq!(
        warning().await.as_deref(),
        Some("299 - \"example.com/v1 Truck is deprecated; use example.com/v2 Truck\"")
    );
    assert_eq!(
        change(json!([new])).await.refusal().message,
        "CustomResourceDefinition.apiextensions.k8s.io \"trucks.example.com\" is invalid: status.storedVersions[0]: Invalid \
         value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions \
         until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
    );
}
