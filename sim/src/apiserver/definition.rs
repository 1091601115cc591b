//! From a CustomResourceDefinition to a served resource.

pub(crate) mod checks;
mod istio;
mod selectable;
mod smi;

use std::sync::Arc;

use serde_json::{Value, json};

use super::discovery::priority;
use super::schema::{Schema, SchemaRef};
use super::table::custom::CustomColumns;
use crate::clock::{Clock, format_seconds};
use crate::store::{FieldError, GroupKind, ResourceType, ResourceVersion, ScalePaths};

/// Reads a definition (`apiextensions.k8s.io/v1`).
///
/// # Errors
/// Every problem of the definition, in the API server's words where it has one.
pub(crate) fn resource_type(definition: &Value) -> Result<ResourceType, Vec<FieldError>> {
    let mut problems = Vec::new();
    let spec = &definition["spec"];
    let group = text(&spec["group"]);
    let names = &spec["names"];
    let kind = text(&names["kind"]);
    let plural = text(&names["plural"]);
    for (path, value) in [("spec.group", &group), ("spec.names.plural", &plural), ("spec.names.kind", &kind)] {
        if value.is_empty() {
            problems.push(FieldError::required(path, ""));
        }
    }
    let name = text(&definition["metadata"]["name"]);
    if name != format!("{plural}.{group}") {
        problems.push(FieldError::invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group"));
    }
    let mut versions = Vec::new();
    let declared = spec["versions"].as_array().cloned().unwrap_or_default();
    // A schema that all versions share is the definition's own in the API server's internal form. It is compiled once.
    let shared = declared.iter().all(|other| other["schema"] == declared[0]["schema"]);
    let mut compiled: Option<SchemaRef> = None;
    for (index, version) in declared.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let schema = match &compiled {
            Some(schema) if shared => Ok(schema.clone()),
            _ => compile_schema(version, &path, shared),
        };
        match schema.map(|schema| resource_version(version, schema)) {
            Ok(found) => {
                compiled.clone_from(&found.schema);
                versions.push(ResourceVersion { deprecation: deprecation(spec, version), ..found });
            }
            Err(found) => problems.extend(found),
        }
    }
    let stored: Vec<usize> =
        declared.iter().enumerate().filter(|(_, version)| version["storage"] == true).map(|(index, _)| index).collect();
    if stored.len() != 1 {
        problems.push(FieldError::invalid(
            "spec.versions",
            &Value::Array(Vec::new()),
            "must have exactly one version marked as storage version",
        ));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ResourceType {
        group_kind: GroupKind::new(group.clone(), kind.clone()),
        list_kind: optional_text(&names["listKind"]).unwrap_or_else(|| format!("{kind}List")),
        singular: optional_text(&names["singular"]).unwrap_or_else(|| kind.to_lowercase()),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] != "Cluster",
        versions,
        storage: stored.first().copied().unwrap_or(0),
        tracks_generation: true,
        create_on_update: false,
        unconditional_update: false,
        returns_deleted: false,
        custom: true,
        stored_as: None,
        group,
        kind,
        plural,
    })
}

fn compile_schema(version: &Value, path: &str, is_shared: bool) -> Result<SchemaRef, Vec<FieldError>> {
    let schema_path = format!("{path}.schema.openAPIV3Schema");
    let declared = &version["schema"]["openAPIV3Schema"];
    if !declared.is_object() {
        return Err(vec![FieldError::required(schema_path, "schemas are required")]);
    }
    let compiled_path = if is_shared { "spec.validation.openAPIV3Schema" } else { &schema_path };
    Schema::compile(declared, compiled_path).map(SchemaRef::from)
}

fn resource_version(version: &Value, schema: SchemaRef) -> ResourceVersion {
    let columns = CustomColumns::parse(&version["additionalPrinterColumns"]);
    let subresources = &version["subresources"];
    let scale = &subresources["scale"];
    let scale = scale.is_object().then(|| ScalePaths {
        spec_replicas: field_path(&scale["specReplicasPath"]),
        status_replicas: field_path(&scale["statusReplicasPath"]),
        selector: optional_text(&scale["labelSelectorPath"]).map(|path| field_path(&json!(path))),
    });
    ResourceVersion {
        name: text(&version["name"]),
        served: version["served"] == true,
        status: subresources["status"].is_object(),
        scale,
        schema: Some(schema),
        selectable_fields: selectable_fields(&version["selectableFields"]),
        deprecation: None,
        columns: Some(Arc::new(columns)),
        view: None,
    }
}

/// Completes a new or changed definition: defaulted names and the status that the API server's own controllers would give it
/// a moment later (names accepted, established).
pub(crate) fn establish(definition: &mut Value, clock: &Clock) {
    let kind = text(&definition["spec"]["names"]["kind"]);
    let names = &mut definition["spec"]["names"];
    if names["singular"].as_str().is_none_or(str::is_empty) {
        names["singular"] = json!(kind.to_lowercase());
    }
    if names["listKind"].as_str().is_none_or(str::is_empty) && !kind.is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let storage = definition["spec"]["versions"]
        .as_array()
        .and_then(|versions| versions.iter().find(|version| version["storage"] == true))
        .map_or(Value::Null, |version| version["name"].clone());
    let mut stored_versions = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored_versions.contains(&storage) {
        stored_versions.push(storage);
    }
    let now = format_seconds(clock.now());
    let conditions = match definition["status"]["conditions"].as_array() {
        Some(present) if !present.is_empty() => Value::Array(present.clone()),
        _ => json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now,
             "reason": "NoConflicts", "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": now,
             "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
        ]),
    };
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "conditions": conditions,
        "storedVersions": stored_versions,
    });
}

/// Definitions that every embedded cluster starts with: Istio's, KEDA's and that of TrafficSplits, and Flagger's with schemas that take everything. A
/// definition of the same name given at start or through the API replaces them.
pub(crate) fn preinstalled() -> Vec<Value> {
    let mut definitions = istio::definitions();
    let flagger = |kind: &str, plural: &str, short: &str| permissive("flagger.app", kind, plural, short, "v1beta1");
    definitions.extend([
        flagger("Canary", "canaries", "cd"),
        flagger("MetricTemplate", "metrictemplates", ""),
        flagger("AlertProvider", "alertproviders", ""),
        crate::keda::definition(),
        smi::definition(),
    ]);
    definitions
}

fn permissive(group: &str, kind: &str, plural: &str, short: &str, version: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let short_names: Vec<&str> = if short.is_empty() { Vec::new() } else { vec![short] };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "shortNames": short_names},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
                "subresources": {"status": {}}, "additionalPrinterColumns": [],
            }],
        },
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional_text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// What clients of a deprecated version are warned of (`defaultDeprecationWarning`).
fn deprecation(spec: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(warning) = optional_text(&version["deprecationWarning"]) {
        return Some(warning);
    }
    let (group, kind, name) = (text(&spec["group"]), text(&spec["names"]["kind"]), text(&version["name"]));
    let others = spec["versions"].as_array().into_iter().flatten();
    let better = others
        .filter(|other| other["served"] == true && other["deprecated"] != true)
        .map(|other| text(&other["name"]))
        .filter(|other| priority(other) > priority(&name))
        .max_by_key(|other| priority(other));
    let advice = better.map_or_else(String::new, |better| format!("; use {group}/{better} {kind}"));
    Some(format!("{group}/{name} {kind} is deprecated{advice}"))
}

/// The paths of `selectableFields`, as field selectors name them.
fn selectable_fields(declared: &Value) -> Vec<String> {
    let declared = declared.as_array().map_or(&[][..], Vec::as_slice);
    declared.iter().map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned()).collect()
}

/// `.spec.replicas` as its field names.
fn field_path(path: &Value) -> Vec<String> {
    path.as_str().unwrap_or_default().split('.').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}
