#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Options, Report, Users, UsersError};
use crate::cluster_network;
use crate::cluster_network::test_world::{SERVICE_PORT, World, endpoint, free_address, within};

const RATE: f64 = 200.0;

fn options(address: SocketAddr) -> Options {
    Options::new(format!("http://{address}/").parse().unwrap(), RATE).unwrap()
}

fn start(options: Options) -> Users {
    Users::start(options).unwrap()
}

#[tokio::test]
async fn a_replacement_behind_a_service_loses_no_request() {
    let world = World::start(cluster_network::Options::default()).await;
    let service = SocketAddr::new(free_address(), SERVICE_PORT);
    world.create_service("app", &service.ip().to_string());
    let old = world.running_pod("old", "app:1").await;
    world.set_endpoints("app", &[endpoint("old", old, true)]);
    world.reachable(service).await;
    let users = start(options(service));
    within("answers of the old version", users.until(|report| report.requests() >= 40)).await;

    let new = world.running_pod("new", "app:2").await;
    world.set_endpoints("app", &[endpoint("old", old, false), endpoint("new", new, true)]);
    world.terminate("old");
    let is_all_new = |report: &Report, from: Duration| {
        let share = report.share("2", from..Duration::MAX);
        share == Some(1.0) && report.last_answer("2") > Some(from + Duration::from_millis(200))
    };
    let mut since = users.elapsed();
    let drained = users.until(|report| {
        if report.last_answer("1").is_some_and(|last| last > since) {
            since = users.elapsed();
        }
        is_all_new(report, since)
    });
    within("the old pod to be left", drained).await;
    world.remove_pod("old");
    world.unreachable(old).await;
    let gone = users.elapsed();
    within("answers after the old pod", users.until(|report| is_all_new(report, gone))).await;

    let report = users.stop().await;
    assert_eq!(report.failures(), 0, "{report}");
    assert_eq!(report.share("1", Duration::ZERO..Duration::from_millis(100)), Some(1.0), "{report}");
    assert!(report.first_answer("2") < Some(gone) && report.last_answer("1") < Some(gone), "{report}");
    assert_eq!(report.versions().len(), 2, "{report}");
    let lines = report.seconds();
    assert_eq!(lines.iter().map(|line| line.requests).sum::<u64>(), report.requests());
}

#[tokio::test]
async fn every_failed_answer_is_counted_for_its_version() {
    let world = World::start(cluster_network::Options::default()).await;
    let address = world.running_pod("app-1", "app:2-err50").await;
    let users = start(options(address));
    within("answers", users.until(|report| report.requests() >= 50)).await;
    let report = users.stop().await;
    let half = report.requests() as f64 / 2.0;
    assert!((report.failures() as f64 - half).abs() <= 2.0, "{report}");
    assert_eq!(report.failures_in(Duration::ZERO..Duration::MAX), report.failures());
    let first = report.first_failures();
    assert_eq!(first.len(), 20);
    assert_eq!(first[0].failure, "status 500 Internal Server Error");
    assert_eq!(first[0].version.as_deref(), Some("2-err50"));
    assert!(first[0].time >= report.started());
    let json = report.to_json();
    assert_eq!(json["versions"][0]["version"], "2-err50");
    assert_eq!(json["failures"], report.failures());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_a_failure_in_words() {
    let users = start(options(SocketAddr::new(free_address(), 9)));
    within("failures", users.until(|report| report.failures() >= 5)).await;
    let report = users.stop().await;
    assert_eq!(report.failures(), report.requests());
    let failure = &report.first_failures()[0];
    assert_eq!(failure.failure, "failed to connect: Connection refused (os error 111)");
    assert_eq!(failure.version, None);
    assert_eq!(report.first_answer("2"), None);
    assert_eq!(report.share("2", Duration::ZERO..Duration::MAX), None);
}

/// Reads one request and leaves it unanswered.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test]
async fn a_stall_shows_in_the_latency_of_every_request_that_was_due_meanwhile() {
    let listener = TcpListener::bind((free_address(), 8080)).await.unwrap();
    let users = start(options(listener.local_addr().unwrap()));
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(within("a request", accept(&listener)).await);
    }
    let resumed = users.elapsed();
    for stream in &mut stalled {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    }
    let answered =
        |report: &Report| report.versions().first().map_or(0, |totals| totals.requests - totals.failures) >= 20;
    let report = within("the answers", users.until(answered)).await;
    // The first one was due at the start, the 20th 95 ms later. Some may overtake others.
    let period = Duration::from_secs(1).div_f64(RATE);
    let latencies = report.seconds()[0].latencies;
    assert!(latencies.max >= resumed.as_secs_f64() * 1e3, "{latencies:?} after {resumed:?}");
    assert!(latencies.p50 >= (resumed - 13 * period).as_secs_f64() * 1e3, "{latencies:?} after {resumed:?}");
    assert!(resumed >= 19 * period, "20 requests were sent in {resumed:?} though none was answered");
    assert_eq!(report.failures(), 0, "{report}");
}

#[tokio::test]
async fn all_until_now_are_those_that_are_under_way_too() {
    let listener = TcpListener::bind((free_address(), 8080)).await.unwrap();
    let users = start(options(listener.local_addr().unwrap()).timeout(Duration::from_millis(300)));
    let mut unanswered = Vec::new();
    for _ in 0..20 {
        unanswered.push(within("a request", accept(&listener)).await);
    }
    let report = within("the end of all", users.all_until_now()).await;
    assert!(report.requests() >= 19, "{report}");
    assert_eq!(report.failures(), report.requests(), "{report}");
}

#[tokio::test]
async fn requests_fail_that_get_no_answer_or_no_connection_in_time() {
    let listener = TcpListener::bind((free_address(), 8080)).await.unwrap();
    let timeout = Duration::from_millis(100);
    let users = start(options(listener.local_addr().unwrap()).timeout(timeout).max_connections(2));
    let report = within("failures", users.until(|report| report.failures() >= 25)).await;
    let failures = report.first_failures();
    assert!(failures.iter().any(|failure| failure.failure == "not sent: 2 requests are under way"), "{report}");
    let late = failures.iter().find(|failure| failure.failure == "no answer within 100ms").unwrap();
    assert!(late.latency >= 100.0, "{report}");
}

#[tokio::test]
async fn requests_carry_the_headers_that_were_asked_for() {
    let listener = TcpListener::bind((free_address(), 8080)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let cookie = (HeaderName::from_static("cookie"), HeaderValue::from_static("type=insider"));
    let url = format!("http://{address}/a?b=c").parse().unwrap();
    let options = Options::new(url, RATE).unwrap().host("app.example.com").headers(HeaderMap::from_iter([cookie]));
    let users = start(options);
    let (mut stream, _) = within("a request", listener.accept()).await.unwrap();
    let mut head = [0; 1024];
    let length = stream.read(&mut head).await.unwrap();
    let head = std::str::from_utf8(&head[..length]).unwrap();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: app.example.com\r\n"), "{head}");
    assert!(head.contains("cookie: type=insider\r\n"), "{head}");
    assert!(users.elapsed() > Duration::ZERO);
}

#[test]
fn users_that_cannot_be_are_refused() {
    for url in ["https://a/", "/path", "a:80"] {
        assert!(matches!(Options::new(url.parse().unwrap(), RATE), Err(UsersError::Url(_))), "{url}");
    }
    for rate in [0.0, -1.0, f64::NAN, 1e9] {
        assert!(matches!(Options::new("http://a/".parse().unwrap(), rate), Err(UsersError::Rate(_))), "{rate}");
    }
    let users = Users::start(Options::new("http://a/".parse().unwrap(), RATE).unwrap().host("a\nb"));
    assert!(matches!(users.err(), Some(UsersError::Host(..))));
}
