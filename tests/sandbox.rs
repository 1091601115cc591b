//! `aviary sandbox` and `aviary run` as processes of their own, as a person uses them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::support::process::{Operator, Process, eventually};
use crate::support::{api, canary, create_through, deployment};

pub struct Sandbox {
    process: Process,
    /// What it printed when it was ready.
    ready: Value,
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub fn start(arguments: &[&str]) -> Sandbox {
        Sandbox::start_with_input(arguments, Stdio::null())
    }

    fn start_with_input(arguments: &[&str], input: Stdio) -> Sandbox {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = format!("--kubeconfig={}", directory.path().join("sandbox.yaml").display());
        let arguments = [&["sandbox", &kubeconfig, "--output=json"], arguments].concat();
        let mut process = Process::start_with_input(&arguments, input);
        let line = process.first_line();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}: {}", process.errors()));
        Sandbox { process, ready, directory }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("sandbox.yaml")
    }

    pub fn server(&self) -> &str {
        self.ready["server"].as_str().unwrap()
    }

    pub fn prometheus(&self) -> &str {
        self.ready["prometheus"].as_str().unwrap()
    }

    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    pub fn operator(&self, arguments: &[&str]) -> Operator {
        let kubeconfig = format!("-kubeconfig={}", self.kubeconfig().display());
        Operator::start(&[&[kubeconfig.as_str()], arguments].concat())
    }
}

fn canaries(client: &Client) -> Api<DynamicObject> {
    api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"))
}

async fn wait_for_phase(client: &Client, phase: &str) {
    let canaries = canaries(client);
    eventually(phase, async || canaries.get("podinfo").await.unwrap().data["status"]["phase"] == phase).await;
}

async fn set_image(client: &Client, image: &str) {
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
    let container = json!({"name": "podinfod", "image": image});
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
    deployments.patch("podinfo", &PatchParams::default(), &patch).await.unwrap();
}

/// Events with their times by the cluster's clock.
async fn events(client: &Client) -> Vec<(jiff::Timestamp, String)> {
    let events = api(client.clone(), "", "v1", "Event", Some("test"));
    let events = events.list(&ListParams::default()).await.unwrap();
    let told = events.items.iter().filter(|event| event.data["involvedObject"]["kind"] == "Canary").map(|event| {
        let text = |field: &str| event.data[field].as_str().unwrap_or_default().to_owned();
        (text("firstTimestamp").parse().unwrap(), text("message"))
    });
    told.collect()
}

fn time_of(events: &[(jiff::Timestamp, String)], start: &str) -> jiff::Timestamp {
    let event = events.iter().find(|(_, message)| message.starts_with(start));
    event.unwrap_or_else(|| panic!("no event {start:?} in {events:#?}")).0
}

async fn get(url: &str) -> (u16, Value) {
    let response = reqwest::get(url).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// The names of Prometheus and of the load tester are those of Flagger's manifests, and nothing but the kubeconfig is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_pass_at_sixty_times_the_speed() {
    let sandbox = Sandbox::start(&["--speed=60", "--error-rate=podinfo:6.0.2=0.5", "--namespace=test"]);
    let client = sandbox.client().await;
    let mut operator = sandbox.operator(&["-log-level=info"]);
    operator.wait_ready().await;

    create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
    let mut object = canary("test", "podinfo");
    object["spec"]["analysis"]["interval"] = json!("1m");
    object["spec"]["analysis"]["stepWeight"] = json!(25);
    object["spec"]["analysis"]["webhooks"] = json!([
        {"name": "gate", "type": "confirm-rollout", "url": "http://flagger-loadtester.test/gate/check"},
        {"name": "load", "url": "http://flagger-loadtester.test/", "metadata": {"cmd": "hey http://podinfo-canary.test:9898/"}},
        {"name": "undo", "type": "rollback", "url": "http://flagger-loadtester.test/rollback/check"},
    ]);
    create_through(client.clone(), object).await;
    wait_for_phase(&client, "Initialized").await;

    let started = Instant::now();
    set_image(&client, "podinfo:6.0.1").await;
    wait_for_phase(&client, "Succeeded").await;
    let (real_time, events_of_good) = (started.elapsed(), events(&client).await);
    let analysis =
        time_of(&events_of_good, "Copying podinfo").duration_since(time_of(&events_of_good, "Advance podinfo"));
    assert!(analysis.as_secs() >= 110, "two steps of a minute each took {analysis} by the cluster's clock");
    assert!(real_time < Duration::from_secs(60), "two minutes of the cluster took {real_time:?}");

    let query = "api/v1/query?query=sum(istio_requests_total)";
    for base in [
        sandbox.prometheus().to_owned(),
        format!("{}/api/v1/namespaces/istio-system/services/prometheus:9090/proxy", sandbox.server()),
    ] {
        let (status, answer) = get(&format!("{base}/{query}")).await;
        assert_eq!((status, &answer["status"]), (200, &json!("success")));
        let requests: f64 = answer["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap();
        assert!(requests > 1000.0, "20 requests a second for two minutes, not {requests}");
    }

    set_image(&client, "podinfo:6.0.2").await;
    wait_for_phase(&client, "Failed").await;
    time_of(&events(&client).await, "Halt podinfo.test advancement success rate");

    operator.process.signal("TERM");
    assert_eq!(operator.process.exit().await.code(), Some(0));
    let log = operator.process.errors();
    assert!(log.contains("Following the clock of a sandbox, 60 times real time"), "{log}");
    assert!(log.contains("Connected to metrics server http://prometheus:9090"), "{log}");
}

/// A gate that a person closes holds a release until it is opened, through the address that kubectl users know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_can_be_closed_and_opened() {
    let sandbox = Sandbox::start(&["--speed=60", "-n", "test"]);
    let client = sandbox.client().await;
    let operator = sandbox.operator(&["-log-level=error"]);
    let set_gate = async |state: &str| {
        let tester = format!("{}/api/v1/namespaces/test/services/flagger-loadtester/proxy", sandbox.server());
        let payload = json!({"name": "podinfo", "namespace": "test"});
        let request = reqwest::Client::new().post(format!("{tester}/gate/{state}")).body(payload.to_string());
        assert_eq!(request.send().await.unwrap().status(), 202);
    };
    create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
    let mut object = canary("test", "podinfo");
    object["spec"]["skipAnalysis"] = json!(false);
    object["spec"]["analysis"]["webhooks"] =
        json!([{"name": "gate", "type": "confirm-rollout", "url": "http://flagger-loadtester.test/gate/check"}]);
    create_through(client.clone(), object).await;
    wait_for_phase(&client, "Initialized").await;

    set_gate("close").await;
    set_image(&client, "podinfo:6.0.1").await;
    wait_for_phase(&client, "Waiting").await;
    set_gate("open").await;
    wait_for_phase(&client, "Succeeded").await;
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_at_once_with_watches_open() {
    for signal in ["INT", "TERM", "HUP"] {
        let mut sandbox = Sandbox::start(&[]);
        assert!(sandbox.kubeconfig().exists());
        let mut watches = Vec::new();
        for _ in 0..20 {
            let watch = reqwest::get(format!("{}/api/v1/pods?watch=1", sandbox.server())).await.unwrap();
            assert_eq!(watch.status(), 200);
            watches.push(watch);
        }
        let started = Instant::now();
        sandbox.process.signal(signal);
        assert_eq!(sandbox.process.exit().await.code(), Some(0), "{signal}");
        let took = started.elapsed();
        // It takes milliseconds; a watch would live for minutes.
        assert!(took < Duration::from_secs(10), "SIG{signal} took {took:?}");
        assert!(!sandbox.kubeconfig().exists(), "SIG{signal} leaves the kubeconfig");
        assert_eq!(sandbox.process.errors(), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_take_their_watches_along() {
    let sandbox = Sandbox::start(&[]);
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", sandbox.process.id())).unwrap().count();
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let before = sockets();
    let mut watches = Vec::new();
    for _ in 0..50 {
        let watch = client.get(format!("{}/api/v1/pods?watch=1", sandbox.server())).send().await.unwrap();
        watches.push(watch);
    }
    assert!(sockets() >= before + 50);
    drop(watches);
    eventually("no socket is left", async || sockets() <= before).await;
}

fn refusal(arguments: &[&str]) -> String {
    let mut process = Process::start(&[&["sandbox"], arguments].concat());
    assert_eq!(process.first_line(), "");
    process.errors()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let sandbox = Sandbox::start(&[]);
    let port = sandbox.server().rsplit(':').next().unwrap();
    let other = format!("--kubeconfig={}", sandbox.directory.path().join("other.yaml").display());
    let error = refusal(&[&other, &format!("--port={port}")]);
    assert!(error.starts_with(&format!("error: listen on 127.0.0.1:{port} (--port)")), "{error}");
    assert!(error.contains("in use") && error.contains("without --port"), "{error}");
    let error = refusal(&[&other, &format!("--prometheus-port={port}")]);
    assert!(error.contains("(--prometheus-port)"), "{error}");
    assert!(!sandbox.directory.path().join("other.yaml").exists());

    let own = format!("--kubeconfig={}", sandbox.kubeconfig().display());
    let error = refusal(&[&own]);
    assert!(error.contains("belongs to a sandbox that runs") && error.lines().count() == 1, "{error}");
    assert!(sandbox.kubeconfig().exists());

    let precious = sandbox.directory.path().join("config");
    std::fs::write(&precious, "kind: Config\n").unwrap();
    let error = refusal(&[&format!("--kubeconfig={}", precious.display())]);
    assert!(error.contains("is no sandbox's"), "{error}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kind: Config\n");

    let error = refusal(&[&other, "-f", "/nowhere.yaml"]);
    assert!(error.contains("(-f): /nowhere.yaml: no such file"), "{error}");
    let broken = sandbox.directory.path().join("broken.yaml");
    std::fs::write(&broken, "kind: X\napiVersion: nowhere.example/v1\nmetadata: {name: x}\n").unwrap();
    let error = refusal(&[&other, "-f", &broken.display().to_string()]);
    assert!(
        error.contains("apply X default/x (-f)") && error.contains("does not serve nowhere.example/v1/X"),
        "{error}"
    );
    assert!(!sandbox.directory.path().join("other.yaml").exists(), "a sandbox that did not start leaves nothing");
}

/// Files, directories and standard input; a namespace that is missing is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_there_from_the_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &Path, object: Value| std::fs::write(path, object.to_string()).unwrap();
    write(&directory.path().join("canary.yaml"), canary("test", "podinfo"));
    write(&directory.path().join("deployment.json"), deployment("test", "podinfo", "podinfo:6.0.0"));
    std::fs::write(directory.path().join("README.md"), "no manifest").unwrap();
    let mut input = tempfile::tempfile().unwrap();
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": "1"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": "2"}},
    ]});
    write!(input, "{objects}").unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let path = directory.path().display().to_string();
    let sandbox = Sandbox::start_with_input(&["-f", &path, "-f", "-"], input.into());
    let client = sandbox.client().await;
    canaries(&client).get("podinfo").await.unwrap();
    api(client.clone(), "apps", "v1", "Deployment", Some("test")).get("podinfo").await.unwrap();
    let map = api(client, "", "v1", "ConfigMap", Some("default")).get("a").await.unwrap();
    assert_eq!(map.data["data"]["key"], "2", "the second one is an update of the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_and_the_next_request_served() {
    let sandbox = Sandbox::start(&[]);
    let url = format!("{}/api/v1/namespaces/default/configmaps", sandbox.server());
    let body = vec![b' '; 8 << 20];
    let answer = reqwest::Client::new().post(&url).body(body).send().await;
    // A server that has said no does not read on; whether the client hears it or a broken pipe is up to the network.
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(get(&url).await.0, 200);
}
