//! A release by the binary: Aviary → VirtualService → istiod → Envoy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Inside, api, canary, create_through, deployment, eventually, fetch, get, in_bench, set_image};

#[test]
fn a_release_is_promoted() {
    in_bench("real::release::a_release_is_promoted", async |bench: Inside| {
        let client = bench.client("admin").await;
        let _aviary = bench.start_aviary(&["--mesh-provider", "istio"]);
        create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
        let mut object = canary("test", "podinfo");
        object["spec"]["service"] = json!({
            "port": 80, "targetPort": 9898, "gateways": ["istio-system/public-gateway"], "hosts": ["app.example.com"],
        });
        // Nobody sends requests, so there is nothing to measure.
        object["spec"]["analysis"] = json!({"interval": "10s", "threshold": 2, "maxWeight": 50, "stepWeight": 50});
        create_through(client.clone(), object).await;
        let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
        let phase = async || get(&canaries, "podinfo").await.unwrap()["status"]["phase"].clone();
        eventually("initialized", async || phase().await == "Initialized").await;
        let primary_alone = BTreeMap::from([("podinfo-primary".to_owned(), 100)]);
        eventually("Envoy sends all to the primary", async || shares("app.example.com").await == primary_alone).await;

        set_image(&client, "podinfo", "podinfo:6.0.1").await;
        let halves = BTreeMap::from([("podinfo-canary".to_owned(), 50), ("podinfo-primary".to_owned(), 50)]);
        eventually("Envoy sends half to the canary", async || shares("app.example.com").await == halves).await;
        eventually("ended", async || {
            let phase = phase().await;
            phase == "Succeeded" || phase == "Failed"
        })
        .await;
        assert_eq!(phase().await, "Succeeded");
        eventually("Envoy sends all to the primary", async || shares("app.example.com").await == primary_alone).await;
        let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
        let primary = get(&deployments, "podinfo-primary").await.unwrap();
        assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], "podinfo:6.0.1");
        eventually("the canary is scaled to nothing", async || {
            get(&deployments, "podinfo").await.unwrap()["spec"]["replicas"] == 0
        })
        .await;
    });
}

/// What share of a host's requests the gateway's Envoy sends to each Service, by its own account.
async fn shares(host: &str) -> BTreeMap<String, u64> {
    let dump = fetch("http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs").await;
    let mut found = BTreeMap::new();
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for virtual_host in all(&dump["configs"]).iter().flat_map(|config| all(&config["route_config"]["virtual_hosts"])) {
        if !all(&virtual_host["domains"]).contains(&json!(host)) {
            continue;
        }
        for route in all(&virtual_host["routes"]) {
            // One destination is no list.
            if let Some(cluster) = route["route"]["cluster"].as_str() {
                found.insert(service_of(cluster), 100);
            }
            for cluster in all(&route["route"]["weighted_clusters"]["clusters"]) {
                found.insert(service_of(cluster["name"].as_str().unwrap()), cluster["weight"].as_u64().unwrap());
            }
        }
    }
    found
}

/// `outbound|80||podinfo-canary.test.svc.cluster.local` is `podinfo-canary`.
fn service_of(cluster: &str) -> String {
    cluster.rsplit('|').next().and_then(|name| name.split('.').next()).unwrap_or_default().to_owned()
}
