//! Prometheus' HTTP query API over the traffic of the embedded cluster.

mod discovery;
mod own;
mod parameters;
mod status;
mod wrong;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use aviary_promql::api::{self, ApiError};
use aviary_promql::{EngineOptions, Query, QueryValue, RangeBoundary};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, ORIGIN,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use parking_lot::Mutex;

use crate::traffic::Traffic;
use own::Scraped;
pub use own::metric_names;
use parameters::{Parameters, parse_time};
pub use wrong::{WrongAnswer, with_value};

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PrometheusFault {
    /// Connections are refused.
    Down,
    /// Requests get no answer, ever: the client's timeout ends them.
    Timeout,
    /// Every request gets this status, with an error that has Prometheus' form.
    Status(StatusCode),
    /// Every query finds nothing, as a server does that has lost its targets.
    Empty,
    /// Every query that succeeds is answered wrongly.
    Wrong(WrongAnswer),
}

/// Prometheus of the embedded cluster: its query API as a method and as a `tower::Service`. Clones share faults and counts.
#[derive(Clone)]
pub struct Prometheus {
    inner: Arc<Inner>,
}

struct Inner {
    traffic: Traffic,
    /// When the server began.
    since_ms: i64,
    settings: Mutex<Settings>,
    parsed: Mutex<HashMap<String, Arc<Query>>>,
    query_count: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    engine: EngineOptions,
    fault: Option<PrometheusFault>,
}

/// A status and a body.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

/// Parsed queries that are kept. A canary asks the same two to ten queries over and over; this is enough for the built-in
/// checks of two thousand canaries, at a few kilobytes each.
const MAX_PARSED_QUERIES: usize = 4_096;

/// A query that is longer is parsed each time it is asked: thousands of those would take gigabytes.
const LONGEST_KEPT_QUERY: usize = 16 << 10;

/// Prometheus accepts forms of 10 MiB (Go's default); a query of the embedded cluster that is longer than 1 MiB is a mistake.
const MAX_FORM_BYTES: usize = 1 << 20;

/// Below this path the server tells of itself.
const STATUS: &str = "/api/v1/status/";

impl Prometheus {
    /// A server that scrapes nothing but `traffic` and itself, in the version that [`RangeBoundary::default`] stands for.
    #[must_use]
    pub fn new(traffic: Traffic) -> Self {
        Self {
            inner: Arc::new(Inner {
                since_ms: traffic.now_ms(),
                traffic,
                settings: Mutex::default(),
                parsed: Mutex::default(),
                query_count: AtomicU64::new(0),
            }),
        }
    }

    /// Breaks the server, or with `None` mends it. Holds for requests that begin after the call.
    pub fn set_fault(&self, fault: Option<PrometheusFault>) {
        self.inner.settings.lock().fault = fault;
    }

    /// Chooses whose windows the server has, Prometheus 2's or 3's, and whose values of the label `le`: 3 writes every bound
    /// in the same way (`250.0`), whatever the target writes (`250`).
    pub fn set_boundary(&self, boundary: RangeBoundary) {
        self.inner.settings.lock().engine.boundary = boundary;
    }

    /// How many queries were asked, those included that a fault answered.
    #[must_use]
    pub fn query_count(&self) -> u64 {
        self.inner.query_count.load(Ordering::Relaxed)
    }

    /// Answers one request: `/api/v1/query` and `/api/v1/query_range` (GET, or POST with a form); `labels`,
    /// `label/<name>/values`, `series`, `metadata`, `format_query`, `status` and what else Grafana asks for under `/api/v1`;
    /// `/-/healthy`, `/-/ready`. `body` is read only as the form of a POST.
    ///
    /// # Errors
    /// `ConnectionRefused` under [`PrometheusFault::Down`]; nothing else. Under [`PrometheusFault::Timeout`] the future
    /// does not end.
    pub async fn handle(&self, method: &Method, path_and_query: &str, body: &[u8]) -> io::Result<(StatusCode, String)> {
        let answer = self.respond(method, path_and_query, body).await?;
        Ok((answer.status, answer.body))
    }

    async fn respond(&self, method: &Method, path_and_query: &str, body: &[u8]) -> io::Result<Answer> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let is_query = matches!(path, "/api/v1/query" | "/api/v1/query_range");
        let is_discovery = discovery::is_served(path);
        if is_query {
            self.inner.query_count.fetch_add(1, Ordering::Relaxed);
        }
        let settings = self.inner.settings.lock().clone();
        match settings.fault {
            Some(PrometheusFault::Down) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Some(PrometheusFault::Timeout) => pending::<()>().await,
            Some(PrometheusFault::Status(status)) => {
                let error = ApiError::unavailable("injected fault");
                return Ok(Answer::json(status, error.body()));
            }
            Some(PrometheusFault::Empty) if is_query => {
                let nothing = match path {
                    "/api/v1/query" => QueryValue::Vector(Vec::new()),
                    _ => QueryValue::Matrix(Vec::new()),
                };
                return Ok(Answer::json(StatusCode::OK, api::success_body(&nothing)));
            }
            Some(PrometheusFault::Empty | PrometheusFault::Wrong(_)) | None => {}
        }
        if *method == Method::OPTIONS && path.starts_with("/api/v1/") {
            return Ok(Answer::text(StatusCode::NO_CONTENT, ""));
        }
        if is_query {
            let wrong = match settings.fault {
                Some(PrometheusFault::Wrong(wrong)) => Some(wrong),
                _ => None,
            };
            let age_ms = wrong.map_or(0, WrongAnswer::age_ms);
            let mut answer = self.answer_query(&settings.engine, method, path, query, body, age_ms);
            if let Some(wrong) = wrong.filter(|_| answer.status == StatusCode::OK) {
                answer.body = wrong.instead_of(answer.body, self.inner.traffic.now_ms());
            }
            return Ok(answer);
        }
        if is_discovery {
            return Ok(self.answer_discovery(&settings, method, path, query, body));
        }
        Ok(match path {
            _ if method != Method::GET && method != Method::HEAD => {
                Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
            }
            "/-/healthy" => Answer::text(StatusCode::OK, "Prometheus Server is Healthy.\n"),
            "/" => Answer::text(
                StatusCode::OK,
                "This Prometheus has no pages, only its API: /api/v1/query?query=up, /api/v1/query_range, /api/v1/labels, and the rest \
                 that Grafana asks for.\n",
            ),
            "/-/ready" => Answer::text(StatusCode::OK, "Prometheus Server is Ready.\n"),
            _ => {
                let what = path.strip_prefix(STATUS);
                match what.and_then(|what| status::status(&self.source(settings.engine.boundary), what)) {
                    Some(data) => {
                        Answer::json(StatusCode::OK, serde_json::json!({"status": "success", "data": data}).to_string())
                    }
                    None => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
                }
            }
        })
    }

    /// Names and series, for those who explore; nothing of them where the server has lost its targets.
    fn answer_discovery(&self, settings: &Settings, method: &Method, path: &str, query: &str, body: &[u8]) -> Answer {
        let finds = settings.fault != Some(PrometheusFault::Empty);
        let mut parameters = Parameters::parse(query);
        match *method {
            Method::GET => {}
            Method::POST => parameters.prefer(&String::from_utf8_lossy(body)),
            _ => return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        }
        match discovery::answer(&self.source(settings.engine.boundary), path, &parameters, finds) {
            Ok(data) => {
                Answer::json(StatusCode::OK, serde_json::json!({"status": "success", "data": data}).to_string())
            }
            Err(error) => Answer::error(&error),
        }
    }

    /// `age_ms` is how far in the past a query without a time is evaluated.
    fn answer_query(
        &self,
        engine: &EngineOptions,
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
        age_ms: i64,
    ) -> Answer {
        let mut parameters = Parameters::parse(query);
        match *method {
            Method::GET => {}
            Method::POST => parameters.prefer(&String::from_utf8_lossy(body)),
            _ => return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        }
        let result = match path {
            "/api/v1/query" => self.instant(engine, &parameters, age_ms),
            _ => self.range(engine, &parameters),
        };
        match result {
            Ok(value) => Answer::json(StatusCode::OK, api::success_body(&value)),
            Err(error) => Answer::error(&error),
        }
    }

    fn source(&self, version: RangeBoundary) -> Scraped<'_> {
        Scraped { traffic: &self.inner.traffic, version, since_ms: self.inner.since_ms }
    }

    fn instant(&self, engine: &EngineOptions, parameters: &Parameters, age_ms: i64) -> Result<QueryValue, ApiError> {
        let at_ms = match parameters.get("time") {
            Some(text) => parse_time("time", text)?,
            None => self.inner.traffic.now_ms().saturating_sub(age_ms),
        };
        check_timeout(parameters)?;
        let query = self.parsed(parameters.get("query").unwrap_or_default())?;
        Ok(query.instant(&self.source(engine.boundary), at_ms, engine)?)
    }

    fn range(&self, engine: &EngineOptions, parameters: &Parameters) -> Result<QueryValue, ApiError> {
        let text = |name: &str| parameters.get(name).unwrap_or_default();
        let start_ms = parse_time("start", text("start"))?;
        let end_ms = parse_time("end", text("end"))?;
        let step_ms = api::parse_duration("step", text("step"))?;
        check_timeout(parameters)?;
        let query = self.parsed(text("query"))?;
        Ok(query.range(&self.source(engine.boundary), start_ms, end_ms, step_ms, engine)?)
    }

    fn parsed(&self, text: &str) -> Result<Arc<Query>, ApiError> {
        if let Some(query) = self.inner.parsed.lock().get(text) {
            return Ok(Arc::clone(query));
        }
        let query = Arc::new(Query::parse(text)?);
        if text.len() > LONGEST_KEPT_QUERY {
            return Ok(query);
        }
        let mut parsed = self.inner.parsed.lock();
        if parsed.len() >= MAX_PARSED_QUERIES {
            // Beyond the bound queries are not repeated often enough for an order of eviction to matter.
            parsed.clear();
        }
        parsed.insert(text.to_owned(), Arc::clone(&query));
        Ok(query)
    }
}

/// What a query may do is bounded by work and not by time, so that any timeout that is one will do.
fn check_timeout(parameters: &Parameters) -> Result<(), ApiError> {
    parameters.get("timeout").map_or(Ok(()), |text| api::parse_duration("timeout", text).map(drop))
}

impl Answer {
    fn json(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "application/json", body }
    }

    fn error(error: &ApiError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::json(status, error.body())
    }

    fn text(status: StatusCode, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.to_owned() }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let content_type = http::HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

impl<B> tower::Service<Request<B>> for Prometheus
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let prometheus = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let is_of_browser = head.headers.contains_key(ORIGIN);
            let body = match Limited::new(body, MAX_FORM_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => {
                    let error = ApiError::bad_data(format!("error parsing form values: {error}"));
                    return Ok(Answer::json(StatusCode::BAD_REQUEST, error.body()).into_response());
                }
            };
            let path_and_query = head.uri.path_and_query().map_or("/", |target| target.as_str());
            let answer = prometheus.respond(&head.method, path_and_query, &body).await?;
            Ok(with_cross_origin(answer.into_response(), is_of_browser))
        })
    }
}

/// Pages of any origin may ask, as with Prometheus' default `--web.cors.origin`.
fn with_cross_origin(mut response: Response<Full<Bytes>>, is_of_browser: bool) -> Response<Full<Bytes>> {
    if is_of_browser {
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
    }
    response
}
