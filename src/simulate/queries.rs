//! What the canaries will ask Prometheus, known before anything is played: a query that the simulation cannot answer as a real
//! Prometheus would gives no verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use aviary_actors::ControllerConfig;
use aviary_actors::checks::{self, PreparedCheck};
use aviary_crds::names;
use aviary_crds::validated::MetricSource;
use aviary_promql::{Query, QueryError};
use aviary_providers::metrics::flagger_v1alpha1;
use aviary_providers::{ObjectKind, Objects, traffic};
use aviary_rollout::{CheckKind, Plan};
use kube::core::DynamicObject;

use super::manifests::{Manifest, Manifests};
use super::scenario::Scenario;
use super::subject::Subject;
use super::{network, series};

/// A query that cannot be answered: what it is, and why.
type Unanswerable = String;

/// Inline queries, with the namespaces and names of the metrics that ask them in these words.
pub(crate) type Inline = BTreeMap<String, Vec<(String, String)>>;

/// Inline queries as they will be asked.
pub(crate) fn inline(config: &ControllerConfig, subjects: &[Subject]) -> Inline {
    let mut queries = Inline::new();
    for subject in subjects {
        for (_, check) in prepared(config, subject, &Nothing) {
            if let (CheckKind::Query, Ok(query)) = (check.kind, check.query) {
                queries.entry(query.text).or_default().push((subject.namespace().to_owned(), check.name));
            }
        }
    }
    queries
}

/// Queries that the simulation cannot answer, and that the scenario does not answer, either.
pub(crate) fn unanswerable(
    config: &ControllerConfig,
    subjects: &[Subject],
    manifests: &Manifests,
    scenario: &Scenario,
) -> Vec<String> {
    let mut problems = Vec::new();
    // A canary that skips its analysis asks nothing.
    for subject in subjects.iter().filter(|subject| !subject.canary.skip_analysis) {
        for (index, check) in prepared(config, subject, &Given(manifests)) {
            // What cannot be rendered fails in a cluster as it does here.
            let Ok(query) = &check.query else { continue };
            let source = subject.checks().get(index).map(|check| &check.source);
            let is_answered = match check.kind {
                CheckKind::Query => network::metric_of(scenario, subject.namespace(), &check.name).is_some(),
                _ => network::is_simulated(&query.config.address),
            };
            if is_answered {
                continue;
            }
            let Err(why) = answerable(&query.text) else { continue };
            let problem = match source {
                Some(MetricSource::Template(key)) => {
                    let template = manifests.find(names::GROUP, "MetricTemplate", &key.namespace, &key.name);
                    template.map(|template| refused(template, "spec.query", &why, &key.name))
                }
                _ => {
                    let canary = manifests.find(subject.group(), subject.kind(), subject.namespace(), subject.name());
                    let path = match source {
                        Some(MetricSource::SuccessRateOf(_)) => "spec.metric.name".to_owned(),
                        _ => format!("spec.analysis.metrics[{index}].query"),
                    };
                    canary.map(|canary| refused(canary, &path, &why, &check.name))
                }
            };
            // Two canaries may share a template.
            problems.extend(problem.filter(|problem| !problems.contains(problem)));
        }
    }
    problems
}

fn refused(manifest: &Manifest, path: &str, why: &str, metric: &str) -> String {
    manifest.message(path, &format!("{path}: {why}; a scenario can give values: metrics.{metric}"))
}

/// Whether the simulation answers a query as a real Prometheus does.
///
/// # Errors
/// What is in the way.
pub(crate) fn answerable(query: &str) -> Result<(), Unanswerable> {
    // Asks for the series of old meshes first, and falls back to those that are there.
    if flagger_v1alpha1::is_latency(query) {
        return Ok(());
    }
    match Query::parse(query) {
        Ok(_) => {}
        Err(QueryError::Unsupported { what }) => {
            return Err(format!("{what} is not supported by the simulation's Prometheus"));
        }
        Err(error) => {
            let text = error.to_string();
            return Err(text.strip_prefix("invalid parameter \"query\": ").unwrap_or(&text).to_owned());
        }
    }
    let missing: Vec<String> = series::missing(query).into_iter().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("it asks for {}, which the simulation does not have", missing.join(", ")))
}

/// The checks of a canary as the operator prepares them, with their positions in its spec.
fn prepared(config: &ControllerConfig, subject: &Subject, objects: &dyn Objects) -> Vec<(usize, PreparedCheck)> {
    let canary = &subject.canary;
    let seen = aviary_providers::Subject { canary, settings: &config.providers, objects, cookies: None };
    // Both were found when the canary was understood.
    let Ok(traffic) = traffic::for_subject(&seen) else { return Vec::new() };
    let settings = aviary_rollout::Settings {
        outage: config.outage,
        provider: traffic.capabilities(canary),
        cluster_name: None,
        traffic_settle_time: config.traffic_settle_time,
        endpoints_settle_time: config.endpoints_settle_time,
    };
    let Ok(plan) = Plan::new(canary, &settings) else { return Vec::new() };
    let checks = checks::prepare(&plan, &seen, traffic);
    plan.checks.iter().map(|check| check.index).zip(checks).collect()
}

struct Nothing;

impl Objects for Nothing {
    fn list(&self, _: &'static ObjectKind, _: &str) -> Vec<Arc<DynamicObject>> {
        Vec::new()
    }

    fn get(&self, _: &'static ObjectKind, _: &str, _: &str) -> Option<Arc<DynamicObject>> {
        None
    }
}

/// The objects of the input.
pub(crate) struct Given<'m>(pub(crate) &'m Manifests);

impl Objects for Given<'_> {
    fn list(&self, kind: &'static ObjectKind, namespace: &str) -> Vec<Arc<DynamicObject>> {
        let found = self.0.of(kind.group, kind.kind).filter(|one| one.object["metadata"]["namespace"] == namespace);
        found.filter_map(|one| serde_json::from_value(one.object.clone()).ok().map(Arc::new)).collect()
    }

    fn get(&self, kind: &'static ObjectKind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let found = self.0.find(kind.group, kind.kind, namespace, name)?;
        serde_json::from_value(found.object.clone()).ok().map(Arc::new)
    }
}
