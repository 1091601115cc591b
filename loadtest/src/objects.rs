//! The objects that users create, and how they create them.

use std::time::Duration;

use anyhow::Context;
use aviary_crds::duration::format_go_duration;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

/// Where a canary is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The name of a canary, of its Deployment and of its service.
pub(crate) fn name(index: usize, namespaces: usize) -> Name {
    Name { namespace: format!("team-{}", index % namespaces.max(1)), name: format!("app-{index}") }
}

/// Images with this in their tag fail requests.
pub(crate) const BROKEN: &str = "-broken";

/// The image of a revision; 0 is the first one. The suffix says how it behaves.
pub(crate) fn image(revision: u32, suffix: &str) -> String {
    format!("registry.test/app:1.{revision}.0{suffix}")
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A patch that changes the image, as `kubectl set image` makes it.
pub(crate) fn image_patch(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
}

pub(crate) fn deployment(name: &Name) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app",
                    "image": image(0, ""),
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    })
}

/// Weights from 10 to 50, both built-in checks, and a third failure rolls back.
pub(crate) fn canary(name: &Name, interval: Duration) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {
                "interval": format_go_duration(interval), "threshold": 3, "maxWeight": 50, "stepWeight": 10,
                "metrics": [
                    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
                    {"name": "request-duration", "interval": "1m", "thresholdRange": {"max": 500}},
                ],
            },
        },
    })
}

/// Creates an object as `kubectl create` does: validated and with defaults.
pub(crate) async fn create(client: &Client, object: &Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let api = api(client, group, version, &types.kind, namespace);
    let created = api.create(&PostParams::default(), &object).await;
    created.with_context(|| format!("create {} {:?}", types.kind, object.metadata.name))?;
    Ok(())
}

/// The objects of a kind in a namespace, or in all of them if it is empty.
pub(crate) fn api(client: &Client, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}
