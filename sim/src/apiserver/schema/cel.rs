//! `x-kubernetes-validations`: rules in the Common Expression Language (`apiextensions-apiserver/pkg/apiserver/schema/cel`).
//!
//! Rules are compiled when a definition is registered. What cannot be compiled, or uses a function that this server does not
//! have, refuses the definition, so that no rule is ever skipped in silence. The cost of rules is bounded (see [`cost`]), but not
//! estimated when a definition is registered.

mod check;
mod compile;
mod convert;
mod cost;
mod library;
mod needs;
#[cfg(test)]
mod tests;
mod url;

use std::sync::atomic::{AtomicU32, Ordering};

use ::cel::{Context, ExecutionError, Value as CelValue};
use serde_json::Value;

use cost::{Counted, Stopped};
use needs::Needs;

pub(super) use compile::rules;

use super::path::FieldPath;
use super::{AdditionalProperties, ListKind, Schema};
use crate::store::{FieldError, FieldReason};

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    program: Counted,
    source: String,
    message: Option<String>,
    message_expression: Option<Counted>,
    reason: FieldReason,
    /// Where a failure is reported, below the value that the rule is about; begins with a dot.
    field_path: String,
    uses_old_self: bool,
    optional_old_self: bool,
}

/// The rules of one value, and what they need of it.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    of_self: Needs,
    of_old_self: Needs,
    /// Where rules ask for the presence of a few fields alone, the combinations for which all of them are known to hold: the
    /// answer is the same for every object.
    hold_for: AtomicU32,
}

impl Rules {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any of these rules is about the change of a value (`oldSelf`).
    pub(super) fn compare_with_before(&self) -> bool {
        self.rules.iter().any(|rule| rule.uses_old_self)
    }
}

/// A new value, the value that it had before, and the nearest values around it that have both.
///
/// What did not change need not satisfy rules that came later (ratcheting).
#[derive(Clone, Copy)]
struct Correlation<'a> {
    current: Option<&'a Value>,
    nearest: Option<(&'a Value, &'a Value)>,
}

impl<'a> Correlation<'a> {
    fn below(self, value: &'a Value, child: Option<&'a Value>) -> Self {
        match self.current {
            Some(old) => Self { current: child, nearest: Some((value, old)) },
            None => self,
        }
    }

    fn is_unchanged(self, value: &Value) -> bool {
        match (self.current, self.nearest) {
            (Some(old), _) => old == value,
            (None, Some((new, old))) => new == old,
            (None, None) => false,
        }
    }
}

/// The rules that a valid object breaks, compared with its last state if it had one.
pub(super) fn broken_rules(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let correlation = Correlation { current: old, nearest: None };
    check_value(schema, object, old, correlation, &FieldPath::Root, &mut problems);
    problems
}

/// What is said when other problems keep the rules from being evaluated (`hasBlockingErr`).
pub(super) fn not_checked(found: &[FieldError]) -> Option<FieldError> {
    let blocking = |problem: &FieldError| {
        matches!(
            problem.reason,
            FieldReason::NotSupported
                | FieldReason::Required
                | FieldReason::TooLong
                | FieldReason::TooMany
                | FieldReason::TypeInvalid
        )
    };
    found.iter().any(blocking).then(|| {
        let detail =
            "some validation rules were not checked because the object was invalid; correct the existing errors to \
             complete validation";
        FieldError::invalid("<nil>", &Value::Null, detail)
    })
}

fn check_value<'a>(
    schema: &Schema,
    value: &'a Value,
    old: Option<&'a Value>,
    correlation: Correlation<'a>,
    path: &FieldPath<'_>,
    problems: &mut Vec<FieldError>,
) {
    if !schema.has_rules || value.is_null() {
        return;
    }
    check_rules(schema, value, old, correlation, path, problems);
    for part in &schema.all_of {
        check_value(part, value, old, Correlation { current: None, ..correlation }, path, problems);
    }
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                let old_child = old.and_then(|old| old.get(name));
                let current = correlation.current.and_then(|old| old.get(name));
                let below = correlation.below(value, current);
                if let Some(property) = schema.property(name) {
                    check_value(property, child, old_child, below, &path.field(name), problems);
                } else if let AdditionalProperties::Schema(additional) = &schema.additional_properties {
                    check_value(additional, child, old_child, below, &path.key(name), problems);
                }
            }
        }
        Value::Array(items) => {
            let Some(item_schema) = &schema.items else {
                return;
            };
            for (index, item) in items.iter().enumerate() {
                let old_item = counterpart(schema, item, old);
                let below = correlation.below(value, counterpart(schema, item, correlation.current));
                check_value(item_schema, item, old_item, below, &path.index(index), problems);
            }
        }
        _ => {}
    }
}

/// The entry of the same keys in the list as it was; only lists of type `map` tell their entries apart.
fn counterpart<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListKind::Map(keys) = &schema.list_type else {
        return None;
    };
    old?.as_array()?.iter().find(|candidate| keys.iter().all(|key| candidate.get(key) == item.get(key)))
}

fn check_rules(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    correlation: Correlation<'_>,
    path: &FieldPath<'_>,
    problems: &mut Vec<FieldError>,
) {
    if schema.rules.is_empty() {
        return;
    }
    let is_resource = matches!(path, FieldPath::Root) || schema.embedded_resource;
    let Rules { rules, of_self, of_old_self, hold_for } = &schema.rules;
    let presence = if schema.rules.compare_with_before() {
        None
    } else {
        convert::presence(schema, value, is_resource, of_self).map(|bits| 1_u32 << bits)
    };
    if presence.is_some_and(|combination| hold_for.load(Ordering::Relaxed) & combination != 0) {
        return;
    }
    let mut all_hold = true;
    let old = old.filter(|old| !old.is_null());
    let new_self = convert::needed(schema, value, is_resource, of_self);
    let old_self = old
        .filter(|_| schema.rules.compare_with_before())
        .map(|old| convert::needed(schema, old, is_resource, of_old_self));
    for rule in rules {
        if rule.uses_old_self && old_self.is_none() && !rule.optional_old_self {
            continue;
        }
        let context = library::context(new_self.clone(), old_self.clone(), rule.optional_old_self);
        match rule.program.execute(&context) {
            Ok(CelValue::Bool(true)) => {}
            Ok(_) => {
                all_hold = false;
                // A transition rule is about the change itself, so it is never let through for want of one.
                if rule.uses_old_self || !correlation.is_unchanged(value) {
                    let whole = |value: &Value| convert::typed(schema, value, is_resource);
                    let context = || library::context(whole(value), old.map(whole), rule.optional_old_self);
                    problems.push(failure(rule, value, path, context));
                }
            }
            Err(stopped) => {
                all_hold = false;
                let shown = Value::String(schema.types.first().cloned().unwrap_or_default());
                match stopped {
                    Stopped::Failed(error) => {
                        problems.push(FieldError::invalid(path, &shown, evaluation_error(&error, rule)));
                    }
                    Stopped::OverBudget => {
                        problems.push(FieldError::invalid(path, &shown, over_budget(rule)));
                        return;
                    }
                }
            }
        }
    }
    if let Some(combination) = presence.filter(|_| all_hold) {
        hold_for.fetch_or(combination, Ordering::Relaxed);
    }
}

fn failure(
    rule: &Rule,
    value: &Value,
    path: &FieldPath<'_>,
    context: impl FnOnce() -> Context<'static, 'static>,
) -> FieldError {
    let detail = computed_message(rule, context).unwrap_or_else(|| match &rule.message {
        Some(message) => message.clone(),
        None => format!("failed rule: {}", rule.source),
    });
    let shows_value = matches!(rule.reason, FieldReason::Invalid | FieldReason::Duplicate);
    let shown = if shows_value && !value.is_object() && !value.is_array() { value.to_string() } else { String::new() };
    let parent = path.to_string();
    let field = if parent.is_empty() {
        rule.field_path.trim_start_matches('.').to_owned()
    } else {
        format!("{parent}{}", rule.field_path)
    };
    let field = if field.is_empty() { "<nil>".to_owned() } else { field };
    let detail = if rule.reason == FieldReason::Duplicate { String::new() } else { detail };
    FieldError { reason: rule.reason, field, value: shown, detail }
}

/// The text of `messageExpression`; one that fails, is empty or has line breaks counts as absent.
fn computed_message(rule: &Rule, context: impl FnOnce() -> Context<'static, 'static>) -> Option<String> {
    match rule.message_expression.as_ref()?.execute(&context()) {
        Ok(CelValue::String(text)) => {
            let text = text.trim();
            (!text.is_empty() && !text.contains('\n')).then(|| text.to_owned())
        }
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "failed to evaluate a messageExpression");
            None
        }
    }
}

/// What the API server says of a rule that it stopped.
fn over_budget(rule: &Rule) -> String {
    let subject = rule.message.as_ref().unwrap_or(&rule.source);
    format!(
        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds \
         limit for rule: {subject}"
    )
}

/// The words of cel-go, with those of the API server around them.
fn evaluation_error(error: &ExecutionError, rule: &Rule) -> String {
    let subject = rule.message.as_ref().unwrap_or(&rule.source);
    let text = match error {
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnexpectedType { .. } => {
            return format!(
                "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {subject}"
            );
        }
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(index) => match index {
            CelValue::Int(index) => format!("index out of bounds: {index}"),
            other => format!("index out of bounds: {other:?}"),
        },
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    format!("{text} evaluating rule: {subject}")
}
