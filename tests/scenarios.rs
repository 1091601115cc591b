//! One suite of scenarios, three hosts: the embedded cluster in this process and virtual time, the same over HTTP with the
//! binaries as processes, and real components.
//!
//! A scenario names images, and their tags say how pods behave ([`aviary_sim::image_tag`]). Its end is a text in
//! `scenarios/expected`, the same for all hosts; `UPDATE_GENERATED=1` writes those that the embedded cluster leads to.
//! `AVIARY_SCENARIOS=good-release,ab` runs only those whose names begin with one of these.

mod deletions;
mod embedded;
mod ending;
mod host;
mod real;
mod releases;
mod sandbox;
mod scene;
mod strategies;

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, join_all};
use serde_json::json;

use host::Host;
use scene::Scene;

/// A story, with the name of its namespace and of the text that tells its end.
struct Scenario {
    name: String,
    run: Box<dyn for<'a> Fn(&'a Scene<'a>) -> LocalBoxFuture<'a, ()>>,
}

fn scenario(name: &str, run: impl for<'a> Fn(&'a Scene<'a>) -> LocalBoxFuture<'a, ()> + 'static) -> Scenario {
    Scenario { name: name.to_owned(), run: Box::new(run) }
}

fn all() -> Vec<Scenario> {
    let mut all = vec![
        scenario("good-release", |scene| releases::good(scene).boxed_local()),
        scenario("errors", |scene| releases::bad(scene, "err50").boxed_local()),
        scenario("slow", |scene| releases::bad(scene, "slow800").boxed_local()),
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
    let Ok(wanted) = std::env::var("AVIARY_SCENARIOS") else { return all };
    all.retain(|scenario| wanted.split(',').any(|start| scenario.name.starts_with(start)));
    all
}

/// Why a scenario failed, if it did.
async fn run_one(host: &dyn Host, scenario: &Scenario) -> Option<String> {
    let started = Instant::now();
    let story = async {
        let scene = Scene::open(host, &scenario.name).await;
        (scenario.run)(&scene).await;
        ending::assert_expected(&scene, &scenario.name).await;
    };
    let failure = AssertUnwindSafe(story).catch_unwind().await.err();
    let outcome = if failure.is_some() { "FAILED" } else { "ok" };
    println!("{}: {:<28} {outcome:<6} {:>6.1} s", host.name(), scenario.name, started.elapsed().as_secs_f64());
    let failure = failure?;
    let text = failure.downcast_ref::<String>().cloned();
    let text = text.or_else(|| failure.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(format!("{}: {}", scenario.name, text.unwrap_or_default()))
}

/// Runs all side by side.
async fn run_all(host: &dyn Host) {
    let scenarios = all();
    let failures = join_all(scenarios.iter().map(|scenario| run_one(host, scenario))).await;
    report(host.name(), scenarios.len(), failures.into_iter().flatten().collect());
}

fn report(host: &str, count: usize, failures: Vec<String>) {
    assert!(failures.is_empty(), "{host}: {} of {count} failed\n\n{}", failures.len(), failures.join("\n\n"));
    println!("{host}: all {count} scenarios ended as expected");
}
