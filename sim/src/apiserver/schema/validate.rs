//! Validation against a schema, with the texts of `kube-openapi/pkg/validation` as
//! `apiextensions-apiserver/pkg/apiserver/validation` turns them into field errors.

use serde_json::{Map, Value};

use super::path::FieldPath;
use super::{AdditionalProperties, Bound, ListKind, Schema};
use crate::store::{FieldError, FieldReason};

/// Composite errors (oneOf, anyOf, allOf, not) carry no path: the API server prints Go's nil path.
const NO_PATH: &str = "<nil>";

/// Violations found, and the number of checks that passed: of several failing alternatives the one that came furthest is
/// reported.
#[derive(Default)]
struct Findings {
    errors: Vec<FieldError>,
    passed: usize,
}

impl Findings {
    fn check(&mut self, error: Option<FieldError>) {
        match error {
            Some(error) => self.errors.push(error),
            None => self.passed += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.passed += other.passed;
    }

    fn composite(&mut self, detail: String) {
        self.errors.push(FieldError {
            reason: FieldReason::Invalid,
            field: NO_PATH.to_owned(),
            value: "\"\"".to_owned(),
            detail,
        });
    }
}

pub(super) fn violations(schema: &Schema, value: &Value, path: &FieldPath<'_>) -> Vec<FieldError> {
    check(schema, value, None, path).errors
}

/// Violations of what an update changes: a value that was there before is not held against the update
/// (`CRDValidationRatcheting`).
pub(super) fn new_violations(
    schema: &Schema,
    value: &Value,
    before: Option<&Value>,
    path: &FieldPath<'_>,
) -> Vec<FieldError> {
    check(schema, value, before, path).errors
}

fn check(schema: &Schema, value: &Value, before: Option<&Value>, path: &FieldPath<'_>) -> Findings {
    if before == Some(value) {
        return Findings::default();
    }
    check_all(schema, value, before, path)
}

fn check_all(schema: &Schema, value: &Value, before: Option<&Value>, path: &FieldPath<'_>) -> Findings {
    let mut findings = Findings::default();
    if value.is_null() && schema.nullable {
        return findings;
    }
    findings.check(type_violation(schema, value, path));
    check_alternatives(schema, value, path, &mut findings);
    match value {
        Value::String(text) => check_text(schema, text, path, &mut findings),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                check_number(schema, value, number, path, &mut findings);
            }
        }
        Value::Array(items) => check_items(schema, items, before, path, &mut findings),
        Value::Object(fields) => check_fields(schema, fields, before, path, &mut findings),
        Value::Null | Value::Bool(_) => {}
    }
    if !schema.allowed_values.is_empty() {
        findings.check(enumeration_violation(schema, value, path));
    }
    findings
}

fn type_violation(schema: &Schema, value: &Value, path: &FieldPath<'_>) -> Option<FieldError> {
    let actual = type_name(value);
    if schema.int_or_string && matches!(actual, "integer" | "string") {
        return None;
    }
    let accepted = match schema.types.as_slice() {
        _ if schema.int_or_string => false,
        [] => true,
        [only] => only == actual || (only == "number" && actual == "integer") || (only == "integer" && is_whole(value)),
        _ => false,
    };
    if accepted {
        return None;
    }
    let expected = if schema.int_or_string { "integer,string".to_owned() } else { schema.types.join(",") };
    Some(FieldError {
        reason: FieldReason::TypeInvalid,
        field: path.to_string(),
        value: format!("\"{actual}\""),
        detail: format!("{path} in body must be of type {expected}: \"{actual}\""),
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn check_alternatives(schema: &Schema, value: &Value, path: &FieldPath<'_>, findings: &mut Findings) {
    if !schema.any_of.is_empty() {
        let (valid, best_failure) = try_all(&schema.any_of, value, path);
        if valid == 0 {
            findings.composite(format!("\"{path}\" must validate at least one schema (anyOf)"));
            findings.merge(best_failure);
        } else {
            findings.passed += 1;
        }
    }
    if !schema.one_of.is_empty() {
        let (valid, best_failure) = try_all(&schema.one_of, value, path);
        if valid == 1 {
            findings.passed += 1;
        } else {
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            findings.composite(format!("\"{path}\" must validate one and only one schema (oneOf). {found}"));
            findings.merge(best_failure);
        }
    }
    if !schema.all_of.is_empty() {
        check_all_of(schema, value, path, findings);
    }
    if let Some(not) = &schema.not {
        if check(not, value, None, path).errors.is_empty() {
            findings.composite(format!("\"{path}\" must not validate the schema (not)"));
        } else {
            findings.passed += 1;
        }
    }
}

fn check_all_of(schema: &Schema, value: &Value, path: &FieldPath<'_>, findings: &mut Findings) {
    let mut valid = 0;
    for part in &schema.all_of {
        let result = check(part, value, None, path);
        if result.errors.is_empty() {
            valid += 1;
        }
        findings.merge(result);
    }
    if valid == schema.all_of.len() {
        return;
    }
    let suffix = if valid == 0 { ". None validated" } else { "" };
    findings.composite(format!("\"{path}\" must validate all the schemas (allOf){suffix}"));
}

/// How many alternatives hold, and what was wrong with the one that came furthest (nothing, if one of several holds too many).
fn try_all(alternatives: &[Schema], value: &Value, path: &FieldPath<'_>) -> (usize, Findings) {
    let mut valid = 0;
    let mut best: Option<Findings> = None;
    for alternative in alternatives {
        let result = check(alternative, value, None, path);
        if result.errors.is_empty() {
            valid += 1;
            continue;
        }
        if best.as_ref().is_none_or(|best| result.passed > best.passed) {
            best = Some(result);
        }
    }
    if valid > 0 {
        best = None;
    }
    (valid, best.unwrap_or_default())
}

fn check_text(schema: &Schema, text: &str, path: &FieldPath<'_>, findings: &mut Findings) {
    let value = || Value::String(text.to_owned());
    let length = if schema.length.is_unlimited() { 0 } else { text.chars().count() as u64 };
    if let Some(maximum) = schema.length.maximum {
        findings.check((length > maximum).then(|| FieldError {
            reason: FieldReason::TooLong,
            field: path.to_string(),
            value: value().to_string(),
            detail: format!("may not be more than {maximum} bytes"),
        }));
    }
    if let Some(minimum) = schema.length.minimum {
        findings.check((length < minimum).then(|| {
            let detail = format!("{path} in body should be at least {minimum} chars long");
            FieldError::invalid(path, &value(), detail)
        }));
    }
    if let Some(pattern) = &schema.pattern {
        findings.check((!pattern.is_match(text)).then(|| {
            let detail = format!("{path} in body should match '{}'", pattern.as_str());
            FieldError::invalid(path, &value(), detail)
        }));
    }
    let well_formed = match schema.format.as_str() {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        // Formats that the API server does not know are ignored by it too.
        _ => true,
    };
    findings.check((!well_formed).then(|| {
        let value = value();
        let detail = format!("{path} in body must be of type {}: {value}", schema.format);
        FieldError { reason: FieldReason::TypeInvalid, ..FieldError::invalid(path, &value, detail) }
    }));
}

fn check_number(schema: &Schema, value: &Value, number: f64, path: &FieldPath<'_>, findings: &mut Findings) {
    if let Some(bound) = &schema.maximum {
        findings.check(maximum_violation(bound, value, number, path));
    }
    if let Some(bound) = &schema.minimum {
        findings.check(minimum_violation(bound, value, number, path));
    }
    if let Some(factor) = schema.multiple_of {
        let quotient = number / factor;
        findings.check((quotient.fract() != 0.0).then(|| {
            let detail = format!("{path} in body should be a multiple of {factor}");
            FieldError::invalid(path, value, detail)
        }));
    }
    let in_range = match schema.format.as_str() {
        "int32" => number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX),
        "int64" => value.as_i64().is_some() || is_whole(value),
        _ => true,
    };
    if in_range {
        findings.passed += 1;
    } else {
        findings.composite(format!("Checked value must be of type integer with format {} in {path}", schema.format));
    }
}

fn maximum_violation(bound: &Bound, value: &Value, number: f64, path: &FieldPath<'_>) -> Option<FieldError> {
    let (holds, relation) = if bound.exclusive {
        (number < bound.number, "less than")
    } else {
        (number <= bound.number, "less than or equal to")
    };
    let limit = &bound.value;
    (!holds).then(|| FieldError::invalid(path, value, format!("{path} in body should be {relation} {limit}")))
}

fn minimum_violation(bound: &Bound, value: &Value, number: f64, path: &FieldPath<'_>) -> Option<FieldError> {
    let (holds, relation) = if bound.exclusive {
        (number > bound.number, "greater than")
    } else {
        (number >= bound.number, "greater than or equal to")
    };
    let limit = &bound.value;
    (!holds).then(|| FieldError::invalid(path, value, format!("{path} in body should be {relation} {limit}")))
}

fn check_items(
    schema: &Schema,
    items: &[Value],
    before: Option<&Value>,
    path: &FieldPath<'_>,
    findings: &mut Findings,
) {
    if let Some(item_schema) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            let before = before.and_then(|before| same_item(&schema.list_type, item, before));
            findings.merge(check(item_schema, item, before, &path.index(index)));
        }
    }
    let count = items.len() as u64;
    let value = || Value::Array(items.to_vec());
    if let Some(minimum) = schema.item_count.minimum {
        findings.check((count < minimum).then(|| {
            let detail = format!("{path} in body should have at least {minimum} items");
            FieldError::invalid(path, &value(), detail)
        }));
    }
    if let Some(maximum) = schema.item_count.maximum {
        findings.check((count > maximum).then(|| too_many(path, count, maximum)));
    }
    if schema.unique_items {
        let repeated = items.iter().enumerate().any(|(index, item)| items[..index].contains(item));
        findings.check(repeated.then(|| {
            let detail = format!("{path} in body shouldn't contain duplicates");
            FieldError::invalid(path, &value(), detail)
        }));
    }
}

/// The item that stood for this one before; items without keys cannot be followed.
fn same_item<'a>(list_type: &ListKind, item: &Value, before: &'a Value) -> Option<&'a Value> {
    let ListKind::Map(keys) = list_type else {
        return None;
    };
    let wanted = map_key(item, keys);
    before.as_array()?.iter().find(|candidate| map_key(candidate, keys) == wanted)
}

fn check_fields(
    schema: &Schema,
    fields: &Map<String, Value>,
    before: Option<&Value>,
    path: &FieldPath<'_>,
    findings: &mut Findings,
) {
    let count = fields.len() as u64;
    if let Some(minimum) = schema.property_count.minimum {
        findings.check((count < minimum).then(|| {
            let detail = format!("{path} in body should have at least {minimum} properties");
            FieldError::invalid(path, &Value::Object(fields.clone()), detail)
        }));
    }
    if let Some(maximum) = schema.property_count.maximum {
        findings.check((count > maximum).then(|| too_many(path, count, maximum)));
    }
    for name in &schema.required {
        let missing = !fields.contains_key(name);
        findings.check(missing.then(|| FieldError::required(&path.field(name), "")));
    }
    for (name, child) in fields {
        let child_schema = match (schema.property(name), &schema.additional_properties) {
            (Some(property), _) => property,
            (None, AdditionalProperties::Schema(additional)) => additional,
            (None, AdditionalProperties::Any | AdditionalProperties::Unset) => continue,
        };
        let before = before.and_then(|before| before.get(name));
        findings.merge(check(child_schema, child, before, &path.field(name)));
    }
}

fn too_many(path: &FieldPath<'_>, actual: u64, maximum: u64) -> FieldError {
    let noun = if maximum == 1 { "item" } else { "items" };
    FieldError {
        reason: FieldReason::TooMany,
        field: path.to_string(),
        value: actual.to_string(),
        detail: format!("must have at most {maximum} {noun}"),
    }
}

fn enumeration_violation(schema: &Schema, value: &Value, path: &FieldPath<'_>) -> Option<FieldError> {
    if schema.allowed_values.contains(value) {
        return None;
    }
    let allowed: Vec<String> = schema
        .allowed_values
        .iter()
        .map(|allowed| match allowed {
            Value::String(_) => allowed.to_string(),
            other => format!("\"{other}\""),
        })
        .collect();
    Some(FieldError {
        reason: FieldReason::NotSupported,
        field: path.to_string(),
        value: value.to_string(),
        detail: format!("supported values: {}", allowed.join(", ")),
    })
}

/// Entries that repeat in lists declared as sets or maps (`schema/listtype`).
pub(super) fn duplicates(schema: &Schema, value: &Value, path: &FieldPath<'_>, problems: &mut Vec<FieldError>) {
    if !schema.has_keyed_lists {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                let child_schema = match (schema.property(name), &schema.additional_properties) {
                    (Some(property), _) => property,
                    (None, AdditionalProperties::Schema(additional)) => additional,
                    (None, _) => continue,
                };
                duplicates(child_schema, child, &path.field(name), problems);
            }
        }
        Value::Array(items) => {
            let identities: Vec<Value> = match &schema.list_type {
                // One item cannot repeat another.
                _ if items.len() < 2 => Vec::new(),
                ListKind::Atomic => Vec::new(),
                ListKind::Set => items.clone(),
                ListKind::Map(keys) => items.iter().map(|item| map_key(item, keys)).collect(),
            };
            for (index, identity) in identities.iter().enumerate() {
                if identities[..index].contains(identity) {
                    problems.push(FieldError {
                        reason: FieldReason::Duplicate,
                        field: format!("{path}[{index}]"),
                        value: identity.to_string(),
                        detail: String::new(),
                    });
                }
            }
            if let Some(item_schema) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    duplicates(item_schema, item, &path.index(index), problems);
                }
            }
        }
        _ => {}
    }
}

fn map_key(item: &Value, keys: &[String]) -> Value {
    let identity = keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect();
    Value::Object(identity)
}
