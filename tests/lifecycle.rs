//! Whole rollouts: real actors on the embedded cluster, in virtual time.

mod bootstrap;
mod configs;
mod daemon_sets;
mod deletion;
mod keda;
mod primary;
mod restarts;
mod reverting;
mod rivals;
mod rollback;
mod service_targets;
mod sessions;
mod steps;
mod strategies;
mod without_mesh;

use std::sync::{Arc, Mutex};

use aviary_actors::hooks::GlobalNotifier;
use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_providers::notify::AlertTarget;
use aviary_sim::store::kinds;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::{World, canary};

/// What an answer of the metrics may add to a step: queries are gathered for some milliseconds.
const AT_ONCE: SignedDuration = SignedDuration::from_millis(100);

impl World {
    /// Creates Deployment `podinfo` and this Canary of it, starts a controller, and lets users arrive.
    async fn begin(&mut self, change: impl FnOnce(&mut Value)) {
        let mut object = canary("test", "podinfo");
        change(&mut object);
        self.initialize(object).await;
    }

    fn now(&self) -> Timestamp {
        self.cluster.clock().now()
    }

    fn weight(&self) -> u64 {
        self.status("podinfo")["canaryWeight"].as_u64().unwrap_or_default()
    }

    async fn wait_for_weight(&self, weight: u64) {
        self.wait_until(&format!("weight {weight}"), || self.weight() == weight).await;
    }

    fn replicas_of(&self, name: &str) -> u64 {
        let deployment = self.get(&kinds::DEPLOYMENT, name).expect("the deployment exists");
        deployment["spec"]["replicas"].as_u64().unwrap_or_default()
    }

    fn generation_of(&self, name: &str) -> u64 {
        let deployment = self.get(&kinds::DEPLOYMENT, name).expect("the deployment exists");
        deployment["metadata"]["generation"].as_u64().unwrap_or_default()
    }

    /// Every user got a good answer, and was never without one.
    fn assert_undisturbed(&self) {
        let report = self.traffic.report("test", "podinfo");
        assert!(report.requests() > 0.0, "no users");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}\n{}", self.story());
    }

    /// Sends alerts to a chat, and returns what it gets.
    fn notify_chat(&mut self) -> Arc<Mutex<Vec<String>>> {
        self.config.notifier = Some(GlobalNotifier {
            channel: "slack".to_owned(),
            target: AlertTarget {
                address: "http://chat.test/hook".to_owned(),
                channel: "general".to_owned(),
                username: "flagger".to_owned(),
                token: None,
                proxy: None,
            },
        });
        let texts = Arc::new(Mutex::new(Vec::new()));
        let received = texts.clone();
        let chat = Arc::new(move |request: HttpRequest| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            received.lock().unwrap().push(body["attachments"][0]["text"].as_str().unwrap_or_default().to_owned());
            std::future::ready(Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })).boxed()
        });
        self.services = std::mem::take(&mut self.services).and("chat.test", chat);
        texts
    }
}

/// For so long the pods that users were led away from are kept, before a run ends.
const SETTLE: SignedDuration = SignedDuration::from_secs(3);

fn assert_at_once(from: Timestamp, to: Timestamp, what: &str) {
    let took = to.duration_since(from);
    assert!(took <= AT_ONCE, "{what} took {took:#}");
}

/// `to` is `wait` after `from`.
fn assert_after(from: Timestamp, to: Timestamp, wait: SignedDuration, what: &str) {
    let took = to.duration_since(from);
    assert!(took >= wait && took <= wait + AT_ONCE, "{what} took {took:#}, not {wait:#}");
}
