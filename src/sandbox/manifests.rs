//! Manifests that are applied when the sandbox starts.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, discovery};
use serde_json::Value;

/// Creates or updates what the files hold, in their order; namespaces come first, and missing ones are made.
pub(super) async fn apply(client: &Client, paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for path in paths {
        for (name, text) in read(path)? {
            let documents = parse(&text).with_context(|| format!("read {name} (-f)"))?;
            objects.extend(documents.into_iter().map(|object| (name.clone(), object)));
        }
    }
    // Stable: everything else stays in the order of the files.
    objects.sort_by_key(|(_, object)| object["kind"] != "Namespace");
    for (name, object) in objects {
        let shown = format!("{} {:?}", shown(&object["kind"]), shown(&object["metadata"]["name"]));
        apply_one(client, object).await.with_context(|| format!("apply {shown} of {name} (-f)"))?;
    }
    Ok(())
}

fn shown(text: &Value) -> &str {
    text.as_str().unwrap_or_default()
}

/// The texts of a file, or of the manifests in a directory, with their names.
fn read(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let name = path.display().to_string();
    if path == OsStr::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input (-f)")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let failed = || format!("read {name} (-f)");
    if !path.is_dir() {
        return Ok(vec![(name.clone(), fs::read_to_string(path).with_context(failed)?)]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(failed)? {
        let file = entry.with_context(failed)?.path();
        let extension = file.extension().and_then(OsStr::to_str);
        // As kubectl does without -R.
        if file.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("read {name} (-f): no file ends in .yaml, .yml or .json");
    }
    files.sort();
    files.iter().map(|file| Ok((file.display().to_string(), fs::read_to_string(file).with_context(failed)?))).collect()
}

/// The objects of a text, those of lists too.
fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document["items"].take() {
            Value::Array(items) if shown(&document["kind"]).ends_with("List") => objects.extend(items),
            Value::Null if document.is_null() => {}
            items => {
                if !items.is_null() {
                    document["items"] = items;
                } else if let Some(fields) = document.as_object_mut() {
                    fields.remove("items");
                }
                objects.push(document);
            }
        }
    }
    Ok(objects)
}

/// Creates an object, or merges it into the one that is there.
pub(super) async fn apply_one(client: &Client, object: Value) -> anyhow::Result<()> {
    let mut object: DynamicObject = serde_json::from_value(object).context("no Kubernetes object")?;
    let types = object.types.clone().context("apiVersion or kind is missing")?;
    let kind = GroupVersionKind::try_from(&types)?;
    let found = discovery::pinned_kind(client, &kind).await;
    let (resource, capabilities) =
        found.with_context(|| format!("the sandbox does not serve {}/{}", types.api_version, types.kind))?;
    let api = match capabilities.scope {
        discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        discovery::Scope::Namespaced => {
            let namespace = object.metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
            ensure_namespace(client, &namespace).await?;
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let name = object.metadata.name.clone().unwrap_or_default();
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await?;
        }
        created => drop(created?),
    }
    Ok(())
}

async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
    let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    if namespaces.get_opt(name).await?.is_none() {
        namespaces.create(&PostParams::default(), &DynamicObject::new(name, &resource)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn lists_are_taken_apart_and_empty_documents_skipped() {
        let text = "---\n# nothing\n---\nkind: List\nitems:\n- kind: A\n- kind: B\n---\nkind: C\nmetadata: {name: x}\n";
        let objects = parse(text).unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| shown(&object["kind"])).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(objects[2], serde_json::json!({"kind": "C", "metadata": {"name": "x"}}));
    }
}
