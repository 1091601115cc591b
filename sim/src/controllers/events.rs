//! Events that the workload controllers of Kubernetes emit.

use serde_json::{Value, json};

use super::engine::Engine;
use super::json::{text, whole_second};
use crate::store::kinds;

/// An event to be stored.
pub(super) struct Event<'a> {
    pub(super) about: &'a Value,
    pub(super) component: &'a str,
    /// `Normal` or `Warning`.
    pub(super) severity: &'a str,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    /// The container of a pod that it is about.
    pub(super) container: Option<&'a str>,
}

impl Engine {
    /// Stores a Normal event about an object, where objects are stored at all.
    pub(super) fn record_event(&mut self, about: &Value, component: &str, reason: &str, message: &str) {
        self.record(&Event { about, component, severity: "Normal", reason, message, container: None });
    }

    /// The same of type Warning.
    pub(super) fn record_warning(&mut self, about: &Value, component: &str, reason: &str, message: &str) {
        self.record(&Event { about, component, severity: "Warning", reason, message, container: None });
    }

    pub(super) fn record(&mut self, event: &Event<'_>) {
        let Event { about, component, severity, reason, message, container } = event;
        if !self.options.events || !self.stores_pods() {
            return;
        }
        self.events_written += 1;
        let name = text(about, "/metadata/name").unwrap_or_default();
        let now = self.clock.now();
        // Kubernetes takes the time in nanoseconds; the counter keeps two events of one moment apart.
        let nanosecond = u64::try_from(now.as_nanosecond()).unwrap_or(0);
        let suffix = nanosecond.wrapping_add(self.events_written);
        let metadata = &about["metadata"];
        let now = whole_second(now);
        let mut event = json!({
            "metadata": {"name": format!("{name}.{suffix:016x}"), "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": metadata["namespace"],
                "name": name, "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
            },
            "type": severity,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
        });
        if let Some(container) = container {
            event["involvedObject"]["fieldPath"] = format!("spec.containers{{{container}}}").into();
        }
        if *component == "kubelet" {
            event["source"]["host"] = super::node::NODE_NAME.into();
            event["reportingInstance"] = super::node::NODE_NAME.into();
        }
        if let Err(error) = self.store.create(&kinds::EVENT, event) {
            tracing::debug!(%error, reason, "failed to store an event");
        }
    }
}
