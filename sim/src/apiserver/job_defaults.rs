//! Defaults of Jobs and CronJobs (`pkg/apis/batch/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`).

use serde_json::{Map, Value, json};

const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same label as it was called before Kubernetes 1.27; both are set.
const OLD_JOB_NAME: &str = "job-name";

fn default(object: &mut Value, field: &str, value: Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let present = fields.entry(field).or_insert(Value::Null);
    if present.is_null() {
        *present = value;
    }
}

/// Fills a Job. The selector is made of the name: a real server makes it of the uid, which does not exist yet here.
pub(super) fn job(job: &mut Value) {
    let name = job["metadata"]["name"].clone();
    spec(&mut job["spec"]);
    default(&mut job["spec"], "manualSelector", json!(false));
    default(&mut job["spec"], "suspend", json!(false));
    if job["spec"]["manualSelector"] == true || job["spec"]["selector"].is_object() || !name.is_string() {
        return;
    }
    job["spec"]["selector"] = json!({"matchLabels": {JOB_NAME: name}});
    let template = &mut job["spec"]["template"];
    default(template, "metadata", json!({}));
    default(&mut template["metadata"], "labels", json!({}));
    for label in [JOB_NAME, OLD_JOB_NAME] {
        template["metadata"]["labels"][label] = name.clone();
    }
    let labels = template["metadata"]["labels"].clone();
    let has_labels = job["metadata"]["labels"].as_object().is_some_and(|labels| !labels.is_empty());
    if !has_labels {
        job["metadata"]["labels"] = labels;
    }
}

/// Fills a CronJob.
pub(super) fn cron_job(cron_job: &mut Value) {
    let cron_spec = &mut cron_job["spec"];
    default(cron_spec, "concurrencyPolicy", json!("Allow"));
    default(cron_spec, "suspend", json!(false));
    default(cron_spec, "successfulJobsHistoryLimit", json!(3));
    default(cron_spec, "failedJobsHistoryLimit", json!(1));
}

fn spec(spec: &mut Value) {
    let both_missing = spec["completions"].is_null() && spec["parallelism"].is_null();
    if both_missing {
        default(spec, "completions", json!(1));
    }
    default(spec, "parallelism", json!(1));
    default(spec, "backoffLimit", json!(6));
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "podReplacementPolicy", json!("TerminatingOrFailed"));
}
