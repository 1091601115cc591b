//! Evaluates a template's tree.

use super::parser::{Command, Node, Operand, Pipeline, Term};
use super::value::{Output, Piece, Text, Value};
use super::{OUTPUT_LIMIT, Position, Scope, TemplateError};

pub(super) fn render(nodes: &[Node], scope: &Scope) -> Result<String, TemplateError> {
    let mut evaluator = Evaluator { scope, variables: Vec::new(), output: Output::default() };
    evaluator.nodes(nodes)?;
    Ok(evaluator.output.into_text())
}

struct Evaluator<'a> {
    scope: &'a Scope,
    /// Innermost last.
    variables: Vec<(String, Value)>,
    output: Output,
}

impl Evaluator<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.write(Position { line: 1, column: 1 }, &Text::plain(text.as_str()))?,
                Node::Write(pipeline) => {
                    let value = self.pipeline(pipeline)?;
                    self.write(pipeline.position, &value.printed())?;
                }
                Node::Set { position, variable, is_new, value } => {
                    let value = self.pipeline(value)?;
                    self.set(*position, variable, *is_new, value)?;
                }
                Node::If(branches) => {
                    for branch in branches {
                        let holds = match &branch.condition {
                            Some(condition) => self.pipeline(condition)?.is_true(),
                            None => true,
                        };
                        if holds {
                            self.nodes(&branch.body)?;
                            break;
                        }
                    }
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn write(&mut self, position: Position, text: &Text) -> Result<(), TemplateError> {
        self.output.write(text).map_err(|problem| TemplateError::new(position, problem))?;
        check_length(position, self.output.len())
    }

    fn set(&mut self, position: Position, name: &str, is_new: bool, value: Value) -> Result<(), TemplateError> {
        if is_new {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(other, _)| other == name) {
            Some((_, present)) => {
                *present = value;
                Ok(())
            }
            None => Err(undefined_variable(position, name)),
        }
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value)?);
        }
        value.ok_or_else(|| TemplateError::new(pipeline.position, "missing value"))
    }

    fn command(&self, command: &Command, piped: Option<Value>) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Err(TemplateError::new(command.position, "missing value"));
        };
        if let Term::Function(name) = &first.term
            && first.fields.is_empty()
        {
            return self.call(first.position, name, rest, piped);
        }
        if !rest.is_empty() || piped.is_some() {
            return Err(TemplateError::new(first.position, "a value cannot be given arguments"));
        }
        self.operand(first)
    }

    fn operand(&self, operand: &Operand) -> Result<Value, TemplateError> {
        let mut value = match &operand.term {
            Term::String(text) => Value::Text(Text::plain(text.as_str())),
            Term::Number(number) => Value::Number(*number),
            Term::Bool(value) => Value::Bool(*value),
            Term::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| undefined_variable(operand.position, name))?,
            Term::Function(name) => self.call(operand.position, name, &[], None)?,
            Term::Pipeline(pipeline) => self.pipeline(pipeline)?,
        };
        for (position, field) in &operand.fields {
            value = entry(*position, &value, field)?;
        }
        Ok(value)
    }

    fn call(
        &self,
        position: Position,
        name: &str,
        operands: &[Operand],
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        if let "and" | "or" = name {
            return self.choose(position, name, operands, piped);
        }
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            arguments.push(self.operand(operand)?);
        }
        arguments.extend(piped);

        if let Some(value) = self.named(name) {
            return match arguments.len() {
                0 => Ok(value),
                _ => Err(TemplateError::new(position, format!("{name} takes no arguments"))),
            };
        }
        builtin(position, name, &arguments)
    }

    fn named(&self, name: &str) -> Option<Value> {
        let scope = self.scope;
        let text = match name {
            "name" => &scope.name,
            "namespace" => &scope.namespace,
            "target" => &scope.target,
            "service" => &scope.service,
            "ingress" => &scope.ingress,
            "route" => &scope.route,
            "interval" => &scope.interval,
            "variables" => return Some(Value::Map(scope.variables.clone())),
            _ => return None,
        };
        Some(Value::Text(Text::plain(text.as_str())))
    }

    /// `and` and `or` stop at the first value that decides, as Go's do.
    fn choose(
        &self,
        position: Position,
        name: &str,
        operands: &[Operand],
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let decides = name == "or";
        let mut value = None;
        for operand in operands {
            let next = self.operand(operand)?;
            if next.is_true() == decides {
                return Ok(next);
            }
            value = Some(next);
        }
        piped.or(value).ok_or_else(|| TemplateError::new(position, format!("{name} needs an argument")))
    }
}

fn builtin(position: Position, name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let error = |problem: String| TemplateError::new(position, problem);
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut equal = false;
            for other in others {
                equal |= compare(position, first, other)?;
            }
            Ok(Value::Bool(equal))
        }
        ("ne", [left, right]) => Ok(Value::Bool(!compare(position, left, right)?)),
        ("index", [map, Value::Text(key)]) => entry(position, map, &key.raw()),
        ("len", [Value::Text(text)]) => Ok(length(text.raw().len())),
        ("len", [Value::Map(map)]) => Ok(length(map.len())),
        ("print", arguments) => {
            let mut text = Text::default();
            for argument in arguments {
                append(position, &mut text, &argument.printed())?;
            }
            Ok(Value::Text(text))
        }
        ("printf", [Value::Text(format), arguments @ ..]) => printf(position, format, arguments).map(Value::Text),
        ("not" | "eq" | "ne" | "index" | "len" | "printf", _) => {
            let kinds: Vec<&str> = arguments.iter().map(Value::kind).collect();
            Err(error(format!("{name} cannot take ({})", kinds.join(", "))))
        }
        ("call" | "html" | "js" | "urlquery" | "println" | "slice" | "lt" | "le" | "gt" | "ge", _) => {
            Err(error(format!("function {name:?} is not supported")))
        }
        _ => Err(error(format!("function {name:?} not defined"))),
    }
}

fn length(length: usize) -> Value {
    Value::Number(i64::try_from(length).unwrap_or(i64::MAX))
}

fn compare(position: Position, left: &Value, right: &Value) -> Result<bool, TemplateError> {
    left.equals(right).ok_or_else(|| {
        TemplateError::new(position, format!("cannot compare a {} with a {}", left.kind(), right.kind()))
    })
}

fn entry(position: Position, value: &Value, key: &str) -> Result<Value, TemplateError> {
    let Value::Map(map) = value else {
        return Err(TemplateError::new(position, format!("a {} has no field {key:?}", value.kind())));
    };
    match map.get(key) {
        Some(text) => Ok(Value::Text(Text(vec![Piece::Variable(text.clone())]))),
        None => Err(TemplateError::new(position, format!("map has no entry for key {key:?}"))),
    }
}

fn printf(position: Position, format: &Text, arguments: &[Value]) -> Result<Text, TemplateError> {
    let error = |problem: String| TemplateError::new(position, problem);
    let mut arguments = arguments.iter();
    if format.has_variable() {
        return Err(error(
            "the format of printf has to stand in the template; use printf \"%s\" for a variable".into(),
        ));
    }
    let mut text = Text::default();
    let format = format.raw();
    let mut rest = format.as_str();
    while let Some(index) = rest.find('%') {
        append(position, &mut text, &Text::plain(&rest[..index]))?;
        let verb = rest[index + 1..].chars().next().ok_or_else(|| error("printf ends with %".into()))?;
        rest = &rest[index + 1 + verb.len_utf8()..];
        if verb == '%' {
            append(position, &mut text, &Text::plain("%"))?;
            continue;
        }
        if !matches!(verb, 's' | 'v' | 'd' | 'q') {
            return Err(error(format!("printf verb %{verb} is not supported")));
        }
        let argument = arguments.next().ok_or_else(|| error(format!("printf has no argument for %{verb}")))?;
        let printed = match (verb, argument) {
            ('v', value) => value.printed(),
            ('s', Value::Text(text)) => text.clone(),
            ('d', Value::Number(number)) => Text::plain(number.to_string()),
            ('q', Value::Text(text)) if text.has_variable() => Text(vec![Piece::Variable(quoted(&text.raw()))]),
            ('q', Value::Text(text)) => Text::plain(quoted(&text.raw())),
            (verb, value) => return Err(error(format!("printf %{verb} cannot take a {}", value.kind()))),
        };
        append(position, &mut text, &printed)?;
    }
    if arguments.next().is_some() {
        return Err(error("printf has more arguments than verbs".into()));
    }
    append(position, &mut text, &Text::plain(rest))?;
    Ok(text)
}

/// Texts are kept within the limit as they grow, not only when they are written.
fn append(position: Position, text: &mut Text, more: &Text) -> Result<(), TemplateError> {
    text.append(more);
    check_length(position, text.len())
}

/// A text between double quotes, as Go and PromQL write it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn check_length(position: Position, length: usize) -> Result<(), TemplateError> {
    if length > OUTPUT_LIMIT {
        return Err(TemplateError::new(position, format!("query is longer than {OUTPUT_LIMIT} bytes")));
    }
    Ok(())
}

fn undefined_variable(position: Position, name: &str) -> TemplateError {
    TemplateError::new(position, format!("undefined variable \"${name}\""))
}
