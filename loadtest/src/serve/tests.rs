//! The load tester over HTTP, and a server that it is sent to, in real time.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

mod curl;
mod redirects;
mod silence;
mod tls;

/// A request as it came.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    version: http::Version,
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A server with HTTP/1.1 and HTTP/2 that remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Requests for `/slow` that are waited for.
    waiting: Arc<AtomicUsize>,
}

struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    async fn start() -> (Server, String) {
        let server = Server::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let server = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| server.clone().answer(connection, request));
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (server, address.to_string())
    }

    async fn answer(
        self,
        connection: usize,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let location = head.headers.get("x-location").cloned();
        self.seen.lock().push(Seen {
            connection,
            version: head.version,
            method: head.method.to_string(),
            path: path.clone(),
            headers: head.headers,
            body: body.clone(),
        });
        let full = |status: u16, text: &'static str| {
            let mut response = Response::new(Full::from(text).boxed());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        };
        Ok(match path.as_str() {
            "/token" => full(200, "{\"token\": \"abc\"}"),
            "/status/500" => full(500, "it is broken"),
            "/metadata" => {
                let mut response = full(302, "");
                response.headers_mut().insert("location", "http://169.254.169.254/secret".parse().unwrap());
                response
            }
            // `/redirect/303`, to where the request says.
            path if path.starts_with("/redirect/") => {
                let mut response = full(path["/redirect/".len()..].parse().unwrap(), "");
                response.headers_mut().insert("location", location.unwrap());
                response
            }
            "/slow" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _waits = Waits(self.waiting.clone());
                std::future::pending().await
            }
            "/grpc.health.v1.Health/Check" => {
                let status = if body.ends_with(b"sick") { 2 } else { 1 };
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                let body = Full::from(vec![0, 0, 0, 0, 2, 8, status]).with_trailers(async { Some(Ok(trailers)) });
                Response::new(body.boxed())
            }
            _ => full(200, "welcome"),
        })
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

fn options() -> Options {
    Options {
        timeout: Duration::from_secs(3600),
        access: Access::default(),
        targets: Targets::default(),
        allows_commands: false,
        gates_file: None,
        max_tasks: NonZeroUsize::new(100).unwrap(),
        max_tasks_per_namespace: NonZeroUsize::new(50).unwrap(),
    }
}

struct Tester {
    address: SocketAddr,
}

impl Tester {
    async fn start(options: Options) -> Tester {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Arc::new(LoadTester::new(options).unwrap()).serve(listener));
        Tester { address }
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.post(format!("http://{}{path}", self.address)).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn gate(&self, path: &str) -> (u16, String) {
        self.post(path, payload(Value::Null)).await
    }

    async fn run(&self, kind: &str, cmd: &str) -> (u16, String) {
        self.post("/", payload(json!({"type": kind, "cmd": cmd, "returnCmdOutput": "true"}))).await
    }

    /// Waits until nothing runs any more.
    async fn until_idle(&self) -> String {
        let mut metrics = String::new();
        until(async || {
            metrics = self.post("/metrics", "").await.1;
            !metrics.contains("aviary_loadtest_tasks_running{")
        })
        .await;
        metrics
    }
}

fn payload(metadata: Value) -> String {
    let mut payload = json!({"name": "podinfo", "namespace": "test", "phase": "Progressing", "checksum": "85d557f47b"});
    if !metadata.is_null() {
        payload["metadata"] = metadata;
    }
    payload.to_string()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn answer(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn gates_answer_as_flaggers_do() {
    let tester = Tester::start(options()).await;
    assert_eq!(tester.gate("/gate/check").await, answer(403, "Forbidden"), "closed until it is opened");
    assert_eq!(tester.gate("/gate/open").await, answer(202, ""));
    assert_eq!(tester.gate("/gate/check").await, answer(200, "Approved"));
    assert_eq!(tester.gate("/rollback/check").await, answer(403, "Forbidden"), "another key space");
    assert_eq!(tester.gate("/rollback/open").await, answer(202, ""));
    assert_eq!(tester.gate("/gate/close").await, answer(202, ""));
    assert_eq!(tester.gate("/gate/check").await, answer(403, "Forbidden"));
    assert_eq!(tester.gate("/rollback/check").await, answer(200, "Approved"));
    assert_eq!(tester.gate("/rollback/close").await, answer(202, ""));
    assert_eq!(tester.gate("/rollback/check").await, answer(403, "Forbidden"));
    let other = json!({"name": "podinfo", "namespace": "other"}).to_string();
    assert_eq!(tester.post("/gate/check", other).await.0, 403, "a gate belongs to one canary");
    assert_eq!(tester.post("/gate/approve", "no JSON").await, answer(200, "OK"));
    assert_eq!(tester.post("/gate/halt", "").await, answer(403, "Forbidden"));
    assert_eq!(tester.post("/healthz", "").await, answer(200, "OK"));
    assert_eq!(tester.post("/gate/open", "{}").await, answer(400, "name and namespace of the canary are needed"));
}

#[tokio::test]
async fn a_payload_that_is_none_gets_one_clear_answer() {
    let tester = Tester::start(options()).await;
    assert_eq!(tester.post("/", payload(Value::Null)).await, answer(400, "metadata not found in payload"));
    assert_eq!(tester.post("/", payload(json!({}))).await, answer(400, "cmd not found in metadata"));
    assert_eq!(tester.post("/", "no JSON").await.0, 400);
    let (status, text) = tester.post("/", "{\"metadata\": \"type=bash, secret\"}").await;
    assert_eq!((status, text.contains("texts by name as metadata"), text.contains("secret")), (400, true, false));
    assert_eq!(tester.post("/", "x".repeat(100_000)).await, answer(413, "the payload is longer than 65536 bytes"));
    let (status, text) = tester.run("concord", "x").await;
    assert_eq!((status, text.starts_with("task type \"concord\" is not served")), (400, true), "{text}");
    let (status, text) = tester.run("cmd", "bats /tests/a.bats").await;
    assert_eq!((status, text.ends_with("start the load tester with --allow-commands")), (400, true), "{text}");
}

#[tokio::test]
async fn callers_may_be_limited() {
    let token = Token::new("a-token-that-is-long-enough").unwrap();
    let access = Access { namespaces: Some(regex::Regex::new("^team-").unwrap()), token: Some(token) };
    let tester = Tester::start(Options { access, ..options() }).await;
    assert_eq!(tester.post("/healthz", "").await.0, 200);
    for path in ["/", "/gate/approve", "/gate/open", "/rollback/check"] {
        assert_eq!(tester.gate(path).await.0, 401, "{path}");
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    // As in the URL of a webhook.
    let url = format!("http://canary:a-token-that-is-long-enough@{}/gate/check", tester.address);
    let send = async |namespace: &str| {
        let body = json!({"name": "podinfo", "namespace": namespace}).to_string();
        let response = client.post(&url).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(send("team-a").await, answer(403, "Forbidden"), "a closed gate");
    let text = "the namespace \"test\" is not served here (-namespace-regexp)";
    assert_eq!(send("test").await, answer(403, text));
}

#[tokio::test]
async fn hey_sends_what_it_is_asked_for_once_at_a_time() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let cmd = format!(
        "hey -n 40 -q 5 -c 2 -m POST -d '{{test: 2}}' -H 'x-user: insider' -host app.example.com http://{address}/echo?a=b"
    );
    for _ in 0..3 {
        assert_eq!(tester.run("cmd", &cmd).await, answer(202, ""));
    }
    let metrics = tester.until_idle().await;
    let seen = server.seen();
    assert_eq!(seen.len(), 40, "the second and the third time it ran already");
    for request in &seen {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/echo"));
        assert_eq!((request.version, request.body.as_ref()), (http::Version::HTTP_11, b"{test: 2}".as_slice()));
        assert_eq!(
            (&request.headers["host"], &request.headers["x-user"]),
            (&"app.example.com".parse().unwrap(), &"insider".parse().unwrap())
        );
    }
    let connections: BTreeSet<usize> = seen.iter().map(|request| request.connection).collect();
    assert!(connections.len() < seen.len(), "some are used again: {connections:?}");
    assert!(metrics.contains("aviary_loadtest_requests_total{code=\"200\",program=\"hey\"} 40"), "{metrics}");
    assert!(metrics.contains("aviary_loadtest_tasks_total{result=\"success\",type=\"cmd\"} 1"), "{metrics}");
}

#[tokio::test]
async fn without_keepalive_every_request_has_a_connection_of_its_own() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let (status, report) =
        tester.run("bash", &format!("hey -n 10 -c 2 -disable-keepalive http://{address}/status/500")).await;
    assert_eq!((status, report.contains("[500] 10 responses")), (200, true), "{report}");
    let connections: BTreeSet<usize> = server.seen().iter().map(|request| request.connection).collect();
    assert_eq!(connections.len(), 10);
}

#[tokio::test]
async fn wrk_keeps_its_connections_busy_for_its_time() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let begun = Instant::now();
    let (status, report) = tester.run("bash", &format!("wrk -t1 -c3 -d1s http://{address}/")).await;
    assert_eq!(status, 200, "{report}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(server.seen().len() > 10, "{report}");
    let connections: BTreeSet<usize> = server.seen().iter().map(|request| request.connection).collect();
    assert_eq!(connections.len(), 3, "{report}");
}

#[tokio::test]
async fn curl_ends_as_curl_and_grep_do() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let token = format!("curl -sd 'test' -H 'Host: app.example.com' http://{address}/token");
    assert_eq!(tester.run("bash", &format!("{token} | grep token")).await, answer(200, "{\"token\": \"abc\"}"));
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].body.as_ref()), ("POST", b"test".as_slice()));
    assert_eq!(seen[0].headers["host"], "app.example.com");
    assert_eq!(seen[0].headers["content-type"], "application/x-www-form-urlencoded");
    let (status, text) = tester.run("bash", &format!("{token} | grep -q missing")).await;
    assert_eq!((status, text.ends_with("exit code 1: grep found nothing")), (500, true), "{text}");

    assert_eq!(tester.run("bash", &format!("curl -s http://{address}/status/500")).await, answer(200, "it is broken"));
    let (status, text) = tester.run("bash", &format!("curl -sf http://{address}/status/500?key=secret")).await;
    assert_eq!((status, text.contains("exit code 22: curl: the server answered 500")), (500, true), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let coded = format!("curl -s -o /dev/null -w '%{{http_code}}' http://{address}/status/500");
    assert_eq!(tester.run("bash", &coded).await, answer(200, "500"));
    assert_eq!(tester.run("bash", &format!("curl -s http://{address}/ >/dev/null")).await, answer(200, ""));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (status, text) = tester.run("bash", &format!("curl -s http://{nobody}/")).await;
    assert_eq!((status, text.contains("exit code 7: curl: connection failed: ")), (500, true), "{text}");
    let (status, text) = tester.run("bash", &format!("curl -m 0.1 http://{address}/slow")).await;
    assert_eq!((status, text.contains("exit code 28: curl: timeout exceeded")), (500, true), "{text}");
}

#[tokio::test]
async fn curl_tries_again_as_often_as_it_is_told() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let (status, _) =
        tester.run("bash", &format!("curl -sf --retry 2 --retry-delay 0.01 http://{address}/status/500")).await;
    assert_eq!((status, server.seen().len()), (500, 3));
}

#[tokio::test]
async fn grpc_health_is_asked_for_over_http_2() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let probe = format!("grpc_health_probe -connect-timeout=5s -rpc-timeout=5s -addr={address}");
    assert_eq!(tester.run("bash", &probe).await, answer(200, "status: SERVING"));
    let (status, text) = tester.run("bash", &format!("{probe} -service=sick")).await;
    assert_eq!(
        (status, text.contains("exit code 4: service unhealthy (responded with \"NOT_SERVING\")")),
        (500, true),
        "{text}"
    );
    let seen = server.seen();
    assert_eq!((seen[0].version, seen[0].method.as_str()), (http::Version::HTTP_2, "POST"));
    assert_eq!(seen[0].headers["content-type"], "application/grpc");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (status, text) = tester.run("bash", &format!("grpc_health_probe -addr={nobody}")).await;
    assert_eq!((status, text.contains("exit code 2: failed to connect")), (500, true), "{text}");

    let (status, report) = tester.run("bash", &format!("ghz --insecure -n 20 -c 4 {address}")).await;
    assert_eq!((status, report.contains("[OK] 20 responses")), (200, true), "{report}");
    assert_eq!(server.seen().len(), 22);
    let (_, report) = tester.run("bash", &format!("ghz --insecure -n 3 -c 1 --authority svc.test {address}")).await;
    assert!(report.contains("[OK] 3 responses"), "a name that is only told: {report}");
}

#[tokio::test]
async fn a_task_ends_with_the_caller_that_waits_for_it() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let body = payload(json!({"type": "bash", "cmd": format!("curl -s http://{address}/slow")}));
    let mut caller = TcpStream::connect(tester.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    caller.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    until(async || server.waiting.load(Ordering::SeqCst) == 1).await;
    drop(caller);
    until(async || server.waiting.load(Ordering::SeqCst) == 0).await;
    tester.until_idle().await;
}

#[tokio::test]
async fn a_task_ends_at_its_time_limit() {
    let (_, address) = Server::start().await;
    let tester = Tester::start(Options { timeout: Duration::from_millis(300), ..options() }).await;
    let (status, text) = tester.run("bash", &format!("curl -s http://{address}/slow")).await;
    assert_eq!((status, text.ends_with("ended at the time limit (-timeout)")), (500, true), "{text}");
    // Time for an answer on a busy machine.
    let tester = Tester::start(Options { timeout: Duration::from_secs(3), ..options() }).await;
    let (status, text) = tester.run("bash", &format!("hey -z 1h -q 50 -c 1 http://{address}/")).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("[200] ") && text.ends_with("ended at the time limit (-timeout)"), "{text}");
}

#[tokio::test]
async fn requests_go_only_where_they_may() {
    let (server, address) = Server::start().await;
    let forbidden = ["127.0.0.0/8", "169.254.0.0/16"].map(|network| network.parse().unwrap()).to_vec();
    let tester = Tester::start(Options { targets: Targets { forbidden, names: None }, ..options() }).await;
    let port = address.rsplit(':').next().unwrap();
    for cmd in [
        format!("curl http://{address}/"),
        format!("curl http://2130706433:{port}/"),
        format!("curl -H 'Host: 10.0.0.1' http://{address}/"),
        format!("grpc_health_probe -addr={address}"),
        format!("grpc_health_probe -addr={address} -tls-server-name=a.b"),
    ] {
        let (status, text) = tester.run("bash", &cmd).await;
        assert_eq!((status, text.contains("--forbidden-networks")), (500, true), "{cmd}: {text}");
    }
    for cmd in [format!("hey -n 2 http://{address}/"), format!("ghz --insecure -n 2 {address}")] {
        tester.run("bash", &cmd).await;
    }
    assert_eq!(server.seen().len(), 0);

    // Nor is a redirection followed there.
    let forbidden = vec!["169.254.0.0/16".parse().unwrap()];
    let tester = Tester::start(Options { targets: Targets { forbidden, names: None }, ..options() }).await;
    let (status, text) = tester.run("bash", &format!("curl -L http://{address}/metadata")).await;
    assert_eq!((status, text.contains("exit code 47") && text.contains("--forbidden-networks")), (500, true), "{text}");
}

#[tokio::test]
async fn commands_are_run_only_where_they_are_switched_on() {
    let tester = Tester::start(Options { allows_commands: true, ..options() }).await;
    assert_eq!(tester.run("bash", "echo one && echo two").await, answer(200, "one\ntwo"));
    let (status, text) = tester.run("bash", "echo out; exit 3").await;
    assert_eq!((status, text.contains("failed: exit code 3: out")), (500, true), "{text}");
}

#[tokio::test]
async fn a_namespace_with_too_many_tasks_is_told_so() {
    let (server, address) = Server::start().await;
    let max_tasks_per_namespace = NonZeroUsize::new(1).unwrap();
    let tester = Tester::start(Options { max_tasks_per_namespace, ..options() }).await;
    assert_eq!(tester.run("cmd", &format!("curl http://{address}/slow")).await.0, 202);
    let (status, text) = tester.run("cmd", &format!("curl http://{address}/")).await;
    assert_eq!((status, text.contains("--max-tasks-per-namespace")), (429, true), "{text}");
    until(async || server.waiting.load(Ordering::SeqCst) == 1).await;
    let other = json!({"name": "a", "namespace": "other", "metadata": {"type": "bash", "cmd": format!("curl http://{address}/")}});
    assert_eq!(tester.post("/", other.to_string()).await.0, 200, "another namespace has a place");
}

#[tokio::test]
async fn an_answer_is_cut() {
    let tester = Tester::start(Options { allows_commands: true, ..options() }).await;
    let (status, text) = tester.run("bash", "yes | head -c 3000000; true").await;
    assert_eq!(status, 200);
    assert!(text.len() < 5000, "{}", text.len());
}
