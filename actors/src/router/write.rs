//! One write to the API server, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use aviary_providers::{Change, ObjectKey, Verb, kinds};
use dashmap::DashSet;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};

use crate::cache::{Cache, key_of};
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
        let what = format!("reading canary {}.{}", canary.name, canary.namespace);
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
            let Some(key) = key_of(&kinds::CANARY, &object) else {
                return Err(WriteError::Failed("the canary has no name".to_owned()));
            };
            let what = format!("updating canary {}.{} status", key.name, key.namespace);
            limited(&what, write_status(&client, &cache, &doubts, &key, &object, &what)).await
        }
    }
}

async fn limited(what: &str, write: impl Future<Output = Result<(), WriteError>>) -> Result<(), WriteError> {
    match tokio::time::timeout(TIMEOUT, write).await {
        Ok(result) => result,
        Err(_) => Err(WriteError::Failed(format!("{what} failed: no answer from the API server within {TIMEOUT:?}"))),
    }
}

async fn apply(client: &Client, cache: &Cache, change: Change, what: &str) -> Result<(), WriteError> {
    let Change { key, verb } = change;
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
        Verb::Create(object) => {
            let params = PostParams { field_manager, ..PostParams::default() };
            api.create(&params, object).await
        }
        Verb::Patch(patch) => {
            let params = PatchParams { field_manager, ..PatchParams::default() };
            api.patch(&key.name, &params, &Patch::Merge(patch)).await
        }
    };
    settle(&api, cache, &key, answer, what).await
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

async fn write_status(
    client: &Client,
    cache: &Cache,
    doubts: &Doubts,
    key: &ObjectKey,
    object: &DynamicObject,
    what: &str,
) -> Result<(), WriteError> {
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
        Verb::Patch(_) => "updating",
    };
    format!("{verb} {} {}.{}", key.kind.kind, key.name, key.namespace)
}

/// The patch, unless it holds what tenants keep secret. `--log-level` is `debug` if nobody says otherwise.
fn loggable_patch(key: &ObjectKey, verb: &Verb) -> Option<String> {
    match verb {
        Verb::Patch(patch) if *key.kind != kinds::SECRET && *key.kind != kinds::CONFIG_MAP => Some(patch.to_string()),
        Verb::Patch(_) | Verb::Create(_) => None,
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
}
