//! Words, pipes and redirections as a shell has them; everything else of a shell is refused.

use std::iter::Peekable;
use std::str::Chars;

use crate::Refused;

/// A pipeline.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    /// The words of each command.
    pub(crate) commands: Vec<Vec<String>>,
    /// The last one's output is thrown away.
    pub(crate) is_silent: bool,
}

#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// The word so far was quoted nowhere, so that a digit in it may be a file descriptor.
    is_plain: bool,
    is_silent: bool,
}

/// Splits a text.
///
/// # Errors
/// If a shell would do more with it than split it.
pub(crate) fn split(text: &str) -> Result<Line, Refused> {
    let mut splitter = Splitter { is_plain: true, ..Splitter::default() };
    let mut rest = text.trim().chars().peekable();
    while let Some(letter) = rest.next() {
        splitter.take(letter, &mut rest)?;
    }
    splitter.end_command()?;
    Ok(Line { commands: splitter.commands, is_silent: splitter.is_silent })
}

impl Splitter {
    fn take(&mut self, letter: char, rest: &mut Peekable<Chars>) -> Result<(), Refused> {
        match letter {
            '\'' => {
                let quoted = self.quoted();
                quoted.push_str(&until_quote(rest)?);
            }
            '"' => {
                let text = double_quoted(rest)?;
                self.quoted().push_str(&text);
            }
            '\\' => match rest.next() {
                // A line that goes on.
                Some('\n') => {}
                Some(escaped) => self.quoted().push(escaped),
                None => return Err(Refused::Shell("a backslash at the end".to_owned())),
            },
            '\n' => return Err(Refused::Shell("more than one line".to_owned())),
            _ if letter.is_whitespace() => self.end_word(),
            '|' if rest.peek() == Some(&'|') => return Err(Refused::Shell("||".to_owned())),
            '|' => {
                if self.is_silent {
                    return Err(Refused::Shell("a pipe behind /dev/null".to_owned()));
                }
                self.end_command()?;
            }
            '>' => self.redirect(rest)?,
            '&' if rest.peek() == Some(&'>') => {
                rest.next();
                self.end_word();
                self.redirect(rest)?;
            }
            '&' => {
                let what = if rest.peek() == Some(&'&') { "&&" } else { "& (in an address: quote it)" };
                return Err(Refused::Shell(what.to_owned()));
            }
            ';' | '<' | '`' | '(' | ')' => return Err(Refused::Shell(letter.to_string())),
            '$' if expands(rest) => return Err(Refused::Shell("$".to_owned())),
            '#' if self.word.is_none() => return Err(Refused::Shell("#".to_owned())),
            _ => self.word.get_or_insert_default().push(letter),
        }
        Ok(())
    }

    fn quoted(&mut self) -> &mut String {
        self.is_plain = false;
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
        self.is_plain = true;
    }

    fn end_command(&mut self) -> Result<(), Refused> {
        self.end_word();
        if self.words.is_empty() {
            return Err(if self.commands.is_empty() {
                Refused::Empty
            } else {
                Refused::Shell("an empty pipe".to_owned())
            });
        }
        self.commands.push(std::mem::take(&mut self.words));
        Ok(())
    }

    /// `>/dev/null`, `2>/dev/null`, `2>&1` and what else throws output away.
    fn redirect(&mut self, rest: &mut Peekable<Chars>) -> Result<(), Refused> {
        let descriptor = match self.word.as_deref() {
            Some("2") if self.is_plain => 2,
            Some("1") if self.is_plain => 1,
            _ => {
                self.end_word();
                1
            }
        };
        self.word = None;
        if rest.peek() == Some(&'>') {
            rest.next();
        }
        if rest.peek() == Some(&'&') {
            rest.next();
            return match rest.next() {
                // Errors are part of what is told anyway.
                Some('1') if descriptor == 2 => Ok(()),
                _ => Err(Refused::Shell("a redirection".to_owned())),
            };
        }
        while rest.next_if(|letter| *letter == ' ').is_some() {}
        let mut target = String::new();
        while let Some(letter) = rest.next_if(|letter| !letter.is_whitespace() && !"|&;<>()".contains(*letter)) {
            target.push(letter);
        }
        if target != "/dev/null" {
            return Err(Refused::Shell("a redirection to a file".to_owned()));
        }
        self.is_silent |= descriptor == 1;
        Ok(())
    }
}

fn until_quote(rest: &mut Peekable<Chars>) -> Result<String, Refused> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\'') => return Ok(text),
            Some(letter) => text.push(letter),
            None => return Err(Refused::Quote('\'')),
        }
    }
}

fn double_quoted(rest: &mut Peekable<Chars>) -> Result<String, Refused> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('"') => return Ok(text),
            Some('\\') => match rest.next() {
                Some('\n') => {}
                Some(escaped @ ('"' | '\\' | '$' | '`')) => text.push(escaped),
                Some(other) => text.extend(['\\', other]),
                None => return Err(Refused::Quote('"')),
            },
            Some('`') => return Err(Refused::Shell("`".to_owned())),
            Some('$') if expands(rest) => return Err(Refused::Shell("$".to_owned())),
            Some(letter) => text.push(letter),
            None => return Err(Refused::Quote('"')),
        }
    }
}

/// Whether a shell puts something in the place of a dollar sign with this behind it.
fn expands(rest: &mut Peekable<Chars>) -> bool {
    rest.peek().is_some_and(|next| next.is_ascii_alphanumeric() || "_{(@*#?$!-'\"".contains(*next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        split(text).unwrap().commands
    }

    #[test]
    fn words_are_those_of_a_shell() {
        let cases: [(&str, &[&[&str]]); 8] = [
            ("a  b\tc\n", &[&["a", "b", "c"]]),
            ("a 'b c' \"d 'e'\" f\\ g ''", &[&["a", "b c", "d 'e'", "f g", ""]]),
            (r#"-d "{\"a\": 1}" "\n""#, &[&["-d", r#"{"a": 1}"#, r"\n"]]),
            ("a|b |c", &[&["a"], &["b"], &["c"]]),
            ("a \\\n  b", &[&["a", "b"]]),
            ("a 2>&1 | b", &[&["a"], &["b"]]),
            ("a'b'\"c\"d http://x/?y=1#z", &[&["abcd", "http://x/?y=1#z"]]),
            ("a 5$ '$HOME'", &[&["a", "5$", "$HOME"]]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn output_can_be_thrown_away() {
        for text in ["a >/dev/null", "a > /dev/null 2>&1", "a &>/dev/null", "a 1>/dev/null", "a | b >/dev/null"] {
            assert!(split(text).unwrap().is_silent, "{text}");
        }
        let line = split("a 2>/dev/null b").unwrap();
        assert_eq!((line.commands, line.is_silent), (vec![vec!["a".to_owned(), "b".to_owned()]], false));
    }

    #[test]
    fn what_only_a_shell_does_is_refused() {
        let cases = [
            "a; b",
            "a && b",
            "a || b",
            "a & b",
            "a $B",
            "a \"$B\"",
            "a $(b)",
            "a `b`",
            "a > file",
            "a < file",
            "a\nb",
            "(a)",
            "a # b",
            "a | ",
            "a \\",
            "a >/dev/null | b",
            "a 1>&2",
        ];
        for text in cases {
            assert!(matches!(split(text), Err(Refused::Shell(_))), "{text}: {:?}", split(text));
        }
        assert_eq!(split("a 'b"), Err(Refused::Quote('\'')));
        assert_eq!(split("a \"b"), Err(Refused::Quote('"')));
        assert_eq!(split("  "), Err(Refused::Empty));
    }
}
