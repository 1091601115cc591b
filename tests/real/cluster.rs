//! The bench itself: what the tests that stand on it take for granted.

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use super::{Inside, api, create_through, deployment, eventually, fetch, get, in_bench, wait_available};

#[test]
fn the_cluster_is_what_it_is_said_to_be() {
    in_bench("real::cluster::the_cluster_is_what_it_is_said_to_be", async |bench: Inside| {
        let client = bench.client("admin").await;
        names_and_metrics().await;
        pods_behave_as_their_images_say(&client).await;
        a_deleted_pod_is_out_of_the_endpoints_before_it_is_gone(&client).await;
        servers_stop_and_start(&bench, &client).await;
    });
}

async fn names_and_metrics() {
    let found: Vec<_> = tokio::net::lookup_host("prometheus.istio-system:9090").await.unwrap().collect();
    assert_eq!(found, ["10.99.0.1:9090".parse().unwrap()]);
    eventually("Prometheus scrapes Envoy", async || {
        let answer = fetch("http://prometheus:9090/api/v1/query?query=up{job=%22istio-ingressgateway%22}").await;
        let series = &answer["data"]["result"][0];
        series["metric"]["job"] == "istio-ingressgateway" && series["value"][1] == "1"
    })
    .await;
}

fn pods(client: &Client) -> Api<DynamicObject> {
    api(client.clone(), "", "v1", "Pod", Some("test"))
}

async fn pod_of(client: &Client, app: &str) -> Value {
    let list = pods(client).list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap();
    list.items.first().map(|pod| serde_json::to_value(pod).unwrap()).unwrap_or_default()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

async fn pods_behave_as_their_images_say(client: &Client) {
    for (name, image) in [
        ("plain", "registry:5000/app:1.0.0"),
        ("later", "app:1.0.0-start3"),
        ("unready", "app:1.0.0-unready-err10"),
        ("crashing", "app:1.0.0-crash"),
        // The tag counts and nothing else.
        ("named-so", "app-crash/app-unready:1.0.0"),
    ] {
        create_through(client.clone(), deployment("test", name, image)).await;
    }
    for name in ["plain", "named-so", "later"] {
        wait_available(client, name).await;
    }
    let pod = pod_of(client, "plain").await;
    assert!(pod["status"]["podIP"].as_str().unwrap().starts_with("10.244."), "{pod}");
    assert_eq!(pod["spec"]["nodeName"], "node-0");

    let pod = pod_of(client, "later").await;
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let waited = time(&condition(&pod, "Ready")["lastTransitionTime"]) - time(&pod["status"]["startTime"]);
    // Whole seconds, each rounded down.
    assert!(waited.get_seconds() >= 2, "three seconds pass before it is ready: {pod}");

    let pod = pod_of(client, "unready").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    let container = &pod["status"]["containerStatuses"][0];
    assert!(container["state"]["running"].is_object() && container["ready"] == false, "{container}");

    let pod = pod_of(client, "crashing").await;
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
}

async fn a_deleted_pod_is_out_of_the_endpoints_before_it_is_gone(client: &Client) {
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "test", "name": "plain"},
        "spec": {"selector": {"app": "plain"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    create_through(client.clone(), service).await;
    let pod = pod_of(client, "plain").await;
    let (name, address) = (pod["metadata"]["name"].as_str().unwrap(), pod["status"]["podIP"].as_str().unwrap());
    let slices = api(client.clone(), "discovery.k8s.io", "v1", "EndpointSlice", Some("test"));
    let selector = "kubernetes.io/service-name=plain";
    let is_ready = |slice: &DynamicObject| {
        let endpoints = slice.data["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        endpoints.iter().any(|endpoint| endpoint["addresses"][0] == address && endpoint["conditions"]["ready"] == true)
    };
    eventually("the pod is an endpoint", async || {
        slices.list(&ListParams::default().labels(selector)).await.unwrap().items.iter().any(is_ready)
    })
    .await;

    let pods = pods(client);
    // Both watches begin before the deletion. Numbers of versions count all writes of the cluster, whatever their kind.
    let version = slices.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let slice_events = slices.watch(&WatchParams::default().labels(selector), &version).await.unwrap();
    let pod_events =
        pods.watch(&WatchParams::default().fields(&format!("metadata.name={name}")), &version).await.unwrap();
    pods.delete(name, &DeleteParams::default()).await.unwrap();
    let out_of_endpoints = slice_events.try_filter_map(async |event| match event {
        WatchEvent::Modified(slice) if !is_ready(&slice) => Ok(Some(version_of(&slice))),
        _ => Ok(None),
    });
    let gone = pod_events.try_filter_map(async |event| match event {
        WatchEvent::Deleted(pod) => Ok(Some(version_of(&pod))),
        _ => Ok(None),
    });
    let out_of_endpoints = Box::pin(out_of_endpoints).next().await.unwrap().unwrap();
    let gone = Box::pin(gone).next().await.unwrap().unwrap();
    assert!(out_of_endpoints < gone, "out of the endpoints at {out_of_endpoints}, gone at {gone}");

    // Nobody else gets its address.
    wait_available(client, "plain").await;
    let list = pods.list(&ListParams::default()).await.unwrap();
    assert!(list.items.iter().all(|pod| pod.data["status"]["podIP"] != address));
}

fn version_of(object: &DynamicObject) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

async fn servers_stop_and_start(bench: &Inside, client: &Client) {
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
    let before = get(&deployments, "plain").await.unwrap();
    bench.component("stop", &["-KILL", "kube-apiserver"]).await;
    assert!(deployments.get("plain").await.is_err(), "the API server is gone");
    bench.component("restart", &["-KILL", "etcd"]).await;
    bench.component("start", &["kube-apiserver"]).await;
    bench.component("restart", &["istiod", "envoy", "prometheus"]).await;
    assert_eq!(get(&deployments, "plain").await.unwrap()["metadata"]["uid"], before["metadata"]["uid"]);
    // The others find their way back.
    create_through(client.clone(), deployment("test", "afterwards", "app:1.0.0")).await;
    wait_available(client, "afterwards").await;
}
