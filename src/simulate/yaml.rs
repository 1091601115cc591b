//! YAML documents whose values know where they stand, so that what is wrong with one can be said with its line.
//!
//! What kubectl reads is read here, and means the same: the parser is a port of the one that kubectl's is a port of
//! (libyaml), plain texts are resolved as YAML 1.1 has it, and documents are told apart before they are parsed, so that one
//! that is no YAML does not hide the others.

mod documents;
mod explain;
mod scalars;
mod tree;

use std::fmt;

use serde_json::{Map, Value};
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

/// A text is not YAML, or says something that is better not meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    /// Where.
    pub(crate) place: Place,
    /// What is wrong, in one line.
    pub(crate) message: String,
}

/// What a text holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    /// Those that can be read; empty ones are left out.
    pub(crate) documents: Vec<Node>,
    /// One for each document that is not YAML.
    pub(crate) errors: Vec<YamlError>,
    /// Keys that are there twice. The last one counts, as with kubectl, which says nothing.
    pub(crate) duplicates: Vec<YamlError>,
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

/// The documents of a text.
pub(crate) fn parse(text: &str) -> Documents {
    let mut found = Documents::default();
    for part in documents::split(text) {
        match part.and_then(|part| part.read(&mut found.duplicates)) {
            Ok(documents) => found.documents.extend(documents.into_iter().filter(|document| !document.is_null())),
            Err(error) => found.errors.push(error),
        }
    }
    found
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

    /// A value, all of which stands in one place.
    fn of_value(value: Value, place: Place) -> Node {
        let content = match value {
            Value::Array(items) => Content::List(items.into_iter().map(|item| Node::of_value(item, place)).collect()),
            Value::Object(entries) => {
                let entry = |(text, value)| (Key { place, text }, Node::of_value(value, place));
                Content::Map(entries.into_iter().map(entry).collect())
            }
            scalar => Content::Scalar(scalar),
        };
        Node { place, content }
    }

    fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(Value::Null))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Node {
        let mut found = parse(text);
        assert_eq!((found.documents.len(), &found.errors[..]), (1, &[][..]), "{text:?}");
        found.documents.remove(0)
    }

    fn value(text: &str) -> Value {
        one(text).to_value()
    }

    fn errors(text: &str) -> Vec<String> {
        parse(text).errors.iter().map(|error| format!("{}: {}", error.place, error.message)).collect()
    }

    #[test]
    fn values_are_read() {
        let text = "a: &x {b: [1, 2.5, yes, 'yes', ~]}\nc: *x\nd: |\n  e\n  f\ng: 0x10\nh: 2024-01-01\n";
        let inner = json!({"b": [1, 2.5, true, "yes", null]});
        assert_eq!(value(text), json!({"a": inner, "c": inner, "d": "e\nf\n", "g": 16, "h": "2024-01-01"}));
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
        let found = parse("# nothing\n---\na: 1\n--- # two\n---  \nb: 2\n...\n---\r\n~\n---\n").documents;
        let lines: Vec<u64> = found.iter().map(|document| document.place.line).collect();
        assert_eq!(lines, [3, 6]);
        assert_eq!(value("%YAML 1.2\n---\na: 1\n"), json!({"a": 1}));
    }

    /// What serde-saphyr refuses and kubectl reads.
    #[test]
    fn a_quoted_text_may_go_on_at_the_column_of_its_key() {
        let text = "a:\n  description: \"first\n  second: part\"\n  type: string\n";
        assert_eq!(value(text), json!({"a": {"description": "first second: part", "type": "string"}}));
    }

    #[test]
    fn json_is_read_however_it_is_written() {
        let node = one("{\n\t\"a\": {\"b\":[1.0,\"\\/\"]},\r\n\t\"c\": \"\\ud83d\\ude00\"\n}\n");
        assert_eq!(node.to_value()["c"], "\u{1f600}");
        assert_eq!(node.to_value()["a"]["b"][1], "/");
        assert_eq!(one("{\"a\":\n {\"b\":1}}").place_of("a.b").to_string(), "2:3");
        let found = parse("{\"a\": 1}\n{\"a\": 2}{\"a\":\n3}\n");
        let places: Vec<String> = found.documents.iter().map(|document| document.place.to_string()).collect();
        assert_eq!(places, ["1:1", "2:1", "2:9"]);
        assert_eq!(found.documents[2].to_value(), json!({"a": 3}));
        assert_eq!(
            errors("{\"a\": 1}\n{\"a\": \n"),
            ["2:5: the document ends before this is complete: a bracket or brace is not closed"]
        );
    }

    #[test]
    fn aliases_and_merges_are_opened() {
        let text =
            "base: &base {a: 1, b: 1}\nmore: &more {c: 1, b: 2}\nx:\n  <<: *base\n  b: 3\nz:\n  <<: [*base, *more]\n";
        let value = value(text);
        assert_eq!(value["x"], json!({"a": 1, "b": 3}));
        assert_eq!(value["z"], json!({"a": 1, "b": 1, "c": 1}));
        assert_eq!(errors("a: *b\n"), ["1:4: there is no anchor &b before this"]);
        assert_eq!(errors("a: &b [*b]\n").len(), 1);
        assert_eq!(errors("a: 1\n<<: 5\n"), ["2:1: << merges an object, or a list of objects"]);
        // Each anchor holds ten times the one before.
        let laughs: String = (1..20).fold("a0: &a0 [lol]\n".to_owned(), |text, level| {
            let below = format!("*a{},", level - 1).repeat(10);
            format!("{text}a{level}: &a{level} [{below}]\n")
        });
        assert!(errors(&laughs)[0].contains("aliases"), "{:?}", errors(&laughs));
    }

    #[test]
    fn a_key_that_is_there_twice_counts_as_the_last_says() {
        let found = parse("a: 1\nb: {c: 1, d: 1, c: 2}\na: 2\n");
        assert_eq!(found.documents[0].to_value(), json!({"a": 2, "b": {"c": 2, "d": 1}}));
        let told: Vec<String> = found.duplicates.iter().map(|key| format!("{} {}", key.place, key.message)).collect();
        assert_eq!(told, ["2:17 the key \"c\" is there twice", "3:1 the key \"a\" is there twice"]);
    }

    #[test]
    fn every_document_that_is_no_yaml_is_told_and_the_others_are_read() {
        let found = parse("a: [\n---\nb: 2\n---\nc: 'x\n---\nd: 4\n--- e: 5\n");
        let values: Vec<Value> = found.documents.iter().map(Node::to_value).collect();
        assert_eq!(values, [json!({"b": 2}), json!({"d": 4})]);
        let lines: Vec<u64> = found.errors.iter().map(|error| error.place.line).collect();
        assert_eq!(lines, [1, 5, 8]);
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(value("\u{feff}a: 1\r\nb:\r\n  - c\r\n"), json!({"a": 1, "b": ["c"]}));
        assert_eq!(one("\u{feff}{\"a\":1}").place_of("a").to_string(), "1:2");
    }

    #[test]
    fn depth_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(errors(&nested(100)).is_empty());
        assert!(errors(&nested(100_000))[0].contains("deeper than"), "no overflow of the stack");
    }

    #[test]
    fn aliases_of_aliases_have_a_depth_too() {
        let chain = |anchors: usize, levels: usize| {
            let level = |inside: &str| format!("{}{inside}{}", "[".repeat(levels), "]".repeat(levels));
            (1..anchors).fold(format!("a0: &a0 {}\n", level("x")), |text, index| {
                format!("{text}a{index}: &a{index} {}\n", level(&format!("*a{}", index - 1)))
            })
        };
        assert!(errors(&chain(2, 50)).is_empty());
        let found = errors(&chain(75, 110));
        assert!(found[0].starts_with("2:") && found[0].contains("deeper than"), "{found:?}");
        let merged = format!(
            "a: &a {}\nb: {}\n",
            "{x: ".repeat(100) + "1" + &"}".repeat(100),
            "{y: ".repeat(30) + "{<<: *a}" + &"}".repeat(30)
        );
        assert!(errors(&merged)[0].contains("deeper than"), "a merge is an alias, too");
    }
}
