//! What only pods have: logs, eviction, and the streams into containers that an embedded cluster cannot have.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ApiServer;
use super::request::{Query, Target};
use super::response::Answer;
use super::write::{Body, WriteRequest, decode_body};
use crate::controllers::disruptions::Disruptions;
use crate::store::{StatusError, kinds, to_bytes};

impl ApiServer {
    /// `pods/NAME/log`. No container runs, so the log tells what would have started when, and says that it did not.
    pub(super) fn pod_log(&self, target: &Target, name: &str, query: &Query) -> Result<Answer, StatusError> {
        let pod = self
            .store
            .get(&kinds::POD, &target.namespace, name)
            .ok_or_else(|| StatusError::not_found(&target.resource, name))?;
        let container = log_container(&pod, name, query.get("container"))?;
        if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
            return Err(StatusError::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let lines = log_lines(&pod, name, container, query.flag("previous"))?;
        let now = self.store.clock().now();
        let since = query.number("sinceSeconds")?.and_then(|seconds| {
            now.checked_sub(jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))).ok()
        });
        let since = since.or_else(|| query.get("sinceTime").and_then(|text| text.parse().ok()));
        let mut kept: Vec<&(Timestamp, String)> =
            lines.iter().filter(|(at, _)| since.is_none_or(|since| *at >= since)).collect();
        if let Some(tail) = query.number("tailLines")? {
            let skipped = kept.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
            kept.drain(..skipped);
        }
        let mut text = String::new();
        for (at, line) in kept {
            if query.flag("timestamps") {
                text.push_str(&format!("{at} "));
            }
            text.push_str(line);
            text.push('\n');
        }
        if let Some(limit) = query.number("limitBytes")? {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let end =
                text.char_indices().map(|(at, character)| at + character.len_utf8()).take_while(|end| *end <= limit);
            text.truncate(end.last().unwrap_or(0));
        }
        Ok(Answer::text(200, &text))
    }

    /// `pods/NAME/eviction`: a deletion that disruption budgets may refuse.
    pub(super) fn evict(&self, request: &WriteRequest<'_>) -> Result<Answer, StatusError> {
        let WriteRequest { target, name, body, .. } = request;
        let (eviction, _) = decode_body(body, true)?;
        let given = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !given.is_empty() && given != *name {
            return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
        }
        let pod = self
            .store
            .get(&kinds::POD, &target.namespace, name)
            .ok_or_else(|| StatusError::not_found(&target.resource, name))?;
        self.check_budgets(&pod, &target.namespace)?;
        let options = eviction.get("deleteOptions").filter(|options| options.is_object()).map(to_bytes);
        let pod_target = Target {
            resource: std::sync::Arc::clone(&target.resource),
            version: target.version.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: String::new(),
        };
        let bytes = options.as_deref().unwrap_or_default();
        let deletion = WriteRequest {
            target: &pod_target,
            body: Body { content_type: "application/json", bytes, client: body.client },
            ..*request
        };
        let deleted = self.delete(&deletion)?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Answer::json(201, to_bytes(&status)).changed(deleted.changed))
    }

    fn check_budgets(&self, pod: &Value, namespace: &str) -> Result<(), StatusError> {
        let ready = pod["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let over = matches!(pod["status"]["phase"].as_str(), Some("Pending" | "Succeeded" | "Failed"));
        if over || pod["metadata"].get("deletionTimestamp").is_some() {
            return Ok(());
        }
        for budget in self.store.list(&kinds::POD_DISRUPTION_BUDGET, Some(namespace)) {
            if !Disruptions::selects(&budget, pod) {
                continue;
            }
            let disruptions = Disruptions::of(&self.store, &budget);
            if disruptions.allowed > 0 || (!ready && disruptions.healthy >= disruptions.desired) {
                continue;
            }
            let name = budget["metadata"]["name"].as_str().unwrap_or_default();
            let cause = kube::core::response::StatusCause {
                reason: "DisruptionBudget".to_owned(),
                message: format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    disruptions.desired, disruptions.healthy
                ),
                field: String::new(),
            };
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(StatusError::new(429, "TooManyRequests", message).with_causes(vec![cause]));
        }
        Ok(())
    }
}

/// What `exec`, `attach`, `port-forward` and `debug` are told.
pub(super) fn refuse_stream(subresource: &str) -> StatusError {
    let what = match subresource {
        "portforward" => "port-forward",
        "ephemeralcontainers" => "a debug container",
        other => other,
    };
    StatusError::new(
        501,
        "NotImplemented",
        format!("{what} is not possible: the embedded cluster has pods, but runs no containers"),
    )
}

/// The container whose log is asked for.
fn log_container<'a>(pod: &'a Value, pod_name: &str, wanted: Option<&str>) -> Result<&'a Value, StatusError> {
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .collect();
    let Some(wanted) = wanted else {
        let main = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let [only] = main {
            return Ok(only);
        }
        let names: Vec<&str> = main.iter().filter_map(|container| container["name"].as_str()).collect();
        return Err(StatusError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            names.join(" ")
        )));
    };
    containers
        .into_iter()
        .find(|container| container["name"] == wanted)
        .ok_or_else(|| StatusError::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
}

fn log_lines(
    pod: &Value,
    pod_name: &str,
    container: &Value,
    previous: bool,
) -> Result<Vec<(Timestamp, String)>, StatusError> {
    let name = container["name"].as_str().unwrap_or_default();
    let status = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
        .find(|status| status["name"] == name);
    let waiting = |reason: &str| {
        let reason = match reason {
            "ImagePullBackOff" | "ErrImagePull" => "trying and failing to pull image",
            "" => "ContainerCreating",
            other => other,
        };
        StatusError::bad_request(format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}"))
    };
    let status = status.ok_or_else(|| waiting(""))?;
    let time = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).and_then(|text| text.parse().ok());
    let exit = |state: &str| -> Option<Vec<(Timestamp, String)>> {
        let finished = time(&format!("{state}/terminated/finishedAt"))?;
        let started = time(&format!("{state}/terminated/startedAt")).unwrap_or(finished);
        let code = status.pointer(&format!("{state}/terminated/exitCode")).and_then(Value::as_i64).unwrap_or(0);
        let exited = format!("exited with code {code} (embedded cluster: containers do not run)");
        Some(vec![(started, started_line(container)), (finished, exited)])
    };
    if previous {
        return exit("/lastState").ok_or_else(|| {
            StatusError::bad_request(format!(
                "previous terminated container \"{name}\" in pod \"{pod_name}\" not found"
            ))
        });
    }
    if let Some(started) = time("/state/running/startedAt") {
        return Ok(vec![(started, started_line(container))]);
    }
    let last = exit("/state").or_else(|| exit("/lastState"));
    last.ok_or_else(|| waiting(status.pointer("/state/waiting/reason").and_then(Value::as_str).unwrap_or_default()))
}

/// `podinfo 6.0.1 started (…)` for the image `ghcr.io/stefanprodan/podinfo:6.0.1`.
fn started_line(container: &Value) -> String {
    let image = container["image"].as_str().unwrap_or_default();
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let started = "started (embedded cluster: containers do not run)";
    match last.split_once(':') {
        Some((name, tag)) => format!("{name} {tag} {started}"),
        None => format!("{last} {started}"),
    }
}
