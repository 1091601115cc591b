//! The history of DaemonSets and StatefulSets: a ControllerRevision per template, which `kubectl rollout history` and `undo`
//! read, after `pkg/controller/daemon/update.go` and `pkg/controller/history` of Kubernetes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{integer, text};
use super::queue::ObjectName;
use crate::store::kinds;

/// `spec.revisionHistoryLimit` where an object has none.
const DEFAULT_HISTORY_LIMIT: i64 = 10;

/// The revision of a workload's present template.
pub(super) struct Revision<'a> {
    /// The hash of the template.
    pub(super) hash: &'a str,
    /// The label of the ControllerRevision that holds the hash.
    pub(super) label: &'static str,
}

impl Revision<'_> {
    fn name(&self, owner: &str) -> String {
        format!("{owner}-{}", self.hash)
    }
}

impl Engine {
    /// Stores the revision of an object's template as its newest, and forgets the oldest that are neither present nor in use.
    pub(super) fn keep_revisions(&self, owner: &Value, revision: &Revision<'_>, is_used: impl Fn(&str) -> bool) {
        let owner_name = ObjectName::of(owner);
        let name = revision.name(&owner_name.name);
        let mut known = self.revisions_of(owner, &owner_name);
        let newest = known.last().map_or(0, |last| number(last));
        match known.iter().find(|known| text(known, "/metadata/name") == Some(&name)) {
            Some(present) if number(present) == newest => {}
            // A template that came back, as after an undo: the same revision under the newest number.
            Some(_) => self.update(&kinds::CONTROLLER_REVISION, &owner_name.sibling(&name), |present| {
                present["revision"] = (newest + 1).into();
            }),
            None => {
                let object = new_revision(owner, revision, &name, newest + 1);
                if let Err(error) = self.store.create(&kinds::CONTROLLER_REVISION, object) {
                    tracing::warn!(name, %error, "failed to create a controller revision");
                }
            }
        }
        let limit = integer(owner, "/spec/revisionHistoryLimit").unwrap_or(DEFAULT_HISTORY_LIMIT);
        known.retain(|known| {
            let known_name = text(known, "/metadata/name").unwrap_or_default();
            let hash = text(known, &format!("/metadata/labels/{}", revision.label.replace('/', "~1")));
            known_name != name && !hash.is_some_and(&is_used)
        });
        let surplus = known.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for old in known.iter().take(surplus) {
            let old = owner_name.sibling(text(old, "/metadata/name").unwrap_or_default());
            self.delete(&kinds::CONTROLLER_REVISION, &old);
        }
    }

    /// The revisions that an object owns, oldest first.
    fn revisions_of(&self, owner: &Value, name: &ObjectName) -> Vec<Arc<Value>> {
        let uid = &owner["metadata"]["uid"];
        let mut revisions = self.store.list(&kinds::CONTROLLER_REVISION, Some(&name.namespace));
        revisions.retain(|revision| {
            let owners = revision.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.into_iter().flatten().any(|owner| owner["uid"] == *uid)
        });
        revisions.sort_by_key(|revision| number(revision));
        revisions
    }
}

fn number(revision: &Value) -> i64 {
    integer(revision, "/revision").unwrap_or(0)
}

fn new_revision(owner: &Value, revision: &Revision<'_>, name: &str, number: i64) -> Value {
    let metadata = &owner["metadata"];
    let mut template = owner["spec"]["template"].clone();
    // What makes it a strategic merge patch that puts the whole template back.
    template["$patch"] = "replace".into();
    let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
    labels[revision.label] = revision.hash.into();
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": metadata["namespace"], "labels": labels,
            "ownerReferences": [{
                "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "data": {"spec": {"template": template}},
        "revision": number,
    });
    if metadata["annotations"].is_object() {
        object["metadata"]["annotations"] = metadata["annotations"].clone();
    }
    object
}
