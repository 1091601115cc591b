//! Whether a workload has rolled out.

use std::time::Duration;

use aviary_rollout::Readiness;
use jiff::{SignedDuration, Timestamp};
use kube::core::DynamicObject;
use serde_json::Value;

/// Judges a Deployment as Flagger does, in its order and with its texts.
///
/// `threshold` is the percentage of updated pods that must be available. `deadline` is the canary's
/// `progressDeadlineSeconds`: how long the Deployment may lack its minimum of available pods before waiting is given
/// up. (The Deployment's own deadline counts as well; it is the one that applies while old pods keep serving.)
/// A Deployment scaled to zero is ready.
pub(super) fn deployment(object: &DynamicObject, deadline: Duration, threshold: u32, now: Timestamp) -> Readiness {
    let status = |field: &str| object.data.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0);
    if object.metadata.generation.unwrap_or(0) > status("observedGeneration") {
        let reason = "waiting for rollout to finish: observed deployment generation less than desired generation";
        return Readiness::Waiting { reason: reason.into(), deadline: None };
    }
    let progressing = condition(object, "Progressing");
    if progressing.is_some_and(|condition| text(condition, "reason") == "ProgressDeadlineExceeded") {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        return Readiness::Failed { reason: format!("deployment {name:?} exceeded its progress deadline") };
    }
    let Some(reason) = unfinished(object, &status, threshold) else { return Readiness::Ready };
    let gives_up = progressing.and_then(|_| gives_up_at(object, deadline));
    match gives_up {
        Some(at) if now >= at => Readiness::Failed { reason },
        deadline => Readiness::Waiting { reason, deadline },
    }
}

/// Judges a DaemonSet as Flagger does. How long it may take, its status does not tell.
///
/// `threshold` is the percentage of the wanted pods that must be available. One that no node takes is ready.
pub(super) fn daemon_set(object: &DynamicObject, threshold: u32) -> Readiness {
    let status = |field: &str| object.data.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0);
    let desired = status("desiredNumberScheduled");
    let updated = status("updatedNumberScheduled");
    let (available, needed) = (status("numberAvailable"), share(desired, threshold));
    let reason = if object.metadata.generation.unwrap_or(0) > status("observedGeneration") {
        "observed daemonset generation less than desired generation".to_owned()
    } else if updated < desired {
        format!("{updated} out of {desired} new pods have been updated")
    } else if available < needed {
        format!("{available} of {needed} (readyThreshold {threshold}%) updated pods are available")
    } else {
        return Readiness::Ready;
    };
    Readiness::Waiting { reason: format!("waiting for rollout to finish: {reason}"), deadline: None }
}

fn unfinished(object: &DynamicObject, status: &impl Fn(&str) -> i64, threshold: u32) -> Option<String> {
    let updated = status("updatedReplicas");
    let replicas = status("replicas");
    let available = status("availableReplicas");
    if let Some(wanted) = object.data.pointer("/spec/replicas").and_then(Value::as_i64)
        && updated < wanted
    {
        return Some(format!(
            "waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated"
        ));
    }
    if replicas > updated {
        let old = replicas - updated;
        return Some(format!("waiting for rollout to finish: {old} old replicas are pending termination"));
    }
    let needed = share(updated, threshold);
    if available < needed {
        return Some(format!(
            "waiting for rollout to finish: {available} of {needed} (readyThreshold {threshold}%) updated replicas are available"
        ));
    }
    None
}

/// Flagger computes with 32-bit floats and truncates.
fn share(count: i64, percent: u32) -> i64 {
    (count as f32 * (percent as f32 / 100.0)) as i64
}

/// When waiting for the minimum of available pods is given up; `None` while the Deployment has it.
fn gives_up_at(object: &DynamicObject, deadline: Duration) -> Option<Timestamp> {
    let available = condition(object, "Available")?;
    if text(available, "status") != "False" || text(available, "reason") != "MinimumReplicasUnavailable" {
        return None;
    }
    let since: Timestamp = text(available, "lastUpdateTime").parse().ok()?;
    since.checked_add(SignedDuration::try_from(deadline).ok()?).ok()
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| text(condition, "type") == kind)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Puts a workload's name before the reason.
pub(super) fn explained(readiness: Readiness, prefix: &str) -> Readiness {
    match readiness {
        Readiness::Ready => Readiness::Ready,
        Readiness::Waiting { reason, deadline } => {
            Readiness::Waiting { reason: format!("{prefix} not ready: {reason}"), deadline }
        }
        Readiness::Failed { reason } => Readiness::Failed { reason: format!("{prefix} not ready: {reason}") },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

    use super::*;
    use serde_json::json;

    const BASE: &str = "2026-01-01T00:00:00Z";

    fn judge(object: Value, threshold: u32, seconds: i64) -> Readiness {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let now = BASE.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds);
        deployment(&object, Duration::from_secs(60), threshold, now)
    }

    fn object(spec_replicas: Value, status: Value) -> Value {
        let mut status = status;
        status["observedGeneration"] = json!(3);
        json!({
            "metadata": {"name": "podinfo", "namespace": "test", "generation": 3},
            "spec": {"replicas": spec_replicas},
            "status": status,
        })
    }

    fn waiting(reason: &str) -> Readiness {
        let reason = format!("waiting for rollout to finish: {reason}");
        Readiness::Waiting { reason, deadline: None }
    }

    #[test]
    fn the_steps_come_in_order_with_flaggers_texts() {
        let mut stale = object(json!(2), json!({}));
        stale["status"]["observedGeneration"] = json!(2);
        stale["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(judge(stale, 100, 0), waiting("observed deployment generation less than desired generation"));

        let exceeded =
            object(json!(2), json!({"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}));
        let reason = "deployment \"podinfo\" exceeded its progress deadline".to_owned();
        assert_eq!(judge(exceeded, 100, 0), Readiness::Failed { reason });

        let updating = json!({"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2});
        assert_eq!(judge(object(json!(2), updating), 100, 0), waiting("1 out of 2 new replicas have been updated"));

        let terminating = json!({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(judge(object(json!(2), terminating), 100, 0), waiting("1 old replicas are pending termination"));

        let starting = json!({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 1});
        assert_eq!(
            judge(object(json!(3), starting.clone()), 100, 0),
            waiting("1 of 3 (readyThreshold 100%) updated replicas are available")
        );
        // 3 × 50 % is cut to 1.
        assert_eq!(judge(object(json!(3), starting), 50, 0), Readiness::Ready);
    }

    #[test]
    fn zero_replicas_are_ready() {
        assert_eq!(judge(object(json!(0), json!({})), 100, 0), Readiness::Ready);
    }

    #[test]
    fn waiting_ends_at_the_deadline_when_the_minimum_is_missing() {
        let status = json!({
            "replicas": 1, "updatedReplicas": 1, "availableReplicas": 0,
            "conditions": [
                {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "lastUpdateTime": BASE},
                {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
            ],
        });
        let reason = "waiting for rollout to finish: 0 of 1 (readyThreshold 100%) updated replicas are available";
        let deadline = "2026-01-01T00:01:00Z".parse().ok();
        let before = judge(object(json!(1), status.clone()), 100, 59);
        assert_eq!(before, Readiness::Waiting { reason: reason.into(), deadline });
        assert_eq!(judge(object(json!(1), status.clone()), 100, 60), Readiness::Failed { reason: reason.into() });

        let mut without_progressing = status;
        without_progressing["conditions"].as_array_mut().unwrap().pop();
        let unknown = judge(object(json!(1), without_progressing), 100, 3600);
        assert_eq!(unknown, Readiness::Waiting { reason: reason.into(), deadline: None });
    }
}
