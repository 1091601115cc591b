//! What a type checker says of a rule, as far as it is needed to refuse what could never be evaluated: unknown names, unknown
//! functions, and fields that the schema does not have.

use ::cel::Program;
use ::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, SelectExpr, SourceInfo};
use ::cel::parser::ParseErrors;

use super::{convert, library};
use crate::apiserver::schema::{AdditionalProperties, Schema};

/// What a rule is about.
pub(super) struct Scope<'a> {
    pub(super) schema: &'a Schema,
    pub(super) is_resource: bool,
    /// `oldSelf` is an optional value.
    pub(super) optional_old_self: bool,
}

/// Why a rule does not compile, in the form of cel-go.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Problem(String);

impl Problem {
    pub(super) fn syntax(source: &str, errors: &ParseErrors) -> Self {
        let texts: Vec<String> = errors
            .errors
            .iter()
            .map(|error| {
                let line = usize::try_from(error.pos.0).unwrap_or(1).max(1);
                let column = usize::try_from(error.pos.1).unwrap_or(1).max(1);
                located(source, line, column, &format!("Syntax error: {}", error.msg))
            })
            .collect();
        Self(texts.join("\n"))
    }
}

/// `ERROR: <input>:1:5: text`, and the line with the place marked. Lines and columns count from 1.
fn located(source: &str, line: usize, column: usize, text: &str) -> String {
    let shown = source.lines().nth(line - 1).unwrap_or_default();
    format!("ERROR: <input>:{line}:{column}: {text}\n | {shown}\n | {}^", ".".repeat(column - 1))
}

/// As much of a type as the schema gives.
#[derive(Clone, Copy)]
enum Type<'a> {
    Of { schema: &'a Schema, is_resource: bool },
    Unknown,
}

pub(super) fn check(program: &Program, source: &str, scope: &Scope<'_>) -> Result<(), Problem> {
    let mut checker = Checker { source, info: program.source_info(), scope, bound: Vec::new() };
    checker.visit(program.expression()).map(|_| ())
}

struct Checker<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    scope: &'a Scope<'a>,
    /// Variables of macros, the innermost last.
    bound: Vec<(String, Type<'a>)>,
}

impl<'a> Checker<'a> {
    fn problem(&self, expression: &IdedExpr, text: &str) -> Problem {
        let offset = self.info.offset_for(expression.id).map_or(0, |(start, _)| start as usize);
        let before = self.source.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Problem(located(self.source, line, column, text))
    }

    fn visit(&mut self, expression: &IdedExpr) -> Result<Type<'a>, Problem> {
        match &expression.expr {
            Expr::Ident(name) => self.identifier(expression, name),
            Expr::Select(select) => self.select(expression, select),
            Expr::Call(call) => {
                if let Some(target) = &call.target {
                    let qualified = match &target.expr {
                        Expr::Ident(namespace) => format!("{namespace}.{}", call.func_name),
                        _ => String::new(),
                    };
                    if library::has_function(&qualified) {
                        return self.visit_all(&call.args);
                    }
                }
                let target = match &call.target {
                    Some(target) => Some(self.visit(target)?),
                    None => None,
                };
                let is_operator = !call.func_name.starts_with(|first: char| first.is_ascii_alphabetic());
                if !is_operator && !library::has_function(&call.func_name) {
                    let text = format!("undeclared reference to '{}' (in container '')", call.func_name);
                    return Err(self.problem(expression, &text));
                }
                if call.func_name == "_[_]"
                    && target.is_none()
                    && let [container, index] = call.args.as_slice()
                {
                    let container = self.visit(container)?;
                    self.visit(index)?;
                    return Ok(element(container));
                }
                self.visit_all(&call.args)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => self.visit_all(&list.elements),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key)?;
                        self.visit(&entry.value)?;
                    }
                }
                Ok(Type::Unknown)
            }
            Expr::Struct(object) => {
                let text = format!("undeclared reference to '{}' (in container '')", object.type_name);
                Err(self.problem(expression, &text))
            }
            Expr::Literal(_) | Expr::Unspecified => Ok(Type::Unknown),
        }
    }

    fn visit_all(&mut self, expressions: &[IdedExpr]) -> Result<Type<'a>, Problem> {
        for expression in expressions {
            self.visit(expression)?;
        }
        Ok(Type::Unknown)
    }

    fn identifier(&self, expression: &IdedExpr, name: &str) -> Result<Type<'a>, Problem> {
        if let Some((_, bound)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Ok(*bound);
        }
        let of_self = Type::Of { schema: self.scope.schema, is_resource: self.scope.is_resource };
        match name {
            "self" => Ok(of_self),
            "oldSelf" if self.scope.optional_old_self => Ok(Type::Unknown),
            "oldSelf" => Ok(of_self),
            "bool" | "bytes" | "double" | "duration" | "int" | "list" | "map" | "null_type" | "string"
            | "timestamp" | "type" | "uint" | "optional_type" => Ok(Type::Unknown),
            internal if internal.starts_with(['@', '#']) => Ok(Type::Unknown),
            _ => Err(self.problem(expression, &format!("undeclared reference to '{name}' (in container '')"))),
        }
    }

    fn select(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Result<Type<'a>, Problem> {
        let Type::Of { schema, is_resource } = self.visit(&select.operand)? else {
            return Ok(Type::Unknown);
        };
        if schema.int_or_string || (is_resource && matches!(select.field.as_str(), "apiVersion" | "kind" | "metadata"))
        {
            return Ok(Type::Unknown);
        }
        let property = schema
            .properties
            .iter()
            .find(|(name, _)| convert::identifier(name).as_deref() == Some(select.field.as_str()))
            .map(|(_, property)| &*property.schema);
        if let Some(property) = property {
            return Ok(Type::Of { schema: property, is_resource: property.embedded_resource });
        }
        match &schema.additional_properties {
            AdditionalProperties::Schema(additional) => Ok(Type::Of { schema: additional, is_resource: false }),
            AdditionalProperties::Any => Ok(Type::Unknown),
            AdditionalProperties::Unset => {
                Err(self.problem(expression, &format!("undefined field '{}'", select.field)))
            }
        }
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Result<Type<'a>, Problem> {
        let range = self.visit(&comprehension.iter_range)?;
        self.visit(&comprehension.accu_init)?;
        let outer = self.bound.len();
        let is_list = matches!(range, Type::Of { schema, .. } if schema.items.is_some());
        let (first, second) = match (&comprehension.iter_var2, is_list) {
            (None, true) => (element(range), Type::Unknown),
            (Some(_), _) => (Type::Unknown, element(range)),
            (None, false) => (Type::Unknown, Type::Unknown),
        };
        self.bound.push((comprehension.iter_var.clone(), first));
        if let Some(name) = &comprehension.iter_var2 {
            self.bound.push((name.clone(), second));
        }
        self.bound.push((comprehension.accu_var.clone(), Type::Unknown));
        for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
            self.visit(part)?;
        }
        self.bound.truncate(outer);
        Ok(Type::Unknown)
    }
}

/// The type of a list's items or of a map's values.
fn element(container: Type<'_>) -> Type<'_> {
    let Type::Of { schema, .. } = container else {
        return Type::Unknown;
    };
    if let Some(items) = &schema.items {
        return Type::Of { schema: items, is_resource: false };
    }
    match &schema.additional_properties {
        AdditionalProperties::Schema(additional) => Type::Of { schema: additional, is_resource: false },
        _ => Type::Unknown,
    }
}
