//! The part of Kubernetes' JSONPath that printer columns may use: fields, indexes, slices, wildcards, filters and descent.

use serde_json::Value;

/// Why a path was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum JsonPathError {
    /// A path begins at the object.
    #[error("must be a simple json path starting with .")]
    NoLeadingDot,
    /// A bracket without its partner.
    #[error("unterminated array")]
    UnterminatedBracket,
    /// A quote without its partner.
    #[error("unterminated quoted string")]
    UnterminatedQuote,
    /// What stands in brackets is no index, slice, name or filter.
    #[error("invalid array index {0}")]
    InvalidIndex(String),
    /// The condition of a filter is not understood.
    #[error("unrecognized filter: {0}")]
    InvalidFilter(String),
}

/// A parsed path.
#[derive(Debug, PartialEq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Every,
    Descend,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Filter),
}

#[derive(Debug, PartialEq)]
struct Filter {
    path: JsonPath,
    /// `None` asks only whether the path finds something.
    comparison: Option<(Comparison, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

/// Two-character signs first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    pub(super) fn parse(text: &str) -> Result<Self, JsonPathError> {
        let text = text.trim();
        if !text.starts_with('.') && !text.starts_with('[') {
            return Err(JsonPathError::NoLeadingDot);
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing_bracket(after)?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
                continue;
            }
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                rest = after;
            } else {
                rest = rest.strip_prefix('.').unwrap_or(rest);
            }
            let (name, after) = field_name(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Every),
                _ => steps.push(Step::Field(name)),
            }
            rest = after;
        }
        Ok(Self { steps })
    }

    /// The first value that the path finds.
    pub(super) fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.find(object).into_iter().next()
    }

    fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.steps
            .iter()
            .fold(vec![object], |values, step| values.into_iter().flat_map(|value| step.of(value)).collect())
    }
}

/// A field's name up to the next dot or bracket; a backslash takes the next character as it is.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(character),
        }
    }
    (name, "")
}

fn closing_bracket(text: &str) -> Result<usize, JsonPathError> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '[' | '(') => depth += 1,
            (None, ']') if depth == 0 => return Ok(at),
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Err(if quote.is_some() { JsonPathError::UnterminatedQuote } else { JsonPathError::UnterminatedBracket })
}

fn bracket(inside: &str) -> Result<Step, JsonPathError> {
    let inside = inside.trim();
    if inside == "*" {
        return Ok(Step::Every);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Filter::parse(filter).map(Step::Filter);
    }
    if let Some(name) = unquoted(inside) {
        return Ok(Step::Field(name));
    }
    let invalid = || JsonPathError::InvalidIndex(inside.to_owned());
    if let Some((from, to)) = inside.split_once(':') {
        let bound = |text: &str| -> Result<Option<i64>, JsonPathError> {
            if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) }
        };
        return Ok(Step::Slice(bound(from)?, bound(to)?));
    }
    inside.parse().map(Step::Index).map_err(|_| invalid())
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut name = String::new();
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        name.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(name)
}

impl Filter {
    fn parse(text: &str) -> Result<Self, JsonPathError> {
        let text = text.trim();
        let invalid = || JsonPathError::InvalidFilter(text.to_owned());
        let (path, comparison) = match outermost_comparison(text) {
            Some((at, sign, comparison)) => {
                let value = text[at + sign.len()..].trim();
                let value = match unquoted(value) {
                    Some(text) => Value::String(text),
                    None => serde_json::from_str(value).map_err(|_| invalid())?,
                };
                (&text[..at], Some((comparison, value)))
            }
            None => (text, None),
        };
        let path = path.trim().strip_prefix('@').ok_or_else(invalid)?;
        let path = if path.is_empty() { JsonPath { steps: Vec::new() } } else { JsonPath::parse(path)? };
        Ok(Self { path, comparison })
    }

    fn accepts(&self, item: &Value) -> bool {
        let Some(found) = self.path.first(item) else {
            return false;
        };
        let Some((comparison, wanted)) = &self.comparison else {
            return true;
        };
        let order = match (found, wanted) {
            (Value::String(found), Value::String(wanted)) => Some(found.cmp(wanted)),
            (Value::Number(found), Value::Number(wanted)) => {
                found.as_f64().zip(wanted.as_f64()).and_then(|(found, wanted)| found.partial_cmp(&wanted))
            }
            (found, wanted) if found == wanted => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        }
    }
}

/// The first comparison sign outside quotes.
fn outermost_comparison(text: &str) -> Option<(usize, &'static str, Comparison)> {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => quote = Some(character),
            None => {
                let found = COMPARISONS.iter().find(|(sign, _)| text[at..].starts_with(sign));
                if let Some((sign, comparison)) = found {
                    return Some((at, sign, *comparison));
                }
            }
        }
    }
    None
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Every => children(value),
            Self::Descend => descendants(value),
            Self::Index(index) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                position(*index, items.len()).and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::Slice(from, to) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let from = position(from.unwrap_or(0), items.len()).unwrap_or(0);
                let to = to.map_or(Some(items.len()), |to| position(to, items.len())).unwrap_or(0).min(items.len());
                items.get(from..to).unwrap_or_default().iter().collect()
            }
            Self::Filter(filter) => children(value).into_iter().filter(|item| filter.accepts(item)).collect(),
        }
    }
}

/// An index from the front, or with a minus from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        return usize::try_from(index).ok();
    }
    length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descendants(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    for child in children(value) {
        found.extend(descendants(child));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::{JsonPath, JsonPathError};

    #[test]
    fn paths_find_what_kubectl_would_find() {
        let object = json!({
            "a": {"b": [1, 2, 3], "x.y": "dotted", "z/w": "slashed"},
            "conditions": [
                {"type": "Ready", "status": "True", "weight": 3}, {"type": "Synced", "status": "False", "weight": 7},
            ],
        });
        for (path, expected) in [
            (".a.b", json!([1, 2, 3])),
            (".a.b[1]", json!(2)),
            (".a.b[-1]", json!(3)),
            (".a.b[*]", json!(1)),
            (".a.b[1:]", json!(2)),
            (".a['x.y']", json!("dotted")),
            (r".a.x\.y", json!("dotted")),
            (".a.z/w", json!("slashed")),
            (r#".conditions[?(@.type=="Ready")].status"#, json!("True")),
            (".conditions[?(@.type == 'Synced')].status", json!("False")),
            (".conditions[?(@.weight>5)].type", json!("Synced")),
            (r#".conditions[?(@.type!="Ready")].weight"#, json!(7)),
            (".conditions[?(@.weight)].type", json!("Ready")),
            ("..status", json!("True")),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), Some(&expected), "{path}");
        }
        for path in [".a.none", ".a.b[9]", ".conditions[?(@.type==\"No\")].status", ".a.b.c", ".none[0].x"] {
            assert_eq!(JsonPath::parse(path).unwrap().first(&object), None::<&Value>, "{path}");
        }
    }

    #[test]
    fn broken_paths_are_refused() {
        for (path, problem) in [
            ("a.b", JsonPathError::NoLeadingDot),
            (".a[0", JsonPathError::UnterminatedBracket),
            (".a['b]", JsonPathError::UnterminatedQuote),
            (".a[x]", JsonPathError::InvalidIndex("x".to_owned())),
            (".a[?(x==1)]", JsonPathError::InvalidFilter("x==1".to_owned())),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap_err(), problem, "{path}");
        }
    }
}
