#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use super::Schema;
use crate::store::StatusError;

fn schema(spec: &Value) -> Schema {
    let root = json!({"type": "object", "required": ["spec"], "properties": {"spec": spec}});
    Schema::compile(&root, "").unwrap()
}

fn messages(spec_schema: &Value, spec: &Value) -> Vec<String> {
    schema(spec_schema).validate(&json!({"spec": spec})).iter().map(ToString::to_string).collect()
}

#[test]
fn violations_read_as_the_api_servers() {
    let cases = [
        (
            json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
            json!({"n": "x"}),
            r#"spec.n: Invalid value: "string": spec.n in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "object", "properties": {"i": {"type": "string", "pattern": "^[0-9]+(m|s)$"}}}),
            json!({"i": "1h"}),
            r#"spec.i: Invalid value: "1h": spec.i in body should match '^[0-9]+(m|s)$'"#,
        ),
        (
            json!({"type": "object", "properties": {"e": {"type": "string", "enum": ["a", "b"]}}}),
            json!({"e": "c"}),
            r#"spec.e: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "object", "properties": {"n": {"type": "number", "minimum": 0}}}),
            json!({"n": -1}),
            "spec.n: Invalid value: -1: spec.n in body should be greater than or equal to 0",
        ),
        (
            json!({"type": "object", "properties": {"n": {"type": "number", "maximum": 100, "exclusiveMaximum": true}}}),
            json!({"n": 100}),
            "spec.n: Invalid value: 100: spec.n in body should be less than 100",
        ),
        (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 1, "items": {"type": "string"}}}}),
            json!({"l": ["a", "b"]}),
            "spec.l: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "object", "required": ["x"]}}}}),
            json!({"l": [{"x": 1}, {}]}),
            "spec.l[1].x: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"k": 1}),
            r#"spec.k: Invalid value: "integer": spec.k in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "properties": {"s": {"type": "string", "maxLength": 2}}}),
            json!({"s": "abc"}),
            "spec.s: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "object", "not": {"required": ["a", "b"]}}),
            json!({"a": 1, "b": 2}),
            r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
        ),
        (
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 2}),
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (
            json!({"type": "object", "properties": {"t": {"type": "string", "format": "date-time"}}}),
            json!({"t": "yesterday"}),
            r#"spec.t: Invalid value: "yesterday": spec.t in body must be of type date-time: "yesterday""#,
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object"}}}}),
            json!({"l": [{"name": "a", "v": 1}, {"name": "a", "v": 2}]}),
            r#"spec.l[1]: Duplicate value: {"name":"a"}"#,
        ),
    ];
    for (spec_schema, spec, expected) in cases {
        assert_eq!(messages(&spec_schema, &spec), [expected]);
    }
}

#[test]
fn valid_values_pass() {
    let spec_schema = json!({
        "type": "object",
        "properties": {
            "port": {"x-kubernetes-int-or-string": true},
            "either": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            "n": {"type": "number"}, "i": {"type": "integer", "format": "int32"},
            "none": {"type": "string", "nullable": true},
            "t": {"type": "string", "format": "date-time"},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    let spec = json!({"port": "http", "either": 5, "n": 1, "i": 2.0, "none": null, "t": "2026-01-01T00:00:00Z", "open": {"x": 1}});
    assert_eq!(messages(&spec_schema, &spec), Vec::<String>::new());
    assert_eq!(messages(&spec_schema, &json!({"port": 80})), Vec::<String>::new());
    assert_eq!(messages(&spec_schema, &json!({"i": 3_000_000_000_i64})).len(), 1);
}

#[test]
fn alternatives_report_the_nearest_failure_too() {
    let spec_schema = json!({"type": "object", "oneOf": [
        {"properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
        {"required": ["c"]},
    ]});
    assert_eq!(
        messages(&spec_schema, &json!({"a": 1})),
        [
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.b: Required value",
        ]
    );
}

#[test]
fn conforming_prunes_unknown_fields_and_fills_defaults() {
    let schema = schema(&json!({
        "type": "object",
        "properties": {
            "kept": {"type": "string"},
            "interval": {"type": "string", "default": "60s"},
            "nested": {"type": "object", "default": {}, "properties": {"weight": {"type": "integer", "default": 5}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"known": {"type": "object", "properties": {"b": {"type": "string"}}}}},
        },
    }));
    let mut object = json!({
        "apiVersion": "v", "kind": "K", "metadata": {"name": "n", "annotations": {"free": "text"}},
        "extra": 1,
        "spec": {"kept": null, "interval": null, "typo": 1, "list": [{"z": 1}], "open": {"any": 1, "known": {"b": "1", "c": 2}}},
    });
    let conformed = schema.conform(&mut object);
    assert_eq!(conformed.unknown_fields, ["extra", "spec.list[0].z", "spec.open.known.c", "spec.typo"]);
    assert_eq!(
        object["spec"],
        json!({"interval": "60s", "nested": {"weight": 5}, "list": [{"a": "x"}], "open": {"any": 1, "known": {"b": "1"}}})
    );
    assert_eq!(object["metadata"]["annotations"]["free"], "text");
}

#[test]
fn several_problems_are_listed_in_brackets_and_equal_ones_once() {
    let schema = schema(&json!({"type": "object", "required": ["a", "b"]}));
    let problems = schema.validate(&json!({"spec": {}}));
    let error = StatusError::invalid("flagger.app", "Canary", "x", &problems);
    assert_eq!(
        error.message(),
        "Canary.flagger.app \"x\" is invalid: [spec.a: Required value, spec.b: Required value]"
    );
    assert_eq!(error.code(), 422);
    let doubled: Vec<_> = problems.iter().chain(&problems).cloned().collect();
    assert_eq!(StatusError::invalid("flagger.app", "Canary", "x", &doubled).message(), error.message());
}
