//! Counts the calls to the Kubernetes API.

use std::task::{Context, Poll};

use http::{Method, Request};
use prometheus::IntCounterVec;
use tower::{Layer, Service};

/// Wraps a client's service so that every request is counted.
#[derive(Clone)]
pub struct CountCalls {
    calls: IntCounterVec,
}

impl CountCalls {
    /// Counts into a counter with the labels `verb` and `kind`.
    pub fn new(calls: IntCounterVec) -> CountCalls {
        CountCalls { calls }
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, calls: self.calls.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    calls: IntCounterVec,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let uri = request.uri();
        let call = Call::of(request.method(), uri.path(), uri.query().unwrap_or_default());
        self.calls.with_label_values(&[call.verb, &call.kind]).inc();
        self.inner.call(request)
    }
}

/// A call in the words of RBAC.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    verb: &'static str,
    /// Plural resource, with its subresource: `canaries/status`. `other` for paths that are no resource.
    kind: String,
}

impl Call {
    fn of(method: &Method, path: &str, query: &str) -> Call {
        let Some((kind, is_named)) = resource(path) else {
            return Call { verb: verb(method, true, query), kind: "other".to_owned() };
        };
        Call { verb: verb(method, is_named, query), kind }
    }
}

/// The resource of a path, and whether the path names one object.
fn resource(path: &str) -> Option<(String, bool)> {
    let mut parts = path.trim_matches('/').split('/').peekable();
    match parts.next()? {
        "api" => parts.next()?,
        "apis" => {
            parts.next()?;
            parts.next()?
        }
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    // A namespace is an object itself, and the folder of others.
    let rest = match rest.as_slice() {
        ["namespaces", _, "status" | "finalize"] => &rest[..],
        ["namespaces", _, inside @ ..] if !inside.is_empty() => inside,
        _ => &rest[..],
    };
    match rest {
        [plural] => Some(((*plural).to_owned(), false)),
        [plural, _] => Some(((*plural).to_owned(), true)),
        [plural, _, subresource, ..] => Some((format!("{plural}/{subresource}"), true)),
        [] => None,
    }
}

fn verb(method: &Method, is_named: bool, query: &str) -> &'static str {
    let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"));
    match *method {
        Method::GET if watches => "watch",
        Method::GET if is_named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::convert::Infallible;

    use prometheus::{IntCounterVec, Opts};
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn calls_are_told_apart() {
        for (method, uri, verb, kind) in [
            (Method::GET, "/apis/flagger.app/v1beta1/canaries?limit=1", "list", "canaries"),
            (Method::GET, "/apis/flagger.app/v1beta1/canaries?&watch=true&timeoutSeconds=290", "watch", "canaries"),
            (Method::GET, "/apis/apps/v1/namespaces/test/deployments", "list", "deployments"),
            (Method::GET, "/apis/apps/v1/namespaces/test/deployments/podinfo", "get", "deployments"),
            (
                Method::PUT,
                "/apis/flagger.app/v1beta1/namespaces/test/canaries/podinfo/status?",
                "update",
                "canaries/status",
            ),
            (
                Method::PATCH,
                "/apis/networking.istio.io/v1beta1/namespaces/test/virtualservices/podinfo",
                "patch",
                "virtualservices",
            ),
            (Method::POST, "/api/v1/namespaces/test/events", "create", "events"),
            (Method::DELETE, "/api/v1/namespaces/test/services/podinfo", "delete", "services"),
            (Method::DELETE, "/api/v1/namespaces/test/services", "deletecollection", "services"),
            (Method::GET, "/api/v1/namespaces", "list", "namespaces"),
            (Method::GET, "/api/v1/namespaces/test", "get", "namespaces"),
            (Method::PUT, "/api/v1/namespaces/test/status", "update", "namespaces/status"),
            (Method::GET, "/version", "get", "other"),
            (Method::GET, "/apis", "get", "other"),
            (Method::GET, "/apis/flagger.app/v1beta1", "get", "other"),
        ] {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            assert_eq!(Call::of(&method, path, query), Call { verb, kind: kind.to_owned() }, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn every_request_counts_and_passes() {
        let calls = IntCounterVec::new(Opts::new("calls", "calls"), &["verb", "kind"]).unwrap();
        let inner = service_fn(|request: Request<String>| async move { Ok::<_, Infallible>(request.into_body()) });
        let service = CountCalls::new(calls.clone()).layer(inner);
        for body in ["a", "b"] {
            let request = Request::post("/api/v1/namespaces/test/events").body(body.to_owned()).unwrap();
            assert_eq!(service.clone().oneshot(request).await, Ok(body.to_owned()));
        }
        assert_eq!(calls.with_label_values(&["create", "events"]).get(), 2);
    }
}
