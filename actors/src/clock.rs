//! The time of day, real or virtual.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day. Timers are tokio's; a virtual clock moves with them.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    pub fn system() -> Clock {
        Clock(Arc::new(Timestamp::now))
    }

    /// A clock that moves with tokio's, from `base` on. Virtual where tokio's time is paused.
    pub fn from_base(base: Timestamp) -> Clock {
        let origin = tokio::time::Instant::now();
        Clock(Arc::new(move || base.checked_add(origin.elapsed()).unwrap_or(Timestamp::MAX)))
    }

    /// A clock of somebody else.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
