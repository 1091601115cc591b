//! What Prometheus says of itself: the series `up`, which is what people ask for first, and the target behind it.
//!
//! The pods have no such series: nobody scrapes them one by one here.

use std::sync::Arc;

use aviary_promql::{Labels, METRIC_NAME, Matcher, RangeBoundary, Series, SeriesSource};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::traffic::Traffic;

pub(super) const JOB: &str = "prometheus";
pub(super) const INSTANCE: &str = "localhost:9090";

/// Names of all metrics that there can be.
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    Traffic::metric_names().chain(std::iter::once("up"))
}

/// The series of the traffic, and `up` since a moment.
pub(super) struct Scraped<'a> {
    pub(super) traffic: &'a Traffic,
    /// Whose labels the series have.
    pub(super) version: RangeBoundary,
    pub(super) since_ms: i64,
}

impl SeriesSource for Scraped<'_> {
    fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let mut series = self.traffic.series(self.version, matchers, start_ms, end_ms);
        // Almost every query names another metric.
        let may_match = matchers.iter().all(|matcher| matcher.name() != METRIC_NAME || matcher.matches("up"));
        if !may_match {
            return series;
        }
        let labels = Labels::from_iter([(METRIC_NAME, "up"), ("instance", INSTANCE), ("job", JOB)]);
        if !matchers.iter().all(|matcher| matcher.matches_labels(&labels)) {
            return series;
        }
        let end_ms = end_ms.min(self.traffic.now_ms());
        let interval_ms = self.traffic.scrape_interval_ms();
        let skipped = (start_ms - self.since_ms).max(0).saturating_add(interval_ms - 1) / interval_ms;
        let first_ms = self.since_ms + skipped * interval_ms;
        let scrapes = std::iter::successors(Some(first_ms), |at_ms| at_ms.checked_add(interval_ms));
        let samples: Vec<_> = scrapes.take_while(|at_ms| *at_ms <= end_ms).map(|at_ms| (at_ms, 1.0)).collect();
        if !samples.is_empty() {
            series.push(Series { labels: Arc::new(labels), samples });
        }
        series
    }
}

/// The `data` of `/api/v1/targets`.
pub(super) fn targets(source: &Scraped<'_>) -> Value {
    let interval_ms = source.traffic.scrape_interval_ms();
    let interval = interval_text(interval_ms);
    let ago = (source.traffic.now_ms() - source.since_ms).rem_euclid(interval_ms);
    let scraped = Timestamp::from_millisecond(source.traffic.now_ms() - ago).unwrap_or_default();
    let url = format!("http://{INSTANCE}/metrics");
    json!({
        "activeTargets": [{
            "discoveredLabels": {
                "__address__": INSTANCE, "__metrics_path__": "/metrics", "__scheme__": "http", "__scrape_interval__": interval,
                "__scrape_timeout__": interval, "job": JOB,
            },
            "labels": {"instance": INSTANCE, "job": JOB}, "scrapePool": JOB, "scrapeUrl": url, "globalUrl": url,
            "lastError": "", "lastScrape": scraped.to_string(), "lastScrapeDuration": 0.001, "health": "up",
            "scrapeInterval": interval, "scrapeTimeout": interval,
        }],
        "droppedTargets": [], "droppedTargetCounts": {JOB: 0},
    })
}

/// `5s`, or `500ms`.
pub(super) fn interval_text(interval_ms: i64) -> String {
    if interval_ms % 1000 == 0 { format!("{}s", interval_ms / 1000) } else { format!("{interval_ms}ms") }
}
