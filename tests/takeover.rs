//! The change from Flagger to Aviary: a cluster as Flagger 1.44 leaves it, in each phase, with users; and the release that follows.
//!
//! What the decision core makes of such statuses is told in detail in `rollout/tests/core/takeover.rs`.

mod left;
mod targets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_sim::store::kinds;
use futures::FutureExt;
use serde_json::{Value, json};

use self::left::{Left, NEW, OLD};
use crate::support::{AGENT, World, in_virtual_time, iterations};

/// An endpoint of a gate, that answers with a status.
#[derive(Clone)]
struct Gate(Arc<AtomicU16>);

impl Gate {
    fn closed(world: &mut World) -> Gate {
        let gate = Gate(Arc::new(AtomicU16::new(403)));
        let answers = gate.0.clone();
        let service = Arc::new(move |_: HttpRequest| {
            let status = answers.load(Ordering::Relaxed);
            std::future::ready(Ok(HttpResponse { status, retry_after: None, body: Vec::new() })).boxed()
        });
        world.services = std::mem::take(&mut world.services).and("gate.test", service);
        gate
    }

    fn open(&self) {
        self.0.store(200, Ordering::Relaxed);
    }
}

fn gated(canary: &mut Value, kind: &str) {
    canary["spec"]["analysis"]["webhooks"] = json!([{"name": "gate", "type": kind, "url": "http://gate.test/"}]);
}

impl World {
    fn weights(&self) -> Vec<Value> {
        let routes = self.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("exists");
        let rule = routes["spec"]["http"].as_array().and_then(|rules| rules.last()).cloned().unwrap_or_default();
        rule["route"].as_array().unwrap().iter().map(|route| route["weight"].clone()).collect()
    }

    /// Both hashes are Aviary's.
    fn is_adopted(&self) -> bool {
        let status = self.status("podinfo");
        let is_own = |field: &str| status[field].as_str().is_some_and(|hash| hash.starts_with("aviary-"));
        is_own("lastAppliedSpec") && is_own("lastPromotedSpec")
    }

    async fn ends(&self, phase: &str) {
        self.wait_until("the end", || ["Succeeded", "Failed"].contains(&self.phase("podinfo").as_str())).await;
        assert_eq!(self.phase("podinfo"), phase, "{}", self.story());
        self.pass(Duration::from_secs(10)).await;
    }

    /// The next version is analysed and promoted, and no user of it, or of the takeover before, noticed anything.
    async fn releases_the_next(&self, before: (f64, u64)) {
        let next = "podinfo:6.0.9";
        self.set_image("podinfo", next);
        self.wait_for_phase("podinfo", "Progressing").await;
        self.ends("Succeeded").await;
        assert_eq!(self.image_of("podinfo-primary"), next);
        assert!(self.is_adopted(), "{}", self.story());
        assert_eq!(self.disturbances(), before, "{:#?}\n{}", self.traffic.report("test", "podinfo"), self.story());
    }

    /// Requests that failed, and times in which there was nobody to answer.
    fn disturbances(&self) -> (f64, u64) {
        let report = self.traffic.report("test", "podinfo");
        (report.failures(), report.interruptions)
    }
}

/// Nothing is told, nothing that Flagger made is touched, and of the status only what is computed otherwise.
fn is_adopted_at_rest(left: Left) {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(left, |_| {}).await;
        let (made, status, before) = (world.made(), world.status("podinfo"), world.disturbances());
        world.start();
        world.wait_until("the status is adopted", || world.is_adopted()).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.events("podinfo"), Vec::<String>::new());
        assert_eq!(world.made(), made);
        let adopted = world.status("podinfo");
        for field in ["phase", "canaryWeight", "failedChecks", "iterations", "trackedConfigs"] {
            assert_eq!(adopted[field], status[field], "{field}");
        }
        let calls = world.cluster.calls().snapshot().of_client(AGENT);
        assert_eq!((calls.writes(), calls.event_writes()), (1, 0), "{calls}");
        world.releases_the_next(before).await;
    });
}

#[test]
fn initialized() {
    is_adopted_at_rest(Left::at_rest("Initialized"));
}

#[test]
fn succeeded() {
    is_adopted_at_rest(Left { target: NEW, primary: NEW, ..Left::at_rest("Succeeded") });
}

#[test]
fn failed_and_set_back() {
    is_adopted_at_rest(Left::at_rest("Failed"));
}

/// Flagger writes the label of the apex service, which it adds to what `service.apex` says, on its VirtualService, too.
#[test]
fn initialized_with_labels_of_the_apex() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let own = json!({"labels": {"team": "a"}, "annotations": {"note": "b"}});
        world.leave(Left::at_rest("Initialized"), |canary| canary["spec"]["service"]["apex"] = own).await;
        for kind in [&kinds::SERVICE, &kinds::VIRTUAL_SERVICE] {
            world.change(kind, "podinfo", |object| {
                object["metadata"]["labels"] = json!({"team": "a", "app": "podinfo"});
                object["metadata"]["annotations"]["note"] = json!("b");
            });
        }
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.wait_until("the status is adopted", || world.is_adopted()).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.made(), made);
        assert_eq!(world.events("podinfo"), Vec::<String>::new());
        world.releases_the_next(before).await;
    });
}

/// Where nobody has a cookie yet, Flagger has the rule of all users twice. One is enough; nobody notices.
#[test]
fn initialized_with_session_affinity() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let left = Left::at_rest("Initialized");
        world
            .leave(left, |canary| {
                canary["spec"]["analysis"]["sessionAffinity"] = json!({"cookieName": "canary-ck"});
            })
            .await;
        world.change(&kinds::VIRTUAL_SERVICE, "podinfo", |routes| {
            let rule = json!({"route": [
                {"destination": {"host": "podinfo-primary"}, "weight": 100},
                {"destination": {"host": "podinfo-canary"}, "weight": 0},
            ]});
            routes["spec"]["http"] = json!([rule, rule]);
        });
        world.change(&kinds::CANARY, "podinfo", |canary| {
            let status = canary["status"].as_object_mut().unwrap();
            status.retain(|field, _| !field.ends_with("Cookie"));
        });
        let before = world.disturbances();
        world.start();
        world.wait_until("the status is adopted", || world.is_adopted()).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.events("podinfo"), Vec::<String>::new());
        assert_eq!(world.weights(), [100, 0]);
        let calls = world.cluster.calls().snapshot().of_client(AGENT);
        assert!(calls.writes() <= 2, "the status, and the routes\n{calls}");
        world.releases_the_next(before).await;
    });
}

/// The version that failed is still in the target. It is not tried again; another one is.
#[test]
fn failed() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left { target: NEW, ..Left::at_rest("Failed") }, |_| {}).await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(
            (world.phase("podinfo").as_str(), world.events("podinfo").len()),
            ("Failed", 0),
            "{}",
            world.story()
        );
        assert_eq!(world.made(), made);
        world.releases_the_next(before).await;
    });
}

/// The primary did not become ready, so everybody is on the canary.
#[test]
fn failed_promotion() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left { primary: NEW, ..Left::running("Failed", 100, 100) }, |_| {}).await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(
            (world.phase("podinfo").as_str(), world.events("podinfo").len()),
            ("Failed", 0),
            "{}",
            world.story()
        );
        assert_eq!(world.made(), made, "everybody stays where they are");
        world.releases_the_next(before).await;
    });
}

#[test]
fn initializing() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left { scaled_to_zero: false, ..Left::at_rest("Initializing") }, |_| {}).await;
        // Flagger makes these last.
        world.delete(&kinds::VIRTUAL_SERVICE, "podinfo").await;
        world.change(&kinds::CANARY, "podinfo", |canary| {
            let status = canary["status"].as_object_mut().unwrap();
            status.retain(|field, _| {
                !["lastAppliedSpec", "lastPromotedSpec", "trackedConfigs"].contains(&field.as_str())
            });
        });
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap()["metadata"]["generation"].clone();
        let before = world.disturbances();
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.events("podinfo").last().unwrap(), "Initialization done! podinfo.test");
        let present = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        assert_eq!(present["metadata"]["generation"], primary, "its pods are not restarted");
        world.releases_the_next(before).await;
    });
}

#[test]
fn waiting() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let gate = Gate::closed(&mut world);
        let left = Left { target: NEW, ..Left::at_rest("Waiting") };
        world.leave(left, |canary| gated(canary, "confirm-rollout")).await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(
            (world.phase("podinfo").as_str(), world.events("podinfo").len()),
            ("Waiting", 0),
            "{}",
            world.story()
        );
        assert_eq!(world.made(), made);
        gate.open();
        world.wait_for_phase("podinfo", "Progressing").await;
        world.ends("Succeeded").await;
        assert_eq!(world.image_of("podinfo-primary"), NEW);
        world.releases_the_next(before).await;
    });
}

#[test]
fn progressing() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left::running("Progressing", 20, 20), |_| {}).await;
        let (made, before) = (world.made(), world.disturbances());
        let journal = world.follow("test", "podinfo");
        world.start();
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.made(), made, "the interval is not over");
        world.ends("Succeeded").await;
        assert_eq!(world.events("podinfo")[0], "Advance podinfo.test canary weight 30");
        let weights: Vec<u64> = journal.steps().into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(weights[..4], [20, 30, 40, 50]);
        assert_eq!(world.image_of("podinfo-primary"), NEW);
        world.releases_the_next(before).await;
    });
}

/// Flagger's status has no weight of an A/B test.
#[test]
fn progressing_ab_test() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let insiders = [("x-user".to_owned(), "insider".to_owned())].into_iter().collect();
        world.traffic.set_audience_load("test", "podinfo", &insiders, 50.0);
        let left = Left { iterations: 1, ..Left::running("Progressing", 0, 100) };
        world
            .leave(left, |canary| {
                iterations(canary, 3);
                canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
            })
            .await;
        let before = world.disturbances();
        world.start();
        world.ends("Succeeded").await;
        assert_eq!(
            world.events("podinfo")[..3],
            [
                "Advance podinfo.test canary iteration 2/3",
                "Advance podinfo.test canary iteration 3/3",
                "Copying podinfo.test template spec to podinfo-primary.test",
            ]
        );
        world.releases_the_next(before).await;
    });
}

/// Users keep the cookies that Flagger gave them, and their side.
#[test]
fn progressing_with_session_affinity() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .leave(Left::running("Progressing", 20, 20), |canary| {
                canary["spec"]["analysis"]["sessionAffinity"] =
                    json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck"});
            })
            .await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.made(), made, "the same rules and cookies");
        world.wait_until("the next step", || world.status("podinfo")["canaryWeight"] == 30).await;
        assert_eq!(world.status("podinfo")["sessionAffinityCookie"], "canary-ck=AAAAAAAAAA");
        world.ends("Succeeded").await;
        assert_eq!(world.status("podinfo")["previousSessionAffinityCookie"], "canary-ck=AAAAAAAAAA");
        world.releases_the_next(before).await;
    });
}

/// Flagger's status says weight 0 and iteration -1; half of the users are on the canary.
#[test]
fn waiting_for_promotion() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let gate = Gate::closed(&mut world);
        let left = Left { iterations: -1, ..Left::running("WaitingPromotion", 0, 50) };
        world.leave(left, |canary| gated(canary, "confirm-promotion")).await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.phase("podinfo"), "WaitingPromotion");
        assert_eq!(world.events("podinfo"), Vec::<String>::new());
        assert_eq!(world.made(), made);
        assert_eq!(world.status("podinfo")["canaryWeight"], 50);
        gate.open();
        world.ends("Succeeded").await;
        assert_eq!(world.image_of("podinfo-primary"), NEW);
        world.releases_the_next(before).await;
    });
}

#[test]
fn promoting() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left { primary: NEW, ..Left::running("Promoting", 50, 50) }, |_| {}).await;
        let before = world.disturbances();
        let primary = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap()["metadata"]["generation"].clone();
        world.start();
        world.ends("Succeeded").await;
        assert_eq!(
            world.events("podinfo"),
            ["Routing all traffic to primary", "Promotion completed! Scaling down podinfo.test"]
        );
        let present = world.get(&kinds::DEPLOYMENT, "podinfo-primary").unwrap();
        assert_eq!(present["metadata"]["generation"], primary, "it was copied already");
        assert_eq!(world.weights(), [100, 0]);
        world.releases_the_next(before).await;
    });
}

#[test]
fn finalising() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.leave(Left { primary: NEW, ..Left::running("Finalising", 0, 0) }, |_| {}).await;
        let (made, before) = (world.made(), world.disturbances());
        world.start();
        world.ends("Succeeded").await;
        assert_eq!(world.events("podinfo"), ["Promotion completed! Scaling down podinfo.test"]);
        assert_eq!(world.made(), made);
        assert_eq!(world.get(&kinds::DEPLOYMENT, "podinfo").unwrap()["spec"]["replicas"], 0);
        world.releases_the_next(before).await;
    });
}

/// Flagger was stopped while it gave everything back.
#[test]
fn terminating() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let left = Left::at_rest("Terminating");
        world
            .leave(left, |canary| {
                canary["metadata"]["finalizers"] = json!(["finalizer.flagger.app"]);
                canary["spec"]["revertOnDeletion"] = json!(true);
            })
            .await;
        world.delete(&kinds::CANARY, "podinfo").await;
        assert!(world.get(&kinds::CANARY, "podinfo").is_some(), "the finalizer holds it");
        world.start();
        world.wait_until("the canary is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        world.pass(Duration::from_secs(60)).await;
        let target = world.get(&kinds::DEPLOYMENT, "podinfo").unwrap();
        assert_eq!((&target["spec"]["replicas"], &target["status"]["availableReplicas"]), (&json!(2), &json!(2)));
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none());
    });
}

/// A canary that Flagger has seen and not begun with.
#[test]
fn seen_and_not_begun() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.deploy("podinfo").await;
        world.change(&kinds::CANARY, "podinfo", |canary| {
            canary["status"] = json!({
                "phase": "Initializing", "canaryWeight": 0, "failedChecks": 0, "iterations": 0,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
        });
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.image_of("podinfo-primary"), OLD);
        world.releases_the_next(world.disturbances()).await;
    });
}
