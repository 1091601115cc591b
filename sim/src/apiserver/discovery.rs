//! Discovery documents.

use serde_json::{Value, json};

use super::request::DiscoveryPath;
use super::response::Answer;
use crate::store::{ResourceType, Store, to_bytes};

pub(super) fn answer(store: &Store, path: &DiscoveryPath) -> Answer {
    let body = match path {
        DiscoveryPath::CoreVersions => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}],
        })),
        DiscoveryPath::Groups => Some(groups(store)),
        DiscoveryPath::Group(name) => group(store, name),
        DiscoveryPath::Resources { group, version } => resources(store, group, version),
    };
    body.map_or_else(Answer::unknown_path, |body| Answer::json(200, to_bytes(&body)))
}

/// `/version`: the release whose behaviour the embedded cluster follows.
pub(super) fn version() -> Answer {
    let body = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    });
    Answer::json(200, to_bytes(&body))
}

fn groups(store: &Store) -> Value {
    let groups: Vec<Value> = store.registry(|registry| {
        registry
            .groups()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, resources)| describe_group(name, &resources))
            .collect()
    });
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(store: &Store, name: &str) -> Option<Value> {
    let resources = store.registry(|registry| registry.group(name))?;
    let mut body = describe_group(name, &resources);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

fn describe_group(name: &str, resources: &[std::sync::Arc<ResourceType>]) -> Value {
    let mut versions: Vec<&str> = resources
        .iter()
        .flat_map(|resource| &resource.versions)
        .filter(|version| version.served)
        .map(|version| version.name.as_str())
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    versions.dedup();
    let described: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": described.first(), "versions": described})
}

/// Kubernetes' version order: v2 before v1 before v1beta2 before v1alpha1.
fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = |text: &str| -> (u32, usize) {
        let length = text.bytes().take_while(u8::is_ascii_digit).count();
        (text[..length].parse().unwrap_or(0), length)
    };
    let (major, length) = digits(rest);
    let rest = &rest[length..];
    if rest.is_empty() {
        return (3, major, 0);
    }
    for (stage, label) in [(2, "beta"), (1, "alpha")] {
        if let Some(minor) = rest.strip_prefix(label) {
            return (stage, major, digits(minor).0);
        }
    }
    (0, 0, 0)
}

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let resources = store.registry(|registry| registry.group(group))?;
    let mut described = Vec::new();
    let mut group_version = String::new();
    for resource in &resources {
        let Some(served) = resource.served_version(version) else {
            continue;
        };
        group_version = resource.api_version(version);
        described.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "shortNames": resource.short_names, "categories": resource.categories,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
        if served.status {
            described.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        if served.scale.is_some() {
            described.push(json!({
                "name": format!("{}/scale", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"],
            }));
        }
    }
    if described.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": described,
    }))
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_sort_as_kubernetes_sorts_them() {
        let mut versions = vec!["v1alpha1", "v1", "v1beta1", "v2", "v1beta2", "v2alpha1"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha1"]);
    }
}
