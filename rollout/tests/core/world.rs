//! The model: two workloads, the objects around them, the routes, the status, and what metrics and hooks would answer.

use std::collections::{BTreeMap, BTreeSet};

use aviary_crds::status::CanaryStatus;
use aviary_crds::validated::WebhookType;
use aviary_rollout::{
    Answers, Component, Pending, Plan, PrimaryView, Readiness, Returned, Reverted, Reverting, Sample, SampleError,
    Scale, ServingSince, Snapshot, Split, TargetView,
};
use jiff::{SignedDuration, Timestamp};

pub(crate) type Configs = BTreeMap<String, String>;

pub(crate) fn configs(version: &str) -> Configs {
    BTreeMap::from([("configmap/app".to_owned(), version.to_owned())])
}

pub(crate) fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

/// A Deployment in rough: a rolling update keeps the old pods until the new ones are available.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) revision: String,
    pub(crate) configs: Configs,
    pub(crate) replicas: u32,
    started: Timestamp,
    /// `None`: never.
    ready_at: Option<Timestamp>,
    kept: u32,
    crashed: Option<Timestamp>,
}

impl Workload {
    pub(crate) fn available(&self, now: Timestamp) -> u32 {
        if self.replicas == 0 || self.crashed.is_some() {
            return 0;
        }
        if self.ready_at.is_some_and(|at| at <= now) { self.replicas } else { self.kept }
    }

    fn serving_since(&self, now: Timestamp) -> Option<Timestamp> {
        let since = if self.kept > 0 { Timestamp::MIN } else { self.ready_at? };
        (self.available(now) > 0).then_some(since)
    }

    fn readiness(&self, now: Timestamp, name: &str, deadline: SignedDuration) -> Readiness {
        let rolled_out = self.ready_at.is_some_and(|at| at <= now);
        if self.replicas == 0 || (rolled_out && self.crashed.is_none()) {
            return Readiness::Ready;
        }
        let since = self.crashed.unwrap_or(self.started);
        if now >= since + deadline {
            return Readiness::Failed { reason: format!("{name} not ready: exceeded its progress deadline") };
        }
        let reason = format!(
            "{name} not ready: waiting for rollout to finish: 0 out of {} new replicas have been updated",
            self.replicas
        );
        Readiness::Waiting { reason, deadline: Some(since + deadline) }
    }
}

/// What the metrics say, whatever the revision; `Truth` leaves it to the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metrics {
    Truth,
    Good,
    Bad,
    NoValues,
    Outage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Target,
    Primary,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) target: Option<Workload>,
    pub(crate) primary: Option<Workload>,
    /// `None`: the routes do not exist. Never set where nothing is routed.
    pub(crate) routes: Option<Split>,
    pub(crate) routed: bool,
    pub(crate) pending: Pending,
    /// An autoscaler that scales from zero by itself, as KEDA does with `minReplicaCount: 1`: whether it is paused.
    pub(crate) scaler_paused: Option<bool>,
    /// Whether that autoscaler acts at once, or never.
    pub(crate) scaler_acts: bool,
    /// When routes or services were last changed, or the process began.
    pub(crate) routed_since: Timestamp,
    pub(crate) status: CanaryStatus,
    pub(crate) suspended: bool,
    pub(crate) deleting: bool,
    pub(crate) has_finalizer: bool,
    /// The canary object is gone.
    pub(crate) gone: bool,
    /// Whether the apex service and the routes were the user's before the canary came.
    pub(crate) adopted: bool,
    pub(crate) reverted: BTreeSet<&'static str>,
    /// How long a healthy rollout takes.
    pub(crate) delay: SignedDuration,
    pub(crate) deadline: SignedDuration,
    /// Revisions that never become ready, by side.
    pub(crate) never_ready: BTreeSet<(bool, String)>,
    /// Revisions whose metrics are bad.
    pub(crate) bad: BTreeSet<String>,
    pub(crate) metrics: Metrics,
    /// Hook types that answer no. For rollback hooks "no" is the normal answer.
    pub(crate) refusing: BTreeSet<WebhookType>,
    /// What a good round with traffic has shown to be good, and what the bootstrap took for granted.
    pub(crate) analysed: BTreeSet<(String, Configs)>,
}

/// Why an effect was not executed.
#[derive(Debug)]
pub(crate) struct Rejected;

impl World {
    pub(crate) fn new(revision: &str) -> World {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        World {
            now,
            target: Some(Workload {
                revision: revision.to_owned(),
                configs: configs("1"),
                replicas: 1,
                started: now,
                ready_at: Some(now),
                kept: 0,
                crashed: None,
            }),
            primary: None,
            routes: None,
            routed: true,
            pending: Pending { services: true, scaler: true, apex: true, routes: false },
            scaler_paused: None,
            scaler_acts: true,
            routed_since: now,
            status: CanaryStatus::default(),
            suspended: false,
            deleting: false,
            has_finalizer: false,
            gone: false,
            adopted: true,
            reverted: BTreeSet::new(),
            delay: seconds(5),
            deadline: seconds(60),
            never_ready: BTreeSet::new(),
            bad: BTreeSet::new(),
            metrics: Metrics::Truth,
            refusing: BTreeSet::from([WebhookType::Rollback]),
            analysed: BTreeSet::new(),
        }
    }

    pub(crate) fn snapshot(&self, plan: &Plan, answers: &Answers) -> Snapshot {
        let target = self.target.as_ref().map(|target| TargetView {
            revision: target.revision.clone(),
            configs: Some(target.configs.clone()),
            scaled_to_zero: target.replicas == 0,
            readiness: target.readiness(self.now, &format!("canary deployment {}", plan.target_id()), self.deadline),
            available: target.available(self.now),
        });
        let primary = self.primary.as_ref().map(|primary| PrimaryView {
            matches_target: self
                .target
                .as_ref()
                .is_some_and(|target| (&target.revision, &target.configs) == (&primary.revision, &primary.configs)),
            readiness: primary.readiness(self.now, &plan.primary_id(), self.deadline),
            available: primary.available(self.now),
        });
        let routes = self.routes.ok_or_else(|| "routes not found".to_owned());
        Snapshot {
            now: self.now,
            deleting: self.deleting,
            has_finalizer: self.has_finalizer,
            reverting: (plan.revert_on_deletion && self.deleting && self.has_finalizer).then(|| Ok(self.reverting())),
            target: target.ok_or_else(|| format!("deployment {} get query error: not found", plan.target_id())),
            primary,
            pending: Pending { routes: self.routed && self.routes.is_none(), ..self.pending },
            scaler_paused: self.scaler_paused,
            repairs_paused: false,
            routed_since: self.routed_since,
            serving_since: ServingSince {
                primary: self.primary.as_ref().and_then(|primary| primary.serving_since(self.now)),
                canary: self.target.as_ref().and_then(|target| target.serving_since(self.now)),
            },
            traffic: self.routed.then_some(routes),
            answers: answers.clone(),
            asking: None,
        }
    }

    fn reverting(&self) -> Reverting {
        let wanted = self.primary.as_ref().map_or(1, |primary| primary.replicas.max(1));
        let target = self.target.as_ref().map(|target| Returned {
            is_short_of_pods: target.replicas < wanted,
            readiness: target.readiness(self.now, "target", self.deadline),
            available: target.available(self.now),
        });
        let is_left = |what: &str| self.adopted && !self.reverted.contains(what);
        Reverting { target, apex: is_left("apex"), routes: self.routes.is_some() && is_left("routes") }
    }

    pub(crate) fn revert(&mut self, reverted: Reverted) {
        self.routed_since = self.now;
        self.reverted.insert(match reverted {
            Reverted::Apex => "apex",
            Reverted::Routes => "routes",
        });
    }

    pub(crate) fn pause_scaler(&mut self, paused: bool) {
        self.scaler_paused = self.scaler_paused.map(|_| paused);
    }

    /// What the autoscaler does about the target.
    pub(crate) fn autoscale(&mut self) {
        let Some(paused) = self.scaler_paused.filter(|_| self.scaler_acts) else { return };
        // It fails only where there is no target.
        let _ = self.scale(if paused { Scale::Zero } else { Scale::Up });
    }

    /// When a watch would next report something by itself. Deadlines, gates and metrics are not watched.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        let workloads = [&self.target, &self.primary];
        workloads.into_iter().flatten().filter_map(|workload| workload.ready_at).filter(|at| *at > self.now).min()
    }

    fn is_broken(&self, side: Side, revision: &str) -> bool {
        self.never_ready.contains(&(side == Side::Primary, revision.to_owned()))
    }

    /// Starts a rollout of what `workload` holds now.
    fn roll(&self, side: Side, workload: &mut Workload, kept: u32) {
        workload.started = self.now;
        workload.kept = kept;
        workload.ready_at = (!self.is_broken(side, &workload.revision)).then_some(self.now + self.delay);
    }

    /// What a user does: a new pod template, new configs, or both.
    pub(crate) fn edit(&mut self, revision: Option<&str>, version: Option<&str>) {
        let Some(mut target) = self.target.clone() else { return };
        let kept = target.available(self.now);
        if let Some(revision) = revision {
            target.revision = revision.to_owned();
        }
        if let Some(version) = version {
            target.configs = configs(version);
        }
        if revision.is_some() && target.replicas > 0 {
            self.roll(Side::Target, &mut target, kept);
        }
        self.target = Some(target);
    }

    pub(crate) fn crash(&mut self, side: Side) {
        let now = self.now;
        if let Some(workload) = self.side(side) {
            workload.crashed.get_or_insert(now);
        }
    }

    pub(crate) fn recover(&mut self, side: Side) {
        let now = self.now;
        if let Some(workload) = self.side(side) {
            workload.crashed = None;
            workload.ready_at = Some(now);
        }
    }

    fn side(&mut self, side: Side) -> Option<&mut Workload> {
        match side {
            Side::Target => self.target.as_mut(),
            Side::Primary => self.primary.as_mut(),
        }
    }

    pub(crate) fn apply(&mut self, component: Component) -> Result<(), Rejected> {
        match component {
            Component::Services => {
                self.pending.services = false;
                self.routed_since = self.now;
            }
            Component::Scaler => self.pending.scaler = false,
            Component::Apex => {
                self.pending.apex = false;
                self.routed_since = self.now;
            }
            Component::Routes(split) => {
                self.routes = Some(split);
                self.routed_since = self.now;
            }
            Component::Primary => {
                let target = self.target.as_ref().ok_or(Rejected)?;
                let (revision, configs) = (target.revision.clone(), target.configs.clone());
                self.bring_primary_to(revision, configs);
            }
        }
        Ok(())
    }

    fn bring_primary_to(&mut self, revision: String, configs: Configs) {
        let before = self.primary.clone();
        if before.as_ref().is_some_and(|primary| (&primary.revision, &primary.configs) == (&revision, &configs)) {
            return;
        }
        let kept = before.map_or(0, |primary| primary.available(self.now));
        let now = self.now;
        let mut primary =
            Workload { revision, configs, replicas: 1, started: now, ready_at: None, kept: 0, crashed: None };
        self.roll(Side::Primary, &mut primary, kept);
        self.primary = Some(primary);
    }

    pub(crate) fn promote(&mut self, revision: &str, configs: Option<&Configs>) -> Result<(), Rejected> {
        let target = self.target.as_ref().ok_or(Rejected)?;
        if target.revision != revision || Some(&target.configs) != configs {
            return Err(Rejected);
        }
        let configs = target.configs.clone();
        self.bring_primary_to(revision.to_owned(), configs);
        Ok(())
    }

    pub(crate) fn set_traffic(&mut self, split: Split) -> Result<(), Rejected> {
        let routes = self.routes.as_mut().ok_or(Rejected)?;
        *routes = split;
        self.routed_since = self.now;
        Ok(())
    }

    pub(crate) fn scale(&mut self, scale: Scale) -> Result<(), Rejected> {
        let mut target = self.target.clone().ok_or(Rejected)?;
        match scale {
            Scale::Zero => target = Workload { replicas: 0, crashed: None, kept: 0, ..target },
            Scale::Up if target.replicas > 0 => {}
            Scale::Restore if target.replicas > 0 => {}
            Scale::Up | Scale::Restore => {
                target.replicas = 1;
                self.roll(Side::Target, &mut target, 0);
            }
        }
        self.target = Some(target);
        Ok(())
    }

    /// One sample, as the observer would report it.
    /// `has_load` tells that something else than users asks the canary.
    pub(crate) fn sample(&mut self, has_load: bool) -> Sample {
        let Some(target) = &self.target else { return Err(SampleError::NoValues("no target".into())) };
        let good = match self.metrics {
            Metrics::Truth => !self.bad.contains(&target.revision),
            Metrics::Good => true,
            Metrics::Bad => false,
            Metrics::NoValues => {
                let text = "Halt advancement no values found for prometheus metric request-success-rate";
                return Err(SampleError::NoValues(text.into()));
            }
            Metrics::Outage => return Err(SampleError::Unavailable("connection refused".into())),
        };
        if good && (has_load || self.routes.is_some_and(|split| split.canary > 0 || split.mirrored)) {
            self.analysed.insert((target.revision.clone(), target.configs.clone()));
        }
        Ok(if good { 100.0 } else { 50.0 })
    }
}
