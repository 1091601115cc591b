//! Time of the embedded cluster.

use jiff::Timestamp;
use tokio::time::Instant;

/// A base timestamp plus tokio's clock, so that timestamps follow `tokio::time::pause` and `advance`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows `base` at this moment.
    #[must_use]
    pub fn new(base: Timestamp) -> Self {
        Self { base, started: Instant::now() }
    }

    /// The cluster's present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        // A clock past the year 9999 stays there; no simulation runs that long.
        self.base.checked_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// The form of `metav1.Time`: RFC 3339 in UTC with whole seconds.
#[must_use]
pub fn format_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
