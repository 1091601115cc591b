//! Names and labels of the metrics that Istio's proxies, an Envoy without Istio, and podinfo export.

use std::sync::{Arc, LazyLock};

use aviary_promql::{Labels, METRIC_NAME, RangeBoundary};

use super::behaviour::BUCKET_BOUNDS_MS;
use super::change::PodIdentity;
use super::counter::Part;
use super::streams::{StreamKey, UNKNOWN};
use super::topology::ServiceKey;

/// Users come through the ingress gateway, whose proxy reports as the source.
pub(crate) const GATEWAY: &str = "istio-ingressgateway";
const GATEWAY_NAMESPACE: &str = "istio-system";

/// The scrape job of the applications, which is another target than their proxies.
pub(crate) const APPLICATION: &str = "application";

/// The scrape job of an Envoy that follows TrafficSplits, and the name of its Service and of its pods.
pub(crate) const CLUSTERS: &str = "envoy";

/// Which of Istio's proxies counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// The proxy beside the workload.
    Destination,
    /// The gateway.
    Source,
}

/// The series of one metric name.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: Arc<str>,
    /// Labels that all of them have.
    pub(crate) constants: Vec<(Arc<str>, Arc<str>)>,
    /// What each counts, and its bucket's bound.
    pub(crate) parts: Vec<(Part, Option<Bound>)>,
}

/// The upper bound of a bucket.
#[derive(Debug)]
pub(crate) struct Bound {
    /// As Envoy and podinfo write it.
    exported: Arc<str>,
    normalised: Arc<str>,
}

impl Bound {
    fn new(bound: f64) -> Self {
        Self { exported: bound.to_string().into(), normalised: normalised(bound).into() }
    }

    fn infinite() -> Self {
        let bound = Arc::from("+Inf");
        Self { exported: Arc::clone(&bound), normalised: bound }
    }

    /// The label `le` in Prometheus of this version: 2 stores what it reads, 3 writes every number in the same way.
    pub(crate) fn label(&self, version: RangeBoundary) -> &Arc<str> {
        match version {
            RangeBoundary::Closed => &self.exported,
            RangeBoundary::LeftOpen => &self.normalised,
        }
    }
}

/// A bound as the parsers of Prometheus 3 store it (`FormatOpenMetricsFloat`): as Go's `%g` prints it, with an exponent from a
/// million on, and whole numbers with a zero behind the point. No bound here is so small that it has an exponent.
fn normalised(bound: f64) -> String {
    if bound >= 1e6 {
        let text = format!("{bound:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{digits}e+{exponent:0>2}");
    }
    let text = bound.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The strings that every series shares.
pub(crate) struct Names {
    pub(crate) metric_name: Arc<str>,
    pub(crate) le: Arc<str>,
    pub(crate) mesh: Vec<Family>,
    pub(crate) application: Vec<Family>,
    /// What an Envoy without Istio counts by cluster and response code.
    pub(crate) cluster_requests: Vec<Family>,
    /// The time of its requests, by cluster.
    pub(crate) cluster_times: Vec<Family>,
    reporter: Arc<str>,
    destination: Arc<str>,
    source: Arc<str>,
    connection_security_policy: Arc<str>,
    mutual_tls: Arc<str>,
    unknown: Arc<str>,
    latest: Arc<str>,
    /// Labels of a proxy's series in the order of the values in [`mesh_labels`].
    mesh_labels: [Arc<str>; 17],
    http: Arc<str>,
    gateway: Arc<str>,
    gateway_namespace: Arc<str>,
    /// Labels of an application's series in the order of the values in [`application_labels`].
    application_labels: [Arc<str>; 6],
}

impl Names {
    /// The labels by which the reports of both sides differ: only the side that answers knows that the connection was
    /// encrypted.
    pub(crate) fn reporter_labels(&self, reporter: Reporter) -> [(Arc<str>, Arc<str>); 2] {
        let (reporter, policy) = match reporter {
            Reporter::Destination => (&self.destination, &self.mutual_tls),
            Reporter::Source => (&self.source, &self.unknown),
        };
        [
            (Arc::clone(&self.reporter), Arc::clone(reporter)),
            (Arc::clone(&self.connection_security_policy), Arc::clone(policy)),
        ]
    }
}

pub(crate) static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    metric_name: METRIC_NAME.into(),
    le: "le".into(),
    mesh: mesh_families(),
    application: application_families(),
    cluster_requests: vec![Family {
        name: "envoy_cluster_upstream_rq".into(),
        constants: Vec::new(),
        parts: vec![(Part::Count, None)],
    }],
    cluster_times: millisecond_families("envoy_cluster_upstream_rq_time"),
    reporter: "reporter".into(),
    destination: "destination".into(),
    source: "source".into(),
    connection_security_policy: "connection_security_policy".into(),
    mutual_tls: "mutual_tls".into(),
    unknown: UNKNOWN.into(),
    latest: "latest".into(),
    mesh_labels: [
        "destination_app",
        "destination_canonical_revision",
        "destination_canonical_service",
        "destination_service",
        "destination_service_name",
        "destination_service_namespace",
        "destination_version",
        "destination_workload",
        "destination_workload_namespace",
        "request_protocol",
        "response_code",
        "response_flags",
        "source_app",
        "source_canonical_service",
        "source_version",
        "source_workload",
        "source_workload_namespace",
    ]
    .map(Arc::from),
    http: "http".into(),
    gateway: GATEWAY.into(),
    gateway_namespace: GATEWAY_NAMESPACE.into(),
    application_labels: ["app", "kubernetes_namespace", "kubernetes_pod_name", "namespace", "pod", "status"]
        .map(Arc::from),
});

fn mesh_families() -> Vec<Family> {
    let requests =
        Family { name: "istio_requests_total".into(), constants: Vec::new(), parts: vec![(Part::Count, None)] };
    let mut families = vec![requests];
    families.append(&mut millisecond_families("istio_request_duration_milliseconds"));
    families
}

/// A histogram in milliseconds.
fn millisecond_families(name: &str) -> Vec<Family> {
    let family = |suffix: &str, parts| Family { name: format!("{name}_{suffix}").into(), constants: Vec::new(), parts };
    let bounds = BUCKET_BOUNDS_MS.iter().map(|bound| Bound::new(*bound)).chain([Bound::infinite()]).enumerate();
    vec![
        family("bucket", bounds.map(|(index, bound)| (Part::Bucket(index), Some(bound))).collect()),
        family("sum", vec![(Part::SumMs, None)]),
        family("count", vec![(Part::Count, None)]),
    ]
}

/// podinfo's own metrics. Its histogram has the default buckets of Prometheus' Go client, 5 ms to 10 s, which are among
/// those of Istio.
fn application_families() -> Vec<Family> {
    let request: Vec<(Arc<str>, Arc<str>)> =
        [("method", "GET"), ("path", "root")].map(|(name, value)| (name.into(), value.into())).into();
    let bounds = BUCKET_BOUNDS_MS.iter().enumerate().filter(|(_, bound)| (5.0..=10_000.0).contains(*bound));
    let mut buckets: Vec<(Part, Option<Bound>)> = bounds
        .filter(|(_, bound)| **bound != 1.0)
        .map(|(index, bound)| (Part::Bucket(index), Some(Bound::new(bound / 1000.0))))
        .collect();
    buckets.push((Part::Bucket(BUCKET_BOUNDS_MS.len()), Some(Bound::infinite())));
    let family = |name: &str, constants: &[(Arc<str>, Arc<str>)], parts| Family {
        name: name.into(),
        constants: constants.to_vec(),
        parts,
    };
    vec![
        family("http_requests_total", &[], vec![(Part::Count, None)]),
        family("http_request_duration_seconds_bucket", &request, buckets),
        family("http_request_duration_seconds_sum", &request, vec![(Part::SumSeconds, None)]),
        family("http_request_duration_seconds_count", &request, vec![(Part::Count, None)]),
    ]
}

/// The labels of a stream that both reporters share, as Istio's telemetry derives them from the pod.
pub(crate) fn mesh_labels(key: &StreamKey) -> Labels {
    let names = &*NAMES;
    let or_unknown = |text: &str| if text.is_empty() { Arc::clone(&names.unknown) } else { text.into() };
    let app = or_unknown(&key.identity.app);
    let known = key.workload.name != UNKNOWN;
    let canonical_service: Arc<str> = match key.identity.app.as_str() {
        "" => key.workload.name.as_str().into(),
        _ => Arc::clone(&app),
    };
    let canonical_revision: Arc<str> = match key.identity.version.as_str() {
        "" if known => Arc::clone(&names.latest),
        version => or_unknown(version),
    };
    let values: [Arc<str>; 17] = [
        app,
        canonical_revision,
        canonical_service,
        key.service.host().into(),
        key.service.name.as_str().into(),
        key.service.namespace.as_str().into(),
        or_unknown(&key.identity.version),
        key.workload.name.as_str().into(),
        key.workload.namespace.as_str().into(),
        Arc::clone(&names.http),
        key.response_code.to_string().into(),
        key.response_flags.into(),
        Arc::clone(&names.gateway),
        Arc::clone(&names.gateway),
        Arc::clone(&names.unknown),
        Arc::clone(&names.gateway),
        Arc::clone(&names.gateway_namespace),
    ];
    names.mesh_labels.iter().cloned().zip(values).collect()
}

/// The labels of an Envoy's cluster, which is named as the Service, with those that Prometheus' usual pod discovery gives to
/// an Envoy in the Service's namespace.
pub(crate) fn cluster_labels(service: &ServiceKey, response_code: Option<u16>) -> Labels {
    let labels = [
        ("app", CLUSTERS.to_owned()),
        ("envoy_cluster_name", service.name.clone()),
        ("kubernetes_namespace", service.namespace.clone()),
        ("kubernetes_pod_name", format!("{CLUSTERS}-6c5d8f7b9d-k4x8z")),
    ];
    let code = response_code.map(|code| ("envoy_response_code", code.to_string()));
    labels.into_iter().chain(code).map(|(name, value)| (Arc::from(name), Arc::from(value))).collect()
}

/// The labels that Prometheus' usual pod discovery gives to what an application exports. The pods of one version are one
/// target here, which bears the name that one of them could have.
pub(crate) fn application_labels(workload: &ServiceKey, identity: &PodIdentity, response_code: u16) -> Labels {
    let names = &*NAMES;
    let pod: Arc<str> = match identity.template_hash.as_str() {
        "" => format!("{}-x2p7q", workload.name).into(),
        hash if identity.is_of_replica_set => format!("{}-{hash}-x2p7q", workload.name).into(),
        // As long as the random part of a pod's name is, and another one for each revision.
        hash => format!("{}-{hash:0>5.5}", workload.name).into(),
    };
    let namespace: Arc<str> = workload.namespace.as_str().into();
    let values: [Arc<str>; 6] = [
        identity.app.as_str().into(),
        Arc::clone(&namespace),
        Arc::clone(&pod),
        namespace,
        pod,
        response_code.to_string().into(),
    ];
    names.application_labels.iter().cloned().zip(values).filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Prometheus 2.42.0 stores of a scrape, and what the parser of 3.8.1 (`textparse.NewPromParser`) makes of the same text.
    #[test]
    fn bounds_are_named_by_version() {
        for (bound, exported, normalised) in [
            (0.005, "0.005", "0.005"),
            (0.5, "0.5", "0.5"),
            (1.0, "1", "1.0"),
            (250.0, "250", "250.0"),
            (600_000.0, "600000", "600000.0"),
            (1_000_000.0, "1000000", "1e+06"),
            (1_800_000.0, "1800000", "1.8e+06"),
        ] {
            let bound = Bound::new(bound);
            assert_eq!(
                (&**bound.label(RangeBoundary::Closed), &**bound.label(RangeBoundary::LeftOpen)),
                (exported, normalised)
            );
        }
        assert_eq!(&**Bound::infinite().label(RangeBoundary::LeftOpen), "+Inf");
    }
}
