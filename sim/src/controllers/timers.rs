//! The moments at which something is due, at most one per object.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::queue::Key;

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: HashMap<Key, Timestamp>,
    order: BTreeSet<(Timestamp, Key)>,
}

impl Timers {
    /// Sets or clears the moment of an object.
    pub(super) fn set(&mut self, key: &Key, at: Option<Timestamp>) {
        if let Some(before) = self.due.remove(key) {
            self.order.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.due.insert(key.clone(), at);
            self.order.insert((at, key.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out an object whose moment has come.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Key> {
        let (at, key) = self.order.first()?.clone();
        if at > now {
            return None;
        }
        self.set(&key, None);
        Some(key)
    }
}
