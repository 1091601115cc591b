//! What Flagger runs, Aviary runs: every canary of Flagger's end-to-end tests and examples is accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use aviary_crds::validated::{
    MetricLimit, MetricSource, ObjectKey, Problems, Steps, Strategy, ThresholdRange, ValidatedCanary, WebhookType,
};
use aviary_crds::{Canary, ValidationOptions, decode};
use common::flagger_objects;

fn canaries() -> Vec<(String, Result<ValidatedCanary, Problems>)> {
    flagger_objects()
        .into_iter()
        .filter(|(_, object)| object["kind"] == "Canary")
        .map(|(file, mut object)| {
            // Manifests that `kubectl -n` puts into a namespace.
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = "test".into();
            }
            let canary: Canary = decode(&object).unwrap_or_else(|error| panic!("{file}: {error}"));
            (file, ValidatedCanary::parse(&canary, &ValidationOptions::default()))
        })
        .collect()
}

fn canary(file: &str) -> ValidatedCanary {
    let (_, result) = canaries().into_iter().find(|(name, _)| name == file).expect("the fixture is there");
    result.unwrap_or_else(|problems| panic!("{file}: {problems}"))
}

#[test]
fn every_fixture_is_accepted() {
    let canaries = canaries();
    assert_eq!(canaries.len(), 43, "fixtures were added or lost");
    let refused: Vec<String> =
        canaries.into_iter().filter_map(|(file, result)| Some(format!("{file}: {}", result.err()?))).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn strategies_follow_from_the_steps() {
    let strategies = |suffix: &str, strategy: Strategy| {
        let of_files: Vec<String> = canaries()
            .into_iter()
            .filter(|(file, _)| file.ends_with(suffix))
            .filter(|(_, result)| result.as_ref().is_ok_and(|canary| canary.strategy() != strategy))
            .map(|(file, _)| file)
            .collect();
        assert!(of_files.is_empty(), "not {strategy}: {of_files:?}");
    };
    strategies("-abtest.yaml", Strategy::AbTesting);
    strategies("-bluegreen.yaml", Strategy::BlueGreen);
    strategies("-canary.yaml", Strategy::Canary);
}

#[test]
fn weighted_canary_in_full() {
    let canary = canary("e2e/istio-canary.yaml");
    assert_eq!(canary.key.to_string(), "podinfo.test");
    assert_eq!(canary.progress_deadline.as_secs(), 60);
    assert_eq!(canary.service.apex(), "podinfo");
    assert_eq!(canary.service.primary_name(), "podinfo-primary");
    assert_eq!(canary.service.canary_name(), "podinfo-canary");
    assert_eq!(canary.target.primary_name(), "podinfo-primary");
    assert_eq!(canary.analysis.steps, Steps::Weight { step: 10, max: 30 });
    assert_eq!(canary.analysis.interval.as_secs(), 15);
    let template = canary.analysis.metrics.iter().find(|metric| metric.name == "latency").expect("a metric");
    let key = ObjectKey { namespace: "istio-system".into(), name: "latency".into() };
    assert_eq!(template.source, MetricSource::Template(key));
    assert_eq!(template.limit, MetricLimit::Range(ThresholdRange { min: None, max: Some(500.0) }));
    assert_eq!(template.interval_text, "1m");
    assert_eq!(template.variables["reporter"], "destination");
    assert!(canary.analysis.webhooks.iter().any(|hook| hook.kind == WebhookType::Rollout));
}

#[test]
fn listed_weights_are_not_bounded_by_max_weight() {
    let canary = canary("e2e/linkerd-steps.yaml");
    assert_eq!(canary.analysis.steps, Steps::Weights(vec![10, 20, 30, 40, 50, 60]));
    assert_eq!(canary.analysis.max_weight, 50);
}

#[test]
fn knative_needs_no_service() {
    let canary = canary("e2e/knative-canary.yaml");
    assert!(canary.target.is_knative());
    assert_eq!(canary.service.apex(), "podinfo");
}
