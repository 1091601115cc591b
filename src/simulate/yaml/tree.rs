//! From the parser's events to values with their places.

use std::collections::HashMap;

use libyaml_safer::{Event, EventData, Mark, Parser, ScalarStyle};

use super::{Content, Key, Node, Place, YamlError, explain, scalars};

/// Objects of Kubernetes are about thirty deep at most; decoding what is deeper than this is refused later, by `serde_json`.
const DEEPEST: usize = 120;
/// Values that aliases may stand for, all in all: the same as go-yaml's bound for a document of usual size, and some hundred
/// times what the largest known manifests have.
const MOST_ALIASED: usize = 400_000;

/// Reads the documents of a part that begins in a place.
pub(super) fn read(text: &str, begin: Place, duplicates: &mut Vec<YamlError>) -> Result<Vec<Node>, YamlError> {
    let mut reader = Reader { text, begin, parser: Parser::new(), anchors: HashMap::new(), aliased: 0, duplicates };
    let mut input = text.as_bytes();
    reader.parser.set_input_string(&mut input);
    let mut documents = Vec::new();
    loop {
        let event = reader.next()?;
        match event.data {
            EventData::StreamEnd => return Ok(documents),
            EventData::DocumentStart { .. } => {
                // Anchors are a document's own.
                reader.anchors.clear();
                let event = reader.next()?;
                documents.push(reader.node(event, 0)?.0);
            }
            _ => {}
        }
    }
}

/// How large a value is.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Values that it holds, itself included.
    size: usize,
    /// Levels below it.
    height: usize,
}

impl Extent {
    const SCALAR: Extent = Extent { size: 1, height: 0 };

    /// Adds a value one level below.
    fn add(&mut self, inside: Extent) {
        self.size += inside.size;
        self.height = self.height.max(inside.height + 1);
    }
}

const KEY: &str = "a key is a text, not a list or an object";

struct Reader<'p, 't> {
    text: &'t str,
    begin: Place,
    parser: Parser<&'p mut &'t [u8]>,
    /// Values that have a name, and how large each is.
    anchors: HashMap<String, (Node, Extent)>,
    aliased: usize,
    duplicates: &'p mut Vec<YamlError>,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Result<Event, YamlError> {
        self.parser.parse().map_err(|error| {
            let mark = error.problem_mark().or(error.context_mark()).unwrap_or_default();
            let context = error.context_mark();
            let opened = context.map(|mark| self.place(mark).line);
            let lines = || self.text.trim_end().lines();
            let is_at_end = usize::try_from(mark.line).is_ok_and(|line| line >= lines().count());
            let line = usize::try_from(mark.line).ok().and_then(|line| lines().nth(line)).unwrap_or_default();
            let place = match context {
                // What is not closed is wrong where it was opened, not where the text ends.
                Some(context) if is_at_end && context.line < mark.line => self.place(context),
                _ if is_at_end => self.place_of_end(),
                _ => self.place(mark),
            };
            YamlError { place, message: explain::explain(error.problem(), error.context(), opened, line, is_at_end) }
        })
    }

    /// The last letter of the text.
    fn place_of_end(&self) -> Place {
        let text = self.text.trim_end();
        let before = text.matches('\n').count() as u64;
        let column = text.lines().next_back().map_or(0, |line| line.chars().count()) as u64;
        Place {
            line: self.begin.line + before,
            column: if before == 0 { self.begin.column + column.saturating_sub(1) } else { column.max(1) },
        }
    }

    fn place(&self, mark: Mark) -> Place {
        let column = mark.column + 1;
        Place {
            line: self.begin.line + mark.line,
            column: if mark.line == 0 { self.begin.column + column - 1 } else { column },
        }
    }

    /// The value that an event begins, and how large it is.
    fn node(&mut self, event: Event, depth: usize) -> Result<(Node, Extent), YamlError> {
        let place = self.place(event.start_mark);
        let failed = |message: String| YamlError { place, message };
        let too_deep = || failed(format!("it is nested deeper than {DEEPEST} levels"));
        if depth > DEEPEST {
            return Err(too_deep());
        }
        let (anchor, content, extent) = match event.data {
            EventData::Alias { anchor } => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, extent) =
                    known.ok_or_else(|| failed(format!("there is no anchor &{anchor} before this")))?;
                // Anchors that hold aliases of one another are deep without a deep text.
                if depth + extent.height > DEEPEST {
                    return Err(too_deep());
                }
                self.aliased += extent.size;
                if self.aliased > MOST_ALIASED {
                    return Err(failed(format!("aliases stand for more than {MOST_ALIASED} values")));
                }
                return Ok((Node { place, content: node.content }, extent));
            }
            EventData::Scalar { anchor, tag, value, style, .. } => {
                let is_plain = style == ScalarStyle::Plain;
                let value = scalars::resolve(&value, tag.as_deref(), is_plain).map_err(failed)?;
                (anchor, Content::Scalar(value), Extent::SCALAR)
            }
            EventData::SequenceStart { anchor, .. } => {
                let (mut items, mut extent) = (Vec::new(), Extent::SCALAR);
                loop {
                    let event = self.next()?;
                    if event.data == EventData::SequenceEnd {
                        break;
                    }
                    let (item, inside) = self.node(event, depth + 1)?;
                    items.push(item);
                    extent.add(inside);
                }
                (anchor, Content::List(items), extent)
            }
            EventData::MappingStart { anchor, .. } => {
                let (entries, extent) = self.entries(depth)?;
                (anchor, Content::Map(entries), extent)
            }
            _ => return Err(failed("the document ends too early".to_owned())),
        };
        let node = Node { place, content };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        Ok((node, extent))
    }

    fn entries(&mut self, depth: usize) -> Result<(Vec<(Key, Node)>, Extent), YamlError> {
        let mut entries = Entries::default();
        let mut extent = Extent::SCALAR;
        loop {
            let event = self.next()?;
            if event.data == EventData::MappingEnd {
                return Ok((entries.list, extent));
            }
            let (key, is_merge) = self.key(event)?;
            let event = self.next()?;
            let (value, inside) = self.node(event, depth + 1)?;
            extent.add(inside);
            if is_merge {
                let failed =
                    || YamlError { place: key.place, message: "<< merges an object, or a list of objects".to_owned() };
                merge(&mut entries, value).ok_or_else(failed)?;
                continue;
            }
            let place = key.place;
            let message = format!("the key {:?} is there twice", key.text);
            if entries.set(key, value, false) {
                self.duplicates.push(YamlError { place, message });
            }
        }
    }

    /// A key, and whether it is `<<`.
    fn key(&mut self, event: Event) -> Result<(Key, bool), YamlError> {
        let place = self.place(event.start_mark);
        let failed = |message: String| YamlError { place, message };
        let EventData::Scalar { anchor, tag, value, style, .. } = event.data else {
            let EventData::Alias { anchor } = event.data else {
                let line = usize::try_from(event.start_mark.line).ok().and_then(|line| self.text.lines().nth(line));
                return Err(failed(explain::with_hint(KEY.to_owned(), line.unwrap_or_default())));
            };
            return match self.anchors.get(&anchor) {
                Some((Node { content: Content::Scalar(value), .. }, _)) => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    Ok((Key { place, text }, false))
                }
                Some(_) => Err(failed(KEY.to_owned())),
                None => Err(failed(format!("there is no anchor &{anchor} before this"))),
            };
        };
        let is_plain = style == ScalarStyle::Plain;
        let resolved = scalars::resolve(&value, tag.as_deref(), is_plain).map_err(failed)?;
        if let Some(anchor) = anchor {
            let node = Node { place, content: Content::Scalar(resolved.clone()) };
            self.anchors.insert(anchor, (node, Extent::SCALAR));
        }
        let is_merge = is_plain && value == "<<";
        let text = scalars::key(&value, resolved).map_err(failed)?;
        Ok((Key { place, text }, is_merge))
    }
}

/// Entries in the order in which they were first set.
#[derive(Default)]
struct Entries {
    list: Vec<(Key, Node)>,
    /// Positions, and whether the entry comes from a merge. Objects with ten thousand entries exist.
    by_text: HashMap<String, (usize, bool)>,
}

impl Entries {
    /// Sets an entry; returns whether it was written out before.
    fn set(&mut self, key: Key, value: Node, is_merged: bool) -> bool {
        let next = self.list.len();
        let (position, was_merged) = *self.by_text.entry(key.text.clone()).or_insert((next, is_merged));
        if let Some(entry) = self.list.get_mut(position) {
            *entry = (key.clone(), value);
            self.by_text.insert(key.text, (position, is_merged));
            return !was_merged && !is_merged;
        }
        self.list.push((key, value));
        false
    }
}

/// Merges a value into what is there, as go-yaml does: of a list the first ones win, and everything wins over what was
/// written above. `None` if it is not an object or a list of objects.
fn merge(entries: &mut Entries, value: Node) -> Option<()> {
    match value.content {
        Content::Scalar(_) => None,
        Content::Map(merged) => {
            for (key, value) in merged {
                entries.set(key, value, true);
            }
            Some(())
        }
        Content::List(items) => items.into_iter().rev().try_for_each(|item| match item.content {
            Content::Map(_) => merge(entries, item),
            Content::Scalar(_) | Content::List(_) => None,
        }),
    }
}
