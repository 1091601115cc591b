//! Giving the VirtualService back when the canary is deleted.

use aviary_crds::names::ORIGINAL_CONFIGURATION_ANNOTATION;
use serde_json::Value;

use super::routes::{self, Sides};
use crate::Subject;
use crate::canonical::same_or_absent;
use crate::change::Change;
use crate::object::kinds;
use crate::ownership::{former_spec, is_controlled_by, remove_flux_annotations};

/// The change that gives the VirtualService back, if one is needed. The DestinationRules always go with the canary.
///
/// - One that the user made gets the spec back that it had, from `kubectl apply` or from our annotation.
/// - Where no former spec is known (also where the VirtualService goes with the canary, some moment after its services) and
///   the apex service stays, the requests are led to that.
pub(super) fn revert(subject: &Subject) -> Option<Change> {
    let sides = Sides::of(subject);
    let present = super::read(subject)?;
    let mut desired = (*present).clone();
    if let Some(spec) = former_spec(&present) {
        if !same_or_absent(present.data.get("spec"), Some(&spec)) {
            desired.data["spec"] = spec;
        }
        if let Some(annotations) = &mut desired.metadata.annotations {
            // Another canary of this service would take it for the user's latest word.
            annotations.remove(ORIGINAL_CONFIGURATION_ANNOTATION);
        }
        remove_flux_annotations(&mut desired);
    } else if stays(subject, &sides.apex) {
        let protocol = super::protocol(subject.canary);
        let found = routes::list(&present.data, protocol);
        if found.iter().any(|route| routes::leads_to_a_side(route, &sides)) {
            let mut wanted = vec![routes::to_apex(subject, &sides)];
            wanted.extend(routes::foreign(found, &sides));
            super::set_field(&mut desired.data, protocol.field(), Some(Value::Array(wanted)));
        }
    }
    Change::update(subject.key(&kinds::VIRTUAL_SERVICE, &sides.apex), &present, &desired)
}

/// Whether the apex service outlives the canary.
fn stays(subject: &Subject, apex: &str) -> bool {
    let service = subject.get(&kinds::SERVICE, apex);
    service.is_some_and(|service| !is_controlled_by(&service, &subject.canary.key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aviary_rollout::Split;
    use serde_json::json;

    use super::*;
    use crate::object::ObjectKind;
    use crate::testing::World;
    use crate::traffic::{Istio, TrafficProvider};

    const VIRTUAL_SERVICE: &ObjectKind = &kinds::VIRTUAL_SERVICE;

    fn users_routes() -> Value {
        json!({
            "hosts": ["app.example.com", "podinfo"], "gateways": ["public"],
            "http": [{"retries": {"attempts": 3}, "route": [{"destination": {"host": "podinfo"}}]}],
        })
    }

    fn taken_over(metadata: &Value) -> World {
        let mut world = World::new(json!({}));
        world.put(VIRTUAL_SERVICE, "podinfo", json!({"metadata": metadata, "spec": users_routes()}));
        reconcile(&mut world);
        assert_ne!(spec(&world), users_routes());
        world
    }

    fn reconcile(world: &mut World) {
        world.apply(Istio.reconcile(&world.subject(), Split::PRIMARY).unwrap());
    }

    fn give_back(world: &mut World) {
        world.apply(Istio.revert(&world.subject()));
        assert_eq!(Istio.revert(&world.subject()), [], "idempotent");
    }

    fn spec(world: &World) -> Value {
        world.json(VIRTUAL_SERVICE, "podinfo")["spec"].clone()
    }

    #[test]
    fn the_users_routes_come_back() {
        let mut world = taken_over(&json!({"annotations": {"mine": "1"}}));
        give_back(&mut world);
        assert_eq!(spec(&world), users_routes());
        assert_eq!(world.json(VIRTUAL_SERVICE, "podinfo")["metadata"]["annotations"], json!({"mine": "1"}));
    }

    #[test]
    fn what_kubectl_applied_last_comes_back() {
        let mut applied = users_routes();
        applied["hosts"] = json!(["newer.example.com"]);
        let text = json!({"spec": applied, "metadata": {"annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}}});
        let text = text.to_string();
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": text});
        let mut world = taken_over(&json!({"annotations": annotations}));
        give_back(&mut world);
        assert_eq!(spec(&world), applied);
        // One of Flux's keys is the user's own.
        let mut expected = annotations;
        expected["kustomize.toolkit.fluxcd.io/reconcile"] = json!("disabled");
        assert_eq!(world.json(VIRTUAL_SERVICE, "podinfo")["metadata"]["annotations"], expected);
    }

    #[test]
    fn routes_that_go_with_the_canary_lead_to_a_service_that_stays() {
        let mut world = World::new(json!({"service": {"match": [{"uri": {"prefix": "/api"}}]}}));
        reconcile(&mut world);
        give_back(&mut world);
        assert_eq!(spec(&world)["http"][0]["route"][0]["destination"]["host"], "podinfo-primary", "there is none");

        world.put(&kinds::SERVICE, "podinfo", json!({"metadata": {}, "spec": {"selector": {"app": "podinfo"}}}));
        give_back(&mut world);
        let route = json!([{"destination": {"host": "podinfo"}, "weight": 100}]);
        assert_eq!(spec(&world)["http"], json!([{"match": [{"uri": {"prefix": "/api"}}], "route": route}]));
    }

    #[test]
    fn nothing_is_needed_where_nothing_is() {
        assert_eq!(Istio.revert(&World::new(json!({})).subject()), []);
    }
}
