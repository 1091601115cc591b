//! A canary with users, in a namespace of its own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use aviary_loadtest::checks::{differences, remove_noise};
use aviary_loadtest::users::{self, Users};
use futures::future::join_all;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{api, eventually};
use crate::real::{GATEWAY, answered, get};
use crate::support::process::comes_true;
use crate::support::{canary, create_through, deployment};

/// What is released, in turn.
pub const IMAGES: [&str; 2] = ["podinfo:6.0.1", "podinfo:6.0.2"];
/// The weights of a canary in its analysis.
pub const STEPS: [u64; 2] = [30, 60];
const NAME: &str = "podinfo";
/// A machine that is busy with something else stands still for seconds; a request that is lost is never answered. At 50 a second
/// as many may be under way as users have connections.
const USERS_PATIENCE: Duration = Duration::from_secs(15);
/// For a weight, and for the rest of a release: it takes three quarters of a minute when nothing disturbs it, twice that on a busy
/// machine, and what a fault has cost is added.
pub const RELEASE_PATIENCE: Duration = Duration::from_secs(300);

/// Group, version and kind of what tells how a release ended. ReplicaSets are left out: which old ones there are tells of the
/// way, and of the pods' template the Deployments tell, too.
const COMPARED: [(&str, &str, &str); 5] = [
    ("flagger.app", "v1beta1", "Canary"),
    ("apps", "v1", "Deployment"),
    ("", "v1", "Service"),
    ("networking.istio.io", "v1", "VirtualService"),
    ("networking.istio.io", "v1", "DestinationRule"),
];

/// Objects of a namespace at the end of a release, without what differs between two ends that are the same.
pub type End = BTreeMap<String, String>;

pub struct Subject {
    namespace: String,
    client: Client,
    users: Users,
}

impl Subject {
    /// Returns when it is initialized and its users are served; so many requests a second.
    pub async fn create(client: &Client, namespace: &str, rate: f64) -> Subject {
        let host = format!("{namespace}.example.com");
        let metadata = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        create_through(client.clone(), metadata).await;
        create_through(client.clone(), deployment(namespace, NAME, "podinfo:6.0.0")).await;
        let mut object = canary(namespace, NAME);
        object["spec"]["service"] = json!({
            "port": 80, "targetPort": 9898, "gateways": ["istio-system/public-gateway"], "hosts": [host],
        });
        object["spec"]["analysis"] = json!({
            // The shortest there is, and few steps.
            "interval": "10s", "threshold": 5, "maxWeight": STEPS[1], "stepWeight": STEPS[0],
            // Wide enough for a busy machine, on which Prometheus leaves out scrapes, and answers take their time: how quick
            // they are, is the subject of other tests.
            "metrics": [
                {"name": "request-success-rate", "interval": "30s", "thresholdRange": {"min": 99}},
                {"name": "request-duration", "interval": "30s", "thresholdRange": {"max": 60_000}},
            ],
        });
        create_through(client.clone(), object).await;
        let options = users::Options::new(GATEWAY.parse().unwrap(), rate).unwrap().host(&host).timeout(USERS_PATIENCE);
        let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some(namespace));
        eventually(&format!("{namespace} is initialized"), async || {
            get(&canaries, NAME).await.is_some_and(|canary| canary["status"]["phase"] == "Initialized")
        })
        .await;
        let asking = reqwest::Client::new();
        eventually(&format!("{namespace} is served"), async || {
            let answer = asking.get(GATEWAY).header("host", &host).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        let subject =
            Subject { namespace: namespace.to_owned(), client: client.clone(), users: Users::start(options).unwrap() };
        subject.target_is_at_rest().await;
        subject
    }

    /// Several, numbered.
    pub async fn create_all(client: &Client, namespace: &str, number: usize, rate: f64) -> Vec<Subject> {
        let names = (0..number).map(|number| format!("{namespace}-{number}"));
        join_all(names.map(async |name| Subject::create(client, &name, rate).await)).await
    }

    pub fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        api(self.client.clone(), group, version, kind, Some(&self.namespace))
    }

    pub fn canaries(&self) -> Api<DynamicObject> {
        self.api("flagger.app", "v1beta1", "Canary")
    }

    pub fn routes(&self) -> Api<DynamicObject> {
        self.api("networking.istio.io", "v1", "VirtualService")
    }

    pub fn deployments(&self) -> Api<DynamicObject> {
        self.api("apps", "v1", "Deployment")
    }

    async fn list(&self, api: &Api<DynamicObject>) -> Vec<Value> {
        let objects = answered(async || api.list(&ListParams::default()).await).await;
        objects.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    pub async fn status(&self) -> Value {
        get(&self.canaries(), NAME).await.unwrap()["status"].clone()
    }

    pub async fn set_image(&self, image: &str) {
        let containers = json!([{"name": "podinfod", "image": image}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.deployments().patch(NAME, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// Waits until a release is half-way, at this weight of the canary or above. Whoever asks may be refused meanwhile.
    pub async fn reaches(&self, weight: u64) {
        self.waits_for(&format!("weight {weight}"), async || self.is_half_way(weight).await).await;
    }

    /// The same for the release of this image, which may have gone on to its promotion already: then it is not half-way.
    pub async fn is_met_at(&self, weight: u64, image: &str) -> bool {
        let is_met = Cell::new(false);
        self.waits_for(&format!("{weight} or the end of {image}"), async || {
            is_met.set(self.is_half_way(weight).await);
            is_met.get() || self.is_promoted(image).await
        })
        .await;
        is_met.get()
    }

    async fn is_half_way(&self, weight: u64) -> bool {
        let status = self.status().await;
        status["phase"] == "Progressing" && status["canaryWeight"].as_u64().unwrap_or_default() >= weight
    }

    /// Waits until this image is promoted and the target is idle again.
    pub async fn released(&self, image: &str) {
        self.waits_for(&format!("{image} to be released"), async || self.has_released(image).await).await;
        self.target_is_at_rest().await;
    }

    pub async fn has_released(&self, image: &str) -> bool {
        let phase = self.status().await["phase"].clone();
        assert_ne!(phase, "Failed", "{}: {}", self.namespace, self.story().await);
        phase == "Succeeded" && self.is_promoted(image).await
    }

    /// Whether the primary is made of this image, also if its pods are not yet.
    async fn is_promoted(&self, image: &str) -> bool {
        let primary = get(&self.deployments(), &format!("{NAME}-primary")).await.unwrap();
        primary["spec"]["template"]["spec"]["containers"][0]["image"] == image
    }

    /// Waits for a part of a release; what happened instead is told.
    async fn waits_for(&self, what: &str, condition: impl AsyncFn() -> bool) {
        if !comes_true(RELEASE_PATIENCE, condition).await {
            panic!("{} waited in vain for {what}\n{}", self.namespace, self.story().await);
        }
    }

    async fn target_is_at_rest(&self) {
        let pods = self.api("", "v1", "Pod");
        let of_target = ListParams::default().labels(&format!("app={NAME}"));
        eventually(&format!("no pod of the target is left in {}", self.namespace), async || {
            answered(async || pods.list(&of_target).await).await.items.is_empty()
        })
        .await;
    }

    /// The end, once nothing moves any more.
    pub async fn end_at_rest(&self) -> End {
        eventually(&format!("{} is at rest", self.namespace), async || {
            let deployments = self.list(&self.deployments()).await;
            deployments.iter().all(is_at_rest)
        })
        .await;
        self.end().await
    }

    async fn end(&self) -> End {
        let mut end = End::new();
        for (group, version, kind) in COMPARED {
            for mut object in self.list(&self.api(group, version, kind)).await {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                remove_noise(&mut object);
                remove_traces(kind, &mut object);
                end.insert(format!("{kind} {name}"), format!("{object:#}").replace(&self.namespace, "NAMESPACE"));
            }
        }
        end
    }

    /// Waits for the end, which must be this one.
    pub async fn ends_as(&self, expected: &End) {
        let end = self.end_at_rest().await;
        self.assert_end(expected, &end).await;
    }

    /// Says what is otherwise.
    pub async fn assert_end(&self, expected: &End, end: &End) {
        let found = differences(expected, end);
        assert!(found.is_empty(), "{} did not end as it should\n{found}\n{}", self.namespace, self.story().await);
    }

    /// Messages of the canary's events, each with how often it was told.
    pub async fn events(&self) -> Vec<(String, u64)> {
        let mut of_canary = self.list(&self.api("", "v1", "Event")).await;
        of_canary.retain(|event| event["involvedObject"]["kind"] == "Canary");
        of_canary.sort_by_key(|event| event["firstTimestamp"].to_string());
        let told = |event: &Value| {
            (event["message"].as_str().unwrap_or_default().to_owned(), event["count"].as_u64().unwrap_or(1))
        };
        of_canary.iter().map(told).collect()
    }

    pub async fn times_told(&self, part: &str) -> u64 {
        self.events().await.iter().filter(|(message, _)| message.contains(part)).map(|(_, count)| count).sum()
    }

    /// Of all until now, those under way included.
    pub async fn assert_no_request_failed(&self) {
        let report = self.users.all_until_now().await;
        assert!(report.requests() > 100, "{} requests are none", report.requests());
        let story = if report.failures() == 0 { String::new() } else { self.story().await };
        assert_eq!(report.failures(), 0, "{}: {:#?}\n{story}", self.namespace, report.first_failures());
    }

    pub fn requests(&self) -> u64 {
        self.users.snapshot().requests()
    }

    /// What happened, for a failing test.
    pub async fn story(&self) -> String {
        let mut story = format!("{:#}\n", self.status().await);
        for (message, count) in self.events().await {
            story += &format!("{count} × {message}\n");
        }
        story
    }
}

fn is_at_rest(deployment: &Value) -> bool {
    let (wanted, status) = (&deployment["spec"]["replicas"], &deployment["status"]);
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && number("terminatingReplicas") == 0
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| Some(number(field)) == wanted.as_u64())
}

/// Of the way and not of the end: how many revisions there were, and the conditions of Deployments with what they say of them;
/// and the pods' `flagger-id`, which follows from the canary's uid.
fn remove_traces(kind: &str, object: &mut Value) {
    let mut remove = |parent: &str, key: &str| {
        if let Some(fields) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
            fields.remove(key);
        }
    };
    remove("/metadata/annotations", "deployment.kubernetes.io/revision");
    if kind == "Deployment" {
        remove("/status", "conditions");
        remove("/spec/template/metadata/annotations", "flagger-id");
    }
}
