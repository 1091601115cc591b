//! A real kube-apiserver for tests that compare the embedded one with it: brought up by `tests/real/up --only api-server`, used from
//! within its namespaces, and gone with the test however that ends.

#[path = "../../../tests/real/scripts.rs"]
#[allow(unreachable_pub)]
mod scripts;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use scripts::{INSIDE, are_tools_there, script};

/// For all tests of a suite: some five times what they take on a busy machine of two cores.
const LIMIT: Duration = Duration::from_secs(1200);

/// A running API server; dropped, it is gone.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    process: Child,
    /// The server lives as long as this end of the pipe is open. The kernel closes it when this process is killed.
    _life_line: ChildStdin,
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

    /// Runs this same executable within the bench; what it writes is this test's. It has to run every test that these arguments
    /// choose, and not fewer than so many: a filter that fits nothing is no failure to the executable.
    pub(crate) fn run_tests(&self, arguments: &[&str], fewest: usize) {
        let executable = std::env::current_exe().unwrap();
        let mut listing = Command::new(&executable);
        listing.args(arguments);
        let expected = tests(listing).len();
        assert!(expected >= fewest, "{arguments:?} choose {expected} tests; there were {fewest} at least");
        let mut command = Command::new(self.directory.path().join("inside"));
        command.arg(executable).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let (deadline, mut passed) = (Instant::now() + LIMIT, None);
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    println!("{line}");
                    passed = passed.or_else(|| passed_tests(&line));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                // The bench's end is also that of what runs in it.
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the tests did not end within {LIMIT:?}"),
            }
        }
        let status = process.wait().unwrap();
        assert!(status.success(), "within the bench: {status}");
        assert_eq!(passed, Some(expected), "tests that passed within the bench");
    }
}

/// The names of the tests that this command, with `--list`, tells of.
pub(crate) fn tests(mut command: Command) -> Vec<String> {
    let output = command.args(["--list", "--format", "terse"]).env_remove(INSIDE).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect()
}

/// Of the last line that the test harness writes, which it writes even if tests have failed.
fn passed_tests(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ")?.split_once(". ")?.1.split_once(" passed")?.0.parse().ok()
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
