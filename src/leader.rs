//! Leader election by a Lease: of several replicas one acts.
//!
//! What keeps a former leader from writing is in [`fence`]; why that is enough is in
//! `docs/adr/0012-a-leader-writes-only-while-its-lease-is-fresh.md`.

pub mod connection;
pub mod elector;
pub mod fence;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use aviary_actors::{Clock, Controller, Metrics};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use elector::Timing;
use elector::{Elector, Step};
pub use fence::Fence;

/// Name of the Lease: Flagger's, so that a Flagger and an Aviary with the same flags never act side by side.
pub const LEASE_NAME: &str = "flagger-leader-election";

/// Between two tries to list the Canaries: the API server has just taken our write of the lease, so it is there.
const LEAD_RETRY: Duration = Duration::from_secs(1);

/// Settings of an election.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Who this process is; must be another one in each process.
    pub identity: String,
    /// Durations.
    pub timing: Timing,
}

/// A name for this process that no other one has: the host's (in a pod, the pod's) and a random number.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    // Each state has keys of its own, from the system's source of randomness.
    let random = || RandomState::new().build_hasher().finish();
    format!("{}_{:016x}{:016x}", host.as_deref().unwrap_or("aviary"), random(), random())
}

/// Where a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another leads, or nobody yet.
    Follower,
    /// This process leads.
    Leader,
    /// It led, and leads no more. It never will again.
    Lost,
}

/// A candidate's part in the election. When it is dropped, the lease is left to run out.
#[must_use = "the election ends when it is dropped"]
pub struct Candidate {
    standing: watch::Receiver<Standing>,
    release: oneshot::Sender<oneshot::Sender<()>>,
    fence: Fence,
}

impl Candidate {
    /// Stands for election until it is dropped, on the current runtime.
    ///
    /// `client` must send lease calls whether or not this process leads; every other write must go through `fence`.
    pub fn stand(client: Client, settings: Settings, fence: Fence, metrics: Metrics, clock: Clock) -> Candidate {
        let (standing, receiver) = watch::channel(Standing::Follower);
        let (release, released) = oneshot::channel();
        let campaign = Campaign {
            leases: Api::namespaced(client.clone(), &settings.namespace),
            events: Api::namespaced(client, &settings.namespace),
            elector: Elector::new(&settings.identity, &settings.namespace, LEASE_NAME, settings.timing),
            settings,
            fence: fence.clone(),
            metrics,
            clock,
            standing,
            told: None,
        };
        tokio::spawn(campaign.run(released));
        Candidate { standing: receiver, release, fence }
    }

    /// Lets the controller act once it is elected. Returns when the leadership is lost: then the controller must be killed
    /// and the process must end, for the fence never opens again.
    pub async fn lead_until_lost(&mut self, controller: &Controller) {
        self.reached(|standing| standing != Standing::Follower).await;
        let lead = async {
            while let Err(error) = controller.lead().await {
                let error = crate::one_line(&anyhow::Error::from(error));
                tracing::warn!("Elected, but the canaries cannot be listed: {error}");
                tokio::time::sleep(LEAD_RETRY).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.reached(|standing| standing == Standing::Lost) => {}
            () = lead => {}
        }
    }

    async fn reached(&mut self, wanted: impl Fn(Standing) -> bool) {
        // An election that ended without a word is lost.
        let _ = self.standing.wait_for(|standing| wanted(*standing)).await;
    }

    /// Gives the lease up, if it is ours, so that another takes it at once. Everything that writes must have ended before;
    /// what did not is kept back by the fence.
    pub async fn release(self) {
        self.fence.revoke();
        let (done, finished) = oneshot::channel();
        if self.release.send(done).is_ok() {
            let _ = finished.await;
        }
    }
}

/// Changes of the lease, `None` for its deletion.
type Changes = BoxStream<'static, Option<Lease>>;

struct Campaign {
    leases: Api<Lease>,
    events: Api<Event>,
    elector: Elector,
    settings: Settings,
    fence: Fence,
    metrics: Metrics,
    clock: Clock,
    standing: watch::Sender<Standing>,
    /// The leader that the log knows of.
    told: Option<String>,
}

impl Campaign {
    async fn run(mut self, mut released: oneshot::Receiver<oneshot::Sender<()>>) {
        let Settings { namespace, identity, .. } = &self.settings;
        tracing::info!("Starting leader election id: {identity} lease: {LEASE_NAME} namespace: {namespace}");
        self.master_status(0);
        let mut changes = changes(&self.leases);
        loop {
            let step = self.elector.next(Instant::now(), self.clock.now());
            let act = async {
                match step {
                    Step::Wait(wait) => tokio::select! {
                        Some(lease) = changes.next() => self.elector.hear(lease, Instant::now()),
                        () = tokio::time::sleep(wait) => {}
                    },
                    Step::Read => self.read().await,
                    Step::Create(lease) => self.write(&lease, true).await,
                    Step::Replace(lease) => self.write(&lease, false).await,
                    Step::Lost => return true,
                }
                false
            };
            let is_lost = tokio::select! {
                is_lost = act => is_lost,
                // A renewal under way is given up: it may be made, which the release finds out.
                release = &mut released => {
                    if let Ok(done) = release {
                        self.give_up().await;
                        let _ = done.send(());
                    }
                    return;
                }
            };
            if is_lost {
                return self.lose().await;
            }
            self.tell();
        }
    }

    async fn read(&mut self) {
        let answer = limited(self.call_limit(), self.leases.get_opt(LEASE_NAME)).await;
        let now = Instant::now();
        match answer {
            Ok(lease) => self.elector.observe(lease, now),
            Err(error) => {
                tracing::warn!("Lease {LEASE_NAME} cannot be read: {error}");
                self.elector.failed(now);
            }
        }
    }

    async fn write(&mut self, lease: &Lease, is_new: bool) {
        let (sent, sent_at) = (Instant::now(), self.clock.now());
        let was_leading = self.elector.is_leading(sent);
        let (leases, limit, params) = (self.leases.clone(), self.call_limit(), PostParams::default());
        let answer = match is_new {
            true => limited(limit, leases.create(&params, lease)).await,
            false => limited(limit, leases.replace(LEASE_NAME, &params, lease)).await,
        };
        let now = Instant::now();
        match answer {
            Ok(lease) => self.elector.wrote(lease, sent, now),
            Err(error) => {
                match was_leading {
                    true => tracing::warn!("Lease {LEASE_NAME} was not renewed: {error}"),
                    false => tracing::debug!("Lease {LEASE_NAME} was not acquired: {error}"),
                }
                return self.elector.failed(now);
            }
        }
        // Not if the answer took so long that the lease may be another's by now.
        if !self.elector.is_leading(now) {
            return;
        }
        self.fence.renewed(sent, sent_at);
        if !was_leading {
            tracing::info!("Acting as elected leader");
            self.master_status(1);
            self.record("became leader");
            self.standing.send_replace(Standing::Leader);
        }
    }

    /// Two tries fit into the renew deadline, and none of a leader goes beyond it.
    fn call_limit(&self) -> Duration {
        let limit = self.settings.timing.renew_deadline / 2;
        self.elector.time_left(Instant::now()).map_or(limit, |left| left.min(limit))
    }

    async fn lose(&mut self) {
        self.fence.revoke();
        self.master_status(0);
        self.standing.send_replace(Standing::Lost);
    }

    async fn give_up(&mut self) {
        self.fence.revoke();
        self.master_status(0);
        let led = self.elector.is_leading(Instant::now());
        if !led {
            return;
        }
        // A renewal that was under way may have made the version that we know an old one.
        self.read().await;
        let Some(lease) = self.elector.release(Instant::now(), self.clock.now()) else { return };
        match limited(self.call_limit(), self.leases.replace(LEASE_NAME, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!("Leadership released"),
            Err(error) => tracing::warn!("Lease {LEASE_NAME} was not released, it runs out by itself: {error}"),
        }
    }

    /// Tells the log who leads, once for each leader.
    fn tell(&mut self) {
        let holder = self.elector.holder().map(str::to_owned);
        if holder == self.told {
            return;
        }
        if let Some(leader) = holder.as_deref().filter(|leader| *leader != self.settings.identity) {
            tracing::info!("Another instance has been elected as leader: {leader}");
        }
        self.told = holder;
    }

    fn master_status(&self, status: i64) {
        self.metrics.leader.with_label_values(&[LEASE_NAME]).set(status);
    }

    /// An event about the lease, as client-go's recorder writes it. Nobody waits for it, and nothing depends on it.
    fn record(&self, what: &str) {
        let Some(lease) = self.elector.lease() else { return };
        let at = Time(self.clock.now());
        let event = Event {
            metadata: ObjectMeta { generate_name: Some(format!("{LEASE_NAME}.")), ..ObjectMeta::default() },
            involved_object: ObjectReference {
                api_version: Some("coordination.k8s.io/v1".to_owned()),
                kind: Some("Lease".to_owned()),
                namespace: Some(self.settings.namespace.clone()),
                name: Some(LEASE_NAME.to_owned()),
                uid: lease.uid(),
                resource_version: lease.resource_version(),
                ..ObjectReference::default()
            },
            type_: Some("Normal".to_owned()),
            reason: Some("LeaderElection".to_owned()),
            message: Some(format!("{} {what}", self.settings.identity)),
            source: Some(EventSource { component: Some("aviary".to_owned()), ..EventSource::default() }),
            first_timestamp: Some(at.clone()),
            last_timestamp: Some(at),
            count: Some(1),
            ..Event::default()
        };
        let (events, limit) = (self.events.clone(), self.call_limit());
        tokio::spawn(async move {
            if let Err(error) = limited(limit, events.create(&PostParams::default(), &event)).await {
                tracing::debug!("event of the election was not recorded: {error}");
            }
        });
    }
}

async fn limited<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(crate::one_line(&anyhow::Error::from(error))),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// A watch on the one lease, so that a release is seen at once. Without it the election works, only later.
fn changes(leases: &Api<Lease>) -> Changes {
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE_NAME}"));
    let events = watcher(leases.clone(), config).default_backoff();
    let changes = events.filter_map(|event| async {
        match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => Some(Some(lease)),
            Ok(watcher::Event::Delete(_)) => Some(None),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
            Err(error) => {
                tracing::debug!(%error, "the watch on the lease failed");
                None
            }
        }
    });
    changes.boxed()
}
