//! The HorizontalPodAutoscaler of a ScaledObject.

use serde_json::{Value, json};

use super::{MAX_REPLICAS, NAME_LABEL, Name, Operator, TRANSFER, integer, told, trigger};
use crate::store::kinds;

/// Its name.
pub(super) fn name_of(object: &Value) -> String {
    match object["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["name"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("keda-hpa-{}", object["metadata"]["name"].as_str().unwrap_or_default()),
    }
}

fn spec(object: &Value, target: &str) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let triggers = object["spec"]["triggers"].as_array().cloned().unwrap_or_default();
    let metrics: Vec<Value> =
        triggers.iter().enumerate().map(|(index, trigger)| metric(index, trigger, name)).collect();
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        // An autoscaler does not scale to zero; KEDA does.
        "minReplicas": integer(object, "minReplicaCount", 0).max(1),
        "maxReplicas": integer(object, "maxReplicaCount", MAX_REPLICAS),
        "metrics": metrics,
    });
    let behavior = &object["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"];
    if behavior.is_object() {
        spec["behavior"] = behavior.clone();
    }
    spec
}

fn metric(index: usize, trigger: &Value, object: &str) -> Value {
    let kind = trigger["type"].as_str().unwrap_or_default();
    if kind == "cpu" || kind == "memory" {
        let value = trigger["metadata"]["value"].as_str().unwrap_or_default();
        let kind_of_target = trigger["metricType"].as_str().unwrap_or("Utilization");
        let target = match (kind_of_target, value.parse::<i64>()) {
            ("Utilization", Ok(percent)) => json!({"type": "Utilization", "averageUtilization": percent}),
            _ => json!({"type": "AverageValue", "averageValue": value}),
        };
        return json!({"type": "Resource", "resource": {"name": kind, "target": target}});
    }
    let threshold = trigger::threshold(trigger).to_string();
    let target = match trigger["metricType"].as_str() {
        Some("Value") => json!({"type": "Value", "value": threshold}),
        _ => json!({"type": "AverageValue", "averageValue": threshold}),
    };
    json!({"type": "External", "external": {
        "metric": {"name": format!("s{index}-{kind}"), "selector": {"matchLabels": {NAME_LABEL: object}}},
        "target": target,
    }})
}

impl Operator {
    /// Creates the autoscaler, or brings it to the ScaledObject.
    ///
    /// # Errors
    /// There is one of this name that is not KEDA's.
    pub(super) fn ensure_autoscaler(&self, name: &Name, object: &Value, target: &str) -> Result<(), String> {
        let autoscaler = name_of(object);
        // It was renamed.
        if let Some(former) = object["status"]["hpaName"].as_str().filter(|former| *former != autoscaler) {
            self.delete_if_owned(name, object, former);
        }
        let owner = json!([{
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": name.1,
            "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
        }]);
        let spec = spec(object, target);
        match self.store.get(&kinds::HPA, &name.0, &autoscaler) {
            None => {
                let mut labels = object["metadata"]["labels"].clone();
                labels[NAME_LABEL] = json!(name.1);
                labels["app.kubernetes.io/managed-by"] = json!("keda-operator");
                labels["app.kubernetes.io/name"] = json!(autoscaler);
                labels["app.kubernetes.io/part-of"] = json!(name.1);
                let created = self.store.create(
                    &kinds::HPA,
                    json!({
                        "metadata": {"name": autoscaler, "namespace": name.0, "labels": labels, "ownerReferences": owner},
                        "spec": spec,
                    }),
                );
                told(created.map(drop));
            }
            Some(present) if !is_owned(&present, object) && object["metadata"]["annotations"][TRANSFER] != "true" => {
                return Err(format!(
                    "the workload '{target}' of type 'apps/v1.Deployment' is already managed by the hpa '{autoscaler}'"
                ));
            }
            Some(_) => {
                let bring = |present: &mut Value| {
                    present["metadata"]["ownerReferences"] = owner;
                    present["spec"] = spec;
                };
                told(self.store.update(&kinds::HPA, &name.0, &autoscaler, bring).map(drop));
            }
        }
        Ok(())
    }

    pub(super) fn delete_autoscaler(&self, name: &Name, object: &Value) {
        self.delete_if_owned(name, object, &name_of(object));
    }

    fn delete_if_owned(&self, name: &Name, object: &Value, autoscaler: &str) {
        let present = self.store.get(&kinds::HPA, &name.0, autoscaler);
        if present.is_some_and(|present| is_owned(&present, object)) {
            told(self.store.delete(&kinds::HPA, &name.0, autoscaler));
        }
    }
}

fn is_owned(autoscaler: &Value, object: &Value) -> bool {
    let owners = autoscaler["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == object["metadata"]["uid"]))
}
