//! Memory of stored objects above their JSON: `cargo run --profile loadtest -p aviary-sim --example memory_per_object`.
//!
//! Creates objects of realistic kinds and sizes through the API and compares the growth of the process with the bytes of JSON
//! that the server answers; then changes each object several times to show what the bounded history adds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use aviary_sim::apiserver::ApiServer;
use aviary_sim::{Cluster, ClusterOptions};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::Service;

const NAMESPACES: usize = 50;
/// Of each kind.
const OBJECTS: usize = 12_500;
/// Changes of each Canary afterwards.
const CHANGES: usize = 4;

/// The collection of a kind in a namespace, and an object of it.
struct Kind {
    collection: fn(&str) -> String,
    object: fn(usize) -> Value,
}

const KINDS: [Kind; 4] = [
    Kind {
        collection: |namespace| format!("/apis/flagger.app/v1beta1/namespaces/{namespace}/canaries"),
        object: canary,
    },
    Kind { collection: |namespace| format!("/apis/apps/v1/namespaces/{namespace}/deployments"), object: deployment },
    Kind {
        collection: |namespace| format!("/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices"),
        object: virtual_service,
    },
    Kind { collection: |namespace| format!("/api/v1/namespaces/{namespace}/events"), object: event },
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cluster = Cluster::new(ClusterOptions { controllers: None, logged_calls: 0, ..ClusterOptions::default() });
    let mut server = cluster.api_server();
    install_canary_definition(&cluster);
    for index in 0..NAMESPACES {
        let namespace = json!({"metadata": {"name": format!("team-{index}")}});
        call(&mut server, "POST", "/api/v1/namespaces", "application/json", &namespace).await;
    }
    let before = resident_bytes();
    let mut json_bytes = 0;
    for kind in &KINDS {
        for index in 0..OBJECTS {
            let path = (kind.collection)(&format!("team-{}", index % NAMESPACES));
            json_bytes += call(&mut server, "POST", &path, "application/json", &(kind.object)(index)).await;
        }
    }
    let objects = OBJECTS * KINDS.len();
    let grown = resident_bytes() - before;
    println!(
        "{objects} objects: {} bytes of JSON each, {} bytes of memory each",
        json_bytes / objects,
        grown / objects
    );
    println!("above the JSON: {} bytes per object", grown.saturating_sub(json_bytes) / objects);

    let before = resident_bytes();
    for round in 0..CHANGES {
        for index in 0..OBJECTS {
            let path =
                format!("{}/podinfo-{index}/status", (KINDS[0].collection)(&format!("team-{}", index % NAMESPACES)));
            let patch = json!({"status": {"canaryWeight": round}});
            call(&mut server, "PATCH", &path, "application/merge-patch+json", &patch).await;
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("history of one kind after {} changes: {:.1} MiB", OBJECTS * CHANGES, grown as f64 / (1024.0 * 1024.0));
}

fn install_canary_definition(cluster: &Cluster) {
    let definition: Value = serde_saphyr::from_str(include_str!("../../crds/yaml/canaries.flagger.app.yaml")).unwrap();
    let kind = aviary_sim::store::kinds::CUSTOM_RESOURCE_DEFINITION;
    cluster
        .store()
        .update(&kind, "", "canaries.flagger.app", |object| object["spec"] = definition["spec"].clone())
        .unwrap();
}

/// Sends a request and returns the size of the answer.
async fn call(server: &mut ApiServer, method: &str, path: &str, content_type: &str, body: &Value) -> usize {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", content_type)
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap();
    let response = server.call(request).await.unwrap();
    let is_success = response.status().is_success();
    // What else follows the changes must not fall behind.
    tokio::task::yield_now().await;
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    assert!(is_success, "{}", String::from_utf8_lossy(&answer));
    answer.len()
}

/// Memory of this process that is in use, without pages shared with others. Zero outside Linux.
fn resident_bytes() -> usize {
    let statistics = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = statistics.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    let kibibytes: usize = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    kibibytes * 1024
}

fn canary(index: usize) -> Value {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": format!("podinfo-{index}"), "labels": {"app": format!("podinfo-{index}")}},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("podinfo-{index}")},
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
            "progressDeadlineSeconds": 60,
            "service": {"port": 9898, "targetPort": 9898, "gateways": ["istio-system/public-gateway"],
                "hosts": [format!("app-{index}.example.com")], "retries": {"attempts": 3, "perTryTimeout": "1s"}},
            "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10,
                "metrics": [
                    {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
                "webhooks": [
                    {"name": "load-test", "url": "http://flagger-loadtester.test/", "timeout": "5s",
                        "metadata": {"cmd": "hey -z 1m -q 10 -c 2 http://podinfo-canary.test:9898/"}}]},
        },
    })
}

fn deployment(index: usize) -> Value {
    let name = format!("podinfo-{index}");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}, "annotations": {"prometheus.io/scrape": "true"}},
            "spec": {"containers": [{"name": "podinfod", "image": "ghcr.io/stefanprodan/podinfo:6.0.1",
                "ports": [{"name": "http", "containerPort": 9898, "protocol": "TCP"}],
                "command": ["./podinfo", "--port=9898", "--level=info"],
                "env": [{"name": "PODINFO_UI_COLOR", "value": "#34577c"}],
                "livenessProbe": {"exec": {"command": ["podcli", "check", "http", "localhost:9898/healthz"]}},
                "resources": {"limits": {"cpu": "2", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
            }]},
        }},
    })
}

fn virtual_service(index: usize) -> Value {
    let name = format!("podinfo-{index}");
    let route = |side: &str, weight: u32| json!({"destination": {"host": format!("{name}-{side}")}, "weight": weight});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"gateways": ["istio-system/public-gateway"], "hosts": [format!("app-{index}.example.com"), name],
            "http": [{"route": [route("primary", 95), route("canary", 5)],
                "retries": {"attempts": 3, "perTryTimeout": "1s"}}]},
    })
}

fn event(index: usize) -> Value {
    let name = format!("podinfo-{index}");
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("{name}.17a3b4c5d6e7f809")},
        "involvedObject": {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": name, "resourceVersion": "123"},
        "reason": "Synced", "type": "Normal", "message": format!("Advance {name}.test canary weight 10"), "count": 1,
        "source": {"component": "flagger"}, "reportingComponent": "flagger", "reportingInstance": "",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "eventTime": null,
    })
}
