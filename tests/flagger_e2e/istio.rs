//! Scripts of `test/istio`.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_sim::store::kinds;
use serde_json::{Value, json};

use super::{IMAGE, Script};
use crate::fixtures_run::documents;
use crate::support::in_virtual_time;

/// `test-canary.sh`, the five parts one after the other on one canary: its strategy, port and gates are changed between
/// releases, and in the end it is deleted and made anew around objects of the user.
#[test]
fn e2e_istio_canary_blue_green_ab_test_and_finalizer() {
    in_virtual_time(async {
        let script = Script::begin("istio").await;
        script.apply("e2e/istio-canary.yaml").await;
        script.is_initialized().await;
        let apex = script.present(&kinds::SERVICE, "podinfo");
        assert_eq!(apex["metadata"]["annotations"]["test"], "annotations-test");
        assert_eq!(apex["metadata"]["labels"]["test"], "labels-test");
        assert_eq!(apex["spec"]["selector"], json!({"app": "podinfo-primary"}));
        script.releases("6.0.1").await;
        script.has_disturbed_nobody();

        script.apply("e2e/istio-bluegreen.yaml").await;
        script.world.pass(Duration::from_secs(30)).await;
        assert_eq!(script.world.phase("podinfo"), "Succeeded", "a changed spec is no new revision");
        let port = &script.present(&kinds::SERVICE, "podinfo-canary")["spec"]["ports"][0];
        assert_eq!((&port["port"], &port["targetPort"]), (&json!(80), &json!(9898)));
        script.releases("6.0.2").await;
        assert_eq!(script.world.count_events("podinfo", "Routing all traffic to canary"), 1);

        script.apply("e2e/istio-abtest.yaml").await;
        script.releases("6.0.3").await;
        assert_eq!(script.world.count_events("podinfo", "Confirm-promotion check promote-gate passed"), 1);
        assert_eq!(script.world.count_events("podinfo", "Post-rollout check post passed"), 1);

        script.apply("e2e/istio-finalizer.yaml").await;
        let finalizers = || script.present(&kinds::CANARY, "podinfo")["metadata"]["finalizers"].clone();
        script
            .within(Duration::from_secs(60), "the finalizer", || finalizers() == json!(["finalizer.flagger.app"]))
            .await;
        script.deletes().await;
        let services = || script.world.get(&kinds::SERVICE, "podinfo").is_none();
        script.within(Duration::from_secs(60), "the services go with the canary", services).await;
        script.world.pass(Duration::from_secs(60)).await;

        let file = "e2e/istio-finalizer-existing-objects.yaml";
        let users = |kind: &str| documents(file).into_iter().find(|object| object["kind"] == kind).unwrap();
        script.apply(file).await;
        script.is_initialized().await;
        let routes = script.present(&kinds::VIRTUAL_SERVICE, "podinfo");
        assert_eq!(routes["spec"]["http"][0]["route"][0]["destination"]["host"], "podinfo-primary");
        assert_eq!(script.present(&kinds::SERVICE, "podinfo")["spec"]["selector"], json!({"app": "podinfo-primary"}));
        script.deletes().await;
        script.world.pass(Duration::from_secs(60)).await;
        let service = script.present(&kinds::SERVICE, "podinfo");
        assert_eq!(service["spec"]["selector"], users("Service")["spec"]["selector"]);
        let routes = script.present(&kinds::VIRTUAL_SERVICE, "podinfo");
        assert_eq!(routes["spec"], users("VirtualService")["spec"]);
    });
}

/// `test-skip-analysis.sh`; what the script's last check means to see is looked at here: the primary stays as it was.
#[test]
fn e2e_istio_skip_analysis() {
    in_virtual_time(async {
        let script = Script::begin("istio").await;
        script.apply("e2e/istio-skip-analysis.yaml").await;
        script.is_initialized().await;
        script.releases("6.0.1").await;
        script.world.set_image("podinfo", &format!("{IMAGE}:potato-unready"));
        script.within(super::PROMOTED_WITHIN, "failure", || script.world.phase("podinfo") == "Failed").await;
        script.world.pass(Duration::from_secs(60)).await;
        assert_eq!(script.image_of_primary(), format!("{IMAGE}:6.0.1"));
        assert_eq!(script.present(&kinds::DEPLOYMENT, "podinfo-primary")["status"]["availableReplicas"], 1);
        script.has_disturbed_nobody();
    });
}

/// `test-delegation.sh`
#[test]
fn e2e_istio_delegation() {
    in_virtual_time(async {
        let script = Script::begin("istio").await;
        script.apply("e2e/istio-delegation.yaml").await;
        script.is_initialized().await;
        let delegate = script.present(&kinds::VIRTUAL_SERVICE, "podinfo");
        assert_eq!((&delegate["spec"]["hosts"], &delegate["spec"]["gateways"]), (&Value::Null, &Value::Null));
        script.releases("6.0.1").await;
        assert!(script.world.count_events("podinfo", "Advance podinfo.test canary weight") > 0);
    });
}

/// `test-session-affinity.sh`: the holders of both cookies stay on their side, and are told to drop the cookie in the end.
#[test]
fn e2e_istio_session_affinity() {
    in_virtual_time(async {
        let script = Script::begin("istio").await;
        let world = &script.world;
        script.apply("e2e/istio-session-affinity.yaml").await;
        script.is_initialized().await;
        world.set_image("podinfo", &format!("{IMAGE}:6.0.1"));
        script.within(super::PROMOTED_WITHIN, "weight 10", || world.status("podinfo")["canaryWeight"] == 10).await;
        let cookie = |field: &str| world.status("podinfo")[field].as_str().unwrap_or_default().to_owned();
        let (canary, primary) = (cookie("sessionAffinityCookie"), cookie("primarySessionAffinityCookie"));
        assert!(canary.starts_with("canary-flagger-cookie="), "{canary}");
        assert!(primary.starts_with("primary-flagger-cookie="), "{primary}");
        world.traffic.set_load("test", "podinfo", 0.0);
        for (cookie, workload) in [(&canary, "podinfo"), (&primary, "podinfo-primary")] {
            let headers = BTreeMap::from([("Cookie".to_owned(), cookie.clone())]);
            let before = world.traffic.report("test", "podinfo");
            world.traffic.set_audience_load("test", "podinfo", &headers, 5.0);
            world.pass(Duration::from_secs(1)).await;
            world.traffic.set_audience_load("test", "podinfo", &headers, 0.0);
            let after = world.traffic.report("test", "podinfo");
            let answered = after.workload(workload).requests - before.workload(workload).requests;
            assert!((4.9..=5.1).contains(&answered), "{cookie}: {answered} of five");
            assert!((after.requests() - before.requests() - answered).abs() < 0.1, "{cookie}: others have answered");
        }
        world.traffic.set_load("test", "podinfo", 20.0);
        script.within(super::PROMOTED_WITHIN, "the end", || world.phase("podinfo") == "Succeeded").await;
        assert_eq!(script.image_of_primary(), format!("{IMAGE}:6.0.1"));
        assert_eq!(cookie("previousSessionAffinityCookie"), canary);
        let routes = script.present(&kinds::VIRTUAL_SERVICE, "podinfo");
        let set = &routes["spec"]["http"][0]["headers"]["response"]["add"]["Set-Cookie"];
        assert!(set.as_str().is_some_and(|set| set == format!("{canary}; Max-Age=-1")), "{routes:#}");
        script.has_disturbed_nobody();
    });
}
