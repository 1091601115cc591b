#![allow(clippy::unwrap_used)]

use aviary_sim::clock::Clock;
use serde_json::json;

use super::*;

fn name() -> Value {
    json!({"namespace": "test", "name": "podinfo"})
}

fn canary(phase: &str, failed_checks: i64, revision: &str) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": name(),
        "spec": {"analysis": {"threshold": 3}},
        "status": {"phase": phase, "failedChecks": failed_checks, "lastAppliedSpec": revision},
    })
}

/// Routes of one rule, or of one for those who meet a condition and one for all others.
fn routes(rules: &[i64]) -> Value {
    let rule = |canary: &i64| {
        let route = |host: &str, weight: i64| json!({"destination": {"host": host}, "weight": weight});
        json!({"route": [route("podinfo-primary", 100 - canary), route("podinfo-canary", *canary)]})
    };
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": name(),
        "spec": {"http": rules.iter().map(rule).collect::<Vec<_>>()},
    })
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "test", "name": name},
        "spec": {"replicas": replicas}, "status": {"availableReplicas": replicas},
    })
}

/// A release that users have a tenth of.
struct Scene {
    store: Store,
    watchman: Watchman,
}

impl Scene {
    fn new() -> Scene {
        let store = Store::new(Clock::new(jiff::Timestamp::UNIX_EPOCH), 1);
        store.create(&kinds::DEPLOYMENT, deployment("podinfo", 2)).unwrap();
        store.create(&kinds::DEPLOYMENT, deployment("podinfo-primary", 2)).unwrap();
        store.create(&kinds::VIRTUAL_SERVICE, routes(&[10])).unwrap();
        store.create(&kinds::CANARY, canary("Progressing", 2, "b")).unwrap();
        let watchman = Watchman::of(&store);
        Scene { store, watchman }
    }

    fn put(&self, kind: &GroupKind, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let (spec, status) = (object["spec"].clone(), object["status"].clone());
        let change = |stored: &mut Value| (stored["spec"], stored["status"]) = (spec, status);
        self.store.update(kind, "test", &name, change).unwrap();
    }

    fn found(&mut self) -> Vec<String> {
        self.watchman.violations()
    }
}

#[tokio::test]
async fn a_canary_with_a_check_to_spare_may_gain() {
    let mut scene = Scene::new();
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[20]));
    assert_eq!(scene.found(), Vec::<String>::new());
}

#[tokio::test]
async fn the_failed_side_gains_nothing_from_the_last_failed_check_to_the_next_revision() {
    let mut scene = Scene::new();
    scene.put(&kinds::CANARY, &canary("Progressing", 3, "b"));
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[0]));
    assert_eq!(scene.found(), Vec::<String>::new());
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[5]));
    let found = scene.found();
    assert!(matches!(&found[..], [one] if one.contains(FAILED_SIDE_GAINS_NOTHING)), "{found:?}");
    // Whatever the status says in between.
    for phase in ["Failed", "Progressing"] {
        scene.put(&kinds::CANARY, &canary(phase, 0, "b"));
        scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[0]));
        scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[10]));
        assert_eq!(scene.found().iter().filter(|text| text.contains(FAILED_SIDE_GAINS_NOTHING)).count(), 1, "{phase}");
    }
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[0]));
    scene.put(&kinds::CANARY, &canary("Progressing", 0, "c"));
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[10]));
    assert_eq!(scene.found(), Vec::<String>::new());
}

#[tokio::test]
async fn who_starts_in_the_middle_knows_what_has_failed() {
    let mut scene = Scene::new();
    scene.put(&kinds::CANARY, &canary("Progressing", 3, "b"));
    scene.watchman = Watchman::of(&scene.store);
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[20]));
    assert_eq!(scene.found().len(), 1);
}

#[tokio::test]
async fn the_healthy_side_of_a_failed_promotion_may_gain() {
    let mut scene = Scene::new();
    let mut failed = canary("Failed", 0, "b");
    failed["status"]["canaryWeight"] = json!(100);
    scene.put(&kinds::CANARY, &canary("Promoting", 0, "b"));
    scene.put(&kinds::CANARY, &failed);
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[100]));
    assert_eq!(scene.found(), Vec::<String>::new());
}

/// The last rule is that of everybody else, who have nothing to do with the canary.
#[tokio::test]
async fn users_of_any_rule_are_users() {
    let mut scene = Scene::new();
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[100, 0]));
    assert_eq!(scene.found(), Vec::<String>::new());
    scene.put(&kinds::DEPLOYMENT, &deployment("podinfo", 0));
    let found = scene.found();
    assert!(matches!(&found[..], [one] if one.contains("scaled to zero while podinfo-canary has 100 %")), "{found:?}");
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[0, 0]));
    scene.put(&kinds::VIRTUAL_SERVICE, &routes(&[30, 0]));
    let found = scene.found();
    assert!(matches!(&found[..], [one] if one.contains("got 30 %, but podinfo has no available pod")), "{found:?}");
}
