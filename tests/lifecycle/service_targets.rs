//! Services as targets: what they select is released, and a mesh moves their users.

use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use crate::support::{AGENT, World, canary, deployment, in_virtual_time, service};

impl World {
    /// The Service `podinfo` of the first of two Deployments, and a Canary of it.
    async fn begin_with_service(&mut self, change: impl FnOnce(&mut Value)) {
        for (name, image) in [("podinfo-v1", "podinfo:6.0.0"), ("podinfo-v2", "podinfo:6.0.1")] {
            self.create(deployment("test", name, image)).await;
        }
        self.create(service("test", "podinfo", "podinfo-v1")).await;
        self.pass(Duration::from_secs(60)).await;
        let mut object = canary("test", "podinfo");
        object["spec"]["targetRef"] = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
        // The workloads have other names than the service.
        object["spec"]["analysis"]["metrics"] = json!([{
            "name": "errors", "interval": "1m", "thresholdRange": {"max": 1},
            "query": "sum(rate(istio_requests_total{reporter=\"source\",destination_service_name=\"podinfo-canary\",\
                      response_code=~\"5.*\"}[1m])) or vector(0)",
        }]);
        change(&mut object);
        self.create(object).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }

    fn select(&self, pods: &str) {
        self.change(&kinds::SERVICE, "podinfo", |service| service["spec"]["selector"]["app"] = json!(pods));
    }

    fn selected_by(&self, name: &str) -> Value {
        self.get(&kinds::SERVICE, name).expect("exists")["spec"]["selector"]["app"].clone()
    }
}

#[test]
fn a_service_is_released_by_selecting_other_pods() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_service(|_| {}).await;
        let journal = world.follow("test", "podinfo");
        world.select("podinfo-v2");
        world.wait_until("the first weight", || world.weight() == 10).await;
        assert_eq!(world.selected_by("podinfo-canary"), "podinfo-v2");
        assert_eq!(world.selected_by("podinfo-primary"), "podinfo-v1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.selected_by("podinfo-primary"), "podinfo-v2");
        let weights: Vec<u64> = journal.steps().into_iter().map(|(_, weight)| weight).collect();
        assert!(weights.contains(&50), "{weights:?}");
        let target = world.get(&kinds::SERVICE, "podinfo").expect("exists");
        assert_eq!(target["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(target["metadata"]["annotations"], Value::Null, "it is not touched");
        assert_eq!((world.replicas_of("podinfo-v1"), world.replicas_of("podinfo-v2")), (2, 2), "nothing is scaled");
        world.assert_undisturbed();
    });
}

/// Flagger writes the canary's copy at every tick.
#[test]
fn q33_an_idle_service_target_costs_nothing() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_service(|_| {}).await;
        let before = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&before).of_client(AGENT);
        assert_eq!((calls.writes(), calls.event_writes()), (0, 0), "{calls}");
    });
}

#[test]
fn the_routes_of_a_service_target_lead_back_to_it() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_service(|canary| canary["spec"]["revertOnDeletion"] = json!(true)).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until("it is gone", || world.get(&kinds::CANARY, "podinfo").is_none()).await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.selected_by("podinfo"), "podinfo-v1");
        for name in ["podinfo-primary", "podinfo-canary"] {
            assert!(world.get(&kinds::SERVICE, name).is_none(), "{name} goes with the canary");
        }
        world.assert_undisturbed();
    });
}
