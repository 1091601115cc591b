//! KEDA: ScaledObjects, which scale Deployments by what Prometheus says, also from and to zero.
//!
//! One task beside the workload controllers, as KEDA's operator is one. For each ScaledObject it makes a
//! HorizontalPodAutoscaler (`keda-hpa-<name>`, or the name that `advanced` gives), which moves the target between one pod and
//! the most. KEDA itself moves it between none and the fewest: every `pollingInterval`, by whether a trigger is active.
//! `autoscaling.keda.sh/paused-replicas` takes the autoscaler away and holds the target at that number. Nothing is done and no
//! timer is armed where there is no ScaledObject, or only paused ones that are at rest.
//!
//! What differs: only Deployments are scaled; of triggers, those of Prometheus are asked, all at the one Prometheus that there
//! is, whatever address they name, and those of CPU are left to the autoscaler; `fallback`, `scalingModifiers` and
//! authentication do nothing; there are no events and no admission webhook.

mod autoscaler;
mod definition;
mod paused;
mod trigger;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::clock::{Clock, format_seconds};
use crate::controllers::Utilisation;
use crate::prometheus::Prometheus;
use crate::store::{ChangeType, Store, StoreEvent, kinds};

pub(crate) use definition::definition;
use paused::Paused;

/// The label and the finalizer that KEDA puts on its objects.
const NAME_LABEL: &str = "scaledobject.keda.sh/name";
const FINALIZER: &str = "finalizer.keda.sh";
/// Lets a ScaledObject take over an autoscaler that is there already.
const TRANSFER: &str = "scaledobject.keda.sh/transfer-hpa-ownership";

/// KEDA's defaults, in seconds and replicas.
const POLLING_INTERVAL: i64 = 30;
const COOLDOWN_PERIOD: i64 = 300;
const MAX_REPLICAS: i64 = 100;

/// Namespace and name.
type Name = (String, String);

/// Starts the operator on the current tokio runtime; it ends with the runtime.
pub(crate) fn start(store: Store, clock: Clock, prometheus: Prometheus, utilisation: Utilisation) {
    let events = store.subscribe();
    let mut operator = Operator { store, clock, prometheus, utilisation, objects: BTreeMap::new() };
    for object in operator.store.list(&kinds::SCALED_OBJECT, None) {
        operator.objects.insert(name_of(&object), Memory::new());
    }
    tokio::spawn(operator.run(events));
}

/// What is remembered of a ScaledObject.
struct Memory {
    /// It has to be looked at.
    is_dirty: bool,
    next_poll: Option<Timestamp>,
    last_active: Option<Timestamp>,
}

impl Memory {
    fn new() -> Memory {
        Memory { is_dirty: true, next_poll: None, last_active: None }
    }
}

struct Operator {
    store: Store,
    clock: Clock,
    prometheus: Prometheus,
    utilisation: Utilisation,
    objects: BTreeMap<Name, Memory>,
}

impl Operator {
    async fn run(mut self, mut events: UnboundedReceiver<StoreEvent>) {
        loop {
            while let Ok(event) = events.try_recv() {
                self.observe(&event);
            }
            if let Some((name, is_poll)) = self.next_due() {
                self.reconcile(&name, is_poll).await;
                tokio::task::yield_now().await;
                continue;
            }
            let next = self.objects.values().filter_map(|memory| memory.next_poll).min();
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.observe(&event),
                    None => return,
                },
                () = until(self.clock, next) => {}
            }
        }
    }

    fn observe(&mut self, event: &StoreEvent) {
        if event.kind == kinds::SCALED_OBJECT {
            let name = name_of(event.object());
            if event.change == ChangeType::Deleted {
                self.forget(&name, event.object());
            } else {
                self.objects.entry(name).or_insert_with(Memory::new).is_dirty = true;
            }
        } else if event.kind == kinds::HPA || event.kind == kinds::DEPLOYMENT {
            // Few clusters have many of them; whose target or autoscaler it is, is seen when they are looked at.
            let (namespace, _) = event.name();
            for (_, memory) in self.objects.iter_mut().filter(|((own, _), _)| own == namespace) {
                memory.is_dirty = true;
            }
        }
    }

    fn forget(&mut self, name: &Name, object: &Value) {
        self.objects.remove(name);
        self.utilisation.set_external(&name.0, &target_of(object), None);
    }

    fn next_due(&mut self) -> Option<(Name, bool)> {
        let now = self.clock.now();
        let due = |memory: &Memory| memory.next_poll.is_some_and(|at| at <= now);
        let (name, memory) = self.objects.iter_mut().find(|(_, memory)| memory.is_dirty || due(memory))?;
        let is_poll = due(memory);
        memory.is_dirty = false;
        if is_poll {
            memory.next_poll = None;
        }
        Some((name.clone(), is_poll))
    }

    async fn reconcile(&mut self, name: &Name, is_poll: bool) {
        let Some(object) = self.store.get(&kinds::SCALED_OBJECT, &name.0, &name.1) else { return };
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return self.finalize(name, &object);
        }
        self.mark(name, &object);
        let target = target_of(&object);
        let kind = object["spec"]["scaleTargetRef"]["kind"].as_str().unwrap_or("Deployment");
        let deployment = self.store.get(&kinds::DEPLOYMENT, &name.0, &target).filter(|_| kind == "Deployment");
        let Some(deployment) = deployment else {
            let message = "ScaledObject doesn't have correct scaleTargetRef specification";
            self.set_status(name, &[("Ready", "False", "ScaledObjectCheckFailed", message)], |_| {});
            return;
        };
        let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        self.set_status(name, &[], |status| {
            status["scaleTargetKind"] = json!("apps/v1.Deployment");
            if status["originalReplicaCount"].is_null() {
                status["originalReplicaCount"] = json!(replicas);
            }
        });
        match Paused::of(&object) {
            Paused::No => self.follow_triggers(name, &object, &target, replicas, is_poll).await,
            paused => self.hold(name, &object, &target, replicas, paused, is_poll),
        }
    }

    /// The target is held at a number, or where it is; nothing else moves it.
    fn hold(&mut self, name: &Name, object: &Value, target: &str, replicas: i64, paused: Paused, is_poll: bool) {
        let was_paused = condition(object, "Paused").is_some_and(|condition| condition["status"] == "True");
        self.delete_autoscaler(name, object);
        self.utilisation.set_external(&name.0, target, None);
        let wanted = match paused {
            Paused::At(count) => count,
            Paused::No | Paused::WhereItIs => replicas,
        };
        if replicas != wanted && (is_poll || !was_paused) {
            self.scale(&name.0, target, wanted);
        }
        // Somebody who scales a held target is overruled with the next look at it.
        let is_off = replicas != wanted && was_paused && !is_poll;
        let next_poll = is_off.then(|| self.after_interval(object));
        if let Some(memory) = self.objects.get_mut(name) {
            memory.next_poll = if is_off { memory.next_poll.or(next_poll) } else { None };
        }
        self.set_status(
            name,
            &[("Ready", "True", READY.0, READY.1), ("Paused", "True", "ScaledObjectPaused", "ScaledObject is paused")],
            |status| match paused {
                Paused::At(count) => status["pausedReplicaCount"] = json!(count),
                Paused::No | Paused::WhereItIs => {}
            },
        );
    }

    async fn follow_triggers(&mut self, name: &Name, object: &Value, target: &str, replicas: i64, is_poll: bool) {
        if let Err(problem) = self.ensure_autoscaler(name, object, target) {
            return self.set_status(name, &[("Ready", "False", "ScaledObjectCheckFailed", &problem)], |_| {});
        }
        let was_paused = condition(object, "Paused").is_some_and(|condition| condition["status"] == "True");
        let mut conditions =
            vec![("Ready", "True", READY.0, READY.1), ("Fallback", "False", NO_FALLBACK.0, NO_FALLBACK.1)];
        if was_paused {
            conditions.push(("Paused", "False", "ScaledObjectUnpaused", "pause annotation removed for ScaledObject"));
        }
        let autoscaler = autoscaler::name_of(object);
        self.set_status(name, &conditions, |status| {
            status["hpaName"] = json!(autoscaler);
            if let Some(status) = status.as_object_mut() {
                status.remove("pausedReplicaCount");
            }
        });
        let is_due = is_poll || self.objects.get(name).is_some_and(|memory| memory.next_poll.is_none());
        if is_due {
            self.poll(name, object, target, replicas).await;
            let next_poll = self.after_interval(object);
            if let Some(memory) = self.objects.get_mut(name) {
                memory.next_poll = Some(next_poll);
            }
        }
    }

    /// Asks the triggers, tells the autoscaler, and scales between none and the fewest.
    async fn poll(&mut self, name: &Name, object: &Value, target: &str, replicas: i64) {
        let triggers = object["spec"]["triggers"].as_array().cloned().unwrap_or_default();
        let mut wanted: Option<f64> = None;
        let (mut is_active, mut failure) = (false, None);
        for trigger in triggers.iter().filter(|trigger| trigger::is_asked(trigger)) {
            match trigger::ask(&self.prometheus, trigger).await {
                Ok(value) => {
                    is_active |= value > trigger::activation(trigger);
                    let pods = trigger::pods(trigger, value, replicas);
                    wanted = Some(wanted.map_or(pods, |others| others.max(pods)));
                }
                Err(problem) => failure = Some(problem),
            }
        }
        // It may have been changed or paused while Prometheus was asked.
        let present = self.store.get(&kinds::SCALED_OBJECT, &name.0, &name.1);
        if !present.is_some_and(|present| Paused::of(&present) == Paused::No) {
            return;
        }
        self.utilisation.set_external(&name.0, target, wanted);
        let now = self.clock.now();
        let active = match (is_active, &failure) {
            (true, _) => ("Active", "True", "ScalerActive", "Scaling is performed because triggers are active"),
            (false, None) => {
                ("Active", "False", "ScalerNotActive", "Scaling is not performed because triggers are not active")
            }
            (false, Some(problem)) => ("Ready", "False", "TriggerError", problem.as_str()),
        };
        self.set_status(name, &[active], |status| {
            if is_active {
                status["lastActiveTime"] = json!(format_seconds(now));
            }
        });
        let Some(memory) = self.objects.get_mut(name) else { return };
        if is_active {
            memory.last_active = Some(now);
        }
        if failure.is_some() && !is_active {
            return;
        }
        let (since, period) = match memory.last_active {
            Some(active) => (Some(active), integer(object, "cooldownPeriod", COOLDOWN_PERIOD)),
            None => {
                let created = object["metadata"]["creationTimestamp"].as_str().and_then(|at| at.parse().ok());
                (created, integer(object, "initialCooldownPeriod", 0))
            }
        };
        let cools_down = since.is_some_and(|since| now < after(since, period));
        if let Some(count) = from_and_to_zero(object, replicas, is_active, cools_down) {
            self.scale(&name.0, target, count);
        }
    }

    fn after_interval(&self, object: &Value) -> Timestamp {
        after(self.clock.now(), integer(object, "pollingInterval", POLLING_INTERVAL).max(1))
    }

    fn scale(&self, namespace: &str, target: &str, replicas: i64) {
        let set = |deployment: &mut Value| deployment["spec"]["replicas"] = json!(replicas);
        told(self.store.update(&kinds::DEPLOYMENT, namespace, target, set).map(drop));
    }

    fn mark(&self, name: &Name, object: &Value) {
        let has_finalizer =
            object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == FINALIZER));
        if has_finalizer && object["metadata"]["labels"][NAME_LABEL] == name.1.as_str() {
            return;
        }
        self.update(name, |object| {
            object["metadata"]["labels"][NAME_LABEL] = json!(name.1);
            match object["metadata"]["finalizers"].as_array_mut() {
                Some(_) if has_finalizer => {}
                Some(finalizers) => finalizers.push(json!(FINALIZER)),
                None => object["metadata"]["finalizers"] = json!([FINALIZER]),
            }
        });
    }

    fn finalize(&mut self, name: &Name, object: &Value) {
        let target = target_of(object);
        self.delete_autoscaler(name, object);
        if object["spec"]["advanced"]["restoreToOriginalReplicaCount"] == true
            && let Some(count) = object["status"]["originalReplicaCount"].as_i64()
        {
            self.scale(&name.0, &target, count);
        }
        self.update(name, |object| {
            if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
        });
    }

    fn update(&self, name: &Name, change: impl FnOnce(&mut Value)) {
        told(self.store.update(&kinds::SCALED_OBJECT, &name.0, &name.1, change).map(drop));
    }

    /// Sets conditions in their places, and other fields of the status.
    fn set_status(&self, name: &Name, conditions: &[(&str, &str, &str, &str)], change: impl FnOnce(&mut Value)) {
        self.update(name, |object| {
            let status = &mut object["status"];
            if !status.is_object() {
                *status = json!({});
            }
            if !status["conditions"].is_array() {
                let unknown = |condition: &str| json!({"type": condition, "status": "Unknown"});
                status["conditions"] = ["Ready", "Active", "Fallback", "Paused"].map(unknown).into();
            }
            for (kind, value, reason, message) in conditions {
                let rendered = json!({"type": kind, "status": value, "reason": reason, "message": message});
                if let Some(all) = status["conditions"].as_array_mut()
                    && let Some(place) = all.iter_mut().find(|condition| condition["type"] == *kind)
                {
                    *place = rendered;
                }
            }
            change(status);
        });
    }
}

const READY: (&str, &str) = ("ScaledObjectReady", "ScaledObject is defined correctly and is ready for scaling");
const NO_FALLBACK: (&str, &str) = ("NoFallbackFound", "No fallbacks are active on this scaled object");

/// The replicas that KEDA itself sets, where it sets any; the rest is the autoscaler's. Upstream: `RequestScale`.
fn from_and_to_zero(object: &Value, replicas: i64, is_active: bool, cools_down: bool) -> Option<i64> {
    let fewest = integer(object, "minReplicaCount", 0);
    let idle = object["spec"]["idleReplicaCount"].as_i64();
    if is_active {
        let is_idle = replicas == 0 || (idle.is_some() && replicas < fewest);
        return is_idle.then_some(fewest.max(1));
    }
    match idle {
        Some(idle) if replicas > idle => (!cools_down).then_some(idle),
        None if replicas > 0 && fewest == 0 => (!cools_down).then_some(0),
        None if replicas < fewest => Some(fewest),
        _ => None,
    }
}

fn name_of(object: &Value) -> Name {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn target_of(object: &Value) -> String {
    object["spec"]["scaleTargetRef"]["name"].as_str().unwrap_or_default().to_owned()
}

fn integer(object: &Value, field: &str, default: i64) -> i64 {
    object["spec"][field].as_i64().unwrap_or(default)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// An object that vanished meanwhile needs no change.
fn told(result: Result<(), crate::store::StatusError>) {
    if let Err(error) = result
        && error.code() != 404
    {
        tracing::warn!(%error, "KEDA failed to write an object");
    }
}

async fn until(clock: Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Patience with Prometheus: KEDA's own.
const TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keda_moves_a_target_between_none_and_the_fewest() {
        let object = |spec: Value| json!({"spec": spec});
        let waking = object(json!({"minReplicaCount": 2}));
        let resting = object(json!({}));
        let idling = object(json!({"minReplicaCount": 3, "idleReplicaCount": 0}));
        for (object, replicas, is_active, cools_down, expected) in [
            (&waking, 0, true, false, Some(2)),
            (&waking, 0, false, false, Some(2)),
            (&waking, 2, false, false, None),
            (&waking, 5, true, false, None),
            (&resting, 0, true, false, Some(1)),
            (&resting, 0, false, false, None),
            (&resting, 4, false, true, None),
            (&resting, 4, false, false, Some(0)),
            (&idling, 0, true, false, Some(3)),
            (&idling, 3, false, false, Some(0)),
            (&idling, 0, false, false, None),
        ] {
            assert_eq!(from_and_to_zero(object, replicas, is_active, cools_down), expected, "{object} at {replicas}");
        }
    }
}
