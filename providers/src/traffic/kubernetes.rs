//! No mesh: users go to the apex service, which selects the pods of the primary. They meet a new version only when it is
//! promoted, so there is blue/green and nothing else: checks of the canary behind its own service, then the promotion.
//!
//! There are no route objects. Flagger turns every analysis for this provider into blue/green with ten iterations and
//! forgets conditions; Aviary refuses what it would not do.

use aviary_crds::validated::{Steps, TargetKind, ValidatedCanary};
use aviary_rollout::{Capabilities, Split};

use super::{TrafficError, TrafficProvider};
use crate::Subject;
use crate::change::Change;
use crate::metrics::BuiltinMetric;
use crate::object::ObjectKind;

/// Services alone.
#[derive(Clone, Copy, Debug)]
pub struct Kubernetes;

/// What Prometheus' usual discovery says of the pods of a Deployment: `NAME-<template hash>-<random>`.
macro_rules! http_queries {
    ($pods:literal) => {
        (
            concat!(
                r#"sum(rate(http_request_duration_seconds_count{kubernetes_namespace="{{ namespace }}",kubernetes_pod_name=~""#,
                $pods,
                r#"",status!~"5.*"}[{{ interval }}])) / sum(rate(http_request_duration_seconds_count{kubernetes_namespace="{{ namespace }}",kubernetes_pod_name=~""#,
                $pods,
                r#""}[{{ interval }}])) * 100"#
            ),
            concat!(
                r#"histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket{kubernetes_namespace="{{ namespace }}",kubernetes_pod_name=~""#,
                $pods,
                r#""}[{{ interval }}])) by (le)) * 1000"#
            ),
        )
    };
}

/// Success rate and duration of a Deployment's pods, as Flagger's `http` observer asks for them.
const DEPLOYMENT: (&str, &str) = http_queries!("{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)");
/// Those of a DaemonSet's, `NAME-<random>`. Flagger's pattern finds the pods of the primary there, and none of the canary.
const DAEMON_SET: (&str, &str) = http_queries!("{{ target }}-[0-9a-zA-Z]+");

const NAME: &str = "kubernetes";

impl TrafficProvider for Kubernetes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self, _: &ValidatedCanary) -> Capabilities {
        Capabilities { weights: false, matching: false, mirroring: false, sessions: false }
    }

    fn refusals(&self, canary: &ValidatedCanary) -> Vec<String> {
        let mut refusals = Vec::new();
        let mut refuse = |field: &str, value: &str, why: &str, fix: &str| {
            refusals.push(format!("{field}: {value}is not supported by provider {NAME}, {why}; {fix}"));
        };
        if canary.target.kind == TargetKind::Service {
            refuse(
                "spec.targetRef.kind",
                "Service ",
                "whose users go to that very service and meet each change before it is analysed",
                "release the Deployment or DaemonSet behind it, or set spec.provider to one that routes requests",
            );
        }
        if canary.skip_analysis {
            return refusals;
        }
        let analysis = &canary.analysis;
        let routes_nothing = "which routes no requests";
        let other_provider = "remove it, or set spec.provider to one that routes requests";
        let blue_green =
            "use spec.analysis.iterations instead (blue/green), or set spec.provider to one that routes requests";
        match &analysis.steps {
            Steps::Weight { step, .. } => {
                refuse("spec.analysis.stepWeight", &format!("{step} "), routes_nothing, blue_green);
            }
            Steps::Weights(weights) => {
                refuse("spec.analysis.stepWeights", &format!("{weights:?} "), routes_nothing, blue_green);
            }
            Steps::Iterations(_) | Steps::None => {}
        }
        if !analysis.matches.is_empty() {
            let count = match analysis.matches.len() {
                1 => "an A/B test with 1 condition ".to_owned(),
                count => format!("an A/B test with {count} conditions "),
            };
            refuse("spec.analysis.match", &count, "which would send everybody to the canary", other_provider);
        }
        if analysis.mirror {
            refuse("spec.analysis.mirror", "true ", routes_nothing, other_provider);
        }
        if let Some(affinity) = &analysis.session_affinity {
            let cookie = format!("{} ", affinity.cookie_name);
            refuse("spec.analysis.sessionAffinity.cookieName", &cookie, routes_nothing, other_provider);
        }
        refusals
    }

    fn routes_requests(&self) -> bool {
        false
    }

    fn reconcile(&self, _: &Subject, _: Split) -> Result<Vec<Change>, TrafficError> {
        Ok(Vec::new())
    }

    fn observed(&self, _: &Subject) -> Result<Split, TrafficError> {
        Ok(Split::PRIMARY)
    }

    fn set(&self, _: &Subject, _: Split) -> Result<Vec<Change>, TrafficError> {
        Ok(Vec::new())
    }

    fn revert(&self, _: &Subject) -> Vec<Change> {
        Vec::new()
    }

    fn builtin_query(&self, canary: &ValidatedCanary, metric: BuiltinMetric) -> &'static str {
        let (success_rate, duration) = match canary.target.kind {
            TargetKind::DaemonSet => DAEMON_SET,
            TargetKind::Deployment | TargetKind::DeploymentPair | TargetKind::Service | TargetKind::Subset => {
                DEPLOYMENT
            }
        };
        match metric {
            BuiltinMetric::RequestSuccessRate => success_rate,
            BuiltinMetric::RequestDuration => duration,
        }
    }

    fn watched(&self) -> &'static [&'static ObjectKind] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::testing::canary;

    #[test]
    fn what_needs_routes_is_refused_by_field_value_and_fix() {
        let refused = canary(json!({"provider": "kubernetes", "analysis": {
            "mirror": true, "sessionAffinity": {"cookieName": "ck"},
        }}));
        let refusals = Kubernetes.refusals(&refused);
        let expected = [
            "spec.analysis.stepWeight: 10 is not supported by provider kubernetes, which routes no requests; use \
             spec.analysis.iterations instead (blue/green), or set spec.provider to one that routes requests",
            "spec.analysis.mirror: true is not supported by provider kubernetes, which routes no requests; remove it, or \
             set spec.provider to one that routes requests",
            "spec.analysis.sessionAffinity.cookieName: ck is not supported by provider kubernetes, which routes no \
             requests; remove it, or set spec.provider to one that routes requests",
        ];
        assert_eq!(refusals, expected);

        let iterations = |more: serde_json::Value| {
            let mut analysis = json!({"stepWeight": null, "maxWeight": null, "iterations": 5});
            analysis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Kubernetes.refusals(&canary(json!({"provider": "kubernetes", "analysis": analysis})))
        };
        assert_eq!(iterations(json!({})), Vec::<String>::new());
        let matched = iterations(json!({"match": [{"headers": {"x-user": {"exact": "insider"}}}]}));
        assert!(matched[0].starts_with("spec.analysis.match: an A/B test with 1 condition is not supported"));
        let weights = canary(json!({"analysis": {"stepWeight": null, "maxWeight": null, "stepWeights": [5, 50]}}));
        assert!(Kubernetes.refusals(&weights)[0].starts_with("spec.analysis.stepWeights: [5, 50] is not supported"));
        assert_eq!(Kubernetes.refusals(&canary(json!({"skipAnalysis": true}))), Vec::<String>::new());
    }

    #[test]
    fn the_pods_of_a_primary_are_not_taken_for_the_canarys() {
        // As Prometheus does: anchored on both sides.
        let pods = |kind: &str| {
            let canary = canary(json!({"targetRef": {"kind": kind}}));
            let query =
                Kubernetes.builtin_query(&canary, BuiltinMetric::RequestDuration).replace("{{ target }}", "podinfo");
            let pattern = query.split("kubernetes_pod_name=~\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            move |pod: &str| regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(pod)
        };
        let deployment = pods("Deployment");
        assert!(deployment("podinfo-6d5f7c9b8-x2p7q") && !deployment("podinfo-primary-6d5f7c9b8-x2p7q"));
        let daemon_set = pods("DaemonSet");
        assert!(daemon_set("podinfo-x2p7q") && !daemon_set("podinfo-primary-x2p7q"));
    }
}
