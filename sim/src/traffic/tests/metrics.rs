//! Labels and lives of the series.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_labels_of_istio() {
    let world = World::initialised();
    world.update(&kinds::POD, "podinfo-primary-7d4-1", |pod| pod["metadata"]["labels"]["version"] = json!("v6"));
    sleep(seconds(30)).await;
    let answer = world.ask(r#"istio_requests_total{reporter="destination"}"#).await;
    assert_eq!(answer.len(), 1);
    assert_eq!(
        answer[0].0,
        json!({
            "__name__": "istio_requests_total",
            "reporter": "destination",
            "connection_security_policy": "mutual_tls",
            "destination_app": "podinfo-primary",
            "destination_canonical_revision": "v6",
            "destination_canonical_service": "podinfo-primary",
            "destination_service": "podinfo-primary.test.svc.cluster.local",
            "destination_service_name": "podinfo-primary",
            "destination_service_namespace": "test",
            "destination_version": "v6",
            "destination_workload": "podinfo-primary",
            "destination_workload_namespace": "test",
            "request_protocol": "http",
            "response_code": "200",
            "response_flags": "-",
            "source_app": "istio-ingressgateway",
            "source_canonical_service": "istio-ingressgateway",
            "source_version": "unknown",
            "source_workload": "istio-ingressgateway",
            "source_workload_namespace": "istio-system",
        })
    );
}

#[tokio::test(start_paused = true)]
async fn the_gateway_does_not_count_copies() {
    let world = World::initialised();
    sleep(seconds(30)).await;
    world.update(&kinds::VIRTUAL_SERVICE, "podinfo", |object| {
        object["spec"]["http"] = json!([{
            "route": [{"destination": {"host": "podinfo-primary"}, "weight": 100}],
            "mirror": {"host": "podinfo-canary"},
        }]);
    });
    sleep(seconds(60)).await;
    let canary = r#"istio_requests_total{destination_workload="podinfo"}"#;
    let answer = world.ask(canary).await;
    assert_eq!(answer.len(), 1, "{answer:?}");
    assert_eq!(
        (&answer[0].0["reporter"], &answer[0].0["destination_service_name"]),
        (&json!("destination"), &json!("podinfo-canary"))
    );
    assert!(answer[0].1 > 1000.0, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn the_application_counts_for_itself_in_seconds() {
    let world = World::initialised();
    world.traffic.set_behaviour("podinfo:6.1", Behaviour { error_ratio: 0.25, ..Behaviour::slow(300.0, 800.0) });
    world.route(50, 50);
    sleep(seconds(120)).await;
    // The check of an observer without a mesh, and the template of Flagger's Gateway API tests.
    let pod = r#"kubernetes_namespace="test",kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)""#;
    let success = format!(
        "sum(rate(http_request_duration_seconds_count{{{pod},status!~\"5.*\"}}[1m])) / \
         sum(rate(http_request_duration_seconds_count{{{pod}}}[1m])) * 100"
    );
    assert_near(world.only(&success).await, 75.0, 0.5);
    let p99 = r#"histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket{namespace=~"test",app="podinfo",}[1m])) by (le))"#;
    assert_near(world.only(p99).await, 0.8, 0.015);
    assert_near(world.only(r#"sum(rate(http_requests_total{app="podinfo"}[1m]))"#).await, 10.0, 0.05);
    // 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 and +Inf: the buckets of podinfo.
    let buckets = world.ask(r#"http_request_duration_seconds_bucket{app="podinfo-primary"}"#).await;
    let mut bounds: Vec<&str> = buckets.iter().map(|(labels, _)| labels["le"].as_str().unwrap()).collect();
    bounds.sort_unstable();
    assert_eq!(bounds, ["+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "10.0", "2.5", "5.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_series_ends_with_the_last_pod_of_its_version_but_not_at_the_gateway() {
    let world = World::initialised();
    world.route(50, 50);
    sleep(seconds(60)).await;
    world.route(100, 0);
    world.store.delete(&kinds::POD, "test", "podinfo-7d4-1").unwrap();
    sleep(seconds(10)).await;
    let canary =
        |reporter: &str| format!(r#"istio_requests_total{{destination_workload="podinfo",reporter="{reporter}"}}"#);
    assert_eq!(world.ask(&canary("destination")).await.len(), 0, "ended by a stale marker, not by the lookback");
    assert_eq!(world.only(&canary("source")).await, 600.0);
    // The next pods of the version count from zero.
    world.pod("podinfo", 2, "podinfo:6.1", true);
    world.route(50, 50);
    sleep(seconds(30)).await;
    let counted = world.only(&canary("destination")).await;
    assert!((200.0..=300.0).contains(&counted), "{counted}");
    let increase = world.only(&format!("increase({}[2m])", canary("source"))).await;
    assert!(increase > 800.0, "no reset at the gateway: {increase}");
}

#[tokio::test(start_paused = true)]
async fn behaviour_and_load_change_at_their_time() {
    let world = World::initialised();
    let at = |after: u64| "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + seconds(after);
    // Given in no particular order; nobody looks in between.
    world.traffic.clear_behaviour_at(at(60), "podinfo:6.0");
    world.traffic.set_behaviour_at(at(20), "podinfo:6.0", Behaviour::failing(0.5));
    world.traffic.set_load_at(at(40), "test", "podinfo", 100.0);
    sleep(seconds(100)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.requests(), 40.0 * 20.0 + 60.0 * 100.0, 1e-6);
    assert_near(report.failures(), 20.0 * 10.0 + 20.0 * 50.0, 1e-6);
    // The counters have the steps where they happened.
    let rate = |from: u64| {
        let query = format!(
            "sum(rate(istio_requests_total{{reporter=\"source\",response_code=\"500\"}}[15s] @ {}))",
            at(from + 20).as_second()
        );
        let world = &world;
        async move { world.only(&query).await }
    };
    assert_near(rate(20).await, 10.0, 0.2);
    assert_near(rate(40).await, 50.0, 0.2);
    assert_near(rate(60).await, 0.0, 0.2);
}

#[tokio::test(start_paused = true)]
async fn a_root_route_hands_its_requests_to_the_delegate() {
    let world = World::initialised();
    let root = json!({
        "metadata": {"namespace": "test", "name": "root"},
        "spec": {"hosts": ["shop"], "http": [{"delegate": {"name": "podinfo", "namespace": "test"}}]},
    });
    world.store.create(&kinds::VIRTUAL_SERVICE, root).unwrap();
    world.traffic.set_load("test", "shop", 10.0);
    world.route(60, 40);
    sleep(seconds(10)).await;
    let report = world.traffic.report("test", "shop");
    assert_near(report.workload("podinfo").requests, 40.0, 1e-6);
    assert_near(report.workload("podinfo-primary").requests, 60.0, 1e-6);
}

#[tokio::test(start_paused = true)]
async fn a_traffic_split_leads_requests_to_clusters_that_an_envoy_counts() {
    let world = World::initialised();
    world.store.delete(&kinds::VIRTUAL_SERVICE, "test", "podinfo").unwrap();
    assert_eq!(world.ask("envoy_cluster_upstream_rq").await.len(), 0, "nothing is routed by that Envoy yet");
    let backend = |service: &str, weight: &str| json!({"service": service, "weight": weight});
    let split = json!({
        "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {"service": "podinfo", "backends": [backend("podinfo-canary", "25"), backend("podinfo-primary", "75")]},
    });
    world.store.create(&kinds::TRAFFIC_SPLIT, split).unwrap();
    world.traffic.set_behaviour("podinfo:6.1", Behaviour { error_ratio: 0.5, ..Behaviour::slow(300.0, 800.0) });
    sleep(seconds(120)).await;
    let cluster = r#"kubernetes_namespace="test",envoy_cluster_name="podinfo-canary""#;
    let rate = |matchers: &str| format!("sum(rate(envoy_cluster_upstream_rq{{{matchers}}}[1m]))");
    assert_near(world.only(&rate(cluster)).await, 5.0, 0.05);
    assert_near(world.only(&rate(&format!("{cluster},envoy_response_code=\"500\""))).await, 2.5, 0.05);
    assert_near(world.only(&rate(r#"envoy_cluster_name="podinfo-primary""#)).await, 15.0, 0.1);
    let p99 =
        format!("histogram_quantile(0.99, sum(rate(envoy_cluster_upstream_rq_time_bucket{{{cluster}}}[1m])) by (le))");
    assert_near(world.only(&p99).await, 800.0, 15.0);
}

/// A template that names a bucket finds it in one version of Prometheus only; one that sums by bucket finds it in both.
#[tokio::test(start_paused = true)]
async fn buckets_are_named_as_in_the_version_that_the_server_says_it_is() {
    let world = World::initialised();
    sleep(seconds(60)).await;
    let within = |bound: &str| {
        format!(r#"sum(rate(istio_request_duration_milliseconds_bucket{{reporter="destination",le="{bound}"}}[30s]))"#)
    };
    let p99 = "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\"}[30s])))";
    for (boundary, version, found, others) in [
        (RangeBoundary::LeftOpen, "3.", ["250.0", "3.6e+06"], ["250", "3600000"]),
        (RangeBoundary::Closed, "2.", ["250", "3600000"], ["250.0", "3.6e+06"]),
    ] {
        world.prometheus.set_boundary(boundary);
        let (_, build) = world.get("/api/v1/status/buildinfo").await;
        assert!(build["data"]["version"].as_str().unwrap().starts_with(version), "{build}");
        for bound in found {
            assert_near(world.only(&within(bound)).await, 20.0, 0.1);
        }
        for bound in others {
            assert_eq!(world.ask(&within(bound)).await.len(), 0, "{bound} in version {version}");
        }
        // Whole requests are counted: of the 500 of this window one more or less in the bucket makes that much.
        assert_near(world.only(p99).await, 60.0, 5.0);
        let (_, labels) = world.get("/api/v1/label/le/values").await;
        let labels: Vec<&str> =
            labels["data"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
        assert!(labels.contains(&found[0]) && !labels.contains(&others[0]), "{labels:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn loads_that_are_added_go_one_by_one_whoever_else_sends_the_same_headers() {
    let world = World::initialised();
    let headers = BTreeMap::from([("Cookie".to_owned(), "a".to_owned())]);
    world.traffic.set_load("test", "podinfo", 0.0);
    world.traffic.set_audience_load("test", "podinfo", &headers, 1.0);
    let before = world.traffic.report("test", "podinfo").requests();
    let (first, second) = (
        world.traffic.add_load("test", "podinfo", &headers, 10.0),
        world.traffic.add_load("test", "podinfo", &headers, 100.0),
    );
    let requests = || world.traffic.report("test", "podinfo").requests() - before;
    sleep(seconds(10)).await;
    assert_near(requests(), 1110.0, 1e-6);
    world.traffic.remove_load(second);
    sleep(seconds(10)).await;
    assert_near(requests(), 1220.0, 1e-6);
    let third = world.traffic.add_load("test", "podinfo", &headers, 1000.0);
    world.traffic.remove_load(first);
    sleep(seconds(10)).await;
    assert_near(requests(), 11_230.0, 1e-6);
    world.traffic.remove_load(third);
    sleep(seconds(10)).await;
    assert_near(requests(), 11_240.0, 1e-6);
}

#[tokio::test(start_paused = true)]
async fn a_query_looks_back_as_far_as_the_options_say() {
    // What the last two rates sent, and what all of them did.
    for (history, retention, expected) in [(600, "600s", 72_000.0), (7200, "2h", 7_272_000.0)] {
        let options = TrafficOptions { history: seconds(history), ..TrafficOptions::default() };
        let world = World::initialised_with(&options);
        for rate in [1000.0, 2000.0, 10.0, 20.0] {
            world.traffic.set_load("test", "podinfo", rate);
            sleep(seconds(2400)).await;
        }
        let counted = world.only(r#"sum(increase(istio_requests_total{reporter="source"}[160m]))"#).await;
        assert_near(counted / expected, 1.0, 0.01);
        let (_, flags) = world.get("/api/v1/status/flags").await;
        assert_eq!(flags["data"]["storage.tsdb.retention.time"], retention);
    }
}
