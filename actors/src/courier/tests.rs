#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aviary_providers::HttpRequest;
use futures::future::BoxFuture;

use super::*;
use crate::transport::NoAnswer;

/// An endpoint that takes a second, and panics where the address says so.
#[derive(Default)]
struct Endpoint {
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    served: Arc<Mutex<Vec<String>>>,
}

impl Transport for Endpoint {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        assert!(!request.url.ends_with("panic"), "a bad request");
        let (under_way, most, served) = (self.under_way.clone(), self.most.clone(), self.served.clone());
        Box::pin(async move {
            let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            served.lock().unwrap().push(request.url);
            Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })
        })
    }
}

fn event(canary: &str, address: &str) -> SendEvent {
    let request = HttpRequest::get(address.to_owned());
    let canary = CanaryId { namespace: "test".to_owned(), name: canary.to_owned() };
    SendEvent { canary, hooks: vec![PreparedHook { name: "events".to_owned(), request, retries: 0 }] }
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn events_are_sent_under_the_bound_of_their_namespace() {
    in_virtual_time(async {
        let (_switch, lifetime) = Lifetime::new();
        let endpoint = Arc::new(Endpoint::default());
        let courier = lifetime.start(Courier::new(endpoint.clone(), Metrics::new().unwrap(), lifetime.clone()));
        for index in 0..3 * PER_NAMESPACE {
            courier.do_send(event(&format!("canary-{index}"), "http://events/"));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), 3 * PER_NAMESPACE);
        assert_eq!(endpoint.most.load(Ordering::Relaxed), PER_NAMESPACE);
    });
}

#[test]
fn a_panic_does_not_silence_the_events_that_follow() {
    in_virtual_time(async {
        let (_switch, lifetime) = Lifetime::new();
        let endpoint = Arc::new(Endpoint::default());
        let courier = lifetime.start(Courier::new(endpoint.clone(), Metrics::new().unwrap(), lifetime.clone()));
        for address in ["http://events/1", "http://events/panic", "http://events/2"] {
            courier.do_send(event("podinfo", address));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*endpoint.served.lock().unwrap(), ["http://events/1", "http://events/2"]);
    });
}
