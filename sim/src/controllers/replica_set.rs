//! ReplicaSets and the pods they own, after the replica set controller of Kubernetes.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::PodInfo;
use super::deployment::REPLICA_FAILURE;
use super::engine::Engine;
use super::json::{after, condition, count, earliest, integer, is_deleting, seconds, text, whole_second};
use super::queue::ObjectName;
use crate::apiserver::admission::{complete_pod_spec, qos_class};
use crate::store::{StatusError, kinds};

/// Pods created or deleted in one go, as in Kubernetes; the rest follows when their events come back.
const BURST: usize = 500;

/// After which a pod is tried again that could not be created. Kubernetes begins with 5 ms and doubles that up to 16 minutes;
/// this is what it comes to when somebody looks, and no busy loop in virtual time.
const RETRY: Duration = Duration::from_secs(10);

/// What tells a pod from the others of its owner.
pub(super) struct PodIdentity {
    pub(super) name: String,
    pub(super) labels: Vec<(&'static str, String)>,
}

/// Counts of a workload's pods at a moment, and when they will differ by the passing of time alone.
#[derive(Debug, Default)]
pub(super) struct PodCounts {
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) terminating: i32,
    pub(super) next_available: Option<Timestamp>,
}

impl PodCounts {
    pub(super) fn of<'a>(pods: impl IntoIterator<Item = &'a PodInfo>, min_ready: Duration, now: Timestamp) -> Self {
        let mut counts = Self::default();
        for pod in pods {
            if pod.terminating && !pod.finished {
                counts.terminating += 1;
            }
            if !pod.is_active() {
                continue;
            }
            counts.active += 1;
            let Some(available_from) = pod.available_from(min_ready) else {
                continue;
            };
            counts.ready += 1;
            if available_from <= now {
                counts.available += 1;
            } else {
                counts.next_available = earliest(counts.next_available, Some(available_from));
            }
        }
        counts
    }
}

impl Engine {
    pub(super) fn reconcile_replica_set(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let set = self.store.get(&kinds::REPLICA_SET, &name.namespace, &name.name)?;
        let uid = text(&set, "/metadata/uid").unwrap_or_default();
        let wanted = usize::try_from(count(&set, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
        let min_ready = seconds(integer(&set, "/spec/minReadySeconds").unwrap_or(0));
        let now = self.clock.now();

        let pods = self.cache.pods_of(uid);
        let counts = PodCounts::of(pods.iter().map(|(_, pod)| *pod), min_ready, now);
        let active = pods.iter().filter(|(_, pod)| pod.is_active()).count();
        let surplus: Vec<ObjectName> = pods_to_delete(pods, active.saturating_sub(wanted));
        let mut failure = None;
        if !is_deleting(&set) {
            for _ in 0..wanted.saturating_sub(active).min(BURST) {
                if let Err(error) = self.create_pod(&set, "replicaset-controller") {
                    failure = Some(error.message().to_owned());
                    break;
                }
            }
            for pod in surplus.into_iter().take(BURST) {
                let message = format!("Deleted pod: {}", pod.name);
                self.terminate_pod(&pod);
                self.record_event(&set, "replicaset-controller", "SuccessfulDelete", &message);
            }
        }
        self.write_set_status(name, &set, &counts, failure.as_deref());
        earliest(counts.next_available, failure.map(|_| self.retry_at()))
    }

    /// When a pod is tried again that could not be created.
    pub(super) fn retry_at(&self) -> Timestamp {
        after(self.clock.now(), RETRY)
    }

    fn write_set_status(&self, name: &ObjectName, set: &Value, counts: &PodCounts, failure: Option<&str>) {
        let generation = &set["metadata"]["generation"];
        let mut status = json!({
            "replicas": counts.active,
            "terminatingReplicas": counts.terminating,
            "observedGeneration": generation,
        });
        for (field, value) in [
            ("fullyLabeledReplicas", counts.active),
            ("readyReplicas", counts.ready),
            ("availableReplicas", counts.available),
        ] {
            if value > 0 {
                status[field] = value.into();
            }
        }
        if let Some(failure) = failure {
            let new = || {
                let now = whole_second(self.clock.now());
                json!({
                    "type": REPLICA_FAILURE, "status": "True", "reason": "FailedCreate", "message": failure,
                    "lastTransitionTime": now,
                })
            };
            // The first failure is told until there is none.
            status["conditions"] = json!([condition(set, REPLICA_FAILURE).cloned().unwrap_or_else(new)]);
        }
        if set.get("status") != Some(&status) {
            self.update(&kinds::REPLICA_SET, name, |set| set["status"] = status);
        }
    }

    /// Creates a pod from the template of its owner, and tells of it or why not.
    ///
    /// # Errors
    /// What the API server refuses a pod for, such as a quota.
    pub(super) fn create_pod(&mut self, owner: &Value, component: &str) -> Result<(), StatusError> {
        self.create_pod_as(owner, component, None)
    }

    /// The same under a name of its own and with further labels.
    pub(super) fn create_pod_as(
        &mut self,
        owner: &Value,
        component: &str,
        identity: Option<&PodIdentity>,
    ) -> Result<(), StatusError> {
        let template = &owner["spec"]["template"];
        let owner_metadata = &owner["metadata"];
        let owner_name = text(owner, "/metadata/name").unwrap_or_default();
        let mut metadata = json!({
            "generateName": format!("{owner_name}-"),
            "namespace": owner_metadata["namespace"],
            "ownerReferences": [{
                "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner_name, "uid": owner_metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        });
        for field in ["labels", "annotations"] {
            if template["metadata"][field].is_object() {
                metadata[field] = template["metadata"][field].clone();
            }
        }
        if component == "daemonset-controller" {
            metadata["labels"][super::daemon_set::REVISION_LABEL] = super::daemon_set::revision_of(owner).into();
        }
        if let Some(identity) = identity {
            metadata["name"] = identity.name.as_str().into();
            for (label, value) in &identity.labels {
                metadata["labels"][label] = value.as_str().into();
            }
        }
        let mut pod = json!({"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}});
        if let Some(identity) = identity {
            add_claims(&mut pod["spec"], owner, &identity.name);
            pod["spec"]["hostname"] = identity.name.as_str().into();
            if let Some(service) = text(owner, "/spec/serviceName") {
                pod["spec"]["subdomain"] = service.into();
            }
        }
        if component == "daemonset-controller" {
            super::daemon_set::tolerate_troubles_of_nodes(&mut pod["spec"]);
        }
        complete_pod_spec(&mut pod["spec"]);
        pod["status"]["qosClass"] = qos_class(&pod["spec"]).into();
        match self.store.create(&kinds::POD, pod) {
            Ok(pod) => {
                let name = text(&pod, "/metadata/name").unwrap_or_default();
                let message = match identity {
                    Some(_) => format!("Create Pod {name} in StatefulSet {owner_name} successful"),
                    None => format!("Created pod: {name}"),
                };
                self.record_event(owner, component, "SuccessfulCreate", &message);
                Ok(())
            }
            Err(error) => {
                let message = match identity {
                    Some(PodIdentity { name, .. }) => {
                        format!("create Pod {name} in StatefulSet {owner_name} failed error: {error}")
                    }
                    None => format!("Error creating: {error}"),
                };
                self.record_warning(owner, component, "FailedCreate", &message);
                Err(error)
            }
        }
    }
}

/// Every claim that a StatefulSet has a template for is a volume of its pods, in place of one of the same name.
fn add_claims(spec: &mut Value, owner: &Value, pod: &str) {
    let Some(claims) = owner.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array) else { return };
    let mut volumes: Vec<Value> = Vec::new();
    for name in claims.iter().filter_map(|claim| text(claim, "/metadata/name")) {
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": format!("{name}-{pod}")}}));
    }
    let others = spec["volumes"].as_array().into_iter().flatten();
    let is_other = |volume: &&Value| !volumes.iter().any(|claim| claim["name"] == volume["name"]);
    let others: Vec<Value> = others.filter(is_other).cloned().collect();
    volumes.extend(others);
    if !volumes.is_empty() {
        spec["volumes"] = volumes.into();
    }
}

/// The pods to remove, by the order of `ActivePodsWithRanks` of Kubernetes as far as one node needs it: pods that do not run
/// before those that do, not ready before ready, ready for a short time before ready for long, young before old.
fn pods_to_delete(pods: Vec<(&ObjectName, &PodInfo)>, surplus: usize) -> Vec<ObjectName> {
    let mut active: Vec<_> = pods.into_iter().filter(|(_, pod)| pod.is_active()).collect();
    active.sort_by_key(|(name, pod)| {
        (pod.running, pod.ready_since.is_some(), Reverse(pod.ready_since), Reverse(pod.created), (*name).clone())
    });
    active.into_iter().take(surplus).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pod(created: i64, running: bool, ready_since: Option<i64>) -> PodInfo {
        let second = |at| Timestamp::from_second(at).unwrap_or_default();
        PodInfo {
            owner: None,
            labels: BTreeMap::new(),
            image: "app:1".into(),
            created: second(created),
            ready_since: ready_since.map(second),
            terminating: false,
            finished: false,
            running,
            address: None,
        }
    }

    #[test]
    fn useless_pods_go_first_and_the_oldest_ready_one_stays() {
        let names: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| ObjectName::new("test", name)).into();
        let pods = [
            pod(1, true, Some(4)),
            pod(5, true, Some(8)),
            pod(6, true, None),
            pod(7, false, None),
            PodInfo { terminating: true, ..pod(8, true, Some(9)) },
        ];
        let order = pods_to_delete(names.iter().zip(&pods).collect(), 3);
        let order: Vec<&str> = order.iter().map(|name| &*name.name).collect();
        assert_eq!(order, ["d", "c", "b"]);
    }
}
