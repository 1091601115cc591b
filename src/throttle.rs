//! Holds calls to the Kubernetes API back (`--kubeconfig-qps`, `--kubeconfig-burst`).
//!
//! Events have a bucket of their own, as each of Flagger's clients has: a burst of news delays no rollback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Request;
use tokio::time::Instant;
use tower::{Layer, Service};

/// A token bucket, like the one in Kubernetes' Go client: `burst` calls at once, then one every `1 / qps` seconds.
#[derive(Clone)]
pub struct Throttle {
    bucket: Option<Arc<Bucket>>,
}

struct Bucket {
    origin: Instant,
    /// Nanoseconds after `origin` at which the bucket is full again.
    full_at: AtomicU64,
    /// Nanoseconds in which one token comes back.
    cost: u64,
    /// Nanoseconds in which an empty bucket fills up, but for one token.
    tolerance: u64,
}

impl Throttle {
    /// No limit if `qps` is 0 or below. A `burst` of 0 counts as 1.
    pub fn new(qps: f64, burst: u32) -> Throttle {
        if qps <= 0.0 || !qps.is_finite() {
            return Throttle { bucket: None };
        }
        // A rate below one call per hour is a mistake; the cap keeps the sums small.
        let cost = Duration::from_secs_f64((1.0 / qps).min(3600.0));
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let tolerance = cost.saturating_mul(u64::from(burst.max(1) - 1));
        Throttle {
            bucket: Some(Arc::new(Bucket { origin: Instant::now(), full_at: AtomicU64::new(0), cost, tolerance })),
        }
    }

    /// The same limit, counted apart.
    fn with_own_bucket(&self) -> Throttle {
        let own = |bucket: &Arc<Bucket>| {
            let (cost, tolerance) = (bucket.cost, bucket.tolerance);
            Arc::new(Bucket { origin: bucket.origin, full_at: AtomicU64::new(0), cost, tolerance })
        };
        Throttle { bucket: self.bucket.as_ref().map(own) }
    }

    /// Takes a token and returns how long its owner has to wait.
    fn reserve(&self) -> Duration {
        let Some(bucket) = &self.bucket else { return Duration::ZERO };
        let now = u64::try_from(bucket.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let take = |full_at: u64| Some(full_at.max(now).saturating_add(bucket.cost));
        let full_at = match bucket.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(previous) | Err(previous) => previous.max(now),
        };
        Duration::from_nanos(full_at.saturating_sub(bucket.tolerance).saturating_sub(now))
    }
}

impl<S> Layer<S> for Throttle {
    type Service = Throttled<S>;

    fn layer(&self, inner: S) -> Throttled<S> {
        Throttled { inner, calls: self.clone(), events: self.with_own_bucket() }
    }
}

/// A service whose requests wait for a token.
#[derive(Clone)]
pub struct Throttled<S> {
    inner: S,
    calls: Throttle,
    events: Throttle,
}

impl<S, B> Service<Request<B>> for Throttled<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_event = request.uri().path().split('/').any(|part| part == "events");
        let wait = if is_event { self.events.reserve() } else { self.calls.reserve() };
        let answer = self.inner.call(request);
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn waits(throttle: &Throttle, calls: usize) -> Vec<u128> {
        (0..calls).map(|_| throttle.reserve().as_millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_is_spread() {
        let throttle = Throttle::new(10.0, 3);
        assert_eq!(waits(&throttle, 5).await, [0, 0, 0, 100, 200]);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(waits(&throttle, 1).await, [100]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(waits(&throttle, 4).await, [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn there_may_be_no_limit() {
        assert_eq!(waits(&Throttle::new(-1.0, 1), 1000).await, [0; 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_made_when_its_token_is_there() {
        use tower::ServiceExt;
        let start = Instant::now();
        let inner = tower::service_fn(move |_: Request<()>| async move { Ok::<_, ()>(start.elapsed().as_millis()) });
        let service = Throttle::new(10.0, 1).layer(inner);
        let get = |path: &str| service.clone().oneshot(Request::builder().uri(path).body(()).unwrap());
        assert_eq!(get("/api/v1/namespaces/a/services/b").await, Ok(0));
        assert_eq!(get("/api/v1/namespaces/a/services/b").await, Ok(100));
        assert_eq!(get("/api/v1/namespaces/a/events").await, Ok(100), "events wait for events only");
        assert_eq!(get("/api/v1/namespaces/a/services/b").await, Ok(200));
    }
}
