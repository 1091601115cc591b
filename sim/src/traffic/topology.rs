//! What the traffic model knows of the cluster: services, the pods behind them, routes, and which services have users.
//!
//! It is kept up to date change by change, so that a change of one pod costs the same in a cluster of ten canaries and of
//! ten thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::route::VirtualService;
use crate::controllers::{WorkloadKind, Workloads};
use crate::store::{ChangeType, GroupKind, StoreEvent, kinds};

/// The kinds that decide where requests go.
pub(crate) const WATCHED_KINDS: [GroupKind; 6] =
    [kinds::POD, kinds::SERVICE, kinds::VIRTUAL_SERVICE, kinds::CANARY, kinds::DEPLOYMENT, kinds::DAEMON_SET];

/// A service, or any other namespaced object, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ServiceKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The service that a host names inside the cluster: `name`, `name.namespace`, `name.namespace.svc[.domain]`. A host
    /// outside of the cluster, or with a wildcard, is none.
    pub(crate) fn of_host(namespace: &str, host: &str) -> Option<Self> {
        if host.is_empty() || host.contains('*') {
            return None;
        }
        let parts: Vec<&str> = host.split('.').collect();
        match parts.as_slice() {
            [name] => Some(Self::new(namespace, name)),
            // A name of two parts can be a domain of the outside world as well; there is no service of that name then.
            [name, namespace] | [name, namespace, "svc", ..] => Some(Self::new(namespace, name)),
            _ => None,
        }
    }

    /// The full name inside the cluster.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }
}

type Label = (String, String);

#[derive(Clone, Debug, PartialEq)]
struct Pod {
    labels: BTreeMap<String, String>,
    workload: String,
    images: String,
    ready: bool,
    /// 1 for a pod that is an object; more where pods are only counted.
    count: u32,
}

#[derive(Debug, Default)]
struct Namespace {
    services: HashMap<String, BTreeMap<String, String>>,
    /// Services by the first pair of their selector.
    services_by_label: HashMap<Label, BTreeSet<String>>,
    pods: HashMap<String, Pod>,
    pods_by_label: HashMap<Label, BTreeSet<String>>,
}

/// Pods of one version behind a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) workload: String,
    /// The images of the containers, separated by spaces.
    pub(crate) images: String,
}

/// What a change concerns.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Services whose ready pods, selector or existence changed.
    pub(crate) services: Vec<ServiceKey>,
    /// Hosts whose routes or users changed.
    pub(crate) hosts: Vec<ServiceKey>,
}

#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// Where pods are counted and are no objects.
    counted: Option<Arc<Workloads>>,
    namespaces: HashMap<String, Namespace>,
    virtual_services: HashMap<ServiceKey, VirtualService>,
    virtual_services_by_host: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    canary_hosts: HashMap<ServiceKey, ServiceKey>,
    /// How many Canaries and VirtualServices name a host.
    named: HashMap<ServiceKey, usize>,
}

impl Topology {
    /// Takes pods from this table and not from pod objects.
    pub(crate) fn counting(workloads: Arc<Workloads>) -> Self {
        Self { counted: Some(workloads), ..Self::default() }
    }

    pub(crate) fn apply(&mut self, event: &StoreEvent) -> Touched {
        let object = &*event.object;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let key = ServiceKey::new(text("/metadata/namespace"), text("/metadata/name"));
        let object = (event.change != ChangeType::Deleted).then_some(object);
        match &event.kind {
            kind if *kind == kinds::POD => self.set_pod(&key, object.map(parse_pod).as_ref()),
            kind if *kind == kinds::SERVICE => self.set_service(&key, object.map(selector).as_ref()),
            kind if *kind == kinds::VIRTUAL_SERVICE => {
                let parsed = object.map(|object| VirtualService::parse(&key.namespace, &key.name, object));
                self.set_virtual_service(&key, parsed)
            }
            kind if *kind == kinds::CANARY => {
                let host = object.and_then(|object| canary_host(&key.namespace, object));
                self.set_canary(&key, host.as_ref())
            }
            kind if *kind == kinds::DEPLOYMENT => self.count(WorkloadKind::Deployment, &key, object.is_some()),
            kind if *kind == kinds::DAEMON_SET => self.count(WorkloadKind::DaemonSet, &key, object.is_some()),
            _ => Touched::default(),
        }
    }

    /// Whether a Canary or a VirtualService names the host.
    pub(crate) fn is_named(&self, host: &ServiceKey) -> bool {
        self.named.contains_key(host)
    }

    pub(crate) fn service_exists(&self, service: &ServiceKey) -> bool {
        self.namespaces.get(&service.namespace).is_some_and(|namespace| namespace.services.contains_key(&service.name))
    }

    /// The VirtualService that routes a host; the first by name if there are several.
    pub(crate) fn virtual_service(&self, host: &ServiceKey) -> Option<&VirtualService> {
        let name = self.virtual_services_by_host.get(host)?.first()?;
        self.virtual_services.get(name)
    }

    /// How many ready pods of which version a service has.
    pub(crate) fn ready_pods(&self, service: &ServiceKey) -> BTreeMap<Version, u32> {
        let mut versions = BTreeMap::new();
        let Some(namespace) = self.namespaces.get(&service.namespace) else {
            return versions;
        };
        let Some(selector) = namespace.services.get(&service.name) else {
            return versions;
        };
        let Some(candidates) = first_pair(selector).and_then(|pair| namespace.pods_by_label.get(&pair)) else {
            return versions;
        };
        let pods = candidates.iter().filter_map(|name| namespace.pods.get(name));
        for pod in pods.filter(|pod| pod.ready && selects(selector, &pod.labels)) {
            let version = Version { workload: pod.workload.clone(), images: pod.images.clone() };
            *versions.entry(version).or_insert(0) += pod.count;
        }
        versions
    }

    /// Follows the counted pods of a workload. The table is up to date before the workload's status tells of a change.
    fn count(&mut self, kind: WorkloadKind, key: &ServiceKey, exists: bool) -> Touched {
        let Some(workloads) = self.counted.clone() else { return Touched::default() };
        let versions = if exists { workloads.ready_of(kind, &key.namespace, &key.name) } else { Vec::new() };
        let pods = versions.into_iter().map(|version| {
            Some(Pod {
                labels: (*version.labels).clone(),
                workload: key.name.clone(),
                images: version.image.as_ref().to_owned(),
                ready: true,
                count: version.ready,
            })
        });
        let mut touched = Touched::default();
        for (index, pod) in pods.chain(std::iter::repeat(None)).enumerate() {
            // No pod has a slash in its name.
            let name = ServiceKey::new(&key.namespace, &format!("{kind:?}/{}/{index}", key.name));
            let was_known =
                self.namespaces.get(&key.namespace).is_some_and(|known| known.pods.contains_key(&name.name));
            if pod.is_none() && !was_known {
                break;
            }
            touched.services.extend(self.set_pod(&name, pod.as_ref()).services);
        }
        touched
    }

    fn set_pod(&mut self, key: &ServiceKey, pod: Option<&Pod>) -> Touched {
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let before = match pod {
            Some(pod) => namespace.pods.insert(key.name.clone(), pod.clone()),
            None => namespace.pods.remove(&key.name),
        };
        if before.as_ref() == pod {
            return Touched::default();
        }
        let mut services = BTreeSet::new();
        for (pod, is_new) in before.iter().map(|pod| (pod, false)).chain(pod.map(|pod| (pod, true))) {
            for (name, value) in &pod.labels {
                let label = (name.clone(), value.clone());
                let selecting = namespace.services_by_label.get(&label).into_iter().flatten();
                services.extend(selecting.filter(|service| {
                    namespace.services.get(*service).is_some_and(|selector| selects(selector, &pod.labels))
                }));
                set_membership(&mut namespace.pods_by_label, label, &key.name, is_new);
            }
        }
        Touched {
            services: services.into_iter().map(|service| ServiceKey::new(&key.namespace, service)).collect(),
            hosts: Vec::new(),
        }
    }

    fn set_service(&mut self, key: &ServiceKey, selector: Option<&BTreeMap<String, String>>) -> Touched {
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let before = match selector {
            Some(selector) => namespace.services.insert(key.name.clone(), selector.clone()),
            None => namespace.services.remove(&key.name),
        };
        if before.as_ref() == selector {
            return Touched::default();
        }
        for (selector, is_new) in [(before.as_ref(), false), (selector, true)] {
            if let Some(pair) = selector.and_then(first_pair) {
                set_membership(&mut namespace.services_by_label, pair, &key.name, is_new);
            }
        }
        Touched { services: vec![key.clone()], hosts: vec![key.clone()] }
    }

    fn set_virtual_service(&mut self, key: &ServiceKey, parsed: Option<VirtualService>) -> Touched {
        let after = parsed.as_ref().map(|service| service.hosts.clone()).unwrap_or_default();
        let before = match parsed {
            Some(service) => self.virtual_services.insert(key.clone(), service),
            None => self.virtual_services.remove(key),
        };
        let before = before.map(|service| service.hosts).unwrap_or_default();
        for host in &before {
            set_membership(&mut self.virtual_services_by_host, host.clone(), key, false);
        }
        for host in &after {
            set_membership(&mut self.virtual_services_by_host, host.clone(), key, true);
        }
        self.rename(&before, &after)
    }

    fn set_canary(&mut self, key: &ServiceKey, host: Option<&ServiceKey>) -> Touched {
        let before = match host {
            Some(host) => self.canary_hosts.insert(key.clone(), host.clone()),
            None => self.canary_hosts.remove(key),
        };
        if before.as_ref() == host {
            return Touched::default();
        }
        self.rename(before.as_slice(), host.map_or(&[], std::slice::from_ref))
    }

    fn rename(&mut self, before: &[ServiceKey], after: &[ServiceKey]) -> Touched {
        for host in after {
            *self.named.entry(host.clone()).or_insert(0) += 1;
        }
        for host in before {
            if let Some(count) = self.named.get_mut(host) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(host);
                }
            }
        }
        Touched { services: Vec::new(), hosts: before.iter().chain(after).cloned().collect() }
    }
}

fn set_membership<K: Eq + std::hash::Hash, M: Ord + Clone>(
    index: &mut HashMap<K, BTreeSet<M>>,
    key: K,
    member: &M,
    present: bool,
) {
    if present {
        index.entry(key).or_default().insert(member.clone());
        return;
    }
    if let Some(members) = index.get_mut(&key) {
        members.remove(member);
        if members.is_empty() {
            index.remove(&key);
        }
    }
}

/// A service without a selector selects nothing.
fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn first_pair(selector: &BTreeMap<String, String>) -> Option<Label> {
    selector.first_key_value().map(|(name, value)| (name.clone(), value.clone()))
}

fn string_map(object: Option<&Value>) -> BTreeMap<String, String> {
    let fields = object.and_then(Value::as_object);
    fields.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn selector(service: &Value) -> BTreeMap<String, String> {
    string_map(service.pointer("/spec/selector"))
}

fn parse_pod(pod: &Value) -> Pod {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready =
        conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let images: Vec<&str> =
        containers.into_iter().flatten().filter_map(|container| container["image"].as_str()).collect();
    Pod {
        labels: string_map(pod.pointer("/metadata/labels")),
        workload: workload(pod),
        images: images.join(" "),
        // A terminating pod is no endpoint any more.
        count: 1,
        ready: is_ready && pod.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null),
    }
}

/// The workload's name as Istio's injector derives it: a ReplicaSet's name without the template hash is its Deployment's.
fn workload(pod: &Value) -> String {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = owners
        .into_iter()
        .flatten()
        .find(|owner| owner["controller"] == true)
        .and_then(|owner| Some((owner["kind"].as_str()?, owner["name"].as_str()?)));
    match owner {
        Some(("ReplicaSet", name)) => text("/metadata/labels/pod-template-hash")
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
            .unwrap_or(name)
            .to_owned(),
        Some((_, name)) => name.to_owned(),
        None => text("/metadata/name").unwrap_or_default().to_owned(),
    }
}

/// The apex service of a Canary: `spec.service.name`, else the target's name.
fn canary_host(namespace: &str, canary: &Value) -> Option<ServiceKey> {
    let text = |pointer: &str| canary.pointer(pointer).and_then(Value::as_str).filter(|name| !name.is_empty());
    text("/spec/service/name").or_else(|| text("/spec/targetRef/name")).map(|name| ServiceKey::new(namespace, name))
}
