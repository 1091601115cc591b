//! ResourceQuotas: what is too much for a namespace is refused.

use std::time::Duration;

use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, object, world};

/// A quota that is in force: a real server enforces what its status says.
async fn quota(world: &World, name: &str, spec: Value) {
    let quotas = world.api("", "v1", "ResourceQuota");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
    quotas.create(&PostParams::default(), &object(quota)).await.unwrap();
    if crate::bench::inside().is_none() {
        return;
    }
    let counted = async {
        while quotas.get(name).await.unwrap().data["status"]["used"].is_null() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.expect("somebody counts");
}

fn service(name: &str) -> DynamicObject {
    object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]},
    }))
}

fn pod(name: &str, resources: &Value) -> DynamicObject {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources}]},
    }))
}

/// Code and message of a refused creation.
async fn refused(api: &Api<DynamicObject>, options: &PostParams, object: &DynamicObject) -> (u16, String) {
    let refusal = api.create(options, object).await.refusal();
    (refusal.code, refusal.message)
}

#[tokio::test(start_paused = true)]
async fn more_than_a_quota_leaves_is_refused() {
    let world = world().await;
    quota(&world, "few", json!({"hard": {"services": "1", "count/configmaps": "9"}})).await;
    let services = world.api("", "v1", "Service");
    services.create(&PostParams::default(), &service("first")).await.unwrap();
    let cause = "services \"second\" is forbidden: exceeded quota: few, requested: services=1, used: services=1, limited: services=1";
    let expected = (403, cause.to_owned());
    assert_eq!(refused(&services, &PostParams::default(), &service("second")).await, expected);
    let rehearsal = PostParams { dry_run: true, ..PostParams::default() };
    assert_eq!(refused(&services, &rehearsal, &service("second")).await, expected);
    services.delete("first", &Default::default()).await.unwrap();
    let freed = async {
        while services.create(&PostParams::default(), &service("second")).await.is_err() {
            // A real server counts again a moment later.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), freed).await.expect("the place of the first is free");
}

#[tokio::test(start_paused = true)]
async fn pods_must_say_what_a_quota_limits() {
    let world = world().await;
    quota(&world, "small", json!({"hard": {"limits.cpu": "1", "memory": "100Mi"}})).await;
    let pods = world.api("", "v1", "Pod");
    let silent = refused(&pods, &PostParams::default(), &pod("silent", &json!({}))).await;
    let cause = "pods \"silent\" is forbidden: failed quota: small: must specify limits.cpu for: app; memory for: app";
    assert_eq!(silent, (403, cause.to_owned()));
    let large = json!({"limits": {"cpu": "1500m", "memory": "200Mi"}});
    let cause = "pods \"large\" is forbidden: exceeded quota: small, requested: limits.cpu=1500m,memory=200Mi, used: \
                 limits.cpu=0,memory=0, limited: limits.cpu=1,memory=100Mi";
    assert_eq!(refused(&pods, &PostParams::default(), &pod("large", &large)).await, (403, cause.to_owned()));
    let fits = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
    pods.create(&PostParams::default(), &pod("fits", &fits)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_the_pods_of_its_scopes_alone() {
    let world = world().await;
    quota(&world, "spare", json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]})).await;
    let pods = world.api("", "v1", "Pod");
    let cause =
        "pods \"careless\" is forbidden: exceeded quota: spare, requested: pods=1, used: pods=0, limited: pods=0";
    assert_eq!(refused(&pods, &PostParams::default(), &pod("careless", &json!({}))).await, (403, cause.to_owned()));
    pods.create(&PostParams::default(), &pod("modest", &json!({"requests": {"cpu": "1m"}}))).await.unwrap();
    if crate::bench::inside().is_some() {
        return;
    }
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]});
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "x"},
        "spec": {"scopes": ["CrossNamespacePodAffinity"], "scopeSelector": selector},
    });
    let (code, text) = refused(&world.api("", "v1", "ResourceQuota"), &PostParams::default(), &object(quota)).await;
    assert_eq!(code, 422);
    for part in ["spec.scopes[0]: Unsupported value: \"CrossNamespacePodAffinity\"", "spec.scopeSelector: Forbidden: "]
    {
        assert!(text.contains(part), "{text}");
    }
}
