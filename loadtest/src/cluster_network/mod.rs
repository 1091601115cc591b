//! The network of a cluster whose nodes run no containers: pods that answer, services that lead to them, and names.
//!
//! Every pod that is ready answers HTTP on its own address, as its image's tag or an annotation says; one that is being
//! deleted answers until its object is gone, and then refuses connections. Connections to a service's address go to its
//! ready endpoints. All of these addresses must be local ones of this host or network namespace.

mod behaviour;
mod hosts;
mod observed;
mod pod;
mod sockets;
#[cfg(test)]
pub(crate) mod test_world;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aviary::sandbox::load_tester::LoadTester;
use aviary_sim::services::Backend;
use futures::stream::{BoxStream, SelectAll, select_all};
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use behaviour::{BEHAVIOUR_ANNOTATION, Behaviour, BehaviourError};
use hosts::HostsFile;
use observed::{Endpoint, Key, ObservedPod, ObservedService, ObservedSlice, Table};
use pod::PodServer;
pub use pod::{POD_HEADER, VERSION_HEADER};
use sockets::{Balancer, Destination, Sockets, Target};

/// A watch that broke is taken up again after this time: an API server that was restarted is followed again at once, and
/// one that stays away is asked a dozen times a second by the three watches together.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
/// Addresses that could not be had are tried again after this time. Mostly somebody else still listens there.
const LISTEN_PAUSE: Duration = Duration::from_millis(250);

/// How the network is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A file that is to hold the names of services, in the form of `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// The namespace whose services are also reachable by their names alone.
    pub namespace: Option<String>,
}

/// What can be reached at present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachable {
    /// Whether the cluster's pods, services and endpoints have been listed.
    pub is_complete: bool,
    /// Pods that answer.
    pub pods: usize,
    /// Addresses of pods and of services that accept connections.
    pub addresses: BTreeSet<SocketAddr>,
    /// Addresses that should, and why they do not.
    pub failed: BTreeMap<SocketAddr, String>,
}

/// A network that is kept in step with a cluster until it is dropped. Then nobody answers any more.
pub struct ClusterNetwork {
    reachable: watch::Receiver<Reachable>,
    running: JoinHandle<()>,
}

impl ClusterNetwork {
    /// Follows a cluster. Must be called on a tokio runtime with real time.
    #[must_use]
    pub fn start(client: Client, options: Options) -> ClusterNetwork {
        let (sender, reachable) = watch::channel(Reachable::default());
        ClusterNetwork { reachable, running: tokio::spawn(follow(client, options, sender)) }
    }

    /// What can be reached now.
    #[must_use]
    pub fn reachable(&self) -> Reachable {
        self.reachable.borrow().clone()
    }

    /// Waits until what can be reached is as wanted.
    ///
    /// # Errors
    /// If the network has ended.
    pub async fn until(
        &self,
        is_as_wanted: impl FnMut(&Reachable) -> bool,
    ) -> Result<Reachable, watch::error::RecvError> {
        Ok(self.reachable.clone().wait_for(is_as_wanted).await?.clone())
    }

    /// Waits until the network has ended, which it does not by itself.
    pub async fn ended(&mut self) {
        // Cancelled or panicked: it has ended.
        let _ = (&mut self.running).await;
    }
}

impl Drop for ClusterNetwork {
    fn drop(&mut self) {
        self.running.abort();
    }
}

enum Change {
    Pod(Box<Event<Pod>>),
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

async fn follow(client: Client, options: Options, sender: watch::Sender<Reachable>) {
    let mut changes: SelectAll<BoxStream<'static, Result<Change, watcher::Error>>> = select_all([
        watcher(Api::all(client.clone()), watcher::Config::default())
            .backoff(Steady)
            .map_ok(|event| Change::Pod(Box::new(event)))
            .boxed(),
        watcher(Api::all(client.clone()), watcher::Config::default())
            .backoff(Steady)
            .map_ok(|event| Change::Service(Box::new(event)))
            .boxed(),
        watcher(Api::all(client), watcher::Config::default())
            .backoff(Steady)
            .map_ok(|event| Change::Slice(Box::new(event)))
            .boxed(),
    ]);
    let mut network = Network::new(options);
    loop {
        let try_again = !network.sockets.failed().is_empty();
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => network.apply(change),
                None => return,
            },
            () = tokio::time::sleep(LISTEN_PAUSE), if try_again => {}
        }
        // Whatever has come meanwhile is looked at in one go.
        while let Some(Some(change)) = changes.next().now_or_never() {
            network.apply(change);
        }
        if network.is_complete() {
            let reachable = network.reconcile().await;
            sender.send_if_modified(|present| {
                let is_modified = *present != reachable;
                *present = reachable;
                is_modified
            });
        }
    }
}

/// The same pause again and again.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(WATCH_PAUSE)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

struct Network {
    pods: Table<ObservedPod>,
    services: Table<ObservedService>,
    slices: Table<ObservedSlice>,
    /// Pods that listen, by name.
    servers: HashMap<Key, Server>,
    /// By the address and port of the service. Those of ports without endpoints go.
    balancers: HashMap<SocketAddr, Arc<Balancer>>,
    sockets: Sockets,
    hosts: Option<HostsFile>,
    load_tester: Backend,
    /// The last thing that was said of a watch, until one brings something again.
    trouble: Option<String>,
}

struct Server {
    seen: ObservedPod,
    server: Arc<PodServer>,
}

impl Drop for Network {
    fn drop(&mut self) {
        for Server { server, .. } in self.servers.values() {
            server.end();
        }
    }
}

/// Slices by the service that they belong to.
type SlicesByService<'a> = HashMap<&'a Key, Vec<&'a ObservedSlice>>;

impl Network {
    fn new(options: Options) -> Self {
        let Options { hosts, namespace } = options;
        Network {
            pods: Table::default(),
            services: Table::default(),
            slices: Table::default(),
            servers: HashMap::new(),
            balancers: HashMap::new(),
            sockets: Sockets::default(),
            hosts: hosts.map(|path| HostsFile::new(path, namespace)),
            load_tester: LoadTester::default().backend(),
            trouble: None,
        }
    }

    fn apply(&mut self, change: Result<Change, watcher::Error>) {
        match change {
            Ok(change) => {
                self.trouble = None;
                match change {
                    Change::Pod(event) => self.pods.apply(*event),
                    Change::Service(event) => self.services.apply(*event),
                    Change::Slice(event) => self.slices.apply(*event),
                }
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                // An API server that is away is asked often and said to be away once.
                if self.trouble.as_ref() != Some(&error) {
                    tracing::warn!("watch broken, taken up again: {error}");
                    self.trouble = Some(error);
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.pods.is_complete() && self.services.is_complete() && self.slices.is_complete()
    }

    async fn reconcile(&mut self) -> Reachable {
        self.update_servers();
        let mut slices = SlicesByService::new();
        for (_, slice) in self.slices.iter() {
            slices.entry(&slice.service).or_default().push(slice);
        }
        let mut wanted = self.pod_sockets(&slices);
        let balancers = self.balancers(&slices);
        wanted.extend(balancers.iter().map(|(address, one)| (*address, Target::Service(Arc::clone(one)))));
        let names = self.hosts.is_some().then(|| self.names(&slices));
        drop(slices);
        self.balancers = balancers;
        if let (Some(hosts), Some(names)) = (&mut self.hosts, names)
            && let Err(error) = hosts.write(&names)
        {
            tracing::warn!(%error, "failed to write the hosts file");
        }
        self.sockets.bring_to(wanted).await;
        Reachable {
            is_complete: true,
            pods: self.servers.len(),
            addresses: self.sockets.addresses(),
            failed: self.sockets.failed().clone(),
        }
    }

    /// Ends the servers of pods that do not listen any more, and starts those of pods that do.
    fn update_servers(&mut self) {
        let pods = &self.pods;
        self.servers.retain(|name, Server { seen, server }| {
            let stays = pods.get(name).is_some_and(|pod| pod.listens && pod.uid == seen.uid);
            if !stays {
                server.end();
            }
            stays
        });
        for (name, pod) in self.pods.iter().filter(|(_, pod)| pod.listens && pod.address.is_some()) {
            match self.servers.get_mut(name) {
                None => {
                    let server = PodServer::new(name, pod, Arc::clone(&self.load_tester));
                    self.servers.insert(name.clone(), Server { seen: pod.clone(), server });
                }
                Some(known) if known.seen != *pod => {
                    known.server.update(name, pod);
                    known.seen = pod.clone();
                }
                Some(_) => {}
            }
        }
    }

    /// The ports that pods declare, and those that a service expects of them: to declare a port is voluntary.
    fn pod_sockets(&self, slices: &SlicesByService<'_>) -> HashMap<SocketAddr, Target> {
        let mut sockets = HashMap::new();
        // An address may belong to a pod that is going and to its successor, who gets it.
        let (going, staying): (Vec<_>, Vec<_>) = self.servers.values().partition(|server| server.seen.is_terminating);
        for Server { seen, server } in going.into_iter().chain(staying) {
            let Some(address) = seen.address else { continue };
            for port in seen.containers.iter().flat_map(|container| &container.ports) {
                sockets.insert(SocketAddr::new(address, *port), Target::Pod(Arc::clone(server)));
            }
        }
        for slice in slices.values().flatten() {
            for endpoint in &slice.endpoints {
                let Some(Server { seen, server }) = endpoint.pod.as_ref().and_then(|pod| self.servers.get(pod)) else {
                    continue;
                };
                for port in slice.ports.values().filter(|_| seen.address == Some(endpoint.address)) {
                    let address = SocketAddr::new(endpoint.address, *port);
                    sockets.entry(address).or_insert_with(|| Target::Pod(Arc::clone(server)));
                }
            }
        }
        sockets
    }

    /// The service addresses behind which somebody answers.
    fn balancers(&self, slices: &SlicesByService<'_>) -> HashMap<SocketAddr, Arc<Balancer>> {
        let mut balancers = HashMap::new();
        for (name, service) in self.services.iter() {
            let slices = slices.get(name).map_or(&[][..], Vec::as_slice);
            for (port, port_name) in &service.ports {
                for address in &service.addresses {
                    let destinations = self.destinations(slices, port_name, *address);
                    if destinations.is_empty() {
                        continue;
                    }
                    let address = SocketAddr::new(*address, *port);
                    let balancer = self.balancers.get(&address).map(Arc::clone).unwrap_or_default();
                    balancer.set(destinations);
                    balancers.insert(address, balancer);
                }
            }
        }
        balancers
    }

    /// The ready endpoints; where there are none, those that terminate and still answer, as kube-proxy does it.
    fn destinations(&self, slices: &[&ObservedSlice], port_name: &str, service: IpAddr) -> Vec<Destination> {
        let with = |is_wanted: fn(&Endpoint) -> bool| {
            let mut destinations = BTreeMap::new();
            for slice in slices {
                let Some(port) = slice.ports.get(port_name) else { continue };
                for endpoint in slice.endpoints.iter().filter(|endpoint| is_wanted(endpoint)) {
                    if endpoint.address.is_ipv4() == service.is_ipv4()
                        && let Some(destination) = self.destination(endpoint, *port)
                    {
                        // An endpoint that moves between slices may be in two of them for a moment.
                        destinations.insert(endpoint.address, destination);
                    }
                }
            }
            destinations.into_values().collect::<Vec<_>>()
        };
        let ready = with(|endpoint| endpoint.is_ready);
        if ready.is_empty() { with(|endpoint| endpoint.is_draining) } else { ready }
    }

    /// None for a pod that is gone already or not known yet: watches of different kinds are not in step.
    fn destination(&self, endpoint: &Endpoint, port: u16) -> Option<Destination> {
        let elsewhere = Destination::Elsewhere(SocketAddr::new(endpoint.address, port));
        let Some(name) = &endpoint.pod else { return Some(elsewhere) };
        if let Some(Server { server, .. }) = self.servers.get(name) {
            return Some(Destination::Pod(Arc::clone(server), port));
        }
        let is_of_node = self.pods.get(name).is_some_and(|pod| pod.address.is_none());
        is_of_node.then_some(elsewhere)
    }

    /// What the cluster's DNS would say: a service's own addresses, or those of its endpoints where it has none.
    fn names(&self, slices: &SlicesByService<'_>) -> BTreeMap<Key, Vec<IpAddr>> {
        let mut names = BTreeMap::new();
        for (name, service) in self.services.iter() {
            let mut addresses = service.addresses.clone();
            if service.is_headless {
                let endpoints = slices.get(name).into_iter().flatten().flat_map(|slice| &slice.endpoints);
                let ready: BTreeSet<IpAddr> =
                    endpoints.filter(|endpoint| endpoint.is_ready).map(|endpoint| endpoint.address).collect();
                addresses = ready.into_iter().collect();
            }
            names.insert(name.clone(), addresses);
        }
        names
    }
}
