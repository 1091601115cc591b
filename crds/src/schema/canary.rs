//! Schema of the Canary: references and status. Service and analysis have their own files.

use serde_json::{Value, json};

use super::builder::Schema;
use super::{analysis, service};
use crate::status::Phase;

/// What `spec.provider` may say.
const PROVIDERS: [&str; 20] = [
    "apisix",
    "appmesh",
    "appmesh:v1beta2",
    "contour",
    "gatewayapi:v1",
    "gatewayapi:v1beta1",
    "gloo",
    "istio",
    "knative",
    "kubernetes",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "smi:crossover",
    "smi:v1alpha1",
    "smi:v1alpha2",
    "smi:v1alpha3",
    "traefik",
];

/// Why the object is refused, of which its phase says nothing. The last column, so that those of Flagger stay where they are.
const REFUSED: &str = r#".status.conditions[?(@.type=="Accepted")].message"#;

/// The columns of `kubectl get canaries`.
pub(super) fn printer_columns() -> Value {
    let column = |name: &str, kind: &str, path: &str, wide: bool| {
        let mut column = json!({"name": name, "type": kind, "jsonPath": path});
        if wide {
            column["priority"] = json!(1);
        }
        column
    };
    json!([
        column("Status", "string", ".status.phase", false),
        column("Weight", "string", ".status.canaryWeight", false),
        column("Suspended", "boolean", ".spec.suspend", true),
        column("FailedChecks", "string", ".status.failedChecks", true),
        column("Interval", "string", ".spec.analysis.interval", true),
        column("Mirror", "boolean", ".spec.analysis.mirror", true),
        column("StepWeight", "string", ".spec.analysis.stepWeight", true),
        column("StepWeights", "string", ".spec.analysis.stepWeights", true),
        column("MaxWeight", "string", ".spec.analysis.maxWeight", true),
        column("LastTransitionTime", "string", ".status.lastTransitionTime", false),
        column("Refused", "string", REFUSED, false),
    ])
}

/// The columns of `kubectl get canaries.v1alpha1.flagger.app`: Flagger 0.1 had none.
pub(super) fn printer_columns_of_v1alpha1() -> Value {
    json!([
        {"name": "State", "type": "string", "jsonPath": ".status.state"},
        {"name": "Weight", "type": "string", "jsonPath": ".status.canaryWeight"},
        {"name": "FailedChecks", "type": "string", "jsonPath": ".status.failedChecks"},
        {"name": "LastTransitionTime", "type": "string", "jsonPath": ".status.lastTransitionTime"},
        {"name": "Refused", "type": "string", "jsonPath": REFUSED},
    ])
}

pub(super) fn spec() -> Schema {
    Schema::object(
        "What is released, how traffic reaches it, and how it is judged.",
        [
            (
                "provider",
                Schema::string("Mesh or ingress that moves the traffic. Default: the controller's --mesh-provider.")
                    .values(&PROVIDERS),
            ),
            (
                "metricsServer",
                Schema::string(
                    "Address of the Prometheus for built-in and inline metrics. Default: the controller's \
                     --metrics-server.",
                ),
            ),
            (
                "progressDeadlineSeconds",
                Schema::number(
                    "Seconds that a workload may take to become ready before the rollout fails. Default 600.",
                ),
            ),
            ("targetRef", reference("The workload that is released.", &["DaemonSet", "Deployment", "Service"])),
            ("autoscalerRef", autoscaler_reference()),
            ("ingressRef", reference("Ingress of the target (NGINX, Skipper).", &["Ingress"])),
            ("routeRef", reference("Route of the target (APISIX).", &["ApisixRoute"])),
            ("upstreamRef", upstream_reference()),
            ("service", service::service()),
            ("analysis", analysis::analysis()),
            ("canaryAnalysis", analysis::canary_analysis()),
            ("skipAnalysis", Schema::boolean("Promote without analysis. Default false.")),
            (
                "revertOnDeletion",
                Schema::boolean(
                    "Give the target its replicas, service and routes back when the canary is deleted. Default false.",
                ),
            ),
            ("suspend", Schema::boolean("Leave everything as it is until this is false again. Default false.")),
        ],
    )
    .require(&["targetRef"])
    // Told as an API server tells that a required field is missing.
    .rule(
        "has(self.analysis) || has(self.canaryAnalysis)",
        "or canaryAnalysis, as in flagger.app/v1alpha1",
        "FieldValueRequired",
        ".analysis",
    )
}

fn reference_fields(kinds: &[&str]) -> [(&'static str, Schema); 3] {
    [
        ("apiVersion", Schema::string("Group and version, such as apps/v1.")),
        ("kind", Schema::string("Kind.").values(kinds)),
        ("name", Schema::string("Name.")),
    ]
}

fn reference(description: &str, kinds: &[&str]) -> Schema {
    Schema::object(description, reference_fields(kinds)).require(&["apiVersion", "kind", "name"])
}

fn autoscaler_reference() -> Schema {
    let replicas = |description: &str| Schema::integer(description).with("minimum", 1);
    let overrides = [
        (
            "primaryScalerQueries",
            Schema::string_map(
                "KEDA trigger name to the query of the primary's ScaledObject. Others are derived from the target's.",
            ),
        ),
        (
            "primaryScalerReplicas",
            Schema::object(
                "Bounds of the primary's replicas, if they differ from the target's.",
                [("minReplicas", replicas("Fewest pods.")), ("maxReplicas", replicas("Most pods."))],
            ),
        ),
    ];
    Schema::object(
        "Autoscaler of the target; the primary gets a copy.",
        reference_fields(&["HorizontalPodAutoscaler", "ScaledObject"]).into_iter().chain(overrides),
    )
    .require(&["apiVersion", "kind", "name"])
}

fn upstream_reference() -> Schema {
    let namespace = ("namespace", Schema::string("Namespace. Default: that of the canary."));
    Schema::object(
        "Upstream whose settings the generated upstreams copy (Gloo).",
        reference_fields(&["Upstream"]).into_iter().chain([namespace]),
    )
    .require(&["apiVersion", "kind", "name"])
}

pub(super) fn status() -> Schema {
    Schema::object(
        "What the controller observed and decided.",
        [
            ("phase", Schema::string("Where the rollout is.").values(&Phase::ALL.map(Phase::as_str))),
            ("failedChecks", Schema::number("Failed checks of the current analysis, cumulative.")),
            ("canaryWeight", Schema::number("Percentage of traffic that the canary gets.")),
            ("iterations", Schema::number("Iterations done in the current analysis (A/B and blue/green).")),
            (
                "trackedConfigs",
                Schema::string_map("Checksums of the ConfigMaps and Secrets of the revision last seen."),
            ),
            ("lastAppliedSpec", Schema::string("Hash of the revision last seen.")),
            ("lastPromotedSpec", Schema::string("Hash of the revision that the primary runs.")),
            ("lastTransitionTime", Schema::time("When this status was last written.")),
            (
                "lastStepTime",
                Schema::time(
                    "When the present weight was set or the last check was counted; the next one waits for the interval from here on.",
                ),
            ),
            (
                "metricsUnavailableSince",
                Schema::time("Since when the monitoring does not answer; absent while it does."),
            ),
            (
                "observedGeneration",
                Schema::integer("Generation of the spec that this status was decided from.").with("format", "int64"),
            ),
            ("sessionAffinityCookie", Schema::string("Cookie that keeps clients on the canary.")),
            ("primarySessionAffinityCookie", Schema::string("Cookie that keeps clients on the primary.")),
            (
                "previousSessionAffinityCookie",
                Schema::string("Cookie of the run before, which clients are told to forget."),
            ),
            ("state", Schema::string("The phase in the words of Flagger 0.1, of a canary with a canaryAnalysis.")),
            ("canaryRevision", Schema::string("lastAppliedSpec of a canary with a canaryAnalysis.")),
            ("conditions", Schema::list("The Promoted condition: outcome of the last rollout.", condition())),
        ],
    )
}

fn condition() -> Schema {
    Schema::object(
        "",
        [
            ("type", Schema::string("Type of the condition.")),
            ("status", Schema::string("True, False or Unknown.")),
            ("reason", Schema::string("The phase that it was written for.")),
            ("message", Schema::string("Explanation.")),
            ("lastUpdateTime", Schema::time("When anything of it last changed.")),
            ("lastTransitionTime", Schema::time("When its status last changed.")),
        ],
    )
    .require(&["type", "status", "reason"])
}
