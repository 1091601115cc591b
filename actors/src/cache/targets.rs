//! Which canaries name which target: two of them on one target would fight over its primary.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use kube::core::DynamicObject;
use serde_json::Value;

use crate::messages::CanaryId;

/// Canaries by what they name. Targets are known by their hashes, which is enough to find candidates.
#[derive(Default)]
pub(super) struct Targets(Mutex<Named>);

#[derive(Default)]
struct Named {
    of: HashMap<CanaryId, u64>,
    by_target: HashMap<u64, BTreeSet<CanaryId>>,
}

impl Targets {
    /// Notes what a canary names now; `None` for one that is gone. Returns the others that named, or name, the same.
    /// `look` is called one at a time, so that of two changes the later one is noted last.
    pub(super) fn set(&self, canary: &CanaryId, look: impl FnOnce() -> Option<u64>) -> BTreeSet<CanaryId> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let target = look();
        let before = named.of.get(canary).copied();
        if before == target {
            return BTreeSet::new();
        }
        let mut concerned = BTreeSet::new();
        if let Some(before) = before {
            named.of.remove(canary);
            if let Some(others) = named.by_target.get_mut(&before) {
                others.remove(canary);
                concerned.extend(others.iter().cloned());
                if others.is_empty() {
                    named.by_target.remove(&before);
                }
            }
        }
        if let Some(target) = target {
            named.of.insert(canary.clone(), target);
            let others = named.by_target.entry(target).or_default();
            concerned.extend(others.iter().cloned());
            others.insert(canary.clone());
        }
        concerned
    }

    /// The others that name the same.
    pub(super) fn others(&self, canary: &CanaryId) -> Vec<CanaryId> {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = named.of.get(canary).and_then(|target| named.by_target.get(target));
        all.into_iter().flatten().filter(|other| *other != canary).cloned().collect()
    }
}

/// Group, kind and name of a canary's target, as far as it names one.
pub(crate) fn target_of(canary: &DynamicObject) -> Option<(&str, &str, &str)> {
    let target = canary.data.pointer("/spec/targetRef")?;
    let text = |key: &str| target.get(key).and_then(Value::as_str);
    let group = text("apiVersion").and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    Some((group, text("kind")?, text("name")?))
}

/// The hash of a canary's target, its namespace included.
pub(super) fn hash_of_target(canary: &DynamicObject) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (canary.metadata.namespace.as_deref(), target_of(canary)?).hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(name: &str) -> CanaryId {
        CanaryId { namespace: "test".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn those_who_have_had_or_get_a_target_in_common_are_named() {
        let targets = Targets::default();
        let set = |name: &str, target: Option<u64>| targets.set(&canary(name), || target);
        assert!(set("a", Some(1)).is_empty());
        assert_eq!(set("b", Some(1)), BTreeSet::from([canary("a")]));
        assert!(set("b", Some(1)).is_empty(), "nothing new");
        assert_eq!(targets.others(&canary("a")), [canary("b")]);
        assert!(set("c", Some(2)).is_empty());
        assert_eq!(set("b", Some(2)), BTreeSet::from([canary("a"), canary("c")]));
        assert!(targets.others(&canary("a")).is_empty());
        assert_eq!(set("b", None), BTreeSet::from([canary("c")]));
        assert!(set("a", None).is_empty() && set("c", None).is_empty());
        let named = targets.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(named.of.is_empty() && named.by_target.is_empty(), "nothing is left");
    }
}
