//! The addresses that answer: a listening socket each.
//!
//! A socket of its own per address and port leaves it to the kernel to refuse what nobody listens for, as it does on a
//! node, and does not take a port from processes that listen on other addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::pod::PodServer;

/// Connections that wait to be accepted. Linux allows 4096; what a second of traffic brings in these tests fits in.
const BACKLOG: u32 = 1024;
/// `accept` fails when the process is out of file descriptors; trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers connections to an address.
#[derive(Clone)]
pub(super) enum Target {
    Pod(Arc<PodServer>),
    Service(Arc<Balancer>),
}

impl Target {
    fn is_same(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Pod(one), Target::Pod(other)) => Arc::ptr_eq(one, other),
            (Target::Service(one), Target::Service(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Where a connection to a service goes.
#[derive(Clone)]
pub(super) enum Destination {
    /// A pod of this process. It takes the connection over.
    Pod(Arc<PodServer>, u16),
    /// Somebody else, who listens there.
    Elsewhere(SocketAddr),
}

/// Distributes connections to a service's port over its endpoints, one after the other.
#[derive(Default)]
pub(super) struct Balancer {
    destinations: RwLock<Arc<[Destination]>>,
    next: AtomicUsize,
}

impl Balancer {
    pub(super) fn set(&self, destinations: Vec<Destination>) {
        *self.destinations.write() = destinations.into();
    }

    fn connect(&self, stream: TcpStream) {
        let destinations = Arc::clone(&self.destinations.read());
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        match destinations.get(turn % destinations.len().max(1)) {
            Some(Destination::Pod(pod, port)) => pod.serve(stream, *port),
            Some(Destination::Elsewhere(address)) => {
                tokio::spawn(forward(stream, *address));
            }
            None => reset(&stream),
        }
    }
}

async fn forward(mut client: TcpStream, address: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(address).await else { return reset(&client) };
    // Bytes are passed on as they come. It fails on a connection that is gone already, which the copy finds out.
    let _ = server.set_nodelay(true);
    if tokio::io::copy_bidirectional(&mut client, &mut server).await.is_err() {
        reset(&client);
    }
}

/// Makes the client's connection end as a refused one does, as far as that is still possible.
fn reset(stream: &TcpStream) {
    // It fails on a connection that is gone already.
    let _ = stream.set_zero_linger();
}

/// The sockets that are open. They are closed when this is dropped.
#[derive(Default)]
pub(super) struct Sockets {
    open: HashMap<SocketAddr, Socket>,
    failed: BTreeMap<SocketAddr, String>,
}

struct Socket {
    target: Arc<RwLock<Target>>,
    accepting: JoinHandle<()>,
}

impl Sockets {
    /// Opens and closes sockets until they are these. Those that stay are not touched.
    pub(super) async fn bring_to(&mut self, wanted: HashMap<SocketAddr, Target>) {
        let closed = self.open.extract_if(|address, _| !wanted.contains_key(address)).map(|(_, socket)| socket);
        for socket in closed.collect::<Vec<_>>() {
            socket.accepting.abort();
            // Its end: only then is the socket closed. Cancelled is how it is meant to end.
            let _ = socket.accepting.await;
        }
        self.failed.retain(|address, _| wanted.contains_key(address));
        for (address, target) in wanted {
            match self.open.get(&address) {
                Some(socket) if socket.target.read().is_same(&target) => {}
                Some(socket) => *socket.target.write() = target,
                None => self.open(address, target),
            }
        }
    }

    fn open(&mut self, address: SocketAddr, target: Target) {
        let listener = match listen(address) {
            Ok(listener) => listener,
            Err(error) => {
                let error = explain(address.ip(), &error);
                if self.failed.insert(address, error.clone()).as_ref() != Some(&error) {
                    tracing::warn!(%address, "failed to listen: {error}");
                }
                return;
            }
        };
        self.failed.remove(&address);
        let target = Arc::new(RwLock::new(target));
        let accepting = tokio::spawn(accept(listener, address.port(), Arc::clone(&target)));
        self.open.insert(address, Socket { target, accepting });
    }

    /// The addresses that answer.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.open.keys().copied().collect()
    }

    /// The addresses that should answer, and why they do not.
    pub(super) fn failed(&self) -> &BTreeMap<SocketAddr, String> {
        &self.failed
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in self.open.values() {
            socket.accepting.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a predecessor under the same address may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn explain(address: IpAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => format!("{error}; is {address} local? (ip route replace local … dev lo)"),
        _ => error.to_string(),
    }
}

async fn accept(listener: TcpListener, port: u16, target: Arc<RwLock<Target>>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and awaited one by one: Nagle's algorithm would only delay them. It fails on a connection that
        // is gone already, which its task finds out.
        let _ = stream.set_nodelay(true);
        let target = target.read().clone();
        match target {
            Target::Pod(pod) => pod.serve(stream, port),
            Target::Service(balancer) => balancer.connect(stream),
        }
    }
}
