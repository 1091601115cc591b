//! Function calls.

use std::sync::Arc;

use regex::Regex;

use super::window::{RangeFunction, Window};
use super::{Element, Evaluator, Metric, Value, ensure_distinct, histogram, type_error, unique};
use crate::engine::RangeBoundary;
use crate::error::QueryError;
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::MatchOperator;
use crate::number;
use crate::plan::{Function, Node};

impl Evaluator<'_> {
    pub(crate) fn call(&self, function: Function, arguments: &[Node], at_ms: i64) -> Result<Value, QueryError> {
        let vector = |index: usize| self.vector(argument(arguments, index)?, at_ms);
        let scalar = |index: usize| self.scalar(argument(arguments, index)?, at_ms);
        let text = |index: usize| match argument(arguments, index)? {
            Node::Text(text) => Ok(text.as_str()),
            other => Err(type_error("string", &self.evaluate(other, at_ms)?)),
        };
        let elements = match function {
            Function::Pi => return Ok(Value::Scalar(std::f64::consts::PI)),
            Function::Time => return Ok(Value::Scalar(seconds(at_ms))),
            Function::Scalar => {
                return Ok(Value::Scalar(match vector(0)?.as_slice() {
                    [only] => only.value,
                    _ => f64::NAN,
                }));
            }
            Function::Vector => vec![Element { metric: Metric::new(Labels::new()), value: scalar(0)? }],
            Function::Elementwise(compute) => map(vector(0)?, compute)?,
            Function::OverRange(range_function) => self.over_range(range_function, arguments, at_ms)?,
            Function::Clamp => {
                let (minimum, maximum) = (scalar(1)?, scalar(2)?);
                if minimum > maximum {
                    return Ok(Value::Vector(Vec::new()));
                }
                map(vector(0)?, |value| at_least(minimum, at_most(maximum, value)))?
            }
            Function::ClampMinimum => {
                let minimum = scalar(1)?;
                map(vector(0)?, |value| at_least(minimum, value))?
            }
            Function::ClampMaximum => {
                let maximum = scalar(1)?;
                map(vector(0)?, |value| at_most(maximum, value))?
            }
            Function::Round => {
                let nearest = if arguments.len() > 1 { scalar(1)? } else { 1.0 };
                // Dividing by the inverse keeps results such as 0.3 exact where multiplying by 0.1 would not.
                let inverse = 1.0 / nearest;
                map(vector(0)?, |value| (value * inverse + 0.5).floor() / inverse)?
            }
            Function::HistogramQuantile => histogram::histogram_quantile(scalar(0)?, &vector(1)?),
            Function::Sort => sorted(vector(0)?, number::ascending_nan_last),
            Function::SortDescending => sorted(vector(0)?, number::descending_nan_last),
            Function::Timestamp => self.timestamp(argument(arguments, 0)?, at_ms)?,
            Function::Absent => absent(argument(arguments, 0)?, vector(0)?.is_empty()),
            Function::AbsentOverTime => {
                let node = argument(arguments, 0)?;
                absent(node, self.windowed(node, at_ms)?.series.is_empty())
            }
            Function::LabelReplace => {
                let destination = self.destination("label_replace", text(1)?)?;
                let pattern = self.pattern(text(4)?)?;
                self.label_replace(vector(0)?, destination, text(2)?, text(3)?, &pattern)?
            }
            Function::LabelJoin => {
                let sources = (3..arguments.len()).map(text).collect::<Result<Vec<_>, _>>()?;
                self.label_join(vector(0)?, self.destination("label_join", text(1)?)?, text(2)?, &sources)?
            }
        };
        Ok(Value::Vector(elements))
    }

    /// The label that a function writes.
    fn destination<'a>(&self, function: &str, name: &'a str) -> Result<&'a str, QueryError> {
        if is_label_name(name, self.options.boundary) {
            return Ok(name);
        }
        Err(QueryError::Execution(format!("invalid destination label name in {function}(): {name}")))
    }

    fn over_range(&self, function: RangeFunction, arguments: &[Node], at_ms: i64) -> Result<Vec<Element>, QueryError> {
        // The range is the last argument; a scalar before it is the function's parameter.
        let (range, parameter) = match arguments {
            [range] => (range, f64::NAN),
            [parameter, range] => (range, self.scalar(parameter, at_ms)?),
            _ => {
                return Err(QueryError::BadData("parse error: wrong number of arguments".to_owned()));
            }
        };
        let windowed = self.windowed(range, at_ms)?;
        let elements = windowed.series.into_iter().filter_map(|(metric, samples)| {
            let value = (function.compute)(&Window {
                samples: &samples,
                start_ms: windowed.start_ms,
                end_ms: windowed.end_ms,
                boundary: self.options.boundary,
                parameter,
            })?;
            let metric = if function.keeps_name { metric } else { metric.drop_name() };
            Some(Element { metric, value })
        });
        let elements = elements.collect();
        if function.keeps_name { Ok(elements) } else { unique(elements) }
    }

    /// A regular expression over whole values of labels.
    fn pattern(&self, text: &str) -> Result<Regex, QueryError> {
        if let Some(known) = self.patterns.borrow().get(text) {
            return Ok(known.clone());
        }
        let regex = Regex::new(&format!("^(?s:{text})$"))
            .map_err(|_| QueryError::Execution(format!("invalid regular expression in label_replace(): {text}")))?;
        self.patterns.borrow_mut().insert(text.to_owned(), regex.clone());
        Ok(regex)
    }

    fn label_replace(
        &self,
        vector: Vec<Element>,
        destination: &str,
        replacement: &str,
        source: &str,
        pattern: &Regex,
    ) -> Result<Vec<Element>, QueryError> {
        // Each reference puts a part of the value in its place.
        let references = replacement.matches('$').count();
        let replaced = vector.into_iter().map(|Element { metric, value }| {
            let present = metric.get(source).unwrap_or_default();
            let Some(captures) = pattern.captures(present) else {
                return Ok(Element { metric, value });
            };
            self.budget.spend(replacement.len().saturating_add(references.saturating_mul(present.len())), 1)?;
            let mut text = String::new();
            captures.expand(replacement, &mut text);
            Ok(Element { metric: with_label(&metric, destination, text), value })
        });
        distinct(replaced.collect::<Result<_, QueryError>>()?)
    }

    fn label_join(
        &self,
        vector: Vec<Element>,
        destination: &str,
        separator: &str,
        sources: &[&str],
    ) -> Result<Vec<Element>, QueryError> {
        let joined = vector.into_iter().map(|Element { metric, value }| {
            let parts: Vec<&str> = sources.iter().map(|source| metric.get(source).unwrap_or_default()).collect();
            self.budget.spend(parts.iter().map(|part| part.len() + separator.len()).sum(), 1)?;
            Ok(Element { metric: with_label(&metric, destination, parts.join(separator)), value })
        });
        distinct(joined.collect::<Result<_, QueryError>>()?)
    }

    fn timestamp(&self, node: &Node, at_ms: i64) -> Result<Vec<Element>, QueryError> {
        let elements = match node {
            Node::Selector(selector) => self
                .latest_samples(selector, at_ms)?
                .map(|(metric, (sampled_ms, _))| Element { metric: metric.drop_name(), value: seconds(sampled_ms) })
                .collect(),
            other => self
                .vector(other, at_ms)?
                .into_iter()
                .map(|element| Element { metric: element.metric.drop_name(), value: seconds(at_ms) })
                .collect(),
        };
        unique(elements)
    }
}

fn argument(arguments: &[Node], index: usize) -> Result<&Node, QueryError> {
    arguments.get(index).ok_or_else(|| QueryError::BadData("parse error: wrong number of arguments".to_owned()))
}

#[allow(clippy::cast_precision_loss)]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn map(vector: Vec<Element>, compute: impl Fn(f64) -> f64) -> Result<Vec<Element>, QueryError> {
    let mapped =
        vector.into_iter().map(|element| Element { metric: element.metric.drop_name(), value: compute(element.value) });
    unique(mapped.collect())
}

/// The larger value; NaN if either is, unless the other is infinitely large (Go's `math.Max`).
fn at_least(minimum: f64, value: f64) -> f64 {
    let decided = minimum == f64::INFINITY || value == f64::INFINITY;
    if !decided && (minimum.is_nan() || value.is_nan()) { f64::NAN } else { minimum.max(value) }
}

/// The smaller value; NaN if either is, unless the other is infinitely small (Go's `math.Min`).
fn at_most(maximum: f64, value: f64) -> f64 {
    let decided = maximum == f64::NEG_INFINITY || value == f64::NEG_INFINITY;
    if !decided && (maximum.is_nan() || value.is_nan()) { f64::NAN } else { maximum.min(value) }
}

fn sorted(mut vector: Vec<Element>, order: fn(f64, f64) -> std::cmp::Ordering) -> Vec<Element> {
    vector.sort_by(|left, right| order(left.value, right.value));
    vector
}

/// One element with the labels that the selector asks for by equality, if nothing was found.
fn absent(node: &Node, nothing_found: bool) -> Vec<Element> {
    if !nothing_found {
        return Vec::new();
    }
    let matchers = match node {
        Node::Selector(selector) | Node::Range { selector, .. } => selector.matchers.as_slice(),
        _ => &[],
    };
    let mut labels = Labels::new();
    let mut seen = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        if matcher.operator() == MatchOperator::Equal && !seen.contains(&matcher.name()) {
            labels.insert(matcher.name().to_owned(), matcher.value().to_owned());
            seen.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    vec![Element { metric: Metric::new(labels), value: 1.0 }]
}

fn with_label(metric: &Metric, name: &str, value: String) -> Metric {
    let mut labels: Labels = metric.iter().collect();
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.to_owned(), value);
    }
    Metric::new(Arc::new(labels))
}

fn distinct(vector: Vec<Element>) -> Result<Vec<Element>, QueryError> {
    ensure_distinct(&vector)?;
    Ok(vector)
}

/// Prometheus 2's label names: a letter or underscore, then letters, digits, underscores. Prometheus 3 takes any text.
pub(crate) fn is_label_name(name: &str, version: RangeBoundary) -> bool {
    let mut characters = name.chars();
    let Some(first) = characters.next() else { return false };
    version == RangeBoundary::LeftOpen
        || (first.is_ascii_alphabetic() || first == '_')
            && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}
