//! Answers that come in time and are wrong.

use std::sync::Arc;
use std::time::Duration;

use aviary_promql::api::{self, ApiError};
use aviary_promql::{QueryValue, Series, format_float};
use serde_json::Value;

/// How the answers to queries are wrong. The first five are no answers of Prometheus to the query at all, and whoever
/// reads them can tell; the others look right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WrongAnswer {
    /// The login page of a proxy, with status 200.
    Page,
    /// The beginning of the right answer.
    CutOff,
    /// An error of Prometheus, with status 200.
    Error,
    /// A scalar, whatever was asked.
    Scalar,
    /// A series over time, whatever was asked.
    Series,
    /// Each value is this one; NaN and infinities are allowed.
    Value(f64),
    /// The right answer of so long ago.
    Stale(Duration),
}

impl WrongAnswer {
    /// How far in the past queries without a time are evaluated.
    pub(super) fn age_ms(self) -> i64 {
        match self {
            Self::Stale(age) => i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
            _ => 0,
        }
    }

    /// What is answered instead of a right answer that was given at this time.
    pub(super) fn instead_of(self, right: String, at_ms: i64) -> String {
        match self {
            Self::Page => "<!doctype html><title>Sign in</title>".to_owned(),
            // Bodies are ASCII but for label values; where the cut would fall into a character, all is cut off.
            Self::CutOff => right.get(..right.len() / 2).unwrap_or_default().to_owned(),
            Self::Error => ApiError::unavailable("injected fault").body(),
            Self::Scalar => api::success_body(&QueryValue::Scalar { at_ms, value: 1.0 }),
            Self::Series => {
                let samples = vec![(at_ms, 1.0)];
                api::success_body(&QueryValue::Matrix(vec![Series { labels: Arc::default(), samples }]))
            }
            Self::Value(value) => with_value(&right, value),
            Self::Stale(_) => right,
        }
    }
}

/// The answer with another value in each sample of a vector. Where nothing was found, nothing is found.
#[must_use]
pub fn with_value(body: &str, value: f64) -> String {
    let Ok(mut answer) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    for sample in answer["data"]["result"].as_array_mut().into_iter().flatten() {
        if let Some(slot) = sample["value"].get_mut(1) {
            *slot = format_float(value).into();
        }
    }
    answer.to_string()
}
