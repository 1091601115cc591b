//! What the controller costs the API server, counted there.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::calls::{CallCounts, CallEntry, Verb};
use aviary_sim::controllers::PodDetail;
use aviary_sim::traffic::Behaviour;

use crate::support::{AGENT, WATCHED_KINDS, World, calls_of_start_up, canary, deployment, in_virtual_time};

const HOUR: Duration = Duration::from_secs(3600);
/// kube's watcher asks for watches of 290 seconds, so an hour sees at most thirteen.
const REOPENED_PER_HOUR: u64 = 13;

/// The controller's calls since an earlier look; opened watches, and the lists that may precede them, apart.
fn calls_since(world: &World, earlier: &CallCounts) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let (mut calls, mut opened) = (BTreeMap::new(), BTreeMap::new());
    for (key, count) in world.cluster.calls().since(earlier).of_client(AGENT).iter() {
        let slash = if key.subresource.is_empty() { "" } else { "/" };
        let text = format!("{} {}{slash}{}", key.verb, key.resource, key.subresource);
        match key.verb {
            Verb::List | Verb::Watch => opened.insert(text, count),
            _ => calls.insert(text, count),
        };
    }
    (calls, opened)
}

fn named(calls: &[(&str, u64)]) -> BTreeMap<String, u64> {
    calls.iter().map(|(call, count)| ((*call).to_owned(), *count)).collect()
}

/// The controller's calls from a moment on, in order; watches and lists left out.
fn log_from(world: &World, start: jiff::Timestamp) -> Vec<CallEntry> {
    let entries = world.cluster.calls().entries().into_iter();
    let own = entries.filter(|entry| entry.time >= start && entry.call.key.client == AGENT);
    own.filter(|entry| !matches!(entry.call.key.verb, Verb::List | Verb::Watch)).collect()
}

async fn initialized(world: &mut World, names: &[String]) {
    for name in names {
        world.deploy(name).await;
    }
    world.start();
    for name in names {
        world.wait_for_phase(name, "Initialized").await;
    }
    world.pass(Duration::from_secs(120)).await;
}

/// An hour in which nothing happens: no call, no timer. Returns the re-opened watches.
async fn an_idle_hour(world: &World, phase: &str, canaries: usize) -> BTreeMap<String, u64> {
    world.pass(Duration::from_secs(60)).await;
    let before = world.cluster.calls().snapshot();
    let queries = world.prometheus.query_count();
    world.pass(HOUR).await;
    let (calls, opened) = calls_since(world, &before);
    assert_eq!(calls, BTreeMap::new(), "{phase}");
    assert_eq!(world.prometheus.query_count(), queries, "{phase}: queries");
    let views = world.controller().handle().describe_all().await;
    assert_eq!(views.len(), canaries);
    for view in views {
        assert_eq!(view.phase, phase);
        assert_eq!(view.next_wake, None, "{phase}: a timer is armed");
        assert!(!view.busy);
    }
    for (call, count) in &opened {
        let streams = WATCHED_KINDS.iter().filter(|kind| call.split(' ').next_back() == Some(kind)).count() as u64;
        assert!(*count <= streams * REOPENED_PER_HOUR, "{phase}: {call} {count} times in an hour");
    }
    assert!(opened.keys().all(|call| call.starts_with("watch")), "{phase}: {opened:?}");
    opened
}

async fn idle_in_every_phase(canaries: usize) -> u64 {
    let pods = if canaries == 1 { PodDetail::Objects } else { PodDetail::CountsOnly };
    let mut world = World::with_pods(7, pods);
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
    let names: Vec<String> = (0..canaries).map(|number| format!("podinfo{number}")).collect();
    initialized(&mut world, &names).await;
    let mut opened = 0;
    for (phase, image) in
        [("Initialized", None), ("Succeeded", Some("podinfo:6.0.1")), ("Failed", Some("podinfo:6.0.2"))]
    {
        if let Some(image) = image {
            names.iter().for_each(|name| world.set_image(name, image));
            for name in &names {
                world.wait_for_phase(name, phase).await;
            }
        }
        opened += an_idle_hour(&world, phase, canaries).await.values().sum::<u64>();
    }
    opened
}

#[test]
fn an_idle_canary_causes_no_call_and_holds_no_timer() {
    let one = in_virtual_time(idle_in_every_phase(1));
    let fifty = in_virtual_time(idle_in_every_phase(50));
    // Each kind, three hours.
    let most = u64::try_from(WATCHED_KINDS.len()).unwrap() * 3 * REOPENED_PER_HOUR;
    assert!(one > 0 && one <= most, "{one}");
    assert!(fifty.abs_diff(one) * 5 < one, "re-opened watches depend on the number of canaries: {one}, {fifty}");
}

#[test]
fn start_up_is_one_list_and_one_watch_for_each_kind() {
    in_virtual_time(async {
        let mut world = World::new(7);
        for number in 0..20 {
            world.deploy(&format!("podinfo{number}")).await;
        }
        let before = world.cluster.calls().snapshot();
        world.start();
        world.wait_until("canaries are found", || !world.phase("podinfo19").is_empty()).await;
        let (_, opened) = calls_since(&world, &before);
        assert_eq!(opened, calls_of_start_up());
    });
}

#[test]
fn a_bootstrap_is_counted() {
    in_virtual_time(async {
        let mut world = World::new(7);
        world.deploy("podinfo").await;
        let before = world.cluster.calls().snapshot();
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        let (calls, _) = calls_since(&world, &before);
        let expected = named(&[
            // Two sides and the apex.
            ("create services", 3),
            // The primary, and the target to zero.
            ("create deployments", 1),
            ("patch deployments", 1),
            ("create virtualservices", 1),
            ("create destinationrules", 2),
            // Initializing, Initialized.
            ("update canaries/status", 2),
            // Providers, primary not ready, done.
            ("create events", 3),
        ]);
        assert_eq!(calls, expected, "{}", world.story());
    });
}

#[test]
fn an_advancing_step_is_two_writes_and_an_event_without_a_read() {
    in_virtual_time(async {
        let mut world = World::new(7);
        initialized(&mut world, &["podinfo".to_owned()]).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        for weight in [10, 20, 30, 40] {
            world.wait_until("weight", || world.status("podinfo")["canaryWeight"] == weight).await;
            world.pass(Duration::from_secs(5)).await;
            let start = world.cluster.clock().now();
            world.wait_until("next weight", || world.status("podinfo")["canaryWeight"] == weight + 10).await;
            world.pass(Duration::from_secs(1)).await;
            let mut log = log_from(&world, start);
            assert!(log.iter().all(|entry| entry.code / 100 == 2), "{log:?}");
            let events = log.extract_if(.., |entry| entry.call.key.resource == "events").count();
            let writes: Vec<_> = log
                .iter()
                .map(|entry| {
                    (entry.call.key.verb, entry.call.key.resource.as_str(), entry.call.key.subresource.as_str())
                })
                .collect();
            let expected = [(Verb::Patch, "virtualservices", ""), (Verb::Update, "canaries", "status")];
            assert_eq!(writes, expected, "at {weight}");
            assert_eq!(events, 1);
        }
    });
}

/// Calls of a release until five seconds after it has ended.
async fn calls_of_a_release(image: &str, end: &str) -> BTreeMap<String, u64> {
    let mut world = World::new(7);
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.1));
    initialized(&mut world, &["podinfo".to_owned()]).await;
    let before = world.cluster.calls().snapshot();
    world.set_image("podinfo", image);
    world.wait_for_phase("podinfo", end).await;
    world.pass(Duration::from_secs(5)).await;
    calls_since(&world, &before).0
}

#[test]
fn a_release_of_five_steps_costs_eighteen_writes_and_no_read() {
    let calls = in_virtual_time(calls_of_a_release("podinfo:6.0.1", "Succeeded"));
    let expected = named(&[
        // Five weights and back.
        ("patch virtualservices", 6),
        // Detected, five weights, promoting, finalising, succeeded.
        ("update canaries/status", 9),
        // Target up, primary, target to zero.
        ("patch deployments", 3),
        ("create events", 10),
    ]);
    assert_eq!(calls, expected);
}

#[test]
fn a_rollback_costs_thirteen_writes_and_no_read() {
    let calls = in_virtual_time(calls_of_a_release("podinfo:6.0.2", "Failed"));
    let expected = named(&[
        // Two weights (the first check finds no error yet) and back.
        ("patch virtualservices", 3),
        // Detected, two weights, three failed checks, failed, scaled down.
        ("update canaries/status", 8),
        // Target up and down.
        ("patch deployments", 2),
        // Detected, started, two weights, three failed checks, the reason and the end.
        ("create events", 9),
    ]);
    assert_eq!(calls, expected);
}

/// A canary beside thousands of objects that are not its own is not woken by them.
#[test]
fn changes_of_other_objects_cost_nothing() {
    in_virtual_time(async {
        let mut world = World::new(7);
        initialized(&mut world, &["podinfo".to_owned()]).await;
        world.create(deployment("test", "other", "other:1")).await;
        world.create(canary("test", "without-target")).await;
        world.pass(Duration::from_secs(30)).await;
        let before = world.cluster.calls().snapshot();
        for number in 0..100 {
            world.set_image("other", &format!("other:{number}"));
            world.pass(Duration::from_secs(1)).await;
        }
        let (calls, _) = calls_since(&world, &before);
        assert_eq!(calls, BTreeMap::new());
    });
}
