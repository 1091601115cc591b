//! The binary as a process of its own, over HTTP, in real time: probes, metrics, a whole release, signals.

use aviary::embedded;
use aviary_actors::Clock;
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::store::kinds;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::process::{Operator, eventually};
use crate::support::{canary, create_through, deployment};

struct Server {
    cluster: Cluster,
    kubeconfig: tempfile::NamedTempFile,
    prometheus: String,
    client: kube::Client,
}

/// An embedded cluster served over HTTP, with a kubeconfig for it, and its Prometheus.
async fn serve() -> Server {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The process has the system's clock, and deadlines compare it with times that the cluster wrote.
    let base_time = Clock::system().now();
    let cluster = Cluster::new(ClusterOptions { base_time, ..embedded::cluster_options(1) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = cluster.clone();
    tokio::spawn(async move { served.serve(listener).await });

    let prometheus = cluster.prometheus().clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prometheus_address = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let prometheus = prometheus.clone();
        async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let (status, body) = prometheus.handle(request.method(), &path, b"").await.unwrap();
            (status, body)
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });

    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "embedded",
        "clusters": [{"name": "embedded", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "embedded", "user": {}}],
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "embedded", "namespace": "test"}}],
    });
    std::fs::write(kubeconfig.path(), text.to_string()).unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
    cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
    let client = cluster.client("kubectl");
    Server { cluster, kubeconfig, prometheus: prometheus_address, client }
}

/// A controller against this server, with more arguments.
fn start(server: &Server, arguments: &[&str]) -> Operator {
    let kubeconfig = format!("-kubeconfig={}", server.kubeconfig.path().display());
    let metrics_server = format!("-metrics-server={}", server.prometheus);
    Operator::start(&[&[kubeconfig.as_str(), &metrics_server], arguments].concat())
}

fn phase(cluster: &Cluster) -> String {
    let canary = cluster.store().get(&kinds::CANARY, "test", "podinfo");
    canary.and_then(|canary| canary["status"]["phase"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_through_the_binary_with_flaggers_flags() {
    let server = serve().await;
    // As in Flagger's manifests: no verb, one dash.
    let mut operator = start(&server, &["-log-level=info", "-mesh-provider", "istio", "-include-label-prefix=app"]);
    operator.wait_ready().await;
    assert_eq!(operator.get("/healthz").await.unwrap(), (200, "OK".to_owned()));

    create_through(server.client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
    let mut object = canary("test", "podinfo");
    object["spec"]["analysis"]["stepWeight"] = json!(50);
    create_through(server.client.clone(), object).await;
    eventually("initialized", async || phase(&server.cluster) == "Initialized").await;
    let change = |deployment: &mut Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:6.0.1");
    };
    server.cluster.store().update(&kinds::DEPLOYMENT, "test", "podinfo", change).unwrap();
    eventually("ended", async || ["Succeeded", "Failed"].contains(&phase(&server.cluster).as_str())).await;
    let events = server.cluster.store().list(&kinds::EVENT, Some("test"));
    let story: Vec<_> = events.iter().map(|event| event["message"].to_string()).collect();
    assert_eq!(phase(&server.cluster), "Succeeded", "{story:#?}");

    let (_, metrics) = operator.get("/metrics").await.unwrap();
    for line in [
        r#"flagger_canary_status{name="podinfo",namespace="test"} 1"#,
        r#"flagger_canary_weight{namespace="test",workload="podinfo-primary"} 100"#,
        r#"flagger_canary_successes_total{analysis_status="completed",deployment_strategy="canary",name="podinfo",namespace="test"} 1"#,
        r#"flagger_canary_total{namespace="test"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let (status, view) = operator.get("/debug/canaries/test/podinfo").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&view).unwrap()["phase"], "Succeeded");

    operator.process.signal("TERM");
    assert_eq!(operator.process.exit().await.code(), Some(0));
    let log = operator.process.errors();
    assert!(log.contains("Advance podinfo.test canary weight 50"), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "every line is JSON: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_the_resource_types_is_refused_with_the_fix() {
    let server = serve().await;
    for crd in ["canaries.flagger.app", "metrictemplates.flagger.app", "alertproviders.flagger.app"] {
        server.cluster.store().delete(&kinds::CUSTOM_RESOURCE_DEFINITION, "", crd).unwrap();
    }
    let mut operator = start(&server, &["-log-level=info"]);
    assert_eq!(operator.process.exit().await.code(), Some(1));
    let log = operator.process.errors();
    assert!(log.contains("canaries.flagger.app") && log.contains("aviary crds"), "{log}");
}
