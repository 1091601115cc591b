//! From declared rules to compiled ones.

use ::cel::Program;
use serde_json::{Map, Value, json};

use super::check::{self, Problem};
use super::{Counted, Rule, Rules, library};
use crate::apiserver::schema::Schema;
use crate::store::{FieldError, FieldReason};

/// Compiles the rules of one schema node.
pub(in super::super) fn rules(
    schema: &Schema,
    declared: &Value,
    path: &str,
    is_root: bool,
    problems: &mut Vec<FieldError>,
) -> Rules {
    let declared = declared["x-kubernetes-validations"].as_array().map_or(&[][..], Vec::as_slice);
    let mut rules = Rules::default();
    for (index, rule) in declared.iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{index}]");
        match compiled(schema, rule, &path, is_root) {
            Ok((rule, program)) => {
                rules.of_self.add(program.expression(), "self");
                rules.of_old_self.add(program.expression(), "oldSelf");
                rules.rules.push(rule);
            }
            Err(found) => problems.extend(found),
        }
    }
    rules
}

fn compiled(schema: &Schema, declared: &Value, path: &str, is_root: bool) -> Result<(Rule, Program), Vec<FieldError>> {
    let text = |field: &str| declared[field].as_str().unwrap_or_default();
    let shape = shape_problems(declared, path);
    if !shape.is_empty() {
        return Err(shape);
    }
    let source = text("rule").trim();
    let rule_path = format!("{path}.rule");
    let optional_old_self = declared["optionalOldSelf"] == true;
    let scope = check::Scope { schema, is_resource: is_root || schema.embedded_resource, optional_old_self };
    let program = program(text("rule"), &scope)
        .map_err(|problem| vec![invalid_rule(&rule_path, declared, format!("compilation failed: {problem}"))])?;
    let uses_old_self = program.references().has_variable("oldSelf");
    if !uses_old_self && !declared["optionalOldSelf"].is_null() {
        let detail = "may not be set if oldSelf is not used in rule";
        let field = format!("{path}.optionalOldSelf");
        return Err(vec![FieldError::invalid(field, &declared["optionalOldSelf"], detail)]);
    }
    let expression = text("messageExpression");
    let message_expression = if expression.is_empty() {
        None
    } else {
        let compiled = self::program(expression, &scope).map_err(|problem| {
            let detail = format!("messageExpression compilation failed: {problem}");
            vec![invalid_rule(&format!("{path}.messageExpression"), declared, detail)]
        })?;
        Some(Counted::new(&compiled))
    };
    let reason = match text("reason") {
        "FieldValueForbidden" => FieldReason::Forbidden,
        "FieldValueRequired" => FieldReason::Required,
        "FieldValueDuplicate" => FieldReason::Duplicate,
        _ => FieldReason::Invalid,
    };
    let rule = Rule {
        program: Counted::new(&program),
        source: source.to_owned(),
        message: Some(text("message").trim().to_owned()).filter(|message| !message.is_empty()),
        message_expression,
        reason,
        field_path: text("fieldPath").trim().to_owned(),
        uses_old_self,
        optional_old_self,
    };
    Ok((rule, program))
}

fn program(source: &str, scope: &check::Scope<'_>) -> Result<Program, Problem> {
    let program = library::environment().compile(source).map_err(|errors| Problem::syntax(source, &errors))?;
    check::check(&program, source, scope)?;
    Ok(program)
}

/// The refusals of `ValidateCustomResourceDefinitionOpenAPISchema` that concern a rule's fields.
fn shape_problems(declared: &Value, path: &str) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let text = |field: &str| declared[field].as_str().unwrap_or_default();
    let (rule, message) = (text("rule").trim(), text("message").trim());
    if rule.is_empty() {
        problems.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
    } else if !text("message").is_empty() && message.is_empty() {
        let detail = "must be non-empty if specified";
        problems.push(FieldError::invalid(format!("{path}.message"), &declared["message"], detail));
    } else if message.contains('\n') {
        problems.push(FieldError::invalid(
            format!("{path}.message"),
            &declared["message"],
            "must not contain line breaks",
        ));
    } else if rule.contains('\n') && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        problems.push(FieldError::required(format!("{path}.message"), detail));
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        problems.push(FieldError::required(format!("{path}.messageExpression"), detail));
    }
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    if !declared["reason"].is_null() && !REASONS.contains(&text("reason")) {
        let listed: Vec<String> = REASONS.iter().map(|reason| format!("\"{reason}\"")).collect();
        problems.push(FieldError {
            reason: FieldReason::NotSupported,
            field: format!("{path}.reason"),
            value: declared["reason"].to_string(),
            detail: format!("supported values: {}", listed.join(", ")),
        });
    }
    problems
}

/// The API server prints its internal form of the rule.
fn invalid_rule(field: &str, declared: &Value, detail: String) -> FieldError {
    let mut shown = Map::new();
    let or = |field: &str, default: Value| declared.get(field).cloned().unwrap_or(default);
    for (name, value) in [
        ("Rule", or("rule", json!(""))),
        ("Message", or("message", json!(""))),
        ("MessageExpression", or("messageExpression", json!(""))),
        ("Reason", or("reason", Value::Null)),
        ("FieldPath", or("fieldPath", json!(""))),
        ("OptionalOldSelf", or("optionalOldSelf", Value::Null)),
    ] {
        shown.insert(name.to_owned(), value);
    }
    // In the order of the Go struct, which is not that of a sorted map.
    let names = ["Rule", "Message", "MessageExpression", "Reason", "FieldPath", "OptionalOldSelf"];
    let parts: Vec<String> = names.iter().map(|name| format!("\"{name}\":{}", shown[*name])).collect();
    FieldError {
        reason: FieldReason::Invalid,
        field: field.to_owned(),
        value: escaped(&format!("{{{}}}", parts.join(","))),
        detail,
    }
}

/// As Go writes JSON.
fn escaped(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}
