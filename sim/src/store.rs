//! The storage of the embedded cluster: objects, their versions, their history and their changes.
//!
//! [`Store`] is what etcd and the generic registry are to a real API server. The API server serves it; the cluster's own
//! controllers use it directly, without defaulting, validation or call counting.

mod builtin;
mod decoded;
mod deletion;
mod error;
pub mod kinds;
mod record;
mod registry;
mod remains;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

pub use error::{FieldError, FieldReason, StatusError};
pub use kinds::GroupKind;
pub use record::{ChangeType, StoreEvent};
pub use registry::{ResourceType, ResourceVersion, ScalePaths};

pub(crate) use deletion::{Deletion, Propagation, pod_grace_seconds, rehearsed as rehearsed_deletion};
pub(crate) use error::success_status;
pub(crate) use record::{Change, Part, PartChange, Record, to_bytes};
pub(crate) use registry::Registry;
pub(crate) use state::{ObjectKey, State};

use crate::apiserver::fields;
use crate::apiserver::metadata::no_name_or_base;
use crate::clock::Clock;
use crate::quotas::Contents;

/// A cheap, clonable handle to the storage. One lock inside, never held over an await.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    registry: RwLock<Registry>,
    state: Mutex<State>,
}

impl Shared {
    /// Follows a CustomResourceDefinition's change. A definition that does not parse is not served.
    fn refresh_registration(&self, change: ChangeType, definition: &Value) {
        let mut registry = self.registry.write();
        if change == ChangeType::Deleted {
            let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
            registry.unregister(text("/spec/group"), text("/spec/names/plural"));
            return;
        }
        match crate::apiserver::definition::resource_type(definition) {
            Ok(resource) => registry.register(resource),
            Err(problems) => tracing::warn!(?problems, "ignored an invalid resource definition"),
        }
    }
}

/// What a new watch begins with, and where its changes come from.
pub(crate) struct WatchFeed {
    pub(crate) initial: Vec<Arc<Record>>,
    pub(crate) missed: Vec<Arc<Change>>,
    pub(crate) changes: mpsc::Receiver<Arc<Change>>,
    pub(crate) revision: u64,
}

/// What a write to a part of an object comes to.
pub(crate) enum PartOutcome {
    /// The part is what it was.
    Unchanged,
    Changed(PartChange),
    /// Labels or annotations, and with them who owns the fields: the metadata as they are now, but for the version.
    MetadataChanged(Map<String, Value>),
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// With the present objects.
    Initial,
    /// After a version.
    After(u64),
}

impl Store {
    /// An empty store with the namespaces of a new cluster. The same seed gives the same uids and generated names.
    #[must_use]
    pub fn new(clock: Clock, seed: u64) -> Self {
        let store = Self {
            shared: Arc::new(Shared {
                clock,
                registry: RwLock::new(Registry::with_builtin_resources()),
                state: Mutex::new(State::new(seed)),
            }),
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let object = json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            });
            if let Err(error) = store.create(&kinds::NAMESPACE, object) {
                tracing::error!(%error, name, "failed to create an initial namespace");
            }
        }
        for mut definition in crate::apiserver::definition::preinstalled() {
            crate::apiserver::definition::establish(&mut definition, &clock);
            if let Err(error) = store.create(&kinds::CUSTOM_RESOURCE_DEFINITION, definition) {
                tracing::error!(%error, "failed to install an initial resource definition");
            }
        }
        store
    }

    /// The object's present state.
    #[must_use]
    pub fn get(&self, kind: &GroupKind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.shared.state.lock().record_in_use(kind, namespace, name).map(|record| record.value())
    }

    /// All objects of a kind, of one namespace or of all, sorted by namespace and name.
    #[must_use]
    pub fn list(&self, kind: &GroupKind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let state = self.shared.state.lock();
        let Some(table) = state.tables.get(kind) else {
            return Vec::new();
        };
        let records = table.records(namespace);
        drop(state);
        records.into_iter().map(|record| record.value()).collect()
    }

    /// Creates an object: fills name (from `generateName`), uid, creationTimestamp, generation, resourceVersion, and
    /// `apiVersion` and `kind` where they are missing.
    ///
    /// # Errors
    /// 403 where a quota of the namespace is used up, 404 for a kind that is not served, 409 for a name that is taken, 422 without
    /// a name.
    pub fn create(&self, kind: &GroupKind, mut object: Value) -> Result<Arc<Value>, StatusError> {
        let resource = self.resource_type(kind)?;
        if !object.is_object() {
            return Err(StatusError::bad_request("object is not a JSON object"));
        }
        object["apiVersion"] = Value::String(resource.storage_api_version());
        object["kind"] = Value::String(resource.kind.clone());
        let namespace = if resource.namespaced {
            object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned()
        } else {
            String::new()
        };
        self.insert(&resource, &namespace, object, false, |state, object| {
            // As the API server refuses it to everybody: a namespace that still got new contents would never be gone.
            match state.record(&kinds::NAMESPACE, "", &namespace) {
                Some(record) if record.is_deleting() => {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    Err(StatusError::namespace_terminating(&resource, &namespace, name))
                }
                _ => self.check_quotas(state, &resource, &namespace, object),
            }
        })
        .map(|record| record.value())
    }

    /// Reads, changes and writes an object under the lock.
    ///
    /// A change of anything but `metadata` and `status` raises the generation (for kinds that have one), but for the binding of a
    /// pod to a node, which in Kubernetes is no update. No change at all is no
    /// write: no event, same resourceVersion. Removing the last finalizer of an object that is being deleted removes the object.
    /// Name, namespace, uid and creationTimestamp cannot be changed. What the change sets belongs to `kube-controller-manager`, if
    /// the object's fields have owners at all: objects that [`Store::create`] made have none until something is applied to them.
    ///
    /// # Errors
    /// 404 when the object does not exist.
    pub fn update(
        &self,
        kind: &GroupKind,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, StatusError> {
        let resource = self.resource_type(kind)?;
        self.modify(&resource, namespace, name, |_, present| {
            let present = present.value();
            let mut value = (*present).clone();
            change(&mut value);
            restore_identity(&mut value, &present);
            let is_binding = resource.group_kind == kinds::POD && present["spec"].get("nodeName").is_none();
            if resource.tracks_generation && !is_binding && differs_outside_metadata(&value, &present, true) {
                raise_generation(&mut value, &present);
            }
            fields::track_controller(&resource, &present, &mut value, self.shared.clock.now());
            Ok(value)
        })
        .map(|(record, _)| record.value())
    }

    /// Deletes an object. With finalizers it only gets a `deletionTimestamp`; else it is gone at once, and so is what it owned.
    ///
    /// # Errors
    /// 404 when the object does not exist.
    pub fn delete(&self, kind: &GroupKind, namespace: &str, name: &str) -> Result<(), StatusError> {
        let resource = self.resource_type(kind)?;
        self.delete_checked(&resource, namespace, name, |state, key, _| {
            Ok(state.delete(&self.shared, key, Propagation::Background))
        })
        .map(|_| ())
    }

    /// Every later change, in commit order. Unbounded: the reader is a part of this process and cannot be refused.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<StoreEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.state.lock().subscribers.push(sender);
        receiver
    }

    /// The version of the last change in the cluster.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.state.lock().revision
    }

    /// The cluster's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// What is known of a kind.
    ///
    /// # Errors
    /// 404 for a kind that is not served.
    pub fn resource_type(&self, kind: &GroupKind) -> Result<Arc<ResourceType>, StatusError> {
        self.shared
            .registry
            .read()
            .by_kind(kind)
            .cloned()
            .ok_or_else(|| StatusError::new(404, "NotFound", format!("kind {kind} is not served")))
    }

    pub(crate) fn registry<T>(&self, read: impl FnOnce(&Registry) -> T) -> T {
        read(&self.shared.registry.read())
    }

    /// The kind that is served under a group and a plural.
    pub(crate) fn kind_of(&self, group: &str, plural: &str) -> Option<GroupKind> {
        self.registry(|registry| registry.by_path(group, plural).map(|resource| resource.group_kind.clone()))
    }

    /// Refuses a new object that is more than a quota of its namespace leaves (admission plugin ResourceQuota). Runs under the
    /// lock, so that two objects never share the last free place.
    pub(crate) fn check_quotas(
        &self,
        state: &State,
        resource: &ResourceType,
        namespace: &str,
        object: &Value,
    ) -> Result<(), StatusError> {
        let objects_of = |kind: &GroupKind| state.tables.get(kind).and_then(|table| table.objects.get(namespace));
        if objects_of(&kinds::RESOURCE_QUOTA).is_none_or(BTreeMap::is_empty) {
            return Ok(());
        }
        let contents = Contents {
            list: &|kind| objects_of(kind).into_iter().flatten().map(|(_, record)| record.value()).collect(),
            kind_of: &|group, plural| self.kind_of(group, plural),
        };
        contents.admit(resource, object["metadata"]["name"].as_str().unwrap_or_default(), object)
    }

    pub(crate) fn record(&self, kind: &GroupKind, namespace: &str, name: &str) -> Option<Arc<Record>> {
        self.shared.state.lock().record(kind, namespace, name).cloned()
    }

    /// The objects at the present version or at an older one, and that version. `None` for a version that was compacted.
    pub(crate) fn records(
        &self,
        kind: &GroupKind,
        namespace: Option<&str>,
        at: Option<u64>,
    ) -> Option<(Vec<Arc<Record>>, u64)> {
        let state = self.shared.state.lock();
        let version = at.unwrap_or(state.revision);
        let Some(table) = state.tables.get(kind) else {
            return Some((Vec::new(), version));
        };
        let records = match at {
            None => table.records(namespace),
            Some(at) => table.records_at(namespace, at)?,
        };
        Some((records, version))
    }

    /// Stores a new object after the caller's checks, which run under the lock and may complete it. A rehearsal, whose checks
    /// end it, takes nothing from the cluster: what is created next gets the same name and uid as without it.
    pub(crate) fn insert(
        &self,
        resource: &ResourceType,
        namespace: &str,
        mut value: Value,
        is_rehearsal: bool,
        prepare: impl FnOnce(&mut State, &mut Value) -> Result<(), StatusError>,
    ) -> Result<Arc<Record>, StatusError> {
        let mut state = self.shared.state.lock();
        let random = state.random.clone();
        let name = pick_name(&mut state, resource, namespace, &value).unwrap_or_default();
        value["metadata"]["name"] = Value::String(name.clone());
        let prepared = prepare(&mut state, &mut value);
        if is_rehearsal {
            state.random = random;
        }
        prepared?;
        if name.is_empty() {
            return Err(StatusError::invalid(&resource.group, &resource.kind, "", &[no_name_or_base()]));
        }
        let key = ObjectKey { kind: resource.group_kind.clone(), namespace: namespace.into(), name: name.into() };
        if state.record_of(&key).is_some() {
            return Err(StatusError::name_taken(resource, &key.name, &value));
        }
        Ok(state.insert(&self.shared, &key, value, resource.tracks_generation))
    }

    /// Replaces an object by what `change` makes of it, under the lock. Tells whether that was a write.
    pub(crate) fn modify(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut State, &Arc<Record>) -> Result<Value, StatusError>,
    ) -> Result<(Arc<Record>, bool), StatusError> {
        let mut state = self.shared.state.lock();
        let Some(present) = state.record_in_use(&resource.group_kind, namespace, name) else {
            return Err(StatusError::not_found(resource, name));
        };
        let mut value = change(&mut state, &present)?;
        value["metadata"]["resourceVersion"] = Value::String(present.resource_version.to_string());
        if same_object(&value, &present.value()) {
            return Ok((present, false));
        }
        let key = ObjectKey::of(&resource.group_kind, &present);
        if !present.finalizers().is_empty() && ends(&value) {
            // What the write makes of the object is answered, and never stored.
            state.remove(&self.shared, &key);
            return Ok((Arc::new(Record::new(value, present.resource_version, Some(&present))), true));
        }
        let record = state.put(&self.shared, &key, value);
        if !record.has_owners_of(&present) {
            state.collect_if_orphaned(&self.shared, &key);
        }
        Ok((record, true))
    }

    /// Replaces one part of an object, and with it the list of managed fields, by what `change` makes of them, under the lock;
    /// tells whether that was a write. `None`, and no write, where `change` says so and where the object has no such parts: the
    /// way is [`Self::modify`] then.
    pub(crate) fn modify_part(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Record) -> Option<PartOutcome>,
    ) -> Option<(Arc<Record>, bool)> {
        let mut state = self.shared.state.lock();
        let present = Arc::clone(state.record(&resource.group_kind, namespace, name)?);
        match change(&present)? {
            PartOutcome::Unchanged => Some((present, false)),
            PartOutcome::Changed(change) => {
                let record = state.put_part(&self.shared, &resource.group_kind, &present, &change)?;
                Some((record, true))
            }
            PartOutcome::MetadataChanged(metadata) => {
                Some((state.put_metadata(&self.shared, &resource.group_kind, &present, metadata), true))
            }
        }
    }

    /// Deletes after the caller's checks, under the lock.
    pub(crate) fn delete_checked(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
        delete: impl FnOnce(&mut State, &ObjectKey, &Arc<Record>) -> Result<Option<Deletion>, StatusError>,
    ) -> Result<Deletion, StatusError> {
        let mut state = self.shared.state.lock();
        let Some(present) = state.record(&resource.group_kind, namespace, name).cloned() else {
            return Err(StatusError::not_found(resource, name));
        };
        let key = ObjectKey::of(&resource.group_kind, &present);
        delete(&mut state, &key, &present)?.ok_or_else(|| StatusError::not_found(resource, name))
    }

    /// The shared part, for callers that already run under the lock.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Begins a watch. `None` when the version was compacted.
    pub(crate) fn watch(&self, kind: &GroupKind, namespace: Option<&str>, start: WatchStart) -> Option<WatchFeed> {
        let mut state = self.shared.state.lock();
        let revision = state.revision;
        let table = state.table(kind);
        let (initial, missed) = match start {
            WatchStart::Initial => (table.records(namespace), Vec::new()),
            WatchStart::After(version) => {
                let mut missed = table.changes_after(version)?;
                missed.retain(|change| namespace.is_none_or(|namespace| change.record.namespace() == namespace));
                (Vec::new(), missed)
            }
        };
        Some(WatchFeed { initial, missed, changes: table.watch(namespace), revision })
    }

    /// Ends all open watches of a kind, or of every kind. Clients see the stream end.
    pub(crate) fn drop_watches(&self, kind: Option<&GroupKind>) {
        let mut state = self.shared.state.lock();
        for (candidate, table) in &mut state.tables {
            if kind.is_none_or(|kind| kind == candidate) {
                table.drop_watches();
            }
        }
    }

    /// Forgets all history: watches and page tokens of older versions get 410.
    pub(crate) fn compact(&self) {
        self.shared.state.lock().compact();
    }
}

/// `metadata.name`, or a free name made from `generateName` (the API server tries eight times as well); `None` without either.
fn pick_name(state: &mut State, resource: &ResourceType, namespace: &str, value: &Value) -> Option<String> {
    let metadata = &value["metadata"];
    if let Some(name) = metadata["name"].as_str()
        && !name.is_empty()
    {
        return Some(name.to_owned());
    }
    let base = metadata["generateName"].as_str().filter(|base| !base.is_empty())?;
    // names.simpleNameGenerator: 63 characters minus the suffix.
    let base: String = base.chars().take(58).collect();
    let kind = &resource.group_kind;
    let mut name = String::new();
    for _ in 0..8 {
        name = format!("{base}{}", state.random.name_suffix());
        if state.record(kind, namespace, &name).is_none() {
            break;
        }
    }
    Some(name)
}

/// Whether an object that had finalizers is gone with the last of them (`ShouldDeleteDuringUpdate`).
fn ends(value: &Value) -> bool {
    let metadata = &value["metadata"];
    !metadata["deletionTimestamp"].is_null() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Whether anything but `metadata` (and `status`, if told so) differs.
pub(crate) fn differs_outside_metadata(new: &Value, old: &Value, ignore_status: bool) -> bool {
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let counts = |name: &String| name != "metadata" && !(ignore_status && name == "status");
    new.iter().any(|(name, value)| counts(name) && old.get(name) != Some(value))
        || old.keys().any(|name| counts(name) && !new.contains_key(name))
}

/// Equality that looks at the last fields first: a status differs more often than a spec, and most writes differ.
fn same_object(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => new.len() == old.len() && new.iter().rev().eq(old.iter().rev()),
        _ => new == old,
    }
}

pub(crate) fn raise_generation(value: &mut Value, old: &Value) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
    value["metadata"]["generation"] = json!(generation + 1);
}

fn restore_identity(value: &mut Value, old: &Value) {
    for field in ["apiVersion", "kind"] {
        value[field] = old[field].clone();
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "generation"] {
        match old["metadata"].get(field) {
            Some(kept) => value["metadata"][field] = kept.clone(),
            None => {
                if let Some(metadata) = value["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
