//! Services that change their type, and ports of nodes.

use serde_json::{Value, json};

use crate::support::{Refusal, World, world};

const SERVICES: &str = "/api/v1/namespaces/test/services";

async fn create(world: &World, name: &str, node_port: Option<u16>) -> Result<Value, kube::Error> {
    let mut spec = json!({"ports": [{"name": "web", "port": 80}], "selector": {"app": name}});
    if let Some(number) = node_port {
        spec["type"] = json!("NodePort");
        spec["ports"][0]["nodePort"] = json!(number);
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    world.request("POST", SERVICES, "application/json", &service.to_string()).await
}

async fn patch(world: &World, name: &str, spec: Value) -> Result<Value, kube::Error> {
    let body = json!({"spec": spec}).to_string();
    world.request("PATCH", &format!("{SERVICES}/{name}"), "application/strategic-merge-patch+json", &body).await
}

#[tokio::test(start_paused = true)]
async fn a_service_leaves_what_its_former_type_had() {
    let world = world().await;
    let before = create(&world, "web", None).await.unwrap()["spec"].clone();
    let external = patch(&world, "web", json!({"type": "LoadBalancer"})).await.unwrap()["spec"].clone();
    assert_eq!(external["externalTrafficPolicy"], "Cluster");
    assert_eq!(external["allocateLoadBalancerNodePorts"], true);
    let number = &external["ports"][0]["nodePort"];
    assert!((30_000..=32_767).contains(&number.as_i64().unwrap()), "{number}");
    assert_eq!(
        &patch(&world, "web", json!({"type": "NodePort"})).await.unwrap()["spec"]["ports"][0]["nodePort"],
        number
    );
    assert_eq!(patch(&world, "web", json!({"type": "ClusterIP"})).await.unwrap()["spec"], before);
    let name = json!({"type": "ExternalName", "externalName": "example.com"});
    let elsewhere = patch(&world, "web", name).await.unwrap()["spec"].clone();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        assert_eq!(elsewhere.get(field), None, "{field} of {elsewhere}");
    }
    let back = patch(&world, "web", json!({"type": "ClusterIP", "externalName": null})).await.unwrap();
    assert!(back["spec"]["clusterIP"].is_string(), "{back}");
}

#[tokio::test(start_paused = true)]
async fn a_port_of_the_nodes_belongs_to_one_service() {
    let world = world().await;
    create(&world, "first", Some(30_080)).await.unwrap();
    assert_eq!(
        create(&world, "second", Some(30_080)).await.refusal().message,
        "Service \"second\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    assert_eq!(
        create(&world, "second", Some(80)).await.refusal().message,
        "Service \"second\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. \
         The range of valid ports is 30000-32767"
    );
    // Its own port is in nobody's way, and free when it has another.
    patch(&world, "first", json!({"selector": {"app": "other"}})).await.unwrap();
    patch(&world, "first", json!({"ports": [{"port": 80, "nodePort": 30_081}]})).await.unwrap();
    create(&world, "second", Some(30_080)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn people_are_warned_of_what_a_service_ignores() {
    let world = world().await;
    let spec = json!({"ports": [{"port": 80}], "externalName": "example.com"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    let warning = async |request: http::request::Builder, body: &serde_json::Value| {
        let body = kube::client::Body::from(body.to_string().into_bytes());
        let answer = world.client.send(request.body(body).unwrap()).await.unwrap();
        answer.headers().get("warning").map(|warning| warning.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let told = warning(http::Request::post(SERVICES).header("Content-Type", "application/json"), &service).await;
    assert!(told.contains("spec.externalName is ignored when spec.type is not \\\"ExternalName\\\""), "{told}");
    // Who writes the status is not told of the spec.
    let patch = http::Request::patch(format!("{SERVICES}/web/status"));
    let patch = patch.header("Content-Type", "application/merge-patch+json");
    assert_eq!(warning(patch, &json!({"metadata": {"annotations": {"a": "b"}}})).await, "");
}
