//! Values of a template.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(Text),
    Number(i64),
    Bool(bool),
    Map(BTreeMap<String, String>),
}

/// A text in pieces, because what a tenant wrote is escaped when it becomes part of a query, and not before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text(pub(super) Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// From the template or from names, which are harmless.
    Plain(String),
    /// From `templateVariables`.
    Variable(String),
}

impl Text {
    pub(super) fn plain(text: impl Into<String>) -> Text {
        Text(vec![Piece::Plain(text.into())])
    }

    /// Appends a text. Empty pieces are dropped and neighbours joined, so that the size of a text is its length.
    pub(super) fn append(&mut self, other: &Text) {
        for piece in &other.0 {
            match (self.0.last_mut(), piece) {
                (_, Piece::Plain(text) | Piece::Variable(text)) if text.is_empty() => {}
                (Some(Piece::Plain(last)), Piece::Plain(text))
                | (Some(Piece::Variable(last)), Piece::Variable(text)) => {
                    last.push_str(text);
                }
                (_, piece) => self.0.push(piece.clone()),
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(Piece::Plain(text) | Piece::Variable(text))| text.len()).sum()
    }

    /// Whether a part of it is from `templateVariables`.
    pub(super) fn has_variable(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable(_)))
    }

    /// As it was written, without escapes.
    pub(super) fn raw(&self) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Plain(text) | Piece::Variable(text) => text.as_str(),
            })
            .collect()
    }
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            Value::Map(_) => "map",
        }
    }

    /// Go's truth: what is not empty is true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Text(text) => !text.raw().is_empty(),
            Value::Number(number) => *number != 0,
            Value::Bool(value) => *value,
            Value::Map(map) => !map.is_empty(),
        }
    }

    /// As Go prints it.
    pub(super) fn printed(&self) -> Text {
        match self {
            Value::Text(text) => text.clone(),
            Value::Number(number) => Text::plain(number.to_string()),
            Value::Bool(value) => Text::plain(value.to_string()),
            Value::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                Text(vec![Piece::Variable(format!("map[{}]", entries.join(" ")))])
            }
        }
    }

    /// Equal texts are equal whoever wrote them.
    pub(super) fn equals(&self, other: &Value) -> Option<bool> {
        match (self, other) {
            (Value::Text(left), Value::Text(right)) => Some(left.raw() == right.raw()),
            (Value::Number(left), Value::Number(right)) => Some(left == right),
            (Value::Bool(left), Value::Bool(right)) => Some(left == right),
            _ => None,
        }
    }
}

/// Query text in the making. Knows whether it is between quotes.
#[derive(Debug, Default)]
pub(super) struct Output {
    text: String,
    /// Where `#` begins a comment, as in PromQL.
    with_comments: Quotes,
    /// Where it does not, as in other languages: which one this is, is not known here.
    without_comments: Quotes,
}

/// What of a query so far is open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Quotes {
    open: Option<char>,
    is_escaped: bool,
}

impl Quotes {
    fn see(&mut self, character: char, has_comments: bool) {
        const COMMENT: char = '#';
        match self.open {
            Some(COMMENT) if matches!(character, '\n' | '\r') => self.open = None,
            Some(COMMENT) => {}
            Some(_) if self.is_escaped => self.is_escaped = false,
            Some('"' | '\'') if character == '\\' => self.is_escaped = true,
            Some(quote) if character == quote => self.open = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'' | '`') => self.open = Some(character),
            None if character == COMMENT && has_comments => self.open = Some(COMMENT),
            None => {}
        }
    }

    fn is_comment(self) -> bool {
        self.open == Some('#')
    }
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Writes a text. Fails for a variable that cannot be put where it stands.
    pub(super) fn write(&mut self, text: &Text) -> Result<(), String> {
        for piece in &text.0 {
            match piece {
                Piece::Plain(text) => self.write_plain(text),
                Piece::Variable(text) => self.write_variable(text)?,
            }
        }
        Ok(())
    }

    fn write_variable(&mut self, text: &str) -> Result<(), String> {
        let (with, without) = (self.with_comments, self.without_comments);
        match without.open {
            None if with.open.is_none() || with.is_comment() => self.write_plain(text),
            Some(quote) if with == without => self.write_quoted(text, quote)?,
            _ if !text.contains(['"', '\'', '`', '\\', '#', '\n', '\r']) => self.write_plain(text),
            _ => {
                return Err("a quote in a comment before it leaves open whether this variable stands between quotes; \
                            pair the quote, or leave the comment out"
                    .into());
            }
        }
        Ok(())
    }

    fn write_plain(&mut self, text: &str) {
        for character in text.chars() {
            self.text.push(character);
            self.with_comments.see(character, true);
            self.without_comments.see(character, false);
        }
    }

    /// Puts a variable between quotes so that it stays there.
    fn write_quoted(&mut self, text: &str, quote: char) -> Result<(), String> {
        if quote == '`' {
            if text.contains('`') {
                return Err("a variable between ` contains a `, which cannot be escaped".into());
            }
            self.text.push_str(text);
            return Ok(());
        }
        let mut is_escaped = self.without_comments.is_escaped;
        for character in text.chars() {
            let was_escaped = std::mem::take(&mut is_escaped);
            match character {
                '\n' | '\r' => {
                    if was_escaped {
                        // The backslash before it was no escape, then.
                        self.text.push('\\');
                    }
                    self.text.push_str(if character == '\n' { "\\n" } else { "\\r" });
                }
                '\\' if !was_escaped => {
                    is_escaped = true;
                    self.text.push('\\');
                }
                character if character == quote && !was_escaped => {
                    self.text.push('\\');
                    self.text.push(character);
                }
                character => self.text.push(character),
            }
        }
        if is_escaped {
            self.text.push('\\');
        }
        self.with_comments.is_escaped = false;
        self.without_comments.is_escaped = false;
        Ok(())
    }
}
