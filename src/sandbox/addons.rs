//! What is on the cluster before anybody has applied anything: Prometheus, the load tester, the clock, and what is on every
//! cluster.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use aviary_sim::Cluster;
use aviary_sim::clock::Clock;
use aviary_sim::prometheus::Prometheus;
use aviary_sim::services::Backend;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service as _;

use super::AGENT;
use super::load_tester::{Commands, LoadTester};
use super::manifests::apply_one;

/// Where names without a namespace are looked up: the namespace in which Flagger's installation guide for Istio puts the
/// operator, so that `http://prometheus:9090`, its default, is Istio's Prometheus.
pub(super) const SEARCH_NAMESPACE: &str = "istio-system";
/// Where the operator asks for the cluster's time.
pub(super) const CLOCK_PATH: &str = "/api/v1/namespaces/kube-system/services/aviary-sandbox:80/proxy/clock";

/// Installs everything. `instance` is what tells this sandbox from all others.
pub(super) async fn install(cluster: &Cluster, namespaces: &[String], instance: &str) -> anyhow::Result<()> {
    let client = cluster.client(AGENT);
    for name in std::iter::once(SEARCH_NAMESPACE).chain(namespaces.iter().map(String::as_str)) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply_one(&client, namespace).await.with_context(|| format!("create namespace {name:?} (--namespace)"))?;
    }
    let objects = serde_saphyr::from_multiple::<Value>(include_str!("bootstrap.yaml"));
    for object in objects.context("read the objects of every cluster")? {
        apply_one(&client, object).await.context("create the objects of every cluster")?;
    }
    apply_one(&client, service(SEARCH_NAMESPACE, "prometheus", 9090)).await.context("create Prometheus")?;
    apply_one(&client, service("kube-system", "aviary-sandbox", 80)).await.context("create the clock")?;

    let services = cluster.services();
    services.answer(SEARCH_NAMESPACE, "prometheus", prometheus(cluster.prometheus().clone()));
    services.answer("kube-system", "aviary-sandbox", clock(*cluster.clock(), instance));
    services.answer_everywhere("flagger-prometheus", prometheus(cluster.prometheus().clone()));
    let commands = Commands::new(cluster.traffic().clone(), *cluster.clock());
    services.answer_everywhere("flagger-loadtester", LoadTester::running(commands).backend());
    Ok(())
}

/// A service without a selector: what answers is no pod.
fn service(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"ports": [{"name": "http", "port": port}]},
    })
}

fn prometheus(prometheus: Prometheus) -> Backend {
    Arc::new(move |request: Request<Bytes>| {
        let mut prometheus = prometheus.clone();
        async move {
            let response = prometheus.call(request.map(Full::new)).await?;
            let (head, body) = response.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            Ok(Response::from_parts(head, body))
        }
        .boxed()
    })
}

/// `GET /clock`: the cluster's time, how fast it runs, and which sandbox it is.
fn clock(clock: Clock, instance: &str) -> Backend {
    let instance = instance.to_owned();
    Arc::new(move |request: Request<Bytes>| {
        let answer = match request.uri().path() {
            "/clock" => {
                answer(StatusCode::OK, &json!({"time": clock.now(), "speed": clock.speed(), "instance": instance}))
            }
            path => answer(StatusCode::NOT_FOUND, &json!({"error": format!("there is no {path}")})),
        };
        std::future::ready(io::Result::Ok(answer)).boxed()
    })
}

fn answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aviary_sim::store::kinds::GroupKind;

    use super::install;
    use crate::embedded;

    #[tokio::test]
    async fn a_sandbox_has_the_roles_and_priorities_of_every_cluster() {
        let cluster = aviary_sim::Cluster::new(embedded::cluster_options(1));
        install(&cluster, &[], "mine").await.unwrap();
        let names = |group: &str, kind: &str| -> Vec<String> {
            let objects = cluster.store().list(&GroupKind::new(group.to_owned(), kind.to_owned()), None);
            objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names("rbac.authorization.k8s.io", "ClusterRole"), ["admin", "cluster-admin", "edit", "view"]);
        assert_eq!(names("rbac.authorization.k8s.io", "ClusterRoleBinding"), ["cluster-admin"]);
        let priorities = names("scheduling.k8s.io", "PriorityClass");
        assert_eq!(priorities, ["system-cluster-critical", "system-node-critical"]);
    }
}
