//! A client, a namespace of its own for each test, and short forms.

use std::time::Duration;

use aviary_sim::{Cluster, ClusterOptions};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{bench, real};

pub(crate) struct World {
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
}

/// A cluster without workload controllers, and an empty namespace in it.
pub(crate) async fn world() -> World {
    if let Some(directory) = bench::inside() {
        return real::world(&directory).await;
    }
    let cluster = Cluster::new(ClusterOptions { controllers: None, ..ClusterOptions::default() });
    let client = cluster.client("api-tests");
    let namespace = "test".to_owned();
    let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &resource("", "v1", "Namespace"));
    namespaces
        .create(
            &PostParams::default(),
            &object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})),
        )
        .await
        .unwrap();
    World { client, namespace }
}

impl World {
    pub(crate) fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(group, version, kind))
    }

    pub(crate) fn cluster_api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(group, version, kind))
    }

    pub(crate) fn config_maps(&self) -> Api<DynamicObject> {
        self.api("", "v1", "ConfigMap")
    }

    pub(crate) fn deployments(&self) -> Api<DynamicObject> {
        self.api("apps", "v1", "Deployment")
    }

    /// Installs the custom resource of these tests and returns its API.
    pub(crate) async fn widgets(&self) -> Api<DynamicObject> {
        self.define(widget_definition()).await;
        let widgets = self.api("example.com", "v1", "Widget");
        self.until_served(&widgets).await;
        widgets
    }

    /// Installs a definition. In a real cluster another test's of the same name may be there: to delete one takes ten seconds.
    pub(crate) async fn define(&self, definition: Value) {
        let definitions = self.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
        let mut definition = object(definition);
        let Some(present) = definitions.get_opt(&name).await.unwrap().filter(|_| bench::inside().is_some()) else {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
            return;
        };
        definition.metadata.resource_version = present.metadata.resource_version.clone();
        let replaced = definitions.replace(&name, &PostParams::default(), &definition).await.unwrap();
        if replaced.metadata.resource_version != present.metadata.resource_version {
            // Nothing tells when the new schema is the one that objects are judged by.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// A real server serves a new definition a moment after its creation.
    pub(crate) async fn until_served(&self, api: &Api<DynamicObject>) {
        self.until(async || api.list(&kube::api::ListParams::default()).await.is_ok()).await;
    }

    /// Waits for what is so at once in the embedded cluster, and a moment later in a real one.
    pub(crate) async fn until(&self, mut is_so: impl AsyncFnMut() -> bool) {
        // Six times what the slowest takes, which is the end of a definition.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !is_so().await {
            assert!(tokio::time::Instant::now() < deadline, "a minute, and it is still not so");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An age in a table after [`World::pass_seconds`]: in virtual time to the second.
    pub(crate) fn assert_age(&self, cell: &Value, expected: &str) {
        let text = cell.as_str().unwrap_or_default();
        match bench::inside() {
            None => assert_eq!(text, expected),
            Some(_) => {
                let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse::<u64>().ok());
                assert!(seconds.is_some_and(|seconds| (1..60).contains(&seconds)), "{text:?}");
            }
        }
    }

    /// Lets time pass on the clock of the objects' times, which count whole seconds. A real server takes the time that it takes.
    pub(crate) async fn pass_seconds(&self, seconds: u64) {
        match bench::inside() {
            None => tokio::time::advance(Duration::from_secs(seconds)).await,
            Some(_) => tokio::time::sleep(Duration::from_millis(1100)).await,
        }
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> Result<Value, kube::Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content_type)
            .body(body.as_bytes().to_vec())
            .unwrap();
        self.client.request(request).await
    }
}

pub(crate) fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

pub(crate) fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

pub(crate) fn config_map(name: &str) -> DynamicObject {
    object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"name": name}}, "data": {"key": "1"},
    }))
}

pub(crate) fn deployment(name: &str, image: &str) -> DynamicObject {
    object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image, "ports": [{"containerPort": 9898}]}]},
            },
        },
    }))
}

pub(crate) fn widget(name: &str, spec: &Value) -> DynamicObject {
    object(json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}))
}

/// The definition of widgets, in a group of its own: in a real cluster there is one in `example.com` from some test on.
pub(crate) fn widget_definition_in(group: &str) -> Value {
    let mut definition = widget_definition();
    definition["metadata"]["name"] = json!(format!("widgets.{group}"));
    definition["spec"]["group"] = json!(group);
    definition
}

fn widget_definition() -> Value {
    let spec = json!({
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10},
            "interval": {"type": "string", "pattern": "^[0-9]+(m|s)$", "default": "60s"},
            "colour": {"type": "string", "enum": ["red", "green"]},
            "port": {"x-kubernetes-int-or-string": true},
            "replicas": {"type": "integer"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "source": {
                "type": "object",
                "properties": {"url": {"type": "string"}, "file": {"type": "string"}},
                "oneOf": [{"required": ["url"]}, {"required": ["file"]}],
            },
        },
    });
    let status =
        json!({"type": "object", "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            }],
        },
    })
}

/// The `Status` of a refused request.
pub(crate) trait Refusal {
    fn refusal(self) -> kube::core::Status;
}

impl<T: std::fmt::Debug> Refusal for Result<T, kube::Error> {
    fn refusal(self) -> kube::core::Status {
        match self {
            Err(kube::Error::Api(status)) => *status,
            other => panic!("expected an API error, got {other:?}"),
        }
    }
}

pub(crate) fn version_of(object: &DynamicObject) -> String {
    object.metadata.resource_version.clone().unwrap()
}
