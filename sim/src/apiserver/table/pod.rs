//! The row of a pod: how many containers are ready, and one word for its state.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, items, name, number, text, text_or};
use super::duration;

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let mut restarts = summary.restarts.to_string();
    if summary.restarts != 0
        && let Some(last) = summary.last_restart
    {
        restarts = format!("{restarts} ({} ago)", duration::human(duration::whole_seconds(now, last)));
    }
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.state),
        json!(restarts),
        age(pod, now),
        json!(text_or(pod, "/status/podIPs/0/ip", NONE)),
        json!(text_or(pod, "/spec/nodeName", NONE)),
        json!(text_or(pod, "/status/nominatedNodeName", NONE)),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    state: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts that are shown, and when the last of them was.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "/restartCount");
        let finished = text(status, "/lastState/terminated/finishedAt").parse::<Timestamp>().ok();
        self.last = self.last.max(finished);
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars: Vec<&str> = items(pod, "/spec/initContainers")
            .filter(|container| is_sidecar(container))
            .map(|c| text(c, "/name"))
            .collect();
        let mut summary = Self {
            ready: 0,
            total: items(pod, "/spec/containers").len() + sidecars.len(),
            state: text_or(pod, "/status/reason", text(pod, "/status/phase")).to_owned(),
            restarts: 0,
            last_restart: None,
        };
        if is_gated(pod) {
            "SchedulingGated".clone_into(&mut summary.state);
        }
        let mut all_restarts = Restarts::default();
        let mut sidecar_restarts = Restarts::default();
        let mut initialising = None;
        let init_count = items(pod, "/spec/initContainers").len();
        for (index, status) in items(pod, "/status/initContainerStatuses").enumerate() {
            all_restarts.add(status);
            let sidecar = sidecars.contains(&text(status, "/name"));
            if sidecar {
                sidecar_restarts.add(status);
            }
            if sidecar && status["started"] == true {
                summary.ready += usize::from(status["ready"] == true);
                continue;
            }
            match init_state(status, index, init_count) {
                None => {}
                Some(state) => {
                    initialising = Some(state);
                    break;
                }
            }
        }
        let mut restarts = all_restarts;
        let is_initialised = initialising.is_none() || condition_is_true(pod, "Initialized");
        if let Some(state) = initialising {
            summary.state = state;
        }
        if is_initialised {
            restarts = sidecar_restarts;
            summary.add_containers(pod, &mut restarts);
        }
        summary.restarts = restarts.count;
        summary.last_restart = restarts.last;
        summary.show_deletion(pod);
        summary
    }

    fn add_containers(&mut self, pod: &Value, restarts: &mut Restarts) {
        let mut any_running = false;
        let mut failure = None;
        // From the last to the first, so that the first container's state is the one that stays.
        for status in items(pod, "/status/containerStatuses").rev() {
            restarts.add(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.state);
            } else if let Some(terminated) = status.pointer("/state/terminated") {
                self.state = exit_text(terminated, "");
                if number(terminated, "/exitCode") != 0 {
                    failure = Some(self.state.clone());
                }
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                any_running = true;
                self.ready += 1;
            }
        }
        if self.state != "Completed" {
            return;
        }
        if any_running && condition_is_true(pod, "Ready") {
            "Running".clone_into(&mut self.state);
        } else if let Some(failure) = failure {
            self.state = failure;
        } else if any_running {
            "NotReady".clone_into(&mut self.state);
        }
    }

    fn show_deletion(&mut self, pod: &Value) {
        if pod.pointer("/metadata/deletionTimestamp").is_none() {
            return;
        }
        if text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut self.state);
        } else if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut self.state);
        }
    }
}

/// An init container with `restartPolicy: Always` runs beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn is_gated(pod: &Value) -> bool {
    items(pod, "/status/conditions")
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated")
}

/// What keeps the pod from starting; `None` for an init container that is done.
fn init_state(status: &Value, index: usize, count: usize) -> Option<String> {
    if let Some(terminated) = status.pointer("/state/terminated") {
        return (number(terminated, "/exitCode") != 0).then(|| exit_text(terminated, "Init:"));
    }
    match text(status, "/state/waiting/reason") {
        "" | "PodInitializing" => Some(format!("Init:{index}/{count}")),
        reason => Some(format!("Init:{reason}")),
    }
}

fn exit_text(terminated: &Value, prefix: &str) -> String {
    let reason = text(terminated, "/reason");
    let signal = number(terminated, "/signal");
    match () {
        () if !reason.is_empty() => format!("{prefix}{reason}"),
        () if signal != 0 => format!("{prefix}Signal:{signal}"),
        () => format!("{prefix}ExitCode:{}", number(terminated, "/exitCode")),
    }
}

fn condition_is_true(pod: &Value, condition_type: &str) -> bool {
    items(pod, "/status/conditions")
        .any(|condition| condition["type"] == condition_type && condition["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&str> = items(pod, "/spec/readinessGates").map(|gate| text(gate, "/conditionType")).collect();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| condition_is_true(pod, gate)).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::cells;

    fn row(status: &Value, deleted: bool) -> Vec<Value> {
        let mut pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}, "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:00Z");
        }
        cells(&pod, Timestamp::from_second(90).unwrap_or_default())
    }

    #[test]
    fn the_state_is_one_word_as_kubectl_prints_it() {
        let up = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let cases = [
            (json!({}), false, "0/2", ""),
            (json!({"phase": "Pending"}), false, "0/2", "Pending"),
            (json!({"phase": "Running", "containerStatuses": [up, up]}), false, "2/2", "Running"),
            (json!({"phase": "Running", "containerStatuses": [up, up]}), true, "2/2", "Terminating"),
            (
                json!({"phase": "Running", "containerStatuses": [up, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                false,
                "1/2",
                "CrashLoopBackOff",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), false, "0/2", "Evicted"),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                false,
                "0/2",
                "Completed",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                false,
                "0/2",
                "ExitCode:3",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                false,
                "0/2",
                "Init:0/1",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
                false,
                "0/2",
                "Init:Error",
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                false,
                "0/2",
                "SchedulingGated",
            ),
        ];
        for (status, deleted, ready, state) in cases {
            let row = row(&status, deleted);
            assert_eq!((&row[1], &row[2]), (&json!(ready), &json!(state)), "{status}");
        }
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let crashed = json!({"restartCount": 4, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:01:00Z"}},
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let row = row(&json!({"phase": "Running", "containerStatuses": [crashed]}), false);
        assert_eq!(row[3], "4 (30s ago)");
        assert_eq!(row[4], "90s");
    }
}
