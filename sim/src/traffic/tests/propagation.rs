//! What users see between a change and the moment at which the mesh has heard of it.

use super::*;

fn lagging(drain: Duration) -> TrafficOptions {
    let lag = Duration::from_millis(100);
    TrafficOptions { route_lag: lag, endpoint_lag: lag, drain, ..TrafficOptions::default() }
}

/// Half of the requests go to the canary, ten a second.
async fn half_way(options: &TrafficOptions) -> World {
    let world = World::initialised_with(options);
    sleep(seconds(10)).await;
    world.route(50, 50);
    sleep(seconds(10)).await;
    assert_eq!(world.traffic.report("test", "podinfo").interruptions, 0);
    world
}

fn delete_pod(world: &World, workload: &str, index: u32) {
    world.store.delete(&kinds::POD, "test", &format!("{workload}-7d4-{index}")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_route_takes_effect_after_its_lag() {
    let world = half_way(&lagging(Duration::ZERO)).await;
    let canary = || world.traffic.report("test", "podinfo").workload("podinfo").requests;
    let before = canary();
    world.route(0, 100);
    sleep(Duration::from_millis(60)).await;
    // Looking in between does not change what comes later.
    assert_near(canary() - before, 0.06 * 10.0, 1e-9);
    sleep(Duration::from_millis(940)).await;
    assert_near(canary() - before, 0.1 * 10.0 + 0.9 * 20.0, 1e-9);
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_goes_together_with_its_route_loses_the_requests_of_the_lag() {
    let world = half_way(&lagging(Duration::ZERO)).await;
    world.route(100, 0);
    delete_pod(&world, "podinfo", 1);
    sleep(seconds(10)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.workload("unknown").failures, 0.1 * 10.0, 1e-9);
    assert_near(report.failures(), 0.1 * 10.0, 1e-9);
    assert_eq!(report.interruptions, 1);
    let refused = world.ask(r#"istio_requests_total{response_code="503"}"#).await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    let labels = &refused[0].0;
    assert_eq!((&labels["reporter"], &labels["response_flags"]), (&json!("source"), &json!("UF,URX")));
    assert_eq!(labels["destination_workload"], "podinfo");
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_goes_after_its_route_took_effect_loses_nothing() {
    let world = half_way(&lagging(Duration::ZERO)).await;
    world.route(100, 0);
    sleep(Duration::from_millis(100)).await;
    delete_pod(&world, "podinfo", 1);
    sleep(seconds(10)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_eq!((report.failures(), report.interruptions), (0.0, 0));
}

#[tokio::test(start_paused = true)]
async fn pods_that_drain_lose_nothing() {
    let world = half_way(&lagging(seconds(5))).await;
    world.route(100, 0);
    delete_pod(&world, "podinfo", 1);
    sleep(seconds(10)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_eq!((report.failures(), report.interruptions), (0.0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_back_while_it_drains_goes_on_answering() {
    let world = half_way(&lagging(seconds(5))).await;
    world.set_ready("podinfo", 1, false);
    sleep(seconds(1)).await;
    world.set_ready("podinfo", 1, true);
    sleep(seconds(10)).await;
    // Only what came while the proxies knew of no pod.
    assert_near(world.traffic.report("test", "podinfo").failures(), 10.0, 1e-9);
}

#[tokio::test(start_paused = true)]
async fn one_of_several_pods_is_missed_by_nobody_unless_retries_are_off() {
    let world = half_way(&lagging(Duration::ZERO)).await;
    world.pod("podinfo", 2, "podinfo:6.1", true);
    sleep(seconds(10)).await;
    delete_pod(&world, "podinfo", 1);
    sleep(seconds(10)).await;
    assert_eq!(world.traffic.report("test", "podinfo").failures(), 0.0, "the other pod was tried");

    world.pod("podinfo", 3, "podinfo:6.1", true);
    world.update(&kinds::VIRTUAL_SERVICE, "podinfo", |object| {
        object["spec"]["http"][0]["retries"] = json!({"attempts": 0});
    });
    sleep(seconds(10)).await;
    delete_pod(&world, "podinfo", 2);
    sleep(seconds(10)).await;
    // A tenth of a second, half of the ten requests a second.
    assert_near(world.traffic.report("test", "podinfo").failures(), 0.1 * 5.0, 1e-9);
    let refused = world.ask(r#"istio_requests_total{response_flags="UF"}"#).await;
    assert_eq!(refused.len(), 0, "half a request is none yet");
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_gets_requests_when_the_mesh_knows_of_it() {
    let world = World::with(&lagging(Duration::ZERO));
    world.service("podinfo", "podinfo");
    world.canary("podinfo");
    world.pod("podinfo", 1, "podinfo:6.0", true);
    sleep(seconds(1)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.requests(), 0.9 * 20.0, 1e-9);
    assert_eq!(report.failures(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn counted_pods_are_refused_as_pod_objects_are() {
    let of = |pods| async move {
        let options = ControllerOptions { pods, ..ControllerOptions::default() };
        let traffic = lagging(Duration::ZERO);
        let cluster = Cluster::new(ClusterOptions { controllers: Some(options), traffic, ..ClusterOptions::default() });
        let store = cluster.store().clone();
        store.create(&kinds::NAMESPACE, json!({"metadata": {"name": "test"}})).unwrap();
        for (kind, object) in [
            (kinds::CANARY, json!({"spec": {"targetRef": {"kind": "Deployment", "name": "podinfo"}}})),
            (kinds::SERVICE, json!({"spec": {"selector": {"app": "podinfo"}}})),
            (
                kinds::DEPLOYMENT,
                json!({"spec": {
                    "replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}},
                    "template": {
                        "metadata": {"labels": {"app": "podinfo"}},
                        "spec": {"containers": [{"name": "app", "image": "podinfo:6.0"}]},
                    },
                }}),
            ),
        ] {
            let mut object = object;
            object["metadata"] = json!({"namespace": "test", "name": "podinfo"});
            store.create(&kind, object).unwrap();
        }
        sleep(seconds(60)).await;
        for replicas in [1, 0] {
            let scale = |deployment: &mut Value| deployment["spec"]["replicas"] = json!(replicas);
            store.update(&kinds::DEPLOYMENT, "test", "podinfo", scale).unwrap();
            sleep(seconds(10)).await;
        }
        cluster.traffic().report("test", "podinfo")
    };
    let (objects, counted) = (of(PodDetail::Objects).await, of(PodDetail::CountsOnly).await);
    // The first pod is missed by nobody; without any pod all requests fail, refused or without a destination.
    assert_near(objects.failures(), 10.0 * 20.0, 1e-9);
    assert_eq!(counted, objects);
}
