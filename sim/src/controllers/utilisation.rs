//! Simulated resource usage, which autoscalers act on.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A shared table of how busy the pods of each autoscaled workload are. A table belongs to one cluster.
#[derive(Debug, Clone, Default)]
pub struct Utilisation {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    percents: HashMap<(String, String), u32>,
    /// Targets whose value changed since the controllers last looked.
    unseen: Vec<(String, String)>,
}

impl Utilisation {
    /// Sets the average usage of a target's pods, in percent of what they request. It stays at this value however many pods
    /// there are.
    pub fn set_utilisation(&self, namespace: impl Into<String>, target: impl Into<String>, percent: u32) {
        let key = (namespace.into(), target.into());
        let mut state = self.inner.state.lock();
        state.percents.insert(key.clone(), percent);
        state.unseen.push(key);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Forgets a target's usage: its autoscaler then only keeps it between the bounds and needs no timer.
    pub fn clear_utilisation(&self, namespace: &str, target: &str) {
        let key = (namespace.to_owned(), target.to_owned());
        let mut state = self.inner.state.lock();
        state.percents.remove(&key);
        state.unseen.push(key);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The usage that was set for a target.
    #[must_use]
    pub fn of(&self, namespace: &str, target: &str) -> Option<u32> {
        let key = (namespace.to_owned(), target.to_owned());
        self.inner.state.lock().percents.get(&key).copied()
    }

    /// Targets that changed since the last call, as (namespace, name).
    pub(super) fn take_unseen(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.inner.state.lock().unseen)
    }

    pub(super) async fn changed(&self) {
        self.inner.changed.notified().await;
    }
}
