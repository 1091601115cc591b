//! Structural schemas of custom resources: compiled once, then used to prune, default and validate objects in the order in
//! which the API server does it. Built-in kinds have schemas too, made of Kubernetes' OpenAPI definitions; [`decode`] reads
//! objects by them as Go does.

mod cel;
mod compile;
pub(crate) mod conform;
pub(crate) mod decode;
mod path;
mod properties;
mod reference;
pub(crate) mod structural;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::atomic::{AtomicU64, Ordering};

use regex::Regex;
use serde_json::Value;

pub(crate) use compile::compile_definition;
pub(crate) use reference::SchemaRef;

use crate::store::FieldError;
use compile::compile;
use path::FieldPath;
use properties::Properties;

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
    properties: Properties,
    /// Structs by value: Go writes them even when they are empty.
    always_present: Vec<String>,
    additional_properties: AdditionalProperties,
    required: Vec<String>,
    items: Option<SchemaRef>,
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
    encoding: Option<Encoding>,
    rules: cel::Rules,
    /// Whether this schema or one below it has rules.
    has_rules: bool,
    /// Whether some of these compare a value with the one before.
    has_transition_rules: bool,
    /// Whether a schema below this one has a default.
    has_defaults: bool,
    /// Whether this schema or one below it is of a list whose items are told apart.
    has_keyed_lists: bool,
    /// Tells the schemas of custom resources apart; 0 for those below them and of built-in kinds.
    number: u64,
}

/// The last number that was given to a schema.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
enum AdditionalProperties {
    #[default]
    Unset,
    Any,
    Schema(SchemaRef),
}

/// A declared field of an object.
#[derive(Debug)]
struct Property {
    schema: SchemaRef,
    /// Go leaves the field out when it is zero (`omitempty` of a value).
    omitted_when_zero: bool,
    patch: PatchStrategy,
}

/// How a strategic merge patch treats a field (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct PatchStrategy {
    /// Lists are merged instead of replaced.
    pub(crate) merge: bool,
    /// Maps are replaced instead of merged.
    pub(crate) replace: bool,
    /// The field by which the items of a merged list are told apart; lists of scalars have none.
    pub(crate) merge_key: Option<String>,
}

/// Values with an encoding of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `resource.Quantity`: kept in canonical form.
    Quantity,
    /// `metav1.Time`, RFC 3339 to the second.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// A schema or something else (`JSONSchemaPropsOrBool` and its like).
    Schema,
    /// JSON that nobody looks into (`runtime.RawExtension`, `FieldsV1`).
    Raw,
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

impl Limits {
    fn is_unlimited(self) -> bool {
        self.minimum.is_none() && self.maximum.is_none()
    }
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
        let mut schema = compile(declared, path, &mut problems);
        schema.number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
        if !schema.types.iter().any(|name| name == "object") {
            problems.push(FieldError::invalid(format!("{path}.type"), &declared["type"], "must be object at the root"));
        }
        if problems.is_empty() { Ok(schema) } else { Err(problems) }
    }

    /// What tells this schema of a custom resource from every other, also from a later one of the same resource.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a part of an object (`spec`, `status`) can be judged without the rest when it alone changes: nothing is said of
    /// the object as a whole that depends on what is in the part.
    pub(crate) fn judges_apart(&self, part: &str) -> bool {
        let says_nothing_of_the_whole = self.rules.is_empty()
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
            && self.allowed_values.is_empty();
        // What did not change keeps every other rule that it kept before.
        let mut others = self.properties.iter().filter(|(name, _)| *name != part).map(|(_, property)| &property.schema);
        says_nothing_of_the_whole
            && self.additional().is_none()
            && !others.any(|schema| schema.own().is_some_and(|schema| schema.has_transition_rules))
    }

    /// The schema of a declared field of an object. Fields of a map have [`Schema::additional`] instead.
    pub(crate) fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).map(|property| &*property.schema)
    }

    pub(crate) fn property_ref(&self, name: &str) -> Option<&SchemaRef> {
        self.properties.get(name).map(|property| &property.schema)
    }

    pub(crate) fn items_ref(&self) -> Option<&SchemaRef> {
        self.items.as_ref()
    }

    pub(crate) fn additional_ref(&self) -> Option<&SchemaRef> {
        match &self.additional_properties {
            AdditionalProperties::Schema(schema) => Some(schema),
            AdditionalProperties::Any | AdditionalProperties::Unset => None,
        }
    }

    /// The encoding of values that have one of their own.
    pub(crate) fn encoding(&self) -> Option<Encoding> {
        self.encoding
    }

    pub(crate) fn is_type(&self, name: &str) -> bool {
        self.types.iter().any(|declared| declared == name)
    }

    pub(crate) fn is_array(&self) -> bool {
        self.is_type("array")
    }

    pub(crate) fn is_int_or_string(&self) -> bool {
        self.int_or_string
    }

    /// Whether strings are base64.
    pub(crate) fn is_bytes(&self) -> bool {
        self.format == "byte"
    }

    /// How a strategic merge patch treats a field.
    pub(crate) fn patch_strategy(&self, name: &str) -> Option<&PatchStrategy> {
        self.properties.get(name).map(|property| &property.patch)
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

    /// The declared `type`, or nothing where several are allowed.
    pub(crate) fn declared_type(&self) -> &str {
        match self.types.as_slice() {
            [only] if !self.int_or_string => only,
            _ => "",
        }
    }

    /// The declared `format`.
    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// Whether any field is declared.
    pub(crate) fn has_properties(&self) -> bool {
        !self.properties.is_empty()
    }

    /// Whether values are whole objects with `apiVersion`, `kind` and `metadata` (`x-kubernetes-embedded-resource`).
    pub(crate) fn is_embedded_resource(&self) -> bool {
        self.embedded_resource
    }

    /// Whether fields that the schema does not name are kept here and, as far as ownership of fields goes, everywhere below
    /// (`x-kubernetes-preserve-unknown-fields`).
    pub(crate) fn keeps_unknown_fields_below(&self) -> bool {
        self.preserve_unknown_fields
    }

    /// Whether fields are kept that the schema does not name (`x-kubernetes-preserve-unknown-fields`).
    pub(crate) fn preserves_unknown_fields(&self) -> bool {
        self.preserve_unknown_fields || matches!(self.additional_properties, AdditionalProperties::Any)
    }

    /// Drops unknown fields and nulls that mean nothing, and fills defaults.
    pub(crate) fn conform(&self, object: &mut Value) -> Conformed {
        let mut conformed = Conformed::default();
        conform::prune_root(self, object, &mut conformed.unknown_fields);
        if conform::has_null(object) {
            conform::prune_nulls(self, object);
        }
        conform::fill_defaults(self, object);
        conformed
    }

    /// The schemas of the values inside, and those that hold beside this one; types of Kubernetes have no rules.
    fn children(&self) -> impl Iterator<Item = &Schema> {
        self.inside().filter_map(SchemaRef::own).chain(&self.all_of)
    }

    /// The schemas of the values inside.
    fn inside(&self) -> impl Iterator<Item = &SchemaRef> {
        let properties = self.properties.iter().map(|(_, property)| &property.schema);
        properties.chain(&self.items).chain(self.additional_ref())
    }

    /// The rules (`x-kubernetes-validations`) that an object breaks which `found` its other violations to be these.
    pub(crate) fn broken_rules(&self, object: &Value, old: Option<&Value>, found: &[FieldError]) -> Vec<FieldError> {
        if !self.has_rules {
            return Vec::new();
        }
        match cel::not_checked(found) {
            Some(problem) => vec![problem],
            None => cel::broken_rules(self, object, old),
        }
    }

    /// All violations of a conformed object, in the API server's words and order.
    pub(crate) fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut problems = validate::violations(self, object, &FieldPath::Root);
        validate::duplicates(self, object, &FieldPath::Root, &mut problems);
        problems
    }

    /// Violations of an update: values that were invalid before, and are the same still, are let through. A write that can
    /// change one `part` alone, as one to `/status`, answers for that part.
    pub(crate) fn validate_update(&self, object: &Value, before: &Value, part: Option<&str>) -> Vec<FieldError> {
        let mut problems = match part {
            None => validate::new_violations(self, object, Some(before), &FieldPath::Root),
            Some(part) => match (self.property(part), object.get(part)) {
                (Some(schema), Some(value)) => {
                    validate::new_violations(schema, value, before.get(part), &FieldPath::Root.field(part))
                }
                _ => Vec::new(),
            },
        };
        let mut repeated = Vec::new();
        validate::duplicates(self, object, &FieldPath::Root, &mut repeated);
        if !repeated.is_empty() {
            let mut known = Vec::new();
            validate::duplicates(self, before, &FieldPath::Root, &mut known);
            if known.is_empty() {
                problems.extend(repeated);
            }
        }
        problems
    }
}

fn child_path(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}
