//! Rows of workloads and of what scales and protects them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, UNKNOWN, age, containers, items, labels, name, number, plain, selector, text};
use super::duration;

fn template_spec(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template/spec")
}

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template_spec(object));
    vec![
        name(object),
        json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        age(object, now),
        names,
        images,
        json!(selector(&object["spec"]["selector"])),
    ]
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template_spec(object));
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        age(object, now),
        names,
        images,
        json!(selector(&object["spec"]["selector"])),
    ]
}

pub(super) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_set(object, now);
    // Its selector is a plain map of labels.
    cells.truncate(7);
    cells.push(json!(labels(object.pointer("/spec/selector"))));
    cells
}

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template_spec(object));
    vec![
        name(object),
        json!(number(object, "/status/desiredNumberScheduled")),
        json!(number(object, "/status/currentNumberScheduled")),
        json!(number(object, "/status/numberReady")),
        json!(number(object, "/status/updatedNumberScheduled")),
        json!(number(object, "/status/numberAvailable")),
        json!(labels(object.pointer("/spec/template/spec/nodeSelector"))),
        age(object, now),
        names,
        images,
        json!(selector(&object["spec"]["selector"])),
    ]
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template_spec(object));
    let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
    vec![name(object), json!(ready), age(object, now), names, images]
}

pub(super) fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = items(object, "/metadata/ownerReferences").find(|owner| owner["controller"] == true).map_or_else(
        || NONE.to_owned(),
        |owner| {
            let kind = text(owner, "/kind").to_lowercase();
            let group = text(owner, "/apiVersion").split_once('/').map(|(group, _)| format!(".{group}"));
            format!("{kind}{}/{}", group.unwrap_or_default(), text(owner, "/name"))
        },
    );
    vec![name(object), json!(controller), json!(number(object, "/revision")), age(object, now)]
}

pub(super) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(template_spec(object));
    vec![
        name(object),
        json!(job_status(object)),
        json!(job_completions(object)),
        json!(job_duration(object, now)),
        age(object, now),
        names,
        images,
        json!(selector(&object["spec"]["selector"])),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let is = |condition_type: &str| {
        items(job, "/status/conditions")
            .any(|condition| condition["type"] == condition_type && condition["status"] == "True")
    };
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.pointer("/metadata/deletionTimestamp").is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job_completions(job: &Value) -> String {
    let succeeded = number(job, "/status/succeeded");
    if let Some(wanted) = job.pointer("/spec/completions").and_then(Value::as_i64) {
        return format!("{succeeded}/{wanted}");
    }
    match number(job, "/spec/parallelism") {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let time = |pointer: &str| text(job, pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else {
        return String::new();
    };
    let end = time("/status/completionTime").unwrap_or(now);
    duration::human(duration::whole_seconds(end, start))
}

pub(super) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(object.pointer("/spec/jobTemplate/spec/template/spec"));
    let last = match object.pointer("/status/lastScheduleTime") {
        Some(time) if !time.is_null() => duration::since(time, now),
        _ => NONE.to_owned(),
    };
    let time_zone = match text(object, "/spec/timeZone") {
        "" => NONE,
        zone => zone,
    };
    let suspend = match &object["spec"]["suspend"] {
        Value::Bool(true) => "True",
        Value::Bool(false) => "False",
        _ => "<unset>",
    };
    vec![
        name(object),
        json!(text(object, "/spec/schedule")),
        json!(time_zone),
        json!(suspend),
        json!(items(object, "/status/active").len()),
        json!(last),
        age(object, now),
        names,
        images,
        json!(selector(&object["spec"]["jobTemplate"]["spec"]["selector"])),
    ]
}

pub(super) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field: &str| match &object["spec"][field] {
        Value::Null => "N/A".to_owned(),
        value => plain(value),
    };
    vec![
        name(object),
        json!(bound("minAvailable")),
        json!(bound("maxUnavailable")),
        json!(number(object, "/status/disruptionsAllowed")),
        age(object, now),
    ]
}

pub(super) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = &object["spec"]["scaleTargetRef"];
    let min = object.pointer("/spec/minReplicas").filter(|value| !value.is_null()).map_or("<unset>".to_owned(), plain);
    vec![
        name(object),
        json!(format!("{}/{}", text(target, "/kind"), text(target, "/name"))),
        json!(autoscaler_metrics(object)),
        json!(min),
        json!(number(object, "/spec/maxReplicas")),
        json!(number(object, "/status/currentReplicas")),
        age(object, now),
    ]
}

/// Of what `autoscaling/v1` shows of an object that can be scaled.
pub(super) fn scale(object: &Value, now: Timestamp) -> Vec<Value> {
    let replicas = |pointer: &str| json!(number(object, pointer));
    vec![name(object), replicas("/spec/replicas"), replicas("/status/replicas"), age(object, now)]
}

fn autoscaler_metrics(object: &Value) -> String {
    /// Metrics that are shown before the rest is only counted.
    const SHOWN: usize = 2;
    let none = Value::Null;
    let statuses: Vec<&Value> = items(object, "/status/currentMetrics").collect();
    let texts: Vec<String> = items(object, "/spec/metrics")
        .enumerate()
        .map(|(index, metric)| autoscaler_metric(metric, statuses.get(index).copied().unwrap_or(&none)))
        .collect();
    match texts.len() {
        0 => NONE.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", texts[..SHOWN].join(", "), count - SHOWN),
        _ => texts.join(", "),
    }
}

fn autoscaler_metric(metric: &Value, status: &Value) -> String {
    let source = match text(metric, "/type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let target = &metric[source]["target"];
    let current = |field: &str| match &status[source]["current"][field] {
        Value::Null => UNKNOWN.to_owned(),
        value => plain(value),
    };
    let is_resource = source == "resource" || source == "containerResource";
    let prefix = if is_resource { format!("{}: ", text(&metric[source], "/name")) } else { String::new() };
    if !target["averageValue"].is_null() {
        let suffix = if source == "external" || source == "object" { " (avg)" } else { "" };
        return format!("{prefix}{}/{}{suffix}", current("averageValue"), plain(&target["averageValue"]));
    }
    if !is_resource {
        return format!("{}/{}", current("value"), plain(&target["value"]));
    }
    let percent = |value: &Value, nothing: &str| match value {
        Value::Null => nothing.to_owned(),
        value => format!("{}%", plain(value)),
    };
    let used = percent(&status[source]["current"]["averageUtilization"], UNKNOWN);
    format!("{prefix}{used}/{}", percent(&target["averageUtilization"], "<auto>"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{autoscaler, job};

    #[test]
    fn an_autoscaler_shows_usage_beside_its_target() {
        let resource = |name: &str, percent: i64| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}});
        let object = json!({
            "metadata": {"name": "app"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "app"}, "maxReplicas": 4,
                "metrics": [resource("cpu", 80), resource("memory", 50)]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}]},
        });
        let row = autoscaler(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(row[1], "Deployment/app");
        assert_eq!(row[2], "cpu: 12%/80%, memory: <unknown>/50%");
        assert_eq!((&row[3], &row[4], &row[5]), (&json!("<unset>"), &json!(4), &json!(2)));
    }

    #[test]
    fn a_job_tells_its_progress() {
        let object = json!({
            "metadata": {"name": "j"}, "spec": {"completions": 2, "parallelism": 1},
            "status": {"succeeded": 1, "startTime": "1970-01-01T00:00:00Z"},
        });
        let row = job(&object, Timestamp::from_second(30).unwrap_or_default());
        assert_eq!((&row[1], &row[2], &row[3]), (&json!("Running"), &json!("1/2"), &json!("30s")));
    }
}
