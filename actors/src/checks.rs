//! From the checks of a plan to requests, and from answers to samples. Message texts are Flagger's (its reference 7.1).

use std::fmt;

use aviary_crds::validated::{MetricLimit, MetricSource, ObjectKey as NamespacedName, ValidatedCanary};
use aviary_crds::{MetricTemplate, decode_object};
use aviary_providers::metrics::template::{Scope, render};
use aviary_providers::metrics::{
    self, BuiltinMetric, MetricError, MetricsProvider, Prometheus, ProviderConfig, flagger_v1alpha1, lint, secret_data,
};
use aviary_providers::traffic::TrafficProvider;
use aviary_providers::{Subject, kinds};
use aviary_rollout::{Check, CheckKind, Plan, Sample, SampleError};

/// Istio's counter of requests, in whose place a check may name another one.
const ISTIO_COUNTER: &str = "istio_requests_total";

/// A check, ready to be made.
#[derive(Clone, Debug)]
pub struct PreparedCheck {
    /// `metrics[].name`.
    pub name: String,
    /// Which metric.
    pub kind: CheckKind,
    /// `<target>.<namespace>`, for messages.
    pub target_id: String,
    /// What is asked; `Err` holds the message when it cannot be asked.
    pub query: Result<Query, String>,
    /// The largest value that passes, if there is one.
    pub max: Option<f64>,
}

impl PreparedCheck {
    /// What its author would not want of the query, with the repaired one. The built-in queries are beyond doubt.
    pub fn doubts(&self) -> Vec<String> {
        let is_users = matches!(self.kind, CheckKind::Query | CheckKind::Template);
        match &self.query {
            Ok(query) if is_users && query.provider.name() == Prometheus.name() => {
                let findings = lint::findings(&query.text, self.max).into_iter();
                findings.map(|finding| format!("Metric {}: {finding}", self.name)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A query to a backend.
#[derive(Clone)]
pub struct Query {
    /// The backend's kind.
    pub provider: &'static dyn MetricsProvider,
    /// The backend.
    pub config: ProviderConfig,
    /// Rendered query.
    pub text: String,
    /// Set for built-in metrics that one grouped query can answer for many canaries.
    pub grouped: Option<GroupMember>,
    /// How the provider of the metric is called in messages.
    pub observer: String,
    /// Namespace of a canary that chooses the backend itself. What it chooses may fail without meaning that anybody
    /// else's backend does, even if the address is the same. `None` for the controller's own metrics server.
    pub tenant: Option<String>,
    /// Whose query it is.
    pub source: QuerySource,
}

/// Queries that share their fate. What a namespace asks may be refused, or take too long, where the backend answers others
/// well, and what a user has written where it answers the built-in queries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuerySource {
    /// Namespace of the canary.
    pub namespace: String,
    /// Who has written the query.
    pub author: QueryAuthor,
}

/// Where a query is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueryAuthor {
    /// The controller.
    Controller,
    /// The canary, in its `query`.
    Canary,
    /// A metric template.
    Template,
}

/// One canary's part of a grouped query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupMember {
    /// Which metric.
    pub metric: BuiltinMetric,
    /// Window, as in the spec.
    pub interval: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub workload: String,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("provider", &self.provider.name())
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

/// Prepares the checks of a plan. What is broken in one (a missing template, a bad query) stays with that one.
pub fn prepare(plan: &Plan, subject: &Subject, traffic: &'static dyn TrafficProvider) -> Vec<PreparedCheck> {
    plan.checks
        .iter()
        .map(|check| PreparedCheck {
            name: check.name.clone(),
            kind: check.kind,
            target_id: plan.target_id(),
            query: query(check, subject, traffic),
            max: max(check, subject.canary),
        })
        .collect()
}

fn max(check: &Check, canary: &ValidatedCanary) -> Option<f64> {
    match canary.analysis.metrics.get(check.index)?.limit {
        MetricLimit::Range(range) => range.max,
        MetricLimit::Threshold(most) => Some(most),
        MetricLimit::Rise(_) => None,
    }
}

fn query(check: &Check, subject: &Subject, traffic: &'static dyn TrafficProvider) -> Result<Query, String> {
    let canary = subject.canary;
    let Some(metric) = canary.analysis.metrics.get(check.index) else {
        return Err("Metric query failed for no usable metrics template and query were configured".to_owned());
    };
    let mut values = query_values(canary, &metric.interval_text);
    values.variables.clone_from(&metric.variables);
    let on_metrics_server = |text: String, grouped, author| Query {
        provider: &Prometheus,
        config: metrics_server(subject),
        text,
        grouped,
        observer: traffic.name().to_owned(),
        tenant: (subject.metrics_server() != subject.settings.metrics_server).then(|| canary.key.namespace.clone()),
        source: QuerySource { namespace: canary.key.namespace.clone(), author },
    };
    let builtin = |builtin: BuiltinMetric| {
        let text = render(traffic.builtin_query(canary, builtin), &values);
        let text = text.map_err(|error| format!("Metric {} query render error: {error}", check.name))?;
        let member = GroupMember {
            metric: builtin,
            interval: metric.interval_text.clone(),
            namespace: canary.key.namespace.clone(),
            workload: canary.target.name.clone(),
        };
        let grouped = traffic.groups_builtin_queries(canary).then_some(member);
        Ok(on_metrics_server(text, grouped, QueryAuthor::Controller))
    };
    match &metric.source {
        MetricSource::SuccessRate => builtin(BuiltinMetric::RequestSuccessRate),
        // On its own: the grouped query is that of Istio's own counter.
        MetricSource::SuccessRateOf(counter) => {
            let template = traffic.builtin_query(canary, BuiltinMetric::RequestSuccessRate);
            let text = render(&template.replace(ISTIO_COUNTER, counter), &values);
            let text = text.map_err(|error| format!("Metric {} query render error: {error}", check.name))?;
            Ok(on_metrics_server(text, None, QueryAuthor::Controller))
        }
        MetricSource::Duration => builtin(BuiltinMetric::RequestDuration),
        // On its own: the grouped query is that of today's Istio.
        MetricSource::DurationInSeconds => {
            let text = render(flagger_v1alpha1::LATENCY, &values);
            let text = text.map_err(|error| format!("Metric {} query render error: {error}", check.name))?;
            Ok(on_metrics_server(text, None, QueryAuthor::Controller))
        }
        MetricSource::Query(text) => {
            let text = render(text, &values);
            let text = text.map_err(|error| format!("Metric {} query render error: {error}", check.name))?;
            Ok(on_metrics_server(text, None, QueryAuthor::Canary))
        }
        MetricSource::Template(key) => from_template(key, &values, subject),
    }
}

fn metrics_server(subject: &Subject) -> ProviderConfig {
    ProviderConfig::metrics_server(subject.metrics_server())
}

fn query_values(canary: &ValidatedCanary, interval: &str) -> Scope {
    let target = canary.target.name.clone();
    Scope {
        name: canary.key.name.clone(),
        namespace: canary.key.namespace.clone(),
        service: canary.service.apex().to_owned(),
        ingress: canary.ingress.as_ref().map_or_else(|| target.clone(), |ingress| ingress.name.clone()),
        route: canary.route.as_ref().map_or_else(|| target.clone(), |route| route.name.clone()),
        target,
        interval: interval.to_owned(),
        variables: std::collections::BTreeMap::new(),
    }
}

fn from_template(key: &NamespacedName, values: &Scope, subject: &Subject) -> Result<Query, String> {
    let id = format!("{}.{}", key.name, key.namespace);
    let failed = |what: &str, cause: &dyn fmt::Display| format!("Metric template {id} {what}error: {cause}");
    let object = subject.objects.get(&kinds::METRIC_TEMPLATE, &key.namespace, &key.name);
    let object = object.ok_or_else(|| failed("", &format!("metrictemplate.flagger.app \"{}\" not found", key.name)))?;
    let template: MetricTemplate = decode_object(&object).map_err(|error| failed("", &error))?;

    let provider_type = template.spec.provider.provider_type.as_str();
    let provider =
        metrics::for_type(provider_type).map_err(|error| failed(&format!("provider {provider_type} "), &error))?;
    let secret = match template.spec.provider.secret_ref.as_ref().map(|reference| reference.name.as_str()) {
        None | Some("") => None,
        Some(name) => {
            let secret = subject.objects.get(&kinds::SECRET, &key.namespace, name);
            let secret = secret.ok_or_else(|| failed(&format!("secret {name} "), &kinds::SECRET.not_found(name)))?;
            Some(secret_data(&secret))
        }
    };
    let text = render(&template.spec.query, values).map_err(|error| failed("query render ", &error))?;
    let config = ProviderConfig::from_template(&template, secret);
    let tenant = Some(subject.namespace().to_owned());
    let source = QuerySource { namespace: subject.namespace().to_owned(), author: QueryAuthor::Template };
    Ok(Query { provider, config, text, grouped: None, observer: provider_type.to_owned(), tenant, source })
}

/// A sample from an answer.
pub fn sample(check: &PreparedCheck, answer: Result<f64, MetricError>) -> Sample {
    let error = match answer {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let name = &check.name;
    let observer = check.query.as_ref().map_or("", |query| query.observer.as_str());
    Err(match &error {
        MetricError::Unavailable(cause) => SampleError::Unavailable(cause.clone()),
        MetricError::NoValues => SampleError::NoValues(match check.kind {
            CheckKind::SuccessRate => format!(
                "Halt advancement no values found for {observer} metric {name} probably {} is not receiving traffic: {error}",
                check.target_id
            ),
            CheckKind::Duration => format!(
                "Halt advancement no values found for {observer} metric {name} probably {} is not receiving traffic",
                check.target_id
            ),
            CheckKind::Query => format!("Halt advancement no values found for metric: {name}"),
            CheckKind::Template => format!("Halt advancement no values found for custom metric: {name}: {error}"),
        }),
        // The built-in queries give vectors: whoever answers one with something else is not the metrics server. A query of
        // the user's own may be the wrong one.
        MetricError::MultipleValues | MetricError::WrongType(_)
            if matches!(check.kind, CheckKind::SuccessRate | CheckKind::Duration) =>
        {
            SampleError::Unavailable(error.to_string())
        }
        MetricError::MultipleValues
        | MetricError::WrongType(_)
        | MetricError::Status { .. }
        | MetricError::Invalid(_) => SampleError::Broken(match check.kind {
            CheckKind::SuccessRate | CheckKind::Duration => format!("Prometheus query failed: {error}"),
            CheckKind::Query => format!("Prometheus query failed for {name}: {error}"),
            CheckKind::Template => format!("Metric query failed for {name}: {error}"),
        }),
    })
}
