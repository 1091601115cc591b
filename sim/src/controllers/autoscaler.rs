//! HorizontalPodAutoscalers over a simulated utilisation, after the controller of Kubernetes.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{after, condition, count, integer, seconds, text, whole_second};
use super::queue::ObjectName;
use crate::store::kinds;

/// `--horizontal-pod-autoscaler-sync-period` of the controller manager.
const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
const DOWNSCALE_STABILISATION: i64 = 300;
/// `--horizontal-pod-autoscaler-tolerance`, in percent of the target.
const TOLERANCE_PERCENT: u64 = 10;
/// Pods that may be added in one period however few there are (the default scale-up policy).
const SCALE_UP_PODS: i32 = 4;
/// Target utilisation of an autoscaler without metrics, in percent.
const DEFAULT_TARGET: u64 = 80;

/// What an autoscaler remembers between synchronisations.
#[derive(Debug, Default)]
pub(super) struct AutoscalerMemory {
    /// `None`: metrics are looked at now.
    pub(super) next_sync: Option<Timestamp>,
    recommendations: VecDeque<(Timestamp, i32)>,
    /// A recommendation that waits for the stabilisation window or the next period.
    limited: Limit,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Limit {
    #[default]
    None,
    Stabilised,
    ScaleUp,
    Minimum,
    Maximum,
}

struct Decision {
    desired: i32,
    reason: Option<&'static str>,
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
            self.write_autoscaler_status(name, &autoscaler, status);
            return None;
        };
        let utilisation = self.options.utilisation.of(&target.namespace, &target.name);
        let mut memory = self.autoscalers.remove(name).unwrap_or_default();
        let wake = self.autoscale(name, &autoscaler, &target, &deployment, utilisation, &mut memory);
        self.autoscalers.insert(name.clone(), memory);
        wake
    }

    fn autoscale(
        &mut self,
        name: &ObjectName,
        autoscaler: &Value,
        target: &ObjectName,
        deployment: &Value,
        utilisation: Option<u32>,
        memory: &mut AutoscalerMemory,
    ) -> Option<Timestamp> {
        let now = self.clock.now();
        let current = count(deployment, "/spec/replicas").unwrap_or(1);
        let mut status = status_of(autoscaler);
        status["currentReplicas"] = count(deployment, "/status/replicas").unwrap_or(0).into();
        set_condition(
            &mut status,
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
            now,
        );
        if current == 0 {
            memory.next_sync = None;
            memory.recommendations.clear();
            status["desiredReplicas"] = 0.into();
            set_condition(
                &mut status,
                "ScalingActive",
                false,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
                now,
            );
            self.write_autoscaler_status(name, autoscaler, status);
            return None;
        }
        let ready = count(deployment, "/status/readyReplicas").unwrap_or(0);
        let decision = memory.decide(autoscaler, current, ready, utilisation, now);
        status["desiredReplicas"] = decision.desired.into();
        describe_limit(&mut status, memory.limited, now);
        if let Some(percent) = utilisation {
            let resource = resource_name(autoscaler);
            let message = format!(
                "the HPA was able to successfully calculate a replica count from {resource} resource utilization (percentage of request)"
            );
            set_condition(&mut status, "ScalingActive", true, "ValidMetricFound", &message, now);
            status["currentMetrics"] = json!([{"type": "Resource", "resource": {
                "name": resource, "current": {"averageUtilization": percent, "averageValue": "0"},
            }}]);
        }
        if decision.desired != current {
            let message = format!("the HPA controller was able to update the target scale to {}", decision.desired);
            set_condition(&mut status, "AbleToScale", true, "SucceededRescale", &message, now);
            status["lastScaleTime"] = json!(whole_second(now));
            self.update(&kinds::DEPLOYMENT, target, |deployment| {
                // Somebody may have scaled it to zero in between, and zero switches autoscaling off.
                if deployment["spec"]["replicas"] != 0 {
                    deployment["spec"]["replicas"] = decision.desired.into();
                }
            });
            let reason = decision.reason.unwrap_or("All metrics below target");
            let message = format!("New size: {}; reason: {reason}", decision.desired);
            self.record_event(autoscaler, "horizontal-pod-autoscaler", "SuccessfulRescale", &message);
        }
        self.write_autoscaler_status(name, autoscaler, status);
        utilisation.and(memory.next_sync)
    }

    fn write_autoscaler_status(&self, name: &ObjectName, autoscaler: &Value, status: Value) {
        if autoscaler.get("status") != Some(&status) {
            self.update(&kinds::HPA, name, |autoscaler| autoscaler["status"] = status);
        }
    }
}

impl AutoscalerMemory {
    fn decide(
        &mut self,
        autoscaler: &Value,
        current: i32,
        ready: i32,
        utilisation: Option<u32>,
        now: Timestamp,
    ) -> Decision {
        let min = count(autoscaler, "/spec/minReplicas").unwrap_or(1);
        let max = count(autoscaler, "/spec/maxReplicas").unwrap_or(i32::MAX);
        if utilisation.is_none() {
            self.next_sync = None;
            self.recommendations.clear();
            self.limited = Limit::None;
        }
        if current > max {
            return Decision { desired: max, reason: Some("Current number of replicas above Spec.MaxReplicas") };
        }
        if current < min {
            return Decision { desired: min, reason: Some("Current number of replicas below Spec.MinReplicas") };
        }
        let unchanged = Decision { desired: current, reason: None };
        let Some(percent) = utilisation else {
            return unchanged;
        };
        if self.next_sync.is_some_and(|next| now < next) {
            return unchanged;
        }
        self.next_sync = Some(after(now, SYNC_PERIOD));
        let wanted = recommend(u64::from(percent), target_percent(autoscaler), current, ready);
        let desired = self.limit(autoscaler, wanted, current, min, max, now);
        let reason = if desired > current {
            "cpu resource utilization (percentage of request) above target"
        } else {
            "All metrics below target"
        };
        Decision { desired, reason: Some(reason) }
    }

    fn limit(&mut self, autoscaler: &Value, wanted: i32, current: i32, min: i32, max: i32, now: Timestamp) -> i32 {
        let window = integer(autoscaler, "/spec/behavior/scaleDown/stabilizationWindowSeconds")
            .unwrap_or(DOWNSCALE_STABILISATION);
        if self.recommendations.is_empty() {
            self.recommendations.push_back((now, current));
        }
        self.recommendations.push_back((now, wanted));
        self.recommendations.retain(|(at, _)| after(*at, seconds(window)) > now || *at == now && window == 0);
        if window == 0 {
            // Without a window only the latest recommendation counts.
            self.recommendations.drain(..self.recommendations.len() - 1);
        }
        let highest = self.recommendations.iter().map(|(_, replicas)| *replicas).max().unwrap_or(wanted);
        let stabilised = if wanted < current { highest.min(current) } else { wanted };
        let fastest = current.saturating_mul(2).max(current.saturating_add(SCALE_UP_PODS));
        let (desired, limited) = if stabilised > fastest.min(max) {
            if fastest < max { (fastest, Limit::ScaleUp) } else { (max, Limit::Maximum) }
        } else if stabilised < min {
            (min, Limit::Minimum)
        } else if stabilised != wanted {
            (stabilised, Limit::Stabilised)
        } else {
            (stabilised, Limit::None)
        };
        self.limited = limited;
        desired
    }
}

/// Replicas that bring the usage to its target; none are added or removed within the tolerance. Pods that are not ready count
/// as idle where more are wanted and do not count where fewer are.
fn recommend(percent: u64, target: u64, current: i32, ready: i32) -> i32 {
    let target = target.max(1);
    let difference = percent.abs_diff(target) * 100;
    if ready == 0 || difference <= target * TOLERANCE_PERCENT {
        return current;
    }
    let ready = u64::try_from(ready).unwrap_or(0);
    let needed = i32::try_from((ready * percent).div_ceil(target)).unwrap_or(i32::MAX);
    if percent > target { needed.max(current) } else { needed.min(current) }
}

fn resource_metric(autoscaler: &Value) -> Option<&Value> {
    let metrics = autoscaler.pointer("/spec/metrics")?.as_array()?;
    metrics.iter().find(|metric| text(metric, "/type") == Some("Resource"))?.get("resource")
}

fn target_percent(autoscaler: &Value) -> u64 {
    resource_metric(autoscaler)
        .and_then(|resource| resource.pointer("/target/averageUtilization"))
        .and_then(Value::as_u64)
        .unwrap_or(DEFAULT_TARGET)
}

fn resource_name(autoscaler: &Value) -> &str {
    resource_metric(autoscaler).and_then(|resource| text(resource, "/name")).unwrap_or("cpu")
}

fn describe_limit(status: &mut Value, limited: Limit, now: Timestamp) {
    let (is_limited, reason, message) = match limited {
        Limit::None | Limit::Stabilised => {
            (false, "DesiredWithinRange", "the desired count is within the acceptable range")
        }
        Limit::ScaleUp => {
            (true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
        }
        Limit::Minimum => (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count"),
        Limit::Maximum => (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count"),
    };
    set_condition(status, "ScalingLimited", is_limited, reason, message, now);
    let (reason, message) = if limited == Limit::Stabilised {
        (
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        )
    } else {
        ("ReadyForNewScale", "recommended size matches current size")
    };
    set_condition(status, "AbleToScale", true, reason, message, now);
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
    if let Some(fields) = status.as_object_mut() {
        fields.remove("currentMetrics");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommendation_follows_usage_outside_the_tolerance() {
        assert_eq!(recommend(88, 80, 4, 4), 4, "within a tenth");
        assert_eq!(recommend(90, 80, 4, 4), 5);
        assert_eq!(recommend(40, 80, 4, 4), 2);
        assert_eq!(recommend(160, 80, 4, 1), 4, "idle newcomers absorb the load");
        assert_eq!(recommend(500, 80, 4, 0), 4, "no measurement");
    }
}
