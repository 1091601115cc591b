//! A look at the tokens of a text, for what the parser must not be given. Where quotes, comments and brackets begin and end is
//! decided as its lexer does.

use std::time::Duration;

use promql_parser::util::parse_str_radix;

use crate::DEEPEST;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// A name, a keyword, a number or a duration.
    Word(&'a str),
    Text,
    Symbol(u8),
}

/// Refuses what cannot be parsed, or what came of it be used.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut depth = Depth::default();
    let tokens = Tokens { rest: text, within: Within::Nothing };
    let mut awaits_duration = false;
    for (token, within) in tokens {
        awaits_duration = match token {
            Token::Word(word) => {
                if awaits_duration {
                    check_duration(word)?;
                }
                // It may be the name of a metric, too.
                word.eq_ignore_ascii_case("offset")
            }
            Token::Symbol(b'+' | b'-') => awaits_duration,
            Token::Symbol(b'[') => true,
            Token::Symbol(b':') => within == Within::Brackets,
            Token::Symbol(_) | Token::Text => false,
        };
        if within == Within::Nothing {
            depth.see(token);
        }
    }
    match depth.levels() {
        levels if levels > DEEPEST => {
            Err(format!("the expression is nested too deeply: {levels} levels, of which there may be {DEEPEST}"))
        }
        _ => Ok(()),
    }
}

/// A word that is no number is somebody else's matter.
fn check_duration(word: &str) -> Result<(), String> {
    // What has an `x` elsewhere is a name, and not borne.
    let is_hexadecimal = word.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    if word.contains(['x', 'X']) && !is_hexadecimal {
        return Ok(());
    }
    match parse_str_radix(word) {
        Ok(seconds) if Duration::try_from_secs_f64(seconds).is_err() => Err("duration out of range".to_owned()),
        _ => Ok(()),
    }
}

/// How deep the tree of an expression is at most: every operator may stand above all that is beside it.
#[derive(Default)]
struct Depth {
    /// Of the parentheses that are open, outermost first.
    outer: Vec<Level>,
    level: Level,
    ends_in_operator: bool,
}

#[derive(Clone, Copy, Default)]
struct Level {
    operators: usize,
    /// Levels of the deepest parenthesis in it.
    deepest: usize,
}

impl Level {
    fn total(self) -> usize {
        1 + self.operators + self.deepest
    }
}

impl Depth {
    fn see(&mut self, token: Token<'_>) {
        const OPERATORS: [&str; 4] = ["and", "or", "unless", "atan2"];
        match token {
            Token::Symbol(b'(') => self.outer.push(std::mem::take(&mut self.level)),
            Token::Symbol(b')') => self.close(),
            // `==` and its like are two.
            Token::Symbol(b'=' | b'>' | b'<' | b'!') if !self.ends_in_operator => self.level.operators += 1,
            Token::Symbol(b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'[') => self.level.operators += 1,
            Token::Word(word) if OPERATORS.iter().any(|name| word.eq_ignore_ascii_case(name)) => {
                self.level.operators += 1;
            }
            _ => {}
        }
        self.ends_in_operator = matches!(token, Token::Symbol(b'=' | b'>' | b'<' | b'!'));
    }

    fn close(&mut self) {
        let Some(mut outer) = self.outer.pop() else { return };
        outer.deepest = outer.deepest.max(self.level.total());
        self.level = outer;
    }

    fn levels(mut self) -> usize {
        while !self.outer.is_empty() {
            self.close();
        }
        self.level.total()
    }
}

/// Where a token stands; parentheses are counted elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Within {
    Nothing,
    Brackets,
    Braces,
}

struct Tokens<'a> {
    rest: &'a str,
    within: Within,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token<'a>, Within);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_space();
        let within = self.within;
        let first = *self.rest.as_bytes().first()?;
        let token = match first {
            b'"' | b'\'' | b'`' if within != Within::Brackets => self.quoted(first),
            b'0'..=b'9' | b'.' => self.number(),
            _ if is_of_word(first, within) => Token::Word(self.take(|byte| is_of_word(byte, within))),
            _ => {
                let length = self.rest.chars().next().map_or(1, char::len_utf8);
                self.rest = self.rest.get(length..).unwrap_or_default();
                Token::Symbol(first)
            }
        };
        self.within = match (within, token) {
            (Within::Nothing, Token::Symbol(b'[')) => Within::Brackets,
            (Within::Nothing, Token::Symbol(b'{')) => Within::Braces,
            (Within::Brackets, Token::Symbol(b']')) | (Within::Braces, Token::Symbol(b'}')) => Within::Nothing,
            _ => within,
        };
        Some((token, within))
    }
}

impl<'a> Tokens<'a> {
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|character: char| character.is_ascii_whitespace());
            if !self.rest.starts_with('#') || self.within == Within::Brackets {
                return;
            }
            self.rest = self.rest.find(['\r', '\n']).and_then(|end| self.rest.get(end..)).unwrap_or_default();
        }
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let length = self.rest.bytes().take_while(|byte| belongs(*byte)).count();
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// A number or a duration: a sign belongs to it after an `e`.
    fn number(&mut self) -> Token<'a> {
        let text = self.rest;
        let is_part = |byte: u8| byte == b'.' || is_of_word(byte, Within::Brackets);
        let head = self.take(is_part);
        if head.ends_with(['e', 'E']) && self.rest.starts_with(['+', '-']) {
            self.rest = self.rest.get(1..).unwrap_or_default();
            self.take(is_part);
        }
        Token::Word(text.get(..text.len() - self.rest.len()).unwrap_or_default())
    }

    /// In all three kinds of quotes the lexer takes what follows a backslash as escaped.
    fn quoted(&mut self, quote: u8) -> Token<'a> {
        let mut is_escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == quote && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        self.rest = end.and_then(|end| self.rest.get(end + 2..)).unwrap_or_default();
        Token::Text
    }
}

/// Names of metrics may have colons; in brackets a colon stands between two durations.
fn is_of_word(byte: u8, within: Within) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte == b':' && within == Within::Nothing
}
