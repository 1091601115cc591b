//! YAML documents whose values know where they stand, so that what is wrong with one can be said with its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use thiserror::Error;

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// A text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    /// Where, if the parser says it.
    pub(crate) place: Option<Place>,
    /// What is wrong, in one line.
    pub(crate) message: String,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Null, a boolean, a number or a text.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// The documents of a text; empty ones are left out.
///
/// # Errors
/// Where the text is not YAML.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    serde_saphyr::from_multiple::<Node>(text).map_err(|error| {
        let place = error.location().map(|location| Place { line: location.line(), column: location.column() });
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default();
        // The place is told apart from the message.
        let message = message.split(" at line ").next().unwrap_or(message);
        YamlError { place, message: message.to_owned() }
    })
}

impl Node {
    /// The value without places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Content::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.text.clone(), node.to_value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// The entry of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// The text of an entry of a map.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none in anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            Content::Scalar(_) | Content::Map(_) => &[],
        }
    }

    /// Where a field stands, given by its path (`spec.analysis.metrics[0].name`): its key, or else the place of the
    /// deepest field above it that exists.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let (mut node, mut place) = (self, self.place);
        let mut rest = path;
        loop {
            let entry = match &node.content {
                Content::List(items) => rest.strip_prefix('[').and_then(|rest| {
                    let (index, rest) = rest.split_once(']')?;
                    let item = items.get(index.parse::<usize>().ok()?)?;
                    Some((item.place, item, rest))
                }),
                // Keys may have dots of their own, as tags do.
                Content::Map(entries) => entries.iter().find_map(|(key, node)| {
                    let rest = rest.strip_prefix(&key.text)?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((key.place, node, rest))
                }),
                Content::Scalar(_) => None,
            };
            let Some((found, next, remaining)) = entry else { return place };
            (node, place, rest) = (next, found, remaining.trim_start_matches('.'));
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Node { place: Place { line: referenced.line(), column: referenced.column() }, content: value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Key { place: Place { line: referenced.line(), column: referenced.column() }, text: value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Content, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Content::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut map: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = entries.next_key::<Key>()? {
            let node = entries.next_value()?;
            if map.iter().any(|(existing, _)| existing.text == key.text) {
                return Err(A::Error::custom(format!("duplicate key {}", key.text)));
            }
            map.push((key, node));
        }
        Ok(Content::Map(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Node {
        let mut documents = parse(text).unwrap();
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    #[test]
    fn values_are_those_that_the_library_reads() {
        let text = "a: &x {b: [1, 2.5, yes, 'yes', ~]}\nc: *x\nd: |\n  e\n  f\ng: 0x10\nh: 2024-01-01\n";
        let expected: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(one(text).to_value(), expected);
        assert_eq!(expected["c"]["b"][1], json!(2.5));
    }

    #[test]
    fn fields_know_their_lines() {
        let node = one("spec:\n  metrics:\n    - name: a\n      max: 1\n    - name: b\n");
        let place = |path: &str| node.place_of(path).to_string();
        assert_eq!(place("spec.metrics[0].max"), "4:7");
        assert_eq!(place("spec.metrics[1]"), "5:7");
        assert_eq!(place("spec.metrics[1].missing"), "5:7");
        assert_eq!(place("spec.metrics[7].name"), "2:3");
        assert_eq!(place("status"), "1:1");
        assert_eq!(one("versions:\n  6.0.1:\n    pods: x\n").place_of("versions.6.0.1.pods").to_string(), "3:5");
    }

    #[test]
    fn empty_documents_are_none_and_later_ones_know_their_lines() {
        let documents = parse("# nothing\n---\na: 1\n---\n---\nb: 2\n").unwrap();
        let lines: Vec<u64> = documents.iter().map(|document| document.place.line).collect();
        assert_eq!(lines, [3, 6]);
    }

    #[test]
    fn errors_say_where() {
        for (text, line) in [("a: 1\nb: [\n", 2), ("a: 1\nb: *c\n", 2), ("a: 1\nc: 2\na: 2\n", 3)] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.place.map(|place| place.line), Some(line), "{text:?}: {error:?}");
            assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
        }
    }
}
