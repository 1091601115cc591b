//! Simulated resource usage, which autoscalers act on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::autoscaler::Usage;

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
    /// Requests per second that each target's pods answer.
    loads: HashMap<(String, String), f64>,
    /// Pods that the external metrics of each target's autoscaler ask for.
    external: HashMap<(String, String), f64>,
    /// CPU that a request costs, in thousandths of a core times seconds; zero where load costs nothing.
    cost: f64,
    /// Requests per second for which a pod uses all the CPU it asks for; zero where load is not counted this way.
    capacity: f64,
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

    /// Makes load cost CPU: autoscalers then follow the requests that the cluster's traffic sends. Zero switches that off.
    ///
    /// The traffic of a [`Cluster`](crate::cluster::Cluster) tells of its load only if this is set before the cluster starts.
    pub fn set_cost_per_request(&self, cpu_time: Duration) {
        self.inner.state.lock().cost = cpu_time.as_secs_f64() * 1000.0;
    }

    /// Makes load cost CPU in proportion to what pods ask for: one that answers so many requests per second uses all of it,
    /// whatever it asks for. Zero switches that off; a cost that is set wins. As with that, set it before the cluster starts.
    pub fn set_requests_per_pod(&self, requests_per_second: f64) {
        self.inner.state.lock().capacity = requests_per_second;
    }

    /// Whether load costs CPU.
    pub(crate) fn follows_load(&self) -> bool {
        let state = self.inner.state.lock();
        state.cost > 0.0 || state.capacity > 0.0
    }

    /// Tells how many requests per second a target's pods answer.
    pub(crate) fn set_load(&self, namespace: &str, target: &str, requests_per_second: f64) {
        let key = (namespace.to_owned(), target.to_owned());
        let mut state = self.inner.state.lock();
        if state.loads.insert(key.clone(), requests_per_second) == Some(requests_per_second) {
            return;
        }
        state.unseen.push(key);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Tells how many pods the external metrics of a target's autoscaler ask for, or that nobody measures them.
    pub(crate) fn set_external(&self, namespace: &str, target: &str, pods: Option<f64>) {
        let key = (namespace.to_owned(), target.to_owned());
        let mut state = self.inner.state.lock();
        let before = match pods {
            Some(pods) => state.external.insert(key.clone(), pods),
            None => state.external.remove(&key),
        };
        if before == pods {
            return;
        }
        state.unseen.push(key);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The pods that external metrics ask for.
    pub(super) fn external(&self, namespace: &str, target: &str) -> Option<Usage> {
        let key = (namespace.to_owned(), target.to_owned());
        self.inner.state.lock().external.get(&key).copied().map(Usage::External)
    }

    /// What an autoscaler of the target measures: the usage that was set, else what its load costs.
    pub(super) fn usage(&self, namespace: &str, target: &str) -> Option<Usage> {
        let key = (namespace.to_owned(), target.to_owned());
        let state = self.inner.state.lock();
        if let Some(percent) = state.percents.get(&key) {
            return Some(Usage::Percent(*percent));
        }
        let load = state.loads.get(&key).copied().unwrap_or(0.0);
        if state.cost > 0.0 {
            return Some(Usage::Total(load * state.cost));
        }
        (state.capacity > 0.0).then(|| Usage::Requests(load / state.capacity))
    }

    /// CPU that one of a target's ready pods uses, in thousandths of a core; `None` where nothing is known.
    pub(crate) fn cpu_of_pod(&self, namespace: &str, target: &str, requested: f64, ready: u32) -> Option<f64> {
        Some(match self.usage(namespace, target)? {
            Usage::Percent(percent) => f64::from(percent) / 100.0 * requested,
            Usage::Total(total) => total / f64::from(ready.max(1)),
            Usage::Requests(pods) => pods * requested / f64::from(ready.max(1)),
            Usage::External(_) => return None,
        })
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
