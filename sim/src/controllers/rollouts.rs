//! Deployments whose ReplicaSets are stored objects.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::deployment::{
    DESIRED_REPLICAS_ANNOTATION, DeploymentSpec, DeploymentStatus, MAX_REPLICAS_ANNOTATION, Operation,
    REVISION_ANNOTATION, REVISION_HISTORY_ANNOTATION, plan,
};
use super::engine::Engine;
use super::json::{TEMPLATE_HASH_LABEL, text};
use super::queue::ObjectName;
use super::workloads::WorkloadKind;
use crate::store::kinds;

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION_ANNOTATION,
    REVISION_HISTORY_ANNOTATION,
    DESIRED_REPLICAS_ANNOTATION,
    MAX_REPLICAS_ANNOTATION,
];

/// A name that is taken by somebody else's ReplicaSet; the status was written with another collision count.
struct NameCollision;

impl Engine {
    pub(super) fn reconcile_deployment(&mut self, name: &ObjectName) -> Option<Timestamp> {
        let Some(object) = self.store.get(&kinds::DEPLOYMENT, &name.namespace, &name.name) else {
            self.retain_versions(WorkloadKind::Deployment, name, |_| false);
            return None;
        };
        let uid = text(&object, "/metadata/uid").unwrap_or_default();
        let spec = DeploymentSpec::parse(&object);
        let stored = DeploymentStatus::parse(&object);
        let sets: Vec<_> = self.cache.sets_of(uid).into_iter().map(|set| set.view.clone()).collect();
        self.retain_versions(WorkloadKind::Deployment, name, |version| sets.iter().any(|set| set.name == version));
        let current = sets
            .iter()
            .filter(|set| set.template_hash == spec.template_hash)
            .min_by_key(|set| (set.created, &set.name))
            .map(|set| name.sibling(&set.name));
        let plan = plan(&spec, &stored, sets, self.clock.now());
        for operation in &plan.operations {
            if let Err(NameCollision) = self.apply_operation(name, &object, &spec, operation) {
                return None;
            }
        }
        if let Some(set) = current.filter(|_| !spec.deleting) {
            self.hand_down_annotations(&object, &set);
        }
        self.write_deployment_status(name, &object, &plan.status, plan.revision);
        plan.wake
    }

    /// Annotations that were set after the rollout began (`kubernetes.io/change-cause`) reach the set of the present template.
    fn hand_down_annotations(&self, deployment: &Value, set: &ObjectName) {
        if inherited_annotations(deployment).next().is_none() {
            return;
        }
        let Some(object) = self.store.get(&kinds::REPLICA_SET, &set.namespace, &set.name) else { return };
        let present = object.pointer("/metadata/annotations");
        let is_new = |(key, value): (&String, &Value)| present.and_then(|present| present.get(key)) != Some(value);
        if inherited_annotations(deployment).any(is_new) {
            self.update(&kinds::REPLICA_SET, set, |set| inherit_annotations(set, deployment));
        }
    }

    fn apply_operation(
        &mut self,
        deployment: &ObjectName,
        object: &Value,
        spec: &DeploymentSpec,
        operation: &Operation,
    ) -> Result<(), NameCollision> {
        match operation {
            Operation::Create { name, revision, replicas } => {
                self.create_set(deployment, object, spec, name, *revision, *replicas)?;
                if *replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.record_event(object, "deployment-controller", "ScalingReplicaSet", &message);
                }
            }
            Operation::Scale { name, from, to } => {
                self.update(&kinds::REPLICA_SET, &deployment.sibling(name), |set| {
                    set["spec"]["replicas"] = (*to).into();
                    let annotations = &mut set["metadata"]["annotations"];
                    annotations[DESIRED_REPLICAS_ANNOTATION] = spec.replicas.to_string().into();
                    annotations[MAX_REPLICAS_ANNOTATION] = spec.max_replicas().to_string().into();
                });
                if from != to {
                    let direction = if to > from { "up" } else { "down" };
                    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
                    self.record_event(object, "deployment-controller", "ScalingReplicaSet", &message);
                }
            }
            Operation::Refresh { name, revision } => {
                self.update(&kinds::REPLICA_SET, &deployment.sibling(name), |set| {
                    if spec.min_ready > 0 || set["spec"].get("minReadySeconds").is_some() {
                        set["spec"]["minReadySeconds"] = spec.min_ready.into();
                    }
                    inherit_annotations(set, object);
                    renumber(set, *revision);
                });
            }
            Operation::Delete { name } => {
                self.delete(&kinds::REPLICA_SET, &deployment.sibling(name));
            }
        }
        Ok(())
    }

    fn create_set(
        &mut self,
        deployment: &ObjectName,
        object: &Value,
        spec: &DeploymentSpec,
        name: &str,
        revision: i64,
        replicas: i32,
    ) -> Result<(), NameCollision> {
        let hash = name.strip_prefix(&*deployment.name).map_or(name, |rest| rest.trim_start_matches('-'));
        let set = new_set(object, spec, name, hash, revision, replicas);
        let Err(error) = self.store.create(&kinds::REPLICA_SET, set) else {
            return Ok(());
        };
        if error.reason() != "AlreadyExists" {
            tracing::warn!(?deployment, %error, "failed to create a replica set");
            return Ok(());
        }
        self.update(&kinds::DEPLOYMENT, deployment, |object| {
            let collisions = object.pointer("/status/collisionCount").and_then(Value::as_i64).unwrap_or(0);
            object["status"]["collisionCount"] = (collisions + 1).into();
        });
        Err(NameCollision)
    }

    /// Writes status and revision annotation of a Deployment, if they differ from what `object` carries.
    pub(super) fn write_deployment_status(
        &self,
        name: &ObjectName,
        object: &Value,
        status: &DeploymentStatus,
        revision: Option<i64>,
    ) {
        let revision = revision.map(|revision| revision.to_string());
        let known_revision = object
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(REVISION_ANNOTATION))
            .and_then(Value::as_str);
        let same_revision = revision.is_none() || revision.as_deref() == known_revision;
        if same_revision && DeploymentStatus::parse(object) == *status {
            return;
        }
        self.update(&kinds::DEPLOYMENT, name, |object| {
            object["status"] = status.to_value();
            if let Some(revision) = revision {
                object["metadata"]["annotations"][REVISION_ANNOTATION] = revision.into();
            }
        });
    }
}

fn new_set(deployment: &Value, spec: &DeploymentSpec, name: &str, hash: &str, revision: i64, replicas: i32) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][TEMPLATE_HASH_LABEL] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][TEMPLATE_HASH_LABEL] = hash.into();
    let metadata = &deployment["metadata"];
    let mut set = json!({
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {
                REVISION_ANNOTATION: revision.to_string(),
                DESIRED_REPLICAS_ANNOTATION: spec.replicas.to_string(),
                MAX_REPLICAS_ANNOTATION: spec.max_replicas().to_string(),
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
        "status": {"replicas": 0},
    });
    if spec.min_ready > 0 {
        set["spec"]["minReadySeconds"] = spec.min_ready.into();
    }
    inherit_annotations(&mut set, deployment);
    set
}

fn inherited_annotations(deployment: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let annotations = deployment.pointer("/metadata/annotations").and_then(Value::as_object);
    annotations.into_iter().flatten().filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str()))
}

fn inherit_annotations(set: &mut Value, deployment: &Value) {
    for (key, value) in inherited_annotations(deployment) {
        set["metadata"]["annotations"][key] = value.clone();
    }
}

/// A set that is rolled back to takes the newest revision and remembers the ones it had.
fn renumber(set: &mut Value, revision: i64) {
    if !set["metadata"]["annotations"].is_object() {
        set["metadata"]["annotations"] = Value::Object(Map::new());
    }
    let annotations = &mut set["metadata"]["annotations"];
    let revision = revision.to_string();
    let before = text(annotations, "/deployment.kubernetes.io~1revision").map(str::to_owned);
    if before.as_deref() == Some(revision.as_str()) {
        return;
    }
    if let Some(before) = before {
        let history = match text(annotations, "/deployment.kubernetes.io~1revision-history") {
            Some(history) if !history.is_empty() => format!("{history},{before}"),
            _ => before,
        };
        annotations[REVISION_HISTORY_ANNOTATION] = history.into();
    }
    annotations[REVISION_ANNOTATION] = revision.into();
}
