//! The charts on the real control plane: the guides' commands install them, and the operator that one of them installs runs a
//! release, which the dashboards show. The scenarios run on one, too: tests/scenarios/real.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use aviary_loadtest::users::{self, Users};
use kube::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::installed::{Installed, kubectl, succeed};
use super::release::{self, GATEWAY};
use super::{Inside, api, create_through, deployment, eventually, get, in_bench, set_image};
use crate::charts::{Helm, guides};
use crate::dashboards::questions;
use crate::support::process::PATIENCE;

/// A machine that is busy with something else stands still for seconds.
const USERS_PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn the_chart_installs_an_operator_that_runs_releases() {
    in_bench("real::install::the_chart_installs_an_operator_that_runs_releases", async |bench: Inside| {
        let client = bench.client("admin").await;
        the_guides_commands_install(&bench);

        let (chat, mut alerts) = slack().await;
        // With a Role in each namespace; cluster-wide it is in the scenarios.
        let slack = format!("slack.channel=general,slack.url=http://{chat}/hook");
        let installed = Installed::by_helm(&bench, &client, &[&slack, "namespace=test\\,default"]).await;
        what_is_rendered_is_valid(&bench);
        assert_eq!(kubectl(&bench, &["get", "clusterrole", "aviary", "--ignore-not-found", "--output=name"]), "");
        let aviary = installed.start();
        installed.probes_answer().await;
        let _network = bench.network().await;
        a_release(&client).await;
        let alert = tokio::time::timeout(PATIENCE, alerts.recv()).await.expect("Slack hears of it").unwrap();
        assert!(alert.starts_with("POST /hook "), "the address in the Secret is the one that is used: {alert}");
        drop(aviary);
    });
}

/// Word for word; the API server takes all objects, and the Deployments have what their pods need to be made.
fn the_guides_commands_install(bench: &Inside) {
    let helm = Helm::find().unwrap();
    for guide in guides::ALL {
        succeed(bench, &mut guides::command(helm.path(), guide, "upgrade --install --wait --timeout 2m"));
        for line in
            kubectl(bench, &["get", "secret", "--all-namespaces", "--selector=owner=helm", "--output", RELEASES])
                .lines()
        {
            let (namespace, name) = line.split_once('/').unwrap();
            println!("{guide}: {namespace}/{name}");
            succeed(bench, Command::new(helm.path()).args(["uninstall", name, "--namespace", namespace, "--wait"]));
        }
    }
}

const RELEASES: &str =
    r#"go-template={{range .items}}{{.metadata.namespace}}/{{.metadata.labels.name}}{{"\n"}}{{end}}"#;

/// Values of which the guides have none; the API server checks what they render, strictly.
fn what_is_rendered_is_valid(bench: &Inside) {
    let charts: [(&str, &[&str]); 5] = [
        (
            "aviary",
            &["crd.create=true,leaderElection.enabled=true,namespace=test\\,default,podDisruptionBudget.enabled=true"],
        ),
        (
            "aviary",
            &[
                "prometheus.install=true,prometheus.securityContext.enabled=true,image.pullSecret=a,podPriorityClassName=a",
                "controlplane.kubeconfig.secretName=a,env[0].name=A,env[0].value=b,existingSecret=a,serviceAccount.annotations.a=b",
            ],
        ),
        (
            "loadtester",
            &[
                "istio.enabled=true,istio.gateway.enabled=true,istio.tls.enabled=true,istio.tls.httpsRedirect=true",
                "podDisruptionBudget.enabled=true,rbac.create=true,podSecurityContext.enabled=true,image.pullSecret=a",
                "rbac.rules[0].apiGroups[0]=apps,rbac.rules[0].resources[0]=deployments,rbac.rules[0].verbs[0]=get",
            ],
        ),
        ("grafana", &["password=a,podLabels.a=1,image.pullSecret=a"]),
        (
            "envoy",
            &[
                "upstreams.a.backends.b.port=80,upstreams.a.backends.b.weight=100,upstreams.a.smi.enabled=true",
                "service.annotations.a=b,priorityClassName=a,image.pullSecret=a",
            ],
        ),
    ];
    let helm = Helm::find().unwrap();
    let mut objects = String::new();
    for (chart, values) in charts {
        let values: Vec<&str> = values.iter().flat_map(|value| ["--set", *value]).collect();
        objects += &helm.template(chart, chart, &[&["--namespace=test"], &values[..]].concat()).unwrap();
    }
    let flags = ["--name=plain", "--replicas=2", "--enable-leader-election", "--slack-token=t", "--namespace=test"];
    let output = Command::new(env!("CARGO_BIN_EXE_aviary")).arg("manifests").args(flags).output().unwrap();
    // For those without Helm.
    objects += "\n---\n";
    objects += std::str::from_utf8(&output.stdout).unwrap();
    let applied = dry_run(bench, &objects);
    let expected = [
        "clusterrole",
        "clusterrolebinding",
        "configmap",
        "customresourcedefinition",
        "deployment",
        "gateway",
        "namespace",
        "poddisruptionbudget",
        "role",
        "rolebinding",
        "secret",
        "service",
        "serviceaccount",
        "virtualservice",
    ];
    assert_eq!(applied, BTreeSet::from(expected.map(str::to_owned)));
}

/// The kinds of what the API server would have taken.
fn dry_run(bench: &Inside, objects: &str) -> BTreeSet<String> {
    let file = bench.path("objects.yaml");
    std::fs::write(&file, objects).unwrap();
    let options = ["--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--output=name"];
    let file = ["--filename", file.to_str().unwrap()];
    let applied = kubectl(bench, &[&["apply"][..], &options, &file].concat());
    applied.lines().filter_map(|line| line.split(['.', '/']).next()).map(str::to_owned).collect()
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
