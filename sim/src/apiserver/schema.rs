//! Structural schemas of custom resources: compiled once, then used to prune, default and validate objects in the order in
//! which the API server does it. Built-in kinds have schemas too, made of Kubernetes' OpenAPI definitions; [`decode`] reads
//! objects by them as Go does.

mod cel;
mod conform;
pub(crate) mod decode;
mod path;
pub(crate) mod structural;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regex::Regex;
use serde_json::Value;

use super::openapi::definitions::{Definition, REFERENCE_PREFIX};
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
    properties: BTreeMap<String, Property>,
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
    rules: Vec<cel::Rule>,
    /// Whether this schema or one below it has rules.
    has_rules: bool,
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

/// A schema, shared.
#[derive(Debug, Clone)]
pub struct SchemaRef(Reference);

#[derive(Debug, Clone)]
enum Reference {
    Own(Arc<Schema>),
    /// Compiled when first looked at; definitions refer to each other, some to themselves.
    Builtin(&'static Definition),
}

impl SchemaRef {
    /// The schema of a built-in kind, where there is one.
    pub(crate) fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        Definition::of_kind(group, version, kind).map(|definition| Self(Reference::Builtin(definition)))
    }

    /// The schema of a Kubernetes type by its full name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Definition::find(name).map(|definition| Self(Reference::Builtin(definition)))
    }

    /// The Kubernetes type behind it.
    pub(crate) fn definition(&self) -> Option<&'static Definition> {
        match &self.0 {
            Reference::Own(_) => None,
            Reference::Builtin(definition) => Some(definition),
        }
    }
}

impl SchemaRef {
    /// The schema, unless it is a type of Kubernetes, which is only compiled when it is looked at.
    fn own(&self) -> Option<&Schema> {
        match &self.0 {
            Reference::Own(schema) => Some(schema),
            Reference::Builtin(_) => None,
        }
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> Self {
        Self(Reference::Own(Arc::new(schema)))
    }
}

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match &self.0 {
            Reference::Own(schema) => schema,
            Reference::Builtin(definition) => definition.schema(),
        }
    }
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

    /// Whether there are rules that may say something else of an object when its status alone changes.
    pub(crate) fn has_rules_about_status(&self) -> bool {
        let can_see_status = !self.rules.is_empty()
            || self.all_of.iter().any(|schema| schema.has_rules)
            || self.additional().is_some_and(|schema| schema.has_rules);
        can_see_status || self.property("status").is_some_and(|status| status.has_rules)
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
        conform::prune_nulls(self, object);
        conform::fill_defaults(self, object);
        conformed
    }

    /// The schemas of the values inside, and those that hold beside this one; types of Kubernetes have no rules.
    fn children(&self) -> impl Iterator<Item = &Schema> {
        let additional = match &self.additional_properties {
            AdditionalProperties::Schema(additional) => Some(additional),
            AdditionalProperties::Unset | AdditionalProperties::Any => None,
        };
        let properties = self.properties.values().map(|property| &property.schema);
        let references = properties.chain(&self.items).chain(additional);
        references.filter_map(SchemaRef::own).chain(&self.all_of)
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
        let mut problems = validate::violations(self, object, "");
        validate::duplicates(self, object, "", &mut problems);
        problems
    }

    /// Violations of an update: values that were invalid before, and are the same still, are let through. A write to
    /// `/status` answers for the status alone.
    pub(crate) fn validate_update(&self, object: &Value, before: &Value, status_only: bool) -> Vec<FieldError> {
        let mut problems = if status_only {
            match (self.property("status"), object.get("status")) {
                (Some(schema), Some(status)) => update_violations(schema, status, before.get("status"), "status"),
                _ => Vec::new(),
            }
        } else {
            update_violations(self, object, Some(before), "")
        };
        let mut repeated = Vec::new();
        validate::duplicates(self, object, "", &mut repeated);
        if !repeated.is_empty() {
            let mut known = Vec::new();
            validate::duplicates(self, before, "", &mut known);
            if known.is_empty() {
                problems.extend(repeated);
            }
        }
        problems
    }
}

/// Nearly every write is valid, and following both objects costs more than following one.
fn update_violations(schema: &Schema, value: &Value, before: Option<&Value>, path: &str) -> Vec<FieldError> {
    let problems = validate::violations(schema, value, path);
    if problems.is_empty() { problems } else { validate::new_violations(schema, value, before, path) }
}

/// Compiles a type of Kubernetes.
pub(crate) fn compile_definition(definition: &Definition) -> Schema {
    // Nothing can be wrong with them; a test compiles them all.
    let mut schema = compile(&definition.declared(), "", &mut Vec::new());
    for (field, go_type) in definition.go_types() {
        if let Some(property) = schema.properties.get_mut(*field) {
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
        Some(definition) => SchemaRef(Reference::Builtin(definition)),
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
        rules: Vec::new(),
        has_rules: false,
        number: 0,
    };
    let is_root = path.ends_with(".openAPIV3Schema");
    schema.rules = cel::rules(&schema, declared, path, is_root, problems);
    schema.has_rules = !schema.rules.is_empty() || schema.children().any(|child| child.has_rules);
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

fn child_path(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}
