use std::time::Duration;

use aviary_sim::controllers::ControllerOptions;
use aviary_sim::store::kinds::{CANARY, DEPLOYMENT};
use aviary_sim::{Cluster, ClusterOptions};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{api, bare_cluster, config_map, config_maps};

fn manifests(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// Whether everything of `part` is in `whole`, which may have more fields (defaults).
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(found, value)| contains(found, value))
        }
        _ => whole == part,
    }
}

fn flagger_cluster() -> Cluster {
    Cluster::new(ClusterOptions {
        crds: manifests(include_str!("../fixtures/flagger/crd.yaml")),
        controllers: None,
        ..ClusterOptions::default()
    })
}

async fn create_strictly(client: &kube::Client, object: &Value) -> Result<Value, kube::Error> {
    let plural = match object["kind"].as_str().unwrap() {
        "Canary" => "canaries",
        "MetricTemplate" => "metrictemplates",
        other => panic!("{other}"),
    };
    let path = format!("/apis/flagger.app/v1beta1/namespaces/default/{plural}?fieldValidation=Strict");
    let mut object = object.clone();
    object["metadata"]["namespace"] = json!("default");
    let request = http::Request::post(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&object).unwrap())
        .unwrap();
    client.request(request).await
}

#[tokio::test(start_paused = true)]
async fn flaggers_own_manifests_fit_flaggers_own_definitions() {
    let cluster = flagger_cluster();
    let client = cluster.client("kubectl");
    let mut created = 0;
    for text in [
        include_str!("../fixtures/flagger/istio-canary.yaml"),
        include_str!("../fixtures/flagger/istio-abtest.yaml"),
        include_str!("../fixtures/flagger/gatewayapi-canary.yaml"),
        include_str!("../fixtures/flagger/istio-session-affinity.yaml"),
        include_str!("../fixtures/flagger/kubernetes-deployment.yaml"),
    ] {
        let objects = manifests(text).into_iter().filter(|object| object["apiVersion"] == "flagger.app/v1beta1");
        for (index, mut object) in objects.enumerate() {
            object["metadata"]["name"] = json!(format!("c{created}-{index}"));
            let stored = create_strictly(&client, &object).await.unwrap();
            assert!(contains(&stored["spec"], &object["spec"]), "something was lost: {stored}");
            created += 1;
        }
    }
    assert!(created >= 5, "{created}");
    let defaulted = cluster
        .store()
        .list(&CANARY, None)
        .into_iter()
        .any(|canary| canary["spec"]["service"]["gatewayRefs"][0]["group"] == "gateway.networking.k8s.io");
    assert!(defaulted, "the definition's defaults were filled in");
}

#[tokio::test(start_paused = true)]
async fn flaggers_definition_refuses_what_it_refuses_in_a_real_cluster() {
    let cluster = flagger_cluster();
    let client = cluster.client("kubectl");
    let canary = manifests(include_str!("../fixtures/flagger/istio-canary.yaml"))
        .into_iter()
        .find(|object| object["kind"] == "Canary")
        .unwrap();
    let mut broken = canary.clone();
    broken["spec"]["analysis"]["interval"] = json!("15 seconds");
    broken["spec"]["provider"] = json!("carrier-pigeon");
    match create_strictly(&client, &broken).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 422);
            let name = canary["metadata"]["name"].as_str().unwrap();
            let prefix = format!("Canary.flagger.app \"{name}\" is invalid: [");
            assert!(status.message.starts_with(&prefix), "{}", status.message);
            for part in [
                "spec.analysis.interval: Invalid value: \"15 seconds\": spec.analysis.interval in body should match",
                "spec.provider: Unsupported value: \"carrier-pigeon\": supported values: ",
            ] {
                assert!(status.message.contains(part), "{}", status.message);
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(cluster.store().list(&CANARY, None).is_empty());
}

/// Istio's objects are one and the same in each of their versions.
#[tokio::test(start_paused = true)]
async fn versions_differ_in_their_api_version_alone() {
    let cluster = bare_cluster(1);
    let client = cluster.client("aviary");
    let old = api(&client, "networking.istio.io", "v1beta1", "VirtualService");
    let new = api(&client, "networking.istio.io", "v1", "VirtualService");
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "podinfo"},
        "spec": {"hosts": ["podinfo"], "http": [{"route": [{"destination": {"host": "podinfo"}, "weight": 100}]}]},
    }))
    .unwrap();
    let created = old.create(&PostParams::default(), &object).await.unwrap();
    let seen = new.get("podinfo").await.unwrap();
    assert_eq!(created.types.unwrap().api_version, "networking.istio.io/v1beta1");
    assert_eq!(seen.types.unwrap().api_version, "networking.istio.io/v1");
    assert_eq!(created.data, seen.data);
    let merge = Patch::Merge(json!({"spec": {"gateways": ["mesh"]}}));
    let patched = old.patch("podinfo", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(2));
    let list = old.list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].types.as_ref().unwrap().api_version, "networking.istio.io/v1beta1");
}

#[tokio::test(start_paused = true)]
async fn the_controllers_bring_a_deployment_up() {
    let cluster =
        Cluster::new(ClusterOptions { controllers: Some(ControllerOptions::default()), ..ClusterOptions::default() });
    let deployments = api(&cluster.client("kubectl"), "apps", "v1", "Deployment");
    let deployment: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo"}},
                "spec": {"containers": [{"name": "podinfod", "image": "podinfo:6.0.0"}]},
            },
        },
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seen = deployments.get("podinfo").await.unwrap();
    assert_eq!(seen.data["status"]["availableReplicas"], 2);
    let pods = api(&cluster.client("kubectl"), "", "v1", "Pod");
    let list = pods.list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 2);

    let name = list.items[0].metadata.name.clone().unwrap();
    let marked = pods.delete(&name, &kube::api::DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some(), "graceful");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(pods.get_opt(&name).await.unwrap().is_none());
    assert_eq!(pods.list(&kube::api::ListParams::default()).await.unwrap().items.len(), 2);
    deployments.delete("podinfo", &kube::api::DeleteParams::background()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(cluster.store().list(&DEPLOYMENT, None).is_empty());
    assert!(pods.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let run = async |seed: u64| {
        let cluster = bare_cluster(seed);
        let maps = config_maps(&cluster.client("aviary"));
        let mut generated = config_map("x");
        generated.metadata.name = None;
        generated.metadata.generate_name = Some("gen-".to_owned());
        let created = maps.create(&PostParams::default(), &generated).await.unwrap();
        serde_json::to_string(&created).unwrap()
    };
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}

/// Real threads, real time, real sockets: conditional updates of two clients never lose one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_clients_over_http_and_in_process_lose_no_update() {
    const ROUNDS: usize = 25;
    let cluster = bare_cluster(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = cluster.clone();
    tokio::spawn(async move { served.serve(listener).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let remote = kube::Client::try_from(config).unwrap();
    let setup = config_maps(&remote);
    setup.create(&PostParams::default(), &config_map("counter")).await.unwrap();
    let count_up = |client: kube::Client| async move {
        let maps = config_maps(&client);
        let mut done = 0;
        while done < ROUNDS {
            let mut seen = maps.get("counter").await.unwrap();
            let count: usize = seen.data["data"]["key"].as_str().unwrap().parse().unwrap();
            seen.data["data"]["key"] = json!((count + 1).to_string());
            match maps.replace("counter", &PostParams::default(), &seen).await {
                Ok(_) => done += 1,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let tasks: Vec<_> = [remote.clone(), remote.clone(), cluster.client("a"), cluster.client("b")]
        .into_iter()
        .map(|client| tokio::spawn(count_up(client)))
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
    let last = setup.get("counter").await.unwrap();
    assert_eq!(last.data["data"]["key"], (4 * ROUNDS + 1).to_string());
    let version = remote.apiserver_version().await.unwrap();
    assert_eq!(version.git_version, "v1.36.3");
}

/// A watch over HTTP delivers while the connection stays open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_stream_over_http() {
    let cluster = bare_cluster(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = cluster.clone();
    tokio::spawn(async move { served.serve(listener).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let maps = config_maps(&kube::Client::try_from(config).unwrap());
    let mut stream = Box::pin(maps.watch(&kube::api::WatchParams::default(), "0").await.unwrap());
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
        let event = tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut stream)).await.unwrap();
        assert!(matches!(
            event,
            Some(Ok(kube::core::WatchEvent::Added(object))) if object.metadata.name.as_deref() == Some(name)
        ));
    }
}
