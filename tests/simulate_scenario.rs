//! `aviary simulate`: what a scenario says is what is played, and what is played is what is judged.

use aviary::simulate::Verdict::{self, NotReleased, Promoted};
use serde_json::Value;

use crate::simulate::{CANARY, Played, play, play_scenario, root, written};

/// Plays a canary, and a scenario, and reads the report as a pipeline does.
fn report(canary: &str, scenario: &str) -> (Played, Value) {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", canary);
    let scenario = written(&directory, "s.yaml", scenario);
    let played = play(&["-f", &file, "--scenario", &scenario, "-o", "json"]);
    let document = serde_json::from_str(&played.out).unwrap();
    (played, document)
}

#[test]
fn a_second_release_that_a_suspended_canary_ignores_is_not_released() {
    let Played { report, out, .. } = play_scenario(
        "releases: [{tag: 6.0.1}, {at: 20m, tag: 6.0.2}]\nactions: [{at: 19m, action: Suspend, name: podinfo}]\n",
    );
    assert_eq!((report.verdict, report.exit_code), (NotReleased, 1), "{out}");
    let reasons = &report.canaries[0].reasons;
    assert_eq!(reasons[0], "the canary is suspended (spec.suspend): nothing is released", "{reasons:?}");
    assert!(out.contains("NOT RELEASED podinfo.test: ghcr.io/stefanprodan/podinfo:6.0.2\n"), "{out}");
    assert!(out.contains("  at 0s: ghcr.io/stefanprodan/podinfo:6.0.1 promoted\n"), "{out}");
    assert!(out.contains("  at 20m0s: ghcr.io/stefanprodan/podinfo:6.0.2 not released\n"), "{out}");
}

#[test]
fn a_second_release_of_a_config_that_nobody_tracks_is_not_released() {
    let directory = tempfile::tempdir().unwrap();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unused, namespace: test}\ndata: {a: b}\n";
    let config = written(&directory, "config.yaml", config);
    let scenario =
        written(&directory, "s.yaml", "releases: [{tag: 6.0.1}, {at: 20m, config: {name: unused, data: {a: c}}}]\n");
    let application = root().join("docs/scenarios/app").display().to_string();
    let Played { report, out, .. } = play(&["-f", &application, "-f", &config, "--scenario", &scenario]);
    assert_eq!((report.verdict, report.exit_code), (NotReleased, 1), "{out}");
    assert_eq!(report.canaries[0].reasons, ["the operator has not taken notice of the release"]);
}

/// Every way in which the operator takes notice of a second release.
#[test]
fn a_second_release_that_is_noticed_is_judged_by_its_end() {
    let color = |at: &str| {
        format!("releases: [{{tag: 6.0.1}}, {{at: {at}, config: {{name: podinfo-config, data: {{color: green}}}}}}]\n")
    };
    let gate = "webhooks: {gate: {status: 403}}\ntimeLimit: 1h\n";
    for (scenario, verdict) in [
        // While the first one is analysed, and afterwards.
        ("releases: [{tag: 6.0.1}, {at: 20s, tag: 6.0.2}]\n".to_owned(), Promoted),
        ("releases: [{tag: 6.0.1}, {at: 20m, tag: 6.0.2}]\n".to_owned(), Promoted),
        // A configuration that the canary tracks.
        (color("20s"), Promoted),
        (color("20m"), Promoted),
        // One that comes while the first is held up.
        (format!("releases: [{{tag: 6.0.1}}, {{at: 10m, tag: 6.0.2}}]\n{gate}"), Verdict::Waiting),
        // Suspended at first.
        (
            "releases: [{tag: 6.0.1}, {at: 20m, tag: 6.0.2}]\nactions: [{at: 19m, action: Suspend, name: podinfo}, {at: 30m, action: \
             Resume, name: podinfo}]\n"
                .to_owned(),
            Promoted,
        ),
        // Back to what was there before, from a version that fails.
        ("releases: [{tag: 6.0.1}, {at: 15s, tag: 6.0.0}]\nversions: {6.0.1: {errorRate: 1}}\n".to_owned(), Promoted),
    ] {
        let Played { report, out, .. } = play_scenario(&scenario);
        assert_eq!(report.verdict, verdict, "{scenario}\n{out}");
    }
}

#[test]
fn a_release_that_is_taken_back_while_it_waits_is_noticed() {
    let gate = "    webhooks:\n      - {name: ask, type: confirm-rollout, url: 'http://approvals.example.com/'}\n";
    // The image that is made up has the tag 1.0.0.
    let scenario = "releases: [{tag: 2.0.0}, {at: 1m, tag: 1.0.0}]\nwebhooks: {ask: {status: 403}}\n";
    let (played, document) = report(&format!("{CANARY}{gate}"), scenario);
    assert_eq!(played.report.verdict, Promoted, "{document:#}");
}

fn load_test(name: &str, command: &str) -> String {
    format!("      - {{name: {name}, url: 'http://flagger-loadtester.test/', metadata: {{cmd: \"{command}\"}}}}\n")
}

/// Requests of users to the service, with these load tests, and besides them nobody.
fn requests_of(load_tests: &[&str]) -> u64 {
    let hooks: String =
        load_tests.iter().enumerate().map(|(index, command)| load_test(&format!("load-{index}"), command)).collect();
    let (played, document) = report(&format!("{CANARY}    webhooks:\n{hooks}"), "load: [{requestsPerSecond: 0}]\n");
    assert_eq!(played.report.verdict, Promoted, "{}", played.messages);
    document["canaries"][0]["requests"]["total"]["requests"].as_u64().unwrap()
}

#[test]
fn load_tests_of_one_service_add_up() {
    let get = "hey -z 10m -q 10 -c 2 http://shop.default:80/";
    let post = "hey -z 10m -q 5 -c 2 -m POST -d 'test' http://shop.default:80/echo";
    let (gets, posts) = (requests_of(&[get]), requests_of(&[post]));
    assert!(gets > 100 && posts > 50, "{gets}, {posts}");
    assert_eq!(requests_of(&[get, post]), gets + posts);
    // The end of the short one is not the end of the long one.
    let short = "hey -z 1s -q 10 -c 2 http://shop.default:80/";
    assert_eq!(requests_of(&[short, post]), requests_of(&[short]) + posts);
}

#[test]
fn a_load_test_leaves_the_users_of_an_ab_test_where_they_are() {
    let insiders = "iterations: 2\n    match: [{headers: {x-group: {exact: insider}}}]";
    let canary = CANARY.replace("stepWeight: 50", insiders);
    let requests = |canary: &str| {
        let (played, document) = report(canary, "{}\n");
        assert_eq!(played.report.verdict, Promoted, "{}", played.messages);
        document["canaries"][0]["requests"]["total"]["requests"].as_u64().unwrap()
    };
    let hook = load_test("load", "wrk -t1 -c1 -d1s -H 'X-Group: insider' http://shop.default/");
    let (with, without) = (requests(&format!("{canary}    webhooks:\n{hook}")), requests(&canary));
    assert!(with > without, "{with} requests with the load test, {without} without it");
}

/// Flagger's load tester tells commands apart by canary, too.
#[test]
fn two_canaries_may_run_the_same_load_test() {
    let hook = load_test("load", "hey -z 10m -q 10 -c 2 http://shop.default/");
    let of = |name: &str| format!("{}    webhooks:\n{hook}", CANARY.replace("shop", name));
    let both = format!("{}---\n{}", of("shop"), of("till").replace("name: load,", "name: other,"));
    let requests = |canary: &str| {
        let (played, document) = report(canary, "load: [{requestsPerSecond: 0}]\n");
        assert_eq!(played.report.verdict, Promoted, "{}", played.messages);
        document["canaries"][0]["requests"]["total"]["requests"].as_u64().unwrap()
    };
    assert_eq!(requests(&both), 2 * requests(&of("shop")));
}

#[test]
fn a_restart_without_a_time_comes_with_the_release_and_ends() {
    for scenario in ["api: [{fault: Restart}]\n", "api: [{fault: Restart, until: 10s}]\n"] {
        let (played, document) = report(CANARY, scenario);
        assert_eq!(played.report.verdict, Promoted, "{scenario}: {document:#}");
        assert!(document["api"]["faults"].as_u64().unwrap() > 0, "{scenario}: {document:#}");
    }
}

#[test]
fn an_action_is_told_to_the_canary_of_its_namespace() {
    let of = |namespace: &str| {
        CANARY.replace("  name: shop\nspec", &format!("  name: shop\n  namespace: {namespace}\nspec"))
    };
    let both = format!("{}---\n{}", of("a"), of("b"));
    let scenario = "\
actions:
  - {at: 1s, action: Suspend, name: shop, namespace: b}
  - {at: 2s, action: Resume, name: shop, namespace: b}
  - {at: 3s, action: Patch, kind: Deployment, name: shop-primary, namespace: b, patch: {metadata: {labels: {a: b}}}}
  - {at: 4s, action: Patch, name: shop, patch: {metadata: {labels: {a: b}}}}
";
    let (_, document) = report(&both, scenario);
    let told = |index: usize| -> Vec<&str> {
        let rows = document["canaries"][index]["timeline"].as_array().unwrap();
        let actions = rows.iter().filter(|row| row["type"] == "Action");
        actions.map(|row| row["message"].as_str().unwrap().trim_start_matches("A user ")).collect()
    };
    assert_eq!(document["canaries"][1]["namespace"], "b");
    assert_eq!(told(0), ["changes Canary shop: {\"metadata\":{\"labels\":{\"a\":\"b\"}}}"]);
    let changes = "changes Deployment shop-primary: {\"metadata\":{\"labels\":{\"a\":\"b\"}}}";
    assert_eq!(told(1), ["suspends Canary shop", "resumes Canary shop", changes]);
}

/// As long as a real Prometheus would, in a simulation of any length.
#[test]
fn queries_see_everything_since_the_start_of_the_cluster() {
    let requests = "sum(increase(istio_requests_total{reporter=\"source\",destination_workload=\"shop-primary\"}[3h]))";
    let template = format!(
        "---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {{name: orders}}\nspec:\n  provider: {{type: prometheus, \
         address: 'http://prometheus:9090'}}\n  query: '{requests}'\n"
    );
    // A hundred requests a second for an hour, and a tenth of them for the rest.
    let canary = CANARY.replace("thresholdRange: {min: 1}", "thresholdRange: {min: 350000}");
    let (played, document) = report(
        &format!("{canary}{template}"),
        "load: [{requestsPerSecond: 100, until: 1h}, {requestsPerSecond: 10, from: 1h}]\nreleases: [{at: 2h30m}]\n",
    );
    assert_eq!(played.report.verdict, Promoted, "{document:#}");
}

/// An inline query in another namespace is not answered by values that are for this one.
#[test]
fn values_for_one_namespace_answer_the_inline_queries_of_no_other() {
    let inline = "{name: growth, query: 'deriv(up[5m])', thresholdRange: {min: 1}}";
    let canary = CANARY.replace("{name: orders, templateRef: {name: orders}, thresholdRange: {min: 1}}", inline);
    let of = |namespace: &str| {
        canary.replace("  name: shop\nspec", &format!("  name: shop\n  namespace: {namespace}\nspec"))
    };
    let both = format!("{}---\n{}", of("a"), of("b"));
    let (played, _) = report(&both, "metrics: {growth: {namespace: a, value: 5}}\n");
    let expected = "Canary b/shop: spec.analysis.metrics[0].query: function deriv is not supported";
    assert!(played.messages.contains(expected), "{}", played.messages);
    assert!(!played.messages.contains("Canary a/shop"), "{}", played.messages);
}
