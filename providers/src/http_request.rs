//! An HTTP request that somebody else sends.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Method};

/// Timeout of queries and alerts: Flagger's, and short enough that a hanging backend does not outlast an interval
/// (at least 10 s).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP request, complete but for the sending.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Absolute address with its query. May hold a secret.
    pub url: String,
    /// Headers. Credentials are marked sensitive.
    pub headers: HeaderMap,
    /// Body; empty for GET.
    pub body: Vec<u8>,
    /// From connecting to the last byte of the answer.
    pub timeout: Duration,
    /// Whether the certificate of the other side is not checked.
    pub insecure_skip_verify: bool,
    /// HTTP proxy to go through.
    pub proxy: Option<String>,
    /// Name of the webhook that is called, for whoever answers requests in process. Never sent.
    pub webhook: Option<String>,
}

impl HttpRequest {
    /// A GET request.
    pub fn get(url: String) -> HttpRequest {
        HttpRequest {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Vec::new(),
            timeout: REQUEST_TIMEOUT,
            insecure_skip_verify: false,
            proxy: None,
            webhook: None,
        }
    }

    /// A POST request with a JSON body.
    pub fn post_json(url: String, body: &serde_json::Value) -> HttpRequest {
        let mut request = HttpRequest::get(url);
        request.method = Method::POST;
        request.headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        request.body = body.to_string().into_bytes();
        request
    }

    /// Scheme, host and port, without userinfo, path and query: fit for logs and for grouping by backend.
    pub fn origin(&self) -> String {
        let Ok(uri) = self.url.parse::<http::Uri>() else { return String::new() };
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{scheme}://{host}")
    }
}

/// Shows neither path, query nor body: webhook addresses are secrets.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("origin", &self.origin())
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::HttpRequest;

    #[test]
    fn debug_output_holds_no_secret() {
        let request = HttpRequest::get("https://user:hunter2@hooks.example:8443/services/T0KEN?key=s3cret".into());
        assert_eq!(request.origin(), "https://hooks.example:8443");
        let debug = format!("{request:?}");
        assert!(!debug.contains("hunter2") && !debug.contains("T0KEN") && !debug.contains("s3cret"), "{debug}");
    }
}
