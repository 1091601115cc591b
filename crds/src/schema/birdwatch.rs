//! Schema of BirdWatch. It admits whatever the otomator's admits.

use serde_json::{Value, json};

use super::builder::Schema;
use super::canary;

pub(super) fn spec() -> Schema {
    let options = |description: &str, allowed: &[&str]| Schema::string(description).values(allowed);
    Schema::object(
        "What is released, and how.",
        [
            ("service", Schema::string("Name of the VirtualService and of the DestinationRule.")),
            ("metric", Schema::string("Query (PromQL) that must not rise.")),
            (
                "deviation",
                Schema::number("How much the query may rise above its first value. Default 10.")
                    .with("format", "float"),
            ),
            (
                "increment",
                Schema::integer("Percentage points by which the canary grows. Default 1.")
                    .with("minimum", 1)
                    .with("maximum", 10),
            ),
            ("canary_version", Schema::string("Value of the label version of the canary's pods.")),
            (
                "if_unhealthy",
                Schema::string("Whether an unhealthy canary loses its traffic or keeps its share. Default rollback.")
                    .with("pattern", "^(freeze|rollback)$"),
            ),
            (
                "interval",
                Schema::integer("Seconds between two increments. Default 5.").with("minimum", 1).with("maximum", 600),
            ),
            ("review", Schema::boolean("Whether the object is left alone.")),
            (
                "compare",
                options(
                    "Whether a value is compared with the first one only, or with the one before it as well. Default baseline.",
                    &["baseline", "baseline-and-previous"],
                ),
            ),
            (
                "no_data",
                options(
                    "Whether an answer without a value means zero while the canary has traffic, or the canary waits for one. \
                     Default zero.",
                    &["zero", "wait"],
                ),
            ),
            (
                "query_errors",
                Schema::integer(
                    "Queries in a row that may fail before the canary counts as unhealthy. Default: the controller's \
                     --metrics-outage-limit.",
                )
                .with("minimum", 1)
                .with("maximum", 1000),
            ),
            (
                "delete_on_success",
                Schema::boolean("Whether the object is deleted when its version is in production. Default false."),
            ),
        ],
    )
}

pub(super) fn status() -> Schema {
    canary::status()
        .and("baseline", Schema::number("First value of the query."))
        .and("lastValue", Schema::number("Last value of the query."))
}

pub(super) fn printer_columns() -> Value {
    json!([
        {"name": "Status", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Version", "type": "string", "jsonPath": ".spec.canary_version"},
        {"name": "Weight", "type": "string", "jsonPath": ".status.canaryWeight"},
        {"name": "Baseline", "type": "string", "jsonPath": ".status.baseline"},
        {"name": "Value", "type": "string", "jsonPath": ".status.lastValue"},
        {"name": "LastTransitionTime", "type": "string", "jsonPath": ".status.lastTransitionTime"},
    ])
}
