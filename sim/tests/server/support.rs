use aviary_sim::{Cluster, ClusterOptions};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

/// A cluster without workload controllers.
pub(crate) fn bare_cluster(seed: u64) -> Cluster {
    Cluster::new(ClusterOptions { controllers: None, seed, ..ClusterOptions::default() })
}

pub(crate) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

pub(crate) fn api(client: &kube::Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    Api::default_namespaced_with(client.clone(), &resource(group, version, kind))
}

pub(crate) fn config_maps(client: &kube::Client) -> Api<DynamicObject> {
    api(client, "", "v1", "ConfigMap")
}

pub(crate) fn config_map(name: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "1"},
    }))
    .unwrap()
}

pub(crate) fn event(name: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
        "involvedObject": {"kind": "Canary", "name": "podinfo"},
    }))
    .unwrap()
}
