//! HTTP requests, as the commands have them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aviary_load_commands::{HttpVersion, Request, is_host_name};
use http::HeaderValue;
use http::header::CONNECTION;
use reqwest::{Client, ClientBuilder, Response, Url, redirect};
use tokio::time::Instant;

use super::redirects::{Hop, NoRedirect, Told};
use super::targets::{Forbidden, Resolver, Targets};

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

/// A request without an answer. Its text shows no address, which may hold a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{}", why(.0))]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Redirect(#[from] NoRedirect),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

/// Sends one and the same request, and goes where servers send it on to.
#[derive(Clone)]
pub(super) struct Sender(Arc<Parts>);

struct Parts {
    first: Hop,
    told: Option<Told>,
    /// For the server that is told a name.
    client: Client,
    /// For every other one.
    elsewhere: Client,
    targets: Arc<Targets>,
    redirects: usize,
    timeout: Option<Duration>,
}

impl Sender {
    pub(super) fn new(request: &Request, how: &How, targets: &Arc<Targets>) -> Result<Sender, SetUpError> {
        let url: Url = request.url.to_string().parse().map_err(|_| SetUpError::Url)?;
        targets.check_url(&url)?;
        let set_up = |resolver: Arc<Resolver>| {
            let builder = builder(how).dns_resolver(resolver);
            let builder = match how.version {
                HttpVersion::Negotiated => builder,
                HttpVersion::Http1 => builder.http1_only(),
                HttpVersion::Http2 => builder.http2_prior_knowledge(),
            };
            builder.build().map_err(SetUpError::Client)
        };
        let elsewhere = set_up(targets.resolver())?;
        let told = request.host.as_ref().map(|host| tell(host, &url)).transpose()?;
        let client = match told {
            Some(Told::Address(_)) => {
                let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
                set_up(targets.resolver_of(host, port.unwrap_or_default()))?
            }
            _ => elsewhere.clone(),
        };
        let mut headers = request.headers.clone();
        if !how.keeps_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut built = elsewhere.request(request.method.clone(), url).headers(headers);
        if let Some((name, password)) = &request.credentials {
            built = built.basic_auth(name, Some(password));
        }
        let built = built.build().map_err(SetUpError::Client)?;
        let (url, method, headers) = (built.url().clone(), built.method().clone(), built.headers().clone());
        let first = Hop { url, method, headers, body: request.body.clone() };
        let (targets, redirects, timeout) = (Arc::clone(targets), how.redirects, how.timeout);
        Ok(Sender(Arc::new(Parts { first, told, client, elsewhere, targets, redirects, timeout })))
    }

    pub(super) async fn send(&self) -> Result<Response, SendError> {
        let parts = &*self.0;
        let begun = Instant::now();
        let response = self.exchange(&parts.first, begun).await?;
        if parts.redirects == 0 {
            return Ok(response);
        }
        let Some(mut hop) = parts.first.next(response.status(), response.headers())? else { return Ok(response) };
        for _ in 0..parts.redirects {
            parts.targets.check_url(&hop.url)?;
            let response = self.exchange(&hop, begun).await?;
            match hop.next(response.status(), response.headers())? {
                Some(next) => hop = next,
                None => return Ok(response),
            }
        }
        Err(NoRedirect::TooMany.into())
    }

    async fn exchange(&self, hop: &Hop, begun: Instant) -> reqwest::Result<Response> {
        let parts = &*self.0;
        // Another server is not told the name of the first one, as with curl and Go.
        let is_first = hop.url.origin() == parts.first.url.origin();
        let mut request = hop.request(parts.told.as_ref().filter(|_| is_first));
        // It is for the whole way.
        *request.timeout_mut() = parts.timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        let client = if is_first { &parts.client } else { &parts.elsewhere };
        client.execute(request).await
    }
}

/// How a server is told this name. What is no name stays in the header: in the address it would be connected to.
fn tell(host: &HeaderValue, url: &Url) -> Result<Told, SetUpError> {
    let name = host.to_str().ok().filter(|name| url.scheme() == "https" && is_host_name(name));
    let Some(name) = name else { return Ok(Told::Header(host.clone())) };
    let mut named = url.clone();
    named.set_host(Some(name)).map_err(|_| SetUpError::Url)?;
    named.set_port(None).map_err(|()| SetUpError::Url)?;
    // Extraction of credentials is done with the address itself.
    let _ = named.set_username("");
    let _ = named.set_password(None);
    if named.domain().is_none() {
        return Err(SetUpError::Url);
    }
    Ok(Told::Address(named))
}

/// A client that follows no redirections. With a resolver of [`Targets`] it goes only where it may.
pub(super) fn builder(how: &How) -> ClientBuilder {
    let mut builder = Client::builder()
        .user_agent(concat!("aviary-loadtest/", env!("CARGO_PKG_VERSION")))
        // A proxy would look names up itself.
        .no_proxy()
        .referer(false)
        // They are followed here: a client would take along what only the first server is to be told.
        .redirect(redirect::Policy::none())
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
    found_in(error)
}

/// What an error is made of, if it is made of this.
pub(super) fn found_in<'a, Wanted: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a Wanted> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // An I/O error hides what it is made of from `source`.
    let inner = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    };
    inner.and_then(found_in)
}

/// What a person can act on (`Connection refused`).
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
