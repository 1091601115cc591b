//! The dashboards of charts/grafana: each panel asks for something, and gets it while a release is under way. On the real bench they
//! are asked in tests/real/install.rs.

use std::collections::BTreeSet;
use std::time::Duration;

use aviary_promql::{Labels, METRIC_NAME, MemorySource, QueryValue, SeriesSource, evaluate};
use serde_json::Value;

use crate::support::{World, canary, deployment, in_virtual_time};

/// A question of a panel.
pub struct Question {
    pub panel: String,
    /// PromQL, without variables.
    pub query: String,
}

fn dashboard(name: &str) -> Value {
    let path = format!("{}/charts/grafana/dashboards/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// All questions of a dashboard, with these values of its variables.
pub fn questions(name: &str, variables: &[(&str, &str)]) -> Vec<Question> {
    let dashboard = dashboard(name);
    let mut questions = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let mut query = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in variables {
                query = query.replace(&format!("${variable}"), value);
            }
            assert!(!query.contains('$'), "{query}");
            questions.push(Question { panel: panel["title"].as_str().unwrap().to_owned(), query });
        }
    }
    assert!(!questions.is_empty());
    questions
}

#[test]
fn dashboards_are_what_grafana_takes() {
    for (name, uid, variables) in [
        ("istio", "flagger-istio", &["datasource", "namespace", "primary", "canary"][..]),
        ("envoy", "flagger-envoy", &["datasource", "namespace", "target"]),
        ("aviary", "aviary", &["datasource", "namespace"]),
    ] {
        let dashboard = dashboard(name);
        assert_eq!(dashboard["uid"], uid);
        // Addresses in guides set them: `var-namespace=test`.
        let declared: Vec<&Value> =
            list(&dashboard["templating"]["list"]).iter().map(|variable| &variable["name"]).collect();
        assert_eq!(declared, variables);
        // The one that the chart provisions, until another one is chosen: a dashboard may be imported into any Grafana.
        let source = &dashboard["templating"]["list"][0];
        assert_eq!((&source["type"], &source["query"]), (&"datasource".into(), &"prometheus".into()), "{name}");
        assert_eq!(source["current"]["value"], "prometheus", "{name}");
        assert_eq!(other_sources(&dashboard), BTreeSet::new(), "{name}");
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {panel}");
            let place = &panel["gridPos"];
            assert!(places.insert((place["y"].as_u64().unwrap(), place["x"].as_u64().unwrap())), "{name}: {panel}");
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{name}: {panel}");
        }
    }
}

/// Data sources that are asked and that nobody chose: all but those that the dashboard's variable stands for.
fn other_sources(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(fields) => {
            let source = fields.get("datasource").filter(|source| source["uid"] != "${datasource}");
            fields.values().flat_map(other_sources).chain(source.map(ToString::to_string)).collect()
        }
        Value::Array(items) => items.iter().flat_map(other_sources).collect(),
        _ => BTreeSet::new(),
    }
}

/// Questions without an answer, or with one that is no number.
fn unanswered(source: &dyn SeriesSource, questions: &[Question], at_ms: i64) -> Vec<String> {
    let is_answered = |question: &Question| match evaluate(source, &question.query, at_ms)
        .unwrap_or_else(|error| panic!("{}: {error}", question.query))
    {
        QueryValue::Vector(samples) => !samples.is_empty() && samples.iter().all(|sample| sample.value.is_finite()),
        other => panic!("{}: {other:?}", question.query),
    };
    let open = questions.iter().filter(|question| !is_answered(question));
    open.map(|question| format!("{}: {}", question.panel, question.query)).collect()
}

/// What Prometheus makes of an answer of `/metrics`.
fn scrape(source: &mut MemorySource, text: &str, at_ms: i64) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut found = Labels::from_iter([(METRIC_NAME, name)]);
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            found.insert(label, value.trim_end_matches('"'));
        }
        source.append_labels(found, at_ms, value.parse().unwrap());
    }
}

#[test]
fn every_panel_has_data_while_a_release_is_under_way() {
    in_virtual_time(async {
        let mut world = World::new(1);
        world.load_heavily();
        world.create(deployment("test", "podinfo", "podinfo:6.0.0")).await;
        world.create(canary("test", "podinfo")).await;
        world.start();
        world.wait_for_phase("podinfo", "Initialized").await;
        // One release before: how long they take is known of those that there were.
        world.set_image("podinfo", "podinfo:6.0.1");
        world.wait_for_phase("podinfo", "Succeeded").await;

        world.set_image("podinfo", "podinfo:6.0.2");
        world.wait_until("some weight", || world.status("podinfo")["canaryWeight"].as_u64() > Some(0)).await;
        let clock = *world.cluster.clock();
        let now_ms = || clock.now().as_millisecond();
        let mut own = MemorySource::default();
        // Two rounds of checks: rates are between two.
        for _ in 0..5 {
            scrape(&mut own, &world.metrics(), now_ms());
            world.pass(Duration::from_secs(5)).await;
        }
        assert_eq!(world.phase("podinfo"), "Progressing");
        let now_ms = now_ms();
        let variables = [("namespace", "test"), ("primary", "podinfo-primary"), ("canary", "podinfo")];
        let open = unanswered(&world.traffic, &questions("istio", &variables), now_ms);
        assert!(open.is_empty(), "no data for\n{}", open.join("\n"));
        let mut of_aviary = questions("aviary", &[("namespace", ".*")]);
        // Counted by the client of a process, which there is none of here.
        of_aviary.retain(|question| !question.query.contains("aviary_api_calls_total"));
        let open = unanswered(&own, &of_aviary, now_ms);
        assert!(open.is_empty(), "no data for\n{}", open.join("\n"));
        // A dashboard that asks for the wrong workload shows nothing, and this test would say so.
        let wrong = questions("istio", &[("namespace", "test"), ("primary", "nobody"), ("canary", "nobody")]);
        assert!(!unanswered(&world.traffic, &wrong, now_ms).is_empty());
    });
}

/// What Envoy tells of a cluster, twice with ten seconds between.
fn scrape_envoy(source: &mut MemorySource, cluster: &str, namespace_of_pod: Option<&str>) {
    let labels = |metric: &str, label: &str, value: &str| {
        let mut labels = Labels::from_iter([(METRIC_NAME, metric), ("envoy_cluster_name", cluster), (label, value)]);
        if let Some(namespace) = namespace_of_pod {
            labels.insert("kubernetes_namespace", namespace);
        }
        labels
    };
    for (round, at_ms) in [(1.0, 0), (2.0, 10_000)] {
        let requests = 100.0 * round;
        source.append_labels(labels("envoy_cluster_upstream_rq", "envoy_response_code", "200"), at_ms, requests);
        for bucket in ["5", "25", "+Inf"] {
            source.append_labels(labels("envoy_cluster_upstream_rq_time_bucket", "le", bucket), at_ms, requests);
        }
        source.append_labels(labels("envoy_cluster_upstream_cx_active", "job", "envoy"), at_ms, 3.0);
        source.append_labels(labels("envoy_cluster_membership_healthy", "job", "envoy"), at_ms, 2.0);
    }
}

/// Real ones of Istio's gateway are asked for on the real bench.
#[test]
fn the_envoy_dashboard_knows_the_clusters_of_crossover_istio_and_contour() {
    let ask = |source: &MemorySource, target: &str| {
        unanswered(source, &questions("envoy", &[("namespace", "test"), ("target", target)]), 10_000)
    };
    // What names a cluster around the name of its service, and the namespace of Envoy's pod, of which the bundled Prometheus makes a
    // label.
    for (before, after, namespace) in [
        ("", "", Some("test")),
        ("", "", None),
        ("outbound|80||", ".test.svc.cluster.local", Some("istio-system")),
        ("outbound|80||", ".test.svc.cluster.local", None),
        ("test_", "_80", Some("projectcontour")),
        ("test/", "/80/da39a3ee5e", None),
    ] {
        let mut source = MemorySource::default();
        for service in ["podinfo-primary", "podinfo-canary"] {
            scrape_envoy(&mut source, &format!("{before}{service}{after}"), namespace);
        }
        let open = ask(&source, "podinfo");
        assert!(open.is_empty(), "{before}podinfo-canary{after}: no data for\n{}", open.join("\n"));
        assert!(!ask(&source, "nobody").is_empty());
    }
    let mut elsewhere = MemorySource::default();
    for service in ["podinfo-primary", "podinfo-canary"] {
        scrape_envoy(&mut elsewhere, service, Some("prod"));
    }
    assert!(!ask(&elsewhere, "podinfo").is_empty(), "those of another namespace are not counted");
}
