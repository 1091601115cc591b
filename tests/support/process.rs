//! The binary as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Real time may be slow on a busy machine; nothing takes a tenth of this.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running process; killed when a test fails.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `aviary` with these arguments. What it says is kept.
    pub fn start(arguments: &[&str]) -> Process {
        Process::start_with_input(arguments, Stdio::null())
    }

    pub fn start_with_input(arguments: &[&str], input: Stdio) -> Process {
        Process::start_with(arguments, &[], input)
    }

    fn start_with(arguments: &[&str], environment: &[(String, String)], input: Stdio) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
        command.args(arguments).env_remove("RUST_LOG").envs(environment.iter().cloned());
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        Process { child: command.spawn().unwrap() }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first line of standard output; empty when the process ends without one.
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// Standard output, up to the end of the process.
    pub fn output(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Standard error, up to the end of the process.
    pub fn errors(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running controller.
pub struct Operator {
    pub process: Process,
    port: u16,
}

impl Operator {
    /// `aviary` without a verb, as Flagger is started.
    pub fn start(arguments: &[&str]) -> Operator {
        Operator::start_with_environment(arguments, &[])
    }

    pub fn start_with_environment(arguments: &[&str], environment: &[(String, String)]) -> Operator {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port_flag = format!("-port={port}");
        let arguments = [arguments, &[port_flag.as_str()]].concat();
        Operator { process: Process::start_with(&arguments, environment, Stdio::null()), port }
    }

    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let response = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port)).await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    pub async fn wait_ready(&self) {
        eventually("ready", async || self.get("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
    }
}

/// Waits for a condition of another process, which tells nobody when it comes true.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    eventually_within(PATIENCE, what, condition).await;
}

/// The same for what takes its time.
pub async fn eventually_within(limit: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    assert!(comes_true(limit, condition).await, "waited in vain for: {what}");
}

/// Whether such a condition comes true in this time.
pub async fn comes_true(patience: Duration, condition: impl AsyncFn() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition().await {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
