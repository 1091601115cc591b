//! Workloads without objects: the same rollouts on counts of pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::behaviours::{PodBehaviour, PodOutcome};
use super::deployment::{DeploymentSpec, DeploymentStatus, Operation, SetStatus, SetView, plan};
use super::engine::Engine;
use super::json::{TEMPLATE_HASH_LABEL, after, earliest, images, seconds, strings, template_hash, text, whole_second};
use super::queue::ObjectName;
use super::workloads::{VersionPods, WorkloadKind};
use crate::store::kinds;

/// Passes of one decision at one moment. Each pass but the last scales, creates or deletes a set, and pods appear and vanish
/// between passes; a rollout needs two or three, history cleanup one more. The bound only keeps a mistake from hanging.
const PASSES: usize = 16;

/// Pods that were created at the same moment.
#[derive(Debug, Clone)]
struct Cohort {
    count: i32,
    created: Timestamp,
    ready_since: Option<Timestamp>,
}

/// The pods of one template.
#[derive(Debug, Clone, Default)]
pub(super) struct PodGroup {
    /// Oldest first.
    cohorts: Vec<Cohort>,
    terminating: Vec<(i32, Timestamp)>,
}

impl PodGroup {
    fn replicas(&self) -> i32 {
        self.cohorts.iter().map(|cohort| cohort.count).sum()
    }

    fn terminating(&self) -> i32 {
        self.terminating.iter().map(|(count, _)| count).sum()
    }

    fn step(&mut self, behaviour: PodBehaviour, start_delay: Duration, now: Timestamp) {
        self.terminating.retain(|(_, until)| *until > now);
        for cohort in &mut self.cohorts {
            let is_up = behaviour.outcome == PodOutcome::Ready && after(cohort.created, start_delay) <= now;
            // In whole seconds like the condition of a stored pod, from which availability is reckoned.
            cohort.ready_since = is_up.then(|| cohort.ready_since.unwrap_or(whole_second(now)));
        }
    }

    fn resize(&mut self, to: i32, now: Timestamp, termination_delay: Duration) {
        let surplus = self.replicas() - to;
        if surplus < 0 {
            self.cohorts.push(Cohort { count: -surplus, created: now, ready_since: None });
            return;
        }
        if surplus == 0 {
            return;
        }
        // Kubernetes removes pods that are not ready first, then those that became ready last.
        let mut order: Vec<usize> = (0..self.cohorts.len()).collect();
        order.sort_by_key(|index| {
            let cohort = &self.cohorts[*index];
            (cohort.ready_since.is_some(), std::cmp::Reverse(cohort.ready_since), std::cmp::Reverse(*index))
        });
        let mut left = surplus;
        for index in order {
            let cohort = &mut self.cohorts[index];
            let taken = cohort.count.min(left);
            cohort.count -= taken;
            left -= taken;
        }
        self.cohorts.retain(|cohort| cohort.count > 0);
        self.terminating.push((surplus, after(now, termination_delay)));
    }

    fn status(&self, min_ready: Duration, now: Timestamp) -> SetStatus {
        let mut status =
            SetStatus { replicas: self.replicas(), terminating: self.terminating(), ..SetStatus::default() };
        for cohort in &self.cohorts {
            let Some(ready_since) = cohort.ready_since else {
                continue;
            };
            status.ready += cohort.count;
            if after(ready_since, min_ready) <= now {
                status.available += cohort.count;
            }
        }
        status
    }

    /// The next moment at which [`step`](Self::step) or [`status`](Self::status) has another result.
    fn next_change(
        &self,
        behaviour: PodBehaviour,
        start_delay: Duration,
        min_ready: Duration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut next = self.terminating.iter().map(|(_, until)| *until).min();
        for cohort in &self.cohorts {
            let at = match cohort.ready_since {
                Some(since) => after(since, min_ready),
                None if behaviour.outcome == PodOutcome::Ready => after(cohort.created, start_delay),
                None => continue,
            };
            if at > now {
                next = earliest(next, Some(at));
            }
        }
        next
    }
}

/// A ReplicaSet that is not stored.
#[derive(Debug)]
struct CountedSet {
    view: SetView,
    labels: Arc<BTreeMap<String, String>>,
    images: Vec<String>,
    pods: PodGroup,
}

/// A Deployment's sets.
#[derive(Debug, Default)]
pub(super) struct CountedDeployment {
    uid: String,
    sets: Vec<CountedSet>,
}

/// A DaemonSet's pods by template.
#[derive(Debug, Default)]
pub(super) struct CountedDaemonSet {
    uid: String,
    versions: Vec<CountedDaemonVersion>,
}

#[derive(Debug)]
struct CountedDaemonVersion {
    hash: u64,
    labels: Arc<BTreeMap<String, String>>,
    images: Vec<String>,
    pods: PodGroup,
}

/// How the pods of a template behave, with the delay resolved.
fn behaviour_of(engine: &Engine, images: &[String]) -> (PodBehaviour, Duration) {
    let behaviour = engine.options.behaviours.of_pod(images.iter().map(String::as_str));
    let delay = behaviour.start_delay.unwrap_or(engine.options.start_delay);
    (behaviour, delay)
}

fn version_pods(labels: &Arc<BTreeMap<String, String>>, images: &[String], ready: i32) -> VersionPods {
    VersionPods {
        labels: Arc::clone(labels),
        image: images.first().map_or("", String::as_str).into(),
        ready: u32::try_from(ready).unwrap_or(0),
    }
}

impl Engine {
    pub(super) fn count_deployment(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let mut counted = self.counted_deployments.remove(name).unwrap_or_default();
        let Some(object) = self.store.get(&kinds::DEPLOYMENT, &name.namespace, &name.name) else {
            self.retain_versions(WorkloadKind::Deployment, name, |_| false);
            return None;
        };
        let uid = text(&object, "/metadata/uid").unwrap_or_default();
        if counted.uid != uid {
            counted = CountedDeployment { uid: uid.to_owned(), sets: Vec::new() };
        }
        let wake = self.count_rollout(name, &object, &mut counted.sets);
        self.counted_deployments.insert(name.clone(), counted);
        wake
    }

    fn count_rollout(&mut self, name: &ObjectName, object: &Value, sets: &mut Vec<CountedSet>) -> Option<Timestamp> {
        let now = self.clock.now();
        let spec = DeploymentSpec::parse(object);
        let min_ready = seconds(spec.min_ready);
        let mut status = DeploymentStatus::parse(object);
        let mut revision = None;
        let mut wake = None;
        for _ in 0..PASSES {
            for set in sets.iter_mut() {
                let (behaviour, delay) = behaviour_of(self, &set.images);
                set.pods.step(behaviour, delay, now);
                set.view.status = set.pods.status(min_ready, now);
            }
            let views = sets.iter().map(|set| set.view.clone()).collect();
            let plan = plan(&spec, &status, views, now);
            status = plan.status;
            revision = plan.revision.or(revision);
            wake = plan.wake;
            if plan.operations.is_empty() {
                break;
            }
            for operation in plan.operations {
                let collision_count = status.collision_count;
                self.count_operation(&spec, object, sets, operation, collision_count);
            }
        }
        for set in sets.iter() {
            let (behaviour, delay) = behaviour_of(self, &set.images);
            let next = set.pods.next_change(behaviour, delay, min_ready, now);
            wake = earliest(wake, next);
            let pods = version_pods(&set.labels, &set.images, set.view.status.ready);
            self.workloads.set(WorkloadKind::Deployment, &name.namespace, &name.name, &set.view.name, Some(pods));
        }
        self.retain_versions(WorkloadKind::Deployment, name, |version| sets.iter().any(|set| set.view.name == version));
        self.write_deployment_status(name, object, &status, revision);
        wake
    }

    fn count_operation(
        &self,
        spec: &DeploymentSpec,
        object: &Value,
        sets: &mut Vec<CountedSet>,
        operation: Operation,
        collision_count: i32,
    ) {
        let now = self.clock.now();
        match operation {
            Operation::Create { name, revision, replicas } => {
                let mut labels = strings(object, "/spec/template/metadata/labels");
                labels.insert(TEMPLATE_HASH_LABEL.to_owned(), spec.encoded_hash(collision_count));
                let mut pods = PodGroup::default();
                pods.resize(replicas, now, Duration::ZERO);
                sets.push(CountedSet {
                    view: SetView {
                        name,
                        template_hash: spec.template_hash,
                        created: whole_second(now),
                        deleting: false,
                        revision,
                        replicas,
                        min_ready: spec.min_ready,
                        desired_annotation: Some(spec.replicas),
                        max_annotation: Some(spec.max_replicas()),
                        status: SetStatus::default(),
                        settled: true,
                        failure: None,
                    },
                    labels: Arc::new(labels),
                    images: object.pointer("/spec/template/spec").map(images).unwrap_or_default(),
                    pods,
                });
            }
            Operation::Scale { name, to, .. } => {
                if let Some(set) = sets.iter_mut().find(|set| set.view.name == name) {
                    set.view.replicas = to;
                    set.view.desired_annotation = Some(spec.replicas);
                    set.view.max_annotation = Some(spec.max_replicas());
                    set.pods.resize(to, now, self.options.termination_delay);
                }
            }
            Operation::Refresh { name, revision } => {
                if let Some(set) = sets.iter_mut().find(|set| set.view.name == name) {
                    set.view.revision = revision;
                    set.view.min_ready = spec.min_ready;
                }
            }
            Operation::Delete { name } => sets.retain(|set| set.view.name != name),
        }
    }

    pub(super) fn count_daemon_set(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let mut counted = self.counted_daemon_sets.remove(name).unwrap_or_default();
        let Some(object) = self.store.get(&kinds::DAEMON_SET, &name.namespace, &name.name) else {
            self.retain_versions(WorkloadKind::DaemonSet, name, |_| false);
            return None;
        };
        let uid = text(&object, "/metadata/uid").unwrap_or_default();
        if counted.uid != uid {
            counted = CountedDaemonSet { uid: uid.to_owned(), versions: Vec::new() };
        }
        let wake = self.count_daemon_pods(name, &object, &mut counted.versions);
        self.counted_daemon_sets.insert(name.clone(), counted);
        wake
    }

    fn count_daemon_pods(
        &mut self,
        name: &ObjectName,
        object: &Value,
        versions: &mut Vec<CountedDaemonVersion>,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let null = Value::Null;
        let template = object.pointer("/spec/template").unwrap_or(&null);
        let hash = template_hash(template);
        let wanted = i32::from(self.node.admits(&template["spec"]));
        let replaces = text(object, "/spec/updateStrategy/type") != Some("OnDelete");
        let min_ready = seconds(super::json::integer(object, "/spec/minReadySeconds").unwrap_or(0));
        let delay = self.options.termination_delay;

        for version in versions.iter_mut() {
            let (behaviour, start) = behaviour_of(self, &version.images);
            version.pods.step(behaviour, start, now);
            let outdated = version.hash != hash && replaces;
            if wanted == 0 || outdated {
                version.pods.resize(0, now, delay);
            }
        }
        versions.retain(|version| version.hash == hash || version.pods.replicas() + version.pods.terminating() > 0);
        // As on a real node, the next pod waits until the last one is gone.
        let occupied = versions.iter().any(|version| version.pods.replicas() + version.pods.terminating() > 0);
        if wanted == 1 && !occupied {
            versions.retain(|version| version.hash != hash);
            let mut pods = PodGroup::default();
            pods.resize(1, now, delay);
            let mut labels = strings(template, "/metadata/labels");
            labels.insert(super::daemon_set::REVISION_LABEL.to_owned(), super::daemon_set::revision_of(object));
            versions.push(CountedDaemonVersion {
                hash,
                labels: Arc::new(labels),
                images: template.get("spec").map(images).unwrap_or_default(),
                pods,
            });
        }

        let mut wake = None;
        let mut counts = super::daemon_set::DaemonCounts { desired: wanted, ..Default::default() };
        for version in versions.iter_mut() {
            let (behaviour, start) = behaviour_of(self, &version.images);
            version.pods.step(behaviour, start, now);
            let status = version.pods.status(min_ready, now);
            let next = version.pods.next_change(behaviour, start, min_ready, now);
            wake = earliest(wake, next);
            counts.current += status.replicas;
            counts.ready += status.ready;
            counts.available += status.available;
            if version.hash == hash {
                counts.updated += status.replicas;
            }
            self.workloads.set(
                WorkloadKind::DaemonSet,
                &name.namespace,
                &name.name,
                &format!("{:016x}", version.hash),
                Some(version_pods(&version.labels, &version.images, status.ready)),
            );
        }
        self.retain_versions(WorkloadKind::DaemonSet, name, |known| {
            versions.iter().any(|version| format!("{:016x}", version.hash) == known)
        });
        self.write_daemon_set_status(name, object, counts);
        wake
    }

    pub(super) fn retain_versions(&self, kind: WorkloadKind, name: &ObjectName, keep: impl Fn(&str) -> bool) {
        self.workloads.retain(kind, &name.namespace, &name.name, keep);
    }
}
