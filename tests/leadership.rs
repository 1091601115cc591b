//! Two controllers, of which one acts.

mod processes;

use std::sync::Arc;
use std::time::Duration;

use aviary::leader::{Candidate, Fence, LEASE_NAME, Settings, Timing};
use aviary_actors::{Clock, Controller, ControllerConfig, Metrics};
use aviary_sim::calls::{CallEntry, Verb};
use aviary_sim::cluster::Cluster;
use aviary_sim::faults::{Action, Rule};
use aviary_sim::store::kinds;
use kube::Client;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceBuilder;

use crate::support::checks::assert_calls_are_granted;
use crate::support::{World, in_virtual_time};

/// How a replica ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Stopped,
    Lost,
}

/// A controller that stands for election, wired as `aviary run` does it, with its own name in the API server's log.
struct Replica {
    stop: oneshot::Sender<()>,
    task: JoinHandle<End>,
    fence: Fence,
    metrics: Metrics,
}

impl Replica {
    fn start(world: &World, name: &'static str) -> Replica {
        let clock = *world.cluster.clock();
        let clock = Clock::from_fn(move || clock.now());
        let (fence, metrics) = (Fence::new(Timing::default(), clock.clone()), Metrics::new().unwrap());
        let settings = Settings { namespace: "kube-system".into(), identity: name.into(), timing: Timing::default() };
        let plain = world.cluster.client(name);
        let sender = plain.clone();
        let send = tower::service_fn(move |request| {
            let sender = sender.clone();
            async move { sender.send(request).await }
        });
        let fenced = Client::new(ServiceBuilder::new().layer(&fence).service(send), "default");
        let config = ControllerConfig { follows: true, ..world.config.clone() };
        let transport = Arc::new(world.services.clone());
        let controller = Controller::start(config, &fenced, transport, clock.clone(), metrics.clone());
        let mut candidate = Candidate::stand(plain, settings, fence.clone(), metrics.clone(), clock);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            tokio::select! {
                () = candidate.lead_until_lost(&controller) => {
                    controller.kill();
                    End::Lost
                }
                _ = stopped => {
                    assert!(controller.shutdown(Duration::from_secs(10)).await);
                    candidate.release().await;
                    End::Stopped
                }
            }
        });
        Replica { stop, task, fence, metrics }
    }

    /// As with SIGTERM.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.task.await.unwrap(), End::Stopped);
    }

    /// As with SIGKILL.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    fn leads(&self) -> bool {
        self.metrics.leader.with_label_values(&[LEASE_NAME]).get() == 1
    }
}

fn holder(cluster: &Cluster) -> String {
    let lease = cluster.store().get(&kinds::LEASE, "kube-system", LEASE_NAME);
    lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Successful writes of these clients, each with whether it is of the lease.
fn writes(cluster: &Cluster, clients: &[&str]) -> Vec<(CallEntry, bool)> {
    let entries = cluster.calls().entries().into_iter().filter(|entry| {
        let key = &entry.call.key;
        key.verb.is_write() && (200..300).contains(&entry.code) && clients.contains(&key.client.as_str())
    });
    entries.map(|entry| (entry.clone(), entry.call.key.resource == "leases")).collect()
}

/// The rule that everything is about: each write that succeeded was the one's who had written the lease last. Returns
/// how often it changed hands.
fn assert_only_the_holder_wrote(cluster: &Cluster, clients: &[&str]) -> usize {
    assert_calls_are_granted(cluster, clients);
    let (mut leader, mut changes) = (None, 0);
    for (entry, is_lease) in writes(cluster, clients) {
        let client = entry.call.key.client.clone();
        if is_lease {
            changes += usize::from(leader.as_ref().is_some_and(|leader| *leader != client));
            leader = Some(client);
        } else {
            assert_eq!(leader.as_ref(), Some(&client), "{entry:?} was not the leader's");
        }
    }
    changes
}

/// When this client first wrote anything.
fn first_write(cluster: &Cluster, client: &str) -> jiff::Timestamp {
    writes(cluster, &[client]).first().expect("a write").0.time
}

const BOTH: &[&str] = &["first", "second"];

/// A canary in the middle of a release, led by the first of two replicas.
async fn in_mid_release(world: &World) -> (Replica, Replica) {
    let first = Replica::start(world, "first");
    world.deploy("podinfo").await;
    world.wait_for_phase("podinfo", "Initialized").await;
    let second = Replica::start(world, "second");
    world.set_image("podinfo", "podinfo:6.0.1");
    world.wait_until("the second step", || world.status("podinfo")["canaryWeight"] == 20).await;
    assert!(first.leads() && !second.leads());
    assert_eq!(writes(&world.cluster, &["second"]), [], "a follower writes nothing");
    let calls = world.cluster.calls().snapshot().of_client("second");
    assert!(calls.count(Verb::Watch, "canaries") > 0, "and watches: {calls}");
    (first, second)
}

#[test]
fn a_follower_goes_on_with_the_release_of_a_leader_that_died() {
    in_virtual_time(async {
        let world = World::new(3);
        let (first, second) = in_mid_release(&world).await;
        let died = world.cluster.clock().now();
        first.kill().await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert!(second.leads());
        assert_eq!(assert_only_the_holder_wrote(&world.cluster, BOTH), 1);
        let taken = first_write(&world.cluster, "second").duration_since(died).as_secs_f64();
        // The last renewal was up to two seconds before.
        assert!((12.9..=15.1).contains(&taken), "taken after {taken} s");
        let events = world.cluster.store().list(&kinds::EVENT, Some("kube-system"));
        let texts: Vec<_> = events.iter().map(|event| event["message"].clone()).collect();
        assert!(texts.contains(&json!("second became leader")), "{texts:?}");
        second.stop().await;
    });
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_within_two_seconds() {
    in_virtual_time(async {
        let world = World::new(4);
        let (first, second) = in_mid_release(&world).await;
        let told = world.cluster.clock().now();
        first.stop().await;
        world.wait_until("the second one leads", || second.leads()).await;
        let taken = first_write(&world.cluster, "second").duration_since(told).as_secs_f64();
        assert!(taken < 2.0, "taken after {taken} s");
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(assert_only_the_holder_wrote(&world.cluster, BOTH), 1);
        second.stop().await;
        assert_eq!(holder(&world.cluster), "");
    });
}

/// The lease of a follower is not its to give.
#[test]
fn a_follower_that_stops_leaves_the_lease_alone() {
    in_virtual_time(async {
        let world = World::new(5);
        let (first, second) = in_mid_release(&world).await;
        second.stop().await;
        world.wait_for_phase("podinfo", "Succeeded").await;
        assert_eq!(holder(&world.cluster), "first");
        assert_eq!(writes(&world.cluster, &["second"]), []);
        first.stop().await;
    });
}

/// It stops five seconds before another may start, and what it still wants to write is not sent.
#[test]
fn a_leader_that_cannot_renew_writes_no_more() {
    for fault in [Action::error(500), Action::Hang, Action::LoseResponse] {
        in_virtual_time(async {
            let world = World::new(6);
            let (first, second) = in_mid_release(&world).await;
            let lost_answers = matches!(fault, Action::LoseResponse);
            let rule = Rule::new(fault).client("first").resource("leases");
            // Reads of the lease tell who has it: a renewal whose answer was lost was made all the same.
            let rule = if lost_answers { rule.writes() } else { rule };
            world.cluster.faults().add(rule);
            let cut_off = world.cluster.clock().now();
            assert_eq!(first.task.await.unwrap(), End::Lost);
            let stopped = world.cluster.clock().now().duration_since(cut_off).as_secs_f64();
            assert!(stopped <= 10.0, "stopped after {stopped} s");
            assert!(first.fence.permit().is_err());
            assert!(!second.leads());
            world.wait_for_phase("podinfo", "Succeeded").await;
            assert_eq!(assert_only_the_holder_wrote(&world.cluster, BOTH), 1);
            second.stop().await;
        });
    }
}

/// A controller whose elector stands still (here: for good) is kept back by the fence alone.
#[test]
fn writes_of_a_stalled_leader_are_refused() {
    in_virtual_time(async {
        let world = World::new(7);
        let clock = *world.cluster.clock();
        let fence = Fence::new(Timing::default(), Clock::from_fn(move || clock.now()));
        let plain = world.cluster.client("first");
        let sender = plain.clone();
        let send = tower::service_fn(move |request| {
            let sender = sender.clone();
            async move { sender.send(request).await }
        });
        let fenced = Client::new(ServiceBuilder::new().layer(&fence).service(send), "default");
        let transport = Arc::new(world.services.clone());
        let clock = Clock::from_fn(move || clock.now());
        let controller =
            Controller::start(world.config.clone(), &fenced, transport, clock.clone(), Metrics::new().unwrap());
        fence.renewed(tokio::time::Instant::now(), clock.now());
        world.deploy("podinfo").await;
        world.wait_for_phase("podinfo", "Initialized").await;
        let renewed = clock.now();
        fence.renewed(tokio::time::Instant::now(), renewed);
        world.set_image("podinfo", "podinfo:6.0.1");
        world.pass(Duration::from_secs(120)).await;
        let mut times = writes(&world.cluster, &["first"]).into_iter().map(|(entry, _)| entry.time);
        assert!(times.all(|time| time.duration_since(renewed).as_secs_f64() < 10.0));
        assert_eq!(world.phase("podinfo"), "Progressing", "there was more to write");
        controller.kill();
    });
}
