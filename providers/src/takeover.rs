//! Objects of a canary that was deleted and applied again.
//!
//! Owner references hold a uid, and the new canary has another. What the former one made still carries the former uid
//! when the new one finds it, and the garbage collector, whenever it runs, deletes it: the serving primary, its routes,
//! the configs that its pods start with. So the references are rewritten before anything else is done. The collector
//! deletes an object only as it has seen it, so a rewritten one is safe.

use aviary_crds::names::GROUP;
use aviary_crds::validated::CanaryKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DynamicObject;

use crate::change::Change;
use crate::configs;
use crate::object::{ObjectKind, kinds};
use crate::ownership::{CANARY_KIND, owner_reference};
use crate::{Subject, scalers, targets};

/// The changes that keep from the garbage collector what a former canary of this name made; nearly always none.
/// `traffic_kinds` are those of the traffic provider. Nothing but owner references is changed, and only on objects that
/// have one to a canary of this name.
pub fn take_over(subject: &Subject, traffic_kinds: &[&'static ObjectKind]) -> Vec<Change> {
    let target = &subject.canary.target;
    // Nothing was made by the former one.
    if target.primary.is_some() {
        return Vec::new();
    }
    let service = &subject.canary.service;
    let primary_kind = targets::for_kind(target.kind).object_kind();
    let primary = subject.get(primary_kind, &target.primary_name());
    let mut objects = Vec::new();
    // The primary of a Service target is among the services below.
    if *primary_kind != kinds::SERVICE {
        objects.push((primary_kind, target.primary_name()));
    }
    // What serves now, which is not always what the target says.
    if let Some(template) = primary.as_deref().and_then(|primary| primary.data.pointer("/spec/template"))
        && subject.settings.config_tracking
    {
        objects.extend(configs::referenced(template));
    }
    for kind in [&kinds::SERVICE].into_iter().chain(traffic_kinds.iter().copied()) {
        let names = [service.apex().to_owned(), service.primary_name(), service.canary_name()];
        objects.extend(names.map(|name| (kind, name)));
    }
    if let Some(autoscaler) = &subject.canary.autoscaler {
        objects.push((scalers::for_kind(autoscaler.kind).object_kind(), autoscaler.primary_name()));
    }
    objects.into_iter().filter_map(|(kind, name)| take_over_one(subject, kind, &name)).collect()
}

fn take_over_one(subject: &Subject, kind: &'static ObjectKind, name: &str) -> Option<Change> {
    let present = subject.get(kind, name)?;
    let owners = rewritten(&present, &subject.canary.key)?;
    let mut desired = (*present).clone();
    desired.metadata.owner_references = Some(owners);
    Change::update(subject.key(kind, name), &present, &desired)
}

/// The owner references with the present uid; `None` if no former one is among them.
fn rewritten(object: &DynamicObject, canary: &CanaryKey) -> Option<Vec<OwnerReference>> {
    let present = object.metadata.owner_references.as_deref()?;
    let is_ours = |owner: &OwnerReference| {
        owner.kind == CANARY_KIND && owner.name == canary.name && is_of_own_group(&owner.api_version)
    };
    if !present.iter().any(|owner| is_ours(owner) && owner.uid != canary.uid) {
        return None;
    }
    let is_controller = present.iter().any(|owner| is_ours(owner) && owner.controller == Some(true));
    let mut owners: Vec<OwnerReference> = present.iter().filter(|owner| !is_ours(owner)).cloned().collect();
    owners.push(OwnerReference { controller: Some(is_controller), ..owner_reference(canary) });
    Some(owners)
}

/// In whatever version.
fn is_of_own_group(api_version: &str) -> bool {
    api_version.split_once('/').is_some_and(|(group, _)| group == GROUP)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aviary_rollout::Split;
    use serde_json::{Value, json};

    use super::*;
    use crate::targets::{DeploymentTarget, Target};
    use crate::testing::{World, deployment};
    use crate::traffic::{Istio, TrafficProvider};
    use crate::{Verb, services};

    /// Everything that a canary makes, in place.
    fn bootstrapped() -> World {
        let mut world = World::new(json!({
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
        }));
        let mut target = deployment();
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "app"}}]);
        world.put(&kinds::DEPLOYMENT, "podinfo", target);
        world.put(
            &kinds::CONFIG_MAP,
            "app",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "b"}}),
        );
        let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "maxReplicas": 4,
        }});
        world.put(&kinds::HORIZONTAL_POD_AUTOSCALER, "podinfo", scaler);
        world.apply(services::reconcile_sides(&world.subject()).unwrap());
        world.apply(DeploymentTarget.apply_primary(&world.subject()).unwrap());
        world.apply(scalers::reconcile_primary(&world.subject(), false).unwrap());
        world.apply(services::reconcile_apex(&world.subject()).unwrap());
        world.apply(Istio.reconcile(&world.subject(), Split::PRIMARY).unwrap());
        world
    }

    const MADE: [(&ObjectKind, &str); 9] = [
        (&kinds::DEPLOYMENT, "podinfo-primary"),
        (&kinds::CONFIG_MAP, "app-primary"),
        (&kinds::SERVICE, "podinfo"),
        (&kinds::SERVICE, "podinfo-primary"),
        (&kinds::SERVICE, "podinfo-canary"),
        (&kinds::VIRTUAL_SERVICE, "podinfo"),
        (&kinds::DESTINATION_RULE, "podinfo-primary"),
        (&kinds::DESTINATION_RULE, "podinfo-canary"),
        (&kinds::HORIZONTAL_POD_AUTOSCALER, "podinfo-primary"),
    ];

    fn owners(world: &World, kind: &'static ObjectKind, name: &str) -> Vec<(Value, Value)> {
        let owners = world.json(kind, name)["metadata"]["ownerReferences"].clone();
        let owners = owners.as_array().unwrap().iter();
        owners.map(|owner| (owner["uid"].clone(), owner["controller"].clone())).collect()
    }

    #[test]
    fn what_a_former_canary_made_is_kept_from_the_garbage_collector() {
        let mut world = bootstrapped();
        assert_eq!(take_over(&world.subject(), Istio.watched()), [], "nothing to do with one's own");
        world.canary.key.uid = "new-uid".into();
        // A newer revision is there already; the primary must not become it by being taken over.
        world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"template": {"spec": {"containers": []}}}}));
        let served = world.json(&kinds::DEPLOYMENT, "podinfo-primary")["spec"].clone();

        let changes = take_over(&world.subject(), Istio.watched());
        for change in &changes {
            let Verb::Patch(patch) = &change.verb else { panic!("a patch") };
            let metadata: Vec<&String> = patch["metadata"].as_object().unwrap().keys().collect();
            assert_eq!(metadata, ["ownerReferences", "resourceVersion"], "{:?}", change.key);
            assert_eq!(patch.as_object().unwrap().len(), 1, "{patch}");
        }
        world.apply(changes);

        for (kind, name) in MADE {
            assert_eq!(owners(&world, kind, name), [(json!("new-uid"), json!(true))], "{} {name}", kind.kind);
        }
        assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo-primary")["spec"], served);
        assert_eq!(take_over(&world.subject(), Istio.watched()), []);
    }

    #[test]
    fn the_scaled_object_of_a_former_canary_is_kept_too() {
        let mut world = World::new(json!({
            "autoscalerRef": {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "so"},
        }));
        world.put(
            &kinds::SCALED_OBJECT,
            "so",
            json!({"metadata": {}, "spec": {"scaleTargetRef": {"name": "podinfo"}}}),
        );
        world.apply(scalers::reconcile_primary(&world.subject(), false).unwrap());
        world.canary.key.uid = "new-uid".into();
        world.apply(take_over(&world.subject(), &[]));
        assert_eq!(owners(&world, &kinds::SCALED_OBJECT, "so-primary"), [(json!("new-uid"), json!(true))]);
    }

    #[test]
    fn other_owners_stay_and_those_of_others_are_not_touched() {
        let mut world = bootstrapped();
        let owner = |api_version: &str, kind: &str, name: &str, uid: &str, controller: bool| json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": controller});
        let release = owner("helm.example/v1", "Canary", "podinfo", "x", true);
        let other = owner("flagger.app/v1beta1", "Canary", "other", "y", false);
        let former = owner("flagger.app/v1beta1", "Canary", "podinfo", "former", false);
        let metadata = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
        world.edit(&kinds::SERVICE, "podinfo", metadata(json!([release, other])));
        world.edit(&kinds::CONFIG_MAP, "app-primary", metadata(json!([release, former])));
        let changes = take_over(&world.subject(), Istio.watched());
        assert_eq!(changes.len(), 1, "{changes:?}");
        world.apply(changes);
        let expected = [(json!("x"), json!(true)), (json!("canary-uid"), json!(false))];
        assert_eq!(owners(&world, &kinds::CONFIG_MAP, "app-primary"), expected);
    }
}
