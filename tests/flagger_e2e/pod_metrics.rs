//! What podinfo's pods say of their requests, for the pods of a bench, which say nothing: Prometheus asks this instead.

use std::fmt::Write as _;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::real::now;
use crate::support::api;

/// Where the bench's Prometheus looks for it, see `tests/real/config/prometheus.yml`.
const ADDRESS: &str = "127.0.0.1:18091";
/// As the load tester is asked to send them.
const REQUESTS_PER_SECOND: f64 = 20.0;

/// Serves until it is dropped.
pub(super) struct PodMetrics(JoinHandle<()>);

impl Drop for PodMetrics {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PodMetrics {
    /// Of every pod of namespace `test`: requests since its start, answered well and at once.
    pub(super) async fn serve(client: Client) -> PodMetrics {
        let listener = TcpListener::bind(ADDRESS).await.unwrap();
        let router = Router::new().route("/metrics", get(async move || exposition(&client).await));
        PodMetrics(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        }))
    }
}

async fn exposition(client: &Client) -> String {
    let pods = api(client.clone(), "", "v1", "Pod", Some("test"));
    let mut text = String::new();
    for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
        let started = pod.data["status"]["startTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let (Some(started), Some(name)) = (started, &pod.metadata.name) else { continue };
        let requests = (now().duration_since(started).as_secs_f64() * REQUESTS_PER_SECOND).max(0.0);
        let labels = format!("kubernetes_namespace=\"test\",kubernetes_pod_name=\"{name}\",status=\"200\"");
        let _ = writeln!(text, "http_request_duration_seconds_count{{{labels}}} {requests}");
        for limit in ["0.01", "0.1", "+Inf"] {
            let _ = writeln!(text, "http_request_duration_seconds_bucket{{{labels},le=\"{limit}\"}} {requests}");
        }
    }
    text
}
