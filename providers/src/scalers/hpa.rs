//! HorizontalPodAutoscalers.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{Scaler, ScalerError, source};
use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{included_by_prefix, merge_pairs, new_object, without_toolkit};

/// `autoscaling/v2` HorizontalPodAutoscalers.
///
/// The copy scales the primary within the same bounds (or those of `primaryScalerReplicas`), by the same metrics. It
/// gets the labels of the original, and of the annotations those that `--include-label-prefix` names. Labels and
/// annotations of others survive.
#[derive(Clone, Copy, Debug)]
pub struct HorizontalPodAutoscaler;

const KIND: &str = "HorizontalPodAutoscaler";

/// Fields of the spec that the primary's copy takes over.
const COPIED: [&str; 4] = ["minReplicas", "maxReplicas", "metrics", "behavior"];

impl Scaler for HorizontalPodAutoscaler {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::HORIZONTAL_POD_AUTOSCALER
    }

    fn provided_by(&self) -> &'static str {
        "Kubernetes 1.23 or newer"
    }

    fn reconcile_primary(&self, subject: &Subject, update: bool) -> Result<Vec<Change>, ScalerError> {
        let Some(autoscaler) = &subject.canary.autoscaler else { return Ok(Vec::new()) };
        let primary_name = autoscaler.primary_name();
        let kind = &kinds::HORIZONTAL_POD_AUTOSCALER;
        let present = subject.get(kind, &primary_name);
        let source = source(subject, kind, autoscaler, KIND)?;
        let key = subject.key(kind, &primary_name);
        match present {
            None => Ok(vec![Change::create(key, created(subject, &primary_name, &source))]),
            Some(_) if !update => Ok(Vec::new()),
            Some(present) => {
                Ok(Change::update(key, &present, &updated(subject, &present, &source)).into_iter().collect())
            }
        }
    }

    fn min_replicas(&self, subject: &Subject) -> Option<i64> {
        let autoscaler = subject.canary.autoscaler.as_ref()?;
        let source = subject.get(&kinds::HORIZONTAL_POD_AUTOSCALER, &autoscaler.name)?;
        source.data.pointer("/spec/minReplicas")?.as_i64()
    }
}

fn created(subject: &Subject, name: &str, source: &DynamicObject) -> DynamicObject {
    let mut spec = copied_spec(subject, source);
    spec.insert("scaleTargetRef".into(), scale_target(subject, source));
    let mut object = new_object(subject, &kinds::HORIZONTAL_POD_AUTOSCALER, name, json!({"spec": spec}));
    merge_metadata(subject, source, &mut object);
    object
}

fn updated(subject: &Subject, present: &Arc<DynamicObject>, source: &DynamicObject) -> DynamicObject {
    let mut desired = (**present).clone();
    let wanted = copied_spec(subject, source);
    if let Some(spec) = desired.data.get_mut("spec").and_then(Value::as_object_mut) {
        for field in COPIED {
            if means_the_same(field, spec.get(field), wanted.get(field)) {
                continue;
            }
            match wanted.get(field) {
                Some(value) => spec.insert(field.into(), value.clone()),
                None => spec.remove(field),
            };
        }
    }
    merge_metadata(subject, source, &mut desired);
    desired
}

fn means_the_same(field: &str, left: Option<&Value>, right: Option<&Value>) -> bool {
    let one = json!(1);
    if field == "minReplicas" {
        return same_or_absent(left.or(Some(&one)), right.or(Some(&one)));
    }
    same_or_absent(left, right)
}

fn copied_spec(subject: &Subject, source: &DynamicObject) -> Map<String, Value> {
    let mut spec = Map::new();
    for field in COPIED {
        if let Some(value) = source.data.pointer(&format!("/spec/{field}")) {
            spec.insert(field.into(), value.clone());
        }
    }
    let autoscaler = subject.canary.autoscaler.as_ref();
    if let Some(replicas) = autoscaler.and_then(|autoscaler| autoscaler.primary_min_replicas) {
        spec.insert("minReplicas".into(), replicas.into());
    }
    if let Some(replicas) = autoscaler.and_then(|autoscaler| autoscaler.primary_max_replicas) {
        spec.insert("maxReplicas".into(), replicas.into());
    }
    spec
}

fn scale_target(subject: &Subject, source: &DynamicObject) -> Value {
    let target = &subject.canary.target;
    let mut reference = source
        .data
        .pointer("/spec/scaleTargetRef")
        .cloned()
        .unwrap_or_else(|| json!({"apiVersion": target.api_version, "kind": target.kind.as_str()}));
    reference["name"] = target.primary_name().into();
    reference
}

fn merge_metadata(subject: &Subject, source: &DynamicObject, object: &mut DynamicObject) {
    merge_pairs(&mut object.metadata.labels, without_toolkit(source.metadata.labels.as_ref()));
    let prefixes = &subject.settings.include_label_prefixes;
    let mut annotations = included_by_prefix(source.metadata.annotations.as_ref(), prefixes);
    annotations.remove(aviary_crds::names::LAST_APPLIED_ANNOTATION);
    merge_pairs(&mut object.metadata.annotations, annotations);
}

#[cfg(test)]
mod tests;
