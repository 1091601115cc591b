//! Session affinity: which cookies the status holds, and when.

use aviary_rollout::{Plan, Sessions};

use crate::driver::{Event, Run, plan};
use crate::scenarios::{release, revision};

fn sticky() -> Plan {
    let sessions = Sessions {
        canary_uid: "uid".into(),
        cookie_name: "canary-ck".into(),
        primary_cookie_name: Some("primary-ck".into()),
    };
    Plan { sessions: Some(sessions), step_weight_promotion: 20, ..plan() }
}

fn settled(mut run: Run) -> Run {
    run.settle();
    run
}

#[test]
fn a_run_has_one_cookie_which_is_taken_back_in_the_end() {
    let mut run = release(sticky());
    run.run_until(run.world.now + crate::world::seconds(20));
    let given = run.state().session_cookie.clone().expect("given with the first weight");
    let primary = run.state().primary_session_cookie.clone();
    assert!(given.starts_with("canary-ck=") && primary.is_some_and(|cookie| cookie.starts_with("primary-ck=")));
    run.run_until(run.world.now + crate::world::seconds(30));
    assert!(run.state().canary_weight > 20);
    assert_eq!(run.state().session_cookie.as_ref(), Some(&given), "the same at every weight");
    run.settle();
    assert_eq!(run.state().session_cookie, None);
    assert_eq!(run.state().primary_session_cookie, None);
    assert_eq!(run.state().previous_session_cookie, Some(given));
}

/// Q36: Flagger makes a new cookie when a status write is lost, and sticky users move.
#[test]
fn q36_a_kill_after_any_effect_changes_no_cookie() {
    let expected = settled(release(sticky()));
    for count in 1..=expected.effects.len() {
        let mut run = release(sticky());
        run.interrupt = Some((count, vec![Event::Kill]));
        run.settle();
        let cookie = &run.state().previous_session_cookie;
        assert_eq!(cookie, &expected.state().previous_session_cookie, "killed after {count}");
    }
}

#[test]
fn the_same_revision_once_more_has_another_cookie() {
    let first = settled(release(sticky()));
    let again = settled(release(sticky()).at(200, revision("a")).at(400, revision("b")));
    assert_eq!(again.state().last_promoted, "b");
    assert_ne!(again.state().previous_session_cookie, first.state().previous_session_cookie);
}

#[test]
fn a_restart_takes_the_cookie_back() {
    let mut run = release(sticky()).at(25, revision("c"));
    run.run_until(run.world.now + crate::world::seconds(20));
    let first = run.state().session_cookie.clone();
    run.run_until(run.world.now + crate::world::seconds(7));
    assert_eq!((run.state().canary_weight, &run.state().session_cookie), (0, &None));
    assert_eq!(run.state().previous_session_cookie, first);
    run.settle();
    assert_ne!(run.state().previous_session_cookie, first);
}
