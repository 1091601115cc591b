//! Checks of a round.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ObjectKey, ThresholdRange};

/// One check of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricCheck {
    /// Name.
    pub name: String,
    /// Window of the query. Default 1 m.
    pub interval: Duration,
    /// The window as written, which is what queries get to see.
    pub interval_text: String,
    /// What passes.
    pub limit: MetricLimit,
    /// What `{{ variables.x }}` stands for.
    pub variables: BTreeMap<String, String>,
    /// Where the value comes from.
    pub source: MetricSource,
}

/// What passes a check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricLimit {
    /// `thresholdRange`, both ends inclusive. For [`MetricSource::Duration`] in milliseconds.
    Range(ThresholdRange),
    /// Not too much more than it was before.
    Rise(Rise),
    /// `threshold`: least for [`MetricSource::SuccessRate`] (percent), most for [`MetricSource::Duration`]
    /// (milliseconds) and for everything else. 0 if the spec gives no limit.
    Threshold(f64),
}

/// A limit that depends on what the metric was before. One-sided: a fall is no harm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rise {
    /// By how much a value may be more than the first one, in the metric's own unit. Not negative.
    pub deviation: f64,
    /// Whether it must not be that much more than the value of the round before, either.
    pub compares_previous: bool,
    /// What an answer without a value means while the canary has traffic.
    pub no_data: NoData,
}

/// What an answer without a value means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoData {
    /// Nothing was counted: zero.
    #[default]
    Zero,
    /// Nothing is known yet: the canary stays where it is.
    Wait,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricSource {
    /// Built-in `request-success-rate`, percent.
    SuccessRate,
    /// The same by another request counter, which has Istio's labels.
    SuccessRateOf(String),
    /// Built-in `request-duration`.
    Duration,
    /// The same of Flagger 0.1, by histograms in seconds where Istio has them; judged in milliseconds, too.
    DurationInSeconds,
    /// Inline query to the metrics server.
    Query(String),
    /// A MetricTemplate.
    Template(ObjectKey),
}
