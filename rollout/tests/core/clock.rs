//! A status with times from a clock that was ahead: of this machine before it was set back, or of another one.

use aviary_rollout::{Effect, decide};

use crate::driver::{Event, plan};
use crate::scenarios::release;
use crate::world::{Metrics, seconds};

/// Until then it would be no time at all that the monitoring has been away, and its limit would not come.
#[test]
fn an_outage_that_begins_in_the_future_begins_now() {
    let mut run = release(plan()).at(12, Event::Metrics(Metrics::Outage));
    run.run_until(run.world.now + seconds(45));
    let mut state = run.state().clone();
    assert!(state.outage.is_some(), "{state:?}");
    let mut seen = run.snapshot();
    seen.answers = aviary_rollout::Answers::default();
    seen.now -= seconds(3600);
    // As if only the outage were of another clock.
    state.last_step = Some(seen.now);
    let outage = state.outage.as_mut().unwrap();
    outage.answered_since = Some(outage.since);
    let decision = decide(&run.plan, &state, &seen);
    assert_eq!(decision.effects, [Effect::WriteStatus]);
    let outage = decision.next.outage.unwrap();
    assert_eq!((outage.since, outage.answered_since), (seen.now, Some(seen.now)));
    assert_eq!(decision.next.last_step, Some(seen.now));
    let after = decide(&run.plan, &decision.next, &seen);
    assert_ne!(after.effects, [Effect::WriteStatus], "once");
}
