//! The API server misbehaves in one way at a time.

use std::time::Duration;

use aviary_sim::calls::Verb;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;

use super::{assert_no_request_lost, released_to, served, undisturbed};
use crate::support::checks::{Watchman, assert_same_end, final_state};
use crate::support::{AGENT, WATCHED_KINDS, World, in_virtual_time};

async fn end_of(world: &World, watchman: &mut Watchman) -> std::collections::BTreeMap<String, String> {
    world.wait_for_phase("podinfo", "Succeeded").await;
    world.pass(Duration::from_secs(120)).await;
    assert_no_request_lost(world, watchman);
    final_state(&world.cluster)
}

#[test]
fn a_refusing_api_server_is_waited_for_without_haste() {
    let end = in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        let before = world.cluster.calls().snapshot();
        let outage = world.cluster.faults().add(Rule::new(Action::error(503)).client(AGENT));
        world.cluster.faults().drop_watches(None);
        world.pass(Duration::from_secs(30)).await;
        world.cluster.faults().remove(outage);
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        // The watches and one write, each tried again after about 1, 2, 4, 8 and 16 seconds.
        assert!(calls.total() <= (WATCHED_KINDS.len() as u64 + 1) * 7, "{calls}");
        assert_eq!(world.status("podinfo")["canaryWeight"], 20);
        // The outage ends within the longest wait between two tries.
        let back = world.cluster.clock().now();
        super::wait_for_weight(&world, 30).await;
        assert!(world.cluster.clock().now().duration_since(back).as_secs() <= 60);
        assert_eq!(world.count_events("podinfo", "503"), 0, "{}", world.story());
        end_of(&world, &mut watchman).await
    });
    assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, "30 s of refusals");
}

#[test]
fn an_answer_that_is_lost_changes_nothing() {
    let expected = undisturbed("podinfo:6.0.1", "Succeeded");
    for nth in 1..=8 {
        let end = in_virtual_time(async {
            let world = released_to(20).await;
            let mut watchman = Watchman::new(&world.cluster);
            let lost = Rule::new(Action::LoseResponse).client(AGENT).writes().nth(nth);
            world.cluster.faults().add(lost);
            end_of(&world, &mut watchman).await
        });
        assert_same_end(&expected, &end, &format!("answer {nth} was lost"));
    }
}

#[test]
fn an_answer_that_never_comes_is_given_up() {
    let end = in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        let hanging = Rule::new(Action::Hang).client(AGENT).verbs(&[Verb::Patch]).resource("virtualservices").nth(1);
        world.cluster.faults().add(hanging);
        let start = world.cluster.clock().now();
        super::wait_for_weight(&world, 30).await;
        let took = world.cluster.clock().now().duration_since(start).as_secs();
        // The rest of the soak, half a minute for the answer, and a second try.
        assert!((35..=40).contains(&took), "{took}");
        end_of(&world, &mut watchman).await
    });
    assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, "a request hung");
}

#[test]
fn watches_that_end_or_fall_behind_lose_no_change() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        // Deployments cannot be watched while the target gets its next revision, and the history is gone afterwards.
        let blind =
            Rule::new(Action::error(500)).client(AGENT).resource("deployments").verbs(&[Verb::Watch, Verb::List]);
        let blind = world.cluster.faults().add(blind);
        world.cluster.faults().drop_watches(Some(&kinds::DEPLOYMENT));
        world.set_image("podinfo", "podinfo:6.0.3");
        world.cluster.faults().compact();
        world.pass(Duration::from_secs(2)).await;
        assert_eq!(world.count_events("podinfo", "Restarting"), 0);
        world.cluster.faults().remove(blind);
        world.wait_until("the revision is seen", || world.count_events("podinfo", "Restarting") == 1).await;
        let end = end_of(&world, &mut watchman).await;
        let carriers = end.values().filter(|object| object.contains("podinfo:6.0.3")).count();
        assert_eq!(carriers, 4, "target, primary and their ReplicaSets");
    });
}

/// What is soaked is the weight that users have, not the one that was decided.
#[test]
fn a_soak_begins_when_the_weight_is_in_force() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let slow = Rule::new(Action::Delay(Duration::from_secs(4))).client(AGENT).resource("virtualservices").writes();
        world.cluster.faults().add(slow);
        let mut times = Vec::new();
        for weight in [30, 40, 50] {
            let in_force = || {
                let routes = world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap();
                routes["spec"]["http"][0]["route"][1]["weight"] == weight
            };
            world.wait_until("the weight is in force", in_force).await;
            times.push(world.cluster.clock().now());
        }
        for pair in times.windows(2) {
            // An interval, and the time that the write takes.
            assert_eq!(pair[1].duration_since(pair[0]).as_secs(), 14, "{times:?}");
        }
    });
}

/// The controller sees what it has written itself, however late the watches are.
#[test]
fn a_release_goes_on_while_nothing_can_be_watched() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let blind = Rule::new(Action::error(500)).client(AGENT).verbs(&[Verb::Watch, Verb::List]);
        let blind = world.cluster.faults().add(blind);
        world.cluster.faults().drop_watches(None);
        let before = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(20)).await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        assert_eq!(world.status("podinfo")["canaryWeight"], 40, "{}", world.story());
        assert_eq!(
            (calls.writes(), calls.count(Verb::Get, "virtualservices"), calls.count(Verb::Get, "canaries")),
            (4, 0, 0)
        );
        world.cluster.faults().remove(blind);
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

#[test]
fn a_deletion_that_no_watch_saw_is_found_out() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let blind = Rule::new(Action::error(500)).client(AGENT).resource("services").verbs(&[Verb::Watch, Verb::List]);
        let blind = world.cluster.faults().add(blind);
        world.cluster.faults().drop_watches(Some(&kinds::SERVICE));
        world.cluster.store().delete(&kinds::SERVICE, "test", "podinfo-canary").unwrap();
        world.cluster.faults().compact();
        world.pass(Duration::from_secs(2)).await;
        assert_eq!(world.get(&kinds::SERVICE, "podinfo-canary"), None);
        world.cluster.faults().remove(blind);
        world.wait_until("it is made again", || world.get(&kinds::SERVICE, "podinfo-canary").is_some()).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

/// The news of an outage is what people look for after it.
#[test]
fn events_wait_for_the_api_server() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let outage = world.cluster.faults().add(Rule::new(Action::error(503)).client(AGENT).writes());
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(world.count_events("podinfo", "updating VirtualService podinfo.test failed"), 0);
        world.cluster.faults().remove(outage);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(30)).await;
        assert_eq!(
            world.count_events("podinfo", "updating VirtualService podinfo.test failed"),
            1,
            "{}",
            world.story()
        );
        assert_eq!(world.count_events("podinfo", "Advance podinfo.test canary weight 30"), 1, "{}", world.story());
        assert_eq!(world.metric("aviary_events_dropped_total"), Some(0.0));
    });
}

/// An API server that was started anew answers every old watch with 410: what changed meanwhile is seen with the first
/// watch that it accepts, and not after the wait that follows an error.
#[test]
fn an_expired_watch_is_followed_by_a_list_at_once() {
    in_virtual_time(async {
        let world = served().await;
        let outage = world.cluster.faults().add(Rule::new(Action::error(503)).client(AGENT));
        world.cluster.faults().drop_watches(None);
        world.pass(Duration::from_secs(14)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.cluster.faults().compact();
        world.cluster.faults().remove(outage);
        // Tried again after 0.8, 1.6, 3.2, 6.4 and 12.8 seconds, ±20 %: at the latest 29.8 s after the beginning.
        world.pass(Duration::from_secs(16)).await;
        assert_eq!(world.phase("podinfo"), "Progressing", "{}", world.story());
    });
}

/// Found on a real API server: one that was started anew knows no roles for a second, and forbids everything to everybody.
#[test]
fn a_moment_without_rights_stalls_nothing() {
    let end = in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        let before = world.cluster.clock().now();
        let forbidden = world.cluster.faults().add(Rule::new(Action::error(403)).client(AGENT));
        world.cluster.faults().drop_watches(None);
        world.pass(Duration::from_secs(6)).await;
        world.cluster.faults().remove(forbidden);
        super::wait_for_weight(&world, 30).await;
        let took = world.cluster.clock().now().duration_since(before).as_secs();
        assert!(took <= 15, "half a soak, the moment, and the wait for the next try: {took}\n{}", world.story());
        end_of(&world, &mut watchman).await
    });
    assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, "6 s without rights");
}

/// Found by chaos: the rollback was written, nobody said so, and the controller took the target at zero for one to scale up.
#[test]
fn a_rollback_whose_last_answer_is_lost_is_not_taken_back() {
    in_virtual_time(async {
        let world = served().await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_until("two checks have failed", || world.status("podinfo")["failedChecks"] == 2).await;
        let blind = Rule::new(Action::error(500)).client(AGENT).resource("canaries").verbs(&[Verb::Watch, Verb::List]);
        let blind = world.cluster.faults().add(blind);
        world.cluster.faults().drop_watches(Some(&kinds::CANARY));
        let lost = Rule::new(Action::LoseResponse).client(AGENT).writes().resource("canaries").subresource("status");
        let lost = world.cluster.faults().add(lost);
        world.wait_for_phase("podinfo", "Failed").await;
        world.cluster.faults().remove(lost);
        world.pass(Duration::from_secs(30)).await;
        let target = world.get(&kinds::DEPLOYMENT, "podinfo").expect("the target");
        assert_eq!(target["spec"]["replicas"], 0, "{}", world.story());
        world.cluster.faults().remove(blind);
        world.pass(Duration::from_secs(120)).await;
        let target = world.get(&kinds::DEPLOYMENT, "podinfo").expect("the target");
        assert_eq!((&target["spec"]["replicas"], world.phase("podinfo").as_str()), (&0.into(), "Failed"));
    });
}

/// Deadlines pass by the clock. Found by chaos: while no watch of Deployments got through, one failed a canary that had become
/// ready.
#[test]
fn a_deadline_that_passes_unseen_fails_no_canary() {
    let expected = undisturbed("podinfo:6.0.1", "Succeeded");
    // Without and with a look at the workload itself, which the controller takes at the deadline.
    for verbs in [&[Verb::Watch, Verb::List][..], &[Verb::Watch, Verb::List, Verb::Get]] {
        let end = in_virtual_time(async {
            let world = served().await;
            let mut watchman = Watchman::new(&world.cluster);
            world.set_image("podinfo", "podinfo:6.0.1");
            let replicas = || world.get(&kinds::DEPLOYMENT, "podinfo").unwrap()["spec"]["replicas"].clone();
            world.wait_until("it is scaled up", || replicas() == 2).await;
            world.pass(Duration::from_secs(1)).await;
            let blind = Rule::new(Action::error(500)).client(AGENT).resource("deployments").verbs(verbs);
            let blind = world.cluster.faults().add(blind);
            world.cluster.faults().drop_watches(Some(&kinds::DEPLOYMENT));
            world.pass(Duration::from_secs(65)).await;
            assert_eq!(world.phase("podinfo"), "Progressing", "{}", world.story());
            let has_begun = world.status("podinfo")["canaryWeight"] != 0;
            assert_eq!(has_begun, !verbs.contains(&Verb::Get), "{}", world.story());
            world.pass(Duration::from_secs(30)).await;
            world.cluster.faults().remove(blind);
            end_of(&world, &mut watchman).await
        });
        assert_same_end(&expected, &end, "a deadline that passed unseen");
    }
}

/// A deadline that has passed indeed costs one look at each workload.
#[test]
fn a_deadline_that_has_passed_costs_one_look() {
    in_virtual_time(async {
        let world = served().await;
        let before = world.cluster.calls().snapshot();
        world.set_image("podinfo", "podinfo:6.0.1-crash");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(30)).await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        assert_eq!((calls.count(Verb::Get, "deployments"), calls.reads()), (2, 2), "{calls}");
    });
}

/// An API server that was started anew forbids everything for about a second, also to an operator that starts just then.
#[test]
fn an_operator_that_starts_in_a_moment_without_rights_waits_no_minute() {
    in_virtual_time(async {
        let mut world = World::new(21);
        let forbidden = world.cluster.faults().add(Rule::new(Action::error(403)).client(AGENT));
        world.deploy("podinfo").await;
        world.pass(Duration::from_secs(60)).await;
        world.start();
        world.pass(Duration::from_secs(1)).await;
        world.cluster.faults().remove(forbidden);
        let start = world.cluster.clock().now();
        world.wait_for_phase("podinfo", "Initialized").await;
        let took = world.cluster.clock().now().duration_since(start).as_secs();
        assert!(took <= 20, "{took}\n{}", world.story());
    });
}

#[test]
fn events_of_a_moment_without_rights_are_kept() {
    in_virtual_time(async {
        let world = released_to(20).await;
        let forbidden = Rule::new(Action::error(403)).client(AGENT).resource("events");
        let forbidden = world.cluster.faults().add(forbidden);
        super::wait_for_weight(&world, 30).await;
        world.pass(Duration::from_secs(5)).await;
        world.cluster.faults().remove(forbidden);
        world.pass(Duration::from_secs(10)).await;
        assert_eq!(world.count_events("podinfo", "Advance podinfo.test canary weight 30"), 1, "{}", world.story());
        assert_eq!(world.metric("aviary_events_dropped_total"), Some(0.0));
        // Where they are forbidden for good, nobody waits for each of them.
        world.cluster.faults().add(Rule::new(Action::error(403)).client(AGENT).resource("events"));
        let before = world.cluster.calls().snapshot();
        world.wait_for_phase("podinfo", "Succeeded").await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        // Six events, of which the first was tried for ten seconds.
        let tries = calls.count(Verb::Create, "events");
        assert!((7..=11).contains(&tries), "{calls}");
    });
}
