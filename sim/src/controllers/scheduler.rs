//! Whether the one node of the embedded cluster takes a pod, in the order and the words of the scheduler of Kubernetes 1.36.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{strings, text};
use super::node::NODE_NAME;

/// What the scheduler adds to every refusal (`PostFilter` of the plugins for resource claims and for preemption), where the
/// only node is out of the question for the pod.
const NO_PREEMPTION: &str =
    "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// What of the node decides about pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeState {
    pub(super) cordoned: bool,
    pub(super) labels: BTreeMap<String, String>,
    /// Taints that keep pods away: key, value and effect.
    taints: Vec<[String; 3]>,
}

impl NodeState {
    pub(super) fn parse(node: &Value) -> Self {
        let taints = node.pointer("/spec/taints").and_then(Value::as_array);
        let field = |taint: &Value, field: &str| taint[field].as_str().unwrap_or_default().to_owned();
        Self {
            cordoned: node["spec"]["unschedulable"] == true,
            labels: strings(node, "/metadata/labels"),
            taints: taints
                .into_iter()
                .flatten()
                .map(|taint| [field(taint, "key"), field(taint, "value"), field(taint, "effect")])
                .filter(|[_, _, effect]| effect == "NoSchedule" || effect == "NoExecute")
                .collect(),
        }
    }

    /// Why the node is no place for a pod with this spec, as a whole message; `None` if it is one.
    pub(super) fn refuse(&self, spec: &Value, of_daemon_set: bool) -> Option<String> {
        let cordon = [UNSCHEDULABLE_TAINT.to_owned(), String::new(), "NoSchedule".to_owned()];
        // A DaemonSet's pods tolerate what the node's own state puts on it.
        let tolerates = |taint: &[String; 3]| {
            of_daemon_set && taint[0].starts_with("node.kubernetes.io/") || tolerates(spec, taint)
        };
        let reason = if self.cordoned && !tolerates(&cordon) {
            "node(s) were unschedulable"
        } else if self.taints.iter().any(|taint| !tolerates(taint)) {
            "node(s) had untolerated taint(s)"
        } else if !self.admits(spec) {
            "node(s) didn't match Pod's node affinity/selector"
        } else {
            return None;
        };
        Some(format!("0/1 nodes are available: 1 {reason}. {NO_PREEMPTION}"))
    }

    /// Whether the node satisfies `nodeSelector` and the required node affinity of a pod's spec.
    pub(super) fn admits(&self, spec: &Value) -> bool {
        let selector = strings(spec, "/nodeSelector");
        if !selector.iter().all(|(key, value)| self.labels.get(key) == Some(value)) {
            return false;
        }
        let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        match spec.pointer(required) {
            None | Some(Value::Null) => true,
            Some(required) => list(required, "nodeSelectorTerms").any(|term| self.satisfies(term)),
        }
    }

    /// All conditions of a term; one without any is satisfied by no node.
    fn satisfies(&self, term: &Value) -> bool {
        let mut by_label = list(term, "matchExpressions");
        let mut by_field = list(term, "matchFields");
        let is_empty = by_label.clone().next().is_none() && by_field.clone().next().is_none();
        !is_empty
            && by_label.all(|condition| {
                let key = text(condition, "/key").unwrap_or_default();
                holds(condition, self.labels.get(key).map(String::as_str))
            })
            && by_field.all(|condition| {
                let is_name = text(condition, "/key") == Some("metadata.name");
                holds(condition, is_name.then_some(NODE_NAME))
            })
    }
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + Clone {
    object.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn holds(condition: &Value, value: Option<&str>) -> bool {
    let is_listed = value.is_some_and(|value| list(condition, "values").any(|listed| listed == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(list(condition, "values").next().and_then(Value::as_str));
    let both = number(value).zip(bound);
    match text(condition, "/operator") {
        Some("In") => is_listed,
        Some("NotIn") => !is_listed,
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        Some("Gt") => both.is_some_and(|(value, bound)| value > bound),
        Some("Lt") => both.is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn tolerates(spec: &Value, [key, value, effect]: &[String; 3]) -> bool {
    list(spec, "tolerations").any(|toleration| {
        let field = |name: &str| toleration[name].as_str().unwrap_or_default();
        let is_same_key = field("key").is_empty() || field("key") == key;
        let is_same_effect = field("effect").is_empty() || field("effect") == effect;
        is_same_key && is_same_effect && (field("operator") == "Exists" || field("value") == value)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: &Value) -> NodeState {
        NodeState::parse(&json!({"metadata": {"labels": {"disk": "ssd", "cores": "8"}}, "spec": spec}))
    }

    fn affinity(term: &Value) -> Value {
        let required = json!({"nodeSelectorTerms": [term]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
    }

    #[test]
    fn a_term_asks_for_all_of_its_conditions() {
        let node = node(&json!({}));
        let admits = |conditions: &Value| node.admits(&affinity(&json!({"matchExpressions": conditions})));
        let condition =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let is_ssd = condition("disk", "In", &["ssd", "nvme"]);
        assert!(admits(&json!([is_ssd])));
        assert!(admits(&json!([is_ssd, condition("cores", "Gt", &["7"]), condition("zone", "DoesNotExist", &[])])));
        assert!(!admits(&json!([is_ssd, condition("cores", "Lt", &["8"])])));
        assert!(!admits(&json!([condition("disk", "NotIn", &["ssd"])])));
        assert!(!admits(&json!([condition("zone", "Exists", &[])])));
        assert!(!node.admits(&affinity(&json!({}))), "an empty term matches nothing");
        let by_name = |name: &str| affinity(&json!({"matchFields": [condition("metadata.name", "In", &[name])]}));
        assert!(node.admits(&by_name(NODE_NAME)) && !node.admits(&by_name("other")));
    }

    #[test]
    fn a_cordon_and_taints_are_tolerated_by_name() {
        let cordoned = node(&json!({"unschedulable": true}));
        let told = cordoned.refuse(&json!({"nodeSelector": {"disk": "tape"}}), false);
        assert_eq!(
            told.as_deref(),
            Some(
                "0/1 nodes are available: 1 node(s) were unschedulable. no new claims to deallocate, preemption: \
                 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        );
        assert_eq!(cordoned.refuse(&json!({}), true), None);
        assert_eq!(cordoned.refuse(&json!({"tolerations": [{"operator": "Exists"}]}), false), None);
        let tainted = node(&json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}));
        assert!(
            tainted.refuse(&json!({}), true).is_some_and(|told| told.contains("1 node(s) had untolerated taint(s)."))
        );
        let toleration = json!({"tolerations": [{"key": "gpu", "operator": "Equal", "value": "yes"}]});
        assert_eq!(tainted.refuse(&toleration, false), None);
        let soft = node(&json!({"taints": [{"key": "gpu", "effect": "PreferNoSchedule"}]}));
        assert_eq!(soft.refuse(&json!({}), false), None);
    }
}
