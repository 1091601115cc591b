//! What the demo prints: lines, and on a terminal a picture of the rollout below them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use aviary_actors::Metrics;
use aviary_crds::Phase;
use jiff::Timestamp;
use prometheus::core::Collector;

use super::rollout::{Line, Rollout};
use super::{BAD, NAME, NAMESPACE, Options};
use crate::args::Speed;
use crate::colors::{self, BOLD, CYAN, DIM, GREEN, RED, YELLOW};

/// Real time between two pictures.
const PICTURE_INTERVAL: Duration = Duration::from_millis(100);
/// Cluster time between two pictures where the clock is not held back.
const PICTURE_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Columns of a bar; one stands for 2.5 %.
const BAR_WIDTH: u32 = 40;

pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    options: Options,
    /// Lines of the picture that stands below the cursor's start.
    picture_lines: usize,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write, options: &Options) -> Screen<'a> {
        Screen { out, options: options.clone(), picture_lines: 0 }
    }

    pub(super) fn error_rate(&self, version: &str) -> f64 {
        if version == BAD { self.options.bad_error_rate } else { self.options.good_error_rate }
    }

    /// Says what runs.
    pub(super) fn introduce(&mut self, users: f64) -> io::Result<()> {
        let speed = match self.options.speed {
            Speed::Times(times) => format!("{times} times as fast as yours"),
            Speed::Max => "as fast as it can".to_owned(),
        };
        self.line(&format!(
            "The operator on an embedded cluster, with users who send {users} requests per second. Its clock runs {speed}."
        ))?;
        self.line("Lines with a time are Events and phases of the Canary, read through the API.")
    }

    /// Something that the demo does itself.
    pub(super) fn act(&mut self, command: &str, explanation: &str) -> io::Result<()> {
        let line = format!(
            "\n{}\n{}",
            self.paint(BOLD, &format!("$ {command}")),
            self.paint(DIM, &format!("# {explanation}"))
        );
        self.line(&line)
    }

    /// Something that the API showed.
    pub(super) fn news(&mut self, line: &Line) -> io::Result<()> {
        let time = line.time.map_or_else(|| " ".repeat(8), |time| time.strftime("%H:%M:%S").to_string());
        let seen = if line.count > 1 { format!("  (x{})", line.count) } else { String::new() };
        let text = format!("{:<7}  {:<6}  canary/{NAME}  {}{seen}", line.kind, line.reason, line.message);
        let text = match line.kind.as_str() {
            "Warning" => self.paint(YELLOW, &text),
            "Phase" => self.paint(CYAN, &text),
            _ => text,
        };
        self.line(&format!("{}  {text}", self.paint(DIM, &time)))
    }

    /// A line above the picture.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.erase_picture()?;
        writeln!(self.out, "{text}")
    }

    /// Ends the live part.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.erase_picture()?;
        writeln!(self.out)
    }

    /// Waits until it is time for the next picture; for ever where there is none.
    pub(super) async fn next_picture(&self) {
        if !self.options.live {
            return std::future::pending().await;
        }
        tokio::time::sleep(match self.options.speed {
            Speed::Times(times) => PICTURE_INTERVAL.mul_f64(times),
            Speed::Max => PICTURE_INTERVAL_MAX,
        })
        .await;
    }

    /// Draws the rollout as it is now.
    pub(super) fn draw(&mut self, rollout: &Rollout, metrics: &Metrics, now: Timestamp) -> io::Result<()> {
        if !self.options.live {
            return self.out.flush();
        }
        let phase = rollout.phase();
        let phase_color = match phase {
            Phase::Succeeded | Phase::Initialized => GREEN,
            Phase::Failed => RED,
            _ => CYAN,
        };
        let (failed, threshold) = rollout.failed_checks();
        let columns = terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| usize::from(width.0));
        let header = [
            (BOLD, format!("{NAME}.{NAMESPACE}")),
            (phase_color, format!("  {:<16}", phase.to_string())),
            ("", format!("  failed checks {failed} of {threshold}")),
        ];
        let clock = (DIM, now.strftime("  %H:%M:%S cluster time").to_string());
        let width: usize = header.iter().chain([&clock]).map(|(_, text)| text.chars().count()).sum();
        let clock = Some(clock).filter(|_| width <= columns);
        let header: Vec<_> = header.into_iter().chain(clock).collect();
        let mut lines = vec![
            Vec::new(),
            header,
            bar("primary", 100 - rollout.weight(), GREEN),
            bar("canary", rollout.weight(), YELLOW),
        ];
        lines.extend(rollout.checks().into_iter().map(|check| {
            let value = last_value(metrics, &check.name).unwrap_or_else(|| "-".to_owned());
            vec![("", format!("  {:<22}{value:>8}   ", check.name)), (DIM, check.limit)]
        }));
        let picture: Vec<String> = lines.iter().map(|line| self.fit(line, columns)).collect();
        self.erase_picture()?;
        // Without wrapping, a picture has as many lines in a narrow terminal as in a wide one.
        write!(self.out, "\x1b[?7l{}\n\x1b[?7h", picture.join("\n"))?;
        self.picture_lines = picture.len();
        self.out.flush()
    }

    fn erase_picture(&mut self) -> io::Result<()> {
        if self.picture_lines > 0 {
            write!(self.out, "\x1b[{}F\x1b[J", self.picture_lines)?;
            self.picture_lines = 0;
        }
        Ok(())
    }

    /// A line in colour, cut where the terminal ends.
    fn fit(&self, line: &[(&str, String)], columns: usize) -> String {
        let mut room = columns;
        let mut fitted = String::new();
        for (color, text) in line {
            let text: String = text.chars().take(room).collect();
            room -= text.chars().count();
            if color.is_empty() || text.is_empty() {
                fitted.push_str(&text);
            } else {
                fitted.push_str(&self.paint(color, &text));
            }
        }
        fitted
    }

    pub(super) fn verdict(&self, text: &str, is_good: bool) -> String {
        self.paint(if is_good { GREEN } else { RED }, text)
    }

    pub(super) fn title(&self, text: &str) -> String {
        self.paint(BOLD, text)
    }

    fn paint(&self, color: &str, text: &str) -> String {
        colors::paint(self.options.color, color, text)
    }
}

fn bar(name: &str, percent: u32, color: &'static str) -> Vec<(&'static str, String)> {
    let filled = (percent * BAR_WIDTH).div_ceil(100);
    vec![
        ("", format!("  {name:<8}")),
        (color, "█".repeat(filled as usize)),
        (DIM, "░".repeat((BAR_WIDTH - filled) as usize)),
        ("", format!(" {percent:>3} %")),
    ]
}

/// The value that the operator measured last, from its metric `flagger_canary_metric_analysis`, in the unit of the limit.
fn last_value(metrics: &Metrics, check: &str) -> Option<String> {
    let families = metrics.metric_analysis.collect();
    let mut series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
    let of_check = |series: &&prometheus::proto::Metric| {
        series.get_label().iter().any(|label| label.name() == "metric" && label.value() == check)
    };
    let value = series.rfind(of_check)?.get_gauge().get_value();
    let mut text = String::new();
    // The metric of Flagger's built-in duration is in seconds, and its limit in milliseconds.
    let written = match check {
        "request-duration" => write!(text, "{:.0} ms", value * 1000.0),
        "request-success-rate" => write!(text, "{value:.2} %"),
        _ => write!(text, "{value:.2}"),
    };
    written.ok().map(|()| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_the_terminal_ends() {
        let mut out = Vec::new();
        let options = Options { speed: Speed::Max, good_error_rate: 0.0, bad_error_rate: 0.0, live: true, color: true };
        let screen = Screen::new(&mut out, &options);
        let line = [("", "a ".to_owned()), (RED, "███".to_owned()), (DIM, "x".to_owned())];
        assert_eq!(screen.fit(&line, 4), "a \x1b[31m██\x1b[0m");
        assert_eq!(screen.fit(&line, 80), "a \x1b[31m███\x1b[0m\x1b[2mx\x1b[0m");
    }
}
