//! What is wrong with an applied configuration before it is merged (`typed.Validate`), in structured-merge-diff's words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::types::{Atom, List, Map, Scalar, Type};

/// All problems, each with its path.
pub(crate) fn problems(ty: Type<'_>, value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    check(ty, value, "", &mut problems);
    problems
}

/// One problem stands alone; several are listed.
pub(crate) fn joined(problems: &[String]) -> String {
    match problems {
        [only] => only.clone(),
        several => {
            let lines: Vec<String> = several.iter().map(|problem| format!("  {problem}")).collect();
            format!("errors:\n{}", lines.join("\n"))
        }
    }
}

fn check(ty: Type<'_>, value: &Value, path: &str, problems: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut fail = |detail: String| problems.push(format!("{path}: {detail}"));
    match ty.atom(Some(value)) {
        Atom::Scalar(scalar) => {
            if let Some(detail) = scalar_problem(scalar, value) {
                fail(detail);
            }
        }
        Atom::List(list) => match value.as_array() {
            Some(items) => check_items(list, items, path, problems),
            None => fail(format!("expected list, got &{{{}}}", go_text(value))),
        },
        Atom::Map(map) => match value.as_object() {
            Some(fields) => check_fields(map, fields, path, problems),
            None => fail(format!("expected map, got &{{{}}}", go_text(value))),
        },
    }
}

fn scalar_problem(scalar: Scalar, value: &Value) -> Option<String> {
    let is_scalar = value.is_number() || value.is_string() || value.is_boolean();
    match scalar {
        Scalar::Numeric if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Scalar::Text if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
        }
        Scalar::Boolean if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", go_text(value))),
        Scalar::Any if !is_scalar => Some(format!("expected any scalar, got &{{{}}}", go_text(value))),
        _ => None,
    }
}

fn check_items(list: List<'_>, items: &[Value], path: &str, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (position, item) in items.iter().enumerate() {
        if list.is_atomic() {
            check(list.items, item, &format!("{path}[{position}]"), problems);
            continue;
        }
        let element = match list.element(item) {
            Ok(element) => element,
            Err(detail) => {
                problems.push(format!("{path}: element {position}: {detail}"));
                return;
            }
        };
        let item_path = format!("{path}{element}");
        if seen.contains(&element) {
            problems.push(format!("{path}: duplicate entries for key {element}"));
        }
        seen.insert(element);
        check(list.items, item, &item_path, problems);
    }
}

fn check_fields(map: Map<'_>, fields: &serde_json::Map<String, Value>, path: &str, problems: &mut Vec<String>) {
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match map.field(name) {
            Some(field) => check(field.ty, value, &path, problems),
            None => {
                // The API server stops at the first one as well.
                problems.push(format!("{path}: field not declared in schema"));
                return;
            }
        }
    }
}

/// Go's `%T`.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v`.
pub(crate) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{}", go_text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
