//! The loop that feeds changes and due timers to the controllers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::autoscaler::AutoscalerMemory;
use super::cache::Cache;
use super::counted::{CountedDaemonSet, CountedDeployment};
use super::event_log::EventLog;
use super::kubelet::PodMemory;
use super::queue::{Key, ObjectName, Queue};
use super::scheduler::NodeState;
use super::timers::Timers;
use super::workloads::{VersionPods, WorkloadKind, Workloads};
use super::{ControllerOptions, PodDetail, node};
use crate::clock::Clock;
use crate::store::{ChangeType, GroupKind, Store, StoreEvent, kinds};

/// Objects looked at before other tasks of the thread get their turn. One takes some ten microseconds, so this keeps a fleet's
/// start from blocking its thread for more than about a millisecond.
const BATCH: usize = 64;

pub(super) struct Engine {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) options: ControllerOptions,
    pub(super) cache: Cache,
    pub(super) workloads: Arc<Workloads>,
    pub(super) counted_deployments: HashMap<ObjectName, CountedDeployment>,
    pub(super) counted_daemon_sets: HashMap<ObjectName, CountedDaemonSet>,
    pub(super) pods: HashMap<ObjectName, PodMemory>,
    pub(super) autoscalers: HashMap<ObjectName, AutoscalerMemory>,
    pub(super) pod_addresses: u32,
    pub(super) events_written: u64,
    pub(super) event_log: EventLog,
    pub(super) node: NodeState,
    budgets: BTreeSet<ObjectName>,
    quotas: BTreeSet<ObjectName>,
    queue: Queue,
    timers: Timers,
}

impl Engine {
    pub(super) fn new(store: Store, clock: Clock, options: ControllerOptions) -> (Self, UnboundedReceiver<StoreEvent>) {
        // Subscribed before anything is listed: a change in between is seen twice rather than never.
        let events = store.subscribe();
        let mut engine = Self {
            store,
            clock,
            options,
            cache: Cache::default(),
            workloads: Arc::default(),
            counted_deployments: HashMap::new(),
            counted_daemon_sets: HashMap::new(),
            pods: HashMap::new(),
            autoscalers: HashMap::new(),
            pod_addresses: 0,
            events_written: 0,
            event_log: EventLog::default(),
            node: NodeState::parse(&node::object(clock.now())),
            budgets: BTreeSet::new(),
            quotas: BTreeSet::new(),
            queue: Queue::default(),
            timers: Timers::default(),
        };
        if engine.stores_pods() {
            engine.ensure_node();
            engine.ensure_api_service();
        }
        for kind in [
            kinds::NODE,
            kinds::NAMESPACE,
            kinds::SERVICE,
            kinds::REPLICA_SET,
            kinds::POD,
            kinds::DEPLOYMENT,
            kinds::DAEMON_SET,
            kinds::HPA,
            kinds::POD_DISRUPTION_BUDGET,
            kinds::JOB,
            kinds::CRON_JOB,
            kinds::RESOURCE_QUOTA,
            kinds::STATEFUL_SET,
        ] {
            for object in engine.store.list(&kind, None) {
                engine.observe(&kind, &object, true);
            }
        }
        (engine, events)
    }

    pub(super) fn workloads(&self) -> Arc<Workloads> {
        Arc::clone(&self.workloads)
    }

    pub(super) fn stores_pods(&self) -> bool {
        self.options.pods == PodDetail::Objects
    }

    fn ensure_node(&self) {
        if !self.store.list(&kinds::NODE, None).is_empty() {
            return;
        }
        if let Err(error) = self.store.create(&kinds::NODE, node::object(self.clock.now())) {
            tracing::warn!(%error, "failed to create the node");
        }
    }

    pub(super) async fn run(mut self, mut events: UnboundedReceiver<StoreEvent>) {
        let behaviours = self.options.behaviours.clone();
        let utilisation = self.options.utilisation.clone();
        loop {
            while self.work(&mut events) {
                tokio::task::yield_now().await;
            }
            let next = self.timers.next();
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.observe_event(&event),
                    None => return,
                },
                () = behaviours.changed() => self.revisit_pods(),
                () = utilisation.changed() => self.revisit_autoscalers(),
                () = until(self.clock, next) => {}
            }
        }
    }

    /// Does what can be done now, up to [`BATCH`] objects. Returns whether some may be left.
    pub(super) fn work(&mut self, events: &mut UnboundedReceiver<StoreEvent>) -> bool {
        for _ in 0..BATCH {
            while let Ok(event) = events.try_recv() {
                self.observe_event(&event);
            }
            let Some(key) = self.next_key() else {
                return false;
            };
            let wake = self.reconcile(&key);
            self.timers.set(&key, wake);
        }
        true
    }

    fn next_key(&mut self) -> Option<Key> {
        let now = self.clock.now();
        while let Some(key) = self.timers.pop_due(now) {
            self.queue.push(key);
        }
        self.queue.pop()
    }

    fn observe_event(&mut self, event: &StoreEvent) {
        let present = event.change != ChangeType::Deleted;
        if event.part_only.is_some() {
            // Of a custom resource, which means nothing to these controllers.
            return;
        }
        self.observe(&event.kind, event.object(), present);
    }

    fn observe(&mut self, kind: &GroupKind, object: &Value, present: bool) {
        let state = present.then_some(object);
        if self.stores_pods() {
            self.revisit_quotas(kind, object, state);
        }
        if *kind == kinds::DEPLOYMENT {
            let name = ObjectName::of(object);
            for autoscaler in self.cache.autoscalers_of(&name) {
                self.queue.push(Key::Autoscaler(autoscaler));
            }
            self.queue.push(Key::Deployment(name));
        } else if *kind == kinds::DAEMON_SET {
            self.queue.push(Key::DaemonSet(ObjectName::of(object)));
        } else if *kind == kinds::HPA {
            let name = ObjectName::of(object);
            self.cache.put_autoscaler(&name, state);
            self.queue.push(Key::Autoscaler(name));
        } else if self.stores_pods() {
            self.observe_detail(kind, object, state);
        }
    }

    fn observe_detail(&mut self, kind: &GroupKind, object: &Value, state: Option<&Value>) {
        if *kind == kinds::POD {
            self.observe_pod(ObjectName::of(object), state);
        } else if *kind == kinds::REPLICA_SET {
            let name = ObjectName::of(object);
            let before = self.cache.put_set(&name, state);
            let present = self.cache.set(&name);
            if let Some(owner) = present.or(before.as_ref()).and_then(|set| set.owner.as_ref()) {
                self.queue.push(Key::Deployment(name.sibling(&owner.name)));
            }
            self.queue.push(Key::ReplicaSet(name));
        } else if *kind == kinds::SERVICE {
            let name = ObjectName::of(object);
            self.cache.put_service(&name, state);
            if state.is_none() && super::namespaces::is_api_service(&name) {
                self.ensure_api_service();
            }
            self.queue.push(Key::Service(name));
        } else if *kind == kinds::NAMESPACE {
            self.queue.push(Key::Namespace(ObjectName::of(object)));
        } else if *kind == kinds::POD_DISRUPTION_BUDGET {
            let name = ObjectName::of(object);
            match state {
                Some(_) => self.budgets.insert(name.clone()),
                None => self.budgets.remove(&name),
            };
            self.queue.push(Key::Budget(name));
        } else if *kind == kinds::JOB {
            let name = ObjectName::of(object);
            if let Some(owner) = super::json::controller_owner(object).filter(|owner| owner.kind == "CronJob") {
                self.queue.push(Key::CronJob(name.sibling(&owner.name)));
            }
            self.queue.push(Key::Job(name));
        } else if *kind == kinds::CRON_JOB {
            self.queue.push(Key::CronJob(ObjectName::of(object)));
        } else if *kind == kinds::STATEFUL_SET {
            self.queue.push(Key::StatefulSet(ObjectName::of(object)));
        } else if *kind == kinds::CONFIG_MAP || *kind == kinds::SERVICE_ACCOUNT {
            let name = ObjectName::of(object);
            if state.is_none() && super::namespaces::is_kept(&name.name) {
                self.queue.push(Key::Namespace(ObjectName::new("", &name.namespace)));
            }
        } else if *kind == kinds::NODE {
            self.observe_node(state);
        }
    }

    /// Whatever changes in a namespace may be counted by its quotas.
    fn revisit_quotas(&mut self, kind: &GroupKind, object: &Value, state: Option<&Value>) {
        if *kind == kinds::RESOURCE_QUOTA {
            let name = ObjectName::of(object);
            match state {
                Some(_) => self.quotas.insert(name.clone()),
                None => self.quotas.remove(&name),
            };
            self.queue.push(Key::Quota(name));
        }
        let namespace = super::json::text(object, "/metadata/namespace").unwrap_or_default();
        for quota in self.quotas.iter().filter(|quota| &*quota.namespace == namespace) {
            self.queue.push(Key::Quota(quota.clone()));
        }
    }

    fn observe_node(&mut self, state: Option<&Value>) {
        let Some(node) = state.map(NodeState::parse).filter(|node| *node != self.node) else {
            return;
        };
        self.node = node;
        self.revisit_pods();
        for object in self.store.list(&kinds::DAEMON_SET, None) {
            self.queue.push(Key::DaemonSet(ObjectName::of(&object)));
        }
    }

    fn observe_pod(&mut self, name: ObjectName, state: Option<&Value>) {
        let before = self.cache.put_pod(&name, state);
        let after = self.cache.pod(&name).cloned();
        if before == after {
            // The kubelet's own bookkeeping, such as the restarts of a container: nothing that others build on.
            self.queue.push(Key::Pod(name));
            return;
        }
        for budget in self.budgets.iter().filter(|budget| budget.namespace == name.namespace) {
            self.queue.push(Key::Budget(budget.clone()));
        }
        for pod in [before, after].into_iter().flatten() {
            for service in self.cache.services_for(&name.namespace, &pod.labels) {
                self.queue.push(Key::Service(service));
            }
            let Some(owner) = pod.owner else { continue };
            let owner_name = name.sibling(&owner.name);
            if owner.kind == "ReplicaSet" {
                self.publish_set(&owner_name);
                self.queue.push(Key::ReplicaSet(owner_name));
            } else if owner.kind == "DaemonSet" {
                self.queue.push(Key::DaemonSet(owner_name));
            } else if owner.kind == "StatefulSet" {
                self.queue.push(Key::StatefulSet(owner_name));
            } else if owner.kind == "Job" {
                self.queue.push(Key::Job(owner_name));
            }
        }
        self.queue.push(Key::Pod(name));
    }

    /// Tells the table of workloads how many pods of a ReplicaSet are ready.
    pub(super) fn publish_set(&self, name: &ObjectName) {
        let Some(set) = self.cache.set(name) else {
            return;
        };
        let Some(owner) = set.owner.as_ref().filter(|owner| owner.kind == "Deployment") else {
            return;
        };
        let pods = self.cache.pods_of(&set.uid);
        let ready = pods.iter().filter(|(_, pod)| pod.is_serving()).count();
        let pods = VersionPods {
            labels: Arc::clone(&set.labels),
            image: Arc::clone(&set.image),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
        };
        self.workloads.set(WorkloadKind::Deployment, &name.namespace, &owner.name, &name.name, Some(pods));
    }

    fn reconcile(&mut self, key: &Key) -> Option<Timestamp> {
        match key {
            Key::Deployment(name) if self.stores_pods() => self.reconcile_deployment(name),
            Key::Deployment(name) => self.count_deployment(name),
            Key::DaemonSet(name) if self.stores_pods() => self.reconcile_daemon_set(name),
            Key::DaemonSet(name) => self.count_daemon_set(name),
            Key::ReplicaSet(name) => self.reconcile_replica_set(name),
            Key::Pod(name) => self.reconcile_pod(name),
            Key::Autoscaler(name) => self.reconcile_autoscaler(name),
            Key::Service(name) => {
                self.reconcile_service(name);
                None
            }
            Key::Namespace(name) => {
                self.reconcile_namespace(name);
                None
            }
            Key::StatefulSet(name) => self.reconcile_stateful_set(name),
            Key::Job(name) => self.reconcile_job(name),
            Key::CronJob(name) => self.reconcile_cron_job(name),
            Key::Quota(name) => {
                self.reconcile_quota(name);
                None
            }
            Key::Budget(name) => {
                self.reconcile_budget(name);
                None
            }
        }
    }

    /// Behaviours changed: every pod may be concerned.
    pub(super) fn revisit_pods(&mut self) {
        for name in self.cache.pod_names() {
            self.queue.push(Key::Pod(name));
        }
        if self.stores_pods() {
            return;
        }
        for (kind, make) in
            [(kinds::DEPLOYMENT, Key::Deployment as fn(ObjectName) -> Key), (kinds::DAEMON_SET, Key::DaemonSet)]
        {
            for object in self.store.list(&kind, None) {
                self.queue.push(make(ObjectName::of(&object)));
            }
        }
    }

    pub(super) fn revisit_autoscalers(&mut self) {
        for (namespace, target) in self.options.utilisation.take_unseen() {
            let target = ObjectName::new(&namespace, &target);
            for name in self.cache.autoscalers_of(&target) {
                // A new value is acted on at once; the next synchronisation follows from there.
                if let Some(memory) = self.autoscalers.get_mut(&name) {
                    memory.next_sync = None;
                }
                self.queue.push(Key::Autoscaler(name));
            }
        }
    }

    /// Changes an object. One that vanished meanwhile needs no change; its deletion is an event of its own.
    pub(super) fn update(&self, kind: &GroupKind, name: &ObjectName, change: impl FnOnce(&mut Value)) {
        let result = self.store.update(kind, &name.namespace, &name.name, change);
        if let Err(error) = result
            && error.code() != 404
        {
            tracing::warn!(%kind, ?name, %error, "failed to update an object");
        }
    }

    pub(super) fn delete(&self, kind: &GroupKind, name: &ObjectName) {
        let result = self.store.delete(kind, &name.namespace, &name.name);
        if let Err(error) = result
            && error.code() != 404
        {
            tracing::warn!(%kind, ?name, %error, "failed to delete an object");
        }
    }

    #[cfg(test)]
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next()
    }
}

/// Waits for a moment of the cluster's clock, or for ever.
async fn until(clock: Clock, at: Option<Timestamp>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    clock.sleep_until(at).await;
}
