//! Label matchers.

use promql_parser::label as parsed;
use regex::Regex;

use crate::error::QueryError;
use crate::labels::Labels;

/// How a [`Matcher`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored on both sides.
    Regex,
    /// `!~`, anchored on both sides.
    NotRegex,
}

/// A condition on one label. A label that a series does not have counts as empty, as everywhere in Prometheus.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    value: String,
    operator: MatchOperator,
    pattern: Pattern,
}

/// What the value of the label is compared with. Almost every regular expression of a canary query is a plain word, an
/// alternation of words, or a prefix (`5.*`); these are recognised, because a compiled regex costs kilobytes and
/// microseconds and a source can look literal values up in an index.
#[derive(Clone, Debug)]
enum Pattern {
    OneOf(Vec<String>),
    Prefix(String),
    Anything,
    NonEmpty,
    Regex(Regex),
}

impl Matcher {
    /// Builds a matcher.
    ///
    /// # Errors
    /// [`QueryError::BadData`] if `value` is not a regular expression and `operator` needs one.
    pub fn new(name: &str, operator: MatchOperator, value: &str) -> Result<Self, QueryError> {
        let pattern = match operator {
            MatchOperator::Equal | MatchOperator::NotEqual => Pattern::OneOf(vec![value.to_owned()]),
            MatchOperator::Regex | MatchOperator::NotRegex => match simple_pattern(value) {
                Some(pattern) => pattern,
                None => Pattern::Regex(Regex::new(&format!("^(?s:{value})$")).map_err(|error| {
                    QueryError::BadData(format!("parse regular expression {value:?} of label {name}: {error}"))
                })?),
            },
        };
        Ok(Self { name: name.to_owned(), value: value.to_owned(), operator, pattern })
    }

    pub(crate) fn from_parsed(matcher: &parsed::Matcher) -> Self {
        let (operator, pattern) = match &matcher.op {
            parsed::MatchOp::Equal => (MatchOperator::Equal, Pattern::OneOf(vec![matcher.value.clone()])),
            parsed::MatchOp::NotEqual => (MatchOperator::NotEqual, Pattern::OneOf(vec![matcher.value.clone()])),
            parsed::MatchOp::Re(regex) => (MatchOperator::Regex, pattern_of(&matcher.value, regex)),
            parsed::MatchOp::NotRe(regex) => (MatchOperator::NotRegex, pattern_of(&matcher.value, regex)),
        };
        Self { name: matcher.name.clone(), value: matcher.value.clone(), operator, pattern }
    }

    /// The label that is looked at.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operand as it was written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// How the matcher compares.
    #[must_use]
    pub fn operator(&self) -> MatchOperator {
        self.operator
    }

    /// The only values that can match, if the matcher admits a finite list: for sources that keep an index.
    #[must_use]
    pub fn literals(&self) -> Option<&[String]> {
        if matches!(self.operator, MatchOperator::NotEqual | MatchOperator::NotRegex) {
            return None;
        }
        match &self.pattern {
            Pattern::OneOf(values) => Some(values),
            _ => None,
        }
    }

    /// Whether a label with this value (empty: no such label) satisfies the matcher.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let found = match &self.pattern {
            Pattern::OneOf(values) => values.iter().any(|candidate| candidate == value),
            Pattern::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Pattern::Anything => true,
            Pattern::NonEmpty => !value.is_empty(),
            Pattern::Regex(regex) => regex.is_match(value),
        };
        found == matches!(self.operator, MatchOperator::Equal | MatchOperator::Regex)
    }

    /// Whether a series with these labels satisfies the matcher.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or_default())
    }
}

fn pattern_of(text: &str, regex: &Regex) -> Pattern {
    simple_pattern(text).unwrap_or_else(|| Pattern::Regex(regex.clone()))
}

fn simple_pattern(text: &str) -> Option<Pattern> {
    if text == ".*" {
        return Some(Pattern::Anything);
    }
    if text == ".+" {
        return Some(Pattern::NonEmpty);
    }
    if let Some(prefix) = text.strip_suffix(".*").filter(|prefix| is_literal(prefix)) {
        return Some(Pattern::Prefix(prefix.to_owned()));
    }
    let words: Vec<&str> = text.split('|').collect();
    words.iter().all(|word| is_literal(word)).then(|| Pattern::OneOf(words.into_iter().map(str::to_owned).collect()))
}

fn is_literal(text: &str) -> bool {
    !text.contains(|character: char| r"\.+*?()|[]{}^$".contains(character))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn recognised_patterns_match_as_the_regex_would() {
        let patterns = ["podinfo", "a|b", "a|", "", "5.*", ".*", ".+", "p.*o", "(a|b)", "a.c", "5..", "a\\.b"];
        let values = ["", "podinfo", "podinfo-x", "a", "b", "ab", "5", "503", "pro", "a.c", "abc", "a.b"];
        for pattern in patterns {
            let reference = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
            for value in values {
                let matcher = Matcher::new("label", MatchOperator::Regex, pattern).unwrap();
                let negated = Matcher::new("label", MatchOperator::NotRegex, pattern).unwrap();
                assert_eq!(matcher.matches(value), reference.is_match(value), "{pattern} on {value:?}");
                assert_eq!(negated.matches(value), !reference.is_match(value), "not {pattern} on {value:?}");
            }
        }
    }

    #[test]
    fn only_positive_literals_can_be_looked_up() {
        let literals = |operator, value| Matcher::new("n", operator, value).unwrap().literals().map(<[String]>::to_vec);
        assert_eq!(literals(MatchOperator::Equal, "a"), Some(vec!["a".to_owned()]));
        assert_eq!(literals(MatchOperator::Regex, "a|b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(literals(MatchOperator::NotEqual, "a"), None);
        assert_eq!(literals(MatchOperator::Regex, "a.*"), None);
    }
}
