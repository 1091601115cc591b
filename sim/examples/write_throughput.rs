//! Writes per second of the embedded API server on one core: `cargo run --profile loadtest -p aviary-sim --example write_throughput`.
//!
//! Measured through the service itself, with its JSON in and out and one open watch, and through a `kube::Client`, which adds its
//! own request building, buffering and decoding. Status is what operators write most; a spec is checked as a whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use aviary_sim::apiserver::ApiServer;
use aviary_sim::{Cluster, ClusterOptions};
use http_body_util::BodyExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use tower::Service;

const CANARIES: usize = 1_000;
const WRITES: usize = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
    install_canary_definition(&cluster);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
    let canaries: Api<DynamicObject> = Api::namespaced_with(cluster.client("bench"), "default", &resource);
    for index in 0..CANARIES {
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": format!("podinfo-{index}"), "namespace": "default"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "service": {"port": 9898},
                "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 5,
                    "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}]},
            },
        });
        // Through the API, so that the fields have owners.
        canaries.create(&PostParams::default(), &serde_json::from_value(canary).unwrap()).await.unwrap();
    }
    let mut server = cluster.api_server();
    let watch = http::Request::get("/apis/flagger.app/v1beta1/canaries?watch=true").body(Body::empty()).unwrap();
    let mut watch = server.call(watch).await.unwrap().into_body();
    let reader = tokio::spawn(async move { while watch.frame().await.is_some() {} });
    let status = |round| format!(r#"{{"status":{{"phase":"Progressing","canaryWeight":{round}}}}}"#);
    measure(&mut server, "service, status", "/status", status).await;
    let spec = |round| format!(r#"{{"spec":{{"analysis":{{"threshold":{round}}}}}}}"#);
    measure(&mut server, "service, spec", "", spec).await;

    let stopwatch = Stopwatch::start();
    for index in 0..WRITES {
        let patch = json!({"status": {"phase": "Progressing", "canaryWeight": index / CANARIES + 1_000}});
        let name = format!("podinfo-{}", index % CANARIES);
        canaries.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    stopwatch.report("kube::Client, status");
    reader.abort();
}

/// Patches one object after the other, each with the number of the round.
async fn measure(server: &mut ApiServer, what: &str, subresource: &str, patch: impl Fn(usize) -> String) {
    let stopwatch = Stopwatch::start();
    for index in 0..WRITES {
        let path =
            format!("/apis/flagger.app/v1beta1/namespaces/default/canaries/podinfo-{}{subresource}", index % CANARIES);
        let request = http::Request::patch(path)
            .header("Content-Type", "application/merge-patch+json")
            .header("User-Agent", "bench")
            .body(Body::from(patch(index / CANARIES + 1).into_bytes()))
            .unwrap();
        let response = server.call(request).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
        if index % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    stopwatch.report(what);
}

/// The definition that Aviary installs, so that every write is pruned, defaulted and validated by the real schema.
fn install_canary_definition(cluster: &Cluster) {
    let definition: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../crds/yaml/canaries.flagger.app.yaml")).unwrap();
    let kind = aviary_sim::store::kinds::CUSTOM_RESOURCE_DEFINITION;
    cluster
        .store()
        .update(&kind, "", "canaries.flagger.app", |object| object["spec"] = definition["spec"].clone())
        .unwrap();
}

/// Wall clock and, where the kernel tells it, processor time: the latter is what counts on a machine with other work.
struct Stopwatch {
    started: Instant,
    cpu_nanoseconds: Option<u64>,
}

impl Stopwatch {
    fn start() -> Self {
        Self { started: Instant::now(), cpu_nanoseconds: cpu_nanoseconds() }
    }

    fn report(&self, what: &str) {
        let wall = self.started.elapsed().as_secs_f64();
        println!("{what}: {:.0} writes/s by the wall clock", WRITES as f64 / wall);
        if let (Some(before), Some(after)) = (self.cpu_nanoseconds, cpu_nanoseconds()) {
            let cpu = (after - before) as f64 / 1e9;
            println!("{what}: {:.0} writes/s per core ({:.1} µs each)", WRITES as f64 / cpu, cpu * 1e6 / WRITES as f64);
        }
    }
}

/// Processor time of this thread so far; `None` outside Linux.
fn cpu_nanoseconds() -> Option<u64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    statistics.split_whitespace().next()?.parse().ok()
}
