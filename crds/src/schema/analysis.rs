//! Schema of `spec.analysis`.

use super::builder::Schema;
use super::service::{optional_string_match, string_match};

/// How durations begin. What follows is not looked at here, so `1m30s` is admitted.
const DURATION: &str = "^[0-9]+(m|s)";

pub(super) fn analysis() -> Schema {
    analysis_fields(
        "How a new revision is stepped up and judged. Exactly one of stepWeight, stepWeights and iterations.",
    )
    .exactly_one_of(&[
        &["interval", "threshold", "iterations"],
        &["interval", "threshold", "stepWeight"],
        &["interval", "threshold", "stepWeights"],
    ])
}

/// The analysis of v1alpha1. That had few of these fields; none is cut away, because nobody would hear of a lost gate.
pub(super) fn canary_analysis() -> Schema {
    analysis_fields(
        "How a new revision is stepped up and judged, as Flagger 0.1 reads it: checked every --control-loop-interval, by metrics \
         with the names of Istio's series. Passed over where there is an analysis.",
    )
}

fn analysis_fields(description: &str) -> Schema {
    Schema::object(
        description,
        [
            (
                "interval",
                Schema::string("Time between check rounds, such as 1m. At least 10s.").with("pattern", DURATION),
            ),
            ("iterations", Schema::number("Number of check rounds of a blue/green or A/B run.")),
            ("threshold", Schema::number("Failed checks that end the run. Default 1.")),
            ("maxWeight", Schema::number("Weight of the canary (percent) from which on it is promoted. Default 100.")),
            ("stepWeight", Schema::number("Percentage points that are added to the canary's weight per step.")),
            (
                "stepWeights",
                Schema::list("Weights of the canary (percent), increasing, one per step.", Schema::number("")),
            ),
            (
                "stepWeightPromotion",
                Schema::number(
                    "Percentage points per step of the way back to the promoted primary. Default 0: all at once.",
                ),
            ),
            ("mirror", Schema::boolean("Whether the canary first gets a copy of the traffic. Default false.")),
            ("mirrorWeight", Schema::number("Percentage of the traffic that is copied. Default: all.")),
            (
                "primaryReadyThreshold",
                Schema::number("Percentage of the primary's pods that must be available. Default 100."),
            ),
            (
                "canaryReadyThreshold",
                Schema::number("Percentage of the canary's pods that must be available. Default 100."),
            ),
            ("match", Schema::list("Requests that reach the canary in an A/B run.", match_request())),
            ("metrics", Schema::list("What is measured.", metric())),
            ("alerts", Schema::list("Who is told. Default: the controller's own channel.", alert())),
            ("webhooks", Schema::list("Who is asked.", webhook())),
            ("sessionAffinity", session_affinity()),
        ],
    )
}

fn match_request() -> Schema {
    Schema::object(
        "",
        [
            (
                "headers",
                Schema::map("Header name to condition.", string_match(&["exact", "prefix", "suffix", "regex"])),
            ),
            ("queryParams", Schema::map("Query parameter to condition.", optional_string_match())),
            ("sourceLabels", Schema::string_map("Labels of the calling workload.")),
        ],
    )
}

fn cross_namespace_reference(description: &str) -> Schema {
    Schema::object(
        description,
        [("name", Schema::string("Name.")), ("namespace", Schema::string("Namespace. Default: that of the canary."))],
    )
    .require(&["name"])
}

fn metric() -> Schema {
    Schema::object(
        "",
        [
            ("name", Schema::string("Name. request-success-rate and request-duration are built in.")),
            (
                "interval",
                Schema::string("Window of the query, such as 1m, which is the default.").with("pattern", DURATION),
            ),
            (
                "threshold",
                Schema::number(
                    "Older form of thresholdRange: least success rate (percent), most milliseconds, or most of what \
                     a query yields.",
                ),
            ),
            (
                "thresholdRange",
                Schema::object(
                    "Limits, both inclusive. Wins over threshold.",
                    [("min", Schema::number("Least.")), ("max", Schema::number("Most."))],
                ),
            ),
            ("query", Schema::string("Inline query, sent to the metrics server.")),
            ("templateRef", cross_namespace_reference("The MetricTemplate to use.")),
            ("templateVariables", Schema::string_map("Values of the template's variables.")),
        ],
    )
    .require(&["name"])
}

fn alert() -> Schema {
    Schema::object(
        "",
        [
            ("name", Schema::string("Name.")),
            (
                "severity",
                Schema::string("From which severity on it is sent. Default info.")
                    .values(&["", "info", "warn", "error"]),
            ),
            ("providerRef", cross_namespace_reference("The AlertProvider to use.")),
        ],
    )
    .require(&["providerRef", "name"])
}

fn webhook() -> Schema {
    Schema::object(
        "",
        [
            ("name", Schema::string("Name.")),
            (
                "type",
                Schema::string("When it is called. Default rollout: in each check round.").values(&[
                    "",
                    "confirm-rollout",
                    "pre-rollout",
                    "rollout",
                    "confirm-promotion",
                    "post-rollout",
                    "event",
                    "rollback",
                    "confirm-traffic-increase",
                ]),
            ),
            ("muteAlert", Schema::boolean("Whether the alert of a closed gate is kept back. Default false.")),
            ("url", Schema::string("Address.").with("format", "url")),
            (
                "timeout",
                Schema::string("Timeout of one attempt, such as 10s, which is the default.").with("pattern", DURATION),
            ),
            ("retries", Schema::number("How often a call is tried again. Default 0.")),
            ("disableTLS", Schema::boolean("Whether the certificate of the other side is not checked. Default false.")),
            ("metadata", Schema::string_map("Sent along.")),
        ],
    )
    .require(&["name", "url"])
}

fn session_affinity() -> Schema {
    Schema::object(
        "Cookies that keep a client on the side that it has met first.",
        [
            ("cookieName", Schema::string("Name of the cookie of clients of the canary.")),
            (
                "primaryCookieName",
                Schema::string("Name of the cookie of clients of the primary; must differ from cookieName."),
            ),
            ("domain", Schema::string("Domain of the cookies.")),
            ("httpOnly", Schema::boolean("Whether scripts cannot read the cookies.")),
            ("maxAge", Schema::number("Life of the cookies in seconds.").with("default", 86400)),
            ("partitioned", Schema::boolean("Whether the cookies are kept in partitioned storage.")),
            ("path", Schema::string("Path of the cookies.")),
            (
                "sameSite",
                Schema::string("Whether the cookies go along with cross-site requests.")
                    .values(&["Strict", "Lax", "None"]),
            ),
            ("secure", Schema::boolean("Whether the cookies are sent over HTTPS only.")),
        ],
    )
    .require(&["cookieName"])
}
