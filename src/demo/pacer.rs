//! Holds virtual time back.

use std::time::{Duration, Instant};

/// Real time between two pauses: short enough for a picture that moves smoothly.
const STEP: Duration = Duration::from_millis(20);

/// Lets the paused clock run `times` as fast as real time. The clock moves on when its thread is idle, so that a pause
/// of the thread is what holds it back; time spent on work is made up for.
pub(super) async fn pace(times: f64) {
    let (virtual_start, real_start) = (tokio::time::Instant::now(), Instant::now());
    // The finest timer of tokio is a millisecond.
    let step = STEP.mul_f64(times).max(Duration::from_millis(1));
    loop {
        tokio::time::sleep(step).await;
        let due = virtual_start.elapsed().div_f64(times);
        #[expect(clippy::disallowed_methods, reason = "stopping the thread is what stops the clock")]
        std::thread::sleep(due.saturating_sub(real_start.elapsed()));
    }
}
