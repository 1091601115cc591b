//! `kubectl get componentstatuses`: deprecated for years, and still the first thing that many ask a cluster for.

use serde_json::{Value, json};

use super::ApiServer;
use super::accept::{self, Form};
use super::request::Query;
use super::response::Answer;
use super::table::TableForm;
use crate::store::{StatusError, to_bytes};

const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

/// What a healthy control plane says of its parts, in the order in which it does.
const COMPONENTS: [&str; 3] = ["scheduler", "controller-manager", "etcd-0"];

impl ApiServer {
    /// Answers with one component or with all.
    pub(super) fn component_statuses(
        &self,
        name: Option<&str>,
        query: &Query,
        accept: &str,
    ) -> Result<Answer, StatusError> {
        let wanted = COMPONENTS.iter().filter(|component| name.is_none_or(|name| name == **component));
        let components: Vec<Value> = wanted.map(|component| component_status(component)).collect();
        if let Some(name) = name.filter(|_| components.is_empty()) {
            let message = format!("componentstatuses \"{name}\" not found");
            return Err(StatusError::new(404, "NotFound", message).with_details("", "componentstatuses", name));
        }
        let body = match (accept::object_form(accept), name) {
            (Form::Table { version }, _) => {
                TableForm::of_kind("", "ComponentStatus", query, &version, self.store.clock())?.objects(&components)
            }
            (_, Some(_)) => components.into_iter().next().unwrap_or_default(),
            (_, None) => json!({
                "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": components,
            }),
        };
        let mut answer = Answer::json(200, to_bytes(&body));
        answer.warnings.push(DEPRECATED.to_owned());
        Ok(answer)
    }
}

fn component_status(name: &str) -> Value {
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name, "creationTimestamp": null},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    })
}
