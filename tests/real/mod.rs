//! On real components: Kubernetes 1.36, istiod, Envoy and Prometheus, as `tests/real/up` starts them. README.md beside this file
//! says what is needed; where it is missing these tests say so and pass, unless `AVIARY_REQUIRE_REAL=1`.
//!
//! A bench takes a quarter of a minute to come up, so a test has many steps.

mod audit;
mod bench;
mod birdwatch;
mod calls;
mod cluster;
mod crossover;
mod faults;
mod flagger_0_1;
mod install;
mod installed;
mod loop_app;
mod loop_evidence;
mod loop_releases;
mod messages;
mod owner;
mod permissions;
mod release;
mod rollouts;
mod scripts;
mod side_by_side;
mod versions_of_canaries;
mod way;

use std::cell::RefCell;

use jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

pub use self::bench::{Aviary, Inside, in_bench, is_full_set, turn};
pub use self::installed::Installed;
pub use self::scripts::{say_aloud, tools};
use crate::support::process::eventually;
use crate::support::{api, canary, create_through, deployment};

/// Port 80 of `istio-system/public-gateway`.
pub const GATEWAY: &str = "http://10.99.0.1:18080/";

/// By the clock of which the logs of other processes tell, too.
pub fn now() -> Timestamp {
    aviary_actors::Clock::system().now()
}

/// The object as JSON; `None` when there is none.
async fn get(api: &Api<DynamicObject>, name: &str) -> Option<Value> {
    let object = answered(async || api.get_opt(name).await).await;
    object.map(|object| serde_json::to_value(object).unwrap())
}

/// The answer to a question that changes nothing. An API server that has just come back, or whose etcd has, may fail it: then it
/// is asked again.
async fn answered<Answer>(ask: impl AsyncFn() -> kube::Result<Answer>) -> Answer {
    let answer = RefCell::new(None);
    eventually("the API server answers", async || {
        let result = ask().await;
        let is_refusal = |code| code < 500 && code != 429;
        if let Err(kube::Error::Api(status)) = &result {
            assert!(!is_refusal(status.code), "{status}");
        }
        answer.replace(result.ok());
        answer.borrow().is_some()
    })
    .await;
    answer.into_inner().unwrap()
}

/// The phase in which the release of canary `podinfo` ends.
async fn end_of(canaries: &Api<DynamicObject>) -> Value {
    let phase = async || get(canaries, "podinfo").await.unwrap()["status"]["phase"].clone();
    let has_ended = async || {
        let phase = phase().await;
        phase == "Succeeded" || phase == "Failed"
    };
    eventually("the release ends", has_ended).await;
    phase().await
}

/// What a component has told of the objects of a kind, in the order of the latest time.
async fn told_of(client: &kube::Client, namespace: &str, kind: &str, component: &str) -> Vec<String> {
    let events = api(client.clone(), "", "v1", "Event", Some(namespace)).list(&ListParams::default()).await.unwrap();
    let mut events: Vec<Value> = events.items.into_iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    events.retain(|event| event["involvedObject"]["kind"] == kind && event["source"]["component"] == component);
    events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
    events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until Deployment `podinfo` has no pods.
async fn canary_is_gone(client: &kube::Client) {
    let pods = api(client.clone(), "", "v1", "Pod", Some("test"));
    let of_canary = ListParams::default().labels("app=podinfo");
    let are_gone = async || answered(async || pods.list(&of_canary).await).await.items.is_empty();
    eventually("the pods of the canary are gone", are_gone).await;
}

/// Waits until all pods of a Deployment are available.
async fn wait_available(client: &kube::Client, name: &str) {
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
    eventually(&format!("deployment {name} is available"), async || {
        let deployment = get(&deployments, name).await.unwrap();
        let status = &deployment["status"];
        status["observedGeneration"] == deployment["metadata"]["generation"]
            && status["availableReplicas"] == deployment["spec"]["replicas"]
    })
    .await;
}

/// Makes the API server serve KEDA's ScaledObjects. Nobody acts on them.
pub async fn scaled_objects(client: &kube::Client) -> Api<DynamicObject> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {
            "group": "keda.sh", "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    create_through(client.clone(), definition).await;
    let scaled_objects = api(client.clone(), "keda.sh", "v1alpha1", "ScaledObject", Some("test"));
    eventually("KEDA's kind is served", async || scaled_objects.list(&ListParams::default()).await.is_ok()).await;
    scaled_objects
}

/// A JSON document from one of the bench's HTTP servers.
async fn fetch(url: &str) -> Value {
    serde_json::from_str(&reqwest::get(url).await.unwrap().text().await.unwrap()).unwrap()
}

async fn set_image(client: &kube::Client, name: &str, image: &str) {
    set_image_in(client, "test", name, image).await;
}

async fn set_image_in(client: &kube::Client, namespace: &str, name: &str, image: &str) {
    let containers = serde_json::json!([{"name": "podinfod", "image": image}]);
    let patch = serde_json::json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some(namespace));
    deployments.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}
