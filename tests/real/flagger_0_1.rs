//! Canaries of Flagger 0.1 on real Istio, with users. Of two namespaces one has durations in seconds alone, as the Istio of that
//! time told them, and the other in milliseconds alone, as today's does (`config/prometheus.yml`).
//!
//! The bench is that of [Steerer's Rollout](super::rollouts), beside which they run.

use std::time::Duration;

use aviary_loadtest::users::{self, Users};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::release::{GATEWAY, answers};
use super::rollouts::USERS_PATIENCE;
use super::{Inside, api, create_through, fetch, get, is_full_set, set_image_in, told_of};
use crate::support::process::eventually_within;

const SECONDS: &str = "seconds";
const MILLISECONDS: &str = "milliseconds";
const IMAGE: &str = "quay.io/stefanprodan/podinfo";
/// For a bootstrap, or a release of five intervals of ten seconds on a machine that does much besides.
const PATIENCE: Duration = Duration::from_secs(300);

/// A version that fails every second request is rolled back by its success rate.
pub(super) async fn a_good_and_a_failing_version(bench: &Inside, client: &Client) {
    let canary = Canary::begin(client, SECONDS).await;
    canary.a_good_version().await;
    canary.a_bad_version(bench, "1.3.0-err50", "success rate ", "% < 99%").await;
}

/// One that is slow is rolled back by its latency, which is converted.
pub(super) async fn a_good_and_a_slow_version(bench: &Inside, client: &Client) {
    let canary = Canary::begin(client, MILLISECONDS).await;
    canary.a_good_version().await;
    canary.a_bad_version(bench, "1.3.0-slow2500", "request duration ", "s").await;
}

/// So the namespaces are what they are said to be, and each check had an answer in its own unit.
pub(super) async fn each_namespace_has_durations_in_one_unit() {
    for (namespace, other) in [(SECONDS, MILLISECONDS), (MILLISECONDS, SECONDS)] {
        let count = async |unit: &str| {
            let selector =
                format!("istio_request_duration_{unit}_bucket{{destination_workload_namespace=\"{namespace}\"}}");
            // Envoy tells no histogram of clusters that nobody has used for a while.
            let query = format!("count(count_over_time({selector}[10m]))");
            let url =
                reqwest::Url::parse_with_params("http://prometheus:9090/api/v1/query", [("query", query)]).unwrap();
            fetch(url.as_str()).await["data"]["result"].as_array().unwrap().len()
        };
        assert_eq!((count(namespace).await, count(other).await), (1, 0), "{namespace}");
    }
}

struct Canary {
    client: Client,
    namespace: &'static str,
    users: Users,
}

impl Canary {
    /// The document's objects in a namespace of their own, and users at the document's host.
    async fn begin(client: &Client, namespace: &'static str) -> Canary {
        let metadata = json!({"name": namespace, "labels": {"istio-injection": "enabled"}});
        create_through(client.clone(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await;
        let host = format!("{namespace}.istio.weavedx.com");
        for mut object in crate::flagger_v1alpha1::document() {
            object["metadata"]["namespace"] = json!(namespace);
            if object["kind"] == "Canary" {
                object["spec"]["service"]["hosts"] = json!([host]);
                shorten(&mut object["spec"]["canaryAnalysis"]);
            }
            create_through(client.clone(), object).await;
        }
        let options = users::Options::new(GATEWAY.parse().unwrap(), 50.0).unwrap().host(host.clone());
        let options = options.timeout(USERS_PATIENCE);
        let canaries = canaries(client, namespace);
        let is_ready = async || state(&canaries).await == "initialized" && answers(&host).await;
        eventually_within(PATIENCE, &format!("{host} is served"), is_ready).await;
        Canary { client: client.clone(), namespace, users: Users::start(options).unwrap() }
    }

    async fn release(&self, tag: &str) {
        // Pods of the release before would go on being counted for those of this one.
        let pods = api(self.client.clone(), "", "v1", "Pod", Some(self.namespace));
        let of_canary = ListParams::default().labels("app=podinfo");
        let are_gone = async || pods.list(&of_canary).await.unwrap().items.is_empty();
        eventually_within(PATIENCE, "the pods of the canary are gone", are_gone).await;
        set_image_in(&self.client, self.namespace, "podinfo", &format!("{IMAGE}:{tag}")).await;
        let canaries = canaries(&self.client, self.namespace);
        for (what, is_running) in [("begins", true), ("ends", false)] {
            let so = async || (state(&canaries).await == "running") == is_running;
            eventually_within(PATIENCE, &format!("{tag} in {}: it {what}", self.namespace), so).await;
        }
    }

    async fn ends(&self, end: &str, primary: &str) {
        let namespace = self.namespace;
        let texts = self.texts().await;
        assert_eq!(state(&canaries(&self.client, namespace)).await, end, "{namespace}: {texts:#?}");
        let deployments = api(self.client.clone(), "apps", "v1", "Deployment", Some(namespace));
        let deployment = get(&deployments, "podinfo-primary").await.unwrap();
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], format!("{IMAGE}:{primary}"));
    }

    async fn texts(&self) -> Vec<String> {
        told_of(&self.client, self.namespace, "Canary", "flagger").await
    }

    async fn a_good_version(&self) {
        self.release("1.2.1").await;
        self.ends("finished", "1.2.1").await;
        let report = self.users.snapshot();
        assert_eq!(report.failures(), 0, "{}: {:#?}", self.namespace, report.first_failures());
        let id = format!("podinfo.{}", self.namespace);
        let weights: &[u32] = if is_full_set() { &[10, 20, 30, 40, 50] } else { &[25, 50] };
        let mut expected =
            vec![format!("New revision detected! Scaling up {id}"), format!("Starting canary deployment for {id}")];
        expected.extend(weights.iter().map(|weight| format!("Advance {id} canary weight {weight}")));
        expected.push(format!("Copying {id} template spec to podinfo-primary.{}", self.namespace));
        expected.push("Routing all traffic to primary".to_owned());
        expected.push(format!("Promotion completed! Scaling down {id}"));
        let texts = self.texts().await;
        let begin = texts.iter().position(|text| text.starts_with("New revision")).unwrap();
        // A busy machine may be slow to start pods, and to answer.
        let is_delay = |text: &String| ["not ready", "Waiting ", "Halt "].iter().any(|delay| text.contains(delay));
        let found: Vec<String> = texts[begin..].iter().filter(|text| !is_delay(text)).cloned().collect();
        assert_eq!(found, expected, "{texts:#?}");
    }

    async fn a_bad_version(self, bench: &Inside, tag: &str, halt: &str, limit: &str) {
        self.release(tag).await;
        self.ends("failed", "1.2.1").await;
        let namespace = self.namespace;
        let texts = self.texts().await;
        let start = format!("Halt podinfo.{namespace} advancement {halt}");
        assert!(texts.iter().any(|text| text.starts_with(&start) && text.ends_with(limit)), "{texts:#?}");
        assert_eq!(*texts.last().unwrap(), format!("Canary failed! Scaling down podinfo.{namespace}"));
        bench.show(&format!("-n {namespace} get canary.v1alpha1.flagger.app"));
        bench.show(&format!("-n {namespace} describe canary/podinfo"));
        let report = self.users.stop().await;
        println!("Flagger 0.1 in {namespace}: {report}");
        for totals in report.versions() {
            let is_bad = totals.version.as_deref() == Some(tag);
            assert!(is_bad || totals.failures == 0, "{totals:?}: {:#?}", report.first_failures());
            assert!(!is_bad || totals.requests > 0, "{totals:?}");
        }
    }
}

/// What a sample has time for. How quick answers are, depends on what else the machine does.
fn shorten(analysis: &mut Value) {
    if is_full_set() {
        return;
    }
    // One more than what has no answer yet: the first requests to a slow version take until the first check.
    analysis["threshold"] = json!(3);
    analysis["stepWeight"] = json!(25);
    for metric in analysis["metrics"].as_array_mut().unwrap() {
        metric["interval"] = json!("6s");
        if metric["name"] == "istio_request_duration_seconds_bucket" {
            metric["threshold"] = json!(2000);
        }
    }
}

fn canaries(client: &Client, namespace: &str) -> Api<DynamicObject> {
    api(client.clone(), "flagger.app", "v1alpha1", "Canary", Some(namespace))
}

async fn state(canaries: &Api<DynamicObject>) -> Value {
    get(canaries, "podinfo").await.unwrap()["status"]["state"].clone()
}
