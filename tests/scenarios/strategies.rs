//! A/B tests, session affinity, mirroring and blue/green.

use serde_json::{Value, json};

use super::scene::{Scene, VIRTUAL_SERVICE};
use crate::support::iterations;

/// Those whom the condition admits see the canary, and nobody else.
pub async fn ab_test(scene: &Scene<'_>, condition: Value, insider: (&str, &str), image: &str, end: &str) {
    scene
        .begin(|canary| {
            iterations(canary, 3);
            canary["spec"]["analysis"]["match"] = json!([{"headers": condition}]);
        })
        .await;
    scene.admit_users().await;
    scene.admit_users_with(&[insider]).await;
    scene.set_image(image).await;
    scene.wait_for_weight(100).await;
    scene.assert_led_to(&[insider], "podinfo").await;
    scene.assert_led_to(&[], "podinfo-primary").await;
    scene.wait_for_phase(end).await;
    scene.assert_led_to(&[insider], "podinfo-primary").await;
}

pub async fn session_affinity(scene: &Scene<'_>) {
    scene
        .begin(|canary| {
            canary["spec"]["analysis"]["sessionAffinity"] =
                json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck"});
        })
        .await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene.wait_for_weight(25).await;
    let cookie = |field: &str| scene.status()[field].as_str().unwrap_or_default().to_owned();
    let (canary, primary) = (cookie("sessionAffinityCookie"), cookie("primarySessionAffinityCookie"));
    scene.assert_led_to(&[("cookie", &canary)], "podinfo").await;
    scene.assert_led_to(&[("cookie", &primary)], "podinfo-primary").await;
    scene.wait_for_phase("Succeeded").await;
    scene.assert_led_to(&[("cookie", &canary)], "podinfo-primary").await;
}

/// Before the first user meets the canary it gets copies of some requests.
pub async fn mirrored(scene: &Scene<'_>) {
    scene
        .begin(|canary| {
            let analysis = canary["spec"]["analysis"].as_object_mut().unwrap();
            analysis.insert("mirror".to_owned(), json!(true));
            analysis.insert("mirrorWeight".to_owned(), json!(50));
        })
        .await;
    scene.admit_users().await;
    scene.set_image("podinfo:6.0.1").await;
    scene
        .eventually("copies, and nothing but copies, are sent", async || {
            let routes = scene.get(VIRTUAL_SERVICE, "podinfo").await.unwrap();
            let rule = &routes["spec"]["http"][0];
            rule["mirror"]["host"] == "podinfo-canary"
                && rule["mirrorPercentage"]["value"] == 50
                && rule["route"][1]["weight"] == 0
        })
        .await;
    scene.wait_for_phase("Succeeded").await;
}

pub async fn blue_green(scene: &Scene<'_>, image: &str, end: &str) {
    scene.begin(|canary| iterations(canary, 2)).await;
    scene.admit_users().await;
    scene.set_image(image).await;
    scene.wait_for_phase("Progressing").await;
    // Load testers are called when the canary is there. What is sent to it before fails, and counts.
    scene.wait_until_available("podinfo").await;
    scene.load_canary().await;
    scene.wait_for_phase(end).await;
}

/// Nobody loads the canary: it is judged by copies.
pub async fn mirrored_blue_green(scene: &Scene<'_>, image: &str, end: &str) {
    scene
        .begin(|canary| {
            iterations(canary, 2);
            canary["spec"]["analysis"]["mirror"] = json!(true);
        })
        .await;
    scene.admit_users().await;
    scene.set_image(image).await;
    scene.wait_for_phase(end).await;
}
