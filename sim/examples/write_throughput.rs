//! Writes per second of the embedded API server on one core: `cargo run --profile loadtest -p aviary-sim --example write_throughput`.
//!
//! Measured through the service itself, with its JSON in and out and one open watch, and through a `kube::Client`, which adds its
//! own request building, buffering and decoding. The first argument, if given, limits the run to the kinds of writes with it in
//! their names, for a profiler.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use aviary_sim::apiserver::ApiServer;
use aviary_sim::{Cluster, ClusterOptions};
use bytes::Bytes;
use http_body_util::BodyExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;
use tower::Service;

const CANARIES: usize = 1_000;
const ROUNDS: usize = 100;
const PATH: &str = "/apis/flagger.app/v1beta1/namespaces/default/canaries";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
    install_canary_definition(&cluster);
    let mut bench = Bench { server: cluster.api_server(), objects: Vec::new(), wanted };
    for index in 0..CANARIES {
        // Through the API, so that the fields have owners.
        let object = bench.send("POST", PATH, JSON, canary("podinfo", index)).await;
        bench.objects.push(object);
    }
    let watch = http::Request::get("/apis/flagger.app/v1beta1/canaries?watch=true").body(Body::empty()).unwrap();
    let mut watch = bench.server.call(watch).await.unwrap().into_body();
    let reader = tokio::spawn(async move { while watch.frame().await.is_some() {} });

    let patch = |what: &str, value: String| (MERGE, format!(r#"{{"{what}":{value}}}"#));
    let status = |round: usize| format!(r#"{{"phase":"Progressing","canaryWeight":{round}}}"#);
    let spec = |round: usize| format!(r#"{{"analysis":{{"threshold":{round}}}}}"#);
    bench.measure("status, merge patch", "PATCH", "/status", |round, _| patch("status", status(round))).await;
    let put_status = |round: usize, object: &str| {
        let (rest, _) = object.rsplit_once(r#""status":"#).unwrap();
        (JSON, format!(r#"{rest}"status":{}}}"#, status(1_000 + round)))
    };
    bench.measure("status, PUT", "PUT", "/status", put_status).await;
    bench.measure("spec, merge patch", "PATCH", "", |round, _| patch("spec", spec(round))).await;
    let json_patch = |round: usize, _: &str| {
        let operation = format!(r#"[{{"op":"replace","path":"/spec/analysis/threshold","value":{}}}]"#, 1_000 + round);
        ("application/json-patch+json", operation)
    };
    bench.measure("spec, JSON patch", "PATCH", "", json_patch).await;
    let put_spec = |round: usize, object: &str| {
        let (before, after) = object.split_once(r#""threshold":"#).unwrap();
        let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        (JSON, format!(r#"{before}"threshold":{}{after}"#, 2_000 + round))
    };
    bench.measure("spec, PUT", "PUT", "", put_spec).await;
    let label = |round: usize, _: &str| (MERGE, format!(r#"{{"metadata":{{"labels":{{"round":"{round}"}}}}}}"#));
    bench.measure("metadata, merge patch", "PATCH", "", label).await;
    bench.create_and_delete().await;

    if bench.wants("kube::Client") {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
        let canaries: Api<DynamicObject> = Api::namespaced_with(cluster.client("bench"), "default", &resource);
        let mut stopwatch = Stopwatch::default();
        for round in 1..=ROUNDS {
            stopwatch.start();
            for index in 0..CANARIES {
                let patch = json!({"status": {"phase": "Progressing", "canaryWeight": 10_000 + round}});
                let name = format!("podinfo-{index}");
                canaries.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            }
            tokio::task::yield_now().await;
            stopwatch.stop(CANARIES);
        }
        stopwatch.report("status, merge patch through a kube::Client");
        let mut stopwatch = Stopwatch::default();
        stopwatch.start();
        for index in 0..CANARIES {
            let object: DynamicObject = serde_json::from_str(&canary("client", index)).unwrap();
            canaries.create(&PostParams::default(), &object).await.unwrap();
        }
        stopwatch.stop(CANARIES);
        stopwatch.report("create through a kube::Client");
    }
    reader.abort();
}

fn canary(base: &str, index: usize) -> String {
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": format!("{base}-{index}"), "namespace": "default"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 5,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}]},
        },
    })
    .to_string()
}

struct Bench {
    server: ApiServer,
    /// What the server answered last for each canary, as a client that writes it back would know.
    objects: Vec<Bytes>,
    wanted: String,
}

impl Bench {
    fn wants(&self, what: &str) -> bool {
        what.contains(&self.wanted)
    }

    async fn send(&mut self, method: &str, path: &str, content_type: &str, body: String) -> Bytes {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content_type)
            .header("User-Agent", "bench")
            .body(Body::from(body.into_bytes()))
            .unwrap();
        let response = self.server.call(request).await.unwrap();
        let succeeded = response.status().is_success();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(succeeded, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// Writes one object after the other, each with what `body` makes of the round's number and the object.
    async fn measure(
        &mut self,
        what: &str,
        method: &str,
        subresource: &str,
        body: impl Fn(usize, &str) -> (&'static str, String),
    ) {
        if !self.wants(what) {
            return;
        }
        let mut stopwatch = Stopwatch::default();
        for round in 1..=ROUNDS {
            stopwatch.start();
            for index in 0..CANARIES {
                let path = format!("{PATH}/podinfo-{index}{subresource}");
                let (content_type, body) = body(round, std::str::from_utf8(&self.objects[index]).unwrap());
                self.objects[index] = self.send(method, &path, content_type, body).await;
                if index % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            stopwatch.stop(CANARIES);
        }
        stopwatch.report(what);
    }

    async fn create_and_delete(&mut self) {
        if !self.wants("create") && !self.wants("delete") {
            return;
        }
        let (mut creating, mut deleting) = (Stopwatch::default(), Stopwatch::default());
        // The body is the client's work, and says nothing of the server.
        let bodies: Vec<String> = (0..CANARIES).map(|index| canary("new", index)).collect();
        for _ in 0..ROUNDS / 2 {
            creating.start();
            for body in &bodies {
                self.send("POST", PATH, JSON, body.clone()).await;
            }
            tokio::task::yield_now().await;
            creating.stop(CANARIES);
            deleting.start();
            for index in 0..CANARIES {
                self.send("DELETE", &format!("{PATH}/new-{index}"), JSON, String::new()).await;
            }
            tokio::task::yield_now().await;
            deleting.stop(CANARIES);
        }
        creating.report("create");
        deleting.report("delete");
    }
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

/// Wall clock and, where the kernel tells it, processor time. On a machine with other work the latter counts, and of it the
/// shortest of all slices: a core that is shared is slower even so.
#[derive(Default)]
struct Stopwatch {
    writes: usize,
    wall: f64,
    cpu: Option<f64>,
    /// Of a write.
    shortest: f64,
    started: Option<(Instant, Option<u64>)>,
}

impl Stopwatch {
    fn start(&mut self) {
        self.started = Some((Instant::now(), cpu_nanoseconds()));
    }

    fn stop(&mut self, writes: usize) {
        let (instant, before) = self.started.take().unwrap();
        self.writes += writes;
        self.wall += instant.elapsed().as_secs_f64();
        if let (Some(before), Some(after)) = (before, cpu_nanoseconds()) {
            let slice = (after - before) as f64 / 1e9;
            *self.cpu.get_or_insert(0.0) += slice;
            let each = slice / writes as f64;
            self.shortest = if self.shortest > 0.0 { self.shortest.min(each) } else { each };
        }
    }

    fn report(&self, what: &str) {
        let writes = self.writes as f64;
        print!("{what}: {:.0} writes/s by the wall clock", writes / self.wall);
        match self.cpu {
            Some(cpu) => println!(
                "; {:.0} per core ({:.1} µs each), at best {:.0} ({:.1} µs)",
                writes / cpu,
                cpu * 1e6 / writes,
                1.0 / self.shortest,
                self.shortest * 1e6
            ),
            None => println!(),
        }
    }
}

/// Processor time of this thread so far; `None` outside Linux.
fn cpu_nanoseconds() -> Option<u64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    statistics.split_whitespace().next()?.parse().ok()
}
