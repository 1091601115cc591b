//! The CRDs admit what Flagger's admit and refuse what Flagger's refuse, and the checked-in files are up to date.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use aviary_crds::schema::{all_crds, definition_to_yaml, to_yaml};
use common::flagger_crds;
use serde_json::{Map, Value};

/// What Aviary's schema has and Flagger's has not.
const ADDITIONS: [&str; 6] = [
    "canaries.flagger.app.spec.canaryAnalysis",
    "canaries.flagger.app.status.canaryRevision",
    "canaries.flagger.app.status.state",
    "canaries.flagger.app.status.lastStepTime",
    "canaries.flagger.app.status.metricsUnavailableSince",
    "canaries.flagger.app.status.observedGeneration",
];

/// Keywords that say nothing about which values are admitted.
const INFORMATIVE: [&str; 1] = ["description"];

/// A format that no validator knows, so that it has no effect.
const FORMAT_WITHOUT_EFFECT: &str = "string";

fn keywords(schema: &Value) -> Map<String, Value> {
    let mut keywords = schema.as_object().expect("a schema").clone();
    keywords.retain(|name, value| {
        let has_no_effect = name == "format" && value == FORMAT_WITHOUT_EFFECT;
        !INFORMATIVE.contains(&name.as_str()) && !has_no_effect
    });
    // The order of these has no meaning.
    for name in ["enum", "required"] {
        if let Some(Value::Array(items)) = keywords.get_mut(name) {
            items.sort_by_key(ToString::to_string);
        }
    }
    keywords
}

/// Lists the differences of two schemas that matter, except for [`ADDITIONS`].
fn compare(path: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    let (mut our_keywords, mut their_keywords) = (keywords(ours), keywords(theirs));
    let empty = Value::Object(Map::new());
    let our_fields = our_keywords.remove("properties").unwrap_or_else(|| empty.clone());
    let their_fields = their_keywords.remove("properties").unwrap_or_else(|| empty.clone());
    for (name, theirs) in their_fields.as_object().expect("fields") {
        match our_fields.get(name) {
            Some(ours) => compare(&format!("{path}.{name}"), ours, theirs, differences),
            None => differences.push(format!("{path}.{name} is missing")),
        }
    }
    for name in our_fields.as_object().expect("fields").keys() {
        let path = format!("{path}.{name}");
        if their_fields.get(name).is_none() && !ADDITIONS.contains(&path.as_str()) {
            differences.push(format!("{path} is new"));
        }
    }
    for (name, step) in [("items", "[]"), ("additionalProperties", "{}")] {
        match (our_keywords.remove(name), their_keywords.remove(name)) {
            (Some(ours), Some(theirs)) => compare(&format!("{path}{step}"), &ours, &theirs, differences),
            (None, None) => {}
            _ => differences.push(format!("{path}: only one side has {name}")),
        }
    }
    // An array has no fields to require: the keyword has no effect there, although Flagger's schema has it once.
    if their_keywords.get("type").is_some_and(|kind| kind == "array") {
        their_keywords.remove("required");
    }
    // Instead of a required field, a rule requires it or that of Flagger 0.1.
    if path == "canaries.flagger.app.spec" && our_keywords.remove("x-kubernetes-validations").is_some() {
        let required = our_keywords.get_mut("required").and_then(Value::as_array_mut);
        required.expect("required fields").insert(0, "analysis".into());
    }
    // The name by which Flagger's own guide calls it.
    if path == "canaries.flagger.app.spec.provider" {
        let names = our_keywords.get_mut("enum").and_then(Value::as_array_mut).expect("names");
        names.retain(|name| name != "smi:crossover");
    }
    if our_keywords != their_keywords {
        differences.push(format!(
            "{path}: ours {}, theirs {}",
            Value::Object(our_keywords),
            Value::Object(their_keywords)
        ));
    }
}

#[test]
fn same_as_flagger_but_for_the_additions() {
    let theirs = flagger_crds();
    let ours = all_crds();
    assert_eq!(theirs.len(), 3);
    let mut differences = Vec::new();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
        let name = theirs["metadata"]["name"].as_str().expect("a name").to_owned();
        let schema = |crd: &mut Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        let (our_schema, their_schema) = (schema(&mut ours), schema(&mut theirs));
        // Served beside Flagger's, see `the_older_version_has_the_same_schema`.
        let versions = ours["spec"]["versions"].as_array_mut().expect("versions");
        assert_eq!(versions.len(), if name.starts_with("canaries") { 2 } else { 1 });
        versions.truncate(1);
        if name.starts_with("canaries") {
            let columns = versions[0]["additionalPrinterColumns"].as_array_mut().expect("columns");
            assert_eq!(columns.pop().expect("a column")["name"], "Refused", "it is ours, and the last one");
        }
        assert_eq!(ours, theirs, "names, columns, scope and versions of {name}");
        compare(&name, &our_schema, &their_schema, &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Shows that the comparison can fail.
#[test]
fn the_comparison_sees_differences() {
    let (ours, theirs) = (all_crds(), flagger_crds());
    let pointer = "/spec/versions/0/schema/openAPIV3Schema";
    let theirs = theirs[0].pointer(pointer).expect("a schema");
    let count = |change: &dyn Fn(&mut Value)| {
        let mut ours = ours[0].pointer(pointer).expect("a schema").clone();
        change(&mut ours);
        let mut differences = Vec::new();
        compare("canaries.flagger.app", &ours, theirs, &mut differences);
        differences.len()
    };
    let spec = |schema: &mut Value, field: &str, value: Value| {
        *schema.pointer_mut(&format!("/properties/spec/{field}")).expect("there") = value;
    };
    assert_eq!(count(&|_| {}), 0);
    assert_eq!(count(&|schema| spec(schema, "required", serde_json::json!(["targetRef", "service"]))), 1);
    let without_rule = |schema: &mut Value| {
        let spec = schema.pointer_mut("/properties/spec").and_then(Value::as_object_mut).expect("a spec");
        spec.remove("x-kubernetes-validations").expect("a rule");
    };
    assert_eq!(count(&without_rule), 1);
    assert_eq!(count(&|schema| spec(schema, "properties/suspend/type", "string".into())), 1);
    assert_eq!(count(&|schema| spec(schema, "properties/provider/enum", serde_json::json!(["istio"]))), 1);
    assert_eq!(count(&|schema| spec(schema, "properties/analysis/oneOf", serde_json::json!([]))), 1);
    assert_eq!(count(&|schema| spec(schema, "properties/analysis/properties/interval/pattern", "^x$".into())), 1);
}

#[test]
fn checked_in_files_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for crd in all_crds() {
        let name = crd["metadata"]["name"].as_str().expect("a name");
        let path = folder.join(format!("{name}.yaml"));
        let yaml = definition_to_yaml(&crd).expect("writes");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &yaml).expect("writes");
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(present == yaml, "{} is out of date; run UPDATE_GENERATED=1 cargo test -p aviary-crds", path.display());
        let read: Value = serde_saphyr::from_str(&yaml).expect("reads back");
        assert_eq!(read, crd, "{name} reads back as it was");
    }
}

#[test]
fn the_stream_has_all_definitions() {
    let stream = to_yaml().expect("writes");
    let read: Vec<Value> = serde_saphyr::from_multiple(&stream).expect("reads back");
    assert_eq!(read, all_crds());
}

#[test]
fn the_additions_are_there_and_optional() {
    let properties = all_crds()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].take();
    for addition in ADDITIONS {
        let path = addition.strip_prefix("canaries.flagger.app.").expect("a field of the canary");
        let (part, field) = path.split_once('.').expect("a path");
        assert!(properties[part]["properties"][field].is_object(), "{addition}");
    }
    assert!(properties["status"]["required"].is_null());
    assert_eq!(properties["spec"]["required"], serde_json::json!(["targetRef"]));
}

/// An API server that converts nothing stores what is written in one version in the other: a field that one of them does not know
/// would be cut away.
#[test]
fn the_older_version_has_the_same_schema() {
    let canary = &all_crds()[0]["spec"];
    assert_eq!((&canary["versions"][0]["name"], &canary["versions"][0]["storage"]), (&"v1beta1".into(), &true.into()));
    assert_eq!(
        (&canary["versions"][1]["name"], &canary["versions"][1]["storage"]),
        (&"v1alpha1".into(), &false.into())
    );
    assert!(canary["versions"][1]["served"] == true && canary["conversion"].is_null());
    assert_eq!(canary["versions"][0]["schema"], canary["versions"][1]["schema"]);
    assert_eq!(canary["versions"][0]["subresources"], canary["versions"][1]["subresources"]);
}
