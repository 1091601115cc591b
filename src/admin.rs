//! The HTTP endpoints: health, readiness, metrics, and what every canary is doing.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aviary_actors::messages::{CanaryId, CanaryView};
use aviary_actors::{ControllerHandle, Metrics};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Service;

/// What the endpoints tell.
pub trait Introspect: Send + Sync {
    /// What the operator waits for before it is ready; empty when it is.
    fn awaited(&self) -> Vec<String>;
    /// The metrics.
    fn metrics(&self) -> &Metrics;
    /// One canary.
    fn describe(&self, canary: CanaryId) -> BoxFuture<'_, Option<CanaryView>>;
    /// All of them.
    fn describe_all(&self) -> BoxFuture<'_, Vec<CanaryView>>;
}

impl Introspect for ControllerHandle {
    fn awaited(&self) -> Vec<String> {
        self.awaited()
    }

    fn metrics(&self) -> &Metrics {
        self.metrics()
    }

    fn describe(&self, canary: CanaryId) -> BoxFuture<'_, Option<CanaryView>> {
        Box::pin(async move { ControllerHandle::describe(self, &canary).await })
    }

    fn describe_all(&self) -> BoxFuture<'_, Vec<CanaryView>> {
        Box::pin(ControllerHandle::describe_all(self))
    }
}

type Shared = Arc<dyn Introspect>;

/// The routes.
pub fn router(operator: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "OK" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/canaries", get(canaries))
        .route("/debug/canaries/{namespace}/{name}", get(canary))
        .fallback(unknown)
        .with_state(operator)
}

async fn ready(State(operator): State<Shared>) -> (StatusCode, String) {
    match operator.awaited().as_slice() {
        [] => (StatusCode::OK, "OK".to_owned()),
        awaited => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}", awaited.join(", "))),
    }
}

async fn unknown() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "not found; there are /healthz, /readyz, /metrics and /debug/canaries")
}

async fn metrics(State(operator): State<Shared>) -> Response {
    match operator.metrics().render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn canaries(State(operator): State<Shared>) -> Response {
    let mut canaries = operator.describe_all().await;
    canaries.sort_by(|one, other| one.canary.cmp(&other.canary));
    json(&canaries)
}

async fn canary(State(operator): State<Shared>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let id = CanaryId::canary(namespace, name);
    let unknown = format!("canary {id} is not known");
    let known = match operator.describe(id.clone()).await {
        Some(canary) => Some(canary),
        // One of another system's kinds.
        None => operator.describe_all().await.into_iter().find(|view| is_named(&view.canary, &id)),
    };
    match known {
        Some(canary) => json(&canary),
        None => (StatusCode::NOT_FOUND, unknown).into_response(),
    }
}

fn is_named(canary: &CanaryId, wanted: &CanaryId) -> bool {
    (&canary.namespace, &canary.name) == (&wanted.namespace, &wanted.name)
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Opens the port, on IPv6 and IPv4 where the machine has both.
///
/// # Errors
/// If the port is taken or not allowed.
pub async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        // A machine without IPv6.
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await,
        bound => bound,
    };
    listener.with_context(|| format!("serve HTTP on port {port} (--port)"))
}

/// A client may be silent this long: between requests (Flagger's idle timeout) or within the head of one (Flagger waits
/// 5 s; one timer covers both here).
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// An answer takes this long at most; Flagger's write timeout.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A connection ends after this long, when no request is under way: one whose client never reads must not keep its place.
/// Long enough that connecting costs a client nothing.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// Open connections: a few Prometheus servers, the kubelet and some people, with room to spare. More wait in the backlog.
const MAX_CONNECTIONS: usize = 128;
/// `accept` fails when the process is out of file descriptors; trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, router: Router) -> Infallible {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = connections.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_connection(stream, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router) {
    let answer = |request: Request<Incoming>| {
        let answer = router.clone().call(request);
        async move {
            let timed_out = || Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
            tokio::time::timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| timed_out())
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE_LIMIT)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut connection = std::pin::pin!(connection);
    // A client that goes away or falls silent is nobody's error.
    if tokio::time::timeout(CONNECTION_LIMIT, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(ANSWER_LIMIT, connection).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::atomic::{AtomicBool, Ordering};

    use aviary_actors::messages::Epoch;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Fake {
        ready: AtomicBool,
        metrics: Metrics,
    }

    impl Introspect for Fake {
        fn awaited(&self) -> Vec<String> {
            match self.ready.load(Ordering::Relaxed) {
                true => Vec::new(),
                false => vec!["secrets".into(), "deployments.apps".into()],
            }
        }

        fn metrics(&self) -> &Metrics {
            &self.metrics
        }

        fn describe(&self, canary: CanaryId) -> BoxFuture<'_, Option<CanaryView>> {
            Box::pin(async move { (canary.name == "podinfo").then(|| view("podinfo")) })
        }

        fn describe_all(&self) -> BoxFuture<'_, Vec<CanaryView>> {
            Box::pin(async { vec![view("podinfo"), view("api")] })
        }
    }

    fn view(name: &str) -> CanaryView {
        CanaryView {
            canary: CanaryId::canary("test", name),
            phase: "Progressing".into(),
            canary_weight: 10,
            failed_checks: 0,
            epoch: Epoch(7),
            busy: false,
            waiting_for: Some("the check round at 12:00:40".into()),
            next_wake: None,
            refused: None,
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn the_endpoints_answer() {
        let fake = Arc::new(Fake { ready: false.into(), metrics: Metrics::new().unwrap() });
        let listener = bind(0).await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        tokio::spawn(serve(listener, router(fake.clone())));

        assert_eq!(ask(address, "GET /healthz").await, (200, "OK".into()));
        assert_eq!(ask(address, "HEAD /healthz").await, (200, String::new()));
        assert_eq!(ask(address, "GET /readyz").await, (503, "waiting for: secrets, deployments.apps".into()));
        fake.ready.store(true, Ordering::Relaxed);
        assert_eq!(ask(address, "GET /readyz").await.0, 200);

        fake.metrics.canary_weight.with_label_values(&["podinfo", "test"]).set(10);
        let (_, metrics) = ask(address, "GET /metrics").await;
        assert!(metrics.contains("flagger_canary_weight{namespace=\"test\",workload=\"podinfo\"} 10"), "{metrics}");

        let (_, canaries) = ask(address, "GET /debug/canaries").await;
        let canaries: Vec<Value> = serde_json::from_str(&canaries).unwrap();
        assert_eq!(canaries.iter().map(|canary| &canary["canary"]["name"]).collect::<Vec<_>>(), ["api", "podinfo"]);
        let (_, canary) = ask(address, "GET /debug/canaries/test/podinfo").await;
        let canary: Value = serde_json::from_str(&canary).unwrap();
        assert_eq!((&canary["epoch"], &canary["phase"]), (&Value::from(7), &Value::from("Progressing")));
        assert_eq!(
            ask(address, "GET /debug/canaries/test/nobody").await,
            (404, "canary nobody.test is not known".into())
        );
        assert_eq!(ask(address, "POST /healthz").await.0, 405);
        assert_eq!(ask(address, "HEAD /readyz").await, (200, String::new()));
        assert_eq!(ask(address, "HEAD /metrics").await, (200, String::new()));
        let (status, text) = ask(address, "GET /").await;
        assert_eq!((status, text.contains("/healthz")), (404, true), "{text}");
        assert_eq!(ask(address, "HEAD /nothing").await, (404, String::new()));
    }

    /// How long a connection lasts whose client sends this and then neither sends nor reads.
    async fn lasts(sent: &str) -> Duration {
        let fake = Arc::new(Fake { ready: true.into(), metrics: Metrics::new().unwrap() });
        // Less than an answer, so that it is never written to its end.
        let (mut client, server) = tokio::io::duplex(16);
        let start = tokio::time::Instant::now();
        let served = tokio::spawn(serve_connection(server, router(fake)));
        client.write_all(sent.as_bytes()).await.unwrap();
        served.await.unwrap();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_falls_silent_is_let_go() {
        assert_eq!(lasts("").await, SILENCE_LIMIT);
        assert_eq!(lasts("GET /healthz HT").await, SILENCE_LIMIT);
        let unread = lasts("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(unread >= CONNECTION_LIMIT && unread <= CONNECTION_LIMIT + ANSWER_LIMIT, "{unread:?}");
    }

    #[tokio::test]
    async fn a_taken_port_is_one_clear_error() {
        let port = bind(0).await.unwrap();
        let taken = port.local_addr().unwrap().port();
        let error = format!("{:#}", bind(taken).await.expect_err("taken"));
        assert!(error.starts_with(&format!("serve HTTP on port {taken} (--port): ")), "{error}");
    }
}
