//! ResourceQuotas: what a namespace uses of its limits, after the evaluators of `pkg/quota/v1` of Kubernetes.
//!
//! The limits are shown, not enforced. Scopes are not looked at.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{is_deleting, text};
use super::queue::ObjectName;
use crate::quantity;
use crate::store::{GroupKind, kinds};

/// Kinds with a name of their own in quotas.
const COUNTED: [(&str, GroupKind); 7] = [
    ("pods", kinds::POD),
    ("services", kinds::SERVICE),
    ("configmaps", kinds::CONFIG_MAP),
    ("secrets", kinds::SECRET),
    ("resourcequotas", GroupKind::known("", "ResourceQuota")),
    ("replicationcontrollers", GroupKind::known("", "ReplicationController")),
    ("persistentvolumeclaims", kinds::PERSISTENT_VOLUME_CLAIM),
];

impl Engine {
    /// Writes the status that `kubectl describe quota` shows.
    pub(super) fn reconcile_quota(&mut self, name: &ObjectName) {
        let Some(quota) = self.store.get(&kinds::RESOURCE_QUOTA, &name.namespace, &name.name) else {
            return;
        };
        if is_deleting(&quota) {
            return;
        }
        let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
        let used: BTreeMap<&String, String> =
            hard.keys().filter_map(|resource| Some((resource, self.used(&name.namespace, resource)?))).collect();
        let status = json!({"hard": hard, "used": used});
        if quota.get("status") != Some(&status) {
            self.update(&kinds::RESOURCE_QUOTA, name, |quota| quota["status"] = status);
        }
    }

    /// How much of a resource a namespace uses; `None` for one that nothing here measures.
    fn used(&self, namespace: &str, resource: &str) -> Option<String> {
        let count = |kind: &GroupKind| self.store.list(kind, Some(namespace)).len().to_string();
        if resource == "pods" {
            return Some(self.charged_pods(namespace).len().to_string());
        }
        if let Some((_, kind)) = COUNTED.iter().find(|(name, _)| *name == resource) {
            return Some(count(kind));
        }
        if let Some(counted) = resource.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            let kind = self
                .store
                .registry(|registry| registry.by_path(group, plural).map(|resource| resource.group_kind.clone()));
            return Some(kind.map_or_else(|| "0".to_owned(), |kind| count(&kind)));
        }
        if let Some(kind) = resource.strip_prefix("services.") {
            let services = self.store.list(&kinds::SERVICE, Some(namespace));
            let wanted = if kind == "nodeports" { "NodePort" } else { "LoadBalancer" };
            return Some(services.iter().filter(|service| service["spec"]["type"] == wanted).count().to_string());
        }
        if resource == "requests.storage" {
            let claims = self.store.list(&kinds::PERSISTENT_VOLUME_CLAIM, Some(namespace));
            return Some(sum(claims.iter().map(|claim| &claim["spec"]["resources"]["requests"]["storage"])));
        }
        let (list, measured) = match resource.split_once('.') {
            Some(("requests", measured)) => ("requests", measured),
            Some(("limits", measured)) => ("limits", measured),
            _ => ("requests", resource),
        };
        if !matches!(measured, "cpu" | "memory" | "ephemeral-storage") {
            return None;
        }
        let pods = self.charged_pods(namespace);
        let containers = pods.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
        Some(sum(containers.map(|container| &container["resources"][list][measured])))
    }

    /// Pods that have not ended.
    fn charged_pods(&self, namespace: &str) -> Vec<std::sync::Arc<Value>> {
        let mut pods = self.store.list(&kinds::POD, Some(namespace));
        pods.retain(|pod| !matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed")));
        pods
    }
}

/// The sum of quantities, in the suffixes of the first.
fn sum<'a>(quantities: impl Iterator<Item = &'a Value>) -> String {
    let quantities: Vec<&str> = quantities.filter_map(Value::as_str).collect();
    let nanos: i128 = quantities.iter().filter_map(|text| quantity::nanos(text).ok()).sum();
    let is_binary = quantities.first().is_some_and(|first| first.ends_with('i'));
    let written = match is_binary && nanos % 1_024_000_000_000 == 0 {
        true => format!("{}Ki", nanos / 1_024_000_000_000),
        false => format!("{nanos}n"),
    };
    quantity::canonical(&written).unwrap_or(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::sum;

    #[test]
    fn quantities_add_up_in_their_own_suffixes() {
        let sum_of = |texts: &[&str]| sum(texts.iter().map(|text| json!(text)).collect::<Vec<_>>().iter());
        assert_eq!(sum_of(&[]), "0");
        assert_eq!(sum_of(&["500m", "1"]), "1500m");
        assert_eq!(sum_of(&["500m", "0.5"]), "1");
        assert_eq!(sum_of(&["64Mi", "64Mi"]), "128Mi");
    }
}
