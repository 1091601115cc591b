//! The guide of Flagger with Crossover, on a real Envoy: TrafficSplit → `aviary crossover` → file → Envoy → Prometheus.
//!
//! The manifests are those of the documentation. `AVIARY_REAL_FULL=1` has their own intervals, which takes a quarter of an hour; the
//! sample has short ones, and few steps.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aviary_loadtest::users::{self, Users};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Aviary, Inside, api, canary_is_gone, create_through, get, in_bench, is_full_set, set_image, tools};
use crate::flagger_e2e::real::load_tester;
use crate::support::process::{eventually, eventually_within};

/// What the users of `envoy.test:10000` reach.
const ENVOY: &str = "http://10.99.0.1:10000/";
const ADMIN: &str = "http://127.0.0.1:15001";
const APPLICATION: &str = include_str!("../../docs/systems/crossover/podinfo.yaml");
const GUIDE: &str = include_str!("../../docs/systems/crossover/repaired.yaml");
/// For a release of ten intervals of a minute, and half as many again.
const PATIENCE: Duration = Duration::from_secs(900);
const SPLITS: &str = include_str!("../../sim/src/apiserver/definition/trafficsplits.split.smi-spec.io.yaml");

#[test]
fn the_crossover_guide_promotes_a_good_version_and_rolls_a_bad_one_back() {
    let name = "real::crossover::the_crossover_guide_promotes_a_good_version_and_rolls_a_bad_one_back";
    in_bench(name, async |bench: Inside| {
        let client = bench.client("admin").await;
        let _network = bench.network().await;
        create_through(client.clone(), serde_saphyr::from_str(SPLITS).unwrap()).await;
        let definitions = api(client.clone(), "apiextensions.k8s.io", "v1", "CustomResourceDefinition", None);
        eventually("TrafficSplits are served", async || {
            let definition = get(&definitions, "trafficsplits.split.smi-spec.io").await.unwrap();
            let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
        })
        .await;
        create_through(client.clone(), template()).await;

        // As in the chart: the init container, then Envoy with the sidecar. There is no TrafficSplit yet.
        let init = crossover(&bench).arg("--onetime").status().unwrap();
        assert!(init.success(), "{init}");
        let _sidecar = Aviary { process: crossover(&bench).arg("--watch").spawn().unwrap() };
        let _envoy = Aviary { process: envoy(&bench) };
        let audit = bench.audit();
        let _aviary = bench.start_aviary(&[]);

        load_tester(&bench).await;
        for object in guide() {
            create_through(client.clone(), object).await;
        }
        let canaries = api(client.clone(), "flagger.app", "v1beta1", "Canary", Some("test"));
        let phase = async || get(&canaries, "podinfo").await.unwrap()["status"]["phase"].clone();
        let ends = async |end: &str| {
            let has_ended = async || {
                let phase = phase().await;
                phase == "Succeeded" || phase == "Failed"
            };
            eventually_within(PATIENCE, "the release ends", has_ended).await;
            bench.show("-n test describe canary/podinfo");
            assert_eq!(phase().await, end);
        };
        eventually("initialized", async || phase().await == "Initialized").await;
        eventually("Envoy's answers are those of pods", async || {
            let answer = reqwest::Client::new().get(ENVOY).header("host", "podinfo.test").send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        canary_is_gone(&client).await;
        let users =
            Users::start(users::Options::new(ENVOY.parse().unwrap(), 100.0).unwrap().host("podinfo.test")).unwrap();

        set_image(&client, "podinfo", "stefanprodan/podinfo:3.1.5").await;
        let half = async || weight(&bench, "podinfo-canary") == Some(50);
        eventually_within(PATIENCE, "half of the users are at the canary", half).await;
        eventually("Envoy has the file in place", async || version_in_envoy().await == version(&bench)).await;
        let (from, to) = (users.elapsed(), users.elapsed() + Duration::from_secs(5));
        ends("Succeeded").await;
        canary_is_gone(&client).await;
        let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("test"));
        let primary = get(&deployments, "podinfo-primary").await.unwrap();
        assert_eq!(primary["spec"]["template"]["spec"]["containers"][0]["image"], "stefanprodan/podinfo:3.1.5");
        let report = users.snapshot();
        println!("good release: {:?}", report.versions());
        assert_eq!(report.failures(), 0, "{:#?}", report.first_failures());
        // Of 500 requests: four standard deviations.
        let share = report.share("3.1.5", from..to).unwrap();
        assert!((share - 0.5).abs() < 0.09, "{share} of the requests went to the new version");

        // What nobody can use changes nothing, and ends nothing.
        let splits = api(client.clone(), "split.smi-spec.io", "v1alpha1", "TrafficSplit", Some("test"));
        let before = version(&bench);
        assert_eq!(weight(&bench, "podinfo-primary"), Some(100));
        let foreign = json!({"metadata": {"annotations": {"touched": "by somebody"}}});
        splits.patch("podinfo", &PatchParams::default(), &Patch::Merge(foreign)).await.unwrap();

        set_image(&client, "podinfo", "stefanprodan/podinfo:3.1.2-err50").await;
        eventually("the bad release begins", async || phase().await == "Progressing").await;
        ends("Failed").await;
        eventually("Envoy sends all to the primary", async || weight(&bench, "podinfo-primary") == Some(100)).await;
        assert_eq!(version(&bench), before, "the same content has the same version");
        canary_is_gone(&client).await;
        let report = users.stop().await;
        assert!(report.failures() > 0, "the bad version has answered");
        for version in report.versions() {
            let is_bad = version.version.as_deref().is_some_and(|version| version.starts_with("3.1.2"));
            assert!(is_bad || version.failures == 0, "{version:?}: {:#?}", report.first_failures());
            println!("{version:?}");
        }
        println!("{}", std::fs::read_to_string(bench.path("crossover.log")).unwrap());
        let calls = audit.calls();
        for verb in ["list", "watch", "create", "patch"] {
            let is_used = calls
                .iter()
                .any(|call| call.account == "operator" && call.resource == "trafficsplits" && call.verb == verb);
            assert!(is_used, "aviary rbac grants {verb} on trafficsplits, which no call needed");
        }
        let generated = get(&api(client.clone(), "", "v1", "ConfigMap", Some("test")), "envoy-xds-gen").await.unwrap();
        let in_place = std::fs::read_to_string(bench.path("runtime/current/rds.yaml")).unwrap();
        assert_eq!(generated["data"]["rds.yaml"], in_place);
    });
}

fn crossover(bench: &Inside) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(bench.path("crossover.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aviary"));
    command.arg("crossover").arg("--kubeconfig").arg(bench.kubeconfig("admin")).arg("--output-dir");
    command.arg(bench.path("runtime")).env("POD_NAMESPACE", "test").env_remove("RUST_LOG").stdin(Stdio::null());
    command.args(["--configmap=envoy-xds", "--trafficsplit=podinfo", "--trafficsplit-api-version=v1alpha1"]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command
}

fn envoy(bench: &Inside) -> Child {
    let config = include_str!("config/crossover-envoy.yaml");
    let config = config.replace("DIRECTORY", &bench.path("runtime").display().to_string());
    let path = bench.path("crossover-envoy.yaml");
    std::fs::write(&path, config).unwrap();
    let log = std::fs::File::create(bench.path("crossover-envoy.log")).unwrap();
    let mut command = Command::new(tools().unwrap().join("envoy"));
    command.arg("--config-path").arg(path).args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// What the chart writes for the guide's values.
fn template() -> Value {
    let routes = json!({
        "version_info": "0",
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "podinfo",
            "virtual_hosts": [{
                "name": "podinfo", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {
                    // Only requests that no pod has seen are sent again.
                    "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
                    "weighted_clusters": {"clusters": [
                        {"name": "podinfo-canary", "weight": 0}, {"name": "podinfo-primary", "weight": 100},
                    ]},
                }}],
            }],
        }],
    });
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "envoy-xds"},
        "data": {"rds.yaml": serde_saphyr::to_string(&routes).unwrap()},
    })
}

/// The guide's application, templates and Canary, with its two queries repaired.
fn guide() -> Vec<Value> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(APPLICATION).unwrap();
    objects.extend(serde_saphyr::from_multiple::<Value>(GUIDE).unwrap());
    if is_full_set() {
        return objects;
    }
    for object in &mut objects {
        match object["kind"].as_str().unwrap() {
            "Deployment" => object["spec"]["minReadySeconds"] = json!(0),
            "Canary" => {
                let analysis = &mut object["spec"]["analysis"];
                for (field, value) in [("interval", json!("10s")), ("threshold", json!(2)), ("stepWeight", json!(25))] {
                    analysis[field] = value;
                }
                for metric in analysis["metrics"].as_array_mut().unwrap() {
                    metric["interval"] = json!("10s");
                }
            }
            _ => {}
        }
    }
    objects
}

fn routes(bench: &Inside) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(bench.path("runtime/current/rds.yaml")).unwrap()).unwrap()
}

/// The weight of a cluster in the file in place.
fn weight(bench: &Inside, cluster: &str) -> Option<u64> {
    let routes = routes(bench);
    let clusters = &routes["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"];
    clusters.as_array()?.iter().find(|one| one["name"] == cluster)?["weight"].as_u64()
}

fn version(bench: &Inside) -> String {
    routes(bench)["version_info"].as_str().unwrap().to_owned()
}

/// As Envoy names the routes that it follows.
async fn version_in_envoy() -> String {
    let text =
        reqwest::get(format!("{ADMIN}/stats?filter=rds.podinfo.version_text")).await.unwrap().text().await.unwrap();
    text.split('"').nth(1).unwrap_or_default().to_owned()
}
