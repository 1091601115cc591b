//! Objects at rest.
//!
//! A decoded object is ten times as large as its JSON: every map in it, however small, takes 640 bytes. So objects are
//! held as JSON, and only those in use are decoded as well. That is what a controller of thousands of canaries, of which
//! nearly all are idle, is made of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aviary_providers::{ObjectKey, ObjectKind};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use kube::core::DynamicObject;

use super::deletions::Deletions;
use super::version;

/// Objects that are held decoded. A canary looks at about ten, so a hundred canaries can be in the middle of a release
/// before an object is decoded more than once, in some ten microseconds; at about 10 KB each they take 10 MB.
const DECODED: usize = 1_000;

struct Held {
    version: u64,
    json: Box<[u8]>,
    /// `None` while it is not in use.
    decoded: Option<Arc<DynamicObject>>,
}

/// Objects by key.
#[derive(Default)]
pub(super) struct Store {
    held: DashMap<ObjectKey, Held>,
    /// Asked and told while the entry of the object in `held` is locked, never the other way round.
    deletions: Deletions,
    /// Keys of the decoded ones, in the order in which they were decoded.
    decoded: Mutex<VecDeque<ObjectKey>>,
}

impl Store {
    /// Stores an object unless a newer version is known, or the deletion of this one. Returns whether it was stored.
    pub(super) fn put(&self, key: &ObjectKey, object: DynamicObject) -> bool {
        let version = version(&object);
        // The answer to a write comes once more as a watch event; it is not worth encoding.
        if self.held.get(key).is_some_and(|known| !is_newer(version, known.version)) {
            return false;
        }
        let json = match serde_json::to_vec(&object) {
            Ok(json) => json.into_boxed_slice(),
            // It was decoded from JSON, so this does not happen.
            Err(error) => {
                tracing::error!(%error, kind = key.kind.kind, name = key.name, "object cannot be encoded");
                return false;
            }
        };
        let held = Held { version, json, decoded: Some(Arc::new(object)) };
        let was_decoded = match self.held.entry(key.clone()) {
            // Somebody else was faster.
            Entry::Occupied(known) if !is_newer(version, known.get().version) => return false,
            // The answer to a write that comes after the news of the object's deletion.
            Entry::Occupied(_) | Entry::Vacant(_) if self.deletions.cover(key, version) => return false,
            Entry::Occupied(mut known) => known.insert(held).decoded.is_some(),
            Entry::Vacant(vacant) => {
                vacant.insert(held);
                false
            }
        };
        if !was_decoded {
            self.note_decoded(key.clone());
        }
        true
    }

    /// The object, if it exists.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        let (version, object) = {
            let held = self.held.get(key)?;
            if let Some(object) = &held.decoded {
                return Some(object.clone());
            }
            let object: DynamicObject = match serde_json::from_slice(&held.json) {
                Ok(object) => object,
                // It was encoded from such an object, so this does not happen.
                Err(error) => {
                    tracing::error!(%error, kind = key.kind.kind, name = key.name, "object cannot be decoded");
                    return None;
                }
            };
            (held.version, Arc::new(object))
        };
        if let Some(mut held) = self.held.get_mut(key)
            && held.version == version
            && held.decoded.is_none()
        {
            held.decoded = Some(object.clone());
            drop(held);
            self.note_decoded(key.clone());
        }
        Some(object)
    }

    /// Whether the object exists.
    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.held.contains_key(key)
    }

    /// The version of the object, if it exists; 0 if it is not a number.
    pub(super) fn version(&self, key: &ObjectKey) -> Option<u64> {
        self.held.get(key).map(|held| held.version)
    }

    /// Removes an object that was deleted in this version, unless a newer one is known. Returns whether it was there.
    pub(super) fn remove(&self, key: &ObjectKey, deleted: u64) -> bool {
        // Also if it is not held: the answer to the write that made it may be on its way.
        self.deletions.record(key, deleted);
        self.held.remove_if(key, |_, held| held.version <= deleted).is_some()
    }

    /// Removes an object that does not exist in the version held. Returns whether it was there.
    pub(super) fn forget(&self, key: &ObjectKey) -> bool {
        self.forget_if(key, 0, |_| true)
    }

    /// Removes an object if its version is a certain one. Versions up to `newest` are known to be gone with it. Returns
    /// whether it was removed.
    pub(super) fn forget_if(&self, key: &ObjectKey, newest: u64, is_gone: impl Fn(u64) -> bool) -> bool {
        let removed = self.held.remove_if(key, |_, held| {
            let gone = is_gone(held.version);
            if gone {
                self.deletions.record(key, held.version.max(newest));
            }
            gone
        });
        removed.is_some()
    }

    /// Keys of all objects of a kind.
    pub(super) fn keys(&self, kind: &'static ObjectKind) -> Vec<ObjectKey> {
        self.held.iter().filter(|entry| entry.key().kind == kind).map(|entry| entry.key().clone()).collect()
    }

    /// Keys and versions of all objects of a kind, in one namespace or in all.
    pub(super) fn versions(&self, kind: &'static ObjectKind, namespace: Option<&str>) -> BTreeMap<ObjectKey, u64> {
        let entries = self.held.iter().filter(|entry| {
            let key = entry.key();
            key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace)
        });
        entries.map(|entry| (entry.key().clone(), entry.version)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// One more is decoded; the one that has been for longest no longer is.
    fn note_decoded(&self, key: ObjectKey) {
        let oldest = {
            let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
            decoded.push_back(key);
            if decoded.len() <= DECODED { None } else { decoded.pop_front() }
        };
        if let Some(oldest) = oldest
            && let Some(mut held) = self.held.get_mut(&oldest)
        {
            held.decoded = None;
        }
    }
}

/// Versions that are not numbers count as 0 and cannot be compared; then the latest word counts.
fn is_newer(new: u64, known: u64) -> bool {
    new == 0 || known == 0 || new > known
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aviary_providers::kinds;
    use serde_json::json;

    fn config_map(index: usize) -> (ObjectKey, DynamicObject) {
        let name = format!("config-{index}");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "namespace": "a", "name": name, "resourceVersion": (index + 1).to_string(), "uid": "u", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"x": "y"}, "finalizers": ["z"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "b", "uid": "c", "controller": true}],
            },
            "data": {"number": 1.5, "large": u64::MAX, "nothing": null, "empty": {}, "list": [1, "two", false]},
        });
        let key = ObjectKey { kind: &kinds::CONFIG_MAP, namespace: "a".into(), name };
        (key, serde_json::from_value(object).unwrap())
    }

    #[test]
    fn only_so_many_are_decoded_and_all_come_back_as_they_were() {
        let store = Store::default();
        let count = DECODED + 100;
        for index in 0..count {
            let (key, object) = config_map(index);
            assert!(store.put(&key, object));
        }
        let decoded = || store.held.iter().filter(|entry| entry.decoded.is_some()).count();
        assert_eq!((store.len(), decoded()), (count, DECODED));
        for index in 0..count {
            let (key, object) = config_map(index);
            assert_eq!(*store.get(&key).unwrap(), object);
        }
        assert_eq!(decoded(), DECODED);
        let (key, _) = config_map(count - 1);
        assert!(Arc::ptr_eq(&store.get(&key).unwrap(), &store.get(&key).unwrap()), "one in use is decoded once");
    }

    #[test]
    fn an_object_that_came_back_is_not_mixed_up_with_the_one_before() {
        let store = Store::default();
        let (key, object) = config_map(5);
        assert!(store.put(&key, object.clone()));
        assert!(!store.put(&key, object), "the same version");
        assert!(!store.remove(&key, 5) && store.remove(&key, 6));
        assert!(store.get(&key).is_none() && !store.contains(&key));
        let (_, mut newer) = config_map(9);
        newer.metadata.name = Some("config-5".into());
        assert!(store.put(&key, newer.clone()));
        assert_eq!(*store.get(&key).unwrap(), newer);
    }
}
