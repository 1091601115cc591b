//! Prometheus does not answer, or answers nonsense.

use std::time::Duration;

use aviary_sim::prometheus::{PrometheusFault, WrongAnswer};
use http::StatusCode;
use serde_json::json;

use super::{assert_no_request_lost, released_to, undisturbed, wait_for_weight};
use crate::support::checks::{Watchman, assert_same_end, final_state};
use crate::support::{World, canary, deployment, in_virtual_time};

const OUTAGE_TOLD: &str = "metrics are unavailable";

/// A minute without monitoring: held, told once, and gone on with.
fn a_minute_of(fault: PrometheusFault) {
    let end = in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        world.prometheus.set_fault(Some(fault));
        world.pass(Duration::from_secs(60)).await;
        let status = world.status("podinfo");
        assert_eq!((status["phase"].as_str(), status["canaryWeight"].as_u64()), (Some("Progressing"), Some(20)));
        assert_eq!(status["failedChecks"], 0, "{}", world.story());
        let condition = world.condition("podinfo", "MetricsAvailable").expect("the outage is told on the object");
        assert_eq!(condition["status"], "False");
        let told = world.events("podinfo").into_iter().filter(|event| is_about_outage(event)).count();
        assert_eq!(told, 1, "{fault:?}\n{}", world.story());

        world.prometheus.set_fault(None);
        let back = world.cluster.clock().now();
        wait_for_weight(&world, 30).await;
        let took = world.cluster.clock().now().duration_since(back);
        assert!(took.as_secs() <= 16, "{fault:?}: an interval and a timeout: {took:?}");
        assert_eq!(world.condition("podinfo", "MetricsAvailable"), None);
        world.wait_for_phase("podinfo", "Succeeded").await;
        world.pass(Duration::from_secs(120)).await;
        assert_no_request_lost(&world, &mut watchman);
        final_state(&world.cluster)
    });
    assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, &format!("{fault:?}"));
}

fn is_about_outage(event: &str) -> bool {
    event.contains(OUTAGE_TOLD)
}

#[test]
fn a_prometheus_that_is_down_is_waited_for() {
    a_minute_of(PrometheusFault::Down);
}

#[test]
fn a_prometheus_that_hangs_is_waited_for() {
    a_minute_of(PrometheusFault::Timeout);
}

#[test]
fn a_prometheus_that_is_overloaded_is_waited_for() {
    a_minute_of(PrometheusFault::Status(StatusCode::SERVICE_UNAVAILABLE));
    a_minute_of(PrometheusFault::Status(StatusCode::TOO_MANY_REQUESTS));
}

/// Found on a real Prometheus: one that was started anew has no rate before its second scrape, and answers that it has no values.
#[test]
fn a_prometheus_that_comes_back_empty_is_waited_for() {
    let end = in_virtual_time(async {
        let world = released_to(20).await;
        let mut watchman = Watchman::new(&world.cluster);
        world.prometheus.set_fault(Some(PrometheusFault::Down));
        world.pass(Duration::from_secs(20)).await;
        for empty in [PrometheusFault::Empty, PrometheusFault::Wrong(WrongAnswer::Value(f64::NAN))] {
            world.prometheus.set_fault(Some(empty));
            world.pass(Duration::from_secs(20)).await;
            let status = world.status("podinfo");
            assert_eq!(
                (&status["canaryWeight"], &status["failedChecks"]),
                (&json!(20), &json!(0)),
                "{}",
                world.story()
            );
        }
        assert!(world.condition("podinfo", "MetricsAvailable").is_some(), "it has not said anything yet");
        world.prometheus.set_fault(None);
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(world.count_events("podinfo", "Halt"), 0, "{}", world.story());
        world.pass(Duration::from_secs(120)).await;
        assert_no_request_lost(&world, &mut watchman);
        final_state(&world.cluster)
    });
    assert_same_end(&undisturbed("podinfo:6.0.1", "Succeeded"), &end, "down, then empty");
}

/// Nor is it waited for without end: users of a version that reports nothing would have to stay on it. A window and an interval
/// after its first answer, and two more checks.
#[test]
fn a_prometheus_that_stays_empty_counts_when_it_must_have_values() {
    in_virtual_time(async {
        let world = released_to(20).await;
        world.prometheus.set_fault(Some(PrometheusFault::Down));
        let start = world.cluster.clock().now();
        world.pass(Duration::from_secs(20)).await;
        world.prometheus.set_fault(Some(PrometheusFault::Empty));
        world.wait_for_phase("podinfo", "Failed").await;
        let took = world.cluster.clock().now().duration_since(start).as_secs();
        assert!((100..=130).contains(&took), "{took}\n{}", world.story());
        world.pass(Duration::from_secs(5)).await;
        assert_eq!(world.count_events("podinfo", "failed checks threshold reached 3"), 1);
    });
}

#[test]
fn an_outage_beyond_the_limit_counts_as_failed_checks() {
    in_virtual_time(async {
        let world = released_to(20).await;
        world.prometheus.set_fault(Some(PrometheusFault::Down));
        let start = world.cluster.clock().now();
        world.wait_for_phase("podinfo", "Failed").await;
        let took = world.cluster.clock().now().duration_since(start).as_secs();
        // Ten minutes from the first check without an answer, and three checks.
        assert!((620..=640).contains(&took), "{took}\n{}", world.story());
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.count_events("podinfo", "Rolling back podinfo.test failed checks threshold reached 3"), 1);
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
        assert_eq!(world.condition("podinfo", "MetricsAvailable"), None, "nothing is waited for any more");
    });
}

#[test]
fn an_empty_answer_is_a_failed_check() {
    in_virtual_time(async {
        let world = released_to(20).await;
        world.prometheus.set_fault(Some(PrometheusFault::Empty));
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let text = "Halt advancement no values found for istio metric request-success-rate probably podinfo.test is not \
                    receiving traffic";
        assert!(world.events("podinfo").iter().any(|event| event.starts_with(text)), "{}", world.story());
        assert_eq!(world.count_events("podinfo", "failed checks threshold reached 3"), 1);
    });
}

/// Whoever answers like this is not the metrics server, or not well: no verdict about the canary.
#[test]
fn an_answer_that_is_none_of_prometheus_is_waited_for() {
    for wrong in [WrongAnswer::Page, WrongAnswer::CutOff, WrongAnswer::Error, WrongAnswer::Scalar, WrongAnswer::Series]
    {
        a_minute_of(PrometheusFault::Wrong(wrong));
    }
}

#[test]
fn nonsense_beyond_the_limit_counts_as_failed_checks() {
    in_virtual_time(async {
        let world = released_to(20).await;
        world.prometheus.set_fault(Some(PrometheusFault::Wrong(WrongAnswer::Page)));
        let start = world.cluster.clock().now();
        world.wait_for_phase("podinfo", "Failed").await;
        let took = world.cluster.clock().now().duration_since(start).as_secs();
        assert!((620..=640).contains(&took), "{took}\n{}", world.story());
        world.pass(Duration::from_secs(5)).await;
        assert!(
            world.count_events("podinfo", "Prometheus query failed: error decoding the answer") >= 1,
            "{}",
            world.story()
        );
        assert_eq!(world.count_events("podinfo", "failed checks threshold reached 3"), 1);
        assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    });
}

/// What looks right is believed: a number is a number, and NaN is none, as in Flagger.
#[test]
fn a_wrong_number_is_judged_as_a_number() {
    let cases = [
        (f64::NAN, "Halt advancement no values found for istio metric request-success-rate"),
        (-1.0, "Halt podinfo.test advancement success rate -1.00% < 99%"),
        (f64::INFINITY, "Halt podinfo.test advancement request duration"),
        (250.0, "Promotion completed!"),
    ];
    for (value, told) in cases {
        in_virtual_time(async {
            let world = released_to(20).await;
            let mut watchman = Watchman::new(&world.cluster);
            world.prometheus.set_fault(Some(PrometheusFault::Wrong(WrongAnswer::Value(value))));
            let end = if value > 0.0 && value.is_finite() { "Succeeded" } else { "Failed" };
            world.wait_for_phase("podinfo", end).await;
            world.pass(Duration::from_secs(5)).await;
            assert!(world.events("podinfo").iter().any(|event| event.starts_with(told)), "{value}: {}", world.story());
            assert_no_request_lost(&world, &mut watchman);
        });
    }
}

/// A query of the canary's own that gives a number where a vector is wanted is broken, and stays so.
#[test]
fn a_query_of_the_wrong_type_is_a_failed_check() {
    in_virtual_time(async {
        let mut world = World::new(21);
        world.load_heavily();
        let mut object = canary("test", "podinfo");
        object["spec"]["analysis"]["metrics"] = json!([
            {"name": "answer", "interval": "1m", "query": "scalar(vector(42))", "thresholdRange": {"min": 1}},
        ]);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(object).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Failed").await;
        world.pass(Duration::from_secs(5)).await;
        let text = "Prometheus query failed for answer: query returned a scalar, expected an instant vector";
        assert!(world.count_events("podinfo", text) >= 1, "{}", world.story());
    });
}
