//! The chart, installed by Helm on the real control plane; then the real binary with what the Deployment says, and nothing else:
//! arguments, environment, account, user, a root that cannot be written to. A release runs, and the dashboards show it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use aviary_loadtest::users::{self, Users};
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::bench::Aviary;
use super::release::{self, GATEWAY};
use super::{Inside, api, create_through, deployment, eventually, get, in_bench, set_image};
use crate::charts::Helm;
use crate::dashboards::questions;
use crate::support::process::PATIENCE;

const NAMESPACE: &str = "aviary-system";
/// A machine that is busy with something else stands still for seconds.
const USERS_PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn the_chart_installs_an_operator_that_runs_releases() {
    in_bench("real::install::the_chart_installs_an_operator_that_runs_releases", async |bench: Inside| {
        let client = bench.client("admin").await;
        let (chat, mut alerts) = slack().await;
        remove_definitions(&client).await;
        install(&bench, &format!("slack.channel=general,slack.url=http://{chat}/hook"));
        plain_manifests_are_valid(&bench);

        let deployments = api(client.clone(), "apps", "v1", "Deployment", Some(NAMESPACE));
        let installed = get(&deployments, "aviary").await.unwrap();
        without_its_pods(&client).await;
        let aviary = start_as_declared(&bench, &client, &installed).await;
        probes_answer(&installed).await;
        let _network = bench.network().await;
        a_release(&client).await;
        let alert = tokio::time::timeout(PATIENCE, alerts.recv()).await.expect("Slack hears of it").unwrap();
        assert!(alert.starts_with("POST /hook "), "the address in the Secret is the one that is used: {alert}");
        drop(aviary);
    });
}

/// Answers for Slack, and hands on the beginning of what it was told.
async fn slack() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, alerts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut text = vec![0; 512];
            let length = connection.read(&mut text).await.unwrap_or_default();
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            let _ = sender.send(String::from_utf8_lossy(&text[..length]).into_owned());
        }
    });
    (address, alerts)
}

/// Those of the bench go, so that the chart's are installed.
async fn remove_definitions(client: &Client) {
    let definitions = api(client.clone(), "apiextensions.k8s.io", "v1", "CustomResourceDefinition", None);
    let names = ["canaries.flagger.app", "metrictemplates.flagger.app", "alertproviders.flagger.app"];
    for name in names {
        definitions.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for name in names {
        eventually("the definition is gone", async || get(&definitions, name).await.is_none()).await;
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

fn install(bench: &Inside, value: &str) {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/aviary");
    let mut command = Command::new(Helm::find().unwrap().path());
    command.args(["upgrade", "--install", "aviary", chart, "--namespace", NAMESPACE, "--create-namespace", "--wait"]);
    command.args(["--timeout", "2m", "--set", "meshProvider=istio", "--set", value]);
    command
        .args(["--set", "leaderElection.enabled=true,leaderElection.replicaCount=2,podDisruptionBudget.enabled=true"]);
    // It keeps what it has learnt of a server in its home.
    command.env("HOME", bench.path("home")).env("KUBECONFIG", bench.kubeconfig("admin")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn kubectl(bench: &Inside, arguments: &[&str]) -> String {
    let mut command = Command::new(bench.path("kubectl"));
    command.arg("--kubeconfig").arg(bench.kubeconfig("admin")).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// For those without Helm; the API server takes them as they are.
fn plain_manifests_are_valid(bench: &Inside) {
    let flags = ["--name=plain", "--replicas=2", "--enable-leader-election", "--slack-token=t", "--namespace=test"];
    let output = Command::new(env!("CARGO_BIN_EXE_aviary")).arg("manifests").args(flags).output().unwrap();
    let file = bench.path("manifests.yaml");
    std::fs::write(&file, output.stdout).unwrap();
    let file = file.to_str().unwrap();
    let applied = kubectl(
        bench,
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--output=name",
            "-f",
            file,
        ],
    );
    let kinds: BTreeSet<&str> = applied.lines().filter_map(|line| line.split(['.', '/']).next()).collect();
    let expected = [
        "customresourcedefinition",
        "deployment",
        "namespace",
        "poddisruptionbudget",
        "role",
        "rolebinding",
        "secret",
        "serviceaccount",
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
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

/// The binary, as the Deployment wants it started.
async fn start_as_declared(bench: &Inside, client: &Client, installed: &Value) -> Aviary {
    let pod = &installed["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    assert_eq!((&context["runAsUser"], &context["readOnlyRootFilesystem"]), (&10001.into(), &true.into()));
    let account = pod["serviceAccountName"].as_str().unwrap();
    let directory = bench.path("account");
    std::fs::create_dir(&directory).unwrap();
    let token = kubectl(bench, &["create", "token", account, "--namespace", NAMESPACE, "--duration=1h"]);
    std::fs::write(directory.join("token"), token).unwrap();
    std::fs::write(directory.join("namespace"), NAMESPACE).unwrap();
    std::fs::copy(bench.path("certificates/apiserver.crt"), directory.join("ca.crt")).unwrap();

    let log = std::fs::File::create(bench.path("aviary.log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", LIKE_A_KUBELET, "sh"]);
    command.arg(&directory).arg(PathBuf::from(env!("CARGO_BIN_EXE_aviary")));
    command.args(container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("KUBERNETES_SERVICE_HOST", "10.99.0.1").env("KUBERNETES_SERVICE_PORT", "6443");
    let secrets = api(client.clone(), "", "v1", "Secret", Some(NAMESPACE));
    for source in container["envFrom"].as_array().unwrap() {
        let name = source["secretRef"]["name"].as_str().unwrap();
        for key in get(&secrets, name).await.unwrap()["data"].as_object().unwrap().keys() {
            let jsonpath = format!("--output=go-template={{{{.data.{key} | base64decode}}}}");
            command.env(key, kubectl(bench, &["get", "secret", name, "--namespace", NAMESPACE, &jsonpath]));
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Aviary { process: command.spawn().unwrap() }
}

async fn probes_answer(installed: &Value) {
    let container = &installed["spec"]["template"]["spec"]["containers"][0];
    for probe in ["livenessProbe", "readinessProbe"] {
        let asked = &container[probe]["httpGet"];
        let ports = container["ports"].as_array().unwrap();
        let port = &ports.iter().find(|port| port["name"] == asked["port"]).unwrap()["containerPort"];
        let url = format!("http://127.0.0.1:{port}{}", asked["path"].as_str().unwrap());
        eventually(probe, async || reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200)).await;
    }
}

async fn a_release(client: &Client) {
    create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
    create_through(client.clone(), release::canary_behind_the_gateway()).await;
    let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
    let phase = async || get(&canaries, "podinfo").await.unwrap()["status"]["phase"].clone();
    eventually("initialized", async || phase().await == "Initialized").await;
    eventually("the gateway's answers are those of pods", async || release::answers("app.example.com").await).await;
    let options = users::Options::new(GATEWAY.parse().unwrap(), 50.0).unwrap().host("app.example.com");
    let users = Users::start(options.timeout(USERS_PATIENCE)).unwrap();

    set_image(client, "podinfo", "podinfo:6.0.1").await;
    let halves = BTreeMap::from([("podinfo-canary".to_owned(), 50), ("podinfo-primary".to_owned(), 50)]);
    eventually("half goes to the canary", async || release::shares("app.example.com").await == halves).await;
    dashboards_have_data().await;
    eventually("its end", async || ["Succeeded", "Failed"].map(Value::from).contains(&phase().await)).await;
    assert_eq!(phase().await, "Succeeded");
    let report = users.stop().await;
    assert_eq!(report.failures(), 0, "{:#?}", report.first_failures());
}

/// Each panel's questions to the bench's Prometheus, which scrapes Envoy and the operator.
async fn dashboards_have_data() {
    let istio = [("namespace", "test"), ("primary", "podinfo-primary"), ("canary", "podinfo")];
    let of_all = [
        questions("istio", &istio),
        questions("envoy", &[("namespace", "test"), ("target", "podinfo")]),
        questions("aviary", &[("namespace", ".*")]),
    ];
    let client = reqwest::Client::new();
    for question in of_all.into_iter().flatten() {
        let what = format!("data for {}: {}", question.panel, question.query);
        eventually(&what, async || {
            let parameters = [("query", question.query.as_str())];
            let answer = client.get("http://prometheus:9090/api/v1/query").query(&parameters).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["status"], "success", "{what}: {answer}");
            let series = answer["data"]["result"].as_array().unwrap();
            !series.is_empty() && series.iter().all(|series| series["value"][1] != "NaN")
        })
        .await;
    }
}
