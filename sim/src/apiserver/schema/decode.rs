//! Reading objects of built-in kinds as the API server's Go types do: values must have their types, unknown fields are
//! dropped and told, nulls are as good as absent, quantities and times get their canonical form, and fields that Go leaves out
//! when they are zero are left out.
//!
//! Texts are those of `sigs.k8s.io/json`, the decoder of the API server.

use k8s_openapi::ByteString;
use serde_json::{Map, Value};

use super::{AdditionalProperties, Encoding, Schema, SchemaRef, child_path};
use crate::apiserver::openapi::definitions::Definition;
use crate::clock::format_seconds;
use crate::quantity;

/// A value that does not fit its field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A value of another JSON type.
    #[error("json: cannot unmarshal {found} into Go struct field {}", .place.describe())]
    Type {
        /// The JSON type found, with the number if it is one out of range.
        found: String,
        /// The type wanted, where it is not the field's.
        wanted: Option<&'static str>,
        place: Box<Place>,
    },
    /// What a type's own decoder said.
    #[error("{0}")]
    Custom(String),
}

/// Where a value was found; completed on the way out.
#[derive(Debug, Default)]
pub(crate) struct Place {
    struct_name: &'static str,
    /// Field names from the inside to the outside.
    fields: Vec<String>,
    go_type: String,
    /// Lists and maps between the field and the value.
    depth: usize,
}

impl Place {
    /// `DeploymentSpec.spec.replicas of type int32`.
    fn describe(&self) -> String {
        let path: Vec<&str> = self.fields.iter().rev().map(String::as_str).collect();
        format!("{}.{} of type {}", self.struct_name, path.join("."), self.go_type)
    }
}

impl DecodeError {
    fn mismatch(value: &Value, wanted: Option<&'static str>) -> Self {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Self::Type { found: found.to_owned(), wanted, place: Box::default() }
    }

    fn out_of_range(value: &Value, wanted: Option<&'static str>) -> Self {
        Self::Type { found: format!("number {value}"), wanted, place: Box::default() }
    }

    /// The same in the words of `runtime.DefaultUnstructuredConverter`, which reads what a strategic merge patch made.
    pub(crate) fn in_converter_words(&self) -> String {
        let Self::Type { found, place, .. } = self else {
            let text = self.to_string();
            // It leaves bytes to the decoder of JSON.
            return if text.starts_with("illegal base64") { format!("error decoding from json: {text}") } else { text };
        };
        let found = match found.split(' ').next().unwrap_or_default() {
            "number" if found.contains('.') => "float64",
            "number" => "int64",
            "array" => "slice",
            "object" => "map",
            other => other,
        };
        match place.go_type.as_str() {
            go_type if go_type.starts_with("[]") => format!("cannot restore slice from {found}"),
            go_type if go_type.starts_with("map[") => format!("cannot restore map from {found}"),
            // Go converts numbers to each other and to strings, so it gets further with them before it gives up.
            go_type @ ("string" | "int32" | "int64") if matches!(found, "int64" | "float64") => {
                format!("cannot convert {found} to {go_type}")
            }
            go_type @ ("string" | "int32" | "int64" | "bool") => format!("unrecognized type: {go_type}"),
            _ => format!("cannot restore struct from: {found}"),
        }
    }

    /// The value is an item of a list or map.
    fn inside_collection(mut self) -> Self {
        if let Self::Type { place, .. } = &mut self
            && place.struct_name.is_empty()
        {
            place.depth += 1;
        }
        self
    }

    /// The value is, or is inside, a field of a struct.
    fn inside_field(mut self, owner: &'static Definition, field: &str) -> Self {
        if let Self::Type { place, wanted, .. } = &mut self {
            let go_type = owner.go_types().get(field);
            if place.struct_name.is_empty() {
                place.struct_name = owner.type_name();
                let declared = go_type.map_or("", |go_type| go_type.name);
                place.go_type = wanted.map_or_else(|| element_type(declared, place.depth), str::to_owned);
            }
            place.fields.push(field.to_owned());
            if let Some(inlined) = go_type.and_then(|go_type| go_type.inlined) {
                place.fields.push(inlined.to_owned());
            }
        }
        self
    }
}

/// `string` for the items of `map[string][]string`, two levels down.
fn element_type(declared: &str, depth: usize) -> String {
    let mut rest = declared.trim_start_matches('*');
    for _ in 0..depth {
        rest = match rest.strip_prefix("[]") {
            Some(element) => element,
            None => rest.split_once(']').map_or(rest, |(_, element)| element),
        };
        rest = rest.trim_start_matches('*');
    }
    rest.to_owned()
}

/// Reads an object in place.
///
/// Returns the paths of the fields that the type does not know; they are gone from the object.
///
/// # Errors
/// The first value of a wrong type.
pub(crate) fn decode(schema: &SchemaRef, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut unknown = Vec::new();
    decode_value(schema, object, &mut unknown)?;
    Ok(unknown)
}

/// Reads the metadata of a custom resource, which are of a Kubernetes type too.
///
/// # Errors
/// The first value of a wrong type.
pub(crate) fn decode_metadata(metadata: &mut Value) -> Result<Vec<String>, DecodeError> {
    let Some(schema) = SchemaRef::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
        return Ok(Vec::new());
    };
    let mut unknown = Vec::new();
    decode_value(&schema, metadata, &mut unknown).map_err(|error| match error {
        DecodeError::Type { found, place, .. } if place.struct_name.is_empty() => {
            DecodeError::Custom(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"))
        }
        other => other,
    })?;
    Ok(unknown)
}

/// Adds the structs of an object that Go never leaves out, such as `status: {}`.
pub(crate) fn fill_structs(schema: &Schema, object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        add_structs(schema, fields);
    }
}

fn decode_value(schema: &SchemaRef, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    if let Some(encoding) = schema.encoding {
        return decode_encoded(encoding, value, unknown);
    }
    if schema.int_or_string {
        return match value {
            Value::String(_) => Ok(()),
            _ => check_integer(value, "int32", Some("int32")),
        };
    }
    match schema.types.first().map_or("", String::as_str) {
        "string" => check_string(schema, value),
        "boolean" if value.is_boolean() => Ok(()),
        "number" if value.is_number() => Ok(()),
        "integer" => check_integer(value, &schema.format, None),
        "array" => decode_list(schema, value, unknown),
        "object" => decode_object(schema, value, unknown),
        // No type: anything goes.
        "" => Ok(()),
        _ => Err(DecodeError::mismatch(value, None)),
    }
}

fn check_string(schema: &Schema, value: &Value) -> Result<(), DecodeError> {
    let Value::String(text) = value else {
        return Err(DecodeError::mismatch(value, None));
    };
    if schema.format != "byte" || serde_json::from_value::<ByteString>(value.clone()).is_ok() {
        return Ok(());
    }
    Err(DecodeError::Custom(format!("illegal base64 data at input byte {}", base64_fault(text))))
}

/// The offset at which Go's base64 decoder gives up.
fn base64_fault(text: &str) -> usize {
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let body = text.trim_end_matches('=');
    match body.bytes().position(|byte| !in_alphabet(byte)) {
        Some(position) => position,
        // Too short at the end: the start of the last, incomplete group.
        None if text.len() == body.len() => text.len() / 4 * 4,
        None => body.len(),
    }
}

fn check_integer(value: &Value, format: &str, wanted: Option<&'static str>) -> Result<(), DecodeError> {
    if !value.is_number() {
        return Err(DecodeError::mismatch(value, wanted));
    }
    match value.as_i64() {
        Some(number) if format != "int32" || i32::try_from(number).is_ok() => Ok(()),
        _ => Err(DecodeError::out_of_range(value, wanted)),
    }
}

fn decode_list(schema: &Schema, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    let Value::Array(items) = value else {
        return Err(DecodeError::mismatch(value, None));
    };
    let Some(item_schema) = &schema.items else {
        return Ok(());
    };
    for (index, item) in items.iter_mut().enumerate() {
        if item.is_null() {
            *item = zero(item_schema);
        }
        let known = unknown.len();
        decode_value(item_schema, item, unknown).map_err(DecodeError::inside_collection)?;
        for path in &mut unknown[known..] {
            let separator = if path.starts_with('[') { "" } else { "." };
            *path = format!("[{index}]{separator}{path}");
        }
    }
    Ok(())
}

fn decode_object(schema: &SchemaRef, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    let Value::Object(fields) = value else {
        return Err(DecodeError::mismatch(value, None));
    };
    if let AdditionalProperties::Schema(value_schema) = &schema.additional_properties {
        return decode_map(value_schema, fields, unknown);
    }
    // Rarely is there anything to drop, and `retain` costs far more than a walk.
    let mut dropped: Vec<String> = Vec::new();
    let mut outcome = Ok(());
    for (name, child) in fields.iter_mut() {
        match decode_field(schema, name, child, unknown) {
            Ok(true) => {}
            Ok(false) => dropped.push(name.clone()),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    for name in dropped {
        fields.remove(&name);
    }
    outcome?;
    add_structs(schema, fields);
    Ok(())
}

/// Reads one field of a struct; tells whether it stays.
fn decode_field(
    schema: &SchemaRef,
    name: &str,
    child: &mut Value,
    unknown: &mut Vec<String>,
) -> Result<bool, DecodeError> {
    let Some(property) = schema.properties.get(name) else {
        let keeps = schema.preserves_unknown_fields();
        if !keeps {
            unknown.push(name.to_owned());
        }
        return Ok(keeps);
    };
    if child.is_null() {
        return Ok(false);
    }
    let known = unknown.len();
    decode_value(&property.schema, child, unknown).map_err(|error| match schema.definition() {
        Some(owner) => error.inside_field(owner, name),
        None => error,
    })?;
    for path in &mut unknown[known..] {
        let separator = if path.starts_with('[') { "" } else { "." };
        *path = format!("{name}{separator}{path}");
    }
    Ok(!(property.omitted_when_zero && is_zero(child)))
}

fn decode_map(
    value_schema: &SchemaRef,
    fields: &mut Map<String, Value>,
    unknown: &mut Vec<String>,
) -> Result<(), DecodeError> {
    for (name, child) in fields {
        if child.is_null() {
            *child = zero(value_schema);
        }
        let known = unknown.len();
        decode_value(value_schema, child, unknown).map_err(DecodeError::inside_collection)?;
        for path in &mut unknown[known..] {
            *path = child_path(name, path);
        }
    }
    Ok(())
}

fn add_structs(schema: &Schema, fields: &mut Map<String, Value>) {
    for name in &schema.always_present {
        let Some(property) = schema.properties.get(name) else {
            continue;
        };
        if !fields.contains_key(name) {
            let mut empty = Map::new();
            add_structs(&property.schema, &mut empty);
            fields.insert(name.clone(), Value::Object(empty));
        }
    }
}

/// What Go holds where JSON says null.
fn zero(schema: &Schema) -> Value {
    match schema.types.first().map_or("", String::as_str) {
        "string" => Value::from(""),
        "boolean" => Value::from(false),
        "integer" | "number" => Value::from(0),
        "object" => Value::Object(Map::new()),
        "array" => Value::Array(Vec::new()),
        _ if schema.encoding == Some(Encoding::Quantity) => Value::from("0"),
        _ => Value::Null,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn decode_encoded(encoding: Encoding, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    match encoding {
        Encoding::Raw => Ok(()),
        Encoding::Quantity => {
            let text = match &*value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let canonical = quantity::canonical(&text).map_err(|error| DecodeError::Custom(error.to_string()))?;
            if *value != canonical.as_str() {
                *value = Value::String(canonical);
            }
            Ok(())
        }
        Encoding::Time | Encoding::MicroTime => decode_time(encoding, value),
        Encoding::Schema => decode_schema(value, unknown),
    }
}

fn decode_time(encoding: Encoding, value: &mut Value) -> Result<(), DecodeError> {
    let Value::String(text) = &*value else {
        return Err(DecodeError::mismatch(value, Some("string")));
    };
    // jiff takes more than RFC 3339, so what Go would refuse is told first.
    let parsed = match time_fault(text, encoding == Encoding::MicroTime) {
        Some(fault) => return Err(DecodeError::Custom(fault)),
        None => text.parse::<jiff::Timestamp>(),
    };
    let time = parsed.map_err(|_| {
        let layout = layout(encoding == Encoding::MicroTime);
        DecodeError::Custom(format!("parsing time \"{text}\" as \"{layout}\": out of range"))
    })?;
    let canonical = format_time(encoding, time);
    if *value != canonical.as_str() {
        *value = Value::String(canonical);
    }
    Ok(())
}

/// The form of `metav1.Time` or `metav1.MicroTime`.
pub(crate) fn format_time(encoding: Encoding, time: jiff::Timestamp) -> String {
    if encoding == Encoding::MicroTime {
        return time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    }
    format_seconds(time)
}

fn layout(micros: bool) -> &'static str {
    if micros { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" }
}

/// What Go's `time.Parse` says of a text that does not follow the layout.
fn time_fault(text: &str, micros: bool) -> Option<String> {
    let fault = |rest: &str, element: &str| {
        Some(format!("parsing time \"{text}\" as \"{}\": cannot parse \"{rest}\" as \"{element}\"", layout(micros)))
    };
    let mut rest = text;
    let elements = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    for (element, digits) in elements {
        let matched = match digits {
            0 => rest.strip_prefix(element),
            _ => rest.get(digits..).filter(|_| rest.as_bytes()[..digits].iter().all(u8::is_ascii_digit)),
        };
        match matched {
            Some(remaining) => rest = remaining,
            None => return fault(rest, element),
        }
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with(|digit: char| digit.is_ascii_digit()) => {
            fraction.trim_start_matches(|digit: char| digit.is_ascii_digit())
        }
        _ if micros => return fault(rest, ".000000"),
        _ => rest,
    };
    let is_offset = zone.len() == 6 && zone.starts_with(['+', '-']) && zone.as_bytes()[3] == b':';
    if zone == "Z" || is_offset { None } else { fault(zone, "Z07:00") }
}

/// `JSONSchemaPropsOrBool` and its like: a schema, a list of schemas, or something that is neither.
fn decode_schema(value: &mut Value, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    let properties = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let Some(schema) = SchemaRef::named(properties) else {
        return Ok(());
    };
    if value.is_object() {
        return decode_value(&schema, value, unknown);
    }
    for item in value.as_array_mut().into_iter().flatten() {
        if item.is_object() {
            decode_value(&schema, item, unknown)?;
        }
    }
    Ok(())
}
