//! One write to the API server, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use aviary_providers::{Change, ObjectKey, Verb, kinds};
use dashmap::DashSet;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::Value;

use crate::cache::Cache;
use crate::messages::{WriteError, WriteOrder};

/// A write that takes longer is given up. Each carries the version it was decided on, so a late effect overwrites nobody's
/// change. An API server's own limit for a request is a minute.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Owner of our fields in `metadata.managedFields`.
const FIELD_MANAGER: &str = "aviary";

/// Canaries whose status may be another one than the cache says: a write of it had no answer. What is decided on such a
/// state may be wrong, and the version of another object does not fence it off.
pub(super) type Doubts = DashSet<ObjectKey>;

pub(super) async fn execute(
    client: Client,
    cache: Arc<Cache>,
    doubts: Arc<Doubts>,
    canary: ObjectKey,
    order: WriteOrder,
) -> Result<(), WriteError> {
    if doubts.contains(&canary) {
        let what = format!("reading {} {}.{}", kind_of(&canary), canary.name, canary.namespace);
        limited(&what, clear_up(&client, &cache, &doubts, &canary, &what)).await?;
    }
    match order {
        WriteOrder::Changes(changes) => {
            for change in changes {
                let what = describe(&change);
                limited(&what, apply(&client, &cache, change, &what)).await?;
            }
            Ok(())
        }
        WriteOrder::Status(object) => {
            let what = format!("updating {} {}.{} status", kind_of(&canary), canary.name, canary.namespace);
            limited(&what, write_status(&client, &cache, &doubts, &canary, &object, &what)).await
        }
        WriteOrder::Refresh(keys) => {
            for key in keys {
                let what = format!("reading {} {}.{}", key.kind.kind, key.name, key.namespace);
                let read =
                    async { refresh(&api(&client, &key), &cache, &key).await.map_err(|error| failed(&what, &error)) };
                limited(&what, read).await?;
            }
            Ok(())
        }
    }
}

/// As in messages: `canary`.
fn kind_of(canary: &ObjectKey) -> String {
    canary.kind.kind.to_lowercase()
}

async fn limited(what: &str, write: impl Future<Output = Result<(), WriteError>>) -> Result<(), WriteError> {
    match tokio::time::timeout(TIMEOUT, write).await {
        Ok(result) => result,
        Err(_) => Err(WriteError::Failed(format!("{what} failed: no answer from the API server within {TIMEOUT:?}"))),
    }
}

async fn apply(client: &Client, cache: &Cache, change: Change, what: &str) -> Result<(), WriteError> {
    let Change { key, verb } = change;
    if !is_conditional(&verb) {
        return Err(unconditional(what));
    }
    let api = api(client, &key);
    let field_manager = Some(FIELD_MANAGER.to_owned());
    tracing::debug!(
        kind = key.kind.kind,
        namespace = key.namespace,
        name = key.name,
        patch = loggable_patch(&key, &verb),
        "{what}"
    );
    let answer = match &verb {
        Verb::Delete { uid, version } => {
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&key.name, &params).await {
                // The watch tells that it is gone.
                Ok(_) => return Ok(()),
                Err(error) => Err(error),
            }
        }
        Verb::Create(object) => {
            let params = PostParams { field_manager, ..PostParams::default() };
            api.create(&params, object).await
        }
        Verb::Patch(patch) => {
            let params = PatchParams { field_manager, ..PatchParams::default() };
            api.patch(&key.name, &params, &Patch::Merge(patch)).await
        }
        Verb::SetInSpec { generation, uid, path, value } => {
            let params = PatchParams { field_manager, ..PatchParams::default() };
            let operations = Verb::operations(*generation, uid, path, value);
            let operations: json_patch::Patch = serde_json::from_value(operations)
                .map_err(|error| WriteError::Failed(format!("{what} failed: {error}")))?;
            let answer = api.patch(&key.name, &params, &Patch::<()>::Json(operations)).await;
            if is_invalid(&answer) {
                refresh(&api, cache, &key).await.map_err(|error| failed(what, &error))?;
                // A test that fails and a value that is refused are answered alike.
                if !is_of_generation(cache, &key, *generation, uid) {
                    return Err(WriteError::Conflict);
                }
            }
            answer
        }
    };
    settle(&api, cache, &key, answer, what).await
}

/// Whether the write is refused where the object is not the observed one any more. All of them are: whatever is sent late, by
/// a process that was stopped or past a timeout, must not undo what was done since.
fn is_conditional(verb: &Verb) -> bool {
    match verb {
        Verb::Create(_) => true,
        Verb::Patch(patch) => is_version(patch.pointer("/metadata/resourceVersion").and_then(Value::as_str)),
        Verb::SetInSpec { uid, .. } => !uid.is_empty(),
        Verb::Delete { uid, version } => !uid.is_empty() && is_version(Some(version)),
    }
}

/// An API server takes an empty version for none.
fn is_version(version: Option<&str>) -> bool {
    version.is_some_and(|version| !version.is_empty())
}

fn unconditional(what: &str) -> WriteError {
    WriteError::Failed(format!("{what} failed: it does not say which version of the object it was decided on"))
}

/// Reads a canary of which it is not known what the last write made of it. Whoever wants to write has to decide again.
async fn clear_up(
    client: &Client,
    cache: &Cache,
    doubts: &Doubts,
    canary: &ObjectKey,
    what: &str,
) -> Result<(), WriteError> {
    refresh(&api(client, canary), cache, canary).await.map_err(|error| failed(what, &error))?;
    doubts.remove(canary);
    Err(WriteError::Conflict)
}

fn is_invalid(answer: &kube::Result<DynamicObject>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.code == 422)
}

fn is_of_generation(cache: &Cache, key: &ObjectKey, generation: i64, uid: &str) -> bool {
    cache.get(key).is_some_and(|object| {
        object.metadata.generation == Some(generation) && object.metadata.uid.as_deref() == Some(uid)
    })
}

async fn write_status(
    client: &Client,
    cache: &Cache,
    doubts: &Doubts,
    key: &ObjectKey,
    object: &DynamicObject,
    what: &str,
) -> Result<(), WriteError> {
    if !is_version(object.metadata.resource_version.as_deref()) {
        return Err(unconditional(what));
    }
    let api = api(client, key);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    // Stays if no answer comes, whatever the reason.
    doubts.insert(key.clone());
    let answer = api.replace_status(&key.name, &params, object).await;
    if is_definite(&answer) {
        doubts.remove(key);
    }
    settle(&api, cache, key, answer, what).await
}

/// Whether it is known what the write did: it was made, or refused. After an error of the server's own, or of the
/// connection, it may have been made.
fn is_definite(answer: &kube::Result<DynamicObject>) -> bool {
    match answer {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => status.code < 500,
        Err(_) => false,
    }
}

/// Takes the written object into the cache; on a conflict, the present one.
async fn settle(
    api: &Api<DynamicObject>,
    cache: &Cache,
    key: &ObjectKey,
    answer: kube::Result<DynamicObject>,
    what: &str,
) -> Result<(), WriteError> {
    match answer {
        Ok(object) => {
            cache.apply(key.kind, object);
            Ok(())
        }
        // Somebody else was faster, or the answer to an earlier try of ours was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            refresh(api, cache, key).await.map_err(|error| failed(what, &error))?;
            Err(WriteError::Conflict)
        }
        Err(kube::Error::Api(status)) if status.code == 404 && cache.contains(key) => {
            cache.forget(key);
            Err(WriteError::Conflict)
        }
        Err(error) => Err(failed(what, &error)),
    }
}

async fn refresh(api: &Api<DynamicObject>, cache: &Cache, key: &ObjectKey) -> kube::Result<()> {
    match api.get_opt(&key.name).await? {
        Some(object) => cache.apply(key.kind, object),
        None => cache.forget(key),
    }
    Ok(())
}

fn api(client: &Client, key: &ObjectKey) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &key.namespace, &key.kind.api_resource())
}

fn describe(change: &Change) -> String {
    let key = &change.key;
    let verb = match &change.verb {
        Verb::Create(_) => "creating",
        Verb::Delete { .. } => "deleting",
        Verb::Patch(_) | Verb::SetInSpec { .. } => "updating",
    };
    format!("{verb} {} {}.{}", key.kind.kind, key.name, key.namespace)
}

/// The patch, unless it holds what tenants keep secret. `--log-level` is `debug` if nobody says otherwise.
fn loggable_patch(key: &ObjectKey, verb: &Verb) -> Option<String> {
    match verb {
        Verb::Patch(patch) if *key.kind != kinds::SECRET && *key.kind != kinds::CONFIG_MAP => Some(patch.to_string()),
        Verb::SetInSpec { path, value, .. } => Some(format!("{path}: {value}")),
        Verb::Patch(_) | Verb::Create(_) | Verb::Delete { .. } => None,
    }
}

/// With what is behind it: "client error (Connect)" alone does not tell a refused connection from a bad certificate.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

fn failed(what: &str, error: &kube::Error) -> WriteError {
    let cause = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => with_sources(other),
    };
    WriteError::Failed(format!("{what} failed: {cause}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use serde_json::json;

    #[test]
    fn contents_of_secrets_and_configs_are_not_logged() {
        let logged = |kind| {
            let key = ObjectKey { kind, namespace: "test".into(), name: "a".into() };
            loggable_patch(&key, &Verb::Patch(json!({"data": {"password": "x"}})))
        };
        assert_eq!(logged(&kinds::SECRET), None);
        assert_eq!(logged(&kinds::CONFIG_MAP), None);
        assert_eq!(logged(&kinds::VIRTUAL_SERVICE).as_deref(), Some(r#"{"data":{"password":"x"}}"#));
    }

    /// How many requests an order leads to, and its end.
    async fn requests_of(order: WriteOrder) -> (usize, Result<(), WriteError>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "a", "namespace": "test"}});
            let answer = http::Response::new(kube::client::Body::from(object.to_string().into_bytes()));
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let canary = key(&kinds::CANARY);
        let end = execute(Client::new(server, "test"), Arc::default(), Arc::default(), canary, order).await;
        (sent.load(Ordering::Relaxed), end)
    }

    fn key(kind: &'static aviary_providers::ObjectKind) -> ObjectKey {
        ObjectKey { kind, namespace: "test".into(), name: "a".into() }
    }

    #[tokio::test]
    async fn a_write_that_names_no_version_is_not_sent() {
        let change = |verb| WriteOrder::Changes(vec![Change { key: key(&kinds::DEPLOYMENT), verb }]);
        let patch =
            |metadata: serde_json::Value| change(Verb::Patch(json!({"metadata": metadata, "spec": {"replicas": 2}})));
        let scale = |uid: &str| {
            let uid = uid.to_owned();
            change(Verb::SetInSpec { generation: 3, uid, path: "/spec/replicas", value: json!(2) })
        };
        let status = |metadata: serde_json::Value| {
            let object = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata});
            WriteOrder::Status(Box::new(serde_json::from_value(object).unwrap()))
        };
        for (what, order) in [
            ("a patch", patch(json!({"labels": {"a": "b"}}))),
            ("a patch of any version", patch(json!({"resourceVersion": ""}))),
            ("a scale of no object in particular", scale("")),
            ("a status", status(json!({"name": "a", "namespace": "test"}))),
        ] {
            let (sent, end) = requests_of(order).await;
            assert_eq!(sent, 0, "{what}");
            assert!(matches!(&end, Err(WriteError::Failed(text)) if text.contains("which version")), "{what}: {end:?}");
        }
        for (what, order) in [
            ("a patch", patch(json!({"resourceVersion": "7"}))),
            ("a scale", scale("u")),
            ("a status", status(json!({"name": "a", "namespace": "test", "resourceVersion": "7"}))),
        ] {
            assert_eq!(requests_of(order).await.0, 1, "{what}");
        }
    }
}
