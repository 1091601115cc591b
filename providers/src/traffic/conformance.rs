//! What every provider has to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aviary_rollout::Split;
use serde_json::{Value, json};

use super::{ALL, TrafficProvider};
use crate::change::Verb;
use crate::metrics::BuiltinMetric;
use crate::metrics::template::{Scope, render};
use crate::object::kinds;
use crate::testing::{World, deployment};

/// Those that route requests: there is nothing to set or to read elsewhere.
fn routing() -> impl Iterator<Item = &'static &'static dyn TrafficProvider> {
    ALL.iter().filter(|provider| provider.routes_requests())
}

fn world() -> World {
    let mut world = World::new(json!({
        "service": {
            "port": 80,
            "timeout": "15s",
            "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx"},
            "headers": {"request": {"add": {"x-a": "1"}}},
            "match": [{"uri": {"prefix": "/"}}],
            "apex": {"labels": {"team": "web"}, "annotations": {"note": "1"}},
        },
    }));
    world.put(&kinds::DEPLOYMENT, "podinfo", deployment());
    world
}

fn reconcile(provider: &dyn TrafficProvider, world: &mut World, split: Split) -> usize {
    let changes = provider.reconcile(&world.subject(), split).unwrap();
    let count = changes.len();
    world.apply(changes);
    count
}

fn set(provider: &dyn TrafficProvider, world: &mut World, split: Split) {
    let changes = provider.set(&world.subject(), split).unwrap();
    assert!(changes.len() <= 1, "{}: a step is one write", provider.name());
    world.apply(changes);
}

/// Every object that the provider made, by kind and name.
fn objects(provider: &dyn TrafficProvider, world: &World) -> Vec<(&'static crate::ObjectKind, &'static str)> {
    let names = ["podinfo", "podinfo-primary", "podinfo-canary"];
    provider
        .watched()
        .iter()
        .flat_map(|kind| names.map(|name| (*kind, name)))
        .filter(|(kind, name)| world.exists(kind, name))
        .collect()
}

#[test]
fn splits_come_back_as_they_were_set() {
    for provider in routing() {
        let mut world = world();
        reconcile(*provider, &mut world, Split::PRIMARY);
        for weight in (0..=100).chain([50, 0, 100, 7]) {
            let split = Split::to_canary(weight);
            set(*provider, &mut world, split);
            let observed = provider.observed(&world.subject()).unwrap();
            assert_eq!(observed, split, "{}", provider.name());
            assert_eq!(observed.primary + observed.canary, 100);
            assert_eq!(provider.set(&world.subject(), split), Ok(vec![]), "{}: setting twice", provider.name());
            assert_eq!(
                reconcile(*provider, &mut world, Split::PRIMARY),
                0,
                "{}: weights are no drift",
                provider.name()
            );
        }
    }
}

#[test]
fn rendering_is_idempotent_and_starts_at_the_given_split() {
    for provider in routing() {
        for weight in [0, 30, 100] {
            let mut world = world();
            let split = Split::to_canary(weight);
            assert!(reconcile(*provider, &mut world, split) > 0);
            assert_eq!(provider.observed(&world.subject()), Ok(split), "{}", provider.name());
            assert_eq!(reconcile(*provider, &mut world, split), 0, "{}", provider.name());
        }
    }
}

#[test]
fn what_others_wrote_survives_everything() {
    let foreign = json!({
        "metadata": {"labels": {"foreign": "1"}, "annotations": {"foreign": "1"}, "finalizers": ["foreign/x"]},
        "spec": {"foreign": {"deep": [1, {"a": 2}]}},
        "status": {"foreign": true},
    });
    for provider in routing() {
        let mut world = world();
        reconcile(*provider, &mut world, Split::PRIMARY);
        let made = objects(*provider, &world);
        assert!(!made.is_empty());
        for (kind, name) in &made {
            world.edit(kind, name, foreign.clone());
        }
        assert_eq!(
            reconcile(*provider, &mut world, Split::PRIMARY),
            0,
            "{}: foreign fields are no drift",
            provider.name()
        );
        set(*provider, &mut world, Split::to_canary(40));
        world.canary = crate::testing::canary(json!({"service": {"port": 80, "hosts": ["app.example.com"]}}));
        assert!(reconcile(*provider, &mut world, Split::to_canary(40)) > 0);
        for (kind, name) in &made {
            let object = world.json(kind, name);
            assert_eq!(object["metadata"]["labels"]["foreign"], "1");
            assert_eq!(object["metadata"]["annotations"]["foreign"], "1");
            assert_eq!(object["metadata"]["finalizers"], foreign["metadata"]["finalizers"]);
            assert_eq!(object["spec"]["foreign"], foreign["spec"]["foreign"], "{} {name}", kind.kind);
            assert_eq!(object["status"], foreign["status"]);
        }
    }
}

#[test]
fn a_repair_keeps_the_split_in_force() {
    for provider in routing() {
        let mut world = world();
        reconcile(*provider, &mut world, Split::PRIMARY);
        set(*provider, &mut world, Split::to_canary(40));
        world.canary = crate::testing::canary(json!({"service": {"port": 80, "hosts": ["app.example.com"]}}));
        assert!(reconcile(*provider, &mut world, Split::to_canary(40)) > 0);
        assert_eq!(provider.observed(&world.subject()), Ok(Split::to_canary(40)), "{}", provider.name());
    }
}

/// What a provider says it can do, it does: copies and conditions come back as they were set, and an A/B test never sends
/// everybody to the canary.
#[test]
fn capabilities_are_kept() {
    for provider in ALL {
        let mut world = world();
        let can = provider.capabilities(&world.canary);
        if can.mirroring {
            world.canary.analysis.mirror = true;
            reconcile(*provider, &mut world, Split::PRIMARY);
            let mirrored = Split { mirrored: true, ..Split::PRIMARY };
            set(*provider, &mut world, mirrored);
            assert_eq!(provider.observed(&world.subject()), Ok(mirrored), "{}", provider.name());
            world.canary.analysis.mirror = false;
        }
        if can.matching {
            let everybody = world.canary.clone();
            world.canary.analysis.matches =
                serde_json::from_value(json!([{"headers": {"x-user": {"exact": "insider"}}}])).unwrap();
            reconcile(*provider, &mut world, Split::PRIMARY);
            set(*provider, &mut world, Split::CANARY);
            let tested = objects(*provider, &world).into_iter().map(|(kind, name)| world.json(kind, name));
            let tested: Vec<Value> = tested.collect();
            world.canary = everybody;
            reconcile(*provider, &mut world, Split::CANARY);
            let all = objects(*provider, &world).into_iter().map(|(kind, name)| world.json(kind, name));
            let same = all.zip(&tested).all(|(all, tested)| all["spec"] == tested["spec"]);
            assert!(!same, "{}: a test for some looks like a canary for all", provider.name());
        }
    }
}

/// What a deleted canary leaves is left once.
#[test]
fn giving_back_is_idempotent() {
    for provider in ALL {
        let mut world = world();
        assert_eq!(provider.revert(&world.subject()), [], "{}: nothing is there", provider.name());
        reconcile(*provider, &mut world, Split::PRIMARY);
        let changes = provider.revert(&world.subject());
        world.apply(changes);
        assert_eq!(provider.revert(&world.subject()), [], "{}", provider.name());
    }
}

#[test]
fn everything_looked_at_is_watched_even_if_it_is_missing() {
    for provider in routing() {
        let world = world();
        let changes = provider.reconcile(&world.subject(), Split::PRIMARY).unwrap();
        for change in &changes {
            assert!(matches!(change.verb, Verb::Create(_)));
            assert!(provider.watched().contains(&change.key.kind));
            assert!(world.was_asked_for(change.key.kind, &change.key.name));
        }
        assert!(provider.observed(&world.subject()).is_err());
        assert!(provider.set(&world.subject(), Split::PRIMARY).is_err());
    }
}

#[test]
fn builtin_queries_render() {
    let scope = Scope { namespace: "ns".into(), target: "t".into(), interval: "1m".into(), ..Scope::default() };
    for provider in ALL {
        for metric in [BuiltinMetric::RequestSuccessRate, BuiltinMetric::RequestDuration] {
            let query = render(provider.builtin_query(&world().canary, metric), &scope).unwrap();
            assert!(query.contains("[1m]") && !query.contains("{{"), "{query}");
        }
    }
}

#[test]
fn created_objects_belong_to_the_canary() {
    for provider in ALL {
        let world = world();
        for change in provider.reconcile(&world.subject(), Split::PRIMARY).unwrap() {
            let Verb::Create(object) = change.verb else { panic!("a creation") };
            let object: Value = serde_json::to_value(&*object).unwrap();
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "canary-uid", "{}", provider.name());
            assert_eq!(object["apiVersion"], change.key.kind.api_version());
        }
    }
}

/// Who routes nothing says so everywhere, and touches nothing.
#[test]
fn a_provider_without_routes_has_nothing_to_do() {
    for provider in ALL.iter().filter(|provider| !provider.routes_requests()) {
        let world = world();
        let can = provider.capabilities(&world.canary);
        assert!(!can.weights && !can.matching && !can.mirroring && !can.sessions, "{}", provider.name());
        assert_eq!(provider.watched().len(), 0, "{}", provider.name());
        assert_eq!(provider.reconcile(&world.subject(), Split::PRIMARY), Ok(vec![]), "{}", provider.name());
        assert_eq!(provider.set(&world.subject(), Split::CANARY), Ok(vec![]), "{}", provider.name());
    }
}
