//! What Aviary tells people. Every reason is a value and is rendered here, once, for event, condition, log and CLI.
//!
//! Texts that users of Flagger grep for are Flagger's, word for word.

use std::fmt;
use std::time::Duration;

use aviary_crds::duration::format_go_duration;
use aviary_crds::validated::AlertSeverity;

use aviary_crds::validated::WebhookType;

/// A figure that was outside its limit.
#[derive(Clone, Debug, PartialEq)]
pub enum Breach {
    /// `request-success-rate`, in percent.
    SuccessRate {
        /// Measured.
        value: f64,
        /// Limit.
        limit: f64,
        /// Whether the value is above (rather than below) the limit.
        above: bool,
    },
    /// `request-duration`.
    Duration {
        /// Measured, whole milliseconds.
        value: Duration,
        /// Limit.
        limit: Duration,
        /// Whether the value is above the limit.
        above: bool,
    },
    /// A query that is compared with an earlier value of itself.
    Rise {
        /// Name of the metric.
        metric: String,
        /// Measured.
        value: f64,
        /// What it is compared with.
        reference: f64,
        /// Whether that is the value of the round before, and not the first one.
        is_previous: bool,
        /// By how much it may be more.
        deviation: f64,
    },
    /// An inline query or a MetricTemplate.
    Custom {
        /// Name of the metric.
        metric: String,
        /// Measured.
        value: f64,
        /// Limit.
        limit: f64,
        /// Whether the value is above the limit.
        above: bool,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |above: &bool| if *above { '>' } else { '<' };
        match self {
            Breach::SuccessRate { value, limit, above } => {
                write!(f, "success rate {value:.2}% {} {limit}%", sign(above))
            }
            Breach::Duration { value, limit, above } => write!(
                f,
                "request duration {} {} {}",
                format_go_duration(*value),
                sign(above),
                format_go_duration(*limit)
            ),
            Breach::Rise { metric, value, reference, is_previous, deviation } => {
                let reference_name = if *is_previous { "the previous value" } else { "baseline" };
                write!(f, "{metric} {value:.2} is more than {deviation} above {reference_name} {reference:.2}")
            }
            Breach::Custom { metric, value, limit, above } => {
                write!(f, "{metric} {value:.2} {} {limit}", sign(above))
            }
        }
    }
}

/// A message about a canary. `canary`, `target` and `primary` are `<name>.<namespace>`, weights are percent of the
/// canary (of the primary in [`Message::AdvancePrimary`]), `error` is the cause alone.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are explained above, all variants have docs")]
pub enum Message {
    /// The object is suspended.
    Suspended,
    /// Something about the target, the primary or the routes is in the way; the text is complete.
    Obstacle(String),
    /// All metric providers answered.
    ProvidersAvailable,
    /// A metric provider did not answer.
    ProvidersUnavailable(String),
    /// Bootstrap is done.
    Initialized { canary: String },
    /// A gate or hook answered yes.
    HookPassed { kind: WebhookType, hook: String },
    /// A rollback hook was asked and did not ask for a rollback.
    NoRollback { hook: String },
    /// A confirm-rollout gate is closed.
    WaitingForRollout { canary: String, hook: String },
    /// A confirm-traffic-increase gate is closed.
    WaitingForTrafficIncrease { canary: String, hook: String },
    /// A confirm-promotion gate is closed.
    WaitingForPromotion { canary: String, hook: String },
    /// A new revision was seen and the target is scaled up.
    NewRevision { target: String },
    /// A newer revision was seen during an analysis.
    Restarting { target: String },
    /// The target went back to the promoted revision during an analysis.
    RevisionWithdrawn { canary: String, target: String },
    /// The analysis starts.
    Starting { target: String },
    /// The analysis starts, in the words of Flagger 0.1.
    StartingDeployment { canary: String },
    /// A pre-rollout hook failed.
    PreRolloutFailed { canary: String, hook: String, error: String },
    /// A rollout hook failed.
    ExternalCheckFailed { canary: String, hook: String, error: String },
    /// A metric was outside its limit.
    Breached { canary: String, breach: Breach },
    /// A check had no values, or could not be made; the text is complete.
    CheckFailed { text: String, error: bool },
    /// The monitoring does not answer; the canary stays at its weight.
    MetricsOutage { canary: String, weight: u32, error: String, limit: Duration },
    /// The monitoring answers again.
    MetricsRecovered { canary: String },
    /// The canary's weight was raised.
    AdvanceCanary { canary: String, weight: u32 },
    /// One more iteration of blue/green or A/B.
    AdvanceIteration { canary: String, number: u32, of: u32 },
    /// All requests go to the canary, which may have got copies of them until now.
    RoutingToCanary { was_mirrored: bool },
    /// The primary's weight was raised on the way back.
    AdvancePrimary { canary: String, weight: u32 },
    /// The primary gets the analysed revision.
    Copying { target: String, primary: String },
    /// All requests go to the primary.
    RoutingToPrimary,
    /// The canary lost its last available pod; requests go to the primary.
    CanaryUnavailable { canary: String },
    /// Pods are kept until the mesh has followed a change of routes. Shown as the reason for waiting, never an event.
    Settling { canary: String },
    /// New pods get no users until the mesh has heard of them. Shown as the reason for waiting, never an event.
    Introducing { canary: String },
    /// The weights are not those of the status; they were put right.
    WeightsRepaired { canary: String, found: u32, weight: u32 },
    /// Requests were copied to the canary, or not, against the status; it was put right.
    MirroringRepaired { canary: String, mirrored: bool },
    /// Promotion is complete.
    Promoted { target: String },
    /// Promotion without analysis is complete.
    PromotedWithoutAnalysis { target: String },
    /// Too many failed checks.
    RollingBackChecks { canary: String, failed: u32 },
    /// The canary did not become ready in time.
    RollingBackDeadline { canary: String, error: String },
    /// A rollback hook asked for it.
    RollingBackHook { canary: String },
    /// The canary failed.
    CanaryFailed { canary: String },
    /// The primary did not become ready after the promotion.
    PromotionFailed { target: String, error: String },
    /// A post-rollout hook failed.
    PostRolloutFailed { hook: String, error: String },
    /// The primary is missing and the target does not hold the promoted revision.
    PrimaryMissing { primary: String, target: String },
    /// Traffic should go to the primary, but that cannot take it.
    RollbackBlocked { canary: String },
    /// The canary is deleted and what it changed is put back.
    Terminating { canary: String },
    /// Everything is put back.
    Terminated { canary: String },
    /// The target cannot take its users back yet.
    NotReadyForDeletion { canary: String, reason: String },
    /// In the words of another system; the text is complete.
    Worded { text: String, severity: AlertSeverity },
    /// The promotion failed and the canary cannot take over.
    NowhereToGo { target: String, error: String },
    /// The promotion is broken, and the canary's pods are of a revision that nobody has analysed.
    UnanalysedTarget { target: String, error: String },
    /// A new version is named for a canary subset.
    NewVersion { canary: String, version: String },
    /// The first value of a query, with which those to come are compared. `weight` is the canary's at the time.
    Baseline { canary: String, value: f64, weight: u32, is_empty: bool },
    /// The query has no value yet, and the canary waits for one.
    AwaitingData { canary: String, weight: u32 },
    /// Another writer keeps from the canary what it should have, so a round that passes says nothing about it.
    WeightNotInForce { canary: String, found: u32, weight: u32 },
    /// The production subset gets the analysed version.
    Relabelling { service: String, version: String },
    /// All requests go to the production subset.
    RoutingToProduction,
    /// The version is in production.
    Released { canary: String, version: String },
    /// The canary failed; its pods are the user's.
    RolledBack { canary: String },
    /// The canary failed and keeps its share.
    Frozen { canary: String, weight: u32 },
}

impl Message {
    /// Whether it tells of the phase that its step leads to. Event hooks are told that phase then, and for all others the one
    /// that the step starts from, as in Flagger (its reference 5.3).
    pub fn is_of_next_phase(&self) -> bool {
        use Message::*;
        matches!(
            self,
            Initialized { .. }
                | NewRevision { .. }
                | RevisionWithdrawn { .. }
                | Promoted { .. }
                | PromotedWithoutAnalysis { .. }
                | CanaryFailed { .. }
                | HookPassed { kind: WebhookType::PostRollout, .. }
                | PostRolloutFailed { .. }
        )
    }

    /// How serious it is.
    pub fn severity(&self) -> AlertSeverity {
        use Message::*;
        match self {
            Suspended
            | Settling { .. }
            | Introducing { .. }
            | ProvidersAvailable
            | Initialized { .. }
            | NoRollback { .. }
            | NewRevision { .. }
            | Restarting { .. }
            | RevisionWithdrawn { .. }
            | Starting { .. }
            | StartingDeployment { .. }
            | MetricsRecovered { .. }
            | AdvanceCanary { .. }
            | AdvanceIteration { .. }
            | RoutingToCanary { .. }
            | AdvancePrimary { .. }
            | Copying { .. }
            | RoutingToPrimary
            | Terminating { .. }
            | Terminated { .. }
            | NewVersion { .. }
            | Baseline { .. }
            | Relabelling { .. }
            | RoutingToProduction
            | Released { .. }
            | Promoted { .. }
            | PromotedWithoutAnalysis { .. } => AlertSeverity::Info,
            Obstacle(_)
            | WaitingForRollout { .. }
            | WaitingForTrafficIncrease { .. }
            | WaitingForPromotion { .. }
            | PreRolloutFailed { .. }
            | ExternalCheckFailed { .. }
            | Breached { .. }
            | MetricsOutage { .. }
            | CanaryUnavailable { .. }
            | WeightsRepaired { .. }
            | MirroringRepaired { .. }
            | RollingBackChecks { .. }
            | RollingBackDeadline { .. }
            | RollingBackHook { .. }
            | AwaitingData { .. }
            | WeightNotInForce { .. }
            | RolledBack { .. }
            | Frozen { .. }
            | CanaryFailed { .. }
            | PromotionFailed { .. }
            | PostRolloutFailed { .. }
            | NotReadyForDeletion { .. }
            | RollbackBlocked { .. } => AlertSeverity::Warn,
            ProvidersUnavailable(_) | PrimaryMissing { .. } | NowhereToGo { .. } | UnanalysedTarget { .. } => {
                AlertSeverity::Error
            }
            // A rollback hook that passes is bad news.
            HookPassed { kind: WebhookType::Rollback, .. } | CheckFailed { error: false, .. } => AlertSeverity::Warn,
            HookPassed { .. } => AlertSeverity::Info,
            CheckFailed { error: true, .. } => AlertSeverity::Error,
            Worded { severity, .. } => *severity,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Message::*;
        match self {
            Settling { canary } => write!(f, "{canary} keeps its pods until the mesh has followed the new routes"),
            Introducing { canary } => {
                write!(f, "{canary} leads nobody to its new pods until the mesh has heard of them")
            }
            Suspended => write!(f, "skipping canary run as object is suspended"),
            Obstacle(text) | CheckFailed { text, .. } | Worded { text, .. } => write!(f, "{text}"),
            ProvidersAvailable => write!(f, "all the metrics providers are available!"),
            ProvidersUnavailable(error) => write!(f, "Error checking metric providers: {error}"),
            Initialized { canary } => write!(f, "Initialization done! {canary}"),
            HookPassed { kind, hook } => write!(f, "{} check {hook} passed", title(*kind)),
            NoRollback { hook } => write!(f, "Rollback hook {hook} not signaling a rollback"),
            WaitingForRollout { canary, hook } => {
                write!(f, "Halt {canary} advancement waiting for approval {hook}")
            }
            WaitingForTrafficIncrease { canary, hook } => {
                write!(f, "Halt {canary} advancement waiting for traffic increase approval {hook}")
            }
            WaitingForPromotion { canary, hook } => {
                write!(f, "Halt {canary} advancement waiting for promotion approval {hook}")
            }
            NewRevision { target } => write!(f, "New revision detected! Scaling up {target}"),
            Restarting { target } => write!(f, "New revision detected! Restarting analysis for {target}"),
            RevisionWithdrawn { canary, target } => {
                write!(f, "{target} is back at the promoted revision, canary analysis of {canary} stopped")
            }
            Starting { target } => write!(f, "Starting canary analysis for {target}"),
            StartingDeployment { canary } => write!(f, "Starting canary deployment for {canary}"),
            PreRolloutFailed { canary, hook, error } => {
                write!(f, "Halt {canary} advancement pre-rollout check {hook} failed {error}")
            }
            ExternalCheckFailed { canary, hook, error } => {
                write!(f, "Halt {canary} advancement external check {hook} failed {error}")
            }
            Breached { canary, breach } => write!(f, "Halt {canary} advancement {breach}"),
            MetricsOutage { canary, weight, error, limit } => write!(
                f,
                "Hold {canary} at canary weight {weight}, metrics are unavailable: {error} (counts as a failed check after {})",
                format_go_duration(*limit)
            ),
            MetricsRecovered { canary } => write!(f, "Metrics are available again, resuming analysis of {canary}"),
            AdvanceCanary { canary, weight } => write!(f, "Advance {canary} canary weight {weight}"),
            AdvanceIteration { canary, number, of } => write!(f, "Advance {canary} canary iteration {number}/{of}"),
            RoutingToCanary { was_mirrored: true } => {
                write!(f, "Stop traffic mirroring and route all traffic to canary")
            }
            RoutingToCanary { was_mirrored: false } => write!(f, "Routing all traffic to canary"),
            AdvancePrimary { canary, weight } => write!(f, "Advance {canary} primary weight {weight}"),
            Copying { target, primary } => write!(f, "Copying {target} template spec to {primary}"),
            RoutingToPrimary => write!(f, "Routing all traffic to primary"),
            CanaryUnavailable { canary } => {
                write!(f, "Canary {canary} has no available pods, routing all traffic to primary")
            }
            WeightsRepaired { canary, found, weight } => {
                write!(f, "Canary weight of {canary} was {found} instead of {weight}, set to {weight}")
            }
            MirroringRepaired { canary, mirrored: true } => {
                write!(f, "Traffic mirroring of {canary} was off, turned on again")
            }
            MirroringRepaired { canary, mirrored: false } => {
                write!(f, "Traffic mirroring of {canary} was on, turned off")
            }
            Promoted { target } => write!(f, "Promotion completed! Scaling down {target}"),
            PromotedWithoutAnalysis { target } => {
                write!(f, "Promotion completed! Canary analysis was skipped for {target}")
            }
            RollingBackChecks { canary, failed } => {
                write!(f, "Rolling back {canary} failed checks threshold reached {failed}")
            }
            RollingBackDeadline { canary, error } => {
                write!(f, "Rolling back {canary} progress deadline exceeded {error}")
            }
            RollingBackHook { canary } => write!(f, "Rolling back {canary} manual webhook invoked"),
            CanaryFailed { canary } => write!(f, "Canary failed! Scaling down {canary}"),
            PromotionFailed { target, error } => {
                write!(f, "Promotion of {target} failed, primary not ready: {error}")
            }
            PostRolloutFailed { hook, error } => write!(f, "Post-rollout hook {hook} failed {error}"),
            PrimaryMissing { primary, target } => write!(
                f,
                "{primary} is missing and cannot be restored: {target} does not hold the promoted revision and configs; \
                 set the target back to it, or delete and re-create the canary"
            ),
            RollbackBlocked { canary } => {
                write!(f, "Canary {canary} is waiting to route traffic back: the primary cannot take it")
            }
            Terminating { canary } => write!(f, "Terminating canary {canary}"),
            Terminated { canary } => write!(f, "Terminated canary {canary}"),
            NotReadyForDeletion { canary, reason } => {
                write!(
                    f,
                    "canary not ready during finalizing: {reason}; {canary} stays until it is, or until revertOnDeletion is \
                     set to false"
                )
            }
            NewVersion { canary, version } => write!(f, "New canary version {version} detected for {canary}"),
            Baseline { canary, value, weight, is_empty: false } => {
                write!(f, "Baseline of {canary} is {value:.2}, taken at canary weight {weight}")
            }
            Baseline { canary, value, weight, is_empty: true } => {
                write!(f, "Baseline of {canary} is {value:.2}: the metric has no data at canary weight {weight}")
            }
            AwaitingData { canary, weight } => {
                write!(f, "Hold {canary} at canary weight {weight}, the metric has no data yet")
            }
            WeightNotInForce { canary, found, weight } => {
                write!(f, "Hold {canary} at canary weight {weight}, another writer keeps the routes at {found}")
            }
            Relabelling { service, version } => {
                write!(f, "Releasing version {version} to subset production of {service}")
            }
            RoutingToProduction => write!(f, "Routing all traffic to production"),
            Released { canary, version } => write!(f, "Canary {canary} version {version} released to production"),
            RolledBack { canary } => write!(f, "Canary {canary} is sick, all traffic is back on production"),
            Frozen { canary, weight } => {
                write!(f, "Canary {canary} is sick, frozen at canary weight {weight}")
            }
            NowhereToGo { target, error } => {
                write!(f, "Promotion of {target} failed and the canary has no available pods to take over: {error}")
            }
            UnanalysedTarget { target, error } => write!(
                f,
                "Promotion of {target} failed and what it holds now was not analysed, so it gets no more traffic; mend the \
                 primary, or set {target} back to the revision that was promoted: {error}"
            ),
        }
    }
}

/// Capitalised, as Flagger's events spell it.
fn title(kind: WebhookType) -> &'static str {
    match kind {
        WebhookType::ConfirmRollout => "Confirm-rollout",
        WebhookType::PreRollout => "Pre-rollout",
        WebhookType::Rollout => "Rollout",
        WebhookType::ConfirmTrafficIncrease => "Confirm-traffic-increase",
        WebhookType::ConfirmPromotion => "Confirm-promotion",
        WebhookType::PostRollout => "Post-rollout",
        WebhookType::Rollback => "Rollback",
        WebhookType::Event => "Event",
    }
}
