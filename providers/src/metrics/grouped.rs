//! The built-in metrics of many canaries in one query. For providers whose requests are counted by Istio's telemetry.

use std::collections::{BTreeMap, BTreeSet};

use super::prometheus::parse_vector;
use super::{BuiltinMetric, MetricError};

const NAMESPACE: &str = "destination_workload_namespace";
const WORKLOAD: &str = "destination_workload";

/// A query whose answer holds one series per workload, with the value that the workload's own query has. `interval` is
/// the common window.
///
/// The selector is a product (every namespace with every workload name), so the answer may hold series that nobody
/// asked for; [`parse_grouped`] keys them by workload.
pub fn grouped_builtin(metric: BuiltinMetric, members: &[(&str, &str)], interval: &str) -> String {
    let namespaces = alternatives(members.iter().map(|(namespace, _)| *namespace));
    let workloads = alternatives(members.iter().map(|(_, workload)| *workload));
    let selector = format!("reporter=\"destination\",{NAMESPACE}=~\"{namespaces}\",{WORKLOAD}=~\"{workloads}\"");
    let by = format!("{NAMESPACE}, {WORKLOAD}");
    match metric {
        BuiltinMetric::RequestSuccessRate => format!(
            "sum by ({by}) (rate(istio_requests_total{{{selector},response_code!~\"5.*\"}}[{interval}])) / \
             sum by ({by}) (rate(istio_requests_total{{{selector}}}[{interval}])) * 100"
        ),
        BuiltinMetric::RequestDuration => format!(
            "histogram_quantile(0.99, sum by (le, {by}) \
             (rate(istio_request_duration_milliseconds_bucket{{{selector}}}[{interval}])))"
        ),
    }
}

/// The values of an answer by (namespace, workload). NaN is left out: like a missing series it means "no values".
pub fn parse_grouped(status: u16, body: &[u8]) -> Result<BTreeMap<(String, String), f64>, MetricError> {
    let mut values = BTreeMap::new();
    for mut series in parse_vector(status, body)? {
        let (Some(namespace), Some(workload)) = (series.labels.remove(NAMESPACE), series.labels.remove(WORKLOAD))
        else {
            return Err(MetricError::Invalid(format!("a series of the answer lacks {NAMESPACE} or {WORKLOAD}")));
        };
        if !series.value.is_nan() {
            values.insert((namespace, workload), series.value);
        }
    }
    Ok(values)
}

/// A regular expression for exactly these names. They are DNS names, in which only the dot is special; it is escaped
/// once for the expression and once for the string literal that holds it.
fn alternatives<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let unique: BTreeSet<&str> = names.collect();
    unique.into_iter().map(|name| name.replace('.', "\\\\.")).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn one_query_serves_many_canaries() {
        let members = [("prod", "podinfo"), ("prod", "a.b"), ("test", "podinfo")];
        assert_eq!(
            grouped_builtin(BuiltinMetric::RequestSuccessRate, &members, "1m"),
            "sum by (destination_workload_namespace, destination_workload) \
             (rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=~\"prod|test\",\
             destination_workload=~\"a\\\\.b|podinfo\",response_code!~\"5.*\"}[1m])) / \
             sum by (destination_workload_namespace, destination_workload) \
             (rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=~\"prod|test\",\
             destination_workload=~\"a\\\\.b|podinfo\"}[1m])) * 100"
        );
        assert_eq!(
            grouped_builtin(BuiltinMetric::RequestDuration, &members[..1], "30s"),
            "histogram_quantile(0.99, sum by (le, destination_workload_namespace, destination_workload) \
             (rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\",\
             destination_workload_namespace=~\"prod\",destination_workload=~\"podinfo\"}[30s])))"
        );
    }

    #[test]
    fn values_are_keyed_by_workload() {
        let entry = |namespace: &str, workload: &str, value: &str| serde_json::json!({"metric": {NAMESPACE: namespace, WORKLOAD: workload}, "value": [1, value]});
        let body = |entries: &[serde_json::Value]| {
            serde_json::json!({"data": {"resultType": "vector", "result": entries}}).to_string().into_bytes()
        };
        let values =
            parse_grouped(200, &body(&[entry("a", "x", "99.5"), entry("b", "x", "0"), entry("a", "y", "NaN")]));
        let expected = [(("a".into(), "x".into()), 99.5), (("b".into(), "x".into()), 0.0)];
        assert_eq!(values, Ok(BTreeMap::from(expected)));
        let unlabelled = body(&[serde_json::json!({"metric": {}, "value": [1, "1"]})]);
        assert!(matches!(parse_grouped(200, &unlabelled), Err(MetricError::Invalid(_))));
        assert!(matches!(parse_grouped(502, b""), Err(MetricError::Unavailable(_))));
    }
}
