//! `aviary simulate`: the examples of the documentation, Flagger's manifests, and what is not understood.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aviary::args::{Cli, Command as Verb};
use aviary::simulate::{self, Report, Verdict};
use serde_json::Value;

use Verdict::{Deleted, NotReleased, NotUnderstood, Promoted, RolledBack, Waiting};

/// Every file of `docs/scenarios`, and what comes of it.
const EXAMPLES: &[(&str, Verdict)] = &[
    ("api-compaction", Promoted),
    ("api-conflicts", Promoted),
    ("api-dropped-watches", Promoted),
    ("api-errors", Promoted),
    ("api-lost-responses", Promoted),
    ("api-restart", Promoted),
    ("api-route-refused", Promoted),
    ("api-slow", Promoted),
    ("api-too-many-requests", Promoted),
    ("bad-primary", Promoted),
    ("bad-then-fixed", Promoted),
    ("canary-deleted", Deleted),
    ("canary-fails", RolledBack),
    ("config-change", Promoted),
    ("crash-during-analysis", RolledBack),
    ("crash-loop", RolledBack),
    ("errors", RolledBack),
    ("errors-brief", Promoted),
    ("errors-later", RolledBack),
    ("everything", Promoted),
    ("gate-closed", Waiting),
    ("gate-opens", Promoted),
    ("healthy", Promoted),
    ("image-pull-error", RolledBack),
    ("insiders", Promoted),
    ("load-peak", Promoted),
    ("metric-error", RolledBack),
    ("metric-no-data", RolledBack),
    ("metric-values", RolledBack),
    ("never-ready", RolledBack),
    ("newer-release", Promoted),
    ("no-users", RolledBack),
    ("prometheus-down", Promoted),
    ("prometheus-down-for-long", RolledBack),
    ("prometheus-empty", RolledBack),
    ("prometheus-error", Promoted),
    ("prometheus-slow", Promoted),
    ("prometheus-wrong", RolledBack),
    ("rollback-hook", RolledBack),
    ("route-edited", Promoted),
    ("slow", RolledBack),
    ("slow-start", Promoted),
    ("spec-change", RolledBack),
    ("suspended", Promoted),
    ("suspended-before", NotReleased),
    ("webhook-fails", RolledBack),
    ("webhook-slow", RolledBack),
];

/// Flagger's manifests of providers that are served, and what comes of each. All others are refused.
const SERVED: &[(&str, Verdict)] = &[
    ("e2e/istio-abtest.yaml", Promoted),
    ("e2e/istio-bluegreen.yaml", Promoted),
    ("e2e/istio-canary.yaml", Promoted),
    ("e2e/istio-delegation.yaml", Promoted),
    ("e2e/istio-finalizer-existing-objects.yaml", Promoted),
    ("e2e/istio-finalizer.yaml", Promoted),
    ("e2e/istio-session-affinity.yaml", Promoted),
    ("e2e/istio-skip-analysis.yaml", Promoted),
    ("e2e/keda-scaledobject.yaml", Promoted),
    ("e2e/kubernetes-daemonset-finalizer.yaml", Promoted),
    ("e2e/kubernetes-daemonset.yaml", Promoted),
    ("e2e/kubernetes-deployment.yaml", Promoted),
    ("e2e/kubernetes-hpa.yaml", Promoted),
    ("examples/istio-abtest.yaml", Promoted),
    ("examples/istio-canary.yaml", Promoted),
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

pub(crate) fn fixture(file: &str) -> String {
    root().join("tests/fixtures/flagger").join(file).display().to_string()
}

pub(crate) struct Played {
    pub(crate) report: Report,
    pub(crate) out: String,
    pub(crate) messages: String,
}

/// Runs `aviary simulate` in this process.
pub(crate) fn play(arguments: &[&str]) -> Played {
    let argv = ["aviary", "simulate"].iter().chain(arguments).map(|argument| (*argument).into());
    let cli = Cli::parse_from(argv, |_| None).unwrap_or_else(|error| panic!("{error}"));
    let Verb::Simulate(args) = cli.command else { panic!("another verb") };
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    let report = simulate::run(&args, false, &mut out, &mut messages).unwrap();
    Played { report, out: String::from_utf8(out).unwrap(), messages: String::from_utf8(messages).unwrap() }
}

fn play_example(name: &str, more: &[&str]) -> Played {
    let application = root().join("docs/scenarios/app").display().to_string();
    let scenario = root().join("docs/scenarios").join(format!("{name}.yaml")).display().to_string();
    play(&[&["-f", &application, "--scenario", &scenario], more].concat())
}

fn yaml_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_example_ends_as_its_comment_says() {
    let named: BTreeSet<String> = EXAMPLES.iter().map(|(name, _)| format!("{name}.yaml")).collect();
    let found: BTreeSet<String> = yaml_files(&root().join("docs/scenarios")).into_iter().collect();
    assert_eq!(named, found);
    let mut wrong = Vec::new();
    for (name, expected) in EXAMPLES {
        let Played { report, out, messages } = play_example(name, &[]);
        let text = std::fs::read_to_string(root().join(format!("docs/scenarios/{name}.yaml"))).unwrap();
        let words = match expected {
            Promoted => "promoted",
            RolledBack => "rolled back",
            Waiting => "still waiting",
            NotReleased => "not released",
            Deleted => "deleted",
            _ => panic!("no example for {expected:?}"),
        };
        assert!(text.starts_with(&format!("# Expected: {words}")), "{name}");
        if report.verdict != *expected || messages.contains("broke its own rules") {
            wrong.push(format!("{name}: {:?}\n{out}\n{messages}", report.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What a refused fixture must name: its provider, the kind of its target, or that there is nothing to run in it.
fn must_name(text: &str) -> String {
    let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    if !text.contains("kind: Canary") {
        return "there is no Canary".to_owned();
    }
    match after("provider: ") {
        Some(provider) => format!("provider \"{}\"", provider.trim_matches('"')),
        None if text.contains("gatewayRefs:") => "spec.service.gatewayRefs is for provider gatewayapi:v1".to_owned(),
        None if text.contains("ingressRef:") => "spec.ingressRef is for provider nginx or skipper".to_owned(),
        None if text.contains("routeRef:") => "spec.routeRef is for provider apisix".to_owned(),
        None if text.contains("upstreamRef:") => "spec.upstreamRef is for provider gloo".to_owned(),
        None if text.contains("kuma.io/mesh") => "kuma.io/mesh is for provider kuma".to_owned(),
        None => format!("target kind {}", after("kind: Service").map_or("DaemonSet", |_| "Service")),
    }
}

#[test]
fn flaggers_manifests_run_or_are_refused_by_name() {
    let (mut wrong, mut objects) = (Vec::new(), 0);
    for folder in ["e2e", "examples"] {
        for name in yaml_files(&root().join("tests/fixtures/flagger").join(folder)) {
            let file = format!("{folder}/{name}");
            let text = std::fs::read_to_string(fixture(&file)).unwrap();
            objects += text.matches("apiVersion: flagger.app/v1beta1").count();
            let expected =
                SERVED.iter().find(|(known, _)| *known == file).map_or(NotUnderstood, |(_, verdict)| *verdict);
            let Played { report, out, messages } = play(&["-n", "test", "-f", &fixture(&file)]);
            let errors: Vec<&str> = messages.lines().filter(|line| line.starts_with("error: ")).collect();
            let is_told = match (expected, errors.as_slice()) {
                (NotUnderstood, [error]) => error.contains(&must_name(&text)),
                (NotUnderstood, _) => false,
                (_, errors) => errors.is_empty(),
            };
            if report.verdict != expected || !is_told {
                wrong.push(format!("{file}: {:?}, {}\n{out}\n{messages}", report.verdict, must_name(&text)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(objects, 52, "flagger.app objects that Flagger's tests and examples have");
}

#[test]
fn a_release_of_flaggers_own_workload_loses_no_request() {
    let files = ["workloads/secret.yaml", "workloads/deployment.yaml", "e2e/istio-canary.yaml"].map(fixture).join(",");
    let Played { report, out, messages } = play(&["-n", "test", "-f", &files, "-o", "json"]);
    assert_eq!(report.verdict, Promoted, "{out}");
    assert_eq!(
        messages,
        "note: the release of podinfo.test is made up: image ghcr.io/stefanprodan/podinfo:6.0.0 becomes \
         ghcr.io/stefanprodan/podinfo:6.0.1\n"
    );
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&document["kind"], &document["exitCode"]), (&"SimulationReport".into(), &0.into()));
    let canary = &document["canaries"][0];
    assert_eq!(canary["requests"]["total"]["failed"], 0);
    assert!(canary["requests"]["canary"]["requests"].as_u64().unwrap() > 500, "{canary:#}");
    let timeline = canary["timeline"].as_array().unwrap();
    let weights: Vec<_> = timeline
        .iter()
        .filter(|row| row["message"].as_str().unwrap().starts_with("Advance"))
        .map(|row| row["weight"].as_i64().unwrap())
        .collect();
    assert_eq!(weights, [10, 20, 30]);
    let checked = timeline.iter().find(|row| row["checks"].is_array()).unwrap();
    assert_eq!(checked["checks"][0]["metric"], "request-success-rate");
    assert_eq!((&checked["checks"][0]["value"], &checked["checks"][0]["min"]), (&100.0.into(), &99.0.into()));
    assert_eq!(checked["checks"][1]["metric"], "latency");
    assert!(checked["sample"]["requests"].as_u64().unwrap() > 100, "{checked:#}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let report = |more: &[&str]| play_example("api-errors", &[&["-o", "json"], more].concat()).out;
    assert_eq!(report(&["--seed", "5"]), report(&["--seed", "5"]));
    assert_ne!(report(&["--seed", "5"]), report(&["--seed", "6"]));
}

#[test]
fn a_rollback_says_why() {
    let Played { report, out, .. } = play_example("errors", &[]);
    let reasons = &report.canaries[0].reasons;
    assert_eq!(reasons[0], "Canary analysis failed, Deployment scaled to zero.");
    assert!(reasons[1].starts_with("Halt podinfo.test advancement success rate 9"), "{reasons:?}");
    assert!(reasons[1].ends_with("% < 99% (3 times, this is the last one)"), "{reasons:?}");
    assert!(out.contains("request-success-rate 95") && out.contains("(min 99)"), "{out}");
    assert!(out.contains("ROLLED BACK podinfo.test: ghcr.io/stefanprodan/podinfo:6.0.1, after"), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours");
}

#[test]
fn a_timeline_tells_what_people_do() {
    let Played { out, .. } = play_example("suspended", &[]);
    assert!(
        out.contains("* A user suspends Canary podinfo") && out.contains("* A user resumes Canary podinfo"),
        "{out}"
    );
}

/// A file in a directory that lives as long as the test.
pub(crate) fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Plays a scenario with the application of the examples.
pub(crate) fn play_scenario(text: &str) -> Played {
    let directory = tempfile::tempdir().unwrap();
    let scenario = written(&directory, "s.yaml", text);
    let application = root().join("docs/scenarios/app").display().to_string();
    play(&["-f", &application, "--scenario", &scenario])
}

pub(crate) const CANARY: &str = "\
apiVersion: flagger.app/v1beta1
kind: Canary
metadata:
  name: shop
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: shop}
  service: {port: 80, targetPort: http}
  analysis:
    interval: 10s
    threshold: 2
    stepWeight: 50
    metrics:
      - {name: orders, templateRef: {name: orders}, thresholdRange: {min: 1}}
    alerts:
      - {name: team, severity: info, providerRef: {name: team}}
";

#[test]
fn what_is_missing_is_made_up_and_alerts_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", CANARY);
    let Played { report, out, messages } = play(&["-f", &file]);
    assert_eq!(report.verdict, Promoted, "{out}\n{messages}");
    for object in ["Deployment", "HorizontalPodAutoscaler", "MetricTemplate", "AlertProvider"] {
        assert!(messages.contains(&format!("note: {object} default/")), "{object}: {messages}");
    }
    assert!(out.contains("alert: New revision detected, progressing canary analysis."), "{out}");
}

#[test]
fn templates_of_other_backends_need_values() {
    let directory = tempfile::tempdir().unwrap();
    let template = "---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {name: orders}\nspec:\n  provider:\n    \
                    type: datadog\n    address: https://api.datadoghq.com\n    secretRef: {name: datadog}\n  query: avg:orders{*}\n";
    let file = written(&directory, "canary.yaml", &format!("{CANARY}{template}"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.verdict, NotUnderstood);
    let expected = "canary.yaml:23:5: MetricTemplate default/orders: metric provider \"datadog\" is not supported yet; \
                    supported: prometheus; a scenario can give its values: metrics.orders";
    assert!(messages.contains(expected), "{messages}");

    let scenario =
        written(&directory, "scenario.yaml", "metrics: {orders: {value: 5, changes: [{from: 15s, value: 0.5}]}}\n");
    let Played { report, out, .. } = play(&["-f", &file, "--scenario", &scenario]);
    assert_eq!(report.verdict, RolledBack, "{out}");
    assert!(out.contains("orders 0.50 (min 1)"), "{out}");
}

/// The canary with a template of Prometheus that asks this.
fn with_query(query: &str) -> String {
    format!(
        "{CANARY}---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {{name: orders}}\nspec:\n  provider: \
         {{type: prometheus, address: 'http://mine:9090'}}\n  query: {query}\n"
    )
}

/// No verdict on what cannot be judged.
#[test]
fn queries_that_cannot_be_answered_are_refused_before_anything_is_played() {
    let directory = tempfile::tempdir().unwrap();
    for (query, expected) in [
        ("sum(rate(orders_total[1m]))", "it asks for orders_total, which the simulation does not have"),
        ("sum(kube_x) or vector(0)", "it asks for kube_x, which the simulation does not have"),
        ("deriv(up[5m])", "function deriv is not supported by the simulation's Prometheus"),
        ("predict_linear(up[5m], 60)", "function predict_linear is not supported by the simulation's Prometheus"),
        ("sum(rate(up[{{ interval }}])", "1:17: parse error: unclosed left parenthesis"),
    ] {
        let file = written(&directory, "canary.yaml", &with_query(query));
        let Played { report, out, messages } = play(&["-f", &file]);
        assert_eq!((report.exit_code, out.as_str()), (2, ""), "{query}");
        let expected = format!(
            "canary.yaml:23:3: MetricTemplate default/orders: spec.query: {expected}; a scenario can give values: metrics.orders"
        );
        assert!(messages.contains(&expected), "{query}: {messages}");
        let scenario = written(&directory, "s.yaml", "metrics: {orders: {value: 5}}\n");
        let Played { report, messages, .. } = play(&["-f", &file, "--scenario", &scenario]);
        assert_eq!(report.verdict, Promoted, "{query}: {messages}");
    }
}

#[test]
fn inline_queries_that_cannot_be_answered_are_refused_too() {
    let directory = tempfile::tempdir().unwrap();
    let inline = "{name: growth, query: 'deriv(up[5m])', thresholdRange: {min: 1}}";
    let canary = CANARY.replace("{name: orders, templateRef: {name: orders}, thresholdRange: {min: 1}}", inline);
    let file = written(&directory, "canary.yaml", &canary);
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.exit_code, 2);
    let expected = "Canary default/shop: spec.analysis.metrics[0].query: function deriv is not supported by the simulation's \
                    Prometheus; a scenario can give values: metrics.growth";
    assert!(messages.contains(expected), "{messages}");
    let skipped = written(&directory, "skipped.yaml", &canary.replace("spec:\n", "spec:\n  skipAnalysis: true\n"));
    let Played { report, messages, .. } = play(&["-f", &skipped]);
    assert_eq!(report.verdict, Promoted, "who skips the analysis asks nothing: {messages}");
}

#[test]
fn a_query_that_an_action_brings_gives_no_verdict_either() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", &with_query("vector(5)"));
    let actions =
        "actions: [{action: Patch, kind: MetricTemplate, name: orders, patch: {spec: {query: 'deriv(up[5m])'}}}]\n";
    let scenario = written(&directory, "s.yaml", actions);
    let Played { report, messages, .. } = play(&["-f", &file, "--scenario", &scenario]);
    assert_eq!(report.exit_code, 2, "{messages}");
    let expected = "no verdict: the query deriv(up[5m]) came up on the way, and function deriv is not supported";
    assert!(messages.contains(expected), "{messages}");
}

#[test]
fn metrics_of_a_service_without_users_are_known_all_the_same() {
    let Played { messages, .. } = play_example("no-users", &[]);
    assert!(!messages.contains("does not have"), "{messages}");
}

#[test]
fn requests_add_up() {
    for example in ["healthy", "errors", "slow", "newer-release"] {
        let Played { out, .. } = play_example(example, &["-o", "json"]);
        let report: Value = serde_json::from_str(&out).unwrap();
        let requests = &report["canaries"][0]["requests"];
        for field in ["requests", "failed"] {
            let of = |who: &str| requests[who][field].as_u64().unwrap();
            let parts = of("primary") + of("canary") + of("unanswered");
            assert_eq!(of("total"), parts, "{example}: {requests}");
        }
    }
}

#[test]
fn a_suspended_canary_is_called_suspended() {
    let Played { report, .. } = play_example("suspended-before", &[]);
    assert_eq!(
        report.canaries[0].reasons,
        ["the canary is suspended (spec.suspend): nothing is released", "skipping canary run as object is suspended"]
    );
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", &CANARY.replace("spec:\n", "spec:\n  suspend: true\n"));
    let Played { report, .. } = play(&["-f", &file]);
    assert_eq!(report.canaries[0].reasons[0], "the canary is suspended (spec.suspend): nothing is released");
}

#[test]
fn two_canaries_of_one_target_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let twin = CANARY.replace("name: shop\nspec", "name: twin\nspec");
    let file = written(&directory, "both.yaml", &format!("{CANARY}---\n{twin}"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.exit_code, 2);
    let expected = "Canary default/twin: spec.targetRef: Deployment/shop is the target of canary shop, too, and only the older one is run";
    assert!(messages.contains(expected), "{messages}");
}

#[test]
fn a_frozen_release_is_no_rollback() {
    let directory = tempfile::tempdir().unwrap();
    let folder = root().join("docs/systems/birdwatch");
    let service = folder.join("service.yaml").display().to_string();
    let rolls_back = std::fs::read_to_string(folder.join("aleph.yaml")).unwrap();
    let freezes = written(&directory, "frozen.yaml", &rolls_back.replace("rollback", "freeze"));
    let scenario = written(&directory, "bad.yaml", "versions: {new: {errorRate: 0.3}}\n");
    let Played { report, out, messages } =
        play(&["-f", &freezes, "-f", &service, "-n", "test", "--scenario", &scenario]);
    assert_eq!((report.verdict, report.exit_code), (Verdict::Frozen, 1), "{out}\n{messages}");
    assert!(out.contains("FROZEN aleph.test: example.com/aleph:v04, after"), "{out}");
    let rolls_back = written(&directory, "aleph.yaml", &rolls_back);
    let Played { report, out, .. } = play(&["-f", &rolls_back, "-f", &service, "-n", "test", "--scenario", &scenario]);
    assert_eq!(report.verdict, RolledBack, "{out}");
}

#[test]
fn two_canaries_of_one_service_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let other = CANARY.replace("shop", "till").replace("service: {port", "service: {name: shop, port");
    let file = written(&directory, "both.yaml", &format!("{CANARY}---\n{other}"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.exit_code, 2);
    let expected = "Canary default/till: spec.service.name: Service/shop is the service of canary shop, too";
    assert!(messages.contains(expected), "{messages}");
}

#[test]
fn several_canaries_end_as_the_worst_does() {
    let directory = tempfile::tempdir().unwrap();
    let canary = |name: &str| CANARY.replace("shop", name);
    let file = written(&directory, "both.yaml", &format!("{}---\n{}", canary("shop"), canary("till")));
    let scenario = written(&directory, "s.yaml", "releases:\n  - {canary: shop}\n  - {canary: till, at: 30s}\n");
    let Played { report, out, .. } = play(&["-f", &file, "--scenario", &scenario]);
    assert_eq!(report.verdict, Promoted, "{out}");
    assert_eq!(report.canaries.len(), 2);

    let scenario = written(&directory, "t.yaml", "releases:\n  - {canary: shop}\n");
    let Played { report, out, .. } = play(&["-f", &file, "--scenario", &scenario]);
    let verdicts: Vec<Verdict> = report.canaries.iter().map(|canary| canary.verdict).collect();
    assert_eq!(verdicts, [Promoted, NotReleased], "{out}");
    assert_eq!((report.verdict, report.exit_code), (NotReleased, 1));
}

#[test]
fn everything_that_is_not_understood_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", &CANARY.replace("stepWeight: 50", "stepWeight: 2.5"));
    let other =
        written(&directory, "other.yaml", &CANARY.replace("name: shop\nspec:", "name: other\nspec:\n  provider: gloo"));
    let scenario = written(&directory, "scenario.yaml", "versions: {new: {errorRates: 1}}\n");
    let Played { report, out, messages } = play(&["-f", &file, "-f", &other, "--scenario", &scenario, "-o", "json"]);
    assert_eq!(report.exit_code, 2);
    assert_eq!(report.problems.len(), 3, "{messages}");
    assert!(messages.contains("scenario.yaml:1:18: versions.new.errorRates: unknown field"), "{messages}");
    assert!(
        messages.contains("canary.yaml:12:5: Canary default/shop: spec.analysis.stepWeight: invalid value 2.5"),
        "{messages}"
    );
    assert!(messages.contains("other.yaml:6:3: Canary default/other: spec.provider: provider \"gloo\""), "{messages}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["verdict"], "NotUnderstood");
    assert_eq!(document["problems"].as_array().unwrap().len(), 3);
}

#[test]
fn scenarios_that_speak_of_nothing_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", CANARY);
    let scenario = written(
        &directory,
        "s.yaml",
        "versions:\n  2.0.0: {}\nwebhooks:\n  gate: {status: 200}\nmetrics:\n  order: {value: 1}\nload:\n  - {service: shopp, requestsPerSecond: 1}\n",
    );
    let Played { messages, .. } = play(&["-f", &file, "--scenario", &scenario]);
    for expected in [
        "s.yaml:2:3: versions.2.0.0: unknown version \"2.0.0\"",
        "s.yaml:4:3: webhooks.gate: no canary has a webhook",
        "s.yaml:6:3: metrics.order: unknown metric \"order\"; did you mean \"orders\"?",
        "s.yaml:8:6: load[0].service: unknown service \"shopp\"; did you mean \"shop\"?",
    ] {
        assert!(messages.contains(expected), "{expected}\n{messages}");
    }
    let scenario = written(&directory, "t.yaml", "releases: [{canary: shup}]\n");
    let Played { messages, .. } = play(&["-f", &file, "--scenario", &scenario]);
    assert!(messages.contains("releases[0].canary: there is no canary \"shup\"; did you mean \"shop\"?"), "{messages}");
}

#[test]
fn objects_that_cannot_be_served_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = "---\napiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: shop}\n";
    let typo = "---\napiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: shop}\n";
    let old = "---\napiVersion: autoscaling/v2beta2\nkind: HorizontalPodAutoscaler\nmetadata: {name: shop}\n";
    let file = written(&directory, "a.yaml", &format!("{CANARY}{certificate}"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.verdict, Promoted, "{messages}");
    assert!(messages.contains("Certificate default/shop: ignored: the simulated cluster has no kind"), "{messages}");
    let file = written(&directory, "b.yaml", &format!("{CANARY}{typo}{old}"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.exit_code, 2);
    assert!(
        messages.contains(
            "b.yaml:19:1: Deploymnet default/shop: there is no kind Deploymnet in apps/v1; did you mean Deployment?"
        ),
        "{messages}"
    );
    assert!(
        messages.contains(
            "apiVersion autoscaling/v2beta2 is not served for HorizontalPodAutoscaler; served: autoscaling/v"
        ),
        "{messages}"
    );
}

#[test]
fn a_misspelt_field_is_no_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "a.yaml", &CANARY.replace("stepWeight: 50", "stepWeight: 50\n    maxWieght: 50"));
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.exit_code, 2, "{messages}");
    let expected =
        "a.yaml:13:5: Canary default/shop: unknown field \"spec.analysis.maxWieght\"; did you mean \"maxWeight\"?\n";
    assert!(messages.contains(expected), "{messages}");
}

#[test]
fn the_process_exits_with_the_verdict() {
    let exit = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aviary"))
            .arg("simulate")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A process that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, _) = exit(&["-f", "-"], CANARY);
    assert_eq!(code, Some(0), "{out}");
    let errors = root().join("docs/scenarios/errors.yaml").display().to_string();
    let application = root().join("docs/scenarios/app").display().to_string();
    assert_eq!(exit(&["-f", &application, "--scenario", &errors], "").0, Some(1));
    let (code, out, messages) = exit(&["-f", "-"], "apiVersion: v1\nkind: [\n");
    assert_eq!((code, out.as_str()), (Some(2), ""), "{messages}");
    assert!(messages.starts_with("error: standard input:2:"), "{messages}");
    assert_eq!(
        exit(&["-f", "nowhere.yaml"], ""),
        (Some(2), String::new(), "error: nowhere.yaml: no such file or directory\n".to_owned())
    );
    assert_eq!(exit(&[], "").0, Some(2), "-f is required");
}
