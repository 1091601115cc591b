//! What admission plugins of Kubernetes add to every pod: ServiceAccount (without the token, which nothing here could use),
//! Priority and DefaultTolerationSeconds.

use serde_json::{Value, json};

/// Taints that every pod tolerates for five minutes.
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const TOLERATION_SECONDS: u32 = 300;

/// Completes the spec of a new pod.
pub(crate) fn complete_pod_spec(spec: &mut Value) {
    request_what_is_limited(spec);
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

/// A container requests of a resource what it is limited to, unless it says otherwise (`SetDefaults_Pod`).
fn request_what_is_limited(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for resources in containers.into_iter().flatten().filter_map(|container| container.get_mut("resources")) {
            let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { continue };
            for (resource, limit) in limits {
                if resources["requests"][&resource].is_null() {
                    resources["requests"][&resource] = limit;
                }
            }
        }
    }
}

/// `status.qosClass` of a pod (`GetPodQOS`): what CPU and memory of its containers say.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let containers =
        ["initContainers", "containers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let (mut asks, mut guaranteed) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        for resource in ["cpu", "memory"] {
            let (limit, request) = (&resources["limits"][resource], &resources["requests"][resource]);
            asks |= !limit.is_null() || !request.is_null();
            guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{complete_pod_spec, qos_class};

    #[test]
    fn the_quality_of_service_follows_requests_and_limits() {
        let class = |resources: serde_json::Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable", "memory is missing");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        assert_eq!(class(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}})), "Burstable");
    }

    #[test]
    fn a_container_requests_what_it_is_limited_to() {
        let requests = |resources: serde_json::Value| {
            let mut spec = json!({"containers": [{"name": "app", "resources": resources}, {"name": "bare"}]});
            complete_pod_spec(&mut spec);
            assert_eq!(spec["containers"][1], json!({"name": "bare"}));
            spec["containers"][0]["resources"]["requests"].clone()
        };
        assert_eq!(requests(json!({"limits": {"cpu": "1"}})), json!({"cpu": "1"}));
        let own = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "250m"}});
        assert_eq!(requests(own), json!({"cpu": "250m", "memory": "1Gi"}));
        assert_eq!(requests(json!({})), json!(null));
    }

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
