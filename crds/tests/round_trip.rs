//! Nothing that a user writes gets lost between decoding and writing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use aviary_crds::schema::all_crds;
use aviary_crds::{Canary, decode};
use common::{flagger_objects, round_trip, without_nulls};
use kube::Resource;
use serde_json::{Map, Value, json};

#[test]
fn every_fixture_survives() {
    let objects = flagger_objects();
    assert_eq!(objects.len(), 52, "fixtures were added or lost");
    for (file, object) in objects {
        let again = round_trip(&object).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(again, without_nulls(object), "{file}");
    }
}

/// How a generated object fills its fields.
#[derive(Clone, Copy)]
enum Fill {
    /// With values that are not the default of anything.
    Telling,
    /// With false and 0, which must not be mistaken for absence.
    Zero,
}

/// An object with every property of a schema, regardless of which exclude each other.
fn generate(schema: &Value, fill: Fill) -> Value {
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("http");
    }
    match schema["type"].as_str().expect("a type") {
        "string" if schema["format"] == "date-time" => json!("2026-01-02T03:04:05.123456Z"),
        "string" => match schema["enum"].as_array() {
            Some(allowed) => allowed.last().expect("a value").clone(),
            None => json!("text"),
        },
        "boolean" => json!(matches!(fill, Fill::Telling)),
        "number" | "integer" => match fill {
            Fill::Telling => json!(7),
            Fill::Zero => json!(0),
        },
        "array" => json!([generate(&schema["items"], fill)]),
        "object" => {
            let mut fields: Map<String, Value> = Map::new();
            if let Some(properties) = schema["properties"].as_object() {
                fields.extend(properties.iter().map(|(name, schema)| (name.clone(), generate(schema, fill))));
            }
            if schema["additionalProperties"].is_object() {
                fields.insert("key".to_owned(), generate(&schema["additionalProperties"], fill));
            }
            Value::Object(fields)
        }
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn every_property_of_the_schemas_survives() {
    // Objects of other systems are only read.
    for crd in all_crds().into_iter().filter(|crd| crd["spec"]["group"] == "flagger.app") {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for fill in [Fill::Telling, Fill::Zero] {
            let mut object = generate(schema, fill);
            object["apiVersion"] = json!("flagger.app/v1beta1");
            object["kind"] = crd["spec"]["names"]["kind"].clone();
            object["metadata"] = json!({"name": "podinfo", "namespace": "test"});
            let again = round_trip(&object).unwrap_or_else(|error| panic!("{}: {error}", object["kind"]));
            assert_eq!(again, object);
        }
    }
}

#[test]
fn fields_that_only_a_mesh_knows_survive() {
    let unknown = json!({"text": "x", "list": [1, 2.5, {"deep": true}], "off": false});
    let object = json!({
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {
                "port": 80,
                "match": [{"uri": {"suffix": ".png", "ofTheFuture": unknown}, "ofTheFuture": unknown}],
                "rewrite": {"uri": "/", "ofTheFuture": unknown},
                "retries": {"attempts": 3, "ofTheFuture": unknown},
                "headers": {"request": {"add": {"a": "b"}, "ofTheFuture": unknown}, "ofTheFuture": unknown},
                "corsPolicy": {"allowOrigins": [{"suffix": "x"}], "ofTheFuture": unknown},
                "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}}], "ofTheFuture": unknown},
            },
            "analysis": {"match": [{"uri": {"exact": "/"}, "ofTheFuture": unknown}]},
            "canaryAnalysis": {"stepWeight": 5},
        },
        "status": {
            "phase": "", "failedChecks": 0, "canaryWeight": 0, "iterations": -1, "trackedConfigs": {},
            "ofTheFuture": unknown,
        },
    });
    assert_eq!(round_trip(&object).expect("decodes"), object);
}

#[test]
fn fractional_thresholds_stay_as_written() {
    let object = json!({
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "analysis": {"metrics": [
                {"name": "a", "threshold": 99.9},
                {"name": "b", "thresholdRange": {"min": -0.5, "max": 1e300}},
            ]},
        },
    });
    assert_eq!(round_trip(&object).expect("decodes"), object);
}

#[test]
fn resources_know_their_place() {
    assert_eq!(Canary::url_path(&(), Some("test")), "/apis/flagger.app/v1beta1/namespaces/test/canaries");
    let (_, object) = flagger_objects().into_iter().find(|(_, object)| object["kind"] == "Canary").expect("a canary");
    let canary: Canary = decode(&object).expect("decodes");
    assert_eq!(canary.object_ref(&()).kind.as_deref(), Some("Canary"));
    assert_eq!(canary.object_ref(&()).api_version.as_deref(), Some("flagger.app/v1beta1"));
}
