//! Figures worked out by hand against Prometheus' definitions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aviary_promql::{
    EngineOptions, MemorySource, Query, QueryError, QueryValue, RangeBoundary, evaluate, evaluate_range,
};

const SECOND: i64 = 1_000;

/// Appends `values` every `step_s` seconds from `start_s` on.
fn append(source: &mut MemorySource, labels: &[(&str, &str)], start_s: i64, step_s: i64, values: &[f64]) {
    for (index, value) in (0i64..).zip(values) {
        source.append(labels, (start_s + index * step_s) * SECOND, *value);
    }
}

fn counter(start_s: i64, step_s: i64, values: &[f64]) -> MemorySource {
    let mut source = MemorySource::default();
    append(&mut source, &[("__name__", "c")], start_s, step_s, values);
    source
}

/// One sample per line of `name{label="value"} value`, at time 0.
fn exposition(text: &str) -> MemorySource {
    let mut source = MemorySource::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) =
            series.split_once('{').map_or((series, ""), |(name, rest)| (name, &rest[..rest.len() - 1]));
        let mut pairs = vec![("__name__", name)];
        for pair in labels.split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            pairs.push((label, value.trim_matches('"')));
        }
        source.append(&pairs, 0, value.parse().unwrap());
    }
    source
}

fn with_boundary(source: &MemorySource, query: &str, at_s: i64, boundary: RangeBoundary) -> Vec<(String, f64)> {
    let options = EngineOptions { boundary, ..EngineOptions::default() };
    elements(Query::parse(query).unwrap().instant(source, at_s * SECOND, &options).unwrap())
}

fn elements(value: QueryValue) -> Vec<(String, f64)> {
    let QueryValue::Vector(samples) = value else { panic!("expected a vector, got {value:?}") };
    samples
        .into_iter()
        .map(|sample| {
            let name = &sample.labels["__name__"];
            let labels: Vec<String> = sample
                .labels
                .iter()
                .filter(|(label, _)| *label != "__name__")
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            (format!("{name}{{{}}}", labels.join(",")), sample.value)
        })
        .collect()
}

fn ask(source: &MemorySource, query: &str, at_s: i64) -> Vec<(String, f64)> {
    elements(evaluate(source, query, at_s * SECOND).unwrap_or_else(|error| panic!("{query}: {error}")))
}

fn only(source: &MemorySource, query: &str, at_s: i64) -> f64 {
    let answer = ask(source, query, at_s);
    assert_eq!(answer.len(), 1, "{query}: {answer:?}");
    answer[0].1
}

#[track_caller]
fn assert_close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
}

#[track_caller]
fn assert_elements(actual: &[(String, f64)], expected: &[(&str, f64)]) {
    let actual: Vec<(&str, f64)> = actual.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
    assert_eq!(actual, expected);
}

#[test]
fn the_beginning_of_a_window_belongs_to_it_only_in_prometheus_2() {
    let values: Vec<f64> = (0..=12).map(|index| f64::from(index) * 10.0).collect();
    let source = counter(0, 5, &values);
    let ask = |query, boundary| with_boundary(&source, query, 60, boundary)[0].1;
    assert_close(ask("count_over_time(c[1m])", RangeBoundary::Closed), 13.0);
    assert_close(ask("count_over_time(c[1m])", RangeBoundary::LeftOpen), 12.0);
    // Twelve samples grow by 110 over 55 s; the missing 5 s are within 1.1 distances, so both answers are 2/s.
    assert_close(ask("rate(c[1m])", RangeBoundary::Closed), 2.0);
    assert_close(ask("rate(c[1m])", RangeBoundary::LeftOpen), 2.0);
}

#[test]
fn the_lookback_has_the_same_boundary() {
    let source = counter(0, 5, &[1.0]);
    assert_eq!(with_boundary(&source, "c", 300, RangeBoundary::Closed).len(), 1);
    assert_eq!(with_boundary(&source, "c", 300, RangeBoundary::LeftOpen).len(), 0);
    assert_eq!(with_boundary(&source, "c", 299, RangeBoundary::LeftOpen).len(), 1);
}

#[test]
fn extrapolation_goes_half_a_distance_where_the_window_is_not_covered() {
    // Samples at 30, 40, 50 in (0, 60]: distance 10, threshold 11. The start is 30 away, so 5; the end is 10 away, so 10.
    let source = counter(30, 10, &[100.0, 110.0, 120.0]);
    assert_close(only(&source, "increase(c[1m])", 60), 20.0 * 35.0 / 20.0);
    assert_close(only(&source, "rate(c[1m])", 60), 35.0 / 60.0);
    // Seen from 62 s the end is 12 away: 5 on both sides.
    assert_close(only(&source, "increase(c[1m])", 62), 20.0 * 30.0 / 20.0);
}

#[test]
fn a_counter_is_not_extrapolated_below_zero_but_a_gauge_is() {
    // The slope of 1/s reaches zero 1 s before the first sample.
    let source = counter(30, 10, &[1.0, 11.0, 21.0]);
    assert_close(only(&source, "increase(c[1m])", 60), 31.0);
    assert_close(only(&source, "delta(c[1m])", 60), 35.0);
    // Zero is 8 s away: nearer than the threshold, farther than half a distance. Versions differ here.
    let source = counter(30, 10, &[8.0, 18.0, 28.0]);
    assert_close(with_boundary(&source, "increase(c[1m])", 60, RangeBoundary::Closed)[0].1, 38.0);
    assert_close(with_boundary(&source, "increase(c[1m])", 60, RangeBoundary::LeftOpen)[0].1, 35.0);
}

#[test]
fn a_counter_reset_counts_from_zero() {
    let source = counter(0, 10, &[10.0, 20.0, 5.0, 15.0]);
    // 15 - 10 + 20 = 25 in 30 s, and 10 s more to the start of the window (zero would be 12 s away).
    assert_close(only(&source, "increase(c[40s])", 30), 25.0 * 40.0 / 30.0);
    assert_close(only(&source, "resets(c[40s])", 30), 1.0);
    assert_close(only(&source, "changes(c[40s])", 30), 3.0);
    assert_close(only(&source, "irate(c[40s])", 30), 1.0);
    assert_close(only(&source, "irate(c[40s])", 20), 0.5);
    assert_close(only(&source, "idelta(c[40s])", 20), -15.0);
}

#[test]
fn one_sample_has_no_rate() {
    let source = counter(0, 10, &[10.0]);
    for function in ["rate", "increase", "irate", "delta", "idelta"] {
        assert_eq!(ask(&source, &format!("{function}(c[1m])"), 30), vec![], "{function}");
    }
}

#[test]
fn a_stale_series_is_gone_at_once_and_its_marker_is_not_a_sample() {
    let mut source = counter(0, 10, &[1.0, 2.0]);
    source.mark_stale(&[("__name__", "c")], 20 * SECOND);
    assert_eq!(ask(&source, "c", 19).len(), 1);
    assert_eq!(ask(&source, "c", 20), vec![]);
    assert_close(only(&source, "count_over_time(c[1m])", 20), 2.0);
}

const SUCCESS_RATE: &str = r#"
    sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="test",
        destination_workload=~"podinfo",response_code!~"5.*"}[1m]))
    /
    sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="test",
        destination_workload=~"podinfo"}[1m])) * 100"#;

fn istio(code: &'static str) -> [(&'static str, &'static str); 5] {
    [
        ("__name__", "istio_requests_total"),
        ("reporter", "destination"),
        ("destination_workload_namespace", "test"),
        ("destination_workload", "podinfo"),
        ("response_code", code),
    ]
}

#[test]
fn success_rate_of_the_built_in_check() {
    let growing = |slope: f64| (0..=12).map(|index| slope * f64::from(index)).collect::<Vec<_>>();
    let mut source = MemorySource::default();
    append(&mut source, &istio("200"), 0, 5, &growing(90.0));
    append(&mut source, &istio("503"), 0, 5, &growing(10.0));
    assert_close(only(&source, SUCCESS_RATE, 60), 90.0);
}

#[test]
fn no_traffic_is_nan_and_no_series_is_empty() {
    let mut source = MemorySource::default();
    assert_eq!(ask(&source, SUCCESS_RATE, 60), vec![]);
    append(&mut source, &istio("200"), 0, 5, &[7.0; 13]);
    assert!(only(&source, SUCCESS_RATE, 60).is_nan());
    // Only failures: the numerator is empty, so the quotient is, and not zero.
    let mut source = MemorySource::default();
    append(&mut source, &istio("503"), 0, 5, &[0.0, 10.0, 20.0]);
    assert_eq!(ask(&source, SUCCESS_RATE, 60), vec![]);
}

#[test]
fn latency_quantile_of_the_built_in_check() {
    let mut source = MemorySource::default();
    for pod in ["a", "b"] {
        for (bound, per_step) in [("10", 10.0), ("25", 40.0), ("50", 50.0), ("+Inf", 50.0)] {
            let labels = [("__name__", "latency_bucket"), ("pod", pod), ("le", bound)];
            append(&mut source, &labels, 0, 5, &[0.0, per_step, per_step * 2.0, per_step * 3.0]);
        }
    }
    // Per pod and step 50 observations. Rank 0.9: 45 of 50, in (25, 50], which holds 10: half way.
    let query = "histogram_quantile(0.9, sum(rate(latency_bucket[1m])) by (le))";
    assert_close(only(&source, query, 15), 37.5);
    let by_pod = ask(&source, "histogram_quantile(0.5, rate(latency_bucket[1m]))", 15);
    assert_eq!(by_pod.iter().map(|(labels, _)| labels.as_str()).collect::<Vec<_>>(), ["{pod=a}", "{pod=b}"]);
    // Rank 25, in (10, 25], which holds 30, of which 15 are needed.
    by_pod.iter().for_each(|(_, value)| assert_close(*value, 17.5));
}

fn fleet() -> MemorySource {
    exposition(
        r#"
        m{app="a",zone="1"} 1
        m{app="a",zone="2"} 3
        m{app="b",zone="1"} 5
        m{app="b",zone="2"} NaN
        limit{app="a"} 10
        limit{app="b"} 20
        owner{app="a",team="red"} 1
        owner{app="b",team="blue"} 1
        "#,
    )
}

#[test]
fn aggregations_group_and_drop_labels() {
    let source = fleet();
    let finite = r#"m{zone!="2"} or m{app="a"}"#;
    assert_elements(&ask(&source, &format!("sum by (app) ({finite})"), 0), &[("{app=a}", 4.0), ("{app=b}", 5.0)]);
    assert_elements(&ask(&source, &format!("sum without (zone) ({finite})"), 0), &[("{app=a}", 4.0), ("{app=b}", 5.0)]);
    assert_elements(&ask(&source, &format!("avg({finite})"), 0), &[("{}", 3.0)]);
    assert_elements(&ask(&source, "count by (app) (m)", 0), &[("{app=a}", 2.0), ("{app=b}", 2.0)]);
    assert_elements(&ask(&source, "max(m)", 0), &[("{}", 5.0)]);
    assert_elements(&ask(&source, "min(m)", 0), &[("{}", 1.0)]);
    assert!(only(&source, "sum(m)", 0).is_nan());
    assert_elements(&ask(&source, "group by (zone, nothing) (m)", 0), &[("{zone=1}", 1.0), ("{zone=2}", 1.0)]);
    // Values 1, 3, 5: variance 8/3.
    assert_close(only(&source, &format!("stddev({finite})"), 0), (8.0f64 / 3.0).sqrt());
    assert_close(only(&source, &format!("quantile(0.75, {finite})"), 0), 4.0);
    assert_elements(&ask(&source, "sum by (__name__) (limit)", 0), &[("limit{}", 30.0)]);
    assert_elements(&ask(&source, "count_values(\"value\", limit)", 0), &[("{value=10}", 1.0), ("{value=20}", 1.0)]);
    assert_elements(&ask(&source, "sum(nothing)", 0), &[]);
}

#[test]
fn topk_keeps_labels_and_sorts_nan_last() {
    let source = fleet();
    assert_elements(&ask(&source, "topk(2, m)", 0), &[("m{app=b,zone=1}", 5.0), ("m{app=a,zone=2}", 3.0)]);
    assert_elements(&ask(&source, "bottomk by (app) (1, m)", 0), &[("m{app=a,zone=1}", 1.0), ("m{app=b,zone=1}", 5.0)]);
    assert_elements(&ask(&source, "topk(0, m)", 0), &[]);
    assert!(ask(&source, "topk(9, m)", 0)[3].1.is_nan());
}

#[test]
fn vectors_match_on_labels() {
    let source = fleet();
    let finite = r#"m{zone="1"}"#;
    assert_elements(&ask(&source, &format!("{finite} / on (app) limit"), 0), &[("{app=a}", 0.1), ("{app=b}", 0.25)]);
    assert_elements(
        &ask(&source, &format!("{finite} / ignoring (zone) limit"), 0),
        &[("{app=a}", 0.1), ("{app=b}", 0.25)],
    );
    assert_elements(&ask(&source, &format!("{finite} / limit"), 0), &[]);
    assert_elements(
        &ask(&source, r#"m{app="a"} * on (app) group_left (team) owner"#, 0),
        &[("{app=a,team=red,zone=1}", 1.0), ("{app=a,team=red,zone=2}", 3.0)],
    );
    assert_elements(
        &ask(&source, r#"limit - on (app) group_right m{app="a"}"#, 0),
        &[("{app=a,zone=1}", 9.0), ("{app=a,zone=2}", 7.0)],
    );
    let message = |query| match evaluate(&source, query, 0).unwrap_err() {
        QueryError::Execution(message) => message,
        other => panic!("{other:?}"),
    };
    assert!(message("m / on (app) limit").contains("many-to-one matching must be explicit"));
    assert_eq!(
        message(r#"limit / on (app) m{app="a"}"#),
        "found duplicate series for the match group {app=\"a\"} on the right hand-side of the operation: \
         [{__name__=\"m\", app=\"a\", zone=\"2\"}, {__name__=\"m\", app=\"a\", zone=\"1\"}];many-to-many matching not \
         allowed: matching labels must be unique on one side"
    );
}

#[test]
fn sets_match_on_labels() {
    let source = fleet();
    assert_elements(&ask(&source, r#"limit and on (app) m{app="a"}"#, 0), &[("limit{app=a}", 10.0)]);
    assert_elements(&ask(&source, r#"limit unless on (app) m{app="a"}"#, 0), &[("limit{app=b}", 20.0)]);
    assert_elements(
        &ask(&source, r#"limit{app="a"} or on (app) owner"#, 0),
        &[("limit{app=a}", 10.0), ("owner{app=b,team=blue}", 1.0)],
    );
    assert_elements(&ask(&source, "nothing or vector(0)", 0), &[("{}", 0.0)]);
}

#[test]
fn comparisons_filter_or_answer_bool() {
    let source = fleet();
    assert_elements(&ask(&source, "limit > 10", 0), &[("limit{app=b}", 20.0)]);
    assert_elements(&ask(&source, "10 < limit", 0), &[("limit{app=b}", 20.0)]);
    assert_elements(&ask(&source, "limit > bool 10", 0), &[("{app=a}", 0.0), ("{app=b}", 1.0)]);
    assert_elements(&ask(&source, r#"limit > on (app) m{zone="1"} * 5"#, 0), &[("{app=a}", 10.0)]);
    assert_eq!(evaluate(&source, "1 < bool 2", 0).unwrap(), QueryValue::Scalar { at_ms: 0, value: 1.0 });
    // NaN satisfies nothing but !=.
    assert_elements(&ask(&source, r#"m{app="b",zone="2"} <= 100"#, 0), &[]);
}

#[test]
fn arithmetic_follows_precedence_and_drops_the_name() {
    let source = fleet();
    assert_elements(&ask(&source, r#"-limit{app="a"} ^ 2 + 7 % 4"#, 0), &[("{app=a}", -97.0)]);
    let scalar = |query| match evaluate(&source, query, 5 * SECOND).unwrap() {
        QueryValue::Scalar { value, .. } => value,
        other => panic!("{other:?}"),
    };
    assert_close(scalar("2 ^ 3 ^ 2"), 512.0);
    assert_close(scalar("-7 % 4"), -3.0);
    assert_close(scalar("time() + scalar(limit{app=\"b\"})"), 25.0);
    assert!(scalar("scalar(limit)").is_nan());
    assert!(scalar("0 / 0").is_nan());
}

#[test]
fn dropping_the_name_must_not_merge_series() {
    let source = exposition("a{x=\"1\"} 1\nb{x=\"1\"} 2");
    let error = evaluate(&source, r#"-{__name__=~"a|b"}"#, 0).unwrap_err();
    assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset");
    assert_eq!(ask(&source, r#"sum({__name__=~"a|b"})"#, 0)[0].1, 3.0);
}

#[test]
fn functions_of_one_value() {
    let source = exposition("v{k=\"x\"} -1.25");
    for (query, expected) in [
        ("abs(v)", 1.25),
        ("ceil(v)", -1.0),
        ("floor(v)", -2.0),
        ("round(v)", -1.0),
        ("round(v, 0.5)", -1.0),
        ("round(v - 0.3, 0.1)", -1.5),
        ("clamp(v, -1, 1)", -1.0),
        ("clamp_min(v, 0)", 0.0),
        ("clamp_max(v, -2)", -2.0),
        ("sgn(v)", -1.0),
        ("sqrt(abs(v * 0.8))", 1.0),
        ("exp(v * 0)", 1.0),
        ("log2(v * -6.4)", 3.0),
        ("timestamp(v)", 0.0),
    ] {
        let answer = ask(&source, query, 10);
        assert_eq!(answer[0].0, "{k=x}", "{query}");
        assert_close(answer[0].1, expected);
    }
    assert_elements(&ask(&source, "clamp(v, 1, -1)", 0), &[]);
    assert!(only(&source, "clamp_min(v * NaN, 0)", 0).is_nan());
    assert!(only(&source, "clamp_max(v, NaN)", 0).is_nan());
}

#[test]
fn an_infinite_value_is_clamped_against_nan_as_go_does() {
    let source = exposition("v{k=\"up\"} inf\nv{k=\"down\"} -inf");
    let values = |query| ask(&source, query, 0).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let highest = values("clamp_min(v, NaN)");
    assert!(highest[0] == f64::INFINITY && highest[1].is_nan(), "{highest:?}");
    let lowest = values("clamp_max(v, NaN)");
    assert!(lowest[0].is_nan() && lowest[1] == f64::NEG_INFINITY, "{lowest:?}");
}

#[test]
fn counted_values_are_written_without_exponent() {
    let source = exposition("v{k=\"a\"} 0.0000001\nv{k=\"b\"} 1.5e21\nv{k=\"c\"} inf");
    assert_elements(
        &ask(&source, "count_values(\"value\", v)", 0),
        &[("{value=0.0000001}", 1.0), ("{value=1500000000000000000000}", 1.0), ("{value=+Inf}", 1.0)],
    );
}

#[test]
fn absent_answers_with_the_labels_asked_for() {
    let source = fleet();
    assert_elements(&ask(&source, r#"absent(nothing{app="a",zone=~"1|2",x="1",x="2"})"#, 0), &[("{app=a}", 1.0)]);
    assert_elements(&ask(&source, "absent(limit)", 0), &[]);
    assert_elements(&ask(&source, "absent(sum(nothing))", 0), &[("{}", 1.0)]);
    assert_elements(&ask(&source, r#"absent_over_time(nothing{app="a"}[5m])"#, 0), &[("{app=a}", 1.0)]);
    assert_elements(&ask(&source, "absent_over_time(limit[5m])", 0), &[]);
}

#[test]
fn labels_are_rewritten() {
    let source = exposition("up{pod=\"podinfo-primary-7d4\",ns=\"test\"} 1");
    assert_elements(
        &ask(&source, r#"label_replace(up, "app", "$1", "pod", "(.*)-[^-]+")"#, 0),
        &[("up{app=podinfo-primary,ns=test,pod=podinfo-primary-7d4}", 1.0)],
    );
    // Anchored, so this does not match and nothing changes.
    assert_elements(
        &ask(&source, r#"label_replace(up, "app", "x", "pod", "podinfo")"#, 0),
        &[("up{ns=test,pod=podinfo-primary-7d4}", 1.0)],
    );
    assert_elements(
        &ask(&source, r#"label_replace(up, "ns", "", "pod", ".*")"#, 0),
        &[("up{pod=podinfo-primary-7d4}", 1.0)],
    );
    assert_elements(
        &ask(&source, r#"label_join(up, "pod", "/", "ns", "missing", "ns")"#, 0),
        &[("up{ns=test,pod=test//test}", 1.0)],
    );
}

#[test]
fn label_names_are_text_in_prometheus_3_and_restricted_in_2() {
    let source = exposition("up{ns=\"test\"} 1");
    let query = r#"label_join(up, "my-label", "", "ns")"#;
    assert_elements(&with_boundary(&source, query, 0, RangeBoundary::LeftOpen), &[("up{my-label=test,ns=test}", 1.0)]);
    let options = EngineOptions { boundary: RangeBoundary::Closed, ..EngineOptions::default() };
    let refused = Query::parse(query).unwrap().instant(&source, 0, &options).unwrap_err();
    assert_eq!(refused.to_string(), "invalid destination label name in label_join(): my-label");
}

#[test]
fn functions_over_time() {
    let source = counter(10, 10, &[4.0, 1.0, 3.0, 2.0]);
    for (function, expected) in [
        ("avg_over_time", 2.5),
        ("min_over_time", 1.0),
        ("max_over_time", 4.0),
        ("sum_over_time", 10.0),
        ("count_over_time", 4.0),
        ("present_over_time", 1.0),
        ("stdvar_over_time", 1.25),
    ] {
        assert_elements(&ask(&source, &format!("{function}(c[1m])"), 40), &[("{}", expected)]);
    }
    assert_elements(&ask(&source, "last_over_time(c[1m])", 40), &[("c{}", 2.0)]);
    assert_close(only(&source, "quantile_over_time(0.5, c[1m])", 40), 2.5);
    assert_close(only(&source, "stddev_over_time(c[1m])", 40), 1.25f64.sqrt());
}

#[test]
fn offset_anchor_and_subquery_move_the_window() {
    let source = counter(0, 10, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_close(only(&source, "c offset 20s", 60), 4.0);
    assert_close(only(&source, "c offset -20s", 10), 3.0);
    assert_close(only(&source, "c @ 30", 60), 3.0);
    assert_close(only(&source, "sum_over_time(c[20s] offset 30s)", 60), 2.0 + 3.0);
    // Steps 40, 50, 60: the window (30, 60] leaves 30 out.
    assert_close(only(&source, "sum_over_time(c[30s:10s])", 60), 15.0);
    // Steps are multiples of 20 s, whatever the instant.
    assert_close(only(&source, "sum_over_time((c + 0)[30s:20s])", 55), 4.0);
    assert_close(only(&source, "max_over_time(rate(c[20s])[30s:10s])", 60), 0.1);
}

#[test]
fn range_queries_evaluate_every_step_and_sort_by_labels() {
    let mut source = counter(0, 10, &[0.0, 1.0, 2.0]);
    append(&mut source, &[("__name__", "b")], 10, 10, &[7.0, 8.0]);
    let QueryValue::Matrix(series) =
        evaluate_range(&source, r#"{__name__=~"b|c"}"#, 0, 20 * SECOND, 10 * SECOND).unwrap()
    else {
        panic!("expected a matrix");
    };
    assert_eq!(series.len(), 2);
    assert_eq!(&series[0].labels["__name__"], "b");
    assert_eq!(series[0].samples, [(10 * SECOND, 7.0), (20 * SECOND, 8.0)]);
    assert_eq!(series[1].samples.len(), 3);

    let refused = |start, end, step| evaluate_range(&source, "c", start, end, step).unwrap_err().to_string();
    assert!(refused(10, 0, 1).contains("must not be before start"));
    assert!(refused(0, 10, 0).contains("zero or negative"));
    assert!(refused(0, 11_001, 1).contains("11,000 points"));
    assert!(evaluate_range(&source, "c[1m]", 0, 1, 1).unwrap_err().to_string().contains("range vector"));
}

#[test]
fn sort_orders_by_value() {
    let source = fleet();
    let values = |query| ask(&source, query, 0).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let ascending = values("sort(m)");
    assert_eq!(ascending[..3], [1.0, 3.0, 5.0]);
    assert!(ascending[3].is_nan());
    assert_eq!(values("sort_desc(m)")[..3], [5.0, 3.0, 1.0]);
}

#[test]
fn what_is_missing_is_refused_by_name_before_any_sample_is_read() {
    let source = MemorySource::default();
    for (query, what) in [
        ("predict_linear(x[5m], 60)", "function predict_linear"),
        ("sum(deriv(x[5m]))", "function deriv"),
        ("limitk(1, x)", "aggregation limitk"),
        ("histogram_count(x)", "function histogram_count"),
        (r#"x{a="1" or b="2"}"#, "or between label matchers"),
    ] {
        let error = evaluate(&source, query, 0).unwrap_err();
        assert_eq!(error, QueryError::Unsupported { what: what.to_owned() }, "{query}");
    }
    for query in ["", "sum(", "rate(x)", "unknown_function(x)", "x{", "1 < 2", "{a=~\".*\"}"] {
        assert!(matches!(evaluate(&source, query, 0), Err(QueryError::BadData(_))), "{query}");
    }
}

/// The shapes of every built-in check and of the metric templates in Flagger's documentation.
#[test]
fn the_checks_of_every_mesh_are_accepted() {
    let source = MemorySource::default();
    for query in [
        r#"sum(rate(envoy_cluster_upstream_rq{envoy_cluster_name=~"test_podinfo-canary_[0-9a-zA-Z-]+",
            envoy_response_code!~"5.*"}[1m])) / sum(rate(envoy_cluster_upstream_rq{
            envoy_cluster_name=~"test_podinfo-canary_[0-9a-zA-Z-]+"}[1m])) * 100"#,
        r#"sum(rate(http_request_duration_seconds_count{kubernetes_namespace="test",
            kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)",status!~"5.*"}[1m]))"#,
        r#"sum(rate(nginx_ingress_controller_response_duration_seconds_sum{namespace="test",ingress="podinfo",
            canary!=""}[1m])) / sum(rate(nginx_ingress_controller_response_duration_seconds_count{namespace="test",
            ingress="podinfo",canary!=""}[1m])) * 1000"#,
        r#"sum(rate(skipper_response_duration_seconds_bucket{
            route=~"kube(ew)?_test__podinfo_canary__.*__podinfo_canary(_[0-9]+)?",code!~"5..",le="+Inf"}[1m]))"#,
        r#"histogram_quantile(0.99, sum(rate(traefik_service_request_duration_seconds_bucket{
            service=~"test-podinfo-canary-[0-9a-zA-Z-]+@kubernetescrd"}[1m])) by (le)) * 1000"#,
        r#"histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="source",
            destination_workload_namespace=~"test",destination_workload=~"podinfo",}[1m])) by (le))/1000"#,
        r#"100 - sum(rate(istio_requests_total{reporter="source",destination_workload=~"podinfo",
            response_code!~"5.*"}[1m])) / sum(rate(istio_requests_total{reporter="source"}[1m])) * 100"#,
    ] {
        assert_eq!(evaluate(&source, query, 0), Ok(QueryValue::Vector(vec![])), "{query}");
    }
}

#[test]
fn a_query_can_neither_panic_nor_overflow_the_stack() {
    let deep = format!("{}up{}", "(".repeat(100_000), ")".repeat(100_000));
    for query in ["up[1e30]", "up offset Inf", "up offset NaN", "rate(up[5m:1e30])", deep.as_str()] {
        let error = Query::parse(query).unwrap_err();
        assert!(matches!(&error, QueryError::BadData(text) if text.contains("parse error: ")), "{error}");
        assert!(aviary_promql::parse_selector(query).is_err());
        assert!(aviary_promql::format_query(query).is_err());
    }
}

/// On the stack that other threads than the main one have, and in a debug build, where frames are largest.
#[test]
fn the_deepest_query_is_evaluated_on_the_stack_of_a_thread() {
    let source = exposition("up 1");
    // The outermost and the operators' own levels are the rest.
    let levels = aviary_promql::DEEPEST_QUERY / 2 - 1;
    for (before, after) in [
        ("(1 + ", ")"),
        ("abs(-", ")"),
        ("sum(-", ")"),
        ("max_over_time(", "[1s:1s])"),
        ("label_join(-", ", \"a\", \"\")"),
    ] {
        let query = format!("{}up{}", before.repeat(levels), after.repeat(levels));
        let (source, thread) = (source.clone(), std::thread::Builder::new().stack_size(2 << 20));
        let evaluated = thread.spawn(move || {
            aviary_promql::format_query(&query).unwrap();
            evaluate(&source, &query, 0).unwrap()
        });
        assert_eq!(elements(evaluated.unwrap().join().unwrap()).len(), 1, "{before}");
    }
}

#[test]
fn work_without_end_is_refused() {
    let source = exposition("up{a=\"0123456789\"} 1");
    let mut doubled = "up".to_owned();
    let mut replaced = "up".to_owned();
    for _ in 0..100 {
        doubled = format!("label_join({doubled}, \"a\", \"\", \"a\", \"a\")");
        replaced = format!("label_replace({replaced}, \"a\", \"$1$1\", \"a\", \"(.*)\")");
    }
    for query in ["max_over_time(up[100y:1ms])", "count_over_time(vector(1)[100y:1ms])", &doubled, &replaced] {
        // The bound is counted, not timed: a smaller one shows the same, sooner.
        let options = EngineOptions { max_samples: 100_000, ..EngineOptions::default() };
        let error = Query::parse(query).unwrap().instant(&source, 0, &options).unwrap_err();
        let text = "query processing would load too many samples into memory in query execution";
        assert_eq!(error, QueryError::Execution(text.to_owned()), "{query}");
    }
    // A dashboard, with an hour behind each point.
    let many = evaluate_range(&source, "max_over_time(rate(up[5m])[1h:1m]) + up", 0, 3_600 * SECOND, 60 * SECOND);
    assert!(many.is_ok(), "{many:?}");
}
