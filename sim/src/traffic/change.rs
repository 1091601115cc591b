//! What a change of an object means for traffic, read at the moment of the change: it may take effect later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::route::{DestinationRule, VirtualService};
use super::topology::ServiceKey;
use crate::controllers::ports::{self, PortName, Target};
use crate::controllers::{VersionPods, WorkloadKind, Workloads};
use crate::store::{ChangeType, GroupKind, StoreEvent, kinds};

/// The kinds that decide where requests go.
pub(crate) const WATCHED_KINDS: [GroupKind; 8] = [
    kinds::POD,
    kinds::SERVICE,
    kinds::VIRTUAL_SERVICE,
    kinds::TRAFFIC_SPLIT,
    kinds::DESTINATION_RULE,
    kinds::CANARY,
    kinds::DEPLOYMENT,
    kinds::DAEMON_SET,
];

/// New state of something; `None` where it is gone.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Pod { name: ServiceKey, pod: Option<Pod> },
    Service { name: ServiceKey, selection: Option<Selection> },
    VirtualService { name: ServiceKey, parsed: Option<VirtualService> },
    DestinationRule { name: ServiceKey, parsed: Option<DestinationRule> },
    Canary { name: ServiceKey, host: Option<ServiceKey> },
}

/// The pods that a service sends requests to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// `spec.selector`. Without one it selects nothing.
    pub(crate) labels: BTreeMap<String, String>,
    /// The port that a pod must have, where the service's first port, at which users call, names its target.
    pub(crate) port: Option<PortName>,
}

impl Selection {
    pub(crate) fn takes(&self, pod: &Pod) -> bool {
        let has_port = |port: &PortName| pod.ports.as_ref().is_none_or(|ports| ports.contains(port));
        !self.labels.is_empty()
            && self.labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
            && self.port.as_ref().is_none_or(has_port)
    }

    fn parse(service: &Value) -> Self {
        let port = match service.pointer("/spec/ports/0").and_then(ports::target) {
            Some(Target::Named(port)) => Some(port),
            Some(Target::Number(_)) | None => None,
        };
        Self { labels: string_map(service.pointer("/spec/selector")), port }
    }
}

/// Pods of one version behind a service. All that tells their metrics apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) workload: String,
    /// The images of the containers, separated by spaces.
    pub(crate) images: String,
    pub(crate) identity: Arc<PodIdentity>,
}

/// Labels that proxies and scrape configurations take from a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodIdentity {
    pub(crate) app: String,
    /// The label `version`.
    pub(crate) version: String,
    /// The label by which the pods name the template they were made from.
    pub(crate) template_hash: String,
    /// Whether its ReplicaSet's hash is part of a pod's name; a DaemonSet names its pods after itself alone.
    pub(crate) is_of_replica_set: bool,
}

/// A pod, or several of a kind where pods are only counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) labels: BTreeMap<String, String>,
    /// Names of its ports; `None` where pods are only counted, which know nothing of ports.
    pub(crate) ports: Option<BTreeSet<PortName>>,
    pub(crate) version: Version,
    pub(crate) ready: bool,
    /// 1 for a pod that is an object; more where pods are only counted.
    pub(crate) count: u32,
}

impl Pod {
    /// How many of them take requests.
    pub(crate) fn serving(&self) -> u32 {
        if self.ready { self.count } else { 0 }
    }
}

/// Reads objects. Where pods are counted it asks the table of workloads, which is up to date before a workload's status
/// tells of a change.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    counted: Option<Arc<Workloads>>,
    /// Names under which the counted pods of a workload were reported last.
    reported: BTreeMap<(WorkloadKind, ServiceKey), BTreeSet<String>>,
}

impl Reader {
    /// Takes pods from this table and not from pod objects.
    pub(crate) fn counting(workloads: Arc<Workloads>) -> Self {
        Self { counted: Some(workloads), reported: BTreeMap::new() }
    }

    pub(crate) fn read(&mut self, event: &StoreEvent) -> Vec<Change> {
        if event.is_status_only && event.kind == kinds::CANARY {
            // Its host is part of its spec.
            return Vec::new();
        }
        if !WATCHED_KINDS.contains(&event.kind) {
            return Vec::new();
        }
        let (namespace, name) = event.name();
        let name = ServiceKey::new(namespace, name);
        if event.kind == kinds::CANARY {
            let spec = if event.change == ChangeType::Deleted { None } else { event.read_spec() };
            let host = spec.and_then(|spec| canary_host(&name.namespace, &spec));
            return vec![Change::Canary { name, host }];
        }
        let object = &**event.object();
        let object = (event.change != ChangeType::Deleted).then_some(object);
        let change = match &event.kind {
            kind if *kind == kinds::POD => Change::Pod { name, pod: object.map(parse_pod) },
            kind if *kind == kinds::SERVICE => Change::Service { name, selection: object.map(Selection::parse) },
            kind if *kind == kinds::VIRTUAL_SERVICE => {
                let parsed = object.map(|object| VirtualService::parse(&name.namespace, &name.name, object));
                Change::VirtualService { name, parsed }
            }
            kind if *kind == kinds::TRAFFIC_SPLIT => {
                let parsed = object.map(|object| VirtualService::of_traffic_split(&name.namespace, object));
                // A VirtualService can have the same name, and none has a slash in it.
                let name = ServiceKey::new(&name.namespace, &format!("{}/TrafficSplit", name.name));
                Change::VirtualService { name, parsed }
            }
            kind if *kind == kinds::DESTINATION_RULE => {
                let parsed = object.map(|object| DestinationRule::parse(&name.namespace, object));
                Change::DestinationRule { name, parsed }
            }
            kind if *kind == kinds::DEPLOYMENT => return self.count(WorkloadKind::Deployment, name, object.is_some()),
            kind if *kind == kinds::DAEMON_SET => return self.count(WorkloadKind::DaemonSet, name, object.is_some()),
            _ => return Vec::new(),
        };
        vec![change]
    }

    fn count(&mut self, kind: WorkloadKind, workload: ServiceKey, exists: bool) -> Vec<Change> {
        let Some(workloads) = &self.counted else { return Vec::new() };
        let versions = if exists { workloads.ready_of(kind, &workload.namespace, &workload.name) } else { Vec::new() };
        let mut names = BTreeSet::new();
        let mut changes = Vec::new();
        for pods in versions {
            let version = version(&workload.name, &pods.image, &pods.labels);
            // No pod has a slash in its name.
            let name = format!("{kind:?}/{}/{}/{}", workload.name, version.identity.template_hash, version.images);
            names.insert(name.clone());
            let name = ServiceKey::new(&workload.namespace, &name);
            changes.push(Change::Pod { name, pod: Some(counted_pods(&pods, version)) });
        }
        let gone =
            self.reported.get(&(kind, workload.clone())).into_iter().flatten().filter(|name| !names.contains(*name));
        changes.extend(gone.map(|name| Change::Pod { name: ServiceKey::new(&workload.namespace, name), pod: None }));
        if names.is_empty() {
            self.reported.remove(&(kind, workload));
        } else {
            self.reported.insert((kind, workload), names);
        }
        changes
    }
}

fn counted_pods(pods: &VersionPods, version: Version) -> Pod {
    Pod { labels: (*pods.labels).clone(), ports: None, version, ready: true, count: pods.ready }
}

fn version(workload: &str, images: &str, labels: &BTreeMap<String, String>) -> Version {
    let label = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).cloned().unwrap_or_default();
    Version {
        workload: workload.to_owned(),
        images: images.to_owned(),
        identity: Arc::new(PodIdentity {
            app: label(&["app", "app.kubernetes.io/name"]),
            version: label(&["version", "app.kubernetes.io/version"]),
            template_hash: label(&["pod-template-hash", "controller-revision-hash"]),
            is_of_replica_set: labels.contains_key("pod-template-hash"),
        }),
    }
}

fn string_map(object: Option<&Value>) -> BTreeMap<String, String> {
    let fields = object.and_then(Value::as_object);
    fields.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn parse_pod(pod: &Value) -> Pod {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready =
        conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let images: Vec<&str> =
        containers.into_iter().flatten().filter_map(|container| container["image"].as_str()).collect();
    let labels = string_map(pod.pointer("/metadata/labels"));
    Pod {
        version: version(&workload(pod), &images.join(" "), &labels),
        labels,
        ports: Some(ports::named(pod).into_keys().collect()),
        // A terminating pod is no endpoint any more.
        ready: is_ready && pod.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null),
        count: 1,
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

/// What of a Canary's spec decides about its services.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CanarySpec {
    service: Named,
    target_ref: Named,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Named {
    name: Value,
}

/// The apex service of a Canary: `spec.service.name`, else the target's name.
fn canary_host(namespace: &str, spec: &CanarySpec) -> Option<ServiceKey> {
    let names = [&spec.service.name, &spec.target_ref.name].into_iter().filter_map(Value::as_str);
    names.filter(|name| !name.is_empty()).map(|name| ServiceKey::new(namespace, name)).next()
}
