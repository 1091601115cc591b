//! The traffic model through its store and its queries, on virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod metrics;
mod propagation;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aviary_promql::RangeBoundary;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Behaviour, BehaviourMatch, Traffic, TrafficOptions, TrafficReport};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterOptions};
use crate::controllers::{ControllerOptions, PodDetail};
use crate::prometheus::{Prometheus, PrometheusFault, WrongAnswer};
use crate::store::{GroupKind, Store, kinds};

struct World {
    store: Store,
    traffic: Traffic,
    prometheus: Prometheus,
}

impl World {
    fn new() -> Self {
        Self::with(&TrafficOptions::default())
    }

    fn with(options: &TrafficOptions) -> Self {
        // A multiple of every scrape interval in use, so that grids differ by their offsets only.
        let clock = Clock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::new(clock, 1);
        store.create(&kinds::NAMESPACE, json!({"metadata": {"name": "test"}})).unwrap();
        let traffic = Traffic::new(&store, clock, options);
        let prometheus = Prometheus::new(traffic.clone());
        Self { store, traffic, prometheus }
    }

    /// Canary `podinfo` after its initialisation: primary and canary pods ready, everything routed to the primary.
    fn initialised() -> Self {
        Self::initialised_with(&TrafficOptions::default())
    }

    fn initialised_with(options: &TrafficOptions) -> Self {
        let world = Self::with(options);
        world.canary("podinfo");
        for (service, app) in
            [("podinfo", "podinfo-primary"), ("podinfo-primary", "podinfo-primary"), ("podinfo-canary", "podinfo")]
        {
            world.service(service, app);
        }
        world.pod("podinfo-primary", 1, "podinfo:6.0", true);
        world.pod("podinfo", 1, "podinfo:6.1", true);
        world.route(100, 0);
        world
    }

    fn canary(&self, name: &str) {
        let canary = json!({
            "metadata": {"namespace": "test", "name": name}, "spec": {"targetRef": {"kind": "Deployment", "name": name}},
        });
        self.store.create(&kinds::CANARY, canary).unwrap();
    }

    fn service(&self, name: &str, app: &str) {
        let service = json!({"metadata": {"namespace": "test", "name": name}, "spec": {"selector": {"app": app}}});
        self.store.create(&kinds::SERVICE, service).unwrap();
    }

    fn pod(&self, workload: &str, index: u32, image: &str, ready: bool) {
        let replica_set = format!("{workload}-7d4");
        let owner = self.store.get(&kinds::REPLICA_SET, "test", &replica_set).unwrap_or_else(|| {
            let object = json!({"metadata": {"namespace": "test", "name": replica_set}});
            self.store.create(&kinds::REPLICA_SET, object).unwrap()
        });
        let pod = json!({
            "metadata": {
                "namespace": "test", "name": format!("{workload}-7d4-{index}"),
                "labels": {"app": workload, "pod-template-hash": "7d4"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set,
                                     "uid": owner["metadata"]["uid"], "controller": true}],
            },
            "spec": {"containers": [{"name": "app", "image": image}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        self.store.create(&kinds::POD, pod).unwrap();
    }

    fn set_ready(&self, workload: &str, index: u32, ready: bool) {
        let name = format!("{workload}-7d4-{index}");
        let status = if ready { "True" } else { "False" };
        self.update(&kinds::POD, &name, |pod| pod["status"]["conditions"][0]["status"] = json!(status));
    }

    fn update(&self, kind: &GroupKind, name: &str, change: impl FnOnce(&mut Value)) {
        self.store.update(kind, "test", name, change).unwrap();
    }

    fn route(&self, primary: u32, canary: u32) {
        let http = json!([{"route": [
            {"destination": {"host": "podinfo-primary"}, "weight": primary},
            {"destination": {"host": "podinfo-canary"}, "weight": canary},
        ]}]);
        if self.store.get(&kinds::VIRTUAL_SERVICE, "test", "podinfo").is_some() {
            self.update(&kinds::VIRTUAL_SERVICE, "podinfo", |object| object["spec"]["http"] = http);
            return;
        }
        let object = json!({
            "metadata": {"namespace": "test", "name": "podinfo"}, "spec": {"hosts": ["podinfo"], "http": http},
        });
        self.store.create(&kinds::VIRTUAL_SERVICE, object).unwrap();
    }

    async fn get(&self, target: &str) -> (StatusCode, Value) {
        let (status, body) = self.prometheus.handle(&Method::GET, target, b"").await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The elements of an instant vector: labels and value.
    async fn ask(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = self.get(&format!("/api/v1/query?query={encoded}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        body["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|element| (element["metric"].clone(), element["value"][1].as_str().unwrap().parse().unwrap()))
            .collect()
    }

    async fn only(&self, query: &str) -> f64 {
        let answer = self.ask(query).await;
        assert_eq!(answer.len(), 1, "{query}: {answer:?}");
        answer[0].1
    }

    async fn success_rate(&self, workload: &str) -> Vec<f64> {
        let selector = format!(
            r#"reporter="destination",destination_workload_namespace="test",destination_workload=~"{workload}""#
        );
        let query = format!(
            r#"sum(rate(istio_requests_total{{{selector},response_code!~"5.*"}}[1m]))
               / sum(rate(istio_requests_total{{{selector}}}[1m])) * 100"#
        );
        self.ask(&query).await.into_iter().map(|(_, value)| value).collect()
    }

    async fn p99(&self, workload: &str) -> f64 {
        self.only(&format!(
            r#"histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{{reporter="destination",
               destination_workload_namespace="test",destination_workload=~"{workload}"}}[1m])) by (le))"#
        ))
        .await
    }
}

#[track_caller]
fn assert_near(actual: f64, expected: f64, tolerance: f64) {
    assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected} ± {tolerance}");
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn weights_decide_who_is_asked() {
    let world = World::initialised();
    sleep(seconds(60)).await;
    assert_eq!(world.success_rate("podinfo-primary").await, [100.0]);
    assert_eq!(world.success_rate("podinfo").await, Vec::<f64>::new(), "no request, no series");

    world.route(90, 10);
    sleep(seconds(100)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.workload("podinfo-primary").requests, 60.0 * 20.0 + 100.0 * 18.0, 1e-6);
    assert_near(report.workload("podinfo").requests, 100.0 * 2.0, 1e-6);
    assert_eq!((report.failures(), report.interruptions), (0.0, 0));

    let rates = world
        .ask(
            r#"sum by (destination_workload, destination_service) (rate(istio_requests_total{reporter="source"}[1m]))"#,
        )
        .await;
    let expected = [("podinfo", "podinfo-canary", 2.0), ("podinfo-primary", "podinfo-primary", 18.0)];
    assert_eq!(rates.len(), 2);
    for ((labels, rate), (workload, service, expected)) in rates.iter().zip(expected) {
        assert_eq!(labels["destination_workload"], workload);
        assert_eq!(labels["destination_service"], format!("{service}.test.svc.cluster.local"));
        // Every counter is cut to whole requests at each end of the window.
        assert_near(*rate, expected, 1.0 / 55.0);
    }
}

#[tokio::test(start_paused = true)]
async fn behaviour_follows_the_image_and_shows_in_both_checks() {
    let world = World::initialised();
    world.traffic.set_behaviour("podinfo:6.1", Behaviour { error_ratio: 0.25, ..Behaviour::slow(300.0, 800.0) });
    world.route(50, 50);
    sleep(seconds(120)).await;
    assert_near(world.success_rate("podinfo").await[0], 75.0, 0.5);
    assert_near(world.success_rate("podinfo-primary").await[0], 100.0, 0.0);
    assert_near(world.p99("podinfo").await, 800.0, 15.0);
    assert_near(world.p99("podinfo-primary").await, 60.0, 3.0);
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.workload("podinfo").failures, 0.25 * 10.0 * 120.0, 1e-6);
    assert_eq!(report.workload("podinfo-primary").failures, 0.0);
    assert_eq!(report.interruptions, 0, "an error of the application is no interruption");

    // A fixed image heals once the window has passed.
    world.update(&kinds::POD, "podinfo-7d4-1", |pod| pod["spec"]["containers"][0]["image"] = json!("podinfo:6.2"));
    sleep(seconds(70)).await;
    assert_eq!(world.success_rate("podinfo").await, [100.0]);
    assert_near(world.p99("podinfo").await, 60.0, 3.0);
}

#[tokio::test(start_paused = true)]
async fn a_destination_without_a_ready_pod_fails_users() {
    let world = World::initialised();
    world.route(80, 20);
    sleep(seconds(60)).await;
    world.set_ready("podinfo", 1, false);
    sleep(seconds(60)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.failures(), 60.0 * 4.0, 1e-6);
    assert_near(report.workload("unknown").failures, 60.0 * 4.0, 1e-6);
    assert_eq!(report.interruptions, 1);
    let refused = world.ask(r#"istio_requests_total{response_code="503"}"#).await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0["reporter"], "source");
    assert_eq!(refused[0].0["response_flags"], "UH");
    assert_eq!(refused[0].0["destination_service_name"], "podinfo-canary");

    world.set_ready("podinfo", 1, true);
    sleep(seconds(60)).await;
    assert_near(world.traffic.report("test", "podinfo").failures(), 60.0 * 4.0, 1e-6);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_lasts_no_time_is_still_an_interruption() {
    let world = World::initialised();
    sleep(seconds(10)).await;
    world.store.delete(&kinds::POD, "test", "podinfo-primary-7d4-1").unwrap();
    world.pod("podinfo-primary", 2, "podinfo:6.0", true);
    sleep(seconds(10)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_eq!((report.failures(), report.interruptions), (0.0, 1));

    // The other way round nobody notices.
    world.pod("podinfo-primary", 3, "podinfo:6.0", true);
    world.store.delete(&kinds::POD, "test", "podinfo-primary-7d4-2").unwrap();
    sleep(seconds(10)).await;
    assert_eq!(world.traffic.report("test", "podinfo").interruptions, 1);
}

#[tokio::test(start_paused = true)]
async fn users_come_when_the_service_is_first_ready_and_stay() {
    let world = World::new();
    world.service("podinfo", "podinfo");
    sleep(seconds(10)).await;
    world.canary("podinfo");
    world.pod("podinfo", 1, "podinfo:6.0", false);
    sleep(seconds(10)).await;
    assert_eq!(world.traffic.report("test", "podinfo").requests(), 0.0);
    world.set_ready("podinfo", 1, true);
    sleep(seconds(10)).await;
    assert_near(world.traffic.report("test", "podinfo").workload("podinfo").requests, 200.0, 1e-6);
    // Without a Canary the service goes on.
    world.store.delete(&kinds::CANARY, "test", "podinfo").unwrap();
    sleep(seconds(10)).await;
    assert_near(world.traffic.report("test", "podinfo").requests(), 400.0, 1e-6);
    // A service that nothing names has users only if somebody sets them.
    world.service("other", "podinfo");
    sleep(seconds(10)).await;
    assert_eq!(world.traffic.report("test", "other").requests(), 0.0);
    world.traffic.set_load("test", "other", 3.0);
    sleep(seconds(10)).await;
    assert_near(world.traffic.report("test", "other").requests(), 30.0, 1e-6);
    world.traffic.set_load("test", "other", 0.0);
    sleep(seconds(10)).await;
    assert_near(world.traffic.report("test", "other").requests(), 30.0, 1e-6);
}

#[tokio::test(start_paused = true)]
async fn audiences_and_mirrors_reach_the_canary() {
    let world = World::initialised();
    world.update(&kinds::VIRTUAL_SERVICE, "podinfo", |object| {
        object["spec"]["http"] = json!([
            {"match": [{"headers": {"x-canary": {"exact": "insider"}}}],
             "route": [{"destination": {"host": "podinfo-canary"}, "weight": 100}]},
            {"route": [{"destination": {"host": "podinfo-primary"}, "weight": 100}],
             "mirror": {"host": "podinfo-canary"}, "mirrorPercentage": {"value": 50}},
        ]);
    });
    let insiders = BTreeMap::from([("X-Canary".to_owned(), "insider".to_owned())]);
    world.traffic.set_audience_load("test", "podinfo", &insiders, 5.0);
    world.traffic.set_behaviour(BehaviourMatch::default().of_workload("podinfo"), Behaviour::failing(1.0));
    sleep(seconds(60)).await;
    let report = world.traffic.report("test", "podinfo");
    assert_near(report.workload("podinfo-primary").requests, 1200.0, 1e-6);
    assert_near(report.workload("podinfo").failures, 300.0, 1e-6);
    let rate = r#"sum(rate(istio_requests_total{reporter="destination",destination_workload="podinfo"}[50s]))"#;
    assert_near(world.only(rate).await, 15.0, 0.05);
    world.traffic.clear_behaviour(BehaviourMatch::default().of_workload("podinfo"));
    sleep(seconds(60)).await;
    assert_near(world.traffic.report("test", "podinfo").failures(), 300.0, 1e-6);
}

#[tokio::test(start_paused = true)]
async fn histograms_agree_with_counters_at_every_scrape() {
    let world = World::initialised();
    world.route(67, 33);
    sleep(seconds(33)).await;
    world.traffic.set_behaviour("podinfo:6.1", Behaviour::slow(70.0, 2_000.0));
    sleep(seconds(40)).await;
    for workload in ["podinfo", "podinfo-primary"] {
        let selector = format!(r#"reporter="destination",destination_workload="{workload}""#);
        let all = |metric: &str, more: &str| format!("{metric}{{{selector}{more}}}[2m]");
        let mut shown = Vec::new();
        for query in [
            all("istio_requests_total", ""),
            all("istio_request_duration_milliseconds_count", ""),
            all("istio_request_duration_milliseconds_bucket", r#",le="+Inf""#),
        ] {
            let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let (_, body) = world.get(&format!("/api/v1/query?query={encoded}")).await;
            shown.push(body["data"]["result"][0]["values"].clone());
        }
        assert!(shown[0].as_array().unwrap().len() >= 14, "{shown:?}");
        assert_eq!(shown[0], shown[1]);
        assert_eq!(shown[0], shown[2]);
    }
    let buckets =
        r#"istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload="podinfo"}"#;
    assert_eq!(world.ask(buckets).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn the_api_answers_as_prometheus_does() {
    let world = World::initialised();
    sleep(seconds(30)).await;
    let form = b"query=vector(1)&time=2026-01-01T00%3A00%3A10.5Z";
    let (status, body) = world.prometheus.handle(&Method::POST, "/api/v1/query", form).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1767225610.500,"1"]}]}}"#
    );
    let (_, body) = world.get("/api/v1/query_range?query=time()&start=10&end=20&step=5s").await;
    assert_eq!(body["data"]["result"][0]["values"], json!([[10, "10"], [15, "15"], [20, "20"]]));
    for (target, status, text) in [
        ("/api/v1/query", 400, "parse error"),
        ("/api/v1/query?query=1&time=soon", 400, "cannot parse \\\"soon\\\" to a valid timestamp"),
        ("/api/v1/query?query=deriv(x[5m])", 422, "function deriv"),
        ("/api/v1/query_range?query=1&start=2&end=1&step=1", 400, "end timestamp must not be before start time"),
        ("/api/v1/status/buildinfo", 200, "\"version\":\"3"),
        ("/-/healthy", 200, "Prometheus Server is Healthy."),
        ("/metrics", 404, "404 page not found"),
    ] {
        let (found, body) = world.prometheus.handle(&Method::GET, target, b"").await.unwrap();
        assert_eq!(found.as_u16(), status, "{target}: {body}");
        assert!(body.contains(text), "{target}: {body}");
    }
    let (status, _) = world.prometheus.handle(&Method::DELETE, "/api/v1/query", b"").await.unwrap();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(world.prometheus.query_count(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_api_tells_what_there_is_to_ask_for() {
    let world = World::initialised();
    sleep(seconds(30)).await;
    let data = async |target: &str| {
        let (status, body) = world.get(target).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("success")), "{target}: {body}");
        body["data"].clone()
    };
    let labels = data("/api/v1/labels").await;
    for label in ["__name__", "destination_workload", "le", "kubernetes_pod_name"] {
        assert!(labels.as_array().unwrap().contains(&json!(label)), "{labels}");
    }
    assert_eq!(
        data("/api/v1/label/__name__/values").await,
        json!([
            "http_request_duration_seconds_bucket",
            "http_request_duration_seconds_count",
            "http_request_duration_seconds_sum",
            "http_requests_total",
            "istio_request_duration_milliseconds_bucket",
            "istio_request_duration_milliseconds_count",
            "istio_request_duration_milliseconds_sum",
            "istio_requests_total",
            "up",
        ])
    );
    let up = data("/api/v1/query?query=up").await;
    assert_eq!(up["result"][0]["metric"], json!({"__name__": "up", "instance": "localhost:9090", "job": "prometheus"}));
    assert_eq!(up["result"][0]["value"][1], "1");
    assert_eq!(data("/api/v1/query?query=count_over_time(up[1m])").await["result"][0]["value"][1], "7", "every 5 s");
    // Those of Envoy's clusters come with the first TrafficSplit.
    let names: BTreeSet<&str> = crate::prometheus::metric_names().filter(|name| !name.starts_with("envoy_")).collect();
    assert_eq!(data("/api/v1/label/__name__/values").await, json!(names), "the names that there can be");
    assert_eq!(data("/api/v1/query?query=up{job!='prometheus'}").await["result"], json!([]));
    let target = data("/api/v1/targets").await["activeTargets"][0].clone();
    assert_eq!((&target["health"], &target["labels"]["job"]), (&json!("up"), &json!("prometheus")));
    assert_eq!(target["scrapeInterval"], "5s");
    assert!(data("/api/v1/status/config").await["yaml"].to_string().contains("scrape_interval: 5s"));
    assert_eq!(data("/api/v1/status/flags").await["query.lookback-delta"], "5m");
    assert_eq!(data("/api/v1/status/runtimeinfo").await["reloadConfigSuccess"], true);
    data("/api/v1/query?query=up&timeout=30s").await;
    let reporters = "/api/v1/label/reporter/values?match[]=istio_requests_total&match%5B%5D=up";
    assert_eq!(data(reporters).await, json!(["destination", "source"]));
    let series = data("/api/v1/series?match[]=http_requests_total").await;
    assert_eq!(series.as_array().unwrap().len(), 1);
    assert_eq!((&series[0]["app"], &series[0]["status"]), (&json!("podinfo-primary"), &json!("200")));
    let early = "/api/v1/labels?start=2025-12-31T00:00:00Z&end=2025-12-31T01:00:00Z";
    assert_eq!(data(early).await, json!([]), "before the first scrape");
    let metadata = data("/api/v1/metadata?metric=istio_requests_total").await;
    assert_eq!(metadata["istio_requests_total"][0]["type"], "counter");
    assert_eq!(data("/api/v1/format_query?query=sum(up)by(job)").await, "sum by (job) (up)");
    assert_eq!(data("/api/v1/rules").await, json!({"groups": []}));
    for (target, text) in [
        ("/api/v1/series", "no match[] parameter provided"),
        ("/api/v1/series?match[]=up%5B5m%5D", "expected a series selector"),
        (
            "/api/v1/query?query=up&timeout=1x",
            "invalid parameter \\\"timeout\\\": cannot parse \\\"1x\\\" to a valid duration",
        ),
        ("/api/v1/query_range?query=up&start=1&end=2&step=1&timeout=1x", "invalid parameter \\\"timeout\\\""),
        ("/api/v1/query?query=sum(", "1:5: parse error: unclosed left parenthesis"),
        ("/api/v1/labels?start=soon", "cannot parse \\\"soon\\\""),
    ] {
        let (status, body) = world.get(target).await;
        assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{target}: {body}");
        assert!(body.to_string().contains(text), "{target}: {body}");
    }
    world.prometheus.set_fault(Some(PrometheusFault::Empty));
    assert_eq!(data("/api/v1/labels").await, json!([]));
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_server() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    let world = World::initialised();
    sleep(seconds(30)).await;
    let ask = || {
        let uri = "http://prometheus:9090/api/v1/query?query=vector(1)";
        let request = http::Request::get(uri).body(String::new()).unwrap();
        timeout(seconds(5), world.prometheus.clone().oneshot(request))
    };
    world.prometheus.set_fault(Some(PrometheusFault::Down));
    assert_eq!(ask().await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    world.prometheus.set_fault(Some(PrometheusFault::Timeout));
    assert!(ask().await.is_err());
    world.prometheus.set_fault(Some(PrometheusFault::Status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(ask().await.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    world.prometheus.set_fault(Some(PrometheusFault::Empty));
    let body = ask().await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    world.prometheus.set_fault(None);
    let response = ask().await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.into_body().collect().await.unwrap().to_bytes().ends_with(br#","1"]}]}}"#));
}

#[tokio::test(start_paused = true)]
async fn pages_of_other_origins_may_ask() {
    use tower::ServiceExt;

    let world = World::initialised();
    let ask = async |method: Method, origin: Option<&str>| {
        let mut request = http::Request::new(String::new());
        *request.method_mut() = method;
        *request.uri_mut() = "http://prometheus:9090/api/v1/query?query=1".parse().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let response = world.prometheus.clone().oneshot(request).await.unwrap();
        let allowed =
            response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), allowed)
    };
    let all = Some("*".to_owned());
    assert_eq!(ask(Method::GET, Some("http://grafana.local")).await, (200, all.clone()));
    assert_eq!(ask(Method::OPTIONS, Some("http://grafana.local")).await, (204, all));
    assert_eq!(ask(Method::GET, None).await, (200, None));
}

#[tokio::test(start_paused = true)]
async fn answers_can_be_wrong_in_every_way() {
    let world = World::initialised();
    sleep(seconds(30)).await;
    let target = "/api/v1/query?query=vector(time())";
    let right = world.get(target).await.1["data"]["result"][0]["value"][1].clone();
    let answer = async |wrong| {
        world.prometheus.set_fault(Some(PrometheusFault::Wrong(wrong)));
        let (status, body) = world.get(target).await;
        assert_eq!(status, StatusCode::OK, "{wrong:?}");
        body
    };
    assert!(answer(WrongAnswer::Page).await.as_str().unwrap().starts_with("<!doctype html>"));
    assert!(answer(WrongAnswer::CutOff).await.as_str().unwrap().starts_with(r#"{"status":"success""#));
    assert_eq!(answer(WrongAnswer::Error).await["status"], "error");
    assert_eq!(answer(WrongAnswer::Scalar).await["data"]["resultType"], "scalar");
    assert_eq!(answer(WrongAnswer::Series).await["data"]["result"][0]["values"][0][1], "1");
    for (value, text) in [(-1.0, "-1"), (250.5, "250.5"), (f64::NAN, "NaN"), (f64::INFINITY, "+Inf")] {
        assert_eq!(answer(WrongAnswer::Value(value)).await["data"]["result"][0]["value"][1], text);
    }
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let stale = answer(WrongAnswer::Stale(seconds(20))).await;
    assert_eq!(number(&stale["data"]["result"][0]["value"][1]), number(&right) - 20.0);
    // A refusal stays one, and what is not there is not made up.
    world.prometheus.set_fault(Some(PrometheusFault::Wrong(WrongAnswer::Value(1.0))));
    assert_eq!(world.get("/api/v1/query?query=x[").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(world.get("/api/v1/query?query=nothing").await.1["data"]["result"], json!([]));
}

/// A new image, scaled down and up again, behind one service; what the users and the metrics saw of it.
async fn story(pods: PodDetail) -> ([TrafficReport; 2], Vec<(Value, f64)>) {
    let options = ControllerOptions { pods, ..ControllerOptions::default() };
    let cluster = Cluster::new(ClusterOptions { controllers: Some(options), ..ClusterOptions::default() });
    let (traffic, prometheus) = (cluster.traffic().clone(), cluster.prometheus().clone());
    let world = World { store: cluster.store().clone(), traffic, prometheus };
    world.store.create(&kinds::NAMESPACE, json!({"metadata": {"name": "test"}})).unwrap();
    world.traffic.set_behaviour("podinfo:6.1", Behaviour::failing(0.1));
    world.canary("podinfo");
    world.service("podinfo", "podinfo");
    let deployment = json!({
        "metadata": {"namespace": "test", "name": "podinfo"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo"}},
                "spec": {"containers": [{"name": "app", "image": "podinfo:6.0"}]},
            },
        },
    });
    world.store.create(&kinds::DEPLOYMENT, deployment).unwrap();
    sleep(seconds(60)).await;
    world.update(&kinds::DEPLOYMENT, "podinfo", |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:6.1");
    });
    // One of three pods is new.
    sleep(seconds(5)).await;
    let updating = world.traffic.report("test", "podinfo");
    sleep(seconds(55)).await;
    world.update(&kinds::DEPLOYMENT, "podinfo", |deployment| deployment["spec"]["replicas"] = json!(0));
    sleep(seconds(30)).await;
    world.update(&kinds::DEPLOYMENT, "podinfo", |deployment| deployment["spec"]["replicas"] = json!(1));
    sleep(seconds(30)).await;
    world.store.delete(&kinds::DEPLOYMENT, "test", "podinfo").unwrap();
    sleep(seconds(30)).await;
    ([updating, world.traffic.report("test", "podinfo")], world.ask("istio_requests_total").await)
}

#[tokio::test(start_paused = true)]
async fn counted_pods_answer_as_pod_objects_do() {
    let (objects, metrics) = story(PodDetail::Objects).await;
    let (counted, counted_metrics) = story(PodDetail::CountsOnly).await;
    let [updating, end] = &objects;
    assert!(updating.failures() > 0.0 && end.workload("unknown").failures > 0.0);
    assert_eq!(end.interruptions, 2);
    assert_eq!(counted, objects);
    assert_eq!(counted_metrics, metrics);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_target_port_no_container_names_reaches_nobody() {
    let world = World::initialised();
    sleep(seconds(60)).await;
    assert_eq!(world.traffic.report("test", "podinfo").failures(), 0.0);
    let target = |service: &mut Value| service["spec"]["ports"] = json!([{"port": 80, "targetPort": "http"}]);
    world.update(&kinds::SERVICE, "podinfo-primary", target);
    sleep(seconds(60)).await;
    let failures = world.traffic.report("test", "podinfo").failures();
    assert!(failures > 1_100.0, "nearly all of a minute's 1,200 requests: {failures}");

    let ports = json!([{"name": "http", "containerPort": 9898}]);
    let name = |pod: &mut Value| pod["spec"]["containers"][0]["ports"] = ports;
    world.update(&kinds::POD, "podinfo-primary-7d4-1", name);
    sleep(seconds(5)).await;
    let before = world.traffic.report("test", "podinfo").failures();
    sleep(seconds(60)).await;
    assert_eq!(world.traffic.report("test", "podinfo").failures(), before);
}
