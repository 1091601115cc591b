//! Objects around a canary that are missing or cannot be used.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::json;

use crate::support::{World, canary, deployment, in_virtual_time};

impl World {
    /// `podinfo` waits for something, has told this once, and costs nothing meanwhile.
    async fn assert_waits(&self, parts: &[&str]) {
        self.release_the_other().await;
        assert_eq!(self.phase("podinfo"), "Initializing");
        self.assert_told_once(parts);
        assert_eq!(self.calls_in_ten_minutes().await, 0);
        // Looking again finds nothing new to tell.
        self.change(&kinds::CANARY, "podinfo", |canary| canary["metadata"]["labels"]["touched"] = json!("yes"));
        self.pass(Duration::from_secs(5)).await;
        let events = self.cluster.store().list(&kinds::EVENT, Some("test"));
        let told = events.iter().find(|event| event["message"].as_str().is_some_and(|text| text.contains(parts[0])));
        assert_eq!(told.expect("told")["count"], 1);
        let views = self.controller().handle().describe_all().await;
        let view = views.iter().find(|view| view.canary.name == "podinfo").expect("described");
        assert!(parts.iter().all(|part| view.waiting_for.as_deref().unwrap_or_default().contains(part)), "{view:?}");
        assert_eq!(view.next_wake, None, "it waits for a change, not for a time");
        // The object itself is right.
        assert_eq!(self.condition("podinfo", "Accepted"), None);
    }

    async fn assert_recovers(&self, parts: &[&str]) {
        self.wait_for_phase("podinfo", "Initialized").await;
        self.assert_told_once(parts);
        self.pass(Duration::from_secs(120)).await;
        self.set_image("podinfo", "podinfo:6.0.1");
        self.wait_for_phase("podinfo", "Succeeded").await;
    }
}

#[test]
fn a_missing_target() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(canary("test", "podinfo")).await;
        world.start_beside_another().await;
        let told = ["deployment podinfo.test get query error: deployments.apps \"podinfo\" not found"];
        world.assert_waits(&told).await;
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.assert_recovers(&told).await;
    });
}

/// The watches of two kinds are not ordered: what was created first may be seen last, and nobody need be told.
#[test]
fn a_target_that_is_seen_just_after_its_canary() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.start();
        world.create(canary("test", "podinfo")).await;
        world.pass(Duration::from_millis(500)).await;
        assert_eq!(world.phase("podinfo"), "Initializing");
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.wait_for_phase("podinfo", "Initialized").await;
        assert_eq!(world.count_events("podinfo", "not found"), 0, "{}", world.story());
    });
}

/// The target goes in the middle of a release, and comes back.
#[test]
fn a_target_that_goes_and_comes_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_beside_another(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("podinfo")["canaryWeight"] == 20).await;
        world.delete(&kinds::DEPLOYMENT, "podinfo").await;
        world.pass(Duration::from_secs(300)).await;
        world.assert_told_once(&["deployment podinfo.test get query error"]);
        world.assert_told_once(&["Canary podinfo.test has no available pods, routing all traffic to primary"]);
        let lost = world.traffic.report("test", "podinfo").failures();
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.traffic.report("test", "podinfo").failures(), lost, "users are on the primary");
        world.create(deployment("test", "podinfo", "podinfo:6.0.1")).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

#[test]
fn a_target_without_a_selector_label() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["selector"]["matchLabels"] = json!({"team": "a"});
        target["spec"]["template"]["metadata"]["labels"] = json!({"team": "a"});
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start_beside_another().await;
        let told =
            ["deployment podinfo.test spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name]"];
        world.assert_waits(&told).await;
        // A selector cannot be changed.
        world.delete(&kinds::DEPLOYMENT, "podinfo").await;
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.assert_recovers(&told).await;
    });
}

#[test]
fn a_missing_config_map() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}]);
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start_beside_another().await;
        let told = ["GetTargetConfigs failed", "configmap settings.test", "configmaps \"settings\" not found"];
        world.assert_waits(&told).await;
        world
            .create(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "test", "name": "settings"}, "data": {"key": "value"},
            }))
            .await;
        world.assert_recovers(&told).await;
    });
}

/// The next obstacle of the same kind is news.
#[test]
fn one_missing_config_map_after_the_other() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "first"}}, {"configMapRef": {"name": "second"}}]);
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        let told = |name: &str| world.events("podinfo").iter().filter(|event| event.contains(name)).count();
        for name in ["first", "second"] {
            world.pass(Duration::from_secs(60)).await;
            assert_eq!(told(&format!("configmap {name}.test")), 1, "{}", world.story());
            let metadata = json!({"namespace": "test", "name": name});
            world.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})).await;
        }
        world.wait_for_phase("podinfo", "Initialized").await;
    });
}
