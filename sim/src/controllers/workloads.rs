//! Which version of which workload has how many ready pods: what a traffic model needs to know, in both forms of the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

/// The kinds of workload that the embedded cluster runs pods for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` DaemonSet.
    DaemonSet,
}

/// The pods of one version (pod template) of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPods {
    /// Labels of the pods, the label `pod-template-hash` of a Deployment's pods included.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Image of the first container.
    pub image: Arc<str>,
    /// Pods that are ready and not being deleted. Never zero in an answer.
    pub ready: u32,
}

/// The ready pods of one version of a workload, with the workload they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedPods {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    pub workload: String,
    /// The pods.
    pub pods: VersionPods,
}

type Name = (WorkloadKind, String);

#[derive(Debug, Default)]
struct Namespace {
    /// Workload → version (name of the ReplicaSet, or hash of the DaemonSet's template) → pods.
    workloads: BTreeMap<Name, BTreeMap<String, VersionPods>>,
    by_label: HashMap<(String, String), BTreeSet<Name>>,
}

/// A table of ready pods, kept by the controllers as pods change.
///
/// Every change is visible here before the Deployment's status tells of it; [`subscribe`](Self::subscribe) says that something
/// changed.
#[derive(Debug)]
pub struct Workloads {
    namespaces: RwLock<HashMap<String, Namespace>>,
    version: watch::Sender<u64>,
}

impl Default for Workloads {
    fn default() -> Self {
        Self { namespaces: RwLock::default(), version: watch::Sender::new(0) }
    }
}

impl Workloads {
    /// Versions of a Deployment that have ready pods, in a stable order. Empty for an unknown Deployment.
    #[must_use]
    pub fn ready(&self, namespace: &str, deployment: &str) -> Vec<VersionPods> {
        self.ready_of(WorkloadKind::Deployment, namespace, deployment)
    }

    /// Versions of a workload of any kind that have ready pods, in a stable order.
    #[must_use]
    pub fn ready_of(&self, kind: WorkloadKind, namespace: &str, name: &str) -> Vec<VersionPods> {
        let namespaces = self.namespaces.read();
        namespaces
            .get(namespace)
            .and_then(|entries| entries.workloads.get(&(kind, name.to_owned())))
            .map(|versions| versions.values().filter(|version| version.ready > 0).cloned().collect())
            .unwrap_or_default()
    }

    /// Ready pods that a Service's selector matches, by workload and version. An empty selector matches nothing, as Kubernetes
    /// makes no endpoints for such a Service. Its cost does not grow with the number of workloads in the namespace, as long as
    /// the first label of the selector is selective.
    #[must_use]
    pub fn select(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<SelectedPods> {
        let namespaces = self.namespaces.read();
        let Some(entries) = namespaces.get(namespace) else {
            return Vec::new();
        };
        let candidates = selector
            .iter()
            .map(|(key, value)| entries.by_label.get(&(key.clone(), value.clone())))
            .min_by_key(|names| names.map_or(0, BTreeSet::len))
            .flatten();
        let mut selected = Vec::new();
        for name in candidates.into_iter().flatten() {
            let versions = entries.workloads.get(name).into_iter().flatten();
            for (_, pods) in versions {
                let matches = selector.iter().all(|(key, value)| pods.labels.get(key) == Some(value));
                if matches && pods.ready > 0 {
                    selected.push(SelectedPods { kind: name.0, workload: name.1.clone(), pods: pods.clone() });
                }
            }
        }
        selected
    }

    /// A number that rises with every change of the table.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Sets the pods of one version; `None` removes it.
    pub(super) fn set(
        &self,
        kind: WorkloadKind,
        namespace: &str,
        workload: &str,
        version: &str,
        pods: Option<VersionPods>,
    ) {
        let name = (kind, workload.to_owned());
        let mut namespaces = self.namespaces.write();
        let entries = namespaces.entry(namespace.to_owned()).or_default();
        let present = entries.workloads.get(&name).and_then(|versions| versions.get(version));
        if present == pods.as_ref() {
            return;
        }
        match pods {
            Some(pods) => {
                let same_labels = present.is_some_and(|present| present.labels == pods.labels);
                if !same_labels {
                    for (key, value) in pods.labels.iter() {
                        entries.by_label.entry((key.clone(), value.clone())).or_default().insert(name.clone());
                    }
                }
                entries.workloads.entry(name).or_default().insert(version.to_owned(), pods);
            }
            None => entries.remove(&name, version),
        }
        drop(namespaces);
        self.version.send_modify(|version| *version += 1);
    }

    /// Forgets versions of a workload that `keep` does not name.
    pub(super) fn retain(&self, kind: WorkloadKind, namespace: &str, workload: &str, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = {
            let namespaces = self.namespaces.read();
            let versions =
                namespaces.get(namespace).and_then(|entries| entries.workloads.get(&(kind, workload.to_owned())));
            versions.into_iter().flat_map(BTreeMap::keys).filter(|version| !keep(version)).cloned().collect()
        };
        for version in gone {
            self.set(kind, namespace, workload, &version, None);
        }
    }
}

impl Namespace {
    fn remove(&mut self, name: &Name, version: &str) {
        let Some(versions) = self.workloads.get_mut(name) else {
            return;
        };
        let Some(removed) = versions.remove(version) else {
            return;
        };
        let remaining: Vec<_> = versions.values().map(|pods| pods.labels.clone()).collect();
        if remaining.is_empty() {
            self.workloads.remove(name);
        }
        for (key, value) in removed.labels.iter() {
            if remaining.iter().any(|labels| labels.get(key) == Some(value)) {
                continue;
            }
            let label = (key.clone(), value.clone());
            let Some(names) = self.by_label.get_mut(&label) else {
                continue;
            };
            names.remove(name);
            if names.is_empty() {
                self.by_label.remove(&label);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(app: &str, hash: &str, ready: u32) -> VersionPods {
        let labels = [("app", app), ("pod-template-hash", hash)];
        VersionPods {
            labels: Arc::new(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            image: "app:1".into(),
            ready,
        }
    }

    #[test]
    fn a_selector_finds_ready_versions_and_forgets_removed_ones() {
        let workloads = Workloads::default();
        let set = |name: &str, version: &str, pods: Option<VersionPods>| {
            workloads.set(WorkloadKind::Deployment, "test", name, version, pods);
        };
        set("a", "a-1", Some(pods("a", "1", 2)));
        set("a", "a-2", Some(pods("a", "2", 0)));
        set("b", "b-1", Some(pods("b", "1", 5)));
        let selector = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let selected = workloads.select("test", &selector);
        assert_eq!(selected.len(), 1);
        assert_eq!((selected[0].workload.as_str(), selected[0].pods.ready), ("a", 2));
        assert!(workloads.select("test", &BTreeMap::new()).is_empty());

        let mut changes = workloads.subscribe();
        assert!(!changes.has_changed().unwrap_or(true));
        set("a", "a-1", None);
        assert!(changes.has_changed().unwrap_or(false));
        changes.mark_unchanged();
        set("a", "a-1", None);
        assert!(!changes.has_changed().unwrap_or(true), "no change, no call");
        assert!(workloads.select("test", &selector).is_empty());
        assert!(!workloads.ready("test", "b").is_empty());
    }
}
