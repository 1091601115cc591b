//! Manifests of Flagger's end-to-end tests and examples.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The folder of fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/flagger")
}

/// All documents of a YAML file.
pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("parse {}: {error}", path.display()))
}

/// Flagger's CustomResourceDefinitions: Canary, MetricTemplate, AlertProvider.
///
/// The file continues quoted texts at the indentation of their key. Go's parser lets that pass, others do not.
pub(crate) fn flagger_crds() -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("crd.yaml")).expect("the file is there");
    let mut indented = String::new();
    let mut inside_quotes = false;
    for line in text.lines() {
        if inside_quotes {
            indented.push_str("  ");
        }
        indented.push_str(line);
        indented.push('\n');
        let is_quoted_text = inside_quotes || line.trim_start().starts_with("description: '");
        if is_quoted_text && line.matches('\'').count() % 2 == 1 {
            inside_quotes = !inside_quotes;
        }
    }
    serde_saphyr::from_multiple(&indented).expect("YAML")
}

/// Every object of `flagger.app` in the end-to-end tests and examples, with the file it comes from.
pub(crate) fn flagger_objects() -> Vec<(String, Value)> {
    let mut objects = Vec::new();
    for folder in ["e2e", "examples"] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures().join(folder))
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .collect();
        files.sort();
        for file in files {
            let name = format!("{folder}/{}", file.file_name().expect("a file").to_string_lossy());
            for document in documents(&file) {
                if document["apiVersion"] == "flagger.app/v1beta1" {
                    objects.push((name.clone(), document));
                }
            }
        }
    }
    objects
}

/// The value without nulls, which mean the same as absence.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Decodes an object by its kind and serialises it again.
pub(crate) fn round_trip(object: &Value) -> Result<Value, aviary_crds::DecodeError> {
    use aviary_crds::{AlertProvider, Canary, MetricTemplate, decode};
    let again = match object["kind"].as_str() {
        Some("Canary") => serde_json::to_value(decode::<Canary>(object)?),
        Some("MetricTemplate") => serde_json::to_value(decode::<MetricTemplate>(object)?),
        Some("AlertProvider") => serde_json::to_value(decode::<AlertProvider>(object)?),
        other => panic!("no type for kind {other:?}"),
    };
    Ok(again.expect("serialises"))
}
