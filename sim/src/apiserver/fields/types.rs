//! What ownership of fields needs to know of types: where an object is one thing with one owner, and how a list's items are
//! told apart (structured-merge-diff's `schema.Atom`).

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::element::PathElement;
use crate::apiserver::schema::{ListType, Schema};

/// `metadata` of every kind. Names, uid and the like are strings; what is not named here is free.
static OBJECT_META: LazyLock<Schema> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let time = json!({"type": "string", "format": "date-time"});
    let owner = json!({
        "type": "object", "x-kubernetes-map-type": "atomic",
        "properties": {
            "apiVersion": text, "kind": text, "name": text, "uid": text,
            "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
        },
    });
    let declared = json!({
        "type": "object",
        "properties": {
            "name": text, "generateName": text, "namespace": text, "selfLink": text, "uid": text, "resourceVersion": text,
            "generation": {"type": "integer"}, "creationTimestamp": time, "deletionTimestamp": time,
            "deletionGracePeriodSeconds": {"type": "integer"}, "labels": texts, "annotations": texts,
            "ownerReferences": {
                "type": "array", "items": owner, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            },
            "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "managedFields": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "atomic"},
        },
    });
    Schema::compile(&declared, "metadata").unwrap_or_default()
});

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type<'a> {
    /// A whole object; `metadata` is typed whatever the schema says of it.
    Root(Option<&'a Schema>),
    /// Of a schema; the flag says whether a schema above it keeps unknown fields.
    Declared(&'a Schema, bool),
    /// Of no schema: objects are granular, lists atomic.
    Deduced,
    /// Of no schema, in a list of no schema: one thing.
    Untyped,
    /// A string.
    Text,
}

/// How a value of a type is handled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Atom<'a> {
    Scalar(Scalar),
    List(List<'a>),
    Map(Map<'a>),
}

/// What a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    Text,
    Boolean,
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) relation: ListType<'a>,
    pub(crate) items: Type<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Map<'a> {
    /// Whether it has one owner.
    pub(crate) is_atomic: bool,
    ty: Type<'a>,
}

/// A field's type, and whether the schema names the field. Of named fields only leaves are owned; keys of maps are owned
/// themselves too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) ty: Type<'a>,
    pub(crate) is_named: bool,
}

impl<'a> Type<'a> {
    /// How a value of this type is handled; where the type allows several forms, by the value's own.
    pub(crate) fn atom(self, value: Option<&Value>) -> Atom<'a> {
        let form = match value {
            Some(Value::Object(_)) | Some(Value::Null) | None => Form::Map,
            Some(Value::Array(_)) => Form::List,
            Some(_) => Form::Scalar,
        };
        match self {
            Self::Text => Atom::Scalar(Scalar::Text),
            Self::Root(_) => Atom::Map(Map { is_atomic: false, ty: self }),
            Self::Deduced | Self::Untyped => match form {
                Form::Map => Atom::Map(Map { is_atomic: matches!(self, Self::Untyped), ty: self }),
                Form::List => Atom::List(List { relation: ListType::Atomic, items: Type::Untyped }),
                Form::Scalar => Atom::Scalar(Scalar::Any),
            },
            Self::Declared(schema, keeps_unknown) => declared_atom(schema, keeps_unknown, form),
        }
    }

    /// The type as that of a list, whatever a value looks like.
    pub(crate) fn as_list(self) -> Option<List<'a>> {
        match self.atom(Some(&Value::Array(Vec::new()))) {
            Atom::List(list) => Some(list),
            Atom::Scalar(_) | Atom::Map(_) => None,
        }
    }

    /// The type as that of an object, whatever a value looks like.
    pub(crate) fn as_map(self) -> Option<Map<'a>> {
        match self.atom(None) {
            Atom::Map(map) => Some(map),
            Atom::Scalar(_) | Atom::List(_) => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Form {
    Map,
    List,
    Scalar,
}

fn declared_atom(schema: &Schema, keeps_unknown: bool, form: Form) -> Atom<'_> {
    let keeps_unknown = keeps_unknown || schema.keeps_unknown_fields_below();
    let map = || Atom::Map(Map { is_atomic: schema.is_atomic_map(), ty: Type::Declared(schema, keeps_unknown) });
    let list = || {
        let items = schema.items().map_or(Type::Untyped, |items| Type::Declared(items, keeps_unknown));
        Atom::List(List { relation: schema.list_type(), items })
    };
    match schema.declared_type() {
        "object" => map(),
        "array" => list(),
        "integer" | "number" => Atom::Scalar(Scalar::Numeric),
        "boolean" => Atom::Scalar(Scalar::Boolean),
        // Formats such as date-time are not checked by their JSON type.
        "string" if matches!(schema.format(), "" | "byte") => Atom::Scalar(Scalar::Text),
        "string" => Atom::Scalar(Scalar::Any),
        _ => match form {
            Form::Map => map(),
            Form::List => list(),
            Form::Scalar => Atom::Scalar(Scalar::Any),
        },
    }
}

impl Atom<'_> {
    pub(crate) fn is_same_form(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Scalar(_), Self::Scalar(_)) | (Self::List(_), Self::List(_)) | (Self::Map(_), Self::Map(_))
        )
    }
}

impl<'a> Map<'a> {
    /// A field's type; `None` for a field that the schema forbids.
    pub(crate) fn field(&self, name: &str) -> Option<Field<'a>> {
        match self.ty {
            Type::Root(schema) => root_field(schema, name),
            Type::Declared(schema, keeps_unknown) => declared_field(schema, keeps_unknown, name),
            ty @ (Type::Deduced | Type::Untyped | Type::Text) => Some(Field { ty, is_named: false }),
        }
    }

    /// A field's type; free where the schema does not know the field, so that objects written under an older schema can be
    /// handled.
    pub(crate) fn field_or_free(&self, name: &str) -> Field<'a> {
        self.field(name).unwrap_or(Field { ty: Type::Deduced, is_named: false })
    }
}

fn root_field<'a>(schema: Option<&'a Schema>, name: &str) -> Option<Field<'a>> {
    let named = |ty| Some(Field { ty, is_named: true });
    match name {
        "apiVersion" | "kind" => named(Type::Text),
        "metadata" => named(Type::Declared(&OBJECT_META, false)),
        // Kinds of no schema have these as every kind has.
        "spec" | "status" if schema.is_none() => named(Type::Deduced),
        _ => match schema {
            Some(schema) => declared_field(schema, schema.keeps_unknown_fields_below(), name),
            None => Some(Field { ty: Type::Deduced, is_named: false }),
        },
    }
}

fn declared_field<'a>(schema: &'a Schema, keeps_unknown: bool, name: &str) -> Option<Field<'a>> {
    if let Some(property) = schema.property(name) {
        return Some(Field { ty: Type::Declared(property, keeps_unknown), is_named: true });
    }
    if schema.is_embedded_resource() {
        match name {
            "apiVersion" | "kind" => return Some(Field { ty: Type::Text, is_named: true }),
            "metadata" => return Some(Field { ty: Type::Declared(&OBJECT_META, false), is_named: true }),
            _ => {}
        }
    }
    if let Some(additional) = schema.additional() {
        return Some(Field { ty: Type::Declared(additional, keeps_unknown), is_named: false });
    }
    let is_free = keeps_unknown || schema.preserves_unknown_fields() || !schema.has_properties();
    is_free.then_some(Field { ty: Type::Deduced, is_named: false })
}

impl List<'_> {
    pub(crate) fn is_atomic(&self) -> bool {
        matches!(self.relation, ListType::Atomic)
    }

    /// The path element of an item.
    ///
    /// # Errors
    /// An explanation when the item has none, e.g. without any of its key fields.
    pub(crate) fn element(&self, item: &Value) -> Result<PathElement, String> {
        let ListType::Map(names) = self.relation else {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::Value(Box::new(scalar.clone()))),
            };
        };
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let mut key: Vec<(Box<str>, Value)> = Vec::with_capacity(names.len());
        for name in names {
            if let Some(value) = fields.get(name).or_else(|| self.key_default(name)) {
                key.push((name.as_str().into(), value.clone()));
            }
        }
        if key.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
                 for any key fields)",
                names.join(" ")
            ));
        }
        key.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(PathElement::Key(key.into_boxed_slice()))
    }

    fn key_default(&self, name: &str) -> Option<&Value> {
        match self.items {
            Type::Declared(schema, _) => schema.property(name)?.default(),
            _ => None,
        }
    }
}
