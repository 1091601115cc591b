//! The endpoints: Flagger's paths, payload and statuses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use serde::Deserialize;

use super::outcome::Outcome;
use super::places::{Identity, NoPlace};
use super::tasks::Order;
use super::{LoadTester, SILENCE_LIMIT};

/// A webhook's payload; Flagger's are below 2 KiB, and commands and metadata of people not much above it.
const PAYLOAD_LIMIT: usize = 64 * 1024;
/// Most of an output that is answered or logged: what a person reads.
const TOLD_LIMIT: usize = 4 * 1024;

/// A webhook's payload. Its phase and checksum are of no use here.
#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    metadata: Option<BTreeMap<String, String>>,
}

/// A caller that waits for a task. If it goes away, this is dropped before the task has ended, which is told.
struct Waiting<'a> {
    canary: &'a str,
    order: &'a Order,
    has_ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (canary, task) = (self.canary, self.order.summary());
        if std::thread::panicking() {
            tracing::error!(canary, task, "task ended: it panicked, which is a defect of the load tester");
        } else {
            tracing::warn!(canary, task, "task ended: its caller has gone away");
        }
    }
}

type Answer = (StatusCode, String);

impl LoadTester {
    /// Answers a request. When this future is dropped, a task that the caller waits for ends.
    pub(super) async fn answer<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let (status, text) = match self.open_to_all(head.uri.path(), &head.headers) {
            Some(answer) => answer,
            None => match tokio::time::timeout(SILENCE_LIMIT, Limited::new(body, PAYLOAD_LIMIT).collect()).await {
                Err(_) => {
                    let text = format!("the payload did not come within {} s", SILENCE_LIMIT.as_secs());
                    (StatusCode::REQUEST_TIMEOUT, text)
                }
                Ok(Ok(body)) => self.ask(head.uri.path(), &body.to_bytes()).await,
                Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    let text = format!("the payload is longer than {PAYLOAD_LIMIT} bytes");
                    (StatusCode::PAYLOAD_TOO_LARGE, text)
                }
                Ok(Err(_)) => (StatusCode::BAD_REQUEST, "the payload ends early".to_owned()),
            },
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Ok(response)
    }

    /// What needs no payload, and the answer to those who may not ask for anything else.
    fn open_to_all(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        match path {
            "/healthz" => return Some((StatusCode::OK, "OK".to_owned())),
            "/metrics" => {
                return Some(match self.context.metrics.render() {
                    Ok(text) => (StatusCode::OK, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                });
            }
            _ => {}
        }
        if !self.access.has_token(headers) {
            let text = "the token is missing or wrong: send it as Authorization: Bearer TOKEN, or in the URL as http://canary:TOKEN@HOST/";
            return Some((StatusCode::UNAUTHORIZED, text.to_owned()));
        }
        match path {
            "/gate/approve" => Some((StatusCode::OK, "OK".to_owned())),
            "/gate/halt" => Some((StatusCode::FORBIDDEN, "Forbidden".to_owned())),
            _ => None,
        }
    }

    async fn ask(self: &Arc<Self>, path: &str, body: &[u8]) -> Answer {
        let payload: Payload = match serde_json::from_slice(body) {
            Ok(payload) => payload,
            // Its text may show a value of the metadata.
            Err(error) if error.is_data() => {
                let text = format!(
                    "decoding the payload: expected texts as name and namespace, and texts by name as metadata, line {} column {}",
                    error.line(),
                    error.column()
                );
                return (StatusCode::BAD_REQUEST, text);
            }
            Err(error) => return (StatusCode::BAD_REQUEST, format!("decoding the payload: {error}")),
        };
        if !self.access.admits(&payload.namespace) {
            let text = format!("the namespace {:?} is not served here (-namespace-regexp)", payload.namespace);
            return (StatusCode::FORBIDDEN, text);
        }
        let canary = format!("{}.{}", payload.name, payload.namespace);
        let (area, verb) = match path {
            "/gate/check" | "/gate/open" | "/gate/close" => (canary, &path["/gate/".len()..]),
            "/rollback/check" | "/rollback/open" | "/rollback/close" => {
                (format!("rollback.{canary}"), &path["/rollback/".len()..])
            }
            _ => return self.order(&payload, canary).await,
        };
        if payload.name.is_empty() || payload.namespace.is_empty() {
            return (StatusCode::BAD_REQUEST, "name and namespace of the canary are needed".to_owned());
        }
        match verb {
            "check" if self.gates.is_open(&area) => (StatusCode::OK, "Approved".to_owned()),
            "check" => (StatusCode::FORBIDDEN, "Forbidden".to_owned()),
            verb => self.set_gate(area, verb == "open"),
        }
    }

    fn set_gate(&self, gate: String, open: bool) -> Answer {
        tracing::info!(gate, open, "gate set");
        match self.gates.set(gate, open) {
            Ok(()) => (StatusCode::ACCEPTED, String::new()),
            Err(error) => {
                tracing::error!("gate not set: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }

    async fn order(self: &Arc<Self>, payload: &Payload, canary: String) -> Answer {
        let order = match Order::new(payload.metadata.as_ref(), self.allows_commands) {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!(canary, "task refused: {error}");
                self.context.metrics.tasks.with_label_values(&["unknown", "refused"]).inc();
                return (StatusCode::BAD_REQUEST, error.to_string());
            }
        };
        let identity = Identity { canary: canary.clone(), command: order.command.clone() };
        let place = match self.places.take(&payload.namespace, Some(identity).filter(|_| order.is_background)) {
            Ok(place) => place,
            Err(NoPlace::Running) => {
                tracing::debug!(canary, task = order.summary(), "task skipped: it runs already");
                return (StatusCode::ACCEPTED, String::new());
            }
            Err(no_place) => {
                tracing::warn!(canary, task = order.summary(), "task refused: {no_place}");
                self.context.metrics.tasks.with_label_values(&[order.kind, "refused"]).inc();
                return (StatusCode::TOO_MANY_REQUESTS, no_place.to_string());
            }
        };
        tracing::info!(canary, task = order.summary(), "task started");
        let running = self.context.metrics.run(&payload.namespace);
        if order.is_background {
            let tester = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = order.run(&tester.context).await;
                drop((place, running));
                tester.tell(&canary, &order, &outcome);
            });
            return (StatusCode::ACCEPTED, String::new());
        }
        let mut waiting = Waiting { canary: &canary, order: &order, has_ended: false };
        let outcome = order.run(&self.context).await;
        waiting.has_ended = true;
        drop((place, running));
        self.tell(&canary, &order, &outcome);
        match outcome.is_success() {
            true if order.answers_output => (StatusCode::OK, outcome.text(TOLD_LIMIT)),
            true => (StatusCode::OK, String::new()),
            false => {
                let text = format!(
                    "command {} failed: exit code {}: {}",
                    order.summary(),
                    outcome.exit_code,
                    outcome.text(TOLD_LIMIT)
                );
                (StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }

    /// The end of a task, in the log; what it wrote only where it was asked for, since it may hold secrets.
    fn tell(&self, canary: &str, order: &Order, outcome: &Outcome) {
        let result = if outcome.is_success() { "success" } else { "failure" };
        self.context.metrics.tasks.with_label_values(&[order.kind, result]).inc();
        let (task, error) = (order.summary(), &outcome.error);
        let output = if order.logs_output { outcome.text(TOLD_LIMIT) } else { String::new() };
        if outcome.is_success() {
            tracing::info!(canary, task, error, output, "task ended");
        } else {
            tracing::error!(canary, task, exit_code = outcome.exit_code, error, output, "task failed");
        }
    }
}
