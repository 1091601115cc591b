//! Steerer's Rollout on real Istio: the objects of its guide, with users. One good version, and one bad version that halts until
//! it is mended.
//!
//! The bench's Prometheus takes what is sent to a Service `x-canary` for requests of the workload `x`, as Flagger's are; so the
//! canary of the guide has another name here.

use aviary_loadtest::users::{self, Users};
use kube::Client;
use serde_json::{Value, json};

use super::{Inside, api, create_through, eventually, get, in_bench, set_image};
use crate::steerer::guide;

const GATEWAY: &str = "http://10.99.0.1:18080/";
/// As often as the bench's Prometheus has something new to say, and a bit.
const CONTROL_LOOP: &str = "3s";

/// The guide's objects, in few steps and with a window that forgets soon.
pub(super) fn objects() -> Vec<Value> {
    guide(|object| {
        let text = object.to_string().replace("podinfo-canary", "podinfo-next");
        *object = serde_json::from_str(&text).unwrap();
        if object["kind"] == "Rollout" {
            object["spec"]["virtualService"]["weight"] = json!(50);
            object["spec"]["metric"]["interval"] = json!("5s");
        }
        // The bench has no kubelet that could ask a container.
        if object["kind"] == "Deployment" {
            for probe in ["livenessProbe", "readinessProbe"] {
                object["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove(probe);
            }
        }
        object["kind"] != "HorizontalPodAutoscaler"
    })
}

struct Scene {
    client: Client,
}

impl Scene {
    async fn rollout(&self) -> Value {
        let rollouts = api(self.client.clone(), "apps.weave.works", "v1beta1", "Rollout", Some("test"));
        get(&rollouts, "podinfo").await.unwrap()
    }

    async fn is(&self, state: &str) {
        eventually(state, async || self.rollout().await["status"]["state"] == state).await;
    }

    async fn texts(&self) -> Vec<String> {
        let events = api(self.client.clone(), "", "v1", "Event", Some("test"));
        let all = events.list(&kube::api::ListParams::default()).await.unwrap();
        let mut all: Vec<Value> = all.items.into_iter().map(|event| serde_json::to_value(event).unwrap()).collect();
        all.retain(|event| event["involvedObject"]["kind"] == "Rollout" && event["source"]["component"] == "steerer");
        all.sort_by_key(|event| {
            event["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok())
        });
        all.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn routes(&self) -> Value {
        let routes = api(self.client.clone(), "networking.istio.io", "v1", "VirtualService", Some("test"));
        get(&routes, "podinfo").await.unwrap()["spec"].clone()
    }

    async fn image(&self, name: &str) -> String {
        let deployments = api(self.client.clone(), "apps", "v1", "Deployment", Some("test"));
        let deployment = get(&deployments, name).await.unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_rollout_is_run_on_istio_and_its_users_lose_nothing_but_what_a_bad_version_costs() {
    in_bench(
        "real::rollouts::a_rollout_is_run_on_istio_and_its_users_lose_nothing_but_what_a_bad_version_costs",
        async |bench: Inside| {
            let _network = bench.network().await;
            let _aviary = bench.start_aviary(&["--mesh-provider", "istio", "--control-loop-interval", CONTROL_LOOP]);
            let scene = Scene { client: bench.client("admin").await };
            let (rollouts, others): (Vec<Value>, Vec<Value>) =
                objects().into_iter().partition(|object| object["kind"] == "Rollout");
            for object in others {
                create_through(scene.client.clone(), object).await;
            }
            eventually("the primary answers", async || {
                let answer = reqwest::Client::new().get(GATEWAY).header("host", "app.example.com").send().await;
                answer.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
            let options =
                users::Options::new(GATEWAY.parse().unwrap(), 200.0).unwrap().host("app.example.com".to_owned());
            let users = Users::start(options).unwrap();
            let mut spec = scene.routes().await;

            for object in rollouts {
                create_through(scene.client.clone(), object).await;
            }
            scene.is("finished").await;
            let report = users.snapshot();
            assert_eq!(report.failures(), 0, "{:#?}", report.first_failures());
            assert!(scene.image("podinfo").await.ends_with(":1.2.0"));
            let texts: Vec<String> =
                scene.texts().await.into_iter().filter(|text| !text.starts_with("Waiting")).collect();
            println!("{texts:#?}\n{} requests, {} failed", report.requests(), report.failures());
            let expected = [
                "Starting rollout for podinfo.test",
                "Advance rollout podinfo.test weight 50",
                "Advance rollout podinfo.test weight 100",
                "Copying podinfo-next.test template spec to podinfo.test",
                "Promotion complete! Scaling down podinfo-next.test",
            ];
            assert_eq!(texts, expected);
            assert_eq!(scene.routes().await, spec, "the timeout, and all else of its owner's");

            set_image(&scene.client, "podinfo-next", "quay.io/stefanprodan/podinfo:1.3.0-err10").await;
            eventually("it halts", async || {
                scene.texts().await.iter().any(|text| text.starts_with("Halt rollout podinfo.test success rate "))
            })
            .await;
            spec["http"][0]["route"][0]["weight"] = json!(50);
            spec["http"][0]["route"][1]["weight"] = json!(50);
            assert_eq!(scene.routes().await, spec);
            assert_eq!(scene.rollout().await["status"]["state"], "running");
            set_image(&scene.client, "podinfo-next", "quay.io/stefanprodan/podinfo:1.4.0").await;
            scene.is("finished").await;
            assert!(scene.image("podinfo").await.ends_with(":1.4.0"));
            let report = users.stop().await;
            println!("{report}");
            assert!(report.failures() > 0);
            for totals in report.versions() {
                let is_bad = totals.version.as_deref().is_some_and(|version| version.contains("-err"));
                assert!(is_bad || totals.failures == 0, "{totals:?}: {:#?}", report.first_failures());
            }
        },
    );
}
