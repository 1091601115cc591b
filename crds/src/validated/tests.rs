#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::*;
use crate::service::GatewayReference;
use crate::{Canary, decode};

/// A canary that is fine, with changes merged into its `spec`.
fn canary(changes: Value) -> Canary {
    let mut object = json!({
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 9898},
            "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10},
        },
    });
    merge(&mut object["spec"], changes);
    decode(&object).expect("decodes")
}

/// RFC 7386.
fn merge(target: &mut Value, changes: Value) {
    match changes {
        Value::Object(fields) if target.is_object() => {
            for (name, change) in fields {
                match change {
                    Value::Null => drop(target.as_object_mut().unwrap().remove(&name)),
                    change => merge(&mut target[name.as_str()], change),
                }
            }
        }
        change => *target = change,
    }
}

#[track_caller]
fn accepted(changes: Value) -> ValidatedCanary {
    ValidatedCanary::parse(&canary(changes), &ValidationOptions::default())
        .unwrap_or_else(|problems| panic!("refused: {problems}"))
}

#[track_caller]
fn refused(changes: Value) -> String {
    ValidatedCanary::parse(&canary(changes), &ValidationOptions::default()).expect_err("must be refused").to_string()
}

#[test]
fn defaults() {
    let canary = accepted(json!({}));
    assert_eq!(canary.progress_deadline.as_secs(), 600);
    assert_eq!((canary.suspended, canary.skip_analysis, canary.revert_on_deletion), (false, false, false));
    assert_eq!((canary.provider, canary.metrics_server), (None, None));
    assert_eq!(canary.service.name, "podinfo");
    assert_eq!(canary.service.port_name, "http");
    assert_eq!(canary.service.target_port, IntOrString::Int(9898));
    assert_eq!(canary.analysis.max_weight, 100);
    assert_eq!(canary.analysis.declared_max_weight, 0);
    assert_eq!(canary.analysis.primary_ready_threshold, 100);
    assert_eq!(canary.analysis.canary_ready_threshold, 100);
    assert_eq!(canary.analysis.steps, Steps::Weight { step: 10, max: 100 });
}

#[test]
fn intervals() {
    for (text, seconds) in [("", 60), ("1m30s", 90), ("1h", 3600), ("5s", 10), ("500ms", 10), ("0", 10)] {
        let canary = accepted(json!({"analysis": {"interval": text}}));
        assert_eq!(canary.analysis.interval.as_secs(), seconds, "{text:?}");
    }
    assert_eq!(accepted(json!({"analysis": {"interval": null}})).analysis.interval.as_secs(), 60);
    let options = ValidationOptions { shortest_interval: Duration::from_secs(2), ..ValidationOptions::default() };
    for (text, seconds) in [("1s", 2), ("5s", 5), ("", 60)] {
        let found =
            ValidatedCanary::parse(&canary(json!({"analysis": {"interval": text}})), &options).expect("accepted");
        assert_eq!(found.analysis.interval.as_secs(), seconds, "{text:?}");
    }
    assert_eq!(
        refused(json!({"analysis": {"interval": "10sfoo"}})),
        "spec.analysis.interval: expected a unit of ns, us, ms, s, m or h, found sfoo (got \"10sfoo\"); \
         use a duration such as 30s or 1m30s"
    );
}

#[test]
fn all_problems_at_once() {
    let problems = refused(json!({
        "progressDeadlineSeconds": -1,
        "targetRef": {"kind": "StatefulSet"},
        "service": {"port": 0},
        "analysis": {
            "interval": "soon", "threshold": -1, "stepWeight": null,
            "metrics": [{"name": "mine"}],
            "webhooks": [{"name": "a", "url": "loadtester", "type": "sometimes", "timeout": "1", "retries": -1}],
            "alerts": [{"name": "a", "severity": "fatal", "providerRef": {"name": "x"}}],
        },
    }));
    let paths: Vec<&str> = problems.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let mut expected = vec![
        "spec.targetRef.kind",
        "spec.progressDeadlineSeconds",
        "spec.service.port",
        "spec.analysis",
        "spec.analysis.threshold",
        "spec.analysis.interval",
        "spec.analysis.metrics[0]",
        "spec.analysis.alerts[0].severity",
        "spec.analysis.webhooks[0].type",
        "spec.analysis.webhooks[0].url",
        "spec.analysis.webhooks[0].timeout",
        "spec.analysis.webhooks[0].retries",
    ];
    expected.sort_unstable();
    let mut paths_sorted = paths;
    paths_sorted.sort_unstable();
    assert_eq!(paths_sorted, expected, "{problems}");
}

#[test]
fn steps_that_would_get_stuck() {
    for (analysis, path) in [
        (json!({"stepWeight": 0}), "spec.analysis: has no steps"),
        (json!({"stepWeight": null, "iterations": 0}), "spec.analysis: has no steps"),
        (json!({"stepWeight": -5}), "spec.analysis.stepWeight: must not be negative (got -5)"),
        (json!({"stepWeight": null, "stepWeights": [10, 30, 30]}), "spec.analysis.stepWeights[2]: must be more"),
        (json!({"stepWeight": null, "stepWeights": [30, 10]}), "spec.analysis.stepWeights[1]: must be more"),
        (json!({"stepWeight": null, "stepWeights": [0, 10]}), "spec.analysis.stepWeights[0]: must be more"),
        (json!({"maxWeight": -1}), "spec.analysis.maxWeight: must not be negative"),
        (json!({"primaryReadyThreshold": 101}), "spec.analysis.primaryReadyThreshold: is not a percentage"),
        (json!({"canaryReadyThreshold": -1}), "spec.analysis.canaryReadyThreshold: is not a percentage"),
    ] {
        let problems = refused(json!({"analysis": analysis}));
        assert!(problems.starts_with(path), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}

#[test]
fn weights_beyond_100_are_capped_as_flagger_does() {
    let analysis = accepted(json!({"analysis": {
        "stepWeight": 150, "maxWeight": 200, "stepWeightPromotion": 101, "mirrorWeight": 1000,
    }}))
    .analysis;
    assert_eq!(analysis.steps, Steps::Weight { step: 100, max: 100 });
    assert_eq!((analysis.max_weight, analysis.declared_max_weight), (100, 200));
    assert_eq!((analysis.step_weight_promotion, analysis.mirror_weight), (100, 100));
    let analysis = accepted(json!({"analysis": {"stepWeight": null, "stepWeights": [50, 120, 130]}})).analysis;
    assert_eq!(analysis.steps, Steps::Weights(vec![50, 100]));
}

#[test]
fn strategy_as_flagger_derives_it() {
    let by_header = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    for (analysis, strategy, name) in [
        (json!({}), Strategy::Canary, "canary"),
        (json!({"match": by_header}), Strategy::Canary, "canary"),
        (json!({"stepWeight": null, "iterations": 3}), Strategy::BlueGreen, "blue-green"),
        (json!({"stepWeight": null, "iterations": 3, "match": by_header}), Strategy::AbTesting, "ab-testing"),
    ] {
        let canary = accepted(json!({"analysis": analysis}));
        assert_eq!(canary.strategy(), strategy);
        assert_eq!(canary.strategy().to_string(), name);
    }
}

#[test]
fn an_ab_test_without_a_condition_would_give_everybody_the_canary() {
    let matching = |conditions: Value| json!({"analysis": {"stepWeight": null, "iterations": 3, "match": conditions}});
    for conditions in [json!([{}]), json!([{"headers": {}}]), json!([{"name": "insiders", "ignoreUriCase": true}])] {
        let problems = refused(matching(conditions));
        assert!(problems.starts_with("spec.analysis.match[0]: has no condition, so that all requests"), "{problems}");
    }
    let insiders = json!({"headers": {"x-canary": {"exact": "insider"}}});
    let problems = refused(matching(json!([insiders, {}])));
    assert!(problems.starts_with("spec.analysis.match[1]: has no condition"), "{problems}");
    accepted(matching(json!([insiders, {"sourceLabels": {"app": "qa"}}])));
    // By weight everybody takes part anyway.
    accepted(json!({"analysis": {"match": [{}]}}));
}

#[test]
fn without_analysis_it_is_skipped() {
    let canary = accepted(json!({"analysis": null}));
    assert!(canary.skip_analysis);
    assert_eq!(canary.analysis.steps, Steps::None);
    assert_eq!(canary.analysis.threshold, 1);
    assert_eq!(accepted(json!({"skipAnalysis": true, "analysis": {"stepWeight": null}})).analysis.steps, Steps::None);
}

#[test]
fn the_former_name_of_the_analysis_is_read() {
    let canary = accepted(json!({"analysis": null, "canaryAnalysis": {"stepWeight": 5}}));
    assert!(!canary.skip_analysis);
    assert_eq!(canary.analysis.steps, Steps::Weight { step: 5, max: 100 });
    let problems = refused(json!({"analysis": null, "canaryAnalysis": {"stepWeight": -1}}));
    assert!(problems.starts_with("spec.canaryAnalysis.stepWeight: "), "{problems}");
}

const V1ALPHA1: fn(Value) -> Value = |analysis| json!({"analysis": null, "canaryAnalysis": analysis});

fn of_flagger_0_1() -> Value {
    V1ALPHA1(json!({
        "threshold": 5, "maxWeight": 50, "stepWeight": 10,
        "metrics": [
            {"name": "istio_requests_total", "threshold": 99, "interval": "1m"},
            {"name": "istio_request_duration_seconds_bucket", "threshold": 500, "interval": "30s"},
        ],
    }))
}

#[test]
fn a_canary_of_flagger_0_1_steps_in_the_control_loop_and_is_judged_by_istios_series() {
    let found = accepted(of_flagger_0_1());
    assert_eq!((found.dialect, found.provider.as_deref()), (Dialect::V1Alpha1, Some("istio")));
    let analysis = &found.analysis;
    assert_eq!((analysis.interval, analysis.threshold), (Duration::from_secs(10), 5));
    assert_eq!(analysis.steps, Steps::Weight { step: 10, max: 50 });
    let metrics: Vec<_> = analysis.metrics.iter().map(|metric| (&metric.source, metric.limit)).collect();
    assert_eq!(
        metrics,
        [
            (&MetricSource::SuccessRate, MetricLimit::Threshold(99.0)),
            (&MetricSource::DurationInSeconds, MetricLimit::Threshold(500.0)),
        ]
    );
    for (control_loop, interval) in [(25, 25), (3, 3), (0, 1)] {
        let control_loop_interval = Duration::from_secs(control_loop);
        let options = ValidationOptions { control_loop_interval, ..ValidationOptions::default() };
        let found = ValidatedCanary::parse(&canary(of_flagger_0_1()), &options).expect("accepted");
        assert_eq!(found.analysis.interval, Duration::from_secs(interval), "{control_loop}");
        // Today's canaries have nothing to do with that flag.
        let todays =
            ValidatedCanary::parse(&canary(json!({"analysis": {"interval": null}})), &options).expect("accepted");
        assert_eq!((todays.dialect, todays.analysis.interval), (Dialect::V1Beta1, Duration::from_secs(60)));
    }
}

/// Flagger 0.1 passed over such a metric and released unjudged.
#[test]
fn an_unknown_metric_of_flagger_0_1_is_refused() {
    let problems = refused(V1ALPHA1(json!({"stepWeight": 5, "metrics": [{"name": "istio_request_duration_bucket"}]})));
    assert!(problems.starts_with("spec.canaryAnalysis.metrics[0]: is neither a built-in metric"), "{problems}");
    assert!(problems.ends_with("use istio_requests_total or istio_request_duration_seconds_bucket"), "{problems}");
    let problems = refused(json!({"analysis": {"metrics": [{"name": "istio_requests_total"}]}}));
    assert!(problems.ends_with("or add a templateRef or a query"), "{problems}");
}

/// Its canaries never advanced.
#[test]
fn an_analysis_of_flagger_0_1_without_a_step_is_refused() {
    let problems = refused(V1ALPHA1(json!({"threshold": 5, "maxWeight": 50})));
    assert!(problems.starts_with("spec.canaryAnalysis: has no steps"), "{problems}");
}

#[test]
fn an_analysis_wins_over_that_of_flagger_0_1() {
    let found = accepted(json!({"canaryAnalysis": {"stepWeight": 30}}));
    assert_eq!(found.dialect, Dialect::V1Beta1);
    assert_ne!(found.analysis.steps, Steps::Weight { step: 30, max: 100 });
}

#[test]
fn metrics_run_in_flaggers_order() {
    let reference = json!({"name": "t"});
    let metrics = accepted(json!({"analysis": {"metrics": [
        {"name": "first", "templateRef": {"name": "t", "namespace": "other"}, "threshold": 1, "interval": "30s"},
        {"name": "request-duration", "query": "q", "templateRef": reference, "thresholdRange": {"max": 500}},
        {"name": "request-success-rate", "threshold": 99, "interval": "90s"},
    ]}}))
    .analysis
    .metrics;
    let sources: Vec<MetricSource> = metrics.iter().map(|metric| metric.source.clone()).collect();
    let template =
        |namespace: &str| MetricSource::Template(ObjectKey { namespace: namespace.to_owned(), name: "t".to_owned() });
    assert_eq!(
        sources,
        [
            MetricSource::Duration,
            MetricSource::Query("q".into()),
            MetricSource::SuccessRate,
            template("other"),
            template("test"),
        ]
    );
    assert_eq!(metrics[0].limit, MetricLimit::Range(ThresholdRange { min: None, max: Some(500.0) }));
    assert_eq!((metrics[0].interval.as_secs(), metrics[0].interval_text.as_str()), (60, "1m"));
    assert_eq!((metrics[2].interval.as_secs(), metrics[2].interval_text.as_str()), (90, "90s"));
    assert_eq!(metrics[2].limit, MetricLimit::Threshold(99.0));
}

#[test]
fn metrics_that_cannot_pass() {
    let refused = |metric: Value| refused(json!({"analysis": {"metrics": [metric]}}));
    assert_eq!(
        refused(json!({"name": "mine"})),
        "spec.analysis.metrics[0]: is neither a built-in metric nor has it a query or a templateRef (got \"mine\"); \
         use request-success-rate or request-duration, or add a templateRef or a query"
    );
    assert!(
        refused(json!({"name": "m", "query": "q", "thresholdRange": {"min": 2, "max": 1}}))
            .starts_with("spec.analysis.metrics[0].thresholdRange.min: is more than max 1, "),
    );
    assert!(refused(json!({"name": "m", "query": "q", "interval": "0s"})).contains("a window without any samples"));
}

#[test]
fn webhooks() {
    let webhooks = accepted(json!({"analysis": {"webhooks": [
        {"name": "a", "url": "http://loadtester.test/"},
        {"name": "b", "url": "HTTPS://gate", "type": "confirm-promotion", "timeout": "1m30s", "retries": 2,
         "disableTLS": true, "muteAlert": true, "metadata": {}},
    ]}}))
    .analysis
    .webhooks;
    assert_eq!((webhooks[0].kind, webhooks[0].timeout.as_secs()), (WebhookType::Rollout, 10));
    assert_eq!(webhooks[0].metadata, None);
    assert_eq!((webhooks[1].kind, webhooks[1].timeout.as_secs()), (WebhookType::ConfirmPromotion, 90));
    assert_eq!((webhooks[1].retries, webhooks[1].disable_tls, webhooks[1].mute_alert), (2, true, true));
    assert_eq!(webhooks[1].metadata, Some(BTreeMap::new()));
    for url in ["", "loadtester", "ftp://x/", "http://", "http:///path"] {
        let problems = refused(json!({"analysis": {"webhooks": [{"name": "a", "url": url}]}}));
        assert!(problems.starts_with("spec.analysis.webhooks[0].url: "), "{url}: {problems}");
    }
    let problems = refused(json!({"analysis": {"webhooks": [{"name": "a", "url": "http://x", "timeout": "0s"}]}}));
    assert!(problems.starts_with("spec.analysis.webhooks[0].timeout: would let a call last forever"), "{problems}");
}

#[test]
fn an_alert_without_severity_gets_everything() {
    let alerts = |severity: Value| {
        accepted(json!({"analysis": {"alerts": [{"name": "a", "severity": severity, "providerRef": {"name": "p"}}]}}))
            .analysis
            .alerts
    };
    assert_eq!(alerts(Value::Null)[0].severity, AlertSeverity::Info);
    assert_eq!(alerts(json!(""))[0].severity, AlertSeverity::Info);
    assert_eq!(alerts(json!("error"))[0].severity, AlertSeverity::Error);
    assert_eq!(alerts(json!("warn"))[0].provider, ObjectKey { namespace: "test".into(), name: "p".into() });
}

#[test]
fn session_affinity() {
    let affinity = |fields: Value| json!({"analysis": {"sessionAffinity": fields}});
    let valid = accepted(affinity(json!({"cookieName": "c", "maxAge": 0}))).analysis.session_affinity.unwrap();
    assert_eq!(valid.max_age.as_secs(), 86_400);
    assert_eq!(valid.primary_cookie_name, None);
    let problems = refused(affinity(json!({"cookieName": "c", "primaryCookieName": "c"})));
    assert!(problems.starts_with("spec.analysis.sessionAffinity.primaryCookieName: must differ"), "{problems}");
    assert!(refused(affinity(json!({"cookieName": ""}))).starts_with("spec.analysis.sessionAffinity.cookieName: "));
    for (fields, path) in [
        (json!({"cookieName": "a;b"}), "cookieName: cannot be the name of a cookie"),
        (json!({"cookieName": "a=b"}), "cookieName: cannot be the name of a cookie"),
        (json!({"cookieName": "c", "primaryCookieName": "p q"}), "primaryCookieName: cannot be the name of a cookie"),
        (json!({"cookieName": "c", "domain": "a; Secure"}), "domain: cannot stand in a cookie"),
        (json!({"cookieName": "c", "path": "/\r\nx: y"}), "path: cannot stand in a cookie"),
    ] {
        let problems = refused(affinity(fields));
        assert!(problems.starts_with(&format!("spec.analysis.sessionAffinity.{path}")), "{problems}");
    }
    accepted(affinity(json!({"cookieName": "__Host-canary.v1", "path": "/app", "domain": "example.com"})));
}

#[test]
fn services() {
    let port = |value: Value| accepted(json!({"service": {"targetPort": value}})).service.target_port;
    assert_eq!(port(json!(0)), IntOrString::Int(9898));
    assert_eq!(port(json!("0")), IntOrString::Int(9898));
    assert_eq!(port(json!(8080)), IntOrString::Int(8080));
    assert_eq!(port(json!("http")), IntOrString::String("http".into()));
    for value in [0, 65_536, -1] {
        let problems = refused(json!({"service": {"port": value}}));
        assert!(problems.starts_with(&format!("spec.service.port: is not a port (got {value})")), "{problems}");
    }
    let named = accepted(json!({"service": {"name": "shop", "portName": ""}})).service;
    assert_eq!(
        (named.apex(), named.primary_name(), named.canary_name()),
        ("shop", "shop-primary".into(), "shop-canary".into())
    );
    assert_eq!(named.port_name, "http");
    assert_eq!(
        refused(json!({"service": null})),
        "spec.service: is required unless the target is a Knative Service; add a service with at least a port"
    );
}

#[test]
fn names_that_no_service_can_have() {
    for (changes, path) in [
        (json!({"service": {"name": "Shop_Front"}}), "spec.service.name: cannot be the name of a service"),
        (json!({"targetRef": {"name": "Shop.front"}}), "spec.targetRef.name: cannot be the name of a service"),
        (json!({"service": {"name": "a".repeat(56)}}), "spec.service.name: is too long to name the services"),
        (json!({"targetRef": {"name": "a".repeat(56)}}), "spec.targetRef.name: is too long to name the services"),
        (json!({"service": {"portName": "HTTP"}}), "spec.service.portName: cannot be the name"),
        (json!({"service": {"targetPort": "no_such"}}), "spec.service.targetPort: is neither a port's number"),
        (json!({"service": {"targetPort": "much-too-long-for-a-port"}}), "spec.service.targetPort: is neither"),
        (json!({"service": {"targetPort": "8080"}}), "spec.service.targetPort: is neither a port's number"),
    ] {
        let problems = refused(changes);
        assert!(problems.starts_with(path), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
    // A long name of a target is no matter where the service has one of its own.
    accepted(json!({"targetRef": {"name": "a".repeat(60)}, "service": {"name": "a".repeat(55)}}));
    accepted(json!({"service": {"portName": "http-metrics", "targetPort": "http-metrics"}}));
}

#[test]
fn addresses_that_nobody_can_call() {
    let hook = |url: &str| json!({"analysis": {"webhooks": [{"name": "a", "url": url}]}});
    for url in
        ["http://a b/", "http://x:99999/", "http://x:port/", "http://user@/", "https://[::1:80/", "http://a:b:80/"]
    {
        let problems = refused(hook(url));
        assert!(problems.starts_with("spec.analysis.webhooks[0].url: is not an address"), "{url}: {problems}");
    }
    for url in ["http://canary:t0ken@gate.test:8080/a b?c=d", "https://[::1]:8443", "http://10.0.0.1/", "http://x:/"] {
        accepted(hook(url));
    }
    let server = |address: &str, metric: Value| json!({"metricsServer": address, "analysis": {"metrics": [metric]}});
    let built_in = json!({"name": "request-success-rate", "threshold": 99});
    let template = json!({"name": "mine", "templateRef": {"name": "t"}});
    for address in ["prometheus:9090", "http://", "prometheus"] {
        let problems = refused(server(address, built_in.clone()));
        assert!(problems.starts_with("spec.metricsServer: is not an address"), "{address}: {problems}");
        // Nothing is asked of it.
        accepted(server(address, template.clone()));
    }
    accepted(server("http://prometheus.istio-system:9090", built_in));
}

#[test]
fn references_get_the_defaults_of_the_schema() {
    let service = accepted(json!({"service": {
        "gatewayRefs": [{"name": "g"}, {"name": "s", "group": "", "kind": "Service"}],
        "mirror": [{"backendRef": {"name": "m", "port": 80}}],
    }}))
    .service;
    let named = |index: usize| {
        let reference: &GatewayReference = &service.gateway_refs[index];
        (reference.group.as_deref().unwrap(), reference.kind.as_deref().unwrap())
    };
    assert_eq!(named(0), ("gateway.networking.k8s.io", "Gateway"));
    assert_eq!(named(1), ("", "Service"));
    assert_eq!(service.mirror[0].kind.as_deref(), Some("Service"));
    let problems = refused(json!({"service": {"mirror": [{"backendRef": {"name": "m"}}, {}]}}));
    assert_eq!(problems.lines().count(), 2, "{problems}");
    assert!(problems.contains("spec.service.mirror[0].backendRef.port: Must have port"), "{problems}");
    assert!(problems.contains("spec.service.mirror[1].backendRef: is required"), "{problems}");
}

#[test]
fn knative_rules_of_flagger() {
    let knative = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "podinfo"});
    let valid = accepted(json!({"provider": "knative", "targetRef": knative, "service": null}));
    assert!(valid.target.is_knative());
    assert_eq!(valid.service.canary_name(), "podinfo-canary");

    let problems = refused(json!({"provider": "istio", "targetRef": knative}));
    assert!(problems.contains("spec.provider: can't use istio provider with Knative Service as target"), "{problems}");
    let problems = refused(json!({"provider": "knative"}));
    assert!(problems.contains("can't use apps/v1/Deployment as target if provider is set to knative"), "{problems}");
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    let problems = refused(json!({"provider": "knative", "targetRef": knative, "autoscalerRef": scaler}));
    assert!(problems.contains("can't use autoscaler with Knative Service"), "{problems}");
    assert!(!accepted(json!({"targetRef": {"apiVersion": "v1", "kind": "Service"}})).target.is_knative());
}

#[test]
fn autoscalers() {
    let scaler = |replicas: Value| {
        json!({"autoscalerRef": {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "so",
            "primaryScalerReplicas": replicas, "primaryScalerQueries": {"trigger": "query"}}})
    };
    let valid = accepted(scaler(json!({"minReplicas": 2, "maxReplicas": 15}))).autoscaler.unwrap();
    assert_eq!((valid.kind, valid.primary_name()), (AutoscalerKind::ScaledObject, "so-primary".into()));
    assert_eq!((valid.primary_min_replicas, valid.primary_max_replicas), (Some(2), Some(15)));
    assert_eq!(valid.primary_queries["trigger"], "query");
    assert!(refused(scaler(json!({"minReplicas": 0}))).contains("minReplicas: must be at least 1 (got 0)"));
    assert!(refused(scaler(json!({"minReplicas": 3, "maxReplicas": 2}))).contains("is more than maxReplicas 2"));
}

#[test]
fn references_across_namespaces_can_be_blocked() {
    let changes = |namespace: &str| {
        canary(json!({
            "upstreamRef": {"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "u", "namespace": namespace},
            "analysis": {
                "metrics": [{"name": "m", "templateRef": {"name": "t", "namespace": namespace}}],
                "alerts": [{"name": "a", "providerRef": {"name": "p", "namespace": namespace}}],
            },
        }))
    };
    let blocked = ValidationOptions { no_cross_namespace_refs: true, ..ValidationOptions::default() };
    let problems = ValidatedCanary::parse(&changes("other"), &blocked).expect_err("blocked");
    let messages: Vec<&str> = problems.0.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "can't access gloo upstream u.other, cross-namespace references are blocked",
            "can't access metric template t.other, cross-namespace references are blocked",
            "can't access alert provider p.other, cross-namespace references are blocked",
        ]
    );
    assert_eq!(problems.0[1].path, "spec.analysis.metrics[0].templateRef.namespace");
    for namespace in ["", "test"] {
        assert!(ValidatedCanary::parse(&changes(namespace), &blocked).is_ok(), "{namespace:?}");
    }
    assert!(ValidatedCanary::parse(&changes("other"), &ValidationOptions::default()).is_ok());
}

#[test]
fn phases_and_their_names() {
    use crate::Phase;
    for phase in Phase::ALL {
        assert_eq!(serde_json::to_value(phase).unwrap(), json!(phase.as_str()));
        assert_eq!(Phase::from_name(phase.as_str()), Some(phase));
        assert_eq!(phase.to_string(), phase.as_str());
    }
    assert_eq!(Phase::default().as_str(), "");
    assert_eq!(Phase::from_name("Flying"), None);
}
