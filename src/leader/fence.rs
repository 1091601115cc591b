//! Keeps writes from leaving a process that leads no more.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aviary_actors::Clock;
use futures::future::BoxFuture;
use http::{Method, Request, Uri};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt};

use super::Timing;

/// Part of the time between the renew deadline and the end of the lease that is left for the way to the API server.
const WAY: u32 = 5;

/// Lets writes through as long as the lease was renewed within the renew deadline. It closes by itself, whether or not
/// anything else of the process runs.
///
/// Two clocks count, and the later one decides: the monotonic one, which runs while the process is stopped, and the
/// system's, which also runs while the machine sleeps.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    timing: Timing,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    /// Does not lead yet.
    Closed,
    /// The last renewal was sent then.
    Renewed(Instant, Timestamp),
    /// Never again.
    Revoked,
}

/// Why a write was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process does not lead: the write was not sent")]
pub struct NotLeading;

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.permit()).finish()
    }
}

impl Fence {
    /// A closed one. `clock` tells the time of day.
    pub fn new(timing: Timing, clock: Clock) -> Fence {
        Fence(Arc::new(Inner { timing, clock, state: Mutex::new(State::Closed) }))
    }

    /// The lease was renewed by a call that was sent then.
    pub fn renewed(&self, sent: Instant, sent_at: Timestamp) {
        let mut state = self.0.state.lock();
        if !matches!(*state, State::Revoked) {
            *state = State::Renewed(sent, sent_at);
        }
    }

    /// Closes for good.
    pub fn revoke(&self) {
        *self.0.state.lock() = State::Revoked;
    }

    /// Whether a write may be sent now, and how long the API server may take for it: a bit less than until another may have
    /// the lease.
    ///
    /// # Errors
    /// If this process does not lead, or could not renew its lease for too long.
    pub fn permit(&self) -> Result<Duration, NotLeading> {
        let State::Renewed(sent, sent_at) = *self.0.state.lock() else { return Err(NotLeading) };
        let slept = self.0.clock.now().duration_since(sent_at);
        let age = sent.elapsed().max(Duration::try_from(slept).unwrap_or_default());
        let Timing { lease, renew_deadline, .. } = self.0.timing;
        if age >= renew_deadline {
            return Err(NotLeading);
        }
        Ok(lease - age - self.way())
    }

    /// How long a request may be on its way to the API server.
    pub(super) fn way(&self) -> Duration {
        (self.0.timing.lease - self.0.timing.renew_deadline) / WAY
    }
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, fence: self.clone() }
    }
}

/// A client's service that sends writes only while the fence lets them through.
#[derive(Clone)]
pub struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner service is waited for in `call`: a write may have to wait for it, and is looked at after that.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (mut inner, fence) = (self.inner.clone(), self.fence.clone());
        Box::pin(async move {
            let ready = inner.ready().await.map_err(Into::into)?;
            if is_write(request.method()) {
                let limit = fence.permit()?;
                *request.uri_mut() = limited(request.uri(), limit)?;
            }
            ready.call(request).await.map_err(Into::into)
        })
    }
}

/// Whether a request may change something.
pub(crate) fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The address with a limit for the API server, which gives a request up after it.
fn limited(uri: &Uri, limit: Duration) -> Result<Uri, http::Error> {
    let path = uri.path();
    let timeout = format!("timeout={}ms", limit.as_millis());
    let query = match uri.query().filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}&{timeout}"),
        None => format!("{path}?{timeout}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(query.parse()?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::convert::Infallible;

    use super::*;

    fn fence() -> (Fence, Arc<Mutex<Timestamp>>) {
        let time = Arc::new(Mutex::new(Timestamp::UNIX_EPOCH));
        let shown = time.clone();
        (Fence::new(Timing::default(), Clock::from_fn(move || *shown.lock())), time)
    }

    async fn send(fence: &Fence, method: Method, uri: &str) -> Result<String, String> {
        let inner =
            tower::service_fn(|request: Request<()>| async move { Ok::<_, Infallible>(request.uri().to_string()) });
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        fence.layer(inner).oneshot(request).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn writes_leave_only_while_the_lease_is_fresh_and_reads_always() {
        let (fence, _) = fence();
        let refused = Err(NotLeading.to_string());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(send(&fence, method, "/api").await, refused);
        }
        assert_eq!(send(&fence, Method::GET, "/api?watch=1").await.unwrap(), "/api?watch=1");

        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        assert_eq!(send(&fence, Method::PATCH, "http://k8s/api").await.unwrap(), "http://k8s/api?timeout=14000ms");
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(send(&fence, Method::POST, "/api?a=b").await.unwrap(), "/api?a=b&timeout=4001ms");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(send(&fence, Method::POST, "/api").await, refused, "closed without anybody's help");

        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        assert!(fence.permit().is_ok());
        fence.revoke();
        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        assert_eq!(fence.permit(), Err(NotLeading), "the answer to a late renewal does not open it again");
    }

    /// The monotonic clock stands still while a machine is suspended.
    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_is_not_trusted() {
        let (fence, time) = fence();
        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        *time.lock() = Timestamp::from_second(9).unwrap();
        assert_eq!(fence.permit(), Ok(Duration::from_secs(5)));
        *time.lock() = Timestamp::from_second(10).unwrap();
        assert_eq!(fence.permit(), Err(NotLeading));
        *time.lock() = Timestamp::from_second(-100).unwrap();
        assert!(fence.permit().is_ok(), "a clock that was put back changes nothing");
    }

    /// The write is looked at when it is sent, not when it was asked for.
    #[tokio::test(start_paused = true)]
    async fn a_write_that_waited_too_long_for_its_turn_is_not_sent() {
        let (fence, _) = fence();
        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        let inner = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(()) });
        let throttle = crate::throttle::Throttle::new(0.01, 1);
        let service = throttle.layer(fence.layer(inner));
        let post = || service.clone().oneshot(Request::post("/api/v1/namespaces/a/services").body(()).unwrap());
        post().await.unwrap();
        let error = post().await.expect_err("100 seconds later");
        assert_eq!(error.to_string(), NotLeading.to_string());
    }
}
