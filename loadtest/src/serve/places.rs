//! Places for tasks: so many in all, so many of one namespace, and a task in the background once at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// A task in the background: of this canary, this command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) canary: String,
    pub(super) command: String,
}

/// Why a task has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// It runs already.
    #[error("the same command runs already")]
    Running,
    #[error("{0} tasks of the namespace {1:?} are running, which is the most (--max-tasks-per-namespace)")]
    Namespace(usize, String),
    #[error("{0} tasks are running, which is the most (--max-tasks)")]
    All(usize),
}

#[derive(Default)]
struct Taken {
    all: usize,
    namespaces: BTreeMap<String, usize>,
    identities: BTreeSet<Identity>,
}

/// Places. Clones share them.
#[derive(Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    most: usize,
    most_of_namespace: usize,
}

/// A place, until it is dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    namespace: String,
    identity: Option<Identity>,
}

impl Places {
    pub(super) fn new(most: usize, most_of_namespace: usize) -> Places {
        Places { taken: Arc::default(), most, most_of_namespace }
    }

    /// A place for a task of this namespace, which has an identity if it runs in the background.
    pub(super) fn take(&self, namespace: &str, identity: Option<Identity>) -> Result<Place, NoPlace> {
        let mut taken = self.taken.lock();
        if identity.as_ref().is_some_and(|identity| taken.identities.contains(identity)) {
            return Err(NoPlace::Running);
        }
        let of_namespace = taken.namespaces.get(namespace).copied().unwrap_or_default();
        if of_namespace >= self.most_of_namespace {
            return Err(NoPlace::Namespace(of_namespace, namespace.to_owned()));
        }
        if taken.all >= self.most {
            return Err(NoPlace::All(taken.all));
        }
        taken.all += 1;
        taken.namespaces.insert(namespace.to_owned(), of_namespace + 1);
        taken.identities.extend(identity.clone());
        Ok(Place { taken: Arc::clone(&self.taken), namespace: namespace.to_owned(), identity })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.namespaces.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                taken.namespaces.remove(&self.namespace);
            }
        }
        if let Some(identity) = &self.identity {
            taken.identities.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hey(canary: &str) -> Option<Identity> {
        Some(Identity { canary: canary.to_owned(), command: "hey".to_owned() })
    }

    #[test]
    fn a_command_of_a_canary_runs_once_at_a_time() {
        let places = Places::new(10, 10);
        let place = places.take("test", hey("podinfo.test")).unwrap();
        assert_eq!(places.take("test", hey("podinfo.test")).err(), Some(NoPlace::Running));
        assert!(places.take("test", hey("other.test")).is_ok());
        drop(place);
        assert!(places.take("test", hey("podinfo.test")).is_ok());
    }

    #[test]
    fn one_namespace_leaves_places_to_others() {
        let places = Places::new(3, 2);
        let mut held: Vec<Place> = (0..2).map(|_| places.take("greedy", None).unwrap()).collect();
        assert_eq!(places.take("greedy", None).err(), Some(NoPlace::Namespace(2, "greedy".to_owned())));
        held.push(places.take("modest", None).unwrap());
        assert_eq!(places.take("third", None).err(), Some(NoPlace::All(3)));
        held.clear();
        assert!(places.taken.lock().namespaces.is_empty());
        assert!(places.take("third", None).is_ok());
    }
}
