//! What one can ask a Prometheus for besides values: label names and values, series, metadata. Grafana's query editor and
//! completion live on it.

use std::collections::BTreeSet;

use aviary_promql::api::ApiError;
use aviary_promql::{Series, SeriesSource, format_query, parse_selector};
use serde_json::{Map, Value, json};

use super::own::{Scraped, targets};
use super::parameters::{Parameters, decode, parse_time};

/// How far back series are looked for where the request does not say: as long as the traffic model remembers.
const DEFAULT_RANGE_MS: i64 = 3_600_000;

/// Type and help of every metric.
const METADATA: [(&str, &str, &str); 5] = [
    ("up", "gauge", "1 if the last scrape succeeded, 0 if it failed."),
    ("istio_requests_total", "counter", "requests_total"),
    ("istio_request_duration_milliseconds", "histogram", "request_duration_milliseconds"),
    ("http_requests_total", "counter", "The total number of HTTP requests."),
    ("http_request_duration_seconds", "histogram", "Seconds spent serving HTTP requests."),
];

/// Whether a path belongs here.
pub(super) fn is_served(path: &str) -> bool {
    label_of(path).is_some()
        || matches!(
            path,
            "/api/v1/labels"
                | "/api/v1/series"
                | "/api/v1/metadata"
                | "/api/v1/format_query"
                | "/api/v1/rules"
                | "/api/v1/alerts"
                | "/api/v1/targets"
                | "/api/v1/query_exemplars"
        )
}

/// The label of `/api/v1/label/<name>/values`.
fn label_of(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v1/label/")?.strip_suffix("/values")
}

/// The `data` of the answer. Where the server `finds` nothing, there are no series.
pub(super) fn answer(
    source: &Scraped<'_>,
    path: &str,
    parameters: &Parameters,
    finds: bool,
) -> Result<Value, ApiError> {
    let series = || if finds { select(source, parameters) } else { Ok(Vec::new()) };
    if let Some(label) = label_of(path) {
        let label = decode(label);
        let found = series()?;
        let values: BTreeSet<&str> = found.iter().filter_map(|series| series.labels.get(&label)).collect();
        return Ok(json!(values));
    }
    Ok(match path {
        "/api/v1/labels" => {
            let found = series()?;
            let names: BTreeSet<&str> =
                found.iter().flat_map(|series| series.labels.iter().map(|(name, _)| name)).collect();
            json!(names)
        }
        "/api/v1/series" => {
            if parameters.all("match[]").next().is_none() {
                return Err(ApiError::bad_data("no match[] parameter provided"));
            }
            series()?.iter().map(labels).collect()
        }
        "/api/v1/metadata" => metadata(parameters),
        "/api/v1/format_query" => json!(format_query(parameters.get("query").unwrap_or_default())?),
        "/api/v1/rules" => json!({"groups": []}),
        "/api/v1/alerts" => json!({"alerts": []}),
        "/api/v1/targets" => targets(source),
        _ => json!([]),
    })
}

/// The series that any of the selectors finds, each once, sorted by labels; all where there is no selector.
fn select(source: &Scraped<'_>, parameters: &Parameters) -> Result<Vec<Series>, ApiError> {
    let time = |name: &str| parameters.get(name).map(|text| parse_time(name, text)).transpose();
    let end_ms = time("end")?.unwrap_or_else(|| source.traffic.now_ms());
    let start_ms = time("start")?.unwrap_or(end_ms - DEFAULT_RANGE_MS);
    let mut selectors = Vec::new();
    for text in parameters.all("match[]") {
        selectors.push(parse_selector(text).map_err(ApiError::from)?);
    }
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    let mut found: Vec<Series> =
        selectors.iter().flat_map(|matchers| source.select(matchers, start_ms, end_ms)).collect();
    found.sort_by(|left, right| left.labels.cmp(&right.labels));
    found.dedup_by(|left, right| left.labels == right.labels);
    Ok(found)
}

fn labels(series: &Series) -> Value {
    series.labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>().into()
}

fn metadata(parameters: &Parameters) -> Value {
    let wanted = parameters.get("metric");
    let limit = parameters.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let metrics = METADATA.iter().filter(|(name, ..)| wanted.is_none_or(|wanted| wanted == *name)).take(limit);
    let entries =
        metrics.map(|(name, kind, help)| ((*name).to_owned(), json!([{"type": kind, "help": help, "unit": ""}])));
    entries.collect::<Map<_, _>>().into()
}
