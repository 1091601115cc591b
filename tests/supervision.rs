//! Actors that panic: restarts, quarantine, recovery, and that nobody else notices.

mod inside;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::FaultHook;
use aviary_sim::controllers::PodDetail;
use aviary_sim::store::kinds;
use serde_json::json;

use crate::support::{World, in_virtual_time};

/// Panics at the beginning of a canary's step, as often as told.
#[derive(Clone, Default)]
struct Panics(Arc<Mutex<BTreeMap<String, u32>>>);

impl Panics {
    fn set(&self, canary: &str, times: u32) {
        self.0.lock().unwrap().insert(canary.to_owned(), times);
    }

    fn hook(&self) -> FaultHook {
        let panics = self.clone();
        Arc::new(move |canary| {
            let mut left = panics.0.lock().unwrap();
            let Some(times) = left.get_mut(&canary.name).filter(|times| **times > 0) else { return };
            *times -= 1;
            drop(left);
            panic!("on purpose");
        })
    }
}

const FOR_EVER: u32 = u32::MAX;

impl World {
    fn restarts(&self) -> f64 {
        self.metric("aviary_actor_restarts_total{namespace=\"test\"}").unwrap_or_default()
    }

    fn quarantined(&self) -> f64 {
        self.metric("aviary_quarantined_canaries").expect("always there")
    }

    fn weight_of(&self, name: &str) -> u64 {
        self.status(name)["canaryWeight"].as_u64().unwrap_or_default()
    }

    /// Two canaries, `podinfo` and `other`, ready for a release.
    async fn begin_two(&mut self, panics: &Panics) {
        self.config.fault = Some(panics.hook());
        self.deploy("podinfo").await;
        self.deploy("other").await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.wait_for_phase("other", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }
}

/// Two canaries, of which `podinfo` is in quarantine and goes on panicking.
async fn quarantined() -> (World, Panics) {
    let mut world = World::new(1);
    let panics = Panics::default();
    world.begin_two(&panics).await;
    panics.set("podinfo", FOR_EVER);
    world.set_image("podinfo", "podinfo:6.0.1");
    world.wait_until("the quarantine", || world.condition("podinfo", "Degraded").is_some()).await;
    (world, panics)
}

#[test]
fn one_panic_costs_a_second() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let panics = Panics::default();
        panics.set("podinfo", 1);
        world.begin_two(&panics).await;
        assert_eq!((world.restarts(), world.quarantined()), (1.0, 0.0));
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

/// What happens while the actor is dead is seen by its next life.
#[test]
fn no_change_is_lost_while_an_actor_is_dead() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let panics = Panics::default();
        world.begin_two(&panics).await;
        let journal = world.follow("test", "podinfo");
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.weight_of("podinfo") == 20).await;
        panics.set("podinfo", 3);
        while panics.0.lock().unwrap()["podinfo"] == 3 {
            world.pass(Duration::from_millis(10)).await;
        }
        let died = world.cluster.clock().now();
        // Nobody is there to hear of it.
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_until("the restart of the analysis", || world.weight_of("podinfo") == 0).await;
        let took = world.cluster.clock().now().duration_since(died);
        // One, two and four seconds, each ±20 %.
        assert!((5.5..=8.5).contains(&took.as_secs_f64()), "{took:#}");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.restarts(), 3.0);
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.2");
        let weights: Vec<u64> = journal.steps().into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(weights, [0, 10, 20, 0, 10, 20, 30, 40, 50, 50, 0, 0], "{:#?}", journal.entries());
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    });
}

#[test]
fn an_actor_that_keeps_dying_is_quarantined_and_recovers() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let panics = Panics::default();
        world.begin_two(&panics).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.weight_of("podinfo") == 20).await;
        panics.set("podinfo", FOR_EVER);
        world.wait_until("the quarantine", || world.condition("podinfo", "Degraded").is_some()).await;
        assert_eq!((world.restarts(), world.quarantined()), (5.0, 1.0));
        let degraded = world.condition("podinfo", "Degraded").unwrap();
        assert_eq!(degraded["status"], "True");
        assert!(degraded["message"].as_str().unwrap().contains("on purpose"), "{degraded:#}");
        assert!(world.condition("podinfo", "Promoted").is_some(), "other conditions stay");

        // The other is released as if nothing had happened. Many users, so that the first check has two scrapes to judge by.
        world.traffic.set_load("test", "other", 1000.0);
        let journal = world.follow("test", "other");
        world.set_image("other", "podinfo:6.0.1");
        world.wait_for_phase("other", "Succeeded").await;
        let ten = jiff::SignedDuration::from_millis(10_100);
        let steps = [10, 20, 30, 40, 50].map(|weight| journal.time_of("Progressing", weight));
        assert!(steps.windows(2).all(|pair| pair[1].duration_since(pair[0]) <= ten), "{:#?}", journal.entries());

        // Tried again every five minutes, told once.
        let before = world.restarts();
        world.pass(Duration::from_secs(3000)).await;
        let tries = world.restarts() - before;
        assert!((9.0..=11.0).contains(&tries), "{tries} tries in 50 minutes");
        assert_eq!(world.count_events("podinfo", "Quarantined after 5 failures in a row"), 1);
        assert_eq!(world.count_events("podinfo", "Quarantined"), 1);
        assert_eq!(world.weight_of("podinfo"), 20, "traffic stays where it was");

        panics.set("podinfo", 0);
        let repaired = world.cluster.clock().now();
        world.wait_until("the recovery", || world.condition("podinfo", "Degraded").is_none()).await;
        let took = world.cluster.clock().now().duration_since(repaired);
        assert!(took <= jiff::SignedDuration::from_secs(301), "{took:#}");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.quarantined(), 0.0);
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
        assert_eq!(world.traffic.report("test", "podinfo").failures(), 0.0);
    });
}

/// Whoever mends an object does not wait for it: a new generation is tried at once, and each only once.
#[test]
fn a_quarantined_canary_is_tried_as_soon_as_its_object_is_edited() {
    in_virtual_time(async {
        let (world, panics) = quarantined().await;
        world.pass(Duration::from_secs(10)).await;
        let before = world.restarts();
        world.patch_canary("podinfo", json!({"analysis": {"threshold": 7}})).await;
        world.pass(Duration::from_secs(10)).await;
        assert_eq!((world.restarts() - before, world.quarantined()), (1.0, 1.0), "it was not that");
        panics.set("podinfo", 0);
        world.patch_canary("podinfo", json!({"analysis": {"threshold": 5}})).await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!((world.condition("podinfo", "Degraded"), world.quarantined()), (None, 0.0));
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

/// Its bootstrap has not even begun, so that there is no status yet.
#[test]
fn a_canary_that_never_made_a_step_is_quarantined_as_well() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let panics = Panics::default();
        panics.set("podinfo", FOR_EVER);
        world.config.fault = Some(panics.hook());
        world.deploy("podinfo").await;
        world.start();
        world.wait_until("the quarantine", || world.condition("podinfo", "Degraded").is_some()).await;
        panics.set("podinfo", 0);
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!((world.condition("podinfo", "Degraded"), world.quarantined()), (None, 0.0));
    });
}

/// The write of the condition fails; the next death makes up for it.
#[test]
fn a_notice_that_was_not_written_is_written_later() {
    in_virtual_time(async {
        use aviary_sim::faults::{Action, Rule};
        let mut world = World::new(1);
        let panics = Panics::default();
        world.begin_two(&panics).await;
        panics.set("podinfo", FOR_EVER);
        let rule = Rule::new(Action::error(500)).client(crate::support::AGENT).writes().resource("canaries");
        let rule = world.cluster.faults().add(rule);
        world.set_image("podinfo", "podinfo:6.0.1");
        world.pass(Duration::from_secs(60)).await;
        assert_eq!((world.quarantined(), world.condition("podinfo", "Degraded")), (1.0, None));
        world.cluster.faults().remove(rule);
        world.wait_until("the condition", || world.condition("podinfo", "Degraded").is_some()).await;
        assert_eq!(world.count_events("podinfo", "Quarantined"), 1);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_the_dead() {
    in_virtual_time(async {
        let (mut world, _panics) = quarantined().await;
        assert!(world.stop().await, "everything in flight was finished in time");
    });
}

#[test]
fn a_quarantined_canary_can_be_deleted() {
    in_virtual_time(async {
        let (world, _panics) = quarantined().await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.quarantined(), 0.0);
        let metrics = world.metrics();
        assert!(!metrics.contains("podinfo"), "{metrics}");
        let left = world.controller().handle().describe_all().await;
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

/// Who deletes it and creates it anew has mended it, perhaps.
#[test]
fn a_quarantined_canary_that_is_created_again_is_tried_at_once() {
    in_virtual_time(async {
        let (world, panics) = quarantined().await;
        panics.set("podinfo", 0);
        world.delete(&kinds::CANARY, "podinfo").await;
        world.create(crate::support::canary("test", "podinfo")).await;
        let created = world.cluster.clock().now();
        world.wait_for_phase("podinfo", "Initialized").await;
        let took = world.cluster.clock().now().duration_since(created);
        assert!(took.as_secs() < 30, "{took:#}");
        assert_eq!((world.condition("podinfo", "Degraded"), world.quarantined()), (None, 0.0));
    });
}

#[test]
fn one_of_a_thousand_dies_for_ever() {
    in_virtual_time(async {
        let mut world = World::with_pods(1, PodDetail::CountsOnly);
        let panics = Panics::default();
        panics.set("canary-500", FOR_EVER);
        world.config.fault = Some(panics.hook());
        for number in 0..1000 {
            world.deploy(&format!("canary-{number}")).await;
        }
        world.start();
        let initialized = |world: &World| {
            let canaries = world.cluster.store().list(&kinds::CANARY, Some("test"));
            canaries.iter().filter(|canary| canary["status"]["phase"] == "Initialized").count()
        };
        // Looked at now and then: counting a thousand objects at each of their changes takes long.
        for _ in 0..60 {
            world.pass(Duration::from_secs(10)).await;
            if initialized(&world) == 999 && world.condition("canary-500", "Degraded").is_some() {
                break;
            }
        }
        assert_eq!(initialized(&world), 999);
        assert_eq!(world.quarantined(), 1.0);
        assert_eq!(world.condition("canary-500", "Degraded").map(|found| found["status"].clone()), Some(json!("True")));
        world.set_image("canary-7", "podinfo:6.0.1");
        for _ in 0..30 {
            world.pass(Duration::from_secs(10)).await;
        }
        assert_eq!(world.phase("canary-7"), "Succeeded");
    });
}
