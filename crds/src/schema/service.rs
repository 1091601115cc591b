//! Schema of `spec.service`.

use serde_json::json;

use super::builder::Schema;
use super::traffic_policy::traffic_policy;

pub(super) fn service() -> Schema {
    let metadata = |description: &str| {
        Schema::object(
            description,
            [("labels", Schema::string_map("Labels.")), ("annotations", Schema::string_map("Annotations."))],
        )
    };
    Schema::object(
        "The generated services and how requests are routed to them.",
        [
            (
                "name",
                Schema::string(
                    "Name of the service that clients call; -primary and -canary are appended for the other two. \
                     Default: name of the target.",
                ),
            ),
            ("port", Schema::number("Port of the services.")),
            ("portName", Schema::string("Name of the port. Default http.")),
            ("appProtocol", Schema::string("Application protocol of the port.")),
            (
                "trafficDistribution",
                Schema::string("Which endpoints clients should prefer.").values(&[
                    "PreferClose",
                    "PreferSameZone",
                    "PreferSameNode",
                ]),
            ),
            ("targetPort", Schema::int_or_string("Number or name of the container port. Default: the port.")),
            (
                "portDiscovery",
                Schema::boolean("Whether the services also get every other port of the containers. Default false."),
            ),
            ("headless", Schema::boolean("Whether the services have no cluster IP. Default false.")),
            ("timeout", Schema::string("Timeout of a request, such as 15s.")),
            ("backendTimeout", Schema::string("Timeout of one attempt at a backend (Gateway API).")),
            ("meshName", Schema::string("Name of the mesh (App Mesh).")),
            ("backends", Schema::strings("Services that the target calls (App Mesh).")),
            ("hosts", Schema::strings("Hosts of the routes.")),
            (
                "delegation",
                Schema::boolean("Whether the VirtualService is a delegate of another one (Istio). Default false."),
            ),
            ("match", Schema::list("Requests that are routed. Default: all.", match_request())),
            ("retries", retries()),
            ("rewrite", rewrite()),
            ("mirror", mirror()),
            ("headers", headers()),
            ("gateways", Schema::strings("Gateways of the routes (Istio). Default: the mesh.")),
            ("gatewayRefs", gateway_references()),
            ("corsPolicy", cors_policy()),
            ("trafficPolicy", traffic_policy()),
            ("apex", metadata("Metadata of the apex service and of the mesh object.")),
            ("primary", metadata("Metadata of the primary service.")),
            ("canary", metadata("Metadata of the canary service.")),
            (
                "unmanagedMetadata",
                Schema::object(
                    "Keys of service metadata that are left alone.",
                    [
                        ("annotations", Schema::strings("Keys of annotations.")),
                        ("labels", Schema::strings("Keys of labels.")),
                    ],
                ),
            ),
        ],
    )
    .require(&["port"])
}

fn string_match_fields(forms: &[&'static str]) -> Schema {
    let describe = |form: &str| match form {
        "exact" => Schema::string("The whole text."),
        "prefix" => Schema::string("How it begins."),
        "suffix" => Schema::string("How it ends."),
        _ => Schema::string("RE2 expression for the whole text."),
    };
    Schema::object("", forms.iter().map(|form| (*form, describe(form))))
}

/// A condition on a text in one of these forms.
pub(super) fn string_match(forms: &[&'static str]) -> Schema {
    let alternatives: Vec<&[&str]> = forms.iter().map(std::slice::from_ref).collect();
    string_match_fields(forms).exactly_one_of(&alternatives)
}

/// A condition on a text, or `{}` for any text.
pub(super) fn optional_string_match() -> Schema {
    const FORMS: [&str; 3] = ["exact", "prefix", "regex"];
    string_match_fields(&FORMS).at_most_one_of(&FORMS)
}

fn match_request() -> Schema {
    Schema::object(
        "",
        [
            ("name", Schema::string("Name of the match, for logs.")),
            ("uri", optional_string_match()),
            ("scheme", optional_string_match()),
            ("method", optional_string_match()),
            ("authority", optional_string_match()),
            ("headers", Schema::map("Header name to condition.", optional_string_match())),
            ("withoutHeaders", Schema::map("Header name to condition that must not hold.", optional_string_match())),
            ("queryParams", Schema::map("Query parameter to condition.", optional_string_match())),
            ("port", Schema::integer("Port that was addressed.")),
            ("sourceLabels", Schema::string_map("Labels of the calling workload.")),
            ("sourceNamespace", Schema::string("Namespace of the calling workload.")),
            ("gateways", Schema::strings("Gateways that the rule is for.")),
            ("ignoreUriCase", Schema::boolean("Whether upper and lower case of the path are the same.")),
        ],
    )
}

fn retries() -> Schema {
    Schema::object(
        "How failed requests are retried.",
        [
            ("attempts", Schema::integer("Retries of one request.").with("format", "int32")),
            ("perTryTimeout", Schema::string("Timeout of one attempt, such as 2s.")),
            ("retryOn", Schema::string("Comma-separated Envoy retry policies.")),
        ],
    )
}

fn rewrite() -> Schema {
    Schema::object(
        "What is replaced in a request before it is forwarded.",
        [
            ("uri", Schema::string("New path, or new beginning of it.")),
            ("authority", Schema::string("New host header.")),
            ("type", Schema::string("ReplacePrefixMatch, or anything else to replace the full path (Gateway API).")),
        ],
    )
}

fn headers() -> Schema {
    let operations = |description: &str| {
        Schema::object(
            description,
            [
                ("set", Schema::string_map("Headers that replace those of the same name.")),
                ("add", Schema::string_map("Headers that are added.")),
                ("remove", Schema::strings("Headers that are removed.")),
            ],
        )
    };
    Schema::object(
        "Changes to headers.",
        [
            ("request", operations("Changes before a request is forwarded.")),
            ("response", operations("Changes before a response is returned.")),
        ],
    )
}

/// Fields that references to gateways and to backends share, with the bounds of the Gateway API.
fn gateway_api_reference(group: &str, kind: &str) -> [(&'static str, Schema); 4] {
    [
        ("group", Schema::string("API group.").with("default", group).subdomain(true)),
        (
            "kind",
            Schema::string("Kind.")
                .with("default", kind)
                .with("minLength", 1)
                .with("maxLength", 63)
                .with("pattern", "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
        ),
        ("name", Schema::string("Name.").with("minLength", 1).with("maxLength", 253)),
        (
            "namespace",
            Schema::string("Namespace. Default: that of the canary.")
                .with("minLength", 1)
                .with("maxLength", 63)
                .with("pattern", "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ),
    ]
}

fn mirror() -> Schema {
    let backend = Schema::object(
        "Where the copies go.",
        gateway_api_reference("", "Service").into_iter().chain([("port", Schema::port("Port; needed for a Service."))]),
    )
    .require(&["name"])
    .with(
        "x-kubernetes-validations",
        json!([{
            "message": "Must have port for Service reference",
            "rule": "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
        }]),
    );
    Schema::list(
        "Backends that get a copy of each request (Gateway API).",
        Schema::object("", [("backendRef", backend)]),
    )
}

fn gateway_references() -> Schema {
    let reference = Schema::object(
        "",
        gateway_api_reference("gateway.networking.k8s.io", "Gateway").into_iter().chain([
            ("sectionName", Schema::string("Section of the parent, such as a listener.").subdomain(false)),
            ("port", Schema::port("Port of the parent.")),
        ]),
    )
    .require(&["name"]);
    Schema::list("Parents of the HTTPRoute (Gateway API).", reference).with("maxItems", 32)
}

fn cors_policy() -> Schema {
    Schema::object(
        "Cross-origin resource sharing.",
        [
            ("allowOrigin", Schema::strings("Allowed origins as plain texts; the older form.")),
            (
                "allowOrigins",
                Schema::list("Allowed origins as conditions.", string_match(&["exact", "prefix", "regex"])),
            ),
            ("allowMethods", Schema::strings("Allowed HTTP methods.")),
            ("allowHeaders", Schema::strings("Allowed request headers.")),
            ("exposeHeaders", Schema::strings("Response headers that scripts may read.")),
            ("maxAge", Schema::string("How long a preflight answer may be cached, such as 24h.")),
            ("allowCredentials", Schema::boolean("Whether requests may carry credentials.")),
        ],
    )
}
