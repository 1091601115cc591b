//! What a scenario file may hold: one table for the checks, the messages and the JSON schema.

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// The name of an object, a container, a canary.
    Name,
    /// An image, as the container runtime reads it.
    Image,
    /// The tag of an image.
    Tag,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Whole(u64, u64),
    /// A number of at least 0.
    Number,
    /// Any number.
    AnyNumber,
    /// A number from 0 to 1.
    Ratio,
    /// A duration as Go writes it, of at most [`LONGEST`].
    Duration,
    /// The same, and longer than nothing.
    Time,
    /// An object with these fields.
    Object(&'static [Field]),
    /// A list of these.
    List(&'static Shape),
    /// An object whose keys are names.
    Map(&'static Shape),
    /// Any object.
    AnyObject,
}

/// No analysis takes longer than a month; what is longer is a mistake with the unit.
pub(crate) const LONGEST: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);
/// More requests per second than any one service has.
pub(crate) const MOST_REQUESTS: f64 = 1e7;

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

const fn field(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, required: false, about }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, required: true, about }
}

/// Version of the format.
pub(crate) const API_VERSION: &str = "simulation.aviary.app/v1alpha1";

const FROM: Field = field("from", Shape::Duration, "Time after the first release at which it begins. Default 0s.");
const UNTIL: Field = field("until", Shape::Duration, "Time after the first release at which it ends. Default: never.");
const FROM_START: Field = field(
    "from",
    Shape::Duration,
    "Time after the first release at which it begins. Default: from the start of the cluster on, before the release.",
);
const NAMESPACE: Field = field("namespace", Shape::Name, "Namespace. Default: every namespace.");
const ERROR_RATE: Field = field("errorRate", Shape::Ratio, "Part of the requests that fails, 0 to 1.");
const ERROR_CODE: Field = field("errorCode", Shape::Whole(400, 599), "HTTP status of requests that fail. Default 500.");
const LATENCY: Field = field("latency", Shape::Object(LATENCY_FIELDS), "How long requests take.");
const PODS: Field = field(
    "pods",
    Shape::Choice(&["Ready", "NeverReady", "CrashLoop", "ImagePullError"]),
    "What becomes of the pods. Default Ready.",
);

const LATENCY_FIELDS: &[Field] = &[
    required("median", Shape::Time, "What half of the requests stay below."),
    required("p99", Shape::Time, "What 99 % of the requests stay below."),
];

const VERSION: &[Field] = &[
    ERROR_RATE,
    ERROR_CODE,
    LATENCY,
    PODS,
    field("startupDelay", Shape::Duration, "Time from the start of a pod to its readiness. Default 3s."),
    field("changes", Shape::List(&Shape::Object(VERSION_CHANGE)), "What is different for a time; later ones win."),
];

const VERSION_CHANGE: &[Field] = &[FROM, UNTIL, ERROR_RATE, ERROR_CODE, LATENCY, PODS];

const LOAD: &[Field] = &[
    field(
        "service",
        Shape::Name,
        "Name of a service, such as podinfo or podinfo-canary. Default: that of every canary.",
    ),
    NAMESPACE,
    field("headers", Shape::Map(&Shape::Text), "Headers that these users send; they come on top of the others."),
    required("requestsPerSecond", Shape::Number, "Requests per second."),
    FROM_START,
    UNTIL,
];

const RELEASE: &[Field] = &[
    field("at", Shape::Duration, "Time after the first release. Default 0s."),
    field("canary", Shape::Name, "Name of the canary whose target is released. Default: every canary."),
    NAMESPACE,
    field("image", Shape::Image, "The new image, complete."),
    field("tag", Shape::Tag, "The new tag of the image."),
    field("container", Shape::Name, "Which container gets the image. Default: the first one."),
    field("config", Shape::Object(CONFIG), "A ConfigMap or Secret that changes, together with the image or alone."),
];

const CONFIG: &[Field] = &[
    field("kind", Shape::Choice(&["ConfigMap", "Secret"]), "Kind. Default ConfigMap."),
    required("name", Shape::Name, "Name."),
    required("data", Shape::Map(&Shape::Text), "Entries that get another text."),
];

const METRIC: &[Field] = &[
    NAMESPACE,
    field("value", Shape::AnyNumber, "The value that every query gets."),
    field("noData", Shape::Flag, "Whether queries find nothing."),
    field("error", Shape::Whole(400, 599), "HTTP status that queries get instead of a value."),
    field("changes", Shape::List(&Shape::Object(METRIC_CHANGE)), "What is different for a time; later ones win."),
];

const METRIC_CHANGE: &[Field] = &[
    FROM,
    UNTIL,
    field("value", Shape::AnyNumber, "The value that every query gets."),
    field("noData", Shape::Flag, "Whether queries find nothing."),
    field("error", Shape::Whole(400, 599), "HTTP status that queries get instead of a value."),
];

const WEBHOOK: &[Field] = &[
    field("status", Shape::Whole(100, 599), "HTTP status of the answer. Default 200."),
    field("delay", Shape::Duration, "Time until the answer. Default 0s."),
    field("changes", Shape::List(&Shape::Object(WEBHOOK_CHANGE)), "What is different for a time; later ones win."),
];

const WEBHOOK_CHANGE: &[Field] = &[
    FROM,
    UNTIL,
    field("status", Shape::Whole(100, 599), "HTTP status of the answer."),
    field("delay", Shape::Duration, "Time until the answer."),
];

const PROMETHEUS_FAULT: &[Field] = &[
    required(
        "fault",
        Shape::Choice(&["Down", "Slow", "Error", "Empty", "Wrong"]),
        "Down: connections are refused. Slow: answers take `delay`. Error: every query gets `status`. Empty: queries \
         find nothing. Wrong: every value is `value`.",
    ),
    FROM_START,
    UNTIL,
    field("status", Shape::Whole(400, 599), "HTTP status, with Error. Default 503."),
    field("delay", Shape::Duration, "Time until the answer, with Slow. Default 10s; queries are given up after 5s."),
    field("value", Shape::AnyNumber, "The value of every sample, with Wrong. Default 0."),
];

const API_FAULT: &[Field] = &[
    required(
        "fault",
        Shape::Choice(&[
            "Error",
            "Conflict",
            "TooManyRequests",
            "Delay",
            "LoseResponse",
            "DropWatches",
            "Restart",
            "Compact",
        ]),
        "Error: calls are refused with `status`. Conflict: with 409. TooManyRequests: with 429 and `retryAfter`. Delay: \
         calls take `delay` longer. LoseResponse: calls take effect and their answers are lost. DropWatches: watches \
         end, again after each `every`. Restart: watches end and every call is refused until `until` (5s later if it is \
         not given). Compact: the history is forgotten, so that watches begin anew.",
    ),
    field(
        "from",
        Shape::Duration,
        "Time after the first release at which it begins. Default: from the start of the cluster on, before the release; with \
         DropWatches, Restart and Compact 0s.",
    ),
    UNTIL,
    field("probability", Shape::Ratio, "Which part of the calls is hit, drawn from the seed. Default 1."),
    field("times", Shape::Whole(1, u64::MAX), "How many calls are hit at most. Default: no limit."),
    field(
        "resource",
        Shape::Text,
        "Only calls about this resource, in the plural: deployments, canaries. Default: all.",
    ),
    field(
        "verbs",
        Shape::List(&Shape::Choice(&["get", "list", "watch", "create", "update", "patch", "delete"])),
        "Only these calls. Default: those that write.",
    ),
    field("status", Shape::Whole(400, 599), "HTTP status, with Error. Default 500."),
    field("retryAfter", Shape::Time, "What is asked for with TooManyRequests. Default 1s."),
    field("delay", Shape::Duration, "How much longer, with Delay. Default 1s."),
    field("every", Shape::Time, "How often, with DropWatches. Default 30s."),
];

const ACTION: &[Field] = &[
    field("at", Shape::Duration, "Time after the first release. Default 0s."),
    required(
        "action",
        Shape::Choice(&["Suspend", "Resume", "Patch", "Delete"]),
        "Suspend and Resume set spec.suspend of a Canary. Patch merges `patch` into the object. Delete deletes it.",
    ),
    field("apiVersion", Shape::Text, "API version of the object. Default: the one in use for the kind."),
    field("kind", Shape::Text, "Kind of the object. Default Canary."),
    field("namespace", Shape::Name, "Namespace of the object. Default: that of the first canary."),
    required("name", Shape::Name, "Name of the object."),
    field("patch", Shape::AnyObject, "A merge patch, with Patch: {spec: {analysis: {threshold: 1}}}."),
];

/// The whole file.
pub(crate) const SCENARIO: &[Field] = &[
    field("apiVersion", Shape::Choice(&[API_VERSION]), "Version of this format."),
    field("kind", Shape::Choice(&["Scenario"]), "Always Scenario."),
    field("description", Shape::Text, "What the scenario is about; shown above the timeline."),
    field("seed", Shape::Whole(0, u64::MAX), "Decides everything random. Default 1."),
    field("timeLimit", Shape::Time, "Time after the first release at which waiting ends. Default 6h."),
    field(
        "warmUp",
        Shape::Duration,
        "Time between the initialization of the canaries and the first release. Default 1m.",
    ),
    field(
        "requestsPerPod",
        Shape::Number,
        "Requests per second for which a pod uses all the CPU that its containers ask for; autoscalers follow it. Default 200. \
         With 0 autoscalers only keep their bounds.",
    ),
    field(
        "load",
        Shape::List(&Shape::Object(LOAD)),
        "Users. Default: 100 requests per second to each canary's service.",
    ),
    field(
        "versions",
        Shape::Map(&Shape::Object(VERSION)),
        "How versions behave: `current` (released before), `new` (the others), a tag or an image; or by workload, \
         `primary` and `canary`. A tag wins over `current` and `new`, a workload over both. Default: healthy, 20 ms at \
         the median and 60 ms at the 99th percentile.",
    ),
    field(
        "releases",
        Shape::List(&Shape::Object(RELEASE)),
        "What is released when. Default: one release of every canary, with a tag that is made up.",
    ),
    field(
        "metrics",
        Shape::Map(&Shape::Object(METRIC)),
        "Answers to the queries of a MetricTemplate, by its name, or of an inline query, by the name of the metric. \
         Templates of Prometheus without an entry are answered from the simulated traffic.",
    ),
    field("webhooks", Shape::Map(&Shape::Object(WEBHOOK)), "Answers of webhooks by name. Default: 200 at once."),
    field("prometheus", Shape::List(&Shape::Object(PROMETHEUS_FAULT)), "Faults of the metrics server."),
    field("api", Shape::List(&Shape::Object(API_FAULT)), "Faults of the API server, for the operator's calls."),
    field("actions", Shape::List(&Shape::Object(ACTION)), "What users do meanwhile."),
];
