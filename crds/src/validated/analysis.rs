//! Validation of `spec.analysis`.

use std::time::Duration;

use super::parse::{NamespaceGuard, non_empty, not_negative, require_name};
use super::texts::{check_address, check_cookie_name, parse_cookie_attribute};
use super::{
    AlertSeverity, MetricCheck, MetricLimit, MetricSource, ObjectKey, Problems, Steps, ValidatedAlert,
    ValidatedAnalysis, ValidatedSessionAffinity, ValidatedWebhook, WebhookType,
};
use crate::analysis::{CanaryAlert, CanaryAnalysis, CanaryMetric, CanaryWebhook, SessionAffinity};
use crate::duration::parse_go_duration;
use crate::service::HttpMatchRequest;
use crate::v1alpha1::Dialect;

/// Flagger's default for the window of a metric, with the text that queries see.
const DEFAULT_WINDOW: (Duration, &str) = (Duration::from_secs(60), "1m");
/// Flagger's default for the timeout of a webhook.
const DEFAULT_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Default of the schema (and, for 0, of Flagger) for the life of session cookies: one day.
const DEFAULT_COOKIE_AGE: Duration = Duration::from_secs(86_400);

const DURATION_FIX: &str = "use a duration such as 30s or 1m30s";

/// What an analysis is held against.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// As which API it is written.
    pub(super) dialect: Dialect,
    /// `--control-loop-interval`.
    pub(super) control_loop: Duration,
    /// See [`ValidationOptions::shortest_interval`](super::ValidationOptions::shortest_interval).
    pub(super) shortest_interval: Duration,
    /// Whether it is not run, so that it needs no steps.
    pub(super) skip_analysis: bool,
}

/// Checks an analysis.
pub(super) fn parse(
    analysis: &CanaryAnalysis,
    rules: Rules,
    access: &NamespaceGuard<'_>,
    problems: &mut Problems,
) -> ValidatedAnalysis {
    let (root, skipped) = (rules.dialect.analysis_path(), rules.skip_analysis);
    let declared_max_weight = not_negative(&format!("{root}.maxWeight"), analysis.max_weight, problems);
    let max_weight = if declared_max_weight == 0 { 100 } else { declared_max_weight.min(100) };
    ValidatedAnalysis {
        interval: parse_interval(analysis, rules, problems),
        threshold: not_negative(&format!("{root}.threshold"), analysis.threshold, problems).max(1),
        query_errors: None,
        steps: parse_steps(analysis, root, max_weight, skipped, problems),
        max_weight,
        declared_max_weight,
        step_weight_promotion: percentage(
            &format!("{root}.stepWeightPromotion"),
            analysis.step_weight_promotion,
            problems,
        ),
        mirror: analysis.mirror.unwrap_or(false),
        mirror_weight: percentage(&format!("{root}.mirrorWeight"), analysis.mirror_weight, problems),
        primary_ready_threshold: parse_ready_threshold(
            &format!("{root}.primaryReadyThreshold"),
            analysis.primary_ready_threshold,
            problems,
        ),
        canary_ready_threshold: parse_ready_threshold(
            &format!("{root}.canaryReadyThreshold"),
            analysis.canary_ready_threshold,
            problems,
        ),
        matches: parse_matches(analysis, root, problems),
        metrics: parse_metrics(&analysis.metrics, rules.dialect, access, problems),
        alerts: parse_alerts(&analysis.alerts, root, access, problems),
        webhooks: parse_webhooks(&analysis.webhooks, root, problems),
        session_affinity: analysis
            .session_affinity
            .as_ref()
            .map(|affinity| parse_session_affinity(affinity, root, problems)),
    }
}

/// What a canary without an analysis is run with.
pub(crate) fn skipped() -> ValidatedAnalysis {
    let access = NamespaceGuard { own: "", blocked: false };
    let rules = Rules {
        dialect: Dialect::V1Beta1,
        control_loop: Duration::ZERO,
        shortest_interval: Duration::ZERO,
        skip_analysis: true,
    };
    parse(&CanaryAnalysis::default(), rules, &access, &mut Problems::default())
}

/// A percentage. More than 100 is capped, as Flagger does.
fn percentage(path: &str, value: Option<i64>, problems: &mut Problems) -> u32 {
    not_negative(path, value, problems).min(100)
}

/// Shorter intervals than the least count as that, as in Flagger.
fn parse_interval(analysis: &CanaryAnalysis, rules: Rules, problems: &mut Problems) -> Duration {
    let (default, least) = rules.dialect.intervals(rules.control_loop, rules.shortest_interval);
    let text = analysis.interval.as_deref().unwrap_or_default();
    duration_or(&format!("{}.interval", rules.dialect.analysis_path()), text, default, problems).max(least)
}

/// Reads a duration; an empty text means the default.
fn duration_or(path: &str, text: &str, default: Duration, problems: &mut Problems) -> Duration {
    if text.is_empty() {
        return default;
    }
    parse_go_duration(text).unwrap_or_else(|error| {
        problems.add(path, text, error.to_string(), DURATION_FIX);
        default
    })
}

/// Iterations win over a fixed step, which wins over a list of weights: the order in which Flagger looks.
fn parse_steps(
    analysis: &CanaryAnalysis,
    root: &str,
    max_weight: u32,
    skipped: bool,
    problems: &mut Problems,
) -> Steps {
    let iterations = not_negative(&format!("{root}.iterations"), analysis.iterations, problems);
    let step = percentage(&format!("{root}.stepWeight"), analysis.step_weight, problems);
    let weights = parse_step_weights(&analysis.step_weights, root, problems);
    if iterations > 0 {
        return Steps::Iterations(iterations);
    }
    if step > 0 {
        return Steps::Weight { step, max: max_weight };
    }
    if !weights.is_empty() {
        return Steps::Weights(weights);
    }
    let already_reported = [analysis.iterations, analysis.step_weight].iter().any(|value| value.is_some_and(|n| n < 0))
        || !analysis.step_weights.is_empty();
    if !skipped && !already_reported {
        problems.add_missing(
            root,
            "has no steps, so that a run would never advance",
            "set stepWeight, stepWeights or iterations to more than 0",
        );
    }
    Steps::None
}

/// The conditions of an A/B test. One that holds for every request would give all users the canary; what the resource type has no
/// field for (a path, say) is dropped by the API server and leaves such a one behind.
fn parse_matches(analysis: &CanaryAnalysis, root: &str, problems: &mut Problems) -> Vec<HttpMatchRequest> {
    let is_ab_test = analysis.iterations.is_some_and(|iterations| iterations > 0);
    for (index, condition) in analysis.matches.iter().enumerate() {
        let nothing = HttpMatchRequest {
            name: condition.name.clone(),
            ignore_uri_case: condition.ignore_uri_case,
            ..HttpMatchRequest::default()
        };
        if is_ab_test && *condition == nothing {
            problems.add_missing(
                format!("{root}.match[{index}]"),
                "has no condition, so that all requests would go to the canary",
                "give it headers, queryParams or sourceLabels; other conditions are not kept by the API server",
            );
        }
    }
    analysis.matches.clone()
}

fn parse_step_weights(declared: &[i64], root: &str, problems: &mut Problems) -> Vec<u32> {
    let mut weights: Vec<u32> = Vec::with_capacity(declared.len());
    let mut previous = 0;
    for (index, &weight) in declared.iter().enumerate() {
        if weight <= previous {
            let message = match index {
                0 => "must be more than 0, or the run would never start".to_owned(),
                _ => format!("must be more than the weight before it ({previous}), or the run would get stuck"),
            };
            problems.add(
                format!("{root}.stepWeights[{index}]"),
                weight,
                message,
                "list the weights in increasing order",
            );
            return Vec::new();
        }
        previous = weight;
        let capped = u32::try_from(weight).unwrap_or(100).min(100);
        if weights.last() != Some(&capped) {
            weights.push(capped);
        }
    }
    weights
}

/// More than 100 percent of the pods are never available, so that such a threshold would wait forever.
fn parse_ready_threshold(path: &str, value: Option<i64>, problems: &mut Problems) -> u32 {
    let Some(value) = value else { return 100 };
    match u32::try_from(value) {
        Ok(threshold) if threshold <= 100 => threshold,
        _ => {
            problems.add(path, value, "is not a percentage of pods that can be available", "use 0 to 100");
            100
        }
    }
}

fn parse_metrics(
    metrics: &[CanaryMetric],
    dialect: Dialect,
    access: &NamespaceGuard<'_>,
    problems: &mut Problems,
) -> Vec<MetricCheck> {
    let mut checks = Vec::with_capacity(metrics.len());
    let mut template_checks = Vec::new();
    for (index, metric) in metrics.iter().enumerate() {
        let path = format!("{}.metrics[{index}]", dialect.analysis_path());
        let check = parse_metric(metric, &path, problems);
        let with_source = |source| MetricCheck { source, ..check.clone() };
        let built_in = dialect.built_in_metric(&metric.name);
        let query = non_empty(metric.query.as_deref()).map(MetricSource::Query);
        if built_in.is_none() && query.is_none() && metric.template_ref.is_none() {
            problems.add(
                path.as_str(),
                metric.name.as_str(),
                "is neither a built-in metric nor has it a query or a templateRef",
                dialect.built_in_fix(),
            );
        }
        checks.extend([built_in, query].into_iter().flatten().map(with_source));
        if let Some(reference) = &metric.template_ref {
            let path = format!("{path}.templateRef");
            require_name(&path, &reference.name, problems);
            access.check(&path, "metric template", reference, problems);
            template_checks.push(with_source(MetricSource::Template(ObjectKey {
                namespace: reference.namespace_or(access.own).to_owned(),
                name: reference.name.clone(),
            })));
        }
    }
    checks.append(&mut template_checks);
    checks
}

/// The parts of a check that do not depend on its source, with a stand-in for that.
fn parse_metric(metric: &CanaryMetric, path: &str, problems: &mut Problems) -> MetricCheck {
    let interval_text = non_empty(metric.interval.as_deref()).unwrap_or_else(|| DEFAULT_WINDOW.1.to_owned());
    let interval_path = format!("{path}.interval");
    let interval = duration_or(&interval_path, &interval_text, DEFAULT_WINDOW.0, problems);
    if interval.is_zero() {
        problems.add(interval_path, interval_text.as_str(), "is a window without any samples", DURATION_FIX);
    }
    let limit = match metric.threshold_range {
        Some(range) => MetricLimit::Range(range),
        None => MetricLimit::Threshold(metric.threshold.unwrap_or(0.0)),
    };
    if let MetricLimit::Range(range) = limit
        && let (Some(min), Some(max)) = (range.min, range.max)
        && min > max
    {
        problems.add(
            format!("{path}.thresholdRange.min"),
            min,
            format!("is more than max {max}, so that the check could never pass"),
            "lower min or raise max",
        );
    }
    MetricCheck {
        name: metric.name.clone(),
        interval,
        interval_text,
        limit,
        variables: metric.template_variables.clone(),
        source: MetricSource::Query(String::new()),
    }
}

fn parse_alerts(
    alerts: &[CanaryAlert],
    root: &str,
    access: &NamespaceGuard<'_>,
    problems: &mut Problems,
) -> Vec<ValidatedAlert> {
    let mut parsed = Vec::with_capacity(alerts.len());
    for (index, alert) in alerts.iter().enumerate() {
        let path = format!("{root}.alerts[{index}]");
        let severity = match alert.severity.as_deref().unwrap_or_default() {
            "" | "info" => AlertSeverity::Info,
            "warn" => AlertSeverity::Warn,
            "error" => AlertSeverity::Error,
            other => {
                problems.add(format!("{path}.severity"), other, "is not a severity", "use info, warn or error");
                AlertSeverity::Info
            }
        };
        let provider_path = format!("{path}.providerRef");
        require_name(&provider_path, &alert.provider_ref.name, problems);
        access.check(&provider_path, "alert provider", &alert.provider_ref, problems);
        parsed.push(ValidatedAlert {
            name: alert.name.clone(),
            severity,
            provider: ObjectKey {
                namespace: alert.provider_ref.namespace_or(access.own).to_owned(),
                name: alert.provider_ref.name.clone(),
            },
        });
    }
    parsed
}

fn parse_webhooks(webhooks: &[CanaryWebhook], root: &str, problems: &mut Problems) -> Vec<ValidatedWebhook> {
    let mut parsed = Vec::with_capacity(webhooks.len());
    for (index, webhook) in webhooks.iter().enumerate() {
        let path = format!("{root}.webhooks[{index}]");
        parsed.push(ValidatedWebhook {
            name: webhook.name.clone(),
            kind: parse_webhook_type(webhook, &path, problems),
            url: parse_url(webhook, &path, problems),
            timeout: parse_webhook_timeout(webhook, &path, problems),
            retries: not_negative(&format!("{path}.retries"), webhook.retries, problems),
            disable_tls: webhook.disable_tls.unwrap_or(false),
            mute_alert: webhook.mute_alert.unwrap_or(false),
            metadata: webhook.metadata.clone(),
        });
    }
    parsed
}

fn parse_webhook_type(webhook: &CanaryWebhook, path: &str, problems: &mut Problems) -> WebhookType {
    let Some(declared) = webhook.hook_type.as_deref().filter(|name| !name.is_empty()) else {
        return WebhookType::default();
    };
    WebhookType::ALL.into_iter().find(|kind| kind.as_str() == declared).unwrap_or_else(|| {
        let fix = format!("use {}", WebhookType::ALL.map(WebhookType::as_str).join(", "));
        problems.add(format!("{path}.type"), declared, "is not a type of webhook", &fix);
        WebhookType::default()
    })
}

fn parse_url(webhook: &CanaryWebhook, path: &str, problems: &mut Problems) -> String {
    check_address(&format!("{path}.url"), &webhook.url, "http://flagger-loadtester.test/", problems);
    webhook.url.clone()
}

fn parse_webhook_timeout(webhook: &CanaryWebhook, path: &str, problems: &mut Problems) -> Duration {
    let path = format!("{path}.timeout");
    let text = webhook.timeout.as_deref().unwrap_or_default();
    let timeout = duration_or(&path, text, DEFAULT_WEBHOOK_TIMEOUT, problems);
    // Go's HTTP client takes a timeout of zero for none at all; a call that may last forever would hold up its canary.
    if timeout.is_zero() {
        problems.add(path, text, "would let a call last forever", DURATION_FIX);
    }
    timeout
}

fn parse_session_affinity(affinity: &SessionAffinity, root: &str, problems: &mut Problems) -> ValidatedSessionAffinity {
    let path = format!("{root}.sessionAffinity");
    let primary_cookie_name = non_empty(affinity.primary_cookie_name.as_deref());
    if affinity.cookie_name.is_empty() {
        problems.add(format!("{path}.cookieName"), "", "must not be empty", "name the cookie");
    }
    check_cookie_name(&format!("{path}.cookieName"), &affinity.cookie_name, problems);
    if let Some(name) = &primary_cookie_name {
        check_cookie_name(&format!("{path}.primaryCookieName"), name, problems);
    }
    if primary_cookie_name.as_deref() == Some(affinity.cookie_name.as_str()) {
        problems.add(
            format!("{path}.primaryCookieName"),
            affinity.cookie_name.as_str(),
            "must differ from cookieName, or clients of the two sides could not be told apart",
            "give the primary's cookie another name",
        );
    }
    let age = u64::from(not_negative(&format!("{path}.maxAge"), affinity.max_age, problems));
    ValidatedSessionAffinity {
        cookie_name: affinity.cookie_name.clone(),
        primary_cookie_name,
        domain: parse_cookie_attribute(&format!("{path}.domain"), affinity.domain.as_deref(), problems),
        http_only: affinity.http_only.unwrap_or(false),
        max_age: if age == 0 { DEFAULT_COOKIE_AGE } else { Duration::from_secs(age) },
        partitioned: affinity.partitioned.unwrap_or(false),
        path: parse_cookie_attribute(&format!("{path}.path"), affinity.path.as_deref(), problems),
        same_site: parse_cookie_attribute(&format!("{path}.sameSite"), affinity.same_site.as_deref(), problems),
        secure: affinity.secure.unwrap_or(false),
    }
}
