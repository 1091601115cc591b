//! From a declared schema to a compiled one.

use regex::Regex;
use serde_json::Value;

use super::{AdditionalProperties, Bound, Encoding, Limits, ListKind, PatchStrategy, Property, Schema, SchemaRef, cel};
use crate::apiserver::openapi::definitions::{Definition, REFERENCE_PREFIX};
use crate::store::{FieldError, FieldReason};

/// Compiles a type of Kubernetes.
pub(crate) fn compile_definition(definition: &Definition) -> Schema {
    // Nothing can be wrong with them; a test compiles them all.
    let mut schema = compile(&definition.declared(), "", &mut Vec::new());
    for (field, go_type) in definition.go_types() {
        if let Some(property) = schema.properties.get_mut(field) {
            property.omitted_when_zero = go_type.omitted_when_zero;
        }
        if go_type.always_present {
            schema.always_present.push((*field).to_owned());
        }
    }
    schema.encoding = match definition.name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Some(Encoding::Quantity),
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Some(Encoding::Time),
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Some(Encoding::MicroTime),
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            Some(Encoding::Raw)
        }
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => Some(Encoding::Schema),
        _ => None,
    };
    schema.preserve_unknown_fields |= matches!(schema.encoding, Some(Encoding::Raw | Encoding::Schema));
    schema
}

/// The schema behind a declaration: a definition of Kubernetes where it refers to one, else compiled.
fn compile_reference(declared: &Value, path: &str, problems: &mut Vec<FieldError>) -> SchemaRef {
    let reference = declared["$ref"].as_str().or_else(|| declared["allOf"][0]["$ref"].as_str());
    let definition = reference.and_then(|name| Definition::find(name.strip_prefix(REFERENCE_PREFIX)?));
    match definition {
        Some(definition) => SchemaRef::of(definition),
        None => compile(declared, path, problems).into(),
    }
}

fn patch_strategy(declared: &Value) -> PatchStrategy {
    let strategies = declared["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
    let has = |name: &str| strategies.split(',').any(|strategy| strategy == name);
    PatchStrategy {
        merge: has("merge"),
        replace: has("replace"),
        merge_key: declared["x-kubernetes-patch-merge-key"].as_str().map(str::to_owned),
    }
}

pub(super) fn compile(declared: &Value, path: &str, problems: &mut Vec<FieldError>) -> Schema {
    let flag = |name: &str| declared[name] == true;
    let children = |name: &str, problems: &mut Vec<FieldError>| -> Vec<Schema> {
        let alternatives = declared[name].as_array();
        alternatives
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, child)| compile(child, &format!("{path}.{name}[{index}]"), problems))
            .collect()
    };
    let all_of = children("allOf", problems);
    let any_of = children("anyOf", problems);
    let one_of = children("oneOf", problems);
    let not =
        declared["not"].is_object().then(|| Box::new(compile(&declared["not"], &format!("{path}.not"), problems)));
    let items = declared["items"]
        .is_object()
        .then(|| compile_reference(&declared["items"], &format!("{path}.items"), problems));
    let additional_properties = match &declared["additionalProperties"] {
        Value::Bool(true) => AdditionalProperties::Any,
        values @ Value::Object(_) => {
            let path = format!("{path}.additionalProperties");
            AdditionalProperties::Schema(compile_reference(values, &path, problems))
        }
        _ => AdditionalProperties::Unset,
    };
    let properties = declared["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, child)| {
            let path = format!("{path}.properties[{name}]");
            let property = Property {
                schema: compile_reference(child, &path, problems),
                omitted_when_zero: false,
                patch: patch_strategy(child),
            };
            (name.clone(), property)
        })
        .collect();
    let mut schema = Schema {
        types: declared["type"].as_str().map(str::to_owned).into_iter().collect(),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string") || declared["format"] == "int-or-string",
        preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        format: declared["format"].as_str().unwrap_or_default().to_owned(),
        default: declared.get("default").cloned(),
        properties,
        always_present: Vec::new(),
        additional_properties,
        required: strings(&declared["required"]),
        items,
        list_type: match declared["x-kubernetes-list-type"].as_str() {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map(strings(&declared["x-kubernetes-list-map-keys"])),
            _ => ListKind::Atomic,
        },
        atomic_map: declared["x-kubernetes-map-type"] == "atomic",
        allowed_values: declared["enum"].as_array().cloned().unwrap_or_default(),
        pattern: compile_pattern(declared, path, problems),
        minimum: bound(declared, "minimum", "exclusiveMinimum"),
        maximum: bound(declared, "maximum", "exclusiveMaximum"),
        multiple_of: declared["multipleOf"].as_f64(),
        length: limits(declared, "minLength", "maxLength"),
        item_count: limits(declared, "minItems", "maxItems"),
        property_count: limits(declared, "minProperties", "maxProperties"),
        unique_items: flag("uniqueItems"),
        all_of,
        any_of,
        one_of,
        not,
        encoding: None,
        rules: cel::Rules::default(),
        has_rules: false,
        has_transition_rules: false,
        has_defaults: false,
        has_keyed_lists: false,
        number: 0,
    };
    let is_root = path.ends_with(".openAPIV3Schema");
    schema.rules = cel::rules(&schema, declared, path, is_root, problems);
    schema.has_rules = !schema.rules.is_empty() || schema.children().any(|child| child.has_rules);
    schema.has_transition_rules =
        schema.rules.compare_with_before() || schema.children().any(|child| child.has_transition_rules);
    // What types of Kubernetes have is only known when they are compiled.
    let below = |has: fn(&Schema) -> bool| schema.inside().any(|child| child.own().is_none_or(has));
    let has_defaults = below(|child| child.default.is_some() || child.has_defaults);
    let has_keyed_lists = !matches!(schema.list_type, ListKind::Atomic) || below(|child| child.has_keyed_lists);
    (schema.has_defaults, schema.has_keyed_lists) = (has_defaults, has_keyed_lists);
    schema
}

fn compile_pattern(declared: &Value, path: &str, problems: &mut Vec<FieldError>) -> Option<Regex> {
    let pattern = declared["pattern"].as_str()?;
    match Regex::new(pattern) {
        Ok(regex) => Some(regex),
        Err(error) => {
            problems.push(FieldError {
                reason: FieldReason::Invalid,
                field: format!("{path}.pattern"),
                value: declared["pattern"].to_string(),
                detail: format!("must be a valid regular expression, but isn't: {error}"),
            });
            None
        }
    }
}

fn bound(declared: &Value, name: &str, exclusive: &str) -> Option<Bound> {
    Some(Bound {
        number: declared[name].as_f64()?,
        value: declared[name].clone(),
        exclusive: declared[exclusive] == true,
    })
}

fn limits(declared: &Value, minimum: &str, maximum: &str) -> Limits {
    Limits { minimum: declared[minimum].as_u64(), maximum: declared[maximum].as_u64() }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
