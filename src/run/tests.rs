#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;

use aviary_crds::Canary;
use aviary_sim::Cluster;
use aviary_sim::cluster::ClusterOptions;
use aviary_sim::controllers::ControllerOptions;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::json;

use super::*;
use crate::args::{Cli, Command};
use crate::embedded;

/// A test on real sockets ends sooner or later; a healthy one takes less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn args(flags: &[&str]) -> RunArgs {
    let argv = ["flagger"].iter().chain(flags).map(OsString::from);
    let Ok(Cli { command: Command::Run(run) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
    *run
}

/// Runs a test as `aviary run` runs: actors on this thread, everything else on workers.
fn in_a_process<T>(test: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
    actix_rt::System::with_tokio_rt(|| runtime).block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() })
}

/// An embedded cluster that is served over HTTP, and its address.
async fn served(options: ClusterOptions) -> (Cluster, String) {
    let cluster = Cluster::new(options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let master = format!("-master=http://{}", listener.local_addr().unwrap());
    let server = cluster.clone();
    tokio::spawn(async move { server.serve(listener).await });
    (cluster, master)
}

#[test]
fn the_operator_works_over_http_and_stops_when_told() {
    in_a_process(async {
        let controllers = ControllerOptions { start_delay: Duration::ZERO, ..ControllerOptions::default() };
        let options = ClusterOptions { controllers: Some(controllers), ..embedded::cluster_options(1) };
        let (cluster, master) = served(options).await;
        let args = args(&["-namespace=test", "-metrics-server=http://127.0.0.1:1", &master]);

        let (stop, mut stops) = mpsc::channel(2);
        let listener = admin::bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let operator = async { serve(&args, listener, &mut stops).await.unwrap() };
        let user = async {
            let kubectl = cluster.client("kubectl");
            create(&kubectl, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}})).await;
            create(&kubectl, deployment()).await;
            create(&kubectl, canary()).await;
            let canaries: Api<Canary> = Api::namespaced(kubectl, "test");
            let is_initialized = |canary: Option<&Canary>| {
                canary
                    .and_then(|canary| canary.status.as_ref())
                    .is_some_and(|status| status.phase.to_string() == "Initialized")
            };
            await_condition(canaries, "podinfo", is_initialized).await.unwrap();

            let ask = |path: &str| reqwest::get(format!("http://127.0.0.1:{port}{path}"));
            assert_eq!(ask("/readyz").await.unwrap().status(), 200);
            // The operator hears of its own write a moment after the user does; the patience of the test bounds the loop.
            let view = async || ask("/debug/canaries/test/podinfo").await.unwrap().text().await.unwrap();
            while !view().await.contains("\"Initialized\"") {}
            let metrics = ask("/metrics").await.unwrap().text().await.unwrap();
            assert!(metrics.contains("aviary_api_calls_total{kind=\"canaries\",verb=\"watch\"} "), "{metrics}");
            assert!(metrics.contains("aviary_api_calls_total{kind=\"deployments\",verb=\"create\"} 1"), "{metrics}");
            assert!(metrics.contains("aviary_api_calls_total{kind=\"canaries/status\",verb="), "{metrics}");
            assert!(metrics.contains("flagger_info{mesh_provider=\"istio\",version="), "{metrics}");
            stop.send(()).await.unwrap();
        };
        let (code, ()) = tokio::join!(operator, user);
        assert_eq!(code, ExitCode::SUCCESS);
    });
}

#[test]
fn without_its_resource_types_the_operator_says_what_to_install() {
    in_a_process(async {
        let (cluster, master) = served(ClusterOptions::default()).await;
        let definitions: Api<kube::core::DynamicObject> = Api::all_with(
            cluster.client("kubectl"),
            &kube::core::ApiResource {
                group: "apiextensions.k8s.io".into(),
                version: "v1".into(),
                api_version: "apiextensions.k8s.io/v1".into(),
                kind: "CustomResourceDefinition".into(),
                plural: "customresourcedefinitions".into(),
            },
        );
        definitions.delete("canaries.flagger.app", &kube::api::DeleteParams::default()).await.unwrap();
        let (_stop, mut stops) = mpsc::channel(1);
        let error = serve(&args(&[&master]), admin::bind(0).await.unwrap(), &mut stops).await.expect_err("refused");
        let error = format!("{error:#}");
        assert!(error.contains("canaries.flagger.app") && error.contains("aviary crds | kubectl apply"), "{error}");
    });
}

#[test]
fn an_operator_that_cannot_reach_the_cluster_fails_with_one_line() {
    in_a_process(async {
        let (_stop, mut stops) = mpsc::channel(1);
        let args = args(&["-master=http://127.0.0.1:1"]);
        let error = serve(&args, admin::bind(0).await.unwrap(), &mut stops).await.expect_err("refused");
        let error = crate::one_line(&error);
        let expected = "cannot reach http://127.0.0.1:1 (from --master): Connection refused";
        assert!(error.starts_with(expected) && error.lines().count() == 1, "{error}");
    });
}

/// The kubelet asks for `/healthz` while the API server is silent, and a signal ends the wait.
#[test]
fn a_silent_api_server_is_waited_for_with_an_open_port() {
    in_a_process(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = args(&[&format!("-master=http://{}", silent.local_addr().unwrap())]);
        let (stop, mut stops) = mpsc::channel(1);
        let listener = admin::bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let user = async {
            let accepted = silent.accept().await.unwrap();
            let ask = |path: &str| reqwest::get(format!("http://127.0.0.1:{port}{path}"));
            assert_eq!(ask("/healthz").await.unwrap().status(), 200);
            assert_eq!(ask("/readyz").await.unwrap().status(), 503);
            assert_eq!(ask("/debug/canaries").await.unwrap().text().await.unwrap(), "[]");
            let metrics = ask("/metrics").await.unwrap().text().await.unwrap();
            let start = metrics.lines().find_map(|line| line.strip_prefix("aviary_process_start_time_seconds "));
            assert!(start.unwrap().parse::<f64>().unwrap() > 1.7e9, "{metrics}");
            stop.send(()).await.unwrap();
            // Open until the operator has stopped.
            accepted
        };
        let (code, _accepted) = tokio::join!(serve(&args, listener, &mut stops), user);
        assert_eq!(code.unwrap(), ExitCode::SUCCESS);
    });
}

#[test]
fn errors_of_the_metrics_server_are_short_and_without_secrets() {
    assert_eq!(without_secrets("http://me:s3cr3t@p:9090/prom/?token=x"), "http://p:9090/prom");
    assert_eq!(without_secrets("http://p:9090"), "http://p:9090");
    assert_eq!(brief("404: <html>\n  <body>no</body>"), "404: <html> <body>no</body>");
    assert_eq!(brief(&"ä".repeat(300)), format!("{}…", "ä".repeat(200)));
}

#[test]
fn signals_are_counted_one_by_one() {
    in_a_process(async {
        let mut stops = signals().unwrap();
        for signal in ["-INT", "-TERM"] {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
            assert_eq!(stops.recv().await, Some(()));
        }
        assert!(stops.is_empty());
    });
}

async fn create(kubectl: &kube::Client, object: serde_json::Value) {
    let object: kube::core::DynamicObject = serde_json::from_value(object).unwrap();
    let resource = kube::core::ApiResource::from_gvk(&object.types.as_ref().unwrap().try_into().unwrap());
    let api: Api<kube::core::DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(kubectl.clone(), namespace, &resource),
        None => Api::all_with(kubectl.clone(), &resource),
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn deployment() -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "test", "name": "podinfo", "labels": {"app": "podinfo"}},
        "spec": {
            "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo"}},
                "spec": {"containers": [{"name": "podinfod", "image": "podinfo:6.0.0"}]},
            },
        },
    })
}

/// Without metrics: there is no Prometheus on a real port here.
fn canary() -> serde_json::Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"namespace": "test", "name": "podinfo"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 9898},
            "analysis": {"interval": "10s", "threshold": 3, "maxWeight": 50, "stepWeight": 10},
        },
    })
}
