//! Deployments.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_crds::names::LAST_APPLIED_ANNOTATION;
use aviary_rollout::{PrimaryView, Readiness, Returned, Scale, TargetView};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::pod_template::{object_at, pod_id, primary_template, rename_spread_selectors, with_pod_id};
use super::{DiscoveredPort, Selector, Target, TargetError, readiness, revision};
use crate::Subject;
use crate::canonical::same;
use crate::change::Change;
use crate::configs::{TrackedConfig, checksums, copy_changes, tracked_configs};
use crate::object::kinds;
use crate::ownership::{included_by_prefix, merge_pairs, new_object, without_toolkit};
use crate::scalers;

/// `apps/v1` Deployments.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentTarget;

/// Fields of the spec that the primary takes over besides template and replicas.
const CARRIED_ALONG: [&str; 4] = ["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"];

/// Annotations of the target that describe the target and would be wrong on the primary.
const NOT_COPIED: [&str; 2] = [LAST_APPLIED_ANNOTATION, "deployment.kubernetes.io/revision"];

/// Containers whose ports belong to a mesh.
const SIDECARS: [&str; 2] = ["istio-proxy", "envoy"];

impl Target for DeploymentTarget {
    fn kind(&self) -> &'static str {
        "Deployment"
    }

    fn observe(&self, subject: &Subject, now: Timestamp) -> Result<TargetView, TargetError> {
        let source = Source::read(subject)?;
        let analysis = &subject.canary.analysis;
        let name = &subject.canary.target.name;
        let readiness = readiness::deployment(
            &source.target,
            subject.canary.progress_deadline,
            analysis.canary_ready_threshold,
            now,
        );
        Ok(TargetView {
            revision: source.revision(),
            configs: subject.settings.config_tracking.then(|| checksums(&source.configs)),
            scaled_to_zero: replicas(&source.target) == 0,
            readiness: readiness::explained(readiness, &format!("canary deployment {name}.{}", subject.namespace())),
            available: available(&source.target),
        })
    }

    fn observe_primary(&self, subject: &Subject, now: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let name = subject.canary.target.primary_name();
        let primary = subject.get(&kinds::DEPLOYMENT, &name);
        // Read before the early return: the canary must be woken for whatever its primary is made from.
        let source = Source::read(subject);
        let Some(primary) = primary else { return Ok(None) };
        let threshold = subject.canary.analysis.primary_ready_threshold;
        let readiness: Readiness = readiness::deployment(&primary, subject.canary.progress_deadline, threshold, now);
        Ok(Some(PrimaryView {
            matches_target: source.is_ok_and(|source| source.matches(subject, &primary)),
            readiness: readiness::explained(readiness, &format!("{name}.{}", subject.namespace())),
            available: available(&primary),
        }))
    }

    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError> {
        let source = Source::read(subject)?;
        let Some(primary) = source.primary(subject) else { return Ok(source.create(subject)) };
        if source.matches(subject, &primary) {
            return Ok(Vec::new());
        }
        Ok(source.update(subject, &primary, IdPolicy::KeepWhereEqual))
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        let source = Source::read(subject)?;
        let superseded = |what: String| TargetError::Superseded {
            kind: "deployment",
            name: subject.canary.target.name.clone(),
            namespace: subject.namespace().to_owned(),
            what,
        };
        let present = source.revision();
        if present != revision {
            return Err(superseded(format!("its revision is {present}, analysed was {revision}")));
        }
        let checksums = subject.settings.config_tracking.then(|| checksums(&source.configs));
        if checksums != *configs {
            return Err(superseded("its configs are not the analysed ones".into()));
        }
        let Some(primary) = source.primary(subject) else { return Ok(source.create(subject)) };
        Ok(source.update(subject, &primary, IdPolicy::ReplaceForeign))
    }

    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError> {
        let target = read_target(subject)?;
        let present = replicas(&target);
        let wanted = match scale {
            Scale::Zero => 0,
            Scale::Up if present > 0 => present,
            Scale::Up => canary_replicas(subject),
            Scale::Restore => present.max(everybodys_replicas(subject, present)),
        };
        if wanted == present {
            return Ok(Vec::new());
        }
        let key = subject.key(&kinds::DEPLOYMENT, &subject.canary.target.name);
        Ok(Change::set_in_spec(key, &target, "/spec/replicas", json!(wanted)).into_iter().collect())
    }

    fn returned(&self, subject: &Subject, now: Timestamp) -> Option<Returned> {
        let target = subject.get(&kinds::DEPLOYMENT, &subject.canary.target.name)?;
        let present = replicas(&target);
        let threshold = subject.canary.analysis.canary_ready_threshold;
        Some(Returned {
            is_short_of_pods: present < everybodys_replicas(subject, present),
            readiness: readiness::deployment(&target, subject.canary.progress_deadline, threshold, now),
            available: available(&target),
        })
    }

    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        let target = read_target(subject)?;
        selector(subject, &target)
    }

    fn discovered_ports(&self, subject: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        let service = &subject.canary.service;
        if !service.port_discovery {
            return Ok(Vec::new());
        }
        let target = read_target(subject)?;
        let containers = target.data.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        Ok(containers.into_iter().flatten().flat_map(|container| ports_of(container, &service.target_port)).collect())
    }
}

/// What a primary is made from.
struct Source {
    target: Arc<DynamicObject>,
    template: Value,
    selector: Selector,
    configs: Vec<TrackedConfig>,
}

/// What becomes of the `flagger-id` of a primary whose pods already run the right thing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdPolicy {
    /// It stays: nothing restarts for nothing (Q28).
    KeepWhereEqual,
    /// An id that Flagger wrote does not tell which configs the pods were started with. If there are any, the pods are
    /// restarted once, with an id that does.
    ReplaceForeign,
}

impl Source {
    fn read(subject: &Subject) -> Result<Source, TargetError> {
        let target = read_target(subject)?;
        let template = target.data.pointer("/spec/template").cloned().unwrap_or(Value::Null);
        // All lookups come before the first refusal, so that whatever mends it wakes the canary.
        let configs = tracked_configs(subject, &template);
        let selector = selector(subject, &target)?;
        Ok(Source { target, template, selector, configs: configs? })
    }

    fn revision(&self) -> String {
        revision::revision_of(&self.template)
    }

    fn primary(&self, subject: &Subject) -> Option<Arc<DynamicObject>> {
        subject.get(&kinds::DEPLOYMENT, &subject.canary.target.primary_name())
    }

    /// The primary's template without its `flagger-id`.
    fn primary_template(&self, subject: &Subject) -> Value {
        let mut template = primary_template(&self.template, &self.selector, &self.configs);
        rename_spread_selectors(&mut template, &subject.canary.target.name, &subject.settings.selector_labels);
        template
    }

    fn pod_id(&self, subject: &Subject) -> String {
        revision::pod_id(&subject.canary.key.uid, &self.revision(), &checksums(&self.configs))
    }

    /// Whether the primary runs what the target says, with the same configs.
    fn matches(&self, subject: &Subject, primary: &DynamicObject) -> bool {
        self.runs_the_same(subject, primary) && copy_changes(subject, &self.configs).is_empty()
    }

    /// Whether the primary's pods need no restart, given that the copies of the configs are up to date.
    fn runs_the_same(&self, subject: &Subject, primary: &DynamicObject) -> bool {
        let Some(present) = primary.data.pointer("/spec/template") else { return false };
        let started_with_these_configs = match pod_id(present) {
            Some(id) if revision::is_own_pod_id(id) => revision::is_for_configs(id, &checksums(&self.configs)),
            _ => true,
        };
        started_with_these_configs && same(&with_pod_id(present.clone(), None), &self.primary_template(subject))
    }

    fn create(&self, subject: &Subject) -> Vec<Change> {
        let name = subject.canary.target.primary_name();
        let mut spec = Map::new();
        for field in CARRIED_ALONG {
            if let Some(value) = self.target.data.pointer(&format!("/spec/{field}")) {
                spec.insert(field.into(), value.clone());
            }
        }
        spec.insert("replicas".into(), replicas(&self.target).max(1).into());
        let match_labels = json!({"matchLabels": {self.selector.key.clone(): self.selector.primary_value()}});
        spec.insert("selector".into(), match_labels);
        spec.insert("template".into(), with_pod_id(self.primary_template(subject), Some(&self.pod_id(subject))));

        let mut object = new_object(subject, &kinds::DEPLOYMENT, &name, json!({"spec": spec}));
        let mut annotations = without_toolkit(self.target.metadata.annotations.as_ref());
        annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        merge_pairs(&mut object.metadata.annotations, annotations);
        self.merge_labels(subject, &mut object);

        let mut changes = copy_changes(subject, &self.configs);
        changes.push(Change::create(subject.key(&kinds::DEPLOYMENT, &name), object));
        changes
    }

    /// The workload comes last: its pods start when all copies are in place.
    fn update(&self, subject: &Subject, primary: &DynamicObject, policy: IdPolicy) -> Vec<Change> {
        let mut changes = copy_changes(subject, &self.configs);
        let present_template = primary.data.pointer("/spec/template").unwrap_or(&Value::Null);
        let present_id = pod_id(present_template);
        let is_foreign = !present_id.is_some_and(revision::is_own_pod_id);
        let keeps_id = changes.is_empty()
            && self.runs_the_same(subject, primary)
            && !(policy == IdPolicy::ReplaceForeign && is_foreign && !self.configs.is_empty());

        let mut desired = primary.clone();
        if let Some(spec) = object_at(&mut desired.data, &["spec"]) {
            for field in CARRIED_ALONG {
                match self.target.data.pointer(&format!("/spec/{field}")) {
                    Some(value) => spec.insert(field.into(), value.clone()),
                    // An API server writes no zeros: `minReadySeconds: 0` is an absent field.
                    None => spec.remove(field),
                };
            }
            spec.insert("replicas".into(), self.primary_replicas(subject, primary).into());
            if !keeps_id {
                let id = self.pod_id(subject);
                spec.insert("template".into(), with_pod_id(self.primary_template(subject), Some(&id)));
            }
        }
        let prefixes = &subject.settings.include_label_prefixes;
        let mut annotations = included_by_prefix(self.target.metadata.annotations.as_ref(), prefixes);
        annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        merge_pairs(&mut desired.metadata.annotations, annotations);
        self.merge_labels(subject, &mut desired);

        let key = subject.key(&kinds::DEPLOYMENT, &subject.canary.target.primary_name());
        changes.extend(Change::update(key, primary, &desired));
        changes
    }

    /// An autoscaler keeps its say. Otherwise the target's replicas are taken over. Never zero: the primary serves.
    fn primary_replicas(&self, subject: &Subject, primary: &DynamicObject) -> i64 {
        let wanted = replicas(&self.target);
        if subject.canary.autoscaler.is_none() && wanted > 0 { wanted } else { replicas(primary).max(1) }
    }

    fn merge_labels(&self, subject: &Subject, object: &mut DynamicObject) {
        let prefixes = &subject.settings.include_label_prefixes;
        let mut labels = included_by_prefix(self.target.metadata.labels.as_ref(), prefixes);
        labels.insert(self.selector.key.clone(), self.selector.primary_value());
        merge_pairs(&mut object.metadata.labels, labels);
    }
}

fn read_target(subject: &Subject) -> Result<Arc<DynamicObject>, TargetError> {
    let name = &subject.canary.target.name;
    subject.get(&kinds::DEPLOYMENT, name).ok_or_else(|| TargetError::NotFound {
        kind: "deployment",
        name: name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: kinds::DEPLOYMENT.not_found(name),
    })
}

fn selector(subject: &Subject, target: &DynamicObject) -> Result<Selector, TargetError> {
    let accepted = &subject.settings.selector_labels;
    let labels = target.data.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    accepted
        .iter()
        .find_map(|key| {
            let value = labels?.get(key)?.as_str()?;
            Some(Selector { key: key.clone(), value: value.to_owned() })
        })
        .ok_or_else(|| TargetError::NoSelectorLabel {
            kind: "deployment",
            name: subject.canary.target.name.clone(),
            namespace: subject.namespace().to_owned(),
            accepted: accepted.clone(),
        })
}

/// `spec.replicas`; an API server fills in 1.
fn replicas(object: &DynamicObject) -> i64 {
    object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

/// Available pods, but no more than are wanted: the others are on their way out.
fn available(object: &DynamicObject) -> u32 {
    let available = object.data.pointer("/status/availableReplicas").and_then(Value::as_i64).unwrap_or(0);
    u32::try_from(available.min(replicas(object))).unwrap_or(0)
}

/// With how many replicas a canary starts that is at zero.
fn canary_replicas(subject: &Subject) -> i64 {
    let wanted = match scalers::for_subject(subject) {
        None => {
            subject.get(&kinds::DEPLOYMENT, &subject.canary.target.primary_name()).map(|primary| replicas(&primary))
        }
        Some(scaler) => scaler.min_replicas(subject),
    };
    wanted.unwrap_or(1).max(1)
}

/// How many pods everybody needs: as many as the primary has, which serves them now. A target that is not at zero is left to
/// its autoscaler, if it has one.
fn everybodys_replicas(subject: &Subject, present: i64) -> i64 {
    if subject.canary.autoscaler.is_some() && present > 0 {
        return present;
    }
    let primary = subject.get(&kinds::DEPLOYMENT, &subject.canary.target.primary_name());
    primary.map_or(1, |primary| replicas(&primary)).max(1)
}

fn ports_of(container: &Value, served: &IntOrString) -> Vec<DiscoveredPort> {
    let container_name = container.get("name").and_then(Value::as_str).unwrap_or_default();
    if SIDECARS.contains(&container_name) {
        return Vec::new();
    }
    let ports = container.get("ports").and_then(Value::as_array);
    let mut discovered = Vec::new();
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let Some(number) = port.get("containerPort").and_then(Value::as_i64) else { continue };
        let name = port.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let is_served = match served {
            IntOrString::Int(served) => number == i64::from(*served),
            IntOrString::String(served) => name == Some(served),
        };
        if !is_served {
            let name = name.map_or_else(|| format!("tcp-{container_name}-{index}"), str::to_owned);
            discovered.push(DiscoveredPort { name, port: number });
        }
    }
    discovered
}

#[cfg(test)]
mod tests;
