//! Who owns the fields of a new custom resource: its creator, all of them. The text says so without a tree of the fields in
//! between; what it says is what [`super::track_update`] would say.

use serde_json::Value;

use super::compare::by_element;
use super::json::{print_field_key, print_key};
use super::managed::{self, Entry, Operation};
use super::types::{Atom, Type};
use super::update::Writer;
use crate::clock::format_seconds;

/// What a client has no part in (`stripMetaManager`).
const UNOWNED_METADATA: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The text of managed fields of a new object whose creator says nothing of them; `None` where there is nothing to own.
pub(super) fn track(writer: &Writer<'_>, object: &Value) -> Option<String> {
    // A path element has some twenty characters. From 1,024 bytes on glibc tidies up all that is free before it allocates.
    let mut fields = String::with_capacity(1000);
    fields.push('{');
    let map = writer.own_type().as_map()?;
    for (name, value) in object.as_object()?.iter().filter(|(name, _)| writer.includes(name)) {
        let ty = map.field_or_free(name).ty;
        let before = fields.len();
        separate(&mut fields);
        print_field_key(name, &mut fields);
        fields.push_str(":{");
        if name != "metadata" {
            print_below(ty, value, &mut fields);
        } else if !print_metadata(ty, value, &mut fields) {
            fields.truncate(before);
            continue;
        }
        fields.push('}');
    }
    fields.push('}');
    if fields == "{}" {
        return None;
    }
    let key = writer.key(Operation::Update);
    managed::print(vec![Entry {
        api_version: &writer.api_version(),
        fields: &fields,
        manager: &managed::escaped(&key.manager),
        operation: Operation::Update.as_str(),
        subresource: writer.subresource,
        time: &format_seconds(writer.now),
    }])
}

/// Prints what is owned of metadata, which themselves are nobody's. Tells whether there is anything.
fn print_metadata(ty: Type<'_>, metadata: &Value, text: &mut String) -> bool {
    let Some(map) = ty.as_map() else {
        return false;
    };
    let before = text.len();
    let fields = metadata.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| !UNOWNED_METADATA.contains(&name.as_str())) {
        print_field(name, map.field_or_free(name).ty, value, text);
    }
    text.len() > before
}

fn print_field(name: &str, ty: Type<'_>, value: &Value, text: &mut String) {
    separate(text);
    print_field_key(name, text);
    text.push_str(":{");
    print_below(ty, value, text);
    text.push('}');
}

/// Prints what is below a value, and before it that the value itself is owned, unless it is a leaf.
fn print_below(ty: Type<'_>, value: &Value, text: &mut String) {
    const ITSELF: &str = "\".\":{}";
    match ty.atom(Some(value)) {
        Atom::Scalar(_) => {}
        Atom::List(list) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            if list.is_atomic() || items.is_empty() {
                return;
            }
            let items = by_element(list, items);
            if !items.is_empty() {
                text.push_str(ITSELF);
            }
            for (element, same) in items {
                separate(text);
                print_key(&element, text);
                text.push_str(":{");
                // Of items that cannot be told apart nobody looks inside.
                if let [item] = same.as_slice() {
                    print_below(list.items, item, text);
                }
                text.push('}');
            }
        }
        Atom::Map(map) => {
            let Some(fields) = value.as_object().filter(|fields| !fields.is_empty() && !map.is_atomic) else {
                return;
            };
            text.push_str(ITSELF);
            for (name, child) in fields {
                print_field(name, map.field_or_free(name).ty, child, text);
            }
        }
    }
}

fn separate(text: &mut String) {
    if !text.ends_with('{') {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::super::update::{Before, Writer, track_changes};
    use super::super::{empty_object, track_update};
    use crate::apiserver::definition;

    fn resource() -> crate::store::ResourceType {
        let keyed = json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
            "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "port": {"type": "integer", "default": 80},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            }},
        });
        let properties = json!({
            "keyed": keyed, "plain": {"type": "array", "items": {"type": "object"}},
            "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "texts": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "either": {"x-kubernetes-int-or-string": true}, "number": {"type": "number"},
        });
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": properties},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "mode": {"type": "string"},
        }});
        let mut declared = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "tests.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "tests", "singular": "test", "kind": "Test", "listKind": "TestList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema}}],
            },
        });
        definition::establish(&mut declared, &crate::clock::Clock::new(jiff::Timestamp::UNIX_EPOCH));
        definition::resource_type(&declared).unwrap()
    }

    #[test]
    fn a_new_object_belongs_to_its_creator_as_the_general_way_says() {
        let resource = resource();
        let specs = [
            json!({}),
            json!({"keyed": []}),
            json!({"keyed": [{"name": "b", "port": 1, "tags": ["y", "x"]}, {"name": "a", "tags": []}]}),
            // What validation refuses afterwards.
            json!({"keyed": [{"name": "a"}, {"name": "a", "port": 80}, {"tags": ["z"]}, "text", null]}),
            json!({"keyed": {"name": "a"}, "atomic": "text", "texts": [1], "either": {"a": 1}, "number": [1, 2]}),
            json!({"plain": [{"a": 1}], "atomic": {"a": "1"}, "texts": {"a/b": "1", "quoted \" text": "ü"}}),
            json!({"free": {"a": {"b": [1, {"c": 2}]}, "e": {}, "n": null}, "either": 1, "number": 1.5}),
            Value::Null,
        ];
        let metadatas = [
            json!({"name": "a", "namespace": "default"}),
            json!({"generateName": "a-", "labels": {}, "annotations": {"a": "1"}, "uid": "u", "resourceVersion": "1"}),
            json!({
                "name": "a", "labels": {"b": "2", "a": "1"}, "finalizers": ["z", "y"], "creationTimestamp": null,
                "ownerReferences": [{"uid": "2", "name": "n"}, {"uid": "1", "kind": "K"}], "selfLink": "s",
            }),
        ];
        for (manager, spec) in
            specs.iter().enumerate().map(|(index, spec)| (["kubectl", "a \"b\"", ""][index % 3], spec))
        {
            for metadata in &metadatas {
                let object = json!({
                    "apiVersion": "example.com/v1", "kind": "Test", "metadata": metadata, "spec": spec,
                    "status": {"phase": "Ready"}, "mode": "fast", "unknown": {"a": [1]},
                });
                let now = jiff::Timestamp::from_second(1).unwrap();
                let writer = Writer { resource: &resource, version: "v1", subresource: "", manager, now };
                let nothing = empty_object(&resource, "example.com/v1");
                let before = Before { object: &nothing, managed: None, is_new: true };
                let expected = track_changes(&writer, before, &object, None);
                assert!(expected.is_some());
                assert_eq!(track_update(&writer, before, &object, &Value::Null), expected, "{object}");
            }
        }
        let writer = Writer {
            resource: &resource,
            version: "v1",
            subresource: "",
            manager: "m",
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let object = json!({"apiVersion": "example.com/v1", "kind": "Test", "metadata": {"name": "a"}});
        let nothing = empty_object(&resource, "example.com/v1");
        let before = Before { object: &nothing, managed: None, is_new: true };
        assert_eq!(track_update(&writer, before, &object, &Value::Null), track_changes(&writer, before, &object, None));
    }
}
