//! The engine beside a real Prometheus: the same series, the same questions, the same answers.
//!
//! Runs against `prometheus` of the `PATH` (Debian: `apt-get install prometheus`), or against every program that
//! `AVIARY_PROMETHEUS` lists, separated by colons; versions 2 and 3 are told apart by what they say of themselves. Without
//! one the test says aloud that it compared nothing; with `AVIARY_REQUIRE_PROMETHEUS=1`, as in CI, that is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "real_prometheus/data.rs"]
mod data;
#[path = "real_prometheus/queries.rs"]
mod queries;
#[path = "real_prometheus/remote_write.rs"]
mod remote_write;
#[path = "real_prometheus/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::Write;

use aviary_promql::api::{ApiError, success_body};
use aviary_promql::{EngineOptions, MemorySource, Query, QueryError, QueryValue, RangeBoundary, Series};
use serde_json::Value;

use data::START_MS;
use server::{Response, Server, encode};

const MINUTE: i64 = 60_000;

/// On the grid of some series and off it; at the edges of staleness and lookback; before the first sample and after the last.
const INSTANTS: [i64; 11] = [
    -1_000,
    0,
    45_000,
    5 * MINUTE,
    9 * MINUTE + 59_500,
    10 * MINUTE,
    10 * MINUTE + 1,
    14 * MINUTE + 50_000,
    16 * MINUTE + 12_345,
    25 * MINUTE + 700,
    33 * MINUTE,
];

/// Start, end and step of range queries, from the start of the data.
const RANGES: [(i64, i64, i64); 3] =
    [(0, 30 * MINUTE, 60_000), (9 * MINUTE + 1_234, 16 * MINUTE, 17_000), (29 * MINUTE, 36 * MINUTE, 5_000)];

#[test]
fn every_answer_is_the_one_that_prometheus_gives() {
    let binaries = std::env::var("AVIARY_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
    for binary in binaries.split(':') {
        let Some(server) = Server::start(binary) else {
            let required = std::env::var_os("AVIARY_REQUIRE_PROMETHEUS").is_some();
            assert!(!required, "{binary} is not installed");
            say(&format!("SKIPPED: {binary} is not installed, so nothing was compared with a real Prometheus"));
            continue;
        };
        if server.version.split(['+', '-']).next() != Some(pinned()) {
            say(&format!("{binary} is Prometheus {}; the pinned one is {}", server.version, pinned()));
        }
        compare(&server);
    }
}

/// Of `tests/real/versions`.
fn pinned() -> &'static str {
    let versions = include_str!("../../../tests/real/versions");
    versions.lines().find_map(|line| line.strip_prefix("PROMETHEUS=")).unwrap()
}

/// Aloud, which `eprintln!` is not: its lines are kept back where a test passes.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn compare(server: &Server) {
    let series = data::series();
    server.write(&series);
    let engine = Engine::over(&series, &server.version);
    let mut questions = queries::built_in();
    assert!(questions.len() >= 40, "only {} built-in queries", questions.len());
    questions.extend(queries::fixture_templates());
    questions.extend(queries::other_observers());
    questions.extend(queries::semantics());
    let mut tally = Tally::default();
    for query in &questions {
        for offset_ms in INSTANTS {
            let at_ms = START_MS + offset_ms;
            let real = server.get(&format!("/api/v1/query?time={}&query={}", seconds(at_ms), encode(query)));
            tally.compare(query, &format!("at {offset_ms} ms"), &real, engine.instant(query, at_ms));
        }
        for (from, until, step_ms) in RANGES {
            let (start_ms, end_ms) = (START_MS + from, START_MS + until);
            let real = server.get(&format!(
                "/api/v1/query_range?start={}&end={}&step={}&query={}",
                seconds(start_ms),
                seconds(end_ms),
                seconds(step_ms),
                encode(query),
            ));
            let own = engine.range(query, start_ms, end_ms, step_ms);
            tally.compare(query, &format!("over {from}..{until} ms by {step_ms}"), &real, own);
        }
    }
    let version = &server.version;
    let Tally { equal, values, refusals, differences } = tally;
    say(&format!(
        "Prometheus {version}: {} queries, {equal} equal answers with {values} values, {refusals} of them refusals, {} \
         queries with differences",
        questions.len(),
        differences.len()
    ));
    let shown: Vec<String> =
        differences.iter().map(|(query, difference)| format!("{query}\n    {difference}")).collect();
    assert!(differences.is_empty(), "{}", shown.join("\n"));
    // The comparison must have had something to compare.
    assert!(values > 100_000 && refusals > 100, "{values} values, {refusals} refusals");
}

struct Engine {
    source: MemorySource,
    options: EngineOptions,
}

impl Engine {
    fn over(series: &[Series], version: &str) -> Self {
        let mut source = MemorySource::default();
        for series in series {
            for (at_ms, value) in &series.samples {
                source.append_labels((*series.labels).clone(), *at_ms, *value);
            }
        }
        let boundary = if version.starts_with("2.") { RangeBoundary::Closed } else { RangeBoundary::LeftOpen };
        Self { source, options: EngineOptions { boundary, ..EngineOptions::default() } }
    }

    fn instant(&self, query: &str, at_ms: i64) -> Result<QueryValue, QueryError> {
        Query::parse(query)?.instant(&self.source, at_ms, &self.options)
    }

    fn range(&self, query: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<QueryValue, QueryError> {
        Query::parse(query)?.range(&self.source, start_ms, end_ms, step_ms, &self.options)
    }
}

#[derive(Default)]
struct Tally {
    equal: usize,
    values: usize,
    refusals: usize,
    /// The first difference of each query.
    differences: BTreeMap<String, String>,
}

impl Tally {
    fn compare(&mut self, query: &str, when: &str, real: &Response, own: Result<QueryValue, QueryError>) {
        let (status, body) = match own {
            Ok(value) => (200, success_body(&value)),
            Err(error) => {
                let error = ApiError::from(error);
                (error.status, error.body())
            }
        };
        let body: Value = serde_json::from_str(&body).unwrap();
        let difference = if real.status != status || real.body["errorType"] != body["errorType"] {
            Some(format!("real {} {}, own {status} {body}", real.status, shortened(&real.body)))
        } else if status != 200 {
            self.refusals += 1;
            None
        } else {
            let has_order = ["sort", "topk", "bottomk"].iter().any(|function| query.starts_with(function));
            let (real, own) = (normal(&real.body["data"], has_order), normal(&body["data"], has_order));
            self.values += count(&real);
            difference(&real, &own)
        };
        match difference {
            None => self.equal += 1,
            Some(difference) => {
                self.differences.entry(query.to_owned()).or_insert_with(|| format!("{when}: {difference}"));
            }
        }
    }
}

/// The data with the elements of a vector in the order of their labels, except where the query asked for an order.
fn normal(data: &Value, has_order: bool) -> Value {
    let mut data = data.clone();
    let is_matrix = data["resultType"] == "matrix";
    if (is_matrix || !has_order)
        && let Some(elements) = data["result"].as_array_mut()
    {
        elements.sort_by_key(|element| element["metric"].to_string());
    }
    data
}

/// The first place where two answers differ. Numbers may differ in their last digits: servers add up in an order of
/// their own.
fn difference(real: &Value, own: &Value) -> Option<String> {
    let differ = || Some(format!("real {}, own {}", shortened(real), shortened(own)));
    match (real, own) {
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                return differ();
            }
            left.iter().zip(right).find_map(|(left, right)| {
                let found = difference(left, right)?;
                let label = left.get("metric").map(|metric| format!("{metric} ")).unwrap_or_default();
                let time = left.as_array().is_none() && label.is_empty();
                Some(if time { format!("{found} in {}", shortened(real)) } else { format!("{label}{found}") })
            })
        }
        (Value::Object(left), Value::Object(right)) => {
            if left.len() != right.len() {
                return differ();
            }
            left.iter().find_map(|(key, left)| match right.get(key) {
                Some(right) => difference(left, right),
                None => differ(),
            })
        }
        (Value::String(left), Value::String(right)) if left != right => {
            match (left.parse::<f64>(), right.parse::<f64>()) {
                (Ok(left), Ok(right)) if (left - right).abs() <= 1e-12_f64.max(1e-13 * left.abs()) => None,
                _ => differ(),
            }
        }
        _ if real == own => None,
        _ => differ(),
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    // Enough to see the first few elements.
    text.chars().take(400).collect()
}

fn count(data: &Value) -> usize {
    let elements = data["result"].as_array().map_or(&[][..], Vec::as_slice);
    elements.iter().map(|element| element["values"].as_array().map_or(1, Vec::len)).sum()
}

#[allow(clippy::cast_precision_loss)]
fn seconds(milliseconds: i64) -> String {
    format!("{:.3}", milliseconds as f64 / 1000.0)
}
