//! BirdWatch (`otomato.link/v1alpha1`): the example of its README on the embedded cluster, and what the otomator did wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::hooks::GlobalNotifier;
use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_providers::notify::AlertTarget;
use aviary_sim::controllers::PodDetail;
use aviary_sim::store::{GroupKind, kinds};
use aviary_sim::traffic::{Behaviour, TrafficOptions};
use futures::FutureExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{World, api, canary, deployment, in_virtual_time};

pub const BIRD_WATCH: GroupKind = GroupKind::known("otomato.link", "BirdWatch");
const VIRTUAL_SERVICE: GroupKind = GroupKind::known("networking.istio.io", "VirtualService");
const DESTINATION_RULE: GroupKind = GroupKind::known("networking.istio.io", "DestinationRule");

const BAD: &str = "aleph:v04";

/// The example of the README, word for word.
pub fn of_the_readme() -> Value {
    let mut object: Value = serde_saphyr::from_str(include_str!("../docs/systems/birdwatch/aleph.yaml")).unwrap();
    object["metadata"]["namespace"] = json!("test");
    object
}

/// Ten steps and not a hundred, for what does not depend on their number.
pub fn in_steps_of_ten() -> Value {
    let mut object = of_the_readme();
    object["spec"]["increment"] = json!(10);
    object
}

impl World {
    /// Two versions of a service with subsets and routes, and users.
    pub async fn with_service(&self, name: &str) {
        let text = include_str!("../docs/systems/birdwatch/service.yaml").replace("aleph", name);
        for mut object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            object["metadata"]["namespace"] = json!("test");
            self.create(object).await;
        }
        self.traffic.set_load("test", name, 1000.0);
    }

    async fn begin_birdwatch(&mut self, object: Value) {
        self.with_service("aleph").await;
        self.start();
        self.pass(Duration::from_secs(60)).await;
        self.create(object).await;
    }

    fn birdwatch(&self, name: &str) -> Value {
        self.get(&BIRD_WATCH, name).map(|object| object["status"].clone()).unwrap_or_default()
    }

    async fn wait_for_birdwatch(&self, name: &str, phase: &str) {
        self.wait_until(&format!("{name} is {phase}"), || self.birdwatch(name)["phase"] == phase).await;
        self.pass(Duration::from_secs(5)).await;
    }

    /// Weights of production and canary.
    fn subset_weights(&self, name: &str) -> (Value, Value) {
        let object = self.get(&VIRTUAL_SERVICE, name).unwrap();
        let weight = |index: usize| object["spec"]["http"][0]["route"][index]["weight"].clone();
        (weight(0), weight(1))
    }

    /// Versions behind production and canary.
    fn subset_versions(&self, name: &str) -> [Value; 2] {
        let object = self.get(&DESTINATION_RULE, name).unwrap();
        [0, 1].map(|index: usize| object["spec"]["subsets"][index]["labels"]["version"].clone())
    }

    fn told(&self, name: &str) -> Vec<String> {
        let events = self.cluster.store().list(&kinds::EVENT, Some("test")).into_iter();
        let own = events
            .filter(|event| event["involvedObject"]["kind"] == "BirdWatch" && event["involvedObject"]["name"] == name);
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        assert!(own.iter().all(|event| event["source"]["component"] == "birdwatch"), "{own:#?}");
        own.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    async fn patch_birdwatch(&self, name: &str, spec: Value) {
        let api = api(self.cluster.client("kubectl"), "otomato.link", "v1alpha1", "BirdWatch", Some("test"));
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    }
}

#[test]
fn a_good_version_of_the_readmes_example_is_released() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_birdwatch(of_the_readme()).await;
        let before =
            (world.get(&kinds::DEPLOYMENT, "aleph-v03").unwrap(), world.get(&VIRTUAL_SERVICE, "aleph").unwrap());
        world.wait_for_birdwatch("aleph", "Succeeded").await;
        assert_eq!(world.subset_versions("aleph"), ["v04", "v04"]);
        assert_eq!(world.subset_weights("aleph"), (json!(100), json!(0)));
        let told = world.told("aleph");
        let first = [
            "all the metrics providers are available!",
            "New canary version v04 detected for aleph.test",
            "Starting canary deployment for aleph.test",
            "Advance aleph.test canary weight 1",
            "Baseline of aleph.test is 0.00: the metric has no data at canary weight 1",
            "Advance aleph.test canary weight 2",
        ];
        assert_eq!(told[..6], first);
        let last = [
            "Advance aleph.test canary weight 100",
            "Releasing version v04 to subset production of aleph.test",
            "Routing all traffic to production",
            "Canary aleph.test version v04 released to production",
        ];
        assert_eq!(told[told.len() - 4..], last);
        assert_eq!(world.birdwatch("aleph")["baseline"].as_f64(), Some(0.0));
        // Everything else is the user's.
        let after =
            (world.get(&kinds::DEPLOYMENT, "aleph-v03").unwrap(), world.get(&VIRTUAL_SERVICE, "aleph").unwrap());
        assert_eq!(after.0["metadata"]["generation"], before.0["metadata"]["generation"]);
        assert_eq!(after.1["spec"], before.1["spec"]);
        assert_eq!(world.traffic.report("test", "aleph").failures(), 0.0);
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.told("aleph"), told, "it is over");
    });
}

/// Users meet nothing but the two versions, also while the mesh is behind.
#[test]
fn a_release_loses_no_request_in_a_mesh_that_is_behind() {
    in_virtual_time(async {
        let lag = Duration::from_millis(100);
        let options = TrafficOptions { route_lag: lag, endpoint_lag: lag, ..TrafficOptions::default() };
        let mut world = World::with_traffic(1, PodDetail::Objects, options);
        let mut object = in_steps_of_ten();
        // Nobody is behind this subset.
        world.with_service("aleph").await;
        world.change(&DESTINATION_RULE, "aleph", |rule| rule["spec"]["subsets"][1]["labels"]["version"] = json!("v01"));
        object["metadata"]["name"] = json!("aleph-to-v04");
        world.start();
        world.pass(Duration::from_secs(60)).await;
        world.create(object).await;
        world.wait_for_birdwatch("aleph-to-v04", "Succeeded").await;
        let report = world.traffic.report("test", "aleph");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
        assert!(report.workload("aleph-v04").requests > 0.0);
    });
}

#[test]
fn a_bad_version_of_the_readmes_example_is_rolled_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour(BAD, Behaviour::failing(0.3));
        world.begin_birdwatch(of_the_readme()).await;
        world.wait_for_birdwatch("aleph", "Failed").await;
        assert_eq!(
            (world.subset_weights("aleph"), world.subset_versions("aleph")),
            ((json!(100), json!(0)), [json!("v03"), json!("v04")])
        );
        let told = world.told("aleph");
        assert!(
            told.iter().any(|text| text.starts_with("Halt aleph.test advancement metric ")
                && text.contains("is more than 0.5 above baseline")),
            "{told:#?}"
        );
        assert_eq!(told.last().unwrap(), "Canary aleph.test is sick, all traffic is back on production");
        assert!(!told.iter().any(|text| text == "Advance aleph.test canary weight 5"), "{told:#?}");
    });
}

#[test]
fn a_bad_version_is_frozen_where_that_is_asked_for_and_slack_hears_of_it() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let posts: Arc<Mutex<Vec<Value>>> = Arc::default();
        let taken = posts.clone();
        let service = Arc::new(move |request: HttpRequest| {
            taken.lock().unwrap().push(serde_json::from_slice(&request.body).unwrap());
            async { Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() }) }.boxed()
        });
        world.services = std::mem::take(&mut world.services).and("slack.test", service);
        let target = AlertTarget {
            address: "http://slack.test/hook".into(),
            channel: "deployment".into(),
            username: "birdwatch".into(),
            token: None,
            proxy: None,
        };
        world.config.notifier = Some(GlobalNotifier { channel: "slack".into(), target });
        world.traffic.set_behaviour(BAD, Behaviour::failing(0.3));
        let mut object = in_steps_of_ten();
        object["spec"]["if_unhealthy"] = json!("freeze");
        world.begin_birdwatch(object).await;
        world.wait_for_birdwatch("aleph", "Failed").await;
        assert_eq!(world.subset_weights("aleph"), (json!(80), json!(20)));
        let status = world.birdwatch("aleph");
        assert_eq!((&status["canaryWeight"], &status["baseline"]), (&json!(20), &status["lastValue"]));
        let told = world.told("aleph");
        assert_eq!(told.last().unwrap(), "Canary aleph.test is sick, frozen at canary weight 20");
        let posts = posts.lock().unwrap();
        let texts: Vec<&str> = posts.iter().map(|post| post["attachments"][0]["text"].as_str().unwrap()).collect();
        let expected =
            ["New canary version v04 detected for aleph.test", "Canary aleph.test is sick, frozen at canary weight 20"];
        assert_eq!(texts, expected);
        assert!(posts.iter().all(|post| post["channel"] == "deployment"), "{posts:?}");
    });
}

#[test]
fn an_object_in_review_is_ignored() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut object = in_steps_of_ten();
        object["spec"]["review"] = json!(true);
        world.begin_birdwatch(object).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(
            (world.subset_weights("aleph"), world.subset_versions("aleph")),
            ((json!(100), json!(0)), [json!("v03"), json!("v03")])
        );
        world.patch_birdwatch("aleph", json!({"review": false})).await;
        world.wait_for_birdwatch("aleph", "Succeeded").await;
    });
}

/// The otomator watched from the beginning after a restart, and began everything anew.
#[test]
fn a_killed_controller_goes_on_where_it_was_and_leaves_alone_what_is_finished() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_birdwatch(in_steps_of_ten()).await;
        world.wait_until("it is half way", || world.subset_weights("aleph").1 == json!(50)).await;
        world.kill();
        world.start();
        world.wait_for_birdwatch("aleph", "Succeeded").await;
        let told = world.told("aleph");
        assert_eq!(told.iter().filter(|text| *text == "Advance aleph.test canary weight 10").count(), 1, "{told:#?}");
        world.kill();
        world.change(&VIRTUAL_SERVICE, "aleph", |object| object["spec"]["http"][0]["timeout"] = json!("3s"));
        world.start();
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.told("aleph"), told);
    });
}

/// Any edit started a second run.
#[test]
fn an_edit_is_no_new_run_and_another_version_is() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.traffic.set_behaviour(BAD, Behaviour::failing(0.3));
        world.begin_birdwatch(in_steps_of_ten()).await;
        world.wait_for_birdwatch("aleph", "Failed").await;
        let told = world.told("aleph").len();
        world.patch_birdwatch("aleph", json!({"deviation": 100.0, "interval": 7})).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!(world.told("aleph").len(), told);
        let mut next = deployment("test", "aleph-v05", "aleph:v05");
        for path in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            *next.pointer_mut(path).unwrap() = json!({"app": "aleph", "version": "v05"});
        }
        next["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] = json!("http");
        world.create(next).await;
        world.patch_birdwatch("aleph", json!({"canary_version": "v05"})).await;
        world.wait_for_birdwatch("aleph", "Succeeded").await;
        assert_eq!(world.subset_versions("aleph"), ["v05", "v05"]);
    });
}

/// The otomator read by `service` and wrote by its own name; and one release waited for the other.
#[test]
fn releases_run_side_by_side_and_write_to_the_service_that_they_name() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.with_service("aleph").await;
        world.with_service("beth").await;
        world.start();
        world.pass(Duration::from_secs(60)).await;
        for (name, service) in [("beth", "aleph"), ("aleph", "beth")] {
            let mut object = in_steps_of_ten();
            object["metadata"]["name"] = json!(name);
            object["spec"]["service"] = json!(service);
            world.create(object).await;
        }
        world
            .wait_until("both are on their way", || {
                ["aleph", "beth"]
                    .iter()
                    .all(|name| world.subset_weights(name).1.as_u64().is_some_and(|weight| weight >= 10))
            })
            .await;
        for name in ["aleph", "beth"] {
            world.wait_for_birdwatch(name, "Succeeded").await;
            assert_eq!(world.subset_versions(name), ["v04", "v04"]);
        }
    });
}

#[test]
fn a_finished_object_makes_room_for_the_next_one_and_goes_where_that_is_asked_for() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut object = in_steps_of_ten();
        object["spec"]["delete_on_success"] = json!(true);
        world.begin_birdwatch(object).await;
        world.wait_until("it is gone", || world.get(&BIRD_WATCH, "aleph").is_none()).await;
        assert_eq!(world.subset_versions("aleph"), ["v04", "v04"]);
        // The way back, in objects that stay.
        for (name, version) in [("back", "v03"), ("again", "v04")] {
            let mut object = in_steps_of_ten();
            object["metadata"]["name"] = json!(name);
            object["spec"]["canary_version"] = json!(version);
            world.create(object).await;
            world.wait_for_birdwatch(name, "Succeeded").await;
            assert_eq!(world.subset_versions("aleph"), [version, version]);
        }
        assert_eq!(world.birdwatch("back")["phase"], "Succeeded");
    });
}

#[test]
fn two_kinds_at_one_service_are_told_so() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_birdwatch(of_the_readme()).await;
        world.wait_until("it runs", || world.subset_weights("aleph").1 == json!(3)).await;
        world.create(deployment("test", "aleph", "podinfo:6.0.0")).await;
        world.create(canary("test", "aleph")).await;
        world.pass(Duration::from_secs(60)).await;
        let told = world.told("aleph");
        assert!(told.iter().any(|text| text.contains("aleph") && text.contains("does nothing")), "{told:#?}");
        let events = world.events("aleph");
        assert!(events.iter().any(|text| text.contains("birdwatch aleph")), "{events:#?}");
        assert!(world.get(&kinds::DEPLOYMENT, "aleph-primary").is_none());
        world.wait_for_birdwatch("aleph", "Succeeded").await;
    });
}

#[test]
fn what_is_wrong_is_told_on_the_object() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let mut object = of_the_readme();
        object["spec"]["deviation"] = json!(-1);
        world.begin_birdwatch(object).await;
        world.pass(Duration::from_secs(5)).await;
        let expected = "spec.deviation: must not be negative (got -1.0); use 0 or more; only a rise is unhealthy";
        assert_eq!(world.told("aleph"), [expected]);
        world.patch_birdwatch("aleph", json!({"deviation": 0.5, "service": "gimel"})).await;
        world.pass(Duration::from_secs(5)).await;
        let told = world.told("aleph");
        assert!(told.last().unwrap().contains("destinationrules.networking.istio.io \"gimel\" not found"), "{told:#?}");
        let conditions = world.birdwatch("aleph")["conditions"].clone();
        assert!(
            conditions.as_array().is_none_or(|all| all.iter().all(|one| one["type"] != "Accepted")),
            "{conditions}"
        );
    });
}
