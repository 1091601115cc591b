//! Aggregations: `sum`, `topk` and the like.

use std::collections::HashMap;

use super::{Element, Metric, Value, type_error};
use crate::engine::RangeBoundary;
use crate::error::QueryError;
use crate::labels::Labels;
use crate::number;
use crate::plan::{Aggregate, Aggregator};

pub(crate) fn apply(
    aggregation: &Aggregate,
    parameter: Option<&Value>,
    vector: Vec<Element>,
    version: RangeBoundary,
) -> Result<Vec<Element>, QueryError> {
    match aggregation.operator {
        Aggregator::TopK => highest(aggregation, scalar(parameter)?, vector, number::descending_nan_last),
        Aggregator::BottomK => highest(aggregation, scalar(parameter)?, vector, number::ascending_nan_last),
        Aggregator::CountValues => count_values(aggregation, text(parameter)?, &vector, version),
        Aggregator::Quantile => {
            let phi = scalar(parameter)?;
            Ok(reduce(aggregation, &vector, |values| number::quantile(phi, values)))
        }
        Aggregator::Sum => Ok(reduce(aggregation, &vector, |values| number::sum(values.iter().copied()))),
        Aggregator::Average => Ok(reduce(aggregation, &vector, |values| number::mean(values))),
        Aggregator::Minimum => Ok(reduce(aggregation, &vector, |values| fold(values, f64::min))),
        Aggregator::Maximum => Ok(reduce(aggregation, &vector, |values| fold(values, f64::max))),
        Aggregator::Count => Ok(reduce(aggregation, &vector, |values| count(values.len()))),
        Aggregator::Group => Ok(reduce(aggregation, &vector, |_| 1.0)),
        Aggregator::Variance => Ok(reduce(aggregation, &vector, |values| number::variance(values))),
        Aggregator::StandardDeviation => Ok(reduce(aggregation, &vector, |values| number::variance(values).sqrt())),
    }
}

/// NaN only if every value is: `f64::min` and `max` prefer the number, as Prometheus does.
fn fold(values: &[f64], choose: fn(f64, f64) -> f64) -> f64 {
    values.iter().copied().reduce(choose).unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)]
fn count(number: usize) -> f64 {
    number as f64
}

fn reduce(aggregation: &Aggregate, vector: &[Element], compute: impl Fn(&mut [f64]) -> f64) -> Vec<Element> {
    groups(aggregation, vector)
        .into_iter()
        .map(|(key, members)| {
            let mut values: Vec<f64> = members.into_iter().map(|index| vector[index].value).collect();
            let metric = Metric::new(key.into_iter().collect::<Labels>());
            Element { metric, value: compute(&mut values) }
        })
        .collect()
}

type Key<'a> = Vec<(&'a str, &'a str)>;

/// The members of every group, by position, groups in order of their first member.
fn groups<'a>(aggregation: &'a Aggregate, vector: &'a [Element]) -> Vec<(Key<'a>, Vec<usize>)> {
    let mut groups: Vec<(Key<'a>, Vec<usize>)> = Vec::new();
    let mut positions: HashMap<Key<'a>, usize> = HashMap::new();
    for (index, element) in vector.iter().enumerate() {
        let key = element.metric.key(&aggregation.grouping);
        let position = *positions.entry(key).or_insert_with_key(|key| {
            groups.push((key.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[position].1.push(index);
    }
    groups
}

/// `topk` and `bottomk`: the elements keep their labels; equal values keep their order; NaN comes last in both.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn highest(
    aggregation: &Aggregate,
    limit: f64,
    vector: Vec<Element>,
    order: fn(f64, f64) -> std::cmp::Ordering,
) -> Result<Vec<Element>, QueryError> {
    if limit.is_nan() || limit.abs() >= 9_223_372_036_854_775_808.0 {
        return Err(QueryError::Execution(format!("Scalar value {} overflows int64", number::format_float(limit))));
    }
    if limit < 1.0 {
        return Ok(Vec::new());
    }
    let mut chosen = Vec::new();
    for (_, mut members) in groups(aggregation, &vector) {
        members.sort_by(|left, right| order(vector[*left].value, vector[*right].value));
        members.truncate(limit as usize);
        chosen.extend(members);
    }
    let mut elements: Vec<Option<Element>> = vector.into_iter().map(Some).collect();
    Ok(chosen.into_iter().filter_map(|index| elements[index].take()).collect())
}

fn count_values(
    aggregation: &Aggregate,
    label: &str,
    vector: &[Element],
    version: RangeBoundary,
) -> Result<Vec<Element>, QueryError> {
    if !super::function::is_label_name(label, version) {
        return Err(QueryError::Execution(format!("invalid label name {label:?}")));
    }
    let mut counts: Vec<(Labels, usize)> = Vec::new();
    let mut positions: HashMap<Labels, usize> = HashMap::new();
    for element in vector {
        let mut labels: Labels = element.metric.key(&aggregation.grouping).into_iter().collect();
        labels.insert(label.to_owned(), number::format_label(element.value));
        let position = *positions.entry(labels).or_insert_with_key(|labels| {
            counts.push((labels.clone(), 0));
            counts.len() - 1
        });
        counts[position].1 += 1;
    }
    Ok(counts
        .into_iter()
        .map(|(labels, number)| Element { metric: Metric::new(labels), value: count(number) })
        .collect())
}

fn scalar(parameter: Option<&Value>) -> Result<f64, QueryError> {
    match parameter {
        Some(Value::Scalar(value)) => Ok(*value),
        Some(other) => Err(type_error("scalar", other)),
        None => Err(QueryError::BadData("parse error: aggregation without its parameter".to_owned())),
    }
}

fn text(parameter: Option<&Value>) -> Result<&str, QueryError> {
    match parameter {
        Some(Value::Text(text)) => Ok(text),
        Some(other) => Err(type_error("string", other)),
        None => Err(QueryError::BadData("parse error: aggregation without its parameter".to_owned())),
    }
}
