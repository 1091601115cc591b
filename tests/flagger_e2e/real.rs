//! Scripts on real components. The gateway is the sidecar that counts requests, and a script sends what the load tester is asked to
//! send; where checks are about what pods tell themselves, the test tells it for them.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::pod_metrics::PodMetrics;
use super::{Script, istio, kubernetes};
use crate::fixtures_run::documents;
use crate::real::{Inside, in_bench, is_full_set, scaled_objects};
use crate::scenarios::real::Real;
use crate::scenarios::scene::{CANARY, DEPLOYMENT};
use crate::support::create_through;

/// One after the other, since all are about Deployment `podinfo` of namespace `test`. `AVIARY_REAL_FULL=1` runs all of them.
#[test]
fn e2e_istio_on_real_components() {
    in_bench("flagger_e2e::real::e2e_istio_on_real_components", async |bench: Inside| {
        let _network = bench.network().await;
        let host = Real::new(&bench).await;
        load_tester(&bench).await;
        let script = Script { real: Some(&host), ..Script::begin(&host, None).await };
        // The scripts apply it once, with the first canary.
        for object in documents("e2e/istio-canary.yaml").into_iter().filter(|object| object["kind"] == "MetricTemplate")
        {
            script.apply_one(object).await;
        }
        istio::existing_objects(&script).await;
        script.clear().await;
        if is_full_set() {
            istio::three_strategies(&script).await;
            istio::finalizer(&script).await;
            script.clear().await;
        }
        istio::session_affinity(&script).await;
        flaggers_status_is_adopted(&script).await;
        if is_full_set() {
            script.clear().await;
            istio::skip_analysis(&script).await;
            script.clear().await;
            istio::delegation(&script).await;
        }
    });
}

/// Blue/green of a Deployment; `AVIARY_REAL_FULL=1` runs the scripts of the other targets and scalers, too.
#[test]
fn e2e_kubernetes_and_keda_on_real_components() {
    in_bench("flagger_e2e::real::e2e_kubernetes_and_keda_on_real_components", async |bench: Inside| {
        let _network = bench.network().await;
        let client = bench.client("admin").await;
        let _metrics = PodMetrics::serve(client.clone()).await;
        if is_full_set() {
            scaled_objects(&client).await;
        }
        let host = Real::with_arguments(&bench, &["--include-label-prefix", kubernetes::LABEL_PREFIX]).await;
        load_tester(&bench).await;
        let script = Script { real: Some(&host), ..Script::begin(&host, None).await };
        kubernetes::deployment(&script).await;
        if is_full_set() {
            kubernetes::autoscaler(&script).await;
            kubernetes::scaled_object(&script, false).await;
            kubernetes::daemon_set(&script).await;
        }
    });
}

/// Hashes that only Flagger can compute, and none of Aviary's fields: they are replaced, and that is all.
async fn flaggers_status_is_adopted(script: &Script<'_>) {
    let (events, primary) = (script.events().await, script.present(DEPLOYMENT, "podinfo-primary").await);
    let status = json!({"status": {
        "lastAppliedSpec": "5f56684589", "lastPromotedSpec": "5f56684589", "observedGeneration": null, "lastStepTime": null,
    }});
    let canaries = script.scene.api(CANARY);
    canaries.patch_status("podinfo", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let is_own = |status: &Value, field: &str| status[field].as_str().is_some_and(|hash| hash.starts_with("aviary-"));
    let is_adopted = async || {
        let status = script.scene.status();
        is_own(&status, "lastAppliedSpec") && is_own(&status, "lastPromotedSpec")
    };
    script.within(Duration::from_secs(60), "adoption", is_adopted).await;
    script.scene.pass(Duration::from_secs(10)).await;
    assert_eq!(script.scene.status()["phase"], "Succeeded");
    assert_eq!(script.events().await, events);
    let present = script.present(DEPLOYMENT, "podinfo-primary").await;
    assert_eq!(present["metadata"]["generation"], primary["metadata"]["generation"], "no pod is restarted");
}

/// A pod that answers as the load tester does, under its name.
pub async fn load_tester(bench: &Inside) {
    let client = bench.client("admin").await;
    let name = "flagger-loadtester";
    let labels = json!({"app": name});
    create_through(
        client.clone(),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "test", "name": name},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }),
    )
    .await;
    let container = json!({
        "name": "loadtester", "image": "ghcr.io/fluxcd/flagger-loadtester:0.38.0",
        "ports": [{"name": "http", "containerPort": 8080}],
    });
    create_through(
        client,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "test", "name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }),
    )
    .await;
}
