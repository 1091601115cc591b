//! Flagger's own manifests, rendered from end to end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aviary_crds::validated::{AutoscalerKind, TargetKind, ValidatedCanary, ValidationOptions};
use aviary_crds::{Canary, MetricTemplate, decode};
use aviary_rollout::Split;
use serde_json::Value;

use super::World;
use crate::change::Change;
use crate::metrics::template::{Scope, render};
use crate::object::kinds;
use crate::traffic::{Istio, TrafficProvider};
use crate::{scalers, services, targets};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/flagger")
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Objects of one kind of all manifests, with the name of their file.
fn manifests(kind: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for folder in ["e2e", "examples"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let documents = documents(&path).into_iter().filter(|object| object["kind"] == kind);
            found.extend(documents.map(|object| (path.display().to_string(), object)));
        }
    }
    found
}

fn world(canary: ValidatedCanary) -> World {
    let mut world = World::of(canary);
    let podinfo = |file: &str| documents(&root().join("podinfo").join(file)).swap_remove(0);
    let names = (world.canary.target.name.clone(), world.canary.autoscaler.clone());
    let mut deployment = podinfo("deployment.yaml");
    deployment["metadata"]["uid"] = "target-uid".into();
    world.put(&kinds::DEPLOYMENT, &names.0, deployment);
    if let Some(autoscaler) = names.1 {
        let kind = scalers::for_kind(autoscaler.kind).object_kind();
        let object = match autoscaler.kind {
            AutoscalerKind::HorizontalPodAutoscaler => podinfo("hpa.yaml"),
            AutoscalerKind::ScaledObject => documents(&root().join("e2e/keda-scaledobject.yaml")).swap_remove(0),
        };
        world.put(kind, &autoscaler.name, object);
    }
    world
}

/// All generated objects of a canary, in the order of a bootstrap.
fn rendered(world: &World, split: Split) -> Vec<Change> {
    let subject = world.subject();
    let mut changes = services::reconcile_sides(&subject).unwrap();
    changes.extend(targets::for_subject(&subject).unwrap().apply_primary(&subject).unwrap());
    changes.extend(scalers::reconcile_primary(&subject, true).unwrap());
    changes.extend(services::reconcile_apex(&subject).unwrap());
    changes.extend(Istio.reconcile(&subject, split).unwrap());
    changes
}

#[test]
fn every_canary_of_a_deployment_can_be_set_up_stepped_and_left_alone() {
    let mut seen = 0;
    for (file, object) in manifests("Canary") {
        let canary: Canary = decode(&object).unwrap();
        let Ok(canary) = ValidatedCanary::parse(&canary, &ValidationOptions::default()) else { continue };
        if canary.target.kind != TargetKind::Deployment || canary.key.namespace != super::NAMESPACE {
            continue;
        }
        seen += 1;
        let mut world = world(canary);
        let changes = rendered(&world, Split::PRIMARY);
        world.apply(changes);
        for weight in [0, 10, 55, 100, 0] {
            let split = Split::to_canary(weight);
            let changes = Istio.set(&world.subject(), split).unwrap();
            world.apply(changes);
            assert_eq!(Istio.observed(&world.subject()), Ok(split), "{file}");
            assert_eq!(rendered(&world, split), [], "{file}");
        }
    }
    assert!(seen >= 30, "only {seen} canaries were found");
}

#[test]
fn every_query_renders() {
    let mut variables = BTreeMap::new();
    for (_, canary) in manifests("Canary") {
        let canary: Canary = decode(&canary).unwrap();
        for metric in canary.spec.effective_analysis().into_iter().flat_map(|analysis| &analysis.metrics) {
            variables.extend(metric.template_variables.clone());
        }
    }
    let scope = Scope { namespace: "test".into(), interval: "1m".into(), variables, ..Scope::default() };
    let mut queries: Vec<(String, String)> = Vec::new();
    for (file, template) in manifests("MetricTemplate") {
        let template: MetricTemplate = decode(&template).unwrap();
        queries.push((file, template.spec.query));
    }
    for (file, canary) in manifests("Canary") {
        let canary: Canary = decode(&canary).unwrap();
        for metric in canary.spec.effective_analysis().into_iter().flat_map(|analysis| &analysis.metrics) {
            queries.extend(metric.query.clone().map(|query| (file.clone(), query)));
        }
    }
    assert!(queries.len() >= 5, "only {} queries were found", queries.len());
    for (file, query) in queries {
        let rendered = render(&query, &scope).unwrap_or_else(|error| panic!("{file}: {error}\n{query}"));
        assert!(!rendered.contains("{{"), "{file}: {rendered}");
    }
}
