//! The manifests of `docs/systems`: an API server takes every one as it is, and cuts nothing away.

use std::path::{Path, PathBuf};

use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{World, api, in_virtual_time};

/// Every file there that holds objects, with these.
fn examples() -> Vec<(PathBuf, Vec<Value>)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systems")];
    let mut examples = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
                // Others are scenarios.
                if objects.iter().all(|object| object["apiVersion"].is_string()) {
                    examples.push((path, objects));
                }
            }
        }
    }
    examples
}

/// As by `kubectl apply --server-side --dry-run=server`, which refuses fields that the definition does not have.
pub async fn are_taken_as_they_are(client: &Client) {
    let examples = examples();
    for kind in ["Rollout", "BirdWatch", "Canary", "MetricTemplate"] {
        let has_one = |objects: &[Value]| objects.iter().any(|object| object["kind"] == kind);
        assert!(examples.iter().any(|(_, objects)| has_one(objects)), "no example of a {kind}");
    }
    let strictly = PatchParams { dry_run: true, ..PatchParams::apply("examples").validation_strict() };
    for (path, objects) in examples {
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let types = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            let (group, version) = types.0.split_once('/').unwrap_or(("", types.0));
            let namespace = (types.1 != "Namespace").then_some("test");
            let objects = api(client.clone(), group, version, types.1, namespace);
            let taken = objects.patch(name, &strictly, &Patch::Apply(&object)).await;
            let taken = taken.unwrap_or_else(|error| panic!("{} {name} of {}: {error}", types.1, path.display()));
            let taken = serde_json::to_value(taken).unwrap();
            assert_has(&taken, &object, &format!("{} {name} of {}", types.1, path.display()));
        }
    }
}

/// Everything that was written is there.
fn assert_has(found: &Value, written: &Value, place: &str) {
    match written {
        Value::Object(fields) => {
            for (name, value) in fields {
                assert_has(&found[name], value, &format!("{place}, {name}"));
            }
        }
        Value::Array(items) => {
            assert_eq!(found.as_array().map(Vec::len), Some(items.len()), "{place}");
            for (index, item) in items.iter().enumerate() {
                assert_has(&found[index], item, &format!("{place}, {index}"));
            }
        }
        // An API server writes 1000m as 1.
        Value::String(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
            assert!(found.is_string(), "{place}: {found}");
        }
        Value::Number(number) => assert_eq!(found.as_f64(), number.as_f64(), "{place}"),
        _ => assert_eq!(found, written, "{place}"),
    }
}

#[test]
fn the_examples_are_taken_as_they_are() {
    in_virtual_time(async {
        let world = World::new(1);
        are_taken_as_they_are(&world.cluster.client("kubectl")).await;
    });
}

/// Without this the test above might pass with anything.
#[test]
fn a_field_that_is_cut_away_is_seen() {
    let cut =
        std::panic::catch_unwind(|| assert_has(&json!({"a": [{"b": 1}]}), &json!({"a": [{"b": 1, "c": 2}]}), "x"));
    assert!(cut.is_err());
}
