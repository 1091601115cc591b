//! Others write to what Aviary works with, while a release runs.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::audit::{Call, calls};
use super::subject::{End, IMAGES, STEPS, Subject};
use super::{Stage, eventually};
use crate::real::get;

/// How often somebody writes to the routes, to the canary and to the primary, each. Often enough that the controller, too,
/// meets conflicts.
const PERIOD: Duration = Duration::from_millis(20);
/// No step has it.
const FOREIGN_WEIGHT: u64 = 77;
const FOREIGN_IMAGE: &str = "podinfo:9.9.9";
/// The annotation that is written all the time.
const TOUCHED: &str = "example.com/touched";

/// A release that others have had their hands in.
pub struct Outcome {
    subject: Subject,
    end: End,
}

/// Conflicts are resolved, foreign fields survive, and what Aviary owns is put right and told once.
pub async fn survive(stage: &Stage) -> Outcome {
    let subject = Subject::create(&stage.client, "writers", 100.0).await;
    let touched =
        [(subject.routes(), "podinfo"), (subject.canaries(), "podinfo"), (subject.deployments(), "podinfo-primary")];
    let busy: Vec<_> = touched.into_iter().map(|(api, name)| tokio::spawn(touch_all_the_time(api, name))).collect();

    subject.set_image(IMAGES[0]).await;
    subject.reaches(STEPS[0]).await;
    change(&subject.routes(), "podinfo", |routes| {
        routes["spec"]["http"][0]["route"][0]["weight"] = json!(100 - FOREIGN_WEIGHT);
        routes["spec"]["http"][0]["route"][1]["weight"] = json!(FOREIGN_WEIGHT);
        routes["spec"]["http"][0]["name"] = json!("main");
        routes["spec"]["http"][0]["route"][0]["headers"] = json!({"response": {"set": {"x-side": "primary"}}});
        routes["spec"]["exportTo"] = json!(["*"]);
        routes["metadata"]["labels"]["team"] = json!("payments");
    })
    .await;
    let weights_are_right = async || STEPS.contains(&canary_weight(&subject).await);
    eventually("the weights are put right", weights_are_right).await;

    // The primary has what was promoted last. Nobody but a promotion writes to it.
    change(&subject.deployments(), "podinfo-primary", |primary| {
        primary["metadata"]["labels"]["team"] = json!("payments");
        primary["spec"]["replicas"] = json!(3);
        primary["spec"]["template"]["spec"]["containers"][0]["image"] = json!(FOREIGN_IMAGE);
    })
    .await;
    // The status is where the state lives: what is written there is what the routes are brought to.
    let edit = json!({"status": {"canaryWeight": 37}});
    subject.canaries().patch_status("podinfo", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let routes_follow = async || canary_weight(&subject).await >= 37;
    eventually("the routes follow the status", routes_follow).await;

    subject.released(IMAGES[0]).await;
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    let routes = get(&subject.routes(), "podinfo").await.unwrap();
    assert_eq!(routes["spec"]["http"][0]["name"], "main", "{routes:#}");
    assert_eq!(routes["spec"]["http"][0]["route"][0]["headers"]["response"]["set"]["x-side"], "primary", "{routes:#}");
    assert_eq!(routes["spec"]["exportTo"], json!(["*"]), "{routes:#}");
    assert_eq!(routes["metadata"]["labels"]["team"], "payments", "{routes:#}");
    assert!(routes["metadata"]["annotations"][TOUCHED].is_string(), "{routes:#}");
    let primary = get(&subject.deployments(), "podinfo-primary").await.unwrap();
    assert_eq!(primary["metadata"]["labels"]["team"], "payments", "{primary:#}");
    assert_eq!(subject.times_told(&format!("was {FOREIGN_WEIGHT} instead of")).await, 1, "{}", subject.story().await);
    take_back(&subject).await;
    let end = subject.end_at_rest().await;
    Outcome { subject, end }
}

impl Outcome {
    /// Beside what others have added, and have taken away again, the end is that of a release without them.
    pub async fn compare(&self, stage: &Stage) {
        self.subject.assert_end(&stage.undisturbed[IMAGES[0]], &self.end).await;
        self.subject.assert_no_request_failed().await;
        let is_conflict = |call: &Call| call.namespace == "writers" && call.code == 409;
        let conflicts = calls(&stage.bench).into_iter().filter(is_conflict).count();
        stage.say(format!("others wrote; {conflicts} conflicts, {} requests, none failed", self.subject.requests()));
    }
}

async fn canary_weight(subject: &Subject) -> u64 {
    let routes = get(&subject.routes(), "podinfo").await.unwrap();
    routes["spec"]["http"][0]["route"][1]["weight"].as_u64().unwrap_or_default()
}

/// Reads, changes and writes, until nobody has written in between.
async fn change(api: &Api<DynamicObject>, name: &str, change: impl Fn(&mut Value)) {
    eventually(&format!("{name} is changed"), async || {
        let mut object = get(api, name).await.unwrap();
        change(&mut object);
        let object = serde_json::from_value(object).unwrap();
        match api.replace(name, &PostParams::default(), &object).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

async fn touch_all_the_time(api: Api<DynamicObject>, name: &str) {
    for number in 0_u64.. {
        let edit = json!({"metadata": {"annotations": {TOUCHED: number.to_string()}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
        tokio::time::sleep(PERIOD).await;
    }
}

/// What others have added, without a word of what Aviary owns.
async fn take_back(subject: &Subject) {
    let everywhere = json!({"metadata": {"annotations": {TOUCHED: null}, "labels": {"team": null}}});
    let params = PatchParams::default();
    for (api, name) in
        [(subject.routes(), "podinfo"), (subject.canaries(), "podinfo"), (subject.deployments(), "podinfo-primary")]
    {
        api.patch(name, &params, &Patch::Merge(&everywhere)).await.unwrap();
    }
    change(&subject.routes(), "podinfo", |routes| {
        routes["spec"].as_object_mut().unwrap().remove("exportTo");
        let rule = routes["spec"]["http"][0].as_object_mut().unwrap();
        rule.remove("name");
        rule["route"][0].as_object_mut().unwrap().remove("headers");
    })
    .await;
}
