//! Writes per second of the embedded API server on one core: `cargo run --release -p aviary-sim --example write_throughput`.
//!
//! Measured through the service itself, with its JSON in and out and one open watch, and through a `kube::Client`, which adds its
//! own request building, buffering and decoding.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use aviary_sim::{Cluster, ClusterOptions};
use http_body_util::BodyExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, WatchParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use tower::Service;

const CANARIES: usize = 1_000;
const WRITES: usize = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
    for index in 0..CANARIES {
        let canary = json!({
            "metadata": {"name": format!("podinfo-{index}"), "namespace": "default"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "service": {"port": 9898},
                "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 5,
                    "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}]},
            },
        });
        cluster.store().create(&aviary_sim::store::kinds::CANARY, canary).unwrap();
    }
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
    let canaries: Api<DynamicObject> = Api::namespaced_with(cluster.client("bench"), "default", &resource);
    let watch = canaries.watch(&WatchParams::default(), "0").await.unwrap();
    let reader = tokio::spawn(futures::StreamExt::count(Box::pin(watch)));

    let mut server = cluster.api_server();
    let started = Instant::now();
    for index in 0..WRITES {
        let body = format!(r#"{{"status":{{"phase":"Progressing","canaryWeight":{}}}}}"#, index / CANARIES + 1);
        let path = format!("/apis/flagger.app/v1beta1/namespaces/default/canaries/podinfo-{}/status", index % CANARIES);
        let request = http::Request::patch(path)
            .header("Content-Type", "application/merge-patch+json")
            .header("User-Agent", "bench")
            .body(Body::from(body.into_bytes()))
            .unwrap();
        let response = server.call(request).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
        if index % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    report("service", started);

    let started = Instant::now();
    for index in 0..WRITES {
        let patch = json!({"status": {"phase": "Progressing", "canaryWeight": index / CANARIES + 1_000}});
        let name = format!("podinfo-{}", index % CANARIES);
        canaries.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    report("kube::Client", started);
    reader.abort();
}

fn report(what: &str, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {:.0} writes/s ({:.1} µs each)", WRITES as f64 / seconds, seconds * 1e6 / WRITES as f64);
}
