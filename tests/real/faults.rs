//! Releases under users' traffic while something goes wrong: the controller is killed, servers go and come back, monitoring is
//! away, others write, leaders are stopped. Each ends in the same cluster as a release that nothing disturbs, and no user's
//! request fails.
//!
//! A sample of it runs in a few minutes; `AVIARY_REAL_FULL=1` runs all. `AVIARY_FAULTS_SEED` decides when the controller dies, and
//! `AVIARY_FAULTS=leadership,monitoring` leaves the other parts out.

mod foreign_writers;
mod kills;
mod leadership;
mod monitoring;
mod operator;
mod proxy;
mod servers;
mod subject;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::Client;

use self::operator::{Operator, kubeconfig_through};
use self::proxy::Proxy;
use self::subject::{End, IMAGES, Subject};
use super::audit::Audit;
use super::bench::{Inside, is_full_set};
use super::{api, eventually, in_bench};

const SEED: &str = "AVIARY_FAULTS_SEED";
const PARTS: &str = "AVIARY_FAULTS";
/// The account of the controller that all but the leaders' test have.
const ACCOUNT: &str = "aviary";

/// How much of it.
struct Size {
    /// Kills at random moments; between two writes there are as many.
    kills: usize,
    /// For how long the controller stays away after every second kill at a random moment.
    away: Duration,
    /// For how long Prometheus does not answer.
    outage: Duration,
    /// How often each server dies.
    server_rounds: usize,
    /// How often the leader is stopped, each time in another release.
    leaders_stopped: usize,
}

const SAMPLE: Size = Size {
    kills: 4,
    away: Duration::from_secs(4),
    outage: Duration::from_secs(12),
    server_rounds: 1,
    leaders_stopped: 1,
};
const FULL: Size = Size {
    kills: 50,
    away: Duration::from_secs(30),
    outage: Duration::from_secs(60),
    server_rounds: 5,
    leaders_stopped: 10,
};

/// What all of them need.
struct Stage {
    bench: Inside,
    client: Client,
    proxy: Proxy,
    operator: Operator,
    audit: Audit,
    size: Size,
    /// How a release of each image ends when nothing goes wrong.
    undisturbed: BTreeMap<&'static str, End>,
    began: Instant,
}

impl Stage {
    async fn set(bench: Inside) -> Stage {
        let began = Instant::now();
        let client = bench.client("admin").await;
        let proxy = Proxy::start().await;
        let audit = bench.audit();
        bench.grant(ACCOUNT, &[]);
        let kubeconfig = kubeconfig_through(&bench, ACCOUNT, proxy.address());
        let operator = Operator::start(&bench, &kubeconfig, ACCOUNT, &[]).await;
        let size = if is_full_set() { FULL } else { SAMPLE };
        Stage { bench, client, proxy, operator, audit, size, undisturbed: BTreeMap::new(), began }
    }

    fn say(&self, text: impl std::fmt::Display) {
        println!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    /// The controller is killed, whatever it is doing.
    fn kill_operator(&mut self) {
        self.operator.signal("KILL");
    }

    async fn start_operator(&mut self) {
        let kubeconfig = kubeconfig_through(&self.bench, ACCOUNT, self.proxy.address());
        self.operator = Operator::start(&self.bench, &kubeconfig, ACCOUNT, &[]).await;
    }

    /// Waits for the end of a release, which must be that of one that nothing disturbed.
    async fn ends_as_undisturbed(&self, subject: &Subject, image: &str) {
        subject.released(image).await;
        subject.ends_as(&self.undisturbed[image]).await;
    }
}

#[test]
fn releases_end_the_same_whatever_fails() {
    in_bench("real::faults::releases_end_the_same_whatever_fails", async |bench: Inside| {
        let _network = bench.network().await;
        let mut stage = Stage::set(bench).await;
        stage.say("the controller runs");
        let parts = parts();
        let runs = |part| parts.contains(&part);
        let writers = async { if runs(Part::Writers) { Some(foreign_writers::survive(&stage).await) } else { None } };
        let (undisturbed, writers) = tokio::join!(undisturbed(&stage), writers);
        stage.undisturbed = undisturbed;
        if let Some(writers) = writers {
            writers.compare(&stage).await;
        }
        if runs(Part::Servers) {
            servers::come_back(&stage).await;
        }
        if runs(Part::Kills) {
            kills::change_nothing(&mut stage, seed()).await;
        }
        if runs(Part::Leadership) {
            leadership::is_exclusive(&mut stage).await;
            stage.start_operator().await;
        }
        if runs(Part::Monitoring) {
            monitoring::is_waited_for(&stage).await;
        }
        stage.say(format!("done; {} calls of controllers", stage.audit.number(|_| true)));
    });
}

fn seed() -> u64 {
    std::env::var(SEED).map_or(1, |text| text.parse().expect("a number as seed"))
}

/// What goes wrong; the names by which `AVIARY_FAULTS` asks for some of them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Writers,
    Servers,
    Kills,
    Leadership,
    Monitoring,
}

const ALL_PARTS: [Part; 5] = [Part::Writers, Part::Servers, Part::Kills, Part::Leadership, Part::Monitoring];

/// Those that are asked for, or all.
fn parts() -> Vec<Part> {
    let Ok(names) = std::env::var(PARTS) else { return ALL_PARTS.to_vec() };
    let of_name = |name: &str| {
        let part = ALL_PARTS.into_iter().find(|part| format!("{part:?}").eq_ignore_ascii_case(name));
        part.unwrap_or_else(|| panic!("{PARTS}: there is no part {name:?} among {ALL_PARTS:?}"))
    };
    names.split(',').map(of_name).collect()
}

/// A release of each image.
async fn undisturbed(stage: &Stage) -> BTreeMap<&'static str, End> {
    let subjects = Subject::create_all(&stage.client, "undisturbed", IMAGES.len(), 40.0).await;
    let mut ends = BTreeMap::new();
    for (subject, image) in subjects.iter().zip(IMAGES) {
        subject.set_image(image).await;
    }
    for (subject, image) in subjects.iter().zip(IMAGES) {
        subject.released(image).await;
        subject.assert_no_request_failed().await;
        ends.insert(image, subject.end_at_rest().await);
    }
    stage.say("releases without a fault have ended");
    ends
}
