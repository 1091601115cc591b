//! Outgoing HTTP that is not the Kubernetes API: queries, webhooks, alerts.

use std::time::Duration;

use aviary_providers::HttpRequest;
use dashmap::DashMap;
use futures::future::BoxFuture;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status.
    pub status: u16,
    /// `Retry-After`, where it is given in seconds.
    pub retry_after: Option<Duration>,
    /// Body, cut at [`BODY_LIMIT`]; of a webhook the beginning.
    pub body: Vec<u8>,
}

/// Most of an answer that is read: a grouped query over 10,000 workloads answers with about 2 MB.
pub const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// Most of a webhook's answer that is read. Nobody looks at it, and thousands of them may come in at once; an answer that is read
/// to its end leaves its connection to the next call.
const WEBHOOK_BODY_LIMIT: usize = 64 * 1024;

/// No answer; the text says why (connection refused, timeout …).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Sends requests. The embedded cluster answers them in process; everybody else uses [`Network`].
pub trait Transport: Send + Sync {
    /// Sends a request and reads the answer, within the request's timeout.
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>>;
}

/// The network.
#[derive(Default)]
pub struct Network {
    /// One connection pool for each way of connecting, not one for each call.
    clients: DashMap<(bool, Option<String>), reqwest::Client>,
    ignores_environment: bool,
}

/// Ways of connecting that are remembered. A company has a proxy or two; anybody who may create an AlertProvider can name
/// more. Calls under way keep their client.
const MAX_CLIENTS: usize = 32;
/// Redirects that are followed, as Go's client does.
const MAX_REDIRECTS: usize = 10;

impl Network {
    /// The network without the proxies that environment variables name: for a server on this machine.
    pub fn direct() -> Network {
        Network { ignores_environment: true, ..Network::default() }
    }

    fn client(&self, insecure: bool, proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
        let key = (insecure, proxy.map(str::to_owned));
        if let Some(client) = self.clients.get(&key) {
            return Ok(client.value().clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("aviary/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .tls_danger_accept_invalid_certs(insecure);
        if self.ignores_environment {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy)?);
        }
        let client = builder.build()?;
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.clear();
        }
        self.clients.insert(key, client.clone());
        Ok(client)
    }
}

impl Transport for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        let client = self.client(request.insecure_skip_verify, request.proxy.as_deref());
        Box::pin(async move {
            let client = client.map_err(|error| no_answer(&error))?;
            exchange(client, request).await.map_err(|error| no_answer(&error))
        })
    }
}

async fn exchange(client: reqwest::Client, request: HttpRequest) -> reqwest::Result<HttpResponse> {
    let limit = if request.webhook.is_some() { WEBHOOK_BODY_LIMIT } else { BODY_LIMIT };
    let mut response = client
        .request(request.method, &request.url)
        .headers(request.headers)
        .body(request.body)
        .timeout(request.timeout)
        .send()
        .await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(http::header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    Ok(HttpResponse { status, retry_after, body })
}

/// The innermost cause says what a person can act on (`Connection refused`); the address may hold a secret.
fn no_answer(error: &reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        return NoAnswer("timeout exceeded while awaiting an answer".to_owned());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let kind = if error.is_connect() { "connection failed: " } else { "" };
    NoAnswer(format!("{kind}{cause}"))
}
