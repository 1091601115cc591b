//! How many pods a disruption budget lets go, after the disruption controller of Kubernetes.

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{condition, integer, is_deleting, text, whole_second};
use super::queue::ObjectName;
use crate::store::{Store, kinds};

/// The numbers of a budget at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disruptions {
    pub(crate) expected: i64,
    pub(crate) healthy: i64,
    pub(crate) desired: i64,
    pub(crate) allowed: i64,
}

impl Disruptions {
    /// Whether a budget is about a pod.
    pub(crate) fn selects(budget: &Value, pod: &Value) -> bool {
        let selector = &budget["spec"]["selector"];
        // No selector selects nothing; an empty one everything.
        if !selector.is_object() {
            return false;
        }
        let labels = &pod["metadata"]["labels"];
        let by_label = selector["matchLabels"]
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value));
        by_label
            && selector["matchExpressions"].as_array().into_iter().flatten().all(|requirement| {
                let label = requirement["key"].as_str().and_then(|key| labels.get(key));
                let listed =
                    |label: &Value| requirement["values"].as_array().is_some_and(|values| values.contains(label));
                match requirement["operator"].as_str() {
                    Some("In") => label.is_some_and(listed),
                    Some("NotIn") => !label.is_some_and(listed),
                    Some("Exists") => label.is_some(),
                    Some("DoesNotExist") => label.is_none(),
                    _ => false,
                }
            })
    }

    /// Counts the pods of a budget. The pods that should exist are those of the workloads' `replicas`.
    pub(crate) fn of(store: &Store, budget: &Value) -> Self {
        let namespace = text(budget, "/metadata/namespace").unwrap_or_default();
        let pods = store.list(&kinds::POD, Some(namespace));
        let selected: Vec<&Value> = pods.iter().map(|pod| &**pod).filter(|pod| Self::selects(budget, pod)).collect();
        let healthy = selected
            .iter()
            .filter(|pod| !is_deleting(pod))
            .filter(|pod| condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True"))
            .count();
        let mut owners: Vec<(&str, &str)> = Vec::new();
        let mut expected: i64 = 0;
        for pod in &selected {
            let owner = pod["metadata"]["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|owner| owner["controller"] == true);
            let Some(owner) = owner else {
                expected += 1;
                continue;
            };
            let (kind, name) = (text(owner, "/kind").unwrap_or_default(), text(owner, "/name").unwrap_or_default());
            if kind != "ReplicaSet" {
                expected += 1;
            } else if !owners.contains(&(kind, name)) {
                owners.push((kind, name));
                let set = store.get(&kinds::REPLICA_SET, namespace, name);
                expected += set.and_then(|set| integer(&set, "/spec/replicas")).unwrap_or(0);
            }
        }
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        let spec = &budget["spec"];
        let desired = if spec["maxUnavailable"].is_null() {
            match &spec["minAvailable"] {
                // Without either, one pod has to stay.
                Value::Null => 1,
                bound => share(bound, expected),
            }
        } else {
            (expected - share(&spec["maxUnavailable"], expected)).max(0)
        };
        let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        Self { expected, healthy, desired, allowed }
    }
}

/// A number, or a percentage rounded up.
fn share(bound: &Value, of: i64) -> i64 {
    let percent = bound.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse::<i64>().ok());
    match percent {
        Some(percent) => (percent * of + 99) / 100,
        None => bound.as_i64().unwrap_or(0),
    }
}

impl Engine {
    /// Writes the status that `kubectl get pdb` shows.
    pub(super) fn reconcile_budget(&mut self, name: &ObjectName) {
        let Some(budget) = self.store.get(&kinds::POD_DISRUPTION_BUDGET, &name.namespace, &name.name) else {
            return;
        };
        let disruptions = Disruptions::of(&self.store, &budget);
        let (status, reason) =
            if disruptions.allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let generation = &budget["metadata"]["generation"];
        let since = condition(&budget, "DisruptionAllowed")
            .filter(|before| before["status"] == status)
            .and_then(|before| before.get("lastTransitionTime").cloned())
            .unwrap_or_else(|| json!(whole_second(self.clock.now())));
        let status = json!({
            "conditions": [{
                "type": "DisruptionAllowed", "status": status, "reason": reason, "message": "",
                "observedGeneration": generation, "lastTransitionTime": since,
            }],
            "currentHealthy": disruptions.healthy, "desiredHealthy": disruptions.desired,
            "disruptionsAllowed": disruptions.allowed, "expectedPods": disruptions.expected,
            "observedGeneration": generation,
        });
        if budget.get("status") != Some(&status) {
            self.update(&kinds::POD_DISRUPTION_BUDGET, name, |budget| budget["status"] = status);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Disruptions, share};

    #[test]
    fn percentages_round_up() {
        assert_eq!(share(&json!("50%"), 3), 2);
        assert_eq!(share(&json!("0%"), 3), 0);
        assert_eq!(share(&json!(2), 3), 2);
    }

    #[test]
    fn a_budget_selects_by_labels_and_expressions() {
        let pod = json!({"metadata": {"labels": {"app": "a", "tier": "web"}}});
        let budget = |selector: serde_json::Value| json!({"spec": {"selector": selector}});
        assert!(Disruptions::selects(&budget(json!({"matchLabels": {"app": "a"}})), &pod));
        assert!(!Disruptions::selects(&budget(json!({"matchLabels": {"app": "b"}})), &pod));
        let not_db = json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]});
        assert!(Disruptions::selects(&budget(not_db), &pod));
        assert!(!Disruptions::selects(&json!({"spec": {}}), &pod));
    }
}
