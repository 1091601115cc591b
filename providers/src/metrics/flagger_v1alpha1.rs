//! The latency check of Flagger 0.1.

/// The 99th percentile in milliseconds, by `istio_request_duration_seconds`, and where Istio (from 1.5 on) has
/// `istio_request_duration_milliseconds` alone, by that. As a [template](super::template).
///
/// Flagger 0.1 took `irate`, which judges a whole window by its last two scrapes.
pub const LATENCY: &str = r#"histogram_quantile(0.99, sum(rate(istio_request_duration_seconds_bucket{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) by (le)) * 1000 or histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="{{ namespace }}",destination_workload=~"{{ target }}"}[{{ interval }}])) by (le))"#;

/// Whether a query is that check, of whatever canary.
pub fn is_latency(query: &str) -> bool {
    let constant = LATENCY.split("{{").map(|part| part.split_once("}}").map_or(part, |(_, constant)| constant));
    let mut rest = Some(query);
    for part in constant {
        rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
    }
    rest == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_recognised_with_any_values() {
        let rendered = LATENCY
            .replace("{{ namespace }}", "test")
            .replace("{{ target }}", "podinfo")
            .replace("{{ interval }}", "30s");
        assert!(is_latency(&rendered));
        assert!(!is_latency(&format!("{rendered} + a")));
        assert!(!is_latency("histogram_quantile(0.99, sum(rate(istio_request_duration_seconds_bucket[1m])) by (le))"));
    }
}
