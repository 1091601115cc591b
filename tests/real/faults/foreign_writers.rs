//! Others write to what Aviary works with, while a release runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use super::subject::{End, IMAGES, STEPS, Subject};
use super::{Stage, eventually};
use crate::real::get;

/// How often somebody writes to the routes, to the canary and to the primary, each. Often enough that the controller, too,
/// meets conflicts, until it has met one; and then seldom enough that it is not always outpaced on a busy machine.
const OFTEN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(500);
/// No step has it.
const FOREIGN_WEIGHT: u64 = 77;
/// Nor this one, which somebody writes to the status.
const FOREIGN_STATE: u64 = 37;
/// The last step overshoots.
const AFTER_FOREIGN_STATE: u64 = FOREIGN_STATE + STEPS[0];
const FOREIGN_IMAGE: &str = "podinfo:9.9.9";
/// Those of the target, and what somebody makes of the primary's.
const REPLICAS: u64 = 2;
const FOREIGN_REPLICAS: u64 = 3;
/// The annotation that is written all the time.
const TOUCHED: &str = "example.com/touched";

/// A release that others have had their hands in.
pub struct Outcome {
    subject: Subject,
    end: End,
}

/// Conflicts are resolved, foreign fields survive, and what Aviary owns is put right and told once: the routes at once, the
/// primary by the promotion.
pub async fn survive(stage: &Stage) -> Outcome {
    let subject = Subject::create(&stage.client, "writers", 50.0).await;
    let touching = Touching::start(&subject);
    tokio::select! {
        () = release(&subject) => {}
        never = touching.calms_down_after_a_conflict(stage) => match never {},
    }
    touching.end().await;
    assert_others_are_respected(&subject).await;
    take_back(&subject).await;
    let end = subject.end_at_rest().await;
    Outcome { subject, end }
}

/// A release, with an edit of the status, of the routes and of the primary on the way.
async fn release(subject: &Subject) {
    subject.set_image(IMAGES[0]).await;
    subject.reaches(STEPS[0]).await;
    let weights = Weights::follow(subject.routes());
    // The status is where the state lives: what is written there is what the routes are brought to.
    let edit = json!({"status": {"canaryWeight": FOREIGN_STATE}});
    subject.canaries().patch_status("podinfo", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let follow = async || weights.seen().contains(&FOREIGN_STATE) || weights.seen().contains(&STEPS[1]);
    eventually("the routes follow the status, or the next step comes", follow).await;
    assert_eq!(weights.seen().last(), Some(&FOREIGN_STATE), "{:?}: {}", weights.seen(), subject.story().await);
    change(&subject.routes(), "podinfo", |routes| {
        routes["spec"]["http"][0]["route"][0]["weight"] = json!(100 - FOREIGN_WEIGHT);
        routes["spec"]["http"][0]["route"][1]["weight"] = json!(FOREIGN_WEIGHT);
        routes["spec"]["http"][0]["name"] = json!("main");
        routes["spec"]["http"][0]["route"][0]["headers"] = json!({"response": {"set": {"x-side": "primary"}}});
        routes["spec"]["exportTo"] = json!(["*"]);
        routes["metadata"]["labels"]["team"] = json!("payments");
    })
    .await;
    let put_right = async || weights.after(FOREIGN_WEIGHT);
    eventually("the weights are put right", async || put_right().await.is_some()).await;
    let right = put_right().await.unwrap();
    // Nothing in between; on a slow machine the next step may have come meanwhile.
    assert!([FOREIGN_STATE, AFTER_FOREIGN_STATE].contains(&right), "{:?}", weights.seen());

    // What is not a promotion does not write to the primary: who has mended it by hand, or scaled it, is not undone. A promotion
    // makes it what was analysed.
    change(&subject.deployments(), "podinfo-primary", |primary| {
        primary["metadata"]["labels"]["team"] = json!("payments");
        primary["spec"]["replicas"] = json!(FOREIGN_REPLICAS);
        primary["spec"]["template"]["spec"]["containers"][0]["image"] = json!(FOREIGN_IMAGE);
    })
    .await;
    subject.reaches(STEPS[1]).await;
    let primary = get(&subject.deployments(), "podinfo-primary").await.unwrap();
    assert_eq!(image_and_replicas(&primary), (json!(FOREIGN_IMAGE), json!(FOREIGN_REPLICAS)), "{primary:#}");
    subject.released(IMAGES[0]).await;
}

fn image_and_replicas(deployment: &Value) -> (Value, Value) {
    let spec = &deployment["spec"];
    (spec["template"]["spec"]["containers"][0]["image"].clone(), spec["replicas"].clone())
}

async fn assert_others_are_respected(subject: &Subject) {
    let routes = get(&subject.routes(), "podinfo").await.unwrap();
    assert_eq!(routes["spec"]["http"][0]["name"], "main", "{routes:#}");
    assert_eq!(routes["spec"]["http"][0]["route"][0]["headers"]["response"]["set"]["x-side"], "primary", "{routes:#}");
    assert_eq!(routes["spec"]["exportTo"], json!(["*"]), "{routes:#}");
    assert_eq!(routes["metadata"]["labels"]["team"], "payments", "{routes:#}");
    assert!(routes["metadata"]["annotations"][TOUCHED].is_string(), "{routes:#}");
    let primary = get(&subject.deployments(), "podinfo-primary").await.unwrap();
    assert_eq!(primary["metadata"]["labels"]["team"], "payments", "{primary:#}");
    assert_eq!(image_and_replicas(&primary), (json!(IMAGES[0]), json!(REPLICAS)), "{primary:#}");
    for told_once in ["Copying podinfo.writers template spec".to_owned(), format!("was {FOREIGN_WEIGHT} instead of")] {
        assert_eq!(subject.times_told(&told_once).await, 1, "{told_once}: {}", subject.story().await);
    }
}

impl Outcome {
    /// Beside what others have added, and have taken away again, the end is that of a release without them.
    pub async fn compare(&self, stage: &Stage) {
        self.subject.assert_end(&stage.undisturbed[IMAGES[0]], &self.end).await;
        self.subject.assert_no_request_failed().await;
        let conflicts = conflicts(stage);
        assert!(conflicts > 0, "nobody came in between");
        stage.say(format!("others wrote; {conflicts} conflicts, {} requests, none failed", self.subject.requests()));
    }
}

fn conflicts(stage: &Stage) -> usize {
    stage.audit.number(|call| call.namespace == "writers" && call.code == 409)
}

/// Every weight that the canary's routes have had, each once in a row.
struct Weights {
    seen: Arc<Mutex<Vec<u64>>>,
    following: AbortHandle,
}

impl Weights {
    fn follow(routes: Api<DynamicObject>) -> Weights {
        let seen = Arc::<Mutex<Vec<u64>>>::default();
        let following = tokio::spawn(follow(routes, Arc::clone(&seen))).abort_handle();
        Weights { seen, following }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().clone()
    }

    /// The one that came after another.
    fn after(&self, weight: u64) -> Option<u64> {
        let seen = self.seen.lock();
        let at = seen.iter().position(|seen| *seen == weight)?;
        seen.get(at + 1).copied()
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn follow(routes: Api<DynamicObject>, seen: Arc<Mutex<Vec<u64>>>) {
    let mut events = watcher(routes, watcher::Config::default()).applied_objects().boxed();
    while let Some(routes) = events.next().await {
        // The watcher tries again.
        let Ok(routes) = routes else { continue };
        let weight = routes.data["spec"]["http"][0]["route"][1]["weight"].as_u64().unwrap_or_default();
        let mut seen = seen.lock();
        if seen.last() != Some(&weight) {
            seen.push(weight);
        }
    }
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

/// Somebody who writes to the routes, to the canary and to the primary all the time.
struct Touching {
    /// `None` when it is to end.
    period: watch::Sender<Option<Duration>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Touching {
    fn start(subject: &Subject) -> Touching {
        let period = watch::Sender::new(Some(OFTEN));
        let touch = |(api, name)| tokio::spawn(touch_all_the_time(api, name, period.subscribe()));
        let tasks = touched(subject).into_iter().map(touch).collect();
        Touching { period, tasks }
    }

    async fn calms_down_after_a_conflict(&self, stage: &Stage) -> Infallible {
        while conflicts(stage) == 0 {
            tokio::time::sleep(OFTEN).await;
        }
        self.period.send_replace(Some(SELDOM));
        std::future::pending().await
    }

    /// Returns when the last write has been answered.
    async fn end(self) {
        self.period.send_replace(None);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn touched(subject: &Subject) -> [(Api<DynamicObject>, &'static str); 3] {
    [(subject.routes(), "podinfo"), (subject.canaries(), "podinfo"), (subject.deployments(), "podinfo-primary")]
}

async fn touch_all_the_time(api: Api<DynamicObject>, name: &str, mut period: watch::Receiver<Option<Duration>>) {
    for number in 0_u64.. {
        let Some(pause) = *period.borrow_and_update() else { return };
        let edit = json!({"metadata": {"annotations": {TOUCHED: number.to_string()}}});
        // A busy API server may refuse one.
        let _ = api.patch(name, &PatchParams::default(), &Patch::Merge(edit)).await;
        // Until the period is another one, or nobody is there any more to end this.
        if let Ok(Err(_)) = tokio::time::timeout(pause, period.changed()).await {
            return;
        }
    }
}

/// What others have added, without a word of what Aviary owns.
async fn take_back(subject: &Subject) {
    let everywhere = json!({"metadata": {"annotations": {TOUCHED: null}, "labels": {"team": null}}});
    let params = PatchParams::default();
    for (api, name) in touched(subject) {
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
