//! ScaledObjects of KEDA.

mod queries;

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use aviary_crds::names::{KEDA_NAME_LABEL, KEDA_PAUSED_REPLICAS_ANNOTATION, LAST_APPLIED_ANNOTATION, PRIMARY_SUFFIX};

use super::{Scaler, ScalerError, source};
use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{Pairs, merge_pairs, new_object, without_toolkit};

/// `keda.sh/v1alpha1` ScaledObjects.
///
/// The copy scales the primary by the same triggers, whose queries ask for the primary's pods (see `queries`), between the
/// same bounds or those of `primaryScalerReplicas`. It gets labels and annotations of the original, because some of them
/// are settings of KEDA; those of others survive.
///
/// KEDA brings a target back that was scaled to zero, so the target's object is paused at no replicas whenever the canary
/// is to have no pods.
#[derive(Clone, Copy, Debug)]
pub struct ScaledObject;

const KIND: &str = "ScaledObject";

/// As Flagger calls it in messages.
const SAID: &str = "Keda ScaledObject";

/// Value of the annotation that pauses a target without pods. Any other number of replicas is somebody else's wish.
const NO_REPLICAS: &str = "0";

/// What is said of the original alone: that it is paused (a copy would keep the primary at zero, Q25), which manifest it
/// was applied from, and the name by which KEDA finds its metrics.
const NOT_COPIED: [&str; 3] = [KEDA_PAUSED_REPLICAS_ANNOTATION, LAST_APPLIED_ANNOTATION, KEDA_NAME_LABEL];

impl Scaler for ScaledObject {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::SCALED_OBJECT
    }

    fn provided_by(&self) -> &'static str {
        "KEDA"
    }

    fn reconcile_primary(&self, subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError> {
        let Some(autoscaler) = &subject.canary.autoscaler else { return Ok(Vec::new()) };
        let primary_name = autoscaler.primary_name();
        let kind = self.object_kind();
        let present = subject.get(kind, &primary_name);
        let source = source(subject, kind, autoscaler, SAID)?;
        let key = subject.key(kind, &primary_name);
        match present {
            None => {
                let spec = Value::Object(spec_of_primary(subject, &source));
                let mut object = new_object(subject, kind, &primary_name, json!({"spec": spec}));
                merge_metadata(&source, &mut object);
                Ok(vec![Change::create(key, object)])
            }
            Some(_) if !update => Ok(Vec::new()),
            Some(present) => {
                Ok(Change::update(key, &present, &updated(subject, &present, &source)).into_iter().collect())
            }
        }
    }

    fn min_replicas(&self, subject: &Subject) -> Option<i64> {
        let autoscaler = subject.canary.autoscaler.as_ref()?;
        let source = subject.get(self.object_kind(), &autoscaler.name)?;
        source.data.pointer("/spec/minReplicaCount")?.as_i64()
    }

    fn is_paused(&self, subject: &Subject) -> Option<bool> {
        let autoscaler = subject.canary.autoscaler.as_ref()?;
        let source = subject.get(self.object_kind(), &autoscaler.name)?;
        Some(is_paused_without_replicas(&source))
    }

    fn pause(&self, subject: &Subject, paused: bool) -> Result<Vec<Change>, ScalerError> {
        let Some(autoscaler) = &subject.canary.autoscaler else { return Ok(Vec::new()) };
        let source = source(subject, self.object_kind(), autoscaler, SAID)?;
        if is_paused_without_replicas(&source) == paused {
            return Ok(Vec::new());
        }
        let mut desired = (*source).clone();
        let annotations = desired.metadata.annotations.get_or_insert_default();
        if paused {
            annotations.insert(KEDA_PAUSED_REPLICAS_ANNOTATION.into(), NO_REPLICAS.into());
        } else {
            annotations.remove(KEDA_PAUSED_REPLICAS_ANNOTATION);
        }
        let key = subject.key(self.object_kind(), &autoscaler.name);
        Ok(Change::update(key, &source, &desired).into_iter().collect())
    }
}

fn is_paused_without_replicas(object: &DynamicObject) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(KEDA_PAUSED_REPLICAS_ANNOTATION))
        .is_some_and(|replicas| replicas == NO_REPLICAS)
}

fn updated(subject: &Subject, present: &DynamicObject, source: &DynamicObject) -> DynamicObject {
    let mut desired = present.clone();
    let wanted = spec_of_primary(subject, source);
    if let Some(spec) = desired.data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| wanted.contains_key(field));
        for (field, value) in wanted {
            if !same_or_absent(spec.get(&field), Some(&value)) {
                spec.insert(field, value);
            }
        }
    }
    // A primary that Flagger pinned to zero (Q25) could never take its users back.
    if is_paused_without_replicas(present)
        && let Some(annotations) = &mut desired.metadata.annotations
    {
        annotations.remove(KEDA_PAUSED_REPLICAS_ANNOTATION);
    }
    merge_metadata(source, &mut desired);
    desired
}

fn spec_of_primary(subject: &Subject, source: &DynamicObject) -> Map<String, Value> {
    let mut spec = source.data.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let target = &subject.canary.target;
    match spec.get_mut("scaleTargetRef").and_then(Value::as_object_mut) {
        Some(reference) => drop(reference.insert("name".into(), target.primary_name().into())),
        None => drop(spec.insert("scaleTargetRef".into(), json!({"name": target.primary_name()}))),
    }
    if let Some(advanced) = spec.get_mut("advanced")
        && let Some(Value::String(name)) = advanced.pointer_mut("/horizontalPodAutoscalerConfig/name")
        && !name.is_empty()
    {
        name.push_str(PRIMARY_SUFFIX);
    }
    let autoscaler = subject.canary.autoscaler.as_ref();
    if let Some(replicas) = autoscaler.and_then(|autoscaler| autoscaler.primary_min_replicas) {
        spec.insert("minReplicaCount".into(), replicas.into());
    }
    if let Some(replicas) = autoscaler.and_then(|autoscaler| autoscaler.primary_max_replicas) {
        spec.insert("maxReplicaCount".into(), replicas.into());
    }
    let triggers = spec.get_mut("triggers").and_then(Value::as_array_mut);
    for trigger in triggers.into_iter().flatten() {
        ask_for_primary(subject, trigger);
    }
    spec
}

fn ask_for_primary(subject: &Subject, trigger: &mut Value) {
    let name = trigger.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let given = subject.canary.autoscaler.as_ref().zip(name);
    let given = given.and_then(|(autoscaler, name)| autoscaler.primary_queries.get(name)).cloned();
    let Some(metadata) = trigger.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(query) = given {
        metadata.insert("query".into(), query.into());
        return;
    }
    if let Some(Value::String(query)) = metadata.get_mut("query") {
        *query = queries::of_primary(query, &subject.canary.target.name);
    }
}

fn merge_metadata(source: &DynamicObject, object: &mut DynamicObject) {
    let copied = |pairs: Option<&Pairs>| {
        let mut pairs = without_toolkit(pairs);
        pairs.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        pairs
    };
    merge_pairs(&mut object.metadata.labels, copied(source.metadata.labels.as_ref()));
    merge_pairs(&mut object.metadata.annotations, copied(source.metadata.annotations.as_ref()));
}

#[cfg(test)]
mod tests;
