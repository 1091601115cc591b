//! The annotations that stop KEDA.

use serde_json::Value;

/// Whether a ScaledObject scales its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paused {
    No,
    /// `autoscaling.keda.sh/paused: "true"`.
    WhereItIs,
    /// `autoscaling.keda.sh/paused-replicas`, which wins.
    At(i64),
}

impl Paused {
    pub(super) fn of(object: &Value) -> Paused {
        let annotation = |name: &str| {
            object["metadata"]["annotations"][format!("autoscaling.keda.sh/{name}")].as_str().map(str::to_owned)
        };
        if let Some(count) = annotation("paused-replicas") {
            return count.parse().map_or(Paused::No, Paused::At);
        }
        match annotation("paused").as_deref() {
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Paused::WhereItIs,
            _ => Paused::No,
        }
    }
}
