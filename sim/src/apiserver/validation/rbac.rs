//! Roles and their bindings (`pkg/apis/rbac/validation`).

use serde_json::{Value, json};

use super::super::defaults::RBAC_GROUP;
use super::problems::{Problems, items};

pub(super) fn role(kind: &str, value: &Value, problems: &mut Problems) {
    for (index, rule) in items(value, "rules").iter().enumerate() {
        policy_rule(rule, kind == "Role", &format!("rules[{index}]"), problems);
    }
    let selectors = "clusterRoleSelectors";
    if value["aggregationRule"].is_object() && items(&value["aggregationRule"], selectors).is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        problems.required(format!("aggregationRule.{selectors}"), detail);
    }
}

fn policy_rule(rule: &Value, is_namespaced: bool, path: &str, problems: &mut Problems) {
    let lacks = |field: &str| items(rule, field).is_empty();
    if lacks("verbs") {
        problems.required(format!("{path}.verbs"), "verbs must contain at least one value");
    }
    if !lacks("nonResourceURLs") {
        let field = format!("{path}.nonResourceURLs");
        if is_namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            problems.invalid(&field, &rule["nonResourceURLs"], detail);
        }
        if !(lacks("apiGroups") && lacks("resources") && lacks("resourceNames")) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            problems.invalid(&field, &rule["nonResourceURLs"], detail);
        }
        return;
    }
    if lacks("apiGroups") {
        problems.required(format!("{path}.apiGroups"), "resource rules must supply at least one api group");
    }
    if lacks("resources") {
        problems.required(format!("{path}.resources"), "resource rules must supply at least one resource");
    }
}

pub(super) fn binding(kind: &str, value: &Value, present: Option<&Value>, problems: &mut Problems) {
    let role = &value["roleRef"];
    problems.one_of("roleRef.apiGroup", &role["apiGroup"], &[RBAC_GROUP]);
    let kinds: &[&str] = if kind == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if role["kind"].is_string() {
        problems.one_of("roleRef.kind", &role["kind"], kinds);
    } else {
        problems.unsupported("roleRef.kind", &json!(""), kinds);
    }
    problems.present("roleRef.name", &role["name"]);
    for (index, subject) in items(value, "subjects").iter().enumerate() {
        check_subject(subject, kind == "RoleBinding", &format!("subjects[{index}]"), problems);
    }
    if present.is_some_and(|present| present["roleRef"] != *role) {
        // The internal type is printed, with its Go field names.
        let shown = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            json!(text(role, "apiGroup")),
            json!(text(role, "kind")),
            json!(text(role, "name"))
        );
        problems.invalid_text("roleRef", &shown, "cannot change roleRef");
    }
}

fn check_subject(subject: &Value, is_namespaced: bool, path: &str, problems: &mut Problems) {
    problems.present(format!("{path}.name"), &subject["name"]);
    let (kind, group) = (text(subject, "kind"), text(subject, "apiGroup"));
    let expected = match kind {
        "ServiceAccount" => "",
        "User" | "Group" => RBAC_GROUP,
        _ => {
            problems.unsupported(format!("{path}.kind"), &json!(kind), &["ServiceAccount", "User", "Group"]);
            return;
        }
    };
    if group != expected {
        problems.unsupported(format!("{path}.apiGroup"), &json!(group), &[expected]);
    }
    if kind == "ServiceAccount" && !is_namespaced {
        problems.present(format!("{path}.namespace"), &subject["namespace"]);
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
