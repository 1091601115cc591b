//! CronJobs: a Job at each moment of the schedule, after `pkg/controller/cronjob` of Kubernetes.
//!
//! A moment that was missed (a suspended CronJob that goes on, a clock that jumped) is made up for once, with the latest.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cron_schedule::Schedule;
use super::engine::Engine;
use super::json::{after, condition, flag, integer, is_deleting, seconds, text, timestamp};
use super::queue::ObjectName;
use crate::store::kinds;

const COMPONENT: &str = "cronjob-controller";
const SCHEDULED_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Moments that one search for the latest missed one passes over: a week of minutes. Whoever missed more catches up in such steps.
const MAX_MISSED: usize = 10_080;

impl Engine {
    pub(super) fn reconcile_cron_job(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let cron_job = self.store.get(&kinds::CRON_JOB, &name.namespace, &name.name)?;
        if is_deleting(&cron_job) {
            return None;
        }
        let jobs = self.jobs_of(&cron_job, name);
        self.settle(name, &cron_job, &jobs);
        let cron_job = self.store.get(&kinds::CRON_JOB, &name.namespace, &name.name)?;
        if flag(&cron_job, "/spec/suspend") {
            return None;
        }
        let schedule =
            Schedule::parse(text(&cron_job, "/spec/schedule").unwrap_or_default(), text(&cron_job, "/spec/timeZone"));
        let Some(schedule) = schedule else {
            let message = format!("invalid schedule: {:?}", text(&cron_job, "/spec/schedule").unwrap_or_default());
            self.record_warning(&cron_job, COMPONENT, "InvalidSchedule", &message);
            return None;
        };
        let now = self.clock.now();
        let last = timestamp(&cron_job, "/status/lastScheduleTime")
            .or_else(|| timestamp(&cron_job, "/metadata/creationTimestamp"))
            .unwrap_or(now);
        let missed = std::iter::successors(schedule.next_after(last), |at| schedule.next_after(*at));
        let due = missed.take_while(|at| *at <= now).take(MAX_MISSED).last();
        if let Some(at) = due {
            self.start_job(name, &cron_job, at);
        }
        schedule.next_after(now)
    }

    fn jobs_of(&self, cron_job: &Value, name: &ObjectName) -> Vec<Arc<Value>> {
        let uid = text(cron_job, "/metadata/uid").unwrap_or_default();
        let mut jobs = self.store.list(&kinds::JOB, Some(&name.namespace));
        jobs.retain(|job| super::json::controller_owner(job).is_some_and(|owner| owner.uid == uid));
        jobs.sort_by_key(|job| timestamp(job, "/metadata/creationTimestamp"));
        jobs
    }

    /// Takes ended Jobs out of the status and removes those beyond the history's limits.
    fn settle(&mut self, name: &ObjectName, cron_job: &Value, jobs: &[Arc<Value>]) {
        let active = cron_job.pointer("/status/active").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut left = active.clone();
        let mut succeeded = cron_job.pointer("/status/lastSuccessfulTime").cloned();
        for entry in &active {
            let job_name = text(entry, "/name").unwrap_or_default();
            let job = jobs.iter().find(|job| job["metadata"]["uid"] == entry["uid"]);
            let ended = job.and_then(|job| ending(job));
            if job.is_some() && ended.is_none() {
                continue;
            }
            left.retain(|other| other["uid"] != entry["uid"]);
            match ended {
                Some(ended) => {
                    let message = format!("Saw completed job: {job_name}, condition: {ended}");
                    self.record_event(cron_job, COMPONENT, "SawCompletedJob", &message);
                    if ended == "Complete" {
                        succeeded = job.and_then(|job| job.pointer("/status/completionTime")).cloned().or(succeeded);
                    }
                }
                None => {
                    let message = format!("Active job went missing: {job_name}");
                    self.record_event(cron_job, COMPONENT, "MissingJob", &message);
                }
            }
        }
        if left != active {
            self.update(&kinds::CRON_JOB, name, |cron_job| {
                set_active(cron_job, left);
                if let Some(succeeded) = succeeded {
                    cron_job["status"]["lastSuccessfulTime"] = succeeded;
                }
            });
        }
        for (outcome, limit) in
            [("Complete", "/spec/successfulJobsHistoryLimit"), ("Failed", "/spec/failedJobsHistoryLimit")]
        {
            let Some(limit) = integer(cron_job, limit).and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let ended: Vec<&Arc<Value>> = jobs.iter().filter(|job| ending(job) == Some(outcome)).collect();
            for job in ended.iter().take(ended.len().saturating_sub(limit)) {
                self.remove_job(cron_job, &ObjectName::of(job));
            }
        }
    }

    fn start_job(&mut self, name: &ObjectName, cron_job: &Value, at: Timestamp) {
        let now = self.clock.now();
        let too_late = integer(cron_job, "/spec/startingDeadlineSeconds")
            .is_some_and(|deadline| after(at, seconds(deadline)) < now);
        if too_late {
            let message = format!("Missed scheduled time to start a job: {at}");
            self.record_warning(cron_job, COMPONENT, "MissSchedule", &message);
            self.update(&kinds::CRON_JOB, name, |cron_job| cron_job["status"]["lastScheduleTime"] = json!(at));
            return;
        }
        let active = cron_job.pointer("/status/active").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut still_active = active.clone();
        match text(cron_job, "/spec/concurrencyPolicy") {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.record_event(cron_job, COMPONENT, "JobAlreadyActive", message);
                // The next end of a job, or the next moment, looks again.
                return;
            }
            Some("Replace") => {
                for job in &active {
                    self.remove_job(cron_job, &name.sibling(text(job, "/name").unwrap_or_default()));
                }
                still_active.clear();
            }
            _ => {}
        }
        let job_name = format!("{}-{}", name.name, at.as_second() / 60);
        let job = new_job(cron_job, &job_name, at);
        let reference = match self.store.create(&kinds::JOB, job) {
            Ok(job) => {
                let message = format!("Created job {job_name}");
                self.record_event(cron_job, COMPONENT, "SuccessfulCreate", &message);
                json!({
                    "apiVersion": "batch/v1", "kind": "Job", "name": job_name, "namespace": &*name.namespace,
                    "uid": job["metadata"]["uid"], "resourceVersion": job["metadata"]["resourceVersion"],
                })
            }
            Err(error) if error.reason() == "AlreadyExists" => Value::Null,
            Err(error) => {
                self.record_warning(cron_job, COMPONENT, "FailedCreate", &format!("Error creating job: {error}"));
                return;
            }
        };
        if reference.is_object() {
            still_active.push(reference);
        }
        self.update(&kinds::CRON_JOB, name, |cron_job| {
            set_active(cron_job, still_active);
            cron_job["status"]["lastScheduleTime"] = json!(at);
        });
    }

    fn remove_job(&mut self, cron_job: &Value, job: &ObjectName) {
        self.delete(&kinds::JOB, job);
        self.record_event(cron_job, COMPONENT, "SuccessfulDelete", &format!("Deleted job {}", job.name));
    }
}

/// `Complete` or `Failed`, once a Job is over.
fn ending(job: &Value) -> Option<&'static str> {
    let holds = |name: &str| condition(job, name).is_some_and(|condition| text(condition, "/status") == Some("True"));
    ["Complete", "Failed"].into_iter().find(|name| holds(name))
}

fn set_active(cron_job: &mut Value, active: Vec<Value>) {
    if !cron_job["status"].is_object() {
        cron_job["status"] = json!({});
    }
    match active.is_empty() {
        false => cron_job["status"]["active"] = active.into(),
        true => {
            if let Some(status) = cron_job["status"].as_object_mut() {
                status.remove("active");
            }
        }
    }
}

fn new_job(cron_job: &Value, name: &str, at: Timestamp) -> Value {
    let template = &cron_job["spec"]["jobTemplate"];
    let metadata = &cron_job["metadata"];
    let mut annotations = template["metadata"]["annotations"].clone();
    annotations[SCHEDULED_ANNOTATION] = json!(at);
    let mut job = json!({
        "metadata": {
            "name": name, "namespace": metadata["namespace"], "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    });
    if template["metadata"]["labels"].is_object() {
        job["metadata"]["labels"] = template["metadata"]["labels"].clone();
    }
    crate::apiserver::defaults::apply("batch", "Job", &mut job);
    job
}
