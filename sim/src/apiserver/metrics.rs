//! `metrics.k8s.io/v1beta1`: what `kubectl top` asks for, as metrics-server answers it.
//!
//! A pod's CPU is the simulated usage of its Deployment, the same that autoscalers act on. Where none is known a pod uses
//! nothing, for its containers do not run. Memory is not simulated: every container has what it requests, or a little.

use serde_json::{Value, json};

use super::ApiServer;
use super::request::Query;
use super::response::Answer;
use super::selectors;
use crate::clock::format_seconds;
use crate::quantity;
use crate::store::{StatusError, kinds, to_bytes};

/// The window over which metrics-server measures by default.
const WINDOW: &str = "30s";

/// Memory of a container that requests none, in bytes: 32 Mi, about what a small server of Go takes.
const LITTLE_MEMORY: u64 = 32 << 20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsPath {
    pub(crate) of: Measured,
    /// `None` for all.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
}

/// What has metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    Pods,
    Nodes,
}

impl MetricsPath {
    /// The path behind `/apis/metrics.k8s.io/v1beta1/`.
    pub(crate) fn parse(segments: &[&str]) -> Option<Self> {
        let path = |of, namespace: Option<&str>, name: Option<&str>| {
            Some(Self { of, namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) })
        };
        match *segments {
            ["nodes"] => path(Measured::Nodes, None, None),
            ["nodes", name] => path(Measured::Nodes, None, Some(name)),
            ["pods"] => path(Measured::Pods, None, None),
            ["namespaces", namespace, "pods"] => path(Measured::Pods, Some(namespace), None),
            ["namespaces", namespace, "pods", name] => path(Measured::Pods, Some(namespace), Some(name)),
            _ => None,
        }
    }
}

impl ApiServer {
    /// Answers with the metrics of one object or of all.
    pub(super) fn metrics(&self, path: &MetricsPath, query: &Query) -> Result<Answer, StatusError> {
        let (kind, list_kind) = match path.of {
            Measured::Pods => (kinds::POD, "PodMetricsList"),
            Measured::Nodes => (kinds::NODE, "NodeMetricsList"),
        };
        let labels = selectors::Labels::parse(query.get("labelSelector"))?;
        let mut items = Vec::new();
        for object in self.store.list(&kind, path.namespace.as_deref()) {
            let is_asked_for = path.name.as_ref().is_none_or(|name| object["metadata"]["name"] == **name);
            if !is_asked_for || !labels.select(&object["metadata"]["labels"]) {
                continue;
            }
            match path.of {
                Measured::Pods => items.extend(self.pod_metrics(&object)),
                Measured::Nodes => items.push(self.node_metrics(&object)),
            }
        }
        let Some(name) = &path.name else {
            let list = json!({
                "kind": list_kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items,
            });
            return Ok(Answer::json(200, to_bytes(&list)));
        };
        let Some(item) = items.pop() else {
            let resource = list_kind.trim_end_matches("List").to_lowercase();
            let shown = path.namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
            let message = format!("{resource}.metrics.k8s.io \"{shown}\" not found");
            return Err(StatusError::new(404, "NotFound", message).with_details("metrics.k8s.io", &resource, &shown));
        };
        Ok(Answer::json(200, to_bytes(&item)))
    }

    /// `None` for a pod that does not run.
    fn pod_metrics(&self, pod: &Value) -> Option<Value> {
        if pod["status"]["phase"] != "Running" {
            return None;
        }
        let cpu = self.pod_cpu(pod);
        let containers = pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
        // The first container is the application; what stands beside it has next to nothing to do.
        let containers: Vec<Value> = containers
            .iter()
            .enumerate()
            .map(|(index, container)| {
                let cpu = if index == 0 { cpu } else { 0.0 };
                json!({"name": container["name"], "usage": usage(cpu, memory_of(container))})
            })
            .collect();
        Some(self.measured("PodMetrics", pod, &json!({"containers": containers})))
    }

    fn node_metrics(&self, node: &Value) -> Value {
        let pods = self.store.list(&kinds::POD, None);
        let on_node: Vec<_> = pods
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == node["metadata"]["name"] && pod["status"]["phase"] == "Running")
            .collect();
        let cpu: f64 = on_node.iter().map(|pod| self.pod_cpu(pod)).sum();
        let containers = on_node.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
        let memory = containers.map(memory_of).sum();
        self.measured("NodeMetrics", node, &json!({"usage": usage(cpu, memory)}))
    }

    fn measured(&self, kind: &str, object: &Value, measured: &Value) -> Value {
        let now = format_seconds(self.store.clock().now());
        let mut metadata = json!({"name": object["metadata"]["name"], "creationTimestamp": now});
        for field in ["namespace", "labels"] {
            if let Some(value) = object["metadata"].get(field) {
                metadata[field] = value.clone();
            }
        }
        let mut metrics = json!({
            "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata, "timestamp": now, "window": WINDOW,
        });
        for (field, value) in measured.as_object().into_iter().flatten() {
            metrics[field] = value.clone();
        }
        metrics
    }

    /// CPU of a pod in thousandths of a core.
    fn pod_cpu(&self, pod: &Value) -> f64 {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let controller = |object: &Value, kind: &str| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            let owner =
                owners.into_iter().flatten().find(|owner| owner["kind"] == kind && owner["controller"] == true)?;
            owner["name"].as_str().map(str::to_owned)
        };
        let Some(utilisation) = &self.utilisation else { return 0.0 };
        let Some(set) = controller(pod, "ReplicaSet") else { return 0.0 };
        let Some(set) = self.store.get(&kinds::REPLICA_SET, namespace, &set) else { return 0.0 };
        let Some(deployment) = controller(&set, "Deployment") else { return 0.0 };
        let ready = self.store.get(&kinds::DEPLOYMENT, namespace, &deployment).map_or(0, |deployment| {
            u32::try_from(deployment["status"]["readyReplicas"].as_u64().unwrap_or(0)).unwrap_or(u32::MAX)
        });
        utilisation.cpu_of_pod(namespace, &deployment, requested_cpu(pod), ready).unwrap_or(0.0)
    }
}

/// CPU that a pod requests, in thousandths of a core.
fn requested_cpu(pod: &Value) -> f64 {
    let containers = pod["spec"]["containers"].as_array();
    let requests = containers.into_iter().flatten().filter_map(|container| {
        let request = &container["resources"]["requests"]["cpu"];
        quantity::nanos(request.as_str()?).ok()
    });
    #[allow(clippy::cast_precision_loss)]
    let nanos = requests.sum::<i128>() as f64;
    nanos / 1e6
}

/// Memory of a container in bytes.
fn memory_of(container: &Value) -> u64 {
    let requested = container["resources"]["requests"]["memory"].as_str().and_then(|text| quantity::nanos(text).ok());
    requested.and_then(|nanos| u64::try_from(nanos / 1_000_000_000).ok()).unwrap_or(LITTLE_MEMORY)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn usage(cpu: f64, memory: u64) -> Value {
    json!({"cpu": format!("{}m", cpu.round().max(0.0) as u64), "memory": format!("{}Ki", memory >> 10)})
}

#[cfg(test)]
mod tests {
    use super::{Measured, MetricsPath};

    #[test]
    fn paths_are_those_of_metrics_server() {
        let parse = |path: &str| MetricsPath::parse(&path.split('/').collect::<Vec<_>>());
        let pods = MetricsPath { of: Measured::Pods, namespace: Some("test".to_owned()), name: Some("a".to_owned()) };
        assert_eq!(parse("namespaces/test/pods/a"), Some(pods));
        assert_eq!(parse("nodes/a").map(|path| path.of), Some(Measured::Nodes));
        for unknown in ["services", "namespaces/test/nodes", "pods/a", "namespaces/test/pods/a/b"] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
    }
}
