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
        let (name, joined) = match long.unwrap_or(dashed).split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long.unwrap_or(dashed), None),
        };
        let (name, takes) = find(program, known, name, &format!("-{}{name}", if long.is_some() { "-" } else { "" }))?;
        let value = match (takes, joined) {
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
        let (name, takes) = find(program, known, letter.encode_utf8(&mut [0; 4]), &format!("-{letter}"))?;
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
    name: &str,
    shown: &str,
) -> Result<(&'static str, Takes), Refused> {
    let refused = |why| Refused::Flag { program, flag: shown.to_owned(), why };
    let flag = known.iter().find(|flag| flag.0.contains(&name)).ok_or_else(|| refused(""))?;
    match (flag.1, flag.0.first()) {
        (Takes::Refused(why), _) => Err(refused(why)),
        (takes, Some(first)) => Ok((first, takes)),
        (_, None) => Err(refused("")),
    }
}

/// A value that cannot be.
pub(crate) fn bad(program: &'static str, flag: &'static str, value: &str, expected: &'static str) -> Refused {
    Refused::Value { program, flag, value: value.to_owned(), expected }
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
