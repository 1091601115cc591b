//! The install commands of the guides, word for word, as `guides/*.sh` have them: what they say must have its effect. On a real control
//! plane they are run in tests/real/install.rs.

use std::path::PathBuf;

use super::*;

pub const ALL: [&str; 4] = ["steerer", "flagger-0.1", "birdwatch", "crossover"];

/// The commands of a guide, with these charts in the place of theirs. `verb` is what Helm is to do instead of installing.
pub fn command(helm: &Path, guide: &str, verb: &str) -> Command {
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/charts/guides");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([guides.clone()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail"]).arg(guides.join(format!("{guide}.sh")));
    command.env("PATH", path).env("AVIARY_HELM", helm).env("AVIARY_HELM_VERB", verb);
    command
}

fn render(helm: &Helm, guide: &str) -> Vec<Value> {
    let output = in_a_home_of_its_own(&mut command(helm.path(), guide, "template --kube-version 1.36.3"));
    assert!(output.status.success(), "{guide}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_guide_is_here() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/charts/guides")).unwrap();
    let paths = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some());
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().trim_end_matches(".sh").to_owned();
    let mut found: Vec<String> = paths.map(name).collect();
    found.sort();
    let mut expected = ALL;
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn steerers_and_flagger_0_1s_commands_set_server_and_interval() {
    let Some(helm) = Helm::find() else { return };
    let objects = render(&helm, "steerer");
    let deployment = find(&objects, "Deployment", "steerer");
    assert_eq!(deployment["metadata"]["namespace"], "istio-system");
    let run = flags(deployment);
    assert_eq!(run.metrics_server, "http://prometheus.istio-system:9090");
    assert_eq!(run.control_loop_interval.as_secs(), 60);

    let objects = render(&helm, "flagger-0.1");
    let deployment = find(&objects, "Deployment", "flagger");
    let run = flags(deployment);
    assert_eq!(run.metrics_server, "http://prometheus.istio-system:9090");
    assert_eq!(run.control_loop_interval.as_secs(), 10);
    assert_eq!(container(deployment)["image"], "stefanprodan/flagger:0.1.0-beta.6");
}

#[test]
fn birdwatchs_command_sets_token_and_server() {
    let Some(helm) = Helm::find() else { return };
    let objects = render(&helm, "birdwatch");
    let deployment = find(&objects, "Deployment", "birdwatch");
    assert_eq!(flags(deployment).metrics_server, "http://prometheus.istio-system:9090");
    let secret = find(&objects, "Secret", "birdwatch");
    let slack = json!({"SLACK_TOKEN": "xoxb-1", "SLACK_URL": "https://slack.com/api/chat.postMessage"});
    assert_eq!(secret["stringData"], slack);
    assert_eq!(container(deployment)["envFrom"], json!([{"secretRef": {"name": "birdwatch"}}]));
    assert!(!deployment.to_string().contains("xoxb-1"), "{deployment}");
}

#[test]
fn the_crossover_guides_commands_render_what_it_goes_on_to_use() {
    let Some(helm) = Helm::find() else { return };
    let objects = render(&helm, "crossover");
    assert_eq!(find(&objects, "Service", "envoy")["spec"]["ports"][0]["port"], 10000);
    envoy_has_the_upstream(&objects);
    // docs/systems/crossover.md names this file in the place of the guide's here-document.
    let by_file = helm.objects("envoy", "envoy", &["--namespace=test", "-f", "tests/charts/crossover-guide.yaml"]);
    assert!(by_file.iter().all(|object| objects.contains(object)));

    let run = flags(find(&objects, "Deployment", "flagger"));
    assert_eq!(
        (run.mesh_provider.as_str(), run.metrics_server.as_str()),
        ("smi:crossover", "http://flagger-prometheus:9090")
    );
    let service = find(&objects, "Service", "flagger-prometheus");
    assert_eq!(
        (&service["spec"]["ports"][0]["port"], &service["metadata"]["namespace"]),
        (&json!(9090), &json!("test"))
    );
    let prometheus = find(&objects, "Deployment", "flagger-prometheus");
    assert_eq!(service["spec"]["selector"], prometheus["spec"]["template"]["metadata"]["labels"]);

    // `http://flagger-loadtester.test/` in its webhooks; `svc/flagger-grafana 3000:80` and `/d/flagger-envoy/` for people.
    assert_eq!(find(&objects, "Service", "flagger-loadtester")["spec"]["ports"][0]["port"], 80);
    assert_eq!(find(&objects, "Service", "flagger-grafana")["spec"]["ports"][0]["port"], 80);
    let provisioning = find(&objects, "ConfigMap", "flagger-grafana-provisioning");
    let sources: Value = serde_saphyr::from_str(provisioning["data"]["datasources.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(sources["datasources"][0]["url"], "http://flagger-prometheus:9090");
    let dashboards = find(&objects, "ConfigMap", "flagger-grafana-dashboards")["data"].as_object().unwrap().clone();
    let uids: Vec<Value> = dashboards
        .values()
        .map(|text| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap()["uid"].clone())
        .collect();
    assert_eq!(uids, ["aviary", "flagger-envoy", "flagger-istio"]);
}

fn envoy_has_the_upstream(objects: &[Value]) {
    let routes = find(objects, "ConfigMap", "envoy-xds")["data"]["rds.yaml"].as_str().unwrap();
    let routes: Value = serde_saphyr::from_str(routes).unwrap();
    let host = &routes["resources"][0]["virtual_hosts"][0];
    assert_eq!((&host["name"], &host["domains"]), (&json!("podinfo"), &json!(["*"])));
    assert_eq!(
        host["routes"][0]["route"]["weighted_clusters"]["clusters"],
        json!([{"name": "podinfo-canary", "weight": 0}, {"name": "podinfo-primary", "weight": 100}])
    );
    let envoy: Value =
        serde_saphyr::from_str(find(objects, "ConfigMap", "envoy")["data"]["envoy.yaml"].as_str().unwrap()).unwrap();
    assert_eq!(envoy["static_resources"]["clusters"].as_array().unwrap().len(), 2);
    let pod = &find(objects, "Deployment", "envoy")["spec"]["template"]["spec"];
    let is_for_init = |container: &Value| {
        let given = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap().into());
        let line: Vec<OsString> = std::iter::once("aviary".into()).chain(given).collect();
        let environment = |name: &str| (name == "POD_NAMESPACE").then(|| "test".to_owned());
        let Ok(Cli { command: Verb::Crossover(args) }) = Cli::parse_from(line, environment) else {
            panic!("{container}")
        };
        assert_eq!(args.pairs(), [("envoy-xds".to_owned(), vec!["podinfo".to_owned()])]);
        assert_eq!((args.trafficsplit_api_version.as_str(), args.namespace.as_str()), ("v1alpha1", "test"));
        args.onetime
    };
    assert!(is_for_init(&pod["initContainers"][0]) && !is_for_init(&pod["containers"][1]));
}
