//! Rollouts of Steerer (`apps.weave.works/v1beta1`): the example of its guide, on the embedded cluster.

use std::path::Path;
use std::time::Duration;

use aviary_sim::controllers::{PodBehaviour, PodOutcome};
use aviary_sim::store::{GroupKind, kinds};
use aviary_sim::traffic::Behaviour;
use serde_json::{Value, json};

use crate::support::{AGENT, World, api, canary, in_virtual_time};

pub const ROLLOUT: GroupKind = GroupKind::known("apps.weave.works", "Rollout");
const NEW_IMAGE: &str = "podinfo:1.2.0";

/// The objects of the guide; those that `change` returns `false` for are left out.
pub fn guide(mut wanted: impl FnMut(&mut Value) -> bool) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systems/steerer.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.retain_mut(|object| object["kind"] != "Namespace" && wanted(object));
    objects
}

/// The same under another name, where `podinfo` is taken.
pub fn guide_of(name: &str) -> Vec<Value> {
    guide(|object| {
        let text = object.to_string().replace("podinfo", name);
        *object = serde_json::from_str(&text.replace(&format!("stefanprodan/{name}"), "stefanprodan/podinfo")).unwrap();
        true
    })
}

impl World {
    async fn begin_steerer(&mut self, objects: Vec<Value>) {
        self.load_heavily();
        for object in objects {
            self.create(object).await;
        }
        self.start();
    }

    fn rollout(&self) -> Value {
        self.get(&ROLLOUT, "podinfo").expect("exists")
    }

    async fn wait_for_rollout_state(&self, state: &str) {
        self.wait_until(state, || self.rollout()["status"]["state"] == state).await;
    }

    async fn wait_for_rollout_weight(&self, weight: u64) {
        self.wait_until(&format!("weight {weight}"), || self.rollout()["status"]["canary_weight"] == weight).await;
    }

    fn rollout_events(&self) -> Vec<Value> {
        let of_rollout = |event: &Value| event["involvedObject"]["kind"] == "Rollout";
        let events = self.cluster.store().list(&kinds::EVENT, Some("test"));
        let mut events: Vec<Value> =
            events.into_iter().map(|event| (*event).clone()).filter(|event| of_rollout(event)).collect();
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        events
    }

    fn rollout_texts(&self) -> Vec<String> {
        let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
        self.rollout_events().iter().map(text).collect()
    }

    fn routed_weights(&self) -> (u64, u64) {
        let route = self.get(&kinds::VIRTUAL_SERVICE, "podinfo").expect("exists")["spec"]["http"][0]["route"].clone();
        let weight = |index: usize| route[index]["weight"].as_u64().unwrap_or(0);
        (weight(0), weight(1))
    }

    fn rollout_image(&self, name: &str) -> String {
        let deployment = self.get(&kinds::DEPLOYMENT, name).expect("exists");
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    }

    fn rollout_replicas(&self, name: &str) -> Option<u64> {
        self.get(&kinds::DEPLOYMENT, name).expect("exists")["spec"]["replicas"].as_u64()
    }
}

fn advance(weights: impl IntoIterator<Item = u32>) -> Vec<String> {
    weights.into_iter().map(|weight| format!("Advance rollout podinfo.test weight {weight}")).collect()
}

#[test]
fn a_good_version_is_promoted_with_the_events_of_the_guide() {
    in_virtual_time(async {
        let mut world = World::new(1);
        // As slow as those of the guide, which tells that it waits for them.
        let slow = PodBehaviour { start_delay: Some(Duration::from_secs(15)), outcome: PodOutcome::Ready };
        world.pods.set(NEW_IMAGE, slow);
        world.begin_steerer(guide(|_| true)).await;
        let services = || world.cluster.store().list(&kinds::SERVICE, Some("test")).len();
        let (deployments, count) = (|| world.cluster.store().list(&kinds::DEPLOYMENT, Some("test")).len(), services());
        world.wait_for_rollout_state("finished").await;
        world.pass(Duration::from_secs(30)).await;

        let mut expected = vec!["Starting rollout for podinfo.test".to_owned()];
        expected.extend(advance((10..=100).step_by(10)));
        expected.push("Copying podinfo-canary.test template spec to podinfo.test".to_owned());
        let texts = world.rollout_texts();
        let texts: Vec<&String> =
            texts.iter().filter(|text| !text.contains("podinfo-canary.test rollout to finish")).collect();
        assert_eq!(texts[..12], expected.iter().collect::<Vec<_>>(), "{}", world.story());
        assert!(texts[12].starts_with("Waiting for podinfo.test rollout to finish: "), "{texts:?}");
        assert_eq!(texts[13], "Promotion complete! Scaling down podinfo-canary.test");
        assert_eq!(texts.len(), 14, "{texts:?}");
        for event in world.rollout_events() {
            let kind = if event["message"].as_str().unwrap().starts_with("Waiting") { "Warning" } else { "Normal" };
            assert_eq!((&event["type"], &event["reason"]), (&json!(kind), &json!("Synced")));
            assert_eq!(event["source"]["component"], "steerer");
            assert_eq!(event["involvedObject"]["apiVersion"], "apps.weave.works/v1beta1");
        }

        assert_eq!((world.routed_weights(), world.rollout_replicas("podinfo-canary")), ((100, 0), Some(0)));
        assert_eq!(
            (world.rollout_image("podinfo"), world.rollout_replicas("podinfo")),
            ("quay.io/stefanprodan/podinfo:1.2.0".into(), Some(2))
        );
        let status = &world.rollout()["status"];
        assert_eq!((&status["phase"], &status["canary_weight"]), (&json!("Succeeded"), &json!(0)));
        assert_eq!((deployments(), services()), (2, count), "nothing is generated");
        let report = world.traffic.report("test", "podinfo");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:?}");
    });
}

#[test]
fn a_bad_version_halts_for_ever_and_goes_on_when_it_recovers() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_weight(60).await;
        world.traffic.set_behaviour(NEW_IMAGE, Behaviour::failing(0.2));
        world.pass(Duration::from_secs(3600)).await;
        let halts = world
            .rollout_texts()
            .iter()
            .filter(|text| text.starts_with("Halt rollout podinfo.test success rate "))
            .count();
        assert!(halts > 0, "{}", world.story());
        let status = world.rollout()["status"].clone();
        assert_eq!((&status["state"], &status["failedChecks"]), (&json!("running"), &json!(0)));
        let held = world.routed_weights();
        assert!(held.1 >= 60 && held.1 < 100, "{held:?}");
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.1.1");
        let warnings = world.rollout_events();
        let halt = warnings.iter().find(|event| event["message"].as_str().unwrap().starts_with("Halt")).unwrap();
        assert_eq!(halt["type"], "Warning");
        assert!(halt["message"].as_str().unwrap().ends_with("% < 99%"), "{halt}");

        world.traffic.set_behaviour(NEW_IMAGE, Behaviour::failing(0.0));
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.2.0");
    });
}

/// Steerer wrote "finished" to the wrong object, so that its rollouts ran for ever.
#[test]
fn a_finished_rollout_rests_until_the_canary_is_updated() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_state("finished").await;
        world.pass(Duration::from_secs(60)).await;
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(AGENT);
        assert_eq!(calls.reads() + calls.writes() + calls.event_writes(), 0, "{calls}");

        world.set_image("podinfo-canary", "quay.io/stefanprodan/podinfo:1.3.0");
        world.wait_for_rollout_state("running").await;
        assert_eq!(world.rollout_replicas("podinfo-canary"), Some(2), "as many as the primary");
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.3.0");
        let starts = world.rollout_events();
        let starts = starts.iter().filter(|event| event["message"] == "Starting rollout for podinfo.test");
        let count: u64 = starts.map(|event| event["count"].as_u64().unwrap_or(1)).sum();
        assert_eq!(count, 2);
    });
}

/// Steerer took the resource version of the canary's Deployment for its revision, which changes with every pod that starts.
#[test]
fn a_change_beside_the_pod_template_is_no_new_version() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_state("finished").await;
        world.pass(Duration::from_secs(60)).await;
        let told = world.rollout_texts();
        world.change(&kinds::DEPLOYMENT, "podinfo-canary", |canary| {
            canary["metadata"]["annotations"]["example.com/touched"] = json!("by somebody");
        });
        world.pass(Duration::from_secs(300)).await;
        assert_eq!((world.rollout_texts(), &world.rollout()["status"]["state"]), (told, &json!("finished")));
        assert_eq!((world.rollout_replicas("podinfo-canary"), world.routed_weights()), (Some(0), (100, 0)));
    });
}

/// What was checked of one version says nothing of the next.
#[test]
fn a_newer_version_in_the_middle_starts_over() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_weight(60).await;
        world.set_image("podinfo-canary", "quay.io/stefanprodan/podinfo:1.3.0");
        world.wait_until("it starts over", || world.routed_weights().1 <= 10).await;
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.1.1");
        world.wait_for_rollout_weight(50).await;
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.3.0");
        let report = world.traffic.report("test", "podinfo");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:?}");
    });
}

/// Steerer wrote the whole list of routes anew, and its own example lost its timeout.
#[test]
fn nothing_of_the_users_routes_changes_but_two_weights() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "VirtualService" {
                object["spec"]["http"][0]["retries"] = json!({"attempts": 3, "perTryTimeout": "2s"});
                let other =
                    json!({"match": [{"uri": {"prefix": "/old"}}], "route": [{"destination": {"host": "podinfo"}}]});
                object["spec"]["http"].as_array_mut().unwrap().insert(0, other);
                object["spec"]["http"].as_array_mut().unwrap().swap(0, 1);
            }
            true
        });
        world.begin_steerer(objects).await;
        let spec = |world: &World| world.get(&kinds::VIRTUAL_SERVICE, "podinfo").unwrap()["spec"].clone();
        let mut expected = spec(&world);
        world.wait_for_rollout_weight(30).await;
        expected["http"][0]["route"][0]["weight"] = json!(70);
        expected["http"][0]["route"][1]["weight"] = json!(30);
        assert_eq!(spec(&world), expected);
        assert_eq!(expected["http"][0]["timeout"], "30s");
    });
}

/// Steerer went 30, 60, 90, 120 and never met 100.
#[test]
fn a_step_that_does_not_divide_100_ends_at_100() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "Rollout" {
                object["spec"]["virtualService"]["weight"] = json!(30);
            }
            true
        });
        world.begin_steerer(objects).await;
        world.wait_for_rollout_state("finished").await;
        let texts = world.rollout_texts();
        let advanced: Vec<&String> = texts.iter().filter(|text| text.starts_with("Advance")).collect();
        assert_eq!(advanced, advance([30, 60, 90, 100]).iter().collect::<Vec<_>>());
    });
}

/// Steerer asked for the success rate once more after the copy, and left everybody on the canary when it was bad.
#[test]
fn after_the_promotion_only_readiness_counts() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let slow = PodBehaviour { start_delay: Some(Duration::from_secs(120)), outcome: PodOutcome::Ready };
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_weight(100).await;
        world.pods.set(NEW_IMAGE, slow);
        world.wait_until("the copy", || world.rollout_image("podinfo").ends_with("1.2.0")).await;
        world.traffic.set_behaviour(NEW_IMAGE, Behaviour::failing(0.5));
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.routed_weights(), (100, 0));
        assert!(!world.rollout_texts().iter().any(|text| text.starts_with("Halt")), "{}", world.story());
    });
}

/// Zero by zero. NaN is not less than a threshold, and Steerer's canaries without users passed.
#[test]
fn a_canary_whose_users_go_away_halts() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_weight(10).await;
        world.traffic.set_load("test", "podinfo", 0.0);
        world.pass(Duration::from_secs(900)).await;
        let held = world.routed_weights();
        assert!(held.1 < 100 && world.rollout()["status"]["state"] == "running", "{held:?}\n{}", world.story());
        let texts = world.rollout_texts();
        assert!(texts.iter().any(|text| text.starts_with("Halt rollout podinfo.test ")), "{texts:?}");
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.1.1");
    });
}

#[test]
fn an_answer_without_values_halts() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "Rollout" {
                object["spec"]["metric"]["name"] = json!("nobody_counts_here");
            }
            true
        });
        world.begin_steerer(objects).await;
        world.wait_for_rollout_weight(10).await;
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.routed_weights(), (90, 10));
        let texts = world.rollout_texts();
        let halt = texts.iter().find(|text| text.starts_with("Halt rollout podinfo.test "));
        assert!(halt.is_some_and(|halt| halt.contains("nobody_counts_here")), "{texts:?}");
    });
}

#[test]
fn a_canary_that_somebody_scales_to_zero_stops_and_goes_on_with_its_pods() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|object| object["kind"] != "HorizontalPodAutoscaler")).await;
        world.wait_for_rollout_weight(30).await;
        world.change(&kinds::DEPLOYMENT, "podinfo-canary", |canary| canary["spec"]["replicas"] = json!(0));
        world.wait_until("users are led away", || world.routed_weights() == (100, 0)).await;
        world.pass(Duration::from_secs(600)).await;
        assert_eq!((world.rollout_replicas("podinfo-canary"), world.routed_weights()), (Some(0), (100, 0)));
        world.change(&kinds::DEPLOYMENT, "podinfo-canary", |canary| canary["spec"]["replicas"] = json!(2));
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.rollout_image("podinfo"), "quay.io/stefanprodan/podinfo:1.2.0");
    });
}

#[test]
fn a_canary_without_pods_is_not_released_before_it_has_some() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["metadata"]["name"] == "podinfo-canary" && object["kind"] == "Deployment" {
                object["spec"]["replicas"] = json!(0);
            }
            object["kind"] != "HorizontalPodAutoscaler"
        });
        world.begin_steerer(objects).await;
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.rollout_texts(), [""; 0]);
        assert_eq!((world.rollout_replicas("podinfo-canary"), world.routed_weights()), (Some(0), (100, 0)));
        world.change(&kinds::DEPLOYMENT, "podinfo-canary", |canary| canary["spec"]["replicas"] = json!(2));
        world.wait_for_rollout_state("finished").await;
    });
}

#[test]
fn an_unready_workload_is_waited_for_and_nothing_is_rolled_back() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.pods.set(NEW_IMAGE, PodBehaviour::new(PodOutcome::NeverReady));
        world.begin_steerer(guide(|_| true)).await;
        // Longer than any deadline.
        world.pass(Duration::from_secs(1800)).await;
        assert_eq!((world.routed_weights(), &world.rollout()["status"]["state"]), ((100, 0), &json!("running")));
        let texts = world.rollout_texts();
        assert!(texts[0].starts_with("Waiting for podinfo-canary.test rollout to finish: "), "{texts:?}");
        world.pods.set(NEW_IMAGE, PodBehaviour::new(PodOutcome::Ready));
        world.wait_for_rollout_state("finished").await;
    });
}

#[test]
fn a_rollout_goes_on_from_the_weight_that_its_routes_have() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "VirtualService" {
                object["spec"]["http"][0]["route"][0]["weight"] = json!(60);
                object["spec"]["http"][0]["route"][1]["weight"] = json!(40);
            }
            if object["kind"] == "Rollout" {
                object["metadata"]["annotations"] =
                    json!({"apps.weave.works/status": "running", "apps.weave.works/canary-revision": "4711"});
            }
            true
        });
        world.begin_steerer(objects).await;
        world.wait_for_rollout_state("finished").await;
        let texts = world.rollout_texts();
        let told: Vec<&String> = texts.iter().filter(|text| !text.starts_with("Waiting")).collect();
        assert_eq!(told[0], "Advance rollout podinfo.test weight 50", "{}", world.story());
    });
}

#[test]
fn what_is_wrong_is_told_on_the_object() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "Rollout" {
                object["spec"]["virtualService"]["weight"] = json!(0);
            }
            true
        });
        world.begin_steerer(objects).await;
        world.wait_until("refused", || !world.rollout_texts().is_empty()).await;
        world.pass(Duration::from_secs(5)).await;
        let condition = world.rollout()["status"]["conditions"][0].clone();
        assert_eq!((&condition["type"], &condition["status"]), (&json!("Accepted"), &json!("False")));
        assert!(condition["message"].as_str().unwrap().starts_with("spec.virtualService.weight: "), "{condition}");

        let rollouts = api(world.cluster.client("kubectl"), "apps.weave.works", "v1beta1", "Rollout", Some("test"));
        let mend = json!({"spec": {"virtualService": {"weight": 10}}});
        rollouts.patch("podinfo", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(mend)).await.unwrap();
        world.wait_for_rollout_state("finished").await;
    });
}

/// Each of the two got the whole weight of the primary, and the canary less than its share.
#[test]
fn a_side_with_two_destinations_is_told_and_nothing_is_written_to_its_routes() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "VirtualService" {
                let route = &mut object["spec"]["http"][0]["route"];
                route[0]["weight"] = json!(50);
                let twin = json!({"destination": {"host": "podinfo", "subset": "v2"}, "weight": 50});
                route.as_array_mut().unwrap().push(twin);
            }
            true
        });
        world.begin_steerer(objects).await;
        world.pass(Duration::from_secs(60)).await;
        let expected = "VirtualService podinfo.test has 2 destinations for podinfo in spec.http[0].route (weights 50, 50), and a \
                        side has one weight; leave one of them";
        assert_eq!(world.rollout_texts(), [expected], "{}", world.story());
        assert_eq!(world.routed_weights(), (50, 0), "the user's own");

        world.change(&kinds::VIRTUAL_SERVICE, "podinfo", |object| {
            let route = object["spec"]["http"][0]["route"].as_array_mut().unwrap();
            route.pop();
            route[0]["weight"] = json!(100);
        });
        world.wait_for_rollout_state("finished").await;
    });
}

/// Of Steerer's last days: a list of metrics, one of them a latency in milliseconds.
#[test]
fn a_slow_version_halts_where_a_latency_is_among_the_metrics() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let objects = guide(|object| {
            if object["kind"] == "Rollout" {
                object["spec"].as_object_mut().unwrap().remove("metric");
                object["spec"]["metrics"] = json!([
                    {"name": "istio_requests_total", "threshold": 99, "interval": "1m"},
                    {"name": "istio_request_duration_seconds_bucket", "threshold": 500, "interval": "1m"},
                ]);
            }
            true
        });
        world.traffic.set_behaviour(NEW_IMAGE, Behaviour::slow(1000.0, 1500.0));
        world.begin_steerer(objects).await;
        world.wait_for_rollout_weight(10).await;
        world.pass(Duration::from_secs(300)).await;
        assert_eq!((world.routed_weights(), &world.rollout()["status"]["state"]), ((90, 10), &json!("running")));
        let texts = world.rollout_texts();
        let halt = texts.iter().find(|text| text.starts_with("Halt rollout podinfo.test request duration "));
        assert!(halt.is_some_and(|halt| halt.ends_with("s > 500ms")), "{texts:?}");
        world.traffic.set_behaviour(NEW_IMAGE, Behaviour::failing(0.0));
        world.wait_for_rollout_state("finished").await;
    });
}

/// The analysis of Steerer's last days rolls back, which a Rollout does not. It is stored, and refused, and not cut away.
#[test]
fn an_analysis_in_a_rollout_is_not_lost_but_refused() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let analysis = json!({
            "threshold": 10, "maxWeight": 50, "stepWeight": 5,
            "metrics": [{"name": "istio_requests_total", "threshold": 99, "interval": "1m"}],
        });
        let objects = guide(|object| {
            if object["kind"] == "Rollout" {
                object["spec"]["canaryAnalysis"] = analysis.clone();
            }
            true
        });
        world.begin_steerer(objects).await;
        world.wait_until("refused", || !world.rollout_texts().is_empty()).await;
        world.pass(Duration::from_secs(300)).await;
        assert_eq!(world.rollout()["spec"]["canaryAnalysis"], analysis);
        let texts = world.rollout_texts();
        assert!(texts[0].starts_with("spec.canaryAnalysis: is not served in a Rollout; use spec.metrics"), "{texts:?}");
        assert_eq!(world.routed_weights(), (100, 0));
    });
}

#[test]
fn a_canary_and_a_rollout_of_one_target_are_told_so_on_both() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.wait_for_rollout_weight(20).await;
        world.pass(Duration::from_secs(2)).await;
        world.create(canary("test", "podinfo")).await;
        world.wait_until("the canary yields", || world.condition("podinfo", "Accepted").is_some()).await;
        world.pass(Duration::from_secs(2)).await;
        let text = "spec.targetRef: Deployment/podinfo is the target of rollout podinfo, too, which is older; this canary does \
                    nothing until that one is deleted or has another target";
        assert_eq!(world.events("podinfo"), [text]);
        let told = "Found more than one object with the same target Deployment/podinfo: Canary podinfo does nothing, delete it or \
                    give it another target";
        assert!(world.rollout_texts().contains(&told.to_owned()), "{}", world.story());
        world.wait_for_rollout_state("finished").await;
        assert!(world.get(&kinds::DEPLOYMENT, "podinfo-primary").is_none());
    });
}

#[test]
fn canaries_and_rollouts_of_one_cluster_do_not_disturb_each_other() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.begin_steerer(guide(|_| true)).await;
        world.deploy("other").await;
        // Of the same name as the rollout's, in another namespace of names: kinds tell them apart.
        world.wait_for_phase("other", "Initialized").await;
        world.wait_for_rollout_state("finished").await;
        assert_eq!(world.phase("other"), "Initialized");
    });
}

/// Few clusters have this kind. One that is installed later is taken up by itself.
#[test]
fn a_cluster_without_rollouts_is_hardly_asked_for_them_until_they_come() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let definitions = || {
            let client = world.cluster.client("kubectl");
            api(client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", None)
        };
        let name = "rollouts.apps.weave.works";
        let mut definition = serde_json::to_value(definitions().get(name).await.unwrap()).unwrap();
        definitions().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
        let is_gone = || {
            world
                .cluster
                .store()
                .get(&GroupKind::known("apiextensions.k8s.io", "CustomResourceDefinition"), "", name)
                .is_none()
        };
        world.wait_until("no rollouts", is_gone).await;
        world.load_heavily();
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(900)).await;
        let calls = world.cluster.calls().snapshot();
        world.pass(Duration::from_secs(3600)).await;
        let calls = world.cluster.calls().since(&calls).of_client(AGENT);
        // Every five minutes.
        assert!((1..=13).contains(&calls.reads()), "{calls}");
        assert_eq!(calls.writes() + calls.event_writes(), 0, "{calls}");

        definition["metadata"] = json!({"name": name});
        definition.as_object_mut().unwrap().remove("status");
        world.create(definition).await;
        world.traffic.set_load("test", "steered", 2000.0);
        // The canary's own routes and services have the names of the guide.
        for object in guide_of("steered") {
            world.create(object).await;
        }
        let state = || world.get(&ROLLOUT, "steered").map(|rollout| rollout["status"]["state"].clone());
        world.wait_until("finished", || state() == Some(json!("finished"))).await;
    });
}
