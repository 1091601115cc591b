//! Numbers: how they are written, and sums that do not lose digits.

/// Writes a float as Prometheus' API does: shortest text that reads back as the same value, exponents only below 1e-6 and
/// from 1e21 on, `NaN`, `+Inf`, `-Inf` (upstream: `jsonutil.MarshalFloat`).
#[must_use]
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        return value.to_string();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Writes a float as `count_values` writes it into a label: never with an exponent.
pub(crate) fn format_label(value: f64) -> String {
    // Rust never writes an exponent of its own accord; only the infinities and NaN have names of their own.
    if value.is_finite() { value.to_string() } else { format_float(value) }
}

/// Compensated (Kahan–Neumaier) summation, as in Prometheus.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    total: f64,
    compensation: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let next = self.total + value;
        if next.is_infinite() {
            self.compensation = 0.0;
        } else if self.total.abs() >= value.abs() {
            self.compensation += (self.total - next) + value;
        } else {
            self.compensation += (value - next) + self.total;
        }
        self.total = next;
    }

    pub(crate) fn value(self) -> f64 {
        if self.total.is_infinite() { self.total } else { self.total + self.compensation }
    }
}

pub(crate) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    values.for_each(|value| sum.add(value));
    sum.value()
}

/// Arithmetic mean; finite whenever the values are, even where their sum would overflow. NaN for no values.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let total = sum(values.iter().copied());
    if total.is_infinite() { values.iter().map(|value| value / count).sum() } else { total / count }
}

/// Population variance (Welford), as `stdvar` computes it.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn variance(values: &[f64]) -> f64 {
    let mut mean = Sum::default();
    let mut squares = Sum::default();
    for (index, value) in values.iter().enumerate() {
        let delta = value - mean.value();
        mean.add(delta / (index + 1) as f64);
        squares.add(delta * (value - mean.value()));
    }
    squares.value() / values.len() as f64
}

/// The φ-quantile with linear interpolation between ranks; NaN sorts first. NaN for no values or a NaN φ, −Inf for
/// φ < 0, +Inf for φ > 1.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|left, right| ascending_nan_first(*left, *right));
    let rank = phi * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

pub(crate) fn ascending_nan_first(left: f64, right: f64) -> std::cmp::Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

pub(crate) fn ascending_nan_last(left: f64, right: f64) -> std::cmp::Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

pub(crate) fn descending_nan_last(left: f64, right: f64) -> std::cmp::Ordering {
    right.partial_cmp(&left).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-07"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e300, "-2.5e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(format_float(value), text);
        }
    }

    #[test]
    fn sums_are_compensated() {
        assert_eq!(sum([1.0, 1e100, 1.0, -1e100].into_iter()), 2.0);
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
    }

    #[test]
    fn quantiles_interpolate_between_ranks() {
        // Rank 0.9 * (4 - 1) = 2.7: 70 % of the way from 3 to 10.
        assert!((quantile(0.9, &mut [10.0, 1.0, 3.0, 2.0]) - 7.9).abs() < 1e-12);
        assert_eq!(quantile(0.5, &mut [4.0]), 4.0);
        assert_eq!(quantile(-0.1, &mut [4.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [4.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }
}
