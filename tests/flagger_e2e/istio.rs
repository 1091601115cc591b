//! Scripts of `test/istio`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{IMAGE, PROMOTED_WITHIN, Script, on_embedded_cluster};
use crate::fixtures_run::documents;
use crate::scenarios::scene::{CANARY, DEPLOYMENT, SERVICE, VIRTUAL_SERVICE};

#[test]
fn e2e_istio_canary_blue_green_ab_test_and_finalizer() {
    on_embedded_cluster("istio", async |script| {
        three_strategies(script).await;
        finalizer(script).await;
        existing_objects(script).await;
    });
}

#[test]
fn e2e_istio_skip_analysis() {
    on_embedded_cluster("istio", skip_analysis);
}

#[test]
fn e2e_istio_delegation() {
    on_embedded_cluster("istio", delegation);
}

#[test]
fn e2e_istio_session_affinity() {
    on_embedded_cluster("istio", session_affinity);
}

/// `test-canary.sh`, its first three parts: strategy, port and gates of one canary change between its releases.
pub(super) async fn three_strategies(script: &Script<'_>) {
    script.apply("e2e/istio-canary.yaml").await;
    script.is_initialized().await;
    let apex = script.present(SERVICE, "podinfo").await;
    assert_eq!(apex["metadata"]["annotations"]["test"], "annotations-test");
    assert_eq!(apex["metadata"]["labels"]["test"], "labels-test");
    assert_eq!(apex["spec"]["selector"], json!({"app": "podinfo-primary"}));
    script.scene.pass(Duration::from_secs(60)).await;
    script.releases("6.0.1").await;
    script.has_disturbed_nobody();

    script.apply("e2e/istio-bluegreen.yaml").await;
    script.scene.pass(Duration::from_secs(30)).await;
    assert_eq!(script.scene.status()["phase"], "Succeeded", "a changed spec is no new revision");
    let port = script.present(SERVICE, "podinfo-canary").await["spec"]["ports"][0].clone();
    assert_eq!((&port["port"], &port["targetPort"]), (&json!(80), &json!(9898)));
    script.releases("6.0.2").await;
    assert_eq!(script.count_events("Routing all traffic to canary").await, 1);

    script.apply("e2e/istio-abtest.yaml").await;
    script.releases("6.0.3").await;
    assert_eq!(script.count_events("Confirm-promotion check promote-gate passed").await, 1);
    assert_eq!(script.count_events("Post-rollout check post passed").await, 1);
}

/// Its fourth part: the canary asks for its target back, and is deleted.
pub(super) async fn finalizer(script: &Script<'_>) {
    script.apply("e2e/istio-finalizer.yaml").await;
    let is_there = async || {
        let canary = script.present(CANARY, "podinfo").await;
        canary["metadata"]["finalizers"] == json!(["finalizer.flagger.app"])
    };
    script.within(Duration::from_secs(60), "the finalizer", is_there).await;
    script.deletes().await;
    let are_gone = async || script.scene.get(SERVICE, "podinfo").await.is_none();
    script.within(Duration::from_secs(60), "the services go with the canary", are_gone).await;
}

/// Its fifth part: a Service and a VirtualService of the user are taken over, and given back.
pub(super) async fn existing_objects(script: &Script<'_>) {
    let file = "e2e/istio-finalizer-existing-objects.yaml";
    let users = |kind: &str| documents(file).into_iter().find(|object| object["kind"] == kind).unwrap();
    script.apply(file).await;
    script.is_initialized().await;
    let routes = script.present(VIRTUAL_SERVICE, "podinfo").await;
    assert_eq!(routes["spec"]["http"][0]["route"][0]["destination"]["host"], "podinfo-primary");
    let service = script.present(SERVICE, "podinfo").await;
    assert_eq!(service["spec"]["selector"], json!({"app": "podinfo-primary"}));
    script.deletes().await;
    script.scene.pass(Duration::from_secs(10)).await;
    let service = script.present(SERVICE, "podinfo").await;
    assert_eq!(service["spec"]["selector"], users("Service")["spec"]["selector"]);
    let routes = script.present(VIRTUAL_SERVICE, "podinfo").await;
    assert_eq!(routes["spec"], users("VirtualService")["spec"]);
}

/// `test-skip-analysis.sh`; what the script's last check means to see is looked at here: the primary stays as it was.
pub(super) async fn skip_analysis(script: &Script<'_>) {
    script.apply("e2e/istio-skip-analysis.yaml").await;
    script.is_initialized().await;
    script.releases("6.0.1").await;
    script.set_image("potato-unready").await;
    script.is_in_phase(PROMOTED_WITHIN, "Failed").await;
    script.scene.wait_until_scaled_down().await;
    assert_eq!(script.image_of_primary().await, format!("{IMAGE}:6.0.1"));
    let primary = script.present(DEPLOYMENT, "podinfo-primary").await;
    assert_eq!(primary["status"]["availableReplicas"], 1);
    script.has_disturbed_nobody();
}

/// `test-delegation.sh`
pub(super) async fn delegation(script: &Script<'_>) {
    script.apply("e2e/istio-delegation.yaml").await;
    script.is_initialized().await;
    let delegate = script.present(VIRTUAL_SERVICE, "podinfo").await;
    assert_eq!((&delegate["spec"]["hosts"], &delegate["spec"]["gateways"]), (&Value::Null, &Value::Null));
    script.releases("6.0.1").await;
    for weight in [10, 20, 30] {
        let told = format!("Advance podinfo.test canary weight {weight}");
        assert_eq!(script.count_events(&told).await, 1, "{told}");
    }
}

/// `test-session-affinity.sh`: the holders of both cookies stay on their side, and are told to drop the cookie in the end.
pub(super) async fn session_affinity(script: &Script<'_>) {
    let scene = &script.scene;
    script.apply("e2e/istio-session-affinity.yaml").await;
    script.is_initialized().await;
    scene.admit_users().await;
    let image = script.set_image("6.0.1").await;
    script.within(PROMOTED_WITHIN, "weight 10", async || scene.weight() == 10).await;
    let cookie = |field: &str| scene.status()[field].as_str().unwrap_or_default().to_owned();
    let (canary, primary) = (cookie("sessionAffinityCookie"), cookie("primarySessionAffinityCookie"));
    assert!(canary.starts_with("canary-flagger-cookie="), "{canary}");
    assert!(primary.starts_with("primary-flagger-cookie="), "{primary}");
    scene.assert_led_to(&[("cookie", &canary)], "podinfo").await;
    scene.assert_led_to(&[("cookie", &primary)], "podinfo-primary").await;
    script.within(PROMOTED_WITHIN, "promotion", async || script.image_of_primary().await == image).await;
    script.has_released().await;
    assert_eq!(cookie("previousSessionAffinityCookie"), canary);
    let routes = script.present(VIRTUAL_SERVICE, "podinfo").await;
    let set = &routes["spec"]["http"][0]["headers"]["response"]["add"]["Set-Cookie"];
    assert!(set.as_str().is_some_and(|set| set == format!("{canary}; Max-Age=-1")), "{routes:#}");
    script.has_disturbed_nobody();
}
