//! Schemas of MetricTemplate and AlertProvider.

use super::builder::Schema;

/// Backends that answer queries.
const METRIC_PROVIDERS: [&str; 11] = [
    "prometheus",
    "influxdb",
    "datadog",
    "externalmetrics",
    "stackdriver",
    "cloudwatch",
    "newrelic",
    "graphite",
    "dynatrace",
    "keptn",
    "splunk",
];

fn secret(description: &str) -> Schema {
    Schema::object(description, [("name", Schema::string("Name of the Secret."))]).require(&["name"])
}

pub(super) fn metric_template_spec() -> Schema {
    let provider = Schema::object(
        "The backend that answers the query.",
        [
            ("type", Schema::string("Type of the backend.").values(&METRIC_PROVIDERS)),
            ("address", Schema::string("Address of its API.")),
            ("headers", Schema::map("Headers of each request.", Schema::strings(""))),
            ("secretRef", secret("Secret with the credentials, in the namespace of the template.")),
            ("region", Schema::string("Region of the backend.")),
            (
                "insecureSkipVerify",
                Schema::boolean("Whether the certificate of the backend is not checked. Default false."),
            ),
        ],
    )
    .require(&["type"]);
    let query = Schema::string(
        "The query, a template with the functions name, namespace, target, service, ingress, route, interval and \
         variables.",
    );
    Schema::object("A query and the backend that answers it.", [("provider", provider), ("query", query)])
        .require(&["provider", "query"])
}

pub(super) fn alert_provider_spec() -> Schema {
    Schema::object(
        "Where alerts go: either address or secretRef.",
        [
            (
                "type",
                Schema::string("Type of the channel.").values(&["slack", "msteams", "discord", "rocket", "gchat"]),
            ),
            ("channel", Schema::string("Channel. Default general.")),
            ("username", Schema::string("Name of the sender. Default flagger.")),
            ("address", Schema::string("Address of the incoming webhook.")),
            ("proxy", Schema::string("HTTP proxy to go through.")),
            ("secretRef", secret("Secret with the key address, and token if there is one.")),
        ],
    )
    .exactly_one_of(&[&["type", "address"], &["type", "secretRef"]])
}
