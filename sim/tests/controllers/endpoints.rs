//! Endpoints and EndpointSlices.

use aviary_sim::controllers::PodDetail;
use aviary_sim::store::kinds;
use serde_json::json;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn endpoints_follow_the_readiness_of_the_selected_pods() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 2, "podinfo:1"));
    bench.create(deployment("other", 1, "podinfo:1"));
    bench.at(1.0).await;
    let conditions = || -> Vec<bool> {
        let slices = bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE));
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "podinfo");
        let endpoints = slices[0]["endpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap()).collect()
    };
    assert_eq!(conditions(), [false, false]);
    bench.at(4.0).await;
    assert_eq!(conditions(), [true, true]);
    let endpoints = bench.store.get(&kinds::ENDPOINTS, NAMESPACE, "podinfo").unwrap();
    let subset = &endpoints["subsets"][0];
    assert_eq!(subset["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(subset["ports"][0]["port"], 9898, "the port that the pods name");
    bench.scale("podinfo", 0);
    bench.at(4.5).await;
    assert_eq!(conditions(), [false, false], "terminating pods take no new requests");
    bench.at(6.0).await;
    assert!(conditions().is_empty());
    bench.store.delete(&kinds::SERVICE, NAMESPACE, "podinfo").unwrap();
    bench.at(7.0).await;
    assert!(bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE)).is_empty());
    assert!(bench.store.list(&kinds::ENDPOINTS, Some(NAMESPACE)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_a_headless_service_say_so_and_may_hold_pods_that_are_not_ready() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"app": "podinfo"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 1, "podinfo:noready"));
    bench.at(10.0).await;
    let slices = bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE));
    assert_eq!(slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"], "");
    assert_eq!(slices[0]["endpoints"][0]["conditions"], json!({"ready": true, "serving": false, "terminating": false}));
    assert_eq!(slices[0]["ports"][0]["port"], 9898);
    let endpoints = bench.store.list(&kinds::ENDPOINTS, Some(NAMESPACE));
    assert_eq!(endpoints[0]["subsets"][0]["addresses"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_selector_gets_no_endpoints() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "outside", "namespace": NAMESPACE}, "spec": {"ports": [{"port": 80}]},
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 1, "podinfo:1"));
    bench.at(10.0).await;
    assert!(bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE)).is_empty());
    assert!(bench.store.list(&kinds::ENDPOINTS, Some(NAMESPACE)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_target_port_that_no_container_names_gives_no_addresses() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 2, "podinfo:1"));
    bench.at(10.0).await;
    let endpoints = bench.store.get(&kinds::ENDPOINTS, NAMESPACE, "podinfo").unwrap();
    assert_eq!(endpoints["subsets"], json!([]));
    let slices = bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE));
    assert_eq!((slices.len(), &slices[0]["ports"]), (1, &json!([])), "the pods are listed, at no port");
    assert_eq!(slices[0]["endpoints"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_sorted_and_pods_with_other_ports_are_listed_apart() {
    let bench = Bench::new(PodDetail::Objects);
    let service = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    bench.store.create(&kinds::SERVICE, service).unwrap();
    bench.create(deployment("podinfo", 12, "podinfo:1"));
    let mut other = deployment("other", 1, "podinfo:2");
    other["spec"]["selector"]["matchLabels"] = json!({"app": "podinfo", "name": "other"});
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "podinfo", "name": "other"});
    other["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 8080.into();
    bench.create(other);
    bench.at(10.0).await;
    let endpoints = bench.store.get(&kinds::ENDPOINTS, NAMESPACE, "podinfo").unwrap();
    let subsets = endpoints["subsets"].as_array().unwrap();
    let listed: Vec<(i64, Vec<&str>)> = subsets
        .iter()
        .map(|subset| {
            let addresses = subset["addresses"].as_array().unwrap();
            let addresses = addresses.iter().map(|address| address["ip"].as_str().unwrap()).collect();
            (subset["ports"][0]["port"].as_i64().unwrap(), addresses)
        })
        .collect();
    assert_eq!(
        listed.iter().map(|(port, addresses)| (*port, addresses.len())).collect::<Vec<_>>(),
        [(9898, 12), (8080, 1)]
    );
    assert!(listed[0].1.is_sorted(), "{listed:?}");
    let slices = || bench.store.list(&kinds::ENDPOINT_SLICE, Some(NAMESPACE));
    assert_eq!(slices().len(), 2);
    bench.scale("other", 0);
    bench.at(20.0).await;
    assert_eq!(slices().len(), 1);
    assert_eq!(slices()[0]["ports"][0]["port"], 9898);
}
