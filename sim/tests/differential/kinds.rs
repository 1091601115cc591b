//! What sequences are about: kinds, a valid object of each, and values that their fields are given, right and wrong ones.

use serde_json::{Value, json};

pub(crate) struct Kind {
    /// The path of the collection in a namespace.
    pub(crate) collection: &'static str,
    pub(crate) has_status: bool,
    pub(crate) scales: bool,
    pub(crate) base: fn() -> Value,
    pub(crate) fields: fn() -> Vec<Field>,
}

impl Kind {
    /// Whether a definition made it: the groups of built-in kinds have no domain.
    pub(crate) fn is_custom(&self) -> bool {
        self.collection.contains('.')
    }
}

pub(crate) struct Field {
    pub(crate) pointer: &'static str,
    pub(crate) values: Vec<Value>,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        collection: "/api/v1/namespaces/@namespace/configmaps",
        has_status: false,
        scales: false,
        base: || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}),
        fields: config_map,
    },
    Kind {
        collection: "/apis/apps/v1/namespaces/@namespace/deployments",
        has_status: true,
        scales: true,
        base: deployment_base,
        fields: deployment,
    },
    Kind {
        collection: "/api/v1/namespaces/@namespace/services",
        has_status: true,
        scales: false,
        base: || {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            })
        },
        fields: service,
    },
    Kind {
        collection: "/apis/flagger.app/v1beta1/namespaces/@namespace/canaries",
        has_status: true,
        scales: false,
        base: || {
            json!({
                "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "a"},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}, "service": {"port": 80},
                    "analysis": {"interval": "1m", "threshold": 5, "iterations": 2},
                },
            })
        },
        fields: canary,
    },
    Kind {
        collection: "/apis/example.com/v1/namespaces/@namespace/gadgets",
        has_status: true,
        scales: true,
        base: || json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {"size": 1}}),
        fields: gadget,
    },
];

fn field(pointer: &'static str, values: Value) -> Field {
    let Value::Array(values) = values else { panic!("{pointer}: a list") };
    Field { pointer, values }
}

/// Fields that all kinds have.
fn metadata() -> Vec<Field> {
    vec![
        field("/metadata/labels", json!([{"x": "1"}, {"y": "2"}, {}, null, {"x": 1}])),
        field("/metadata/labels/x", json!(["1", "2", null, "not valid"])),
        field("/metadata/annotations/n", json!(["1", "2", null, ""])),
        field("/metadata/annotations", json!([{"n": "1", "m": "2"}, null, {}])),
        field(
            "/metadata/finalizers",
            json!([["example.com/hold"], ["example.com/hold", "example.com/more"], [], null]),
        ),
        field("/metadata/finalizers/-", json!(["example.com/hold"])),
        field("/metadata/resourceVersion", json!(["@rv0", "@rv", "@rv", "", "99x", null])),
        field("/metadata/uid", json!(["@uid", "other", null])),
        field("/metadata/name", json!(["b", null])),
        field("/metadata/namespace", json!(["@namespace", "other"])),
        field("/metadata/generation", json!([7])),
        field("/metadata/managedFields", json!([[], [{}], null])),
        field("/metadata/deletionTimestamp", json!(["2026-01-01T00:00:00Z", null])),
        field("/metadata/creationTimestamp", json!(["2026-01-01T00:00:00Z", null])),
        field("/metadata/generateName", json!(["a-"])),
        field("/unheard", json!([1, {"of": "it"}])),
        field("/apiVersion", json!(["v9", null])),
        field("/kind", json!(["Other"])),
    ]
}

fn and_metadata(mut fields: Vec<Field>) -> Vec<Field> {
    // Twice: the kind's own are as likely as those of all kinds.
    let own =
        fields.iter().map(|field| Field { pointer: field.pointer, values: field.values.clone() }).collect::<Vec<_>>();
    fields.extend(own);
    fields.extend(metadata());
    fields
}

fn config_map() -> Vec<Field> {
    and_metadata(vec![
        field("/data/k", json!(["1", "2", "3", null, 4])),
        field("/data/l", json!(["1", "2", null])),
        field("/data/not valid", json!(["1"])),
        field("/data", json!([{"k": "5"}, {}, null, "text", ["k"]])),
        field("/binaryData", json!([{"b": "AAAA"}, {"b": "not base64"}, null])),
        field("/binaryData/k", json!(["AAAA"])),
        field("/immutable", json!([true, false, null])),
    ])
}

fn deployment_base() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "app", "image": "app:1", "ports": [{"containerPort": 9898}]}]},
            },
        },
    })
}

fn deployment() -> Vec<Field> {
    let template = "/spec/template/spec/containers";
    and_metadata(vec![
        field("/spec/replicas", json!([1, 2, 3, 0, -1, null, "x", 1.5])),
        field("/spec/paused", json!([true, false, null])),
        field("/spec/minReadySeconds", json!([5, 0, -1, 700])),
        field("/spec/revisionHistoryLimit", json!([3, null, -1])),
        field(
            "/spec/strategy",
            json!([
                {"type": "Recreate"}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, {"rollingUpdate": null, "type": "Recreate"},
                {"$retainKeys": ["type"], "type": "Recreate"}, null, {"type": "Other"}, {"rollingUpdate": {"maxUnavailable": "0%", "maxSurge": 0}},
            ]),
        ),
        field("/spec/strategy/rollingUpdate/maxSurge", json!(["50%", 2, "x%", null])),
        field(
            template,
            json!([
                [{"name": "app", "image": "app:2"}], [{"name": "side", "image": "side:1"}],
                [{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}],
                [{"name": "app", "$patch": "delete"}], [{"name": "side", "$patch": "delete"}], [{"$patch": "replace"}, {"name": "new", "image": "new:1"}],
                [], null, [{"name": "app", "env": [{"name": "A", "value": "1"}]}], [{"name": "app", "image": "app:1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}]}],
                [{"name": "app", "image": "app:1", "ports": [{"containerPort": 9898}, {"containerPort": 9898, "protocol": "UDP"}]}],
                [{"name": "app", "image": "app:1"}, {"name": "app", "image": "app:2"}], [{"image": "nameless:1"}],
                [{"name": "app", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": "0.5"}}}],
                [{"$setElementOrder/containers": []}],
            ]),
        ),
        field("/spec/template/spec/containers/0/image", json!(["app:3", "", null])),
        field(
            "/spec/template/spec/containers/0/env",
            json!([[{"name": "A", "value": "1"}], [{"name": "A"}, {"name": "A", "value": "2"}]]),
        ),
        field("/spec/template/metadata/labels", json!([{"app": "a", "v": "2"}, {"app": "b"}, null])),
        field("/spec/template/metadata/annotations/at", json!(["now", null])),
        field(
            "/spec/template/spec/volumes",
            json!([[{"name": "v", "emptyDir": {}}], [{"name": "v", "configMap": {"name": "c"}}], [{"name": "v", "$patch": "delete"}], null]),
        ),
        field("/spec/template/spec/nodeSelector/disk", json!(["ssd", null])),
        field(
            "/spec/template/spec/tolerations",
            json!([[{"key": "k", "operator": "Exists"}], [{"operator": "Exists"}], null]),
        ),
        field("/spec/template/spec/terminationGracePeriodSeconds", json!([10, 0, -1])),
        field("/spec/template/spec/serviceAccountName", json!(["robot", null])),
        field("/spec/template/spec/restartPolicy", json!(["Always", "Never"])),
        field("/spec/selector", json!([{"matchLabels": {"app": "a"}}, {"matchLabels": {"app": "b"}}, null])),
        field(
            "/status",
            json!([{"replicas": 3, "readyReplicas": 2}, {"replicas": -1}, null, {"observedGeneration": 1}]),
        ),
        field(
            "/status/conditions",
            json!([
                [{"type": "Available", "status": "True", "reason": "R", "message": "m", "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                [{"type": "Progressing", "status": "False", "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            ]),
        ),
    ])
}

fn service() -> Vec<Field> {
    and_metadata(vec![
        field(
            "/spec/ports",
            json!([
                [{"port": 80}], [{"name": "http", "port": 80, "targetPort": "http"}], [{"name": "http", "port": 80}, {"name": "grpc", "port": 90}],
                [{"port": 80, "protocol": "UDP"}], [{"port": 80, "$patch": "delete"}], [{"port": 0}], [{"port": 80}, {"port": 81}], [], null,
                [{"name": "http", "port": 81, "nodePort": 99}], [{"name": "http", "port": 80, "appProtocol": "http"}],
            ]),
        ),
        field("/spec/ports/0/port", json!([81, 0, null])),
        field("/spec/ports/0/targetPort", json!([9090, "web", "not valid!"])),
        field("/spec/type", json!(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Other", null])),
        field("/spec/externalName", json!(["example.com", "", null])),
        field("/spec/selector", json!([{"app": "b"}, {}, null])),
        field("/spec/selector/v", json!(["1", null])),
        field("/spec/sessionAffinity", json!(["ClientIP", "None", "Other"])),
        field("/spec/clusterIP", json!(["None", "", "1.2.3.4", "x"])),
        field("/spec/publishNotReadyAddresses", json!([true, false])),
        field("/spec/externalTrafficPolicy", json!(["Local", "Cluster"])),
        field("/spec/internalTrafficPolicy", json!(["Local", "Other"])),
        field("/status", json!([{"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}, {"loadBalancer": {}}, null])),
    ])
}

fn canary() -> Vec<Field> {
    and_metadata(vec![
        field("/spec/service/port", json!([81, "http", null, true])),
        field("/spec/service/hosts", json!([["a.example.com"], [], ["a", "b"], null])),
        field("/spec/service/gateways", json!([["g"], null])),
        field("/spec/service/match", json!([[{"uri": {"prefix": "/"}}], null])),
        field("/spec/analysis/interval", json!(["30s", "x", 5, null])),
        field("/spec/analysis/stepWeight", json!([10, "x", 1.5, null])),
        field("/spec/analysis/threshold", json!([3, 5.0, null])),
        field(
            "/spec/analysis/metrics",
            json!([
                [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}],
                [{"name": "request-duration", "thresholdRange": {"max": 500.5}}], [{}], null,
            ]),
        ),
        field("/spec/analysis", json!([{}, null, {"iterations": 3}])),
        field("/spec/skipAnalysis", json!([true, false, "yes"])),
        field("/spec/provider", json!(["istio", "unheard-of", null])),
        field("/spec/targetRef", json!([{"kind": "DaemonSet", "name": "d"}, {"name": "n"}, null])),
        field("/spec/unknown", json!([1, null])),
        field("/status", json!([{"phase": "Progressing", "canaryWeight": 10}, {"phase": "Nope"}, null])),
        field("/status/canaryWeight", json!([20, "x"])),
        field("/status/conditions", json!([[{"type": "Promoted", "status": "True", "reason": "r"}], []])),
    ])
}

fn gadget() -> Vec<Field> {
    and_metadata(vec![
        field("/spec/size", json!([2, 3, 11, 0, "x", null, 1.0, 1.5])),
        field("/spec/replicas", json!([1, 2, null])),
        field("/spec/interval", json!(["5s", "5h", null, ""])),
        field("/spec/colour", json!(["red", "blue", null])),
        field("/spec/port", json!([80, "http", true])),
        field("/spec/free", json!([{"a": {"b": 1}}, {"a": {"c": [1, 2]}}, null, "text"])),
        field("/spec/free/a", json!([{"d": null}, 1, null])),
        field("/spec/labels/p", json!(["q", "r", null, 1])),
        field(
            "/spec/items",
            json!([
                [{"id": "1", "value": "a"}], [{"id": "2"}], [{"id": "1", "value": "b"}, {"id": "2", "value": "c"}], [{"id": "1"}, {"id": "1"}], [{"value": "x"}], [], null,
            ]),
        ),
        field("/spec/items/0/value", json!(["z", null])),
        field("/spec/tags", json!([["a"], ["b"], ["a", "b"], ["a", "a"], [], null, [1]])),
        field("/spec/tags/-", json!(["c"])),
        field("/spec/atoms", json!([[{"n": 1}], [{"n": 2}, {"n": 3}], null])),
        field("/spec/whole", json!([{"a": "1"}, {"b": "2"}, null])),
        field("/spec/whole/a", json!(["2", null])),
        field("/spec/defaulted", json!([{}, {"x": 3}, null])),
        field("/spec/nullable", json!([null, "text", 5])),
        field("/spec/limits/low", json!([1, 9])),
        field("/spec/limits/high", json!([5, null])),
        field("/spec/unknown", json!([1, {"deep": true}, null])),
        field("/spec/when", json!(["2026-01-01T00:00:00Z", "yesterday"])),
        field("/status", json!([{"phase": "Ready"}, {"phase": 5}, {"replicas": 2}, null, {"other": 1}])),
        field("/status/phase", json!(["Ready", "Failed", null])),
    ])
}

/// The definition of `Gadget`: every way in which lists and maps are owned.
pub(crate) fn gadget_definition() -> Value {
    let item = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "value": {"type": "string"}}});
    let spec = json!({
        "type": "object", "required": ["size"],
        "x-kubernetes-validations": [{"rule": "!has(self.limits) || !has(self.limits.high) || !has(self.limits.low) || self.limits.low <= self.limits.high", "message": "low must not exceed high"}],
        "properties": {
            "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10},
            "replicas": {"type": "integer"},
            "interval": {"type": "string", "pattern": "^[0-9]+(m|s)$", "default": "60s"},
            "colour": {"type": "string", "enum": ["red", "green"]},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": item},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "atoms": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "defaulted": {"type": "object", "default": {}, "properties": {"x": {"type": "integer", "default": 7}, "y": {"type": "string", "default": "z"}}},
            "nullable": {"type": "string", "nullable": true, "default": "given"},
            "limits": {"type": "object", "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}}},
            "when": {"type": "string", "format": "date-time"},
        },
    });
    let status =
        json!({"type": "object", "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            }],
        },
    })
}
