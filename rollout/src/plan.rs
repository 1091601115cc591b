//! The plan: the part of a validated canary that decisions depend on.

use std::time::Duration;

use aviary_crds::v1alpha1::Dialect;
use aviary_crds::validated::{
    MetricLimit, MetricSource, Steps, TargetKind, ValidatedAnalysis, ValidatedCanary, WebhookType,
};

use crate::analysis::{Check, CheckKind, Limit};
use crate::message::Message;
use crate::notice::{Notice, Occasion};
use crate::session::{Cookies, Sessions};
use crate::state::State;
use crate::strategy::{AbTesting, BlueGreen, Strategy, Weighted, Weights};
use aviary_crds::validated::Rise;
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
    /// What the canary's provider can do.
    pub provider: Capabilities,
    /// `--cluster-name`, shown in alerts.
    pub cluster_name: Option<String>,
    /// How long the mesh may take to follow a change of routes (`--traffic-settle-time`).
    pub traffic_settle_time: Duration,
    /// How long a mesh may take to hear of pods that became available: so long, they get no users.
    pub endpoints_settle_time: Duration,
}

/// What a failed check leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is counted, and too many of them bring everybody back to the primary.
    #[default]
    RollBack,
    /// The canary stays where it is until its checks pass, for ever if need be. The same goes for a workload that does not
    /// become ready.
    Hold,
    /// It is counted, and too many of them end the run: the canary keeps the share that it has, for a person to look at it.
    Freeze,
}

/// What a traffic provider can do for one canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Divide requests by weight (`kubernetes` cannot).
    pub weights: bool,
    /// Divide only the requests that meet conditions. Without it, an A/B test would send everybody to the canary.
    pub matching: bool,
    /// Copy requests to the canary. Without it, a canary that waits for the copies would wait for ever.
    pub mirroring: bool,
    /// Keep clients on their side with cookies.
    pub sessions: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Capabilities = Capabilities { weights: true, matching: true, mirroring: true, sessions: true };
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
    /// `--cluster-name`, which every alert carries.
    pub cluster: Option<(String, String)>,
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
    /// In whose words the canary's own events are.
    pub dialect: Dialect,
    /// Kind of the target (`Deployment`).
    pub target_kind: String,
    /// Name of the target.
    pub target: String,
    /// Name of the primary workload.
    pub primary: String,
    /// Whether the user has made the primary and all routes, too: nothing is generated.
    pub is_made_by_user: bool,
    /// Uid of the canary object.
    pub canary_uid: String,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.skipAnalysis`, or no analysis at all.
    pub skip_analysis: bool,
    /// `spec.revertOnDeletion`.
    pub revert_on_deletion: bool,
    /// How traffic moves.
    pub strategy: Strategy,
    /// What cookies are made from, where clients are kept on their side.
    pub sessions: Option<Sessions>,
    /// Time between check rounds, at least 10 s in production.
    pub interval: Duration,
    /// Failed checks that end the run, at least 1.
    pub threshold: u32,
    /// What a failed check leads to.
    pub on_failure: OnFailure,
    /// Whether the two sides are subsets of routes that a user has made. Their weights are Aviary's during a run and the user's
    /// between two; nothing is generated, scaled or given back.
    pub uses_subsets: bool,
    /// Whether the object is deleted when its revision is promoted. Only where nothing that serves goes with it.
    pub deletes_on_success: bool,
    /// Step of the way back to the primary; 0 moves all at once.
    pub step_weight_promotion: u32,
    /// Metric checks in the order they are judged.
    pub checks: Vec<Check>,
    /// Webhooks in list order.
    pub hooks: Vec<Hook>,
    /// What a missing answer of the monitoring means.
    pub outage: OutagePolicy,
    /// How long the mesh may take to follow a change of routes; no pods are taken away before.
    pub traffic_settle_time: Duration,
    /// How long a mesh may take to hear of pods that became available: so long, they get no users.
    pub endpoints_settle_time: Duration,
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
        Ok(Plan {
            canary: canary.key.name.clone(),
            namespace: canary.key.namespace.clone(),
            dialect: canary.dialect,
            target_kind: canary.target.kind.to_string(),
            target: canary.target.name.clone(),
            primary: canary.target.primary_name(),
            is_made_by_user: canary.target.primary.is_some(),
            canary_uid: canary.key.uid.clone(),
            suspended: canary.suspended,
            skip_analysis: canary.skip_analysis,
            revert_on_deletion: canary.revert_on_deletion,
            strategy: strategy(canary, settings)?,
            sessions: sessions(canary, settings)?,
            interval: analysis.interval,
            threshold: analysis.threshold,
            on_failure: match (canary.holds_on_failure, canary.freezes) {
                (true, _) => OnFailure::Hold,
                (false, true) => OnFailure::Freeze,
                (false, false) => OnFailure::RollBack,
            },
            uses_subsets: canary.target.kind == TargetKind::Subset,
            deletes_on_success: canary.deletes_on_success && canary.target.kind == TargetKind::Subset,
            step_weight_promotion: analysis.step_weight_promotion,
            checks: checks(analysis),
            hooks: analysis
                .webhooks
                .iter()
                .map(|hook| Hook { name: hook.name.clone(), kind: hook.kind, mute_alert: hook.mute_alert })
                .collect(),
            outage: match canary.analysis.query_errors {
                Some(errors) => outage_of(errors, analysis.interval),
                None => settings.outage,
            },
            traffic_settle_time: settings.traffic_settle_time,
            endpoints_settle_time: settings.endpoints_settle_time,
            alert_facts: alert_facts(canary, settings),
        })
    }

    /// `<canary>.<namespace>`, as events name the canary.
    pub fn canary_id(&self) -> String {
        format!("{}.{}", self.canary, self.namespace)
    }

    /// The cookies in this state, where clients are kept on their side.
    pub fn cookies(&self, state: &State) -> Option<Cookies> {
        self.sessions.as_ref().map(|sessions| sessions.cookies(state))
    }

    /// `<target>.<namespace>`.
    pub fn target_id(&self) -> String {
        format!("{}.{}", self.target, self.namespace)
    }

    /// `<primary>.<namespace>`.
    pub fn primary_id(&self) -> String {
        format!("{}.{}", self.primary, self.namespace)
    }

    /// Whether what fails holds the canary where it is.
    pub(crate) fn holds_on_failure(&self) -> bool {
        self.on_failure == OnFailure::Hold
    }

    /// What is told when the analysis starts. Everything else is told alike.
    pub(crate) fn starting(&self) -> Message {
        match self.dialect {
            Dialect::V1Beta1 | Dialect::Steerer => Message::Starting { target: self.target_id() },
            Dialect::V1Alpha1 | Dialect::BirdWatch => Message::StartingDeployment { canary: self.canary_id() },
        }
    }

    /// What is told when a new revision is seen.
    pub(crate) fn detected(&self, revision: &str) -> Message {
        match self.uses_subsets {
            false => Message::NewRevision { target: self.target_id() },
            true => Message::NewVersion { canary: self.canary_id(), version: revision.to_owned() },
        }
    }

    /// The alert about a new revision.
    pub(crate) fn detected_alert(&self, revision: &str) -> Notice {
        let text = match self.uses_subsets {
            false => "New revision detected, progressing canary analysis.".to_owned(),
            true => self.detected(revision).to_string(),
        };
        Notice::info_with_facts(Occasion::NewRevision, text)
    }

    /// What is told when the analysed revision is brought to the primary.
    pub(crate) fn copying(&self, revision: &str) -> Message {
        match self.uses_subsets {
            false => Message::Copying { target: self.target_id(), primary: self.primary_id() },
            true => Message::Relabelling { service: self.target_id(), version: revision.to_owned() },
        }
    }

    /// What is told when the promotion is complete.
    pub(crate) fn promoted(&self, revision: &str) -> Message {
        match self.uses_subsets {
            false => Message::Promoted { target: self.target_id() },
            true => Message::Released { canary: self.canary_id(), version: revision.to_owned() },
        }
    }

    /// What is told when the canary was rolled back.
    pub(crate) fn failed(&self) -> Message {
        match self.uses_subsets {
            false => Message::CanaryFailed { canary: self.canary_id() },
            true => Message::RolledBack { canary: self.canary_id() },
        }
    }

    /// The alert about a promotion that is complete.
    pub(crate) fn promoted_alert(&self, revision: &str) -> Notice {
        let text = match self.uses_subsets {
            false => "Canary analysis completed successfully, promotion finished.".to_owned(),
            true => self.promoted(revision).to_string(),
        };
        Notice::info(Occasion::Promoted, text)
    }

    /// The alert about so many failed checks.
    pub(crate) fn failed_alert(&self, failed: u32) -> Notice {
        let text = match self.uses_subsets {
            false => format!("Failed checks threshold reached {failed}"),
            true => self.failed().to_string(),
        };
        Notice::error(Occasion::ChecksFailed, text)
    }

    /// What is told when everybody is led to the primary.
    pub(crate) fn to_primary(&self) -> Message {
        if self.uses_subsets { Message::RoutingToProduction } else { Message::RoutingToPrimary }
    }

    /// The check that compares with the first value, if there is one, and its position.
    pub(crate) fn relative_check(&self) -> Option<(usize, Rise)> {
        self.checks.iter().enumerate().find_map(|(position, check)| match check.limit {
            Limit::Rise(rise) => Some((position, rise)),
            Limit::Range { .. } | Limit::Threshold(_) => None,
        })
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
    let can = settings.provider;
    let unsupported = |path, feature| Err(Unsupported { path, feature });
    // No weight is ever set.
    if canary.skip_analysis {
        return Ok(Strategy::weighted(Weights::Linear { step: 100, max: 100 }));
    }
    let has_conditions = !analysis.matches.is_empty();
    if has_conditions && !can.matching {
        return unsupported("spec.analysis.match", "matching requests with this provider and protocol");
    }
    // An A/B test mirrors nothing, in Flagger either.
    let is_ab_test = matches!(analysis.steps, Steps::Iterations(_)) && has_conditions;
    let mirror = analysis.mirror && !is_ab_test;
    if mirror && !can.mirroring {
        return unsupported("spec.analysis.mirror", "traffic mirroring with this provider and protocol");
    }
    if mirror && has_conditions {
        return unsupported("spec.analysis.mirror", "traffic mirroring together with spec.analysis.match");
    }
    let weights = match &analysis.steps {
        Steps::Iterations(iterations) if is_ab_test => {
            return Ok(Strategy::AbTesting(AbTesting { iterations: *iterations }));
        }
        Steps::Iterations(iterations) => {
            return Ok(Strategy::BlueGreen(BlueGreen { iterations: *iterations, mirror, switches: can.weights }));
        }
        Steps::Weight { step, max } => Weights::Linear { step: *step, max: *max },
        Steps::Weights(weights) => Weights::List(weights.clone()),
        // Only with skipAnalysis.
        Steps::None => Weights::Linear { step: 100, max: 100 },
    };
    // Flagger runs such a canary as blue/green with ten iterations.
    if !can.weights {
        return unsupported("spec.provider", "a weighted analysis with a provider that routes no traffic");
    }
    Ok(Strategy::Canary(Weighted { weights, mirror }))
}

/// Sessions are those of weighted canaries. Where requests are matched, by an A/B test or a weighted canary, Flagger renders
/// none; blue/green has nobody to keep on a side.
fn sessions(canary: &ValidatedCanary, settings: &Settings) -> Result<Option<Sessions>, Unsupported> {
    let Some(affinity) = canary.sessions() else { return Ok(None) };
    if !settings.provider.sessions {
        let feature = "session affinity with this provider and protocol";
        return Err(Unsupported { path: "spec.analysis.sessionAffinity", feature });
    }
    Ok(Some(Sessions {
        canary_uid: canary.key.uid.clone(),
        cookie_name: affinity.cookie_name.clone(),
        primary_cookie_name: affinity.primary_cookie_name.clone(),
    }))
}

/// In the order in which Flagger judges them: built-in and inline metrics first, then templates.
fn checks(analysis: &ValidatedAnalysis) -> Vec<Check> {
    let all = analysis.metrics.iter().enumerate().map(|(index, metric)| Check {
        name: metric.name.clone(),
        index,
        kind: match metric.source {
            MetricSource::SuccessRate | MetricSource::SuccessRateOf(_) => CheckKind::SuccessRate,
            MetricSource::Duration | MetricSource::DurationInSeconds => CheckKind::Duration,
            MetricSource::Query(_) => CheckKind::Query,
            MetricSource::Template(_) => CheckKind::Template,
        },
        limit: match metric.limit {
            MetricLimit::Range(range) => Limit::Range { min: range.min, max: range.max },
            MetricLimit::Threshold(threshold) => Limit::Threshold(threshold),
            MetricLimit::Rise(rise) => Limit::Rise(rise),
        },
        window: metric.interval,
    });
    let (templates, mut ordered): (Vec<_>, Vec<_>) = all.partition(|check| check.kind == CheckKind::Template);
    ordered.extend(templates);
    ordered
}

/// So many errors in a row count as a failed check. One is made each interval, and the first begins the outage.
fn outage_of(errors: u32, interval: Duration) -> OutagePolicy {
    match errors {
        0 | 1 => OutagePolicy::Fail,
        errors => OutagePolicy::Hold { limit: interval.saturating_mul(errors - 1) },
    }
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
    let cluster = settings.cluster_name.as_ref().map(|name| ("Cluster".to_owned(), name.clone()));
    let mut fields = vec![("Target".to_owned(), target)];
    fields.push(("Failed checks threshold".to_owned(), analysis.threshold.to_string()));
    fields.push(("Progress deadline".to_owned(), format!("{}s", canary.progress_deadline.as_secs())));
    if let Some(routing) = routing {
        fields.push(("Traffic routing".to_owned(), routing));
    }
    AlertFacts { cluster, fields }
}
