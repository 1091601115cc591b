//! What is remembered by the clock, when the clock is set back.
//!
//! Waits are measured on the system's clock: a sandbox runs its own at another speed, and the objects of a cluster tell times of
//! day. A clock that is set back puts everything remembered into the future, and whatever is waited for would take as much longer.
//! So nothing remembered may lie ahead of now, and no wait ahead of now by more than the whole of it: it begins anew at worst.

use std::time::Duration;

use aviary_rollout::ServingSince;
use jiff::Timestamp;

use super::{CanaryActor, RETRY};
use crate::retry::longest;

impl CanaryActor {
    /// Brings to `now` what is remembered of later times.
    pub(super) fn forget_the_future(&mut self, now: Timestamp) {
        self.answers.not_after(now);
        if let Some(routing) = &mut self.routing {
            routing.not_after(now);
        }
        if let Some(ServingSince { primary, canary }) = &mut self.serving_since {
            limit(primary, now);
            limit(canary, now);
        }
        self.patience.not_after(now);
        if let Some(episode) = &mut self.hold {
            episode.not_after(now);
        }
        let after = |wait: Duration| now.checked_add(wait).unwrap_or(Timestamp::MAX);
        limit(&mut self.retry_at, after(longest(RETRY.1)));
        limit(&mut self.hurry_from, after(RETRY.0));
        self.upkeep.not_after(now, longest(RETRY.1));
    }
}

/// No later than `latest`.
fn limit(time: &mut Option<Timestamp>, latest: Timestamp) {
    *time = time.map(|time| time.min(latest));
}
