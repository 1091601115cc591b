//! Alerts: who gets which, what they say, how often, and what they never say.

mod kills;
mod secrets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_actors::hooks::GlobalNotifier;
use aviary_actors::transport::HttpResponse;
use aviary_providers::HttpRequest;
use aviary_providers::notify::AlertTarget;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::traffic::Behaviour;
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// A post that a chat got.
#[derive(Clone, Debug)]
struct Post {
    /// Last part of the path.
    path: String,
    id: String,
    authorization: Option<String>,
    proxy: Option<String>,
    body: Value,
}

/// What the chat does with a post.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    Never,
}

/// `chat.test`: takes every post, unless told otherwise, and keeps it.
#[derive(Clone, Default)]
struct Chat {
    posts: Arc<Mutex<Vec<Post>>>,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// The post with this number, from 1 on, is never answered, and whoever waits for `deadly` hears of it.
    deadly_post: Arc<Mutex<Option<usize>>>,
    deadly: Arc<Notify>,
}

impl Chat {
    fn join(&self, world: &mut World) {
        let chat = self.clone();
        let service = Arc::new(move |request: HttpRequest| chat.take(&request).boxed());
        world.services = std::mem::take(&mut world.services).and("chat.test", service);
    }

    fn take(
        &self,
        request: &HttpRequest,
    ) -> impl Future<Output = Result<HttpResponse, aviary_actors::transport::NoAnswer>> + 'static {
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let post = Post {
            path: request.url.rsplit('/').next().unwrap_or_default().to_owned(),
            id: header("idempotency-key").unwrap_or_default(),
            authorization: header("authorization"),
            proxy: request.proxy.clone(),
            body: serde_json::from_slice(&request.body).unwrap(),
        };
        let answer = self.answers.lock().unwrap().get(&post.path).copied().unwrap_or(Answer::Status(200));
        let mut posts = self.posts.lock().unwrap();
        posts.push(post);
        let is_deadly = *self.deadly_post.lock().unwrap() == Some(posts.len());
        if is_deadly {
            self.deadly.notify_one();
        }
        async move {
            match answer {
                Answer::Status(status) if !is_deadly => {
                    Ok(HttpResponse { status, retry_after: None, body: b"hunter2".to_vec() })
                }
                Answer::Status(_) | Answer::Never => std::future::pending().await,
            }
        }
    }

    fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn posts(&self, path: &str) -> Vec<Post> {
        self.posts.lock().unwrap().iter().filter(|post| post.path == path).cloned().collect()
    }

    fn texts(&self, path: &str) -> Vec<String> {
        self.posts(path).iter().map(|post| text(&post.body)).collect()
    }
}

/// The text of an alert, in whichever chat.
fn text(body: &Value) -> String {
    let places =
        ["/attachments/0/text", "/sections/0/activityTitle", "/cards/0/sections/0/widgets/0/textParagraph/text"];
    let found = places.iter().find_map(|place| body.pointer(place)).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text in {body}")).to_owned()
}

fn provider(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider",
        "metadata": {"namespace": "test", "name": name},
        "spec": spec,
    })
}

/// `--slack-url` and so on.
fn global_notifier() -> GlobalNotifier {
    GlobalNotifier {
        channel: "slack".to_owned(),
        target: AlertTarget {
            address: "http://chat.test/global".to_owned(),
            channel: "general".to_owned(),
            username: "flagger".to_owned(),
            token: None,
            proxy: None,
        },
    }
}

/// A world with a global notifier, a chat, and `podinfo:6.0.2`, which fails.
fn world_with(chat: &Chat) -> World {
    let mut world = World::new(1);
    chat.join(&mut world);
    world.config.notifier = Some(global_notifier());
    world.traffic.set_behaviour("podinfo:6.0.2", Behaviour { error_ratio: 0.2, ..Behaviour::default() });
    world
}

async fn begin(world: &mut World, change: impl FnOnce(&mut Value)) {
    let mut object = canary("test", "podinfo");
    change(&mut object);
    world.initialize(object).await;
}

const INITIALIZED: &str = "New Deployment detected, initialization completed.";
const NEW_REVISION: &str = "New revision detected, progressing canary analysis.";
const FAILED: &str = "Failed checks threshold reached 3";

#[test]
fn five_chats_get_what_they_asked_for() {
    in_virtual_time(async {
        let chat = Chat::default();
        let mut world = world_with(&chat);
        world.config.cluster_name = Some("prod".to_owned());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "test", "name": "chat"},
            "stringData": {"address": "http://chat.test/info", "token": "xoxb"},
        });
        world.create(secret).await;
        let at = |path: &str| json!(format!("http://chat.test/{path}"));
        for (name, spec) in [
            (
                "info",
                json!({"type": "slack", "channel": "releases", "username": "bird", "secretRef": {"name": "chat"}}),
            ),
            ("default", json!({"type": "rocket", "address": at("default")})),
            ("warn", json!({"type": "discord", "address": at("warn")})),
            ("error", json!({"type": "msteams", "address": at("error"), "proxy": "http://proxy.test:3128"})),
            ("google", json!({"type": "gchat", "address": at("google")})),
        ] {
            world.create(provider(name, &spec)).await;
        }
        world.deploy("other").await;
        begin(&mut world, |canary| {
            canary["spec"]["analysis"]["alerts"] = json!([
                {"name": "a", "severity": "info", "providerRef": {"name": "info"}},
                {"name": "b", "providerRef": {"name": "default"}},
                {"name": "c", "severity": "warn", "providerRef": {"name": "warn"}},
                {"name": "d", "severity": "error", "providerRef": {"name": "error", "namespace": "test"}},
                {"name": "e", "severity": "error", "providerRef": {"name": "google"}},
                {"name": "f", "severity": "error", "providerRef": {"name": "nobody"}},
            ]);
        })
        .await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;

        for path in ["info", "default"] {
            assert_eq!(chat.texts(path), [INITIALIZED, NEW_REVISION, FAILED], "{path}");
        }
        // Discord's address ends in what Slack's payload needs.
        assert_eq!(chat.texts("slack"), [FAILED], "warn takes errors, too");
        assert_eq!(chat.texts("error"), [FAILED]);
        assert_eq!(chat.texts("google"), [format!("<font color=#848484><strong>{FAILED}</strong></font>")]);
        assert_eq!(chat.texts("global"), [INITIALIZED], "of the canary that names no provider, and of that alone");
        assert_eq!(chat.posts("global")[0].body["attachments"][0]["author_name"], "other.test");

        let slack = &chat.posts("info")[0];
        assert_eq!(slack.authorization.as_deref(), Some("Bearer xoxb"));
        assert_eq!((&slack.body["channel"], &slack.body["username"]), (&json!("releases"), &json!("bird")));
        let fact = |title: &str, value: &str| json!({"title": title, "value": value, "short": false});
        let facts = json!([
            fact("Cluster", "prod"),
            fact("Target", "Deployment/podinfo.test"),
            fact("Failed checks threshold", "3"),
            fact("Progress deadline", "60s"),
            fact("Traffic routing", "Weight step: 10 max: 50"),
        ]);
        assert_eq!(slack.body["attachments"][0]["fields"], facts);
        let failed = &chat.posts("info")[2].body["attachments"][0];
        assert_eq!(failed["fields"], json!([fact("Cluster", "prod")]), "no facts, but the cluster");
        let teams = &chat.posts("error")[0];
        assert_eq!(teams.proxy.as_deref(), Some("http://proxy.test:3128"));
        assert_eq!(teams.body["sections"][0]["facts"], json!([{"name": "Cluster", "value": "prod"}]));
        let rocket = &chat.posts("default")[0].body;
        assert_eq!((&rocket["channel"], &rocket["username"]), (&json!("general"), &json!("flagger")));
        // One alert, many chats: the id is that of the alert.
        assert_eq!(chat.posts("info")[2].id, teams.id);
        assert_eq!(teams.id.len(), 32);
        assert_ne!(chat.posts("info")[0].id, chat.posts("info")[1].id);
        // The missing provider is counted and told in the log.
        assert_eq!(world.metric("aviary_alerts_total{result=\"failure\"}"), Some(1.0));
    });
}

#[test]
fn an_alert_is_tried_a_few_times_where_that_may_help() {
    for (answer, tries) in
        [(Answer::Status(503), 4), (Answer::Status(429), 4), (Answer::Never, 4), (Answer::Status(404), 1)]
    {
        in_virtual_time(async {
            let chat = Chat::default();
            let mut world = world_with(&chat);
            begin(&mut world, |_| {}).await;
            chat.answer("global", answer);
            chat.posts.lock().unwrap().clear();
            world.set_image("podinfo", "podinfo:6.0.2");
            world.wait_for_phase("podinfo", "Failed").await;
            world.pass(Duration::from_secs(120)).await;
            for text in [NEW_REVISION, FAILED] {
                let posts: Vec<_> =
                    chat.posts("global").into_iter().filter(|post| self::text(&post.body) == text).collect();
                assert_eq!(posts.len(), tries, "{answer:?} {text}");
                assert!(posts.iter().all(|post| post.id == posts[0].id), "{posts:#?}");
            }
            assert_eq!(world.metric("aviary_alerts_total{result=\"failure\"}"), Some(2.0), "{answer:?}");
        });
    }
}

#[test]
fn a_chat_that_never_answers_delays_its_own_canary_by_seconds() {
    in_virtual_time(async {
        let chat = Chat::default();
        let mut world = world_with(&chat);
        world.deploy("other").await;
        begin(&mut world, |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        let start = world.cluster.clock().now();
        let journal = world.follow("test", "podinfo");
        chat.answer("global", Answer::Never);
        world.wait_for_phase("podinfo", "Failed").await;
        let began = journal.time_of("Progressing", 0).duration_since(start);
        assert!((1000..1200).contains(&began.as_millis()), "one second for good news: {began:#}");
        let routes = world.get(&aviary_sim::store::kinds::VIRTUAL_SERVICE, "podinfo").unwrap();
        assert_eq!(routes["spec"]["http"][0]["route"][1]["weight"], 0);
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(world.get(&aviary_sim::store::kinds::DEPLOYMENT, "podinfo").unwrap()["spec"]["replicas"], 0);
    });
}

/// While the status cannot be written, the rest of the step is made again and again.
#[test]
fn a_step_that_is_made_again_alerts_once() {
    in_virtual_time(async {
        let chat = Chat::default();
        let mut world = world_with(&chat);
        begin(&mut world, |_| {}).await;
        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_until("two checks have failed", || world.status("podinfo")["failedChecks"] == 2).await;
        let before = world.status("podinfo");
        world.wait_until("the threshold is reached", || world.status("podinfo")["failedChecks"] == 3).await;
        let refusal = Rule::new(Action::error(500)).client(AGENT).writes().resource("canaries");
        let refusal = world.cluster.faults().add(refusal);
        world.pass(Duration::from_secs(60)).await;
        assert_eq!((before["phase"].as_str(), world.phase("podinfo").as_str()), (Some("Progressing"), "Progressing"));
        assert!(world.cluster.faults().injected() > 2, "it was tried again");
        assert_eq!(chat.texts("global"), [INITIALIZED, NEW_REVISION, FAILED]);
        world.cluster.faults().remove(refusal);
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(60)).await;
        assert_eq!(chat.texts("global"), [INITIALIZED, NEW_REVISION, FAILED]);
    });
}

/// A first revision that does not start is a failure, too (Flagger rolls back without an alert).
#[test]
fn a_bootstrap_that_fails_alerts_once() {
    in_virtual_time(async {
        let chat = Chat::default();
        let mut world = world_with(&chat);
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0-crash");
        target["spec"]["progressDeadlineSeconds"] = json!(60);
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.pass(Duration::from_secs(1200)).await;
        assert_eq!(world.phase("podinfo"), "Initializing");
        let texts = chat.texts("global");
        assert_eq!(texts.len(), 1, "{texts:?}\n{}", world.story());
        assert!(
            texts[0].starts_with("Initialization failed, primary not ready: podinfo-primary.test not ready"),
            "{texts:?}"
        );
        assert_eq!(world.events("podinfo").last(), texts.last(), "{}", world.story());
    });
}
