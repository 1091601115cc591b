//! Jobs and CronJobs (`pkg/apis/batch/validation`).

use serde_json::{Value, json};

use super::pod;
use super::problems::Problems;
use crate::controllers::cron_schedule::Schedule;

/// Jobs: what a person would meet.
pub(super) fn spec(spec: &Value, path: &str, problems: &mut Problems) {
    for field in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        problems.not_negative(format!("{path}.{field}"), &spec[field]);
    }
    let template = &spec["template"]["spec"];
    let template_path = format!("{path}.template.spec");
    pod::spec(template, &template_path, problems);
    if template["restartPolicy"].as_str().is_none_or(|policy| policy == "Always" || policy.is_empty()) {
        problems.required(format!("{template_path}.restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
    }
}

/// What may change of a Job once it is there (`ValidateJobSpecUpdate`).
pub(super) fn update(value: &Value, present: &Value, problems: &mut Problems) {
    let (spec, before) = (&value["spec"], &present["spec"]);
    let mut keep = |field: &str, new: &Value, old: &Value| {
        if new != old {
            problems.invalid(format!("spec.{field}"), new, "field is immutable");
        }
    };
    let is_indexed = spec["completionMode"] == "Indexed";
    let is_elastic = is_indexed && spec["completions"].is_number() && before["completions"].is_number();
    if !is_elastic {
        keep("completions", &spec["completions"], &before["completions"]);
    }
    keep("selector", &spec["selector"], &before["selector"]);
    let has_not_started = before["suspend"] == true && present["status"]["startTime"].is_null();
    if has_not_started {
        keep("template", &spec["template"], &with_directives_of(&spec["template"], &before["template"]));
    } else {
        keep("template", &spec["template"], &before["template"]);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        keep(field, &spec[field], &before[field]);
    }
    if is_elastic && spec["completions"] != before["completions"] && spec["completions"] != spec["parallelism"] {
        let detail = "can only be modified in tandem with spec.parallelism";
        problems.invalid("spec.completions", &spec["completions"], detail);
    }
}

/// A former template with what a queue may change of a Job before its pods are there: where they run, and how they are called.
fn with_directives_of(template: &Value, before: &Value) -> Value {
    let mut former = before.clone();
    let directives = [
        ("/metadata", "labels"),
        ("/metadata", "annotations"),
        ("/spec", "nodeSelector"),
        ("/spec", "affinity"),
        ("/spec", "tolerations"),
        ("/spec", "schedulingGates"),
    ];
    for (parent, field) in directives {
        let given = template.pointer(parent).and_then(|parent| parent.get(field));
        if former.pointer(parent).is_none() && given.is_some() {
            former["metadata"] = json!({});
        }
        let Some(holder) = former.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        match given {
            Some(given) => holder.insert(field.to_owned(), given.clone()),
            None => holder.remove(field),
        };
    }
    former
}

/// CronJobs.
pub(super) fn cron_job(value: &Value, problems: &mut Problems) {
    let name = &value["metadata"]["name"];
    // Eleven characters are added for the job's name, which is a label value of at most 63.
    if name.as_str().is_some_and(|name| name.len() > 52) {
        problems.invalid("metadata.name", name, "must be no more than 52 characters");
    }
    let spec = &value["spec"];
    if problems.present("spec.schedule", &spec["schedule"]) {
        let text = spec["schedule"].as_str().unwrap_or_default();
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != 5 && !text.starts_with('@') && !text.contains("TZ=") {
            let shown = fields.join(" ");
            let detail = format!("expected exactly 5 fields, found {}: [{shown}]", fields.len());
            problems.invalid("spec.schedule", &spec["schedule"], detail);
        } else if Schedule::parse(text, None).is_none() {
            problems.invalid("spec.schedule", &spec["schedule"], "failed to parse the schedule");
        }
    }
    problems.one_of("spec.concurrencyPolicy", &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"]);
    self::spec(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", problems);
}
