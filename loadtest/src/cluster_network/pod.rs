//! A pod that answers HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aviary_sim::services::Backend;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::behaviour::{Behaviour, Failures, tag};
use super::observed::{Key, ObservedPod};

/// Header of every answer that names the pod.
pub const POD_HEADER: HeaderName = HeaderName::from_static("x-pod");
/// Header of every answer that names the tag of the image.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("x-version");

/// A client may take this long for the head of a request, and rest this long between two. Envoy keeps idle connections for
/// an hour and Go's clients for 90 s; a server that hangs up first makes some request meet a closed connection.
const SILENCE_LIMIT: Duration = Duration::from_secs(4000);
/// Bodies that the load tester takes: a webhook's payload has some hundred bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Part of the image's name of Flagger's load tester.
const LOAD_TESTER: &str = "flagger-loadtester";

/// A pod, for as long as it listens.
pub(super) struct PodServer {
    answers: RwLock<Answers>,
    failures: Failures,
    load_tester: Backend,
    is_gone: watch::Sender<bool>,
}

#[derive(Clone)]
struct Answers {
    containers: Arc<[Container]>,
    is_ready: bool,
    is_terminating: bool,
}

struct Container {
    ports: Vec<u16>,
    behaviour: Behaviour,
    is_load_tester: bool,
    /// Headers and body that tell who answers.
    version: HeaderValue,
    pod: HeaderValue,
    body: Bytes,
}

impl PodServer {
    pub(super) fn new(name: &Key, pod: &ObservedPod, load_tester: Backend) -> Arc<PodServer> {
        let answers = RwLock::new(Answers::of(name, pod));
        Arc::new(PodServer { answers, failures: Failures::default(), load_tester, is_gone: watch::Sender::new(false) })
    }

    /// Answers from now on as the pod's object says.
    pub(super) fn update(&self, name: &Key, pod: &ObservedPod) {
        *self.answers.write() = Answers::of(name, pod);
    }

    /// Breaks all connections off, as the end of a process does.
    pub(super) fn end(&self) {
        self.is_gone.send_replace(true);
    }

    /// Answers the requests of a connection to one of the pod's ports.
    pub(super) fn serve(self: &Arc<Self>, stream: TcpStream, port: u16) {
        let pod = Arc::clone(self);
        let mut is_gone = self.is_gone.subscribe();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let pod = Arc::clone(&pod);
                async move { Ok::<_, Infallible>(pod.answer(request, port).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(SILENCE_LIMIT);
            tokio::select! {
                // A client that breaks off has nobody to tell.
                _ = server.serve_connection(TokioIo::new(stream), service) => {}
                _ = is_gone.wait_for(|is_gone| *is_gone) => {}
            }
        });
    }

    async fn answer(&self, request: Request<Incoming>, port: u16) -> Response<Full<Bytes>> {
        let Answers { containers, is_ready, .. } = self.answers.read().clone();
        let listening = containers.iter().find(|container| container.ports.contains(&port));
        let Some(container) = listening.or(containers.first()) else {
            return plain(StatusCode::NOT_FOUND, "no containers");
        };
        let mut response = match request.uri().path() {
            _ if container.is_load_tester => self.ask_load_tester(request).await,
            "/healthz" => plain(StatusCode::OK, "OK"),
            "/readyz" if is_ready => plain(StatusCode::OK, "OK"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
            _ => self.behave(container, request).await,
        };
        let headers = response.headers_mut();
        headers.insert(POD_HEADER, container.pod.clone());
        headers.insert(VERSION_HEADER, container.version.clone());
        // As of now: the pod may have begun to terminate while it computed the answer.
        if self.answers.read().is_terminating {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn behave(&self, container: &Container, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Behaviour { error_ratio, latency, .. } = container.behaviour;
        // Read to its end, so that the connection can be used again.
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut response = Response::new(Full::new(container.body.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.failures.is_next(error_ratio) {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }

    async fn ask_load_tester(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
        };
        match (self.load_tester)(Request::from_parts(head, body)).await {
            Ok(response) => response.map(Full::new),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl Answers {
    fn of((namespace, name): &Key, pod: &ObservedPod) -> Self {
        let container = |container: &super::observed::Container| {
            let version = tag(&container.image);
            let behaviour = behaviour(version, pod.annotation.as_deref(), namespace, name);
            let body = json!({"pod": name, "namespace": namespace, "version": version});
            Container {
                ports: container.ports.clone(),
                behaviour,
                is_load_tester: container.image.contains(LOAD_TESTER),
                version: header(version),
                pod: header(name),
                body: Bytes::from(format!("{body}\n")),
            }
        };
        Answers {
            containers: pod.containers.iter().map(container).collect(),
            is_ready: pod.is_ready && !pod.is_terminating,
            is_terminating: pod.is_terminating,
        }
    }
}

fn behaviour(version: &str, annotation: Option<&str>, namespace: &str, name: &str) -> Behaviour {
    let behaviour = Behaviour::of_tag(version);
    let Some(annotation) = annotation else { return behaviour };
    behaviour.overridden(annotation).unwrap_or_else(|error| {
        let error = anyhow::Error::from(error);
        tracing::warn!(namespace, pod = name, "behaviour ignored: {error:#}");
        behaviour
    })
}

/// Names and tags have no characters that a header could not have.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
