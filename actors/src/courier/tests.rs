#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aviary_crds::validated::AlertSeverity;
use aviary_providers::HttpRequest;
use futures::future::BoxFuture;

use super::*;
use crate::hooks::PreparedAlert;
use crate::messages::SendAlert;
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

fn alert(namespace: &str, canary: usize) -> SendAlert {
    let canary = CanaryId { namespace: namespace.to_owned(), name: format!("canary-{canary}") };
    let request = HttpRequest::get(format!("http://chat/{namespace}"));
    let alerts = vec![PreparedAlert { provider: "chat".to_owned(), request: Ok(request) }];
    SendAlert { canary, severity: AlertSeverity::Error, id: "id".to_owned(), alerts, reply: None }
}

#[test]
fn alerts_of_one_namespace_wait_for_each_other_and_hold_up_no_other() {
    in_virtual_time(async {
        let (_switch, lifetime) = Lifetime::new();
        let endpoint = Arc::new(Endpoint::default());
        let metrics = Metrics::new().unwrap();
        let courier = lifetime.start(Courier::new(endpoint.clone(), metrics.clone(), lifetime.clone()));
        for canary in 0..alerts::WAITING_PER_NAMESPACE + 44 {
            courier.do_send(alert("busy", canary));
        }
        courier.do_send(alert("quiet", 0));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(endpoint.served.lock().unwrap().contains(&"http://chat/quiet".to_owned()));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), alerts::WAITING_PER_NAMESPACE + 1);
        assert_eq!(endpoint.most.load(Ordering::Relaxed), alerts::POSTS_PER_NAMESPACE + 1);
        assert_eq!(metrics.alerts.with_label_values(&["failure"]).get(), 44, "more than may wait are counted as lost");
        // Nothing of it is left: there is room again.
        courier.do_send(alert("busy", 1000));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), alerts::WAITING_PER_NAMESPACE + 2);
    });
}

#[test]
fn an_alert_that_was_taken_is_not_sent_again() {
    in_virtual_time(async {
        let (_switch, lifetime) = Lifetime::new();
        let endpoint = Arc::new(Endpoint::default());
        let courier = lifetime.start(Courier::new(endpoint.clone(), Metrics::new().unwrap(), lifetime.clone()));
        for canary in [1, 1, 2, 1] {
            courier.do_send(alert("test", canary));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), 2);
        // Another canary of the same name is another matter.
        courier.do_send(CanaryGone(CanaryId { namespace: "test".to_owned(), name: "canary-1".to_owned() }));
        courier.do_send(alert("test", 1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), 3);
    });
}
