//! Deletion: finalizers, propagation, owner-reference garbage collection and namespace contents.
//!
//! A real cluster's garbage collector and namespace controller work a moment later; here their work is part of the deleting
//! commit, so that it needs no task and its order is the same in every run.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Shared;
use super::kinds::{CUSTOM_RESOURCE_DEFINITION, GroupKind, NAMESPACE, POD};
use super::record::Record;
use super::remains::Remains;
use super::state::{ObjectKey, State};

const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
const ORPHAN_FINALIZER: &str = "orphan";
/// Holds a CustomResourceDefinition until the last of its objects is gone.
const INSTANCES_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What becomes of the dependents of a deleted object (`metav1.DeletionPropagation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

/// How far a deletion got.
pub(crate) enum Deletion {
    /// The object is gone; this was its last state.
    Removed(Arc<Record>),
    /// Finalizers hold it; it carries a `deletionTimestamp` now.
    Marked(Arc<Record>),
}

impl State {
    pub(crate) fn delete(&mut self, shared: &Shared, key: &ObjectKey, propagation: Propagation) -> Option<Deletion> {
        let record = Arc::clone(self.record_of(key)?);
        if key.kind == NAMESPACE {
            return self.delete_namespace(shared, key, &record);
        }
        if key.kind == CUSTOM_RESOURCE_DEFINITION && self.delete_instances(shared, &record.value()) {
            self.mark(shared, key, &record, Some(INSTANCES_FINALIZER), None);
            return self.outcome(key, &record);
        }
        // The answer shows the object as the garbage collector finds it.
        match propagation {
            Propagation::Background => {}
            Propagation::Orphan => {
                self.mark(shared, key, &record, Some(ORPHAN_FINALIZER), None);
                let marked = Arc::clone(self.record_of(key)?);
                self.release_dependents(shared, record.uid());
                self.drop_finalizer(shared, key, &marked, ORPHAN_FINALIZER);
                return Some(Deletion::Marked(marked));
            }
            Propagation::Foreground => {
                self.mark(shared, key, &record, Some(FOREGROUND_FINALIZER), None);
                let marked = Arc::clone(self.record_of(key)?);
                self.delete_dependents(shared, record.uid());
                return Some(Deletion::Marked(marked));
            }
        }
        if record.finalizers().is_empty() {
            return self.remove(shared, key).map(Deletion::Removed);
        }
        if !record.is_deleting() {
            self.mark(shared, key, &record, None, None);
        }
        self.outcome(key, &record)
    }

    /// Marks an object that something else (a pod's kubelet) will remove after its grace period.
    pub(crate) fn delete_after_grace(
        &mut self,
        shared: &Shared,
        key: &ObjectKey,
        grace_seconds: u64,
    ) -> Option<Deletion> {
        let record = Arc::clone(self.record_of(key)?);
        if !record.is_deleting() {
            self.mark(shared, key, &record, None, Some(grace_seconds));
        }
        self.outcome(key, &record)
    }

    fn outcome(&self, key: &ObjectKey, last: &Arc<Record>) -> Option<Deletion> {
        Some(match self.record_of(key) {
            Some(present) => Deletion::Marked(Arc::clone(present)),
            None => Deletion::Removed(Arc::clone(last)),
        })
    }

    fn mark(
        &mut self,
        shared: &Shared,
        key: &ObjectKey,
        record: &Record,
        finalizer: Option<&str>,
        grace_seconds: Option<u64>,
    ) {
        self.put(shared, key, marked(shared, record, finalizer, grace_seconds));
    }

    /// Takes the object out and does what follows from its absence.
    pub(crate) fn remove(&mut self, shared: &Shared, key: &ObjectKey) -> Option<Arc<Record>> {
        let record = self.take(shared, key)?;
        for dependent in self.dependents_of(record.uid()) {
            self.collect_if_orphaned(shared, &dependent);
        }
        for owner in record.owner_uids() {
            self.finish_foreground(shared, owner);
        }
        if !key.namespace.is_empty() {
            self.finish_namespace(shared, &key.namespace);
        }
        self.finish_definition(shared, &key.kind);
        Some(record)
    }

    /// Deletes an object whose owners are all gone; otherwise drops the references that point nowhere
    /// (`garbagecollector.attemptToDeleteItem`).
    pub(crate) fn collect_if_orphaned(&mut self, shared: &Shared, key: &ObjectKey) {
        let Some(record) = self.record_of(key).cloned() else {
            return;
        };
        let owners = record.owner_uids();
        let present: Vec<&str> = owners.iter().copied().filter(|uid| self.owner_exists(uid, &key.namespace)).collect();
        if owners.is_empty() || present.len() == owners.len() {
            return;
        }
        if present.is_empty() {
            self.collect(shared, key, &record, Propagation::Background);
            return;
        }
        let present: Vec<String> = present.into_iter().map(str::to_owned).collect();
        self.retain_owners(shared, key, &record, |uid| present.iter().any(|kept| kept == uid));
    }

    /// What the cluster's own controllers delete goes through the API there too: running pods get their grace period.
    fn collect(&mut self, shared: &Shared, key: &ObjectKey, record: &Record, propagation: Propagation) {
        match pod_grace_seconds(key, record, None) {
            Some(seconds) => self.delete_after_grace(shared, key, seconds),
            None => self.delete(shared, key, propagation),
        };
    }

    /// A namespaced owner counts only for objects of its own namespace.
    fn owner_exists(&self, uid: &str, namespace: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|owner| owner.namespace.is_empty() || *owner.namespace == *namespace)
    }

    fn dependents_of(&self, uid: &str) -> Vec<ObjectKey> {
        self.dependents.get(uid).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    fn release_dependents(&mut self, shared: &Shared, uid: &str) {
        for key in self.dependents_of(uid) {
            if let Some(record) = self.record_of(&key).cloned() {
                self.retain_owners(shared, &key, &record, |owner| owner != uid);
            }
        }
    }

    fn retain_owners(&mut self, shared: &Shared, key: &ObjectKey, record: &Record, keep: impl Fn(&str) -> bool) {
        let mut value = record.to_value();
        let metadata = &mut value["metadata"];
        if let Some(owners) = metadata["ownerReferences"].as_array_mut() {
            owners.retain(|owner| owner["uid"].as_str().is_some_and(&keep));
            if owners.is_empty()
                && let Some(metadata) = metadata.as_object_mut()
            {
                metadata.remove("ownerReferences");
            }
        }
        self.put(shared, key, value);
    }

    fn delete_dependents(&mut self, shared: &Shared, uid: &str) {
        for key in self.dependents_of(uid) {
            let Some(record) = self.record_of(&key).cloned() else {
                continue;
            };
            let other_owner =
                record.owner_uids().into_iter().any(|owner| owner != uid && self.owner_exists(owner, &key.namespace));
            if other_owner {
                self.retain_owners(shared, &key, &record, |owner| owner != uid);
            } else {
                let is_owner = !self.dependents_of(record.uid()).is_empty();
                let propagation = if is_owner { Propagation::Foreground } else { Propagation::Background };
                self.collect(shared, &key, &record, propagation);
            }
        }
        self.finish_foreground(shared, uid);
    }

    /// Ends a foreground deletion once nothing with `blockOwnerDeletion` is left.
    fn finish_foreground(&mut self, shared: &Shared, uid: &str) {
        let Some(key) = self.by_uid.get(uid).cloned() else {
            return;
        };
        let Some(owner) = self.record_of(&key).cloned() else {
            return;
        };
        if !owner.finalizers().contains(&FOREGROUND_FINALIZER) {
            return;
        }
        let blocked = self
            .dependents_of(uid)
            .iter()
            .any(|dependent| self.record_of(dependent).is_some_and(|record| blocks_owner(&record.value(), uid)));
        if blocked {
            return;
        }
        self.drop_finalizer(shared, &key, &owner, FOREGROUND_FINALIZER);
    }

    /// Ends what a finalizer held an object for that is being deleted; it goes with its last one.
    fn drop_finalizer(&mut self, shared: &Shared, key: &ObjectKey, record: &Record, finalizer: &str) {
        let remaining: Vec<&str> = record.finalizers().into_iter().filter(|name| *name != finalizer).collect();
        if remaining.is_empty() {
            self.remove(shared, key);
            return;
        }
        let mut value = record.to_value();
        value["metadata"]["finalizers"] = json!(remaining);
        self.put(shared, key, value);
    }

    fn delete_namespace(&mut self, shared: &Shared, key: &ObjectKey, record: &Arc<Record>) -> Option<Deletion> {
        if !record.is_deleting() {
            let mut value = record.to_value();
            value["status"] = json!({"phase": "Terminating"});
            let terminating = Record::new(value, record.resource_version, Some(record));
            self.mark(shared, key, &terminating, None, None);
        }
        // The answer shows the object as the namespace controller finds it: terminating, its contents still to be removed.
        let marked = Arc::clone(self.record_of(key)?);
        let contents: Vec<ObjectKey> = self.keys_in(|_, namespace| *namespace == *key.name);
        for content in contents {
            if let Some(record) = self.record_of(&content).cloned() {
                self.collect(shared, &content, &record, Propagation::Background);
            }
        }
        self.finish_namespace(shared, &key.name);
        self.tell_of_namespace(shared, &key.name);
        Some(Deletion::Marked(marked))
    }

    /// Removes a terminating namespace that has become empty.
    fn finish_namespace(&mut self, shared: &Shared, namespace: &str) {
        if self.population.get(namespace).is_some_and(|count| *count > 0) {
            let told = self
                .record(&NAMESPACE, "", namespace)
                .is_some_and(|record| record.is_deleting() && record.value()["status"]["conditions"].is_array());
            // Nothing is told before the deletion has gone through everything.
            if told {
                self.tell_of_namespace(shared, namespace);
            }
            return;
        }
        let finished = self
            .record(&NAMESPACE, "", namespace)
            .is_some_and(|record| record.is_deleting() && record.finalizers().is_empty());
        if finished {
            self.population.remove(namespace);
            let key = ObjectKey { kind: NAMESPACE, namespace: "".into(), name: namespace.into() };
            self.remove(shared, &key);
        }
    }

    /// Writes into a terminating namespace what is left in it.
    fn tell_of_namespace(&mut self, shared: &Shared, namespace: &str) {
        let Some(record) = self.record(&NAMESPACE, "", namespace).cloned() else { return };
        let mut remains = Remains::default();
        for key in self.keys_in(|_, candidate| candidate == namespace) {
            let Some(record) = self.record_of(&key) else { continue };
            let resource = shared.registry.read().by_kind(&key.kind).map_or_else(
                || format!("{}.{}", key.kind.kind.to_lowercase(), key.kind.group),
                |resource| format!("{}.{}", resource.plural, resource.group),
            );
            remains.count(resource, &record.finalizers());
        }
        let mut value = record.to_value();
        if remains.write_conditions(&mut value["status"], shared.clock.now()) {
            let key = ObjectKey { kind: NAMESPACE, namespace: "".into(), name: namespace.into() };
            self.put(shared, &key, value);
        }
    }

    /// Deletes all objects of a definition; whether finalizers hold some of them.
    fn delete_instances(&mut self, shared: &Shared, definition: &Value) -> bool {
        let kind = defined_kind(definition);
        for key in self.keys_in(|candidate, _| *candidate == kind) {
            self.delete(shared, &key, Propagation::Background);
        }
        !self.keys_in(|candidate, _| *candidate == kind).is_empty()
    }

    /// Lets a definition go that is being deleted, once the last of its objects is gone.
    fn finish_definition(&mut self, shared: &Shared, kind: &GroupKind) {
        let Some(table) = self.tables.get(&CUSTOM_RESOURCE_DEFINITION) else { return };
        let definition = table.records(None).into_iter().find(|record| {
            record.is_deleting()
                && record.finalizers().contains(&INSTANCES_FINALIZER)
                && defined_kind(&record.value()) == *kind
        });
        let Some(definition) = definition else { return };
        if !self.keys_in(|candidate, _| candidate == kind).is_empty() {
            return;
        }
        let key = ObjectKey { kind: CUSTOM_RESOURCE_DEFINITION, namespace: "".into(), name: definition.name().into() };
        let others: Vec<&str> =
            definition.finalizers().into_iter().filter(|name| *name != INSTANCES_FINALIZER).collect();
        if others.is_empty() {
            self.remove(shared, &key);
            return;
        }
        let mut value = definition.to_value();
        value["metadata"]["finalizers"] = json!(others);
        self.put(shared, &key, value);
    }

    /// Keys in a stable order: by kind, namespace, name.
    fn keys_in(&self, wanted: impl Fn(&GroupKind, &str) -> bool) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for (kind, table) in &self.tables {
            for (namespace, objects) in &table.objects {
                if !wanted(kind, namespace) {
                    continue;
                }
                keys.extend(objects.keys().map(|name| ObjectKey {
                    kind: kind.clone(),
                    namespace: Arc::clone(namespace),
                    name: Arc::clone(name),
                }));
            }
        }
        keys.sort();
        keys
    }
}

/// An object that is being deleted.
fn marked(shared: &Shared, record: &Record, finalizer: Option<&str>, grace_seconds: Option<u64>) -> Value {
    let mut value = record.to_value();
    let now = shared.clock.now();
    let grace = grace_seconds.unwrap_or(0);
    let end = now.checked_add(std::time::Duration::from_secs(grace)).unwrap_or(now);
    let metadata = &mut value["metadata"];
    if metadata.get("deletionTimestamp").is_none() {
        metadata["deletionTimestamp"] = json!(crate::clock::format_seconds(end));
        metadata["deletionGracePeriodSeconds"] = json!(grace);
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata["generation"] = json!(generation + 1);
        }
    }
    if let Some(finalizer) = finalizer {
        let mut finalizers = record.finalizers();
        if !finalizers.contains(&finalizer) {
            finalizers.push(finalizer);
        }
        metadata["finalizers"] = json!(finalizers);
    }
    value
}

/// What a deletion makes of an object that does not go at once; `None` for one that does.
pub(crate) fn rehearsed(
    shared: &Shared,
    record: &Record,
    propagation: Propagation,
    grace_seconds: Option<u64>,
) -> Option<Record> {
    let finalizer = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND_FINALIZER),
        Propagation::Orphan => Some(ORPHAN_FINALIZER),
    };
    if finalizer.is_none() && grace_seconds.is_none() && record.finalizers().is_empty() {
        return None;
    }
    let value = marked(shared, record, finalizer, grace_seconds);
    Some(Record::new(value, record.resource_version, Some(record)))
}

fn defined_kind(definition: &Value) -> GroupKind {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    GroupKind::new(text("/spec/group"), text("/spec/names/kind"))
}

/// The grace period of a pod that runs on a node and so is removed by its kubelet; `None` for everything that goes at once
/// (`podStrategy.CheckGracefulDelete`).
pub(crate) fn pod_grace_seconds(key: &ObjectKey, record: &Record, requested: Option<u64>) -> Option<u64> {
    if key.kind != POD {
        return None;
    }
    let pod = record.value();
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return None;
    }
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return None;
    }
    // 30 s is the API server's default of `terminationGracePeriodSeconds`.
    let seconds = requested.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30);
    (seconds > 0).then_some(seconds)
}

fn blocks_owner(dependent: &Value, uid: &str) -> bool {
    dependent["metadata"]["ownerReferences"].as_array().is_some_and(|owners| {
        owners
            .iter()
            .any(|owner| owner["uid"].as_str() == Some(uid) && owner["blockOwnerDeletion"].as_bool() == Some(true))
    })
}
