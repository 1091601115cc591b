//! Scripts on real components: those whose checks ask for no metrics, which a sidecar would have to count.

use serde_json::json;

use super::{Script, istio};
use crate::fixtures_run::documents;
use crate::real::{Inside, in_bench, is_full_set};
use crate::scenarios::real::Real;
use crate::support::create_through;

/// One after the other, since all are about Deployment `podinfo` of namespace `test`. `AVIARY_REAL_FULL=1` runs all of them.
#[test]
fn e2e_istio_on_real_components() {
    in_bench("flagger_e2e::real::e2e_istio_on_real_components", async |bench: Inside| {
        let _network = bench.network().await;
        let host = Real::new(&bench).await;
        load_tester(&bench).await;
        let script = Script::begin(&host, None).await;
        // The scripts apply it once, with the first canary.
        for object in documents("e2e/istio-canary.yaml").into_iter().filter(|object| object["kind"] == "MetricTemplate")
        {
            script.apply_one(object).await;
        }
        istio::existing_objects(&script).await;
        script.clear().await;
        istio::session_affinity(&script).await;
        if is_full_set() {
            script.clear().await;
            istio::skip_analysis(&script).await;
            script.clear().await;
            istio::delegation(&script).await;
        }
    });
}

/// A pod that answers as the load tester does, under its name.
async fn load_tester(bench: &Inside) {
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
