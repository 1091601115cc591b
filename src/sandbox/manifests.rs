//! Manifests that are applied when the sandbox starts.

use std::path::PathBuf;

use anyhow::Context;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, discovery};
use serde_json::Value;

use crate::embedded;
use crate::simulate::{files, manifests};

/// Creates or updates what the files hold, in their order; namespaces come first, and missing ones are made.
pub(super) async fn apply(client: &Client, paths: &[PathBuf]) -> anyhow::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let (texts, mut problems) = files::read(&paths, false);
    let (manifests, unreadable) = manifests::read(&texts, "default");
    problems.extend(unreadable);
    if !problems.is_empty() {
        anyhow::bail!("read the manifests (-f): {}", problems.join("\n"));
    }
    for note in &manifests.notes {
        tracing::warn!("{note}");
    }
    let mut manifests = manifests.objects;
    // Stable: everything else stays in the order of the files.
    manifests.sort_by_key(|manifest| !manifest.is("", "Namespace"));
    for manifest in manifests {
        let title = manifest.title();
        apply_one(client, manifest.object).await.with_context(|| format!("apply {title} (-f)"))?;
    }
    Ok(())
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
        discovery::Scope::Cluster => {
            object.metadata.namespace = None;
            Api::all_with(client.clone(), &resource)
        }
        discovery::Scope::Namespaced => {
            let namespace = object.metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
            ensure_namespace(client, &namespace).await?;
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    match embedded::create_strictly(client, &api, &object).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let name = object.metadata.name.clone().unwrap_or_default();
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await;
            patched.map(drop).map_err(in_plain_words)
        }
        created => created.map_err(in_plain_words),
    }
}

/// What the API server said, without the answer around it.
fn in_plain_words(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!(status.message),
        other => other.into(),
    }
}

async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
    let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    if namespaces.get_opt(name).await?.is_none() {
        let created = namespaces.create(&PostParams::default(), &DynamicObject::new(name, &resource)).await;
        created.map_err(in_plain_words)?;
    }
    Ok(())
}
