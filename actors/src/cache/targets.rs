//! Which canaries claim which target and which service: two of them would fight over its primary, or over its routes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use aviary_providers::ObjectKind;
use kube::core::DynamicObject;

use crate::dialects;
use crate::messages::CanaryId;

/// Canaries by what they name. Targets and services are known by their hashes, which is enough to find candidates.
#[derive(Default)]
pub(super) struct Targets(Mutex<Named>);

#[derive(Default)]
struct Named {
    of: HashMap<CanaryId, BTreeSet<u64>>,
    by_name: HashMap<u64, BTreeSet<CanaryId>>,
}

impl Targets {
    /// Notes what a canary names now; nothing for one that is gone. Returns the others that named, or name, some of it.
    /// `look` is called one at a time, so that of two changes the later one is noted last.
    pub(super) fn set(&self, canary: &CanaryId, look: impl FnOnce() -> BTreeSet<u64>) -> BTreeSet<CanaryId> {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = look();
        let before = named.of.get(canary).cloned().unwrap_or_default();
        let mut concerned = BTreeSet::new();
        for gone in before.difference(&now) {
            if let Some(others) = named.by_name.get_mut(gone) {
                others.remove(canary);
                concerned.extend(others.iter().cloned());
                if others.is_empty() {
                    named.by_name.remove(gone);
                }
            }
        }
        for new in now.difference(&before) {
            let others = named.by_name.entry(*new).or_default();
            concerned.extend(others.iter().cloned());
            others.insert(canary.clone());
        }
        if now.is_empty() {
            named.of.remove(canary);
        } else if now != before {
            named.of.insert(canary.clone(), now);
        }
        concerned
    }

    /// The others that name some of the same.
    pub(super) fn others(&self, canary: &CanaryId) -> BTreeSet<CanaryId> {
        let named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = named.of.get(canary).into_iter().flatten().filter_map(|name| named.by_name.get(name));
        all.flatten().filter(|other| *other != canary).cloned().collect()
    }
}

/// The hashes of what an object claims.
pub(super) fn hashes_of_claims(kind: &ObjectKind, object: &DynamicObject) -> BTreeSet<u64> {
    let namespace = object.metadata.namespace.as_deref();
    dialects::of(kind, object).claims(object).iter().map(|claim| claim.hash_in(namespace)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(name: &str) -> CanaryId {
        CanaryId::canary("test", name)
    }

    #[test]
    fn those_who_have_had_or_get_something_in_common_are_named() {
        let targets = Targets::default();
        let set = |name: &str, named: &[u64]| targets.set(&canary(name), || named.iter().copied().collect());
        let others = |name: &str| targets.others(&canary(name));
        let all = |names: &[&str]| names.iter().map(|name| canary(name)).collect::<BTreeSet<_>>();
        assert!(set("a", &[1, 10]).is_empty());
        assert_eq!(set("b", &[1, 11]), all(&["a"]));
        assert!(set("b", &[1, 11]).is_empty(), "nothing new");
        assert_eq!(others("a"), all(&["b"]));
        assert!(set("c", &[2, 12]).is_empty());
        assert_eq!(set("b", &[2, 11]), all(&["a", "c"]));
        assert!(others("a").is_empty());
        // What is of two kinds is in common by either.
        assert_eq!(set("d", &[3, 10]), all(&["a"]));
        assert_eq!(set("d", &[2, 10]), all(&["b", "c"]));
        assert_eq!(others("d"), all(&["a", "b", "c"]));
        assert_eq!(set("d", &[]), all(&["a", "b", "c"]));
        assert_eq!(set("b", &[]), all(&["c"]));
        assert!(set("a", &[]).is_empty() && set("c", &[]).is_empty());
        let named = targets.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(named.of.is_empty() && named.by_name.is_empty(), "nothing is left");
    }
}
