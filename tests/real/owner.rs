//! Whoever holds a bench may be killed: nothing of it is left.

use std::path::Path;
use std::process::{Command, Stdio};

use parking_lot::Mutex;

use super::bench::{self, Bench};
use super::eventually;
use super::scripts::are_tools_there;
use crate::support::process::comes_true;

/// Set in the process that owns the bench: the bench's directory.
const OWNED: &str = "AVIARY_BENCH_OWNED";
/// etcd, the four of Kubernetes, kwok, istiod, Envoy, Prometheus, and the shell that is their init.
const LEAST_PROCESSES: usize = 10;

#[test]
fn a_killed_owner_leaves_no_process() {
    if let Some(directory) = std::env::var_os(OWNED) {
        let _bench = Bench::up(Path::new(&directory));
        loop {
            std::thread::park();
        }
    }
    if !are_tools_there() {
        return;
    }
    let _turn = bench::turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(owners_are_killed());
}

async fn owners_are_killed() {
    // While it comes up, and when it is up.
    for (file, least_processes) in [("run/kube-apiserver.pid", 2), ("run/up", LEAST_PROCESSES)] {
        let directory = EndedInAnyCase(tempfile::tempdir().unwrap());
        let directory = &directory.0;
        let owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "real::owner::a_killed_owner_leaves_no_process", "--nocapture"])
            .env(OWNED, directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let owner = Mutex::new(owner);
        let is_there = async || {
            assert_eq!(owner.lock().try_wait().unwrap(), None, "the bench did not come up");
            directory.path().join(file).exists()
        };
        assert!(comes_true(bench::LIMIT, is_there).await, "waited in vain for {file}");
        let mut owner = owner.into_inner();
        let namespace = std::fs::read_to_string(directory.path().join("run/namespace")).unwrap();
        let processes = || processes_of(namespace.trim(), directory.path());
        assert!(processes().len() >= least_processes, "the test sees too little: {:#?}", processes());
        // SIGKILL: nothing of the owner's own gets to run.
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually(&format!("no process is left after {file}"), async || processes().is_empty()).await;
    }
}

/// What this test finds to be left would otherwise be left for good.
struct EndedInAnyCase(tempfile::TempDir);

impl Drop for EndedInAnyCase {
    fn drop(&mut self) {
        bench::end(self.0.path());
    }
}

/// The command lines of all processes in this process namespace, or that name the directory.
fn processes_of(namespace: &str, directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_number = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_number || entry.file_name().to_str() == Some(&std::process::id().to_string()) {
            continue;
        }
        let command = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default())
            .replace('\0', " ");
        let is_within = std::fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link.as_os_str() == namespace);
        if is_within || command.contains(directory.to_str().unwrap()) {
            found.push(command);
        }
    }
    found
}
