//! What a canary is like: its strategy, and what is built around it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::objects::{self, Name};
use crate::random::Random;

/// Header of the users who meet the conditions of A/B tests.
pub(in crate::chaos) const INSIDER: (&str, &str) = ("x-user", "insider");
/// Where the canaries' hooks are called.
pub(in crate::chaos) const GATES: &str = "gates.test";
/// Long enough that Prometheus has scraped twice before the first check: one sample gives no rate.
pub(in crate::chaos) const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

/// How users come to a new revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Strategy {
    Weights,
    /// Users keep the side that they were given.
    Sticky,
    /// Those who send a header.
    AbTest,
    /// Everybody at once, after iterations judged by copies of the requests.
    BlueGreenMirrored,
    /// Everybody at once, and nobody judges: nothing else sends requests before everybody does.
    BlueGreenUnjudged,
}

/// The hooks at which a run waits for a yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::chaos) enum Gate {
    Rollout,
    TrafficIncrease,
    Promotion,
    /// Not one to wait at: a yes rolls back.
    Rollback,
}

impl Gate {
    /// The type of its webhook, and the last part of its address.
    pub(in crate::chaos) fn kind(self) -> &'static str {
        match self {
            Gate::Rollout => "confirm-rollout",
            Gate::TrafficIncrease => "confirm-traffic-increase",
            Gate::Promotion => "confirm-promotion",
            Gate::Rollback => "rollback",
        }
    }
}

/// What a canary is like.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::chaos) struct Shape {
    pub(in crate::chaos) strategy: Strategy,
    pub(in crate::chaos) interval: Duration,
    pub(in crate::chaos) skips_analysis: bool,
    pub(in crate::chaos) reverts: bool,
    /// Its pods read a ConfigMap.
    pub(in crate::chaos) has_config: bool,
    pub(in crate::chaos) is_scaled: bool,
    pub(in crate::chaos) gates: Vec<Gate>,
    analysis: Value,
}

impl Shape {
    pub(super) fn new(random: &mut Random) -> Shape {
        let interval = random.pick([SHORTEST_INTERVAL, Duration::from_secs(15), Duration::from_secs(30)]);
        let (strategy, mut analysis) = strategy(random);
        analysis["threshold"] = json!(random.pick([2, 3, 5]));
        let skips_analysis = random.below(8) == 0;
        let mut gates = Vec::new();
        if random.below(3) == 0 {
            for gate in [Gate::Rollout, Gate::TrafficIncrease, Gate::Promotion, Gate::Rollback] {
                // Without an analysis there is nothing to confirm but its beginning.
                if random.below(2) == 0 && (gate == Gate::Rollout || !skips_analysis) {
                    gates.push(gate);
                }
            }
        }
        Shape {
            strategy,
            interval,
            skips_analysis,
            reverts: random.below(4) == 0,
            has_config: random.below(4) == 0,
            is_scaled: random.below(6) == 0,
            gates,
            analysis,
        }
    }

    /// Whether the autoscaler is one that would bring back a target without pods. Follows from what is drawn anyway, so that
    /// stories stay what they were.
    pub(in crate::chaos) fn is_scaled_by_keda(&self) -> bool {
        self.is_scaled && self.interval.as_secs() != 15
    }

    /// The Canary object.
    pub(super) fn canary(&self, name: &Name) -> Value {
        let mut canary = objects::canary(name, self.interval);
        let spec = &mut canary["spec"];
        let analysis = &mut spec["analysis"];
        if let (Some(analysis), Some(own)) = (analysis.as_object_mut(), self.analysis.as_object()) {
            analysis.retain(|field, _| field != "stepWeight" && field != "maxWeight");
            analysis.extend(own.clone());
        }
        if !self.gates.is_empty() {
            let hook = |gate: &Gate| {
                let kind = gate.kind();
                let url = format!("http://{GATES}/{}/{}/{kind}", name.namespace, name.name);
                json!({"name": kind, "type": kind, "url": url})
            };
            analysis["webhooks"] = self.gates.iter().map(hook).collect();
        }
        spec["skipAnalysis"] = json!(self.skips_analysis);
        spec["revertOnDeletion"] = json!(self.reverts);
        if self.is_scaled {
            let (version, kind) = match self.is_scaled_by_keda() {
                true => ("keda.sh/v1alpha1", "ScaledObject"),
                false => ("autoscaling/v2", "HorizontalPodAutoscaler"),
            };
            spec["autoscalerRef"] = json!({"apiVersion": version, "kind": kind, "name": name.name});
        }
        canary
    }
}

/// A strategy, and the fields of the analysis that make it.
fn strategy(random: &mut Random) -> (Strategy, Value) {
    let iterations = random.pick([1, 3]);
    match random.below(11) {
        0 => {
            let steps = if random.below(2) == 0 { json!([5, 20, 60]) } else { json!([1, 2, 10, 80]) };
            (Strategy::Weights, json!({"stepWeights": steps}))
        }
        1 => {
            let back = random.pick([20, 50]);
            (Strategy::Weights, json!({"stepWeight": 25, "maxWeight": 100, "stepWeightPromotion": back}))
        }
        2 => (Strategy::Weights, json!({"stepWeight": 10, "maxWeight": 50, "mirror": true})),
        3 => {
            let cookies = json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck"});
            (Strategy::Sticky, json!({"stepWeight": 10, "maxWeight": 50, "sessionAffinity": cookies}))
        }
        4 | 5 => {
            let (header, value) = INSIDER;
            let insiders = json!([{"headers": {header: {"exact": value}}}]);
            (Strategy::AbTest, json!({"iterations": iterations, "match": insiders}))
        }
        6 => (Strategy::BlueGreenMirrored, json!({"iterations": iterations, "mirror": true})),
        7 => (Strategy::BlueGreenUnjudged, json!({"iterations": iterations, "metrics": []})),
        _ => (Strategy::Weights, json!({"stepWeight": random.pick([10, 20, 50]), "maxWeight": 50})),
    }
}
