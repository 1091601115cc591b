//! The status of ResourceQuotas.

use serde_json::json;

use super::engine::Engine;
use super::json::is_deleting;
use super::queue::ObjectName;
use crate::quotas::Contents;
use crate::store::kinds;

impl Engine {
    /// Writes the status that `kubectl describe quota` shows.
    pub(super) fn reconcile_quota(&mut self, name: &ObjectName) {
        let Some(quota) = self.store.get(&kinds::RESOURCE_QUOTA, &name.namespace, &name.name) else {
            return;
        };
        if is_deleting(&quota) {
            return;
        }
        let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
        let contents = Contents {
            list: &|kind| self.store.list(kind, Some(&name.namespace)),
            kind_of: &|group, plural| self.store.kind_of(group, plural),
        };
        let status = json!({"hard": hard, "used": contents.used(&quota)});
        if quota.get("status") != Some(&status) {
            self.update(&kinds::RESOURCE_QUOTA, name, |quota| quota["status"] = status);
        }
    }
}
