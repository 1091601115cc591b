//! The plan: the part of a validated canary that decisions depend on.

use std::time::Duration;

use aviary_crds::validated::{MetricLimit, MetricSource, Steps, ValidatedAnalysis, ValidatedCanary, WebhookType};

use crate::analysis::{Check, CheckKind, Limit};
use crate::strategy::{Strategy, Weights};
use thiserror::Error;

/// One webhook of the plan. The endpoint itself is the courier's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name.
    pub name: String,
    /// When it is called.
    pub kind: WebhookType,
    /// Whether the alert of a closed confirm gate is suppressed.
    pub mute_alert: bool,
}

/// What a missing answer of the monitoring means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutagePolicy {
    /// Hold, and count missing answers as failed checks only after the monitoring was away this long
    /// (`--metrics-errors=hold`, `--metrics-outage-limit`).
    Hold {
        /// How long.
        limit: Duration,
    },
    /// A missing answer is a failed check, as in Flagger (`--metrics-errors=fail`).
    Fail,
}

/// Settings of the controller that a plan depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What a missing answer of the monitoring means.
    pub outage: OutagePolicy,
    /// Whether the canary's provider moves traffic (`kubernetes` does not).
    pub routed: bool,
    /// `--cluster-name`, shown in alerts.
    pub cluster_name: Option<String>,
}

/// A feature of the Canary API that this version does not serve. The canary is refused rather than run differently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{path}: {feature} is not supported by this version of Aviary; remove it, or run this canary's namespace with Flagger and Aviary with --namespace for the others"
)]
pub struct Unsupported {
    /// Field that asks for it.
    pub path: &'static str,
    /// What it is.
    pub feature: &'static str,
}

/// Facts shown in alerts that carry metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertFacts {
    /// Title and value, in Flagger's order.
    pub fields: Vec<(String, String)>,
}

/// The part of a validated canary that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the canary.
    pub canary: String,
    /// Namespace of the canary and all its objects.
    pub namespace: String,
    /// Kind of the target (`Deployment`).
    pub target_kind: String,
    /// Name of the target.
    pub target: String,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.skipAnalysis`, or no analysis at all.
    pub skip_analysis: bool,
    /// How traffic moves.
    pub strategy: Strategy,
    /// Time between check rounds, at least 10 s in production.
    pub interval: Duration,
    /// Failed checks that end the run, at least 1.
    pub threshold: u32,
    /// Step of the way back to the primary; 0 moves all at once.
    pub step_weight_promotion: u32,
    /// Metric checks in the order they are judged.
    pub checks: Vec<Check>,
    /// Webhooks in list order.
    pub hooks: Vec<Hook>,
    /// What a missing answer of the monitoring means.
    pub outage: OutagePolicy,
    /// Raw analysis figures for alerts.
    pub alert_facts: AlertFacts,
}

impl Plan {
    /// The plan of a canary.
    ///
    /// # Errors
    /// The canary asks for a feature that is not served.
    pub fn new(canary: &ValidatedCanary, settings: &Settings) -> Result<Plan, Unsupported> {
        let analysis = &canary.analysis;
        // Ignored, it would leave the target at zero when the canary goes.
        if canary.revert_on_deletion {
            return Err(Unsupported { path: "spec.revertOnDeletion", feature: "reverting on deletion" });
        }
        Ok(Plan {
            canary: canary.key.name.clone(),
            namespace: canary.key.namespace.clone(),
            target_kind: canary.target.kind.to_string(),
            target: canary.target.name.clone(),
            suspended: canary.suspended,
            skip_analysis: canary.skip_analysis,
            strategy: strategy(canary, settings)?,
            interval: analysis.interval,
            threshold: analysis.threshold,
            step_weight_promotion: analysis.step_weight_promotion,
            checks: checks(analysis),
            hooks: analysis
                .webhooks
                .iter()
                .map(|hook| Hook { name: hook.name.clone(), kind: hook.kind, mute_alert: hook.mute_alert })
                .collect(),
            outage: settings.outage,
            alert_facts: alert_facts(canary, settings),
        })
    }

    /// `<canary>.<namespace>`, as events name the canary.
    pub fn canary_id(&self) -> String {
        format!("{}.{}", self.canary, self.namespace)
    }

    /// `<target>.<namespace>`.
    pub fn target_id(&self) -> String {
        format!("{}.{}", self.target, self.namespace)
    }

    /// `<target>-primary.<namespace>`.
    pub fn primary_id(&self) -> String {
        format!("{}-primary.{}", self.target, self.namespace)
    }

    /// The hooks of one kind, in list order.
    pub fn hooks_of(&self, kind: WebhookType) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.kind == kind)
    }

    /// Whether there is a hook of this kind.
    pub fn has_hooks(&self, kind: WebhookType) -> bool {
        self.hooks_of(kind).next().is_some()
    }
}

fn strategy(canary: &ValidatedCanary, settings: &Settings) -> Result<Strategy, Unsupported> {
    let analysis = &canary.analysis;
    let unsupported = |path, feature| Err(Unsupported { path, feature });
    // Flagger runs such a canary as blue/green with ten iterations.
    if !settings.routed && !canary.skip_analysis {
        return unsupported("spec.provider", "an analysis with a provider that routes no traffic");
    }
    if analysis.mirror {
        return unsupported("spec.analysis.mirror", "traffic mirroring");
    }
    if analysis.session_affinity.is_some() {
        return unsupported("spec.analysis.sessionAffinity", "session affinity");
    }
    match &analysis.steps {
        Steps::Weight { .. } | Steps::Weights(_) if !analysis.matches.is_empty() => {
            unsupported("spec.analysis.match", "matching requests in a weighted canary")
        }
        Steps::Weight { step, max } => Ok(Strategy::Canary(Weights::Linear { step: *step, max: *max })),
        Steps::Weights(weights) => Ok(Strategy::Canary(Weights::List(weights.clone()))),
        // Only with skipAnalysis, where no weight is ever set.
        Steps::None => Ok(Strategy::Canary(Weights::Linear { step: 100, max: 100 })),
        Steps::Iterations(_) if !analysis.matches.is_empty() => unsupported("spec.analysis.match", "A/B testing"),
        Steps::Iterations(_) => unsupported("spec.analysis.iterations", "blue/green"),
    }
}

/// In the order in which Flagger judges them: built-in and inline metrics first, then templates.
fn checks(analysis: &ValidatedAnalysis) -> Vec<Check> {
    let all = analysis.metrics.iter().enumerate().map(|(index, metric)| Check {
        name: metric.name.clone(),
        index,
        kind: match metric.source {
            MetricSource::SuccessRate => CheckKind::SuccessRate,
            MetricSource::Duration => CheckKind::Duration,
            MetricSource::Query(_) => CheckKind::Query,
            MetricSource::Template(_) => CheckKind::Template,
        },
        limit: match metric.limit {
            MetricLimit::Range(range) => Limit::Range { min: range.min, max: range.max },
            MetricLimit::Threshold(threshold) => Limit::Threshold(threshold),
        },
    });
    let (templates, mut ordered): (Vec<_>, Vec<_>) = all.partition(|check| check.kind == CheckKind::Template);
    ordered.extend(templates);
    ordered
}

fn alert_facts(canary: &ValidatedCanary, settings: &Settings) -> AlertFacts {
    let analysis = &canary.analysis;
    let max = analysis.declared_max_weight;
    let routing = match &analysis.steps {
        Steps::Weight { step, .. } => Some(format!("Weight step: {step} max: {max}")),
        Steps::Weights(weights) => {
            let weights = weights.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            Some(format!("Weight steps: {weights} max: {max}"))
        }
        Steps::Iterations(_) if !analysis.matches.is_empty() => Some("A/B Testing".to_owned()),
        Steps::Iterations(_) => Some("Blue/Green".to_owned()),
        Steps::None => None,
    };
    let target = format!("{}/{}.{}", canary.target.kind, canary.target.name, canary.key.namespace);
    let mut fields = Vec::new();
    if let Some(cluster) = &settings.cluster_name {
        fields.push(("Cluster".to_owned(), cluster.clone()));
    }
    fields.push(("Target".to_owned(), target));
    fields.push(("Failed checks threshold".to_owned(), analysis.threshold.to_string()));
    fields.push(("Progress deadline".to_owned(), format!("{}s", canary.progress_deadline.as_secs())));
    if let Some(routing) = routing {
        fields.push(("Traffic routing".to_owned(), routing));
    }
    AlertFacts { fields }
}
