//! The `proxy` subresource of services, in front of the API server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use serde_json::Value;
use tower::Service;

use super::Services;
use crate::apiserver::{ApiServer, ConnectionError, ResponseBody};
use crate::store::{StatusError, Store, kinds, to_bytes};

/// Bodies that are passed on to a service. A backend takes them whole; the API server's own limit of 3 MiB is more than any
/// query or webhook needs.
const MAX_BODY_BYTES: usize = 3 << 20;

/// What clients outside of the process talk to: the API server, and behind it the services that are answered in process.
#[derive(Clone)]
pub struct Frontend {
    server: ApiServer,
    proxy: Proxy,
}

#[derive(Clone)]
struct Proxy {
    store: Store,
    services: Services,
}

/// Why a request got no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The API server gave none.
    #[error(transparent)]
    Server(#[from] ConnectionError),
    /// The request's body broke off.
    #[error("failed to read the request body")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The body of an answer, the API server's or a service's.
type FrontBody = Either<ResponseBody, Full<Bytes>>;

impl Frontend {
    pub(crate) fn new(server: ApiServer, store: Store, services: Services) -> Self {
        Self { server, proxy: Proxy { store, services } }
    }
}

impl<B> Service<Request<B>> for Frontend
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<FrontBody>;
    type Error = FrontError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match Address::parse(request.uri()) {
            Some(address) => {
                let proxy = self.proxy.clone();
                Box::pin(async move { Ok(proxy.pass_on(address, request).await?.map(Either::Right)) })
            }
            None => {
                let answer = self.server.call(request);
                Box::pin(async move { Ok(answer.await?.map(Either::Left)) })
            }
        }
    }
}

/// Whom a request is for, and what is asked of them.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    namespace: String,
    name: String,
    /// Number or name; empty for the only one.
    port: String,
    target: PathAndQuery,
}

impl Address {
    /// `/api/v1/namespaces/NAMESPACE/services/[SCHEME:]NAME[:PORT]/proxy[/PATH][?QUERY]`
    fn parse(uri: &Uri) -> Option<Self> {
        let rest = uri.path().strip_prefix("/api/v1/namespaces/")?;
        let (namespace, rest) = rest.split_once("/services/")?;
        let (service, rest) = rest.split_once('/')?;
        let path = rest.strip_prefix("proxy")?;
        if namespace.contains('/') || !(path.is_empty() || path.starts_with('/')) {
            return None;
        }
        // Names hold nothing that needs an escape; a colon may come as one.
        let service = service.replace("%3A", ":").replace("%3a", ":");
        let (name, port) = match service.split(':').collect::<Vec<_>>()[..] {
            [name] => (name, ""),
            [name, port] | [_, name, port] => (name, port),
            _ => return None,
        };
        let path = if path.is_empty() { "/" } else { path };
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}").parse(),
            None => path.parse(),
        };
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port: port.to_owned(),
            target: target.ok()?,
        })
    }
}

impl Proxy {
    async fn pass_on<B>(&self, address: Address, request: Request<B>) -> Result<Response<Full<Bytes>>, FrontError>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let text = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
                return Ok(refusal(&StatusError::new(413, "RequestEntityTooLarge", text)));
            }
            Err(error) => return Err(FrontError::Body(error)),
        };
        let backend = match self.backend(&address) {
            Ok(backend) => backend,
            Err(error) => return Ok(refusal(&error)),
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.headers_mut() = head.headers;
        *request.uri_mut() = Uri::from(address.target.clone());
        Ok(match backend(request).await {
            Ok(response) => response.map(Full::new),
            Err(error) => refusal(&unreachable(&error)),
        })
    }

    fn backend(&self, address: &Address) -> Result<super::Backend, StatusError> {
        let Address { namespace, name, port, .. } = address;
        let Some(service) = self.store.get(&kinds::SERVICE, namespace, name) else {
            return self.services.of_all(name).ok_or_else(|| {
                StatusError::new(404, "NotFound", format!("services \"{name}\" not found"))
                    .with_details("", "services", name)
            });
        };
        if let Some(backend) = self.services.of_all(name) {
            return Ok(backend);
        }
        if !has_port(&service, port) {
            let text = format!("no service port {port:?} found for service {name:?}");
            return Err(StatusError::new(503, "ServiceUnavailable", text));
        }
        self.services.of_namespace(namespace, name).ok_or_else(|| {
            let text = format!("service {name:?} does not answer: no containers run in the embedded cluster");
            StatusError::new(503, "ServiceUnavailable", text)
        })
    }
}

/// As in the API server, no port at all stands for the only one or for the one without a name.
fn has_port(service: &Value, wanted: &str) -> bool {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if wanted.is_empty() && ports.len() == 1 {
        return true;
    }
    let number = wanted.parse::<u64>().ok();
    ports.iter().any(|port| {
        let name = port["name"].as_str().unwrap_or_default();
        name == wanted || number.is_some_and(|number| port["port"].as_u64() == Some(number))
    })
}

/// What a client of a real API server reads when the service behind it does not listen.
fn unreachable(error: &io::Error) -> StatusError {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    };
    StatusError::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

fn refusal(error: &StatusError) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(to_bytes(&error.to_value())));
    *response.status_mut() = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn parsed(uri: &str) -> Option<(String, String, String, String)> {
        let Address { namespace, name, port, target } = Address::parse(&uri.parse().unwrap())?;
        Some((namespace, name, port, target.to_string()))
    }

    fn found(namespace: &str, name: &str, port: &str, target: &str) -> Option<(String, String, String, String)> {
        Some((namespace.to_owned(), name.to_owned(), port.to_owned(), target.to_owned()))
    }

    #[test]
    fn the_path_names_service_port_and_what_is_asked() {
        let proxy = |tail: &str| parsed(&format!("/api/v1/namespaces/istio-system/services/{tail}"));
        assert_eq!(
            proxy("prometheus:9090/proxy/api/v1/query?query=up%7B%7D"),
            found("istio-system", "prometheus", "9090", "/api/v1/query?query=up%7B%7D")
        );
        assert_eq!(proxy("prometheus/proxy"), found("istio-system", "prometheus", "", "/"));
        assert_eq!(proxy("http:prometheus:web/proxy/"), found("istio-system", "prometheus", "web", "/"));
        assert_eq!(proxy("prometheus%3A9090/proxy?a=b"), found("istio-system", "prometheus", "9090", "/?a=b"));
    }

    #[test]
    fn everything_else_is_for_the_api_server() {
        for path in [
            "/api/v1/namespaces/istio-system/services/prometheus",
            "/api/v1/namespaces/istio-system/services/prometheus/status",
            "/api/v1/namespaces/istio-system/services/prometheus/proxyfoo",
            "/api/v1/namespaces/istio-system/pods/prometheus/proxy/",
            "/api/v1/namespaces/a/pods/x/services/y/proxy",
            "/api/v1/namespaces/a/services/1:2:3:4/proxy",
            "/apis/apps/v1/namespaces/a/deployments",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }
}
