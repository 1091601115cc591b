//! BirdWatch → weights and subsets of a user's own routes → istiod → Envoy → pods → Prometheus → BirdWatch, with users all the time.
//!
//! The sample takes steps of ten a second; `AVIARY_REAL_FULL=1` releases the example of its README as it is, which takes nine minutes.

use std::time::Duration;

use aviary_loadtest::users::{self, Report, Users};
use kube::Client;
use serde_json::{Value, json};

use super::release::{GATEWAY, answers};
use super::{Inside, api, create_through, eventually, get, in_bench, is_full_set};

const SERVICE: &str = include_str!("../../docs/systems/birdwatch/service.yaml");
const BIRD_WATCH: &str = include_str!("../../docs/systems/birdwatch/aleph.yaml");

/// The production version, as its pods call it, and those that are tried.
const PRODUCTION: &str = "3.0.0";
const GOOD: &str = "4.0.0";
const BAD: &str = "4.0.0-err30";

/// Requests a second for each of three services.
const RATE: f64 = 60.0;
/// A machine that is busy with something else stands still for seconds.
const USERS_PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_good_version_is_released_and_a_bad_one_rolled_back_or_frozen() {
    in_bench(
        "real::birdwatch::a_good_version_is_released_and_a_bad_one_rolled_back_or_frozen",
        async |bench: Inside| {
            let client = bench.client("admin").await;
            let _network = bench.network().await;
            let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
            tokio::join!(good(&client), bad(&client, "beth", "rollback"), bad(&client, "gimel", "freeze"));
            bench.show("-n test get bw");
            for name in ["aleph", "beth", "gimel"] {
                bench.show(&format!("-n test events --for birdwatch/{name}"));
            }
        },
    );
}

async fn good(client: &Client) {
    let name = "aleph";
    let users = serve(client, name, GOOD).await;
    create_through(client.clone(), birdwatch(name, "rollback")).await;
    ends(client, name, "Succeeded").await;
    assert_eq!(versions(client, name).await, ["v04", "v04"]);
    let settled = users.elapsed() + Duration::from_secs(1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let report = users.stop().await;
    print_report(name, &report);
    assert_eq!(report.failures(), 0, "{:#?}", report.first_failures());
    // Everybody is on the production subset, behind which the new version is now.
    assert_eq!(report.share(GOOD, settled..settled + Duration::from_secs(2)), Some(1.0));
    let status = status(client, name).await;
    assert_eq!((status["baseline"].as_f64(), &status["canaryWeight"]), (Some(0.0), &json!(0)));
}

async fn bad(client: &Client, name: &str, action: &str) {
    let users = serve(client, name, BAD).await;
    create_through(client.clone(), birdwatch(name, action)).await;
    ends(client, name, "Failed").await;
    assert_eq!(versions(client, name).await, ["v03", "v04"]);
    let settled = users.elapsed() + Duration::from_secs(1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let report = users.stop().await;
    print_report(name, &report);
    let share = report.share(BAD, settled..settled + Duration::from_secs(2)).unwrap_or(0.0);
    match action {
        "freeze" => {
            let weight = status(client, name).await["canaryWeight"].as_f64().unwrap();
            // Four standard deviations of a half, within two seconds.
            let limit = 4.0 * (0.25 / (RATE * 2.0)).sqrt();
            assert!(
                weight > 0.0 && (share - weight / 100.0).abs() < limit,
                "{share} of the requests at weight {weight}"
            );
        }
        _ => assert!(share < 1e-9, "{share} of the requests went to a version that was rolled back"),
    }
    for version in report.versions() {
        let is_bad = version.version.as_deref() == Some(BAD);
        assert!(is_bad || version.failures == 0, "{version:?}: {:#?}", report.first_failures());
    }
    assert!(report.failures() > 0, "the bad version has answered");
}

/// The service of the documentation under another name, behind the gateway, and its users.
async fn serve(client: &Client, name: &str, version: &str) -> Users {
    let host = format!("{name}.example.com");
    deploy(client, name, version).await;
    eventually(&format!("{name} answers"), async || answers(&host).await).await;
    let options = users::Options::new(GATEWAY.parse().unwrap(), RATE).unwrap().host(host);
    Users::start(options.timeout(USERS_PATIENCE)).unwrap()
}

/// The service of the documentation under another name, behind the gateway.
pub(super) async fn deploy(client: &Client, name: &str, version: &str) {
    let text =
        SERVICE.replace("aleph:v03", &format!("aleph:{PRODUCTION}")).replace("aleph:v04", &format!("aleph:{version}"));
    for mut object in serde_saphyr::from_multiple::<Value>(&text.replace("aleph", name)).unwrap() {
        object["metadata"]["namespace"] = json!("test");
        if object["kind"] == "VirtualService" {
            object["spec"]["hosts"] = json!([format!("{name}.example.com")]);
            object["spec"]["gateways"] = json!(["istio-system/public-gateway"]);
        }
        create_through(client.clone(), object).await;
    }
    for version in ["v03", "v04"] {
        super::wait_available(client, &format!("{name}-{version}")).await;
    }
}

/// The example of the README for a service of another name.
pub(super) fn birdwatch(name: &str, action: &str) -> Value {
    let mut object: Value = serde_saphyr::from_str(&BIRD_WATCH.replace("aleph", name)).unwrap();
    object["metadata"]["namespace"] = json!("test");
    object["spec"]["if_unhealthy"] = json!(action);
    if !is_full_set() {
        object["spec"]["increment"] = json!(10);
        object["spec"]["interval"] = json!(2);
    }
    object
}

async fn status(client: &Client, name: &str) -> Value {
    let objects = api(client.clone(), "otomato.link", "v1alpha1", "BirdWatch", Some("test"));
    get(&objects, name).await.unwrap()["status"].clone()
}

/// Waits for the end, ten percent at a time: a release of the README's example takes longer than anybody waits for one thing.
async fn ends(client: &Client, name: &str, end: &str) {
    for weight in (10..=100).step_by(10) {
        eventually(&format!("{name} has a weight of {weight}, or is {end}"), async || {
            let status = status(client, name).await;
            has_ended(&status) || status["canaryWeight"].as_u64().is_some_and(|present| present >= weight)
        })
        .await;
    }
    eventually(&format!("{name} is {end}"), async || has_ended(&status(client, name).await)).await;
    assert_eq!(status(client, name).await["phase"], end);
}

fn has_ended(status: &Value) -> bool {
    status["phase"] == "Succeeded" || status["phase"] == "Failed"
}

async fn versions(client: &Client, name: &str) -> [String; 2] {
    let rules = api(client.clone(), "networking.istio.io", "v1", "DestinationRule", Some("test"));
    let rule = get(&rules, name).await.unwrap();
    [0, 1].map(|index: usize| rule["spec"]["subsets"][index]["labels"]["version"].as_str().unwrap().to_owned())
}

fn print_report(name: &str, report: &Report) {
    for version in report.versions() {
        println!("{name}: {version:?}");
    }
}
