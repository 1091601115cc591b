//! What admission plugins of Kubernetes add to every pod: ServiceAccount (without the token, which nothing here could use),
//! Priority and DefaultTolerationSeconds.

use serde_json::{Value, json};

/// Taints that every pod tolerates for five minutes.
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const TOLERATION_SECONDS: u32 = 300;

/// Completes the spec of a new pod.
pub(crate) fn complete_pod_spec(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    let mut default = |field: &str, value: Value| {
        let present = fields.entry(field).or_insert(Value::Null);
        if present.is_null() {
            *present = value;
        }
        present.clone()
    };
    default("enableServiceLinks", json!(true));
    let account = default("serviceAccountName", json!("default"));
    default("serviceAccount", account);
    default("priority", json!(0));
    default("preemptionPolicy", json!("PreemptLowerPriority"));
    default("tolerations", json!([]));
    let Some(tolerations) = spec["tolerations"].as_array_mut() else {
        return;
    };
    for key in TOLERATED {
        let tolerates = |toleration: &Value| toleration["key"] == key && toleration["effect"] != "NoSchedule";
        let tolerates_all = |toleration: &Value| toleration["key"].is_null() && toleration["operator"] == "Exists";
        if !tolerations.iter().any(|toleration| tolerates(toleration) || tolerates_all(toleration)) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::complete_pod_spec;

    #[test]
    fn what_the_pod_says_itself_stays() {
        let own = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
        let mut spec = json!({"serviceAccountName": "robot", "tolerations": own, "priority": 7});
        complete_pod_spec(&mut spec);
        assert_eq!((&spec["serviceAccount"], &spec["priority"]), (&json!("robot"), &json!(7)));
        let keys: Vec<&str> =
            spec["tolerations"].as_array().into_iter().flatten().filter_map(|t| t["key"].as_str()).collect();
        assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
        assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 5);
        let completed = spec.clone();
        complete_pod_spec(&mut spec);
        assert_eq!(spec, completed);
    }
}
