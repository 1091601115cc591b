//! How fast an autoscaler may follow its metrics: bounds, stabilisation windows and the policies of `spec.behavior`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::super::json::{after, count, integer, seconds, text};

/// `--horizontal-pod-autoscaler-sync-period` of the controller manager.
pub(super) const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
const DOWNSCALE_STABILISATION: i64 = 300;
/// Replicas that may be reached in one step however few there are, without `spec.behavior`.
const SCALE_UP_MINIMUM: i32 = 4;

/// What was recommended and done, as far as windows and policies look back.
#[derive(Debug, Default)]
pub(super) struct History {
    recommendations: Vec<(Timestamp, i32)>,
    /// Changes of the size: positive for more pods.
    changes: Vec<(Timestamp, i32)>,
}

/// A size with the two conditions that explain it, each as reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    pub(super) able_to_scale: (&'static str, &'static str),
    /// Whether the size is another one than was recommended, and why.
    pub(super) limited: bool,
    pub(super) limit: (&'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILISED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILISED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN_RANGE: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

/// The sizes between which an autoscaler moves, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
}

impl History {
    /// The size that was there at first counts as a recommendation, so that nothing is removed at once. So does the size at
    /// which an autoscaler rested: the real one goes on recommending it every period.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        let rested = self.recommendations.iter().all(|(at, _)| after(*at, SYNC_PERIOD) < now);
        if rested {
            self.recommendations.push((now, current));
        }
    }

    pub(super) fn record_change(&mut self, from: i32, to: i32, now: Timestamp) {
        self.changes.push((now, to - from));
        // The longest period that a policy can have is half an hour.
        self.changes.retain(|(at, _)| after(*at, Duration::from_secs(1800)) > now);
    }

    /// Whether time alone can change the answer: an earlier recommendation or change still counts.
    pub(super) fn is_settled_at(&self, current: i32) -> bool {
        self.recommendations.iter().all(|(_, replicas)| *replicas == current)
    }

    /// The size to take where the metrics recommend `wanted`.
    pub(super) fn limit(&mut self, autoscaler: &Value, wanted: i32, bounds: Bounds, now: Timestamp) -> Limited {
        match autoscaler.pointer("/spec/behavior").filter(|behavior| !behavior.is_null()) {
            Some(behavior) => self.limit_by_behavior(behavior, wanted, bounds, now),
            None => self.limit_by_default(wanted, bounds, now),
        }
    }

    /// Upstream: `normalizeDesiredReplicas`.
    fn limit_by_default(&mut self, wanted: i32, bounds: Bounds, now: Timestamp) -> Limited {
        let Bounds { current, min, max } = bounds;
        let highest = self.extreme(DOWNSCALE_STABILISATION, now, i32::max).unwrap_or(wanted);
        let stabilised = wanted.max(highest);
        self.remember(wanted, DOWNSCALE_STABILISATION, now);
        let able_to_scale = if stabilised == wanted { READY } else { DOWN_STABILISED };
        let fastest = current.saturating_mul(2).max(SCALE_UP_MINIMUM);
        let (highest_allowed, reason) = if max > fastest { (fastest, TOO_FAST_UP) } else { (max, TOO_MANY) };
        let (replicas, limit) = if stabilised < min {
            (min, TOO_FEW)
        } else if stabilised > highest_allowed {
            (highest_allowed, reason)
        } else {
            (stabilised, WITHIN_RANGE)
        };
        Limited { replicas, able_to_scale, limited: replicas != stabilised, limit }
    }

    /// Upstream: `normalizeDesiredReplicasWithBehaviors`.
    fn limit_by_behavior(&mut self, behavior: &Value, wanted: i32, bounds: Bounds, now: Timestamp) -> Limited {
        let Bounds { current, min, max } = bounds;
        let window = |direction: &str, default: i64| {
            integer(behavior, &format!("/{direction}/stabilizationWindowSeconds")).unwrap_or(default)
        };
        let (up_window, down_window) = (window("scaleUp", 0), window("scaleDown", DOWNSCALE_STABILISATION));
        let lowest = self.extreme(up_window, now, i32::min).map_or(wanted, |lowest| lowest.min(wanted));
        let highest = self.extreme(down_window, now, i32::max).map_or(wanted, |highest| highest.max(wanted));
        let stabilised = current.max(lowest).min(highest);
        self.remember(wanted, up_window.max(down_window), now);
        let able_to_scale = match stabilised == wanted {
            true => READY,
            false if wanted >= current => UP_STABILISED,
            false => DOWN_STABILISED,
        };
        let (replicas, limit) = if stabilised > current {
            let fastest = self.fastest(&Rules::up(behavior), current, now).max(current);
            let (highest, reason) = if max > fastest { (fastest, TOO_FAST_UP) } else { (max, TOO_MANY) };
            if stabilised > highest { (highest, reason) } else { (stabilised, WITHIN_RANGE) }
        } else if stabilised < current {
            let fastest = self.fastest(&Rules::down(behavior), current, now).min(current);
            let (lowest, reason) = if min < fastest { (fastest, TOO_FAST_DOWN) } else { (min, TOO_FEW) };
            if stabilised < lowest { (lowest, reason) } else { (stabilised, WITHIN_RANGE) }
        } else {
            (stabilised, WITHIN_RANGE)
        };
        Limited { replicas, able_to_scale, limited: replicas != stabilised, limit }
    }

    fn extreme(&self, window: i64, now: Timestamp, choose: fn(i32, i32) -> i32) -> Option<i32> {
        let within = self.recommendations.iter().filter(|(at, _)| after(*at, seconds(window)) > now);
        within.map(|(_, replicas)| *replicas).reduce(choose)
    }

    fn remember(&mut self, wanted: i32, window: i64, now: Timestamp) {
        self.recommendations.retain(|(at, _)| after(*at, seconds(window)) > now);
        self.recommendations.push((now, wanted));
    }

    /// The size that the policies of one direction allow now.
    fn fastest(&self, rules: &Rules, current: i32, now: Timestamp) -> i32 {
        let allowed = rules.policies.iter().map(|policy| {
            let recent = self.changes.iter().filter(|(at, _)| after(*at, policy.period) > now);
            let at_the_start = current - recent.map(|(_, change)| change).sum::<i32>();
            policy.allowed(at_the_start, rules.grows)
        });
        match rules.select {
            Select::Disabled => current,
            // The smallest change up is the smallest size, the smallest change down the largest.
            Select::Min if rules.grows => allowed.min().unwrap_or(i32::MAX),
            Select::Min => allowed.max().unwrap_or(i32::MIN),
            Select::Max if rules.grows => allowed.max().unwrap_or(i32::MIN),
            Select::Max => allowed.min().unwrap_or(i32::MAX),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Select {
    Max,
    Min,
    Disabled,
}

#[derive(Debug)]
struct Policy {
    is_percent: bool,
    value: i32,
    period: Duration,
}

impl Policy {
    /// Rounded up on the way up, so that one pod can grow; cut off on the way down.
    #[allow(clippy::cast_possible_truncation)]
    fn allowed(&self, from: i32, grows: bool) -> i32 {
        let fraction = f64::from(self.value) / 100.0;
        match (self.is_percent, grows) {
            (false, true) => from.saturating_add(self.value),
            (false, false) => from.saturating_sub(self.value),
            (true, true) => (f64::from(from) * (1.0 + fraction)).ceil() as i32,
            (true, false) => (f64::from(from) * (1.0 - fraction)) as i32,
        }
    }
}

/// `behavior.scaleUp` or `behavior.scaleDown` with the API server's defaults.
#[derive(Debug)]
struct Rules {
    grows: bool,
    select: Select,
    policies: Vec<Policy>,
}

impl Rules {
    fn up(behavior: &Value) -> Self {
        let pods = Policy { is_percent: false, value: 4, period: Duration::from_secs(15) };
        let percent = Policy { is_percent: true, value: 100, period: Duration::from_secs(15) };
        Self::parse(behavior.get("scaleUp"), true, vec![pods, percent])
    }

    fn down(behavior: &Value) -> Self {
        let percent = Policy { is_percent: true, value: 100, period: Duration::from_secs(15) };
        Self::parse(behavior.get("scaleDown"), false, vec![percent])
    }

    fn parse(rules: Option<&Value>, grows: bool, default: Vec<Policy>) -> Self {
        let select = match rules.and_then(|rules| text(rules, "/selectPolicy")) {
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            _ => Select::Max,
        };
        let listed = rules.and_then(|rules| rules.get("policies")).and_then(Value::as_array);
        let policies = match listed {
            Some(listed) => listed.iter().map(Policy::parse).collect(),
            None => default,
        };
        Self { grows, select, policies }
    }
}

impl Policy {
    fn parse(policy: &Value) -> Self {
        Self {
            is_percent: text(policy, "/type") == Some("Percent"),
            value: count(policy, "/value").unwrap_or(0),
            period: seconds(integer(policy, "/periodSeconds").unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn bounds(current: i32) -> Bounds {
        Bounds { current, min: 1, max: 100 }
    }

    fn with(behavior: &Value) -> Value {
        json!({"spec": {"behavior": behavior}})
    }

    #[test]
    fn without_behavior_a_size_doubles_or_reaches_four() {
        let autoscaler = json!({"spec": {}});
        let reached = |current| History::default().limit(&autoscaler, 90, bounds(current), at(0));
        assert_eq!(reached(1).replicas, 4);
        assert_eq!(reached(3).replicas, 6);
        assert_eq!((reached(3).limited, reached(3).limit), (true, TOO_FAST_UP));
        let wide = History::default().limit(&autoscaler, 200, bounds(60), at(0));
        assert_eq!((wide.replicas, wide.limit), (100, TOO_MANY));
        let few = History::default().limit(&autoscaler, 0, bounds(3), at(0));
        assert_eq!((few.replicas, few.limit), (1, TOO_FEW));
    }

    #[test]
    fn a_smaller_size_waits_until_the_window_has_passed() {
        let autoscaler = json!({"spec": {}});
        let mut history = History::default();
        history.begin(10, at(0));
        let first = history.limit(&autoscaler, 3, bounds(10), at(15));
        assert_eq!((first.replicas, first.able_to_scale), (10, DOWN_STABILISED));
        assert!(!history.is_settled_at(10));
        let later = history.limit(&autoscaler, 3, bounds(10), at(300));
        assert_eq!((later.replicas, later.able_to_scale), (3, READY));
    }

    #[test]
    fn a_size_at_which_it_rested_holds_for_the_window_too() {
        let autoscaler = json!({"spec": {}});
        let mut history = History::default();
        history.begin(6, at(0));
        assert_eq!(history.limit(&autoscaler, 6, bounds(6), at(0)).replicas, 6);
        history.begin(6, at(3600));
        assert_eq!(history.limit(&autoscaler, 1, bounds(6), at(3600)).replicas, 6);
        history.begin(6, at(3615));
        assert_eq!(history.limit(&autoscaler, 1, bounds(6), at(3615)).replicas, 6);
        assert_eq!(history.limit(&autoscaler, 1, bounds(6), at(3900)).replicas, 1);
    }

    #[test]
    fn policies_count_what_was_changed_in_their_period() {
        let slow = with(&json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}));
        let mut history = History::default();
        assert_eq!(history.limit(&slow, 20, bounds(4), at(0)).replicas, 6);
        history.record_change(4, 6, at(0));
        let held = history.limit(&slow, 20, bounds(6), at(30));
        assert_eq!((held.replicas, held.limit), (6, TOO_FAST_UP));
        assert_eq!(history.limit(&slow, 20, bounds(6), at(60)).replicas, 8);
    }

    #[test]
    fn the_selected_policy_decides_in_both_directions() {
        let policies = json!([
            {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60},
        ]);
        let down = |select: &str| {
            with(&json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies}}))
        };
        let reached = |select: &str| History::default().limit(&down(select), 1, bounds(9), at(0));
        assert_eq!(reached("Max").replicas, 4, "half of nine, cut off");
        assert_eq!(reached("Min").replicas, 8);
        assert_eq!((reached("Disabled").replicas, reached("Disabled").limit), (9, TOO_FAST_DOWN));
        let up = with(&json!({"scaleUp": {"selectPolicy": "Min", "policies": policies}}));
        assert_eq!(History::default().limit(&up, 50, bounds(9), at(0)).replicas, 10);
        let up = with(&json!({"scaleUp": {"policies": policies}}));
        assert_eq!(History::default().limit(&up, 50, bounds(9), at(0)).replicas, 14, "rounded up");
    }

    #[test]
    fn a_larger_size_waits_where_a_window_says_so() {
        let steady = with(&json!({"scaleUp": {"stabilizationWindowSeconds": 60}}));
        let mut history = History::default();
        history.begin(3, at(0));
        let held = history.limit(&steady, 8, bounds(3), at(15));
        assert_eq!((held.replicas, held.able_to_scale), (3, UP_STABILISED));
        assert_eq!(history.limit(&steady, 6, bounds(3), at(75)).replicas, 6);
    }
}
