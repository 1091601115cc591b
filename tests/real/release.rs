//! A release by the binary: Aviary → VirtualService → istiod → Envoy.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use aviary_loadtest::users::{self, Users};
use serde_json::{Value, json};

pub use super::GATEWAY;
pub use super::loop_evidence::shares;
use super::{
    Inside, api, canary, canary_is_gone, create_through, deployment, end_of, eventually, get, in_bench, set_image,
};

#[test]
fn a_good_release_is_promoted_and_a_bad_one_rolled_back() {
    in_bench("real::release::a_good_release_is_promoted_and_a_bad_one_rolled_back", async |bench: Inside| {
        let client = bench.client("admin").await;
        let _network = bench.network().await;
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
        create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
        create_through(client.clone(), canary_behind_the_gateway()).await;
        let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
        let phase = async || get(&canaries, "podinfo").await.unwrap()["status"]["phase"].clone();
        let ends = async |end: &str| assert_eq!(end_of(&canaries).await, end);
        eventually("initialized", async || phase().await == "Initialized").await;
        let primary_alone = BTreeMap::from([("podinfo-primary".to_owned(), 100)]);
        eventually("Envoy sends all to the primary", async || shares("app.example.com").await == primary_alone).await;
        eventually("the gateway's answers are those of pods", async || answers("app.example.com").await).await;

        let options = users::Options::new(GATEWAY.parse().unwrap(), RATE).unwrap().host("app.example.com");
        let users = Users::start(options).unwrap();
        canary_is_gone(&client).await;

        set_image(&client, "podinfo", "podinfo:6.0.1").await;
        let halves = BTreeMap::from([("podinfo-canary".to_owned(), 50), ("podinfo-primary".to_owned(), 50)]);
        eventually("Envoy sends half to the canary", async || shares("app.example.com").await == halves).await;
        // As long as they are so; a busy machine may look late.
        let (from, to) = (users.elapsed(), Cell::new(users.elapsed()));
        eventually("half of some seconds is seen", async || {
            let at = users.elapsed();
            let is_so = shares("app.example.com").await == halves;
            to.set(if is_so { at } else { to.get() });
            !is_so || at >= from + Duration::from_secs(5)
        })
        .await;
        let to = to.get();
        ends("Succeeded").await;
        canary_is_gone(&client).await;
        let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
        let primary = get(&deployments, "podinfo-primary").await.unwrap();
        assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], "podinfo:6.0.1");
        let report = users.all_until_now().await;
        assert_eq!(report.failures(), 0, "{:#?}", report.first_failures());
        // Four standard deviations.
        let share = report.share("6.0.1", from..to).unwrap();
        let limit = 4.0 * (0.25 / (RATE * (to - from).as_secs_f64())).sqrt();
        assert!((share - 0.5).abs() <= limit, "{share} of the requests within {:?} went to the new version", to - from);

        set_image(&client, "podinfo", "podinfo:6.0.2-err50").await;
        // The last phase is still that of the release before.
        eventually("the bad release begins", async || phase().await == "Progressing").await;
        ends("Failed").await;
        eventually("Envoy sends all to the primary", async || shares("app.example.com").await == primary_alone).await;
        canary_is_gone(&client).await;
        let report = users.stop().await;
        assert!(report.failures() > 0, "the bad version has answered");
        for version in report.versions() {
            let is_bad = version.version.as_deref().is_some_and(|version| version.starts_with("6.0.2"));
            assert!(is_bad || version.failures == 0, "{version:?}: {:#?}", report.first_failures());
            println!("{version:?}");
        }
    });
}

/// A canary that gets half of the users of `app.example.com`, and then all.
pub fn canary_behind_the_gateway() -> Value {
    let mut object = canary("test", "podinfo");
    object["spec"]["service"] = json!({
        "port": 80, "targetPort": 9898, "gateways": ["istio-system/public-gateway"], "hosts": ["app.example.com"],
    });
    object["spec"]["analysis"]["threshold"] = json!(2);
    object["spec"]["analysis"]["stepWeight"] = json!(50);
    object["spec"]["analysis"]["metrics"] = json!([
        {"name": "request-success-rate", "interval": "10s", "thresholdRange": {"min": 99}},
        // How quick answers are, depends on what else the machine does.
        {"name": "request-duration", "interval": "10s", "thresholdRange": {"max": 60_000}},
    ]);
    object
}

/// Requests a second.
const RATE: f64 = 100.0;

pub async fn answers(host: &str) -> bool {
    let answer = reqwest::Client::new().get(GATEWAY).header("host", host).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}
