//! Kubernetes' resource quantities (`k8s.io/apimachinery/pkg/api/resource`), in canonical form.

/// A text that is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix that does not exist.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// A number beyond what can be calculated with.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

/// The family of suffixes in which a quantity was written, and is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Decimal,
    Binary,
    Exponent,
}

/// Quantities are kept to the nano.
const SMALLEST_EXPONENT: i32 = -9;
/// In nanos, 10^27 of whatever it is: a hundred such quantities can be added up before an `i128` overflows.
const LARGEST: i128 = 10_i128.pow(36);
/// `E`, the largest suffix.
const LARGEST_EXPONENT: i32 = 18;

const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical form: the same value with the largest suffix that needs no fraction. `0.5` is `500m`, `1024Mi` is `1Gi`. As with Kubernetes,
/// a text that looks canonical by its end stays as it is: `0100m`, `+2`.
///
/// # Errors
/// Texts that are no quantities.
pub(crate) fn canonical(text: &str) -> Result<String, QuantityError> {
    let text = text.trim();
    let (nanos, family) = parse(text)?;
    if keeps_its_form(text, family) {
        return Ok(text.to_owned());
    }
    Ok(match family {
        Family::Binary => binary(nanos),
        Family::Decimal | Family::Exponent => decimal(nanos, family),
    })
}

/// The value in billionths.
///
/// # Errors
/// Texts that are no quantities.
pub(crate) fn nanos(text: &str) -> Result<i128, QuantityError> {
    parse(text.trim()).map(|(nanos, _)| nanos)
}

/// The value in billionths, rounded away from zero.
fn parse(text: &str) -> Result<(i128, Family), QuantityError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number_length = unsigned.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = unsigned.split_at(number_length);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(QuantityError::Format);
    }
    let digits = format!("{whole}{fraction}");
    let mantissa: i128 = digits.parse().map_err(|_| QuantityError::Numeric)?;
    let (multiplier, exponent, family) = read_suffix(suffix)?;
    let places = i32::try_from(fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let scale = exponent.saturating_sub(places).saturating_sub(SMALLEST_EXPONENT);
    let scaled = mantissa.checked_mul(multiplier).ok_or(QuantityError::Numeric)?;
    let nanos = if scale >= 0 {
        power_of_ten(scale).and_then(|power| scaled.checked_mul(power)).ok_or(QuantityError::Numeric)?
    } else {
        // Finer than a nano: rounded up.
        let divided = |power| scaled / power + i128::from(scaled % power != 0);
        power_of_ten(scale.saturating_neg()).map_or(i128::from(scaled != 0), divided)
    };
    if nanos >= LARGEST {
        return Err(QuantityError::Numeric);
    }
    Ok((if negative { -nanos } else { nanos }, family))
}

/// Multiplier, power of ten and family.
fn read_suffix(suffix: &str) -> Result<(i128, i32, Family), QuantityError> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((1, *exponent, Family::Decimal));
    }
    if let Some(power) = BINARY_SUFFIXES.iter().position(|name| *name == suffix) {
        return Ok((1_i128 << (10 * power), 0, Family::Binary));
    }
    let is_suffix_character = |character: char| "eEinumkKMGTP".contains(character);
    let exponent = suffix.strip_prefix(['e', 'E']);
    if let Some(exponent) = exponent.and_then(|digits| digits.parse::<i32>().ok()) {
        return Ok((1, exponent, Family::Exponent));
    }
    let rest = suffix.trim_start_matches(is_suffix_character);
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let well_formed = rest.chars().all(|character| character.is_ascii_digit());
    Err(if well_formed { QuantityError::Suffix } else { QuantityError::Format })
}

/// Whether a text stays as it was written, leading zeros, plus sign and all: `ParseQuantity` takes it to be canonical by a look at its
/// last digits and its suffix.
fn keeps_its_form(text: &str, family: Family) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).trim_start_matches('0');
    let number_length = unsigned.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = unsigned.split_at(number_length);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if family == Family::Binary {
        let power = BINARY_SUFFIXES.iter().position(|name| *name == suffix).and_then(|power| i32::try_from(power).ok());
        // Of fifteen decimal digits some are taken by the suffix, three for each ten of its power of two.
        let precision = power.map_or(-1, |power| 14 - 3 * power);
        let is_exact = fraction.is_empty() && i32::try_from(whole.len()).is_ok_and(|length| length <= precision);
        return is_exact && whole.parse::<i64>().is_ok_and(|value| value & 7 != 0);
    }
    let Ok((_, exponent, _)) = read_suffix(suffix) else { return false };
    // An absent whole part counts as one digit of zero.
    let whole = if whole.is_empty() { "0" } else { whole };
    let digits = format!("{whole}{fraction}");
    let Ok(places) = i32::try_from(fraction.len()) else { return false };
    let scale = exponent.saturating_sub(places);
    // More than eighteen digits are beyond an int64.
    let is_exact = digits.len() <= 18 && scale >= SMALLEST_EXPONENT;
    text == "0" || (is_exact && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0'))
}

fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

fn decimal(nanos: i128, family: Family) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    let (mut mantissa, mut exponent) = (nanos, SMALLEST_EXPONENT);
    while mantissa % 1000 == 0 && (exponent < LARGEST_EXPONENT || family == Family::Exponent) {
        mantissa /= 1000;
        exponent += 3;
    }
    if family == Family::Exponent {
        return if exponent == 0 { mantissa.to_string() } else { format!("{mantissa}e{exponent}") };
    }
    let suffix = DECIMAL_SUFFIXES.iter().find(|(_, power)| *power == exponent).map_or("", |(name, _)| name);
    format!("{mantissa}{suffix}")
}

fn binary(nanos: i128) -> String {
    const UNIT: i128 = 1_000_000_000;
    let is_small = nanos.abs() < 1024 * UNIT;
    if is_small || nanos % UNIT != 0 {
        return decimal(nanos, Family::Decimal);
    }
    let mut value = nanos / UNIT;
    let mut suffixes = BINARY_SUFFIXES.iter().peekable();
    let mut suffix = suffixes.next().copied().unwrap_or_default();
    while value % 1024 == 0
        && let Some(next) = suffixes.next()
    {
        value /= 1024;
        suffix = next;
    }
    format!("{value}{suffix}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{QuantityError, canonical};

    /// Values as a Kubernetes 1.36 API server returned them.
    #[test]
    fn quantities_get_the_form_that_kubernetes_gives_them() {
        for (text, expected) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("100m", "100m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("0", "0"),
            ("-1.5", "-1500m"),
            ("0.0000000001", "1n"),
            ("128974848", "128974848"),
            ("+2", "+2"),
            ("12E6", "12E6"),
            ("0100m", "0100m"),
            ("00100Mi", "00100Mi"),
            ("010Mi", "010Mi"),
            ("1e3", "1e3"),
            ("0001", "0001"),
            ("1.500", "1.500"),
            ("1.0", "1"),
            ("01.5Gi", "1536Mi"),
            ("1500Mi", "1500Mi"),
            ("1100Mi", "1100Mi"),
            ("0.1Ki", "102400m"),
            ("1.000", "1"),
            ("-0", "0"),
            ("00", "0"),
            ("0.000", "0"),
            ("1000000m", "1k"),
            ("0500m", "0500m"),
            ("+1k", "+1k"),
            ("1.500k", "1.500k"),
            ("012345678901234567890", "12345678901234567890"),
            ("123456789012345678", "123456789012345678"),
            ("2.5e3", "2500"),
            ("01e3", "01e3"),
            ("0.001", "1m"),
            ("1.100", "1.100"),
            ("01.100", "01.100"),
            ("0.500", "500m"),
            ("+0.5", "500m"),
            ("001Gi", "001Gi"),
            ("7Ei", "7Ei"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "abc", "true", "1.2.3", "Mi", "1 Gi", "{}"] {
            assert_eq!(canonical(text), Err(QuantityError::Format), "{text}");
        }
        assert_eq!(canonical("1Kii"), Err(QuantityError::Suffix));
    }

    #[test]
    fn what_is_beyond_calculation_is_refused_and_overflows_nothing() {
        let largest = i128::MAX.to_string();
        let (whole, fraction) = largest.split_at(1);
        for text in
            ["1e2147483647", "-1e2147483647", "1e30", "1000000000000000000000000000", &largest, &format!("{largest}Ei")]
        {
            assert_eq!(canonical(text), Err(QuantityError::Numeric), "{text}");
        }
        // Rounded up to the smallest there is.
        for text in ["1e-2147483648", "0.1e-2147483648", "1e-40"] {
            assert_eq!(super::nanos(text), Ok(1), "{text}");
        }
        assert_eq!(super::nanos(&format!("{whole}.{fraction}")), Ok(1_701_411_835));
        let most = super::nanos("999999999999999999999999999").unwrap();
        assert!(
            (0..100).try_fold(0_i128, |sum, _| sum.checked_add(most)).is_some(),
            "what is added up does not overflow"
        );
    }
}
