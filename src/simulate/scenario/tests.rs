#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::shape::{Field, SCENARIO, Shape};
use super::*;

fn problems(text: &str) -> Vec<String> {
    let problems = Scenario::parse(text).expect_err("must be refused");
    problems.iter().map(|problem| format!("{} {}: {}", problem.place, problem.path, problem.message)).collect()
}

#[test]
fn every_problem_is_told_with_line_and_field() {
    let text = "\
versions:
  new:
    erorRate: 0.1
    latency: {median: 20}
    pods: Crashloop
load:
  requestsPerSecond: 5
timeLimit: forever
webhooks:
  gate: {status: 99}
releases:
  - tag: 6.1
";
    assert_eq!(
        problems(text),
        [
            "3:5 versions.new.erorRate: unknown field \"erorRate\"; did you mean \"errorRate\"?",
            "4:14 versions.new.latency.p99: required field is missing; it is a duration, such as 90s",
            "4:23 versions.new.latency.median: expected a duration with its unit, such as 20s, not the number 20",
            "5:11 versions.new.pods: unknown value \"Crashloop\"; did you mean \"CrashLoop\"?",
            "7:3 load: expected a list, not an object",
            "8:12 timeLimit: expected a duration such as 30s or 1m30s, not \"forever\"",
            "10:18 webhooks.gate.status: expected a whole number from 100 to 599, not 99",
            "12:10 releases[0].tag: expected a text, not 6.1; put it in quotes",
        ]
    );
}

#[test]
fn percentages_are_seen_for_what_they_are() {
    let text = "versions: {new: {errorRate: 5}}";
    assert_eq!(problems(text), ["1:29 versions.new.errorRate: expected a number from 0 to 1, not 5; 5 % is 0.05"]);
}

#[test]
fn contradictions_are_refused() {
    let text = "\
releases:
  - {image: a, tag: b}
actions:
  - {action: Patch, name: a}
  - {action: Suspend, kind: Service, name: a}
prometheus:
  - {fault: Down, from: 2m, until: 90s}
metrics:
  a: {value: 1, error: 500}
";
    assert_eq!(
        problems(text),
        [
            "2:5 releases[0]: give an image or a tag, not both",
            "4:5 actions[0]: patch is needed with action Patch, and only there",
            "5:5 actions[1]: only a Canary can be suspended",
            "7:29 prometheus[0].until: it must end after it begins",
            "9:6 metrics.a: give one of value, noData and error",
        ]
    );
    assert_eq!(problems("a: [\n").len(), 1);
    assert_eq!(problems("---\nseed: 1\n---\nseed: 2\n"), ["4:1 : a scenario is one document; this is a second one"]);
}

#[test]
fn nothing_is_a_scenario_too() {
    for text in ["", "# a comment\n", "load: ~\n", "{}"] {
        let scenario = Scenario::parse(text).unwrap();
        assert_eq!((scenario.time_limit(), scenario.load.len()), (TIME_LIMIT, 0), "{text:?}");
    }
}

#[test]
fn later_changes_win_and_end() {
    let text = "\
versions:
  new:
    errorRate: 0.1
    changes:
      - {from: 10s, until: 30s, errorRate: 0.2}
      - {from: 20s, until: 25s, errorRate: 0.3, pods: CrashLoop}
metrics:
  a: {value: 1, changes: [{from: 10s, noData: true}]}
webhooks:
  b: {delay: 1s, changes: [{until: 10s, status: 500}]}
";
    let scenario = Scenario::parse(text).unwrap();
    let version = &scenario.versions["new"];
    let rate = |seconds: u64| version.at(Some(Duration::from_secs(seconds))).error_rate;
    assert_eq!([0, 10, 20, 25, 30].map(rate), [0.1, 0.2, 0.3, 0.2, 0.1].map(Some));
    assert_eq!(version.at(None).error_rate, Some(0.1));
    let metric = &scenario.metrics["a"];
    assert_eq!(metric.at(None).value, Some(1.0));
    assert_eq!(
        metric.at(Some(Duration::from_secs(10))),
        MetricAnswer { no_data: Some(true), ..MetricAnswer::default() }
    );
    let hook = &scenario.webhooks["b"];
    // The change does not hold before the release.
    assert_eq!([hook.at(None).status, hook.at(Some(Duration::ZERO)).status], [None, Some(500)]);
    assert_eq!(hook.at(Some(Duration::from_secs(10))).delay, Some(Duration::from_secs(1)));
}

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[test]
fn the_schema_is_up_to_date() {
    let path = docs().join("scenario.schema.json");
    let schema = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == schema,
        "docs/scenario.schema.json is not up to date: UPDATE_GENERATED=1 cargo test -p aviary"
    );
}

/// Paths of all fields, without positions in lists and names in maps.
fn paths(fields: &[Field], path: &str, found: &mut BTreeSet<String>) {
    fn inside(shape: &Shape, path: &str, found: &mut BTreeSet<String>) {
        match shape {
            Shape::Object(of) => paths(of, path, found),
            Shape::List(of) | Shape::Map(of) => inside(of, path, found),
            _ => {}
        }
    }
    for field in fields {
        let path = format!("{path}.{}", field.name);
        inside(&field.shape, &path, found);
        found.insert(path);
    }
}

fn used(value: &Value, shape: &Shape, path: &str, found: &mut BTreeSet<String>) {
    match (shape, value) {
        (Shape::Object(fields), Value::Object(entries)) => {
            for field in *fields {
                if let Some(value) = entries.get(field.name) {
                    let path = format!("{path}.{}", field.name);
                    used(value, &field.shape, &path, found);
                    found.insert(path);
                }
            }
        }
        (Shape::Map(of), Value::Object(entries)) => entries.values().for_each(|value| used(value, of, path, found)),
        (Shape::List(of), Value::Array(items)) => items.iter().for_each(|value| used(value, of, path, found)),
        _ => {}
    }
}

#[test]
fn one_example_has_every_field() {
    let text = std::fs::read_to_string(docs().join("scenarios/everything.yaml")).unwrap();
    let scenario = Scenario::parse(&text).unwrap();
    let mut missing = BTreeSet::new();
    paths(SCENARIO, "", &mut missing);
    let mut found = BTreeSet::new();
    used(&scenario.node.unwrap().to_value(), &Shape::Object(SCENARIO), "", &mut found);
    let missing: Vec<_> = missing.difference(&found).collect();
    // It cannot stand beside a value.
    assert_eq!(missing, [".metrics.error"]);
}

/// One row of a table for each field.
fn rows(fields: &[Field], path: &str, out: &mut String) {
    fn below(shape: &Shape, path: &str, out: &mut String) {
        match shape {
            Shape::Object(fields) => rows(fields, path, out),
            Shape::List(of) => below(of, &format!("{path}[]"), out),
            Shape::Map(of) => below(of, &format!("{path}.NAME"), out),
            _ => {}
        }
    }
    for field in fields {
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        let required = if field.required { ", required" } else { "" };
        out.push_str(&format!("| `{path}` | {}{required} | {} |\n", check::name(&field.shape), field.about));
        below(&field.shape, &path, out);
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let path = docs().join("scenario.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let start = "<!-- Generated: UPDATE_GENERATED=1 cargo test -p aviary -->\n";
    let end = "<!-- End of the generated part -->";
    let (before, rest) = page.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let mut table = "| field | what | meaning |\n|---|---|---|\n".to_owned();
    rows(SCENARIO, "", &mut table);
    let wanted = format!("{before}{start}{table}{end}{after}");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(page == wanted || std::fs::read_to_string(&path).unwrap() == wanted, "docs/scenario.md is not up to date");
}
