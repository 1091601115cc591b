//! DaemonSets on the one node of the embedded cluster.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{earliest, encode_hash, integer, is_deleting, seconds, template_hash, text};
use super::queue::ObjectName;
use super::replica_set::PodCounts;
use super::revisions::Revision;
use super::workloads::{VersionPods, WorkloadKind};
use crate::store::kinds;

/// Label by which a DaemonSet's pods name their revision.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// Counts for `.status`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct DaemonCounts {
    pub(super) desired: i32,
    pub(super) current: i32,
    pub(super) misscheduled: i32,
    pub(super) ready: i32,
    pub(super) updated: i32,
    pub(super) available: i32,
}

pub(super) fn revision_of(daemon_set: &Value) -> String {
    let null = Value::Null;
    let template = daemon_set.pointer("/spec/template").unwrap_or(&null);
    encode_hash(template_hash(template), 0)
}

/// Whether a new pod is made before the old one goes: on one node every `maxSurge` but zero comes to one pod.
fn surges(daemon_set: &Value) -> bool {
    match daemon_set.pointer("/spec/updateStrategy/rollingUpdate/maxSurge") {
        Some(Value::String(share)) => share.trim_end_matches('%') != "0",
        Some(Value::Number(count)) => count.as_i64() != Some(0),
        _ => false,
    }
}

/// Taints that a DaemonSet's pods tolerate, and the effect of each (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Makes a pod stay where others have to leave.
pub(super) fn tolerate_troubles_of_nodes(spec: &mut Value) {
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = json!([]);
    }
    let shares_network = spec["hostNetwork"] == true;
    let Some(tolerations) = spec["tolerations"].as_array_mut() else { return };
    let of_network = shares_network.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(of_network) {
        let toleration = json!({"effect": effect, "key": key, "operator": "Exists"});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

impl Engine {
    pub(super) fn reconcile_daemon_set(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let Some(object) = self.store.get(&kinds::DAEMON_SET, &name.namespace, &name.name) else {
            self.retain_versions(WorkloadKind::DaemonSet, name, |_| false);
            return None;
        };
        let uid = text(&object, "/metadata/uid").unwrap_or_default();
        let revision = revision_of(&object);
        let pod_spec = &object["spec"]["template"]["spec"];
        let wanted = self.node.admits(pod_spec);
        // A taint keeps new pods away and leaves those that run.
        let can_start = self.node.refuse(pod_spec, true).is_none();
        let replaces = text(&object, "/spec/updateStrategy/type") != Some("OnDelete");
        let min_ready = seconds(integer(&object, "/spec/minReadySeconds").unwrap_or(0));
        let now = self.clock.now();

        let pods: Vec<_> = self.cache.pods_of(uid).into_iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
        let is_current =
            |labels: &std::collections::BTreeMap<String, String>| labels.get(REVISION_LABEL) == Some(&revision);
        let mut retry = None;
        if !is_deleting(&object) {
            let history = Revision { hash: &revision, label: REVISION_LABEL };
            self.keep_revisions(&object, &history, |hash| {
                pods.iter().any(|(_, pod)| pod.labels.get(REVISION_LABEL).is_some_and(|label| label == hash))
            });
            let surges = replaces && surges(&object);
            // Where the new pod starts beside the old one, only a new one is in its way.
            let occupied = pods.iter().any(|(_, pod)| !pod.finished && (!surges || is_current(&pod.labels)));
            let replacement_serves = pods.iter().any(|(_, pod)| {
                is_current(&pod.labels)
                    && pod.is_active()
                    && pod.available_from(min_ready).is_some_and(|from| from <= now)
            });
            if can_start && !occupied && self.create_pod(&object, "daemonset-controller").is_err() {
                retry = Some(self.retry_at());
            }
            for (pod_name, pod) in pods.iter().filter(|(_, pod)| pod.is_active()) {
                let may_go = !surges || replacement_serves || !pod.is_serving();
                if !wanted || (replaces && !is_current(&pod.labels) && may_go) {
                    let message = format!("Deleted pod: {}", pod_name.name);
                    self.terminate_pod(pod_name);
                    self.record_event(&object, "daemonset-controller", "SuccessfulDelete", &message);
                }
            }
        }

        let pod_counts = PodCounts::of(pods.iter().map(|(_, pod)| pod), min_ready, now);
        let updated = pods.iter().filter(|(_, pod)| pod.is_active() && is_current(&pod.labels)).count();
        let mut counts = DaemonCounts { desired: i32::from(wanted), ..DaemonCounts::default() };
        if wanted {
            counts.current = pod_counts.active;
            counts.ready = pod_counts.ready;
            counts.available = pod_counts.available;
            counts.updated = i32::try_from(updated).unwrap_or(i32::MAX);
        } else {
            counts.misscheduled = pod_counts.active;
        }
        self.publish_daemon_set(name, uid);
        self.write_daemon_set_status(name, &object, counts);
        earliest(pod_counts.next_available, retry)
    }

    /// Tells the table of workloads how many pods of each revision are ready.
    fn publish_daemon_set(&self, name: &ObjectName, uid: &str) {
        let mut revisions: std::collections::BTreeMap<String, VersionPods> = Default::default();
        for (_, pod) in self.cache.pods_of(uid) {
            let revision = pod.labels.get(REVISION_LABEL).cloned().unwrap_or_default();
            let pods = revisions.entry(revision).or_insert_with(|| VersionPods {
                labels: std::sync::Arc::new(pod.labels.clone()),
                image: std::sync::Arc::clone(&pod.image),
                ready: 0,
            });
            pods.ready += u32::from(pod.is_serving());
        }
        self.retain_versions(WorkloadKind::DaemonSet, name, |known| revisions.contains_key(known));
        for (revision, pods) in revisions {
            self.workloads.set(WorkloadKind::DaemonSet, &name.namespace, &name.name, &revision, Some(pods));
        }
    }

    pub(super) fn write_daemon_set_status(&self, name: &ObjectName, object: &Value, counts: DaemonCounts) {
        let mut status = json!({
            "currentNumberScheduled": counts.current,
            "desiredNumberScheduled": counts.desired,
            "numberMisscheduled": counts.misscheduled,
            "numberReady": counts.ready,
            "observedGeneration": object["metadata"]["generation"],
        });
        for (field, value) in [
            ("updatedNumberScheduled", counts.updated),
            ("numberAvailable", counts.available),
            ("numberUnavailable", counts.desired - counts.available),
        ] {
            if value > 0 {
                status[field] = value.into();
            }
        }
        if object.get("status") != Some(&status) {
            self.update(&kinds::DAEMON_SET, name, |object| object["status"] = status);
        }
    }
}
