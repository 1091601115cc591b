//! Counters that are computed when they are asked for.
//!
//! Rates are constant between two changes of the cluster, so a counter at any moment is a straight line from the last
//! change. Nothing runs while nothing changes.

use std::collections::VecDeque;

use aviary_promql::{Sample, stale_marker};

use super::behaviour::{BUCKET_BOUNDS_MS, Latency};

/// Requests, or requests per second, and what their histogram holds. Fractions are kept; [`whole`] makes requests of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    count: f64,
    sum_ms: f64,
    buckets: [f64; BUCKET_BOUNDS_MS.len()],
}

impl Totals {
    pub(crate) fn new(requests: f64, latency: Latency) -> Self {
        Self {
            count: requests,
            sum_ms: requests * latency.mean_ms(),
            buckets: latency.cumulative().map(|share| requests * share),
        }
    }

    pub(crate) fn plus(mut self, other: &Self, factor: f64) -> Self {
        self.count += other.count * factor;
        self.sum_ms += other.sum_ms * factor;
        for (bucket, other) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += other * factor;
        }
        self
    }

    fn part(&self, part: Part) -> f64 {
        match part {
            Part::Count => self.count,
            Part::SumMs => self.sum_ms,
            Part::SumSeconds => self.sum_ms / 1000.0,
            Part::Bucket(index) => self.buckets.get(index).copied().unwrap_or(self.count),
        }
    }
}

/// What a series shows of a [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Whole requests.
    Count,
    /// The sum of their durations in milliseconds.
    SumMs,
    /// The same in seconds.
    SumSeconds,
    /// Whole requests up to a bound; the index after the last bound is `+Inf`.
    Bucket(usize),
}

/// When a series is scraped: at every multiple of the interval plus the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScrapeGrid {
    pub(crate) interval_ms: i64,
    pub(crate) offset_ms: i64,
}

impl ScrapeGrid {
    fn first_at_or_after(self, time_ms: i64) -> i64 {
        let since = (time_ms - self.offset_ms).rem_euclid(self.interval_ms);
        if since == 0 { time_ms } else { time_ms + self.interval_ms - since }
    }
}

/// Requests of one kind since the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pieces: VecDeque<Piece>,
    /// How long past rates are remembered.
    history_ms: i64,
}

#[derive(Clone, Debug)]
struct Piece {
    start_ms: i64,
    before: Totals,
    per_second: Totals,
    /// Whether there is a process that counts.
    counts: bool,
}

impl Piece {
    #[allow(clippy::cast_precision_loss)]
    fn at(&self, at_ms: i64) -> Totals {
        let elapsed_seconds = (at_ms - self.start_ms) as f64 / 1000.0;
        self.before.plus(&self.per_second, elapsed_seconds)
    }

    #[allow(clippy::cast_precision_loss)]
    fn part_at(&self, part: Part, at_ms: i64) -> f64 {
        let elapsed_seconds = (at_ms - self.start_ms) as f64 / 1000.0;
        self.before.part(part) + self.per_second.part(part) * elapsed_seconds
    }
}

impl Counter {
    /// One that remembers its rates for this long.
    pub(crate) fn new(history_ms: i64) -> Self {
        Self { pieces: VecDeque::new(), history_ms }
    }

    /// The rate from `now_ms` on. After [`Self::stop`] the count begins again at zero.
    pub(crate) fn set_rate(&mut self, now_ms: i64, per_second: Totals) {
        let before = match self.pieces.back_mut() {
            None => Totals::default(),
            Some(piece) if !piece.counts && per_second == Totals::default() => return,
            Some(piece) if piece.start_ms >= now_ms => {
                piece.per_second = per_second;
                piece.counts = true;
                return;
            }
            Some(piece) => piece.at(now_ms),
        };
        self.push(Piece { start_ms: now_ms, before, per_second, counts: true });
    }

    /// The processes that counted are gone, and what they counted with them.
    pub(crate) fn stop(&mut self, now_ms: i64) {
        if self.pieces.back().is_none_or(|piece| !piece.counts) {
            return;
        }
        let zero = Totals::default();
        self.push(Piece { start_ms: now_ms, before: zero, per_second: zero, counts: false });
    }

    fn push(&mut self, piece: Piece) {
        let oldest_ms = piece.start_ms.saturating_sub(self.history_ms);
        self.pieces.push_back(piece);
        while self.pieces.get(1).is_some_and(|second| second.start_ms < oldest_ms) {
            self.pieces.pop_front();
        }
    }

    /// The samples that scrapes took in `start_ms..=end_ms`.
    #[cfg(test)]
    pub(crate) fn samples(&self, part: Part, grid: ScrapeGrid, start_ms: i64, end_ms: i64) -> Vec<Sample> {
        samples(&[self], part, grid, start_ms, end_ms)
    }

    /// Position of the piece that holds at a moment.
    fn piece_at(&self, at_ms: i64) -> Option<usize> {
        self.pieces.partition_point(|piece| piece.start_ms <= at_ms).checked_sub(1)
    }
}

/// What scrapes in `start_ms..=end_ms` saw of the sum of several counters of one process. A series begins with its first
/// whole request; the first scrape that finds its process gone ends it with a stale marker.
pub(crate) fn samples(counters: &[&Counter], part: Part, grid: ScrapeGrid, start_ms: i64, end_ms: i64) -> Vec<Sample> {
    let mut samples = Vec::new();
    let Some(first_ms) = counters.iter().filter_map(|counter| counter.pieces.front()).map(|piece| piece.start_ms).min()
    else {
        return samples;
    };
    let mut at_ms = grid.first_at_or_after(start_ms.max(first_ms));
    while at_ms <= end_ms {
        let now = reading(counters, part, at_ms);
        if now.exists {
            samples.push((at_ms, if now.is_sum { now.value } else { whole(now.value) }));
        } else if reading(counters, part, at_ms - grid.interval_ms).exists {
            samples.push((at_ms, stale_marker()));
        }
        at_ms += grid.interval_ms;
    }
    samples
}

/// What a scrape reads.
struct Reading {
    value: f64,
    is_sum: bool,
    exists: bool,
}

fn reading(counters: &[&Counter], part: Part, at_ms: i64) -> Reading {
    let is_sum = matches!(part, Part::SumMs | Part::SumSeconds);
    let (mut value, mut count) = (0.0, 0.0);
    for counter in counters {
        let Some(piece) = counter.piece_at(at_ms).map(|index| &counter.pieces[index]).filter(|piece| piece.counts)
        else {
            continue;
        };
        value += piece.part_at(part, at_ms);
        count += piece.part_at(Part::Count, at_ms);
    }
    Reading { value, is_sum, exists: whole(count) >= 1.0 }
}

/// Whole requests. What rounding takes from a sum of products must not take a request, so a millionth is given back.
fn whole(requests: f64) -> f64 {
    (requests + 1e-6).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: ScrapeGrid = ScrapeGrid { interval_ms: 5_000, offset_ms: 0 };
    const LATENCY: Latency = Latency { p50_ms: 20.0, p99_ms: 60.0 };
    const HISTORY_MS: i64 = 3_600_000;

    fn counter() -> Counter {
        let mut counter = Counter::new(HISTORY_MS);
        counter.set_rate(1_000, Totals::new(20.0, LATENCY));
        counter.set_rate(11_500, Totals::new(0.3, LATENCY));
        counter
    }

    #[test]
    fn counts_are_the_integral_of_the_rates() {
        // 4 s at 20/s; 9 s; then 10.5 s at 20/s and 3.5 s at 0.3/s: 210 + 1.05; then 210 + 2.55.
        assert_eq!(
            counter().samples(Part::Count, GRID, 0, 20_000),
            [(5_000, 80.0), (10_000, 180.0), (15_000, 211.0), (20_000, 212.0)]
        );
        assert_eq!(counter().samples(Part::Count, GRID, 10_001, 15_000), [(15_000, 211.0)]);
    }

    #[test]
    fn a_series_begins_with_its_first_request() {
        let mut counter = Counter::new(HISTORY_MS);
        counter.set_rate(0, Totals::new(0.15, LATENCY));
        assert_eq!(counter.samples(Part::Count, GRID, -10_000, 15_000), [(10_000, 1.0), (15_000, 2.0)]);
        assert_eq!(counter.samples(Part::Bucket(0), GRID, 0, 10_000), [(10_000, 0.0)]);
    }

    #[test]
    fn buckets_are_cumulative_and_the_last_one_is_the_count() {
        let buckets: Vec<f64> = (0..=BUCKET_BOUNDS_MS.len())
            .map(|index| counter().samples(Part::Bucket(index), GRID, 20_000, 20_000)[0].1)
            .collect();
        assert!(buckets.is_sorted(), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&212.0));
        let sum = counter().samples(Part::SumMs, GRID, 20_000, 20_000)[0].1;
        assert!((sum - 212.55 * LATENCY.mean_ms()).abs() < 1e-6);
    }

    #[test]
    fn changes_at_one_instant_leave_one_piece_and_old_pieces_go() {
        let mut counter = counter();
        counter.set_rate(11_500, Totals::default());
        assert_eq!(counter.pieces.len(), 2);
        counter.set_rate(20_000, Totals::default());
        counter.set_rate(20_001 + HISTORY_MS, Totals::default());
        assert_eq!(counter.pieces.len(), 2);
        assert_eq!(counter.samples(Part::Count, GRID, 25_000, 25_000), [(25_000, 210.0)]);
    }

    #[test]
    fn a_series_ends_with_its_process_and_begins_again_at_zero() {
        let mut counter = counter();
        counter.stop(12_000);
        counter.set_rate(13_000, Totals::default());
        let samples = counter.samples(Part::Count, GRID, 5_000, 30_000);
        assert_eq!(samples[..2], [(5_000, 80.0), (10_000, 180.0)]);
        assert!(samples.len() == 3 && samples[2].0 == 15_000 && aviary_promql::is_stale(samples[2].1), "{samples:?}");
        counter.set_rate(31_000, Totals::new(2.0, LATENCY));
        assert_eq!(counter.samples(Part::Count, GRID, 20_000, 35_000), [(35_000, 8.0)]);
    }

    #[test]
    fn counters_of_one_process_add_up_before_they_are_rounded() {
        let half = |rate| {
            let mut counter = Counter::new(HISTORY_MS);
            counter.set_rate(0, Totals::new(rate, LATENCY));
            counter
        };
        let (first, second) = (half(0.15), half(0.15));
        let sum = samples(&[&first, &second], Part::Count, GRID, 0, 10_000);
        assert_eq!(sum, [(5_000, 1.0), (10_000, 3.0)]);
    }

    #[test]
    fn the_scrape_grid_has_an_offset() {
        let grid = ScrapeGrid { interval_ms: 5_000, offset_ms: 1_200 };
        assert_eq!(grid.first_at_or_after(0), 1_200);
        assert_eq!(grid.first_at_or_after(1_200), 1_200);
        assert_eq!(grid.first_at_or_after(1_201), 6_200);
    }
}
