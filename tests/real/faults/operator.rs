//! Controllers as processes, with the rights that `aviary rbac` grants and no others.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use super::{Inside, eventually};

const NAMESPACE: &str = "aviary-system";
/// How the users of controllers begin.
pub const USERS: &str = "system:serviceaccount:aviary-system:";
/// For how long their tokens are good: longer than the full set takes.
const TOKEN_SECONDS: i64 = 4 * 3600;

/// A service account and the way to use it.
pub struct Rights {
    kubeconfig: PathBuf,
    text: String,
}

impl Rights {
    pub async fn grant(bench: &Inside, client: &Client, account: &str) -> Rights {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
        command.args(["rbac", "--enable-leader-election", "--service-account", account]);
        let objects = command.output().unwrap();
        assert!(objects.status.success());
        let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n").into_bytes();
        apply(bench, &[namespace, objects.stdout].concat());

        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let token = answer.status.unwrap().token.unwrap();
        let of_admin = std::fs::read_to_string(bench.kubeconfig("admin")).unwrap();
        let own_token = of_admin.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let text = of_admin.replace(own_token, &token);
        let kubeconfig = bench.kubeconfig(account);
        std::fs::write(&kubeconfig, &text).unwrap();
        Rights { kubeconfig, text }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Calls go to this address; the API server is known by the certificate that it has for its own.
    pub fn kubeconfig_through(&self, address: SocketAddr) -> PathBuf {
        let server = format!("\"https://{address}\", tls-server-name: \"10.99.0.1\"");
        let path = self.kubeconfig.with_extension("proxied.kubeconfig");
        std::fs::write(&path, self.text.replace("\"https://10.99.0.1:6443\"", &server)).unwrap();
        path
    }
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
        command.args(["--mesh-provider", "istio", "--port", "0"]).args(arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let operator = Operator { process: Mutex::new(command.spawn().unwrap()), log: path, log_start };
        eventually(&format!("{name} works"), async || operator.has_said("Started operator workers")).await;
        operator
    }

    pub fn has_said(&self, text: &str) -> bool {
        let log = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&log[self.log_start..]).contains(text)
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
