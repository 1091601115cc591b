//! Reading JSON bodies with an eye on fields that are given twice, of which the last one counts.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a document; tells whether any field occurs twice in its object.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, bool), serde_json::Error> {
    let repeats = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader::new(&repeats).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, repeats.get()))
}

/// The texts of strict decoding errors in the order of the document: fields given twice, and the unknown ones of the given
/// paths.
pub(super) fn strict_errors(bytes: &[u8], unknown: &[String]) -> Vec<String> {
    let mut tracker =
        Tracker { unknown: unknown.iter().map(String::as_str).collect(), repeated: BTreeSet::new(), texts: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    // It was read before; a document that breaks off would have been refused.
    let _ = Walker { tracker: &mut tracker, path: String::new() }.deserialize(&mut deserializer);
    tracker.texts
}

/// Reads a value; notes whether any field occurs twice in its object.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    repeats: &'a Cell<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(repeats: &'a Cell<bool>) -> Self {
        Self { repeats }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if fields.insert(name, value).is_some() {
                self.repeats.set(true);
            }
        }
        Ok(Value::Object(fields))
    }
}

struct Tracker<'a> {
    unknown: BTreeSet<&'a str>,
    /// Told already.
    repeated: BTreeSet<String>,
    texts: Vec<String>,
}

struct Walker<'a, 'b> {
    tracker: &'a mut Tracker<'b>,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Walker<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walker<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = format!("{}[{index}]", self.path);
            if sequence.next_element_seed(Walker { tracker: &mut *self.tracker, path })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if !seen.insert(name) {
                if self.tracker.repeated.insert(path.clone()) {
                    self.tracker.texts.push(format!("duplicate field \"{path}\""));
                }
            } else if self.tracker.unknown.contains(path.as_str()) {
                self.tracker.texts.push(format!("unknown field \"{path}\""));
            }
            map.next_value_seed(Walker { tracker: &mut *self.tracker, path })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::{parse, strict_errors};

    const DOCUMENT: &[u8] =
        br#"{"metadata":{"name":"q","name":"r","foo":1},"data":{"a":"1","a":"2","a":"3"},"list":[{},{"b":1}]}"#;

    #[test]
    fn of_repeated_fields_the_last_one_counts() {
        let (value, repeats) = parse(DOCUMENT).unwrap();
        assert!(repeats);
        assert_eq!(value["metadata"], json!({"name": "r", "foo": 1}));
        assert_eq!(value, serde_json::from_slice::<serde_json::Value>(DOCUMENT).unwrap());
        assert!(!parse(br#"{"a":{"b":1},"b":[{"b":1.5},{"b":null}]}"#).unwrap().1);
    }

    #[test]
    fn strict_errors_follow_the_document() {
        let unknown = ["list[1].b".to_owned(), "metadata.foo".to_owned()];
        let expected = [
            "duplicate field \"metadata.name\"",
            "unknown field \"metadata.foo\"",
            "duplicate field \"data.a\"",
            "unknown field \"list[1].b\"",
        ];
        assert_eq!(strict_errors(DOCUMENT, &unknown), expected);
    }

    #[test]
    fn broken_documents_are_refused() {
        for broken in ["", "{", "{\"a\":}", "[1,]", "{} x"] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
