//! What a plain text means: YAML 1.1 as kubectl's library (go-yaml 2) reads it, so that `on`, `0755` and `1_000` mean here
//! what they mean there.

use libyaml_safer::{BOOL_TAG, FLOAT_TAG, INT_TAG, NULL_TAG, STR_TAG, TIMESTAMP_TAG};
use serde_json::{Number, Value};

/// Binary data, in base64.
const BINARY_TAG: &str = "tag:yaml.org,2002:binary";

/// Whole numbers from here on are written with an exponent, and stay what they are: Go writes them so.
const MOST_PLAIN: f64 = 1e21;

/// The value of a scalar. `is_plain`: without quotes, and not a block.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn resolve(text: &str, tag: Option<&str>, is_plain: bool) -> Result<Value, String> {
    let wanted = match tag {
        // `!` alone means "as it is written".
        Some("!" | STR_TAG | TIMESTAMP_TAG) => return Ok(text.into()),
        Some(BINARY_TAG) => {
            return Err("the tag !!binary is not supported: give the text, or data in base64".to_owned());
        }
        None if !is_plain => return Ok(text.into()),
        Some(tag @ (NULL_TAG | BOOL_TAG | INT_TAG | FLOAT_TAG)) => Some(tag),
        // Tags of one's own say nothing about the value.
        Some(_) => return Ok(text.into()),
        None => None,
    };
    let (found, value) = meaning(text)?;
    match wanted {
        None => Ok(value),
        Some(wanted) if wanted == found || (wanted, found) == (FLOAT_TAG, INT_TAG) => Ok(value),
        Some(wanted) => Err(format!("{text:?} is not of type {}", wanted.rsplit(':').next().unwrap_or(wanted))),
    }
}

/// Tag and value of a plain text.
fn meaning(text: &str) -> Result<(&'static str, Value), String> {
    Ok(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => (BOOL_TAG, true.into()),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            (BOOL_TAG, false.into())
        }
        "" | "~" | "null" | "Null" | "NULL" => (NULL_TAG, Value::Null),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => {
            return Err(format!("{text} is a number that JSON, and so Kubernetes, does not have; put it in quotes"));
        }
        _ => match number(text) {
            Some(number) if number.is_f64() => (FLOAT_TAG, Value::Number(number)),
            Some(number) => (INT_TAG, Value::Number(number)),
            None => (STR_TAG, text.into()),
        },
    })
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(['+', '-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return None;
    }
    let plain = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    if let Some(whole) = whole(&plain) {
        return Some(whole);
    }
    // Not infinity, in its many spellings.
    if !plain.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)) {
        return None;
    }
    let float: f64 = plain.parse().ok()?;
    // Go writes 50.0 as 50, so that is what a server gets.
    if float.fract() == 0.0 && float.abs() < MOST_PLAIN {
        return format!("{float:.0}").parse().ok();
    }
    Number::from_f64(float)
}

/// A whole number as Go reads it: with a sign, and in base 2, 8 or 16 by its prefix. A zero in front means base 8.
fn whole(plain: &str) -> Option<Number> {
    let (is_negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, plain.get(1..)?),
        b'+' => (false, plain.get(1..)?),
        _ => (false, plain),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.starts_with(|digit: char| digit.is_ascii_hexdigit()) {
        return None;
    }
    if !is_negative {
        return u64::from_str_radix(digits, base).ok().map(Number::from);
    }
    i64::from_str_radix(&format!("-{digits}"), base).ok().map(Number::from)
}

/// The text of a key. Kubernetes knows texts only. A number stays as it is written: kubectl turns 1.10 into 1.1.
pub(super) fn key(text: &str, value: Value) -> Result<String, String> {
    match value {
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) if !number.is_f64() && !text.contains('.') => Ok(number.to_string()),
        Value::Null => Err("a key is missing before the colon".to_owned()),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    /// The right column is what `kubectl create --dry-run=client -o json` prints.
    #[test]
    fn plain_texts_mean_what_they_mean_to_kubectl() {
        for (text, value) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("oN", json!("oN")),
            ("", json!(null)),
            ("~", json!(null)),
            ("10", json!(10)),
            ("+10", json!(10)),
            ("-10", json!(-10)),
            ("1_000", json!(1000)),
            ("0755", json!(493)),
            ("08", json!(8)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("-0x1F", json!(-31)),
            ("0b101", json!(5)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("0.5", json!(0.5)),
            (".5", json!(0.5)),
            ("1.", json!(1)),
            ("50.0", json!(50)),
            ("1e3", json!(1000)),
            ("1e-3", json!(0.001)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("-", json!("-")),
            ("--1", json!("--1")),
            ("0x", json!("0x")),
            ("0xg", json!("0xg")),
            (".", json!(".")),
            ("10s", json!("10s")),
            ("1:30", json!("1:30")),
            ("6.0.1", json!("6.0.1")),
            ("2024-01-01", json!("2024-01-01")),
            ("<<", json!("<<")),
        ] {
            assert_eq!(resolve(text, None, true), Ok(value), "{text:?}");
            assert_eq!(resolve(text, None, false), Ok(json!(text)), "{text:?} in quotes");
        }
        assert!(resolve(".inf", None, true).is_err());
    }

    #[test]
    fn tags_decide() {
        assert_eq!(resolve("5", Some(STR_TAG), true), Ok(json!("5")));
        assert_eq!(resolve("5", Some(FLOAT_TAG), false), Ok(json!(5)));
        assert_eq!(resolve("5", Some("!mine"), true), Ok(json!("5")));
        assert_eq!(resolve("a", Some(INT_TAG), true), Err("\"a\" is not of type int".to_owned()));
        assert!(resolve("aGk=", Some(BINARY_TAG), true).is_err());
    }

    #[test]
    fn keys_are_texts() {
        assert_eq!(key("on", json!(true)), Ok("true".to_owned()));
        assert_eq!(key("0x10", json!(16)), Ok("16".to_owned()));
        assert_eq!(key("1.10", json!(1.1)), Ok("1.10".to_owned()));
        assert_eq!(key("50.0", json!(50)), Ok("50.0".to_owned()));
        assert!(key("", Value::Null).is_err());
    }
}
