//! A cluster for tests: the embedded API server over HTTP, without controllers, and the network beside it. The tests are
//! node and endpoint controller themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use aviary_sim::store::kinds;
use aviary_sim::{Cluster, ClusterOptions};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::{ClusterNetwork, Options};

/// Long enough for the slowest machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The port that pods declare and the one of services.
pub(crate) const POD_PORT: u16 = 9898;
pub(crate) const SERVICE_PORT: u16 = 18_081;

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) network: ClusterNetwork,
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// An address of this host that nothing else uses: every one of 127.0.0.0/8 is local. Processes of different ids use
/// different ones, tests of one process too.
pub(crate) fn free_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    assert_ne!(last, 0, "too many addresses for one process");
    // 127.0.0.0/9 is left to others.
    IpAddr::V4(Ipv4Addr::new(127, 128 | high, low, last))
}

impl World {
    pub(crate) async fn start(options: Options) -> World {
        let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = cluster.clone();
        tokio::spawn(async move { served.serve(listener).await });
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        cluster.store().create(&kinds::NAMESPACE, json!({"metadata": {"name": "test"}})).unwrap();
        let network = ClusterNetwork::start(client, options);
        let world = World { cluster, network };
        within("the lists", world.network.until(|reachable| reachable.is_complete)).await.unwrap();
        world
    }

    /// A pod that runs and is not ready.
    pub(crate) fn create_pod(&self, name: &str, address: IpAddr, image: &str) {
        self.cluster.store().create(&kinds::POD, pod(name, address, image)).unwrap();
    }

    pub(crate) fn update_pod(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.cluster.store().update(&kinds::POD, "test", name, change).unwrap();
    }

    pub(crate) fn set_ready(&self, name: &str, is_ready: bool) {
        let status = if is_ready { "True" } else { "False" };
        self.update_pod(name, |pod| pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]));
    }

    /// Says that the pod is to go. It goes with [`Self::remove_pod`].
    pub(crate) fn terminate(&self, name: &str) {
        self.update_pod(name, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z"));
    }

    pub(crate) fn remove_pod(&self, name: &str) {
        self.cluster.store().delete(&kinds::POD, "test", name).unwrap();
    }

    /// A pod that answers.
    pub(crate) async fn running_pod(&self, name: &str, image: &str) -> SocketAddr {
        let address = SocketAddr::new(free_address(), POD_PORT);
        self.create_pod(name, address.ip(), image);
        self.set_ready(name, true);
        self.reachable(address).await;
        address
    }

    pub(crate) fn create_service(&self, name: &str, cluster_ip: &str) {
        let service = json!({
            "metadata": {"name": name, "namespace": "test"},
            "spec": {
                "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "web", "protocol": "TCP"}],
            },
        });
        self.cluster.store().create(&kinds::SERVICE, service).unwrap();
        let slice = json!({
            "metadata": {"name": name, "namespace": "test", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": [],
            "ports": [{"name": "http", "port": POD_PORT, "protocol": "TCP"}],
        });
        self.cluster.store().create(&kinds::ENDPOINT_SLICE, slice).unwrap();
    }

    pub(crate) fn set_endpoints(&self, service: &str, endpoints: &[Value]) {
        let change = |slice: &mut Value| slice["endpoints"] = json!(endpoints);
        self.cluster.store().update(&kinds::ENDPOINT_SLICE, "test", service, change).unwrap();
    }

    pub(crate) async fn reachable(&self, address: SocketAddr) {
        let waited = self.network.until(|reachable| reachable.addresses.contains(&address));
        within(&format!("{address}"), waited).await.unwrap();
    }

    pub(crate) async fn unreachable(&self, address: SocketAddr) {
        let waited = self.network.until(|reachable| !reachable.addresses.contains(&address));
        within(&format!("the end of {address}"), waited).await.unwrap();
    }
}

pub(crate) fn pod(name: &str, address: IpAddr, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"nodeName": "node-0", "containers": [
            {"name": "app", "image": image, "ports": [{"name": "web", "containerPort": POD_PORT, "protocol": "TCP"}]},
        ]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "containerStatuses": [{"name": "app", "state": {"running": {}}}],
        },
    })
}

/// An endpoint that is a pod.
pub(crate) fn endpoint(pod: &str, address: SocketAddr, is_ready: bool) -> Value {
    json!({
        "addresses": [address.ip()],
        "conditions": {"ready": is_ready, "serving": true, "terminating": !is_ready},
        "targetRef": {"kind": "Pod", "namespace": "test", "name": pod},
    })
}

/// What a request got.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A connection that can be used again.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    pub(crate) async fn ask(&mut self, path: &str, body: &str) -> hyper::Result<Answer> {
        let request = Request::post(path).header("host", "test").body(Full::from(body.to_owned())).unwrap();
        self.0.ready().await?;
        let (head, body) = self.0.send_request(request).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

pub(crate) async fn ask(address: SocketAddr, path: &str, body: &str) -> Answer {
    let mut connection = Connection::open(address).await.unwrap();
    connection.ask(path, body).await.unwrap()
}

pub(crate) async fn is_refused(address: SocketAddr) -> bool {
    let error = TcpStream::connect(address).await.err();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
