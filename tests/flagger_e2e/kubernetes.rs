//! Scripts of `test/kubernetes` and `test/keda`.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{IMAGE, INITIALIZED_WITHIN, PROMOTED_WITHIN, Script, on_embedded_cluster};
use crate::scenarios::scene::{AUTOSCALER, CANARY, DAEMON_SET, DEPLOYMENT, SCALED_OBJECT, SERVICE};

/// As the scripts install Flagger.
pub(super) const LABEL_PREFIX: &str = "app.kubernetes.io";

#[test]
fn e2e_kubernetes_deployment() {
    on_embedded_cluster("kubernetes", deployment);
}

#[test]
fn e2e_kubernetes_daemon_set() {
    on_embedded_cluster("kubernetes", daemon_set);
}

#[test]
fn e2e_kubernetes_autoscaler() {
    on_embedded_cluster("kubernetes", autoscaler);
}

#[test]
fn e2e_keda_scaled_object() {
    on_embedded_cluster("kubernetes", async |script| scaled_object(script, true).await);
}

/// `kubernetes/test-deployment.sh`
pub(super) async fn deployment(script: &Script<'_>) {
    script.apply("e2e/kubernetes-deployment.yaml").await;
    script.is_initialized().await;
    let service = script.present(SERVICE, "podinfo-svc").await;
    for annotation in ["kustomize.toolkit.fluxcd.io/reconcile", "helm.toolkit.fluxcd.io/driftDetection"] {
        assert_eq!(service["metadata"]["annotations"][annotation], "disabled", "{annotation}");
    }
    assert_eq!(service["spec"]["selector"], json!({"app": "podinfo-primary"}));
    let primary = script.present(DEPLOYMENT, "podinfo-primary").await;
    assert_eq!(primary["metadata"]["labels"]["app.kubernetes.io/managed-by"], "test-label-prefix");
    assert_eq!(primary["metadata"]["annotations"]["app.kubernetes.io/instance"], "test-annotation-prefix");
    script.releases("6.0.1").await;
    for told in
        ["Confirm-rollout check gate passed", "Pre-rollout check acceptance-test passed", "canary iteration 5/5"]
    {
        assert_eq!(script.count_events(told).await, 1, "{told}: {:#?}", script.events().await);
    }
    assert_eq!(script.count_events("Routing all traffic").await, 0, "nothing is routed");
    script.clear_all(&[(CANARY, "podinfo"), (SERVICE, "podinfo-svc")]).await;
}

/// `kubernetes/test-daemonset.sh`; its last check is made of the DaemonSet that it deletes the canary of.
pub(super) async fn daemon_set(script: &Script<'_>) {
    script.apply("workloads/daemonset.yaml").await;
    script.apply("e2e/kubernetes-daemonset.yaml").await;
    script.is_in_phase(INITIALIZED_WITHIN, "Initialized").await;
    let available = async |name: &str| script.present(DAEMON_SET, name).await["status"]["numberAvailable"].clone();
    let nodes = available("podinfo-ds-primary").await;
    let rests = async || available("podinfo-ds").await.as_u64().unwrap_or(0) == 0;
    script.within(INITIALIZED_WITHIN, "the target has no pods", rests).await;

    let image = format!("{IMAGE}:6.0.1");
    let containers = json!([{"name": "podinfod", "image": image}]);
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    script.scene.api(DAEMON_SET).patch("podinfo-ds", &PatchParams::default(), &patch).await.unwrap();
    let is_promoted = async || {
        let primary = script.present(DAEMON_SET, "podinfo-ds-primary").await;
        primary["spec"]["template"]["spec"]["containers"][0]["image"] == image.as_str()
    };
    script.within(PROMOTED_WITHIN, "promotion", is_promoted).await;
    script.is_in_phase(INITIALIZED_WITHIN, "Succeeded").await;
    assert_eq!(script.count_events("Halt").await, 0, "{:#?}", script.events().await);

    script.apply("e2e/kubernetes-daemonset-finalizer.yaml").await;
    let has_finalizer = async || {
        let canary = script.present(CANARY, "podinfo-ds").await;
        canary["metadata"]["finalizers"] == json!(["finalizer.flagger.app"])
    };
    script.within(INITIALIZED_WITHIN, "the finalizer", has_finalizer).await;
    script.scene.api(CANARY).delete("podinfo-ds", &DeleteParams::default()).await.unwrap();
    let is_gone = async || script.scene.get(CANARY, "podinfo-ds").await.is_none();
    script.within(INITIALIZED_WITHIN, "the deletion", is_gone).await;
    assert_eq!(available("podinfo-ds").await, nodes, "it serves again");
    let is_gone = async || script.scene.get(DAEMON_SET, "podinfo-ds-primary").await.is_none();
    script.within(INITIALIZED_WITHIN, "the primary goes with the canary", is_gone).await;
}

/// `kubernetes/test-hpa.sh`; of the primary's autoscaler, which the script means to look at.
pub(super) async fn autoscaler(script: &Script<'_>) {
    script.apply("e2e/kubernetes-hpa.yaml").await;
    script.is_initialized().await;
    let percent = async || {
        let autoscaler = script.present(AUTOSCALER, "podinfo-primary").await;
        autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"].clone()
    };
    assert_eq!(percent().await, 99);
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    script.scene.merge(AUTOSCALER, "podinfo", json!({"spec": {"metrics": [metric]}})).await;
    script.scene.pass(Duration::from_secs(5)).await;
    assert_eq!(percent().await, 99, "it follows with a promotion and not before");
    script.releases("6.0.1").await;
    assert_eq!(percent().await, 50);
    script.clear_all(&[(CANARY, "podinfo"), (SERVICE, "podinfo-svc"), (AUTOSCALER, "podinfo")]).await;
}

/// `keda/test-scaledobject.sh`; where there are KEDA's objects and no KEDA, nobody scales the canary by its load.
pub(super) async fn scaled_object(script: &Script<'_>, has_keda: bool) {
    script.apply("e2e/keda-scaledobject.yaml").await;
    script.is_initialized().await;
    let paused = async || {
        let target = script.present(SCALED_OBJECT, "podinfo-so").await;
        target["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"].clone()
    };
    let primary = script.present(SCALED_OBJECT, "podinfo-so-primary").await;
    let query = "sum(rate(http_requests_total{ app=\"podinfo-primary\" }[30s]))";
    assert_eq!(primary["spec"]["triggers"][0]["metadata"]["query"], query);
    assert_eq!(primary["spec"]["scaleTargetRef"]["name"], "podinfo-primary");
    let annotations = &primary["metadata"]["annotations"];
    assert_eq!(annotations["autoscaling.keda.sh/paused-replicas"], Value::Null, "{annotations}");
    script.within(INITIALIZED_WITHIN, "the target's is paused", async || paused().await == "0").await;

    let image = script.set_image("6.0.1").await;
    script.within(PROMOTED_WITHIN, "it is let loose", async || paused().await.is_null()).await;
    let replicas = async || script.present(DEPLOYMENT, "podinfo").await["spec"]["replicas"].clone();
    let expected = if has_keda { 3 } else { 1 };
    script.within(PROMOTED_WITHIN, "the canary has pods", async || replicas().await == expected).await;
    script.within(PROMOTED_WITHIN, "promotion", async || script.image_of_primary().await == image).await;
    script.has_released().await;
    script.within(INITIALIZED_WITHIN, "the target's is paused again", async || paused().await == "0").await;
    script.clear_all(&[(CANARY, "podinfo"), (SERVICE, "podinfo-svc"), (SCALED_OBJECT, "podinfo-so")]).await;
}
