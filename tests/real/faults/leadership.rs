//! Two controllers, of which the leader is stopped for longer than its Lease and continued.

use std::sync::Arc;
use std::time::Duration;

use aviary_loadtest::random::Random;
use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::operator::Operator;
use super::subject::{IMAGES, Subject};
use super::{Stage, eventually, seed};
use crate::real::audit::Call;
use crate::real::now;
use crate::real::way::Way;

/// For how long a Lease lasts. Longer than a busy machine stands still, so that no leader loses it for that; short enough that a
/// test can wait for its end.
const LEASE: Duration = Duration::from_secs(8);
const FLAGS: &[&str] = &[
    "--enable-leader-election",
    "--leader-election-lease-duration=8s",
    "--leader-election-renew-deadline=5s",
    "--leader-election-retry-period=300ms",
];
const NAMES: [&str; 2] = ["aviary-first", "aviary-second"];
/// Enough that something is written at any time.
const SUBJECTS: usize = 3;
/// Of these subjects only such writes are held, so that one of each kind is under way when the leader is stopped; of the others
/// whatever is written first.
const AWAITED: [(&str, &str); 2] =
    [("leadership-0", "/virtualservices/podinfo"), ("leadership-1", "/canaries/podinfo/status")];

struct Replica {
    name: &'static str,
    gate: Arc<Gate>,
    way: Way,
    operator: Operator,
}

impl Replica {
    async fn start(stage: &Stage, name: &'static str) -> Replica {
        stage.bench.grant(name, &["--enable-leader-election"]);
        let gate = Arc::new(Gate::default());
        let on_the_way = Arc::clone(&gate);
        let way = Way::start(&stage.bench, name, move |method, path| {
            let gate = Arc::clone(&on_the_way);
            async move { gate.pass(&method, &path).await }
        })
        .await;
        let operator = start_operator(stage, name, &way).await;
        Replica { name, gate, way, operator }
    }

    async fn start_again(&mut self, stage: &Stage) {
        self.operator = start_operator(stage, self.name, &self.way).await;
    }

    async fn leads(&self) {
        let leads = async || self.operator.has_said("Acting as elected leader");
        eventually(&format!("{} leads", self.name), leads).await;
    }

    /// Stops it while writes of its own are under way, which go on when the gate is opened. Returns since when it is stopped.
    async fn stop_with_writes_under_way(&self) -> Timestamp {
        self.gate.is_closed.send_replace(true);
        loop {
            eventually("routes and a status are under way", async || self.gate.holds_what_is_awaited()).await;
            self.operator.signal("STOP");
            let stopped = now();
            // It may have given up in the moment before.
            if self.gate.holds_what_is_awaited() {
                return stopped;
            }
            self.operator.signal("CONT");
        }
    }
}

async fn start_operator(stage: &Stage, name: &'static str, way: &Way) -> Operator {
    let (kubeconfig, _) = way.kubeconfig(&stage.bench, name);
    Operator::start(&stage.bench, &kubeconfig, name, FLAGS).await
}

fn is_in(path: &str, namespace: &str) -> bool {
    path.contains(&format!("/namespaces/{namespace}/"))
}

/// Holds writes while it is closed; those of the Lease and of events pass.
#[derive(Default)]
struct Gate {
    is_closed: watch::Sender<bool>,
    /// The paths of those that it holds.
    held: Mutex<Vec<String>>,
}

impl Gate {
    async fn pass(&self, method: &Method, path: &str) {
        let is_of_object = !path.contains("/leases") && !path.contains("/events");
        let awaited = AWAITED.iter().find(|(namespace, _)| is_in(path, namespace));
        let is_another = awaited.is_some_and(|(_, object)| !path.ends_with(object));
        if *method == Method::GET || !is_of_object || is_another {
            return;
        }
        let mut is_closed = self.is_closed.subscribe();
        let _held = Held::new(&self.held, path);
        // Its sender lives as long as the gate.
        let _ = is_closed.wait_for(|is_closed| !is_closed).await;
    }

    fn open(&self) {
        self.is_closed.send_replace(false);
    }

    fn held(&self) -> Vec<String> {
        self.held.lock().clone()
    }

    fn holds_what_is_awaited(&self) -> bool {
        let held = self.held();
        AWAITED.iter().all(|(namespace, _)| held.iter().any(|path| is_in(path, namespace)))
    }
}

/// Is among these as long as somebody waits for it.
struct Held<'a> {
    all: &'a Mutex<Vec<String>>,
    path: &'a str,
}

impl Held<'_> {
    fn new<'a>(all: &'a Mutex<Vec<String>>, path: &'a str) -> Held<'a> {
        all.lock().push(path.to_owned());
        Held { all, path }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(index) = all.iter().position(|path| path == self.path) {
            all.swap_remove(index);
        }
    }
}

/// When the writes arrive that were under way as their leader was stopped.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// Its Lease has not run out.
    AtOnce,
    /// The next leader has written the same objects meanwhile.
    Late,
}

/// What was under way as the leader was stopped arrives, and the other one leads.
async fn change_of_leader(stage: &Stage, leader: &Replica, follower: &Replica, arrival: Arrival) {
    let stopped = leader.stop_with_writes_under_way().await;
    let under_way = leader.gate.held();
    let is_write_of = |call: &Call, name: &str| call.account == name && call.is_write_of_object();
    let writes_after =
        |name: &str, since: Timestamp| stage.audit.any(|call| is_write_of(call, name) && call.received >= since);
    let late_since = match arrival {
        Arrival::AtOnce => {
            leader.gate.open();
            eventually("the write that was under way arrives", async || writes_after(leader.name, stopped)).await;
            follower.leads().await;
            // The new one has begun to write when the old one wakes up.
            eventually("the new leader writes", async || writes_after(follower.name, stopped)).await;
            None
        }
        Arrival::Late => {
            follower.leads().await;
            let is_overtaken = |path: &str| {
                let is_same = |call: &Call| call.uri.split('?').next() == Some(path) && call.succeeded();
                stage.audit.any(|call| is_write_of(call, follower.name) && call.received >= stopped && is_same(call))
            };
            let are_overtaken = async || leader.gate.held().iter().all(|path| is_overtaken(path));
            eventually("the new leader writes what the old one was to write", are_overtaken).await;
            let opened = now();
            leader.gate.open();
            eventually("all that was under way arrives", async || {
                under_way.iter().all(|path| {
                    let is_same = |call: &Call| call.uri.split('?').next() == Some(path) && call.received >= opened;
                    stage.audit.any(|call| is_write_of(call, leader.name) && is_same(call))
                })
            })
            .await;
            Some(opened)
        }
    };
    leader.operator.signal("CONT");
    assert_eq!(leader.operator.exit().await.code(), Some(1), "{} has lost its Lease", leader.name);
    assert!(leader.operator.has_said("Leadership lost"));
    if let Some(opened) = late_since {
        let calls = stage.audit.calls();
        let late = calls.iter().filter(|call| is_write_of(call, leader.name) && call.received >= opened);
        late.for_each(|call| assert!(call.met_another_writer(), "{call}"));
    }
    stage.say(format!(
        "{} was stopped with writes under way, which arrived {arrival:?}; {} took over\n{}",
        leader.name,
        follower.name,
        under_way.join("\n")
    ));
}

/// No write of the old leader succeeds after the new one has acquired: the audit log says so.
pub async fn is_exclusive(stage: &mut Stage) {
    stage.kill_operator();
    stage.operator.exit().await;
    let mut random = Random::new(seed());
    let mut leader = Replica::start(stage, NAMES[0]).await;
    leader.leads().await;
    let mut follower = Replica::start(stage, NAMES[1]).await;
    let subjects = Subject::create_all(&stage.client, "leadership", SUBJECTS, 50.0).await;
    let mut images = IMAGES.iter().cycle();
    let mut arrivals = [Arrival::Late, Arrival::AtOnce].into_iter().cycle();
    for _ in 0..stage.size.leaders_stopped {
        let (image, arrival) = (images.next().unwrap(), arrivals.next().unwrap());
        for subject in &subjects {
            subject.set_image(image).await;
        }
        tokio::time::sleep(Duration::from_millis(1000 + random.below(6000))).await;
        change_of_leader(stage, &leader, &follower, arrival).await;
        std::mem::swap(&mut leader, &mut follower);
        follower.start_again(stage).await;

        // The same release is handed over once more, this time by a leader that is told to end.
        let told = now();
        leader.operator.signal("TERM");
        follower.leads().await;
        assert!(leader.operator.exit().await.success());
        let took = hand_over(stage, leader.name, follower.name, told);
        assert!(took < LEASE, "SIGTERM: {} has waited for the Lease to run out: {took:?}", follower.name);
        stage.say(format!("after SIGTERM {} took the Lease {took:?} after it was given up", follower.name));
        std::mem::swap(&mut leader, &mut follower);
        follower.start_again(stage).await;
        for subject in &subjects {
            stage.ends_as_undisturbed(subject, image).await;
        }
    }
    for subject in &subjects {
        subject.assert_no_request_failed().await;
    }
    let hands = assert_only_the_holder_wrote(&stage.audit.calls());
    assert_eq!(hands, 2 * stage.size.leaders_stopped);
    stage.say(format!("the Lease changed hands {hands} times"));
}

fn is_written_lease(call: &Call) -> bool {
    call.resource == "leases" && !call.fills_a_cache() && call.verb != "get" && call.succeeded()
}

/// The time between the last write of the Lease by its old holder and the first one by the next, after one was told to end.
fn hand_over(stage: &Stage, from: &str, to: &str, told: Timestamp) -> Duration {
    let mut calls = stage.audit.calls();
    calls.retain(is_written_lease);
    let given_up = calls.iter().rfind(|call| call.account == from).unwrap().answered;
    let taken = calls.iter().find(|call| call.account == to && call.received > told).unwrap().answered;
    Duration::try_from(taken.duration_since(given_up)).expect("nobody takes what was not given up")
}

/// Each write that succeeded was the one's who had written the Lease last. Events are exempt: they tell of what was done, late
/// or not, and change nothing. Returns how often the Lease changed hands.
fn assert_only_the_holder_wrote(calls: &[Call]) -> usize {
    let mut calls: Vec<_> = calls.iter().filter(|call| NAMES.contains(&call.account.as_str())).collect();
    calls.sort_by_key(|call| call.answered);
    let (mut holder, mut hands, mut writes) = (None, 0, 0);
    for call in calls.into_iter().filter(|call| call.succeeded()) {
        if is_written_lease(call) {
            hands += usize::from(holder.is_some_and(|holder| holder != &call.account));
            holder = Some(&call.account);
        } else if call.is_write_of_object() {
            writes += 1;
            assert_eq!(holder, Some(&call.account), "{call} is not by the holder of the Lease");
        } else if call.resource == "events" && holder != Some(&call.account) {
            println!("an event that was late, and may be: {call}");
        }
    }
    assert!(writes > 20, "{writes} writes are none");
    hands
}
