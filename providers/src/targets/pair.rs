//! Two Deployments that the user has made: a primary, and a canary whose pods it gets. Nothing is generated, and of the primary
//! nothing is touched but the spec of its pods: the labels that its service selects by are its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_rollout::{PrimaryView, Readiness, Returned, Scale, TargetView};
use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::deployment::{available, replicas};
use super::{DeploymentTarget, DiscoveredPort, Selector, Target, TargetError, readiness, revision, workload};
use crate::canonical::same;
use crate::change::Change;
use crate::object::kinds;
use crate::{ObjectKind, Subject};

/// Two `apps/v1` Deployments.
#[derive(Clone, Copy, Debug)]
pub struct PairTarget;

/// All pods are waited for.
const READY_THRESHOLD: u32 = 100;

/// Where a Deployment has what its pods run.
const POD_SPEC: &str = "/spec/template/spec";

impl Target for PairTarget {
    fn kind(&self) -> &'static str {
        "Deployment"
    }

    fn object_kind(&self) -> &'static ObjectKind {
        &kinds::DEPLOYMENT
    }

    fn observe(&self, subject: &Subject, now: Timestamp) -> Result<TargetView, TargetError> {
        let canary = read_canary(subject)?;
        Ok(TargetView {
            revision: revision_of(&canary),
            // The primary's pods mount what the canary's do: there are no copies.
            configs: None,
            scaled_to_zero: replicas(&canary) == 0,
            readiness: readiness_of(&canary, subject, now),
            available: available(&canary),
        })
    }

    fn observe_primary(&self, subject: &Subject, now: Timestamp) -> Result<Option<PrimaryView>, TargetError> {
        let primary = read(subject, &subject.canary.target.primary_name());
        let canary = read_canary(subject);
        // Nobody makes it but the user.
        let primary = primary?;
        let readiness = match replicas(&primary) {
            0 => Readiness::Waiting { reason: waiting_for(&primary, "it is scaled to zero"), deadline: None },
            _ => readiness_of(&primary, subject, now),
        };
        Ok(Some(PrimaryView {
            matches_target: canary.is_ok_and(|canary| runs_the_same(&canary, &primary)),
            readiness,
            available: available(&primary),
        }))
    }

    /// Nothing: whatever the primary runs, a release changes it and nothing else does.
    fn apply_primary(&self, subject: &Subject) -> Result<Vec<Change>, TargetError> {
        read(subject, &subject.canary.target.primary_name()).map(|_| Vec::new())
    }

    fn promote(
        &self,
        subject: &Subject,
        revision: &str,
        _configs: &Option<BTreeMap<String, String>>,
    ) -> Result<Vec<Change>, TargetError> {
        let name = subject.canary.target.primary_name();
        let (canary, primary) = (read_canary(subject)?, read(subject, &name)?);
        let present = revision_of(&canary);
        if present != revision {
            return Err(TargetError::Superseded {
                kind: "deployment",
                name: subject.canary.target.name.clone(),
                namespace: subject.namespace().to_owned(),
                what: format!("its revision is {present}, analysed was {revision}"),
            });
        }
        if runs_the_same(&canary, &primary) {
            return Ok(Vec::new());
        }
        let mut desired = (*primary).clone();
        if let (Some(pods), Some(wanted)) = (desired.data.pointer_mut(POD_SPEC), canary.data.pointer(POD_SPEC)) {
            *pods = wanted.clone();
        }
        Ok(Change::update(subject.key(&kinds::DEPLOYMENT, &name), &primary, &desired).into_iter().collect())
    }

    fn scale(&self, subject: &Subject, scale: Scale) -> Result<Vec<Change>, TargetError> {
        let canary = read_canary(subject)?;
        let present = replicas(&canary);
        let wanted = match scale {
            Scale::Zero => 0,
            Scale::Up | Scale::Restore if present > 0 => present,
            // It serves everybody in the end.
            Scale::Up | Scale::Restore => replicas(&*read(subject, &subject.canary.target.primary_name())?).max(1),
        };
        if wanted == present {
            return Ok(Vec::new());
        }
        let key = subject.key(&kinds::DEPLOYMENT, &subject.canary.target.name);
        Ok(Change::set_in_spec(key, &canary, "/spec/replicas", json!(wanted)).into_iter().collect())
    }

    /// Nothing was taken from it that would have to be given back.
    fn returned(&self, _: &Subject, _: Timestamp) -> Option<Returned> {
        None
    }

    fn selector(&self, subject: &Subject) -> Result<Selector, TargetError> {
        workload::selector(&DeploymentTarget, subject)
    }

    fn discovered_ports(&self, _: &Subject) -> Result<Vec<DiscoveredPort>, TargetError> {
        Ok(Vec::new())
    }
}

fn read(subject: &Subject, name: &str) -> Result<Arc<DynamicObject>, TargetError> {
    subject.get(&kinds::DEPLOYMENT, name).ok_or_else(|| TargetError::NotFound {
        kind: "deployment",
        name: name.to_owned(),
        namespace: subject.namespace().to_owned(),
        cause: kinds::DEPLOYMENT.not_found(name),
    })
}

fn read_canary(subject: &Subject) -> Result<Arc<DynamicObject>, TargetError> {
    read(subject, &subject.canary.target.name)
}

fn revision_of(canary: &DynamicObject) -> String {
    revision::revision_of(canary.data.pointer("/spec/template").unwrap_or(&Value::Null))
}

fn runs_the_same(canary: &DynamicObject, primary: &DynamicObject) -> bool {
    match (canary.data.pointer(POD_SPEC), primary.data.pointer(POD_SPEC)) {
        (Some(canary), Some(primary)) => same(canary, primary),
        _ => false,
    }
}

/// With Steerer's text.
fn readiness_of(object: &DynamicObject, subject: &Subject, now: Timestamp) -> Readiness {
    match readiness::deployment(object, subject.canary.progress_deadline, READY_THRESHOLD, now) {
        Readiness::Ready => Readiness::Ready,
        Readiness::Waiting { reason, deadline } => {
            Readiness::Waiting { reason: waiting_for(object, &reason), deadline }
        }
        Readiness::Failed { reason } => Readiness::Failed { reason: waiting_for(object, &reason) },
    }
}

fn waiting_for(object: &DynamicObject, reason: &str) -> String {
    let metadata = &object.metadata;
    let (name, namespace) = (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref());
    let reason = reason.strip_prefix("waiting for rollout to finish: ").unwrap_or(reason);
    let reason = reason.replace(&format!(" (readyThreshold {READY_THRESHOLD}%)"), "");
    format!("Waiting for {name}.{} rollout to finish: {reason}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::testing::{World, rollout};

    fn deployment(name: &str, image: &str, replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"uid": name, "generation": 1, "labels": {"app": name}, "annotations": {"made-by": "somebody"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}, "annotations": {"of": name}},
                    "spec": {"containers": [{"name": "podinfod", "image": image}]},
                },
            },
            "status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas},
        })
    }

    fn world() -> World {
        let mut world = World::of(rollout());
        world.put(&kinds::DEPLOYMENT, "podinfo", deployment("podinfo", "podinfo:1", 2));
        world.put(&kinds::DEPLOYMENT, "podinfo-canary", deployment("podinfo-canary", "podinfo:2", 1));
        world
    }

    #[test]
    fn a_promotion_copies_the_spec_of_the_pods_and_neither_labels_nor_annotations() {
        let mut world = world();
        let before = world.json(&kinds::DEPLOYMENT, "podinfo");
        let revision = PairTarget.observe(&world.subject(), Timestamp::UNIX_EPOCH).unwrap().revision;
        world.apply(PairTarget.promote(&world.subject(), &revision, &None).unwrap());
        let mut expected = before;
        expected["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:2");
        let mut after = world.json(&kinds::DEPLOYMENT, "podinfo");
        expected["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"].take();
        after["metadata"]["resourceVersion"] = expected["metadata"]["resourceVersion"].clone();
        assert_eq!(after, expected);
        assert!(PairTarget.promote(&world.subject(), &revision, &None).unwrap().is_empty());
        let primary = PairTarget.observe_primary(&world.subject(), Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert!(primary.matches_target);
    }

    #[test]
    fn a_revision_that_was_not_analysed_is_not_promoted() {
        let world = world();
        let refused = PairTarget.promote(&world.subject(), "aviary-1:0", &None);
        assert!(matches!(refused, Err(TargetError::Superseded { .. })), "{refused:?}");
    }

    /// Steerer took the resource version, which changes with every write of the status.
    #[test]
    fn a_change_of_the_status_is_no_new_revision() {
        let mut world = world();
        let revision = |world: &World| PairTarget.observe(&world.subject(), Timestamp::UNIX_EPOCH).unwrap().revision;
        let before = revision(&world);
        world.edit(&kinds::DEPLOYMENT, "podinfo-canary", json!({"status": {"availableReplicas": 0}}));
        world.edit(&kinds::DEPLOYMENT, "podinfo-canary", json!({"spec": {"replicas": 0}}));
        assert_eq!(revision(&world), before);
        let annotation = json!({"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}});
        world.edit(&kinds::DEPLOYMENT, "podinfo-canary", annotation);
        assert_ne!(revision(&world), before);
    }

    #[test]
    fn waiting_is_told_in_steerers_words() {
        let mut world = world();
        world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"status": {"availableReplicas": 1}}));
        let primary = PairTarget.observe_primary(&world.subject(), Timestamp::UNIX_EPOCH).unwrap().unwrap();
        let reason = "Waiting for podinfo.test rollout to finish: 1 of 2 updated replicas are available".to_owned();
        assert_eq!(primary.readiness, Readiness::Waiting { reason, deadline: None });
    }

    #[test]
    fn a_missing_primary_is_not_made() {
        let mut world = world();
        world.remove(&kinds::DEPLOYMENT, "podinfo");
        let subject = world.subject();
        assert!(matches!(
            PairTarget.observe_primary(&subject, Timestamp::UNIX_EPOCH),
            Err(TargetError::NotFound { .. })
        ));
        assert!(PairTarget.apply_primary(&subject).is_err());
    }

    #[test]
    fn the_canary_goes_to_zero_and_comes_back_as_large_as_the_primary() {
        let mut world = world();
        world.apply(PairTarget.scale(&world.subject(), Scale::Zero).unwrap());
        assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo-canary")["spec"]["replicas"], 0);
        world.apply(PairTarget.scale(&world.subject(), Scale::Up).unwrap());
        assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo-canary")["spec"]["replicas"], 2);
    }
}
