//! Who the client is and what it may do: everything, for there is no authentication and no authorisation.

use serde_json::{Value, json};

use super::response::Answer;
use super::subresources::VirtualResource;
use super::write::{Body, decode_body};
use crate::store::{StatusError, to_bytes};

/// The name under which every client is known, unless it asks for another (`kubectl --as`).
const USER: &str = "embedded-cluster-user";
const GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

/// # Errors
/// 400 for a body that is no such review.
pub(super) fn answer(
    resource: &VirtualResource,
    body: &Body<'_>,
    head: &http::request::Parts,
) -> Result<Answer, StatusError> {
    let (mut review, _) = decode_body(body, true)?;
    if !review.is_object() {
        return Err(StatusError::bad_request("the object provided is unrecognized"));
    }
    let kind = &review["kind"];
    if kind.is_string() && *kind != resource.kind {
        return Err(StatusError::bad_request(format!(
            "{kind} in version \"v1\" cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            resource.kind,
            resource.kind,
            kind = kind.as_str().unwrap_or_default(),
        )));
    }
    review["apiVersion"] = json!(format!("{}/v1", resource.group));
    review["kind"] = json!(resource.kind);
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["status"] = match resource.kind {
        "SelfSubjectReview" => json!({"userInfo": user(head)}),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true}),
    };
    Ok(Answer::json(201, to_bytes(&review)))
}

fn user(head: &http::request::Parts) -> Value {
    let texts = |name: &str| -> Vec<String> {
        head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let Some(name) = texts("Impersonate-User").into_iter().next() else {
        return json!({"username": USER, "groups": GROUPS});
    };
    let mut groups = texts("Impersonate-Group");
    groups.push("system:authenticated".to_owned());
    let mut user = json!({"username": name, "groups": groups});
    if let Some(uid) = texts("Impersonate-Uid").into_iter().next() {
        user["uid"] = json!(uid);
    }
    for header in head.headers.keys() {
        if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
            user["extra"][key] = json!(texts(header.as_str()));
        }
    }
    user
}
