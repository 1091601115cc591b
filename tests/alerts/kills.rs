//! The controller dies at the worst moment; each alert is sent nevertheless, and a repetition can be told from news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aviary_sim::controllers::{PodBehaviour, PodOutcome};
use aviary_sim::store::kinds;
use serde_json::{Value, json};

use super::{Chat, text, world_with};
use crate::support::{World, canary, deployment, in_virtual_time};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// The checks.
    Checks,
    /// The canary does not start.
    Deadline,
    /// The primary does not start with the promoted revision.
    Promotion,
}

/// When the controller dies, in its first life.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    Never,
    AfterWrite(u64),
    /// The chat has this post; the controller has no answer yet.
    AtPost(usize),
}

struct Outcome {
    /// Ids of each text (without its figures), and how often each was posted.
    posts: BTreeMap<String, BTreeMap<String, usize>>,
    count: usize,
    died: bool,
}

async fn play(failure: Failure, death: Death) -> Outcome {
    let chat = Chat::default();
    let mut world = world_with(&chat);
    let mut object = canary("test", "podinfo");
    let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
    if failure == Failure::Promotion {
        let analysis = &mut object["spec"]["analysis"];
        analysis["interval"] = json!("2m");
        (analysis["stepWeight"], analysis["maxWeight"]) = (json!(25), json!(50));
        target["spec"]["progressDeadlineSeconds"] = json!(60);
    }
    world.create(target).await;
    world.create(object).await;
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(120)).await;
    chat.posts.lock().unwrap().clear();

    match death {
        Death::Never => {}
        Death::AfterWrite(write) => world.cluster.faults().kill_client_after_writes(&world.agent, write),
        Death::AtPost(post) => *chat.deadly_post.lock().unwrap() = Some(post),
    }
    let image = match failure {
        Failure::Checks => "podinfo:6.0.2",
        Failure::Deadline => "podinfo:6.0.1-crash",
        Failure::Promotion => "podinfo:6.0.1",
    };
    world.change(&kinds::DEPLOYMENT, "podinfo", |deployment: &mut Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    });
    let mut lives = Lives { world, chat, died: false };
    if failure == Failure::Promotion {
        lives.until(|world| world.phase("podinfo") == "Promoting").await;
        let start_delay = Some(Duration::from_secs(1000));
        lives.world.pods.set(image, PodBehaviour { start_delay, outcome: PodOutcome::Ready });
    }
    lives.until(|world| world.phase("podinfo") == "Failed").await;
    lives.rest(Duration::from_secs(120)).await;

    let posts = lives.chat.posts("global");
    let mut told: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for post in &posts {
        let text = text(&post.body);
        let about: String =
            text.split(|letter: char| letter.is_ascii_digit() || letter == ':').next().unwrap().to_owned();
        *told.entry(about).or_default().entry(post.id.clone()).or_default() += 1;
    }
    Outcome { posts: told, count: posts.len(), died: lives.died }
}

/// A world whose controller may die once.
struct Lives {
    world: World,
    chat: Chat,
    died: bool,
}

impl Lives {
    fn start_anew(&mut self) {
        self.world.kill();
        self.died = true;
        self.world.agent = "aviary-2".to_owned();
        self.world.start();
    }

    async fn until(&mut self, condition: impl Fn(&World) -> bool) {
        let (faults, deadly) = (self.world.cluster.faults().clone(), self.chat.deadly.clone());
        let mut changes = self.world.cluster.store().subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(7200);
        while !condition(&self.world) {
            let agent = self.world.agent.clone();
            tokio::select! {
                biased;
                () = faults.wait_killed(&agent) => self.start_anew(),
                () = deadly.notified() => self.start_anew(),
                next = tokio::time::timeout_at(deadline, changes.recv()) => {
                    assert!(next.is_ok(), "waited too long\n{}", self.world.story());
                }
            }
        }
    }

    async fn rest(&mut self, time: Duration) {
        let (faults, deadly) = (self.world.cluster.faults().clone(), self.chat.deadly.clone());
        loop {
            let agent = self.world.agent.clone();
            tokio::select! {
                () = faults.wait_killed(&agent) => self.start_anew(),
                () = deadly.notified() => self.start_anew(),
                () = tokio::time::sleep(time) => return,
            }
        }
    }
}

fn every_alert_survives(failure: Failure, last: &str) {
    let undisturbed = in_virtual_time(play(failure, Death::Never));
    let about = |outcome: &Outcome| outcome.posts.keys().cloned().collect::<BTreeSet<_>>();
    assert!(about(&undisturbed).iter().any(|text| text.starts_with(last)), "{:?}", undisturbed.posts);
    assert_eq!(undisturbed.count, about(&undisturbed).len(), "each is told once: {:?}", undisturbed.posts);

    let mut repetitions = 0;
    let mut check = |death: Death| {
        let outcome = in_virtual_time(play(failure, death));
        assert_eq!(about(&outcome), about(&undisturbed), "{failure:?} {death:?}");
        for (text, ids) in &outcome.posts {
            assert_eq!(ids.len(), 1, "{failure:?} {death:?}: {text} has one id: {ids:?}");
        }
        repetitions += outcome.count - undisturbed.count;
        outcome.died
    };
    for write in 1.. {
        if !check(Death::AfterWrite(write)) {
            assert!(write > 3, "{failure:?}: only {write} writes");
            break;
        }
    }
    for post in 1..=undisturbed.count {
        assert!(check(Death::AtPost(post)), "{failure:?}: died at post {post}");
    }
    assert!(repetitions >= undisturbed.count, "{failure:?}: a death before the answer repeats the alert");
}

#[test]
fn alerts_of_failed_checks_survive_every_death() {
    every_alert_survives(Failure::Checks, "Failed checks threshold reached");
}

#[test]
fn alerts_of_a_missed_deadline_survive_every_death() {
    every_alert_survives(Failure::Deadline, "Progress deadline exceeded");
}

#[test]
fn alerts_of_a_failed_promotion_survive_every_death() {
    every_alert_survives(Failure::Promotion, "Promotion failed, primary not ready");
}
