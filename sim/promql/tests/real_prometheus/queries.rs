//! The questions: every built-in check, every fixture's template, and a table of what PromQL can do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aviary_crds::{Canary, ValidatedCanary, ValidationOptions};
use aviary_providers::metrics::BuiltinMetric;
use aviary_providers::metrics::grouped::grouped_builtin;
use aviary_providers::metrics::template::{Scope, render};
use aviary_providers::traffic;
use serde_json::json;

/// Windows of the checks: shorter than two scrapes of some series, the default, and a long one.
const INTERVALS: [&str; 4] = ["10s", "30s", "1m", "5m"];

/// The built-in checks of every provider there is, for canaries `test/podinfo` of each kind of target, and of many canaries at once.
pub(crate) fn built_in() -> Vec<String> {
    let metrics = [BuiltinMetric::RequestSuccessRate, BuiltinMetric::RequestDuration];
    let mut queries = BTreeSet::new();
    for kind in ["Deployment", "DaemonSet"] {
        let canary = canary(kind);
        for (provider, metric) in traffic::ALL.iter().flat_map(|provider| metrics.map(|metric| (provider, metric))) {
            let template = provider.builtin_query(&canary, metric);
            for (interval, target) in INTERVALS.iter().flat_map(|interval| TARGETS.map(|target| (interval, target))) {
                queries.insert(render(template, &Scope { target: target.into(), ..scope(interval) }).unwrap());
            }
        }
    }
    let members = TARGETS.map(|target| ("test", target));
    for (metric, interval) in metrics.iter().flat_map(|metric| INTERVALS.map(|interval| (metric, interval))) {
        queries.insert(grouped_builtin(*metric, &members, interval));
    }
    queries.into_iter().collect()
}

/// Workloads with data, and one without.
const TARGETS: [&str; 3] = ["podinfo", "podinfo-primary", "nobody"];

fn canary(kind: &str) -> ValidatedCanary {
    let canary: Canary = serde_json::from_value(json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": "podinfo"},
            "service": {"port": 9898},
            "analysis": {"interval": "30s", "threshold": 5, "iterations": 2},
        },
    }))
    .unwrap();
    ValidatedCanary::parse(&canary, &ValidationOptions::default()).unwrap()
}

fn scope(interval: &str) -> Scope {
    let variables = [("reporter", "destination"), ("direction", "inbound"), ("path", "root")];
    Scope {
        name: "podinfo".into(),
        namespace: "test".into(),
        target: "podinfo".into(),
        service: "podinfo".into(),
        ingress: "podinfo".into(),
        route: "podinfo".into(),
        interval: interval.into(),
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

/// The checks of other observers that Flagger has, for a canary `test/podinfo`: of the forms that queries have.
pub(crate) fn other_observers() -> Vec<String> {
    let ratio = |metric: &str, selector: &str, status: &str, window: &str| {
        format!(
            "sum(rate({metric}{{{selector},{status}}}[{window}])) / sum(rate({metric}{{{selector}}}[{window}])) * 100"
        )
    };
    let p99 = |metric: &str, selector: &str, window: &str| {
        format!("histogram_quantile(0.99, sum(rate({metric}{{{selector}}}[{window}])) by (le))")
    };
    let mean = |metric: &str, selector: &str, window: &str| {
        format!(
            "sum(rate({metric}_sum{{{selector}}}[{window}])) / sum(rate({metric}_count{{{selector}}}[{window}])) * 1000"
        )
    };
    let pod = r#"kubernetes_namespace="test",kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)""#;
    let skipper = r#"route=~"kube(ew)?_test__podinfo_canary__.*__podinfo_canary(_[0-9]+)?""#;
    let traefik = r#"service=~"test-podinfo-canary-[0-9a-zA-Z-]+@kubernetescrd""#;
    let nginx = r#"namespace="test",ingress="podinfo",canary!="""#;
    let linkerd = r#"namespace="test",deployment=~"podinfo",direction="inbound""#;
    let envoy = [
        pod.to_owned(),
        r#"envoy_cluster_name=~"test_podinfo-canary_[0-9a-zA-Z-]+""#.to_owned(),
        r#"envoy_cluster_name=~"test-podinfo-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+""#.to_owned(),
        r#"service=~"podinfo-canary_test_svc_[0-9a-zA-Z-]+""#.to_owned(),
        r#"envoy_cluster_name=~"test/podinfo-00002""#.to_owned(),
    ];
    let mut queries = Vec::new();
    for window in INTERVALS {
        queries.push(ratio("response_total", linkerd, r#"classification!="failure""#, window));
        queries.push(p99("response_latency_ms_bucket", linkerd, window));
        for selector in &envoy {
            queries.push(ratio("envoy_cluster_upstream_rq", selector, r#"envoy_response_code!~"5.*""#, window));
            queries.push(p99("envoy_cluster_upstream_rq_time_bucket", selector, window));
        }
        queries.push(ratio("nginx_ingress_controller_requests", nginx, r#"status!~"5.*""#, window));
        queries.push(mean("nginx_ingress_controller_response_duration_seconds", nginx, window));
        let all_skipper = format!(r#"{skipper},le="+Inf""#);
        queries.push(ratio("skipper_response_duration_seconds_bucket", &all_skipper, r#"code!~"5..""#, window));
        queries.push(mean("skipper_serve_route_duration_seconds", skipper, window));
        let all_traefik = format!(r#"{traefik},le="+Inf""#);
        queries.push(ratio("traefik_service_request_duration_seconds_bucket", &all_traefik, r#"code!~"5..""#, window));
        queries.push(format!("{} * 1000", p99("traefik_service_request_duration_seconds_bucket", traefik, window)));
        let apisix = r#"route=~"test_podinfo-podinfo-canary_.+""#;
        queries.push(ratio("apisix_http_status", apisix, r#"code!~"5..""#, window));
    }
    queries
}

/// The queries of the MetricTemplates under `tests/fixtures/flagger`, rendered for `test/podinfo`.
pub(crate) fn fixture_templates() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/flagger");
    let mut queries = Vec::new();
    for directory in ["e2e", "examples"] {
        let mut files: Vec<_> = fs::read_dir(root.join(directory)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            queries.extend(block_scalars(&fs::read_to_string(file).unwrap()));
        }
    }
    // There are nine in the suite of Flagger 1.44.
    assert!(queries.len() >= 9, "only {} templates were found", queries.len());
    let rendered = |query: &String| INTERVALS.map(|interval| render(query, &scope(interval)).unwrap());
    queries.iter().flat_map(rendered).collect()
}

/// The text of every `query: |` in a manifest.
fn block_scalars(manifest: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = manifest.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim_start().trim_start_matches("- ") != "query: |" {
            continue;
        }
        let mut text = String::new();
        while let Some(next) = lines.next_if(|next| next.trim().is_empty() || indent(next) > indent(line)) {
            text.push_str(next);
            text.push('\n');
        }
        found.push(text);
    }
    found
}

/// What the language can do, line by line.
pub(crate) fn semantics() -> Vec<String> {
    let mut queries: Vec<String> =
        TABLE.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let counters =
        ["slow_total", "ended_total", "once_total", "istio_requests_total{destination_workload=\"podinfo\"}"];
    for function in ["rate", "increase", "irate", "delta", "idelta", "changes", "resets"] {
        for counter in counters {
            for window in ["20s", "1m", "2m", "7m"] {
                queries.push(format!("{function}({counter}[{window}])"));
            }
        }
    }
    for function in ["avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar", "absent"] {
        for selector in ["temperature[1m]", "m[2m]", "ended_total[3m]", "nothing{app=\"a\"}[5m]"] {
            queries.push(format!("{function}_over_time({selector})"));
        }
    }
    for phi in ["-1", "0", "0.25", "0.5", "0.99", "1", "2", "NaN"] {
        queries.push(format!("histogram_quantile({phi}, odd_bucket)"));
        queries.push(format!("histogram_quantile({phi}, rate(istio_request_duration_milliseconds_bucket[1m]))"));
        queries.push(format!("quantile_over_time({phi}, temperature[1m])"));
        queries.push(format!("quantile by (app) ({phi}, m)"));
    }
    for function in ["abs", "ceil", "exp", "floor", "ln", "log2", "log10", "round", "sgn", "sqrt", "timestamp", "sort"]
    {
        queries.push(format!("{function}(m)"));
    }
    for aggregation in ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"] {
        for grouping in ["", "by (app)", "by (zone)", "without (zone)", "by (nothing)", "by (__name__)"] {
            queries.push(format!("{aggregation} {grouping} (m)"));
        }
        queries.push(format!("{aggregation} by (pod) (rate(ended_total[1m]))"));
        queries.push(format!("{aggregation}(nothing)"));
    }
    for operator in ["+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<="] {
        queries.push(format!("m {operator} 3"));
        queries.push(format!("3 {operator} m"));
        queries.push(format!("m{{zone=\"1\"}} {operator} on (app) limit"));
        queries.push(format!("m {operator} on (app) group_left limit"));
        queries.push(format!("limit {operator} on (app) group_right m"));
        queries.push(format!("m {operator} ignoring (zone) group_left (team) owner"));
        if !"+-*/%^".contains(operator) {
            queries.push(format!("m {operator} bool 3"));
            queries.push(format!("3 {operator} bool m"));
            queries.push(format!("1 {operator} bool 2"));
            queries.push(format!("m{{zone=\"1\"}} {operator} bool on (app) limit"));
        }
    }
    queries
}

const TABLE: &str = r#"
    1
    "text"
    -1
    NaN
    1e3
    0x1F
    Inf - Inf
    -2 ^ 2
    2 ^ 3 ^ 2
    -7 % 4
    5.5 % -2
    1 / 0
    time()
    pi()
    vector(3)
    vector(time())
    scalar(vector(1)) + 1
    scalar(m)
    scalar(limit{app="a"})
    scalar(nothing)
    m
    m{app="a"}
    m{app!="a"}
    m{app=~"a|b"}
    m{app!~"a|b"}
    m{app=~".*"}
    m{nothing=""}
    m{team!="x"}
    m{app=~"a.+"}
    {__name__=~"limit|owner"}
    {__name__="limit"}
    {app="a", zone="1"}
    m and limit
    m and on (app) limit
    m unless on (app) limit
    m or limit
    m or on (app) limit
    limit or on (app) m
    limit and ignoring (zone) m
    limit unless ignoring (zone) m{app="a"}
    m and on () vector(1)
    m unless on () nothing
    nothing or vector(0)
    sum(nothing) or vector(0)
    sum without () (m atan2 3)
    sum without () (3 atan2 m)
    sum without () (m atan2 on (app) group_left limit)
    m offset 1m
    m offset -1m
    m @ 1767226000
    m @ start()
    m @ end()
    istio_requests_total{response_code="503"} @ 1767226000.5 offset 30s
    rate(istio_requests_total{response_code="503"}[1m] @ 1767226000)
    rate(istio_requests_total{response_code="503"}[1m] offset 90s)
    sum_over_time(temperature[1m:10s])
    max_over_time(rate(ended_total[1m])[5m:30s])
    avg_over_time(sum(rate(istio_requests_total[1m]))[2m:])
    sum_over_time((temperature + 0)[1m:20s] offset 7s)
    min_over_time(m[1m:10s] @ 1767226000)
    count_over_time(ended_total[10m:1m])
    rate(sum(slow_total)[3m:15s])
    topk(3, m)
    topk(2, m{app!~"d|e"})
    topk by (app) (1, m)
    topk without (zone) (1, m)
    topk(0, m)
    topk(-1, m)
    topk(100, limit)
    bottomk(3, m)
    bottomk by (app) (1, m)
    bottomk(2, limit)
    count_values("value", m)
    count_values by (app) ("value", m)
    count_values("app", limit)
    sort_desc(m)
    sort(limit)
    absent(nothing)
    absent(nothing{app="a"})
    absent(nothing{app="a",zone=~"1|2",x="1",x="2"})
    absent(nothing{app!="a"})
    absent(m)
    absent(sum(nothing{app="a"}))
    absent(rate(nothing{app="a"}[1m]))
    absent(nothing{app="a"} * 2)
    clamp(m, -1, 3)
    clamp(m, 3, -1)
    clamp_min(m, 2)
    clamp_max(m, 2)
    clamp_min(m, NaN)
    clamp(m, NaN, 1)
    round(m, 0.3)
    round(temperature, 0.1)
    round(temperature * 100, 5)
    round(m, 0)
    label_replace(temperature, "app", "$1", "pod", "(.*)-[^-]+-[^-]+")
    label_replace(temperature, "app", "x-$2-${1}", "pod", "([a-z]+)-(.*)")
    label_replace(temperature, "app", "$1x", "pod", "(.*)")
    label_replace(temperature, "ns", "", "pod", ".*")
    label_replace(temperature, "ns", "other", "pod", "podinfo")
    label_replace(temperature, "ns", "none", "missing", "")
    label_replace(temperature, "pod", "one", "ns", ".*")
    label_replace(temperature, "bad-name", "$1", "pod", "(.*)")
    label_replace(temperature, "app", "$1", "pod", "(.*")
    label_join(temperature, "both", "/", "ns", "pod")
    label_join(temperature, "pod", "", "missing")
    label_join(temperature, "both", "-", "ns", "missing", "ns")
    label_join(temperature, "bad-name", "-", "ns")
    timestamp(temperature)
    timestamp(temperature offset 15s)
    timestamp(temperature + 0)
    -m
    +m
    -{__name__=~"limit|owner"}
    rate({__name__=~"slow_total|ended_total"}[1m])
    sum({__name__=~"limit|owner"})
    m * on (app) group_left (team) owner
    m * on (app) group_left (zone) owner
    owner * on (app) group_right (team) m
    m / on (app) limit
    limit / on (app) m
    m + on (zone) group_left m
    m == m
    m != m
    limit == on (app) limit
    limit + ignoring () limit
    sum by (app) (m) / on (app) limit * 100
    1 - sum(rate(istio_requests_total{response_code=~"5.."}[1m])) / sum(rate(istio_requests_total[1m]))
    sum(rate(istio_requests_total{response_code=~"5.."}[1m])) by (destination_workload) > 0.1
    sum(rate(istio_requests_total[1m])) without (response_code, reporter)
    sum(rate(istio_request_duration_milliseconds_sum[1m])) / sum(rate(istio_request_duration_milliseconds_count[1m]))
    avg(up) * 100
    count(up == 1) / count(up)
    sum(up{job="podinfo"}) > bool 1
    ended_total
    ended_total{pod="a"}
    ended_total{pod="b"}
    count(ended_total)
    temperature[25s]
    m{app="a"}[1m]
    ended_total[2m]
    sum(
    rate(m)
    rate(m[1m]
    m{app=}
    m[1m] offset
    unknown_function(m)
    topk(m)
    sum by (app m
    {}
    {app=~".*"}
    1 < 2
    m{app=~"("}
    m and 1
    "a" + 1
    sum(m[1m])
    rate(m)[1m]
    clamp(m)
    m bool 1
    histogram_quantile(m, 1)
"#;
