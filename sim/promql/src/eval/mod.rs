//! Evaluation of a [`Node`] at one instant.

pub(crate) mod aggregate;
pub(crate) mod binary;
pub(crate) mod budget;
pub(crate) mod function;
pub(crate) mod histogram;
pub(crate) mod window;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use regex::Regex;

use self::budget::Budget;
use crate::engine::{EngineOptions, RangeBoundary};
use crate::error::QueryError;
use crate::labels::{Labels, METRIC_NAME};
use crate::plan::{Anchor, LabelSelection, Node, Selector, Subquery, TimeModifier};
use crate::series::{Sample, Series, SeriesSource, is_stale};

/// The labels of an element. Most operations drop the metric name and nothing else, so that is a flag instead of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    labels: Arc<Labels>,
    name_dropped: bool,
}

impl Metric {
    pub(crate) fn new(labels: impl Into<Arc<Labels>>) -> Self {
        Self { labels: labels.into(), name_dropped: false }
    }

    pub(crate) fn get(&self, label: &str) -> Option<&str> {
        if self.name_dropped && label == METRIC_NAME {
            return None;
        }
        self.labels.get(label)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().filter(|(name, _)| !self.name_dropped || *name != METRIC_NAME)
    }

    pub(crate) fn iter_without_name(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(name, _)| *name != METRIC_NAME)
    }

    pub(crate) fn drop_name(mut self) -> Self {
        self.name_dropped = true;
        self
    }

    /// Without the metric name and the labels named.
    pub(crate) fn except(self, labels: &[&str]) -> Self {
        if !labels.iter().any(|label| self.labels.contains(label)) {
            return self.drop_name();
        }
        let kept = self.iter_without_name().filter(|(name, _)| !labels.contains(name));
        Self::new(kept.collect::<Labels>())
    }

    /// The labels that identify the group or match that this element belongs to.
    pub(crate) fn key<'a>(&'a self, selection: &'a LabelSelection) -> Vec<(&'a str, &'a str)> {
        match selection {
            LabelSelection::Only(labels) if labels.is_empty() => Vec::new(),
            LabelSelection::Only(labels) => {
                self.iter().filter(|(name, _)| labels.iter().any(|label| label == name)).collect()
            }
            LabelSelection::Except(labels) => {
                self.iter_without_name().filter(|(name, _)| !labels.iter().any(|label| label == name)).collect()
            }
        }
    }

    pub(crate) fn into_labels(self) -> Arc<Labels> {
        if !self.name_dropped || !self.labels.contains(METRIC_NAME) {
            return self.labels;
        }
        Arc::new(self.iter().collect())
    }
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(f64),
    Text(String),
    Vector(Vec<Element>),
    Matrix(Vec<(Metric, Vec<Sample>)>),
}

/// What a range selector or a subquery saw, and the window in which it looked.
pub(crate) struct Windowed {
    pub(crate) series: Vec<(Metric, Vec<Sample>)>,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
}

pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) options: &'a EngineOptions,
    /// What `@ start()` and `@ end()` mean: the ends of a range query, the instant of an instant query.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) budget: Budget,
    /// Of `label_replace`, by their text: at every instant they are the same.
    pub(crate) patterns: RefCell<HashMap<String, Regex>>,
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(source: &'a dyn SeriesSource, options: &'a EngineOptions, start_ms: i64, end_ms: i64) -> Self {
        Self {
            source,
            options,
            start_ms,
            end_ms,
            budget: Budget::for_samples(options.max_samples),
            patterns: RefCell::default(),
        }
    }

    pub(crate) fn evaluate(&self, node: &Node, at_ms: i64) -> Result<Value, QueryError> {
        self.budget.spend(1, budget::NODE)?;
        match node {
            Node::Number(value) => Ok(Value::Scalar(*value)),
            Node::Text(text) => Ok(Value::Text(text.clone())),
            Node::Selector(selector) => self.instant_vector(selector, at_ms).map(Value::Vector),
            Node::Range { .. } | Node::Subquery(_) => Ok(Value::Matrix(self.windowed(node, at_ms)?.series)),
            Node::Negate(inner) => match self.evaluate(inner, at_ms)? {
                Value::Scalar(value) => Ok(Value::Scalar(-value)),
                Value::Vector(vector) => {
                    let negated = vector
                        .into_iter()
                        .map(|element| Element { metric: element.metric.drop_name(), value: -element.value });
                    unique(negated.collect()).map(Value::Vector)
                }
                other => Err(type_error("scalar or instant vector", &other)),
            },
            Node::Binary(operation) => {
                let left = self.evaluate(&operation.left, at_ms)?;
                let right = self.evaluate(&operation.right, at_ms)?;
                binary::apply(operation, left, right)
            }
            Node::Aggregate(aggregation) => {
                let parameter =
                    aggregation.parameter.as_ref().map(|parameter| self.evaluate(parameter, at_ms)).transpose()?;
                let vector = self.vector(&aggregation.inner, at_ms)?;
                aggregate::apply(aggregation, parameter.as_ref(), vector, self.options.boundary).map(Value::Vector)
            }
            Node::Call { function, arguments } => self.call(*function, arguments, at_ms),
        }
    }

    pub(crate) fn vector(&self, node: &Node, at_ms: i64) -> Result<Vec<Element>, QueryError> {
        match self.evaluate(node, at_ms)? {
            Value::Vector(vector) => Ok(vector),
            other => Err(type_error("instant vector", &other)),
        }
    }

    pub(crate) fn scalar(&self, node: &Node, at_ms: i64) -> Result<f64, QueryError> {
        match self.evaluate(node, at_ms)? {
            Value::Scalar(value) => Ok(value),
            other => Err(type_error("scalar", &other)),
        }
    }

    fn instant_vector(&self, selector: &Selector, at_ms: i64) -> Result<Vec<Element>, QueryError> {
        Ok(self.latest_samples(selector, at_ms)?.map(|(metric, (_, value))| Element { metric, value }).collect())
    }

    /// The latest sample of every series within the lookback, unless the series has ended.
    pub(crate) fn latest_samples(
        &self,
        selector: &Selector,
        at_ms: i64,
    ) -> Result<impl Iterator<Item = (Metric, Sample)>, QueryError> {
        let end_ms = self.shifted(selector.time, at_ms);
        let start_ms = self.first_included(end_ms - self.options.lookback_ms);
        Ok(self.select(selector, start_ms, end_ms)?.into_iter().filter_map(|series| {
            let sample = *series.samples.last()?;
            (!is_stale(sample.1)).then(|| (Metric::new(series.labels), sample))
        }))
    }

    fn select(&self, selector: &Selector, start_ms: i64, end_ms: i64) -> Result<Vec<Series>, QueryError> {
        self.budget.spend(1, budget::SELECTION)?;
        let found = self.source.select(&selector.matchers, start_ms, end_ms);
        self.budget.spend(found.iter().map(|series| series.samples.len()).sum(), 1)?;
        Ok(found)
    }

    pub(crate) fn windowed(&self, node: &Node, at_ms: i64) -> Result<Windowed, QueryError> {
        match node {
            Node::Range { selector, range_ms } => {
                let end_ms = self.shifted(selector.time, at_ms);
                let start_ms = end_ms - range_ms;
                let mut series = Vec::new();
                for found in self.select(selector, self.first_included(start_ms), end_ms)? {
                    let mut samples = found.samples;
                    samples.retain(|(_, value)| !is_stale(*value));
                    if !samples.is_empty() {
                        series.push((Metric::new(found.labels), samples));
                    }
                }
                Ok(Windowed { series, start_ms, end_ms })
            }
            Node::Subquery(subquery) => self.subquery(subquery, at_ms),
            other => Err(type_error("range vector", &self.evaluate(other, at_ms)?)),
        }
    }

    /// Evaluates the inner expression at every multiple of the step inside the window.
    fn subquery(&self, subquery: &Subquery, at_ms: i64) -> Result<Windowed, QueryError> {
        let end_ms = self.shifted(subquery.time, at_ms);
        let start_ms = end_ms - subquery.range_ms;
        let first_ms = self.first_included(start_ms);
        let mut step_ms = first_ms.div_euclid(subquery.step_ms) * subquery.step_ms;
        if step_ms < first_ms {
            step_ms += subquery.step_ms;
        }
        let mut series: Vec<(Metric, Vec<Sample>)> = Vec::new();
        let mut positions: HashMap<Arc<Labels>, usize> = HashMap::new();
        while step_ms <= end_ms {
            let vector = self.vector(&subquery.inner, step_ms)?;
            self.budget.spend(vector.len(), budget::COLLECTED_SAMPLE)?;
            for element in vector {
                let labels = element.metric.into_labels();
                let position = *positions.entry(Arc::clone(&labels)).or_insert_with(|| {
                    series.push((Metric::new(labels), Vec::new()));
                    series.len() - 1
                });
                series[position].1.push((step_ms, element.value));
            }
            step_ms += subquery.step_ms;
        }
        Ok(Windowed { series, start_ms, end_ms })
    }

    fn shifted(&self, time: TimeModifier, at_ms: i64) -> i64 {
        let anchor_ms = match time.anchor {
            None => at_ms,
            Some(Anchor::At(anchor_ms)) => anchor_ms,
            Some(Anchor::Start) => self.start_ms,
            Some(Anchor::End) => self.end_ms,
        };
        anchor_ms - time.offset_ms
    }

    /// The first millisecond that belongs to a window which begins at `start_ms`.
    fn first_included(&self, start_ms: i64) -> i64 {
        match self.options.boundary {
            RangeBoundary::Closed => start_ms,
            RangeBoundary::LeftOpen => start_ms + 1,
        }
    }
}

/// The parser checks types, so this is seen only where the parser's table of functions disagrees with this engine.
pub(crate) fn type_error(expected: &str, found: &Value) -> QueryError {
    let found = match found {
        Value::Scalar(_) => "scalar",
        Value::Text(_) => "string",
        Value::Vector(_) => "instant vector",
        Value::Matrix(_) => "range vector",
    };
    QueryError::BadData(format!("parse error: expected type {expected}, got {found}"))
}

/// Refuses a vector in which the dropped metric name was all that told two elements apart.
pub(crate) fn unique(vector: Vec<Element>) -> Result<Vec<Element>, QueryError> {
    // Elements of one metric were distinct before their name was dropped, so they still are: the usual case, without hashing.
    fn name(element: &Element) -> Option<&str> {
        element.metric.labels.get(METRIC_NAME)
    }
    let one_metric = vector
        .first()
        .is_none_or(|first| vector.iter().all(|element| element.metric.name_dropped && name(element) == name(first)));
    if one_metric {
        return Ok(vector);
    }
    ensure_distinct(&vector)?;
    Ok(vector)
}

/// Refuses a vector in which two elements have equal labels.
pub(crate) fn ensure_distinct(vector: &[Element]) -> Result<(), QueryError> {
    let mut seen = HashSet::with_capacity(vector.len());
    if vector.iter().all(|element| seen.insert(element.metric.iter().collect::<Vec<_>>())) {
        return Ok(());
    }
    Err(QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned()))
}
