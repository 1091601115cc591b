//! Judging one check round.

use std::time::Duration;

use jiff::Timestamp;

use aviary_crds::validated::{NoData, Rise};

use crate::message::{Breach, Message};
use crate::plan::{OutagePolicy, Plan};
use crate::snapshot::{Answer, RoundAnswer};
use crate::state::State;

/// What a metric may be. Comparisons are strict: a value equal to its limit passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// `thresholdRange`; a missing bound is no bound.
    Range {
        /// Lower bound.
        min: Option<f64>,
        /// Upper bound.
        max: Option<f64>,
    },
    /// Not too much more than it was before.
    Rise(Rise),
    /// The deprecated `threshold`: a minimum for the success rate, a maximum for everything else.
    Threshold(f64),
}

/// Which metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Built-in `request-success-rate`, percent.
    SuccessRate,
    /// Built-in `request-duration`, milliseconds.
    Duration,
    /// An inline query.
    Query,
    /// A MetricTemplate.
    Template,
}

/// One metric check of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// `metrics[].name`.
    pub name: String,
    /// Position in `spec.analysis.metrics`.
    pub index: usize,
    /// Which metric.
    pub kind: CheckKind,
    /// Its limit.
    pub limit: Limit,
    /// How far back its query looks.
    pub window: Duration,
}

/// Why a check has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleError {
    /// The backend answered, but with nothing (or NaN). A failed check, as in Flagger. The text is the whole event.
    NoValues(String),
    /// The check itself is broken: missing or broken template, missing secret, rejected query. A failed check. The
    /// text is the whole event.
    Broken(String),
    /// The backend did not answer: connection refused, timeout, 5xx, 429. Never a verdict about the canary. The text is
    /// the cause alone.
    Unavailable(String),
}

/// The value of one check. `request-duration` is in milliseconds.
pub type Sample = Result<f64, SampleError>;

/// The verdict of one round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Every check passed.
    Pass,
    /// The first check that failed.
    Fail(Message),
    /// The monitoring does not answer, and that counts as a failed check.
    Missing(Message),
    /// The monitoring does not answer, which says nothing about the canary.
    Unknown(String),
    /// The monitoring answers again, but has no values yet, which says nothing about the canary either until it has lasted.
    Recovering {
        /// What is missing.
        text: String,
        /// How long a missing value is not held against the canary.
        counts_after: Duration,
    },
    /// The monitoring answers, but has nothing to compare yet.
    NoData,
}

/// Judges a round in order; the first failure ends it, as in Flagger. A check without an answer does not hide a failure
/// behind it, and a check that was not made never passes.
pub(crate) fn judge(plan: &Plan, state: &State, answer: &Answer<RoundAnswer>) -> Verdict {
    for hook in &answer.value.hooks {
        if let Err(error) = &hook.result {
            return Verdict::Fail(Message::ExternalCheckFailed {
                canary: plan.canary_id(),
                hook: hook.name.clone(),
                error: error.clone(),
            });
        }
    }
    let mut unknown = None;
    let mut recovering = None;
    for (position, check) in plan.checks.iter().enumerate() {
        let Some(sample) = answer.value.samples.get(position) else {
            unknown = unknown.or_else(|| Some(format!("{}: not measured", check.name)));
            break;
        };
        if let Limit::Rise(rise) = check.limit {
            match relative(plan, state, check, rise, sample, answer.at) {
                Verdict::Pass => {}
                Verdict::Unknown(text) => unknown = unknown.or(Some(text)),
                verdict @ (Verdict::Fail(_) | Verdict::Missing(_) | Verdict::NoData | Verdict::Recovering { .. }) => {
                    return verdict;
                }
            }
            continue;
        }
        match sample {
            Ok(value) if value.is_nan() && recovers(plan, state, check, answer.at) => {
                recovering = recovering.or_else(|| Some((format!("{}: no values yet", check.name), check)));
            }
            Err(SampleError::NoValues(text)) if recovers(plan, state, check, answer.at) => {
                recovering = recovering.or_else(|| Some((text.clone(), check)));
            }
            Ok(value) if value.is_nan() => {
                let text = format!("Halt advancement no values found for metric: {}", check.name);
                return Verdict::Fail(Message::CheckFailed { text, error: false });
            }
            Ok(value) => {
                if let Some(breach) = breach(check, *value) {
                    return Verdict::Fail(Message::Breached { canary: plan.canary_id(), breach });
                }
            }
            Err(SampleError::NoValues(text)) => {
                return Verdict::Fail(Message::CheckFailed { text: text.clone(), error: false });
            }
            Err(SampleError::Broken(text)) => {
                return Verdict::Fail(Message::CheckFailed { text: text.clone(), error: true });
            }
            Err(SampleError::Unavailable(error)) => match overdue(plan, state, check, error, answer.at) {
                Some(message) => return Verdict::Missing(message),
                None => unknown = unknown.or_else(|| Some(format!("{}: {error}", check.name))),
            },
        }
    }
    match (unknown, recovering) {
        (Some(text), _) => Verdict::Unknown(text),
        (None, Some((text, check))) => Verdict::Recovering { text, counts_after: recovery(plan, check) },
        (None, None) => Verdict::Pass,
    }
}

/// Judges a value by the first one. Whatever keeps the monitoring from giving one, a broken query too, says nothing about the canary
/// until it has lasted: a query that is mended goes on from where the canary stands.
fn relative(plan: &Plan, state: &State, check: &Check, rise: Rise, sample: &Sample, at: Timestamp) -> Verdict {
    let value = match value_of(sample, rise.no_data) {
        Ok(Some(value)) => value,
        Ok(None) => return Verdict::NoData,
        Err(error) => {
            return match overdue(plan, state, check, error, at) {
                Some(message) => Verdict::Missing(message),
                None => Verdict::Unknown(format!("{}: {error}", check.name)),
            };
        }
    };
    let previous = state.last_value.filter(|_| rise.compares_previous).map(|previous| (previous, true));
    let references = state.baseline.map(|baseline| (baseline, false)).into_iter().chain(previous);
    let mut risen = references.filter(|(reference, _)| value - reference > rise.deviation);
    match risen.next() {
        None => Verdict::Pass,
        Some((reference, is_previous)) => {
            let metric = check.name.clone();
            let breach = Breach::Rise { metric, value, reference, is_previous, deviation: rise.deviation };
            Verdict::Fail(Message::Breached { canary: plan.canary_id(), breach })
        }
    }
}

/// What a sample says while the canary has traffic; `None` where nothing is known yet, `Err` where nobody answers.
fn value_of(sample: &Sample, no_data: NoData) -> Result<Option<f64>, &str> {
    match sample {
        Ok(value) if !value.is_nan() => Ok(Some(*value)),
        Ok(_) | Err(SampleError::NoValues(_)) => Ok(match no_data {
            NoData::Zero => Some(0.0),
            NoData::Wait => None,
        }),
        Err(SampleError::Broken(error) | SampleError::Unavailable(error)) => Err(error),
    }
}

/// The sample of the relative check in a round, before the canary has traffic: without a value, nothing is known.
pub(crate) fn first_value(position: usize, answer: &RoundAnswer) -> Result<Option<f64>, String> {
    let sample = answer.samples.get(position).ok_or_else(|| "not measured".to_owned())?;
    value_of(sample, NoData::Wait).map_err(str::to_owned)
}

/// The value that a round which has passed leaves behind for the next one.
pub(crate) fn passed_value(plan: &Plan, answer: &RoundAnswer) -> Option<PassedValue> {
    let (position, rise) = plan.relative_check()?;
    let sample = answer.samples.get(position)?;
    let value = value_of(sample, rise.no_data).ok()??;
    Some(PassedValue { value, is_empty: !matches!(sample, Ok(value) if !value.is_nan()) })
}

/// See [`passed_value`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PassedValue {
    /// The value.
    pub(crate) value: f64,
    /// Whether the answer was empty.
    pub(crate) is_empty: bool,
}

/// A missing answer is no verdict about the canary, until the monitoring has been away for too long.
fn overdue(plan: &Plan, state: &State, check: &Check, error: &str, at: Timestamp) -> Option<Message> {
    let counts = match plan.outage {
        OutagePolicy::Fail => true,
        OutagePolicy::Hold { limit } => away(state, at).is_some_and(|away| away >= limit),
    };
    if !counts {
        return None;
    }
    let text = match check.kind {
        CheckKind::SuccessRate | CheckKind::Duration => format!("Prometheus query failed: {error}"),
        CheckKind::Query => format!("Prometheus query failed for {}: {error}", check.name),
        CheckKind::Template => format!("Metric query failed for {}: {error}", check.name),
    };
    Some(Message::CheckFailed { text, error: true })
}

/// Monitoring that was away has not seen enough at first: Prometheus needs two scrapes for a rate. Its first answers may be
/// empty, and say nothing about the canary. Users of a version that reports nothing must not wait for longer than that.
fn recovers(plan: &Plan, state: &State, check: &Check, at: Timestamp) -> bool {
    let OutagePolicy::Hold { limit } = plan.outage else { return false };
    let Some(outage) = state.outage else { return false };
    let answers = outage.answered_since.map(|since| passed(since, at)).unwrap_or_default();
    passed(outage.since, at) < limit && answers < recovery(plan, check)
}

/// How long monitoring that is back may have no values: until all that the query looks at lies after its return, and one
/// interval for what Prometheus needs to find the pods.
fn recovery(plan: &Plan, check: &Check) -> Duration {
    check.window.saturating_add(plan.interval)
}

/// For how long there has been no complete answer; `None` when the last one was.
fn away(state: &State, at: Timestamp) -> Option<Duration> {
    state.outage.map(|outage| passed(outage.since, at))
}

/// A clock that went backwards (another machine leads) shortens nothing.
fn passed(since: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(since)).unwrap_or_default()
}

fn breach(check: &Check, value: f64) -> Option<Breach> {
    match check.kind {
        CheckKind::SuccessRate => {
            let (min, max) = match check.limit {
                Limit::Range { min, max } => (min, max),
                Limit::Threshold(min) => (Some(min), None),
                Limit::Rise(_) => return None,
            };
            outside(value, min, max).map(|(limit, above)| Breach::SuccessRate { value, limit, above })
        }
        CheckKind::Duration => {
            // Flagger compares whole milliseconds on both sides of a range.
            let value = value.trunc();
            let (min, max) = match check.limit {
                Limit::Range { min, max } => (min.map(f64::trunc), max.map(f64::trunc)),
                Limit::Threshold(max) => (None, Some(max.trunc())),
                Limit::Rise(_) => return None,
            };
            outside(value, min, max).map(|(limit, above)| Breach::Duration {
                value: milliseconds(value),
                limit: milliseconds(limit),
                above,
            })
        }
        CheckKind::Query | CheckKind::Template => {
            let (min, max) = match check.limit {
                Limit::Range { min, max } => (min, max),
                Limit::Threshold(max) => (None, Some(max)),
                Limit::Rise(_) => return None,
            };
            outside(value, min, max).map(|(limit, above)| Breach::Custom {
                metric: check.name.clone(),
                value,
                limit,
                above,
            })
        }
    }
}

fn outside(value: f64, min: Option<f64>, max: Option<f64>) -> Option<(f64, bool)> {
    if let Some(min) = min.filter(|min| value < *min) {
        return Some((min, false));
    }
    max.filter(|max| value > *max).map(|max| (max, true))
}

fn milliseconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0) / 1000.0).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Check, CheckKind, Limit, breach};

    fn check(kind: CheckKind, limit: Limit) -> Check {
        Check { name: "m".into(), index: 0, kind, limit, window: std::time::Duration::from_secs(60) }
    }

    fn text(kind: CheckKind, limit: Limit, value: f64) -> Option<String> {
        breach(&check(kind, limit), value).map(|breach| breach.to_string())
    }

    const fn range(min: Option<f64>, max: Option<f64>) -> Limit {
        Limit::Range { min, max }
    }

    #[test]
    fn limits_are_compared_as_flagger_compares_them() {
        use CheckKind::*;
        assert_eq!(text(SuccessRate, Limit::Threshold(99.0), 99.0), None);
        assert_eq!(text(SuccessRate, Limit::Threshold(99.0), 98.99).as_deref(), Some("success rate 98.99% < 99%"));
        assert_eq!(text(SuccessRate, range(None, Some(50.0)), 60.0).as_deref(), Some("success rate 60.00% > 50%"));
        assert_eq!(text(Duration, range(None, Some(500.0)), 500.9), None);
        assert_eq!(text(Duration, range(None, Some(0.5)), 1.0).as_deref(), Some("request duration 1ms > 0s"));
        assert_eq!(text(Duration, Limit::Threshold(500.0), 1515.0).as_deref(), Some("request duration 1.515s > 500ms"));
        assert_eq!(text(Query, Limit::Threshold(0.0), 0.0), None);
        assert_eq!(text(Template, Limit::Threshold(0.0), 0.01).as_deref(), Some("m 0.01 > 0"));
        assert_eq!(text(Template, range(None, None), f64::INFINITY), None);
    }
}
