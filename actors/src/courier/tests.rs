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

/// An endpoint that takes a second, or panics or never answers where the address says so.
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
            if request.url.ends_with("never") {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            served.lock().unwrap().push(request.url);
            Ok(HttpResponse { status: 200, retry_after: None, body: Vec::new() })
        })
    }
}

fn event(canary: &str, address: &str) -> SendEvent {
    let request = HttpRequest::get(address.to_owned());
    let canary = CanaryId::canary("test", canary);
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
fn slow_tests_of_a_hundred_canaries_delay_no_other_of_their_namespace() {
    in_virtual_time(async {
        let (_switch, lifetime) = Lifetime::new();
        let endpoint = Arc::new(Endpoint::default());
        let courier = lifetime.start(Courier::new(endpoint.clone(), Metrics::new().unwrap(), lifetime.clone()));
        for index in 0..100 {
            courier.do_send(event(&format!("tested-{index}"), "http://tests/never"));
        }
        courier.do_send(event("podinfo", "http://gate/"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(*endpoint.served.lock().unwrap(), ["http://gate/"]);
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
    let canary = CanaryId::canary(namespace, format!("canary-{canary}"));
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

/// Answers one after the other, then 200, and remembers when each was asked for.
struct Answers(Mutex<Vec<Result<HttpResponse, NoAnswer>>>, Mutex<Vec<Duration>>, tokio::time::Instant);

impl Answers {
    fn new(answers: Vec<Result<HttpResponse, NoAnswer>>) -> Answers {
        Answers(Mutex::new(answers), Mutex::default(), tokio::time::Instant::now())
    }

    async fn call(self, retries: u32, success: WebhookSuccess) -> (Result<(), String>, Vec<u64>) {
        let request = HttpRequest::get("http://gate/".to_owned());
        let result = call(&self, &PreparedHook { name: "gate".to_owned(), request, retries }, success).await;
        (result, self.1.into_inner().unwrap().iter().map(Duration::as_secs).collect())
    }
}

impl Transport for Answers {
    fn send(&self, _: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        self.1.lock().unwrap().push(self.2.elapsed());
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.is_empty() { status(200, None) } else { answers.remove(0) };
        Box::pin(std::future::ready(answer))
    }
}

fn status(status: u16, retry_after: Option<u64>) -> Result<HttpResponse, NoAnswer> {
    Ok(HttpResponse { status, retry_after: retry_after.map(Duration::from_secs), body: b"secret".to_vec() })
}

#[test]
fn a_yes_is_200_to_202_or_any_2xx_where_that_is_asked_for() {
    in_virtual_time(async {
        for code in 200..=206 {
            let (flaggers, _) = Answers::new(vec![status(code, None)]).call(0, WebhookSuccess::UpTo202).await;
            assert_eq!(flaggers.is_ok(), code <= 202, "{code}");
            let (any, _) = Answers::new(vec![status(code, None)]).call(0, WebhookSuccess::Any2xx).await;
            assert_eq!(any, Ok(()), "{code}");
        }
        let (redirected, _) = Answers::new(vec![status(304, None)]).call(3, WebhookSuccess::Any2xx).await;
        assert_eq!(redirected, Err("status 304".to_owned()));
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
        courier.do_send(CanaryGone(CanaryId::canary("test", "canary-1")));
        courier.do_send(alert("test", 1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(endpoint.served.lock().unwrap().len(), 3);
    });
}

#[test]
fn calls_are_tried_again_when_flaggers_client_does() {
    in_virtual_time(async {
        let broken = || Err(NoAnswer("connection failed: Connection refused".to_owned()));
        let answers =
            vec![status(500, Some(20)), broken(), status(429, Some(7)), status(503, Some(1000)), status(502, None)];
        let (result, asked) = Answers::new(answers).call(5, WebhookSuccess::UpTo202).await;
        // 1 s, 2 s, then what the server says, but no longer than 30 s, then the fifth wait.
        assert_eq!((result, asked), (Ok(()), vec![0, 1, 3, 10, 40, 56]));

        let (result, asked) =
            Answers::new(vec![status(500, None), status(500, None)]).call(1, WebhookSuccess::UpTo202).await;
        assert_eq!((result, asked.len()), (Err("giving up after 2 attempt(s): status 500".to_owned()), 2));
        for once in [status(404, None), status(501, None), status(403, None)] {
            assert_eq!(Answers::new(vec![once]).call(5, WebhookSuccess::UpTo202).await.1, [0]);
        }
    });
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    in_virtual_time(async {
        for text in ["connection failed: invalid peer certificate: UnknownIssuer", "too many redirects"] {
            let (result, asked) =
                Answers::new(vec![Err(NoAnswer(text.to_owned()))]).call(5, WebhookSuccess::UpTo202).await;
            assert_eq!((result, asked), (Err(text.to_owned()), vec![0]));
        }
    });
}
