//! What a query asks for.

use std::collections::BTreeSet;

use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Whether the operator only asks whether the metrics server is there.
pub(crate) fn is_probe(query: &str) -> bool {
    query == "vector(1)"
}

/// Names of the metrics that a query selects; none if it is not PromQL.
pub(crate) fn names(query: &str) -> BTreeSet<String> {
    let mut names = Names(BTreeSet::new());
    if let Ok(expression) = promql_parser::parser::parse(query) {
        // The visitor never fails.
        let _ = walk_expr(&mut names, &expression);
    }
    names.0
}

struct Names(BTreeSet<String>);

impl ExprVisitor for Names {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        let selector: Option<&VectorSelector> = match expression {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(selector) => Some(&selector.vs),
            _ => None,
        };
        self.0.extend(selector.and_then(|selector| selector.name.clone()));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_found_wherever_they_stand() {
        let query =
            "histogram_quantile(0.99, sum(rate(a_bucket{b=\"c\"}[1m])) by (le)) / (d offset 1m) or sum by (e) (f)";
        assert_eq!(super::names(query).into_iter().collect::<Vec<_>>(), ["a_bucket", "d", "f"]);
        assert!(super::names("avg:datadog{x}.as_count()").is_empty());
    }
}
