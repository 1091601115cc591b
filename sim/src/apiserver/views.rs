//! Versions of built-in kinds that are stored in another form: `events.k8s.io/v1` Events and `autoscaling/v1` autoscalers.
//!
//! A real server converts through an internal type; here the storage form is the richer version, and the other is a view of it.

use serde_json::{Map, Value, json};

/// How a served version differs from what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// `events.k8s.io/v1` over the core group's Event.
    Event,
    /// `autoscaling/v1` over `autoscaling/v2`.
    Autoscaler,
}

/// Fields of an Event: name in `events.k8s.io/v1`, name in `v1` (`pkg/apis/events/v1/conversion.go`).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Annotations in which `autoscaling/v1` keeps what its fields cannot say (`pkg/apis/autoscaling/annotations.go`).
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

impl View {
    /// The object as this version shows it.
    pub(crate) fn show(self, mut object: Value) -> Value {
        match self {
            Self::Event => rename(&mut object, |(view, stored)| (stored, view)),
            Self::Autoscaler => show_autoscaler(&mut object),
        }
        object
    }

    /// What is stored of an object that came in this version.
    pub(crate) fn store(self, mut object: Value) -> Value {
        match self {
            Self::Event => rename(&mut object, |(view, stored)| (view, stored)),
            Self::Autoscaler => store_autoscaler(&mut object),
        }
        object
    }

    /// The stored field that a field selector of this version means.
    pub(crate) fn stored_field(self, path: &str) -> String {
        if self != Self::Event {
            return path.to_owned();
        }
        for (view, stored) in EVENT_FIELDS {
            match path.strip_prefix(view) {
                Some("") => return stored.to_owned(),
                Some(rest) if rest.starts_with('.') => return format!("{stored}{rest}"),
                _ => {}
            }
        }
        path.to_owned()
    }
}

fn rename(object: &mut Value, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for names in EVENT_FIELDS {
        let (from, to) = direction(names);
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

fn show_autoscaler(object: &mut Value) {
    let metrics = take(object, "/spec", "metrics");
    let current = take(object, "/status", "currentMetrics");
    let (cpu, others) = split_metrics(&metrics, "target");
    let (current_cpu, other_current) = split_metrics(&current, "current");
    if let Some(cpu) = cpu {
        object["spec"]["targetCPUUtilizationPercentage"] = cpu;
    }
    if let Some(cpu) = current_cpu {
        object["status"]["currentCPUUtilizationPercentage"] = cpu;
    }
    for (annotation, kept) in [
        (METRICS, others),
        (CURRENT_METRICS, other_current),
        (CONDITIONS, take(object, "/status", "conditions")),
        (BEHAVIOR, take(object, "/spec", "behavior")),
    ] {
        let is_empty = kept.is_null() || kept.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            object["metadata"]["annotations"][annotation] = Value::String(kept.to_string());
        }
    }
}

fn store_autoscaler(object: &mut Value) {
    let mut kept = |annotation: &str| -> Option<Value> {
        let annotations = object.pointer_mut("/metadata/annotations")?.as_object_mut()?;
        serde_json::from_str(annotations.remove(annotation)?.as_str()?).ok()
    };
    let mut metrics = kept(METRICS).and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default();
    let mut current = kept(CURRENT_METRICS).and_then(|metrics| metrics.as_array().cloned()).unwrap_or_default();
    let conditions = kept(CONDITIONS);
    let behavior = kept(BEHAVIOR);
    let cpu = |percent: Value, field: &str| {
        let mut usage = json!({"averageUtilization": percent});
        if field == "target" {
            usage["type"] = json!("Utilization");
        }
        json!({"type": "Resource", "resource": {"name": "cpu", field: usage}})
    };
    // A real server puts the metric of the field first as well.
    let target = take(object, "/spec", "targetCPUUtilizationPercentage");
    if !target.is_null() {
        metrics.insert(0, cpu(target, "target"));
    }
    let used = take(object, "/status", "currentCPUUtilizationPercentage");
    if !used.is_null() {
        current.insert(0, cpu(used, "current"));
    }
    let status =
        [("currentMetrics", (!current.is_empty()).then_some(Value::Array(current))), ("conditions", conditions)];
    for (field, value) in status {
        if let Some(value) = value {
            object["status"][field] = value;
        }
    }
    let spec = [("metrics", (!metrics.is_empty()).then_some(Value::Array(metrics))), ("behavior", behavior)];
    for (field, value) in spec {
        if let Some(value) = value {
            object["spec"][field] = value;
        }
    }
}

fn take(object: &mut Value, parent: &str, field: &str) -> Value {
    object
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .and_then(|fields: &mut Map<String, Value>| fields.remove(field))
        .unwrap_or_default()
}

/// The utilisation of CPU, which has a field of its own, and the other metrics.
fn split_metrics(metrics: &Value, field: &str) -> (Option<Value>, Value) {
    let mut cpu = None;
    let mut others = Vec::new();
    for metric in metrics.as_array().into_iter().flatten() {
        let usage = &metric["resource"][field]["averageUtilization"];
        if metric["resource"]["name"] == "cpu" && usage.is_number() && cpu.is_none() {
            cpu = Some(usage.clone());
        } else {
            others.push(metric.clone());
        }
    }
    (cpu, Value::Array(others))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::View;

    #[test]
    fn both_views_give_back_what_they_were_made_of() {
        let event = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2,
            "source": {"component": "c"}, "reportingComponent": "c", "reason": "R", "type": "Normal",
        });
        let shown = View::Event.show(event.clone());
        assert_eq!((&shown["regarding"]["name"], &shown["note"]), (&json!("p"), &json!("m")));
        assert_eq!((&shown["deprecatedCount"], &shown["reportingController"]), (&json!(2), &json!("c")));
        assert_eq!(View::Event.store(shown), event);
        assert_eq!(View::Event.stored_field("regarding.name"), "involvedObject.name");
        assert_eq!(View::Event.stored_field("reason"), "reason");

        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let autoscaler = json!({
            "metadata": {"name": "a", "annotations": {"x": "y"}}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory]},
            "status": {"conditions": [{"type": "AbleToScale"}]},
        });
        let shown = View::Autoscaler.show(autoscaler.clone());
        assert_eq!(shown["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        assert_eq!(View::Autoscaler.store(shown), autoscaler);
    }
}
