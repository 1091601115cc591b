//! Users: requests at a fixed rate, whether or not they are answered, and what became of each.
//!
//! The client is an open loop: a slow answer does not hold up the next request, and latency counts from the moment at
//! which a request was due, so that a stall shows in every request that it delayed and not in one alone.

mod connections;
mod record;
mod report;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use aviary_actors::Clock;
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::Empty;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use connections::{Connections, Failure};
use record::{Answer, Record};
pub use report::{FailedRequest, Latencies, Report, SECONDS_HEADER, SecondOfVersion, VersionTotals};

/// Connections at most, that is requests under way. Each request's time-out bounds what a rate can need (5 s at 200/s are
/// 1,000), and a process may commonly have 1,024 files open.
const MAX_CONNECTIONS: usize = 900;

/// What the users ask for.
#[derive(Debug, Clone)]
pub struct Options {
    url: Uri,
    host: String,
    headers: HeaderMap,
    rate: f64,
    timeout: Duration,
    max_connections: usize,
}

/// Users that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The URL is none that they can ask for.
    #[error("failed to use {0}: expected http://HOST[:PORT][/PATH]")]
    Url(Uri),
    /// The `Host` header cannot be sent.
    #[error("failed to use the host header {0:?}")]
    Host(String, #[source] http::header::InvalidHeaderValue),
    /// So many requests a second cannot be.
    #[error("failed to use the rate {0}: expected requests per second above 0 and up to {MAX_RATE}")]
    Rate(f64),
    /// The operating system gives no thread.
    #[error("failed to start the users' thread")]
    Thread(#[from] io::Error),
}

/// Requests per second at most: what one core can send and read with room to spare.
const MAX_RATE: f64 = 20_000.0;

impl Options {
    /// So many requests per second for this URL, each given up after five seconds.
    ///
    /// # Errors
    /// If the URL or the rate cannot be used.
    pub fn new(url: Uri, rate: f64) -> Result<Options, UsersError> {
        if !(rate > 0.0 && rate <= MAX_RATE) {
            return Err(UsersError::Rate(rate));
        }
        let is_http = url.scheme() == Some(&Scheme::HTTP);
        let Some(authority) = url.authority().filter(|_| is_http) else { return Err(UsersError::Url(url)) };
        Ok(Options {
            host: authority.to_string(),
            headers: HeaderMap::new(),
            rate,
            timeout: Duration::from_secs(5),
            max_connections: MAX_CONNECTIONS,
            url,
        })
    }

    /// With this `Host` header in place of the URL's host.
    #[must_use]
    pub fn host(self, host: impl Into<String>) -> Options {
        Options { host: host.into(), ..self }
    }

    /// With these headers.
    #[must_use]
    pub fn headers(self, headers: HeaderMap) -> Options {
        Options { headers, ..self }
    }

    /// A request that is not answered after this time has failed.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Options {
        Options { timeout, ..self }
    }

    /// A request that is due while so many are under way fails.
    #[must_use]
    pub fn max_connections(self, max_connections: usize) -> Options {
        Options { max_connections, ..self }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, UsersError> {
        let target = self.url.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = target.parse().map_err(|_| UsersError::Url(self.url.clone()))?;
        let host = HeaderValue::from_str(&self.host).map_err(|error| UsersError::Host(self.host.clone(), error))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static("aviary-loadtest"));
        headers.extend(self.headers.clone());
        headers.insert(HOST, host);
        Ok(request)
    }
}

/// Users that send requests until they are stopped or dropped. They have a thread and a runtime of their own, so that a
/// test that is busy or whose time is virtual does not delay them.
pub struct Users {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

struct Shared {
    options: Options,
    begun: Instant,
    record: Mutex<Record>,
    connections: Connections,
    under_way: AtomicUsize,
    request_ended: Notify,
}

impl Users {
    /// Starts sending.
    ///
    /// # Errors
    /// If the headers cannot be sent, or there is no thread to be had.
    pub fn start(options: Options) -> Result<Users, UsersError> {
        let request = options.request()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let shared = Arc::new(Shared {
            record: Mutex::new(Record::new(Clock::system().now(), options.rate)),
            connections: Connections::new(&options.url),
            under_way: AtomicUsize::new(0),
            request_ended: Notify::new(),
            begun: Instant::from_std(std::time::Instant::now()),
            options,
        });
        let sending = Arc::clone(&shared);
        thread::Builder::new().name("users".to_owned()).spawn(move || {
            runtime.block_on(send(&sending, &request, stopped));
            // Nobody may be waiting.
            let _ = end.send(());
        })?;
        Ok(Users { shared, stop, ended })
    }

    /// The time since the first request was due, by which a [`Report`] is asked.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        std::time::Instant::now().duration_since(self.shared.begun.into_std())
    }

    /// The requests per version that were due in this second, counted from 0, and have ended.
    #[must_use]
    pub fn second(&self, second: u64) -> Vec<SecondOfVersion> {
        let part = self.shared.record.lock().of_second(second);
        Report::new(part).seconds()
    }

    /// What became of the requests that have ended so far.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        Report::new(self.shared.record.lock().clone())
    }

    /// What became of the requests, once all that were due until now have ended: each ends at its time-out.
    pub async fn all_until_now(&self) -> Report {
        let (now, rate) = (self.elapsed(), self.shared.options.rate);
        let count = (now.as_secs_f64() * rate).floor();
        // When the next one is due, by the same arithmetic as in `send`.
        let end = Duration::from_secs_f64(count / rate);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
        let count = count as u64;
        self.until(|report| report.requests_in(Duration::ZERO..end) >= count).await
    }

    /// Waits until what became of the requests is as wanted. Looks no more often than every 20 ms, since a look costs time
    /// proportional to the requests so far.
    pub async fn until(&self, mut is_as_wanted: impl FnMut(&Report) -> bool) -> Report {
        loop {
            let ended = self.shared.request_ended.notified();
            let report = self.snapshot();
            if is_as_wanted(&report) {
                return report;
            }
            ended.await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends no more, and waits for those under way; each ends at its time-out.
    pub async fn stop(self) -> Report {
        self.stop.send_replace(true);
        // Also if the thread has ended otherwise.
        let _ = self.ended.await;
        Report::new(std::mem::take(&mut *self.shared.record.lock()))
    }
}

/// Sends each request when it is due. What could not be sent in time because the process did not run is sent as soon as it
/// runs again.
async fn send(shared: &Arc<Shared>, request: &Request<Empty<Bytes>>, mut stopped: watch::Receiver<bool>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0_u64.. {
        #[expect(clippy::cast_precision_loss, reason = "exact for longer than the machine will run")]
        let due = Duration::from_secs_f64(number as f64 / shared.options.rate);
        tokio::select! {
            biased;
            // An error says that nobody could stop these users any more.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = tokio::time::sleep_until(shared.begun + due) => {}
        }
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Arc::clone(shared).ask(request.clone(), due));
    }
    while tasks.join_next().await.is_some() {}
}

impl Shared {
    async fn ask(self: Arc<Self>, request: Request<Empty<Bytes>>, due: Duration) {
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed);
        let result = if under_way >= self.options.max_connections {
            Err(Failure::TooMany(under_way))
        } else {
            let deadline = self.begun + due + self.options.timeout;
            let answer = tokio::time::timeout_at(deadline, self.connections.ask(request)).await;
            answer.unwrap_or(Err(Failure::TimedOut(self.options.timeout)))
        };
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let latency = self.begun.elapsed().saturating_sub(due);
        let mut record = self.record.lock();
        match result {
            Ok((status, version)) => {
                record.add(due, latency, Answer { status: Some(status), version: version.as_deref(), failure: None });
            }
            Err(failure) => {
                let failure = failure.to_text();
                record.add(due, latency, Answer { status: None, version: None, failure: Some(failure) });
            }
        }
        drop(record);
        self.request_ended.notify_waiters();
    }
}
