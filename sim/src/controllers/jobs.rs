//! Jobs: pods until enough of them have succeeded, after the job controller of Kubernetes.
//!
//! A pod of a Job succeeds as soon as it has started. Pods that fail are started again for ever (`backoffLimit` is not kept).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{condition, count, flag, is_deleting, text, whole_second};
use super::queue::ObjectName;
use crate::store::kinds;

const COMPONENT: &str = "job-controller";

/// Pods created in one go, as in Kubernetes.
const BURST: i32 = 500;

impl Engine {
    pub(super) fn reconcile_job(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let job = self.store.get(&kinds::JOB, &name.namespace, &name.name)?;
        let is_over = condition(&job, "Complete").is_some() || condition(&job, "Failed").is_some();
        if is_deleting(&job) || is_over || flag(&job, "/spec/suspend") {
            return None;
        }
        let uid = text(&job, "/metadata/uid").unwrap_or_default();
        let pods = self.cache.pods_of(uid);
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let active = number(pods.iter().filter(|(_, pod)| pod.is_active()).count());
        let ready = number(pods.iter().filter(|(_, pod)| pod.is_serving()).count());
        let succeeded = number(pods.iter().filter(|(_, pod)| pod.finished).count());
        let wanted = count(&job, "/spec/completions").unwrap_or(1);
        let parallelism = count(&job, "/spec/parallelism").unwrap_or(1);
        let missing = (wanted - succeeded).min(parallelism) - active;
        let wanted_now = missing.clamp(0, BURST);
        let created = number((0..wanted_now).take_while(|_| self.create_pod(&job, COMPONENT).is_ok()).count());
        self.write_job_status(name, &job, [active + created, ready, succeeded], succeeded >= wanted);
        (created < wanted_now).then(|| self.retry_at())
    }

    fn write_job_status(&mut self, name: &ObjectName, job: &Value, counts: [i32; 3], complete: bool) {
        let now = json!(whole_second(self.clock.now()));
        let started = job.pointer("/status/startTime").cloned().unwrap_or_else(|| now.clone());
        let mut status = json!({"startTime": started, "terminating": 0, "uncountedTerminatedPods": {}});
        for (field, count) in ["active", "ready", "succeeded"].into_iter().zip(counts) {
            if count > 0 || field == "ready" {
                status[field] = count.into();
            }
        }
        if complete {
            let condition = |condition_type: &str| {
                json!({
                    "type": condition_type, "status": "True", "lastProbeTime": now, "lastTransitionTime": now,
                    "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods",
                })
            };
            status["conditions"] = json!([condition("SuccessCriteriaMet"), condition("Complete")]);
            status["completionTime"] = now.clone();
        }
        if job.get("status") == Some(&status) {
            return;
        }
        self.update(&kinds::JOB, name, |job| job["status"] = status);
        if complete {
            self.record_event(job, COMPONENT, "Completed", "Job completed");
        }
    }
}
