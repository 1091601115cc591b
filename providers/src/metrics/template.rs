//! Queries are Go templates. This is the part of Go's `text/template` that queries use:
//!
//! - function calls without arguments (see [`Scope`]) and fields of what they return (`{{ variables.pod }}`)
//! - texts, numbers, `true`, `false`, `$variables`, pipelines, parentheses, comments and trim markers
//! - `{{ $v := … }}`, `{{ $v = … }}`, `{{ if }}`, `{{ else if }}`, `{{ else }}`, `{{ end }}`
//! - `printf` (`%s`, `%d`, `%v`, `%q`, `%%`), `print`, `index`, `len`, `eq`, `ne`, `and`, `or`, `not`
//!
//! The rest of the language is refused by name. A missing variable is an error, as in Flagger.
//!
//! # Variables are data
//! `templateVariables` come from the author of the canary, the template perhaps from somebody else. Between quotes, a
//! variable therefore cannot end the string that it is put in: quotes, line ends and a trailing backslash in it are
//! escaped, when they become query text, for the kind of quote that surrounds them. A backslash that already escapes
//! something is left alone, so what worked in Flagger works here. Outside of quotes a variable is put in as it is: there
//! it is meant to be part of the query. `printf "%q"` quotes by itself and gets the plain value.

mod eval;
mod lexer;
mod parser;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// What a template can refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `name`: name of the canary.
    pub name: String,
    /// `namespace`: namespace of the canary.
    pub namespace: String,
    /// `target`: name of the target.
    pub target: String,
    /// `service`: name of the apex service.
    pub service: String,
    /// `ingress`: name of the ingress, or else of the target.
    pub ingress: String,
    /// `route`: name of the route, or else of the target.
    pub route: String,
    /// `interval`: window of the metric, as written.
    pub interval: String,
    /// `variables`: the metric's `templateVariables`.
    pub variables: BTreeMap<String, String>,
}

/// Where in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a template has no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("template {position}: {problem}")]
pub struct TemplateError {
    /// Where.
    pub position: Position,
    /// What.
    pub problem: String,
}

impl TemplateError {
    fn new(position: Position, problem: impl Into<String>) -> TemplateError {
        TemplateError { position, problem: problem.into() }
    }
}

/// Most characters of a rendered query. Prometheus takes about 8 KiB in an address; this leaves room for others and
/// keeps a tenant's template from filling the memory.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// Renders a query.
///
/// # Errors
/// If the template cannot be parsed, refers to something that is not in the scope, or becomes longer than
/// [`OUTPUT_LIMIT`].
pub fn render(template: &str, scope: &Scope) -> Result<String, TemplateError> {
    let tokens = lexer::tokenize(template)?;
    let nodes = parser::parse(tokens)?;
    eval::render(&nodes, scope)
}

#[cfg(test)]
mod tests;
