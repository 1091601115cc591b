//! The CustomResourceDefinition of ScaledObjects, with the part of KEDA's schema that manifests go wrong in.

use serde_json::{Value, json};

/// The definition as KEDA installs it, in short.
pub(crate) fn definition() -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let count = json!({"type": "integer", "format": "int32"});
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let trigger = json!({
        "type": "object",
        "required": ["metadata", "type"],
        "properties": {
            "type": text, "name": text, "metricType": text, "metadata": texts,
            "useCachedMetrics": {"type": "boolean"},
            "authenticationRef": {"type": "object", "required": ["name"], "properties": {"name": text, "kind": text}},
        },
    });
    let spec = json!({
        "type": "object",
        "required": ["scaleTargetRef", "triggers"],
        "properties": {
            "scaleTargetRef": {
                "type": "object",
                "required": ["name"],
                "properties": {"apiVersion": text, "kind": text, "name": text, "envSourceContainerName": text},
            },
            "pollingInterval": count, "cooldownPeriod": count, "initialCooldownPeriod": count,
            "idleReplicaCount": count, "minReplicaCount": count, "maxReplicaCount": count,
            "fallback": open, "advanced": open,
            "triggers": {"type": "array", "items": trigger},
        },
    });
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let of_condition =
        |name: &str| column(name, "string", &format!(".status.conditions[?(@.type==\"{name}\")].status"));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {
            "group": "keda.sh", "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "plural": "scaledobjects", "shortNames": ["so"]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"], "properties": {"spec": spec, "status": open},
                }},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("ScaleTargetKind", "string", ".status.scaleTargetKind"),
                    column("ScaleTargetName", "string", ".spec.scaleTargetRef.name"),
                    column("Min", "integer", ".spec.minReplicaCount"),
                    column("Max", "integer", ".spec.maxReplicaCount"),
                    of_condition("Ready"), of_condition("Active"), of_condition("Fallback"), of_condition("Paused"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                ],
            }],
        },
    })
}
