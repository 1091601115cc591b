//! Label selectors: their grammar and the texts of their refusals (`apimachinery/pkg/labels/selector.go`).

use serde_json::Value;

use crate::apiserver::metadata;
use crate::store::{FieldError, StatusError};

/// A label selector alone.
#[derive(Clone, Debug, Default)]
pub(in crate::apiserver) struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

/// What the operators between a key and its values are listed as.
const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

impl Labels {
    /// # Errors
    /// 400 for what is no selector.
    pub(in crate::apiserver) fn parse(text: Option<&str>) -> Result<Self, StatusError> {
        let text = text.unwrap_or_default();
        Parser { tokens: tokens(text), position: 0 }.selector().map(Self).map_err(StatusError::bad_request)
    }

    pub(in crate::apiserver) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::apiserver) fn select(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let compared = || {
            let bound: i64 = self.values.first()?.parse().ok()?;
            Some(value?.parse::<i64>().ok()?.cmp(&bound))
        };
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Greater => compared().is_some_and(std::cmp::Ordering::is_gt),
            Operator::Less => compared().is_some_and(std::cmp::Ordering::is_lt),
        }
    }

    /// What keeps it from being one (`NewRequirement`).
    fn problems(&self) -> Vec<FieldError> {
        let mut problems = Vec::new();
        let is_comparison = matches!(self.operator, Operator::Greater | Operator::Less);
        for (index, value) in self.values.iter().enumerate() {
            if is_comparison && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                problems.push(FieldError::invalid(format!("values[{index}]"), &Value::from(value.as_str()), detail));
            }
        }
        for (index, value) in self.values.iter().enumerate() {
            let field = format!("values[{index}][{}]", self.key);
            problems.extend(as_one(&field, value, |field, value, found| {
                metadata::label_value_problems(field, &Value::from(value), found);
            }));
        }
        problems
    }
}

/// All that is wrong with a text, as one problem.
fn as_one(field: &str, text: &str, find: impl Fn(&str, &str, &mut Vec<FieldError>)) -> Option<FieldError> {
    let mut found = Vec::new();
    find(field, text, &mut found);
    let details: Vec<String> = found.into_iter().map(|problem| problem.detail).collect();
    (!details.is_empty()).then(|| FieldError::invalid(field, &Value::from(text), details.join("; ")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `in` and `notin`: operators behind a key, and words elsewhere.
    Keyword(&'a str),
    Symbol(&'static str),
    End,
}

/// Longer ones first, as the scanner takes as much as it can.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_space = |character: char| matches!(character, ' ' | '\t' | '\r' | '\n');
    let is_special = |character: char| "=!(),><".contains(character);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() && !rest.starts_with('\0') {
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let (token, length) = if let Some(symbol) = symbol {
            (Token::Symbol(symbol), symbol.len())
        } else {
            let length = rest.find(|character| is_space(character) || is_special(character)).unwrap_or(rest.len());
            let (word, _) = rest.split_at(length);
            (if matches!(word, "in" | "notin") { Token::Keyword(word) } else { Token::Word(word) }, length)
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start_matches(is_space);
    }
    tokens.push(Token::End);
    tokens
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Keyword(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Parser<'a> {
    /// The token that is next.
    fn ahead(&self) -> Token<'a> {
        self.tokens.get(self.position).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.ahead();
        self.position += 1;
        token
    }

    fn selector(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.ahead() {
                Token::Word(_) | Token::Keyword(_) | Token::Symbol("!") => {}
                Token::End => return Ok(requirements),
                other => {
                    return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
                }
            }
            let requirement = self.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => {}
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
            let next = self.ahead();
            if !matches!(next, Token::Word(_) | Token::Keyword(_) | Token::Symbol("!")) {
                return Err(format!("found '{}', expected: identifier after ','", next.text()));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_negated = self.ahead() == Token::Symbol("!");
        if is_negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) | Token::Keyword(word) => word.to_owned(),
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let Some(problem) = as_one("<nil>", &key, metadata::key_problems) {
            return Err(problem.to_string());
        }
        if is_negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.ahead(), Token::End | Token::Symbol(",")) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, is_list) = match self.next() {
            Token::Keyword("in") => (Operator::In, true),
            Token::Keyword(_) => (Operator::NotIn, true),
            Token::Symbol("=" | "==") => (Operator::In, false),
            Token::Symbol("!=") => (Operator::NotIn, false),
            Token::Symbol(">") => (Operator::Greater, false),
            Token::Symbol("<") => (Operator::Less, false),
            other => return Err(format!("found '{}', expected: {BINARY_OPERATORS}", other.text())),
        };
        let mut values = if is_list { self.values()? } else { vec![self.exact_value()?] };
        values.sort_unstable();
        values.dedup();
        let requirement = Requirement { key, operator, values };
        let problems: Vec<String> = requirement.problems().iter().map(ToString::to_string).collect();
        match problems.as_slice() {
            [] => Ok(requirement),
            [only] => Err(only.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.ahead(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(word) | Token::Keyword(word) => Ok(word.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a,b)`: of two commas, or a comma and a bracket, the value between is empty.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let first = self.ahead();
        match first {
            Token::Word(_) | Token::Keyword(_) | Token::Symbol(",") => {}
            Token::Symbol(")") => {
                self.next();
                return Ok(vec![String::new()]);
            }
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) | Token::Keyword(word) => {
                    values.push(word.to_owned());
                    match self.ahead() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() || matches!(self.ahead(), Token::Symbol("," | ")")) {
                        values.push(String::new());
                    }
                    if self.ahead() == Token::Symbol(")") {
                        break;
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            }
        }
        self.next();
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::Labels;

    #[test]
    fn label_selectors_follow_the_grammar() {
        let labels = json!({"app": "podinfo", "tier": "web", "generation": "5", "in": "notin", "empty": ""});
        let cases = [
            ("", true),
            ("app=podinfo", true),
            ("app==podinfo,tier=web", true),
            (" app = podinfo , tier ", true),
            ("app!=podinfo", false),
            ("missing!=x", true),
            ("app in (a, podinfo),tier", true),
            ("app in (a,b)", false),
            ("app notin (podinfo)", false),
            ("missing notin (x)", true),
            ("in in (notin)", true),
            ("in=notin", true),
            ("empty=,app", true),
            ("empty in ()", true),
            ("empty in (,a)", true),
            ("app in (,a)", false),
            ("!missing", true),
            ("!app", false),
            ("missing", false),
            ("generation>4", true),
            ("generation>5", false),
            ("generation<6", true),
            ("app>4", false),
        ];
        for (selector, expected) in cases {
            assert_eq!(Labels::parse(Some(selector)).unwrap().select(&labels), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_no_label_selector_is_refused_in_the_servers_words() {
        let requirement = "unable to parse requirement: ";
        let cases = [
            ("a==b==c", "found '==', expected: ',' or 'end of string'".to_owned()),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
            ("a=b=c", "found '=', expected: ',' or 'end of string'".to_owned()),
            ("a,", "found '', expected: identifier after ','".to_owned()),
            ("=x", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("a b=c", format!("{requirement}found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("app within (x)", format!("{requirement}found 'within', expected: in, notin, =, ==, !=, gt, lt")),
            ("app in x", format!("{requirement}found 'x' expected: '('")),
            ("app in podinfo)", format!("{requirement}found 'podinfo' expected: '('")),
            ("app in (a", format!("{requirement}found '', expected: ',' or ')'")),
            ("app=(a)", format!("{requirement}found '(', expected: identifier")),
            (
                "a>b",
                format!(
                    "{requirement}values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"
                ),
            ),
        ];
        for (selector, text) in cases {
            let refusal = Labels::parse(Some(selector)).unwrap_err();
            assert_eq!((refusal.code(), refusal.status.message.as_str()), (400, text.as_str()), "{selector}");
        }
        for (selector, start) in [
            ("a=-b", "values[0][a]: Invalid value: \"-b\": a valid label must be an empty string"),
            ("-a=b", "<nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters"),
        ] {
            let message = Labels::parse(Some(selector)).unwrap_err().status.message;
            assert!(message.starts_with(&format!("{requirement}{start}")), "{message}");
        }
    }
}
