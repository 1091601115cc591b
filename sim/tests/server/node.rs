//! What the node says of itself and of its pods.

use std::time::Duration;

use aviary_sim::controllers::ControllerOptions;
use aviary_sim::store::kinds;
use aviary_sim::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use tokio::time::sleep;

async fn get(client: &kube::Client, path: &str) -> Result<Value, kube::Error> {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

fn deployment() -> Value {
    let container =
        |name: &str, cpu: &str| json!({"name": name, "image": "app:1", "resources": {"requests": {"cpu": cpu}}});
    json!({
        "metadata": {"name": "app", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"containers": [container("app", "150m"), container("proxy", "50m")]},
            },
        },
    })
}

#[tokio::test(start_paused = true)]
async fn pods_and_nodes_have_the_metrics_that_autoscalers_act_on() {
    let controllers = ControllerOptions::default();
    let utilisation = controllers.utilisation.clone();
    let cluster = Cluster::new(ClusterOptions { controllers: Some(controllers), ..ClusterOptions::default() });
    let client = cluster.client("tests");
    let metrics = "/apis/metrics.k8s.io/v1beta1";
    let before = get(&client, &format!("{metrics}/namespaces/default/pods")).await.unwrap();
    assert_eq!((&before["kind"], &before["items"]), (&json!("PodMetricsList"), &json!([])));
    cluster.store().create(&kinds::DEPLOYMENT, deployment()).unwrap();
    sleep(Duration::from_secs(10)).await;
    let cpu = async |path: &str| -> Vec<String> {
        let list = get(&client, path).await.unwrap();
        let usage = |item: &Value| item.pointer("/containers/0/usage/cpu").or(item.pointer("/usage/cpu")).cloned();
        list["items"].as_array().unwrap().iter().map(|item| usage(item).unwrap().as_str().unwrap().to_owned()).collect()
    };
    let pods = format!("{metrics}/pods?labelSelector=app%3Dapp");
    assert_eq!(cpu(&pods).await, ["0m", "0m"], "containers do not run");
    utilisation.set_utilisation("default", "app", 60);
    assert_eq!(cpu(&pods).await, ["120m", "120m"], "60 % of 200m");
    assert_eq!(cpu(&format!("{metrics}/nodes")).await, ["240m"]);
    let node = get(&client, &format!("{metrics}/nodes")).await.unwrap();
    assert_eq!(node["items"][0]["usage"]["memory"], "131072Ki", "four containers that request none");
    assert_eq!(cpu(&format!("{metrics}/pods?labelSelector=app%3Dother")).await, [] as [&str; 0]);
    let Err(kube::Error::Api(missing)) = get(&client, &format!("{metrics}/namespaces/default/pods/none")).await else {
        panic!("a pod that does not exist has no metrics");
    };
    assert_eq!((missing.code, missing.message.as_str()), (404, "podmetrics.metrics.k8s.io \"default/none\" not found"));
    let groups = get(&client, "/apis").await.unwrap();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    assert!(names.contains(&"metrics.k8s.io"), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn the_node_gives_signs_of_life_to_those_who_look() {
    let cluster = Cluster::new(ClusterOptions::default());
    let client = cluster.client("tests");
    sleep(Duration::from_secs(3600)).await;
    let idle = cluster.store().revision();
    let renewed = async || {
        let leases =
            get(&client, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1").await.unwrap();
        leases["spec"]["renewTime"].as_str().unwrap().to_owned()
    };
    assert_eq!(renewed().await, "2026-01-01T01:00:00.000000Z");
    let node = get(&client, "/api/v1/nodes/node-1").await.unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 4);
    for condition in conditions {
        assert_eq!(condition["lastHeartbeatTime"], "2026-01-01T01:00:00Z");
        assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
    assert_eq!(cluster.store().revision(), idle + 2, "one write each, and only now");
    sleep(Duration::from_secs(9)).await;
    assert_eq!(renewed().await, "2026-01-01T01:00:00.000000Z", "not before its period is over");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(renewed().await, "2026-01-01T01:00:10.000000Z");
}
