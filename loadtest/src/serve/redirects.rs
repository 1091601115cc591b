//! Where a server sends a request on to, and what it takes along.

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Body, Url};

/// A redirection that is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRedirect {
    #[error("too many redirections")]
    TooMany,
    #[error("the server redirects to what is no address")]
    Location,
    #[error("the server redirects to an address that is neither http nor https")]
    Scheme,
}

/// The name that a server is told instead of its address's.
#[derive(Clone)]
pub(super) enum Told {
    /// In the address: over TLS it is part of the handshake, and in HTTP/2 of every request.
    Address(Url),
    /// In the header alone.
    Header(HeaderValue),
}

/// A request as it is sent.
#[derive(Clone)]
pub(super) struct Hop {
    /// Where it goes.
    pub(super) url: Url,
    pub(super) method: Method,
    /// Without the name that is told.
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Hop {
    /// The request with the name that is told to its server.
    pub(super) fn request(&self, told: Option<&Told>) -> reqwest::Request {
        let mut url = self.url.clone();
        let mut headers = self.headers.clone();
        match told {
            None => {}
            Some(Told::Header(name)) => drop(headers.insert(HOST, name.clone())),
            Some(Told::Address(named)) => {
                url = named.clone();
                url.set_path(self.url.path());
                url.set_query(self.url.query());
            }
        }
        let mut request = reqwest::Request::new(self.method.clone(), url);
        *request.headers_mut() = headers;
        *request.body_mut() = (!self.body.is_empty()).then(|| Body::from(self.body.clone()));
        request
    }

    /// The request that this answer asks for, if it is a redirection.
    pub(super) fn next(&self, status: StatusCode, answer: &HeaderMap) -> Result<Option<Hop>, NoRedirect> {
        let Some(location) = answer.get(LOCATION).filter(|_| is_redirection(status)) else { return Ok(None) };
        let url = location.to_str().ok().and_then(|location| self.url.join(location).ok());
        let mut url = url.ok_or(NoRedirect::Location)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NoRedirect::Scheme);
        }
        // It is the server's, not the user's. Neither can fail for these schemes.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let mut next = Hop { url, ..self.clone() };
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body.clear();
            remove(&mut next.headers, &[CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING]);
        }
        if next.url.origin() != self.url.origin() {
            remove(&mut next.headers, &[AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION]);
        }
        Ok(Some(next))
    }
}

fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}
