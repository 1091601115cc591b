//! The workload controllers of the embedded cluster: Deployments, ReplicaSets, pods, DaemonSets, autoscalers, Jobs, StatefulSets and endpoints.
//!
//! [`start`] spawns one task. It reacts to changes of the store and never polls: timers exist only for things under way (a pod
//! that starts or terminates, `minReadySeconds`, a progress deadline, the restarts of a crashing container, an autoscaler
//! whose utilisation was set). An idle cluster arms none. Given the same changes at the same times, the controllers make the
//! same writes in the same order.
//!
//! Two levels of detail ([`PodDetail`]) show the same Deployment statuses: with objects, everything that `kubectl` would list is
//! stored; with counts only, a Deployment costs a few hundred bytes and one write per moment at which its status changes.
//!
//! Autoscalers act on external metrics, where KEDA measures some, and else on CPU alone: on the usage that is set for a target
//! ([`Utilisation::set_utilisation`]) or on what the requests of its users cost ([`Utilisation::set_cost_per_request`]). Where
//! nothing is known they keep a target between its bounds. They look when something changed, and every 15 s as long as time alone can change their answer.
//!
//! What differs from a real cluster: there is one node, without limits; of the scheduler's rules its cordon, taints, node
//! selectors and node affinity count, and a `NoExecute` taint evicts nobody. Orphaned ReplicaSets and pods are not adopted.
//! DaemonSets ignore `maxSurge`. Pods of Jobs succeed once they have started. Init
//! containers are not simulated, disruption budgets not enforced. Events do not expire.
//! A pod that cannot be created leaves no `ReplicaFailure`.

mod autoscaler;
mod behaviours;
mod cache;
mod counted;
mod cron_jobs;
pub(crate) mod cron_schedule;
mod daemon_set;
mod deployment;
pub(crate) mod disruptions;
mod endpoints;
mod engine;
#[cfg(test)]
mod engine_tests;
mod event_log;
mod events;
mod jobs;
mod json;
mod kubelet;
mod namespaces;
mod node;
mod pod_status;
pub(crate) mod ports;
mod queue;
mod quotas;
mod replica_set;
mod revisions;
mod rollouts;
mod scheduler;
mod stateful_set;
mod timers;
mod utilisation;
mod workloads;

use std::sync::Arc;
use std::time::Duration;

pub use behaviours::{PodBehaviour, PodBehaviours, PodOutcome};
pub use utilisation::Utilisation;
pub use workloads::{SelectedPods, VersionPods, WorkloadKind, Workloads};

use crate::clock::Clock;
use crate::store::Store;

/// How much of a workload exists as objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodDetail {
    /// ReplicaSets, pods, endpoints and events are stored, as in a real cluster.
    #[default]
    Objects,
    /// Only the statuses of Deployments, DaemonSets and autoscalers move: for thousands of workloads in one process.
    CountsOnly,
}

/// Settings of the controllers.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// Level of detail.
    pub pods: PodDetail,
    /// Time from a pod's creation to its readiness, where its image has no delay of its own.
    pub start_delay: Duration,
    /// Time from a pod's deletion until it is gone. It is out of service at once.
    pub termination_delay: Duration,
    /// Whether events about pods and scaling are stored (with [`PodDetail::Objects`] only).
    pub events: bool,
    /// Behaviour of pods by image.
    pub behaviours: PodBehaviours,
    /// Resource usage that autoscalers act on.
    pub utilisation: Utilisation,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            pods: PodDetail::default(),
            // A small server with a readiness probe takes a few seconds.
            start_delay: Duration::from_secs(3),
            termination_delay: Duration::from_secs(1),
            events: true,
            behaviours: PodBehaviours::default(),
            utilisation: Utilisation::default(),
        }
    }
}

/// Starts the controllers on the current tokio runtime. No change made after this call is missed; objects that exist already
/// are picked up. The task ends with the runtime.
///
/// The returned table says how many pods of which version are ready; it is kept in both levels of detail.
#[must_use = "the table of workloads is how the rest of the cluster sees pods"]
pub fn start(store: Store, clock: Clock, options: ControllerOptions) -> Arc<Workloads> {
    let (engine, events) = engine::Engine::new(store, clock, options);
    let workloads = engine.workloads();
    tokio::spawn(engine.run(events));
    workloads
}
