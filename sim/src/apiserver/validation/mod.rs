//! Validation of built-in kinds, as far as people meet it who write them by hand (`pkg/apis/*/validation`).

mod autoscaler;
mod configuration;
mod event;
mod ingress;
mod job;
mod pod;
mod pod_update;
mod problems;
mod rbac;
mod service;
mod workload;

use serde_json::Value;

pub(super) use self::event::event_update_problems;
use self::problems::Problems;
use crate::store::FieldError;

/// Problems of what is written to the status of a built-in object, and of nothing else.
pub(super) fn status_problems(kind: &str, value: &Value) -> Vec<FieldError> {
    let mut problems = Problems::default();
    match kind {
        "Service" => service::status(value, &mut problems),
        "Deployment" => workload::deployment_status(&value["status"], &mut problems),
        _ => {}
    }
    problems.0
}

/// All problems of a new or changed object of a built-in kind, in the API server's words and order.
pub(super) fn problems(group: &str, kind: &str, value: &Value, present: Option<&Value>) -> Vec<FieldError> {
    let mut problems = Problems::default();
    match (group, kind) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") => {
            workload::workload(kind, value, present, &mut problems);
        }
        ("batch", "Job") => {
            job::spec(&value["spec"], "spec", &mut problems);
            if let Some(present) = present {
                job::update(value, present, &mut problems);
            }
        }
        ("batch", "CronJob") => job::cron_job(value, &mut problems),
        ("", "Pod") => {
            pod::spec(&value["spec"], "spec", &mut problems);
            if let Some(present) = present {
                pod_update::pod_update(&value["spec"], &present["spec"], &mut problems);
            }
        }
        ("", "PersistentVolumeClaim") => configuration::volume_claim(value, &mut problems),
        ("", "Service") => service::service(value, present, &mut problems),
        ("", "ConfigMap") => configuration::config_map(value, present, &mut problems),
        ("", "ResourceQuota") => configuration::quota(value, &mut problems),
        ("", "Secret") => configuration::secret(value, present, &mut problems),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::autoscaler(value, &mut problems),
        ("coordination.k8s.io", "Lease") => configuration::lease(value, &mut problems),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(value, &mut problems),
        ("networking.k8s.io", "Ingress") => ingress::ingress(value, &mut problems),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role(kind, value, &mut problems),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding(kind, value, present, &mut problems);
        }
        ("scheduling.k8s.io", "PriorityClass") => configuration::priority_class(value, present, &mut problems),
        ("policy", "PodDisruptionBudget") => configuration::disruption_budget(value, &mut problems),
        _ => {}
    }
    problems.0
}
