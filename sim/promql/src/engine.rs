//! Queries and their values.

use std::collections::HashMap;
use std::sync::Arc;

use promql_parser::parser::Expr;

use crate::error::QueryError;
use crate::eval::budget::COLLECTED_SAMPLE;
use crate::eval::{Evaluator, Metric, Value};
use crate::labels::Labels;
use crate::lower::lower;
use crate::matcher::Matcher;
use crate::plan::Node;
use crate::series::{Sample, Series, SeriesSource};
use crate::syntax;

/// Whether a window includes its own beginning. Both ends of a window of one minute over samples every 5 s can carry a
/// sample, so versions differ by one sample when query and scrape fall on the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeBoundary {
    /// `[t - range, t]`, Prometheus 2 (the reference is 2.42, whose order of limits in `rate` it takes as well).
    Closed,
    /// `(t - range, t]`, Prometheus 3.
    #[default]
    LeftOpen,
}

/// What a Prometheus server sets by flags.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How far back an instant selector looks for a sample, in milliseconds.
    pub lookback_ms: i64,
    /// Whether windows include their beginning.
    pub boundary: RangeBoundary,
    /// How many samples a query may hold (`--query.max-samples`). Other work is paid out of the same purse.
    pub max_samples: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        // Five minutes is Prometheus' default `--query.lookback-delta`, and this its default `--query.max-samples`.
        Self { lookback_ms: 300_000, boundary: RangeBoundary::default(), max_samples: 50_000_000 }
    }
}

/// The value of a query. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// A number.
    Scalar {
        /// When.
        at_ms: i64,
        /// The number.
        value: f64,
    },
    /// A string literal.
    Text {
        /// When.
        at_ms: i64,
        /// The string.
        value: String,
    },
    /// One value for each of any number of series.
    Vector(Vec<VectorSample>),
    /// Several values for each of any number of series, sorted by labels.
    Matrix(Vec<Series>),
}

/// One element of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Arc<Labels>,
    /// The instant of the evaluation, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Its value.
    pub value: f64,
}

/// A parsed query. Parsing costs far more than evaluating a small one, so callers that repeat queries should keep it.
#[derive(Clone, Debug)]
pub struct Query {
    root: Node,
}

impl Query {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for what is not PromQL, [`QueryError::Unsupported`] for PromQL that this engine lacks.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let expression = parsed(text)?;
        Ok(Self { root: lower(&expression)? })
    }

    /// Evaluates at one instant.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where the data makes the query ambiguous, or the query more work than there may be.
    pub fn instant(
        &self,
        source: &dyn SeriesSource,
        at_ms: i64,
        options: &EngineOptions,
    ) -> Result<QueryValue, QueryError> {
        let evaluator = Evaluator::new(source, options, at_ms, at_ms);
        Ok(match evaluator.evaluate(&self.root, at_ms)? {
            Value::Scalar(value) => QueryValue::Scalar { at_ms, value },
            Value::Text(value) => QueryValue::Text { at_ms, value },
            Value::Vector(vector) => QueryValue::Vector(
                vector
                    .into_iter()
                    .map(|element| VectorSample { labels: element.metric.into_labels(), at_ms, value: element.value })
                    .collect(),
            ),
            Value::Matrix(series) => QueryValue::Matrix(sorted(series.into_iter().map(series_of).collect())),
        })
    }

    /// Evaluates at `start_ms`, then every `step_ms` up to and including `end_ms`. The answer is always a matrix.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for a step that is not positive, an end before the start, more than 11,000 steps
    /// (Prometheus' limit) or an expression that is neither scalar nor instant vector; otherwise as [`Self::instant`].
    pub fn range(
        &self,
        source: &dyn SeriesSource,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &EngineOptions,
    ) -> Result<QueryValue, QueryError> {
        check_range(start_ms, end_ms, step_ms)?;
        let evaluator = Evaluator::new(source, options, start_ms, end_ms);
        let mut series: Vec<Series> = Vec::new();
        let mut positions: HashMap<Arc<Labels>, usize> = HashMap::new();
        let mut record = |labels: Arc<Labels>, sample: Sample| {
            let position = *positions.entry(Arc::clone(&labels)).or_insert_with(|| {
                series.push(Series { labels, samples: Vec::new() });
                series.len() - 1
            });
            series[position].samples.push(sample);
        };
        let nameless = Arc::new(Labels::new());
        let mut at_ms = start_ms;
        while at_ms <= end_ms {
            match evaluator.evaluate(&self.root, at_ms)? {
                Value::Scalar(value) => record(Arc::clone(&nameless), (at_ms, value)),
                Value::Vector(vector) => {
                    evaluator.budget.spend(vector.len(), COLLECTED_SAMPLE)?;
                    for element in vector {
                        record(element.metric.into_labels(), (at_ms, element.value));
                    }
                }
                Value::Text(_) => return Err(range_type_error("string")),
                Value::Matrix(_) => return Err(range_type_error("range vector")),
            }
            at_ms += step_ms;
        }
        Ok(QueryValue::Matrix(sorted(series)))
    }
}

/// Parses and evaluates at one instant with the default options.
///
/// # Errors
/// As [`Query::parse`] and [`Query::instant`].
pub fn evaluate(source: &dyn SeriesSource, query: &str, at_ms: i64) -> Result<QueryValue, QueryError> {
    Query::parse(query)?.instant(source, at_ms, &EngineOptions::default())
}

/// Parses and evaluates over a range with the default options.
///
/// # Errors
/// As [`Query::parse`] and [`Query::range`].
pub fn evaluate_range(
    source: &dyn SeriesSource,
    query: &str,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<QueryValue, QueryError> {
    Query::parse(query)?.range(source, start_ms, end_ms, step_ms, &EngineOptions::default())
}

/// Reads a selector such as `up{job="web"}`, the form that `match[]` parameters have.
///
/// # Errors
/// [`QueryError::BadData`] for what is not a selector of series, [`QueryError::Unsupported`] for a selector that this engine
/// lacks.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    let refuse = |reason: &str| QueryError::BadData(format!("invalid parameter \"match[]\": {reason}"));
    let expression = aviary_promql_syntax::parse(text).map_err(|reason| refuse(&syntax::describe(text, &reason)))?;
    match lower(&expression)? {
        Node::Selector(selector) => Ok(selector.matchers),
        _ => Err(refuse("parse error: expected a series selector")),
    }
}

/// A query with the line breaks and indentation of Prometheus' formatter.
///
/// # Errors
/// [`QueryError::BadData`] for what is not PromQL.
pub fn format_query(text: &str) -> Result<String, QueryError> {
    Ok(parsed(text)?.prettify())
}

fn parsed(text: &str) -> Result<Expr, QueryError> {
    aviary_promql_syntax::parse(text).map_err(|reason| {
        QueryError::BadData(format!("invalid parameter \"query\": {}", syntax::describe(text, &reason)))
    })
}

/// Prometheus' own limit on points per series.
const MAX_STEPS: i64 = 11_000;

fn check_range(start_ms: i64, end_ms: i64, step_ms: i64) -> Result<(), QueryError> {
    let refuse = |text: &str| Err(QueryError::BadData(text.to_owned()));
    if end_ms < start_ms {
        return refuse("invalid parameter \"end\": end timestamp must not be before start time");
    }
    if step_ms <= 0 {
        return refuse(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a \
             positive integer",
        );
    }
    if end_ms.saturating_sub(start_ms) / step_ms > MAX_STEPS {
        return refuse(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        );
    }
    Ok(())
}

fn range_type_error(found: &str) -> QueryError {
    QueryError::BadData(format!(
        "invalid parameter \"query\": invalid expression type \"{found}\" for range query, must be Scalar or instant \
         Vector"
    ))
}

fn series_of((metric, samples): (Metric, Vec<Sample>)) -> Series {
    Series { labels: metric.into_labels(), samples }
}

fn sorted(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by(|left, right| left.labels.cmp(&right.labels));
    series
}
