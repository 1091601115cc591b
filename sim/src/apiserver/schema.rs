//! Structural schemas of custom resources: compiled once, then used to prune, default and validate objects in the order in
//! which the API server does it.
//!
//! `x-kubernetes-validations` (CEL) is not evaluated.

mod conform;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::store::{FieldError, FieldReason};

/// A compiled structural schema (`apiextensions.k8s.io/v1` `JSONSchemaProps`).
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<String>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown_fields: bool,
    embedded_resource: bool,
    format: String,
    default: Option<Value>,
    properties: BTreeMap<String, Schema>,
    additional_properties: AdditionalProperties,
    required: Vec<String>,
    items: Option<Box<Schema>>,
    list_type: ListKind,
    atomic_map: bool,
    allowed_values: Vec<Value>,
    pattern: Option<Regex>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple_of: Option<f64>,
    length: Limits,
    item_count: Limits,
    property_count: Limits,
    unique_items: bool,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

#[derive(Debug, Default)]
enum AdditionalProperties {
    #[default]
    Unset,
    Any,
    Schema(Box<Schema>),
}

#[derive(Debug, Default)]
enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// How the items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListType<'a> {
    /// The list has one owner and is replaced as a whole.
    Atomic,
    /// Scalars; each value at most once.
    Set,
    /// Objects, told apart by the values of these fields.
    Map(&'a [String]),
}

#[derive(Debug)]
struct Bound {
    value: Value,
    number: f64,
    exclusive: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Limits {
    minimum: Option<u64>,
    maximum: Option<u64>,
}

/// What conforming an object to its schema took away.
#[derive(Debug, Default)]
pub(crate) struct Conformed {
    /// Paths of fields that the schema does not know, in the order of the object.
    pub(crate) unknown_fields: Vec<String>,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Patterns that are no regular expressions, and a root that is not an object.
    pub(crate) fn compile(declared: &Value, path: &str) -> Result<Self, Vec<FieldError>> {
        let mut problems = Vec::new();
        let schema = compile(declared, path, &mut problems);
        if !schema.types.iter().any(|name| name == "object") {
            problems.push(FieldError::invalid(format!("{path}.type"), &declared["type"], "must be object at the root"));
        }
        if problems.is_empty() { Ok(schema) } else { Err(problems) }
    }

    /// The schema of a declared field of an object. Fields of a map have [`Schema::additional`] instead.
    pub(crate) fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name)
    }

    /// The schema of a list's items.
    pub(crate) fn items(&self) -> Option<&Schema> {
        self.items.as_deref()
    }

    /// The schema of a map's values.
    pub(crate) fn additional(&self) -> Option<&Schema> {
        match &self.additional_properties {
            AdditionalProperties::Schema(schema) => Some(schema),
            AdditionalProperties::Any | AdditionalProperties::Unset => None,
        }
    }

    /// How the items of a list are told apart; a list that says nothing is atomic.
    pub(crate) fn list_type(&self) -> ListType<'_> {
        match &self.list_type {
            ListKind::Atomic => ListType::Atomic,
            ListKind::Set => ListType::Set,
            ListKind::Map(keys) => ListType::Map(keys),
        }
    }

    /// Whether an object or map has one owner and is replaced as a whole (`x-kubernetes-map-type: atomic`). Objects that say
    /// nothing are granular.
    pub(crate) fn is_atomic_map(&self) -> bool {
        self.atomic_map
    }

    /// The value that an absent field has, such as `TCP` for a port's protocol.
    pub(crate) fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }

    /// Whether fields are kept that the schema does not name (`x-kubernetes-preserve-unknown-fields`).
    pub(crate) fn preserves_unknown_fields(&self) -> bool {
        self.preserve_unknown_fields || matches!(self.additional_properties, AdditionalProperties::Any)
    }

    /// Drops unknown fields and nulls that mean nothing, and fills defaults.
    pub(crate) fn conform(&self, object: &mut Value) -> Conformed {
        let mut conformed = Conformed::default();
        conform::prune_root(self, object, &mut conformed.unknown_fields);
        conform::prune_nulls(self, object);
        conform::fill_defaults(self, object);
        conformed
    }

    /// All violations of a conformed object, in the API server's words and order.
    pub(crate) fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut problems = validate::violations(self, object);
        validate::duplicates(self, object, "", &mut problems);
        problems
    }
}

fn compile(declared: &Value, path: &str, problems: &mut Vec<FieldError>) -> Schema {
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
    let boxed = |name: &str, problems: &mut Vec<FieldError>| {
        declared[name].is_object().then(|| Box::new(compile(&declared[name], &format!("{path}.{name}"), problems)))
    };
    let not = boxed("not", problems);
    let items = boxed("items", problems);
    let additional_properties = match &declared["additionalProperties"] {
        Value::Bool(true) => AdditionalProperties::Any,
        Value::Object(_) => {
            boxed("additionalProperties", problems).map_or(AdditionalProperties::Unset, AdditionalProperties::Schema)
        }
        _ => AdditionalProperties::Unset,
    };
    let properties = declared["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, child)| {
            let path = format!("{path}.properties[{name}]");
            (name.clone(), compile(child, &path, problems))
        })
        .collect();
    Schema {
        types: declared["type"].as_str().map(str::to_owned).into_iter().collect(),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        format: declared["format"].as_str().unwrap_or_default().to_owned(),
        default: declared.get("default").cloned(),
        properties,
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
    }
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

fn child_path(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}
