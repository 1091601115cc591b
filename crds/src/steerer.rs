//! Steerer's Rollout (`apps.weave.works/v1beta1`), from which Flagger grew: two Deployments, two services and a VirtualService that
//! the user has made, and nothing that is generated.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::serde_helpers::{null_as_default, optional_whole};
use crate::service::CanaryService;
use crate::status::{CanaryStatus, Phase};
use crate::v1alpha1::Dialect;
use crate::validated::{
    CanaryKey, Destination, MetricCheck, MetricLimit, MetricSource, Problems, Steps, Target, TargetKind, UserRoute,
    ValidatedAnalysis, ValidatedCanary, ValidationOptions, skipped_analysis, validated_service,
};

/// Group of the resource.
pub const GROUP: &str = "apps.weave.works";
/// Version of the resource.
pub const VERSION: &str = "v1beta1";
/// Kind of the resource.
pub const KIND: &str = "Rollout";
/// Component named as the source of its events.
pub const EVENT_SOURCE: &str = "steerer";
/// Annotation in which Steerer kept its state: `running` or `finished`.
pub const STATUS_ANNOTATION: &str = "apps.weave.works/status";
/// Status field for [`Phase`] in Steerer's words.
pub const STATE: &str = "state";
/// Status field for the canary's weight in Steerer's words.
pub const CANARY_WEIGHT: &str = "canary_weight";

/// Steerer's step where none is given.
const DEFAULT_STEP: i64 = 10;
/// The counter that Steerer's documents name.
const DEFAULT_COUNTER: &str = "istio_requests_total";
/// The histogram that they name beside it.
const LATENCY: &str = "istio_request_duration_seconds_bucket";
/// Window of the query where none is given.
const DEFAULT_WINDOW: &str = "1m";
/// Faster than Prometheus scrapes there is nothing new to see, and a zero would never let go of the processor.
const LEAST_CONTROL_LOOP: Duration = Duration::from_secs(1);
/// How long a Deployment may lack pods before that is called a failure; a rollout waits either way.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);
/// A revision that cannot be compared with ours, as those of Steerer cannot: it took resource versions.
const UNKNOWN_REVISION: &str = "unknown";

/// A release of one Deployment's pods to another one.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Rollout {
    /// Name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: RolloutSpec,
}

/// `spec` of a [`Rollout`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Kind of both workloads; only `Deployment` was ever released.
    #[serde(default)]
    pub target_kind: Option<String>,
    /// What serves users between two releases.
    pub primary: Side,
    /// What is tried.
    pub canary: Side,
    /// The routes.
    pub virtual_service: Routes,
    /// What the canary is judged by.
    #[serde(default)]
    pub metric: Option<Metric>,
    /// The same in the form of Steerer's last days: several, one of them a latency.
    #[serde(default)]
    pub metrics: Option<Vec<Metric>>,
    /// What the last of Steerer's examples have in the place of `metrics` and of the routes' weight. It is refused: it rolls back.
    #[serde(default)]
    pub canary_analysis: Option<Value>,
}

/// One side of a [`Rollout`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Side {
    /// Name of the Deployment.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Name of its ClusterIP service, as the VirtualService has it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub host: String,
}

/// The routes of a [`Rollout`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Routes {
    /// Name of the VirtualService.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Percentage points by which the canary's weight grows. Default 10.
    #[serde(default, deserialize_with = "optional_whole")]
    pub weight: Option<i64>,
}

/// A metric of a [`Rollout`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metric {
    /// Name of the request counter, in `metrics` also of the histogram of latencies. Default `istio_requests_total`.
    #[serde(default)]
    pub name: Option<String>,
    /// Window of the query. Default `1m`.
    #[serde(default)]
    pub interval: Option<String>,
    /// Least success rate in percent; without it only an answer without values halts the rollout. For latencies the greatest 99th
    /// percentile in milliseconds, which must be given.
    #[serde(default)]
    pub threshold: Option<f64>,
}

impl Rollout {
    /// Checks a rollout and applies defaults.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn validated(&self, options: &ValidationOptions) -> Result<ValidatedCanary, Problems> {
        let mut problems = Problems::default();
        let canary = validated(self, options, &mut problems);
        if problems.0.is_empty() { Ok(canary) } else { Err(problems) }
    }
}

fn validated(rollout: &Rollout, options: &ValidationOptions, problems: &mut Problems) -> ValidatedCanary {
    let spec = &rollout.spec;
    if let Some(kind) = spec.target_kind.as_deref().filter(|kind| !kind.is_empty() && *kind != "Deployment") {
        problems.add("spec.targetKind", kind, "is not a kind that a Rollout can release", "use Deployment");
    }
    check_sides(spec, problems);
    let step = spec.virtual_service.weight.unwrap_or(DEFAULT_STEP);
    if !(1..=100).contains(&step) {
        problems.add("spec.virtualService.weight", step, "is not a step in percent", "use 1 to 100, or leave it out");
    }
    let metadata = &rollout.metadata;
    let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let declared_service = CanaryService { port: 80, ..CanaryService::default() };
    ValidatedCanary {
        key: CanaryKey { namespace, name, uid: metadata.uid.clone().unwrap_or_default() },
        dialect: Dialect::Steerer,
        generation: metadata.generation,
        suspended: false,
        skip_analysis: false,
        revert_on_deletion: false,
        holds_on_failure: true,
        freezes: false,
        deletes_on_success: false,
        subset_version: None,
        user_route: Some(UserRoute {
            virtual_service: spec.virtual_service.name.clone(),
            primary: Destination::Host(spec.primary.host.clone()),
            canary: Destination::Host(spec.canary.host.clone()),
        }),
        progress_deadline: PROGRESS_DEADLINE,
        provider: Some("istio".to_owned()),
        metrics_server: None,
        target: Target {
            api_version: "apps/v1".to_owned(),
            kind: TargetKind::DeploymentPair,
            name: spec.canary.name.clone(),
            primary: Some(spec.primary.name.clone()),
        },
        autoscaler: None,
        ingress: None,
        route: None,
        upstream: None,
        service: validated_service(&declared_service, &spec.primary.host),
        analysis: ValidatedAnalysis {
            interval: options.control_loop_interval.max(LEAST_CONTROL_LOOP),
            steps: Steps::Weight { step: u32::try_from(step).unwrap_or(1), max: 100 },
            max_weight: 100,
            declared_max_weight: 100,
            metrics: checks(spec, problems),
            ..skipped_analysis()
        },
    }
}

fn check_sides(spec: &RolloutSpec, problems: &mut Problems) {
    const FIX: &str = "name the one that you have made";
    let required = [
        ("spec.primary.name", &spec.primary.name),
        ("spec.primary.host", &spec.primary.host),
        ("spec.canary.name", &spec.canary.name),
        ("spec.canary.host", &spec.canary.host),
        ("spec.virtualService.name", &spec.virtual_service.name),
    ];
    for (path, value) in required {
        if value.is_empty() {
            problems.add_missing(path, "is required", FIX);
        }
    }
    let sides = [
        ("spec.canary.name", &spec.primary.name, &spec.canary.name),
        ("spec.canary.host", &spec.primary.host, &spec.canary.host),
    ];
    for (path, primary, canary) in sides {
        if primary == canary && !canary.is_empty() {
            problems.add(path, canary.as_str(), "is that of the primary, too", "give the two sides one each");
        }
    }
}

fn checks(spec: &RolloutSpec, problems: &mut Problems) -> Vec<MetricCheck> {
    if spec.canary_analysis.is_some() {
        problems.add_missing(
            "spec.canaryAnalysis",
            "is not served in a Rollout",
            "use spec.metrics and spec.virtualService.weight, or a Canary of flagger.app/v1alpha1, which has this field",
        );
    }
    let single = spec.metric.iter().map(|metric| ("spec.metric".to_owned(), metric));
    let several = spec.metrics.iter().flatten().enumerate();
    let several = several.map(|(index, metric)| (format!("spec.metrics[{index}]"), metric));
    let checks: Vec<(String, &Metric)> = single.chain(several).collect();
    checks.into_iter().map(|(path, metric)| check(&path, metric, problems)).collect()
}

fn check(path: &str, metric: &Metric, problems: &mut Problems) -> MetricCheck {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let name = given(&metric.name).unwrap_or_else(|| DEFAULT_COUNTER.to_owned());
    // It becomes a part of a query.
    let is_name = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':');
    if !is_name || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        let path = format!("{path}.name");
        problems.add(path.as_str(), name.as_str(), "is not the name of a counter", "use istio_requests_total");
    }
    let window = given(&metric.interval).unwrap_or_else(|| DEFAULT_WINDOW.to_owned());
    let interval = window_of(&window).unwrap_or_else(|| {
        let path = format!("{path}.interval");
        problems.add(path.as_str(), window.as_str(), "is not a window", "use minutes, such as 1m");
        Duration::ZERO
    });
    let source = match name.as_str() {
        DEFAULT_COUNTER => MetricSource::SuccessRate,
        LATENCY => MetricSource::DurationInSeconds,
        _ => MetricSource::SuccessRateOf(name.clone()),
    };
    let threshold = metric.threshold.unwrap_or(0.0);
    let path = format!("{path}.threshold");
    match source {
        MetricSource::DurationInSeconds if metric.threshold.is_none() => {
            problems.add_missing(path, "is required", "give the greatest 99th percentile in milliseconds");
        }
        MetricSource::DurationInSeconds if threshold < 0.0 => {
            problems.add(path, threshold, "is not a time in milliseconds", "use 0 or more");
        }
        MetricSource::DurationInSeconds => {}
        _ if (0.0..=100.0).contains(&threshold) => {}
        _ => problems.add(path, threshold, "is not a percentage", "use 0 to 100"),
    }
    MetricCheck {
        name,
        interval,
        interval_text: window,
        limit: MetricLimit::Threshold(threshold),
        variables: std::collections::BTreeMap::new(),
        source,
    }
}

/// Steerer took minutes alone; seconds and hours are read as well.
fn window_of(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let count: u64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count > 0)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    count.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads what Steerer left in an object's annotations, where nobody has written a status yet. A finished rollout is one whose
/// revision cannot be compared; one that was running goes on from the weight that its routes have.
pub fn take_over(mut status: CanaryStatus, metadata: &ObjectMeta) -> CanaryStatus {
    let left = metadata.annotations.as_ref().and_then(|annotations| annotations.get(STATUS_ANNOTATION));
    if status.phase == Phase::Uninitialized && left.is_some_and(|left| left == "finished") {
        status.phase = Phase::Succeeded;
        status.last_applied_spec.get_or_insert_with(|| UNKNOWN_REVISION.to_owned());
    }
    status
}

/// Adds the fields that Steerer's users look at.
pub fn with_own_fields(mut status: CanaryStatus) -> CanaryStatus {
    let state = match status.phase {
        Phase::Uninitialized | Phase::Initializing | Phase::Initialized | Phase::Terminating | Phase::Terminated => "",
        Phase::Waiting | Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising => {
            "running"
        }
        Phase::Succeeded | Phase::Failed => "finished",
    };
    match state {
        "" => status.other.remove(STATE),
        state => status.other.insert(STATE.to_owned(), state.into()),
    };
    status.other.insert(CANARY_WEIGHT.to_owned(), status.canary_weight.into());
    status
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn rollout(change: impl FnOnce(&mut Value)) -> Result<ValidatedCanary, String> {
        let mut object = json!({
            "apiVersion": "apps.weave.works/v1beta1", "kind": "Rollout",
            "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {
                "targetKind": "Deployment",
                "primary": {"name": "podinfo", "host": "podinfo"},
                "canary": {"name": "podinfo-canary", "host": "podinfo-canary"},
                "virtualService": {"name": "podinfo", "weight": 10},
                "metric": {"type": "counter", "name": "istio_requests_total", "interval": "1m", "threshold": 99},
            },
        });
        change(&mut object["spec"]);
        let rollout: Rollout = crate::decode(&object).map_err(|error| error.to_string())?;
        rollout.validated(&ValidationOptions::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_rollout_of_the_readme_is_a_canary_of_two_workloads_that_somebody_made() {
        let canary = rollout(|_| {}).unwrap();
        assert_eq!((canary.target.name.as_str(), canary.target.primary_name().as_str()), ("podinfo-canary", "podinfo"));
        assert_eq!(canary.analysis.steps, Steps::Weight { step: 10, max: 100 });
        assert_eq!(canary.analysis.interval, Duration::from_secs(10));
        assert!(canary.holds_on_failure && !canary.skip_analysis);
        let check = &canary.analysis.metrics[0];
        assert_eq!((&check.source, check.limit), (&MetricSource::SuccessRate, MetricLimit::Threshold(99.0)));
    }

    #[test]
    fn what_is_left_out_has_steerers_defaults() {
        let canary = rollout(|spec| {
            spec["virtualService"] = json!({"name": "podinfo"});
            spec["metric"] = json!({"threshold": 99});
        });
        let canary = canary.unwrap();
        assert_eq!(canary.analysis.steps, Steps::Weight { step: 10, max: 100 });
        assert_eq!(canary.analysis.metrics[0].interval_text, "1m");
        let without = rollout(|spec| spec["metric"] = Value::Null).unwrap();
        assert!(without.analysis.metrics.is_empty());
    }

    #[test]
    fn all_that_is_wrong_is_told_by_field() {
        let text = rollout(|spec| {
            spec["targetKind"] = json!("StatefulSet");
            spec["canary"] = json!({"name": "podinfo"});
            spec["virtualService"]["weight"] = json!(0);
            spec["metric"] = json!({"name": "a\"}", "interval": "soon", "threshold": 101});
        });
        let text = text.unwrap_err();
        for path in [
            "spec.targetKind: ",
            "spec.canary.host: ",
            "spec.canary.name: ",
            "spec.virtualService.weight: ",
            "spec.metric.name: ",
            "spec.metric.interval: ",
            "spec.metric.threshold: ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(path)), "{path}\n{text}");
        }
    }

    #[test]
    fn the_metrics_of_steerers_last_days_are_checks_like_the_one_before() {
        let canary = rollout(|spec| {
            spec["metric"] = Value::Null;
            spec["metrics"] = json!([
                {"name": "istio_requests_total", "threshold": 99, "interval": "1m"},
                {"name": "istio_request_duration_seconds_bucket", "threshold": 500, "interval": "30s"},
            ]);
        });
        let metrics = canary.unwrap().analysis.metrics;
        let found: Vec<_> =
            metrics.iter().map(|check| (&check.source, check.limit, check.interval.as_secs())).collect();
        let expected = [
            (&MetricSource::SuccessRate, MetricLimit::Threshold(99.0), 60),
            (&MetricSource::DurationInSeconds, MetricLimit::Threshold(500.0), 30),
        ];
        assert_eq!(found, expected);
        let wrong = rollout(|spec| {
            spec["metrics"] =
                json!([{"threshold": 101}, {"name": "istio_request_duration_seconds_bucket", "threshold": -1}]);
        });
        let text = wrong.unwrap_err();
        assert!(text.contains("spec.metrics[0].threshold: ") && text.contains("spec.metrics[1].threshold: "), "{text}");
    }

    #[test]
    fn an_analysis_that_would_roll_back_is_refused_by_name() {
        let analysis = json!({"threshold": 10, "maxWeight": 50, "stepWeight": 5, "metrics": []});
        let text = rollout(|spec| spec["canaryAnalysis"] = analysis).unwrap_err();
        assert!(text.starts_with("spec.canaryAnalysis: is not served in a Rollout"), "{text}");
    }

    #[test]
    fn what_steerer_finished_is_not_begun_again() {
        let metadata = |state: &str| ObjectMeta {
            annotations: Some([(STATUS_ANNOTATION.to_owned(), state.to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert_eq!(take_over(CanaryStatus::default(), &metadata("finished")).phase, Phase::Succeeded);
        assert_eq!(take_over(CanaryStatus::default(), &metadata("running")).phase, Phase::Uninitialized);
        let own = CanaryStatus { phase: Phase::Progressing, ..CanaryStatus::default() };
        assert_eq!(take_over(own, &metadata("finished")).phase, Phase::Progressing);
    }
}
