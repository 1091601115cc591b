//! From JSON to the values that rules see: typed by the schema, with names that are identifiers.

use std::borrow::Cow;
use std::collections::HashMap;

use ::cel::Value as CelValue;
use serde_json::Value;

use super::library;
use super::needs::Needs;
use crate::apiserver::schema::{AdditionalProperties, Schema};

/// As much of a value as is needed, as [`typed`] makes it.
pub(super) fn needed(schema: &Schema, value: &Value, is_resource: bool, needs: &Needs) -> CelValue {
    if needs.is_everything() {
        return typed(schema, value, is_resource);
    }
    match value {
        Value::Null => CelValue::Null,
        _ if needs.is_presence() => CelValue::Bool(true),
        Value::Object(_) if !schema.int_or_string => typed_object(schema, value, is_resource, Some(needs)),
        // What has no fields says so of whichever is asked for.
        _ => typed(schema, value, is_resource),
    }
}

/// A value as rules see it. Of a resource's metadata they see the name alone; fields without a schema they do not see.
pub(super) fn typed(schema: &Schema, value: &Value, is_resource: bool) -> CelValue {
    if schema.int_or_string {
        return untyped(value);
    }
    match value {
        Value::String(text) => typed_text(schema, text),
        Value::Number(number) if schema.types.iter().any(|name| name == "number") => {
            CelValue::Float(number.as_f64().unwrap_or_default())
        }
        Value::Array(items) => match &schema.items {
            Some(item_schema) => {
                CelValue::from(items.iter().map(|item| typed(item_schema, item, false)).collect::<Vec<_>>())
            }
            None => untyped(value),
        },
        Value::Object(_) => typed_object(schema, value, is_resource, None),
        _ => untyped(value),
    }
}

fn typed_text(schema: &Schema, text: &str) -> CelValue {
    match schema.format.as_str() {
        "date-time" => library::parsed("timestamp", text),
        "date" => library::parsed("timestamp", &format!("{text}T00:00:00Z")),
        "duration" => library::parsed("duration", text),
        _ => CelValue::from(text),
    }
}

/// An object with those of its fields that are needed: all, if nothing is said of that.
fn typed_object(schema: &Schema, object: &Value, is_resource: bool, needs: Option<&Needs>) -> CelValue {
    let nothing_less = Needs::everything();
    let of = |identifier: &str| match needs {
        Some(needs) => needs.of(identifier),
        None => Some(&nothing_less),
    };
    let mut fields: HashMap<String, CelValue> = HashMap::new();
    for (name, child) in object.as_object().into_iter().flatten() {
        let Some((identifier, seen)) = seen(schema, name, child, is_resource) else {
            continue;
        };
        let Some(needs) = of(&identifier) else {
            continue;
        };
        let value = match seen {
            Seen::Metadata => visible_metadata(child),
            Seen::Untyped => untyped(child),
            Seen::Typed { schema, is_resource } => needed(schema, child, is_resource, needs),
        };
        fields.insert(identifier.into_owned(), value);
    }
    CelValue::from(fields)
}

/// How rules see a field.
enum Seen<'a> {
    Metadata,
    Untyped,
    Typed { schema: &'a Schema, is_resource: bool },
}

/// The name that rules have for a field, and how they see it; `None` for one that they do not see.
fn seen<'a>(schema: &'a Schema, name: &'a str, child: &Value, is_resource: bool) -> Option<(Cow<'a, str>, Seen<'a>)> {
    if is_resource && matches!(name, "apiVersion" | "kind" | "metadata") {
        let seen = if name == "metadata" { Seen::Metadata } else { Seen::Untyped };
        return Some((Cow::Borrowed(name), seen));
    }
    if let Some(property) = schema.property(name) {
        let identifier = identifier(name).filter(|_| !child.is_null())?;
        return Some((identifier, Seen::Typed { schema: property, is_resource: property.embedded_resource }));
    }
    let seen = match &schema.additional_properties {
        AdditionalProperties::Schema(additional) => Seen::Typed { schema: additional, is_resource: false },
        AdditionalProperties::Any => Seen::Untyped,
        AdditionalProperties::Unset => return None,
    };
    Some((Cow::Borrowed(name), seen))
}

/// Which of the fields that are asked for an object has, a bit for each; `None` where more than that is needed, and for what is
/// no object.
pub(super) fn presence(schema: &Schema, value: &Value, is_resource: bool, needs: &Needs) -> Option<u32> {
    let fields = value.as_object().filter(|_| !schema.int_or_string && needs.are_presence_of_few_fields())?;
    let identifiers = fields.iter().filter_map(|(name, child)| seen(schema, name, child, is_resource));
    let positions = identifiers.filter_map(|(identifier, _)| needs.position(&identifier));
    Some(positions.fold(0, |bits, position| bits | (1 << position)))
}

fn visible_metadata(metadata: &Value) -> CelValue {
    let visible = ["name", "generateName"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), CelValue::from(metadata.get(name)?.as_str()?))));
    CelValue::from(visible.collect::<HashMap<_, _>>())
}

fn untyped(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(flag) => CelValue::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => CelValue::Int(integer),
            None => CelValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => CelValue::from(text.as_str()),
        Value::Array(items) => CelValue::from(items.iter().map(untyped).collect::<Vec<_>>()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, child)| (name.clone(), untyped(child)));
            CelValue::from(fields.collect::<HashMap<_, _>>())
        }
    }
}

/// Words that CEL keeps for itself, escaped as `__name__` (`apiserver/schema/cel/model.Escape`).
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// A property's name in rules; `None` for one that rules cannot name.
pub(super) fn identifier(name: &str) -> Option<Cow<'_, str>> {
    if RESERVED.contains(&name) || name == "while" {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    if name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Some(Cow::Borrowed(name));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = tail;
            continue;
        }
        match character {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            '_' => escaped.push('_'),
            letter if letter.is_ascii_alphabetic() => escaped.push(letter),
            digit if digit.is_ascii_digit() && !escaped.is_empty() => escaped.push(digit),
            _ => return None,
        }
        rest = &rest[character.len_utf8()..];
    }
    (!escaped.is_empty()).then_some(Cow::Owned(escaped))
}

#[cfg(test)]
mod tests {
    use super::identifier;

    #[test]
    fn property_names_are_escaped_as_the_api_server_does() {
        let cases = [
            ("plain", Some("plain")),
            ("with-dash", Some("with__dash__dash")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("namespace", Some("__namespace__")),
            ("int", Some("int")),
            ("9lives", None),
            ("sp ace", None),
        ];
        for (name, expected) in cases {
            assert_eq!(identifier(name).as_deref(), expected, "{name}");
        }
    }
}
