//! The signs of life of the node. A kubelet writes them all the time; here they are written when somebody looks, so that an idle
//! cluster writes nothing.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ApiServer;
use super::request::Target;
use crate::clock::format_seconds;
use crate::store::kinds;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often a kubelet renews its lease (a quarter of `nodeLeaseDurationSeconds`).
const LEASE_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// How often it reports an unchanged status (`nodeStatusReportFrequency`).
const STATUS_PERIOD: SignedDuration = SignedDuration::from_mins(5);

impl ApiServer {
    /// Brings nodes or their leases up to date before they are read.
    pub(super) fn beat_before_read(&self, target: &Target) {
        let kind = &target.resource.group_kind;
        if *kind == kinds::LEASE && target.namespace == LEASE_NAMESPACE {
            self.renew_leases();
        } else if *kind == kinds::NODE {
            self.report_nodes();
        }
    }

    fn renew_leases(&self) {
        let now = self.store.clock().now();
        for node in self.store.list(&kinds::NODE, None) {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let Some(lease) = self.store.get(&kinds::LEASE, LEASE_NAMESPACE, name) else { continue };
            if is_older(&lease["spec"]["renewTime"], LEASE_PERIOD, now) {
                // Whole seconds with the six digits of Kubernetes' MicroTime.
                let renewed = format!("{:.6}", Timestamp::from_second(now.as_second()).unwrap_or(now));
                self.write(&kinds::LEASE, LEASE_NAMESPACE, name, |lease| lease["spec"]["renewTime"] = json!(renewed));
            }
        }
    }

    fn report_nodes(&self) {
        let now = self.store.clock().now();
        for node in self.store.list(&kinds::NODE, None) {
            let conditions = node["status"]["conditions"].as_array();
            let is_due = |condition: &Value| is_older(&condition["lastHeartbeatTime"], STATUS_PERIOD, now);
            if !conditions.is_some_and(|conditions| conditions.iter().any(is_due)) {
                continue;
            }
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            self.write(&kinds::NODE, "", name, |node| {
                for condition in node["status"]["conditions"].as_array_mut().into_iter().flatten() {
                    condition["lastHeartbeatTime"] = json!(format_seconds(now));
                }
            });
        }
    }

    fn write(&self, kind: &crate::store::GroupKind, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        // Whoever deleted it meanwhile will not miss it.
        if let Err(error) = self.store.update(kind, namespace, name, change) {
            tracing::debug!(%kind, name, %error, "failed to write a sign of life");
        }
    }
}

fn is_older(time: &Value, period: SignedDuration, now: Timestamp) -> bool {
    let time = time.as_str().and_then(|time| time.parse::<Timestamp>().ok());
    time.is_none_or(|time| now.duration_since(time) >= period)
}
