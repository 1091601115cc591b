//! Label and field selectors.

mod labels;

use serde_json::Value;

pub(super) use labels::Labels;

use super::request::Target;
use crate::store::{Record, ResourceType, StatusError};

/// The conditions of a list, a watch or a collection delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    labels: Labels,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

impl Selectors {
    pub(crate) fn parse(target: &Target, labels: Option<&str>, fields: Option<&str>) -> Result<Self, StatusError> {
        Ok(Self { labels: Labels::parse(labels)?, fields: parse_fields(target, fields.unwrap_or_default())? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, where the selector names one.
    pub(crate) fn single_name(&self) -> Option<&str> {
        self.fields.iter().find(|field| field.equal && field.path == "metadata.name").map(|field| field.value.as_str())
    }

    /// Whether an object is selected. Names and labels are compared without decoding it.
    pub(crate) fn selects(&self, record: &Record) -> bool {
        let (of_identity, of_object): (Vec<&FieldRequirement>, Vec<_>) =
            self.fields.iter().partition(|requirement| requirement.path.starts_with("metadata."));
        let identity_fits = of_identity.into_iter().all(|requirement| {
            let text = if requirement.path == "metadata.name" { record.name() } else { record.namespace() };
            requirement.accepts(text)
        });
        if !identity_fits {
            return false;
        }
        if !self.labels.is_empty() && !self.labels.select(&record.labels()) {
            return false;
        }
        if of_object.is_empty() {
            return true;
        }
        let object = record.value();
        of_object.into_iter().all(|requirement| requirement.accepts(&field_text(&object, &requirement.path)))
    }
}

impl FieldRequirement {
    fn accepts(&self, text: &str) -> bool {
        (text == self.value) == self.equal
    }
}

fn parse_fields(target: &Target, text: &str) -> Result<Vec<FieldRequirement>, StatusError> {
    let resource = &*target.resource;
    let mut requirements = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (path, value, equal) = split_field(part).ok_or_else(|| {
            StatusError::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"))
        })?;
        let path = path.trim();
        let view = resource.versions.iter().find_map(|version| version.view);
        let stored = view.map_or_else(|| path.to_owned(), |view| view.stored_field(path));
        if !is_selectable(target, &stored) {
            return Err(StatusError::bad_request(unknown_field(resource, path)));
        }
        requirements.push(FieldRequirement { path: stored, value: value.to_owned(), equal });
    }
    Ok(requirements)
}

fn split_field(part: &str) -> Option<(&str, &str, bool)> {
    if let Some((path, value)) = part.split_once("!=") {
        return Some((path, value, false));
    }
    if let Some((path, value)) = part.split_once("==") {
        return Some((path, value, true));
    }
    let (path, value) = part.split_once('=')?;
    Some((path, value, true))
}

fn unknown_field(resource: &ResourceType, path: &str) -> String {
    if resource.custom {
        format!("field label not supported: {path}")
    } else if extra_fields(resource).is_empty() {
        format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {path}")
    }
}

fn is_selectable(target: &Target, path: &str) -> bool {
    let resource = &*target.resource;
    let declared =
        target.served_version().is_some_and(|version| version.selectable_fields.iter().any(|field| field == path));
    let common = path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced);
    common || declared || extra_fields(resource).contains(&path)
}

/// Selectable fields beyond name and namespace (`pkg/apis/*/v1/conversion.go`).
fn extra_fields(resource: &ResourceType) -> &'static [&'static str] {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("" | "events.k8s.io", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "Secret") => &["type"],
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

fn field_text(object: &Value, path: &str) -> String {
    if path == "status.successful" {
        return object["status"]["succeeded"].as_i64().unwrap_or(0).to_string();
    }
    if path == "source" {
        return object["source"]["component"].as_str().unwrap_or_default().to_owned();
    }
    let mut value = object;
    for segment in path.split('.') {
        value = &value[segment];
    }
    match value {
        // Left out when they are false.
        Value::Null if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => false.to_string(),
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
