//! The life of a stored pod: scheduled, started, ready or failing, terminating, gone.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::behaviours::PodOutcome;
use super::engine::Engine;
use super::events::Event;
use super::json::{after, earliest, images, integer, is_deleting, text, timestamp};
use super::node;
use super::pod_status::{ContainerStage, pull_error, render};
use super::queue::ObjectName;
use crate::store::kinds;

/// First wait of a kubelet before it restarts a crashed container; it doubles with every crash.
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
/// The longest wait between two restarts, also a kubelet's.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// `terminationGracePeriodSeconds` where a template has none.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What the kubelet knows of a pod beyond its object.
#[derive(Debug)]
pub(super) struct PodMemory {
    uid: String,
    /// When the pod was first seen; object times have no fractions.
    since: Timestamp,
    /// When a pod that is being deleted will be gone.
    exit: Option<Timestamp>,
    /// Restarts of a crashing container so far, and when the next one is due.
    restarts: u32,
    next_restart: Option<Timestamp>,
    told: Told,
}

/// Which events were stored.
#[derive(Debug, Default)]
struct Told {
    /// Why no node takes the pod.
    refusal: Option<String>,
    scheduled: bool,
    started: bool,
    unhealthy: bool,
    pull: Option<ContainerStage>,
    restarts: u32,
    stopping: bool,
}

/// Wait after the n-th restart (n ≥ 1).
fn back_off(restarts: u32) -> Duration {
    let doublings = restarts.saturating_sub(1).min(5);
    (FIRST_BACK_OFF * 2_u32.pow(doublings)).min(LONGEST_BACK_OFF)
}

impl Engine {
    pub(super) fn reconcile_pod(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let Some(pod) = self.store.get(&kinds::POD, &name.namespace, &name.name) else {
            self.pods.remove(name);
            return None;
        };
        let now = self.clock.now();
        let uid = text(&pod, "/metadata/uid").unwrap_or_default();
        let memory = self.pods.entry(name.clone()).or_insert_with(|| PodMemory::new(uid, now));
        if memory.uid != uid {
            *memory = PodMemory::new(uid, now);
        }
        if is_deleting(&pod) {
            // The kubelet kills what has not ended by itself within the grace period.
            let killed = timestamp(&pod, "/metadata/deletionTimestamp").unwrap_or(Timestamp::MAX).max(now);
            let exit = *memory.exit.get_or_insert_with(|| after(now, self.options.termination_delay).min(killed));
            if now < exit {
                self.tell_stopping(name, &pod);
                return Some(exit);
            }
            self.delete(&kinds::POD, name);
            return None;
        }
        if matches!(text(&pod, "/status/phase"), Some("Failed" | "Succeeded")) {
            return None;
        }
        let is_bound = text(&pod, "/spec/nodeName").is_some();
        let of_daemon_set = super::json::controller_owner(&pod).is_some_and(|owner| owner.kind == "DaemonSet");
        if !is_bound && let Some(refusal) = self.node.refuse(&pod["spec"], of_daemon_set) {
            self.write_pod(name, &pod, super::pod_status::unschedulable(&pod, &refusal, now), false);
            self.tell_refusal(name, &pod, refusal);
            return None;
        }
        if let Some(memory) = self.pods.get_mut(name)
            && memory.told.refusal.take().is_some()
        {
            // It starts from here: until now it had no node.
            memory.since = now;
        }
        self.run_pod(name, &pod, now)
    }

    fn run_pod(&mut self, name: &ObjectName, pod: &Value, now: Timestamp) -> Option<Timestamp> {
        let images = pod.get("spec").map(images).unwrap_or_default();
        let behaviours = self.options.behaviours.clone();
        let of_job = super::json::controller_owner(pod).is_some_and(|owner| owner.kind == "Job");
        let ends = of_job || waits_for_input(pod);
        let behaviour = behaviours.of_pod(images.iter().map(String::as_str));
        let memory = self.pods.get_mut(name)?;
        let start_delay = behaviour.start_delay.unwrap_or(self.options.start_delay);
        let started = after(memory.since, start_delay);
        let has_started = started <= now;

        let mut wake = (!has_started).then_some(started);
        if has_started && behaviour.outcome == PodOutcome::CrashLoop {
            wake = Some(memory.count_restarts(now));
        } else {
            memory.next_restart = None;
        }
        let restarts = memory.restarts;
        // The first failure is shown as such until the kubelet looks again.
        let pull_again = after(memory.since, FIRST_BACK_OFF);
        if behaviour.outcome == PodOutcome::ImagePullError && now < pull_again {
            wake = earliest(wake, Some(pull_again));
        }
        let stages: Vec<ContainerStage> = images
            .iter()
            .map(|image| match behaviours.of_image(image).outcome {
                PodOutcome::ImagePullError if now < pull_again => ContainerStage::ErrImagePull,
                PodOutcome::ImagePullError => ContainerStage::ImagePullBackOff,
                _ if !has_started => ContainerStage::Creating,
                PodOutcome::Ready if ends => ContainerStage::Completed,
                PodOutcome::Ready => ContainerStage::Running { ready: true },
                PodOutcome::NeverReady => ContainerStage::Running { ready: false },
                PodOutcome::CrashLoop => ContainerStage::CrashLoopBackOff { restarts, back_off: back_off(restarts) },
            })
            .collect();
        let needs_address = text(pod, "/status/podIP").is_none();
        if needs_address {
            self.pod_addresses += 1;
        }
        let address = match text(pod, "/status/podIP") {
            Some(address) => address.to_owned(),
            None => node::pod_address(self.pod_addresses),
        };
        let status = render(pod, &stages, &address, now);
        self.write_pod(name, pod, status, true);
        self.tell_stages(name, pod, &stages);
        wake
    }

    /// Stores the events of what happened to a pod since it was last looked at, in the words of scheduler and kubelet.
    fn tell_stages(&mut self, name: &ObjectName, pod: &Value, stages: &[ContainerStage]) {
        if !self.options.events {
            return;
        }
        let Some(memory) = self.pods.get_mut(name) else { return };
        let mut told = std::mem::take(&mut memory.told);
        if !told.scheduled {
            told.scheduled = true;
            // Pods that were bound before this process began are no news.
            if text(pod, "/spec/nodeName").is_none() {
                let message = format!("Successfully assigned {}/{} to {}", name.namespace, name.name, node::NODE_NAME);
                self.record_event(pod, "default-scheduler", "Scheduled", &message);
            }
        }
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        for (container, stage) in containers.into_iter().flatten().zip(stages) {
            let container_name = text(container, "/name").unwrap_or_default();
            let image = text(container, "/image").unwrap_or_default();
            let mut tell = |severity: &str, reason: &str, message: &str| {
                let container = Some(container_name);
                self.record(&Event { about: pod, component: "kubelet", severity, reason, message, container });
            };
            let starts = match stage {
                ContainerStage::Creating => false,
                ContainerStage::ErrImagePull | ContainerStage::ImagePullBackOff => {
                    if told.pull != Some(*stage) {
                        told.pull = Some(*stage);
                        tell_pull(*stage, image, &mut tell);
                    }
                    false
                }
                ContainerStage::Running { .. } | ContainerStage::Completed => !told.started,
                ContainerStage::CrashLoopBackOff { restarts, .. } => told.restarts < *restarts,
            };
            if starts {
                let present =
                    format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
                tell("Normal", "Pulled", &present);
                tell("Normal", "Created", "Container created");
                tell("Normal", "Started", "Container started");
            }
            match stage {
                ContainerStage::Running { ready: false } if !told.unhealthy => {
                    told.unhealthy = true;
                    tell("Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503");
                }
                ContainerStage::CrashLoopBackOff { restarts, .. } if starts => {
                    told.restarts = *restarts;
                    let uid = text(pod, "/metadata/uid").unwrap_or_default();
                    let message = format!(
                        "Back-off restarting failed container {container_name} in pod {}_{}({uid})",
                        name.name, name.namespace
                    );
                    tell("Warning", "BackOff", &message);
                }
                _ => {}
            }
        }
        told.started |= stages.iter().any(|stage| matches!(stage, ContainerStage::Running { .. }));
        if let Some(memory) = self.pods.get_mut(name) {
            memory.told = told;
        }
    }

    /// The scheduler looks again whenever something changes; it tells of the same refusal once.
    fn tell_refusal(&mut self, name: &ObjectName, pod: &Value, refusal: String) {
        let Some(memory) = self.pods.get_mut(name) else { return };
        if memory.told.refusal.as_ref() == Some(&refusal) {
            return;
        }
        self.record_warning(pod, "default-scheduler", "FailedScheduling", &refusal);
        if let Some(memory) = self.pods.get_mut(name) {
            memory.told.refusal = Some(refusal);
        }
    }

    fn tell_stopping(&mut self, name: &ObjectName, pod: &Value) {
        let Some(memory) = self.pods.get_mut(name) else { return };
        if std::mem::replace(&mut memory.told.stopping, true) || !memory.told.started {
            return;
        }
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let container_name = text(container, "/name").unwrap_or_default();
            let message = format!("Stopping container {container_name}");
            self.record(&Event {
                about: pod,
                component: "kubelet",
                severity: "Normal",
                reason: "Killing",
                message: &message,
                container: Some(container_name),
            });
        }
    }

    fn write_pod(&self, name: &ObjectName, pod: &Value, status: Value, bind: bool) {
        let is_bound = text(pod, "/spec/nodeName").is_some();
        if pod.get("status") == Some(&status) && (is_bound || !bind) {
            return;
        }
        self.update(&kinds::POD, name, |pod| {
            if bind && !is_bound {
                pod["spec"]["nodeName"] = node::NODE_NAME.into();
            }
            pod["status"] = status;
        });
    }

    /// Begins the deletion of a pod, as the API server does it: the pod stays, marked, until its containers have exited.
    pub(super) fn terminate_pod(&mut self, name: &ObjectName) {
        let Some(pod) = self.store.get(&kinds::POD, &name.namespace, &name.name) else {
            return;
        };
        let grace = integer(&pod, "/spec/terminationGracePeriodSeconds").unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
        let deadline = after(self.clock.now(), super::json::seconds(grace));
        self.update(&kinds::POD, name, |pod| {
            pod["metadata"]["deletionTimestamp"] = crate::clock::format_seconds(deadline).into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        });
    }
}

/// Whether a pod is a shell for one session (`kubectl run -it --restart=Never`). Nobody can attach to it, so it ends as at the end
/// of its input; otherwise kubectl would wait for it for ever.
fn waits_for_input(pod: &Value) -> bool {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    text(pod, "/spec/restartPolicy") != Some("Always")
        && containers.into_iter().flatten().any(|container| container.get("stdinOnce") == Some(&Value::Bool(true)))
}

/// The events of an image that cannot be had.
fn tell_pull(stage: ContainerStage, image: &str, tell: &mut impl FnMut(&str, &str, &str)) {
    if stage == ContainerStage::ErrImagePull {
        tell("Normal", "Pulling", &format!("Pulling image \"{image}\""));
        tell("Warning", "Failed", &format!("Failed to pull image \"{image}\": {}", pull_error(image)));
        tell("Warning", "Failed", "Error: ErrImagePull");
    } else {
        tell("Normal", "BackOff", &format!("Back-off pulling image \"{image}\""));
        tell("Warning", "Failed", "Error: ImagePullBackOff");
    }
}

impl PodMemory {
    fn new(uid: &str, now: Timestamp) -> Self {
        Self { uid: uid.to_owned(), since: now, exit: None, restarts: 0, next_restart: None, told: Told::default() }
    }

    /// Brings the restart count up to `now` and returns when the next restart is due. The first restart follows the first
    /// crash at once, as a kubelet has no back-off for it.
    fn count_restarts(&mut self, now: Timestamp) -> Timestamp {
        match self.next_restart {
            Some(next) if now < next => next,
            _ => {
                self.restarts += 1;
                let next = after(now, back_off(self.restarts));
                self.next_restart = Some(next);
                next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_up_to_five_minutes() {
        let waits: Vec<u64> = (1..=8).map(|restarts| back_off(restarts).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
