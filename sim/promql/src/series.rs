//! Samples, series and where they come from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::labels::Labels;
use crate::matcher::Matcher;

/// One observation: time in milliseconds since the Unix epoch, and the value.
pub type Sample = (i64, f64);

/// The NaN with which Prometheus marks that a series has ended (`value.StaleNaN` upstream).
const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The value that ends a series: an instant selector no longer returns it, a range selector skips it.
#[must_use]
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the stale marker; any other NaN is an ordinary value.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A series or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels including the metric name. Shared, because a query copies them often and changes them seldom.
    pub labels: Arc<Labels>,
    /// Samples in ascending order of time.
    pub samples: Vec<Sample>,
}

/// Where the engine reads samples.
pub trait SeriesSource {
    /// Every series that satisfies all `matchers`, with its samples in `start_ms..=end_ms` (both ends included) in
    /// ascending order of time. A series without a sample in the window may be left out. No two series of one answer have
    /// equal labels.
    fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series>;
}

/// Series kept in memory, in the order in which they first appeared.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    series: Vec<Series>,
    positions: HashMap<Arc<Labels>, usize>,
}

impl MemorySource {
    /// Appends one sample. A sample that is not newer than the last one of its series is dropped, as Prometheus drops
    /// samples out of order.
    pub fn append(&mut self, labels: &[(&str, &str)], at_ms: i64, value: f64) {
        let labels = labels.iter().copied().collect();
        self.append_labels(labels, at_ms, value);
    }

    /// As [`Self::append`], with labels that are already a map.
    pub fn append_labels(&mut self, labels: Labels, at_ms: i64, value: f64) {
        let position = match self.positions.get(&labels) {
            Some(position) => *position,
            None => {
                let labels = Arc::new(labels);
                self.series.push(Series { labels: Arc::clone(&labels), samples: Vec::new() });
                self.positions.insert(labels, self.series.len() - 1);
                self.series.len() - 1
            }
        };
        let samples = &mut self.series[position].samples;
        if samples.last().is_none_or(|(last_ms, _)| *last_ms < at_ms) {
            samples.push((at_ms, value));
        }
    }

    /// Ends a series at `at_ms` with the stale marker.
    pub fn mark_stale(&mut self, labels: &[(&str, &str)], at_ms: i64) {
        self.append(labels, at_ms, stale_marker());
    }
}

impl SeriesSource for MemorySource {
    fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        self.series
            .iter()
            .filter(|series| matchers.iter().all(|matcher| matcher.matches_labels(&series.labels)))
            .filter_map(|series| {
                let from = series.samples.partition_point(|(at_ms, _)| *at_ms < start_ms);
                let until = series.samples.partition_point(|(at_ms, _)| *at_ms <= end_ms);
                let samples = series.samples.get(from..until)?;
                (!samples.is_empty()).then(|| Series { labels: Arc::clone(&series.labels), samples: samples.to_vec() })
            })
            .collect()
    }
}
