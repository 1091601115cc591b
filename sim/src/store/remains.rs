//! What is left in a namespace that is being deleted, as the namespace controller of Kubernetes tells it
//! (`pkg/controller/namespace/deletion/status_condition_utils.go`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Counts of what is left.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Objects by `plural.group`.
    resources: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Remains {
    pub(super) fn count(&mut self, resource: String, finalizers: &[&str]) {
        *self.resources.entry(resource).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry((*finalizer).to_owned()).or_default() += 1;
        }
    }

    /// Sets the conditions of a namespace; tells whether any changed.
    pub(super) fn write_conditions(&self, status: &mut Value, now: Timestamp) -> bool {
        let mut changed = false;
        if !status["conditions"].is_array() {
            status["conditions"] = json!([]);
        }
        let Some(conditions) = status["conditions"].as_array_mut() else { return false };
        for (condition_type, value, reason, message) in self.conditions() {
            let mut condition = json!({
                "type": condition_type, "status": if value { "True" } else { "False" }, "reason": reason, "message": message,
            });
            let place = conditions.iter().position(|present| present["type"] == condition_type);
            if let Some(present) = place.map(|place| &conditions[place]) {
                condition["lastTransitionTime"] = present["lastTransitionTime"].clone();
                if condition == *present {
                    continue;
                }
            }
            changed = true;
            condition["lastTransitionTime"] = json!(crate::clock::format_seconds(now));
            match place {
                Some(place) => conditions[place] = condition,
                None => conditions.push(condition),
            }
        }
        changed
    }

    /// Type, value, reason and message of each condition, in Kubernetes' order.
    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let left = |counts: &BTreeMap<String, usize>, verb: &str| {
            let texts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
            texts.join(", ")
        };
        let content = match self.resources.is_empty() {
            true => ("ContentRemoved", "All content successfully removed".to_owned()),
            false => ("SomeResourcesRemain", format!("Some resources are remaining: {}", left(&self.resources, "has"))),
        };
        let finalizers = match self.finalizers.is_empty() {
            true => ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
            false => {
                let left = left(&self.finalizers, "in");
                ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {left}"))
            }
        };
        let deleted = "All content successfully deleted, may be waiting on finalization";
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            ("NamespaceDeletionContentFailure", false, "ContentDeleted", deleted.to_owned()),
            ("NamespaceContentRemaining", !self.resources.is_empty(), content.0, content.1),
            ("NamespaceFinalizersRemaining", !self.finalizers.is_empty(), finalizers.0, finalizers.1),
        ]
    }
}
