//! Binary operators and vector matching (upstream: `VectorBinop`, `VectorscalarBinop`, `scalarBinop`).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::{Element, Metric, Value, type_error, unique};
use crate::error::QueryError;
use crate::labels::Labels;
use crate::plan::{Arithmetic, Binary, BinaryOperator, Cardinality, Comparison, LabelSelection, Matching, SetOperator};

pub(crate) fn apply(operation: &Binary, left: Value, right: Value) -> Result<Value, QueryError> {
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            Ok(Value::Scalar(match compute(operation.operator, left, right) {
                Outcome::Value(value) => value,
                Outcome::Holds(holds) => f64::from(holds),
            }))
        }
        (Value::Vector(vector), Value::Scalar(scalar)) => {
            with_scalar(operation, vector, |value| compute(operation.operator, value, scalar)).map(Value::Vector)
        }
        (Value::Scalar(scalar), Value::Vector(vector)) => {
            with_scalar(operation, vector, |value| compute(operation.operator, scalar, value)).map(Value::Vector)
        }
        (Value::Vector(left), Value::Vector(right)) => match operation.operator {
            BinaryOperator::Set(operator) => {
                Ok(Value::Vector(combine_sets(operator, &operation.matching, left, right)))
            }
            _ => match_vectors(operation, &left, &right).map(Value::Vector),
        },
        (Value::Scalar(_) | Value::Vector(_), other) | (other, _) => {
            Err(type_error("scalar or instant vector", &other))
        }
    }
}

#[derive(Clone, Copy)]
enum Outcome {
    /// An arithmetic result.
    Value(f64),
    /// Whether a comparison holds.
    Holds(bool),
}

fn compute(operator: BinaryOperator, left: f64, right: f64) -> Outcome {
    match operator {
        BinaryOperator::Arithmetic(operator) => Outcome::Value(match operator {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Modulo => left % right,
            Arithmetic::Power => left.powf(right),
            Arithmetic::Atan2 => left.atan2(right),
        }),
        #[allow(clippy::float_cmp)]
        BinaryOperator::Comparison(operator) => Outcome::Holds(match operator {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::Greater => left > right,
            Comparison::Less => left < right,
            Comparison::GreaterOrEqual => left >= right,
            Comparison::LessOrEqual => left <= right,
        }),
        // Sets need two vectors, which the parser ensures.
        BinaryOperator::Set(_) => Outcome::Value(f64::NAN),
    }
}

/// A comparison filters and keeps the value of the *vector*, on whichever side that stands.
fn with_scalar(
    operation: &Binary,
    vector: Vec<Element>,
    outcome: impl Fn(f64) -> Outcome,
) -> Result<Vec<Element>, QueryError> {
    let mut result = Vec::with_capacity(vector.len());
    for Element { metric, value } in vector {
        match outcome(value) {
            Outcome::Value(value) => result.push(Element { metric: metric.drop_name(), value }),
            Outcome::Holds(holds) if operation.returns_bool => {
                result.push(Element { metric: metric.drop_name(), value: f64::from(holds) });
            }
            Outcome::Holds(true) => result.push(Element { metric, value }),
            Outcome::Holds(false) => {}
        }
    }
    if operation.returns_bool || matches!(operation.operator, BinaryOperator::Arithmetic(_)) {
        return unique(result);
    }
    Ok(result)
}

fn combine_sets(operator: SetOperator, matching: &Matching, left: Vec<Element>, right: Vec<Element>) -> Vec<Element> {
    if operator == SetOperator::Or {
        let additions: Vec<Element> = {
            let known: HashSet<_> = left.iter().map(|element| element.metric.key(&matching.labels)).collect();
            right.into_iter().filter(|element| !known.contains(&element.metric.key(&matching.labels))).collect()
        };
        return left.into_iter().chain(additions).collect();
    }
    let present: HashSet<_> = right.iter().map(|element| element.metric.key(&matching.labels)).collect();
    let wanted = operator == SetOperator::And;
    left.into_iter().filter(|element| present.contains(&element.metric.key(&matching.labels)) == wanted).collect()
}

fn match_vectors(operation: &Binary, left: &[Element], right: &[Element]) -> Result<Vec<Element>, QueryError> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let matching = &operation.matching;
    let swapped = matches!(matching.cardinality, Cardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };

    let mut partners = HashMap::with_capacity(one.len());
    for element in one {
        let key = element.metric.key(&matching.labels);
        if let Some(duplicate) = partners.insert(key, element) {
            return Err(ambiguous(matching, if swapped { "left" } else { "right" }, element, duplicate));
        }
    }

    let grouped = !matches!(matching.cardinality, Cardinality::OneToOne);
    let mut used = HashSet::new();
    let mut result = Vec::with_capacity(many.len());
    for element in many {
        let key = element.metric.key(&matching.labels);
        let Some(partner) = partners.get(&key) else {
            continue;
        };
        let (left, right) = if swapped { (partner, &element) } else { (&element, partner) };
        let value = match compute(operation.operator, left.value, right.value) {
            Outcome::Value(value) => value,
            Outcome::Holds(holds) if operation.returns_bool => f64::from(holds),
            Outcome::Holds(true) => left.value,
            Outcome::Holds(false) => continue,
        };
        if !grouped && !used.insert(key) {
            return Err(QueryError::Execution(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                    .to_owned(),
            ));
        }
        result.push(Element { metric: result_metric(operation, &element.metric, &partner.metric), value });
    }
    if grouped && super::ensure_distinct(&result).is_err() {
        return Err(QueryError::Execution(
            "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
        ));
    }
    Ok(result)
}

fn ambiguous(matching: &Matching, side: &str, element: &Element, duplicate: &Element) -> QueryError {
    QueryError::Execution(format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many \
         matching not allowed: matching labels must be unique on one side",
        display(element.metric.key(&matching.labels).into_iter()),
        display(element.metric.iter()),
        display(duplicate.metric.iter()),
    ))
}

fn display<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (name, value) in labels {
        let separator = if text.len() > 1 { ", " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{name}={value:?}");
    }
    text.push('}');
    text
}

fn result_metric(operation: &Binary, many: &Metric, one: &Metric) -> Metric {
    let computed = operation.returns_bool || matches!(operation.operator, BinaryOperator::Arithmetic(_));
    let metric = if computed { many.clone().drop_name() } else { many.clone() };
    let include = match &operation.matching.cardinality {
        Cardinality::OneToOne => return matched_labels(&operation.matching.labels, metric),
        Cardinality::ManyToOne(include) | Cardinality::OneToMany(include) => include,
    };
    if include.is_empty() {
        return metric;
    }
    let mut labels: Labels = metric.iter().collect();
    for label in include {
        match one.get(label).filter(|value| !value.is_empty()) {
            Some(value) => labels.insert(label.clone(), value.to_owned()),
            None => labels.remove(label),
        };
    }
    Metric::new(labels)
}

fn matched_labels(selection: &LabelSelection, metric: Metric) -> Metric {
    let removed = |name: &str| match selection {
        LabelSelection::Only(labels) => !labels.iter().any(|label| label == name),
        LabelSelection::Except(labels) => labels.iter().any(|label| label == name),
    };
    if !metric.iter().any(|(name, _)| removed(name)) {
        return metric;
    }
    Metric::new(metric.iter().filter(|(name, _)| !removed(name)).collect::<Labels>())
}
