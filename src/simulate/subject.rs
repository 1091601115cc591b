//! A canary of the input, as far as the simulation needs to know it.

use std::collections::BTreeMap;

use aviary_actors::ControllerConfig;
use aviary_crds::birdwatch;
use aviary_crds::steerer;
use aviary_crds::v1alpha1::Dialect;
use aviary_crds::validated::{
    MetricCheck, MetricLimit, MetricSource, ObjectKey, TargetKind, ValidatedCanary, WebhookType,
};
use aviary_providers::kinds;
use kube::core::DynamicObject;
use serde_json::Value;

use super::manifests::{Manifest, Manifests};

/// A canary that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) canary: ValidatedCanary,
    /// `spec.provider`, or else `--mesh-provider`.
    pub(crate) provider: String,
    /// The image that its release brings, where the input says it.
    pub(crate) release: Option<String>,
    /// Workloads of the primary and of the canary; of a Service that which it selects now and that which it selects next.
    pub(crate) workloads: [String; 2],
    /// What a Service selects with the release.
    pub(crate) next_selector: Option<BTreeMap<String, String>>,
}

impl Subject {
    pub(crate) fn namespace(&self) -> &str {
        &self.canary.key.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.canary.key.name
    }

    /// Kind of the object.
    pub(crate) fn kind(&self) -> &'static str {
        match self.canary.dialect {
            Dialect::V1Beta1 | Dialect::V1Alpha1 => "Canary",
            Dialect::Steerer => steerer::KIND,
            Dialect::BirdWatch => birdwatch::KIND,
        }
    }

    /// Group of the object.
    pub(crate) fn group(&self) -> &'static str {
        match self.canary.dialect {
            Dialect::V1Beta1 | Dialect::V1Alpha1 => aviary_crds::names::GROUP,
            Dialect::Steerer => steerer::GROUP,
            Dialect::BirdWatch => birdwatch::GROUP,
        }
    }

    /// `podinfo.test`, as events name it.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.name(), self.namespace())
    }

    pub(crate) fn target(&self) -> &str {
        &self.canary.target.name
    }

    /// Whether the object is the release: it comes when its version is there, and before there is nothing to do.
    pub(crate) fn is_release_itself(&self) -> bool {
        self.canary.target.kind == TargetKind::Subset
    }

    /// Workload of the primary.
    pub(crate) fn primary_workload(&self) -> &str {
        &self.workloads[0]
    }

    /// Workload of the canary.
    pub(crate) fn canary_workload(&self) -> &str {
        &self.workloads[1]
    }

    /// The hosts that requests for either side go to: the service of all, and that of the canary alone.
    pub(crate) fn hosts(&self) -> [String; 2] {
        [self.canary.service.apex().to_owned(), self.canary.service.canary_name()]
    }

    /// Checks in the order of the spec.
    pub(crate) fn checks(&self) -> &[MetricCheck] {
        &self.canary.analysis.metrics
    }

    /// MetricTemplates in use, with the checks that use them.
    pub(crate) fn templates(&self) -> impl Iterator<Item = (&ObjectKey, &MetricCheck)> {
        self.checks().iter().filter_map(|check| match &check.source {
            MetricSource::Template(key) => Some((key, check)),
            _ => None,
        })
    }

    /// Metadata of its webhooks by name, without those that only listen to events.
    pub(crate) fn webhooks(&self) -> impl Iterator<Item = &aviary_crds::validated::ValidatedWebhook> {
        self.canary.analysis.webhooks.iter().filter(|hook| hook.kind != WebhookType::Event)
    }
}

/// All canaries, in the order of the input. `is_provider_given` says whether the provider of canaries without one was chosen,
/// and not just left as it is.
///
/// The second list tells every canary that cannot be run, with every reason.
pub(crate) fn subjects(
    manifests: &Manifests,
    config: &ControllerConfig,
    is_provider_given: bool,
) -> (Vec<Subject>, Vec<String>) {
    let mut subjects = Vec::new();
    let mut problems = Vec::new();
    for manifest in manifests.of(aviary_crds::names::GROUP, "Canary") {
        let known = [aviary_crds::names::API_VERSION, aviary_crds::v1alpha1::API_VERSION];
        if !known.contains(&manifest.api_version()) {
            let (given, known) = (manifest.api_version(), known.join(", "));
            let message = format!("apiVersion {given} is not supported; supported: {known}");
            problems.push(manifest.message("apiVersion", &message));
            continue;
        }
        if !is_provider_given && let Some(message) = meant_for_another(manifest) {
            problems.push(manifest.message("spec", &message));
            continue;
        }
        match understand(manifest, manifests, config) {
            Ok(subject) => subjects.push(subject),
            Err(refusal) => {
                // What else is not built yet depends on the provider.
                let provider = refusal.lines().find(|line| line.starts_with("spec.provider:"));
                problems.extend(manifest.messages(provider.unwrap_or(&refusal)));
            }
        }
    }
    for manifest in manifests.of(steerer::GROUP, steerer::KIND).chain(manifests.of(birdwatch::GROUP, birdwatch::KIND)) {
        match understand(manifest, manifests, config) {
            Ok(subject) => subjects.push(subject),
            Err(refusal) => problems.extend(manifest.messages(&refusal)),
        }
    }
    (subjects, problems)
}

/// Tells canaries that share their target or their service with another one: the operator runs the older one alone, and of
/// objects that are created together none is.
pub(crate) fn rivals(subjects: &[Subject], manifests: &Manifests) -> Vec<String> {
    let mut problems = Vec::new();
    // A release that is an object itself claims its target for as long as it is under way.
    let lasting = |subject: &&Subject| !subject.is_release_itself();
    for (index, subject) in subjects.iter().enumerate().filter(|(_, subject)| lasting(subject)) {
        let (target, service) = (&subject.canary.target, subject.canary.service.apex());
        let before =
            subjects.iter().take(index).filter(lasting).filter(|other| other.namespace() == subject.namespace());
        let mut shared = before.filter_map(|other| {
            let theirs = &other.canary.target;
            let has_service = |subject: &Subject| subject.kind() == "Canary";
            if (target.kind, &target.name) == (theirs.kind, &theirs.name) {
                Some((other, "spec.targetRef", format!("{}/{} is the target", target.kind.as_str(), target.name)))
            } else if has_service(subject) && has_service(other) && service == other.canary.service.apex() {
                Some((other, "spec.service.name", format!("Service/{service} is the service")))
            } else {
                None
            }
        });
        let Some((other, field, what)) = shared.next() else { continue };
        let message = format!(
            "{field}: {what} of {} {}, too, and only the older one is run; leave one of them out",
            other.kind().to_lowercase(),
            other.name()
        );
        let manifest = manifests.find(subject.group(), subject.kind(), subject.namespace(), subject.name());
        problems.extend(manifest.map(|manifest| manifest.message(field, &message)));
    }
    problems
}

/// Says that a canary without a provider refers to something that Istio has no use for. Flagger's manifests leave the
/// provider to its flag; run as an Istio canary, such a one would show something that never happens.
fn meant_for_another(manifest: &Manifest) -> Option<String> {
    let spec = &manifest.object["spec"];
    if spec["provider"].as_str().is_some_and(|provider| !provider.is_empty()) {
        return None;
    }
    let is_set = |value: &serde_json::Value| !value.is_null() && *value != serde_json::json!([]);
    let annotations = manifest.object["metadata"]["annotations"].as_object();
    let (sign, providers) = if is_set(&spec["ingressRef"]) {
        ("spec.ingressRef", "nginx or skipper")
    } else if is_set(&spec["routeRef"]) {
        ("spec.routeRef", "apisix")
    } else if is_set(&spec["upstreamRef"]) {
        ("spec.upstreamRef", "gloo")
    } else if is_set(&spec["service"]["gatewayRefs"]) {
        ("spec.service.gatewayRefs", "gatewayapi:v1")
    } else if annotations.is_some_and(|annotations| annotations.contains_key("kuma.io/mesh")) {
        ("the annotation kuma.io/mesh", "kuma")
    } else {
        return None;
    };
    Some(format!(
        "spec.provider is not set, and {sign} is for provider {providers}, which is not supported yet; to run it with Istio \
         nevertheless: --mesh-provider=istio"
    ))
}

fn understand(manifest: &Manifest, manifests: &Manifests, config: &ControllerConfig) -> Result<Subject, String> {
    let object: DynamicObject = serde_json::from_value(manifest.object.clone()).map_err(|error| error.to_string())?;
    let canary = config.validated(&object)?;
    let provider = canary.provider.clone().filter(|provider| !provider.is_empty());
    let provider = provider.unwrap_or_else(|| config.providers.mesh_provider.clone());
    let workloads = match &canary.subset_version {
        None => [canary.target.primary_name(), canary.target.name.clone()],
        Some(version) => workloads_of_subsets(manifests, &canary, version)?,
    };
    Ok(Subject { canary, provider, release: None, workloads, next_selector: None })
}

/// The workloads behind both subsets: the one in production now, and the one with the version that is to be released.
fn workloads_of_subsets(manifests: &Manifests, canary: &ValidatedCanary, version: &str) -> Result<[String; 2], String> {
    let (namespace, name) = (canary.key.namespace.as_str(), canary.target.name.as_str());
    let rule = manifests.find(kinds::DESTINATION_RULE.group, "DestinationRule", namespace, name);
    let rule = rule.ok_or_else(|| format!("spec.service: there is no DestinationRule {name} in the input; add it"))?;
    let mut subsets = rule.object.pointer("/spec/subsets").and_then(Value::as_array).into_iter().flatten();
    let production = subsets.find(|subset| subset["name"] == birdwatch::PRODUCTION);
    let present = production.and_then(|subset| subset["labels"][birdwatch::VERSION_LABEL].as_str()).unwrap_or_default();
    let workload = |version: &str| {
        let deployments = manifests.of("apps", "Deployment").chain(manifests.of("apps", "DaemonSet"));
        let mut found = deployments.filter(|workload| {
            let labels = &workload.object["spec"]["template"]["metadata"]["labels"];
            workload.namespace() == namespace && labels[birdwatch::VERSION_LABEL] == version
        });
        let missing =
            || format!("spec.service: no Deployment of the input has pods with the label version {version}; add it");
        found.next().map(|workload| workload.name().to_owned()).ok_or_else(missing)
    };
    Ok([workload(present)?, workload(version)?])
}

/// A limit in words: `min 99`, `max 500`.
pub(crate) fn limits(check: &MetricCheck) -> (Option<f64>, Option<f64>) {
    match (check.limit, &check.source) {
        (MetricLimit::Range(range), _) => (range.min, range.max),
        // It depends on the values that come before.
        (MetricLimit::Rise(_), _) => (None, None),
        (MetricLimit::Threshold(least), MetricSource::SuccessRate | MetricSource::SuccessRateOf(_)) => {
            (Some(least), None)
        }
        (MetricLimit::Threshold(most), _) => (None, Some(most)),
    }
}

/// Names of everything by name, for messages about names that do not exist.
pub(crate) fn names(subjects: &[Subject]) -> BTreeMap<&'static str, Vec<&str>> {
    let mut names: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for subject in subjects {
        names.entry("canary").or_default().push(subject.name());
        for hook in &subject.canary.analysis.webhooks {
            names.entry("webhook").or_default().push(&hook.name);
        }
        for check in subject.checks() {
            match &check.source {
                MetricSource::Template(key) => names.entry("metric").or_default().push(&key.name),
                MetricSource::Query(_) => names.entry("metric").or_default().push(&check.name),
                MetricSource::SuccessRate
                | MetricSource::SuccessRateOf(_)
                | MetricSource::Duration
                | MetricSource::DurationInSeconds => {}
            }
        }
    }
    names
}
