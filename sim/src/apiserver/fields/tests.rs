//! Laws of the algebra, and the walks by example.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::compare::{compare, fields_of};
use super::element::PathElement;
use super::managed;
use super::merge::{merge, remove};
use super::set::{Path, Set, path_text};
use super::types::Type;
use super::{json, text};
use crate::apiserver::schema::Schema;

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        "[abc\"\\\\é]{1,2}".prop_map(|name| PathElement::field(&name)),
        (0..3_i64).prop_map(|number| PathElement::Value(Box::new(json!(number)))),
        "[xy\"]{1,2}".prop_map(|text| PathElement::Value(Box::new(json!(text)))),
        ("[xy\"]", 0..2_i64).prop_map(|(name, port)| {
            PathElement::Key(Box::new([("name".into(), json!(name)), ("port".into(), json!(port))]))
        }),
        (0..2_i64).prop_map(PathElement::Index),
    ]
}

fn paths() -> impl Strategy<Value = Vec<Path>> {
    prop::collection::vec(prop::collection::vec(element(), 1..4), 0..10)
}

fn set(paths: &[Path]) -> Set {
    let mut set = Set::default();
    paths.iter().for_each(|path| set.insert(path));
    set
}

fn plain(paths: &[Path]) -> BTreeSet<Path> {
    paths.iter().cloned().collect()
}

fn members(set: &Set) -> BTreeSet<Path> {
    let paths = set.paths();
    let found: BTreeSet<Path> = paths.iter().cloned().collect();
    assert_eq!(paths.len(), found.len(), "each path once");
    assert_eq!(paths.len(), set.len());
    found
}

proptest! {
    #[test]
    fn sets_of_paths_are_sets(left in paths(), right in paths()) {
        let (a, b) = (set(&left), set(&right));
        let (plain_a, plain_b) = (plain(&left), plain(&right));
        prop_assert_eq!(members(&a), plain_a.clone());
        prop_assert_eq!(members(&a.union(&b)), &plain_a | &plain_b);
        prop_assert_eq!(members(&a.intersection(&b)), &plain_a & &plain_b);
        prop_assert_eq!(members(&a.difference(&b)), &plain_a - &plain_b);
        let below = |path: &Path| (1..=path.len()).any(|length| plain_b.contains(&path[..length]));
        let recursive: BTreeSet<Path> = plain_a.iter().filter(|path| !below(path)).cloned().collect();
        prop_assert_eq!(members(&a.recursive_difference(&b)), recursive);
        for path in left.iter().chain(&right) {
            prop_assert_eq!(a.contains(path), plain_a.contains(path));
        }
        prop_assert_eq!(a.is_empty(), left.is_empty());
    }

    #[test]
    fn equal_sets_have_equal_trees(left in paths(), right in paths()) {
        let (a, b) = (set(&left), set(&right));
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
    }

    #[test]
    fn fields_print_and_parse(left in paths(), right in paths()) {
        let (a, b) = (set(&left), set(&right));
        let text = json::print(&a);
        prop_assert_eq!(&json::from_value(&serde_json::from_str(&text).unwrap()).unwrap(), &a);
        prop_assert_eq!(json::count_common(&text, &b), Some(a.intersection(&b).len()), "{}", text);
    }

    #[test]
    fn what_was_compared_explains_the_change(old in value(), new in value()) {
        let (old, new) = (json!({"root": old}), json!({"root": new}));
        let ty = Type::Deduced;
        let changes = compare(ty, &old, &new, |_| true);
        let nothing_changed = changes.removed.is_empty() && changes.modified.is_empty() && changes.added.is_empty();
        prop_assert_eq!(nothing_changed, old == new);
        // What is gone is no field of the new object; what came is none of the old one's alone.
        let fields = fields_of(ty, &new);
        prop_assert!(fields.intersection(&changes.removed).is_empty());
        prop_assert!(fields_of(ty, &old).intersection(&changes.added).is_empty());
        prop_assert_eq!(merge(ty, &new, &new).unwrap(), new.clone());
        let all = fields_of(ty, &new);
        prop_assert!(fields_of(ty, &remove(ty, &new, &all)).is_empty());
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        "[ab]".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn schema() -> Schema {
    let item = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "protocol": {"type": "string", "default": "TCP"}, "value": {"type": "string"},
    }});
    let spec = json!({"type": "object", "properties": {
        "items": {"type": "array", "items": item, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "protocol"]},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "steps": {"type": "array", "items": {"type": "integer"}},
    }});
    Schema::compile(&json!({"type": "object", "properties": {"spec": spec}}), "").unwrap()
}

fn texts(set: &Set) -> Vec<String> {
    set.paths().iter().map(|path| path_text(path)).collect()
}

#[test]
fn items_are_told_apart_by_their_keys_with_defaults() {
    let schema = schema();
    let object = json!({"spec": {"items": [{"name": "a", "value": "1"}], "tags": ["x"], "steps": [1]}});
    assert_eq!(
        texts(&fields_of(Type::Root(Some(&schema)), &object)),
        [
            ".spec.steps",
            r#".spec.items[name="a",protocol="TCP"]"#,
            r#".spec.items[name="a",protocol="TCP"].name"#,
            r#".spec.items[name="a",protocol="TCP"].value"#,
            r#".spec.tags[="x"]"#,
        ]
    );
}

#[test]
fn merged_lists_take_the_order_of_the_configuration_and_keep_others_in_their_place() {
    let schema = schema();
    let ty = Type::Root(Some(&schema));
    for (present, applied, expected) in [
        (json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"])),
        (json!(["a", "b"]), json!(["x", "b", "y"]), json!(["a", "x", "b", "y"])),
        (json!([]), json!(["b", "a"]), json!(["b", "a"])),
        (json!(["a", "b"]), json!(["b"]), json!(["a", "b"])),
    ] {
        let merged = merge(ty, &json!({"spec": {"tags": present}}), &json!({"spec": {"tags": applied}})).unwrap();
        assert_eq!(merged["spec"]["tags"], expected, "{present} and {applied}");
    }
}

#[test]
fn names_with_quotes_survive_the_stored_form() {
    let given = json!([{
        "manager": "a \"quoted\" \\ one", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a\"b": {}}}, "time": "2026-01-01T00:00:00Z", "subresource": "status",
    }]);
    let stored = managed::encode(&managed::decode_given(&given).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), given);
    assert_eq!(managed::entries(&stored).unwrap().len(), 1);
    assert_eq!(managed::print(managed::entries(&stored).unwrap()).unwrap(), stored);
}

#[test]
fn objects_rest_with_their_managed_fields_as_they_are() {
    let stored =
        r#"[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:a":{}},"manager":"m","operation":"Apply"}]"#;
    let object = json!({
        "apiVersion": "v1", "data": {"managedFields": "[{\"apiVersion\":"},
        "metadata": {"annotations": {"a": "}\"managedFields\":[{\"apiVersion\":"}, "managedFields": stored, "name": "x"},
    });
    let json = crate::store::Record::new(object.clone(), 1, None).json();
    let seen: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(seen["metadata"]["managedFields"][0]["manager"], "m");
    assert_eq!(text::read_object(&json, 0..json.len()).unwrap(), object);
}
