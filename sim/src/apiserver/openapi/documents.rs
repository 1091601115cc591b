//! The OpenAPI v3 documents: an index, and one document per group and version, for built-in kinds and for custom resources.
//!
//! What clients read in them: the schemas (`kubectl explain`, strategic merge patches of `kubectl apply` and `edit`), the
//! kinds behind the paths, and whether the writing verbs take `dryRun` and `fieldValidation`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::definitions::{Definition, REFERENCE_PREFIX};
use crate::store::{ResourceType, ResourceVersion, Store, kinds};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The documents that there are: path → where to read it. The hash changes with the content; clients cache by it.
pub(in super::super) fn index(store: &Store) -> Value {
    let mut paths = Map::new();
    let definitions = custom_definitions(store);
    for (group, version, resources) in group_versions(store) {
        let mut hash = *BUILTIN_HASH;
        for resource in &resources {
            hash = fold(hash, resource.qualified_resource().as_bytes());
            if let Some(definition) = definitions.get(&(group.clone(), resource.kind.clone())) {
                hash = fold(hash, definition["spec"].to_string().as_bytes());
            }
        }
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document of one group and version, as JSON text. `None` when nothing of it is served.
pub(in super::super) fn document(store: &Store, group: &str, version: &str) -> Option<String> {
    let (_, _, resources) = group_versions(store).into_iter().find(|found| found.0 == group && found.1 == version)?;
    let definitions = custom_definitions(store);
    let mut paths = Map::new();
    let mut builtin = BTreeSet::new();
    let mut custom = BTreeMap::new();
    for name in [OBJECT_META, DELETE_OPTIONS, STATUS] {
        require(name, &mut builtin);
    }
    for resource in &resources {
        let Some(served) = resource.served_version(version) else {
            continue;
        };
        let name = definition_name(group, version, resource);
        if resource.custom {
            let definition = definitions.get(&(group.to_owned(), resource.kind.clone()));
            let schema = definition.and_then(|definition| declared_schema(definition, version)).unwrap_or_default();
            custom.insert(name.clone(), publish(schema, group, version, &resource.kind));
        } else {
            require(&name, &mut builtin);
        }
        if served.scale.is_some() {
            require(SCALE, &mut builtin);
        }
        add_paths(&mut paths, group, version, resource, served, &name);
    }
    let mut schemas: Vec<String> = custom.iter().map(|(name, schema)| format!("{}:{schema}", json!(name))).collect();
    schemas
        .extend(builtin.iter().filter_map(|name| Some(format!("{}:{}", json!(name), Definition::find(name)?.json()))));
    let info = json!({"title": "Kubernetes", "version": "v1.36.3"});
    Some(format!(
        "{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":{},\"components\":{{\"schemas\":{{{}}}}}}}",
        Value::Object(paths),
        schemas.join(",")
    ))
}

/// Groups, versions and the resources served in them.
fn group_versions(store: &Store) -> Vec<(String, String, Vec<Arc<ResourceType>>)> {
    store.registry(|registry| {
        let mut found: BTreeMap<(String, String), Vec<Arc<ResourceType>>> = BTreeMap::new();
        for (group, resources) in registry.groups() {
            for resource in resources {
                for version in resource.versions.iter().filter(|version| version.served) {
                    let key = (group.to_owned(), version.name.clone());
                    found.entry(key).or_default().push(Arc::clone(&resource));
                }
            }
        }
        found.into_iter().map(|((group, version), resources)| (group, version, resources)).collect()
    })
}

/// The stored CustomResourceDefinitions, by group and kind.
fn custom_definitions(store: &Store) -> BTreeMap<(String, String), Arc<Value>> {
    let (records, _) = store.records(&kinds::CUSTOM_RESOURCE_DEFINITION, None, None).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    records
        .into_iter()
        .map(|record| {
            let definition = record.value();
            let spec = &definition["spec"];
            ((text(&spec["group"]), text(&spec["names"]["kind"])), definition)
        })
        .collect()
}

fn declared_schema(definition: &Value, version: &str) -> Option<Value> {
    let versions = definition["spec"]["versions"].as_array()?;
    let found = versions.iter().find(|candidate| candidate["name"] == version)?;
    Some(found["schema"]["openAPIV3Schema"].clone())
}

/// A custom resource's schema as it is published: with the fields that every object has.
fn publish(mut schema: Value, group: &str, version: &str, kind: &str) -> Value {
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let type_fields = Definition::find("io.k8s.api.core.v1.Pod").map(Definition::declared).unwrap_or_default();
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = type_fields["properties"][field].clone();
    }
    schema["properties"]["metadata"] = json!({
        "allOf": [reference(OBJECT_META)],
        "description": type_fields["properties"]["metadata"]["description"],
    });
    schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    schema
}

/// `io.k8s.api.apps.v1.Deployment`; of custom resources the group in reverse order.
fn definition_name(group: &str, version: &str, resource: &ResourceType) -> String {
    if let Some(definition) = Definition::of_kind(group, version, &resource.kind).filter(|_| !resource.custom) {
        return definition.name.to_owned();
    }
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{}", reversed.join("."), resource.kind)
}

/// Adds a definition and all that it refers to.
fn require(name: &str, into: &mut BTreeSet<&'static str>) {
    let Some(definition) = Definition::find(name) else {
        return;
    };
    if !into.insert(definition.name) {
        return;
    }
    for reference in definition.references() {
        require(reference, into);
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE_PREFIX}{name}")})
}

fn add_paths(
    paths: &mut Map<String, Value>,
    group: &str,
    version: &str,
    resource: &ResourceType,
    served: &ResourceVersion,
    schema: &str,
) {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let plural = &resource.plural;
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let kind = json!({"group": group, "version": version, "kind": resource.kind});
    let operation = Operation { kind: &kind, schema, custom: resource.custom };
    let mut item_parameters = vec![path_parameter("name")];
    let mut collection_parameters = Vec::new();
    if resource.namespaced {
        item_parameters.push(path_parameter("namespace"));
        collection_parameters.push(path_parameter("namespace"));
        paths.insert(format!("{root}/{plural}"), json!({"get": operation.read("list")}));
    }
    paths.insert(
        collection.clone(),
        json!({
            "get": operation.read("list"), "post": operation.write("post"),
            "delete": operation.delete("deletecollection"), "parameters": collection_parameters,
        }),
    );
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": operation.read("get"), "put": operation.write("put"), "patch": operation.patch(),
            "delete": operation.delete("delete"), "parameters": item_parameters,
        }),
    );
    let scale_kind = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let scale = Operation { kind: &scale_kind, schema: SCALE, custom: resource.custom };
    let subresources = [("status", served.status, &operation), ("scale", served.scale.is_some(), &scale)];
    for (name, _, operation) in subresources.into_iter().filter(|(_, exists, _)| *exists) {
        paths.insert(
            format!("{collection}/{{name}}/{name}"),
            json!({
                "get": operation.read("get"), "put": operation.write("put"), "patch": operation.patch(),
                "parameters": item_parameters,
            }),
        );
    }
}

/// What is said of the operations on one kind.
struct Operation<'a> {
    kind: &'a Value,
    schema: &'a str,
    custom: bool,
}

impl Operation<'_> {
    fn read(&self, action: &str) -> Value {
        self.describe(action, &[], None)
    }

    fn write(&self, action: &str) -> Value {
        let body = json!({"content": {"*/*": {"schema": reference(self.schema)}}, "required": true});
        self.describe(action, &["dryRun", "fieldManager", "fieldValidation"], Some(body))
    }

    fn patch(&self) -> Value {
        let mut types =
            vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
        if !self.custom {
            types.push("application/strategic-merge-patch+json");
        }
        let content: Map<String, Value> =
            types.into_iter().map(|name| (name.to_owned(), json!({"schema": {"type": "object"}}))).collect();
        let body = json!({"content": content, "required": true});
        self.describe("patch", &["dryRun", "fieldManager", "fieldValidation", "force"], Some(body))
    }

    fn delete(&self, action: &str) -> Value {
        let body = json!({"content": {"*/*": {"schema": reference(DELETE_OPTIONS)}}});
        let parameters = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
        self.describe(action, &parameters, Some(body))
    }

    fn describe(&self, action: &str, parameters: &[&str], body: Option<Value>) -> Value {
        let parameters: Vec<Value> = parameters.iter().map(|name| query_parameter(name)).collect();
        let content = json!({"application/json": {"schema": reference(self.schema)}});
        let mut operation = json!({
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.kind,
        });
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        operation
    }
}

fn query_parameter(name: &str) -> Value {
    let value_type = match name {
        "force" | "orphanDependents" => "boolean",
        "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": value_type, "uniqueItems": true}})
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

/// A hash of all built-in definitions.
static BUILTIN_HASH: LazyLock<u64> = LazyLock::new(|| fold(0xCBF2_9CE4_8422_2325, super::definitions::TEXT.as_bytes()));

/// FNV-1a: the hash has to be the same in every process, not secure.
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}
