//! Durations in Go's notation, as Flagger's fields and messages use it: `90s`, `1m30s`, `1.515s`, `500ms`.

use std::time::Duration;

use thiserror::Error;

const NANOS_PER_MICRO: u64 = 1_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MINUTE: u64 = 60 * NANOS_PER_SECOND;
const NANOS_PER_HOUR: u64 = 60 * NANOS_PER_MINUTE;

/// Longest duration that Go can express: its type counts nanoseconds in a signed 64-bit integer (292 years).
const MAX_NANOS: u64 = i64::MAX as u64;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// There is nothing to read.
    #[error("expected a duration, found an empty text")]
    Empty,
    /// The text does not follow the notation.
    #[error("expected a duration such as 30s or 1m30s")]
    Malformed,
    /// A number stands without a unit.
    #[error("expected a unit (ms, s, m or h) after the number")]
    MissingUnit,
    /// A unit is unknown.
    #[error("expected a unit of ns, us, ms, s, m or h, found {0}")]
    UnknownUnit(String),
    /// The duration is below zero.
    #[error("expected a duration that is not negative")]
    Negative,
    /// The duration does not fit.
    #[error("expected a duration of less than 292 years")]
    TooLong,
}

/// Reads a duration as Go's `time.ParseDuration` does: decimal numbers, each with a unit, in any order and any number
/// of times; a sign in front; a bare `0`.
///
/// # Errors
/// If the text is not of that form, or negative (which Go can express and [`Duration`] cannot).
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let (negative, mut rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, after) = parse_term(rest)?;
        total = total.checked_add(nanos).filter(|sum| *sum <= MAX_NANOS).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(total))
}

/// Reads one number with its unit. Returns its nanoseconds and what follows.
fn parse_term(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => split_digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit = unit_nanos(unit)?;

    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let whole = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    let nanos = whole.checked_add(fraction_nanos(fraction, unit)).ok_or(DurationError::TooLong)?;
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Result<u64, DurationError> {
    match unit {
        "" => Err(DurationError::MissingUnit),
        "ns" => Ok(1),
        // Micro sign and Greek mu look the same; Go takes both.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(NANOS_PER_MICRO),
        "ms" => Ok(NANOS_PER_MILLI),
        "s" => Ok(NANOS_PER_SECOND),
        "m" => Ok(NANOS_PER_MINUTE),
        "h" => Ok(NANOS_PER_HOUR),
        unknown => Err(DurationError::UnknownUnit(unknown.to_owned())),
    }
}

/// Nanoseconds of the digits after a decimal point, cut off below one.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    // The largest unit has 3.6e12 nanoseconds, so digits past the 13th cannot matter.
    const SIGNIFICANT_DIGITS: usize = 13;
    let mut numerator: u128 = 0;
    let mut denominator: u128 = 1;
    for digit in digits.bytes().take(SIGNIFICANT_DIGITS) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    u64::try_from(numerator * u128::from(unit) / denominator).unwrap_or(u64::MAX)
}

/// Writes a duration as Go prints it: `1.515s`, `500ms`, `1m0s`, `1h0m0s`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if duration < Duration::from_secs(1) {
        return format_below_second(u64::from(duration.subsec_nanos()));
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let last = with_fraction(seconds % 60, u64::from(duration.subsec_nanos()), NANOS_PER_SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{last}s"),
        (0, _) => format!("{minutes}m{last}s"),
        _ => format!("{hours}h{minutes}m{last}s"),
    }
}

fn format_below_second(nanos: u64) -> String {
    let (unit, name) = match nanos {
        0..NANOS_PER_MICRO => return format!("{nanos}ns"),
        NANOS_PER_MICRO..NANOS_PER_MILLI => (NANOS_PER_MICRO, "\u{b5}s"),
        _ => (NANOS_PER_MILLI, "ms"),
    };
    format!("{}{name}", with_fraction(nanos / unit, nanos % unit, unit))
}

/// `whole` and `part / unit` as a decimal number without trailing zeros. `unit` is a power of ten.
fn with_fraction(whole: u64, part: u64, unit: u64) -> String {
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{part:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("5.s", 5_000_000_000),
            ("+1s", 1_000_000_000),
            ("30s1m", 90_000_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("0.0000000000001h", 0),
            ("0.9999999999999999h", 3_599_999_999_999),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        use DurationError::*;
        for (text, error) in [
            ("", Empty),
            ("-", Malformed),
            ("abc", Malformed),
            ("s", Malformed),
            (".s", Malformed),
            (" 1s", Malformed),
            ("10", MissingUnit),
            ("1m30", MissingUnit),
            ("10sfoo", UnknownUnit("sfoo".into())),
            ("1d", UnknownUnit("d".into())),
            ("1 s", UnknownUnit(" s".into())),
            ("-1s", Negative),
            ("9223372036854775808ns", TooLong),
            ("99999999999999999999s", TooLong),
            ("2562048h", TooLong),
        ] {
            assert_eq!(parse_go_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn prints_as_go_prints() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_515_000_000, "1.515s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (305_000_000_001, "5m5.000000001s"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(format_go_duration(duration), text);
            assert_eq!(parse_go_duration(text), Ok(duration), "{text} reads back");
        }
    }
}
