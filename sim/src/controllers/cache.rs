//! What the controllers remember of stored objects, so that a change finds what it concerns without reading lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::deployment::{
    DESIRED_REPLICAS_ANNOTATION, MAX_REPLICAS_ANNOTATION, REVISION_ANNOTATION, SetStatus, SetView, replica_failure,
};
use super::json::{
    Owner, condition, controller_owner, count, integer, is_deleting, strings, template_hash, text, timestamp,
};
use super::queue::ObjectName;

/// A stored ReplicaSet.
#[derive(Debug, Clone)]
pub(super) struct SetInfo {
    pub(super) owner: Option<Owner>,
    pub(super) uid: Arc<str>,
    pub(super) labels: Arc<BTreeMap<String, String>>,
    pub(super) image: Arc<str>,
    pub(super) view: SetView,
    generation: i64,
}

/// A stored pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodInfo {
    pub(super) owner: Option<Owner>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) image: Arc<str>,
    pub(super) created: Timestamp,
    /// Since when the condition `Ready` is true.
    pub(super) ready_since: Option<Timestamp>,
    pub(super) terminating: bool,
    /// Phase Failed or Succeeded.
    pub(super) finished: bool,
    pub(super) running: bool,
    pub(super) address: Option<String>,
}

impl PodInfo {
    /// Neither finished nor being deleted: it counts for its ReplicaSet.
    pub(super) fn is_active(&self) -> bool {
        !self.terminating && !self.finished
    }

    pub(super) fn is_serving(&self) -> bool {
        self.is_active() && self.ready_since.is_some()
    }

    /// When the pod counts as available, given `minReadySeconds` as a duration; `None` while it is not ready.
    pub(super) fn available_from(&self, min_ready: std::time::Duration) -> Option<Timestamp> {
        self.ready_since.map(|since| super::json::after(since, min_ready))
    }

    fn parse(pod: &Value) -> Self {
        let ready = condition(pod, "Ready").filter(|ready| text(ready, "/status") == Some("True"));
        let phase = text(pod, "/status/phase");
        Self {
            owner: controller_owner(pod),
            labels: strings(pod, "/metadata/labels"),
            image: text(pod, "/spec/containers/0/image").unwrap_or_default().into(),
            created: timestamp(pod, "/metadata/creationTimestamp").unwrap_or(Timestamp::UNIX_EPOCH),
            ready_since: ready.and_then(|ready| timestamp(ready, "/lastTransitionTime")),
            terminating: is_deleting(pod),
            finished: matches!(phase, Some("Failed" | "Succeeded")),
            running: phase == Some("Running"),
            address: text(pod, "/status/podIP").map(str::to_owned),
        }
    }
}

type Label = (Arc<str>, String, String);

#[derive(Debug, Default)]
pub(super) struct Cache {
    sets: HashMap<ObjectName, SetInfo>,
    sets_by_owner: HashMap<String, BTreeSet<ObjectName>>,
    pods: HashMap<ObjectName, PodInfo>,
    pods_by_owner: HashMap<String, BTreeSet<ObjectName>>,
    pods_by_label: HashMap<Label, BTreeSet<ObjectName>>,
    services: HashMap<ObjectName, BTreeMap<String, String>>,
    /// By the first pair of their selector.
    services_by_label: HashMap<Label, BTreeSet<ObjectName>>,
    autoscalers: HashMap<ObjectName, ObjectName>,
    autoscalers_by_target: HashMap<ObjectName, BTreeSet<ObjectName>>,
}

impl Cache {
    pub(super) fn set(&self, name: &ObjectName) -> Option<&SetInfo> {
        self.sets.get(name)
    }

    pub(super) fn sets_of(&self, owner_uid: &str) -> Vec<&SetInfo> {
        let names = self.sets_by_owner.get(owner_uid).into_iter().flatten();
        names.filter_map(|name| self.sets.get(name)).collect()
    }

    pub(super) fn pods_of(&self, owner_uid: &str) -> Vec<(&ObjectName, &PodInfo)> {
        let names = self.pods_by_owner.get(owner_uid).into_iter().flatten();
        names.filter_map(|name| Some((name, self.pods.get(name)?))).collect()
    }

    pub(super) fn pod_names(&self) -> BTreeSet<ObjectName> {
        self.pods.keys().cloned().collect()
    }

    /// Pods that a selector matches, in name order.
    pub(super) fn select_pods(
        &self,
        namespace: &Arc<str>,
        selector: &BTreeMap<String, String>,
    ) -> Vec<(&ObjectName, &PodInfo)> {
        let Some(label) = first_label(namespace, selector) else {
            return Vec::new();
        };
        let names = self.pods_by_label.get(&label).into_iter().flatten();
        names
            .filter_map(|name| Some((name, self.pods.get(name)?)))
            .filter(|(_, pod)| selects(selector, &pod.labels))
            .collect()
    }

    pub(super) fn service_selector(&self, name: &ObjectName) -> Option<&BTreeMap<String, String>> {
        self.services.get(name)
    }

    /// Services whose selector matches the labels.
    pub(super) fn services_for(&self, namespace: &Arc<str>, labels: &BTreeMap<String, String>) -> Vec<ObjectName> {
        let mut found = Vec::new();
        for (key, value) in labels {
            let label = (Arc::clone(namespace), key.clone(), value.clone());
            for name in self.services_by_label.get(&label).into_iter().flatten() {
                let selector = self.services.get(name);
                if selector.is_some_and(|selector| selects(selector, labels)) {
                    found.push(name.clone());
                }
            }
        }
        found
    }

    /// Autoscalers of a Deployment.
    pub(super) fn autoscalers_of(&self, target: &ObjectName) -> Vec<ObjectName> {
        let names = self.autoscalers_by_target.get(target).into_iter().flatten();
        names.cloned().collect()
    }

    /// Takes a ReplicaSet's new state (`None`: it is gone) and returns its previous one.
    pub(super) fn put_set(&mut self, name: &ObjectName, set: Option<&Value>) -> Option<SetInfo> {
        let before = self.sets.remove(name);
        if let Some(owner) = before.as_ref().and_then(|set| set.owner.as_ref()) {
            unlink(&mut self.sets_by_owner, &owner.uid, name);
        }
        if let Some(set) = set {
            let info = SetInfo::parse(set, before.as_ref());
            if let Some(owner) = &info.owner {
                link(&mut self.sets_by_owner, owner.uid.clone(), name);
            }
            self.sets.insert(name.clone(), info);
        }
        before
    }

    /// Takes a pod's new state (`None`: it is gone) and returns its previous one.
    pub(super) fn put_pod(&mut self, name: &ObjectName, pod: Option<&Value>) -> Option<PodInfo> {
        let info = pod.map(PodInfo::parse);
        let before = self.pods.remove(name);
        let same_index = match (&before, &info) {
            (Some(before), Some(info)) => before.labels == info.labels && before.owner == info.owner,
            _ => false,
        };
        if !same_index {
            if let Some(before) = &before {
                self.unindex_pod(name, before);
            }
            if let Some(info) = &info {
                self.index_pod(name, info);
            }
        }
        if let Some(info) = info {
            self.pods.insert(name.clone(), info);
        }
        before
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Option<&PodInfo> {
        self.pods.get(name)
    }

    fn index_pod(&mut self, name: &ObjectName, pod: &PodInfo) {
        if let Some(owner) = &pod.owner {
            link(&mut self.pods_by_owner, owner.uid.clone(), name);
        }
        for (key, value) in &pod.labels {
            let label = (Arc::clone(&name.namespace), key.clone(), value.clone());
            link(&mut self.pods_by_label, label, name);
        }
    }

    fn unindex_pod(&mut self, name: &ObjectName, pod: &PodInfo) {
        if let Some(owner) = &pod.owner {
            unlink(&mut self.pods_by_owner, &owner.uid, name);
        }
        for (key, value) in &pod.labels {
            let label = (Arc::clone(&name.namespace), key.clone(), value.clone());
            unlink(&mut self.pods_by_label, &label, name);
        }
    }

    pub(super) fn put_service(&mut self, name: &ObjectName, service: Option<&Value>) {
        if let Some(selector) = self.services.remove(name)
            && let Some(label) = first_label(&name.namespace, &selector)
        {
            unlink(&mut self.services_by_label, &label, name);
        }
        let Some(service) = service else { return };
        let selector = strings(service, "/spec/selector");
        if text(service, "/spec/type") == Some("ExternalName") {
            return;
        }
        if let Some(label) = first_label(&name.namespace, &selector) {
            link(&mut self.services_by_label, label, name);
            self.services.insert(name.clone(), selector);
        }
    }

    pub(super) fn put_autoscaler(&mut self, name: &ObjectName, autoscaler: Option<&Value>) {
        if let Some(target) = self.autoscalers.remove(name) {
            unlink(&mut self.autoscalers_by_target, &target, name);
        }
        let target = autoscaler
            .filter(|autoscaler| text(autoscaler, "/spec/scaleTargetRef/kind") == Some("Deployment"))
            .and_then(|autoscaler| text(autoscaler, "/spec/scaleTargetRef/name"));
        let Some(target) = target else { return };
        let target = name.sibling(target);
        link(&mut self.autoscalers_by_target, target.clone(), name);
        self.autoscalers.insert(name.clone(), target);
    }
}

impl SetInfo {
    /// `before` is the set's earlier state: hashing a template costs more than everything else here.
    fn parse(set: &Value, before: Option<&Self>) -> Self {
        let generation = integer(set, "/metadata/generation").unwrap_or(0);
        let uid = text(set, "/metadata/uid").unwrap_or_default();
        let known = before.filter(|before| before.generation == generation && &*before.uid == uid);
        let null = Value::Null;
        let template = set.pointer("/spec/template").unwrap_or(&null);
        let annotations = strings(set, "/metadata/annotations");
        let number = |key: &str| annotations.get(key).and_then(|value| value.parse().ok());
        let view = SetView {
            name: text(set, "/metadata/name").unwrap_or_default().to_owned(),
            template_hash: known.map_or_else(|| template_hash(template), |known| known.view.template_hash),
            created: timestamp(set, "/metadata/creationTimestamp").unwrap_or(Timestamp::UNIX_EPOCH),
            deleting: is_deleting(set),
            revision: annotations.get(REVISION_ANNOTATION).and_then(|value| value.parse().ok()).unwrap_or(0),
            replicas: count(set, "/spec/replicas").unwrap_or(1),
            min_ready: integer(set, "/spec/minReadySeconds").unwrap_or(0),
            desired_annotation: number(DESIRED_REPLICAS_ANNOTATION),
            max_annotation: number(MAX_REPLICAS_ANNOTATION),
            status: SetStatus {
                replicas: count(set, "/status/replicas").unwrap_or(0),
                ready: count(set, "/status/readyReplicas").unwrap_or(0),
                available: count(set, "/status/availableReplicas").unwrap_or(0),
                terminating: count(set, "/status/terminatingReplicas").unwrap_or(0),
            },
            settled: integer(set, "/status/observedGeneration").unwrap_or(0) >= generation,
            failure: replica_failure(set),
        };
        Self {
            owner: controller_owner(set),
            uid: uid.into(),
            labels: Arc::new(strings(template, "/metadata/labels")),
            image: text(template, "/spec/containers/0/image").unwrap_or_default().into(),
            view,
            generation,
        }
    }
}

fn first_label(namespace: &Arc<str>, selector: &BTreeMap<String, String>) -> Option<Label> {
    let (key, value) = selector.first_key_value()?;
    Some((Arc::clone(namespace), key.clone(), value.clone()))
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn link<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<ObjectName>>, key: K, name: &ObjectName) {
    index.entry(key).or_default().insert(name.clone());
}

fn unlink<K, Q>(index: &mut HashMap<K, BTreeSet<ObjectName>>, key: &Q, name: &ObjectName)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    let Some(names) = index.get_mut(key) else {
        return;
    };
    names.remove(name);
    if names.is_empty() {
        index.remove(key);
    }
}
