//! What a write does to ownership (`merge.Updater`, `managedFieldsUpdater`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::Value;

use super::compare::{Comparison, compare};
use super::created;
use super::json;
use super::managed::{self, ManagerKey, Managers, Operation, Owned};
use super::set::{Path, Set};
use super::text;
use super::types::Type;
use crate::clock::format_seconds;
use crate::store::{ResourceType, ResourceVersion};

/// Fields that belong to nobody (`stripMetaManager`).
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The manager of what the cluster's own controllers write.
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// Root fields whose change belongs to nobody, so that a comparison need not look at them.
const UNOWNED_ROOTS: [&str; 2] = ["apiVersion", "kind"];

/// Who writes, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) resource: &'a ResourceType,
    /// The version in which the object is written, e.g. `v1beta1`.
    pub(crate) version: &'a str,
    /// `status`, `scale`, or empty.
    pub(crate) subresource: &'a str,
    pub(crate) manager: &'a str,
    pub(crate) now: Timestamp,
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) owner: ManagerKey,
    pub(crate) path: Path,
}

impl Writer<'_> {
    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version(self.version)
    }

    pub(crate) fn key(&self, operation: Operation) -> ManagerKey {
        ManagerKey::new(self.manager, operation, &self.api_version(), self.subresource)
    }

    /// The type of objects in a version; `None` for a version that is not served (any more).
    pub(crate) fn type_in(&self, api_version: &str) -> Option<Type<'_>> {
        let mut served = self.resource.versions.iter().filter(|version| version.served);
        let version = served.find(|version| self.resource.api_version(&version.name) == api_version)?;
        Some(Type::Root(version.schema.as_deref()))
    }

    pub(crate) fn own_type(&self) -> Type<'_> {
        Type::Root(self.own_version().and_then(|version| version.schema.as_deref()))
    }

    /// The version in which the object is written.
    pub(crate) fn own_version(&self) -> Option<&ResourceVersion> {
        self.resource.versions.iter().find(|version| version.name == self.version)
    }

    /// Fields that a write to this subresource cannot change (`GetResetFields`).
    pub(crate) fn ignored(&self) -> Set {
        let has_status = self.resource.has_status();
        match self.subresource {
            "status" if self.resource.custom => Set::of_fields(&[&["metadata"], &["spec"]]),
            "status" => {
                let mut ignored = Set::of_fields(&[&["spec"]]);
                match self.resource.kind.as_str() {
                    "Deployment" => ignored = ignored.union(&Set::of_fields(&[&["metadata", "labels"]])),
                    "Pod" => {
                        let fields: [&[&str]; 2] =
                            [&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]];
                        ignored = ignored.union(&Set::of_fields(&fields));
                    }
                    _ => {}
                }
                ignored
            }
            _ if has_status => Set::of_fields(&[&["status"]]),
            _ => Set::default(),
        }
    }

    /// Whether a root field can differ between an object and what this writer makes of it.
    pub(super) fn includes(&self, root: &str) -> bool {
        if UNOWNED_ROOTS.contains(&root) {
            return false;
        }
        match (self.subresource, root) {
            ("status", "metadata") => !self.resource.custom,
            ("status", root) => root == "status" && self.resource.has_status(),
            (_, "status") => !self.resource.has_status(),
            _ => true,
        }
    }
}

/// An object's state before a write, as far as ownership goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before<'a> {
    /// The object; of a new one, what an object of the kind has before anything is set.
    pub(crate) object: &'a Value,
    /// The text of its managed fields, if they are tracked.
    pub(crate) managed: Option<&'a str>,
    pub(crate) is_new: bool,
}

/// The text of managed fields when `new` takes the place of what was before, `None` for none.
///
/// `given` is what the client says of managed fields: null for nothing, which most clients say.
pub(crate) fn track_update(writer: &Writer<'_>, before: Before<'_>, new: &Value, given: &Value) -> Option<String> {
    let mut given_managers = None;
    // Subresources have no say in managed fields.
    if writer.subresource.is_empty() && !given.is_null() {
        if !managed::is_reset(given) {
            given_managers = managed::decode_given(given).ok().filter(|managers| !managers.is_empty());
        } else if !before.is_new {
            // As for an object that was never tracked, tracking begins again with the next apply.
            return None;
        }
    }
    // Objects from before tracking stay untracked until the first apply (`skipNonAppliedManager`).
    if !before.is_new && given_managers.is_none() && before.managed.is_none() {
        return None;
    }
    let is_tracked_at_once = before.is_new && given_managers.is_none() && before.managed.is_none();
    if is_tracked_at_once && writer.resource.custom && writer.subresource.is_empty() {
        return created::track(writer, new);
    }
    track_changes(writer, before, new, given_managers)
}

/// The same for every object, and whatever a client says of managed fields.
pub(super) fn track_changes(
    writer: &Writer<'_>,
    before: Before<'_>,
    new: &Value,
    given_managers: Option<Managers>,
) -> Option<String> {
    let changes =
        compare(writer.own_type(), before.object, new, |root| writer.includes(root)).without(&writer.ignored());
    let managers = match (given_managers, before.managed) {
        (Some(managers), _) => managers,
        (None, Some(present)) => {
            if let Some(unchanged) = track_cheaply(writer, &changes, present) {
                return Some(unchanged);
            }
            managed::decode(present)
        }
        (None, None) => Managers::new(),
    };
    managed::encode(&update(writer, before.object, new, &changes, managers))
}

/// Tracks a write of one of the cluster's own controllers, which write status and the rest at once.
pub(crate) fn track_controller(resource: &ResourceType, old: &Value, new: &mut Value, now: Timestamp) {
    let Some(present) = text::stored(old) else {
        return;
    };
    let version = resource.versions.get(resource.storage).map_or("", |version| version.name.as_str());
    let mut managed = Some(present.to_owned());
    for subresource in ["", "status"] {
        let writer = Writer { resource, version, subresource, manager: CONTROLLER_MANAGER, now };
        let before = Before { object: old, managed: managed.as_deref(), is_new: false };
        text::store(new, Some(present.to_owned()));
        managed = track_update(&writer, before, new, &Value::Null);
    }
    text::store(new, managed);
}

/// The usual write: it sets fields that nobody else owns. Then the writer's own entry changes and the others stay the texts that
/// they are. `None` when it is not so simple.
fn track_cheaply(writer: &Writer<'_>, changes: &Comparison, present: &str) -> Option<String> {
    if !changes.removed.is_empty() {
        return None;
    }
    let set = changes.set();
    let claimed = without_unowned(&set);
    if claimed.is_empty() {
        return Some(present.to_owned());
    }
    let key = writer.key(Operation::Update);
    let manager = managed::escaped(&key.manager);
    let api_version = writer.api_version();
    let mut entries = managed::entries(present)?;
    let has_room = entries.len() < managed::MAX_UPDATE_MANAGERS;
    let mut own = None;
    for (index, entry) in entries.iter().enumerate() {
        let is_own = entry.operation == Operation::Update.as_str()
            && entry.manager == manager
            && entry.subresource == writer.subresource
            && entry.api_version == api_version;
        if is_own {
            own = Some(index);
        } else if entry.api_version != api_version || json::count_common(entry.fields, &set)? > 0 {
            // Entries of other versions need the eyes of their schema.
            return None;
        }
    }
    let now = format_seconds(writer.now);
    let fields;
    match own.and_then(|index| entries.get_mut(index)) {
        Some(own) if json::count_common(own.fields, &claimed)? == claimed.len() => {
            if own.time == now {
                return Some(present.to_owned());
            }
            own.time = &now;
        }
        Some(own) => {
            fields = json::print(&json::parse(own.fields)?.union(&claimed));
            own.fields = &fields;
            own.time = &now;
        }
        // One more may be one too many.
        None if !has_room => return None,
        None => {
            fields = json::print(&claimed);
            entries.push(managed::Entry {
                api_version: &api_version,
                fields: &fields,
                manager: &manager,
                operation: Operation::Update.as_str(),
                subresource: writer.subresource,
                time: &now,
            });
        }
    }
    managed::print(entries)
}

fn update(writer: &Writer<'_>, old: &Value, new: &Value, changes: &Comparison, mut managers: Managers) -> Managers {
    reconcile_versions(writer, &mut managers);
    if !managers.is_empty() {
        // Forced, so that there are no conflicts.
        let _ = reassign(writer, old, new, changes, &mut managers, None, true);
    }
    let set = without_unowned(&changes.set());
    if !set.is_empty() {
        let key = writer.key(Operation::Update);
        let set = match managers.remove(&key) {
            Some(before) => set.union(&before.set),
            None => set,
        };
        let time = format_seconds(writer.now).into();
        managers.insert(key, Owned { set, api_version: writer.api_version().into(), time });
    }
    managed::cap_update_managers(&mut managers);
    managers
}

/// Entries of versions that are not served any more are forgotten.
pub(crate) fn reconcile_versions(writer: &Writer<'_>, managers: &mut Managers) {
    managers.retain(|_, owned| writer.type_in(&owned.api_version).is_some());
}

/// Takes fields that changed from all managers but `spared`. Unless forced, a field that has an owner is a conflict.
pub(crate) fn reassign(
    writer: &Writer<'_>,
    old: &Value,
    new: &Value,
    changes: &Comparison,
    managers: &mut Managers,
    spared: Option<&ManagerKey>,
    is_forced: bool,
) -> Result<(), Vec<Conflict>> {
    let own_version = writer.api_version();
    let mut by_version: BTreeMap<Arc<str>, Comparison> = BTreeMap::new();
    by_version.insert(own_version.as_str().into(), changes.clone());
    let mut conflicts = Vec::new();
    let mut lost: Vec<(ManagerKey, Set)> = Vec::new();
    for (key, owned) in managers.iter().filter(|(key, _)| Some(*key) != spared) {
        let changes = by_version.entry(Arc::clone(&owned.api_version)).or_insert_with(|| {
            // Versions differ in their schemas, not in their fields (conversion strategy None).
            let ty = writer.type_in(&owned.api_version).unwrap_or(Type::Root(None));
            compare(ty, old, new, |root| writer.includes(root)).without(&writer.ignored())
        });
        let taken = owned.set.intersection(&changes.set());
        conflicts.extend(taken.paths().into_iter().map(|path| Conflict { owner: key.clone(), path }));
        let gone = taken.union(&changes.removed);
        if !gone.is_empty() {
            lost.push((key.clone(), gone));
        }
    }
    if !is_forced && !conflicts.is_empty() {
        return Err(conflicts);
    }
    for (key, gone) in lost {
        if let Some(owned) = managers.get_mut(&key) {
            owned.set = owned.set.difference(&gone);
        }
    }
    managers.retain(|_, owned| !owned.set.is_empty());
    Ok(())
}

/// Takes away what belongs to nobody.
pub(crate) fn without_unowned(set: &Set) -> Set {
    set.difference(&UNOWNED)
}
