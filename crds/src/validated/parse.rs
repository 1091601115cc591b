//! From [`Canary`] to [`ValidatedCanary`]: identity, target, references. Service and analysis have their own files.
//!
//! A function here reports what is wrong and goes on with a stand-in, so that all problems are found in one pass. The
//! stand-ins never get out: with a single problem there is no [`ValidatedCanary`].

use std::time::Duration;

use super::texts::check_address;
use super::{
    Autoscaler, AutoscalerKind, CanaryKey, MetricSource, Problems, Target, TargetKind, ValidatedCanary,
    ValidatedService, ValidationOptions, analysis, service,
};
use crate::canary::{AutoscalerReference, Canary, CanarySpec, CrossNamespaceObjectReference, LocalObjectReference};
use crate::names::{KNATIVE_API_VERSION, KNATIVE_PROVIDER};
use crate::v1alpha1::{self, Dialect};

/// Flagger's default for `progressDeadlineSeconds`.
const DEFAULT_PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

const OWN_NAMESPACE: &str =
    "refer to an object in the canary's namespace, or run the controller without --no-cross-namespace-refs";

impl ValidatedCanary {
    /// Checks a canary and applies defaults.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(canary: &Canary, options: &ValidationOptions) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let validated = parse(canary, *options, &mut problems);
        if problems.0.is_empty() { Ok(validated) } else { Err(problems) }
    }
}

fn parse(canary: &Canary, options: ValidationOptions, problems: &mut Problems) -> ValidatedCanary {
    let spec = &canary.spec;
    let key = parse_key(canary, problems);
    let target = parse_target(spec, problems);
    check_knative(spec, &target, problems);
    check_target(spec, &target, problems);
    let namespace = key.namespace.as_str();
    let access = NamespaceGuard { own: namespace, blocked: options.no_cross_namespace_refs };

    let dialect = Dialect::of(spec);
    let declared_analysis = spec.effective_analysis();
    let skip_analysis = spec.skip_analysis.unwrap_or(false) || declared_analysis.is_none();

    let validated = ValidatedCanary {
        generation: canary.metadata.generation,
        suspended: spec.suspend.unwrap_or(false),
        skip_analysis,
        freezes: false,
        deletes_on_success: false,
        subset_version: None,
        revert_on_deletion: spec.revert_on_deletion.unwrap_or(false),
        holds_on_failure: false,
        user_route: None,
        progress_deadline: parse_progress_deadline(spec, problems),
        provider: parse_provider(spec, dialect),
        metrics_server: non_empty(spec.metrics_server.as_deref()),
        autoscaler: spec.autoscaler_ref.as_ref().map(|reference| parse_autoscaler(reference, problems)),
        ingress: parse_reference("spec.ingressRef", spec.ingress_ref.as_ref(), problems),
        route: parse_reference("spec.routeRef", spec.route_ref.as_ref(), problems),
        upstream: parse_upstream(spec.upstream_ref.as_ref(), &access, problems),
        service: parse_service(spec, &target, problems),
        analysis: match declared_analysis {
            Some(declared) => {
                let rules = analysis::Rules {
                    dialect,
                    control_loop: options.control_loop_interval,
                    shortest_interval: options.shortest_interval,
                    skip_analysis,
                };
                analysis::parse(declared, rules, &access, problems)
            }
            None => analysis::skipped(),
        },
        target,
        key,
        dialect,
    };
    check_metrics_server(&validated, problems);
    validated
}

/// Decides whether a canary may refer to an object.
pub(super) struct NamespaceGuard<'a> {
    /// Namespace of the canary.
    pub(super) own: &'a str,
    /// Whether other namespaces are out of bounds.
    pub(super) blocked: bool,
}

impl NamespaceGuard<'_> {
    /// Reports a reference to another namespace if that is not allowed. `what` is Flagger's name for the kind.
    pub(super) fn check(
        &self,
        path: &str,
        what: &str,
        reference: &CrossNamespaceObjectReference,
        problems: &mut Problems,
    ) {
        let namespace = reference.namespace_or(self.own);
        if !self.blocked || namespace == self.own {
            return;
        }
        problems.add(
            format!("{path}.namespace"),
            namespace,
            format!("can't access {what} {}.{namespace}, cross-namespace references are blocked", reference.name),
            OWN_NAMESPACE,
        );
    }
}

/// `None` for an absent and for an empty text, which mean the same in Go.
pub(super) fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// An integer from 0 on. A negative one is reported; one beyond [`u32`] counts as the largest.
pub(super) fn not_negative(path: &str, value: Option<i64>, problems: &mut Problems) -> u32 {
    let value = value.unwrap_or(0);
    if value < 0 {
        problems.add(path, value, "must not be negative", "use 0 or more, or leave it out");
        return 0;
    }
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Reports an empty name in a reference, which no object can have.
pub(super) fn require_name(path: &str, name: &str, problems: &mut Problems) {
    if name.is_empty() {
        problems.add(format!("{path}.name"), name, "must not be empty", "name an object");
    }
}

fn parse_key(canary: &Canary, problems: &mut Problems) -> CanaryKey {
    let metadata = &canary.metadata;
    let mut require = |field: &str, value: &Option<String>| match value.as_deref() {
        None | Some("") => {
            problems.add_missing(format!("metadata.{field}"), "is required", "set it");
            String::new()
        }
        Some(value) => value.to_owned(),
    };
    CanaryKey {
        namespace: require("namespace", &metadata.namespace),
        name: require("name", &metadata.name),
        uid: metadata.uid.clone().unwrap_or_default(),
    }
}

fn parse_target(spec: &CanarySpec, problems: &mut Problems) -> Target {
    let reference = &spec.target_ref;
    require_name("spec.targetRef", &reference.name, problems);
    let kind = match reference.kind.as_str() {
        "Deployment" => TargetKind::Deployment,
        "DaemonSet" => TargetKind::DaemonSet,
        "Service" => TargetKind::Service,
        other => {
            problems.add(
                "spec.targetRef.kind",
                other,
                "is not a kind of workload that can be released",
                "use Deployment, DaemonSet or Service",
            );
            TargetKind::Deployment
        }
    };
    Target { api_version: reference.api_version.clone(), kind, name: reference.name.clone(), primary: None }
}

/// Knative targets and the Knative provider need each other. Texts as in Flagger's `verifyKnativeCanary`.
fn check_knative(spec: &CanarySpec, target: &Target, problems: &mut Problems) {
    let provider = spec.provider.as_deref().unwrap_or_default();
    if target.is_knative() && provider != KNATIVE_PROVIDER {
        problems.add(
            "spec.provider",
            provider,
            format!("can't use {provider} provider with Knative Service as target"),
            "set spec.provider to knative",
        );
    }
    if target.is_knative() && spec.autoscaler_ref.is_some() {
        problems.add_missing(
            "spec.autoscalerRef",
            "can't use autoscaler with Knative Service",
            "remove it: Knative scales its services itself",
        );
    }
    if !target.is_knative() && provider == KNATIVE_PROVIDER {
        let reference = &spec.target_ref;
        problems.add(
            "spec.targetRef",
            format!("{}/{}", reference.api_version, reference.kind),
            format!("can't use {}/{} as target if provider is set to knative", reference.api_version, reference.kind),
            &format!("use kind Service with apiVersion {KNATIVE_API_VERSION}, or another provider"),
        );
    }
}

/// What a kind of target cannot have.
fn check_target(spec: &CanarySpec, target: &Target, problems: &mut Problems) {
    let kind = target.kind;
    if kind != TargetKind::Deployment
        && !target.is_knative()
        && let Some(autoscaler) = &spec.autoscaler_ref
    {
        problems.add(
            "spec.autoscalerRef",
            autoscaler.name.as_str(),
            format!("a {kind} has no replicas that an autoscaler could set"),
            "remove it, or release a Deployment",
        );
    }
    let apex = spec.service.as_ref().and_then(|service| service.name.as_deref()).unwrap_or_default();
    if kind == TargetKind::Service && !target.is_knative() && !apex.is_empty() && apex != target.name {
        problems.add(
            "spec.service.name",
            apex,
            format!("is not the target, and users of a Service target call the target {}", target.name),
            "remove it",
        );
    }
}

/// Flagger 0.1 had one mesh and no field for it; its canaries do not follow the controller's default.
fn parse_provider(spec: &CanarySpec, dialect: Dialect) -> Option<String> {
    let declared = non_empty(spec.provider.as_deref());
    match dialect {
        Dialect::V1Beta1 | Dialect::Steerer | Dialect::BirdWatch => declared,
        Dialect::V1Alpha1 => declared.or_else(|| Some(v1alpha1::PROVIDER.to_owned())),
    }
}

/// Flagger takes an address that leads nowhere where nothing is asked of it.
fn check_metrics_server(canary: &ValidatedCanary, problems: &mut Problems) {
    let is_asked = canary.analysis.metrics.iter().any(|metric| !matches!(metric.source, MetricSource::Template(_)));
    if let Some(address) = canary.metrics_server.as_deref().filter(|_| is_asked) {
        check_address("spec.metricsServer", address, "http://prometheus.istio-system:9090", problems);
    }
}

fn parse_progress_deadline(spec: &CanarySpec, problems: &mut Problems) -> Duration {
    let Some(seconds) = spec.progress_deadline_seconds else {
        return DEFAULT_PROGRESS_DEADLINE;
    };
    Duration::from_secs(u64::from(not_negative("spec.progressDeadlineSeconds", Some(seconds), problems)))
}

fn parse_autoscaler(reference: &AutoscalerReference, problems: &mut Problems) -> Autoscaler {
    const PATH: &str = "spec.autoscalerRef";
    require_name(PATH, &reference.name, problems);
    let kind = match reference.kind.as_str() {
        "HorizontalPodAutoscaler" => AutoscalerKind::HorizontalPodAutoscaler,
        "ScaledObject" => AutoscalerKind::ScaledObject,
        other => {
            problems.add(
                format!("{PATH}.kind"),
                other,
                "is not a kind of autoscaler that is known",
                "use HorizontalPodAutoscaler or ScaledObject",
            );
            AutoscalerKind::HorizontalPodAutoscaler
        }
    };
    let bounds = reference.primary_scaler_replicas.unwrap_or_default();
    let mut replicas = |field: &str, value: Option<i64>| {
        let value = value?;
        let path = format!("{PATH}.primaryScalerReplicas.{field}");
        if value < 1 {
            problems.add(path, value, "must be at least 1", "use 1 or more, or leave it out");
            return None;
        }
        Some(u32::try_from(value).unwrap_or(u32::MAX))
    };
    let primary_min_replicas = replicas("minReplicas", bounds.min_replicas);
    let primary_max_replicas = replicas("maxReplicas", bounds.max_replicas);
    if let (Some(min), Some(max)) = (primary_min_replicas, primary_max_replicas)
        && min > max
    {
        problems.add(
            format!("{PATH}.primaryScalerReplicas.minReplicas"),
            min,
            format!("is more than maxReplicas {max}, which no autoscaler accepts"),
            "lower minReplicas or raise maxReplicas",
        );
    }
    Autoscaler {
        api_version: reference.api_version.clone(),
        kind,
        name: reference.name.clone(),
        primary_queries: reference.primary_scaler_queries.clone(),
        primary_min_replicas,
        primary_max_replicas,
    }
}

fn parse_reference(
    path: &str,
    reference: Option<&LocalObjectReference>,
    problems: &mut Problems,
) -> Option<LocalObjectReference> {
    let reference = reference?;
    require_name(path, &reference.name, problems);
    Some(reference.clone())
}

fn parse_upstream(
    reference: Option<&CrossNamespaceObjectReference>,
    access: &NamespaceGuard<'_>,
    problems: &mut Problems,
) -> Option<CrossNamespaceObjectReference> {
    const PATH: &str = "spec.upstreamRef";
    let reference = reference?;
    require_name(PATH, &reference.name, problems);
    access.check(PATH, "gloo upstream", reference, problems);
    Some(reference.clone())
}

fn parse_service(spec: &CanarySpec, target: &Target, problems: &mut Problems) -> ValidatedService {
    if let Some(declared) = &spec.service {
        return service::parse(declared, &target.name, problems);
    }
    if !target.is_knative() {
        problems.add_missing(
            "spec.service",
            "is required unless the target is a Knative Service",
            "add a service with at least a port",
        );
    }
    service::for_knative(&target.name)
}
