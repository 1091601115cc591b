//! StatefulSets: pods with fixed names, one after another, after the stateful set controller of Kubernetes.
//!
//! No PersistentVolumeClaim is made of a template for one; `minReadySeconds` and `maxUnavailable` are not looked at.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::PodInfo;
use super::engine::Engine;
use super::json::{count, encode_hash, integer, is_deleting, template_hash, text};
use super::queue::ObjectName;
use super::replica_set::PodIdentity;
use super::revisions::Revision;
use crate::store::{StatusError, kinds};

const COMPONENT: &str = "statefulset-controller";
const REVISION_LABEL: &str = "controller-revision-hash";
/// Label of a ControllerRevision that holds the hash alone; the pods' label has its name.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

type Pods = BTreeMap<i32, (ObjectName, PodInfo)>;

impl Engine {
    pub(super) fn reconcile_stateful_set(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let set = self.store.get(&kinds::STATEFUL_SET, &name.namespace, &name.name)?;
        let uid = text(&set, "/metadata/uid").unwrap_or_default();
        let pods: Pods = self
            .cache
            .pods_of(uid)
            .into_iter()
            .filter_map(|(pod_name, pod)| Some((ordinal(&name.name, pod_name)?, (pod_name.clone(), pod.clone()))))
            .collect();
        let hash = encode_hash(template_hash(&set["spec"]["template"]), 0);
        let revision = format!("{}-{hash}", name.name);
        let wanted = count(&set, "/spec/replicas").unwrap_or(1);
        let mut refused = false;
        if !is_deleting(&set) {
            let history = Revision { hash: &hash, label: HASH_LABEL };
            self.keep_revisions(&set, &history, |hash| {
                let used = format!("{}-{hash}", name.name);
                pods.values().any(|(_, pod)| is_of(pod, &used))
            });
            refused = self.step(&set, &name.name, &pods, wanted, &revision).is_err();
        }
        self.write_stateful_set_status(name, &set, &pods, wanted, &revision);
        refused.then(|| self.retry_at())
    }

    /// One step towards what is wanted; the next follows when the pods have changed.
    ///
    /// # Errors
    /// What a pod was refused for.
    fn step(&mut self, set: &Value, name: &str, pods: &Pods, wanted: i32, revision: &str) -> Result<(), StatusError> {
        let in_order = text(set, "/spec/podManagementPolicy") != Some("Parallel");
        let mut settled = true;
        for ordinal in 0..wanted {
            match pods.get(&ordinal) {
                Some((_, pod)) if pod.is_serving() => continue,
                Some(_) => {}
                None => {
                    let identity =
                        PodIdentity { name: format!("{name}-{ordinal}"), labels: labels(name, ordinal, revision) };
                    self.create_pod_as(set, COMPONENT, Some(&identity))?;
                }
            }
            settled = false;
            if in_order {
                return Ok(());
            }
        }
        for (_, (pod_name, pod)) in pods.range(wanted..).rev() {
            if pod.is_active() {
                self.remove(set, pod_name);
            }
            settled = false;
            if in_order {
                return Ok(());
            }
        }
        let replaces = text(set, "/spec/updateStrategy/type") != Some("OnDelete");
        if !settled || !replaces {
            return Ok(());
        }
        // From the last to the first, and only down to the partition.
        let partition = count(set, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        let outdated = pods.range(partition..).rev().find(|(_, (_, pod))| !is_of(pod, revision));
        if let Some((_, (pod_name, _))) = outdated {
            self.remove(set, pod_name);
        }
        Ok(())
    }

    fn remove(&mut self, set: &Value, pod: &ObjectName) {
        let set_name = text(set, "/metadata/name").unwrap_or_default();
        let message = format!("Delete Pod {} in StatefulSet {set_name} successful", pod.name);
        self.terminate_pod(pod);
        self.record_event(set, COMPONENT, "SuccessfulDelete", &message);
    }

    fn write_stateful_set_status(&self, name: &ObjectName, set: &Value, pods: &Pods, wanted: i32, revision: &str) {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let active = || pods.values().map(|(_, pod)| pod).filter(|pod| pod.is_active());
        let ready = number(active().filter(|pod| pod.is_serving()).count());
        let updated = number(active().filter(|pod| is_of(pod, revision)).count());
        let before = text(set, "/status/currentRevision");
        let is_rolled_out = updated == wanted && ready == wanted;
        let current_revision = match before {
            Some(before) if !is_rolled_out => before,
            _ => revision,
        };
        let current = number(active().filter(|pod| is_of(pod, current_revision)).count());
        let mut status = json!({
            "observedGeneration": integer(set, "/metadata/generation"), "replicas": number(active().count()),
            "currentRevision": current_revision, "updateRevision": revision, "collisionCount": 0, "availableReplicas": ready,
        });
        for (field, value) in [("readyReplicas", ready), ("currentReplicas", current), ("updatedReplicas", updated)] {
            if value > 0 {
                status[field] = value.into();
            }
        }
        if set.get("status") != Some(&status) {
            self.update(&kinds::STATEFUL_SET, name, |set| set["status"] = status);
        }
    }
}

fn ordinal(set: &str, pod: &ObjectName) -> Option<i32> {
    pod.name.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

fn is_of(pod: &PodInfo, revision: &str) -> bool {
    pod.labels.get(REVISION_LABEL).is_some_and(|label| label == revision)
}

fn labels(set: &str, ordinal: i32, revision: &str) -> Vec<(&'static str, String)> {
    vec![
        (REVISION_LABEL, revision.to_owned()),
        ("statefulset.kubernetes.io/pod-name", format!("{set}-{ordinal}")),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
    ]
}
