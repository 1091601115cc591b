//! What a shape cannot say: fields that do not go together.

use aviary_crds::duration::parse_go_duration;

use super::check::Problem;
use crate::simulate::yaml::{Content, Node};

/// Adds fields that do not go together.
pub(super) fn find(node: &Node, problems: &mut Vec<Problem>) {
    let mut refuse = |at: &Node, path: String, message: &str| {
        problems.push(Problem { place: at.place, path, message: message.to_owned() });
    };
    let list = |name: &str| node.get(name).map(Node::items).unwrap_or_default();
    for (index, release) in list("releases").iter().enumerate() {
        let path = format!("releases[{index}]");
        if release.get("image").is_some() && release.get("tag").is_some() {
            refuse(release, path, "give an image or a tag, not both");
        } else if let Some(container) = release.get("container")
            && release.get("image").or(release.get("tag")).is_none()
        {
            refuse(container, format!("{path}.container"), "give the container's image or tag, too");
        }
    }
    misplaced(list("prometheus"), "prometheus", PROMETHEUS, &mut refuse);
    misplaced(list("api"), "api", API, &mut refuse);
    for (index, action) in list("actions").iter().enumerate() {
        let path = format!("actions[{index}]");
        let is_patch = action.text("action") == Some("Patch");
        if is_patch != action.get("patch").is_some() {
            refuse(action, path.clone(), "patch is needed with action Patch, and only there");
        }
        let is_canary = action.text("kind").is_none_or(|kind| kind == "Canary");
        if matches!(action.text("action"), Some("Suspend" | "Resume")) && !is_canary {
            refuse(action, path, "only a Canary can be suspended");
        }
    }
    if let Some(Node { content: Content::Map(metrics), .. }) = node.get("metrics") {
        for (name, metric) in metrics {
            let path = format!("metrics.{}", name.text);
            one_answer(metric, &path, problems);
            for (index, change) in metric.get("changes").map(Node::items).unwrap_or_default().iter().enumerate() {
                one_answer(change, &format!("{path}.changes[{index}]"), problems);
            }
        }
    }
    latencies(node, "", problems);
    windows(node, "", problems);
}

/// Fields that mean something with these faults only.
type Belongings = &'static [(&'static str, &'static [&'static str])];

const PROMETHEUS: Belongings = &[("status", &["Error"]), ("delay", &["Slow"]), ("value", &["Wrong"])];

/// Faults that hit some calls.
const OF_CALLS: &[&str] = &["Error", "Conflict", "TooManyRequests", "Delay", "LoseResponse"];

const API: Belongings = &[
    ("status", &["Error"]),
    ("retryAfter", &["TooManyRequests"]),
    ("delay", &["Delay"]),
    ("every", &["DropWatches"]),
    ("probability", OF_CALLS),
    ("times", OF_CALLS),
    ("resource", OF_CALLS),
    ("verbs", OF_CALLS),
    ("until", &["Error", "Conflict", "TooManyRequests", "Delay", "LoseResponse", "DropWatches", "Restart"]),
];

/// Fields that do nothing with their fault.
fn misplaced(faults: &[Node], list: &str, belongings: Belongings, refuse: &mut dyn FnMut(&Node, String, &str)) {
    for (index, node) in faults.iter().enumerate() {
        let Some(fault) = node.text("fault") else { continue };
        for (field, belongs) in belongings {
            if let Some(value) = node.get(field)
                && !belongs.contains(&fault)
            {
                let message = format!("it does nothing with {fault}; it belongs to {}", belongs.join(", "));
                refuse(value, format!("{list}[{index}].{field}"), &message);
            }
        }
    }
}

/// Half of the requests cannot take longer than nearly all do.
fn latencies(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    match &node.content {
        Content::Scalar(_) => {}
        Content::List(items) => {
            for (index, item) in items.iter().enumerate() {
                latencies(item, &format!("{path}[{index}]"), problems);
            }
        }
        Content::Map(entries) => {
            let time = |name| node.text(name).and_then(|text| Some((text, parse_go_duration(text).ok()?)));
            if let (Some((median, half)), Some((p99, most))) = (time("median"), time("p99"))
                && half > most
            {
                let message =
                    format!("the median {median} is above the 99th percentile {p99}; it can be as high at most");
                let place = node.get("median").map(|median| median.place).unwrap_or_default();
                problems.push(Problem { place, path: format!("{path}.median"), message });
            }
            for (key, value) in entries.iter().filter(|(key, _)| key.text != "patch") {
                let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
                latencies(value, &path, problems);
            }
        }
    }
}

/// A metric has a value, no value, or an error.
fn one_answer(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    let has_no_data = node.get("noData").is_some_and(|flag| flag.to_value() == true);
    let answers = [node.get("value").is_some(), has_no_data, node.get("error").is_some()];
    if answers.iter().filter(|is_given| **is_given).count() > 1 {
        let message = "give one of value, noData and error".to_owned();
        problems.push(Problem { place: node.place, path: path.to_owned(), message });
    }
}

/// No window may end before it begins.
fn windows(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    match &node.content {
        Content::Scalar(_) => {}
        Content::List(items) => {
            for (index, item) in items.iter().enumerate() {
                windows(item, &format!("{path}[{index}]"), problems);
            }
        }
        Content::Map(entries) => {
            let time = |name| node.text(name).and_then(|text| parse_go_duration(text).ok());
            if let (Some(from), Some(until)) = (time("from"), time("until"))
                && until <= from
            {
                let place = node.place_of("until");
                let message = "it must end after it begins".to_owned();
                problems.push(Problem { place, path: format!("{path}.until"), message });
            }
            for (key, value) in entries {
                let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
                // A patch is the user's own.
                if key.text != "patch" {
                    windows(value, &path, problems);
                }
            }
        }
    }
}
