//! Releases by weight: good ones, bad ones, and what people do to them on the way.

use std::time::Duration;

use serde_json::{Value, json};

use super::scene::{AUTOSCALER, CONFIG_MAP, DEPLOYMENT, Scene};
use crate::support::deployment;

pub async fn good(scene: &Scene<'_>) {
    scene.begin(|_| {}).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_phase("Succeeded").await;
}

/// A version that is bad in this way is rolled back.
pub async fn bad(scene: &Scene<'_>, tag: &str) {
    scene.begin(|_| {}).await;
    scene.admit_users().await;
    scene.set_image(&format!("podinfo:6.0.1-{tag}")).await;
    scene.wait_for_phase("Failed").await;
}

/// A version that is slower than this many milliseconds is rolled back.
pub async fn slow(scene: &Scene<'_>, tag: &str, limit: u64) {
    let is_duration = |metric: &&mut Value| metric["name"] == "request-duration";
    scene
        .begin(|canary| {
            let metrics = canary["spec"]["analysis"]["metrics"].as_array_mut().unwrap();
            metrics.iter_mut().find(is_duration).unwrap()["thresholdRange"]["max"] = json!(limit);
        })
        .await;
    scene.admit_users().await;
    scene.set_image(&format!("podinfo:6.0.1-{tag}")).await;
    scene.wait_for_phase("Failed").await;
}

pub async fn replaced_during_analysis(scene: &Scene<'_>) {
    scene.begin(|_| {}).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    scene.set_image("podinfo:6.0.2").await;
    scene.wait_for_weight(0).await;
    scene.wait_for_phase("Succeeded").await;
}

pub async fn withdrawn_during_analysis(scene: &Scene<'_>) {
    scene.begin(|_| {}).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    scene.set_image("podinfo:6.0.0").await;
    scene.wait_for_phase("Succeeded").await;
}

/// Going back is no release, and the same revision once more is one.
pub async fn failed_and_tried_again(scene: &Scene<'_>) {
    bad(scene, "err50").await;
    scene.wait_until_scaled_down().await;
    scene.set_image("podinfo:6.0.0").await;
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(scene.status()["phase"], "Failed");
    scene.set_image("podinfo:6.0.1-err50").await;
    scene.wait_for_phase("Progressing").await;
    scene.wait_for_phase("Failed").await;
}

pub async fn suspended_and_resumed(scene: &Scene<'_>) {
    scene.begin(|_| {}).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    scene.patch_canary(json!({"suspend": true})).await;
    scene.pass(Duration::from_secs(25)).await;
    assert_eq!(scene.weight(), 25, "it stands still");
    scene.patch_canary(json!({"suspend": false})).await;
    scene.wait_for_phase("Succeeded").await;
}

/// Steps and interval are those of the spec as it is now.
pub async fn spec_changed_during_analysis(scene: &Scene<'_>) {
    scene.begin(|canary| canary["spec"]["analysis"]["interval"] = json!("60m")).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    scene.pass(Duration::from_secs(10)).await;
    scene.patch_canary(json!({"analysis": {"interval": "10s", "stepWeight": 30, "maxWeight": 80}})).await;
    scene.wait_for_phase("Succeeded").await;
}

fn autoscaler(name: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2, "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        },
    })
}

/// The autoscaler of the primary wants more pods while a release is under way; the promotion leaves them alone.
pub async fn primary_scaled_during_analysis(scene: &Scene<'_>) {
    let reference = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    scene.create(autoscaler("podinfo")).await;
    scene.begin(|canary| canary["spec"]["autoscalerRef"] = reference).await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    // Without metrics of pods it is the lower bound that an autoscaler acts on, on all hosts.
    scene.merge(AUTOSCALER, "podinfo-primary", json!({"spec": {"minReplicas": 4}})).await;
    scene
        .eventually("the primary has four pods", async || {
            let primary = scene.get(DEPLOYMENT, "podinfo-primary").await.unwrap();
            primary["status"]["availableReplicas"] == 4
        })
        .await;
    scene.wait_for_phase("Succeeded").await;
}

pub async fn config_changed(scene: &Scene<'_>) {
    let settings = |value: &str| json!({"data": {"key": value}});
    let mut object = settings("old");
    (object["apiVersion"], object["kind"]) = (json!("v1"), json!("ConfigMap"));
    object["metadata"] = json!({"name": "settings"});
    scene.create(object).await;
    let mut target = deployment(&scene.namespace, "podinfo", "podinfo:6.0.0");
    target["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    scene.create(target).await;
    scene.create(scene.canary_object(|_| {})).await;
    scene.wait_until_initialized().await;
    scene.admit_users().await;

    scene.merge(CONFIG_MAP, "settings", settings("new")).await;
    scene.wait_for_weight(25).await;
    let primary = scene.get(CONFIG_MAP, "settings-primary").await.unwrap();
    assert_eq!(primary["data"]["key"], "old", "not before the promotion");
    scene.wait_for_phase("Succeeded").await;
}
