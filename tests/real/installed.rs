//! The operator as the chart installs it: Helm on the real control plane, and then the real binary with what the Deployment says, and
//! nothing else: arguments, environment, account, user, a root that cannot be written to.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::bench::{Aviary, settle_times};
use super::{Inside, api, eventually, get, now};
use crate::charts::Helm;

pub const NAMESPACE: &str = "aviary-system";

/// What the Deployment that Helm has made says of the operator's process.
pub struct Installed {
    container: Value,
    account: PathBuf,
    secrets: Vec<(String, String)>,
    log: PathBuf,
}

impl Installed {
    /// Installs `charts/aviary`, definitions included, as release `aviary`: two replicas that elect a leader, and these values.
    pub async fn by_helm(bench: &Inside, client: &Client, values: &[&str]) -> Installed {
        remove_definitions(client).await;
        let settle_times: Vec<String> = settle_times().iter().map(|flag| as_value(flag)).collect();
        let values: Vec<&str> = values.iter().copied().chain(settle_times.iter().map(String::as_str)).collect();
        helm_install(bench, &values);
        without_its_pods(client).await;
        Installed::declared(bench, client).await
    }

    async fn declared(bench: &Inside, client: &Client) -> Installed {
        let deployments = api(client.clone(), "apps", "v1", "Deployment", Some(NAMESPACE));
        let deployment = get(&deployments, "aviary").await.unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let container = pod["containers"][0].clone();
        let context = &container["securityContext"];
        assert_eq!((&context["runAsUser"], &context["readOnlyRootFilesystem"]), (&10001.into(), &true.into()));
        let account = bench.path("account");
        std::fs::create_dir_all(&account).unwrap();
        let name = pod["serviceAccountName"].as_str().unwrap();
        let token = kubectl(bench, &["create", "token", name, "--namespace", NAMESPACE, "--duration=3h"]);
        std::fs::write(account.join("token"), token).unwrap();
        std::fs::write(account.join("namespace"), NAMESPACE).unwrap();
        std::fs::copy(bench.path("certificates/apiserver.crt"), account.join("ca.crt")).unwrap();

        let objects = api(client.clone(), "", "v1", "Secret", Some(NAMESPACE));
        let mut secrets = Vec::new();
        for source in container["envFrom"].as_array().into_iter().flatten() {
            let name = source["secretRef"]["name"].as_str().unwrap();
            for key in get(&objects, name).await.unwrap()["data"].as_object().unwrap().keys() {
                let template = format!("--output=go-template={{{{.data.{key} | base64decode}}}}");
                let value = kubectl(bench, &["get", "secret", name, "--namespace", NAMESPACE, &template]);
                secrets.push((key.clone(), value));
            }
        }
        Installed { container, account, secrets, log: bench.path("aviary.log") }
    }

    /// The binary, as the Deployment wants it started.
    pub fn start(&self) -> Aviary {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", LIKE_A_KUBELET, "sh"]);
        command.arg(&self.account).arg(PathBuf::from(env!("CARGO_BIN_EXE_aviary")));
        command.args(self.container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("KUBERNETES_SERVICE_HOST", "10.99.0.1").env("KUBERNETES_SERVICE_PORT", "6443");
        command.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Aviary { process: command.spawn().unwrap() }
    }

    /// Asks the probes that the Deployment declares, at its ports.
    pub async fn probes_answer(&self) {
        for probe in ["livenessProbe", "readinessProbe"] {
            let asked = &self.container[probe]["httpGet"];
            let ports = self.container["ports"].as_array().unwrap();
            let port = &ports.iter().find(|port| port["name"] == asked["port"]).unwrap()["containerPort"];
            let url = format!("http://127.0.0.1:{port}{}", asked["path"].as_str().unwrap());
            eventually(probe, async || reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200)).await;
        }
    }
}

/// `--traffic-settle-time=6s` as `trafficSettleTime=6s`.
fn as_value(flag: &str) -> String {
    let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
    let mut words = name.split('-');
    let first = words.next().unwrap().to_owned();
    words.fold(first, |text, word| text + &word[..1].to_uppercase() + &word[1..]) + "=" + value
}

/// A definition that is deleted goes within a second. Where two of the API server's own controllers wrote its status at the same
/// time, neither may come back to it before it changes once more.
const STALLED: Duration = Duration::from_secs(10);

/// Those of the bench go, so that the chart's are installed.
async fn remove_definitions(client: &Client) {
    let definitions = api(client.clone(), "apiextensions.k8s.io", "v1", "CustomResourceDefinition", None);
    let names = ["canaries.flagger.app", "metrictemplates.flagger.app", "alertproviders.flagger.app"];
    for name in names {
        definitions.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in names {
        let touched = Cell::new(Instant::now());
        eventually("the definition is gone", async || {
            let is_gone = get(&definitions, name).await.is_none();
            if !is_gone && touched.get().elapsed() > STALLED {
                touched.set(Instant::now());
                let edit =
                    Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": now().to_string()}}}));
                // It may have gone meanwhile.
                let _ = definitions.patch(name, &PatchParams::default(), &edit).await;
            }
            is_gone
        })
        .await;
    }
}

/// The process that is started in their place listens on their port, too.
async fn without_its_pods(client: &Client) {
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some(NAMESPACE));
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch("aviary", &PatchParams::default(), &none).await.unwrap();
    let pods = api(client.clone(), "", "v1", "Pod", Some(NAMESPACE));
    eventually("its pods are gone", async || pods.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
}

fn helm_install(bench: &Inside, values: &[&str]) {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/aviary");
    let mut command = Command::new(Helm::find().unwrap().path());
    command.args(["upgrade", "--install", "aviary", chart, "--namespace", NAMESPACE, "--create-namespace", "--wait"]);
    command.args(["--timeout", "2m", "--set", "meshProvider=istio"]);
    command
        .args(["--set", "leaderElection.enabled=true,leaderElection.replicaCount=2,podDisruptionBudget.enabled=true"]);
    for value in values {
        command.args(["--set", value]);
    }
    succeed(bench, &mut command);
}

/// Runs Helm, or what calls it, as the bench's administrator.
pub fn succeed(bench: &Inside, command: &mut Command) {
    // Helm keeps what it has learnt of a server in its home.
    command.env("HOME", bench.path("home")).env("KUBECONFIG", bench.kubeconfig("admin")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

pub fn kubectl(bench: &Inside, arguments: &[&str]) -> String {
    let mut command = Command::new(bench.path("kubectl"));
    command.arg("--kubeconfig").arg(bench.kubeconfig("admin")).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Mounts what a kubelet would, takes away what the Deployment's security context takes away, and becomes the operator. Where user
/// namespaces are the bench's only means there is no other user, and the rest holds.
const LIKE_A_KUBELET: &str = r#"
set -eu
account=$1 binary=$2; shift 2
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$account"/token "$account"/ca.crt "$account"/namespace /run/secrets/kubernetes.io/serviceaccount/
touch /run/aviary
mount --bind "$binary" /run/aviary
mount -o remount,bind,ro /
if touch /written 2> /dev/null; then echo "the root can be written to" >&2; exit 1; fi
cd /
read -r _ _ users < /proc/self/uid_map
if [ "$users" -gt 10001 ]; then
    exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all /run/aviary "$@"
fi
exec /run/aviary "$@"
"#;
