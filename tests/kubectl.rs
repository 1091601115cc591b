//! The real `kubectl` against the embedded cluster over HTTP: what a person types, and what it prints.
//!
//! `tests/kubectl/*.txt` are sessions: a line with `$ ` is a command for `sh`, the lines under it are its output. Ages, times,
//! addresses and the random part of pod names are replaced, and runs of blanks made one. `UPDATE_GENERATED=1` writes the output
//! that is; read the difference before you commit it.
//!
//! Without a `kubectl` of the right version the tests say so and pass, unless `AVIARY_REQUIRE_KUBECTL=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use aviary::embedded;
use aviary_sim::cluster::{Cluster, ClusterOptions};
use aviary_sim::controllers::ControllerOptions;
use aviary_sim::store::kinds;
use regex::Regex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{World, in_virtual_time};

/// The release whose output the sessions show.
const VERSION: &str = "v1.36.";

/// A `kubectl` for one cluster, with a home of its own: discovery is cached by address, and addresses come again.
struct Kubectl {
    home: tempfile::TempDir,
    address: String,
}

impl Kubectl {
    /// Serves the cluster; `None` without a `kubectl`.
    async fn of(cluster: &Cluster, namespace: &str) -> Option<Kubectl> {
        let Some(binary) = find() else {
            let message =
                "no kubectl v1.36: neither AVIARY_KUBECTL, nor on the PATH, nor built by tests/real/tools kubectl";
            assert!(std::env::var_os("AVIARY_REQUIRE_KUBECTL").is_none(), "{message}");
            crate::real::say_aloud(&format!("SKIPPED: {message}"));
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = cluster.clone();
        tokio::spawn(async move { served.serve(listener).await });
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(binary, home.path().join("bin/kubectl")).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "embedded",
            "clusters": [{"name": "embedded", "cluster": {"server": address}}],
            "users": [{"name": "embedded", "user": {}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "embedded", "namespace": namespace}}],
        });
        std::fs::write(home.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Some(Kubectl { home, address })
    }

    /// Runs a command line; output and errors in the order in which they were written.
    async fn run(&self, line: &str) -> String {
        let path = format!("{}:{}", self.home.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec 2>&1; {line}")])
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .env("TZ", "UTC")
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if !output.status.success() {
            text += &format!("[exit {}]\n", output.status.code().unwrap_or(-1));
        }
        normalise(&text, &self.address)
    }

    /// Runs a session and compares it with its file.
    async fn session(&self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/kubectl/{name}.txt"));
        let expected = std::fs::read_to_string(&file).unwrap();
        let mut found = String::new();
        for line in expected.lines() {
            if line.starts_with('#') {
                found += &format!("{line}\n");
            } else if let Some(command) = line.strip_prefix("$ ") {
                found += &format!("{line}\n{}", self.run(command).await);
            }
        }
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&file, &found).unwrap();
            return;
        }
        let differing = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
        assert!(expected == found, "{name}: first difference: {differing:#?}\n\nthe whole session:\n{found}");
    }
}

/// `kubectl` from the environment, the path, or where `tests/real/tools` puts it. One of another release prints otherwise.
fn find() -> Option<PathBuf> {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| candidates().into_iter().find(|path| is_right(path)));
    FOUND.clone()
}

fn candidates() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let mut candidates: Vec<PathBuf> = variable("AVIARY_KUBECTL").into_iter().collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates.extend(std::env::split_paths(&path).map(|directory| directory.join("kubectl")));
    // The same places as in tests/real/tools.
    let cache = variable("AVIARY_REAL_CACHE").or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(caches.join("aviary-real"))
    });
    let versions = include_str!("real/versions");
    let pinned = |name: &str| versions.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if let (Some(cache), Some(kubernetes)) = (cache, pinned("KUBERNETES")) {
        candidates.push(cache.join(format!("kubernetes-{kubernetes}/kubectl")));
    }
    candidates
}

fn is_right(binary: &Path) -> bool {
    let output = Command::new(binary).args(["version", "--client", "--output=json"]).stdin(Stdio::null()).output();
    let version: Option<Value> = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    version.is_some_and(|version| {
        version["clientVersion"]["gitVersion"].as_str().is_some_and(|version| version.starts_with(VERSION))
    })
}

fn normalise(text: &str, address: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        [
            (r"\b\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} \+0000", "TIME"),
            (r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z", "TIME"),
            (r"\b(\d+[dhms])?\d+[ydhms]\b", "AGE"),
            (r"AGE \(x\d+ over AGE\)", "AGE"),
            (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UID"),
            // ReplicaSet's hash and the pod's suffix, then the suffix alone.
            (r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-HASH-POD"),
            (r"-[bcdfghjklmnpqrstvwxz2456789]{8,10}\b", "-HASH"),
            (r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-SUFFIX"),
            (r"Resource Version: +\d+", "Resource Version:  NUMBER"),
            (r"aviary\.[0-9a-f]{16}\b", "aviary.NUMBER"),
            (r"=[bcdfghjklmnpqrstvwxz2456789]{8,10}\b", "=HASH"),
            (r" {2,}", "  "),
            (r"(?m) +$", ""),
        ]
        .map(|(pattern, text)| (Regex::new(pattern).unwrap(), text))
        .into()
    });
    let text = text.replace(address, "SERVER");
    RULES.iter().fold(text, |text, (rule, replacement)| rule.replace_all(&text, *replacement).into_owned())
}

/// A cluster whose clock shows the present time, so that ages are those of a new cluster.
async fn new_cluster() -> Cluster {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base_time = aviary_actors::Clock::system().now();
    // Pods that start at once: the sessions wait for them in real time.
    let start_delay = Duration::from_millis(200);
    let controllers =
        Some(ControllerOptions { start_delay, termination_delay: start_delay, ..ControllerOptions::default() });
    Cluster::new(ClusterOptions { base_time, controllers, ..embedded::cluster_options(1) })
}

async fn run_session(name: &str) {
    let cluster = new_cluster().await;
    if let Some(kubectl) = Kubectl::of(&cluster, "default").await {
        kubectl.session(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_cluster_looks_like_one() {
    run_session("look").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deployment_is_created_and_rolled_out_and_back() {
    run_session("rollout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn objects_of_every_kind_are_created_shown_and_deleted() {
    run_session("objects").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn manifests_are_applied_compared_and_edited() {
    run_session("apply").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_is_cordoned_and_drained() {
    run_session("drain").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_controllers_write_reads_as_in_kubernetes() {
    run_session("controllers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn istios_kinds_are_explained_and_checked() {
    run_session("mesh").await;
}

#[test]
fn a_canary_is_described_as_flaggers_is() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.load_heavily();
        world.start();
        world.deploy("podinfo").await;
        world.wait_for_phase("podinfo", "Initialized").await;
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_until("half of the way", || world.status("podinfo")["canaryWeight"] == 30).await;
        // Another process needs real time to be answered in.
        tokio::time::resume();
        let Some(kubectl) = Kubectl::of(&world.cluster, "test").await else { return };
        kubectl.session("canary").await;
        assert!(world.get(&kinds::CANARY, "podinfo").is_some());
    });
}
