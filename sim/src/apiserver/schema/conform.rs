//! Pruning and defaulting (`apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`).

use serde_json::Value;

use super::path::FieldPath;
use super::{AdditionalProperties, Schema};

/// Fields of every object; no schema needs to name them.
const ROOT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub(super) fn prune_root(schema: &Schema, object: &mut Value, unknown: &mut Vec<String>) {
    prune_object(schema, object, &FieldPath::Root, true, unknown);
}

/// Prunes a value that is no object of its own, such as a default; tells what was unknown.
pub(super) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune(schema, value, &FieldPath::Root, &mut unknown);
    unknown
}

fn prune(schema: &Schema, value: &mut Value, path: &FieldPath<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(_) => prune_object(schema, value, path, schema.embedded_resource, unknown),
        Value::Array(items) => {
            // Items of a list without an item schema are unknown altogether, unless unknown fields are kept.
            let Some(item_schema) = &schema.items else {
                return;
            };
            for (index, item) in items.iter_mut().enumerate() {
                prune(item_schema, item, &path.index(index), unknown);
            }
        }
        Value::Number(_) => make_whole(value),
        _ => {}
    }
}

/// `5.0` becomes `5`: that is how Go writes it, wherever it is read next.
fn make_whole(value: &mut Value) {
    /// All whole numbers up to here are different ones as doubles.
    const MOST: f64 = 9_007_199_254_740_992.0;
    if value.is_i64() || value.is_u64() {
        return;
    }
    if let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < MOST) {
        *value = Value::from(number as i64);
    }
}

/// The same for all numbers of a configuration that is applied.
pub(crate) fn make_all_whole(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(make_all_whole),
        Value::Array(items) => items.iter_mut().for_each(make_all_whole),
        Value::Number(_) => make_whole(value),
        _ => {}
    }
}

fn prune_object(
    schema: &Schema,
    value: &mut Value,
    path: &FieldPath<'_>,
    is_resource: bool,
    unknown: &mut Vec<String>,
) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    // Rarely is there anything to drop, and `retain` costs far more than a walk.
    let mut dropped: Vec<String> = Vec::new();
    for (name, child) in fields.iter_mut() {
        if is_resource && ROOT_FIELDS.contains(&name.as_str()) {
            continue;
        }
        if let Some(child_schema) = schema.property(name) {
            prune(child_schema, child, &path.field(name), unknown);
            continue;
        }
        match &schema.additional_properties {
            AdditionalProperties::Schema(child_schema) => prune(child_schema, child, &path.field(name), unknown),
            AdditionalProperties::Any => {}
            AdditionalProperties::Unset if schema.preserve_unknown_fields => {}
            AdditionalProperties::Unset => {
                unknown.push(path.field(name).to_string());
                dropped.push(name.clone());
            }
        }
    }
    for name in dropped {
        fields.remove(&name);
    }
}

/// Whether there is a null anywhere in a value. There rarely is, and looking costs less than a walk along the schema.
pub(super) fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(has_null),
        Value::Array(items) => items.iter().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A null for a field that may not be null and has no default is as good as absent.
pub(super) fn prune_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let mut dropped: Vec<String> = Vec::new();
            for (name, child) in fields.iter_mut() {
                let Some(child_schema) = field_schema(schema, name) else {
                    continue;
                };
                if child.is_null() && !child_schema.nullable && child_schema.default.is_none() {
                    dropped.push(name.clone());
                } else {
                    prune_nulls(child_schema, child);
                }
            }
            for name in dropped {
                fields.remove(&name);
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = &schema.items {
                for item in items {
                    prune_nulls(item_schema, item);
                }
            }
        }
        _ => {}
    }
}

pub(super) fn fill_defaults(schema: &Schema, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, property) in schema.properties.iter() {
                let child_schema = &property.schema;
                let Some(default) = &child_schema.default else {
                    continue;
                };
                let missing = match fields.get(name) {
                    None => true,
                    Some(present) => present.is_null() && !child_schema.nullable,
                };
                if missing {
                    fields.insert(name.to_owned(), default.clone());
                }
            }
            for (name, child) in fields {
                if let Some(child_schema) = field_schema(schema, name) {
                    replace_null(child_schema, child);
                    fill_defaults(child_schema, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = &schema.items {
                for item in items {
                    replace_null(item_schema, item);
                    fill_defaults(item_schema, item);
                }
            }
        }
        _ => {}
    }
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

fn field_schema<'a>(schema: &'a Schema, name: &str) -> Option<&'a Schema> {
    if let Some(property) = schema.property(name) {
        return Some(property);
    }
    match &schema.additional_properties {
        AdditionalProperties::Schema(child) => Some(child),
        AdditionalProperties::Unset | AdditionalProperties::Any => None,
    }
}
