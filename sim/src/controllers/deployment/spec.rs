//! What the deployment controller needs of a Deployment, with the API server's defaults filled in.

use serde_json::Value;

use super::super::json::{count, encode_hash, flag, integer, is_deleting, template_hash, text};

/// How pods of an old template give way to those of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    RollingUpdate,
    Recreate,
}

/// A Deployment in the controller's terms: percentages are resolved against `replicas`.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentSpec {
    pub(crate) name: String,
    pub(crate) generation: i64,
    pub(crate) deleting: bool,
    pub(crate) replicas: i32,
    pub(crate) strategy: Strategy,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
    pub(crate) paused: bool,
    /// Seconds; `None` where the user switched the deadline off.
    pub(crate) progress_deadline: Option<i64>,
    pub(crate) revision_history_limit: Option<i32>,
    /// Seconds.
    pub(crate) min_ready: i64,
    pub(crate) template_hash: u64,
}

impl DeploymentSpec {
    pub(crate) fn parse(deployment: &Value) -> Self {
        let replicas = count(deployment, "/spec/replicas").unwrap_or(1);
        let strategy = match text(deployment, "/spec/strategy/type") {
            Some("Recreate") => Strategy::Recreate,
            _ => Strategy::RollingUpdate,
        };
        let (max_surge, max_unavailable) = match strategy {
            Strategy::Recreate => (0, 0),
            Strategy::RollingUpdate => fence_posts(deployment, replicas),
        };
        let no_deadline = i64::from(i32::MAX);
        let progress_deadline = integer(deployment, "/spec/progressDeadlineSeconds").unwrap_or(600);
        let history = count(deployment, "/spec/revisionHistoryLimit").unwrap_or(10);
        let null = Value::Null;
        Self {
            name: text(deployment, "/metadata/name").unwrap_or_default().to_owned(),
            generation: integer(deployment, "/metadata/generation").unwrap_or(0),
            deleting: is_deleting(deployment),
            replicas,
            strategy,
            max_surge,
            max_unavailable,
            paused: flag(deployment, "/spec/paused"),
            progress_deadline: (progress_deadline != no_deadline).then_some(progress_deadline),
            revision_history_limit: (history != i32::MAX).then_some(history),
            min_ready: integer(deployment, "/spec/minReadySeconds").unwrap_or(0),
            template_hash: template_hash(deployment.pointer("/spec/template").unwrap_or(&null)),
        }
    }

    /// The hash of the template as it appears in names and labels.
    pub(crate) fn encoded_hash(&self, collision_count: i32) -> String {
        encode_hash(self.template_hash, collision_count)
    }

    /// Name of the ReplicaSet for the current template.
    pub(crate) fn new_set_name(&self, collision_count: i32) -> String {
        format!("{}-{}", self.name, self.encoded_hash(collision_count))
    }

    /// The most pods that may exist during a rollout.
    pub(crate) fn max_replicas(&self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }
}

/// Surge rounds up, unavailability rounds down; where both come out as zero nothing could move, so one pod may be missing
/// (`ResolveFenceposts` of Kubernetes). A Deployment of zero replicas has no unavailability to spend.
fn fence_posts(deployment: &Value, replicas: i32) -> (i32, i32) {
    let rolling = deployment.pointer("/spec/strategy/rollingUpdate");
    let surge = scaled(rolling.and_then(|r| r.get("maxSurge")), 25, replicas, true);
    let unavailable = scaled(rolling.and_then(|r| r.get("maxUnavailable")), 25, replicas, false);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (surge, unavailable.min(replicas))
}

/// An int-or-percent value against a total. `default_percent` stands in for an absent or unreadable value.
fn scaled(value: Option<&Value>, default_percent: i64, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0).max(0);
            return i32::try_from(number).unwrap_or(i32::MAX);
        }
        Some(Value::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(default_percent),
        _ => default_percent,
    };
    let hundredths = i64::from(total).saturating_mul(percent.max(0));
    let rounded = if round_up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn posts(replicas: i32, surge: &Value, unavailable: &Value) -> (i32, i32) {
        let deployment = json!({"spec": {"replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
        let spec = DeploymentSpec::parse(&deployment);
        (spec.max_surge, spec.max_unavailable)
    }

    #[test]
    fn surge_rounds_up_and_unavailability_rounds_down() {
        assert_eq!(posts(10, &json!("25%"), &json!("25%")), (3, 2));
        assert_eq!(posts(1, &json!("25%"), &json!("25%")), (1, 0));
        assert_eq!(posts(3, &json!(0), &json!("10%")), (0, 1));
        assert_eq!(posts(2, &json!(1), &json!(5)), (1, 2));
        assert_eq!(posts(0, &json!("25%"), &json!("25%")), (0, 0));
    }

    #[test]
    fn absent_fields_take_the_defaults_of_the_api_server() {
        let spec = DeploymentSpec::parse(&json!({"metadata": {"name": "a"}, "spec": {}}));
        assert_eq!((spec.replicas, spec.max_surge, spec.max_unavailable), (1, 1, 0));
        assert_eq!(spec.progress_deadline, Some(600));
        assert_eq!(spec.revision_history_limit, Some(10));
        let off = DeploymentSpec::parse(&json!({"spec": {"progressDeadlineSeconds": 2147483647}}));
        assert_eq!(off.progress_deadline, None);
    }
}
