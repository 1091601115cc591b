//! The report for people.

use std::io::{self, Write};
use std::time::Duration;

use aviary_crds::Phase;
use aviary_crds::duration::format_go_duration;

use super::report::{CanaryReport, Report, RowReport, Totals, Verdict};
use super::timeline::{CheckValue, RowKind};
use crate::colors::{self, BOLD, CYAN, DIM, GREEN, RED, YELLOW};

struct Painter {
    color: bool,
}

impl Painter {
    fn paint(&self, color: &str, text: &str) -> String {
        colors::paint(self.color, color, text)
    }
}

/// Writes timelines and verdicts.
pub(crate) fn print(report: &Report, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let painter = Painter { color };
    if let Some(description) = &report.description {
        writeln!(out, "{}\n", description.trim())?;
    }
    for canary in &report.canaries {
        timeline(canary, &painter, out)?;
    }
    for canary in &report.canaries {
        verdict(canary, &painter, out)?;
    }
    if let Some(api) = report.api {
        let faults = if api.faults > 0 { format!(", {} calls hit by faults", api.faults) } else { String::new() };
        let (writes, events, reads) = (api.writes, api.event_writes, api.reads);
        writeln!(out, "API calls of the operator: {writes} writes, {events} of events, {reads} reads{faults}")?;
    }
    Ok(())
}

fn timeline(canary: &CanaryReport, painter: &Painter, out: &mut dyn Write) -> io::Result<()> {
    let title = format!("{} {}.{}", canary.kind, canary.name, canary.namespace);
    writeln!(out, "{}  {}, provider {}\n", painter.paint(BOLD, &title), canary.target, canary.provider)?;
    let phase_width = canary.timeline.iter().map(|row| row.phase.to_string().len()).max().unwrap_or(0).max(5);
    let header = format!("{:>9}  {:phase_width$}  {:>6}  WHAT", "TIME", "PHASE", "WEIGHT");
    writeln!(out, "{}", painter.paint(DIM, &header))?;
    for row in &canary.timeline {
        let time = painter.paint(DIM, &format!("{:>9}", time(row.at_seconds)));
        let weight = if row.phase == Phase::Uninitialized { String::new() } else { row.weight.to_string() };
        let message = painter.paint(color(row), &words(row));
        writeln!(out, "{time}  {:phase_width$}  {weight:>6}  {message}", row.phase.to_string())?;
        if let Some(checks) = checks(row, painter) {
            writeln!(out, "{:>9}  {:phase_width$}  {:>6}    {checks}", "", "", "")?;
        }
    }
    writeln!(out)
}

fn words(row: &RowReport) -> String {
    match row.kind {
        RowKind::Normal | RowKind::Warning => row.message.clone(),
        RowKind::Release => format!("$ {}", row.message),
        RowKind::Action => format!("* {}", row.message),
        RowKind::Alert => format!("alert: {}", row.message),
    }
}

fn color(row: &RowReport) -> &'static str {
    match row.kind {
        RowKind::Warning => YELLOW,
        RowKind::Release | RowKind::Action => BOLD,
        RowKind::Alert => CYAN,
        RowKind::Normal => "",
    }
}

/// Values, limits and the size of the sample.
fn checks(row: &RowReport, painter: &Painter) -> Option<String> {
    let mut parts: Vec<String> = row.checks.iter().map(|check| value(check, painter)).collect();
    if let Some(sample) = row.sample {
        let failed = if sample.failed > 0 { format!(", {} failed", sample.failed) } else { String::new() };
        parts.push(painter.paint(DIM, &format!("{} requests to the canary{failed}", sample.requests)));
    }
    (!parts.is_empty()).then(|| parts.join(painter.paint(DIM, " · ").as_str()))
}

fn value(check: &CheckValue, painter: &Painter) -> String {
    let unit = match check.metric.as_str() {
        "request-success-rate" => " %",
        "request-duration" => " ms",
        _ => "",
    };
    let limits = [("min", check.min), ("max", check.max)];
    let limits: Vec<String> = limits.iter().filter_map(|(name, limit)| Some(format!("{name} {}", (*limit)?))).collect();
    let limits = if limits.is_empty() { String::new() } else { format!(" ({})", limits.join(", ")) };
    let text = format!("{} {}{unit}{limits}", check.metric, number(check.value));
    painter.paint(if check.passed { DIM } else { RED }, &text)
}

/// At most two decimals, as in the operator's messages.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.strip_suffix(".00").map_or(text.clone(), str::to_owned)
}

/// Tenths of seconds below ten seconds, and whole seconds above: no interval is shorter than ten.
fn time(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let seconds = seconds.abs();
    let step = if seconds < 10.0 { 10.0 } else { 1.0 };
    let rounded = Duration::try_from_secs_f64((seconds * step).round() / step).unwrap_or_default();
    let text = format_go_duration(rounded);
    if rounded.is_zero() { text } else { format!("{sign}{text}") }
}

fn verdict(canary: &CanaryReport, painter: &Painter, out: &mut dyn Write) -> io::Result<()> {
    let color = if canary.verdict == Verdict::Promoted { GREEN } else { RED };
    let word = canary.verdict.words().to_uppercase();
    let last = canary.releases.last();
    let what = last.map(|release| format!(": {}", release.image)).unwrap_or_default();
    let took = last.and_then(|release| release.duration_seconds).map(|seconds| format!(", after {}", time(seconds)));
    let took = took.unwrap_or_default();
    writeln!(out, "{} {}.{}{what}{took}", painter.paint(color, &word), canary.name, canary.namespace)?;
    for reason in &canary.reasons {
        writeln!(out, "  {reason}")?;
    }
    if canary.releases.len() > 1 {
        for release in &canary.releases {
            writeln!(out, "  at {}: {} {}", time(release.start_seconds), release.image, release.verdict.words())?;
        }
    }
    let requests = canary.requests;
    writeln!(out, "  {:<26}{:>10}{:>10}", "", "REQUESTS", "FAILED")?;
    let mut row =
        |name: &str, totals: Totals| writeln!(out, "  {name:<26}{:>10}{:>10}", totals.requests, totals.failed);
    row("users", requests.total)?;
    row("  answered by the primary", requests.primary)?;
    row("  answered by the canary", requests.canary)?;
    if requests.unanswered.requests > 0 {
        row("  answered by nobody", requests.unanswered)?;
    }
    for webhook in &canary.webhooks {
        let refused = if webhook.refused > 0 { format!(", {} refused", webhook.refused) } else { String::new() };
        let calls = if webhook.calls == 1 { "call" } else { "calls" };
        writeln!(out, "  webhook {}: {} {calls}{refused}", webhook.name, webhook.calls)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_short() {
        let times = [0.0, 0.04, 3.25, 10.4, 61.0, 3600.0, -63.2, -0.001];
        assert_eq!(times.map(time), ["0s", "0s", "3.3s", "10s", "1m1s", "1h0m0s", "-1m3s", "0s"]);
        assert_eq!([99.0, 90.386, 0.5].map(number), ["99", "90.39", "0.50"]);
    }
}
