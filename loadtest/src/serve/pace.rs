//! When requests are sent: at a rate, whether or not earlier ones were answered, or one after the other by so many workers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aviary_load_commands::Amount;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Requests of one command under way at most. At 20 requests per second that is a minute without an answer; beyond it
/// requests that are due are counted as not sent.
const MOST_UNDER_WAY: usize = 1_000;

/// When requests are sent, and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Requests under way at once, where there is no rate.
    pub(super) workers: u32,
    /// Requests per second of all together.
    pub(super) per_second: Option<f64>,
    /// When it is enough.
    pub(super) amount: Amount,
}

/// What became of requests.
#[derive(Default)]
pub(super) struct Record {
    /// By status, or by what went wrong.
    ends: BTreeMap<String, u64>,
    total: u64,
    sum: Duration,
    longest: Duration,
    /// Requests by the index of their latency's bucket.
    latencies: BTreeMap<u32, u64>,
}

/// Different ends that are told apart; a server that says something else each time is no reason to fill the memory.
const MOST_ENDS: usize = 50;
/// Buckets per doubling of a latency: 9 % wide, and a few hundred in all.
const BUCKETS: f64 = 8.0;

impl Record {
    pub(super) fn add(&mut self, end: String, latency: Duration) {
        let is_known = self.ends.contains_key(&end) || self.ends.len() < MOST_ENDS;
        *self.ends.entry(if is_known { end } else { "other".to_owned() }).or_default() += 1;
        self.total += 1;
        self.sum += latency;
        self.longest = self.longest.max(latency);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and some hundreds")]
        let bucket = ((latency.as_secs_f64() * 1e6).max(1.0).log2() * BUCKETS) as u32;
        *self.latencies.entry(bucket).or_default() += 1;
    }

    /// The upper end of the bucket that this part of the requests is below.
    fn quantile(&self, part: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a part of it is looked for")]
        let wanted = self.total as f64 * part;
        let mut seen = 0;
        for (bucket, count) in &self.latencies {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if seen as f64 >= wanted {
                let upper = ((f64::from(*bucket) + 1.0) / BUCKETS).exp2() / 1e6;
                return Duration::from_secs_f64(upper).min(self.longest);
            }
        }
        self.longest
    }

    /// In the manner of `hey`'s report: `[200] 1190 responses`.
    pub(super) fn report(&self, took: Duration) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = self.total as f64 / took.as_secs_f64().max(0.001);
        let mean = self.sum.checked_div(u32::try_from(self.total).unwrap_or(u32::MAX)).unwrap_or_default();
        let mut text = format!("Requests: {} in {:.1} s, {rate:.1} per second\n", self.total, took.as_secs_f64());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Latency: mean {:.1} ms, p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            milliseconds(mean),
            milliseconds(self.quantile(0.5)),
            milliseconds(self.quantile(0.95)),
            milliseconds(self.quantile(0.99)),
            milliseconds(self.longest)
        );
        for (end, count) in &self.ends {
            let _ = writeln!(text, "[{end}] {count} responses");
        }
        text
    }
}

/// Sends at this pace until it is enough. `send` tells how a request ended. What is under way when the time is over is not
/// waited for; when this future is dropped, nothing more is sent.
pub(super) async fn drive<Send, Sending>(pace: Pace, record: &Arc<Mutex<Record>>, send: Send)
where
    Send: Fn() -> Sending + Clone + std::marker::Send + 'static,
    Sending: Future<Output = String> + std::marker::Send + 'static,
{
    let ask = {
        let record = Arc::clone(record);
        move |due: Instant| {
            let (sending, record) = (send(), Arc::clone(&record));
            async move {
                let end = sending.await;
                record.lock().add(end, due.elapsed());
            }
        }
    };
    let begun = Instant::now();
    let (number, end) = match pace.amount {
        Amount::Requests(number) => (number, None),
        Amount::Time(time) => (u64::MAX, begun.checked_add(time)),
    };
    let mut tasks = JoinSet::new();
    match pace.per_second {
        Some(rate) => at_rate(rate, begun, number, end, &mut tasks, record, ask).await,
        None => {
            let left = Arc::new(AtomicU64::new(number));
            for _ in 0..pace.workers {
                let (left, ask) = (Arc::clone(&left), ask.clone());
                tasks.spawn(async move {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        ask(Instant::now()).await;
                    }
                });
            }
        }
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    match end {
        Some(end) => drop(tokio::time::timeout_at(end, all).await),
        None => all.await,
    }
}

async fn at_rate<Asking: Future<Output = ()> + Send + 'static>(
    rate: f64,
    begun: Instant,
    number: u64,
    end: Option<Instant>,
    tasks: &mut JoinSet<()>,
    record: &Mutex<Record>,
    ask: impl Fn(Instant) -> Asking,
) {
    for index in 0..number {
        #[expect(clippy::cast_precision_loss, reason = "exact for longer than any command runs")]
        let after = index as f64 / rate;
        let due = Duration::try_from_secs_f64(after).ok().and_then(|after| begun.checked_add(after));
        // The end of what has one, and of what has none the time limit, is before a time that cannot be told.
        let Some(due) = due.filter(|due| end.is_none_or(|end| *due < end)) else {
            if end.is_none() {
                std::future::pending::<()>().await;
            }
            break;
        };
        tokio::time::sleep_until(due).await;
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MOST_UNDER_WAY {
            record.lock().add(format!("not sent, {MOST_UNDER_WAY} are under way"), Duration::ZERO);
            continue;
        }
        tasks.spawn(ask(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ends(pace: Pace, takes: Duration) -> (BTreeMap<String, u64>, Duration) {
        let record = Arc::new(Mutex::new(Record::default()));
        let begun = Instant::now();
        let send = move || async move {
            tokio::time::sleep(takes).await;
            "200".to_owned()
        };
        drive(pace, &record, send).await;
        let ends = record.lock().ends.clone();
        (ends, begun.elapsed())
    }

    fn counted(number: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("200".to_owned(), number)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_however_slow_the_answers_are() {
        let pace = Pace { workers: 2, per_second: Some(20.0), amount: Amount::Time(Duration::from_secs(10)) };
        let (fast, took) = ends(pace, Duration::from_millis(3)).await;
        assert_eq!((fast, took), (counted(200), Duration::from_millis(9953)), "the last one is due at 9.95 s");
        // Two workers that wait would have sent 4.
        let (slow, took) = ends(pace, Duration::from_secs(5)).await;
        // The request that is due at 5 s ends with the command, and may be counted or not.
        assert!((100..=101).contains(&slow["200"]), "{slow:?}");
        assert_eq!(took, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_due_after_the_end_of_all_times_is_not_sent() {
        for rate in [1e-20, 1e-300, f64::MIN_POSITIVE / 2.0] {
            let pace = Pace { workers: 1, per_second: Some(rate), amount: Amount::Time(Duration::from_secs(10)) };
            assert_eq!(ends(pace, Duration::from_secs(1)).await, (counted(1), Duration::from_secs(1)), "{rate}");
            // So many were asked for: the task goes on until its time limit, and says so.
            let record = Arc::new(Mutex::new(Record::default()));
            let pace = Pace { amount: Amount::Requests(10), ..pace };
            let sending = drive(pace, &record, || async { "200".to_owned() });
            assert!(tokio::time::timeout(Duration::from_secs(3600), sending).await.is_err(), "{rate}");
            assert_eq!(record.lock().ends, counted(1), "{rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn workers_without_a_rate_wait_for_their_answers() {
        let pace = Pace { workers: 3, per_second: None, amount: Amount::Requests(10) };
        assert_eq!(ends(pace, Duration::from_secs(1)).await, (counted(10), Duration::from_secs(4)));
        let pace = Pace { amount: Amount::Time(Duration::from_millis(2500)), ..pace };
        assert_eq!(ends(pace, Duration::from_secs(1)).await, (counted(6), Duration::from_millis(2500)));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_are_bounded() {
        let pace = Pace { workers: 1, per_second: Some(1000.0), amount: Amount::Time(Duration::from_secs(2)) };
        let (ends, _) = ends(pace, Duration::from_secs(60)).await;
        assert_eq!(ends, BTreeMap::from([("not sent, 1000 are under way".to_owned(), 1000)]));
    }

    #[test]
    fn a_report_tells_what_became_of_the_requests() {
        let mut record = Record::default();
        for milliseconds in 1..=100 {
            let status = if milliseconds > 90 { "500" } else { "200" };
            record.add(status.to_owned(), Duration::from_millis(milliseconds));
        }
        let report = record.report(Duration::from_secs(10));
        assert!(
            report.starts_with("Requests: 100 in 10.0 s, 10.0 per second\nLatency: mean 50.5 ms, p50 "),
            "{report}"
        );
        assert!(report.ends_with("longest 100.0 ms\n[200] 90 responses\n[500] 10 responses\n"), "{report}");
        let p50 = record.quantile(0.5).as_secs_f64() * 1000.0;
        assert!((50.0..55.0).contains(&p50), "{p50}");
    }
}
