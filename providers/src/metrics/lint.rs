//! Queries that can be asked and do not say what their author means, as PromQL's parser sees them. A finding is a warning: the
//! query is asked as it is.

use promql_parser::label::Matcher;
use promql_parser::parser::token::{T_DIV, T_MUL, T_SUM, TokenType};
use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, VectorSelector};

/// A time above this is no limit in milliseconds that anybody sets: a proxy's histogram begins at half a millisecond, and a
/// request that takes one is as good as none. In seconds it is an ordinary limit.
const LARGEST_SUSPECT_LIMIT: f64 = 1.0;

/// What is wrong with a rendered query whose values may be `max` at most; one text each, with the repaired query. Nothing where
/// it is no PromQL: whoever is asked says so.
pub fn findings(query: &str, max: Option<f64>) -> Vec<String> {
    let Ok(mut expression) = aviary_promql_syntax::parse(query) else { return Vec::new() };
    let mut findings = Vec::new();
    if sum_ratios(&mut expression) {
        findings.push(format!(
            "both sides of the division are series and no sums, so each series is divided by itself: errors do not show. \
             Use: {expression}"
        ));
    }
    if let Some(max) = max.filter(|max| *max > 0.0 && *max <= LARGEST_SUSPECT_LIMIT)
        && let Some(metric) = milliseconds(&expression)
    {
        findings.push(format!(
            "{metric} is in milliseconds, and a limit of {max} looks like seconds: nearly every request takes longer. Set the \
             limit to {}, or use: ({expression}) / 1000",
            max * 1000.0
        ));
    }
    findings
}

/// Puts sums around both sides of every division of a metric by itself. Whether there was one.
fn sum_ratios(expression: &mut Expr) -> bool {
    match expression {
        Expr::Binary(binary) => {
            let inner = [&mut binary.lhs, &mut binary.rhs].map(|side| sum_ratios(side));
            if !is_blind_ratio(binary) {
                return inner.contains(&true);
            }
            for side in [&mut binary.lhs, &mut binary.rhs] {
                let plain = without_parentheses(side).clone();
                **side = Expr::Aggregate(AggregateExpr {
                    op: TokenType::new(T_SUM),
                    expr: Box::new(plain),
                    param: None,
                    modifier: None,
                });
            }
            true
        }
        Expr::Paren(inner) => sum_ratios(&mut inner.expr),
        Expr::Unary(inner) => sum_ratios(&mut inner.expr),
        Expr::Aggregate(inner) => sum_ratios(&mut inner.expr),
        Expr::Call(call) => call.args.args.iter_mut().map(|argument| sum_ratios(argument)).fold(false, |a, b| a | b),
        _ => false,
    }
}

/// Series of one metric over series of the same: what is left out on one side finds no partner on the other, and the rest is
/// divided by itself.
fn is_blind_ratio(binary: &BinaryExpr) -> bool {
    let is_matched = binary.modifier.as_ref().is_some_and(|modifier| modifier.matching.is_some());
    if binary.op.id() != T_DIV || is_matched {
        return false;
    }
    let (Some(left), Some(right)) = (series(&binary.lhs), series(&binary.rhs)) else { return false };
    let same_metric = left.name.is_some() && left.name == right.name;
    let (left, right) = (&left.matchers.matchers, &right.matchers.matchers);
    let is_within = |inner: &[Matcher], outer: &[Matcher]| outer.iter().all(|matcher| inner.contains(matcher));
    same_metric && left.len() != right.len() && (is_within(left, right) || is_within(right, left))
}

/// The series that a side has: of a selector, or of a function like `rate` over one. `None` where they are aggregated.
fn series(side: &Expr) -> Option<&VectorSelector> {
    match side {
        Expr::Paren(inner) => series(&inner.expr),
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(selector) => Some(&selector.vs),
        Expr::Call(call) => match call.args.args.as_slice() {
            [only] => series(only),
            _ => None,
        },
        _ => None,
    }
}

fn without_parentheses(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(inner) => without_parentheses(&inner.expr),
        other => other,
    }
}

/// The metric in milliseconds whose unit the value has, if it has.
fn milliseconds(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Paren(inner) => milliseconds(&inner.expr),
        Expr::Aggregate(inner) => milliseconds(&inner.expr),
        Expr::VectorSelector(selector) => in_milliseconds(selector),
        Expr::MatrixSelector(selector) => in_milliseconds(&selector.vs),
        Expr::Call(call) => match (call.func.name, call.args.args.as_slice()) {
            ("histogram_quantile", [_, buckets]) => milliseconds(buckets),
            ("rate" | "increase" | "avg_over_time" | "max_over_time" | "min_over_time", [only]) => milliseconds(only),
            _ => None,
        },
        // A mean: the time of all requests over their number. Any other factor changes the unit.
        Expr::Binary(binary) if binary.op.id() == T_DIV && !is_number(&binary.rhs) => milliseconds(&binary.lhs),
        Expr::Binary(binary) if binary.op.id() == T_MUL => None,
        _ => None,
    }
}

fn is_number(expression: &Expr) -> bool {
    matches!(without_parentheses(expression), Expr::NumberLiteral(_))
}

/// Istio and others say it in the name; Envoy's own histograms of times are in milliseconds, and their names do not say so.
fn in_milliseconds(selector: &VectorSelector) -> Option<String> {
    let name = selector.name.as_ref()?;
    let what = ["_bucket", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
    let is_envoys = what.starts_with("envoy_") && what.ends_with("_time");
    (is_envoys || what.ends_with("_milliseconds") || what.ends_with("_ms")).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::findings;

    const ERROR_RATE: &str = r#"100 - rate(
      envoy_cluster_upstream_rq{kubernetes_namespace="test", envoy_cluster_name="podinfo-canary", envoy_response_code!~"5.*"}[30s])
      / rate(envoy_cluster_upstream_rq{kubernetes_namespace="test", envoy_cluster_name="podinfo-canary"}[30s]) * 100"#;
    const LATENCY: &str = r#"histogram_quantile(0.99, sum(rate(
      envoy_cluster_upstream_rq_time_bucket{kubernetes_namespace="test", envoy_cluster_name="podinfo-canary"}[30s])) by (le))"#;

    #[test]
    fn a_ratio_of_series_is_blind_to_errors() {
        let [finding] = findings(ERROR_RATE, Some(1.0)).try_into().unwrap();
        assert!(finding.starts_with("both sides of the division are series and no sums"), "{finding}");
        let (_, repaired) = finding.split_once("Use: ").unwrap();
        assert!(repaired.starts_with("100 - sum(rate(envoy_cluster_upstream_rq{"), "{repaired}");
        assert_eq!(repaired.matches("sum(").count(), 2, "{repaired}");
        assert_eq!(findings(repaired, Some(1.0)), Vec::<String>::new(), "the repaired query is what it says");
    }

    #[test]
    fn milliseconds_are_not_compared_with_seconds() {
        let [finding] = findings(LATENCY, Some(0.5)).try_into().unwrap();
        assert!(
            finding.starts_with(
                "envoy_cluster_upstream_rq_time_bucket is in milliseconds, and a limit of 0.5 looks like seconds"
            ),
            "{finding}"
        );
        assert!(finding.contains("Set the limit to 500, or use: (histogram_quantile(0.99, "), "{finding}");
        let (_, repaired) = finding.split_once("or use: ").unwrap();
        assert_eq!(findings(repaired, Some(0.5)), Vec::<String>::new());
        assert_eq!(findings(LATENCY, Some(500.0)), Vec::<String>::new());
        assert_eq!(findings(LATENCY, None), Vec::<String>::new());
    }

    #[test]
    fn a_query_cannot_panic() {
        let deep = format!("{}up{}", "(".repeat(100_000), ")".repeat(100_000));
        for query in ["up[1e30]", "up offset Inf", "up offset NaN", deep.as_str()] {
            assert_eq!(findings(query, Some(0.5)), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_meant_is_left_alone() {
        for query in [
            "sum(rate(a{code!~\"5.*\"}[1m])) / sum(rate(a[1m])) * 100",
            "rate(a{code=\"500\"}[1m]) / ignoring(code) rate(a[1m])",
            "rate(a_sum[1m]) / rate(a_count[1m])",
            "rate(a[1m]) / rate(a[1m] offset 1h)",
            "histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket[1m])) by (le))",
            "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket[1m])) by (le)) / 1000",
            "rate(envoy_cluster_upstream_rq[1m])",
            "avg:datadog{x}.as_count()",
            "from(bucket:\"default\")",
        ] {
            assert_eq!(findings(query, Some(0.5)), Vec::<String>::new(), "{query}");
        }
    }

    #[test]
    fn means_in_milliseconds_and_ratios_deep_inside_are_found() {
        let mean = "sum(rate(istio_request_duration_milliseconds_sum[1m])) / sum(rate(istio_request_duration_milliseconds_count[1m]))";
        assert_eq!(findings(mean, Some(0.5)).len(), 1);
        let deep = "max((rate(a{code=\"500\"}[1m])) / rate(a[1m]))";
        assert!(
            findings(deep, None)[0].contains("max(sum(rate(a{code=\"500\"}[1m])) / sum(rate(a[1m])))"),
            "{:?}",
            findings(deep, None)
        );
    }
}
