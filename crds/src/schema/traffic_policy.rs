//! Schema of `spec.service.trafficPolicy`, which Istio's DestinationRules get as it is.

use serde_json::json;

use super::builder::Schema;

fn int32(description: &str) -> Schema {
    Schema::integer(description).with("format", "int32")
}

pub(super) fn traffic_policy() -> Schema {
    Schema::object(
        "Traffic policy of the DestinationRules (Istio).",
        [
            ("connectionPool", Schema::object("Limits on connections.", [("http", http_connection_pool())])),
            ("loadBalancer", load_balancer()),
            ("outlierDetection", outlier_detection()),
            ("tls", tls()),
        ],
    )
}

fn http_connection_pool() -> Schema {
    Schema::object(
        "Limits on HTTP connections.",
        [
            (
                "h2UpgradePolicy",
                Schema::string("Whether connections are upgraded to HTTP/2.").values(&[
                    "DEFAULT",
                    "DO_NOT_UPGRADE",
                    "UPGRADE",
                ]),
            ),
            ("http1MaxPendingRequests", int32("Most requests that wait for a connection.")),
            ("http2MaxRequests", int32("Most requests at a time.")),
            ("idleTimeout", Schema::string("How long a connection may be idle, such as 1h.")),
            ("maxRequestsPerConnection", int32("Most requests per connection.")),
            ("maxRetries", int32("Most retries at a time.")),
        ],
    )
}

fn load_balancer() -> Schema {
    let hash_alternatives = json!([
        {"required": ["httpHeaderName"]},
        {"required": ["httpCookie"]},
        {"required": ["useSourceIp"]},
        {"required": ["httpQueryParameterName"]},
    ]);
    Schema::object(
        "How an endpoint is chosen.",
        [
            (
                "simple",
                Schema::string("A standard algorithm.").values(&[
                    "ROUND_ROBIN",
                    "LEAST_CONN",
                    "RANDOM",
                    "PASSTHROUGH",
                    "LEAST_REQUEST",
                ]),
            ),
            ("consistentHash", consistent_hash()),
            ("localityLbSetting", locality()),
            ("warmupDurationSecs", Schema::string("How long a new endpoint gets less traffic, such as 60s.")),
        ],
    )
    .with(
        "oneOf",
        json!([
            {"required": ["simple"]},
            {"required": ["consistentHash"], "properties": {"consistentHash": {"oneOf": hash_alternatives}}},
        ]),
    )
}

fn consistent_hash() -> Schema {
    Schema::object(
        "By a hash of the request.",
        [
            (
                "httpCookie",
                Schema::object(
                    "Hash of a cookie.",
                    [
                        ("name", Schema::string("Name of the cookie.")),
                        ("path", Schema::string("Path of the cookie.")),
                        ("ttl", Schema::string("Life of the cookie.")),
                    ],
                ),
            ),
            ("httpHeaderName", Schema::string("Hash of this header.")),
            ("httpQueryParameterName", Schema::string("Hash of this query parameter.")),
            ("minimumRingSize", Schema::integer("Fewest virtual nodes of the ring.")),
            ("useSourceIp", Schema::boolean("Hash of the client's address.")),
        ],
    )
}

fn locality() -> Schema {
    let from = || ("from", Schema::string("Where requests come from."));
    Schema::object(
        "Preference for endpoints nearby.",
        [
            (
                "distribute",
                Schema::list(
                    "Shares of places.",
                    Schema::object(
                        "",
                        [from(), ("to", Schema::map("Place to percentage of requests.", Schema::integer("")))],
                    ),
                ),
            ),
            ("enabled", Schema::boolean("Whether places matter.")),
            (
                "failover",
                Schema::list(
                    "Where requests go when a place has no healthy endpoint.",
                    Schema::object("", [from(), ("to", Schema::string("Where they go."))]),
                ),
            ),
        ],
    )
}

fn outlier_detection() -> Schema {
    Schema::object(
        "When an endpoint is taken out.",
        [
            ("baseEjectionTime", Schema::string("Least time out, such as 30s.")),
            ("consecutive5xxErrors", Schema::integer("Server errors in a row.")),
            ("consecutiveErrors", int32("Errors in a row; the older form.")),
            ("consecutiveGatewayErrors", int32("Gateway errors in a row.")),
            ("consecutiveLocalOriginFailures", int32("Connection failures in a row.")),
            ("interval", Schema::string("Time between looks, such as 10s.")),
            ("maxEjectionPercent", int32("Most endpoints (percent) out at a time.")),
            ("minHealthPercent", int32("Least healthy endpoints (percent) for any to be taken out.")),
            (
                "splitExternalLocalOriginErrors",
                Schema::boolean("Whether connection failures are counted apart from errors of the endpoint."),
            ),
        ],
    )
}

fn tls() -> Schema {
    Schema::object(
        "TLS of connections to endpoints.",
        [
            ("mode", Schema::string("Kind of TLS.").values(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
            ("caCertificates", Schema::string("File with the authorities' certificates.")),
            ("clientCertificate", Schema::string("File with the client's certificate.")),
            ("privateKey", Schema::string("File with the client's key.")),
            ("sni", Schema::string("Name presented to the server.")),
            ("subjectAltNames", Schema::strings("Names accepted in the server's certificate.")),
        ],
    )
}
