//! Flags of command lines, in the two styles that the programs have.

use std::time::Duration;

use aviary_crds::duration::parse_go_duration;

use crate::Refused;

/// How flags are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// One or two dashes before a name, `-name=value` or `-name value`.
    Go,
    /// One dash before letters, of which the last may have its value joined to it; two dashes before a name.
    Getopt,
}

/// What a flag takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Value,
    /// It is known and not understood, for this reason.
    Refused(&'static str),
}

/// A flag: its names, the first of which stands for it.
pub(crate) struct Flag(pub(crate) &'static [&'static str], pub(crate) Takes);

/// A part of a command line.
#[derive(Debug, PartialEq)]
pub(crate) enum Argument {
    /// A flag by its first name.
    Flag(&'static str, String),
    /// Everything else.
    Word(String),
}

/// The arguments in their order.
pub(crate) fn read(
    program: &'static str,
    style: Style,
    known: &'static [Flag],
    words: &[String],
) -> Result<Vec<Argument>, Refused> {
    let mut arguments = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            arguments.extend(words.map(|word| Argument::Word(word.clone())));
            break;
        }
        let Some(dashed) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            arguments.push(Argument::Word(word.clone()));
            continue;
        };
        let long = dashed.strip_prefix('-');
        if style == Style::Getopt && long.is_none() {
            read_letters(program, known, dashed, &mut words, &mut arguments)?;
            continue;
        }
        let (given, joined) = match long.unwrap_or(dashed).split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long.unwrap_or(dashed), None),
        };
        let dashes = if long.is_some() { "--" } else { "-" };
        let (name, takes) = find(program, known, dashes, given)?;
        let value = match (takes, joined) {
            (Takes::Nothing, Some(_)) if style == Style::Getopt => {
                let flag = format!("{dashes}{given}");
                return Err(Refused::Flag { program, flag, why: ": it takes no value" });
            }
            (Takes::Nothing, Some(value)) => match go_bool(program, name, value)? {
                true => String::new(),
                false => continue,
            },
            (_, Some(value)) => value.to_owned(),
            (Takes::Value, None) => words.next().ok_or(Refused::NoValue { program, flag: name })?.clone(),
            _ => String::new(),
        };
        arguments.push(Argument::Flag(name, value));
    }
    Ok(arguments)
}

fn read_letters<'a>(
    program: &'static str,
    known: &'static [Flag],
    letters: &str,
    words: &mut impl Iterator<Item = &'a String>,
    arguments: &mut Vec<Argument>,
) -> Result<(), Refused> {
    for (at, letter) in letters.char_indices() {
        let (name, takes) = find(program, known, "-", letter.encode_utf8(&mut [0; 4]))?;
        if matches!(takes, Takes::Nothing) {
            arguments.push(Argument::Flag(name, String::new()));
            continue;
        }
        let joined = &letters[at + letter.len_utf8()..];
        let value = match joined {
            "" => words.next().ok_or(Refused::NoValue { program, flag: name })?.clone(),
            joined => joined.to_owned(),
        };
        arguments.push(Argument::Flag(name, value));
        break;
    }
    Ok(())
}

fn find(
    program: &'static str,
    known: &'static [Flag],
    dashes: &str,
    name: &str,
) -> Result<(&'static str, Takes), Refused> {
    let refused = |why| Refused::Flag { program, flag: format!("{dashes}{name}"), why };
    let flag = known.iter().find(|flag| flag.0.contains(&name));
    let flag = flag.ok_or_else(|| unknown(program, known, dashes, name))?;
    match (flag.1, flag.0.first()) {
        (Takes::Refused(why), _) => Err(refused(why)),
        (takes, Some(first)) => Ok((first, takes)),
        (_, None) => Err(refused("")),
    }
}

/// A flag that the program does not have. `-HCookie:…` is one of Go's programs, for which a value is never joined.
fn unknown(program: &'static str, known: &'static [Flag], dashes: &str, name: &str) -> Refused {
    let first = name.chars().next().map(String::from).unwrap_or_default();
    let has_value = |flag: &Flag| matches!(flag.1, Takes::Value) && flag.0.contains(&first.as_str());
    if dashes == "-" && name != first && known.iter().any(has_value) {
        let why = ": its value comes behind a space or an =";
        return Refused::Flag { program, flag: format!("-{first}…"), why };
    }
    // As names of flags are; beyond that a value may be joined to it.
    let is_name = name == first
        || name.len() <= LONGEST_FLAG
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    let flag = if is_name { format!("{dashes}{name}") } else { HIDDEN.to_owned() };
    Refused::Flag { program, flag, why: "" }
}

/// A first word that is none of the programs.
pub(crate) fn no_program(word: &str) -> Refused {
    let is_variable = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if is_variable { Refused::Shell("a variable".to_owned()) } else { Refused::Program(shown(word).to_owned()) }
}

/// What stands for that which may be secret.
pub(crate) const HIDDEN: &str = "(not shown)";
/// Longer than curl's longest flag, which has 25 letters (`--proxy-tls13-ciphers` and the like have fewer).
const LONGEST_FLAG: usize = 30;
/// Longer than any number, duration or name of a method that somebody means; as long as the path of a file may be.
const LONGEST_SHOWN: usize = 60;

/// A value, as far as it is no header, body, password or query that only stands at the wrong place: these have spaces,
/// colons, equals signs and quotes.
pub(crate) fn shown(value: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte);
    if value.len() <= LONGEST_SHOWN && value.bytes().all(is_plain) { value } else { HIDDEN }
}

/// A value that cannot be.
pub(crate) fn bad(program: &'static str, flag: &'static str, value: &str, expected: &'static str) -> Refused {
    Refused::Value { program, flag, value: shown(value).to_owned(), expected }
}

/// What Go's `strconv.ParseBool` understands.
fn go_bool(program: &'static str, flag: &'static str, text: &str) -> Result<bool, Refused> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(bad(program, flag, text, "true or false")),
    }
}

/// A whole number in a range.
pub(crate) fn number(
    program: &'static str,
    flag: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<u64, Refused> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| bad(program, flag, text, expected))
}

/// Requests per second; 0 is no limit.
pub(crate) fn rate(program: &'static str, flag: &'static str, text: &str) -> Result<Option<f64>, Refused> {
    let rate: Option<f64> = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    let rate = rate.ok_or_else(|| bad(program, flag, text, "requests per second, 0 for no limit"))?;
    Ok(Some(rate).filter(|rate| *rate > 0.0))
}

/// A duration as Go writes it.
pub(crate) fn go_duration(program: &'static str, flag: &'static str, text: &str) -> Result<Duration, Refused> {
    let duration = parse_go_duration(text).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| bad(program, flag, text, "a duration such as 30s or 1m"))
}

/// The only word that is no flag, if there is one.
pub(crate) fn only_word<'a>(program: &'static str, arguments: &'a [Argument]) -> Result<Option<&'a str>, Refused> {
    let mut words = arguments.iter().filter_map(|argument| match argument {
        Argument::Word(word) => Some(word.as_str()),
        Argument::Flag(..) => None,
    });
    let first = words.next();
    if words.next().is_some() {
        return Err(Refused::Missing { program, what: "there is more than one address" });
    }
    Ok(first)
}
