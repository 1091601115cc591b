//! A bench for a test: brought up, used from within its namespaces, and gone with the test however that ends.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aviary_loadtest::cluster_network::{self, ClusterNetwork};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::{Mutex, MutexGuard};

use super::audit::{Audit, Starts};
use super::now;
use super::scripts::{INSIDE, are_tools_there, say_aloud, script};

/// For a bench to come up, and for a test body to end: several times what they take on a busy machine of two cores.
pub const LIMIT: Duration = Duration::from_secs(1200);
/// With it tests do all that they can, and not only a sample.
const FULL_SET: &str = "AVIARY_REAL_FULL";
/// For a test body of the full set: several times what the longest takes.
const FULL_LIMIT: Duration = Duration::from_secs(3 * 3600);

/// How much of what a failed test wrote is told at once: enough for the message of a panic.
const REPORT_LINES: usize = 30;
const LINES_BEFORE_PANIC: usize = 10;

static TURN: Mutex<()> = Mutex::new(());

/// What an operator is told of the mesh. On a busy machine the control plane tells it of pods later than the defaults allow for; the
/// full set, for a machine that does nothing else, has the defaults.
pub fn settle_times() -> &'static [&'static str] {
    if is_full_set() { &[] } else { &["--endpoints-settle-time=3s", "--traffic-settle-time=6s"] }
}

/// For tests of many processes, one at a time: two on two cores measure each other, and wait in vain for each other.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock()
}

/// A running bench; dropped, it is gone.
pub struct Bench {
    directory: PathBuf,
    process: Child,
    /// The bench lives as long as this end of the pipe is open. The kernel closes it when this process is killed.
    _life_line: ChildStdin,
    lines: mpsc::Receiver<String>,
}

/// Whether tests do all that they can, and not only a sample.
pub fn is_full_set() -> bool {
    std::env::var_os(FULL_SET).is_some()
}

impl Bench {
    /// Starts a bench in this directory, and waits until all of it is ready. `None`, and a word on standard error, on a machine
    /// that does not have the parts.
    pub fn up(directory: &Path) -> Option<Bench> {
        Bench::up_with(&[], directory)
    }

    /// The same with these options of `up`.
    pub fn up_with(options: &[&str], directory: &Path) -> Option<Bench> {
        if !are_tools_there() {
            return None;
        }
        let mut command = script("up");
        // Tests are the network themselves, see `Inside::network`.
        command.env("AVIARY_LOADTEST", "");
        command.arg("--attached").args(options).arg(directory).stdin(Stdio::piped());
        let (mut process, lines) = spawn_with_lines(command);
        let life_line = process.stdin.take().unwrap();
        let bench = Bench { directory: directory.to_owned(), process, _life_line: life_line, lines };
        bench.print_lines_until("the bench to come up", |line| line.starts_with("up:"));
        Some(bench)
    }

    /// A command that runs within the bench's namespaces.
    pub fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new(self.directory.join("inside"));
        command.arg(program).stdin(Stdio::null());
        command
    }

    fn print_lines_until(&self, what: &str, is_last: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                panic!("waited in vain for {what}: {error}; see {}", self.directory.display());
            });
            println!("{line}");
            if is_last(&line) {
                return;
            }
        }
    }
}

/// Ends a bench from outside, whoever owns it.
pub fn end(directory: &Path) {
    let _ = script("down").arg(directory).status();
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It waits for the last of the bench's processes, so that none of them writes to a directory that is being removed.
        end(&self.directory);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a command; what it writes, to either stream, comes line by line.
fn spawn_with_lines(mut command: Command) -> (Child, mpsc::Receiver<String>) {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let process = command.spawn().unwrap();
    // With it the last writing end on this side.
    drop(command);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (process, lines)
}

/// Runs a test's body within a bench of its own: in another process of this same executable, which has the bench's network,
/// names and processes. What it writes and how it ends is this test's.
///
/// `test` is the test's full name, as in `cargo test -- --exact`.
pub fn in_bench<Body: Future<Output = ()>>(test: &str, body: impl FnOnce(Inside) -> Body) {
    if let Some(directory) = std::env::var_os(INSIDE) {
        let inside = Inside::of(directory.into());
        let (finished, audit) = (inside.finished(), inside.audit());
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(body(inside));
        audit.assert_nothing_was_forbidden();
        std::fs::write(finished, test).unwrap();
        return;
    }
    let _turn = turn();
    let began = Instant::now();
    let directory = tempfile::Builder::new().prefix("aviary-bench-").tempdir().unwrap();
    // Logs are there to be read when the test has failed.
    let directory = KeptOnFailure(Some(directory));
    let Some(bench) = Bench::up(directory.path()) else { return };
    let up = began.elapsed();
    let mut command = bench.inside(&std::env::current_exe().unwrap());
    command.args(["--exact", "--include-ignored", test, "--nocapture"]);
    let (mut process, lines) = spawn_with_lines(command);
    let limit = if is_full_set() { FULL_LIMIT } else { LIMIT };
    let deadline = Instant::now() + limit;
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                report.take(line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                report.tell(test);
                panic!("{test} did not end within {limit:?}");
            }
        }
    }
    let status = process.wait().unwrap();
    if !status.success() {
        report.tell(test);
    }
    assert!(status.success(), "{test}: {status}");
    // With a wrong name no test runs, and that is no failure to the executable.
    let finished = Inside::of(directory.path().to_owned()).finished();
    assert_eq!(std::fs::read_to_string(finished).ok().as_deref(), Some(test), "{test} did not run within the bench");
    drop(bench);
    say_aloud(&format!(
        "TIME real {test} {:.0} s, of which {:.0} s to come up",
        began.elapsed().as_secs_f64(),
        up.as_secs_f64()
    ));
}

/// Of what a test wrote: the lines around its panic, or the last ones.
#[derive(Default)]
struct Report {
    lines: VecDeque<String>,
    has_panicked: bool,
}

impl Report {
    fn take(&mut self, line: String) {
        self.has_panicked |= line.contains("panicked at");
        if !self.has_panicked && self.lines.len() == LINES_BEFORE_PANIC {
            self.lines.pop_front();
        }
        if self.lines.len() < REPORT_LINES {
            self.lines.push_back(line);
        }
    }

    /// At once: a run of many tests may be cut off before the harness comes to what they wrote.
    fn tell(&self, test: &str) {
        say_aloud(&format!("FAILED {test}"));
        self.lines.iter().for_each(|line| say_aloud(line));
    }
}

struct KeptOnFailure(Option<tempfile::TempDir>);

impl KeptOnFailure {
    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for KeptOnFailure {
    fn drop(&mut self) {
        let Some(directory) = self.0.take() else { return };
        if std::thread::panicking() {
            println!("logs are in {}", directory.keep().display());
        }
    }
}

/// The bench, to a test that runs within it.
pub struct Inside {
    directory: PathBuf,
    api_server_starts: Starts,
}

impl Inside {
    fn of(directory: PathBuf) -> Inside {
        Inside { directory, api_server_starts: Starts::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn finished(&self) -> PathBuf {
        self.path("finished")
    }

    /// Every part has a user of its own: `admin` for people and tests, and what `grant` was asked for.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.path(&format!("{user}.kubeconfig"))
    }

    pub async fn client(&self, user: &str) -> Client {
        Client::try_from(self.client_config(user).await).unwrap()
    }

    /// `admin` in the place of another user: with that user's rights, and the API server knows whom it has before it.
    pub async fn client_as(&self, user: &str) -> Client {
        let mut config = self.client_config("admin").await;
        config.auth_info.impersonate = Some(user.to_owned());
        Client::try_from(config).unwrap()
    }

    async fn client_config(&self, user: &str) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    /// Answers for pods and Services, and keeps their names, until it is dropped.
    pub async fn network(&self) -> ClusterNetwork {
        let options = cluster_network::Options { hosts: Some(self.path("hosts")), namespace: Some("test".to_owned()) };
        let network = ClusterNetwork::start(self.client("network").await, options);
        network.until(|reachable| reachable.is_complete).await.unwrap();
        network
    }

    /// `start`, `stop` or `restart`, and the names of components; see `tests/real/component`.
    pub async fn component(&self, action: &str, arguments: &[&str]) {
        let mut command = Command::new(self.path(action));
        command.args(arguments).stdin(Stdio::null());
        if action != "stop" && arguments.contains(&"kube-apiserver") {
            self.api_server_starts.lock().push(now());
        }
        let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        assert!(status.success(), "{action} {arguments:?}: {status}");
    }

    /// What the API server was asked, from now on.
    pub fn audit(&self) -> Audit {
        Audit::from_now_on(self.path("audit.log"), Starts::clone(&self.api_server_starts))
    }

    /// A service account with the rights of `aviary rbac` and these flags, and no others; its kubeconfig has the account's name.
    pub fn grant(&self, account: &str, rights: &[&str]) {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/grant"));
        command.arg(&self.directory).arg(account).args(rights).stdin(Stdio::null());
        let status = command.env("AVIARY", env!("CARGO_BIN_EXE_aviary")).status().unwrap();
        assert!(status.success(), "grant {account} {rights:?}: {status}");
    }

    /// Prints what `kubectl` says to an administrator, as somebody sees it who types the command.
    pub fn show(&self, line: &str) {
        let mut command = Command::new(self.path("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig("admin")).args(line.split(' ')).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        println!("$ kubectl {line}\n{}", String::from_utf8_lossy(&output.stdout));
    }

    /// The controller under test, against this cluster, under the account `operator` with the rights that it documents. It
    /// writes to `aviary.log`.
    pub fn start_aviary(&self, arguments: &[&str]) -> Aviary {
        let is_elected = arguments.contains(&"--enable-leader-election");
        self.grant("operator", if is_elected { &["--enable-leader-election"] } else { &[] });
        self.start_aviary_as("operator", arguments)
    }

    /// The same under an account that was granted its rights before. Two at once need two numbers for `--port`.
    pub fn start_aviary_as(&self, account: &str, arguments: &[&str]) -> Aviary {
        let log = std::fs::File::options().create(true).append(true).open(self.path("aviary.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
        command.arg("run").arg("--kubeconfig").arg(self.kubeconfig(account)).args(["--port", "18090"]).args(arguments);
        command.args(settle_times());
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Aviary { process: command.spawn().unwrap() }
    }
}

/// A running controller; killed when it is dropped.
pub struct Aviary {
    pub process: Child,
}

impl Drop for Aviary {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
