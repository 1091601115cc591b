//! Roles, their bindings and priorities.

use kube::api::PostParams;
use serde_json::json;

use crate::support::{Refusal, object, value, world};

const GROUP: &str = "rbac.authorization.k8s.io";

#[tokio::test(start_paused = true)]
async fn a_binding_stays_with_its_role() {
    let world = world().await;
    let bindings = world.api(GROUP, "v1", "RoleBinding");
    let given = object(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "reader"}, "subjects": [{"kind": "User", "name": "ann"}],
    }));
    let mut binding = bindings.create(&PostParams::default(), &given).await.unwrap();
    assert_eq!(value(&binding)["roleRef"]["apiGroup"], GROUP);
    assert_eq!(value(&binding)["subjects"][0]["apiGroup"], GROUP);
    binding.data["roleRef"]["name"] = json!("writer");
    assert_eq!(
        bindings.replace("b", &PostParams::default(), &binding).await.refusal().message,
        "RoleBinding.rbac.authorization.k8s.io \"b\" is invalid: roleRef: Invalid value: \
         {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"writer\"}: cannot change roleRef"
    );
    binding.data["roleRef"]["name"] = json!("reader");
    binding.data["subjects"][0] = json!({"kind": "Robot", "name": "ann"});
    assert_eq!(
        bindings.replace("b", &PostParams::default(), &binding).await.refusal().message,
        "RoleBinding.rbac.authorization.k8s.io \"b\" is invalid: subjects[0].kind: Unsupported value: \"Robot\": supported \
         values: \"ServiceAccount\", \"User\", \"Group\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_names_verbs_groups_and_resources() {
    let world = world().await;
    let roles = world.api(GROUP, "v1", "Role");
    let refused = async |rule: serde_json::Value| {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [rule],
        });
        let message = roles.create(&PostParams::default(), &object(role)).await.refusal().message;
        message.trim_start_matches("Role.rbac.authorization.k8s.io \"r\" is invalid: ").to_owned()
    };
    assert_eq!(
        refused(json!({"apiGroups": [""], "resources": ["pods"], "verbs": []})).await,
        "rules[0].verbs: Required value: verbs must contain at least one value"
    );
    assert_eq!(
        refused(json!({"verbs": ["get"]})).await,
        "[rules[0].apiGroups: Required value: resource rules must supply at least one api group, rules[0].resources: Required \
         value: resource rules must supply at least one resource]"
    );
    assert_eq!(
        refused(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})).await,
        "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
    );
}

#[tokio::test(start_paused = true)]
async fn priorities_of_people_are_below_the_systems_and_stay() {
    let world = world().await;
    let classes = world.cluster_api("scheduling.k8s.io", "v1", "PriorityClass");
    let class = |name: &str, value: i64| {
        object(json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        }))
    };
    let name = format!("high-{}", std::process::id());
    assert_eq!(
        classes.create(&PostParams::default(), &class(&name, 2_000_000_000)).await.refusal().message,
        format!(
            "PriorityClass.scheduling.k8s.io \"{name}\" is invalid: value: Forbidden: maximum allowed value of a user defined \
             priority is 1000000000"
        )
    );
    let refusal = classes.create(&PostParams::default(), &class("system-mine", 1)).await.refusal();
    assert!(refusal.message.contains("names with 'system-' prefix are reserved for system use only"), "{refusal:?}");
    let mut created = classes.create(&PostParams::default(), &class(&name, 10)).await.unwrap();
    created.data["value"] = json!(11);
    assert_eq!(
        classes.replace(&name, &PostParams::default(), &created).await.refusal().message,
        format!(
            "PriorityClass.scheduling.k8s.io \"{name}\" is invalid: value: Forbidden: may not be changed in an update."
        )
    );
    classes.delete(&name, &Default::default()).await.unwrap();
}
