//! Controllers as processes, with the rights that `aviary rbac` grants and no others.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use parking_lot::Mutex;

use super::{Inside, eventually};
use crate::real::bench::settle_times;

/// The account's kubeconfig, with which its calls go to this address; the API server is known by the certificate that it has for
/// its own.
pub fn kubeconfig_through(bench: &Inside, account: &str, address: SocketAddr) -> PathBuf {
    let server = format!("\"https://{address}\", tls-server-name: \"10.99.0.1\"");
    let text = std::fs::read_to_string(bench.kubeconfig(account)).unwrap();
    let path = bench.kubeconfig(&format!("{account}.proxied"));
    std::fs::write(&path, text.replace("\"https://10.99.0.1:6443\"", &server)).unwrap();
    path
}

/// `kubectl apply` of these YAML documents.
pub fn apply(bench: &Inside, documents: &[u8]) {
    let mut command = Command::new(bench.path("kubectl"));
    command.arg("--kubeconfig").arg(bench.kubeconfig("admin")).args(["apply", "-f", "-"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(documents).unwrap();
    assert!(process.wait().unwrap().success(), "kubectl apply");
}

/// A running controller; killed when it is dropped.
pub struct Operator {
    process: Mutex<Child>,
    log: PathBuf,
    /// Where this life's part of the log begins.
    log_start: usize,
}

impl Operator {
    /// Returns when it has begun its work, or follows a leader.
    pub async fn start(bench: &Inside, kubeconfig: &Path, name: &str, arguments: &[&str]) -> Operator {
        let path = bench.path(&format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        let log_start = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
        command.arg("run").arg("--kubeconfig").arg(kubeconfig);
        // A port that the system chooses: nobody asks there.
        command.args(["--mesh-provider", "istio", "--port", "0"]).args(arguments).args(settle_times());
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let operator = Operator { process: Mutex::new(command.spawn().unwrap()), log: path, log_start };
        eventually(&format!("{name} works"), async || {
            let ended = operator.process.lock().try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended: {ended:?}\n{}", operator.said());
            operator.has_said("Started operator workers")
        })
        .await;
        operator
    }

    /// In this life.
    fn said(&self) -> String {
        let log = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&log[self.log_start..]).into_owned()
    }

    pub fn has_said(&self, text: &str) -> bool {
        self.said().contains(text)
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.lock().id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(status.success());
    }

    pub async fn exit(&self) -> ExitStatus {
        eventually("the process ends", async || self.process.lock().try_wait().unwrap().is_some()).await;
        self.process.lock().wait().unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let mut process = self.process.lock();
        let _ = process.kill();
        let _ = process.wait();
    }
}
