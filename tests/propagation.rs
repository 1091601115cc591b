//! What users lose while the mesh has not heard of a change yet. The cluster's default is a mesh without lag; these tests
//! give it the lag of a real one: a rollout costs nobody a request.

use std::time::Duration;

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::kinds;
use aviary_sim::traffic::{Behaviour, TrafficOptions, TrafficReport};
use serde_json::json;

use crate::support::{World, canary, deployment, in_virtual_time, iterations};

/// Requests per second of the users.
const LOAD: f64 = 1000.0;

/// A release of `podinfo:6.0.1` until its verdict, in a mesh that hears of routes and endpoints after 100 ms; what its users
/// saw.
async fn release(options: TrafficOptions, behaviour: Behaviour, verdict: &str) -> TrafficReport {
    let lag = Duration::from_millis(100);
    let options = TrafficOptions { route_lag: lag, endpoint_lag: lag, ..options };
    let mut world = World::with_traffic(1, PodDetail::Objects, options);
    world.traffic.set_load("test", "podinfo", LOAD);
    world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
    world.create(canary("test", "podinfo")).await;
    world.start();
    world.wait_for_phase("podinfo", "Initialized").await;
    world.pass(Duration::from_secs(60)).await;
    world.traffic.set_behaviour("podinfo:6.0.1", behaviour);
    world.set_image("podinfo", "podinfo:6.0.1");
    world.wait_for_phase("podinfo", verdict).await;
    world.pass(Duration::from_secs(60)).await;
    let report = world.traffic.report("test", "podinfo");
    world.stop().await;
    report
}

#[test]
fn a_good_release_loses_no_request_where_pods_drain() {
    in_virtual_time(async {
        let drain = TrafficOptions { drain: Duration::from_secs(5), ..TrafficOptions::default() };
        let report = release(drain, Behaviour::default(), "Succeeded").await;
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
    });
}

/// The canary keeps its pods until the mesh has heard of the last route.
#[test]
fn a_good_release_loses_no_request_where_pods_end_at_once() {
    in_virtual_time(async {
        let report = release(TrafficOptions::default(), Behaviour::default(), "Succeeded").await;
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
    });
}

#[test]
fn a_rollback_loses_no_request_where_pods_end_at_once() {
    in_virtual_time(async {
        let report = release(TrafficOptions::default(), Behaviour::slow(900.0, 2000.0), "Failed").await;
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
    });
}

/// A successor does not know since when the pods have been there.
#[test]
fn nobody_is_led_to_pods_that_became_available_while_no_operator_ran() {
    in_virtual_time(async {
        let lag = Duration::from_millis(900);
        let options = TrafficOptions { route_lag: Duration::ZERO, endpoint_lag: lag, ..TrafficOptions::default() };
        let mut world = World::with_traffic(1, PodDetail::Objects, options);
        world.traffic.set_load("test", "podinfo", LOAD);
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.set_image("podinfo", "podinfo:6.0.1");
        let canary = |world: &World| world.get(&kinds::DEPLOYMENT, "podinfo").unwrap();
        world.wait_until("the canary is scaled up", || canary(&world)["spec"]["replicas"] == 2).await;
        world.kill();
        world.wait_until("it is available", || canary(&world)["status"]["availableReplicas"] == 2).await;
        world.start();
        world.wait_for_phase("podinfo", "Succeeded").await;
        let report = world.traffic.report("test", "podinfo");
        assert_eq!((report.failures(), report.interruptions), (0.0, 0), "{report:#?}");
        world.stop().await;
    });
}

/// Users are on the primary already, or it would not be an analysis: the mesh knows it.
#[test]
fn a_successor_takes_users_back_at_once() {
    for is_ab_test in [false, true] {
        in_virtual_time(async {
            let mut world = World::new(1);
            world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
            let mut canary = canary("test", "podinfo");
            if is_ab_test {
                iterations(&mut canary, 5);
                canary["spec"]["analysis"]["match"] = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
            }
            world.create(canary).await;
            world.start();
            world.wait_for_phase("podinfo", "Initialized").await;
            world.set_image("podinfo", "podinfo:6.0.1");
            let weight = |world: &World| world.status("podinfo")["canaryWeight"].as_u64().unwrap();
            world.wait_until("the canary has users", || weight(&world) > 0).await;
            world.kill();
            world.set_image("podinfo", "podinfo:6.0.2");
            world.start();
            let began = world.cluster.clock().now();
            world.wait_until("they are led back", || weight(&world) == 0).await;
            let took = world.cluster.clock().now().duration_since(began);
            assert!(took < jiff::SignedDuration::from_millis(500), "A/B test: {is_ab_test}, {took:#}");
            world.stop().await;
        });
    }
}
