//! `aviary simulate` with input that kubectl takes, and with input that nobody can mean.

use std::fmt::Write as _;

use aviary::simulate::Verdict::{NotUnderstood, Promoted, RolledBack};
use serde_json::Value;

use crate::simulate::{CANARY, Played, fixture, play, play_scenario, root, written};

/// Lines of problems, without the directory.
fn errors(messages: &str) -> Vec<String> {
    let errors = messages.lines().filter_map(|line| line.strip_prefix("error: "));
    errors.map(|line| line.rsplit_once("/s.yaml:").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn actions_on_what_does_not_exist_are_refused() {
    let Played { report, out, messages } = play_scenario(
        "\
actions:
  - {action: Delete, kind: Service, name: podinfo-canry}
  - {action: Delete, kind: Servce, name: podinfo}
  - {action: Patch, name: podinfo, patch: {spec: {analysis: {thresold: 1}}}}
  - {action: Patch, name: podinfo, patch: {spec: {analysis: {threshold: many}}}}
  - {action: Delete, kind: Deployment, apiVersion: app/v1, name: podinfo}
  - {action: Delete, kind: ConfigMap, namespace: other, name: podinfo}
",
    );
    assert_eq!((report.exit_code, out.as_str()), (2, ""));
    assert_eq!(
        errors(&messages),
        [
            "2:37: actions[0].name: there is no Service \"podinfo-canry\" in namespace \"test\"; did you mean \"podinfo-canary\"?",
            "3:22: actions[1].kind: unknown kind \"Servce\"; did you mean \"Service\"?",
            "4:36: actions[2].patch: unknown field \"spec.analysis.thresold\"",
            "5:36: actions[3].patch: spec.analysis.threshold: Invalid value: \"string\": spec.analysis.threshold in body must be of \
             type number: \"string\"",
            "6:40: actions[4].apiVersion: apiVersion app/v1 is not served for Deployment; served: apps/v1",
            "7:57: actions[5].name: there is no ConfigMap \"podinfo\" in namespace \"other\", nor any other",
        ]
    );
    let Played { messages, .. } = play_scenario("actions: [{action: Suspend, name: podinf}]\n");
    assert_eq!(errors(&messages), ["1:29: actions[0].name: there is no canary \"podinf\"; did you mean \"podinfo\"?"]);
}

/// A Canary of Service `web`; users judge by the pods that its copy for the canary selects.
const SERVICE_CANARY: &str = "apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web}
spec:
  targetRef: {apiVersion: v1, kind: Service, name: web}
  service: {port: 80}
  analysis:
    interval: 10s
    threshold: 2
    stepWeight: 25
    maxWeight: 50
    metrics:
      - name: errors
        interval: 1m
        thresholdRange: {max: 1}
        query: sum(rate(istio_requests_total{reporter=\"source\",destination_service_name=\"web-canary\",response_code=~\"5.*\"}[1m])) or vector(0)
";

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web, version: v1}, ports: [{port: 80, targetPort: 8080}]}
";

fn web(version: &str, image: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{version}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web, version: {version}}}}}
  template:
    metadata: {{labels: {{app: web, version: {version}}}}}
    spec: {{containers: [{{name: web, image: \"{image}\"}}]}}
"
    )
}

#[test]
fn a_service_is_released_by_selecting_the_pods_of_the_other_version() {
    let directory = tempfile::tempdir().unwrap();
    let all = [SERVICE_CANARY, SERVICE, &web("v1", "web:1.0"), &web("v2", "web:2.0")].concat();
    let file = written(&directory, "web.yaml", &all);
    let Played { report, out, messages } = play(&["-f", &file]);
    assert_eq!(report.verdict, Promoted, "{out}\n{messages}");
    assert!(out.contains("$ kubectl set selector service/web app=web,version=v2"), "{out}");
    assert!(out.contains("PROMOTED web.default: web:2.0, after"), "{out}");
    assert!(messages.contains("the pods of Deployment web-v2 instead of those of web-v1"), "{messages}");

    let scenario = written(&directory, "bad.yaml", "versions: {new: {errorRate: 0.5}}\n");
    let Played { report, out, messages } = play(&["-f", &file, "--scenario", &scenario]);
    assert_eq!(report.verdict, RolledBack, "{out}\n{messages}");
}

#[test]
fn the_next_version_behind_a_service_is_made_up_where_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let all = [SERVICE_CANARY, SERVICE, &web("v1", "web:1.0")].concat();
    let Played { report, out, messages } = play(&["-f", &written(&directory, "web.yaml", &all)]);
    assert_eq!(report.verdict, Promoted, "{out}\n{messages}");
    assert!(messages.contains("Deployment default/web-v1-next is not in the input and was made up"), "{messages}");
    assert!(out.contains("PROMOTED web.default: web:1.1, after"), "{out}");
}

#[test]
fn a_service_without_pods_or_with_an_image_to_release_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let told = |text: &str, more: &[&str]| {
        let file = written(&directory, "web.yaml", text);
        let Played { report, messages, .. } = play(&[["-f", file.as_str()].as_slice(), more].concat());
        assert_eq!(report.verdict, NotUnderstood, "{messages}");
        messages
    };
    assert!(told(SERVICE_CANARY, &[]).contains("Service web is not in the input; add it"));
    let without_pods = [SERVICE_CANARY, SERVICE].concat();
    assert!(told(&without_pods, &[]).contains("the pods that Service web selects (app=web,version=v1); add it"));
    let all = [without_pods.as_str(), &web("v1", "web:1.0")].concat();
    let scenario = written(&directory, "s.yaml", "releases: [{tag: '3.0'}]\n");
    let messages = told(&all, &["--scenario", &scenario]);
    assert!(messages.contains("releases[0].tag: Service web is released by selecting other pods"), "{messages}");
}

/// The operator would leave such routes alone, and a simulation in which nothing happens would say nothing of why.
#[test]
fn routes_that_two_weights_cannot_describe_are_refused_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let told = |guide: &str, rule: &str, twice: &str| {
        let text = std::fs::read_to_string(root().join("docs/systems").join(guide)).unwrap();
        assert!(text.contains(rule), "{text}");
        let file = written(&directory, "s.yaml", &text.replacen(rule, &format!("{twice}{rule}"), 1));
        let Played { report, messages, .. } = play(&["-f", &file]);
        assert_eq!((report.verdict, report.exit_code), (NotUnderstood, 2), "{messages}");
        errors(&messages)
    };
    let primary =
        "    - destination:\n        host: podinfo\n        port:\n          number: 9898\n      weight: 100\n";
    let other = "    - destination:\n        host: podinfo\n        subset: v1\n      weight: 0\n";
    let of_steerer = told("steerer.yaml", primary, other);
    let expected = "VirtualService test/podinfo: has 2 destinations for podinfo in spec.http[0].route (weights 0, 100), and a side \
                    has one weight; leave one of them";
    assert_eq!(of_steerer.len(), 1, "{of_steerer:?}");
    assert!(of_steerer[0].ends_with(expected) && of_steerer[0].starts_with(char::is_numeric), "{of_steerer:?}");
}

const IMPLAUSIBLE: &str = "\
releases:
  - tag: ''
  - image: x y z
  - container: podinfod
versions:
  new: {latency: {median: 900ms, p99: 60ms}}
load:
  - {requestsPerSecond: -5}
  - {requestsPerSecond: 1e12}
api:
  - {fault: Error, from: -5s}
  - {fault: Restart, from: 10000h, probability: 0.5}
prometheus:
  - {fault: Down, delay: 5s}
timeLimit: 0s
";

#[test]
fn values_that_nobody_can_mean_are_refused() {
    let Played { report, messages, .. } = play_scenario(&format!("{IMPLAUSIBLE}seed: 1\nseed: 2\n"));
    assert_eq!(report.exit_code, 2);
    assert_eq!(errors(&messages), ["17:1: the key \"seed\" is there twice"]);
    let Played { messages, .. } = play_scenario(IMPLAUSIBLE);
    assert_eq!(
        errors(&messages),
        [
            "2:10: releases[0].tag: no image can have the tag \"\": expected letters, digits, '.', '_' and '-', such as 6.0.1",
            "3:12: releases[1].image: \"x y z\" names no image: a name has small letters, digits, '.', '_' and '-'; for example \
             ghcr.io/stefanprodan/podinfo:6.0.1",
            "4:16: releases[2].container: give the container's image or tag, too",
            "6:27: versions.new.latency.median: the median 900ms is above the 99th percentile 60ms; it can be as high at most",
            "8:25: load[0].requestsPerSecond: expected a number from 0 to 10000000, not -5",
            "9:25: load[1].requestsPerSecond: expected a number from 0 to 10000000, not 1000000000000",
            "11:26: api[0].from: expected a duration that is not negative, not \"-5s\"",
            "12:28: api[1].from: expected a duration of at most 720h0m0s (a month), not \"10000h\"",
            "12:49: api[1].probability: it does nothing with Restart; it belongs to Error, Conflict, TooManyRequests, Delay, \
             LoseResponse",
            "14:26: prometheus[0].delay: it does nothing with Down; it belongs to Slow",
            "15:12: timeLimit: expected a duration that is longer than nothing, not \"0s\"",
        ]
    );
}

#[test]
fn what_names_nothing_or_comes_too_late_is_refused_at_once() {
    let Played { messages, .. } = play_scenario(
        "\
releases:
  - {tag: 6.0.0}
api:
  - {fault: Delay, from: 7h}
load:
  - {service: shop, namespace: test, requestsPerSecond: 1}
  - {namespace: nowhere, requestsPerSecond: 1}
metrics:
  latency: {namespace: x, value: 1}
",
    );
    assert_eq!(
        errors(&messages),
        [
            "2:6: releases[0].tag: Deployment podinfo runs ghcr.io/stefanprodan/podinfo:6.0.0 already, so nothing would be \
             released; give another tag",
            "4:20: api[0].from: 7h0m0s is after the end: waiting ends at 6h0m0s; begin earlier, or raise timeLimit",
            "6:6: load[0].service: unknown service \"shop\"; known: podinfo, podinfo-primary, podinfo-canary",
            "7:6: load[1].namespace: unknown namespace \"nowhere\"; known: test",
            "9:13: metrics.latency.namespace: unknown namespace \"x\"; known: test, test",
        ]
    );
    let Played { messages, .. } = play_scenario("api: [{fault: Error, resource: deploymints}]\n");
    assert_eq!(
        errors(&messages),
        ["1:22: api[0].resource: unknown resource \"deploymints\"; did you mean \"deployments\"?"]
    );
    let Played { report, messages, .. } = play_scenario("api: [{fault: Delay, from: 1h}]\n");
    assert_eq!(report.verdict, Promoted);
    assert!(
        messages.contains("note: api[0].from: 1h0m0s (line 1 of the scenario) came to nothing: everything was over"),
        "{messages}"
    );
}

#[test]
fn flaggers_definitions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", CANARY);
    let Played { report, messages, .. } = play(&["-f", &fixture("crd.yaml"), "-f", &file]);
    assert_eq!(report.verdict, Promoted, "{messages}");
    assert!(messages.contains("CustomResourceDefinition canaries.flagger.app: it exists already"), "{messages}");
}

#[test]
fn every_file_and_document_that_cannot_be_read_is_told_and_the_others_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    written(&directory, "a.yaml", "a: [\n---\nkind: Service\n---\nb: 'x\n");
    written(&directory, "b.yaml", "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: a}\n");
    written(&directory, "c.yaml", &CANARY.replace("stepWeight: 50", "stepWeight: 2.5").replace("port: 80", "prt: 80"));
    std::fs::write(directory.path().join("d.yaml"), b"a: \xff\n").unwrap();
    let path = directory.path().display().to_string();
    let Played { report, messages, .. } = play(&["-f", &path, "-f", "nowhere.yaml"]);
    assert_eq!(report.verdict, NotUnderstood);
    let told: Vec<&str> = messages.lines().map(|line| line.rsplit_once(&path).map_or(line, |(_, rest)| rest)).collect();
    for (start, part) in [
        ("/d.yaml: line 1 is not text in UTF-8", ""),
        ("error: nowhere.yaml: no such file or directory", ""),
        ("/a.yaml:1:4: ", "a bracket or brace is not closed"),
        ("/a.yaml:5:4: ", "the quote that opens on line 5 is not closed"),
        ("/a.yaml:3:1: ", "not an object of Kubernetes"),
        ("/b.yaml:2:1: ", "there is no kind Deploymnet in apps/v1; did you mean Deployment?"),
        ("/c.yaml:12:5: ", "spec.analysis.stepWeight"),
        ("/c.yaml:", "spec.service.prt"),
    ] {
        let is_told = told.iter().any(|line| line.starts_with(start) && line.contains(part));
        assert!(is_told, "{start} … {part}\n{}", told.join("\n"));
    }
    assert!(!messages.contains("there is no Canary"), "{messages}");
}

#[test]
fn an_unknown_kind_is_told_without_a_canary_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "a.yaml", "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: a}\n");
    let Played { messages, .. } = play(&["-f", &file]);
    assert!(messages.contains("error: there is no Canary in the input\n"), "{messages}");
    assert!(messages.contains("Deploymnet default/a: there is no kind Deploymnet in apps/v1"), "{messages}");
}

#[test]
fn alternatives_of_a_schema_are_told_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let matches = "iterations: 2\n    match: [{headers: {x: {exact: a, prefix: b}}}]";
    let file = written(&directory, "a.yaml", &CANARY.replace("stepWeight: 50", matches));
    let Played { messages, .. } = play(&["-f", &file]);
    let expected = "a.yaml:13:24: Canary default/shop: spec.analysis.match[0].headers.x: only one of these may be given: exact, prefix";
    assert!(messages.contains(expected) && !messages.contains("nil>"), "{messages}");
}

#[test]
fn only_the_fields_that_conflict_or_are_missing_are_named() {
    let directory = tempfile::tempdir().unwrap();
    for (change, expected) in [
        (
            ("stepWeight: 50", "stepWeight: 50\n    iterations: 2"),
            vec!["9:3: Canary default/shop: spec.analysis: only one of these may be given: iterations, stepWeight"],
        ),
        (("    interval: 10s\n", ""), vec!["9:3: Canary default/shop: spec.analysis.interval: Required value"]),
        (("    threshold: 2\n", ""), vec!["9:3: Canary default/shop: spec.analysis.threshold: Required value"]),
        (
            ("threshold: 2", "thresold: 2"),
            vec!["11:5: Canary default/shop: unknown field \"spec.analysis.thresold\"; did you mean \"threshold\"?"],
        ),
    ] {
        let file = written(&directory, "a.yaml", &CANARY.replace(change.0, change.1));
        let Played { messages, .. } = play(&["-f", &file]);
        let found = messages.lines().filter_map(|line| line.strip_prefix("error: "));
        let found: Vec<&str> = found.filter_map(|line| line.rsplit_once("/a.yaml:").map(|(_, rest)| rest)).collect();
        assert_eq!(found, expected, "{change:?}: {messages}");
    }
    let provider =
        "---\napiVersion: flagger.app/v1beta1\nkind: AlertProvider\nmetadata: {name: team}\nspec: {type: slack}\n";
    let file = written(&directory, "a.yaml", &format!("{CANARY}{provider}"));
    let Played { messages, .. } = play(&["-f", &file]);
    assert!(
        messages.contains("AlertProvider default/team: spec: one of these is missing: address, secretRef\n"),
        "{messages}"
    );
}

#[test]
fn names_that_are_empty_or_read_twice_are_told_in_words() {
    let Played { messages, .. } = play(&["-f", ""]);
    assert!(
        messages.contains("error: -f '': an empty name; give a file, a directory, or - for standard input\n"),
        "{messages}"
    );
    let Played { report, messages, .. } = play(&["-f", "-", "--scenario", "-"]);
    assert_eq!(report.exit_code, 2);
    assert_eq!(
        messages,
        "error: -f - and --scenario=-: standard input can be read once only; give one of them as a file\n"
    );
}

#[test]
fn releases_of_canaries_that_do_not_exist_name_canary_and_field() {
    let Played { messages, .. } = play_scenario(
        "releases:\n  - {canary: other}\n  - {canary: podinfo, namespace: prod}\n  - {namespace: prod}\n",
    );
    assert_eq!(
        errors(&messages),
        [
            "2:6: releases[0].canary: there is no canary \"other\"; there are: podinfo.test",
            "3:6: releases[1].canary: podinfo: there is no such canary in namespace \"prod\"; there are: podinfo.test",
            "4:6: releases[2].namespace: there is no such canary in namespace \"prod\"; there are: podinfo.test",
        ]
    );
}

#[test]
fn the_same_objects_are_read_however_they_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let object: Value = serde_saphyr::from_str(CANARY).unwrap();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [object]});
    let utf16: Vec<u8> = format!("\u{feff}{CANARY}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let second = |name: &str| object.to_string().replace("\"shop\"", &format!("{name:?}"));
    let twins = format!("{}\n{}", second("shop"), second("till"));
    for (name, bytes, canaries) in [
        ("json", serde_json::to_vec_pretty(&object).unwrap(), 1),
        ("tabs", serde_json::to_string_pretty(&object).unwrap().replace("  ", "\t").into_bytes(), 1),
        ("list", list.to_string().into_bytes(), 1),
        ("bom", format!("\u{feff}{CANARY}").into_bytes(), 1),
        ("crlf", CANARY.replace('\n', "\r\n").into_bytes(), 1),
        ("utf16", utf16, 1),
        ("documents", format!("# nothing\n---\n---\n{CANARY}...\n--- # end\n").into_bytes(), 1),
        (
            "anchors",
            CANARY
                .replace("name: shop\nspec", "name: &n shop\nspec")
                .replace("Deployment, name: shop", "Deployment, name: *n")
                .into_bytes(),
            1,
        ),
        ("objects", twins.into_bytes(), 2),
    ] {
        let file = directory.path().join(format!("{name}.txt"));
        std::fs::write(&file, bytes).unwrap();
        let Played { report, messages, .. } = play(&["-f", &file.display().to_string()]);
        assert_eq!((report.verdict, report.canaries.len()), (Promoted, canaries), "{name}: {messages}");
    }
}

#[test]
fn thousands_of_objects_are_read_in_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let mut text = CANARY.to_owned();
    for index in 0..5_000 {
        writeln!(text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{index}}}\ndata: {{a: b}}").unwrap();
    }
    let file = written(&directory, "many.yaml", &text);
    let started = std::time::Instant::now();
    let Played { report, messages, .. } = play(&["-f", &file]);
    assert_eq!(report.verdict, Promoted, "{messages}");
    // Without optimisation on a busy machine; comparing every object with every other took minutes.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn autoscalers_follow_the_users() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(&directory, "canary.yaml", CANARY);
    let peak = |more: &str| {
        let text =
            format!("{more}load: [{{requestsPerSecond: 1000, from: 5s}}]\nversions: {{new: {{startupDelay: 2m}}}}\n");
        let scenario = written(&directory, "s.yaml", &text);
        let Played { report, out, messages } = play(&["-f", &file, "--scenario", &scenario]);
        assert_eq!(report.verdict, Promoted, "{messages}");
        out
    };
    // The autoscaler that is made up has two to four pods. The canary has to have as many as the primary.
    assert!(peak("").contains("of 4 "), "{}", peak(""));
    assert!(!peak("requestsPerPod: 0\n").contains("of 4 "));
}

/// One that is made up goes by CPU, as KEDA's may.
#[test]
fn keda_scales_what_is_simulated() {
    let directory = tempfile::tempdir().unwrap();
    let keda = CANARY.replace(
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: shop}",
        "{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: shop}",
    );
    let file = written(&directory, "canary.yaml", &keda);
    let scenario = written(
        &directory,
        "s.yaml",
        "load: [{requestsPerSecond: 1000, from: 5s}]\nversions: {new: {startupDelay: 2m}}\n",
    );
    let Played { report, out, messages } = play(&["-f", &file, "--scenario", &scenario]);
    assert_eq!(report.verdict, Promoted, "{messages}");
    assert!(messages.contains("note: ScaledObject default/shop is not in the input and was made up"), "{messages}");
    assert!(out.contains("of 4 "), "{out}");
}
