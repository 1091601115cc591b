//! Subsets of an Istio DestinationRule that a user has made: `production` serves everybody, `canary` is tried. A version is put behind a
//! subset by its label `version`, which is all that is ever written; the pods are the user's business.
//!
//! Whether a subset has pods is read from the Deployments and DaemonSets whose pods it selects: pods are not watched, there would be
//! too many of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_crds::birdwatch::{CANARY, PRODUCTION, VERSION_LABEL};
use aviary_rollout::{PrimaryView, Readiness, Returned, Scale, TargetView};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{DiscoveredPort, Selector, Target, TargetError};
use crate::change::Change;
use crate::object::kinds;
use crate::{ObjectKind, Subject};

/// Subsets of a DestinationRule.
#[derive(Clone, Copy, Debug)]
pub struct SubsetTarget;

const KIND: &str = "destinationrule";

/// Labels of pods.
type Labels = BTreeMap<String, String>;

impl Target for SubsetTarget {
    fn kind(&self) -> &'static str {
        "DestinationRule"
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DESTINATION_RULE
    }

    /// It is "scaled to zero" while something else is behind the canary subset, and has no pods then: users who were led there would
    /// meet another version.
    fn observe(&self, subject: &Subject, _: Timestamp) -> Result<TargetView, TargetError> {
        let rule = read(subject)?;
        // Read also if it is not needed: the canary must be woken for what both subsets depend on.
        subset(subject, &rule, PRODUCTION)?;
        let version = version_of(subject);
        let mut labels = labels_of(subset(subject, &rule, CANARY)?);
        let is_elsewhere = labels.get(VERSION_LABEL).map(String::as_str) != Some(version);
        labels.insert(VERSION_LABEL.to_owned(), version.to_owned());
        let pods = Pods::behind(subject, &rule, &labels);
        Ok(TargetView {
            revision: version.to_owned(),
            configs: None,
            scaled_to_zero: is_elsewhere,
            available: if is_elsewhere { 0 } else { pods.available },
            readiness: pods.readiness(CANARY),
        })
    }

    fn observe_primary(&self, subject: &Subject, _: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let rule = read(subject)?;
        let labels = labels_of(subset(subject, &rule, PRODUCTION)?);
        let pods = Pods::behind(subject, &rule, &labels);
        Ok(Some(PrimaryView {
            matches_target: labels.get(VERSION_LABEL).map(String::as_str) == Some(version_of(subject)),
            readiness: pods.readiness(PRODUCTION),
            available: pods.available,
        }))
    }

    fn apply_primary(&self, _: &Subject) -> Result<Vec<Change>, TargetError> {
        Ok(Vec::new())
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        _: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        let version = version_of(subject);
        if version != revision {
            return Err(TargetError::Superseded {
                kind: KIND,
                name: subject.canary.target.name.clone(),
                namespace: subject.namespace().to_owned(),
                what: format!("its canary_version is {version}, analysed was {revision}"),
            });
        }
        relabel(subject, PRODUCTION)
    }

    /// The canary subset gets the version; no workload is scaled.
    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError> {
        match scale {
            Scale::Up => relabel(subject, CANARY),
            Scale::Zero | Scale::Restore => Ok(Vec::new()),
        }
    }

    /// Nothing is given back.
    fn returned(&self, _: &Subject, _: Timestamp) -> Option<Returned> {
        None
    }

    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        Err(malformed(subject, "its subsets select pods, and no service is generated"))
    }

    fn discovered_ports(&self, _: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        Ok(Vec::new())
    }
}

/// Deletes the object whose version is in production. Nothing goes with it: what serves is the user's.
pub fn deletion(subject: &Subject) -> Option<Change> {
    let key = subject.key(&kinds::BIRD_WATCH, &subject.canary.key.name);
    let present = subject.get(&kinds::BIRD_WATCH, &key.name)?;
    Change::delete(key, &present)
}

fn version_of<'a>(subject: &Subject<'a>) -> &'a str {
    subject.canary.subset_version.as_deref().unwrap_or_default()
}

fn read(subject: &Subject) -> Result<Arc<DynamicObject>, TargetError> {
    let name = &subject.canary.target.name;
    subject.get(&kinds::DESTINATION_RULE, name).ok_or_else(|| TargetError::NotFound {
        kind: KIND,
        name: name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: kinds::DESTINATION_RULE.not_found(name),
    })
}

fn malformed(subject: &Subject, cause: &str) -> TargetError {
    TargetError::Malformed {
        kind: KIND,
        name: subject.canary.target.name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: cause.to_owned(),
    }
}

fn is_named(subset: &Value, name: &str) -> bool {
    subset.get("name").and_then(Value::as_str) == Some(name)
}

fn subset<'a>(subject: &Subject, rule: &'a DynamicObject, name: &str) -> Result<&'a Value, TargetError> {
    let subsets = rule.data.pointer("/spec/subsets").and_then(Value::as_array);
    let mut named = subsets.into_iter().flatten().filter(|subset| is_named(subset, name));
    named.next().ok_or_else(|| malformed(subject, &format!("spec.subsets has none named {name}; add it")))
}

fn labels_of(object: &Value) -> Labels {
    let labels = object.get("labels").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

/// Puts the canary's version behind a subset. Other labels of the subset, and its traffic policy, stay.
fn relabel(subject: &Subject, name: &str) -> Result<Vec<Change>, TargetError> {
    let rule = read(subject)?;
    subset(subject, &rule, name)?;
    let mut desired = (*rule).clone();
    let subsets = desired.data.pointer_mut("/spec/subsets").and_then(Value::as_array_mut);
    for subset in subsets.into_iter().flatten().filter(|subset| is_named(subset, name)) {
        let Some(fields) = subset.as_object_mut() else { continue };
        let labels = fields.entry("labels").or_insert_with(|| Value::Object(Map::new()));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(VERSION_LABEL.to_owned(), json!(version_of(subject)));
        }
    }
    let key = subject.key(&kinds::DESTINATION_RULE, &subject.canary.target.name);
    Ok(Change::update(key, &rule, &desired).into_iter().collect())
}

/// The pods behind a subset.
struct Pods {
    available: u32,
    /// What is in the way if there are none.
    reason: String,
}

impl Pods {
    /// A subset's pods are those of the rule's host that carry its labels.
    fn behind(subject: &Subject, rule: &DynamicObject, labels: &Labels) -> Pods {
        let host = rule.data.pointer("/spec/host").and_then(Value::as_str).unwrap_or_default();
        let service = host.split('.').next().unwrap_or_default();
        let none = |reason: String| Pods { available: 0, reason };
        let Some(object) = subject.get(&kinds::SERVICE, service) else {
            return none(kinds::SERVICE.not_found(service));
        };
        let selector = object.data.pointer("/spec/selector").map(|selector| json!({"labels": selector}));
        let mut wanted = selector.as_ref().map(labels_of).unwrap_or_default();
        if wanted.is_empty() {
            return none(format!("service {service} selects no pods"));
        }
        wanted.extend(labels.clone());
        let workloads =
            [(&kinds::DEPLOYMENT, "/status/availableReplicas"), (&kinds::DAEMON_SET, "/status/numberAvailable")];
        let available = workloads.into_iter().flat_map(|(kind, field)| {
            let found = subject.objects.list(kind, subject.namespace());
            found
                .into_iter()
                .filter(|workload| has_pods_with(workload, &wanted))
                .map(|workload| count(&workload, field))
                .collect::<Vec<_>>()
        });
        let available = available.fold(0u32, u32::saturating_add);
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        Pods { available, reason: format!("no available pods of service {service} with {labels}") }
    }

    fn readiness(&self, subset: &str) -> Readiness {
        match self.available {
            0 => Readiness::Waiting { reason: format!("subset {subset} not ready: {}", self.reason), deadline: None },
            _ => Readiness::Ready,
        }
    }
}

fn has_pods_with(workload: &DynamicObject, wanted: &Labels) -> bool {
    let Some(metadata) = workload.data.pointer("/spec/template/metadata") else { return false };
    let labels = labels_of(metadata);
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn count(workload: &DynamicObject, field: &str) -> u32 {
    let count = workload.data.pointer(field).and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
