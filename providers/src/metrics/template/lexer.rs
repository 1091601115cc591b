//! Cuts a template into text and tokens.

use super::{Position, TemplateError};

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) position: Position,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A function or keyword.
    Word(String),
    /// `.name`
    Field(String),
    /// `$name`, or `$` alone.
    Variable(String),
    /// A quoted text, unquoted.
    String(String),
    /// A whole number.
    Number(i64),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `|`
    Pipe,
    /// `(`
    LeftParenthesis,
    /// `)`
    RightParenthesis,
}

pub(super) fn tokenize(template: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { rest: template, position: Position { line: 1, column: 1 }, tokens: Vec::new() };
    lexer.text()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    position: Position,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn text(&mut self) -> Result<(), TemplateError> {
        let mut trim_left = false;
        loop {
            let position = self.position;
            let end = self.rest.find("{{").unwrap_or(self.rest.len());
            let mut text = &self.rest[..end];
            let after = &self.rest[end..];
            let trim_right = after.strip_prefix("{{-").is_some_and(starts_with_space);
            if trim_left {
                text = text.trim_start();
            }
            if trim_right {
                text = text.trim_end();
            }
            if !text.is_empty() {
                let kind = Kind::Text(text.to_owned());
                self.tokens.push(Token { position, kind });
            }
            self.advance(end);
            if self.rest.is_empty() {
                return Ok(());
            }
            trim_left = self.action(trim_right)?;
        }
    }

    /// Reads one action and says whether the text after it is trimmed.
    fn action(&mut self, trims: bool) -> Result<bool, TemplateError> {
        let open = self.position;
        self.advance(if trims { 3 } else { 2 });
        let unspaced = self.rest.trim_start();
        if unspaced.starts_with("/*") {
            self.advance(self.rest.len() - unspaced.len());
            return self.comment(open);
        }
        self.tokens.push(Token { position: open, kind: Kind::Open });
        loop {
            let spaces = self.rest.len() - self.rest.trim_start().len();
            self.advance(spaces);
            let position = self.position;
            if spaces > 0 && self.rest.starts_with("-}}") {
                self.tokens.push(Token { position, kind: Kind::Close });
                self.advance(3);
                return Ok(true);
            }
            if self.rest.starts_with("}}") {
                self.tokens.push(Token { position, kind: Kind::Close });
                self.advance(2);
                return Ok(false);
            }
            if self.rest.is_empty() {
                return Err(TemplateError::new(open, "action is not closed with }}"));
            }
            let (kind, length) = self.token()?;
            self.tokens.push(Token { position, kind });
            self.advance(length);
        }
    }

    fn comment(&mut self, open: Position) -> Result<bool, TemplateError> {
        let Some(end) = self.rest.find("*/") else {
            return Err(TemplateError::new(open, "comment is not closed with */"));
        };
        self.advance(end + 2);
        let trims = starts_with_space(self.rest);
        self.advance(self.rest.len() - self.rest.trim_start().len());
        if trims && self.rest.starts_with("-}}") {
            self.advance(3);
            return Ok(true);
        }
        if self.rest.starts_with("}}") {
            self.advance(2);
            return Ok(false);
        }
        Err(TemplateError::new(self.position, "comment is not followed by }}"))
    }

    /// The next token of an action, and its length in bytes.
    fn token(&self) -> Result<(Kind, usize), TemplateError> {
        let rest = self.rest;
        for (text, kind) in [
            (":=", Kind::Declare),
            ("=", Kind::Assign),
            ("|", Kind::Pipe),
            ("(", Kind::LeftParenthesis),
            (")", Kind::RightParenthesis),
        ] {
            if rest.starts_with(text) {
                return Ok((kind, text.len()));
            }
        }
        let first = rest.chars().next().unwrap_or(' ');
        match first {
            '"' => self.quoted(),
            '`' => match rest[1..].find('`') {
                Some(end) => Ok((Kind::String(rest[1..=end].to_owned()), end + 2)),
                None => Err(self.error("text is not closed with `")),
            },
            '$' => {
                let name = word(&rest[1..]);
                Ok((Kind::Variable(name.to_owned()), 1 + name.len()))
            }
            '.' => {
                let name = word(&rest[1..]);
                Ok((Kind::Field(name.to_owned()), 1 + name.len()))
            }
            '-' | '+' | '0'..='9' => self.number(),
            first if first == '_' || first.is_alphabetic() => {
                let name = word(rest);
                Ok((Kind::Word(name.to_owned()), name.len()))
            }
            other => Err(self.error(format!("unexpected {other:?}"))),
        }
    }

    fn number(&self) -> Result<(Kind, usize), TemplateError> {
        let end = self.rest[1..]
            .find(|character: char| !character.is_alphanumeric() && character != '.' && character != '_')
            .map_or(self.rest.len(), |end| end + 1);
        let text = &self.rest[..end];
        match text.parse() {
            Ok(number) => Ok((Kind::Number(number), end)),
            Err(_) => Err(self.error(format!("number {text:?} is not supported; only whole decimal numbers are"))),
        }
    }

    fn quoted(&self) -> Result<(Kind, usize), TemplateError> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => return Ok((Kind::String(text), index + 1)),
                '\n' => break,
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, escaped @ ('\\' | '"'))) => text.push(escaped),
                    Some((_, other)) => return Err(self.error(format!("escape \\{other} is not supported"))),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(self.error("text is not closed with \""))
    }

    fn error(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError::new(self.position, problem)
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        for character in passed.chars() {
            if character == '\n' {
                self.position = Position { line: self.position.line + 1, column: 1 };
            } else {
                self.position.column += 1;
            }
        }
        self.rest = rest;
    }
}

fn starts_with_space(text: &str) -> bool {
    text.starts_with([' ', '\t', '\r', '\n'])
}

fn word(text: &str) -> &str {
    let end = text.find(|character: char| character != '_' && !character.is_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}
