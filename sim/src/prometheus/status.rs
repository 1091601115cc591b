//! `/api/v1/status/…`: what Prometheus says of its build, its settings and its storage. Grafana reads the version and the
//! retention, people read the rest.

use std::collections::{BTreeMap, BTreeSet};

use aviary_promql::{METRIC_NAME, RangeBoundary, SeriesSource};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::own::{INSTANCE, JOB, Scraped, interval_text};

/// Names in each of the statistics of the storage (Prometheus' default).
const MOST_NAMES: usize = 10;

/// The `data` of the answer; `None` for what is not served.
pub(super) fn status(source: &Scraped<'_>, what: &str) -> Option<Value> {
    Some(match what {
        "buildinfo" => build_info(source.version),
        "config" => config(source),
        "flags" => flags(source),
        "runtimeinfo" => runtime_info(source),
        "tsdb" => storage(source),
        "walreplay" => json!({"min": 0, "max": 0, "current": 0}),
        _ => return None,
    })
}

fn build_info(version: RangeBoundary) -> Value {
    let version = match version {
        RangeBoundary::Closed => "2.42.0",
        RangeBoundary::LeftOpen => "3.0.0",
    };
    json!({
        "version": version, "revision": "aviary", "branch": "HEAD", "buildUser": "aviary-sim",
        "buildDate": "20260101-00:00:00", "goVersion": "none",
    })
}

fn config(source: &Scraped<'_>) -> Value {
    let interval = interval_text(source.traffic.scrape_interval_ms());
    json!({"yaml": format!(
        "global:\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  evaluation_interval: 1m\nscrape_configs:\n- \
         job_name: {JOB}\n  static_configs:\n  - targets:\n    - {INSTANCE}\n"
    )})
}

fn flags(source: &Scraped<'_>) -> Value {
    json!({
        "config.file": "/etc/prometheus/prometheus.yml", "enable-feature": "", "log.format": "logfmt", "log.level": "info",
        "query.lookback-delta": "5m", "query.max-concurrency": "20", "query.max-samples": "50000000", "query.timeout": "2m",
        "storage.tsdb.path": "data/", "storage.tsdb.retention": "0s", "storage.tsdb.retention.size": "0B",
        "storage.tsdb.retention.time": retention(source), "web.cors.origin": ".*", "web.enable-admin-api": "false",
        "web.enable-lifecycle": "false", "web.enable-remote-write-receiver": "false", "web.external-url": "",
        "web.listen-address": "0.0.0.0:9090", "web.page-title": "Prometheus Time Series Collection and Processing Server",
    })
}

/// As long as the traffic model remembers.
fn retention(source: &Scraped<'_>) -> String {
    const HOUR_MS: i64 = 3_600_000;
    let history_ms = source.traffic.history_ms();
    if history_ms % HOUR_MS == 0 { format!("{}h", history_ms / HOUR_MS) } else { interval_text(history_ms) }
}

fn runtime_info(source: &Scraped<'_>) -> Value {
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or_default().to_string();
    json!({
        "startTime": time(source.since_ms), "CWD": "/prometheus", "hostname": JOB,
        "serverTime": time(source.traffic.now_ms()), "reloadConfigSuccess": true, "lastConfigTime": time(source.since_ms),
        "corruptionCount": 0, "goroutineCount": 1, "GOMAXPROCS": 1, "GOMEMLIMIT": i64::MAX, "GOGC": "", "GODEBUG": "",
        "storageRetention": retention(source),
    })
}

/// How many series there are, and of which names and labels.
fn storage(source: &Scraped<'_>) -> Value {
    let now_ms = source.traffic.now_ms();
    let series = source.select(&[], now_ms.saturating_sub(source.traffic.history_ms()), now_ms);
    let mut by_metric: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_pair: BTreeMap<String, usize> = BTreeMap::new();
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for labels in series.iter().map(|series| &series.labels) {
        *by_metric.entry(labels.get(METRIC_NAME).unwrap_or_default()).or_default() += 1;
        for (name, value) in labels.iter() {
            *by_pair.entry(format!("{name}={value}")).or_default() += 1;
            values.entry(name).or_default().insert(value);
        }
    }
    let pairs: usize = values.values().map(BTreeSet::len).sum();
    let bytes = values.iter().map(|(name, values)| (*name, values.iter().map(|value| value.len()).sum::<usize>()));
    let times = || series.iter().flat_map(|series| series.samples.iter().map(|(at_ms, _)| *at_ms));
    json!({
        "headStats": {
            "numSeries": series.len(), "numLabelPairs": pairs, "chunkCount": series.len(),
            "minTime": times().min().unwrap_or(now_ms), "maxTime": times().max().unwrap_or(now_ms),
        },
        "seriesCountByMetricName": largest(by_metric.iter().map(|(name, count)| (*name, *count))),
        "labelValueCountByLabelName": largest(values.iter().map(|(name, values)| (*name, values.len()))),
        "memoryInBytesByLabelName": largest(bytes),
        "seriesCountByLabelValuePair": largest(by_pair.iter().map(|(pair, count)| (pair.as_str(), *count))),
    })
}

fn largest<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> Vec<Value> {
    let mut counts: Vec<(&str, usize)> = counts.collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(MOST_NAMES).map(|(name, value)| json!({"name": name, "value": value})).collect()
}
