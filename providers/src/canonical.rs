//! Comparing and hashing JSON by meaning.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// JSON without spaces, with sorted keys, without nulls, empty objects and empty arrays. API servers and clients differ
/// in how they write "nothing"; elements of arrays keep their places.
pub(crate) fn canonical_text(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

/// Whether two values mean the same.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    left == right || canonical_text(left) == canonical_text(right)
}

/// [`same`] for values that may be absent; absent means the same as null and empty.
pub(crate) fn same_or_absent(left: Option<&Value>, right: Option<&Value>) -> bool {
    same(left.unwrap_or(&Value::Null), right.unwrap_or(&Value::Null))
}

/// Whether a value says everything that another one says, and perhaps more: further fields, and further elements of arrays between
/// those that are wanted, which keep their order.
pub(crate) fn says_all_of(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (_, wanted) if is_nothing(wanted) => true,
        (Value::Object(present), Value::Object(wanted)) => wanted
            .iter()
            .filter(|(_, value)| !is_nothing(value))
            .all(|(key, value)| present.get(key).is_some_and(|present| says_all_of(present, value))),
        (Value::Array(present), Value::Array(wanted)) => {
            let mut rest = present.iter();
            wanted.iter().all(|wanted| rest.any(|present| says_all_of(present, wanted)))
        }
        (present, wanted) => same(present, wanted),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        _ => false,
    }
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        _ if is_nothing(value) => text.push_str("null"),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !is_nothing(value)).collect();
            fields.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_scalar(&Value::String(key.clone()), text);
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        scalar => write_scalar(scalar, text),
    }
}

fn write_scalar(value: &Value, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

/// SHA-256.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The first 8 bytes of the SHA-256, as 16 hex digits.
pub(crate) fn short_digest(text: &str) -> String {
    let mut hex = String::with_capacity(16);
    for byte in &digest(text)[..8] {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::{canonical_text, same};
    use serde_json::json;

    #[test]
    fn nothing_is_written_in_many_ways() {
        let long = json!({"b": [1, {"y": null, "x": "é\"\n"}], "a": {}, "c": null, "d": {"e": []}});
        assert_eq!(canonical_text(&long), r#"{"b":[1,{"x":"é\"\n"}]}"#);
        assert!(same(&json!({"a": {"b": {}}}), &json!(null)));
    }

    #[test]
    fn something_is_not_nothing() {
        for (left, right) in [
            (json!({"a": 0}), json!({})),
            (json!({"a": ""}), json!({})),
            (json!({"a": false}), json!({})),
            (json!([1, 2]), json!([2, 1])),
            (json!([{}]), json!([])),
            (json!([{}, 1]), json!([1])),
        ] {
            assert!(!same(&left, &right), "{left} {right}");
        }
    }
}
