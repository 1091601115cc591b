//! Where one document ends and the next begins, by kubectl's rules: at lines that begin with `---`, and after each of
//! several JSON objects.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use super::{Node, Place, YamlError, tree};

/// A part of a text that is a document, nearly always.
pub(super) struct Part<'t> {
    text: &'t str,
    /// Where it begins.
    place: Place,
}

/// The parts of a text.
pub(super) fn split(text: &str) -> Vec<Result<Part<'_>, YamlError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut begin, mut first_line, mut at) = (0, 1, 0);
    let add = |parts: &mut Vec<_>, text, line| {
        let part = Part { text, place: Place { line, column: 1 } };
        if !part.is_empty() {
            parts.extend(part.json_objects().into_iter().map(Ok));
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let end = at;
        at += line.len();
        let Some(rest) = line.strip_prefix("---") else { continue };
        add(&mut parts, text.get(begin..end).unwrap_or_default(), first_line);
        (begin, first_line) = (at, number + 1);
        let rest = rest.trim();
        if !rest.is_empty() && !rest.starts_with('#') {
            let message = format!("nothing but a comment may follow '---' on its line, not {rest:?}");
            parts.push(Err(YamlError { place: Place { line: number, column: 4 }, message }));
        }
    }
    add(&mut parts, text.get(begin..).unwrap_or_default(), first_line);
    parts
}

impl<'t> Part<'t> {
    /// Whether it says nothing: comments, and directives for the document after it.
    fn is_empty(&self) -> bool {
        self.text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']))
    }

    /// The objects of a text that is several in JSON, as `jq` prints them; or the part itself.
    fn json_objects(self) -> Vec<Part<'t>> {
        if !self.text.trim_start().starts_with('{') {
            return vec![self];
        }
        let mut objects = Deserializer::from_str(self.text).into_iter::<IgnoredAny>();
        let (mut parts, mut begin) = (Vec::new(), 0);
        loop {
            let next = objects.next();
            let end = if matches!(next, Some(Ok(_))) { objects.byte_offset() } else { self.text.len() };
            let text = self.text.get(begin..end).unwrap_or_default();
            if !text.trim().is_empty() {
                let begin = begin + (text.len() - text.trim_start().len());
                parts.push(Part { text: text.trim_start(), place: self.place_at(begin) });
            }
            begin = end;
            if !matches!(next, Some(Ok(_))) {
                break;
            }
        }
        // What is JSON only at its beginning is YAML, as `{}: {}` is.
        let is_json = parts.len() > 1 && parts.iter().all(|part| part.text.starts_with('{'));
        if is_json { parts } else { vec![self] }
    }

    fn place_at(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() as u64;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64;
        Place { line: self.place.line + line, column: if line == 0 { self.place.column + column } else { column + 1 } }
    }

    /// Reads it: one document, unless `...` ends one in between.
    pub(super) fn read(&self, duplicates: &mut Vec<YamlError>) -> Result<Vec<Node>, YamlError> {
        let read = tree::read(self.text, self.place, duplicates);
        if read.is_err() && self.text.trim_start().starts_with('{') {
            // A little of JSON is no YAML: pairs of surrogates, and keys of more than a thousand letters.
            if let Ok(value) = serde_json::from_str::<Value>(self.text) {
                return Ok(vec![Node::of_value(value, self.place)]);
            }
        }
        read
    }
}
