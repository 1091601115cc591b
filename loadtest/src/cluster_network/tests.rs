#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aviary_sim::store::kinds;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::test_world::{
    Connection, POD_PORT, SERVICE_PORT, World, ask, endpoint, free_address, is_refused, pod, within,
};
use super::{BEHAVIOUR_ANNOTATION, Options};

#[tokio::test]
async fn a_pod_answers_from_its_readiness_until_its_object_is_gone() {
    let world = World::start(Options::default()).await;
    let address = SocketAddr::new(free_address(), POD_PORT);
    world.create_pod("app-1", address.ip(), "registry:5000/app:2.0.0");
    // Once another pod answers, this one has been seen as well.
    world.running_pod("app-2", "app:1").await;
    assert!(is_refused(address).await, "it is not ready");

    world.set_ready("app-1", true);
    world.reachable(address).await;
    let mut connection = Connection::open(address).await.unwrap();
    let answer = connection.ask("/some/path?x=1", "a body").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((answer.header("x-pod"), answer.header("x-version")), ("app-1", "2.0.0"));
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, json!({"pod": "app-1", "namespace": "test", "version": "2.0.0"}));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(connection.ask(path, "").await.unwrap().status, StatusCode::OK, "{path}");
    }

    world.set_ready("app-1", false);
    let not_ready = async { while connection.ask("/readyz", "").await.unwrap().status == StatusCode::OK {} };
    within("the readiness to end", not_ready).await;
    assert_eq!(ask(address, "/", "").await.status, StatusCode::OK, "it goes on answering");
    assert_eq!(ask(address, "/healthz", "").await.status, StatusCode::OK);

    let mut unused = Connection::open(address).await.unwrap();
    world.terminate("app-1");
    let terminating = async { while ask(address, "/", "").await.header("connection") != "close" {} };
    within("the farewell", terminating).await;
    assert_eq!(ask(address, "/", "").await.status, StatusCode::OK, "new connections are still accepted");
    assert_eq!(connection.ask("/", "").await.unwrap().header("connection"), "close");

    world.remove_pod("app-1");
    world.unreachable(address).await;
    assert!(is_refused(address).await);
    assert!(unused.ask("/", "").await.is_err(), "connections break off");
}

#[tokio::test]
async fn the_tag_decides_how_a_pod_answers_until_an_annotation_does() {
    let world = World::start(Options::default()).await;
    let address = world.running_pod("app-1", "app:2.0.0-err100-slow20").await;
    let started = Instant::now();
    let answer = ask(address, "/", "").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("x-version"), "2.0.0-err100-slow20");
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert_eq!(ask(address, "/healthz", "").await.status, StatusCode::OK, "probes are spared");

    let annotate = |text: Value| {
        world.update_pod("app-1", |pod| pod["metadata"]["annotations"] = json!({BEHAVIOUR_ANNOTATION: text}));
    };
    annotate(json!(r#"{"errorRatio": 0, "latency": "0s"}"#));
    within("good answers", async { while ask(address, "/", "").await.status != StatusCode::OK {} }).await;
    annotate(json!("what is this"));
    let as_tagged = async { while ask(address, "/", "").await.status == StatusCode::OK {} };
    within("an annotation that cannot be understood to be ignored", as_tagged).await;
}

#[tokio::test]
async fn pods_that_crash_or_never_get_ready_refuse_whatever_their_node_says() {
    let world = World::start(Options::default()).await;
    let addresses = ["2-crash", "2-unready"].map(|tag| {
        let address = SocketAddr::new(free_address(), POD_PORT);
        world.create_pod(tag, address.ip(), &format!("app:{tag}"));
        world.set_ready(tag, true);
        address
    });
    let good = world.running_pod("good", "app:2").await;
    for address in addresses {
        assert!(is_refused(address).await, "{address}");
    }

    // One that runs well at first and crashes later.
    world.update_pod("good", |pod| {
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    });
    world.unreachable(good).await;
    assert!(is_refused(good).await);
}

#[tokio::test]
async fn a_successor_under_the_same_name_and_address_answers_for_itself() {
    let world = World::start(Options::default()).await;
    let address = world.running_pod("app-0", "app:1").await;
    let mut connection = Connection::open(address).await.unwrap();
    connection.ask("/", "").await.unwrap();
    world.remove_pod("app-0");
    world.create_pod("app-0", address.ip(), "app:2");
    world.set_ready("app-0", true);
    let replaced = async {
        loop {
            let Ok(mut connection) = Connection::open(address).await else { continue };
            let Ok(answer) = connection.ask("/", "").await else { continue };
            if answer.header("x-version") == "2" {
                return;
            }
        }
    };
    within("the successor", replaced).await;
    assert!(connection.ask("/", "").await.is_err(), "nobody speaks for the predecessor");
}

#[tokio::test]
async fn connections_to_a_service_go_to_ready_endpoints_in_turn() {
    let world = World::start(Options::default()).await;
    let service = SocketAddr::new(free_address(), SERVICE_PORT);
    world.create_service("app", &service.ip().to_string());
    let [one, two] = [world.running_pod("one", "app:1").await, world.running_pod("two", "app:2").await];
    assert!(is_refused(service).await, "there is no endpoint");

    world.set_endpoints("app", &[endpoint("one", one, true), endpoint("two", two, true)]);
    world.reachable(service).await;
    let mut pods = Vec::new();
    for _ in 0..4 {
        pods.push(ask(service, "/", "").await.header("x-pod").to_owned());
    }
    assert_eq!(pods.iter().collect::<BTreeSet<_>>().len(), 2, "{pods:?}");
    assert!(pods[0] == pods[2] && pods[1] == pods[3], "{pods:?}");

    world.set_endpoints("app", &[endpoint("one", one, false), endpoint("two", two, true)]);
    let only_two = async {
        let mut in_a_row = 0;
        while in_a_row < 4 {
            let is_two = ask(service, "/", "").await.header("x-pod") == "two";
            in_a_row = if is_two { in_a_row + 1 } else { 0 };
        }
    };
    within("the unready endpoint to be left out", only_two).await;

    // As kube-proxy does: better one that is about to go than none.
    world.set_endpoints("app", &[endpoint("one", one, false)]);
    let draining = async { while ask(service, "/", "").await.header("x-pod") != "one" {} };
    within("the draining endpoint", draining).await;

    world.remove_pod("one");
    world.unreachable(service).await;
    assert!(is_refused(service).await, "its last endpoint is gone");
}

#[tokio::test]
async fn connections_to_an_endpoint_that_is_no_pod_are_passed_on() {
    let world = World::start(Options::default()).await;
    let service = SocketAddr::new(free_address(), SERVICE_PORT);
    world.create_service("outside", &service.ip().to_string());
    let outside = SocketAddr::new(free_address(), POD_PORT);
    let listener = TcpListener::bind(outside).await.unwrap();
    world.set_endpoints("outside", &[json!({"addresses": [outside.ip()]})]);
    world.reachable(service).await;

    let mut client = tokio::net::TcpStream::connect(service).await.unwrap();
    let (mut server, _) = within("the connection", listener.accept()).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).await.unwrap();
    server.write_all(&bytes).await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ping");

    drop(listener);
    let mut client = tokio::net::TcpStream::connect(service).await.unwrap();
    let end = within("the end", client.read(&mut bytes)).await;
    assert!(end.is_err(), "nobody listens there, so the connection is reset: {end:?}");
}

#[tokio::test]
async fn a_service_finds_a_port_that_a_pod_does_not_declare() {
    let world = World::start(Options::default()).await;
    let pod_address = SocketAddr::new(free_address(), POD_PORT);
    let mut undeclared = pod("app-1", pod_address.ip(), "app:1");
    undeclared["spec"]["containers"][0]["ports"] = json!([]);
    undeclared["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    world.cluster.store().create(&kinds::POD, undeclared).unwrap();
    let service = SocketAddr::new(free_address(), SERVICE_PORT);
    world.create_service("app", &service.ip().to_string());
    world.set_endpoints("app", &[endpoint("app-1", pod_address, true)]);
    world.reachable(service).await;
    assert_eq!(ask(service, "/", "").await.header("x-pod"), "app-1");
    assert_eq!(ask(pod_address, "/", "").await.header("x-pod"), "app-1", "nor does a gateway that goes there itself");
}

#[tokio::test]
async fn services_have_names_in_the_hosts_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts");
    std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
    let options = Options { hosts: Some(path.clone()), namespace: Some("test".to_owned()) };
    let world = World::start(options).await;
    let service = SocketAddr::new(free_address(), SERVICE_PORT);
    let pod = world.running_pod("app-1", "app:1").await;
    world.create_service("headless", "None");
    world.set_endpoints("headless", &[endpoint("app-1", pod, true)]);
    world.create_service("app", &service.ip().to_string());
    world.set_endpoints("app", &[endpoint("app-1", pod, true)]);
    world.reachable(service).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let expected = |address: SocketAddr, name: &str| {
        format!("{} {name} {name}.test {name}.test.svc {name}.test.svc.cluster.local\n", address.ip())
    };
    assert!(text.starts_with("127.0.0.1 localhost\n"), "{text}");
    assert!(text.contains(&expected(service, "app")), "{text}");
    assert!(text.contains(&expected(pod, "headless")), "{text}");
}

#[tokio::test]
async fn what_happened_while_a_watch_was_cut_is_found() {
    let world = World::start(Options::default()).await;
    let goes = world.running_pod("goes", "app:1").await;
    let stays = world.running_pod("stays", "app:1").await;
    let mut connection = Connection::open(stays).await.unwrap();
    // The watches end, and by the time they are taken up again the history is gone.
    let comes = SocketAddr::new(free_address(), POD_PORT);
    world.cluster.faults().drop_watches(None);
    world.remove_pod("goes");
    world.create_pod("comes", comes.ip(), "app:2");
    world.set_ready("comes", true);
    world.cluster.faults().compact();
    world.unreachable(goes).await;
    world.reachable(comes).await;
    assert!(is_refused(goes).await);
    assert_eq!(connection.ask("/", "").await.unwrap().header("x-pod"), "stays", "its connection was left alone");
}

#[tokio::test]
async fn an_address_that_is_taken_answers_once_it_is_free() {
    let world = World::start(Options::default()).await;
    let address = SocketAddr::new(free_address(), POD_PORT);
    let taken = TcpListener::bind(address).await.unwrap();
    world.create_pod("app-1", address.ip(), "app:1");
    world.set_ready("app-1", true);
    let failed = world.network.until(|reachable| reachable.failed.contains_key(&address));
    within("the failure", failed).await.unwrap();
    drop(taken);
    world.reachable(address).await;
    assert_eq!(ask(address, "/", "").await.header("x-pod"), "app-1");
}

#[tokio::test]
async fn a_network_that_is_dropped_answers_nobody() {
    let world = World::start(Options::default()).await;
    let address = world.running_pod("app-1", "app:1").await;
    let mut connection = Connection::open(address).await.unwrap();
    connection.ask("/", "").await.unwrap();
    drop(world.network);
    within("the end of connections", async { while connection.ask("/", "").await.is_ok() {} }).await;
    within("the end of sockets", async { while !is_refused(address).await {} }).await;
}

#[tokio::test]
async fn pods_of_the_load_tester_keep_gates() {
    let world = World::start(Options::default()).await;
    let address = world.running_pod("flagger-loadtester-1", "ghcr.io/fluxcd/flagger-loadtester:0.36.0").await;
    let canary =
        r#"{"name": "podinfo", "namespace": "test", "phase": "Progressing", "metadata": {"cmd": "hey http://app/"}}"#;
    let mut connection = Connection::open(address).await.unwrap();
    let mut status = async |path| connection.ask(path, canary).await.unwrap().status.as_u16();
    assert_eq!(status("/gate/close").await, 202);
    assert_eq!(status("/gate/check").await, 403);
    assert_eq!(status("/gate/open").await, 202);
    assert_eq!(status("/gate/check").await, 200);
    assert_eq!(status("/").await, 202, "commands are accepted");
}
