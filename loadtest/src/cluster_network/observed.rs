//! What is remembered of the cluster's objects.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::behaviour::{BEHAVIOUR_ANNOTATION, Behaviour, tag};

/// Namespace and name.
pub(super) type Key = (String, String);

/// Label of an EndpointSlice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object as far as it matters here.
pub(super) trait Observed<K>: Sized {
    /// `before` is what was remembered of the object under this name.
    fn observe(object: &K, before: Option<&Self>) -> Self;
}

/// The objects of a kind, as a watch tells of them.
pub(super) struct Table<T> {
    known: HashMap<Key, T>,
    /// A list under way. It replaces what is known at its end, so that a lost watch makes nothing disappear meanwhile.
    listed: HashMap<Key, T>,
    is_complete: bool,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { known: HashMap::new(), listed: HashMap::new(), is_complete: false }
    }
}

impl<T> Table<T> {
    pub(super) fn apply<K: ResourceExt>(&mut self, event: Event<K>)
    where
        T: Observed<K>,
    {
        match event {
            Event::Apply(object) => {
                let key = key(&object);
                let observed = T::observe(&object, self.known.get(&key));
                self.known.insert(key, observed);
            }
            Event::Delete(object) => {
                self.known.remove(&key(&object));
            }
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let key = key(&object);
                let observed = T::observe(&object, self.known.get(&key));
                self.listed.insert(key, observed);
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.is_complete = true;
            }
        }
    }

    /// Whether a list was seen to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.known.iter()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.known.get(key)
    }
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// A container and the TCP ports that it declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) image: String,
    pub(super) ports: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObservedPod {
    pub(super) uid: String,
    /// None before the pod has one, and for pods in their node's network, which are somebody else's to answer for.
    pub(super) address: Option<IpAddr>,
    pub(super) containers: Vec<Container>,
    pub(super) annotation: Option<String>,
    pub(super) is_ready: bool,
    pub(super) is_terminating: bool,
    /// Whether its processes listen: from the moment at which its containers have started, which is before it is ready, until
    /// one of them ends. Otherwise a proxy that hears of the ready pod first would be refused.
    pub(super) listens: bool,
}

impl Observed<Pod> for ObservedPod {
    fn observe(pod: &Pod, before: Option<&Self>) -> Self {
        let uid = pod.uid().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let in_own_network = spec.and_then(|spec| spec.host_network) != Some(true);
        let address = status.and_then(|status| status.pod_ip.as_deref()).filter(|_| in_own_network);
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let is_ready = conditions
            .is_some_and(|conditions| conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let was_listening = before.is_some_and(|before| before.uid == uid && before.listens);
        // One that is terminating when it is seen for the first time has been ready, as far as anybody can know.
        let has_been_ready = was_listening || (is_terminating && before.is_none());
        let containers = spec.map_or(&[][..], |spec| &spec.containers);
        let mut images = containers.iter().filter_map(|container| container.image.as_deref());
        let is_broken = images.any(|image| Behaviour::of_tag(tag(image)).is_broken);
        ObservedPod {
            uid,
            address: address.and_then(|address| address.parse().ok()),
            containers: containers
                .iter()
                .map(|container| Container {
                    image: container.image.clone().unwrap_or_default(),
                    ports: container
                        .ports
                        .iter()
                        .flatten()
                        .filter_map(|port| tcp(port.protocol.as_deref(), port.container_port))
                        .collect(),
                })
                .collect(),
            annotation: pod.annotations().get(BEHAVIOUR_ANNOTATION).cloned(),
            is_ready,
            is_terminating,
            listens: !is_broken && (is_ready || ((has_been_ready || has_started(pod)) && is_running(pod))),
        }
    }
}

/// Whether all containers run, as far as the pod's node says anything of them.
fn is_running(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let runs = status
        .container_statuses
        .iter()
        .flatten()
        .all(|container| container.state.as_ref().is_none_or(|state| state.running.is_some()));
    runs && status.phase.as_deref() == Some("Running")
}

/// Whether the pod's node says of all containers that they have started.
fn has_started(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    !statuses.is_empty() && statuses.iter().all(|container| container.started == Some(true))
}

/// A port number, if it is one for TCP.
fn tcp(protocol: Option<&str>, port: i32) -> Option<u16> {
    if protocol.unwrap_or("TCP") != "TCP" {
        return None;
    }
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObservedService {
    /// Empty for headless services and for those that only stand for a name elsewhere.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) is_headless: bool,
    /// TCP ports by their numbers, with their names, which may be empty.
    pub(super) ports: BTreeMap<u16, String>,
}

impl Observed<Service> for ObservedService {
    fn observe(service: &Service, _before: Option<&Self>) -> Self {
        let Some(spec) = &service.spec else {
            return ObservedService { addresses: Vec::new(), is_headless: false, ports: BTreeMap::new() };
        };
        let first = spec.cluster_ip.iter();
        let addresses = spec.cluster_ips.as_ref().map_or_else(|| first.collect(), |all| all.iter().collect::<Vec<_>>());
        ObservedService {
            addresses: addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            is_headless: spec.cluster_ip.as_deref() == Some("None"),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some((tcp(port.protocol.as_deref(), port.port)?, port.name.clone().unwrap_or_default()))
                })
                .collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ObservedSlice {
    pub(super) service: Key,
    /// Port numbers of the endpoints by the names of the service's ports.
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    /// The pod behind it, if it is one.
    pub(super) pod: Option<Key>,
    /// Ready and not terminating.
    pub(super) is_ready: bool,
    /// Terminating, but still able to answer.
    pub(super) is_draining: bool,
}

impl Observed<EndpointSlice> for ObservedSlice {
    fn observe(slice: &EndpointSlice, _before: Option<&Self>) -> Self {
        let namespace = slice.namespace().unwrap_or_default();
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some((port.name.clone().unwrap_or_default(), tcp(port.protocol.as_deref(), port.port?)?))
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // What is not said of an endpoint is good news (`EndpointConditions` of discovery.k8s.io/v1).
            let is_ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let is_serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(is_ready);
            let is_terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            Some(Endpoint {
                // The addresses of an endpoint are interchangeable; only the first is used, as by kube-proxy.
                address: endpoint.addresses.first()?.parse().ok()?,
                pod: pod.and_then(|pod| Some((namespace.clone(), pod.name.clone()?))),
                is_ready,
                is_draining: is_serving && is_terminating,
            })
        });
        ObservedSlice {
            service: (namespace.clone(), slice.labels().get(SERVICE_NAME).cloned().unwrap_or_default()),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// Otherwise Envoy, which may hear of the ready pod before the network does, is refused.
    #[test]
    fn a_pod_listens_when_it_has_started_and_not_only_when_it_is_ready() {
        let pod = |image: &str, started: bool| -> Pod {
            let status = json!({
                "phase": "Running", "podIP": "10.244.0.1", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{
                    "name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
                    "started": started, "state": {"running": {}},
                }],
            });
            serde_json::from_value(json!({
                "metadata": {"name": "pod", "uid": "1"},
                "spec": {"containers": [{"name": "app", "image": image}]}, "status": status,
            }))
            .unwrap()
        };
        let listens = |image, started| ObservedPod::observe(&pod(image, started), None).listens;
        assert!(listens("app:1", true));
        assert!(!listens("app:1-start3", false));
        assert!(!listens("app:1-unready", true));
    }
}
