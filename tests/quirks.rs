//! Quirks of Flagger that show on a whole cluster only, by their numbers in `docs/flagger-differences.md`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use aviary_actors::transport::{HttpResponse, Network, Transport};
use aviary_providers::HttpRequest;
use aviary_sim::controllers::PodDetail;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use aviary_sim::traffic::TrafficOptions;
use futures::FutureExt;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{AGENT, World, canary, deployment, in_virtual_time};

/// Flagger validates a canary when its object changes and goes on with its ticks all the same, with the new spec.
#[test]
fn q2_a_reference_across_namespaces_stops_a_running_canary() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.config.validation.no_cross_namespace_refs = true;
        world.deploy("podinfo").await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(120)).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("podinfo")["canaryWeight"] == 20).await;
        let foreign = json!({"name": "latency", "templateRef": {"name": "latency", "namespace": "other"}});
        world.patch_canary("podinfo", json!({"analysis": {"metrics": [foreign]}})).await;
        world.pass(Duration::from_secs(300)).await;
        let accepted = world.condition("podinfo", "Accepted").expect("a complaint");
        let message = accepted["message"].as_str().unwrap_or_default();
        assert!(message.contains("latency.other") && message.contains("cross-namespace"), "{message}");
        assert_eq!(world.status("podinfo")["canaryWeight"], 20, "it stands still");
        world.patch_canary("podinfo", json!({"analysis": {"metrics": []}})).await;
        world.wait_for_phase("podinfo", "Succeeded").await;
    });
}

impl World {
    /// A canary that asks a gate before each release, which answers with this status; initialized.
    async fn gated(&mut self, status: &Arc<AtomicU16>) {
        let status = status.clone();
        let gate = Arc::new(move |_: HttpRequest| {
            let status = status.load(Ordering::SeqCst);
            std::future::ready(Ok(HttpResponse { status, retry_after: None, body: Vec::new() })).boxed()
        });
        self.services = std::mem::take(&mut self.services).and("gate.test", gate);
        let mut object = canary("test", "podinfo");
        object["spec"]["analysis"]["webhooks"] =
            json!([{"name": "gate", "type": "confirm-rollout", "url": "http://gate.test/"}]);
        self.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        self.create(object).await;
        self.start();
        self.wait_for_phase("podinfo", "Initialized").await;
        self.pass(Duration::from_secs(120)).await;
    }
}

/// Against Flagger's documentation, and users' gates rely on it.
#[test]
fn q14_a_gate_opens_with_200_to_202_only() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let status = Arc::new(AtomicU16::new(204));
        world.gated(&status).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Waiting").await;
        for closed in [203, 206, 299, 302, 403] {
            status.store(closed, Ordering::SeqCst);
            world.pass(Duration::from_secs(60)).await;
            assert_eq!(world.phase("podinfo"), "Waiting", "{closed}");
        }
        for (open, version) in [(200, 1), (201, 2), (202, 3)] {
            status.store(open, Ordering::SeqCst);
            world.set_image("podinfo", &format!("podinfo:6.0.{version}"));
            world.wait_for_phase("podinfo", "Progressing").await;
            world.wait_for_phase("podinfo", "Succeeded").await;
        }
    });
}

/// Dashboards and alerts ask for values above 1.
#[test]
fn q24_waiting_counts_as_one() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.gated(&Arc::new(AtomicU16::new(403))).await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Waiting").await;
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.metric("flagger_canary_status{name=\"podinfo\",namespace=\"test\"}"), Some(1.0));
    });
}

/// Flagger takes an optional config that it cannot read for one that is gone, and starts an analysis.
#[test]
fn q38_configs_that_cannot_be_read_are_no_change() {
    in_virtual_time(async {
        let mut world = World::new(1);
        let settings = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "settings"},
            "data": {"color": "red"},
        });
        world.create(settings).await;
        let mut target = deployment("test", "podinfo", "podinfo:6.0.0");
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings", "optional": true}}]);
        world.create(target).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        world.pass(Duration::from_secs(60)).await;
        let told = world.events("podinfo");
        let refused = Rule::new(Action::error(500)).client(AGENT).resource("configmaps");
        let refused = world.cluster.faults().add(refused);
        world.cluster.faults().drop_watches(Some(&kinds::CONFIG_MAP));
        world.pass(Duration::from_secs(120)).await;
        // Something else gives it reason to look.
        world.change(&kinds::DEPLOYMENT, "podinfo", |target| target["metadata"]["labels"]["team"] = json!("a"));
        world.pass(Duration::from_secs(120)).await;
        world.cluster.faults().remove(refused);
        world.pass(Duration::from_secs(120)).await;
        assert_eq!(world.events("podinfo"), told);
        assert_eq!(world.phase("podinfo"), "Initialized");
    });
}

/// Flagger registers ten canaries a second after its first hundred, also after each restart.
#[test]
fn q41_many_canaries_are_taken_up_at_once() {
    const CANARIES: usize = 150;
    in_virtual_time(async {
        let nobody = TrafficOptions { default_load: 0.0, ..TrafficOptions::default() };
        let mut world = World::with_traffic(1, PodDetail::CountsOnly, nobody);
        let names: Vec<String> = (0..CANARIES).map(|number| format!("app-{number}")).collect();
        for name in &names {
            world.deploy(name).await;
        }
        let are_all = |world: &World, phase: &str| names.iter().all(|name| world.phase(name) == phase);
        world.start();
        world.pass(Duration::from_secs(30)).await;
        assert!(are_all(&world, "Initialized"), "half a minute after the start");
        world.kill();
        names.iter().for_each(|name| world.set_image(name, "podinfo:6.0.1"));
        world.start();
        world.pass(Duration::from_secs(2)).await;
        assert!(are_all(&world, "Progressing"), "two seconds after the start");
    });
}

/// Flagger ticks all canaries of an interval at the same moment, above all after a restart.
#[test]
fn q44_a_restart_brings_no_canaries_into_step() {
    in_virtual_time(async {
        let mut world = World::new(1);
        for name in ["first", "second"] {
            world.deploy(name).await;
        }
        world.start();
        for name in ["first", "second"] {
            world.wait_for_phase(name, "Initialized").await;
        }
        world.pass(Duration::from_secs(120)).await;
        let journals = ["first", "second"].map(|name| world.follow("test", name));
        world.set_image("first", "podinfo:6.0.1");
        world.pass(Duration::from_secs(4)).await;
        world.set_image("second", "podinfo:6.0.1");
        world.wait_until("weight 20", || world.status("second")["canaryWeight"] == 20).await;
        world.kill();
        world.start();
        for name in ["first", "second"] {
            world.wait_for_phase(name, "Succeeded").await;
        }
        for weight in [30, 40, 50] {
            let [first, second] = [0, 1].map(|index: usize| journals[index].time_of("Progressing", weight));
            let apart = second.duration_since(first);
            let expected = SignedDuration::from_secs(4);
            assert!((apart - expected).abs() < SignedDuration::from_millis(500), "{weight}: {apart:#}");
        }
    });
}

/// Answers requests on connections that stay open; the number of connections.
fn count_connections() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::<AtomicUsize>::default();
    let counted = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let requests = BufReader::new(stream.try_clone().unwrap());
                // Requests without a body end with an empty line.
                for line in requests.lines().map_while(Result::ok) {
                    if line.is_empty() && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, connections)
}

/// Flagger builds a transport for each call of a webhook, whose idle connections linger.
#[test]
fn q48_calls_of_webhooks_share_their_connections() {
    let (port, connections) = count_connections();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime.block_on(async {
        let network = Network::direct();
        for insecure in [false, true] {
            for _ in 0..5 {
                let request = HttpRequest::get(format!("http://127.0.0.1:{port}/"));
                let request = HttpRequest { insecure_skip_verify: insecure, ..request };
                assert_eq!(network.send(request).await.unwrap().status, 200);
            }
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one with and one without verification");
}
