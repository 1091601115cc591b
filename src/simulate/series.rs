//! What a query asks for.

use std::collections::BTreeSet;

use aviary_promql::METRIC_NAME;
use aviary_sim::prometheus::metric_names;
use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Whether the operator only asks whether the metrics server is there.
pub(crate) fn is_probe(query: &str) -> bool {
    query == "vector(1)"
}

/// Metrics that a query selects and that the simulation never has; none if it is not PromQL.
pub(crate) fn missing(query: &str) -> BTreeSet<String> {
    let mut names = Missing(BTreeSet::new());
    if let Ok(expression) = aviary_promql_syntax::parse(query) {
        // The visitor never fails.
        let _ = walk_expr(&mut names, &expression);
    }
    names.0
}

struct Missing(BTreeSet<String>);

impl ExprVisitor for Missing {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        let selector: Option<&VectorSelector> = match expression {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(selector) => Some(&selector.vs),
            _ => None,
        };
        let Some(selector) = selector else { return Ok(true) };
        match &selector.name {
            Some(name) => {
                self.0.extend(Some(name).filter(|name| !metric_names().any(|known| known == **name)).cloned())
            }
            None => {
                let by_name = selector.matchers.matchers.iter().filter(|matcher| matcher.name == METRIC_NAME);
                let nothing = by_name.filter(|matcher| !metric_names().any(|known| matcher.is_match(known)));
                self.0.extend(nothing.map(|matcher| matcher.value.clone()));
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_found_wherever_they_stand() {
        let missing = |query: &str| super::missing(query).into_iter().collect::<Vec<_>>();
        let query =
            "histogram_quantile(0.99, sum(rate(a_bucket{b=\"c\"}[1m])) by (le)) / (d offset 1m) or sum by (e) (f)";
        assert_eq!(missing(query), ["a_bucket", "d", "f"]);
        assert_eq!(missing("{__name__=\"kube_x\"} + {__name__=~\"kube_.*\"}"), ["kube_.*", "kube_x"]);
        assert!(missing("avg:datadog{x}.as_count()").is_empty());
    }

    #[test]
    fn a_query_cannot_panic() {
        for query in ["up[1e30]", "up offset Inf", "kube_x offset NaN"] {
            assert!(super::missing(query).is_empty(), "{query}");
        }
    }

    #[test]
    fn what_the_simulation_has_is_not_missing() {
        let query = "sum(rate(istio_requests_total[1m])) / sum(rate({__name__=~\"istio_requests.*\"}[1m])) + up + \
                     http_request_duration_seconds_bucket + {app=\"podinfo\"}";
        assert!(super::missing(query).is_empty());
    }
}
