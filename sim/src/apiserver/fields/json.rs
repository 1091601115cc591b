//! FieldsV1: the JSON form of a [`Set`].

use serde_json::Value;

use super::element::{ElementError, PathElement};
use super::set::{Node, Set};

/// Why a FieldsV1 is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FieldsError {
    #[error("failed to read a path element")]
    Element(#[from] ElementError),
    #[error("fields are not a JSON object")]
    NotAnObject,
}

/// The canonical text: elements sorted, `.` first.
pub(crate) fn print(set: &Set) -> String {
    // A path element has some twenty characters.
    let mut text = String::with_capacity(24 * set.len() + 2);
    text.push('{');
    print_nodes(set, &mut text);
    text.push('}');
    text
}

fn print_nodes(set: &Set, text: &mut String) {
    for (index, node) in set.nodes().iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        print_key(&node.element, text);
        text.push_str(":{");
        if !node.children.is_empty() {
            if node.is_member {
                text.push_str("\".\":{},");
            }
            print_nodes(&node.children, text);
        }
        text.push('}');
    }
}

pub(super) fn print_key(element: &PathElement, text: &mut String) {
    match element {
        PathElement::Field(name) => print_field_key(name, text),
        element => text.push_str(&Value::from(element.serialised()).to_string()),
    }
}

pub(super) fn print_field_key(name: &str, text: &mut String) {
    if name.bytes().all(is_plain) {
        text.push_str("\"f:");
        text.push_str(name);
        text.push('"');
        return;
    }
    text.push_str(&Value::from(PathElement::field(name).serialised()).to_string());
}

/// Whether a byte stands for itself in a JSON text.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Reads a FieldsV1. Elements of unknown kinds are dropped.
pub(crate) fn from_value(fields: &Value) -> Result<Set, FieldsError> {
    let fields = fields.as_object().ok_or(FieldsError::NotAnObject)?;
    let mut nodes = Vec::with_capacity(fields.len());
    for (key, below) in fields {
        if key == "." {
            continue;
        }
        let Some(element) = PathElement::parse(key)? else {
            continue;
        };
        let children = from_value(below)?;
        // A path with nothing below it is a member; one with something below says so.
        let is_member = children.is_empty() || below.get(".").is_some();
        nodes.push(Node { element, is_member, children });
    }
    Ok(nodes.into_iter().collect())
}

/// Reads canonical FieldsV1 from its text. `None` for a text of another form.
pub(crate) fn parse(text: &str) -> Option<Set> {
    from_value(&serde_json::from_str(text).ok()?).ok()
}

/// How many paths of a set are in canonical FieldsV1, without decoding it: most writes touch one or two fields, and a look at
/// the text costs less than a tree of it. `None` when the text is not canonical.
pub(crate) fn count_common(text: &str, set: &Set) -> Option<usize> {
    let mut scanner = Scanner { bytes: text.as_bytes(), position: 0 };
    scanner.count_object(set).map(|counted| counted.common)
}

/// The length of the object that JSON begins with.
pub(crate) fn object_length(json: &[u8]) -> Option<usize> {
    let mut scanner = Scanner { bytes: json, position: 0 };
    scanner.skip_object()?;
    Some(scanner.position)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    position: usize,
}

#[derive(Default)]
struct Counted {
    common: usize,
    /// Whether the object had keys of its own.
    has_children: bool,
    has_dot: bool,
}

impl<'a> Scanner<'a> {
    fn take(&mut self, wanted: u8) -> Option<()> {
        (*self.bytes.get(self.position)? == wanted).then(|| self.position += 1)
    }

    fn count_object(&mut self, set: &Set) -> Option<Counted> {
        let mut counted = Counted::default();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(counted);
        }
        loop {
            let key = self.key()?;
            self.take(b':')?;
            if key == b"." {
                counted.has_dot = true;
                self.skip_object()?;
            } else {
                counted.has_children = true;
                match find(set, key)? {
                    None => self.skip_object()?,
                    Some(node) => {
                        let below = self.count_object(&node.children)?;
                        let is_member = !below.has_children || below.has_dot;
                        counted.common += below.common + usize::from(is_member && node.is_member);
                    }
                }
            }
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(counted);
            }
        }
    }

    /// A key between its quotes, still escaped.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.position;
        loop {
            match self.bytes.get(self.position)? {
                b'"' => break,
                b'\\' => self.position += 2,
                _ => self.position += 1,
            }
        }
        let key = &self.bytes[start..self.position];
        self.position += 1;
        Some(key)
    }

    fn skip_object(&mut self) -> Option<()> {
        self.take(b'{')?;
        let mut depth = 1_usize;
        while depth > 0 {
            match self.bytes.get(self.position)? {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'"' => {
                    self.key()?;
                    continue;
                }
                _ => {}
            }
            self.position += 1;
        }
        Some(())
    }
}

/// The node of a key of FieldsV1. The outer `None` means that the key is not readable.
fn find<'a>(set: &'a Set, key: &[u8]) -> Option<Option<&'a Node>> {
    if let Some(name) = key.strip_prefix(b"f:")
        && !name.contains(&b'\\')
    {
        let is_it = |node: &&Node| matches!(&node.element, PathElement::Field(field) if field.as_bytes() == name);
        return Some(set.nodes().iter().find(is_it));
    }
    if set.is_empty() {
        return Some(None);
    }
    let text: String = serde_json::from_str(&format!("\"{}\"", std::str::from_utf8(key).ok()?)).ok()?;
    let element = PathElement::parse(&text).ok()??;
    Some(set.node(&element))
}
