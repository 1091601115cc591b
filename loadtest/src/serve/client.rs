//! HTTP requests, as the commands have them.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aviary_load_commands::{HttpVersion, Request};
use http::HeaderValue;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use reqwest::{Client, ClientBuilder, Response, Url};

use super::targets::{Forbidden, Targets};

/// How requests are sent.
pub(super) struct How {
    pub(super) version: HttpVersion,
    pub(super) timeout: Option<Duration>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) redirects: usize,
    pub(super) keeps_alive: bool,
    pub(super) is_insecure: bool,
}

/// A request that cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error("failed to understand the URL")]
    Url,
    #[error("failed to set up the client: {}", innermost(.0))]
    Client(reqwest::Error),
}

/// Sends one and the same request.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client,
    request: Arc<reqwest::Request>,
}

impl Sender {
    pub(super) fn new(request: &Request, how: &How, targets: &Arc<Targets>) -> Result<Sender, SetUpError> {
        let mut url: Url = request.url.to_string().parse().map_err(|_| SetUpError::Url)?;
        targets.check_url(&url)?;
        let mut headers = request.headers.clone();
        let mut resolver = targets.resolver();
        if let Some(host) = &request.host {
            // Over TLS the name is part of the handshake, and in HTTP/2 of the address.
            if let Some(name) = plain_name(host).filter(|_| url.scheme() == "https") {
                let (target, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
                resolver = targets.resolver_of(&name, target, port.unwrap_or_default());
                url.set_host(Some(&name)).map_err(|_| SetUpError::Url)?;
                url.set_port(None).map_err(|()| SetUpError::Url)?;
            } else {
                headers.insert(HOST, host.clone());
            }
        }
        if !how.keeps_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut builder = builder(targets, how).dns_resolver(resolver);
        builder = match how.version {
            HttpVersion::Negotiated => builder,
            HttpVersion::Http1 => builder.http1_only(),
            HttpVersion::Http2 => builder.http2_prior_knowledge(),
        };
        let client = builder.build().map_err(SetUpError::Client)?;
        let mut built = client.request(request.method.clone(), url).headers(headers).body(request.body.clone());
        if let Some((name, password)) = &request.credentials {
            built = built.basic_auth(name, Some(password));
        }
        Ok(Sender { client, request: Arc::new(built.build().map_err(SetUpError::Client)?) })
    }

    pub(super) async fn send(&self) -> reqwest::Result<Response> {
        let mut request = reqwest::Request::new(self.request.method().clone(), self.request.url().clone());
        *request.headers_mut() = self.request.headers().clone();
        let body = self.request.body().and_then(reqwest::Body::as_bytes).filter(|body| !body.is_empty());
        *request.body_mut() = body.map(|body| body.to_vec().into());
        self.client.execute(request).await
    }
}

/// A client that goes only where it may.
pub(super) fn builder(targets: &Arc<Targets>, how: &How) -> ClientBuilder {
    let mut builder = Client::builder()
        .user_agent(concat!("aviary-loadtest/", env!("CARGO_PKG_VERSION")))
        // A proxy would look names up itself.
        .no_proxy()
        .referer(false)
        .redirect(targets.redirects(how.redirects))
        .tls_danger_accept_invalid_certs(how.is_insecure);
    if !how.keeps_alive {
        builder = builder.pool_max_idle_per_host(0);
    }
    if let Some(timeout) = how.timeout {
        builder = builder.timeout(timeout);
    }
    if let Some(timeout) = how.connect_timeout {
        builder = builder.connect_timeout(timeout);
    }
    builder
}

/// A host's name without a port, which can stand in an address.
fn plain_name(host: &HeaderValue) -> Option<String> {
    let authority: Authority = host.to_str().ok()?.parse().ok()?;
    let is_name = authority.host() == authority.as_str() && authority.host().parse::<IpAddr>().is_err();
    is_name.then(|| authority.host().to_owned())
}

/// Why a request failed, without its address, which may hold a secret.
pub(super) fn why(error: &reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => "timeout exceeded".to_owned(),
        (false, true) => format!("connection failed: {}", innermost(error)),
        (false, false) => innermost(error),
    }
}

/// What was wrong with TLS, if that was it.
pub(super) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // An I/O error hides what it is made of from `source`.
    let inner = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    };
    inner.and_then(tls_error)
}

/// What a person can act on (`Connection refused`).
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
