//! The latency check of Flagger 0.1.

/// The 99th percentile in milliseconds, by `istio_request_duration_seconds`, and where Istio (from 1.5 on) has
/// `istio_request_duration_milliseconds` alone, by that. As a [template](super::template).
///
/// Flagger 0.1 took `irate`, which judges a whole window by its last two scrapes.
pub const LATENCY: &str = r#"histogram_quantile(0.99, sum(rate(istio_request_duration_seconds_bucket{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) by (le)) * 1000 or histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) by (le))"#;
