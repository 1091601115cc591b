//! Observed objects, fed by watches and by the answers to our own writes, and the wake-up calls that follow from them.
//!
//! **Guarantees.** An object is only ever replaced by a newer version, so a decision that follows an answered write sees
//! that write, however late the watch is (where the answer to a status write is lost, the router looks first); and what was
//! deleted does not come back with the late answer to a write. A canary is woken for every change of every object that its
//! last snapshot looked up, whether it existed or not. Wake-ups collapse: a canary that has not yet looked is not called
//! twice.
//!
//! Watches run on worker threads and actors on one arbiter, so this is the one structure they share.

mod deletions;
mod store;
mod targets;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::Recipient;
use aviary_providers::{ObjectKey, ObjectKind, Objects};
use dashmap::{DashMap, DashSet};
use kube::core::DynamicObject;
use tokio::sync::Notify;

use crate::dialects;
use crate::messages::{CanaryId, Nudge};
use store::Store;
use targets::{Targets, hashes_of_claims};

/// Whether a kind has been listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindState {
    /// Not yet.
    Syncing,
    /// Listed at least once.
    Synced,
    /// The API server does not serve it (its CRD is not installed).
    Unserved,
    /// The API server does not let us list or watch it. What is held of it may be out of date.
    Forbidden,
}

/// One kind in one namespace, or (`None`) in all.
type ListScope = (&'static ObjectKind, Option<String>);

/// A list of one kind that is coming in: what was held when it began, and what is in it.
pub(crate) struct Listing {
    held: BTreeMap<ObjectKey, u64>,
    /// The newest version in the list. The list shows the cluster as it was then, or later.
    newest: u64,
}

impl Listing {
    /// Notes that an object is in the list.
    pub(crate) fn note(&mut self, kind: &'static ObjectKind, object: &DynamicObject) {
        self.newest = self.newest.max(version(object));
        if let Some(key) = key_of(kind, object) {
            self.held.remove(&key);
        }
    }
}

#[derive(Clone)]
struct Inbox {
    nudge: Recipient<Nudge>,
    pending: Arc<AtomicBool>,
}

impl Inbox {
    fn ring(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.nudge.do_send(Nudge);
        }
    }
}

/// The objects, who looked at them, and how to reach those.
#[derive(Default)]
pub struct Cache {
    objects: Store,
    interests: DashMap<ObjectKey, Vec<CanaryId>>,
    inboxes: DashMap<CanaryId, Inbox>,
    kinds: DashMap<ListScope, KindState>,
    targets: Targets,
    /// Kinds of which a canary looked for an object that was not there.
    missed: DashSet<&'static ObjectKind>,
    missed_more: Notify,
}

impl Cache {
    /// Stores an object unless a newer version is known. Wakes whoever looked at it.
    pub fn apply(&self, kind: &'static ObjectKind, mut object: DynamicObject) {
        // Large, and nothing here looks at it.
        object.metadata.managed_fields = None;
        let Some(key) = key_of(kind, &object) else { return };
        if self.objects.put(&key, object) {
            self.note_target(&key);
            self.wake(&key);
        }
    }

    /// Removes an object unless a newer version is known. Wakes whoever looked at it.
    pub fn remove(&self, kind: &'static ObjectKind, object: &DynamicObject) {
        let Some(key) = key_of(kind, object) else { return };
        if self.objects.remove(&key, version(object)) {
            self.note_target(&key);
            self.wake(&key);
        }
    }

    /// Removes an object that the API server says does not exist.
    pub fn forget(&self, key: &ObjectKey) {
        if self.objects.forget(key) {
            self.note_target(key);
            self.wake(key);
        }
    }

    /// Begins a list of a kind, in one namespace or in all.
    pub(crate) fn begin_list(&self, kind: &'static ObjectKind, namespace: Option<&str>) -> Listing {
        Listing { held: self.objects.versions(kind, namespace), newest: 0 }
    }

    /// After a complete list: removes what was held when it began and is not in it. What was stored in the meantime stays,
    /// unless it is older than something in the list: then it has been deleted since.
    pub(crate) fn finish_list(&self, listing: Listing) {
        let Listing { held, newest } = listing;
        for (key, before) in held {
            if self.objects.forget_if(&key, newest, |version| version == before || (version != 0 && version <= newest))
            {
                self.note_target(&key);
                self.wake(&key);
            }
        }
    }

    /// The object, if it exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        self.objects.get(key)
    }

    /// Whether the object exists.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.objects.contains(key)
    }

    /// Namespaces and names of all objects of a kind, in order.
    pub fn names(&self, kind: &'static ObjectKind) -> Vec<CanaryId> {
        let keys = self.objects.keys(kind).into_iter();
        let mut names: Vec<_> = keys.map(CanaryId::from).collect();
        // A map that is read in no order would make no two runs alike.
        names.sort_unstable();
        names
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes the state of a kind, in one namespace or in all. Wakes all canaries there when it comes within reach or is
    /// out of it from now on: no object need change with that.
    pub fn set_kind(&self, kind: &'static ObjectKind, namespace: Option<&str>, state: KindState) {
        let before = self.kinds.insert((kind, namespace.map(str::to_owned)), state);
        let is_out_of_reach = |state| matches!(state, KindState::Unserved | KindState::Forbidden);
        if before == Some(state) || !(is_out_of_reach(state) || before.is_some_and(is_out_of_reach)) {
            return;
        }
        let concerned = self.inboxes.iter().filter(|entry| namespace.is_none_or(|name| entry.key().namespace == name));
        // The guards are dropped before the messages are sent, as in `wake_canary`.
        let inboxes: BTreeMap<CanaryId, Inbox> =
            concerned.map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        inboxes.values().for_each(Inbox::ring);
    }

    /// The state of a kind for the canaries of a namespace; `None` for one that is not watched there.
    pub fn kind(&self, kind: &'static ObjectKind, namespace: &str) -> Option<KindState> {
        let state = |scope: ListScope| self.kinds.get(&scope).map(|entry| *entry.value());
        state((kind, None)).or_else(|| state((kind, Some(namespace.to_owned()))))
    }

    /// The kinds that have yet to be listed somewhere, as `resource.group`.
    pub fn awaited(&self) -> BTreeSet<String> {
        let syncing = self.kinds.iter().filter(|entry| *entry.value() == KindState::Syncing);
        syncing.map(|entry| entry.key().0.resource()).collect()
    }

    /// Notes that a canary looked for an object of the kind that is not there.
    pub(crate) fn miss(&self, kind: &'static ObjectKind) {
        if !self.missed.contains(kind) && self.missed.insert(kind) {
            self.missed_more.notify_waiters();
        }
    }

    /// Waits until a canary has looked for an object of the kind and not found it.
    pub(crate) async fn missed(&self, kind: &'static ObjectKind) {
        loop {
            let mut next = std::pin::pin!(self.missed_more.notified());
            next.as_mut().enable();
            if self.missed.contains(kind) {
                return;
            }
            next.await;
        }
    }

    /// Whether every watched kind was listed in each of its namespaces, or is known to be out of reach.
    pub fn is_synced(&self) -> bool {
        self.kinds.iter().all(|entry| *entry.value() != KindState::Syncing)
    }

    /// Registers where a canary is reached. Returns the flag that the canary clears before it looks.
    pub fn register(&self, canary: &CanaryId, nudge: Recipient<Nudge>) -> Arc<AtomicBool> {
        let pending = Arc::new(AtomicBool::new(false));
        self.inboxes.insert(canary.clone(), Inbox { nudge, pending: pending.clone() });
        pending
    }

    /// Forgets a canary and what it looked at.
    pub fn unregister(&self, canary: &CanaryId, interests: &BTreeSet<ObjectKey>) {
        self.inboxes.remove(canary);
        interests.iter().for_each(|key| self.drop_interest(canary, key));
    }

    /// Replaces what a canary is woken for by what it has looked at. Returns whether one of the added objects has changed
    /// between the look at it and the registration, so that the caller must look once more.
    pub fn watch_for(&self, canary: &CanaryId, before: &BTreeSet<ObjectKey>, seen: &Seen) -> bool {
        before.iter().filter(|key| !seen.contains_key(*key)).for_each(|key| self.drop_interest(canary, key));
        let mut has_changed = false;
        for (key, version) in seen.iter().filter(|(key, _)| !before.contains(*key)) {
            self.interests.entry(key.clone()).or_default().push(canary.clone());
            // Versions that are not numbers are 0 and tell nothing; nor is there one of all objects of a kind.
            has_changed |= *version == Some(0) || key.name == ALL || self.objects.version(key) != *version;
        }
        has_changed
    }

    /// Wakes one canary.
    pub fn wake_canary(&self, canary: &CanaryId) {
        // The guard is dropped before the message is sent: a handler may run on this very thread.
        let inbox = self.inboxes.get(canary).map(|entry| entry.value().clone());
        if let Some(inbox) = inbox {
            inbox.ring();
        }
    }

    /// The others that may claim what this one claims.
    pub(crate) fn rivals(&self, canary: &CanaryId) -> Vec<(CanaryId, Arc<DynamicObject>)> {
        let others = self.targets.others(canary).into_iter();
        others.filter_map(|other| self.get(&other.key()).map(|object| (other, object))).collect()
    }

    /// Keeps track of what a canary claims, and wakes those that it had, or has now, anything in common with.
    fn note_target(&self, key: &ObjectKey) {
        if !dialects::is_run(key.kind) {
            return;
        }
        let canary = CanaryId::from(key.clone());
        let look = || self.get(key).map(|object| hashes_of_claims(key.kind, &object)).unwrap_or_default();
        self.targets.set(&canary, look).iter().for_each(|other| self.wake_canary(other));
    }

    fn wake(&self, key: &ObjectKey) {
        let mut interested = self.interests.get(key).map(|entry| entry.value().clone()).unwrap_or_default();
        let all = ObjectKey { name: ALL.to_owned(), ..key.clone() };
        interested.extend(self.interests.get(&all).into_iter().flat_map(|entry| entry.value().clone()));
        interested.iter().for_each(|canary| self.wake_canary(canary));
    }

    fn drop_interest(&self, canary: &CanaryId, key: &ObjectKey) {
        if let Some(mut entry) = self.interests.get_mut(key) {
            entry.retain(|other| other != canary);
        }
        self.interests.remove_if(key, |_, interested| interested.is_empty());
    }
}

/// Looks objects up and remembers what was looked up.
pub struct Lookups<'a> {
    cache: &'a Cache,
    seen: RefCell<Seen>,
}

/// What was looked up, and in which version; `None` for what did not exist.
pub type Seen = BTreeMap<ObjectKey, Option<u64>>;

impl<'a> Lookups<'a> {
    /// No lookups yet.
    pub fn new(cache: &'a Cache) -> Self {
        Lookups { cache, seen: RefCell::default() }
    }

    /// What was looked up.
    pub fn into_seen(self) -> Seen {
        self.seen.into_inner()
    }
}

/// The name by which an interest in all objects of a kind in a namespace is known. No object has it.
const ALL: &str = "";

impl Objects for Lookups<'_> {
    fn list(&self, kind: &'static ObjectKind, namespace: &str) -> Vec<Arc<DynamicObject>> {
        let key = ObjectKey { kind, namespace: namespace.to_owned(), name: ALL.to_owned() };
        self.seen.borrow_mut().entry(key).or_insert(None);
        let names: BTreeSet<ObjectKey> = self.cache.objects.versions(kind, Some(namespace)).into_keys().collect();
        names.iter().filter_map(|key| self.cache.get(key)).collect()
    }

    fn get(&self, kind: &'static ObjectKind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let key = ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let found = self.cache.get(&key);
        if found.is_none() {
            self.cache.miss(kind);
        }
        // An object that changes during a look counts as it was at first: the look is repeated.
        self.seen.borrow_mut().entry(key).or_insert_with(|| found.as_deref().map(version));
        found
    }
}

/// The key of an object.
pub fn key_of(kind: &'static ObjectKind, object: &DynamicObject) -> Option<ObjectKey> {
    Some(ObjectKey {
        kind,
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone()?,
    })
}

/// Resource versions can be compared as numbers (Kubernetes 1.35; true of every release on etcd before).
pub(crate) fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aviary_providers::kinds;

    fn object(name: &str, version: &str) -> DynamicObject {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "a", "name": name, "resourceVersion": version},
        }))
        .unwrap()
    }

    fn held(cache: &Cache, name: &str) -> Option<String> {
        let key = ObjectKey { kind: &kinds::CONFIG_MAP, namespace: "a".into(), name: name.into() };
        cache.get(&key).and_then(|object| object.metadata.resource_version.clone())
    }

    #[test]
    fn a_late_watch_event_does_not_undo_a_newer_version() {
        let cache = Cache::default();
        cache.apply(&kinds::CONFIG_MAP, object("x", "10"));
        cache.apply(&kinds::CONFIG_MAP, object("x", "9"));
        assert_eq!(held(&cache, "x").as_deref(), Some("10"));
        cache.remove(&kinds::CONFIG_MAP, &object("x", "9"));
        assert_eq!(held(&cache, "x").as_deref(), Some("10"), "deletion of an earlier incarnation");
        cache.remove(&kinds::CONFIG_MAP, &object("x", "11"));
        assert_eq!(held(&cache, "x"), None);
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold_in_its_scope_only() {
        let cache = Cache::default();
        cache.apply(&kinds::CONFIG_MAP, object("x", "1"));
        cache.apply(&kinds::CONFIG_MAP, object("y", "2"));
        cache.apply(&kinds::SECRET, object("x", "3"));
        let list = |namespace: Option<&str>| {
            let mut listing = cache.begin_list(&kinds::CONFIG_MAP, namespace);
            listing.note(&kinds::CONFIG_MAP, &object("y", "2"));
            cache.finish_list(listing);
        };
        list(Some("b"));
        assert_eq!(cache.len(), 3);
        list(None);
        assert_eq!(cache.len(), 2);
        assert_eq!(held(&cache, "x"), None);
    }

    #[test]
    fn a_list_keeps_what_was_stored_after_it_began() {
        let cache = Cache::default();
        cache.apply(&kinds::CONFIG_MAP, object("gone", "1"));
        cache.apply(&kinds::CONFIG_MAP, object("written", "2"));
        cache.apply(&kinds::CONFIG_MAP, object("outdated", "3"));
        let mut listing = cache.begin_list(&kinds::CONFIG_MAP, None);
        listing.note(&kinds::CONFIG_MAP, &object("listed", "10"));
        cache.apply(&kinds::CONFIG_MAP, object("created", "11"));
        cache.apply(&kinds::CONFIG_MAP, object("written", "12"));
        // The late answer to a write before the list: had the object existed then, it would be in the list.
        cache.apply(&kinds::CONFIG_MAP, object("outdated", "4"));
        cache.finish_list(listing);
        assert_eq!(held(&cache, "created").as_deref(), Some("11"));
        assert_eq!(held(&cache, "written").as_deref(), Some("12"));
        assert_eq!((held(&cache, "gone"), held(&cache, "outdated")), (None, None));
    }

    #[test]
    fn the_late_answer_to_a_write_does_not_bring_a_deleted_object_back() {
        let cache = Cache::default();
        cache.apply(&kinds::CONFIG_MAP, object("x", "10"));
        cache.remove(&kinds::CONFIG_MAP, &object("x", "12"));
        cache.apply(&kinds::CONFIG_MAP, object("x", "11"));
        assert_eq!(held(&cache, "x"), None);
        cache.remove(&kinds::CONFIG_MAP, &object("never seen", "12"));
        cache.apply(&kinds::CONFIG_MAP, object("never seen", "11"));
        assert_eq!(held(&cache, "never seen"), None);
        cache.apply(&kinds::CONFIG_MAP, object("x", "13"));
        assert_eq!(held(&cache, "x").as_deref(), Some("13"), "created again");
    }

    #[test]
    fn a_kind_is_synced_when_each_of_its_namespaces_is() {
        let cache = Cache::default();
        for namespace in ["a", "b"] {
            cache.set_kind(&kinds::CONFIG_MAP, Some(namespace), KindState::Syncing);
        }
        cache.set_kind(&kinds::CONFIG_MAP, Some("a"), KindState::Synced);
        assert!(!cache.is_synced());
        let state = |namespace: &str| cache.kind(&kinds::CONFIG_MAP, namespace);
        assert_eq!((state("a"), state("b"), state("c")), (Some(KindState::Synced), Some(KindState::Syncing), None));
        cache.set_kind(&kinds::CONFIG_MAP, Some("b"), KindState::Forbidden);
        assert!(cache.is_synced());
    }

    #[test]
    fn a_change_between_look_and_registration_is_not_missed() {
        let cache = Cache::default();
        cache.apply(&kinds::CONFIG_MAP, object("x", "1"));
        let canary = CanaryId::canary("a", "c");
        let look = || {
            let lookups = Lookups::new(&cache);
            lookups.get(&kinds::CONFIG_MAP, "a", "x");
            lookups.get(&kinds::CONFIG_MAP, "a", "missing");
            lookups.into_seen()
        };
        let before = BTreeSet::new();
        assert!(!cache.watch_for(&canary, &before, &look()), "nothing has changed");
        let seen = look();
        cache.apply(&kinds::CONFIG_MAP, object("x", "2"));
        assert!(cache.watch_for(&canary, &before, &seen), "changed");
        let seen = look();
        cache.apply(&kinds::CONFIG_MAP, object("missing", "3"));
        assert!(cache.watch_for(&canary, &before, &seen), "created");
        let seen = look();
        cache.remove(&kinds::CONFIG_MAP, &object("x", "4"));
        assert!(cache.watch_for(&canary, &before, &seen), "deleted");
        cache.apply(&kinds::CONFIG_MAP, object("x", "opaque"));
        assert!(cache.watch_for(&canary, &before, &look()), "a version that tells nothing");
    }
}
