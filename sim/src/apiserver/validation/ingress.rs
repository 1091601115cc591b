//! Ingresses (`pkg/apis/networking/validation`).

use serde_json::{Value, json};

use super::problems::{Problems, items};

pub(super) fn ingress(value: &Value, problems: &mut Problems) {
    let spec = &value["spec"];
    let rules = items(spec, "rules");
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        problems.invalid("spec", &Value::Null, detail);
    }
    if spec["defaultBackend"].is_object() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", problems);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        if rule["host"].as_str().is_some_and(|host| !host.is_empty() && !host.starts_with("*.")) {
            problems.dns_subdomain(format!("{path}.host"), &rule["host"]);
        }
        if !rule["http"].is_object() {
            continue;
        }
        let paths = items(&rule["http"], "paths");
        if paths.is_empty() {
            problems.required(format!("{path}.http.paths"), "");
        }
        for (position, item) in paths.iter().enumerate() {
            http_path(item, &format!("{path}.http.paths[{position}]"), problems);
        }
    }
}

fn http_path(item: &Value, path: &str, problems: &mut Problems) {
    let is_absolute = item["path"].as_str().is_some_and(|path| path.starts_with('/'));
    match item["pathType"].as_str() {
        None | Some("") => problems.required(format!("{path}.pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") if !is_absolute => {
            let given = json!(item["path"].as_str().unwrap_or_default());
            problems.invalid(format!("{path}.path"), &given, "must be an absolute path");
        }
        Some(_) => {
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            problems.one_of(format!("{path}.pathType"), &item["pathType"], &supported);
        }
    }
    backend(&item["backend"], &format!("{path}.backend"), problems);
}

fn backend(backend: &Value, path: &str, problems: &mut Problems) {
    let service = &backend["service"];
    match (service.is_object(), backend["resource"].is_object()) {
        (true, true) => {
            problems.invalid(path, &json!(""), "cannot set both resource and service backends");
        }
        (false, true) => {}
        (false, false) => problems.invalid(path, &json!(""), "resource or service backend is required"),
        (true, false) => {
            if problems.present(format!("{path}.service.name"), &service["name"]) {
                problems.dns_label(format!("{path}.service.name"), &service["name"]);
            }
            let port = &service["port"];
            let number = port["number"].as_i64().unwrap_or(0);
            let has_name = port["name"].as_str().is_some_and(|name| !name.is_empty());
            match (has_name, number) {
                (true, 0) => problems.port_name(&format!("{path}.service.port.name"), &port["name"]),
                (true, _) => problems.invalid(path, &json!(""), "cannot set both port name & port number"),
                (false, 0) => problems.required(path, "port name or number is required"),
                (false, number) => problems.port(format!("{path}.service.port.number"), number),
            }
        }
    }
}
