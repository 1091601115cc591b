//! `revertOnDeletion`: a deleted canary gives back what it took, in every phase, and never stays for ever.

use std::time::Duration;

use aviary_crds::names::FINALIZER;
use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Value, json};

use crate::support::{World, canary, deployment, in_virtual_time};

fn reverting(canary: &mut Value) {
    canary["spec"]["revertOnDeletion"] = json!(true);
}

impl World {
    /// A Deployment with a Service and a VirtualService of the user, and a canary of it.
    async fn begin_with_users_objects(&mut self, change: impl FnOnce(&mut Value)) {
        self.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        self.create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "test", "name": "podinfo"},
            "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 9898, "targetPort": 9898}]},
        }))
        .await;
        self.create(json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
            "metadata": {"namespace": "test", "name": "podinfo"}, "spec": users_routes(),
        }))
        .await;
        self.pass(Duration::from_secs(60)).await;
        let mut object = canary("test", "podinfo");
        reverting(&mut object);
        change(&mut object);
        self.create(object).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }

    fn is_gone(&self) -> bool {
        self.get(&kinds::CANARY, "podinfo").is_none()
    }

    async fn wait_until_it_is_gone(&self) {
        self.wait_until("the canary is gone", || self.is_gone()).await;
    }

    fn assert_given_back(&self, context: &str) {
        let target = self.get(&kinds::DEPLOYMENT, "podinfo").expect("is the user's");
        assert_eq!(target["status"]["availableReplicas"], 2, "{context}: {target:#}");
        let service = self.get(&kinds::SERVICE, "podinfo").expect("is the user's");
        assert_eq!(service["spec"]["selector"], json!({"app": "podinfo"}), "{context}");
        let routes = self.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("is the user's");
        assert_eq!(routes["spec"], users_routes(), "{context}");
        assert!(self.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none(), "{context}");
    }

    fn finalizers(&self) -> Value {
        self.get(&kinds::CANARY, "podinfo").expect("exists")["metadata"]["finalizers"].clone()
    }
}

fn users_routes() -> Value {
    json!({
        "hosts": ["podinfo"], "gateways": ["mesh"],
        "http": [{"timeout": "5s", "route": [{"destination": {"host": "podinfo"}}]}],
    })
}

#[test]
fn everything_is_given_back_and_no_user_notices() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_users_objects(|_| {}).await;
        assert_eq!(world.finalizers(), json!([FINALIZER]));
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until_it_is_gone().await;
        world.pass(Duration::from_secs(60)).await;
        world.assert_given_back("after a release");
        assert_eq!(
            world.events_from("podinfo", "Terminating"),
            ["Terminating canary podinfo.test", "Terminated canary podinfo.test"]
        );
        world.assert_undisturbed();
        assert!(world.controller().handle().describe_all().await.is_empty());
    });
}

/// Deleted in each phase of a release, a rollback and a bootstrap.
#[test]
fn deletion_in_every_phase_gives_back() {
    for phase in ["Progressing", "Promoting", "Finalising", "Waiting", "WaitingPromotion", "Failed", "Succeeded"] {
        in_virtual_time(async {
            let mut world = World::new(1);
            world
                .begin_with_users_objects(|canary| {
                    let gate = |kind: &str| json!({"name": "gate", "type": kind, "url": "http://nobody.test/"});
                    match phase {
                        "Waiting" => canary["spec"]["analysis"]["webhooks"] = json!([gate("confirm-rollout")]),
                        "WaitingPromotion" => {
                            canary["spec"]["analysis"]["webhooks"] = json!([gate("confirm-promotion")])
                        }
                        _ => {}
                    }
                })
                .await;
            world.load_heavily();
            let image = if phase == "Failed" { "podinfo:6.0.2" } else { "podinfo:6.0.1" };
            world.traffic.set_behaviour("podinfo:6.0.2", aviary_sim::traffic::Behaviour::failing(0.1));
            world.set_image("podinfo", image);
            world.wait_for_phase("podinfo", phase).await;
            world.delete(&kinds::CANARY, "podinfo").await;
            world.wait_until_it_is_gone().await;
            world.pass(Duration::from_secs(60)).await;
            world.assert_given_back(phase);
            assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0, "{phase}");
        });
    }
}

#[test]
fn a_canary_deleted_while_it_is_made_gives_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        let mut object = canary("test", "podinfo");
        reverting(&mut object);
        world.create(object).await;
        world.start();
        world.wait_until("the primary", || world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_some()).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.wait_until_it_is_gone().await;
        assert_eq!(world.replicas_of("podinfo"), 2);
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none());
    });
}

/// Q8: Helm deletes what it deploys in any order, and Flagger waits for what is gone already.
#[test]
fn q8_missing_objects_do_not_keep_a_deleted_canary() {
    let sets: [&[(&GroupKind, &str)]; 5] = [
        &[(&kinds::DEPLOYMENT, "podinfo")],
        &[(&kinds::SERVICE, "podinfo")],
        &[(&kinds::VIRTUAL_SERVICE, "podinfo")],
        &[(&kinds::DEPLOYMENT, "podinfo-primary")],
        &[(&kinds::DEPLOYMENT, "podinfo"), (&kinds::SERVICE, "podinfo"), (&kinds::VIRTUAL_SERVICE, "podinfo")],
    ];
    for missing in sets {
        in_virtual_time(async {
            let mut world = World::new(1);
            world.begin_with_users_objects(|_| {}).await;
            world.kill();
            for (kind, name) in missing {
                world.delete(kind, name).await;
            }
            world.delete(&kinds::CANARY, "podinfo").await;
            world.start();
            world.wait_until_it_is_gone().await;
        });
    }
}

#[test]
fn a_canary_stays_until_the_target_is_ready_or_nobody_wants_it_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_users_objects(|_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.1-noready");
        world.wait_for_phase("podinfo", "Failed").await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(600)).await;
        assert!(!world.is_gone());
        assert_eq!(world.phase("podinfo"), "Terminating");
        assert_eq!(world.count_events("podinfo", "canary not ready during finalizing"), 1, "{}", world.story());
        world.assert_undisturbed();

        world.patch_canary("podinfo", json!({"revertOnDeletion": false})).await;
        world.wait_until_it_is_gone().await;
    });
}

#[test]
fn a_finalizer_that_is_no_longer_wanted_goes_and_those_of_others_stay() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world
            .begin(|canary| {
                reverting(canary);
                canary["metadata"]["finalizers"] = json!(["other/x"]);
            })
            .await;
        assert_eq!(world.finalizers(), json!(["other/x", FINALIZER]));
        // While the controller is down, which Flagger never notices.
        world.kill();
        world.patch_canary("podinfo", json!({"revertOnDeletion": false})).await;
        world.start();
        world.wait_until("it is off", || world.finalizers() == json!(["other/x"])).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(60)).await;
        assert!(!world.is_gone(), "somebody else holds it");
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(crate::support::AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");
    });
}

/// What the object says is not understood, so nothing can be given back; it stays until that is mended, or until nobody
/// wants anything back.
#[test]
fn a_deleted_canary_that_is_refused_can_be_let_go() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_with_users_objects(|_| {}).await;
        world.patch_canary("podinfo", json!({"provider": "linkerd"})).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(60)).await;
        assert!(!world.is_gone());
        assert_eq!(world.condition("podinfo", "Accepted").expect("says so")["status"], "False");
        world.patch_canary("podinfo", json!({"provider": "istio"})).await;
        world.wait_until_it_is_gone().await;
        world.assert_given_back("mended");

        let mut world = World::new(1);
        world.begin_with_users_objects(|_| {}).await;
        world.patch_canary("podinfo", json!({"provider": "linkerd"})).await;
        world.delete(&kinds::CANARY, "podinfo").await;
        world.pass(Duration::from_secs(60)).await;
        world.patch_canary("podinfo", json!({"revertOnDeletion": null})).await;
        world.wait_until_it_is_gone().await;
    });
}
