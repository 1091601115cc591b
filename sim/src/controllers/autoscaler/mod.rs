//! HorizontalPodAutoscalers over a simulated CPU usage, after the controller of Kubernetes.

mod metric;
mod scaling;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{after, condition, count, text, whole_second};
use super::queue::ObjectName;
use crate::store::kinds;
pub(super) use metric::Usage;
use metric::{Pods, goes_by_cpu, has_external, read};
use scaling::{Bounds, History, SYNC_PERIOD};

const COMPONENT: &str = "horizontal-pod-autoscaler";

/// What is told where no usage of a target is known. The metrics API has its pods, but nothing was measured.
const NO_METRICS: &str = "unable to get metrics for resource cpu: no metrics returned from resource metrics API";

/// What an autoscaler remembers between synchronisations.
#[derive(Debug, Default)]
pub(super) struct AutoscalerMemory {
    /// `None`: metrics are looked at now.
    pub(super) next_sync: Option<Timestamp>,
    history: History,
    /// The failure that was told of last: it is told once, not every period.
    failure: Option<String>,
}

/// A new size and the reason for it.
struct Rescale {
    replicas: i32,
    reason: String,
}

impl Engine {
    pub(super) fn reconcile_autoscaler(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let Some(autoscaler) = self.store.get(&kinds::HPA, &name.namespace, &name.name) else {
            self.autoscalers.remove(name);
            return None;
        };
        if text(&autoscaler, "/spec/scaleTargetRef/kind") != Some("Deployment") {
            return None;
        }
        let now = self.clock.now();
        let target = name.sibling(text(&autoscaler, "/spec/scaleTargetRef/name").unwrap_or_default());
        let deployment = self.store.get(&kinds::DEPLOYMENT, &target.namespace, &target.name);
        let Some(deployment) = deployment else {
            let message = format!(
                "the HPA controller was unable to get the target's current scale: deployments.apps \"{}\" not found",
                target.name
            );
            let mut status = status_of(&autoscaler);
            set_condition(&mut status, "AbleToScale", false, "FailedGetScale", &message, now);
            let untold = condition(&autoscaler, "AbleToScale")
                .is_none_or(|before| text(before, "/reason") != Some("FailedGetScale"));
            self.write_autoscaler_status(name, &autoscaler, status);
            if untold {
                let message = format!("deployments.apps \"{}\" not found", target.name);
                self.record_warning(&autoscaler, COMPONENT, "FailedGetScale", &message);
            }
            return None;
        };
        let usage = self.options.utilisation.usage(&target.namespace, &target.name);
        // Nothing else of pods is simulated: by memory or by a queue an autoscaler only keeps its bounds.
        let usage = usage.filter(|usage| matches!(usage, Usage::Percent(_)) || goes_by_cpu(&autoscaler));
        let external = self.options.utilisation.external(&target.namespace, &target.name);
        let usage = external.filter(|_| has_external(&autoscaler)).or(usage);
        let mut memory = self.autoscalers.remove(name).unwrap_or_default();
        let wake = self.autoscale(name, &autoscaler, &target, &deployment, usage, &mut memory);
        self.autoscalers.insert(name.clone(), memory);
        wake
    }

    fn autoscale(
        &mut self,
        name: &ObjectName,
        autoscaler: &Value,
        target: &ObjectName,
        deployment: &Value,
        usage: Option<Usage>,
        memory: &mut AutoscalerMemory,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let current = count(deployment, "/spec/replicas").unwrap_or(1);
        let mut status = status_of(autoscaler);
        status["currentReplicas"] = current.into();
        if condition(autoscaler, "AbleToScale").is_none_or(|before| text(before, "/status") != Some("True")) {
            let message = "the HPA controller was able to get the target's current scale";
            set_condition(&mut status, "AbleToScale", true, "SucceededGetScale", message, now);
        }
        let min = count(autoscaler, "/spec/minReplicas").unwrap_or(1);
        let max = count(autoscaler, "/spec/maxReplicas").unwrap_or(i32::MAX);
        let rescale = |replicas, reason: &str| Some(Rescale { replicas, reason: reason.to_owned() });
        let mut wake = None;
        if current == 0 || current > max || current < min {
            // No metric is asked for, so none is current.
            if let Some(status) = status.as_object_mut() {
                status.remove("currentMetrics");
            }
        }
        let rescale = if current == 0 {
            *memory = AutoscalerMemory::default();
            status["desiredReplicas"] = 0.into();
            let message = "scaling is disabled since the replica count of the target is zero";
            set_condition(&mut status, "ScalingActive", false, "ScalingDisabled", message, now);
            None
        } else if current > max {
            rescale(max, "Current number of replicas above Spec.MaxReplicas")
        } else if current < min {
            rescale(min, "Current number of replicas below Spec.MinReplicas")
        } else if let Some(usage) = usage {
            let bounds = Bounds { current, min, max };
            let decided = self.follow_metric(autoscaler, deployment, usage, bounds, memory, &mut status);
            wake = memory.next_sync;
            decided
        } else {
            let failure = memory.failure.take();
            *memory = AutoscalerMemory { failure, ..AutoscalerMemory::default() };
            self.tell_failure(autoscaler, memory, &mut status, NO_METRICS.to_owned());
            status["currentMetrics"] = json!([{"type": ""}]);
            None
        };
        if let Some(Rescale { replicas, reason }) = rescale {
            status["desiredReplicas"] = replicas.into();
            let message = format!("the HPA controller was able to update the target scale to {replicas}");
            set_condition(&mut status, "AbleToScale", true, "SucceededRescale", &message, now);
            status["lastScaleTime"] = json!(whole_second(now));
            memory.history.record_change(current, replicas, now);
            self.update(&kinds::DEPLOYMENT, target, |deployment| {
                // Somebody may have scaled it to zero in between, and zero switches autoscaling off.
                if deployment["spec"]["replicas"] != 0 {
                    deployment["spec"]["replicas"] = replicas.into();
                }
            });
            let message = format!("New size: {replicas}; reason: {reason}");
            self.record_event(autoscaler, COMPONENT, "SuccessfulRescale", &message);
        }
        self.write_autoscaler_status(name, autoscaler, status);
        wake
    }

    /// Looks at the metric, at most once in a period.
    fn follow_metric(
        &mut self,
        autoscaler: &Value,
        deployment: &Value,
        usage: Usage,
        bounds: Bounds,
        memory: &mut AutoscalerMemory,
        status: &mut Value,
    ) -> Option<Rescale> {
        let now = self.clock.now();
        if memory.next_sync.is_some_and(|next| now < next) {
            return None;
        }
        memory.history.begin(bounds.current, now);
        let ready = count(deployment, "/status/readyReplicas").unwrap_or(0);
        let reading = match read(autoscaler, deployment, usage, ready) {
            Ok(reading) => reading,
            Err(problem) => {
                memory.next_sync = Some(after(now, SYNC_PERIOD));
                self.tell_failure(autoscaler, memory, status, problem);
                return None;
            }
        };
        memory.failure = None;
        let existing = count(deployment, "/status/replicas").unwrap_or(0);
        let pods = Pods { current: bounds.current, ready, existing };
        let wanted = reading.recommend(autoscaler, pods);
        let limited = memory.history.limit(autoscaler, wanted, bounds, now);
        let message = format!("the HPA was able to successfully calculate a replica count from {}", reading.name);
        set_condition(status, "ScalingActive", true, "ValidMetricFound", &message, now);
        let (reason, message) = limited.able_to_scale;
        set_condition(status, "AbleToScale", true, reason, message, now);
        let (reason, message) = limited.limit;
        set_condition(status, "ScalingLimited", limited.limited, reason, message, now);
        status["currentMetrics"] = json!([reading.status]);
        status["desiredReplicas"] = limited.replicas.into();
        let stays = limited.replicas == bounds.current;
        // Where time alone changes nothing, the next change of the usage or of the pods is soon enough.
        let settled = stays && !limited.limited && wanted == bounds.current;
        let settled = settled && memory.history.is_settled_at(bounds.current);
        memory.next_sync = (!settled).then(|| after(now, SYNC_PERIOD));
        if stays {
            return None;
        }
        let reason = if limited.replicas > bounds.current {
            format!("{} above target", reading.name)
        } else {
            "All metrics below target".to_owned()
        };
        Some(Rescale { replicas: limited.replicas, reason })
    }

    fn tell_failure(&mut self, autoscaler: &Value, memory: &mut AutoscalerMemory, status: &mut Value, problem: String) {
        let now = self.clock.now();
        let failure = format!("failed to get cpu utilization: {problem}");
        let message = format!("the HPA was unable to compute the replica count: {failure}");
        set_condition(status, "ScalingActive", false, "FailedGetResourceMetric", &message, now);
        if memory.failure.as_ref() == Some(&problem) {
            return;
        }
        self.record_warning(autoscaler, COMPONENT, "FailedGetResourceMetric", &failure);
        let message = format!(
            "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {failure}"
        );
        self.record_warning(autoscaler, COMPONENT, "FailedComputeMetricsReplicas", &message);
        memory.failure = Some(problem);
    }

    fn write_autoscaler_status(&self, name: &ObjectName, autoscaler: &Value, status: Value) {
        if autoscaler.get("status") != Some(&status) {
            self.update(&kinds::HPA, name, |autoscaler| autoscaler["status"] = status);
        }
    }
}

fn status_of(autoscaler: &Value) -> Value {
    let mut status = autoscaler.get("status").cloned().unwrap_or_default();
    if !status.is_object() {
        status = json!({});
    }
    for field in ["currentReplicas", "desiredReplicas"] {
        if !status[field].is_i64() && !status[field].is_u64() {
            status[field] = 0.into();
        }
    }
    status
}

/// Sets a condition in its place; its transition time moves only with its status.
fn set_condition(status: &mut Value, condition_type: &str, value: bool, reason: &str, message: &str, now: Timestamp) {
    let value = if value { "True" } else { "False" };
    let holder = json!({"status": status});
    let transition = condition(&holder, condition_type)
        .filter(|before| text(before, "/status") == Some(value))
        .and_then(|before| before.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| json!(whole_second(now)));
    let rendered = json!({
        "type": condition_type, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": transition,
    });
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return;
    };
    let place = conditions.iter().position(|condition| text(condition, "/type") == Some(condition_type));
    match place {
        Some(place) => conditions[place] = rendered,
        None => conditions.push(rendered),
    }
}
