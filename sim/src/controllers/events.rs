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
        let name = text(about, "/metadata/name").unwrap_or_default();
        let now = self.clock.now();
        let uid = text(about, "/metadata/uid").unwrap_or_default();
        let subject = format!("{uid}/{name}/{component}/{severity}/{reason}/{}", container.unwrap_or_default());
        let told = self.event_log.tell(subject, message, now);
        if let Some(before) = &told.before
            && self.repeat(about, before, &told.message)
        {
            return;
        }
        self.events_written += 1;
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
            "message": told.message,
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
        match self.store.create(&kinds::EVENT, event) {
            Ok(event) => {
                self.event_log.remember(told, text(&event, "/metadata/name").unwrap_or_default().to_owned());
            }
            Err(error) => tracing::debug!(%error, reason, "failed to store an event"),
        }
    }

    /// Counts an event once more. Somebody may have deleted it: then it is told anew.
    fn repeat(&self, about: &Value, event: &str, message: &str) -> bool {
        let namespace = text(about, "/metadata/namespace").unwrap_or("default");
        let now = json!(whole_second(self.clock.now()));
        let repeated = self.store.update(&kinds::EVENT, namespace, event, |event| {
            event["count"] = (event["count"].as_i64().unwrap_or(1) + 1).into();
            event["lastTimestamp"] = now;
            event["message"] = message.into();
        });
        repeated.is_ok()
    }
}
