//! Names of objects and the queue of those that have to be looked at.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::json::text;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl ObjectName {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(super) fn of(object: &Value) -> Self {
        Self::new(
            text(object, "/metadata/namespace").unwrap_or_default(),
            text(object, "/metadata/name").unwrap_or_default(),
        )
    }

    /// Another object in the same namespace.
    pub(super) fn sibling(&self, name: &str) -> Self {
        Self { namespace: Arc::clone(&self.namespace), name: name.into() }
    }
}

/// An object that a controller looks after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Deployment(ObjectName),
    ReplicaSet(ObjectName),
    Pod(ObjectName),
    DaemonSet(ObjectName),
    Autoscaler(ObjectName),
    Service(ObjectName),
    Namespace(ObjectName),
    Budget(ObjectName),
    Job(ObjectName),
    CronJob(ObjectName),
    StatefulSet(ObjectName),
    Quota(ObjectName),
}

/// First in, first out; an object that waits already is not queued twice.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<Key>,
    waiting: HashSet<Key>,
}

impl Queue {
    pub(super) fn push(&mut self, key: Key) {
        if self.waiting.insert(key.clone()) {
            self.order.push_back(key);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let key = self.order.pop_front()?;
        self.waiting.remove(&key);
        Some(key)
    }
}
