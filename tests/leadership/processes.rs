//! The same with processes, which can be stopped in the middle of anything.

use std::convert::Infallible;
use std::time::Duration;

use aviary::embedded;
use aviary_actors::Clock;
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::ControllerOptions;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use http::header::USER_AGENT;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::{assert_only_the_holder_wrote, holder, writes};
use crate::support::process::{Operator, eventually};
use crate::support::{canary, create_through, deployment};

/// Short ones: a test that stops a leader waits for them in real time.
const TIMING: &[&str] = &[
    "-leader-election-lease-duration=3s",
    "-leader-election-renew-deadline=2s",
    "-leader-election-retry-period=300ms",
];
const CANARIES: usize = 6;

/// A cluster whose API server is reached at one address by each replica, and logs its calls under its name.
struct Bench {
    cluster: Cluster,
}

impl Bench {
    async fn new() -> Bench {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let controllers = ControllerOptions { start_delay: Duration::ZERO, ..ControllerOptions::default() };
        let options = ClusterOptions {
            base_time: Clock::system().now(),
            controllers: Some(controllers),
            ..embedded::cluster_options(1)
        };
        let cluster = Cluster::new(options);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
        cluster.store().create(&kinds::NAMESPACE, namespace).unwrap();
        Bench { cluster }
    }

    async fn start(&self, name: &'static str) -> Replica {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = format!("-master=http://{}", listener.local_addr().unwrap());
        let frontend = self.cluster.frontend();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(name));
            let frontend = frontend.clone();
            async move { Ok::<_, Infallible>(frontend.oneshot(request).await.unwrap()) }
        });
        tokio::spawn(aviary_sim::http::serve(service, listener));
        let flags = ["-log-level=info", "-enable-leader-election", "-metrics-server=http://127.0.0.1:1", &master];
        let operator = Operator::start(&[&flags, TIMING].concat());
        operator.wait_ready().await;
        Replica { name, operator }
    }

    /// The name in the log of who has the lease.
    fn leader(&self) -> Option<String> {
        let held = !holder(&self.cluster).is_empty();
        let last = writes(&self.cluster, &["a", "b"]).into_iter().rfind(|(_, is_lease)| *is_lease);
        last.filter(|_| held).map(|(entry, _)| entry.call.key.client)
    }

    async fn wait_for_leader(&self, name: &str) {
        eventually(&format!("{name} leads"), async || self.leader().as_deref() == Some(name)).await;
    }

    /// Writes of a replica so far, those of the lease left out.
    fn writes_of(&self, name: &str) -> usize {
        writes(&self.cluster, &[name]).iter().filter(|(_, is_lease)| !is_lease).count()
    }

    async fn wait_for_writes(&self, name: &str, count: usize) {
        let before = self.writes_of(name);
        eventually("writes", async || self.writes_of(name) >= before + count).await;
    }

    async fn create_canaries(&self) {
        let client = self.cluster.client("kubectl");
        for name in names() {
            create_through(client.clone(), deployment("test", &name, "podinfo:0")).await;
            let mut object = canary("test", &name);
            // Hundreds of steps: something is written all the time.
            object["spec"]["analysis"] = json!({"interval": "1s", "threshold": 3, "maxWeight": 90, "stepWeight": 1});
            create_through(client.clone(), object).await;
        }
        self.wait_for_phase("Initialized").await;
    }

    fn release(&self, image: &str) {
        for name in names() {
            let change = |deployment: &mut Value| {
                deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
            };
            self.cluster.store().update(&kinds::DEPLOYMENT, "test", &name, change).unwrap();
        }
    }

    async fn wait_for_phase(&self, phase: &str) {
        let is_there = |name: &String| {
            let canary = self.cluster.store().get(&kinds::CANARY, "test", name);
            canary.is_some_and(|canary| canary["status"]["phase"] == phase)
        };
        eventually(phase, async || names().iter().all(is_there)).await;
    }
}

fn names() -> Vec<String> {
    (0..CANARIES).map(|number| format!("podinfo-{number}")).collect()
}

struct Replica {
    name: &'static str,
    operator: Operator,
}

/// Stopped for longer than its lease lasts and continued, a leader finds out before anything it wanted to write is
/// written, and exits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_and_continued_writes_nothing_more() {
    let bench = Bench::new().await;
    let mut leader = bench.start("a").await;
    bench.wait_for_leader("a").await;
    let mut follower = bench.start("b").await;
    bench.create_canaries().await;
    // Most of the time something is under way.
    bench.cluster.faults().add(Rule::new(Action::Delay(Duration::from_millis(100))).writes().namespace("test"));
    const ROUNDS: usize = 3;
    for round in 1..=ROUNDS {
        bench.release(&format!("podinfo:{round}"));
        bench.wait_for_writes(leader.name, 3).await;
        leader.operator.process.signal("STOP");
        bench.wait_for_leader(follower.name).await;
        bench.wait_for_writes(follower.name, 1).await;
        leader.operator.process.signal("CONT");
        assert_eq!(leader.operator.process.exit().await.code(), Some(1));
        let log = leader.operator.process.errors();
        assert!(log.contains("Leadership lost"), "{log}");
        let (name, next) = (leader.name, follower);
        follower = bench.start(name).await;
        leader = next;
    }
    assert_eq!(assert_only_the_holder_wrote(&bench.cluster, &["a", "b"]), ROUNDS);
}

/// The next one is elected before two seconds have passed, and the release goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_on_sigterm() {
    let bench = Bench::new().await;
    let mut leader = bench.start("a").await;
    bench.wait_for_leader("a").await;
    let follower = bench.start("b").await;
    bench.create_canaries().await;
    bench.release("podinfo:1");
    bench.wait_for_phase("Progressing").await;
    let (_, metrics) = leader.operator.get("/metrics").await.unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"flagger-leader-election\"} 1"), "{metrics}");
    let (_, metrics) = follower.operator.get("/metrics").await.unwrap();
    assert!(metrics.contains("leader_election_master_status{name=\"flagger-leader-election\"} 0"), "{metrics}");

    let told = bench.cluster.clock().now();
    leader.operator.process.signal("TERM");
    bench.wait_for_leader("b").await;
    let taken = writes(&bench.cluster, &["b"])[0].0.time.duration_since(told).as_secs_f64();
    assert!(taken < 2.0, "taken after {taken} s");
    assert_eq!(leader.operator.process.exit().await.code(), Some(0));
    bench.wait_for_writes("b", CANARIES).await;
    assert_eq!(assert_only_the_holder_wrote(&bench.cluster, &["a", "b"]), 1);
}
