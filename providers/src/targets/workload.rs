//! What all workloads with a pod template have in common: the primary is made from the target's template, with its own label
//! value and its own copies of tracked configs.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_crds::names::LAST_APPLIED_ANNOTATION;
use aviary_rollout::are_other_configs;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::pod_template::{object_at, pod_id, primary_template, with_pod_id};
use super::{DiscoveredPort, Selector, TargetError, revision};
use crate::Subject;
use crate::canonical::{same, says_all_of};
use crate::change::Change;
use crate::configs::{TrackedConfig, checksums, copy_changes, tracked_configs};
use crate::object::ObjectKind;
use crate::ownership::{included_by_prefix, merge_pairs, new_object, without_toolkit};

/// Annotations of the target that describe the target and would be wrong on the primary.
const NOT_COPIED: [&str; 3] =
    [LAST_APPLIED_ANNOTATION, "deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"];

/// Containers whose ports belong to a mesh.
const SIDECARS: [&str; 2] = ["istio-proxy", "envoy"];

/// A kind of workload with a pod template, and what is peculiar to it.
pub(super) trait Workload: Sync {
    /// Kind of target and primary.
    fn object_kind(&self) -> &'static ObjectKind;

    /// As in messages: `deployment`.
    fn name(&self) -> &'static str;

    /// Fields of the spec that the primary takes over besides template and size.
    fn carried_along(&self) -> &'static [&'static str];

    /// The target's template without what scales it to zero: what its revision is made from.
    fn template(&self, target: &DynamicObject) -> Value {
        target.data.pointer("/spec/template").cloned().unwrap_or(Value::Null)
    }

    /// Why the target cannot be released, whatever it runs.
    fn check(&self, _subject: &Subject, _target: &DynamicObject) -> Result<(), TargetError> {
        Ok(())
    }

    /// Changes the primary's template where it speaks of the target.
    fn adapt(&self, _subject: &Subject, _template: &mut Value) {}

    /// Writes how many pods the primary has into its spec, where its kind has such a figure. `primary` is the present one.
    fn size(
        &self,
        _subject: &Subject,
        _target: &DynamicObject,
        _primary: Option<&DynamicObject>,
        _spec: &mut Map<String, Value>,
    ) {
    }
}

/// What a primary is made from.
pub(super) struct Source {
    workload: &'static dyn Workload,
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
    pub(super) fn read(workload: &'static dyn Workload, subject: &Subject) -> Result<Source, TargetError> {
        let target = read_target(workload, subject)?;
        let template = workload.template(&target);
        // All lookups come before the first refusal, so that whatever mends it wakes the canary.
        let configs = tracked_configs(subject, &template);
        let selector = selector_of(workload, subject, &target)?;
        workload.check(subject, &target)?;
        Ok(Source { workload, target, template, selector, configs: configs? })
    }

    /// The target as it is.
    pub(super) fn target(&self) -> &DynamicObject {
        &self.target
    }

    pub(super) fn revision(&self) -> String {
        revision::revision_of(&self.template)
    }

    /// Checksums of the tracked configs; `None` where they are not tracked.
    pub(super) fn checksums(&self, subject: &Subject) -> Option<BTreeMap<String, String>> {
        subject.settings.config_tracking.then(|| checksums(&self.configs))
    }

    /// See [`super::Target::apply_primary`].
    pub(super) fn apply_primary(&self, subject: &Subject) -> Vec<Change> {
        match self.primary(subject) {
            None => self.create(subject),
            Some(primary) if self.matches(subject, &primary) => Vec::new(),
            Some(primary) => self.update(subject, &primary, IdPolicy::KeepWhereEqual),
        }
    }

    /// See [`super::Target::promote`].
    pub(super) fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        let superseded = |what: String| TargetError::Superseded {
            kind: self.workload.name(),
            name: subject.canary.target.name.clone(),
            namespace: subject.namespace().to_owned(),
            what,
        };
        let present = self.revision();
        if present != revision {
            return Err(superseded(format!("its revision is {present}, analysed was {revision}")));
        }
        if are_other_configs(self.checksums(subject).as_ref(), configs.as_ref()) {
            return Err(superseded("its configs are not the analysed ones".into()));
        }
        Ok(match self.primary(subject) {
            None => self.create(subject),
            Some(primary) => self.update(subject, &primary, IdPolicy::ReplaceForeign),
        })
    }

    fn primary(&self, subject: &Subject) -> Option<Arc<DynamicObject>> {
        subject.get(self.workload.object_kind(), &subject.canary.target.primary_name())
    }

    /// The primary's template without its `flagger-id`.
    fn primary_template(&self, subject: &Subject) -> Value {
        let mut template = primary_template(&self.template, &self.selector, &self.configs);
        self.workload.adapt(subject, &mut template);
        template
    }

    fn pod_id(&self, subject: &Subject) -> String {
        revision::pod_id(&subject.canary.key.uid, &self.revision(), &checksums(&self.configs))
    }

    /// Whether the primary runs what the target says, with the same configs.
    pub(super) fn matches(&self, subject: &Subject, primary: &DynamicObject) -> bool {
        self.runs_the_same(subject, primary) && copy_changes(subject, &self.configs).is_empty()
    }

    /// Whether the primary's pods need no restart, given that the copies of the configs are up to date.
    fn runs_the_same(&self, subject: &Subject, primary: &DynamicObject) -> bool {
        let Some(present) = primary.data.pointer("/spec/template") else { return false };
        let started_with_these_configs = match pod_id(present) {
            Some(id) if revision::is_own_pod_id(id) => revision::is_for_configs(id, &checksums(&self.configs)),
            _ => true,
        };
        let (runs, wanted) = (with_pod_id(present.clone(), None), self.primary_template(subject));
        // What somebody adds to it (an admission webhook, a restart, a sidecar) is nothing that another copy would take away for
        // good. An id of ours tells that nothing is left of another revision.
        let is_made_of_this = pod_id(present) == Some(self.pod_id(subject).as_str());
        started_with_these_configs && (same(&runs, &wanted) || is_made_of_this && says_all_of(&runs, &wanted))
    }

    fn create(&self, subject: &Subject) -> Vec<Change> {
        let kind = self.workload.object_kind();
        let name = subject.canary.target.primary_name();
        let mut spec = Map::new();
        self.carry_along(&mut spec);
        self.workload.size(subject, &self.target, None, &mut spec);
        let match_labels = json!({"matchLabels": {self.selector.key.clone(): self.selector.primary_value()}});
        spec.insert("selector".into(), match_labels);
        spec.insert("template".into(), with_pod_id(self.primary_template(subject), Some(&self.pod_id(subject))));

        let mut object = new_object(subject, kind, &name, json!({"spec": spec}));
        let mut annotations = without_toolkit(self.target.metadata.annotations.as_ref());
        annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        merge_pairs(&mut object.metadata.annotations, annotations);
        self.merge_labels(subject, &mut object);

        let mut changes = copy_changes(subject, &self.configs);
        changes.push(Change::create(subject.key(kind, &name), object));
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
            self.carry_along(spec);
            self.workload.size(subject, &self.target, Some(primary), spec);
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

        let key = subject.key(self.workload.object_kind(), &subject.canary.target.primary_name());
        changes.extend(Change::update(key, primary, &desired));
        changes
    }

    fn carry_along(&self, spec: &mut Map<String, Value>) {
        for field in self.workload.carried_along() {
            match self.target.data.pointer(&format!("/spec/{field}")) {
                Some(value) => spec.insert((*field).into(), value.clone()),
                // An API server writes no zeros: `minReadySeconds: 0` is an absent field.
                None => spec.remove(*field),
            };
        }
    }

    fn merge_labels(&self, subject: &Subject, object: &mut DynamicObject) {
        let prefixes = &subject.settings.include_label_prefixes;
        let mut labels = included_by_prefix(self.target.metadata.labels.as_ref(), prefixes);
        labels.insert(self.selector.key.clone(), self.selector.primary_value());
        merge_pairs(&mut object.metadata.labels, labels);
    }
}

/// The target, which must exist.
pub(super) fn read_target(
    workload: &'static dyn Workload,
    subject: &Subject,
) -> Result<Arc<DynamicObject>, TargetError> {
    let (kind, name) = (workload.object_kind(), &subject.canary.target.name);
    subject.get(kind, name).ok_or_else(|| TargetError::NotFound {
        kind: workload.name(),
        name: name.clone(),
        namespace: subject.namespace().to_owned(),
        cause: kind.not_found(name),
    })
}

/// See [`super::Target::selector`].
pub(super) fn selector(workload: &'static dyn Workload, subject: &Subject) -> Result<Selector, TargetError> {
    let target = read_target(workload, subject)?;
    selector_of(workload, subject, &target)
}

fn selector_of(
    workload: &'static dyn Workload,
    subject: &Subject,
    target: &DynamicObject,
) -> Result<Selector, TargetError> {
    let accepted = &subject.settings.selector_labels;
    let labels = target.data.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    accepted
        .iter()
        .find_map(|key| {
            let value = labels?.get(key)?.as_str()?;
            Some(Selector { key: key.clone(), value: value.to_owned() })
        })
        .ok_or_else(|| TargetError::NoSelectorLabel {
            kind: workload.name(),
            name: subject.canary.target.name.clone(),
            namespace: subject.namespace().to_owned(),
            accepted: accepted.clone(),
        })
}

/// See [`super::Target::discovered_ports`].
pub(super) fn discovered_ports(
    workload: &'static dyn Workload,
    subject: &Subject,
) -> Result<Vec<DiscoveredPort>, TargetError> {
    let service = &subject.canary.service;
    if !service.port_discovery {
        return Ok(Vec::new());
    }
    let target = read_target(workload, subject)?;
    let containers = target.data.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    Ok(containers.into_iter().flatten().flat_map(|container| ports_of(container, &service.target_port)).collect())
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
