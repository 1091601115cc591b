//! Steerer's Rollout. As Steerer's own definition admits it; numbers may be fractions here and are refused later.

use serde_json::{Value, json};

use super::builder::Schema;
use crate::steerer::{CANARY_WEIGHT, STATE};

pub(super) fn printer_columns() -> Value {
    json!([
        {"name": "State", "type": "string", "jsonPath": format!(".status.{STATE}")},
        {"name": "Weight", "type": "string", "jsonPath": format!(".status.{CANARY_WEIGHT}")},
        {"name": "LastTransitionTime", "type": "string", "jsonPath": ".status.lastTransitionTime"},
    ])
}

pub(super) fn spec() -> Schema {
    Schema::object(
        "What the user asks for.",
        [
            ("targetKind", Schema::string("Kind of both workloads: Deployment.")),
            ("primary", side("What serves users between two releases.")),
            ("canary", side("What is tried.")),
            (
                "virtualService",
                Schema::object(
                    "The routes to both sides.",
                    [
                        ("name", Schema::string("Name of the Istio VirtualService.")),
                        (
                            "weight",
                            Schema::number("Percentage points by which the canary's weight grows. Default: 10."),
                        ),
                    ],
                )
                .require(&["name"]),
            ),
            ("metric", metric()),
            ("metrics", Schema::list("The same in the form of Steerer's last days.", metric())),
            // Kept, so that it can be refused: nobody would hear of an analysis that was cut away.
            (
                "canaryAnalysis",
                Schema::plain_object()
                    .with("description", "Not served in a Rollout: an object that has it is refused.")
                    .with("x-kubernetes-preserve-unknown-fields", true),
            ),
        ],
    )
    .require(&["primary", "canary", "virtualService"])
}

pub(super) fn status() -> Schema {
    super::canary::status().and(CANARY_WEIGHT, Schema::number("canaryWeight in Steerer's words."))
}

fn side(description: &str) -> Schema {
    Schema::object(
        description,
        [
            ("name", Schema::string("Name of the Deployment.")),
            ("host", Schema::string("Name of its ClusterIP service.")),
        ],
    )
    .require(&["name", "host"])
}

fn metric() -> Schema {
    Schema::object(
        "What the canary is judged by: its share of requests that do not fail, or its 99th percentile of latency.",
        [
            ("type", Schema::string("Not read.")),
            (
                "name",
                Schema::string(
                    "Name of the request counter, or istio_request_duration_seconds_bucket. Default: istio_requests_total.",
                ),
            ),
            ("interval", Schema::string("Window of the query. Default: 1m.")),
            ("threshold", Schema::number("Least success rate in percent, or greatest latency in milliseconds.")),
        ],
    )
}
