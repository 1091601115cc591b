//! One suite of scenarios, three hosts: the embedded cluster in this process and virtual time, the same over HTTP with the
//! binaries as processes, and real components.
//!
//! A scenario names images, and their tags say how pods behave ([`aviary_sim::image_tag`]). Its end is a text in
//! `scenarios/expected`, the same for all hosts; `UPDATE_GENERATED=1` writes those that the embedded cluster leads to.
//! `AVIARY_SCENARIOS=good-release,ab` runs only those whose names begin with one of these.

mod deletions;
pub mod embedded;
mod ending;
pub mod host;
pub mod real;
mod releases;
mod sandbox;
pub mod scene;
mod strategies;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;

use host::Host;
use scene::Scene;

/// A story, with the name of its namespace and of the text that tells its end.
struct Scenario {
    name: String,
    run: Box<Story>,
}

type Story = dyn for<'a> Fn(&'a Scene<'a>) -> LocalBoxFuture<'a, ()>;

fn scenario(name: &str, run: impl for<'a> Fn(&'a Scene<'a>) -> LocalBoxFuture<'a, ()> + 'static) -> Scenario {
    Scenario { name: name.to_owned(), run: Box::new(run) }
}

fn all() -> Vec<Scenario> {
    let mut all = vec![
        scenario("good-release", |scene| releases::good(scene).boxed_local()),
        scenario("errors", |scene| releases::bad(scene, "err50").boxed_local()),
        scenario("slow", |scene| releases::slow(scene, "slow800", 500).boxed_local()),
        scenario("crash-loop", |scene| releases::bad(scene, "crash").boxed_local()),
        scenario("never-ready", |scene| releases::bad(scene, "unready").boxed_local()),
        scenario("newer-revision", |scene| releases::replaced_during_analysis(scene).boxed_local()),
        scenario("withdrawn-revision", |scene| releases::withdrawn_during_analysis(scene).boxed_local()),
        scenario("retry", |scene| releases::failed_and_tried_again(scene).boxed_local()),
        scenario("suspend", |scene| releases::suspended_and_resumed(scene).boxed_local()),
        scenario("spec-change", |scene| releases::spec_changed_during_analysis(scene).boxed_local()),
        scenario("autoscaler", |scene| releases::primary_scaled_during_analysis(scene).boxed_local()),
        scenario("config-map", |scene| releases::config_changed(scene).boxed_local()),
        scenario("ab-header", |scene| {
            let condition = json!({"x-user": {"exact": "insider"}});
            strategies::ab_test(scene, condition, ("x-user", "insider"), "podinfo:6.0.1", "Succeeded").boxed_local()
        }),
        scenario("ab-cookie", |scene| {
            let condition = json!({"cookie": {"regex": "^(.*?;)?(type=insider)(;.*)?$"}});
            strategies::ab_test(scene, condition, ("cookie", "type=insider"), "podinfo:6.0.1", "Succeeded")
                .boxed_local()
        }),
        scenario("ab-errors", |scene| {
            let condition = json!({"x-user": {"exact": "insider"}});
            strategies::ab_test(scene, condition, ("x-user", "insider"), "podinfo:6.0.1-err50", "Failed").boxed_local()
        }),
        scenario("session-affinity", |scene| strategies::session_affinity(scene).boxed_local()),
        scenario("mirroring", |scene| strategies::mirrored(scene).boxed_local()),
        scenario("blue-green", |scene| strategies::blue_green(scene, "podinfo:6.0.1", "Succeeded").boxed_local()),
        scenario("blue-green-errors", |scene| {
            strategies::blue_green(scene, "podinfo:6.0.1-err50", "Failed").boxed_local()
        }),
        scenario("blue-green-mirrored", |scene| {
            strategies::mirrored_blue_green(scene, "podinfo:6.0.1", "Succeeded").boxed_local()
        }),
        scenario("blue-green-mirrored-errors", |scene| {
            strategies::mirrored_blue_green(scene, "podinfo:6.0.1-err50", "Failed").boxed_local()
        }),
    ];
    for phase in [
        "Initializing",
        "Initialized",
        "Waiting",
        "Progressing",
        "WaitingPromotion",
        "Promoting",
        "Succeeded",
        "Failed",
    ] {
        for (revert, manner) in [(false, "deleted"), (true, "reverted")] {
            let name = format!("{manner}-{}", phase.to_lowercase());
            all.push(scenario(&name, move |scene| deletions::in_phase(scene, phase, revert).boxed_local()));
        }
    }
    if let Ok(wanted) = std::env::var("AVIARY_SCENARIOS") {
        all.retain(|scenario| wanted.split(',').any(|start| scenario.name.starts_with(start)));
    }
    all
}

/// The operator is killed again and again; what is left of the events then is left out of the comparison.
#[derive(Clone, Copy, Default)]
struct Kills;

/// From one kill to the next, by the cluster's clock: long enough that a scenario of steps of 10 s gets on, short enough
/// that each meets some.
const KILLED_AFTER: std::ops::Range<u64> = 3_000..12_000;

/// Kills the operator for ever, at moments that look random and are the same in each run.
async fn kill_again_and_again(host: &dyn Host, seed: u64) -> Infallible {
    let mut random = seed;
    loop {
        // A linear congruential generator; its upper bits are good enough to spread some dozens of moments.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let milliseconds = KILLED_AFTER.start + (random >> 33) % (KILLED_AFTER.end - KILLED_AFTER.start);
        host.pass(Duration::from_millis(milliseconds)).await;
        host.kill_and_start_operator().await;
    }
}

/// What becomes of the future while the operator is killed, or not.
async fn among<T>(kills: Option<Kills>, host: &dyn Host, seed: u64, future: impl Future<Output = T>) -> T {
    match kills {
        None => future.await,
        Some(Kills) => tokio::select! {
            outcome = future => outcome,
            never = kill_again_and_again(host, seed) => match never {},
        },
    }
}

/// Why a scenario failed, if it did.
async fn run_one(host: &dyn Host, scenario: &Scenario, kills: Option<Kills>) -> Option<String> {
    let seed = scenario.name.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    among(kills, host, seed, tell(host, scenario, kills)).await
}

async fn tell(host: &dyn Host, scenario: &Scenario, kills: Option<Kills>) -> Option<String> {
    let started = Instant::now();
    let story = async {
        let scene = Scene::open(host, &scenario.name).await;
        (scenario.run)(&scene).await;
        match kills {
            None => ending::assert_expected(&scene, &scenario.name).await,
            Some(Kills) => ending::assert_expected_but_events(&scene, &scenario.name).await,
        }
    };
    let failure = AssertUnwindSafe(story).catch_unwind().await.err();
    let outcome = if failure.is_some() { "FAILED" } else { "ok" };
    println!("{}: {:<28} {outcome:<6} {:>6.1} s", host.name(), scenario.name, started.elapsed().as_secs_f64());
    let failure = failure?;
    let text = failure.downcast_ref::<String>().cloned();
    let text = text.or_else(|| failure.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(format!("{}: {}", scenario.name, text.unwrap_or_default()))
}

/// Runs all side by side, or as many as the host bears, with one operator.
async fn run_all(host: &dyn Host) {
    run_side_by_side(host, None).await;
}

/// The same while the operator is killed and started again and again.
async fn run_all_with_kills(host: &dyn Host) {
    run_side_by_side(host, Some(Kills)).await;
}

async fn run_side_by_side(host: &dyn Host, kills: Option<Kills>) {
    let mut scenarios = all();
    scenarios.retain(|scenario| host.is_chosen(&scenario.name));
    assert!(!scenarios.is_empty(), "{}: no scenario is named so", host.name());
    let stories = stream::iter(&scenarios).map(|scenario| tell(host, scenario, kills));
    let stories = stories.buffer_unordered(host.at_once().min(scenarios.len())).collect::<Vec<_>>();
    let failures = among(kills, host, 1, stories).await;
    report(host.name(), scenarios.len(), &failures.into_iter().flatten().collect::<Vec<_>>());
}

fn report(host: &str, count: usize, failures: &[String]) {
    assert!(failures.is_empty(), "{host}: {} of {count} failed\n\n{}", failures.len(), failures.join("\n\n"));
    println!("{host}: all {count} scenarios ended as expected");
}
