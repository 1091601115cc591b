//! What the traffic model knows of the cluster: services, the pods behind them, routes, and which services have users.
//!
//! It is kept up to date change by change, so that a change of one pod costs the same in a cluster of ten canaries and of
//! ten thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::change::{Change, Pod, PodIdentity, Selection, Version};
use super::route::{Destination, DestinationRule, VirtualService};

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

#[derive(Debug, Default)]
struct Namespace {
    services: HashMap<String, Selection>,
    /// Services by the first pair of their selector.
    services_by_label: HashMap<Label, BTreeSet<String>>,
    /// Pods as the proxies know them.
    pods: HashMap<String, Pod>,
    /// The pods that answer, whatever the proxies know: how many under each of these names.
    answering: HashMap<String, (Version, u32)>,
    /// The names under which each version answers.
    processes: HashMap<(String, Arc<PodIdentity>), BTreeSet<String>>,
    pods_by_label: HashMap<Label, BTreeSet<String>>,
}

/// Pods to which the proxies send requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backends {
    pub(crate) known: u32,
    /// Those of them that answer; a pod that is gone does not, until the proxies hear of it.
    pub(crate) answering: u32,
}

/// What a change concerns.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Services whose ready pods, selector or existence changed.
    pub(crate) services: Vec<ServiceKey>,
    /// Hosts whose routes or users changed.
    pub(crate) hosts: Vec<ServiceKey>,
    /// Versions of which no pod answers any more: workload and identity.
    pub(crate) ended: Vec<(ServiceKey, Arc<PodIdentity>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Topology {
    namespaces: HashMap<String, Namespace>,
    virtual_services: HashMap<ServiceKey, VirtualService>,
    virtual_services_by_host: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// The VirtualServices that hand requests over to each one.
    delegating: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    destination_rules: HashMap<ServiceKey, DestinationRule>,
    /// The DestinationRules about each service.
    destination_rules_by_host: HashMap<ServiceKey, BTreeSet<ServiceKey>>,
    canary_hosts: HashMap<ServiceKey, ServiceKey>,
    /// How many Canaries and VirtualServices name a host.
    named: HashMap<ServiceKey, usize>,
}

impl Topology {
    /// What the proxies learn of a change.
    pub(crate) fn apply(&mut self, change: &Change) -> Touched {
        match change {
            Change::Pod { name, pod } => self.set_pod(name, pod.as_ref()),
            Change::Service { name, selection } => self.set_service(name, selection.as_ref()),
            Change::VirtualService { name, parsed } => self.set_virtual_service(name, parsed.clone()),
            Change::DestinationRule { name, parsed } => self.set_destination_rule(name, parsed.as_ref()),
            Change::Canary { name, host } => self.set_canary(name, host.as_ref()),
        }
    }

    /// How many pods of a name answer.
    pub(crate) fn answering(&self, name: &ServiceKey) -> u32 {
        let namespace = self.namespaces.get(&name.namespace);
        namespace.and_then(|namespace| namespace.answering.get(&name.name)).map_or(0, |(_, count)| *count)
    }

    /// How many pods of a name answer from now on. Concerns a service only if the proxies send requests to them.
    pub(crate) fn set_answering(&mut self, name: &ServiceKey, pod: Option<&Pod>) -> Touched {
        let namespace = self.namespaces.entry(name.namespace.clone()).or_default();
        let after = pod.filter(|pod| pod.serving() > 0).map(|pod| (pod.version.clone(), pod.serving()));
        let before = match after.clone() {
            Some(after) => namespace.answering.insert(name.name.clone(), after),
            None => namespace.answering.remove(&name.name),
        };
        if before == after {
            return Touched::default();
        }
        let mut touched = Touched::default();
        for (version, is_new) in
            before.iter().map(|(version, _)| (version, false)).chain(after.iter().map(|(version, _)| (version, true)))
        {
            let process = (version.workload.clone(), Arc::clone(&version.identity));
            set_membership(&mut namespace.processes, process.clone(), &name.name, is_new);
            if !namespace.processes.contains_key(&process) {
                let (workload, identity) = process;
                touched.ended.push((ServiceKey::new(&name.namespace, &workload), identity));
            }
        }
        touched.ended.retain(|(workload, identity)| {
            !namespace.processes.contains_key(&(workload.name.clone(), Arc::clone(identity)))
        });
        let count = |answering: &Option<(Version, u32)>| answering.as_ref().map_or(0, |(_, count)| *count);
        if let Some(known) = namespace.pods.get(&name.name)
            && count(&before).min(known.serving()) != count(&after).min(known.serving())
        {
            touched.services = namespace.services_of(&name.namespace, known);
        }
        touched
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

    /// A VirtualService by its own name, to which another one delegates.
    pub(crate) fn delegate(&self, name: &ServiceKey) -> Option<&VirtualService> {
        self.virtual_services.get(name)
    }

    /// The pods that the proxies know behind a destination, by version; `None` if it is a subset that nobody has named.
    pub(crate) fn backends(&self, destination: &Destination) -> Option<BTreeMap<Version, Backends>> {
        let versions = match &destination.subset {
            None => self.backends_with(&destination.service, &BTreeMap::new()),
            Some(subset) => self.backends_with(&destination.service, self.labels_of(&destination.service, subset)?),
        };
        Some(versions)
    }

    /// The labels of a subset, by the first DestinationRule that names it.
    fn labels_of(&self, service: &ServiceKey, subset: &str) -> Option<&BTreeMap<String, String>> {
        let rules = self.destination_rules_by_host.get(service)?.iter();
        rules.filter_map(|rule| self.destination_rules.get(rule)?.subsets.get(subset)).next()
    }

    fn backends_with(&self, service: &ServiceKey, labels: &BTreeMap<String, String>) -> BTreeMap<Version, Backends> {
        let mut versions: BTreeMap<Version, Backends> = BTreeMap::new();
        let Some(namespace) = self.namespaces.get(&service.namespace) else {
            return versions;
        };
        let Some(selection) = namespace.services.get(&service.name) else {
            return versions;
        };
        let Some(candidates) = first_pair(selection).and_then(|pair| namespace.pods_by_label.get(&pair)) else {
            return versions;
        };
        for (name, pod) in candidates.iter().filter_map(|name| Some((name, namespace.pods.get(name)?))) {
            let is_in_subset = labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
            if pod.serving() == 0 || !is_in_subset || !selection.takes(pod) {
                continue;
            }
            let backends = versions.entry(pod.version.clone()).or_default();
            backends.known += pod.serving();
            let answering = namespace.answering.get(name).map_or(0, |(_, count)| *count);
            backends.answering += answering.min(pod.serving());
        }
        versions
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
        let mut services = Vec::new();
        for (pod, is_new) in before.iter().map(|pod| (pod, false)).chain(pod.map(|pod| (pod, true))) {
            services.extend(namespace.services_of(&key.namespace, pod));
            for (name, value) in &pod.labels {
                let label = (name.clone(), value.clone());
                set_membership(&mut namespace.pods_by_label, label, &key.name, is_new);
            }
        }
        services.sort_unstable();
        services.dedup();
        Touched { services, ..Touched::default() }
    }

    fn set_service(&mut self, key: &ServiceKey, selection: Option<&Selection>) -> Touched {
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let before = match selection {
            Some(selection) => namespace.services.insert(key.name.clone(), selection.clone()),
            None => namespace.services.remove(&key.name),
        };
        if before.as_ref() == selection {
            return Touched::default();
        }
        for (selection, is_new) in [(before.as_ref(), false), (selection, true)] {
            if let Some(pair) = selection.and_then(first_pair) {
                set_membership(&mut namespace.services_by_label, pair, &key.name, is_new);
            }
        }
        Touched { services: vec![key.clone()], hosts: vec![key.clone()], ..Touched::default() }
    }

    fn set_virtual_service(&mut self, key: &ServiceKey, parsed: Option<VirtualService>) -> Touched {
        let after = parsed.as_ref().map(|service| service.hosts.clone()).unwrap_or_default();
        for delegate in parsed.iter().flat_map(VirtualService::delegates) {
            set_membership(&mut self.delegating, delegate.clone(), key, true);
        }
        let before = match parsed {
            Some(service) => self.virtual_services.insert(key.clone(), service),
            None => self.virtual_services.remove(key),
        };
        if let Some(before) = &before {
            let after: Vec<&ServiceKey> =
                self.virtual_services.get(key).into_iter().flat_map(VirtualService::delegates).collect();
            for delegate in before.delegates().filter(|delegate| !after.contains(delegate)) {
                set_membership(&mut self.delegating, delegate.clone(), key, false);
            }
        }
        let before = before.map(|service| service.hosts).unwrap_or_default();
        for host in &before {
            set_membership(&mut self.virtual_services_by_host, host.clone(), key, false);
        }
        for host in &after {
            set_membership(&mut self.virtual_services_by_host, host.clone(), key, true);
        }
        let mut touched = self.rename(&before, &after);
        let roots = self.delegating.get(key).into_iter().flatten();
        let roots = roots.filter_map(|root| self.virtual_services.get(root));
        touched.hosts.extend(roots.flat_map(|root| root.hosts.iter().cloned()));
        touched
    }

    fn set_destination_rule(&mut self, key: &ServiceKey, parsed: Option<&DestinationRule>) -> Touched {
        let after = parsed.and_then(|rule| rule.host.clone());
        let before = match parsed {
            Some(rule) => self.destination_rules.insert(key.clone(), rule.clone()),
            None => self.destination_rules.remove(key),
        };
        if before.as_ref() == parsed {
            return Touched::default();
        }
        let before = before.and_then(|rule| rule.host);
        for (host, is_new) in before.iter().map(|host| (host, false)).chain(after.iter().map(|host| (host, true))) {
            set_membership(&mut self.destination_rules_by_host, host.clone(), key, is_new);
        }
        Touched { services: before.into_iter().chain(after).collect(), ..Touched::default() }
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
        Touched { hosts: before.iter().chain(after).cloned().collect(), ..Touched::default() }
    }
}

impl Namespace {
    /// The services whose selector matches a pod.
    fn services_of(&self, namespace: &str, pod: &Pod) -> Vec<ServiceKey> {
        let labels = pod.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
        let selecting = labels.filter_map(|label| self.services_by_label.get(&label)).flatten();
        let matching =
            selecting.filter(|service| self.services.get(*service).is_some_and(|selection| selection.takes(pod)));
        matching.map(|service| ServiceKey::new(namespace, service)).collect()
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

fn first_pair(selection: &Selection) -> Option<Label> {
    selection.labels.first_key_value().map(|(name, value)| (name.clone(), value.clone()))
}
