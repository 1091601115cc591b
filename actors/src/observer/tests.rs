#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Mutex;

use super::*;

type Answers = dyn Fn(&HttpRequest) -> Result<HttpResponse, NoAnswer> + Send + Sync;

/// A backend that remembers what it was asked.
struct Backend {
    asked: Mutex<Vec<HttpRequest>>,
    answer: Box<Answers>,
}

impl Transport for Backend {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        let answer = (self.answer)(&request);
        self.asked.lock().unwrap().push(request);
        std::future::ready(answer).boxed()
    }
}

impl Backend {
    fn asked(&self) -> Vec<HttpRequest> {
        self.asked.lock().unwrap().clone()
    }
}

fn backend(
    answer: impl Fn(&HttpRequest) -> Result<HttpResponse, NoAnswer> + Send + Sync + 'static,
) -> (Arc<Backend>, Asker) {
    let backend = Arc::new(Backend { asked: Mutex::default(), answer: Box::new(answer) });
    let clock = Clock::from_fn(|| jiff::Timestamp::UNIX_EPOCH);
    let asker = Asker {
        transport: backend.clone(),
        clock,
        metrics: Metrics::new().unwrap(),
        breaker: Breaker::default(),
        too_heavy: Arc::default(),
    };
    (backend, asker)
}

fn response(status: u16, body: impl Into<Vec<u8>>) -> Result<HttpResponse, NoAnswer> {
    Ok(HttpResponse { status, retry_after: None, body: body.into() })
}

const ONE_VALUE: &str = r#"{"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "99"]}]}}"#;

fn query(text: &str, tenant: Option<&str>) -> Query {
    Query {
        provider: &Prometheus,
        config: ProviderConfig::metrics_server("http://prometheus:9090"),
        text: text.to_owned(),
        grouped: None,
        observer: "istio".to_owned(),
        tenant: tenant.map(str::to_owned),
        source: source(tenant.unwrap_or("test"), QueryAuthor::Controller),
    }
}

fn source(namespace: &str, author: QueryAuthor) -> QuerySource {
    QuerySource { namespace: namespace.to_owned(), author }
}

/// A query that a canary of this namespace has in its spec.
fn inline(namespace: &str, text: &str) -> Query {
    Query { source: source(namespace, QueryAuthor::Canary), ..query(text, None) }
}

async fn ask_two(asker: Asker) -> Vec<Answer> {
    ask_together(asker, &["a", "b"]).await
}

/// Asks for a group of workloads; their answers.
async fn ask_together(asker: Asker, workloads: &[&str]) -> Vec<Answer> {
    let member = |workload: &str| GroupMember {
        metric: BuiltinMetric::RequestSuccessRate,
        interval: "1m".to_owned(),
        namespace: "test".to_owned(),
        workload: workload.to_owned(),
    };
    let key = GroupKey {
        address: "http://prometheus:9090".to_owned(),
        metric: BuiltinMetric::RequestSuccessRate,
        interval: "1m".to_owned(),
        tenant: None,
    };
    let (members, receivers): (Members, Vec<_>) = workloads
        .iter()
        .map(|workload| {
            let (sender, receiver) = oneshot::channel();
            ((member(workload), vec![(query(workload, None), sender)]), receiver)
        })
        .unzip();
    ask_group(asker, query("", None).config, key, members).await;
    join_all(receivers).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

#[tokio::test]
async fn a_grouped_query_is_a_form() {
    let series = |workload: &str, value: &str| serde_json::json!({"metric": {"destination_workload_namespace": "test", "destination_workload": workload}, "value": [1, value]});
    let body = serde_json::json!({"data": {"resultType": "vector", "result": [series("a", "99"), series("b", "50")]}});
    let (backend, asker) = backend(move |_| response(200, body.to_string()));
    assert_eq!(ask_two(asker).await, [Ok(99.0), Ok(50.0)]);
    let asked = backend.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].url.as_str()), ("POST", "http://prometheus:9090/api/v1/query"));
    assert_eq!(asked[0].headers["content-type"], "application/x-www-form-urlencoded");
    assert!(asked[0].body.starts_with(b"query=sum%20by"));
}

#[tokio::test]
async fn members_of_a_refused_group_ask_for_themselves() {
    let (backend, asker) = backend(|request| match request.method.as_str() {
        "POST" => response(422, "too many samples"),
        _ if request.url.ends_with("query=a") => response(200, ONE_VALUE),
        _ => response(422, "it was b"),
    });
    let answers = ask_two(asker).await;
    assert_eq!(answers[0], Ok(99.0));
    assert!(matches!(answers[1], Err(MetricError::Status { code: 422, .. })), "{answers:?}");
    assert_eq!(backend.asked().len(), 3);
}

#[tokio::test]
async fn an_outage_is_not_made_worse_by_asking_for_each_member() {
    let (backend, asker) = backend(|_| response(503, ""));
    let answers = ask_together(asker, &["a", "b", "c", "d", "e", "f"]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(MetricError::Unavailable(_)))), "{answers:?}");
    assert_eq!(backend.asked().len(), 3, "the group, its first and its last");
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_that_is_too_heavy_ask_for_themselves() {
    let (backend, asker) = backend(|request| match request.method.as_str() {
        "POST" => Err(NoAnswer("no answer within 5s".to_owned())),
        _ => response(200, ONE_VALUE),
    });
    let workloads = ["a", "b", "c", "d", "e", "f"];
    let groups = |backend: &Backend| backend.asked().iter().filter(|request| request.method == "POST").count();
    for _ in 0..10 {
        assert_eq!(ask_together(asker.clone(), &workloads).await, vec![Ok(99.0); workloads.len()]);
    }
    assert_eq!((groups(&backend), backend.asked().len()), (1, 61));
    tokio::time::advance(ALONE_FOR).await;
    assert_eq!(ask_together(asker.clone(), &workloads).await, vec![Ok(99.0); workloads.len()]);
    assert_eq!(groups(&backend), 2, "it may have been a hiccup");
}

/// What one of them asks takes too long, alone and in a group.
#[tokio::test]
async fn a_member_that_is_too_heavy_itself_is_answered_alone() {
    let (_, asker) = backend(|request| match request.method.as_str() {
        "POST" => Err(NoAnswer("no answer within 5s".to_owned())),
        _ if request.url.ends_with("query=a") => Err(NoAnswer("no answer within 5s".to_owned())),
        _ => response(200, ONE_VALUE),
    });
    let answers = ask_together(asker, &["a", "b", "c"]).await;
    assert!(matches!(answers[0], Err(MetricError::Unavailable(_))), "{answers:?}");
    assert_eq!(answers[1..], [Ok(99.0), Ok(99.0)]);
}

#[tokio::test]
async fn an_answer_that_was_cut_is_no_answer() {
    let mut body = ONE_VALUE.as_bytes().to_vec();
    body.resize(BODY_LIMIT, b' ');
    let (_, asker) = backend(move |_| response(200, body.clone()));
    assert!(matches!(asker.ask(&query("a", None)).await, Err(MetricError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn the_failing_queries_of_a_tenant_open_nobody_elses_circuit() {
    let (backend, asker) = backend(|request| match request.url.ends_with("query=bad") {
        true => Err(NoAnswer("timeout".to_owned())),
        false => response(200, ONE_VALUE),
    });
    for _ in 0..10 {
        assert!(asker.ask(&query("bad", Some("noisy"))).await.is_err());
    }
    assert!(backend.asked().len() < 10, "the tenant's own circuit is open");
    assert!(asker.ask(&query("good", Some("noisy"))).await.is_err());
    assert_eq!(asker.ask(&query("good", Some("quiet"))).await, Ok(99.0));
    assert_eq!(asker.ask(&query("good", None)).await, Ok(99.0));
    assert_ne!(identity(&query("good", Some("noisy"))), identity(&query("good", Some("quiet"))), "no shared answer");
}

#[tokio::test(start_paused = true)]
async fn failing_queries_of_a_canary_open_no_circuit_of_another_namespace_nor_of_built_in_checks() {
    let (backend, asker) = backend(|request| match request.url.ends_with("query=bad") {
        true => response(429, ""),
        false => response(200, ONE_VALUE),
    });
    for _ in 0..10 {
        assert!(asker.ask(&inline("noisy", "bad")).await.is_err());
    }
    assert!(backend.asked().len() < 10, "its own circuit is open");
    assert!(asker.ask(&inline("noisy", "good")).await.is_err());
    assert_eq!(asker.ask(&inline("quiet", "good")).await, Ok(99.0));
    for namespace in ["noisy", "quiet"] {
        let builtin = Query { source: source(namespace, QueryAuthor::Controller), ..query("good", None) };
        assert_eq!(asker.ask(&builtin).await, Ok(99.0), "{namespace}");
    }
    assert_eq!(identity(&inline("noisy", "good")), identity(&inline("quiet", "good")), "equal queries are asked once");
}
