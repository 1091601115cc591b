//! Reading PromQL that somebody else wrote.
//!
//! The parser is a library's (`promql-parser`). It panics where a number in the place of a duration is none that there can be, and
//! whoever walks its trees, or only drops them, recurses once for each level: one query could end the process. [`parse`] refuses
//! both before the parser sees the text, so everything that reads PromQL goes through it.

mod scan;

use promql_parser::parser::Expr;

/// Most levels of an expression, each parenthesis, call, operator and subquery being one; a chain of operators is as deep as it is
/// long. Queries of dashboards have some twenty. This many are evaluated on the 2 MiB that a thread's stack has, even by a debug build
/// (`sim/promql/tests/semantics.rs`).
pub const DEEPEST: usize = 250;

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, in the parser's words, which have no `parse error:` before them.
pub fn parse(text: &str) -> Result<Expr, String> {
    scan::check(text)?;
    #[allow(clippy::disallowed_methods, reason = "what it cannot bear was refused above")]
    promql_parser::parser::parse(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::{DEEPEST, parse};

    const OUT_OF_RANGE: &str = "duration out of range";

    #[test]
    fn numbers_that_are_no_durations_are_refused_and_do_not_panic() {
        for query in [
            "up[1e30]",
            "up[ 1E+30 ]",
            "up[0x7fffffffffffffff0]",
            "up[5m:1e30]",
            "up[1e30:5m]",
            "up offset Inf",
            "up offset NaN",
            "up offset -inF",
            "up OFFSET # far away\n + 1e30",
            "up offset 99999999999999999999",
            "{a=\"offset\"} offset Inf",
            "offset offset 1e30",
            "rate(up[5m]) + on (offset) up offset Inf",
        ] {
            let error = parse(query).expect_err(query);
            assert!(error == OUT_OF_RANGE || error.contains("can't be parsed"), "{query}: {error}");
        }
    }

    #[test]
    fn numbers_that_are_durations_are_read() {
        for query in [
            "up[300]",
            "up[0x10:1e2]",
            "up offset 1.5",
            "up offset -0",
            "vector(Inf) + 1e300",
            "up[5m] offset 1w # offset Inf",
            "label_replace(up, \"offset\", \"[1e30]\", 'a', `offset Inf`)",
            "up{offset=\"x\"} == 1e30",
            "up @ 1e9 > bool Inf",
            "a:b:rate5m / offset:c",
        ] {
            assert!(parse(query).is_ok(), "{query}: {:?}", parse(query));
        }
    }

    #[test]
    fn depth_is_bounded_before_anything_recurses() {
        let deep = |levels: usize| {
            [
                format!("{}1{}", "(".repeat(levels), ")".repeat(levels)),
                format!("{}up", "-".repeat(levels)),
                format!("1{}", " + 1".repeat(levels)),
                format!("1{}", " ^ 1".repeat(levels)),
                format!("up{}", " or up".repeat(levels)),
                format!("up{}", " UNLESS on (a) up".repeat(levels / 2)),
                format!("1{}", " == bool 1".repeat(levels)),
                format!("{}up{}", "sum(".repeat(levels), ")".repeat(levels)),
                format!("{}up{}", "max_over_time(".repeat(levels / 2), "[1m:1s])".repeat(levels / 2)),
                format!("{}up", "abs(".repeat(levels)),
            ]
        };
        for query in deep(100_000) {
            let error = parse(&query).expect_err("too deep");
            let head = &query[..20];
            assert!(
                error.starts_with("the expression is nested too deeply") || error.starts_with("unclosed"),
                "{head}: {error}"
            );
        }
        // The last one is not closed.
        for query in &deep(DEEPEST - 1)[..9] {
            assert!(parse(query).is_ok(), "{query}: {:?}", parse(query));
        }
    }

    #[test]
    fn width_is_no_depth() {
        let selectors = ["rate(up{a!=\"b\", c=~\"d|e\"}[5m])"; 10].join(" + ");
        let queries = vec![selectors; 20].join(") or sum by (a, b) (");
        assert!(parse(&format!("sum({queries})")).is_ok());
        let labels = vec!["a!=\"-(-(-(\""; 1_000].join(",");
        assert!(parse(&format!("{{b=\"c\",{labels}}}")).is_ok());
    }

    proptest! {
        /// Whatever is written: an expression or an error.
        #[test]
        fn no_text_panics(parts in prop::collection::vec(prop::sample::select(PARTS), 1..12), noise in ".{0,6}") {
            let joined = parts.concat();
            let _ = parse(&joined).map(|expression| (expression.to_string(), expression.prettify()));
            let _ = parse(&parts.join(" ")).map(|expression| (expression.to_string(), expression.prettify()));
            let _ = parse(&format!("{joined}{noise}"));
            let _ = parse(&format!("up{noise}{joined}"));
        }
    }

    const PARTS: &[&str] = &[
        "up",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "5m",
        "1e30",
        "Inf",
        "NaN",
        "offset",
        " offset ",
        "@",
        "+",
        "-",
        "*",
        "^",
        "==",
        "!=",
        "=~",
        "!",
        "\"",
        "'",
        "`",
        "\\",
        "\\x",
        "\\377",
        "\\u12",
        "#",
        "\n",
        ",",
        ":",
        "a",
        "=",
        "\"b\"",
        "sum",
        "by",
        "rate(",
        "bool",
        " or ",
        "or",
        "start()",
        "0x",
        "0",
        "9",
        ".",
        "e",
        "é",
        "\u{2028}",
        "1",
        "1y",
        "99999999999y",
        "on(",
        "group_left",
        "fill(",
        "é\"",
        "\"\\é\"",
        "count_values",
        "topk(",
        "{a=",
        "[1",
        "[5m:",
        "{\"x\"",
        "max_over_time(",
        "1e400",
        "0x7fffffffffffffff",
        "-0x8000000000000000",
    ];
}
