//! Canaries of Flagger 0.1 (`flagger.app/v1alpha1`), as its README has them, on the embedded cluster.

use std::time::Duration;

use aviary_promql::{EngineOptions, MemorySource, Query, QueryValue};
use aviary_providers::metrics::flagger_v1alpha1::LATENCY;
use aviary_sim::store::kinds;
use aviary_sim::traffic::Behaviour;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{World, api, canary, create_through, in_virtual_time};

/// The objects of the README.
pub fn document() -> Vec<Value> {
    serde_saphyr::from_multiple(include_str!("../docs/systems/flagger-0.1.yaml")).unwrap()
}

/// The Canary of the README, for a Deployment without an autoscaler.
pub fn of_the_readme() -> Value {
    let mut canary = document().into_iter().find(|object| object["kind"] == "Canary").unwrap();
    canary["spec"].as_object_mut().unwrap().remove("autoscalerRef");
    canary
}

impl World {
    async fn begin_v1alpha1(&mut self, object: Value) {
        self.load_heavily();
        self.initialize(object).await;
    }
}

const ADVANCED: [&str; 10] = [
    "New revision detected! Scaling up podinfo.test",
    "Starting canary deployment for podinfo.test",
    "Advance podinfo.test canary weight 10",
    "Advance podinfo.test canary weight 20",
    "Advance podinfo.test canary weight 30",
    "Advance podinfo.test canary weight 40",
    "Advance podinfo.test canary weight 50",
    "Copying podinfo.test template spec to podinfo-primary.test",
    "Routing all traffic to primary",
    "Promotion completed! Scaling down podinfo.test",
];

#[test]
fn a_good_version_is_promoted_with_the_events_and_states_of_flagger_0_1() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_v1alpha1(of_the_readme()).await;
        assert_eq!(world.status("podinfo")["state"], "initialized");
        assert!(world.events("podinfo").contains(&"Initialization done! podinfo.test".to_owned()), "{}", world.story());
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("it runs", || world.status("podinfo")["state"] == "running").await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.events_from("podinfo", "New revision"), ADVANCED);
        let status = world.status("podinfo");
        assert_eq!((&status["state"], &status["failedChecks"]), (&json!("finished"), &json!(0)));
        assert_eq!(status["canaryRevision"], status["lastAppliedSpec"]);
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.1");
    });
}

#[test]
fn a_slow_version_is_rolled_back_by_its_latency_in_milliseconds() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::slow(1000.0, 1500.0));
        world.begin_v1alpha1(of_the_readme()).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let events = world.events_from("podinfo", "New revision");
        let halts: Vec<&String> = events.iter().filter(|event| event.starts_with("Halt ")).collect();
        assert!(!halts.is_empty(), "{}", world.story());
        for halt in halts {
            assert!(halt.starts_with("Halt podinfo.test advancement request duration "), "{halt}");
            assert!(halt.ends_with("s > 500ms"), "{halt}");
        }
        let end = &events[events.len() - 2..];
        assert_eq!(
            end,
            ["Rolling back podinfo.test failed checks threshold reached 5", "Canary failed! Scaling down podinfo.test"]
        );
        assert_eq!(world.status("podinfo")["state"], "failed");
        assert_eq!(world.image_of("podinfo-primary"), "podinfo:6.0.0");
    });
}

#[test]
fn a_failing_version_is_rolled_back_by_its_success_rate() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour("podinfo:6.0.2", Behaviour::failing(0.3));
        world.begin_v1alpha1(of_the_readme()).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        let events = world.events("podinfo");
        assert!(events.iter().any(|event| event.contains("advancement success rate 7") && event.ends_with("% < 99%")));
    });
}

/// The mesh of that time has seconds, and the limit is in milliseconds. Where both series are there (an upgrade of Istio), seconds
/// are asked first; where there is none, there is no value, which is a failed check and not a fast one.
#[test]
fn latency_in_seconds_is_judged_in_milliseconds() {
    let query =
        LATENCY.replace("{{ namespace }}", "test").replace("{{ target }}", "podinfo").replace("{{ interval }}", "1m");
    let query = Query::parse(&query).unwrap();
    let p99 = |series: &[(&str, [&str; 3])]| {
        let mut source = MemorySource::default();
        for (name, bounds) in series {
            for (bound, per_scrape) in bounds.iter().zip([50.0, 100.0, 100.0]) {
                let labels = [
                    ("__name__", *name),
                    ("reporter", "destination"),
                    ("destination_workload_namespace", "test"),
                    ("destination_workload", "podinfo"),
                    ("le", *bound),
                ];
                for (scrape, at) in (0..=60_000).step_by(5_000).enumerate() {
                    source.append(&labels, at, per_scrape * scrape as f64);
                }
            }
        }
        let value = query.instant(&source, 60_000, &EngineOptions::default()).unwrap();
        let QueryValue::Vector(samples) = value else { panic!("no vector: {value:?}") };
        samples.into_iter().map(|sample| sample.value).collect::<Vec<f64>>()
    };
    let seconds = ("istio_request_duration_seconds_bucket", ["0.1", "0.5", "+Inf"]);
    let milliseconds = ("istio_request_duration_milliseconds_bucket", ["100", "1000", "+Inf"]);
    for (series, expected) in
        [(&[seconds][..], &[492.0][..]), (&[milliseconds], &[982.0]), (&[seconds, milliseconds], &[492.0]), (&[], &[])]
    {
        let found = p99(series);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
    }
}

/// Flagger 0.1 promoted at exactly `maxWeight` and nowhere else: with steps of 30 to 50 it went on past 100.
#[test]
fn a_step_beyond_the_greatest_weight_is_promoted_all_the_same() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut object = of_the_readme();
        object["spec"]["canaryAnalysis"]["stepWeight"] = json!(30);
        world.begin_v1alpha1(object).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.status("podinfo")["state"], "finished");
    });
}

#[test]
fn both_versions_hand_out_the_same_object_and_cut_nothing_away() {
    in_virtual_time(async {
        let world = World::new(1);
        both_versions_round_trip(&world.cluster.client("kubectl")).await;
    });
}

/// What an object says is stored whole, whichever version it is written in, and either version hands it out. In namespace `test`,
/// where nobody runs canaries.
pub async fn both_versions_round_trip(client: &kube::Client) {
    let in_version = |version| api(client.clone(), "flagger.app", version, "Canary", Some("test"));
    let (older, newer) = (in_version("v1alpha1"), in_version("v1beta1"));
    create_through(client.clone(), of_the_readme()).await;
    create_through(client.clone(), canary("test", "other")).await;
    let stored = json!({"state": "running", "canaryRevision": "eyJ9", "failedChecks": 2});
    let patch = Patch::Merge(json!({"status": stored}));
    older.patch_status("podinfo", &PatchParams::default(), &patch).await.unwrap();
    for (name, written) in [("podinfo", of_the_readme()), ("other", canary("test", "other"))] {
        let (older, newer) = (older.get(name).await.unwrap(), newer.get(name).await.unwrap());
        assert_eq!((&older.data["spec"], &newer.data["spec"]), (&written["spec"], &written["spec"]));
        assert_eq!(older.data.get("status"), newer.data.get("status"));
    }
    assert_eq!(newer.get("podinfo").await.unwrap().data["status"], stored);
    // A change by the older version of an object of the newer one, as by `kubectl edit canary.v1alpha1.flagger.app`.
    let change = Patch::Merge(json!({"spec": {"suspend": true}}));
    older.patch("other", &PatchParams::default(), &change).await.unwrap();
    let mut expected = canary("test", "other")["spec"].clone();
    expected["suspend"] = json!(true);
    assert_eq!(newer.get("other").await.unwrap().data["spec"], expected);
    // Neither analysis: refused in both.
    for (version, canaries) in [("v1alpha1", &older), ("v1beta1", &newer)] {
        let mut bare = of_the_readme();
        bare["apiVersion"] = json!(format!("flagger.app/{version}"));
        bare["metadata"]["name"] = json!("bare");
        bare["spec"].as_object_mut().unwrap().remove("canaryAnalysis");
        let bare = serde_json::from_value(bare).unwrap();
        let refusal = canaries.create(&PostParams::default(), &bare).await.unwrap_err().to_string();
        let expected = "spec.analysis: Required value: or canaryAnalysis, as in flagger.app/v1alpha1";
        assert!(refusal.contains(expected), "{version}: {refusal}");
    }
}

/// Both kinds in one namespace: each has its own interval, words and fields.
#[test]
fn old_and_new_canaries_run_side_by_side() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.config.validation.control_loop_interval = Duration::from_secs(20);
        world.traffic.set_load("test", "newer", 2000.0);
        world.deploy("newer").await;
        world.begin_v1alpha1(of_the_readme()).await;
        world.wait_for_phase("newer", "Initialized").await;
        let (older, newer) = (world.follow("test", "podinfo"), world.follow("test", "newer"));
        for name in ["podinfo", "newer"] {
            world.set_image(name, "podinfo:6.0.1");
        }
        for name in ["podinfo", "newer"] {
            world.wait_for_phase(name, "Succeeded").await;
        }
        let step = |journal: &crate::support::Journal| {
            journal.time_of("Progressing", 20).duration_since(journal.time_of("Progressing", 10)).as_secs()
        };
        assert_eq!((step(&older), step(&newer)), (20, 10));
        assert_eq!(world.count_events("newer", "Starting canary analysis for newer.test"), 1);
        assert_eq!(world.count_events("podinfo", "Starting canary analysis"), 0);
        assert!(world.status("newer")["state"].is_null() && world.status("newer")["canaryRevision"].is_null());
    });
}

/// A user who moves on: the same canary with an `analysis` is one of today's, and loses the fields that nobody renews.
#[test]
fn a_canary_moves_on_to_the_newer_version_without_a_release() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_v1alpha1(of_the_readme()).await;
        let analysis = json!({"interval": "15s", "threshold": 5, "maxWeight": 50, "stepWeight": 10});
        world.patch_canary("podinfo", json!({"analysis": analysis, "canaryAnalysis": null})).await;
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.phase("podinfo"), "Initialized", "{}", world.story());
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.count_events("podinfo", "Starting canary analysis for podinfo.test"), 1);
        assert!(world.status("podinfo")["state"].is_null() && world.status("podinfo")["canaryRevision"].is_null());
    });
}

/// What Flagger 0.1 leaves behind after `state`: the pod spec in base64 as the revision, and nothing that is newer.
async fn left_by_flagger_0_1(world: &mut World, state: &str) {
    world.begin_v1alpha1(of_the_readme()).await;
    assert!(world.stop().await);
    let revision = "eyJjb250YWluZXJzIjpbeyJuYW1lIjoicG9kaW5mb2QifV19";
    world.change(&kinds::CANARY, "podinfo", |canary| {
        canary["status"] = json!({"state": state, "canaryRevision": revision, "failedChecks": 0});
    });
}

#[test]
fn a_canary_of_flagger_0_1_is_taken_over_without_a_release() {
    for (state, phase) in [("initialized", "Initialized"), ("finished", "Succeeded"), ("failed", "Failed")] {
        in_virtual_time(async {
            let mut world = World::new(1);
            left_by_flagger_0_1(&mut world, state).await;
            let before = world.events("podinfo").len();
            world.start();
            world.wait_for_phase("podinfo", phase).await;
            world.pass(Duration::from_secs(300)).await;
            assert_eq!(
                (world.phase("podinfo").as_str(), world.events("podinfo").len()),
                (phase, before),
                "{}",
                world.story()
            );
            assert_eq!(world.status("podinfo")["state"], state);
            world.set_image("podinfo", "podinfo:6.0.1");
            world.wait_for_phase("podinfo", "Progressing").await;
            world.wait_for_phase("podinfo", "Succeeded").await;
        });
    }
}

/// In the middle of a release: from the weight that the routes have, which Flagger 0.1 stored nowhere else.
#[test]
fn a_release_of_flagger_0_1_goes_on_from_the_weight_of_the_routes() {
    in_virtual_time(async {
        let mut world = World::new(1);
        left_by_flagger_0_1(&mut world, "running").await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| target["spec"]["replicas"] = json!(1));
        let virtual_service = aviary_sim::store::GroupKind::known("networking.istio.io", "VirtualService");
        world.change(&virtual_service, "podinfo", |service| {
            for route in service["spec"]["http"][0]["route"].as_array_mut().expect("routes") {
                let is_canary = route["destination"]["host"] == "podinfo-canary";
                route["weight"] = json!(if is_canary { 30 } else { 70 });
            }
        });
        world.pass(Duration::from_secs(60)).await;
        let journal = world.follow("test", "podinfo");
        world.start();
        world.wait_for_phase("podinfo", "Succeeded").await;
        let weights: Vec<u64> =
            journal.steps().into_iter().filter(|(phase, _)| phase == "Progressing").map(|(_, weight)| weight).collect();
        assert_eq!(weights, [30, 40, 50], "{}", world.story());
    });
}
