//! The API server of the embedded cluster: kube-apiserver's wire behaviour over the [`Store`].
//!
//! [`ApiServer`] is a `tower::Service`. In process a [`Client`](crate::cluster::Cluster::client) calls it without sockets, tasks
//! or timers (watches apart); [`crate::http`] serves the same over plain HTTP.
//!
//! Not served: authentication and authorisation.

mod accept;
pub(crate) mod admission;
mod ages;
mod apply;
mod body;
mod component_statuses;
pub(crate) mod defaults;
pub(crate) mod definition;
mod discovery;
mod dry_run;
pub(crate) mod fields;
mod health;
mod heartbeats;
mod job_defaults;
pub(crate) mod metadata;
pub(crate) mod metrics;
pub(crate) mod openapi;
mod part_write;
mod patch;
mod pods;
mod protobuf;
mod read;
mod request;
mod response;
mod reviews;
mod scale;
pub(crate) mod schema;
mod selectors;
mod service_defaults;
mod strategy;
mod subresources;
pub(crate) mod table;
mod tokens;
mod validation;
pub(crate) mod views;
mod watch;
mod write;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use tower::Service;

pub use response::ResponseBody;

use crate::calls::CallLog;
use crate::controllers::Utilisation;
use crate::faults::{Action, Faults};
use crate::random::Random;
use crate::store::{StatusError, Store, kinds};
use accept::Form;
use request::{Query, Route, Target};
use response::{Answer, Encoder};
use table::TableForm;
use write::WriteRequest;

/// The API server's own limit of request bodies (`MaxRequestBodyBytes`): 3 MiB.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// The one deprecation that a user of built-in kinds meets in Kubernetes 1.36.
const ENDPOINTS_DEPRECATED: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// Settings of the API server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Shortest and longest time after which a watch is ended by the server; drawn from the seed for each watch.
    pub watch_lifetime: (Duration, Duration),
    /// Time between bookmarks.
    pub bookmark_interval: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            // What clients meet behind load balancers and with client-go's own timeouts of five to ten minutes.
            watch_lifetime: (Duration::from_secs(300), Duration::from_secs(600)),
            // `bookmarkFrequency` of the API server's watch cache.
            bookmark_interval: Duration::from_secs(60),
        }
    }
}

/// Why a request got no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// A fault took the answer away.
    #[error("connection closed before the response arrived")]
    ResponseLost,
    /// The request's body broke off.
    #[error("failed to read the request body")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The API server. A cheap, clonable service.
#[derive(Clone)]
pub struct ApiServer {
    store: Store,
    calls: CallLog,
    faults: Faults,
    options: Arc<ServerOptions>,
    random: Arc<Mutex<Random>>,
    /// How busy pods are, where controllers run.
    utilisation: Option<Utilisation>,
}

impl ApiServer {
    /// An API server over a store.
    #[must_use]
    pub fn new(store: Store, calls: CallLog, faults: Faults, options: ServerOptions, seed: u64) -> Self {
        Self {
            store,
            calls,
            faults,
            options: Arc::new(options),
            random: Arc::new(Mutex::new(Random::new(seed))),
            utilisation: None,
        }
    }

    /// The same server, which tells the usage of pods as their metrics.
    pub(crate) fn with_utilisation(mut self, utilisation: Option<Utilisation>) -> Self {
        self.utilisation = utilisation;
        self
    }

    async fn serve<B>(self, request: Request<B>) -> Result<Response<ResponseBody>, ConnectionError>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let client = header_text(&head, header::USER_AGENT);
        let query = Query::parse(head.uri.query());
        let route = Route::parse(&self.store, head.uri.path());
        let call = route.call(&head.method, &query, head.uri.path(), client);
        let ticket = self.calls.begin(&call, self.store.clock().now());
        let bytes = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                self.calls.finish(ticket, 413);
                return Ok(Answer::error(&too_large()).into_response(None));
            }
            Err(error) => return Err(ConnectionError::Body(error)),
        };
        let mut loses_response = false;
        match self.faults.on_request(&call) {
            None => {}
            Some(Action::Delay(delay)) => self.store.clock().sleep(delay).await,
            Some(Action::Hang) => std::future::pending().await,
            Some(Action::LoseResponse) => loses_response = true,
            Some(Action::Error(error)) => {
                self.calls.finish(ticket, error.code());
                let retry_after = retry_after(&error);
                return Ok(Answer::error(&error).into_response(retry_after));
            }
        }
        let handled = self.handle(&route, &head, &query, &bytes);
        let (answer, retry_after) = match handled {
            Ok(mut answer) => {
                ages::by_the_clients_clock(&mut answer, &head, &self.store.clock());
                (answer, None)
            }
            Err(error) => (Answer::error(&error), retry_after(&error)),
        };
        self.calls.finish(ticket, answer.code);
        if answer.changed && self.faults.on_written(&call) {
            std::future::pending().await
        }
        if loses_response {
            return Err(ConnectionError::ResponseLost);
        }
        Ok(answer.into_response(retry_after))
    }

    fn handle(
        &self,
        route: &Route,
        head: &http::request::Parts,
        query: &Query,
        bytes: &Bytes,
    ) -> Result<Answer, StatusError> {
        match route {
            Route::Unknown => Ok(Answer::unknown_path()),
            Route::UnknownResource => Err(StatusError::unknown_resource()),
            Route::Health { name, check } => Ok(health::answer(name, check.as_deref(), query)),
            Route::ServerMetrics => Ok(health::metrics(&self.store, &self.calls)),
            Route::Version => Ok(discovery::version()),
            Route::OpenApi(path) => Ok(openapi::answer(&self.store, path, header_text(head, header::ACCEPT))),
            Route::Discovery(_) if head.method != Method::GET => Err(StatusError::method_not_allowed()),
            Route::Discovery(path) => {
                let form = accept::discovery_form(header_text(head, header::ACCEPT));
                Ok(discovery::answer(&self.store, path, form, header_text(head, header::IF_NONE_MATCH)))
            }
            Route::Metrics(path) if head.method == Method::GET => self.metrics(path, query),
            Route::ComponentStatuses(name) if head.method == Method::GET => {
                self.component_statuses(name.as_deref(), query, header_text(head, header::ACCEPT))
            }
            Route::Metrics(_) | Route::ComponentStatuses(_) => Err(StatusError::method_not_allowed()),
            Route::Review(review) if head.method == Method::POST => {
                reviews::answer(review, &body_of(head, bytes), head)
            }
            Route::Review(_) => Err(StatusError::method_not_allowed()),
            Route::Resource(target) => {
                let mut answer = self.handle_resource(target, head, query, bytes)?;
                if target.resource.group_kind == kinds::ENDPOINTS {
                    answer.warnings.push(ENDPOINTS_DEPRECATED.to_owned());
                }
                if let Some(warning) = target.served_version().and_then(|version| version.deprecation.as_ref()) {
                    answer.warnings.push(warning.clone());
                }
                Ok(answer)
            }
        }
    }

    /// The form of the answer: the first that the client accepts and the server has.
    fn encoder(&self, target: &Target, query: &Query, accept: &str) -> Result<Encoder, StatusError> {
        let form = accept::object_form(accept);
        let table = match &form {
            Form::Table { version } => Some(TableForm::new(target, query, version, self.store.clock())?),
            _ => None,
        };
        Ok(Encoder {
            api_version: target.api_version(),
            storage_api_version: target.resource.storage_api_version(),
            kind: target.resource.kind.clone(),
            bare_items: !target.resource.custom,
            metadata_only: form == Form::Metadata,
            view: target.served_version().and_then(|version| version.view),
            table,
        })
    }

    fn handle_resource(
        &self,
        target: &Target,
        head: &http::request::Parts,
        query: &Query,
        bytes: &Bytes,
    ) -> Result<Answer, StatusError> {
        let encoder = self.encoder(target, query, header_text(head, header::ACCEPT))?;
        let name = target.name.as_deref().unwrap_or_default();
        let request = WriteRequest { target, name, query, body: body_of(head, bytes), encoder: &encoder };
        if head.method == Method::GET {
            self.beat_before_read(target);
        }
        match (&head.method, &target.name) {
            (method, Some(name)) if STREAMS_AND_ACTIONS.contains(&target.subresource.as_str()) => {
                match (target.subresource.as_str(), method) {
                    ("log", &Method::GET) => self.pod_log(target, name, query),
                    ("eviction", &Method::POST) => self.evict(&request),
                    ("token", &Method::POST) => self.create_token(target, name, &request.body),
                    ("log" | "eviction" | "token", _) => Err(StatusError::method_not_allowed()),
                    (stream, _) => Err(pods::refuse_stream(stream)),
                }
            }
            (&Method::GET, _) if query.flag("watch") && target.subresource.is_empty() => {
                self.watch(target, query, encoder)
            }
            (&Method::GET, Some(name)) => self.get(target, name, &encoder),
            (&Method::GET, None) => self.list(target, query, &encoder),
            (&Method::POST, _) => self.create(&request),
            (&Method::PUT, Some(_)) => self.update(&request),
            (&Method::PATCH, Some(_)) => self.patch(&request),
            (&Method::DELETE, Some(_)) => self.delete(&request),
            (&Method::DELETE, None) => self.delete_collection(&request),
            _ => Err(StatusError::method_not_allowed()),
        }
    }
}

impl<B> Service<Request<B>> for ApiServer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

/// Subresources of pods and service accounts that are no view of the object itself.
const STREAMS_AND_ACTIONS: [&str; 7] =
    ["log", "eviction", "exec", "attach", "portforward", "ephemeralcontainers", "token"];

fn body_of<'a>(head: &'a http::request::Parts, bytes: &'a Bytes) -> write::Body<'a> {
    let content_type = header_text(head, header::CONTENT_TYPE);
    write::Body {
        content_type: content_type.split(';').next().unwrap_or_default().trim(),
        bytes,
        client: header_text(head, header::USER_AGENT),
    }
}

fn header_text(head: &http::request::Parts, name: header::HeaderName) -> &str {
    head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn too_large() -> StatusError {
    StatusError::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
}

fn retry_after(error: &StatusError) -> Option<u32> {
    error.status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
}
