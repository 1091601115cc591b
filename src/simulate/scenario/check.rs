//! Checks a document against its shape: every problem at once, each with its line.

use aviary_crds::duration::{format_go_duration, parse_go_duration};
use serde_json::Value;

use super::names;
use super::shape::{Field, LONGEST, MOST_REQUESTS, Shape};
use crate::simulate::yaml::{Content, Node, Place};

/// Something that is wrong in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    /// Path of the field; empty for the document itself.
    pub(crate) path: String,
    pub(crate) message: String,
}

/// Everything about `node` that is not as `shape` wants it.
pub(crate) fn check(node: &Node, shape: &Shape, path: &str, problems: &mut Vec<Problem>) {
    let problem = |message: String| Problem { place: node.place, path: path.to_owned(), message };
    match (shape, &node.content) {
        // As in Kubernetes, null is as good as nothing.
        (_, Content::Scalar(Value::Null)) => {}
        (Shape::Object(fields), Content::Map(_)) => check_object(node, fields, path, problems),
        (Shape::Map(of), Content::Map(entries)) => {
            for (key, value) in entries {
                if let Shape::Object(_) = of
                    && matches!(value.content, Content::Scalar(Value::Null))
                {
                    problems.push(Problem {
                        place: key.place,
                        path: join(path, &key.text),
                        message: "expected an object".to_owned(),
                    });
                }
                check(value, of, &join(path, &key.text), problems);
            }
        }
        (Shape::AnyObject, Content::Map(_)) => {}
        (Shape::List(of), Content::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, of, &format!("{path}[{index}]"), problems);
            }
        }
        (_, Content::Scalar(value)) => {
            if let Err(message) = check_scalar(value, shape) {
                problems.push(problem(message));
            }
        }
        (expected, Content::List(_)) => problems.push(problem(format!("expected {}, not a list", name(expected)))),
        (expected, Content::Map(_)) => problems.push(problem(format!("expected {}, not an object", name(expected)))),
    }
}

fn check_object(node: &Node, fields: &[Field], path: &str, problems: &mut Vec<Problem>) {
    let Content::Map(entries) = &node.content else { return };
    for (key, value) in entries {
        match fields.iter().find(|field| field.name == key.text) {
            Some(field) => check(value, &field.shape, &join(path, field.name), problems),
            None => problems.push(Problem {
                place: key.place,
                path: join(path, &key.text),
                message: unknown("field", &key.text, fields.iter().map(|field| field.name)),
            }),
        }
    }
    for field in fields.iter().filter(|field| field.required) {
        let is_there = entries
            .iter()
            .any(|(key, value)| key.text == field.name && !matches!(value.content, Content::Scalar(Value::Null)));
        if !is_there {
            problems.push(Problem {
                place: node.place,
                path: join(path, field.name),
                message: format!("required field is missing; it is {}", name(&field.shape)),
            });
        }
    }
}

fn check_scalar(value: &Value, shape: &Shape) -> Result<(), String> {
    let refuse = || Err(format!("expected {}, not {value}", name(shape)));
    match (shape, value) {
        (Shape::Text, Value::String(_)) => Ok(()),
        (Shape::Name, Value::String(text)) => names::name(text),
        (Shape::Image, Value::String(text)) => names::image(text),
        (Shape::Tag, Value::String(text)) => names::tag(text),
        // A tag like 1.10 or 6 is a number to YAML, and has lost its zero.
        (Shape::Text | Shape::Name | Shape::Image | Shape::Tag, Value::Number(_) | Value::Bool(_)) => {
            Err(format!("expected a text, not {value}; put it in quotes"))
        }
        (Shape::Choice(choices), Value::String(text)) => {
            if choices.contains(&text.as_str()) {
                return Ok(());
            }
            Err(unknown("value", text, choices.iter().copied()))
        }
        (Shape::Flag, Value::Bool(_)) | (Shape::AnyNumber, Value::Number(_)) => Ok(()),
        (Shape::Whole(least, most), Value::Number(number)) => match number.as_u64() {
            Some(number) if (*least..=*most).contains(&number) => Ok(()),
            _ => refuse(),
        },
        (Shape::Number, Value::Number(number))
            if number.as_f64().is_some_and(|number| (0.0..=MOST_REQUESTS).contains(&number)) =>
        {
            Ok(())
        }
        (Shape::Ratio, Value::Number(number)) => match number.as_f64() {
            Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            Some(percent) if percent > 1.0 && percent <= 100.0 => {
                Err(format!("expected a number from 0 to 1, not {value}; {percent} % is {}", percent / 100.0))
            }
            _ => refuse(),
        },
        (Shape::Duration | Shape::Time, Value::String(text)) => duration(text, shape),
        (Shape::Duration, Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(()),
        (Shape::Time, Value::Number(number)) if number.as_f64() == Some(0.0) => duration("0s", shape),
        (Shape::Duration | Shape::Time, Value::Number(number))
            if number.as_f64().is_some_and(|number| number < 0.0) =>
        {
            Err(format!("expected a duration of at least 0, not {value}"))
        }
        (Shape::Duration | Shape::Time, Value::Number(_)) => {
            Err(format!("expected a duration with its unit, such as {value}s, not the number {value}"))
        }
        _ => refuse(),
    }
}

fn duration(text: &str, shape: &Shape) -> Result<(), String> {
    let duration = parse_go_duration(text).map_err(|error| format!("{error}, not {text:?}"))?;
    if duration > LONGEST {
        return Err(format!("expected a duration of at most {} (a month), not {text:?}", format_go_duration(LONGEST)));
    }
    if duration.is_zero() && matches!(shape, Shape::Time) {
        return Err(format!("expected a duration that is longer than nothing, not {text:?}"));
    }
    Ok(())
}

/// Says that something is not known, and what might have been meant.
pub(crate) fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(given, &known) {
        Some(meant) => format!("unknown {what} {given:?}; did you mean {meant:?}?"),
        None => format!("unknown {what} {given:?}; known: {}", known.join(", ")),
    }
}

/// The name that is nearly this one.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Two letters that changed places in a word of five score 0.93, one of a short word's letters 0.8; words that have
    // nothing to do with each other stay below 0.7.
    const NEAR: f64 = 0.8;
    let score = |name: &str| strsim::jaro_winkler(&given.to_lowercase(), &name.to_lowercase());
    let scored = known.iter().map(|name| (*name, score(name)));
    let best = scored.max_by(|one, other| one.1.total_cmp(&other.1));
    best.filter(|(_, score)| *score >= NEAR).map(|(name, _)| name)
}

/// What a value must be, in words.
pub(super) fn name(shape: &Shape) -> String {
    match shape {
        Shape::Text => "a text".to_owned(),
        Shape::Choice(choices) => format!("one of {}", choices.join(", ")),
        Shape::Flag => "true or false".to_owned(),
        Shape::Whole(least, u64::MAX) => format!("a whole number of at least {least}"),
        Shape::Whole(least, most) => format!("a whole number from {least} to {most}"),
        Shape::Number => format!("a number from 0 to {MOST_REQUESTS}"),
        Shape::AnyNumber => "a number".to_owned(),
        Shape::Ratio => "a number from 0 to 1".to_owned(),
        Shape::Duration | Shape::Time => "a duration, such as 90s".to_owned(),
        Shape::Name => "a name".to_owned(),
        Shape::Image => "an image".to_owned(),
        Shape::Tag => "a tag".to_owned(),
        Shape::Object(_) | Shape::Map(_) | Shape::AnyObject => "an object".to_owned(),
        Shape::List(_) => "a list".to_owned(),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
