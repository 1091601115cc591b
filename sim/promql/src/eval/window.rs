//! Functions over a window of samples: `rate` and its relatives, `*_over_time`.

use crate::engine::RangeBoundary;
use crate::number;
use crate::series::Sample;

/// A function over a range selector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeFunction {
    pub(crate) compute: fn(&Window<'_>) -> Option<f64>,
    pub(crate) keeps_name: bool,
}

/// What a range selector saw of one series. Stale markers are already gone; there is at least one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) samples: &'a [Sample],
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) boundary: RangeBoundary,
    /// The scalar of functions that take one (`quantile_over_time`), else NaN.
    pub(crate) parameter: f64,
}

impl Window<'_> {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.samples.iter().map(|(_, value)| *value)
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.samples.windows(2).map(|pair| (pair[0].1, pair[1].1))
    }
}

pub(crate) fn rate(window: &Window<'_>) -> Option<f64> {
    let range_seconds = seconds(window.end_ms - window.start_ms);
    extrapolated(window, true).map(|increase| increase / range_seconds)
}

pub(crate) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true)
}

pub(crate) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false)
}

/// The growth over the whole window, extrapolated from the samples in it (upstream: `extrapolatedRate`).
///
/// The samples seldom reach the ends of the window. If the first and last one are near the ends (within 1.1 average
/// sample distances) the slope is continued to the ends, else by half a sample distance: the series began or ended
/// there. A counter is never continued to below zero.
#[allow(clippy::cast_precision_loss)]
fn extrapolated(window: &Window<'_>, is_counter: bool) -> Option<f64> {
    let samples = window.samples;
    let (first_ms, first) = *samples.first()?;
    let (last_ms, last) = *samples.last()?;
    if samples.len() < 2 {
        return None;
    }
    let mut growth = last - first;
    if is_counter {
        // A value below its predecessor means that the counter began again at zero.
        growth += window.pairs().filter(|(before, after)| after < before).map(|(before, _)| before).sum::<f64>();
    }

    let sampled = seconds(last_ms - first_ms);
    let average_distance = sampled / (samples.len() - 1) as f64;
    let threshold = average_distance * 1.1;
    let mut to_start = seconds(first_ms - window.start_ms);
    let mut to_end = seconds(window.end_ms - last_ms);
    let to_zero = if is_counter && growth > 0.0 && first >= 0.0 { sampled * (first / growth) } else { f64::INFINITY };

    match window.boundary {
        // 2.42 limits to zero first and decides whether the start is near afterwards; later versions the other way round.
        RangeBoundary::Closed => {
            to_start = to_start.min(to_zero);
            if to_start >= threshold {
                to_start = average_distance / 2.0;
            }
        }
        RangeBoundary::LeftOpen => {
            if to_start >= threshold {
                to_start = average_distance / 2.0;
            }
            to_start = to_start.min(to_zero);
        }
    }
    if to_end >= threshold {
        to_end = average_distance / 2.0;
    }
    Some(growth * ((sampled + to_start + to_end) / sampled))
}

#[allow(clippy::cast_precision_loss)]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

pub(crate) fn instant_rate(window: &Window<'_>) -> Option<f64> {
    let [.., (before_ms, before), (after_ms, after)] = window.samples else {
        return None;
    };
    let growth = if after < before { *after } else { after - before };
    Some(growth / seconds(after_ms - before_ms))
}

pub(crate) fn instant_delta(window: &Window<'_>) -> Option<f64> {
    let [.., (_, before), (_, after)] = window.samples else {
        return None;
    };
    Some(after - before)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn changes(window: &Window<'_>) -> Option<f64> {
    let changed = |(before, after): &(f64, f64)| before != after && !(before.is_nan() && after.is_nan());
    Some(window.pairs().filter(changed).count() as f64)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(window.pairs().filter(|(before, after)| after < before).count() as f64)
}

pub(crate) fn average(window: &Window<'_>) -> Option<f64> {
    Some(number::mean(&window.values().collect::<Vec<_>>()))
}

pub(crate) fn sum(window: &Window<'_>) -> Option<f64> {
    Some(number::sum(window.values()))
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn count(window: &Window<'_>) -> Option<f64> {
    Some(window.samples.len() as f64)
}

pub(crate) fn present(_window: &Window<'_>) -> Option<f64> {
    Some(1.0)
}

pub(crate) fn last(window: &Window<'_>) -> Option<f64> {
    window.samples.last().map(|(_, value)| *value)
}

pub(crate) fn minimum(window: &Window<'_>) -> Option<f64> {
    // `f64::min` prefers the number over a NaN, which is Prometheus' rule as well.
    window.values().reduce(f64::min)
}

pub(crate) fn maximum(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(f64::max)
}

pub(crate) fn standard_deviation(window: &Window<'_>) -> Option<f64> {
    variance(window).map(f64::sqrt)
}

pub(crate) fn variance(window: &Window<'_>) -> Option<f64> {
    Some(number::variance(&window.values().collect::<Vec<_>>()))
}

pub(crate) fn quantile(window: &Window<'_>) -> Option<f64> {
    Some(number::quantile(window.parameter, &mut window.values().collect::<Vec<_>>()))
}
