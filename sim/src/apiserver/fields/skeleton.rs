//! What an object has before anything is set.
//!
//! The API server's built-in kinds are Go structures: a structure that is no pointer is always there, and so are fields that are
//! printed when empty. Nobody adds them, so nobody owns them.

use serde_json::{Value, json};

use crate::store::ResourceType;

/// An empty object of a kind.
pub(crate) fn of(resource: &ResourceType, api_version: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": resource.kind});
    if resource.custom {
        return object;
    }
    let pod_template = json!({"metadata": {}, "spec": {"containers": null}});
    let spec = match (resource.group.as_str(), resource.kind.as_str()) {
        ("apps", "Deployment") => json!({"selector": null, "template": pod_template, "strategy": {}}),
        ("apps", "ReplicaSet") => json!({"selector": null, "template": pod_template}),
        ("apps", "DaemonSet") => json!({"selector": null, "template": pod_template, "updateStrategy": {}}),
        ("apps", "StatefulSet") => {
            json!({"selector": null, "template": pod_template, "updateStrategy": {}, "serviceName": ""})
        }
        ("batch", "Job") => json!({"template": pod_template}),
        ("batch", "CronJob") => {
            json!({"schedule": "", "jobTemplate": {"metadata": {}, "spec": {"template": pod_template}}})
        }
        ("", "Pod") => json!({"containers": null}),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            json!({"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0})
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => json!({"names": {}}),
        _ => json!({}),
    };
    object["metadata"] = json!({});
    object["spec"] = spec;
    object["status"] = json!({});
    if matches!(resource.kind.as_str(), "Event") {
        for (field, empty) in [("involvedObject", json!({})), ("source", json!({})), ("firstTimestamp", Value::Null)] {
            object[field] = empty;
        }
        for field in ["lastTimestamp", "eventTime"] {
            object[field] = Value::Null;
        }
        object["reportingComponent"] = json!("");
        object["reportingInstance"] = json!("");
    }
    object
}
