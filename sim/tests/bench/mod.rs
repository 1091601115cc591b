//! A real kube-apiserver for tests that compare the embedded one with it: brought up by `tests/real/up --only api-server`, used from
//! within its namespaces, and gone with the test however that ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Set within a bench: its directory. `DIR/inside` sets it.
const INSIDE: &str = "AVIARY_BENCH";
/// With it a missing part fails the test, and parts that are not there are built.
const REQUIRED: &str = "AVIARY_REQUIRE_REAL";

/// A running API server; dropped, it is gone.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    process: Child,
    /// The server lives as long as this end of the pipe is open. The kernel closes it when this process is killed.
    _life_line: ChildStdin,
}

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/real").join(name));
    // A command within a bench takes itself to be there already.
    command.stdin(Stdio::null()).env_remove(INSIDE);
    command
}

/// Whether the parts are there. Says aloud what is missing.
fn are_tools_there() -> bool {
    let is_required = std::env::var_os(REQUIRED).is_some();
    let arguments: &[&str] = if is_required { &[] } else { &["--check"] };
    let output = script("tools").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return true;
    }
    assert!(output.status.code() == Some(3) && !is_required, "tests/real/tools failed:\n{said}");
    eprintln!("SKIPPED: {said}");
    false
}

impl Bench {
    /// `None`, and a word on standard error, on a machine that does not have the parts.
    pub(crate) fn up() -> Option<Self> {
        if !are_tools_there() {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("aviary-api-server-").tempdir().unwrap();
        let mut command = script("up");
        command.args(["--attached", "--only", "api-server"]).arg(directory.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let life_line = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let bench = Self { directory, process, _life_line: life_line };
        // The script bounds its own waiting.
        let is_up = lines.map_while(Result::ok).any(|line| line.starts_with("up:"));
        assert!(is_up, "the API server did not come up");
        Some(bench)
    }

    /// Runs this same executable within the bench; what it writes is this test's.
    pub(crate) fn run_tests(&self, arguments: &[&str]) {
        let mut command = Command::new(self.directory.path().join("inside"));
        command.arg(std::env::current_exe().unwrap()).args(arguments).stdin(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "within the bench: {status}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It waits for the last of the bench's processes, so that none of them writes to a directory that is being removed.
        let _ = script("down").arg(self.directory.path()).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The bench's directory, in a process that runs within one.
pub(crate) fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// A client of the bench's API server, to a process within.
pub(crate) async fn client(directory: &Path, user_agent: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(directory.join("admin.kubeconfig")).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.headers.push((http::header::USER_AGENT, user_agent.parse().unwrap()));
    Client::try_from(config).unwrap()
}
