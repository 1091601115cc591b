//! `grep`: whether and where a word is in what a program has written.

use regex::bytes::{Regex, RegexBuilder};

use crate::Refused;
use crate::flags::{self, Argument, Flag, HIDDEN, Style, Takes, bad};

/// A filter of lines.
#[derive(Clone, Debug)]
pub struct Grep {
    pattern: Regex,
    is_inverted: bool,
    prints: Prints,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Prints {
    Lines,
    Matches,
    Count,
    Nothing,
}

impl Grep {
    /// The lines that fit, and whether there are any: `grep` ends with 1 if there is none.
    #[must_use]
    pub fn filter(&self, input: &[u8]) -> (Vec<u8>, bool) {
        let input = input.strip_suffix(b"\n").unwrap_or(input);
        let lines = input.split(|byte| *byte == b'\n').filter(|line| !(input.is_empty() && line.is_empty()));
        let (mut output, mut count) = (Vec::new(), 0_u64);
        for line in lines.filter(|line| self.pattern.is_match(line) != self.is_inverted) {
            count += 1;
            match self.prints {
                Prints::Lines => output.extend([line, b"\n"].concat()),
                Prints::Matches if !self.is_inverted => {
                    output.extend(self.pattern.find_iter(line).flat_map(|found| [found.as_bytes(), b"\n"].concat()));
                }
                Prints::Matches | Prints::Count | Prints::Nothing => {}
            }
        }
        if self.prints == Prints::Count {
            output = format!("{count}\n").into_bytes();
        }
        (output, count > 0)
    }
}

const FLAGS: &[Flag] = &[
    Flag(&["e", "regexp"], Takes::Value),
    Flag(&["i", "ignore-case", "y"], Takes::Nothing),
    Flag(&["v", "invert-match"], Takes::Nothing),
    Flag(&["q", "quiet", "silent"], Takes::Nothing),
    Flag(&["E", "extended-regexp"], Takes::Nothing),
    Flag(&["G", "basic-regexp"], Takes::Nothing),
    Flag(&["F", "fixed-strings"], Takes::Nothing),
    Flag(&["w", "word-regexp"], Takes::Nothing),
    Flag(&["x", "line-regexp"], Takes::Nothing),
    Flag(&["c", "count"], Takes::Nothing),
    Flag(&["o", "only-matching"], Takes::Nothing),
    Flag(&["s", "no-messages"], Takes::Nothing),
    Flag(&["a", "text"], Takes::Nothing),
];

const GREP: &str = "grep";

pub(crate) fn parse(words: &[String]) -> Result<Grep, Refused> {
    let (program, words) = words.split_first().ok_or(Refused::Empty)?;
    let mut syntax = match program.rsplit('/').next() {
        Some("grep") => Syntax::Basic,
        Some("egrep") => Syntax::Extended,
        Some("fgrep") => Syntax::Fixed,
        _ => return Err(flags::no_program(program)),
    };
    let (mut is_inverted, mut ignores_case, mut is_word, mut is_line) = (false, false, false, false);
    let (mut prints, mut patterns, mut free) = (Prints::Lines, Vec::new(), Vec::new());
    for argument in flags::read(GREP, Style::Getopt, FLAGS, words)? {
        match argument {
            Argument::Word(word) => free.push(word),
            Argument::Flag("e", value) => patterns.push(value),
            Argument::Flag("i", _) => ignores_case = true,
            Argument::Flag("v", _) => is_inverted = true,
            Argument::Flag("q", _) => prints = Prints::Nothing,
            Argument::Flag("E", _) => syntax = Syntax::Extended,
            Argument::Flag("G", _) => syntax = Syntax::Basic,
            Argument::Flag("F", _) => syntax = Syntax::Fixed,
            Argument::Flag("w", _) => is_word = true,
            Argument::Flag("x", _) => is_line = true,
            Argument::Flag("c", _) => prints = Prints::Count,
            Argument::Flag("o", _) => prints = Prints::Matches,
            Argument::Flag(..) => {}
        }
    }
    if patterns.is_empty() && !free.is_empty() {
        patterns.push(free.remove(0));
    }
    if patterns.is_empty() {
        return Err(Refused::Missing { program: GREP, what: "there is no pattern" });
    }
    if !free.is_empty() {
        return Err(bad(GREP, "the file", HIDDEN, "no files: it reads what comes before the |"));
    }
    let expressions: Vec<String> = patterns.iter().map(|pattern| syntax.to_regex(pattern)).collect();
    let mut expression = format!("(?:{})", expressions.join("|"));
    if is_word {
        expression = format!(r"\b{expression}\b");
    }
    if is_line {
        expression = format!("^{expression}$");
    }
    let pattern = RegexBuilder::new(&expression).case_insensitive(ignores_case).build();
    let pattern = pattern.map_err(|_| bad(GREP, "the pattern", HIDDEN, "a regular expression"))?;
    Ok(Grep { pattern, is_inverted, prints })
}

#[derive(Clone, Copy)]
enum Syntax {
    Basic,
    Extended,
    Fixed,
}

impl Syntax {
    fn to_regex(self, pattern: &str) -> String {
        match self {
            Syntax::Fixed => regex::escape(pattern),
            Syntax::Extended => pattern.to_owned(),
            Syntax::Basic => basic(pattern),
        }
    }
}

/// In a basic regular expression `+ ? { } | ( )` mean themselves unless there is a backslash before them.
fn basic(pattern: &str) -> String {
    let mut expression = String::new();
    let mut letters = pattern.chars();
    let mut is_first = true;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(operator @ ('+' | '?' | '{' | '}' | '|' | '(' | ')')) => expression.push(operator),
                Some(other) => expression.extend(['\\', other]),
                None => expression.push_str(r"\\"),
            },
            '+' | '?' | '{' | '}' | '|' | '(' | ')' => expression.extend(['\\', letter]),
            '*' if is_first => expression.push_str(r"\*"),
            _ => expression.push(letter),
        }
        is_first = false;
    }
    expression
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn grep(line: &str, input: &str) -> (String, bool) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (output, found) = parse(&words).unwrap().filter(input.as_bytes());
        (String::from_utf8(output).unwrap(), found)
    }

    #[test]
    fn lines_are_filtered_as_grep_does() {
        let input = "token: a\nother {\"ok\": 1}\n200";
        let cases = [
            ("grep token", "token: a\n", true),
            ("grep -q token", "", true),
            ("grep missing", "", false),
            ("grep -i TOKEN", "token: a\n", true),
            ("grep -v token", "other {\"ok\": 1}\n200\n", true),
            ("grep -c o", "2\n", true),
            ("grep -c missing", "0\n", false),
            ("grep -oE [0-9]+", "1\n200\n", true),
            ("grep {\"ok\"", "other {\"ok\": 1}\n", true),
            ("grep -F .", "", false),
            ("grep -w toke", "", false),
            ("grep -x 200", "200\n", true),
            ("grep -E token|200", "token: a\n200\n", true),
            ("grep token|200", "", false),
            ("grep token\\|200", "token: a\n200\n", true),
            ("grep -e token -e 200", "token: a\n200\n", true),
            ("egrep ^2", "200\n", true),
        ];
        for (line, expected, found) in cases {
            assert_eq!(grep(line, input), (expected.to_owned(), found), "{line}");
        }
        assert_eq!(grep("grep -v x", ""), (String::new(), false), "no lines in nothing");
    }
}
