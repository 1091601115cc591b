//! What an autoscaler's CPU metric says, and the size that follows from it.

use serde_json::{Value, json};

use super::super::json::{integer, text};

/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// Target utilisation of an autoscaler without metrics, in percent.
const DEFAULT_TARGET: u64 = 80;
/// What a pod is taken to request that requests no CPU, where only the amount matters, in thousandths of a core: a usual small
/// request.
const USUAL_REQUEST: f64 = 100.0;

/// How busy the pods of a target are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Usage {
    /// Percent of what each ready pod requests, however many there are.
    Percent(u32),
    /// CPU that all pods use together, in thousandths of a core.
    Total(f64),
    /// CPU that all pods use together, in multiples of what one pod requests.
    Requests(f64),
    /// Pods that external metrics ask for: their value divided by what one pod is to have of it.
    External(f64),
}

/// Whether an autoscaler goes by CPU: it says so, or says nothing.
pub(super) fn goes_by_cpu(autoscaler: &Value) -> bool {
    let metrics = autoscaler.pointer("/spec/metrics").and_then(Value::as_array);
    let is_cpu = |metric: &Value| text(metric, "/resource/name") == Some("cpu");
    metrics.is_none_or(|metrics| metrics.is_empty() || metrics.iter().any(is_cpu))
}

/// Whether an autoscaler goes by metrics of somebody else.
pub(super) fn has_external(autoscaler: &Value) -> bool {
    external_metric(autoscaler).is_some()
}

fn external_metric(autoscaler: &Value) -> Option<&Value> {
    let metrics = autoscaler.pointer("/spec/metrics")?.as_array()?;
    metrics.iter().find(|metric| text(metric, "/type") == Some("External"))?.get("external")
}

/// A metric as it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) name: String,
    /// Usage divided by target, over the ready pods.
    ratio: f64,
    /// Pods that are asked for outright.
    asked: Option<f64>,
    /// Entry of `status.currentMetrics`.
    pub(super) status: Value,
}

/// Replicas of a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pods {
    pub(super) current: i32,
    pub(super) ready: i32,
    /// Pods that exist, ready or not.
    pub(super) existing: i32,
}

/// Reads the first resource metric of an autoscaler.
///
/// # Errors
/// What is missing, in the words of Kubernetes.
pub(super) fn read(autoscaler: &Value, deployment: &Value, usage: Usage, ready: i32) -> Result<Reading, String> {
    if let Usage::External(pods) = usage {
        return Ok(read_external(autoscaler, deployment, pods));
    }
    let resource = resource_metric(autoscaler);
    let name = resource.and_then(|resource| text(resource, "/name")).unwrap_or("cpu");
    if ready <= 0 {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let average = resource.and_then(|resource| text(resource, "/target/averageValue")).and_then(thousandths);
    let request = cpu_request(deployment);
    let per_pod = match usage {
        Usage::Total(total) => total / f64::from(ready),
        Usage::Percent(percent) => f64::from(percent) / 100.0 * request.clone().unwrap_or(0.0),
        Usage::Requests(requests) => requests * request.clone().unwrap_or(USUAL_REQUEST) / f64::from(ready),
        Usage::External(_) => 0.0,
    };
    let mut current = json!({"averageValue": quantity(per_pod)});
    let ratio = match (average, usage) {
        (Some(target), _) => per_pod / target,
        (None, Usage::Percent(percent)) => {
            current["averageUtilization"] = percent.into();
            f64::from(percent) / as_number(target_percent(resource))
        }
        (None, Usage::Total(_) | Usage::Requests(_) | Usage::External(_)) => {
            let percent = per_pod / request? * 100.0;
            current["averageUtilization"] = json!(whole(percent));
            percent.floor() / as_number(target_percent(resource))
        }
    };
    let description = if average.is_some() { "" } else { " utilization (percentage of request)" };
    Ok(Reading {
        name: format!("{name} resource{description}"),
        ratio,
        asked: None,
        status: json!({"type": "Resource", "resource": {"name": name, "current": current}}),
    })
}

/// Reads what external metrics ask for. Upstream: `GetExternalPerPodMetricReplicas`.
fn read_external(autoscaler: &Value, deployment: &Value, pods: f64) -> Reading {
    let metric = external_metric(autoscaler).cloned().unwrap_or_default();
    let present = integer(deployment, "/status/replicas").and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let per_pod = text(&metric, "/target/averageValue").or(text(&metric, "/target/value")).and_then(thousandths);
    let average = per_pod.unwrap_or(0.0) * pods / f64::from(present.max(1));
    let name = text(&metric, "/metric/name").unwrap_or_default().to_owned();
    Reading {
        name: format!("external metric {name}"),
        ratio: pods / f64::from(present.max(1)),
        asked: Some(pods),
        status: json!({"type": "External", "external": {
            "metric": metric["metric"], "current": {"averageValue": quantity(average)},
        }}),
    }
}

impl Reading {
    /// Replicas that bring the usage to its target; none are added or removed within the tolerance. Pods that are not ready
    /// count as idle where more are wanted and do not count where fewer are. Upstream: `GetResourceReplicas`.
    pub(super) fn recommend(&self, autoscaler: &Value, pods: Pods) -> i32 {
        let unready = (pods.existing - pods.ready).max(0);
        let is_within = |ratio: f64| {
            let tolerance = |direction: &str| {
                let pointer = format!("/spec/behavior/{direction}/tolerance");
                let set = autoscaler.pointer(&pointer).and_then(|value| match value {
                    Value::String(text) => thousandths(text).map(|value| value / 1000.0),
                    other => other.as_f64(),
                });
                set.unwrap_or(TOLERANCE)
            };
            // A quotient such as 88/80 is a hair above 1.1.
            ratio >= 1.0 - tolerance("scaleDown") - 1e-9 && ratio <= 1.0 + tolerance("scaleUp") + 1e-9
        };
        if let Some(asked) = self.asked {
            return if is_within(self.ratio) { pods.current } else { needed(asked, 1) };
        }
        if unready == 0 || self.ratio <= 1.0 {
            return if is_within(self.ratio) { pods.current } else { needed(self.ratio, pods.ready) };
        }
        let ratio = self.ratio * f64::from(pods.ready) / f64::from(pods.ready + unready);
        if is_within(ratio) || ratio < 1.0 {
            return pods.current;
        }
        needed(ratio, pods.ready + unready).max(pods.current)
    }
}

#[allow(clippy::cast_possible_truncation)]
fn needed(ratio: f64, pods: i32) -> i32 {
    // 2.4 times 5 is a hair above 12.
    (ratio * f64::from(pods) - 1e-9).ceil() as i32
}

#[allow(clippy::cast_precision_loss)]
fn as_number(percent: u64) -> f64 {
    percent.max(1) as f64
}

#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> i64 {
    value.floor() as i64
}

fn resource_metric(autoscaler: &Value) -> Option<&Value> {
    let metrics = autoscaler.pointer("/spec/metrics")?.as_array()?;
    let resources = || metrics.iter().filter(|metric| text(metric, "/type") == Some("Resource"));
    let of_cpu = resources().find(|metric| text(metric, "/resource/name") == Some("cpu"));
    of_cpu.or(resources().next())?.get("resource")
}

fn target_percent(resource: Option<&Value>) -> u64 {
    resource
        .and_then(|resource| integer(resource, "/target/averageUtilization"))
        .and_then(|percent| u64::try_from(percent).ok())
        .unwrap_or(DEFAULT_TARGET)
}

/// CPU that one pod requests, in thousandths of a core.
fn cpu_request(deployment: &Value) -> Result<f64, String> {
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let mut total = 0.0;
    for container in containers.into_iter().flatten() {
        let request = container.pointer("/resources/requests/cpu");
        let request = request.and_then(|cpu| match cpu {
            Value::String(text) => thousandths(text),
            other => other.as_f64().map(|cores| cores * 1000.0),
        });
        let Some(request) = request else {
            let (name, pod) = (text(container, "/name"), text(deployment, "/metadata/name"));
            return Err(format!(
                "missing request for cpu in container {} of Pod {}",
                name.unwrap_or_default(),
                pod.unwrap_or_default()
            ));
        };
        total += request;
    }
    Ok(total.max(1.0))
}

/// A quantity in thousandths: `250m`, `0.25`, `1`.
fn thousandths(quantity: &str) -> Option<f64> {
    match quantity.strip_suffix('m') {
        Some(number) => number.parse().ok(),
        None => quantity.parse::<f64>().ok().map(|number| number * 1000.0),
    }
}

fn quantity(thousandths: f64) -> String {
    let thousandths = whole(thousandths);
    if thousandths != 0 && thousandths % 1000 == 0 {
        return (thousandths / 1000).to_string();
    }
    if thousandths == 0 { "0".to_owned() } else { format!("{thousandths}m") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_goes_by_cpu_follows_it() {
        let with = |metrics: Value| goes_by_cpu(&json!({"spec": {"metrics": metrics}}));
        assert!(goes_by_cpu(&json!({"spec": {}})) && with(json!([])));
        assert!(with(
            json!([{"type": "Resource", "resource": {"name": "memory"}}, {"type": "Resource", "resource": {"name": "cpu"}}])
        ));
        assert!(!with(json!([{"type": "Resource", "resource": {"name": "memory"}}])));
        assert!(!with(json!([{"type": "External", "external": {"metric": {"name": "queue"}}}])));
    }

    #[test]
    fn load_is_counted_in_what_pods_request() {
        let deployment = |cpu: &str| {
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "app", "resources": {"requests": {"cpu": cpu}}},
            ]}}}})
        };
        let autoscaler = json!({"spec": {"metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
        }}]}});
        let pods = Pods { current: 2, ready: 2, existing: 2 };
        for cpu in ["100m", "2"] {
            let reading = read(&autoscaler, &deployment(cpu), Usage::Requests(2.0), 2).unwrap();
            assert_eq!(reading.recommend(&autoscaler, pods), 4, "{cpu}: both pods use all they ask for");
        }
        let by_value = json!({"spec": {"metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "AverageValue", "averageValue": "50m"},
        }}]}});
        let asking_nothing = json!({"spec": {"template": {"spec": {"containers": [{"name": "app"}]}}}});
        let reading = read(&by_value, &asking_nothing, Usage::Requests(2.0), 2).unwrap();
        assert_eq!(reading.recommend(&by_value, pods), 4, "a pod that asks for nothing counts as 100m");
        assert!(read(&autoscaler, &asking_nothing, Usage::Requests(2.0), 2).is_err(), "percent of nothing");
    }

    fn recommend(percent: u32, target: u32, current: i32, ready: i32) -> i32 {
        let autoscaler = json!({"spec": {"metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target},
        }}]}});
        let reading = read(&autoscaler, &json!({}), Usage::Percent(percent), ready);
        reading.map_or(-1, |reading| reading.recommend(&autoscaler, Pods { current, ready, existing: current }))
    }

    #[test]
    fn the_recommendation_follows_usage_outside_the_tolerance() {
        assert_eq!(recommend(88, 80, 4, 4), 4, "within a tenth");
        assert_eq!(recommend(90, 80, 4, 4), 5);
        assert_eq!(recommend(40, 80, 4, 4), 2);
        assert_eq!(recommend(160, 80, 4, 1), 4, "idle newcomers absorb the load");
        assert_eq!(recommend(500, 80, 4, 0), -1, "no measurement");
    }

    #[test]
    fn a_total_is_shared_by_the_ready_pods_and_judged_by_their_requests() {
        let deployment = json!({"metadata": {"name": "podinfo"}, "spec": {"template": {"spec": {"containers": [
            {"name": "app", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "proxy", "resources": {"requests": {"cpu": "0.1"}}},
        ]}}}});
        let autoscaler = json!({"spec": {"metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
        }}]}});
        let pods = Pods { current: 2, ready: 2, existing: 2 };
        let read = |usage| read(&autoscaler, &deployment, usage, 2);
        let reading = read(Usage::Total(600.0)).ok();
        assert_eq!(reading.as_ref().map(|reading| reading.recommend(&autoscaler, pods)), Some(6), "150 % of 200m each");
        let current = reading.map(|reading| reading.status["resource"]["current"].clone());
        assert_eq!(current, Some(json!({"averageUtilization": 150, "averageValue": "300m"})));
    }

    #[test]
    fn an_average_value_needs_no_requests_and_a_utilisation_does() {
        let deployment =
            json!({"metadata": {"name": "podinfo"}, "spec": {"template": {"spec": {"containers": [{"name": "app"}]}}}});
        let target = |target: Value| json!({"spec": {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}});
        let by_value = target(json!({"type": "AverageValue", "averageValue": "50m"}));
        let pods = Pods { current: 2, ready: 2, existing: 2 };
        let reading = read(&by_value, &deployment, Usage::Total(400.0), 2).ok();
        assert_eq!(reading.map(|reading| reading.recommend(&by_value, pods)), Some(8));
        let by_percent = target(json!({"type": "Utilization", "averageUtilization": 50}));
        let refused = read(&by_percent, &deployment, Usage::Total(400.0), 2).err();
        assert_eq!(refused.as_deref(), Some("missing request for cpu in container app of Pod podinfo"));
    }
}
