//! What Flagger leaves of other targets, of KEDA and without a mesh. Aviary makes the objects here as Flagger does; the status,
//! and the ids of pods, are made Flagger's.

use std::time::Duration;

use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Value, json};

use super::left::{NEW, OLD};
use crate::support::{AGENT, World, canary, daemon_set, deployment, in_virtual_time, iterations, service};

const PAUSED: &str = "/metadata/annotations/autoscaling.keda.sh~1paused-replicas";

const DAEMON_SET: &GroupKind = &kinds::DAEMON_SET;
const DEPLOYMENT: &GroupKind = &kinds::DEPLOYMENT;
const SERVICE: &GroupKind = &kinds::SERVICE;
const VIRTUAL_SERVICE: &GroupKind = &kinds::VIRTUAL_SERVICE;
const SCALED_OBJECT: &GroupKind = &kinds::SCALED_OBJECT;

/// What is taken over.
#[derive(Clone, Copy, PartialEq)]
enum Setup {
    DaemonSet,
    WithoutMesh,
    Keda,
}

impl Setup {
    fn kind(self) -> &'static GroupKind {
        if self == Setup::DaemonSet { DAEMON_SET } else { DEPLOYMENT }
    }

    async fn create(self, world: &World) {
        let mut object = canary("test", "podinfo");
        match self {
            Setup::DaemonSet => {
                object["spec"]["targetRef"]["kind"] = json!("DaemonSet");
                world.create(daemon_set("test", "podinfo", OLD)).await;
            }
            Setup::WithoutMesh => {
                object["spec"]["provider"] = json!("kubernetes");
                iterations(&mut object, 4);
                world.create(deployment("test", "podinfo", OLD)).await;
                world.create(service("test", "podinfo", "podinfo")).await;
                world.traffic.set_load("test", "podinfo-canary", 20.0);
            }
            Setup::Keda => {
                object["spec"]["autoscalerRef"] =
                    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
                world.create(deployment("test", "podinfo", OLD)).await;
                world.create(scaled_object()).await;
                world.load_heavily();
            }
        }
        world.create(object).await;
    }

    /// Where a run is cut.
    fn is_half_way(self, status: &Value) -> bool {
        let (field, value) = if self == Setup::WithoutMesh { ("iterations", 2) } else { ("canaryWeight", 20) };
        status[field] == value
    }

    fn made(self, world: &World) -> Vec<Value> {
        let mut objects = vec![(self.kind(), "podinfo-primary"), (self.kind(), "podinfo"), (SERVICE, "podinfo")];
        match self {
            Setup::WithoutMesh => {}
            Setup::DaemonSet => objects.push((VIRTUAL_SERVICE, "podinfo")),
            Setup::Keda => {
                objects.extend([(SCALED_OBJECT, "podinfo-so"), (SCALED_OBJECT, "podinfo-so-primary")]);
            }
        }
        let spec_of = |(kind, name): &(&GroupKind, &str)| {
            let object = world.get(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
            // Autoscalers go on scaling.
            let mut spec = object["spec"].clone();
            if self == Setup::Keda && *kind == DEPLOYMENT {
                spec.as_object_mut().unwrap().remove("replicas");
            }
            json!([spec, object["metadata"]["annotations"], object["metadata"]["ownerReferences"]])
        };
        objects.iter().map(spec_of).collect()
    }
}

fn scaled_object() -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"namespace": "test", "name": "podinfo-so"},
        "spec": {
            "scaleTargetRef": {"name": "podinfo"}, "pollingInterval": 10, "minReplicaCount": 2, "maxReplicaCount": 4,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": "http://prometheus:9090", "query": "sum(rate(http_requests_total{app=\"podinfo\"}[1m]))",
                "threshold": "1000",
            }}],
        },
    })
}

/// As if Flagger had come this far: its hashes, none of Aviary's fields, and an id that says nothing.
fn make_it_flaggers(world: &World, setup: Setup) {
    world.change(&kinds::CANARY, "podinfo", |canary| {
        let status = canary["status"].as_object_mut().unwrap();
        status.remove("observedGeneration");
        status.remove("lastStepTime");
        status.insert("lastAppliedSpec".to_owned(), json!("5f56684589"));
        status.insert("lastPromotedSpec".to_owned(), json!("4cb74184589"));
        if status["phase"] == "Progressing" && setup == Setup::WithoutMesh {
            status.insert("canaryWeight".to_owned(), json!(0));
        }
    });
    world.change(setup.kind(), "podinfo-primary", |primary| {
        primary["spec"]["template"]["metadata"]["annotations"]["flagger-id"] =
            json!("f47ac10b-58cc-4372-a567-0e02b2c3d479");
    });
}

async fn initialized(setup: Setup) -> World {
    let mut world = World::new(1);
    setup.create(&world).await;
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    world
}

/// Nothing is told and nothing written but the status; the next version is released.
fn is_adopted_at_rest(setup: Setup) {
    in_virtual_time(async {
        let mut world = initialized(setup).await;
        world.kill();
        make_it_flaggers(&world, setup);
        world.pass(Duration::from_secs(60)).await;
        let (made, events, before) = (setup.made(&world), world.events("podinfo"), world.disturbances());
        let calls = world.cluster.calls().snapshot();
        world.start();
        world.wait_until("the status is adopted", || world.is_adopted()).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(setup.made(&world), made);
        assert_eq!(world.events("podinfo"), events);
        let calls = world.cluster.calls().since(&calls).of_client(AGENT);
        assert_eq!((calls.writes(), calls.event_writes()), (1, 0), "{calls}");

        world.set_image_of(setup.kind(), "podinfo", NEW);
        world.wait_for_phase("podinfo", "Progressing").await;
        ends_with_the_new_version(&world, setup, before).await;
    });
}

/// The run goes on where it was, and is promoted.
fn a_run_is_finished(setup: Setup) {
    in_virtual_time(async {
        let mut world = initialized(setup).await;
        world.set_image_of(setup.kind(), "podinfo", NEW);
        world.wait_until("half way", || setup.is_half_way(&world.status("podinfo"))).await;
        world.kill();
        make_it_flaggers(&world, setup);
        let before = world.disturbances();
        let events = world.events("podinfo").len();
        world.start();
        ends_with_the_new_version(&world, setup, before).await;
        let told = world.events("podinfo").split_off(events);
        let next = if setup == Setup::WithoutMesh { "iteration 3/4" } else { "weight 30" };
        assert!(told[0].contains(next), "{told:#?}");
        assert!(!told.iter().any(|event| event.contains("New revision")), "{told:#?}");
    });
}

async fn ends_with_the_new_version(world: &World, setup: Setup, before: (f64, u64)) {
    world.ends("Succeeded").await;
    let primary = world.get(setup.kind(), "podinfo-primary").unwrap();
    assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], NEW);
    assert_eq!(world.disturbances(), before, "{:#?}\n{}", world.traffic.report("test", "podinfo"), world.story());
    world.pass(Duration::from_secs(60)).await;
    let target = world.get(setup.kind(), "podinfo").unwrap();
    match setup {
        Setup::DaemonSet => {
            assert_eq!(target["spec"]["template"]["spec"]["nodeSelector"]["flagger.app/scale-to-zero"], "true");
        }
        Setup::WithoutMesh => assert_eq!(target["spec"]["replicas"], 0),
        Setup::Keda => {
            assert_eq!(target["spec"]["replicas"], 0);
            let paused = |name: &str| world.get(SCALED_OBJECT, name).unwrap().pointer(PAUSED).cloned();
            assert_eq!((paused("podinfo-so"), paused("podinfo-so-primary")), (Some(json!("0")), None));
        }
    }
}

#[test]
fn a_daemon_set_at_rest_is_adopted() {
    is_adopted_at_rest(Setup::DaemonSet);
}

#[test]
fn a_canary_without_a_mesh_at_rest_is_adopted() {
    is_adopted_at_rest(Setup::WithoutMesh);
}

#[test]
fn a_canary_scaled_by_keda_at_rest_is_adopted() {
    is_adopted_at_rest(Setup::Keda);
}

#[test]
fn a_run_of_a_daemon_set_is_finished() {
    a_run_is_finished(Setup::DaemonSet);
}

#[test]
fn a_run_without_a_mesh_is_finished() {
    a_run_is_finished(Setup::WithoutMesh);
}

#[test]
fn a_run_scaled_by_keda_is_finished() {
    a_run_is_finished(Setup::Keda);
}
