//! Timers are armed only while something is under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::engine::Engine;
use super::{ControllerOptions, PodDetail};
use crate::clock::Clock;
use crate::store::{Store, StoreEvent, kinds};

struct Stepped {
    engine: Engine,
    events: UnboundedReceiver<StoreEvent>,
    clock: Clock,
    store: Store,
}

impl Stepped {
    fn new(pods: PodDetail) -> Self {
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 1);
        let options = ControllerOptions { pods, ..ControllerOptions::default() };
        let (engine, events) = Engine::new(store.clone(), clock, options);
        Self { engine, events, clock, store }
    }

    /// Seconds from now to the next timer, after everything that can be done now.
    fn next(&mut self) -> Option<i64> {
        while self.engine.work(&mut self.events) {}
        let next = self.engine.next_timer()?;
        Some(next.duration_since(self.clock.now()).as_secs())
    }

    async fn pass(&mut self, seconds: u64) -> Option<i64> {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        self.next()
    }

    fn create(&self, kind: &crate::store::GroupKind, object: Value) {
        self.store.create(kind, object).unwrap();
    }
}

fn deployment(image: &str) -> Value {
    json!({
        "metadata": {"name": "app", "namespace": "default"},
        "spec": {
            "replicas": 2, "progressDeadlineSeconds": 60, "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app", "image": image}]}},
        },
    })
}

#[tokio::test(start_paused = true)]
async fn no_timer_is_left_when_everything_runs() {
    for detail in [PodDetail::Objects, PodDetail::CountsOnly] {
        let mut stepped = Stepped::new(detail);
        assert_eq!(stepped.next(), None, "an empty cluster");
        let autoscaler = json!({
            "metadata": {"name": "app", "namespace": "default"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "app"}, "minReplicas": 1, "maxReplicas": 4},
        });
        stepped.create(&kinds::HPA, autoscaler);
        stepped.create(&kinds::DEPLOYMENT, deployment("app:1"));
        assert_eq!(stepped.next(), Some(3), "{detail:?}: pods start");
        assert_eq!(stepped.pass(3).await, None, "{detail:?}: pods run");

        stepped.engine.options.utilisation.set_utilisation("default", "app", 80);
        stepped.engine.revisit_autoscalers();
        assert_eq!(stepped.next(), None, "{detail:?}: usage on its target");
        stepped.engine.options.utilisation.set_utilisation("default", "app", 10);
        stepped.engine.revisit_autoscalers();
        assert_eq!(stepped.next(), Some(15), "{detail:?}: fewer pods are wanted, but not yet");
        stepped.engine.options.utilisation.clear_utilisation("default", "app");
        stepped.engine.revisit_autoscalers();
        assert_eq!(stepped.next(), None, "{detail:?}: no usage, no timer");
    }
}

#[tokio::test(start_paused = true)]
async fn no_timer_is_left_when_a_rollout_is_stuck_for_good() {
    for detail in [PodDetail::Objects, PodDetail::CountsOnly] {
        let mut stepped = Stepped::new(detail);
        stepped.create(&kinds::DEPLOYMENT, deployment("app:noready"));
        stepped.next();
        assert_eq!(stepped.pass(10).await, Some(51), "{detail:?}: the deadline and its second");
        assert_eq!(stepped.pass(51).await, None, "{detail:?}");
        let object = stepped.store.get(&kinds::DEPLOYMENT, "default", "app").unwrap();
        assert!(object["status"].to_string().contains("ProgressDeadlineExceeded"), "{object}");
        stepped.store.delete(&kinds::DEPLOYMENT, "default", "app").unwrap();
        stepped.next();
        assert_eq!(stepped.pass(1).await, None, "{detail:?}: deleted, and its pods are gone");
        assert!(stepped.store.list(&kinds::POD, None).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn objects_that_exist_before_the_controllers_are_picked_up() {
    let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let store = Store::new(clock, 1);
    store.create(&kinds::DEPLOYMENT, deployment("app:1")).unwrap();
    for round in 0..2 {
        let (engine, events) = Engine::new(store.clone(), clock, ControllerOptions::default());
        let mut stepped = Stepped { engine, events, clock, store: store.clone() };
        stepped.next();
        stepped.pass(3).await;
        let object = store.get(&kinds::DEPLOYMENT, "default", "app").unwrap();
        assert_eq!(object["status"]["availableReplicas"], 2, "round {round}");
        assert_eq!(stepped.engine.workloads().ready("default", "app").len(), 1, "round {round}");
        assert_eq!(store.list(&kinds::POD, None).len(), 2, "a restart of the controllers makes no pods");
    }
}
