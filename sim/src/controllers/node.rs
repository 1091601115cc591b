//! The one node of the embedded cluster.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json::whole_second;

pub(super) const NODE_NAME: &str = "node-1";
pub(super) const NODE_ADDRESS: &str = "192.168.0.1";

const LABELS: [(&str, &str); 3] =
    [("kubernetes.io/arch", "amd64"), ("kubernetes.io/hostname", NODE_NAME), ("kubernetes.io/os", "linux")];

/// What the node says it has. Nothing is scheduled by it: the node is without limits.
const CAPACITY: [(&str, &str); 4] = [("cpu", "64"), ("ephemeral-storage", "1Ti"), ("memory", "256Gi"), ("pods", "10k")];

pub(super) fn object(now: Timestamp) -> Value {
    let labels: BTreeMap<_, _> = LABELS.into_iter().collect();
    let now = whole_second(now);
    let condition = |condition_type: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": condition_type, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    json!({
        "metadata": {"name": NODE_NAME, "labels": labels, "annotations": {"node.alpha.kubernetes.io/ttl": "0"}},
        "spec": {"podCIDR": "10.128.0.0/9", "podCIDRs": ["10.128.0.0/9"]},
        "status": {
            "capacity": CAPACITY.into_iter().collect::<BTreeMap<_, _>>(),
            "allocatable": CAPACITY.into_iter().collect::<BTreeMap<_, _>>(),
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.3", "kubeProxyVersion": "",
                "containerRuntimeVersion": "none://", "osImage": "Aviary embedded cluster", "kernelVersion": "none",
                "machineID": "", "systemUUID": "", "bootID": "",
            },
            "addresses": [
                {"type": "InternalIP", "address": NODE_ADDRESS},
                {"type": "Hostname", "address": NODE_NAME},
            ],
            "conditions": [
                condition(
                    "MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
                ),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
        },
    })
}

/// Address of the n-th pod: the upper half of 10.0.0.0/8, which leaves the lower half to services.
pub(super) fn pod_address(number: u32) -> String {
    let number = number % (1 << 23);
    format!("10.{}.{}.{}", 128 + (number >> 16), (number >> 8) & 0xff, number & 0xff)
}
