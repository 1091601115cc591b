//! The load tester as a process of its own, called by the operator for a canary on a sandbox: gates, load, a rollback.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::net::TcpListener;

/// Real time may be slow on a busy machine; nothing takes a tenth of this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of the process that [`aviary_as_a_process`] is.
const ARGUMENTS: &str = "AVIARY_TEST_ARGUMENTS";

/// Not a test: `aviary`, whose binary this package does not have, for the tests below.
#[test]
#[ignore = "the aviary of the other tests, started by them"]
fn aviary_as_a_process() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = std::env::var(ARGUMENTS).unwrap();
    let arguments: Vec<String> = serde_json::from_str(&arguments).unwrap();
    let _ = aviary::main(std::iter::once("aviary".to_owned()).chain(arguments).map(OsString::from));
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn aviary(arguments: &[&str]) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "aviary_as_a_process", "--ignored", "--nocapture"]);
    command.env(ARGUMENTS, json!(arguments).to_string()).env_remove("RUST_LOG").stdout(Stdio::null());
    Process(command.spawn().unwrap())
}

struct Tester {
    process: Process,
    address: String,
}

impl Tester {
    fn start(arguments: &[&str]) -> Tester {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aviary-loadtest"));
        command.args(["serve", "-port=0", "--address=127.0.0.1"]).args(arguments).env_remove("RUST_LOG");
        let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("Load tester ready at ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Tester { process, address }
    }

    /// As a person does with curl.
    async fn post(&self, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({"name": "podinfo", "namespace": "test"}).to_string();
        let response = client.post(format!("{}{path}", self.address)).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

/// A server that counts.
async fn count() -> (Arc<AtomicUsize>, String) {
    let requests = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counter = Arc::clone(&counter);
            let service = service_fn(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("token"))))
            });
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (requests, address)
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn client(kubeconfig: &Path) -> kube::Client {
    eventually("a kubeconfig", async || kubeconfig.exists()).await;
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn api(client: &kube::Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), "test", &kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_goes_through_gates_and_load_and_is_taken_back() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let mut tester = Tester::start(&["-log-level=warn", "--forbidden-networks=", "-namespace-regexp=^test$"]);
    let (requests, application) = count().await;

    let manifests = folder.path().join("manifests.yaml");
    let hooks = json!([
        {"name": "gate", "type": "confirm-rollout", "url": format!("{}/gate/check", tester.address)},
        {"name": "token", "type": "pre-rollout", "url": tester.address,
            "metadata": {"type": "bash", "cmd": format!("curl -sd 'test' http://{application}/token | grep token")}},
        {"name": "load", "url": tester.address, "metadata": {"cmd": format!("hey -n 20 -q 100 -c 2 http://{application}/")}},
        {"name": "undo", "type": "rollback", "url": format!("{}/rollback/check", tester.address)},
    ]);
    let podinfo = include_str!("../../src/demo/podinfo.yaml");
    std::fs::write(&manifests, podinfo.replace("    metrics:\n", &format!("    webhooks: {hooks}\n    metrics:\n")))
        .unwrap();
    let kubeconfig = folder.path().join("sandbox.yaml");
    let kubeconfig_flag = format!("--kubeconfig={}", kubeconfig.display());
    let _sandbox = aviary(&["sandbox", "--speed=30", &kubeconfig_flag, "-f", &manifests.display().to_string()]);
    let client = client(&kubeconfig).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _operator = aviary(&["run", &kubeconfig_flag, "-log-level=error", &format!("-port={port}")]);

    let canaries = api(&client, "flagger.app", "v1beta1", "Canary");
    let phase = async |phase: &str| {
        eventually(phase, async || canaries.get("podinfo").await.unwrap().data["status"]["phase"] == phase).await;
    };
    let set_image = async |image: &str| {
        let container = json!({"name": "podinfod", "image": image});
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [container]}}}}));
        let deployments = api(&client, "apps", "v1", "Deployment");
        deployments.patch("podinfo", &PatchParams::default(), &patch).await.unwrap();
    };

    phase("Initialized").await;
    set_image("podinfo:6.0.1").await;
    phase("Waiting").await;
    assert_eq!(requests.load(Ordering::SeqCst), 0, "nothing is sent before the gate is open");
    assert_eq!(tester.post("/gate/open").await, (202, String::new()));
    phase("Succeeded").await;

    // What was sent is what was counted, on both sides.
    let metrics = tester.post("/metrics").await.1;
    let value = |name: &str| -> usize {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let tasks = value("aviary_loadtest_tasks_total{result=\"success\",type=\"cmd\"}");
    assert!(tasks >= 1 && value("aviary_loadtest_tasks_total{result=\"success\",type=\"bash\"}") == 1, "{metrics}");
    assert!(value("aviary_loadtest_requests_total{code=\"200\",program=\"hey\"}") >= 20 * tasks, "{metrics}");
    assert!(requests.load(Ordering::SeqCst) > 20 * tasks, "and curl's");

    set_image("podinfo:6.0.2").await;
    phase("Progressing").await;
    assert_eq!(tester.post("/rollback/open").await, (202, String::new()));
    phase("Failed").await;

    let terminated = Command::new("kill").args(["-TERM", &tester.process.0.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    let ended = tokio::task::spawn_blocking(move || tester.process.0.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}
