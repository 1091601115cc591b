//! Validation of CustomResourceDefinitions (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::super::schema::structural;
use crate::store::{FieldError, FieldReason};

const LABEL_PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";

static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!("^{LABEL_PATTERN}$")).ok());

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

/// All problems of a definition, in the API server's words and order.
pub(crate) fn problems(definition: &Value) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = format!("{}.{}", text(&names["plural"]), text(&spec["group"]));
    if definition["metadata"]["name"] != name.as_str() {
        problems.push(FieldError::invalid(
            "metadata.name",
            &definition["metadata"]["name"],
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    check_group(definition, &mut problems);
    match spec["scope"].as_str() {
        None | Some("") => problems.push(FieldError::required("spec.scope", "")),
        Some("Cluster" | "Namespaced") => {}
        Some(_) => problems.push(unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"])),
    }
    if spec["preserveUnknownFields"] == true {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        problems.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), detail));
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    check_versions(spec, versions, &mut problems);
    check_names(names, &mut problems);
    check_conversion(&spec["conversion"], &mut problems);
    check_stored_versions(definition, versions, &mut problems);
    problems
}

fn check_group(definition: &Value, problems: &mut Vec<FieldError>) {
    let group = &definition["spec"]["group"];
    let text = group.as_str().unwrap_or_default();
    if text.is_empty() {
        problems.push(FieldError::required("spec.group", ""));
        return;
    }
    if !text.contains('.') {
        problems.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| text == *domain || text.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let annotation = "api-approved.kubernetes.io";
    if is_protected && definition["metadata"]["annotations"][annotation].as_str().is_none_or(str::is_empty) {
        problems.push(FieldError::required(
            format!("metadata.annotations[{annotation}]"),
            format!(
                "protected groups must have approval annotation \"{annotation}\", see \
                 https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ));
    }
}

fn check_versions(spec: &Value, versions: &[Value], problems: &mut Vec<FieldError>) {
    // What all versions have in common is told of the definition as a whole, as its internal type has it.
    let shared = |part: &str| versions.windows(2).all(|pair| pair[0][part] == pair[1][part]);
    let path_of = |index: usize, part: &str, shared_path: &str| {
        if shared(part) { shared_path.to_owned() } else { format!("spec.versions[{index}].{part}") }
    };
    let mut names: Vec<&Value> = Vec::new();
    let mut are_unique = true;
    for (index, version) in versions.iter().enumerate() {
        check_label(&format!("spec.versions[{index}].name"), &version["name"], "", problems);
        are_unique &= !names.contains(&&version["name"]);
        names.push(&version["name"]);
        let declared = &version["schema"]["openAPIV3Schema"];
        if declared.is_null() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            problems.push(FieldError::required(field, ""));
            continue;
        }
        if shared("schema") && index > 0 {
            continue;
        }
        let path = if shared("schema") {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{index}].schema.openAPIV3Schema")
        };
        problems.extend(structural::problems(declared, &path));
    }
    if !are_unique {
        let detail = "must contain unique version names";
        problems.push(printed_invalid("spec.versions", print_versions(spec, versions), detail));
    }
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        problems.push(printed_invalid("spec.versions", print_versions(spec, versions), detail));
    }
    if let Some(first) = versions.first() {
        check_label("spec.version", &first["name"], "", problems);
    }
    for (index, version) in versions.iter().enumerate() {
        if index == 0 || !shared("subresources") {
            let path = path_of(index, "subresources", "spec.subresources");
            check_scale(&version["subresources"]["scale"], &format!("{path}.scale"), problems);
        }
        if index == 0 || !shared("additionalPrinterColumns") {
            let path = path_of(index, "additionalPrinterColumns", "spec.additionalPrinterColumns");
            check_columns(&version["additionalPrinterColumns"], &path, problems);
        }
        if index == 0 || !shared("selectableFields") {
            let path = path_of(index, "selectableFields", "spec.selectableFields");
            problems.extend(super::selectable::problems(
                &version["selectableFields"],
                &version["schema"]["openAPIV3Schema"],
                &path,
            ));
        }
    }
    if stored == 0 {
        let detail = "must have at least one stored version";
        problems.push(FieldError::invalid("status.storedVersions", &Value::Null, detail));
    }
}

/// A version in which objects may be stored has to stay.
fn check_stored_versions(definition: &Value, versions: &[Value], problems: &mut Vec<FieldError>) {
    let stored = definition["status"]["storedVersions"].as_array();
    for (index, stored) in stored.into_iter().flatten().enumerate() {
        let Some(name) = stored.as_str() else { continue };
        if versions.iter().any(|version| version["name"] == name) {
            continue;
        }
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        problems.push(FieldError::invalid(format!("status.storedVersions[{index}]"), stored, detail));
    }
}

/// Versions as Go prints the internal type.
fn print_versions(spec: &Value, versions: &[Value]) -> String {
    if !spec["versions"].is_array() {
        return "null".to_owned();
    }
    let flag = |value: &Value| value == true;
    let printed: Vec<String> = versions
        .iter()
        .map(|version| {
            format!(
                "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":null,\
                 \"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
                version["name"],
                flag(&version["served"]),
                flag(&version["storage"]),
                flag(&version["deprecated"]),
                version["deprecationWarning"],
            )
        })
        .collect();
    format!("[{}]", printed.join(","))
}

fn check_scale(scale: &Value, path: &str, problems: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    let paths = [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")];
    for (field, root) in paths {
        let value = &scale[field];
        let field = format!("{path}.{field}");
        match value.as_str().unwrap_or_default() {
            "" => problems.push(FieldError::required(field, "")),
            text if !text.starts_with('.') => {
                problems.push(FieldError::invalid(field, value, "must be a simple json path starting with ."));
            }
            text if !text.starts_with(root) => {
                let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
                problems.push(FieldError::invalid(field, value, detail));
            }
            _ => {}
        }
    }
}

fn check_columns(columns: &Value, path: &str, problems: &mut Vec<FieldError>) {
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        if column["name"].as_str().is_none_or(str::is_empty) {
            problems.push(FieldError::required(format!("{path}.name"), ""));
        }
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        match column["type"].as_str().unwrap_or_default() {
            "" => problems.push(FieldError::required(format!("{path}.type"), detail)),
            name if !COLUMN_TYPES.contains(&name) => {
                problems.push(FieldError::invalid(format!("{path}.type"), &column["type"], detail));
            }
            _ => {}
        }
        match column["jsonPath"].as_str().unwrap_or_default() {
            "" => problems.push(FieldError::required(format!("{path}.JSONPath"), "")),
            text if !text.starts_with('.') => {
                let detail = "must be a simple json path starting with .";
                problems.push(FieldError::invalid(format!("{path}.JSONPath"), &column["jsonPath"], detail));
            }
            _ => {}
        }
    }
}

fn check_names(names: &Value, problems: &mut Vec<FieldError>) {
    let mixed_case = "may have mixed case, but should otherwise match: ";
    let plain = ["plural", "singular"].map(|field| (field, ""));
    let mixed = ["kind", "listKind"].map(|field| (field, mixed_case));
    for (field, prefix) in plain.into_iter().chain(mixed) {
        let path = format!("spec.names.{field}");
        if names[field].as_str().is_none_or(str::is_empty) {
            problems.push(FieldError::required(path, ""));
            continue;
        }
        check_label(&path, &names[field], prefix, problems);
    }
    for list in ["shortNames", "categories"] {
        for (index, name) in names[list].as_array().into_iter().flatten().enumerate() {
            check_label(&format!("spec.names.{list}[{index}]"), name, "", problems);
        }
    }
    let has_kind = names["kind"].as_str().is_some_and(|kind| !kind.is_empty());
    if has_kind && names["kind"] == names["listKind"] {
        let detail = "kind and listKind may not be the same";
        problems.push(FieldError::invalid("spec.names.listKind", &names["listKind"], detail));
    }
}

/// `IsDNS1035Label`; with a prefix, of the name in lower case.
fn check_label(path: &str, name: &Value, prefix: &str, problems: &mut Vec<FieldError>) {
    let text = name.as_str().unwrap_or_default();
    let checked = if prefix.is_empty() { text.to_owned() } else { text.to_lowercase() };
    let mut refuse = |rule: String| problems.push(FieldError::invalid(path, name, format!("{prefix}{rule}")));
    if checked.len() > 63 {
        refuse("must be no more than 63 characters".to_owned());
    }
    if !LABEL.as_ref().is_some_and(|pattern| pattern.is_match(&checked)) {
        refuse(format!(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
             is '{LABEL_PATTERN}')"
        ));
    }
}

fn check_conversion(conversion: &Value, problems: &mut Vec<FieldError>) {
    match conversion["strategy"].as_str() {
        None | Some("None") => {}
        Some("Webhook") => {
            if conversion["webhook"]["clientConfig"].is_null() {
                let detail = "required when strategy is set to Webhook";
                problems.push(FieldError::required("spec.conversion.webhookClientConfig", detail));
            }
            if conversion["webhook"]["conversionReviewVersions"].as_array().is_none_or(Vec::is_empty) {
                problems.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
            }
        }
        Some(_) => {
            problems.push(unsupported("spec.conversion.strategy", &conversion["strategy"], &["None", "Webhook"]));
        }
    }
}

fn printed_invalid(field: &str, value: String, detail: &str) -> FieldError {
    FieldError { reason: FieldReason::Invalid, field: field.to_owned(), value, detail: detail.to_owned() }
}

fn unsupported(field: &str, value: &Value, supported: &[&str]) -> FieldError {
    let supported: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
    FieldError {
        reason: FieldReason::NotSupported,
        field: field.to_owned(),
        value: value.to_string(),
        detail: format!("supported values: {}", supported.join(", ")),
    }
}
