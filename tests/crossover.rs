//! The guide of Flagger with Crossover: its manifests, and `aviary crossover` as a process. On a real Envoy: `real::crossover`.

use std::path::Path;
use std::process::Stdio;

use aviary::simulate::Verdict;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::simulate::{Played, play, root};
use crate::support::process::{Process, eventually};
use crate::support::{api, create_through};

fn guide(file: &str, more: &[&str]) -> Played {
    let path = root().join("docs/systems/crossover").join(file).display().to_string();
    play(&[&["-f", &path], more].concat())
}

#[test]
fn the_guides_own_manifests_run_and_their_wrong_queries_are_told_once() {
    let Played { report, out, messages } = guide("guide.yaml", &[]);
    // Half a millisecond is met by nobody.
    assert_eq!(report.verdict, Verdict::RolledBack, "{out}\n{messages}");
    for (told, repaired) in [
        (
            "Metric error-rate: both sides of the division are series and no sums",
            "100 - sum(rate(envoy_cluster_upstream_rq{",
        ),
        (
            "Metric latency: envoy_cluster_upstream_rq_time_bucket is in milliseconds",
            "Set the limit to 500, or use: (histogram_quantile(0.99",
        ),
    ] {
        assert_eq!(out.matches(told).count(), 1, "{told}: {out}");
        assert!(out.contains(repaired), "{repaired}: {out}");
    }
}

#[test]
fn the_guides_repaired_manifests_promote_a_good_version_and_roll_a_bad_one_back() {
    let Played { report, out, messages } = guide("repaired.yaml", &[]);
    assert_eq!(report.verdict, Verdict::Promoted, "{out}\n{messages}");
    assert!(out.contains("Advance podinfo.test canary weight 50"), "{out}");
    assert!(!out.contains("both sides of the division") && !out.contains("is in milliseconds"), "{out}");
    let errors = root().join("docs/scenarios/errors.yaml").display().to_string();
    let Played { report, out, .. } = guide("repaired.yaml", &["--scenario", &errors]);
    assert_eq!(report.verdict, Verdict::RolledBack, "{out}");
    assert!(out.contains("Rolling back podinfo.test failed checks threshold reached 5"), "{out}");
}

/// Why the first of the two is worth a word: the guide's ratio promotes a version that fails.
#[test]
fn the_guides_ratio_sees_no_errors() {
    let text = std::fs::read_to_string(root().join("docs/systems/crossover/guide.yaml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("blind.yaml");
    std::fs::write(&file, text.replace("max: 0.5", "max: 500")).unwrap();
    let errors = root().join("docs/scenarios/errors.yaml").display().to_string();
    let Played { report, out, .. } = play(&["-f", &file.display().to_string(), "--scenario", &errors]);
    assert_eq!(report.verdict, Verdict::Promoted, "{out}");
    assert_eq!(out.matches("both sides of the division").count(), 1, "{out}");
}

const ROUTES: &str = "version_info: \"0\"\nresources:\n- virtual_hosts:\n  - name: podinfo\n    domains: [\"*\"]\n    routes:\n    - match: {prefix: \
    \"/\"}\n      route: {weighted_clusters: {clusters: [{name: podinfo-canary, weight: 0}, {name: podinfo-primary, weight: 100}]}}\n";

fn crossover(kubeconfig: &Path, directory: &Path, more: &[&str]) -> Process {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let output = format!("-output-dir={}", directory.display());
    let common =
        ["crossover", &kubeconfig, &output, "-namespace=test", "-configmap=envoy-xds", "-trafficsplit", "podinfo"];
    Process::start_with_input(&[&common[..], &["-trafficsplit-api-version=v1alpha1"], more].concat(), Stdio::null())
}

fn weight(directory: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(directory.join("current/rds.yaml")).ok()?;
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let clusters = &file["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"];
    clusters.as_array()?.iter().find(|cluster| cluster["name"] == "podinfo-canary")?["weight"].as_u64()
}

fn split(primary: &str, canary: &str) -> Value {
    json!({
        "apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit", "metadata": {"namespace": "test", "name": "podinfo"},
        "spec": {"service": "podinfo", "backends": [
            {"service": "podinfo-canary", "weight": canary}, {"service": "podinfo-primary", "weight": primary},
        ]},
    })
}

async fn set(client: &Client, primary: &str, canary: &str) {
    let splits = api(client.clone(), "split.smi-spec.io", "v1alpha1", "TrafficSplit", Some("test"));
    let patch = Patch::Merge(json!({"spec": split(primary, canary)["spec"]}));
    splits.patch("podinfo", &PatchParams::default(), &patch).await.unwrap();
}

/// Crossover took the flag and did everything all the same.
#[tokio::test]
async fn a_dry_run_prints_the_files_and_writes_nothing() {
    let sandbox = Sandbox::start(&["--namespace=test"]);
    let client = sandbox.client().await;
    let template = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "envoy-xds"},
        "data": {"rds.yaml": ROUTES},
    });
    create_through(client.clone(), template).await;
    create_through(client.clone(), split("70", "30")).await;
    let directory = tempfile::tempdir().unwrap();
    let mut dry = crossover(&sandbox.kubeconfig(), directory.path(), &["-dry-run"]);
    assert!(dry.exit().await.success());
    let printed = dry.output();
    assert!(printed.starts_with("# rds.yaml\n") && printed.contains("weight: 30"), "{printed}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let configmaps = api(client, "", "v1", "ConfigMap", Some("test"));
    assert!(configmaps.get_opt("envoy-xds-gen").await.unwrap().is_none());
}

#[tokio::test]
async fn crossover_follows_splits_and_outlives_what_cannot_be_used() {
    let sandbox = Sandbox::start(&["--namespace=test"]);
    let client = sandbox.client().await;
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path();

    // An init container waits for its ConfigMap, and not for a TrafficSplit.
    let mut init = crossover(&sandbox.kubeconfig(), files, &["-onetime", "-insecure=true"]);
    let template = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "envoy-xds"},
        "data": {"rds.yaml": ROUTES, "cds.yaml": "resources: []"},
    });
    create_through(client.clone(), template).await;
    assert!(init.exit().await.success());
    assert_eq!(weight(files), Some(0));
    assert_eq!(std::fs::read_to_string(files.join("current/cds.yaml")).unwrap(), "resources: []");

    let mut sidecar = crossover(&sandbox.kubeconfig(), files, &["-watch", "-sync-interval=30s"]);
    create_through(client.clone(), split("70", "30")).await;
    eventually("the first weights", async || weight(files) == Some(30)).await;
    // Nobody can use these; the next ones count.
    set(&client, "1e3", "1").await;
    set(&client, "0", "0").await;
    set(&client, "1", "1").await;
    eventually("the next weights", async || weight(files) == Some(1)).await;
    let splits = api(client.clone(), "split.smi-spec.io", "v1alpha1", "TrafficSplit", Some("test"));
    splits.delete("podinfo", &DeleteParams::default()).await.unwrap();
    create_through(client.clone(), split("20", "80")).await;
    eventually("those of another one", async || weight(files) == Some(80)).await;
    let configmaps = api(client.clone(), "", "v1", "ConfigMap", Some("test"));
    eventually("the generated ConfigMap", async || {
        let generated = configmaps.get_opt("envoy-xds-gen").await.unwrap();
        generated.is_some_and(|map| {
            map.data["data"]["rds.yaml"] == *std::fs::read_to_string(files.join("current/rds.yaml")).unwrap()
        })
    })
    .await;

    sidecar.signal("TERM");
    assert!(sidecar.exit().await.success());
    let log = sidecar.errors();
    for told in ["all weights are 0", "TrafficSplit podinfo is gone; its weights stay as they are"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(log.contains("\\\"1e3\\\" is no weight"), "{log}");
}
