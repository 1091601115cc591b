//! What a rule says of the parts that it needs, it says of the whole value too.

#![allow(clippy::unwrap_used)]

use ::cel::Program;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cost::Counted;
use super::needs::Needs;
use super::{convert, library};
use crate::apiserver::schema::Schema;
use crate::apiserver::schema::compile::compile;

fn schema() -> Schema {
    let leaf = json!({"type": "object", "properties": {
        "text": {"type": "string"}, "since": {"type": "string", "format": "date-time"},
        "ratio": {"type": "number"}, "port": {"x-kubernetes-int-or-string": true},
    }});
    let declared = json!({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"b": leaf, "text": {"type": "string"}, "dash-ed": {"type": "integer"}}},
        "b": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array", "items": leaf},
        "map": {"type": "object", "additionalProperties": leaf},
        "any": {"type": "object", "additionalProperties": true},
        "text": {"type": "string"}, "since": {"type": "string", "format": "date-time"},
        "namespace": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true},
    }});
    let mut problems = Vec::new();
    let schema = compile(&declared, "spec", &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    schema
}

const NAMES: [&str; 13] =
    ["a", "b", "list", "map", "any", "text", "since", "namespace", "port", "ratio", "dash-ed", "metadata", "name"];

const IDENTIFIERS: [&str; 13] = [
    "a",
    "b",
    "list",
    "map",
    "any",
    "text",
    "since",
    "__namespace__",
    "port",
    "ratio",
    "dash__dash__ed",
    "metadata",
    "name",
];

/// Objects of these names, of the declared types or of others: as rules are evaluated, a part may be anything.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        Just(json!(0.5)),
        Just(json!("a")),
        Just(json!("2026-01-01T00:00:00Z")),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner.clone(), 0..6);
        prop_oneof![
            4 => fields.prop_map(|fields| json!(fields)),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let root = prop_oneof![3 => Just("self"), 1 => Just("oldSelf")];
    let selected = prop::collection::vec(prop::sample::select(&IDENTIFIERS[..]), 0..4);
    (root, selected)
        .prop_map(|(root, selected)| selected.iter().fold(root.to_owned(), |path, name| format!("{path}.{name}")))
}

/// Rules in which paths are asked for, compared, counted, looped over, indexed, and hidden by variables of loops.
fn rule() -> impl Strategy<Value = String> {
    let field = || prop::sample::select(&IDENTIFIERS[..]);
    let question = prop_oneof![
        4 => (path(), field()).prop_map(|(path, field)| format!("has({path}.{field})")),
        1 => (path(), path()).prop_map(|(left, right)| format!("{left} == {right}")),
        1 => path().prop_map(|path| format!("size({path}) > 1")),
        1 => path().prop_map(|path| format!("type({path}) == type({{}})")),
        1 => path().prop_map(|path| format!("[{path}, 1].size() == 2 && {{'k': {path}}}.k == {path}")),
        1 => (path(), field()).prop_map(|(path, field)| format!("'{field}' in {path}")),
        1 => (path(), field()).prop_map(|(path, field)| format!("{path}['{field}'] != null")),
        1 => (path(), field()).prop_map(|(path, field)| format!("{path}.?{field}.hasValue()")),
        1 => (path(), field()).prop_map(|(path, field)| format!("{path}.all(x, has(self.{field}))")),
        1 => (path(), field()).prop_map(|(path, field)| format!("{path}.exists(x, x == self.{field})")),
        1 => (path(), path()).prop_map(|(path, other)| format!("{path}.map(self, {other}).size() > 0")),
    ];
    question.prop_recursive(3, 8, 3, |inner| {
        (inner.clone(), inner.clone(), inner, 0..4).prop_map(|(first, second, third, shape)| match shape {
            0 => format!("({first}) && ({second})"),
            1 => format!("({first}) || ({second})"),
            2 => format!("!({first})"),
            _ => format!("({first}) ? ({second}) : ({third})"),
        })
    })
}

fn needs(program: &Program, variable: &str) -> Needs {
    let mut needs = Needs::default();
    needs.add(program.expression(), variable);
    needs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_parts_that_a_rule_needs_decide_it_as_the_whole_does(
        rule in rule(), new in value(), old in value(), is_resource in any::<bool>(),
    ) {
        let schema = schema();
        let program = library::environment().compile(&rule).unwrap();
        let counted = Counted::new(&program);
        let whole = |value: &Value| convert::typed(&schema, value, is_resource);
        let part = |value: &Value, variable| convert::needed(&schema, value, is_resource, &needs(&program, variable));
        let of_whole = counted.execute(&library::context(whole(&new), Some(whole(&old)), false));
        let of_parts = counted.execute(&library::context(part(&new, "self"), Some(part(&old, "oldSelf")), false));
        let told = |outcome: &Result<_, super::Stopped>| match outcome {
            Ok(value) => format!("{value:?}"),
            Err(stopped) => format!("failed: {}", describe(stopped)),
        };
        prop_assert_eq!(told(&of_whole), told(&of_parts), "{}", rule);
    }
}

/// Failures print values, and maps in no order: what kind of failure it is must suffice.
fn describe(stopped: &super::Stopped) -> String {
    format!("{stopped:?}")
        .chars()
        .take_while(|character| character.is_ascii_alphanumeric() || "(.".contains(*character))
        .collect()
}

#[test]
fn what_holds_for_the_fields_that_are_there_is_not_asked_twice() {
    let declared = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"a-b": {"type": "string", "nullable": true}, "c": {"type": "string"}, "d": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "has(self.a__dash__b) || has(self.c)", "message": "one of them"}],
    }}});
    let mut problems = Vec::new();
    let schema = compile(&declared, "spec.validation.openAPIV3Schema", &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let is_refused = |spec: Value| !super::broken_rules(&schema, &json!({"spec": spec}), None).is_empty();
    // Twice, for the second time is the one that is answered from what is known.
    for _ in 0..2 {
        assert!(!is_refused(json!({"a-b": "x"})) && !is_refused(json!({"c": "y", "d": "z"})));
        assert!(!is_refused(json!({"a-b": "x", "c": "y"})));
        assert!(is_refused(json!({"d": "z"})) && is_refused(json!({})));
        assert!(is_refused(json!({"a-b": null})), "a null is not there");
    }
}

#[test]
fn a_rule_that_asks_for_fields_needs_no_others() {
    let needed = |rule: &str, variable: &str| needs(&library::environment().compile(rule).unwrap(), variable);
    let both = needed("has(self.analysis) || has(self.canaryAnalysis)", "self");
    assert!(
        both.of("analysis").is_some_and(Needs::is_presence)
            && both.of("canaryAnalysis").is_some_and(Needs::is_presence)
    );
    assert!(both.of("service").is_none() && !both.is_everything());
    let nested = needed("size(self.a.b) > 0 && has(self.a.c.d)", "self");
    let a = nested.of("a").unwrap();
    assert!(a.of("b").unwrap().is_everything());
    assert!(a.of("c").unwrap().of("d").unwrap().is_presence() && !a.of("c").unwrap().is_everything());
    assert!(needed("self.a == 1 && self.size() == 2", "self").is_everything());
    assert!(needed("self.a == 1", "oldSelf").is_presence(), "of what a rule does not name it needs nothing");
}
