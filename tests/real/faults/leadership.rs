//! Two controllers, of which the leader is stopped for longer than its Lease and continued.

use std::time::{Duration, Instant};

use aviary_loadtest::random::Random;

use super::audit::{Call, calls};
use super::operator::{Operator, Rights, USERS};
use super::subject::{IMAGES, Subject};
use super::{Stage, eventually, seed};

/// Short ones: what waits for them does so in real time.
const FLAGS: &[&str] = &[
    "--enable-leader-election",
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=300ms",
];
const NAMES: [&str; 2] = ["aviary-first", "aviary-second"];
/// For a leader that is told to end to be replaced.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Enough that something is written at any time.
const SUBJECTS: usize = 3;

struct Replica {
    name: &'static str,
    rights: Rights,
    operator: Operator,
}

impl Replica {
    async fn start(stage: &Stage, name: &'static str) -> Replica {
        let rights = Rights::grant(&stage.bench, &stage.client, name).await;
        let operator = Operator::start(&stage.bench, rights.kubeconfig(), name, FLAGS).await;
        Replica { name, rights, operator }
    }

    async fn start_again(&mut self, stage: &Stage) {
        self.operator = Operator::start(&stage.bench, self.rights.kubeconfig(), self.name, FLAGS).await;
    }

    async fn leads(&self) {
        let leads = async || self.operator.has_said("Acting as elected leader");
        eventually(&format!("{} leads", self.name), leads).await;
    }
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
    for _ in 0..stage.size.leaders_stopped {
        let image = images.next().unwrap();
        for subject in &subjects {
            subject.set_image(image).await;
        }
        tokio::time::sleep(Duration::from_millis(1000 + random.below(6000))).await;
        leader.operator.signal("STOP");
        follower.leads().await;
        // The new one has begun to write when the old one wakes up.
        let last = calls(&stage.bench).len();
        eventually("the new leader writes", async || {
            let calls = calls(&stage.bench).split_off(last);
            calls.iter().any(|call| call.user == user(follower.name) && call.is_write())
        })
        .await;
        leader.operator.signal("CONT");
        assert_eq!(leader.operator.exit().await.code(), Some(1), "{} has lost its Lease", leader.name);
        assert!(leader.operator.has_said("Leadership lost"));
        stage.say(format!("{} was stopped, {} took over", leader.name, follower.name));
        std::mem::swap(&mut leader, &mut follower);
        follower.start_again(stage).await;

        // The same release is handed over once more, this time by a leader that is told to end.
        let told = Instant::now();
        leader.operator.signal("TERM");
        follower.leads().await;
        let took = told.elapsed();
        assert!(took < HAND_OVER, "SIGTERM: {} took over after {took:?}", follower.name);
        stage.say(format!("{} took over {took:?} after SIGTERM", follower.name));
        assert!(leader.operator.exit().await.success());
        std::mem::swap(&mut leader, &mut follower);
        follower.start_again(stage).await;
        for subject in &subjects {
            stage.ends_as_undisturbed(subject, image).await;
        }
    }
    for subject in &subjects {
        subject.assert_no_request_failed().await;
    }
    let hands = assert_only_the_holder_wrote(&calls(&stage.bench));
    assert_eq!(hands, 2 * stage.size.leaders_stopped);
    stage.say(format!("the Lease changed hands {hands} times"));
}

fn user(name: &str) -> String {
    format!("{USERS}{name}")
}

/// Each write that succeeded was the one's who had written the Lease last. Returns how often it changed hands.
fn assert_only_the_holder_wrote(calls: &[Call]) -> usize {
    let (mut holder, mut hands, mut writes) = (None, 0, 0);
    let of_replicas = |call: &&Call| NAMES.iter().any(|name| call.user == user(name));
    let written = |call: &&Call| call.is_write() && call.code < 300;
    for call in calls.iter().filter(of_replicas).filter(written) {
        if call.resource == "leases" {
            hands += usize::from(holder.is_some_and(|holder| holder != &call.user));
            holder = Some(&call.user);
            continue;
        }
        writes += 1;
        assert_eq!(holder, Some(&call.user), "{call:?} is not by the holder of the Lease");
    }
    assert!(writes > 20, "{writes} writes are none");
    hands
}
