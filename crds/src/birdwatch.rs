//! BirdWatch's resource, `otomato.link/v1alpha1`: the weights of two subsets of one Istio service move step by step, for as long
//! as a query does not rise.
//!
//! Fields, bounds and defaults are those of the otomator's README and of its code. It read an object without looking, so that a
//! wrong field was a default; here it is refused. `review`, which only its code knows, and the options that say aloud what it did
//! in silence (`compare`, `no_data`, `query_errors`, `delete_on_success`) are in the schema.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::serde_helpers::optional_whole;
use crate::service::CanaryService;
use crate::status::CanaryStatus;
use crate::v1alpha1::Dialect;
use crate::validated::{
    CanaryKey, Destination, MetricCheck, MetricLimit, MetricSource, NoData, Problems, Rise, Steps, Target, TargetKind,
    UserRoute, ValidatedCanary, skipped_analysis, validated_service,
};

/// API group.
pub const GROUP: &str = "otomato.link";
/// The one version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of its objects.
pub const API_VERSION: &str = "otomato.link/v1alpha1";
/// Kind.
pub const KIND: &str = "BirdWatch";
/// Subset of the DestinationRule that everybody is served by.
pub const PRODUCTION: &str = "production";
/// Subset of the DestinationRule that is tried.
pub const CANARY: &str = "canary";
/// Label by which both subsets tell versions apart.
pub const VERSION_LABEL: &str = "version";
/// What the query is called in messages.
pub const METRIC: &str = "metric";

/// The otomator's defaults. Its README names none for the interval; five seconds is what its code waits.
const DEFAULT_DEVIATION: f64 = 10.0;
const DEFAULT_INCREMENT: u32 = 1;
const DEFAULT_INTERVAL: u32 = 5;
/// `minimum` and `maximum` of its schema.
const INCREMENTS: (u32, u32) = (1, 10);
const INTERVALS: (u32, u32) = (1, 600);
/// An interval lasts ten minutes at most, so that this is more than a week of errors.
const QUERY_ERRORS: (u32, u32) = (1, 1000);
/// Envoy's port does not matter for subsets: no service is generated.
const UNUSED_PORT: i64 = 80;
/// Bounds of a label's value.
const LONGEST_LABEL: usize = 63;

/// A release of one version of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct BirdWatch {
    /// Name, namespace and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    #[serde(default)]
    pub spec: BirdWatchSpec,
    /// What was observed and decided.
    #[serde(default)]
    pub status: Option<CanaryStatus>,
}

/// `spec` of a [`BirdWatch`]. Everything is optional in the schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BirdWatchSpec {
    /// Name of the VirtualService and of the DestinationRule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// PromQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How much the query may rise above its first value. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// Percentage points by which the canary grows, 1 to 10. Default 1.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub increment: Option<i64>,
    /// Value of the label `version` of the canary's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_version: Option<String>,
    /// `rollback` (default) or `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_unhealthy: Option<String>,
    /// Seconds between two increments, 1 to 600. Default 5.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Whether the object is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<bool>,
    /// `baseline` (default) or `baseline-and-previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<String>,
    /// `zero` (default) or `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data: Option<String>,
    /// Queries in a row that may fail before the canary counts as unhealthy. Default: the controller's outage limit.
    #[serde(default, deserialize_with = "optional_whole", skip_serializing_if = "Option::is_none")]
    pub query_errors: Option<i64>,
    /// Whether the object is deleted when its version is in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_success: Option<bool>,
}

impl BirdWatch {
    /// The form that the operator acts on.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn validated(&self) -> Result<ValidatedCanary, Problems> {
        let mut problems = Problems::default();
        let validated = self.validate(&mut problems);
        if problems.0.is_empty() { Ok(validated) } else { Err(problems) }
    }

    fn validate(&self, problems: &mut Problems) -> ValidatedCanary {
        let spec = &self.spec;
        let name = self.metadata.name.clone().unwrap_or_default();
        let service =
            required("service", spec.service.as_deref(), "name the VirtualService and DestinationRule", problems);
        let version = canary_version(spec, problems);
        let deviation = deviation(spec, problems);
        let freezes =
            choice("if_unhealthy", spec.if_unhealthy.as_deref(), [("rollback", false), ("freeze", true)], problems);
        let increment = bounded("increment", spec.increment, INCREMENTS, DEFAULT_INCREMENT, problems);
        let interval = bounded("interval", spec.interval, INTERVALS, DEFAULT_INTERVAL, problems);
        let query_errors =
            spec.query_errors.map(|_| bounded("query_errors", spec.query_errors, QUERY_ERRORS, 1, problems));
        let compares_previous = choice(
            "compare",
            spec.compare.as_deref(),
            [("baseline", false), ("baseline-and-previous", true)],
            problems,
        );
        let no_data =
            choice("no_data", spec.no_data.as_deref(), [("zero", NoData::Zero), ("wait", NoData::Wait)], problems);
        let metric = required("metric", spec.metric.as_deref(), "write a query in PromQL", problems);

        let mut analysis = skipped_analysis();
        analysis.interval = Duration::from_secs(u64::from(interval));
        analysis.threshold = 1;
        analysis.query_errors = query_errors;
        analysis.steps = Steps::Weight { step: increment, max: 100 };
        analysis.max_weight = 100;
        analysis.declared_max_weight = 100;
        analysis.metrics = vec![MetricCheck {
            name: METRIC.to_owned(),
            interval: analysis.interval,
            interval_text: format!("{interval}s"),
            limit: MetricLimit::Rise(Rise { deviation, compares_previous, no_data }),
            variables: std::collections::BTreeMap::new(),
            source: MetricSource::Query(metric),
        }];
        ValidatedCanary {
            key: CanaryKey {
                namespace: self.metadata.namespace.clone().unwrap_or_default(),
                name,
                uid: self.metadata.uid.clone().unwrap_or_default(),
            },
            dialect: Dialect::BirdWatch,
            generation: self.metadata.generation,
            suspended: spec.review.unwrap_or(false),
            skip_analysis: false,
            revert_on_deletion: false,
            holds_on_failure: false,
            user_route: Some(UserRoute {
                virtual_service: service.clone(),
                primary: Destination::Subset(PRODUCTION.to_owned()),
                canary: Destination::Subset(CANARY.to_owned()),
            }),
            freezes,
            deletes_on_success: spec.delete_on_success.unwrap_or(false),
            subset_version: Some(version),
            progress_deadline: Duration::ZERO,
            provider: Some("istio".to_owned()),
            metrics_server: None,
            target: Target {
                api_version: "networking.istio.io/v1beta1".into(),
                kind: TargetKind::Subset,
                name: service.clone(),
                primary: None,
            },
            autoscaler: None,
            ingress: None,
            route: None,
            upstream: None,
            service: validated_service(&CanaryService { port: UNUSED_PORT, ..CanaryService::default() }, &service),
            analysis,
        }
    }
}

fn required(field: &str, value: Option<&str>, fix: &str, problems: &mut Problems) -> String {
    match value.map(str::trim) {
        None | Some("") => {
            problems.add_missing(format!("spec.{field}"), "is required", fix);
            String::new()
        }
        Some(text) => text.to_owned(),
    }
}

fn canary_version(spec: &BirdWatchSpec, problems: &mut Problems) -> String {
    let fix = "set it to the label version of the pods to be tried";
    let version = required("canary_version", spec.canary_version.as_deref(), fix, problems);
    let is_inner = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let ends_well = version.starts_with(|first: char| first.is_ascii_alphanumeric())
        && version.ends_with(|last: char| last.is_ascii_alphanumeric());
    if !version.is_empty() && (version.len() > LONGEST_LABEL || !version.chars().all(is_inner) || !ends_well) {
        let fix = "use at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
        problems.add("spec.canary_version", version.as_str(), "cannot be the value of a label", fix);
    }
    version
}

fn deviation(spec: &BirdWatchSpec, problems: &mut Problems) -> f64 {
    let deviation = spec.deviation.unwrap_or(DEFAULT_DEVIATION);
    if deviation < 0.0 {
        problems.add("spec.deviation", deviation, "must not be negative", "use 0 or more; only a rise is unhealthy");
    }
    deviation
}

fn bounded(field: &str, value: Option<i64>, (least, most): (u32, u32), default: u32, problems: &mut Problems) -> u32 {
    let Some(value) = value else { return default };
    match u32::try_from(value) {
        Ok(value) if (least..=most).contains(&value) => value,
        _ => {
            let fix = format!("use a whole number from {least} to {most}, or leave it out");
            problems.add(format!("spec.{field}"), value, format!("is not between {least} and {most}"), &fix);
            default
        }
    }
}

/// The meaning of one of two words; without one, that of the first.
fn choice<T: Copy>(field: &str, value: Option<&str>, choices: [(&str, T); 2], problems: &mut Problems) -> T {
    let [(default, meaning), (other, _)] = choices;
    let Some(word) = value else { return meaning };
    if let Some((_, meaning)) = choices.iter().find(|(choice, _)| *choice == word) {
        return *meaning;
    }
    let fix = format!("use {default} or {other}, or leave it out");
    problems.add(format!("spec.{field}"), word, "is not known", &fix);
    meaning
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::*;

    fn validated(spec: &Value) -> Result<ValidatedCanary, String> {
        let object = json!({"metadata": {"name": "aleph", "namespace": "test"}, "spec": spec});
        let object: BirdWatch = crate::decode(&object).map_err(|error| error.to_string())?;
        object.validated().map_err(|problems| problems.to_string())
    }

    fn example() -> Value {
        json!({
            "canary_version": "v04", "if_unhealthy": "rollback", "increment": 1, "interval": 5, "service": "aleph",
            "metric": "sum(irate(istio_requests_total{response_code=\"500\"}[30s]))", "deviation": 0.5,
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut spec = example();
        spec[field] = value;
        spec
    }

    fn rise(canary: &ValidatedCanary) -> Rise {
        match canary.analysis.metrics[0].limit {
            MetricLimit::Rise(rise) => rise,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_readmes_example_is_what_it_says() {
        let canary = validated(&example()).unwrap();
        assert_eq!(canary.analysis.interval, Duration::from_secs(5));
        assert_eq!(canary.analysis.steps, Steps::Weight { step: 1, max: 100 });
        assert_eq!((canary.target.kind, canary.target.name.as_str()), (TargetKind::Subset, "aleph"));
        assert_eq!(canary.subset_version.as_deref(), Some("v04"));
        assert!(!canary.freezes && !canary.suspended && !canary.deletes_on_success);
    }

    /// The otomator cut 0.5 to 0, which allows no rise at all.
    #[test]
    fn a_deviation_may_be_a_fraction() {
        let expected = Rise { deviation: 0.5, compares_previous: false, no_data: NoData::Zero };
        assert_eq!(rise(&validated(&example()).unwrap()), expected);
    }

    /// The otomator waited five seconds whatever it said.
    #[test]
    fn an_interval_is_honoured_in_seconds() {
        let interval = |value| validated(&with("interval", value)).unwrap().analysis.interval.as_secs();
        assert_eq!((interval(json!(1)), interval(json!(600)), interval(Value::Null)), (1, 600, 5));
    }

    #[test]
    fn options_are_read() {
        let mut spec = example();
        for (field, value) in [
            ("if_unhealthy", json!("freeze")),
            ("compare", json!("baseline-and-previous")),
            ("no_data", json!("wait")),
            ("query_errors", json!(3)),
            ("review", json!(true)),
            ("delete_on_success", json!(true)),
        ] {
            spec[field] = value;
        }
        let canary = validated(&spec).unwrap();
        assert!(canary.freezes && canary.suspended && canary.deletes_on_success);
        assert_eq!(canary.analysis.query_errors, Some(3));
        assert_eq!(rise(&canary), Rise { deviation: 0.5, compares_previous: true, no_data: NoData::Wait });
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_by_field_value_and_fix() {
        let text = validated(&json!({
            "increment": 11, "interval": 0, "deviation": -1.5, "if_unhealthy": "rollbck", "canary_version": "v 4",
            "compare": "both", "no_data": "0", "query_errors": 0, "metric": " ",
        }))
        .unwrap_err();
        let expected = [
            "spec.service: is required; name the VirtualService and DestinationRule",
            "spec.canary_version: cannot be the value of a label (got \"v 4\"); use at most 63 letters, digits, '-', '_' and \
             '.', with a letter or digit at both ends",
            "spec.deviation: must not be negative (got -1.5); use 0 or more; only a rise is unhealthy",
            "spec.if_unhealthy: is not known (got \"rollbck\"); use rollback or freeze, or leave it out",
            "spec.increment: is not between 1 and 10 (got 11); use a whole number from 1 to 10, or leave it out",
            "spec.interval: is not between 1 and 600 (got 0); use a whole number from 1 to 600, or leave it out",
            "spec.query_errors: is not between 1 and 1000 (got 0); use a whole number from 1 to 1000, or leave it out",
            "spec.compare: is not known (got \"both\"); use baseline or baseline-and-previous, or leave it out",
            "spec.no_data: is not known (got \"0\"); use zero or wait, or leave it out",
            "spec.metric: is required; write a query in PromQL",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let fraction = validated(&with("increment", json!(1.5))).unwrap_err();
        assert!(fraction.contains("spec.increment") && fraction.contains("whole number"), "{fraction}");
    }
}
