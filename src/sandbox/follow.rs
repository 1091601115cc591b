//! How the operator, as a process of its own, works against a sandbox: by its clock, and with the names of its services.
//!
//! The kubeconfig of a sandbox says so in an extension, the place that the format has for it. Without the extension
//! nothing here is used.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, bail};
use aviary_actors::Clock;
use aviary_actors::transport::{HttpResponse, Network, NoAnswer, Transport};
use aviary_providers::HttpRequest;
use futures::future::BoxFuture;
use http::Uri;
use jiff::Timestamp;
use kube::config::Kubeconfig;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the extension in a kubeconfig.
pub const EXTENSION: &str = "aviary.app/sandbox";

/// What the extension says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// The process that serves the sandbox.
    pub pid: u32,
    /// How many times faster than real time the sandbox's clock runs.
    pub speed: f64,
    /// Path at which the API server tells the cluster's time.
    pub clock: String,
    /// Namespace of services that are named without one.
    pub search_namespace: String,
}

impl Extension {
    /// The extension of the present context's cluster, and that cluster's address.
    pub fn find(kubeconfig: &Kubeconfig) -> Option<(String, Extension)> {
        let context = kubeconfig.current_context.as_ref()?;
        let context = kubeconfig.contexts.iter().find(|known| known.name == *context)?.context.as_ref()?;
        let cluster = kubeconfig.clusters.iter().find(|known| known.name == context.cluster)?.cluster.as_ref()?;
        let extension = cluster.extensions.as_ref()?.iter().find(|known| known.name == EXTENSION)?;
        Some((cluster.server.clone()?, serde_json::from_value(extension.extension.clone()).ok()?))
    }
}

/// A sandbox, as the operator sees it.
#[derive(Clone)]
pub struct Sandbox {
    server: String,
    extension: Extension,
    network: Arc<Network>,
}

/// How often the operator compares clocks. One that is far behind or ahead misjudges deadlines; a sandbox that was started
/// again begins with another time, and whoever looks at the log should soon read why nothing happens.
const COMPARED_EVERY: Duration = Duration::from_secs(1);
/// Clocks that are further apart are set, in real time: an answer of a busy machine may be late, but not that late.
const TOLERANCE: Duration = Duration::from_secs(2);

impl Sandbox {
    /// The sandbox that a kubeconfig is for, if it is for one.
    pub fn of(kubeconfig: &Kubeconfig) -> Option<Sandbox> {
        let (server, extension) = Extension::find(kubeconfig)?;
        let server = server.trim_end_matches('/').to_owned();
        Some(Sandbox { server, extension, network: Arc::new(Network::direct()) })
    }

    /// A clock that shows the sandbox's time from now on. Both processes count on by themselves, and neither looks at the
    /// time of day again: that keeps them together when somebody sets it. The clock is set when the sandbox's is.
    ///
    /// # Errors
    /// If the sandbox does not tell its time.
    pub async fn clock(&self) -> anyhow::Result<Clock> {
        let told = self.ask().await?;
        let shown = Arc::new(RwLock::new(Clock::running(told.time, told.speed)));
        let sandbox = self.clone();
        // A sandbox that does not answer is away, which the watches find out and tell.
        tokio::spawn(keep_up(Arc::downgrade(&shown), told.speed, async move || sandbox.ask().await.ok()));
        Ok(Clock::from_fn(move || shown.read().now()).at_speed(told.speed))
    }

    async fn ask(&self) -> anyhow::Result<Told> {
        let address = format!("{}{}", self.server, self.extension.clock);
        let read = || format!("read the sandbox's clock at {address}");
        let answer = self.network.send(HttpRequest::get(address.clone())).await.with_context(read)?;
        if answer.status != 200 {
            bail!("{}: answered {}", read(), answer.status);
        }
        let told: Told = serde_json::from_slice(&answer.body).with_context(read)?;
        if !(told.speed.is_finite() && told.speed > 0.0) {
            bail!("{}: it runs at {} times real time", read(), told.speed);
        }
        Ok(told)
    }

    /// The network as a pod of the sandbox would see it: names of services first, and then everything else.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(ClusterNetwork {
            server: self.server.clone(),
            search_namespace: self.extension.search_namespace.clone(),
            sandbox: self.network.clone(),
            world: Arc::default(),
        })
    }

    /// How many times faster than real time the sandbox's clock runs.
    pub fn speed(&self) -> f64 {
        self.extension.speed
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Told {
    time: Timestamp,
    speed: f64,
}

/// Sets a clock that the sandbox's has left, as long as anybody looks at it.
async fn keep_up(shown: Weak<RwLock<Clock>>, speed: f64, ask: impl AsyncFn() -> Option<Told>) {
    let mut has_complained = false;
    loop {
        tokio::time::sleep(COMPARED_EVERY).await;
        let told = ask().await;
        let Some(shown) = shown.upgrade() else { return };
        let Some(told) = told else { continue };
        let apart = told.time.duration_since(shown.read().now()).unsigned_abs();
        if apart > TOLERANCE.mul_f64(speed.max(1.0)) {
            let time = told.time;
            tracing::warn!(
                "The sandbox's clock was set to {time}; if the sandbox was started again, start the operator again"
            );
            *shown.write() = Clock::running(told.time, speed);
        }
        if told.speed != speed && !std::mem::replace(&mut has_complained, true) {
            tracing::error!("The sandbox runs at {} times real time now: start the operator again", told.speed);
        }
    }
}

/// Sends requests for services through the API server's proxy.
struct ClusterNetwork {
    server: String,
    search_namespace: String,
    sandbox: Arc<Network>,
    world: Arc<Network>,
}

impl Transport for ClusterNetwork {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        // A proxy looks up names itself.
        let service = match request.proxy {
            None => ServiceAddress::of(&request.url, &self.search_namespace),
            Some(_) => None,
        };
        let Some(service) = service else { return self.world.send(request) };
        let proxied = HttpRequest { url: service.through(&self.server), ..request.clone() };
        let (sandbox, world) = (self.sandbox.clone(), self.world.clone());
        Box::pin(async move {
            let answer = sandbox.send(proxied).await?;
            if !service.is_unknown(&answer) {
                return Ok(answer);
            }
            if service.may_be_elsewhere {
                return world.send(request).await;
            }
            Err(NoAnswer(format!("lookup {}: no such host", service.host)))
        })
    }
}

/// A service that an address names as pods may: `name`, `name.namespace`, `name.namespace.svc`, with or without the domain
/// of the cluster.
#[derive(Debug, PartialEq, Eq)]
struct ServiceAddress {
    host: String,
    namespace: String,
    name: String,
    port: u16,
    path: String,
    /// Whether it could also be a name of the world's: `example.com` looks like service `example` in namespace `com`, and
    /// in a pod, too, it is looked up in the cluster first.
    may_be_elsewhere: bool,
}

impl ServiceAddress {
    fn of(url: &str, search_namespace: &str) -> Option<ServiceAddress> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?;
        if host == "localhost" || host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let without_domain = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"));
        let (name, namespace) = match without_domain {
            Some(name) => name.split_once('.')?,
            None => host.split_once('.').unwrap_or((host, search_namespace)),
        };
        // Longer names are nobody's in the cluster.
        if namespace.contains('.') {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        Some(ServiceAddress {
            host: host.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            may_be_elsewhere: without_domain.is_none() && host.contains('.'),
        })
    }

    fn through(&self, server: &str) -> String {
        let ServiceAddress { namespace, name, port, path, .. } = self;
        format!("{server}/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy{path}")
    }

    /// Whether it is the API server that answers, to say that there is no such service.
    fn is_unknown(&self, answer: &HttpResponse) -> bool {
        if answer.status != 404 {
            return false;
        }
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let details = &status["details"];
        status["kind"] == "Status" && details["kind"] == "services" && details["name"] == self.name.as_str()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn through(url: &str) -> Option<String> {
        ServiceAddress::of(url, "istio-system").map(|service| service.through("http://s"))
    }

    #[test]
    fn names_of_services_go_through_the_api_server() {
        let proxy =
            |namespace: &str, tail: &str| Some(format!("http://s/api/v1/namespaces/{namespace}/services/{tail}"));
        assert_eq!(
            through("http://prometheus:9090/api/v1/query?query=a%2Bb"),
            proxy("istio-system", "prometheus:9090/proxy/api/v1/query?query=a%2Bb")
        );
        assert_eq!(through("http://flagger-loadtester.test/"), proxy("test", "flagger-loadtester:80/proxy/"));
        assert_eq!(through("http://flagger-loadtester.test"), proxy("test", "flagger-loadtester:80/proxy/"));
        assert_eq!(through("http://hook.a.svc/x"), proxy("a", "hook:80/proxy/x"));
        assert_eq!(through("https://hook.a.svc.cluster.local/x"), proxy("a", "hook:443/proxy/x"));
    }

    #[test]
    fn the_world_is_asked_as_before() {
        for url in [
            "http://127.0.0.1:9090/",
            "http://[::1]:9090/",
            "http://localhost:8080/hook",
            "https://hooks.slack.com/services/x",
            "http://a.b.c.svc/",
            "not an address",
        ] {
            assert_eq!(through(url), None, "{url}");
        }
        let elsewhere = |url| ServiceAddress::of(url, "istio-system").unwrap().may_be_elsewhere;
        assert!(elsewhere("https://example.com/hook"));
        assert!(!elsewhere("http://prometheus:9090"));
        assert!(!elsewhere("http://hook.test.svc/"));
    }

    #[test]
    fn a_404_of_the_service_itself_is_an_answer() {
        let service = ServiceAddress::of("http://hook.test/x", "istio-system").unwrap();
        let answer = |status, body: &str| HttpResponse { status, retry_after: None, body: body.as_bytes().to_vec() };
        let unknown = r#"{"kind":"Status","code":404,"details":{"kind":"services","name":"hook"}}"#;
        assert!(service.is_unknown(&answer(404, unknown)));
        assert!(!service.is_unknown(&answer(200, unknown)));
        assert!(!service.is_unknown(&answer(404, "404 page not found")));
        let of_another = r#"{"kind":"Status","code":404,"details":{"kind":"pods","name":"hook"}}"#;
        assert!(!service.is_unknown(&answer(404, of_another)));
    }

    /// A sandbox in this process, reached over HTTP as from another one.
    async fn served(speed: f64) -> Sandbox {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = aviary_sim::Cluster::new(aviary_sim::ClusterOptions { speed, ..Default::default() });
        super::super::addons::install(&cluster, &[], "test").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { cluster.serve(listener).await });
        let content = super::super::kubeconfig::content(&server, speed);
        Sandbox::of(&serde_json::from_value(content).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn names_lead_where_they_lead_in_a_pod() {
        let transport = served(1.0).await.transport();
        let get = async |url: &str| transport.send(HttpRequest::get(url.to_owned())).await;
        for url in ["http://prometheus:9090/-/ready", "http://prometheus.istio-system.svc:9090/-/ready"] {
            let answer = get(url).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, &b"Prometheus Server is Ready.\n"[..]), "{url}");
        }
        assert_eq!(get("http://prometheus:9090/nothing").await.unwrap().status, 404, "Prometheus' own");
        assert_eq!(get("http://flagger-loadtester.anywhere/healthz").await.unwrap().status, 200);
        assert_eq!(get("http://prometheus:80/-/ready").await.unwrap().status, 503, "no such port");
        assert_eq!(get("http://nobody:9090/").await.unwrap_err().to_string(), "lookup nobody: no such host");
        let error = get("http://nobody.test.svc/").await.unwrap_err();
        assert_eq!(error.to_string(), "lookup nobody.test.svc: no such host");
    }

    #[tokio::test]
    async fn the_clock_is_the_sandboxs() {
        let sandbox = served(1000.0).await;
        let clock = sandbox.clock().await.unwrap();
        assert_eq!(clock.timer(Duration::from_secs(1000)).as_secs(), 1);
        let started = aviary_sim::ClusterOptions::default().base_time;
        let ahead = clock.now().duration_since(started);
        // Setting up takes milliseconds, which are seconds there; nothing takes the two minutes that are more than a day.
        assert!(ahead.as_hours() < 48 && ahead.is_positive(), "{ahead}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_left_behind_is_set() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let shown = Arc::new(RwLock::new(Clock::running(at(100_000), 60.0)));
        let sandboxs = Arc::new(RwLock::new(Clock::running(at(100_030), 60.0)));
        let asked = sandboxs.clone();
        let ask = async move || Some(Told { time: asked.read().now(), speed: 60.0 });
        let task = tokio::spawn(keep_up(Arc::downgrade(&shown), 60.0, ask));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(shown.read().now(), at(100_090), "half a second apart is near enough");
        *sandboxs.write() = Clock::running(at(0), 60.0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shown.read().now(), at(60));
        drop(shown);
        tokio::time::timeout(Duration::from_secs(2), task).await.expect("it ends with the clock").unwrap();
    }
}
