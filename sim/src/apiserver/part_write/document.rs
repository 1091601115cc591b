//! The body of a PUT, read as far as a write of one part has to know it.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::apiserver::body::Reader;
use crate::apiserver::schema::decode;
use crate::apiserver::write::WriteRequest;
use crate::store::{Part, Record};

/// All of a body but the part that is written.
#[derive(Default)]
pub(super) struct Document {
    pub(super) api_version: String,
    pub(super) kind: String,
    /// Without managed fields and `resourceVersion`.
    metadata: Map<String, Value>,
    resource_version: String,
    /// The JSON of managed fields without spaces, if the client sent some and has a say in them.
    managed_fields: Option<Vec<u8>>,
    /// The spec beside a status that is written. It is not stored, but fields that the schema does not know are told.
    spec: Option<Value>,
    /// Whether there are fields beside the usual ones.
    pub(super) has_other_fields: bool,
}

impl Document {
    /// Reads a JSON body and the part that is written. `None` for what is not plainly an object, or names a field twice.
    pub(super) fn parse(bytes: &[u8], part: Part) -> Option<(Self, Value)> {
        let repeats = Cell::new(false);
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let (document, value) = Root { part, repeats: &repeats }.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        let value = value.filter(Value::is_object)?;
        (!repeats.get()).then_some((document, value))
    }

    /// Whether the object's metadata stay what they are: the client sent back what it had read.
    pub(super) fn keeps_metadata(&self, present: &Record) -> bool {
        let managed_fields = self.managed_fields.as_deref();
        self.is_of_version(present)
            && managed_fields.is_none_or(|given| Some(given) == present.managed_fields().map(str::as_bytes))
            && self.repeats_metadata(present)
    }

    /// Whether nothing is to be said of what stands beside the status that is written.
    pub(super) fn says_nothing_beside_status(&self, present: &Record) -> bool {
        let repeats = |spec: &Value| {
            let stored = present.part_json(Part::Spec).and_then(|json| serde_json::from_slice::<Value>(json).ok());
            stored.as_ref() == Some(spec)
        };
        !self.has_other_fields && self.spec.as_ref().is_none_or(repeats)
    }

    /// Whether the body is about this version of the object that the path names, and its metadata, which a write to a
    /// subresource does not change, can be read.
    pub(super) fn names(&self, request: &WriteRequest<'_>, present: &Record) -> bool {
        let given = |field: &str| match self.metadata.get(field) {
            None => Some(""),
            Some(value) => value.as_str(),
        };
        let is_or_is_missing =
            |field, expected: &str| given(field).is_some_and(|given| given.is_empty() || given == expected);
        self.is_of_version(present)
            && given("name") == Some(request.name)
            && is_or_is_missing("namespace", &request.target.namespace)
            && is_or_is_missing("uid", present.uid())
            && (self.repeats_metadata(present) || self.has_readable_metadata())
    }

    fn is_of_version(&self, present: &Record) -> bool {
        self.resource_version.parse() == Ok(present.resource_version)
    }

    fn repeats_metadata(&self, present: &Record) -> bool {
        let Ok(given) = serde_json::to_vec(&self.metadata) else {
            return false;
        };
        let pieces = present.own_metadata();
        let rest = pieces
            .and_then(|pieces| pieces.iter().try_fold(given.as_slice(), |given, piece| given.strip_prefix(*piece)));
        rest.is_some_and(<[u8]>::is_empty)
    }

    fn has_readable_metadata(&self) -> bool {
        let mut metadata = Value::Object(self.metadata.clone());
        decode::decode_metadata(&mut metadata).is_ok_and(|unknown| unknown.is_empty())
    }
}

/// The name of a field, which has no escapes as a rule.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a field's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// The names of an object's fields so far.
#[derive(Default)]
struct Names<'de>(Vec<Cow<'de, str>>);

impl Names<'_> {
    fn repeat(mut self) -> bool {
        self.0.sort_unstable();
        self.0.windows(2).any(|pair| pair[0] == pair[1])
    }
}

#[derive(Clone, Copy)]
struct Root<'a> {
    part: Part,
    repeats: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = (Document, Option<Value>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = (Document, Option<Value>);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut document = Document::default();
        let mut value = None;
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "apiVersion" => document.api_version = map.next_value()?,
                "kind" => document.kind = map.next_value()?,
                "metadata" => map.next_value_seed(Metadata { root: self, document: &mut document })?,
                name if name == self.part.name() => value = Some(map.next_value_seed(Reader::new(self.repeats))?),
                "spec" if self.part == Part::Status => {
                    document.spec = Some(map.next_value_seed(Reader::new(self.repeats))?);
                }
                "spec" | "status" => map.next_value_seed(Skipped { repeats: self.repeats })?,
                _ => {
                    document.has_other_fields = true;
                    map.next_value_seed(Skipped { repeats: self.repeats })?;
                }
            }
            names.0.push(name);
        }
        if names.repeat() {
            self.repeats.set(true);
        }
        Ok((document, value))
    }
}

struct Metadata<'a, 'b> {
    root: Root<'a>,
    document: &'b mut Document,
}

impl<'de> DeserializeSeed<'de> for Metadata<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let repeats = self.root.repeats;
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "managedFields" if self.root.part == Part::Status => map.next_value_seed(SkippedList { repeats })?,
                "managedFields" => {
                    let mut json = Vec::new();
                    map.next_value_seed(Copied { repeats, json: &mut json })?;
                    self.document.managed_fields = Some(json);
                }
                "resourceVersion" => self.document.resource_version = map.next_value()?,
                name => {
                    let value = map.next_value_seed(Reader::new(repeats))?;
                    self.document.metadata.insert(name.to_owned(), value);
                }
            }
            names.0.push(name);
        }
        if names.repeat() {
            repeats.set(true);
        }
        Ok(())
    }
}

/// A value that nobody looks at, except for fields that it names twice.
#[derive(Clone, Copy)]
struct Skipped<'a> {
    repeats: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Skipped<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skipped<'_> {
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
        while sequence.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(Name(name)) = map.next_key()? {
            names.0.push(name);
            map.next_value_seed(self)?;
        }
        if names.repeat() {
            self.repeats.set(true);
        }
        Ok(())
    }
}

/// A list that nobody looks at.
struct SkippedList<'a> {
    repeats: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for SkippedList<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(Skipped { repeats: self.repeats })
    }
}

/// Objects and lists of texts, copied as JSON without spaces.
struct Copied<'a, 'b> {
    repeats: &'a Cell<bool>,
    json: &'b mut Vec<u8>,
}

impl Copied<'_, '_> {
    fn text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        serde_json::to_writer(&mut *self.json, text).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copied<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copied<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("objects, lists and texts")
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Self { repeats, json } = self;
        json.push(b'[');
        let start = json.len();
        loop {
            let is_first = json.len() == start;
            if !is_first {
                json.push(b',');
            }
            if sequence.next_element_seed(Copied { repeats, json: &mut *json })?.is_none() {
                if !is_first {
                    json.pop();
                }
                break;
            }
        }
        json.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { repeats, json } = self;
        let mut names = Names::default();
        let mut separator = b'{';
        while let Some(Name(name)) = map.next_key()? {
            json.push(separator);
            separator = b',';
            Copied { repeats, json: &mut *json }.text(&name)?;
            json.push(b':');
            map.next_value_seed(Copied { repeats, json: &mut *json })?;
            names.0.push(name);
        }
        if separator == b'{' {
            json.push(separator);
        }
        json.push(b'}');
        if names.repeat() {
            repeats.set(true);
        }
        Ok(())
    }
}
