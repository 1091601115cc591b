//! `.status` of a pod as a kubelet writes it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json::{condition, text, whole_second};
use super::node::NODE_ADDRESS;
use crate::apiserver::admission::qos_class;

/// Where a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerStage {
    Creating,
    /// The image could not be pulled just now.
    ErrImagePull,
    /// The kubelet waits before it pulls again.
    ImagePullBackOff,
    Running {
        ready: bool,
    },
    CrashLoopBackOff {
        restarts: u32,
        back_off: Duration,
    },
    /// It ran and ended well, as the containers of Jobs do.
    Completed,
}

/// The status of a pod whose containers are at the given stages, in the order of the spec. Times of what did not change are
/// taken over from the status that the pod has.
pub(super) fn render(pod: &Value, stages: &[ContainerStage], address: &str, now: Timestamp) -> Value {
    let none = Vec::new();
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).unwrap_or(&none);
    let mut statuses: Vec<Value> =
        containers.iter().zip(stages).map(|(container, stage)| container_status(pod, container, *stage, now)).collect();
    let init_containers = pod.pointer("/spec/initContainers").and_then(Value::as_array).unwrap_or(&none);
    let initialises = stages.contains(&ContainerStage::Creating);
    let completed = !stages.is_empty() && stages.iter().all(|stage| *stage == ContainerStage::Completed);
    let init_statuses: Vec<Value> = init_containers
        .iter()
        .map(|container| {
            let stage = match (initialises, is_sidecar(container)) {
                (true, _) => ContainerStage::Creating,
                (false, true) if !completed => ContainerStage::Running { ready: true },
                (false, _) => ContainerStage::Completed,
            };
            init_status(pod, container, stage, now)
        })
        .collect();
    let incomplete = initialises && !init_containers.is_empty();
    if incomplete {
        for status in &mut statuses {
            status["state"] = json!({"waiting": {"reason": "PodInitializing"}});
        }
    }
    let unready: Vec<&str> = containers
        .iter()
        .zip(stages)
        .filter(|(_, stage)| **stage != ContainerStage::Running { ready: true })
        .map(|(container, _)| text(container, "/name").unwrap_or_default())
        .collect();
    let pending = stages.iter().any(|stage| {
        use ContainerStage::{Creating, ErrImagePull, ImagePullBackOff};
        matches!(stage, Creating | ErrImagePull | ImagePullBackOff)
    });
    let not_ready = completed.then(|| ("PodCompleted", String::new()));
    let not_ready = not_ready.or_else(|| {
        (!unready.is_empty()).then(|| {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            ("ContainersNotReady", message)
        })
    });
    let conditions = [
        ("PodReadyToStartContainers", None),
        ("Initialized", incomplete.then(|| ("ContainersNotInitialized", incomplete_names(init_containers)))),
        ("Ready", not_ready.clone()),
        ("ContainersReady", not_ready),
        ("PodScheduled", None),
    ]
    .map(|(condition_type, problem)| pod_condition(pod, condition_type, problem, now));
    let start_time = pod.pointer("/status/startTime").cloned().unwrap_or_else(|| json!(whole_second(now)));
    let mut status = json!({
        "phase": match (completed, pending) {
            (true, _) => "Succeeded",
            (false, true) => "Pending",
            (false, false) => "Running",
        },
        "conditions": conditions,
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": start_time,
        "containerStatuses": statuses,
        "qosClass": qos_class(&pod["spec"]),
    });
    if !init_statuses.is_empty() {
        status["initContainerStatuses"] = init_statuses.into();
    }
    status
}

/// An init container that runs beside the others.
fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == Some("Always")
}

fn incomplete_names(init_containers: &[Value]) -> String {
    let names: Vec<&str> = init_containers.iter().filter_map(|container| text(container, "/name")).collect();
    format!("containers with incomplete status: [{}]", names.join(" "))
}

/// Init containers end well as soon as the pod starts, whatever their image.
fn init_status(pod: &Value, container: &Value, stage: ContainerStage, now: Timestamp) -> Value {
    let mut status = status_of("/status/initContainerStatuses", pod, container, stage, now);
    match stage {
        ContainerStage::Creating => status["state"] = json!({"waiting": {"reason": "PodInitializing"}}),
        ContainerStage::Completed => {
            status["ready"] = true.into();
            let name = text(container, "/name").unwrap_or_default();
            if let Some(state) = present_status("/status/initContainerStatuses", pod, name)
                .and_then(|before| before.get("state"))
                .filter(|state| state.get("terminated").is_some())
            {
                status["state"] = state.clone();
            }
        }
        _ => {}
    }
    status
}

/// The status of a pod that no node is fit for.
pub(super) fn unschedulable(pod: &Value, message: &str, now: Timestamp) -> Value {
    let problem = Some(("Unschedulable", message.to_owned()));
    let conditions = [pod_condition(pod, "PodScheduled", problem, now)];
    json!({"phase": "Pending", "conditions": conditions, "qosClass": qos_class(&pod["spec"])})
}

fn pod_condition(pod: &Value, condition_type: &str, problem: Option<(&str, String)>, now: Timestamp) -> Value {
    let status = if problem.is_none() { "True" } else { "False" };
    let transition = condition(pod, condition_type)
        .filter(|before| text(before, "/status") == Some(status))
        .and_then(|before| before.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| json!(whole_second(now)));
    let mut condition = json!({
        "type": condition_type, "status": status, "lastProbeTime": null, "lastTransitionTime": transition,
    });
    if let Some((reason, message)) = problem {
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    condition
}

fn present_status<'a>(list: &str, pod: &'a Value, name: &str) -> Option<&'a Value> {
    let statuses = pod.pointer(list).and_then(Value::as_array);
    statuses.into_iter().flatten().find(|status| text(status, "/name") == Some(name))
}

fn container_status(pod: &Value, container: &Value, stage: ContainerStage, now: Timestamp) -> Value {
    status_of("/status/containerStatuses", pod, container, stage, now)
}

fn status_of(list: &str, pod: &Value, container: &Value, stage: ContainerStage, now: Timestamp) -> Value {
    let name = text(container, "/name").unwrap_or_default();
    let image = text(container, "/image").unwrap_or_default();
    let before = present_status(list, pod, name);
    let restarts = before.and_then(|before| before.get("restartCount")).and_then(Value::as_u64).unwrap_or(0);
    let mut status = json!({
        "name": name, "image": image, "imageID": "", "ready": false, "started": false,
        "restartCount": restarts, "lastState": {},
    });
    match stage {
        ContainerStage::Creating => {
            status["state"] = json!({"waiting": {"reason": "ContainerCreating"}});
        }
        ContainerStage::ErrImagePull => {
            status["state"] = json!({"waiting": {"reason": "ErrImagePull", "message": pull_error(image)}});
        }
        ContainerStage::ImagePullBackOff => {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", pull_error(image));
            status["state"] = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
        }
        ContainerStage::Running { ready } => {
            let started = before
                .and_then(|before| before.pointer("/state/running/startedAt").cloned())
                .unwrap_or_else(|| json!(whole_second(now)));
            status["state"] = json!({"running": {"startedAt": started}});
            status["imageID"] = image.into();
            status["started"] = true.into();
            status["ready"] = ready.into();
        }
        ContainerStage::Completed => {
            let at = whole_second(now);
            status["state"] =
                json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": at, "finishedAt": at}});
            status["imageID"] = image.into();
        }
        ContainerStage::CrashLoopBackOff { restarts, back_off } => {
            let metadata = &pod["metadata"];
            let field = |field: &str| metadata[field].as_str().unwrap_or_default();
            let message = format!(
                "back-off {} restarting failed container={name} pod={}_{}({})",
                go_duration(back_off),
                field("name"),
                field("namespace"),
                field("uid"),
            );
            status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
            status["imageID"] = image.into();
            status["restartCount"] = restarts.into();
            status["lastState"] = match before {
                Some(before)
                    if before["restartCount"] == restarts && before["lastState"].get("terminated").is_some() =>
                {
                    before["lastState"].clone()
                }
                _ => {
                    let at = whole_second(now);
                    json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": at, "finishedAt": at}})
                }
            };
        }
    }
    status
}

/// What containerd says of an image that its registry does not have.
pub(super) fn pull_error(image: &str) -> String {
    format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \
         \"{image}\": {image}: not found"
    )
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &Value) -> Value {
        json!({
            "metadata": {"name": "app-1", "namespace": "test", "uid": "u"},
            "spec": {"containers": [{"name": "app", "image": "app:1"}, {"name": "proxy", "image": "proxy:1"}]},
            "status": status,
        })
    }

    #[test]
    fn a_pod_is_ready_when_all_containers_are_and_keeps_its_times() {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let up = ContainerStage::Running { ready: true };
        let down = ContainerStage::Running { ready: false };
        let first = render(&pod(&json!({})), &[up, down], "10.0.0.1", at(10));
        let ready = |status: &Value| status["conditions"][2].clone();
        assert_eq!(ready(&first)["status"], "False");
        assert_eq!(ready(&first)["message"], "containers with unready status: [proxy]");
        assert_eq!(first["phase"], "Running");
        let second = render(&pod(&first), &[up, up], "10.0.0.1", at(20));
        assert_eq!(ready(&second)["status"], "True");
        assert_eq!(ready(&second)["lastTransitionTime"], "1970-01-01T00:00:20Z");
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:10Z");
        let third = render(&pod(&second), &[up, up], "10.0.0.1", at(30));
        assert_eq!(second, third);
    }

    #[test]
    fn init_containers_end_before_the_others_start_and_sidecars_run_beside_them() {
        let with_init = |status: &Value| {
            let mut pod = pod(status);
            pod["spec"]["initContainers"] = json!([
                {"name": "migrate", "image": "migrate:1"},
                {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"},
            ]);
            pod
        };
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let creating = [ContainerStage::Creating; 2];
        let first = render(&with_init(&json!({})), &creating, "10.0.0.1", at(10));
        assert_eq!(first["conditions"][1]["message"], "containers with incomplete status: [migrate mesh]");
        for list in ["containerStatuses", "initContainerStatuses"] {
            assert_eq!(first[list][0]["state"]["waiting"]["reason"], "PodInitializing", "{list}");
        }
        let running = [ContainerStage::Running { ready: true }; 2];
        let second = render(&with_init(&first), &running, "10.0.0.1", at(20));
        let [migrate, mesh] = [0, 1].map(|index| &second["initContainerStatuses"][index]);
        assert_eq!((&migrate["state"]["terminated"]["reason"], &migrate["ready"]), (&json!("Completed"), &json!(true)));
        assert_eq!(
            (&mesh["state"]["running"]["startedAt"], &mesh["started"]),
            (&json!("1970-01-01T00:00:20Z"), &json!(true))
        );
        assert_eq!(second["conditions"][1]["status"], "True");
        assert_eq!(render(&with_init(&second), &running, "10.0.0.1", at(30)), second);
    }

    #[test]
    fn a_crashing_container_waits_in_the_words_of_a_kubelet() {
        let stage = ContainerStage::CrashLoopBackOff { restarts: 4, back_off: Duration::from_secs(80) };
        let status = render(
            &pod(&json!({})),
            &[stage, ContainerStage::Running { ready: true }],
            "10.0.0.1",
            Timestamp::UNIX_EPOCH,
        );
        let container = &status["containerStatuses"][0];
        assert_eq!(
            container["state"]["waiting"]["message"],
            "back-off 1m20s restarting failed container=app pod=app-1_test(u)"
        );
        assert_eq!(container["restartCount"], 4);
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    }
}
