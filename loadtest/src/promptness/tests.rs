#![allow(clippy::unwrap_used)]

use std::time::Duration;

use aviary_sim::calls::{CallKey, Verb};
use aviary_sim::cluster::ClusterOptions;
use serde_json::json;

use super::*;

/// A canary that users have a tenth of, one failed check before its end, as soon as the next sample is due.
struct Scene {
    cluster: Cluster,
    promptness: Promptness,
}

impl Scene {
    async fn new() -> Scene {
        let cluster = Cluster::new(ClusterOptions::default());
        let promptness = Promptness::follow(&cluster);
        let metadata = json!({"namespace": "test", "name": "podinfo"});
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata,
            "spec": {"analysis": {"interval": "10s", "threshold": 3}},
        });
        cluster.store().create(&kinds::CANARY, canary).unwrap();
        let routes = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata});
        cluster.store().create(&kinds::VIRTUAL_SERVICE, routes).unwrap();
        let last_step = cluster.clock().now();
        let scene = Scene { cluster, promptness };
        scene.route(10);
        scene.fail(2, last_step);
        scene.pass(10_000).await;
        scene
    }

    fn route(&self, weight: i64) {
        let route = |host: &str, weight: i64| json!({"destination": {"host": host}, "weight": weight});
        let rule = json!({"route": [route("podinfo-primary", 100 - weight), route("podinfo-canary", weight)]});
        let change = |routes: &mut Value| routes["spec"] = json!({"http": [rule]});
        self.cluster.store().update(&kinds::VIRTUAL_SERVICE, "test", "podinfo", change).unwrap();
    }

    fn set(&self, change: impl FnOnce(&mut Value)) {
        self.cluster.store().update(&kinds::CANARY, "test", "podinfo", change).unwrap();
    }

    fn fail(&self, checks: i64, at: Timestamp) {
        let at = at.to_string();
        self.set(|canary| {
            canary["status"] = json!({
                "phase": "Progressing", "failedChecks": checks, "lastAppliedSpec": "b", "lastStepTime": at,
            });
        });
    }

    async fn pass(&self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }

    fn now(&self) -> Timestamp {
        self.cluster.clock().now()
    }

    /// The last check fails now; the way back takes so long. Whether that is found to be late.
    async fn is_late_after(&self, milliseconds: u64) -> bool {
        self.fail(3, self.now());
        self.pass(milliseconds).await;
        self.route(0);
        self.pass(1).await;
        self.is_late()
    }

    fn is_late(&self) -> bool {
        let found = self.promptness.violations();
        assert!(found.iter().all(|text| text.contains(LATE)), "{found:?}");
        !found.is_empty()
    }

    fn hit(&self, name: &str) {
        let key =
            CallKey { client: "aviary".into(), verb: Verb::Patch, resource: String::new(), subresource: String::new() };
        let call = Call { key, namespace: "test".into(), name: name.into() };
        self.promptness.lock().take_hit(&call, self.now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_back_at_once_is_in_time_and_one_that_waits_is_not() {
    assert!(!Scene::new().await.is_late_after(0).await);
    assert!(!Scene::new().await.is_late_after(1_000).await);
    assert!(Scene::new().await.is_late_after(1_100).await);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_never_comes_back_is_found_at_the_end() {
    let scene = Scene::new().await;
    scene.fail(3, scene.now());
    scene.pass(2_000).await;
    assert!(scene.is_late());
}

/// The status names the time of the decision, and the sample that it was made on was due before.
#[tokio::test(start_paused = true)]
async fn a_judgement_that_waits_is_late_as_well() {
    let scene = Scene::new().await;
    scene.pass(5_000).await;
    assert!(scene.is_late_after(0).await);
}

#[tokio::test(start_paused = true)]
async fn trouble_of_the_canary_excuses_for_a_while() {
    for (name, excuses) in [("podinfo", true), ("podinfo-primary", true), ("", true), ("podinfos", false)] {
        let scene = Scene::new().await;
        scene.hit(name);
        assert_eq!(!scene.is_late_after(60_000).await, excuses, "{name:?}");
    }
    let scene = Scene::new().await;
    scene.hit("podinfo");
    assert!(scene.is_late_after(133_000).await);
}

#[tokio::test(start_paused = true)]
async fn a_dead_controller_is_excused_until_it_is_back() {
    let scene = Scene::new().await;
    scene.fail(3, scene.now());
    scene.promptness.note_controller(true);
    scene.pass(1_000_000).await;
    assert!(!scene.is_late());
    scene.promptness.note_controller(false);
    scene.pass(133_000).await;
    assert!(scene.is_late());
}

#[tokio::test(start_paused = true)]
async fn what_the_user_wants_is_no_delay() {
    let scene = Scene::new().await;
    scene.set(|canary| canary["spec"]["suspend"] = json!(true));
    scene.fail(3, scene.now());
    scene.pass(60_000).await;
    assert!(!scene.is_late(), "suspended");
    scene.set(|canary| canary["spec"]["suspend"] = json!(false));
    scene.pass(60_000).await;
    assert!(scene.is_late(), "resumed");
    let scene = Scene::new().await;
    scene.fail(3, scene.now());
    scene.set(|canary| {
        canary["status"]["lastAppliedSpec"] = json!("c");
        canary["status"]["failedChecks"] = json!(0);
    });
    scene.pass(60_000).await;
    assert!(!scene.is_late(), "another revision");
}
