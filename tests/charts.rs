//! The charts, rendered by Helm. Where there is no Helm these tests say so and pass, unless `AVIARY_REQUIRE_REAL=1`; what the charts
//! take from the code is compared without it, by the tests of the library.

mod envoy;
pub mod guides;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};

use aviary::args::{Cli, Command as Verb, RunArgs};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::real::tools;
use crate::sandbox::Sandbox;
use crate::support::process::{Operator, PATIENCE, eventually};
use crate::support::{api, canary, create_through, deployment};

const CHARTS: [&str; 4] = ["aviary", "loadtester", "grafana", "envoy"];

/// Helm, with what the repository has and nothing of the user's.
pub struct Helm(std::path::PathBuf);

impl Helm {
    pub fn find() -> Option<Helm> {
        tools().map(|directory| Helm(directory.join("helm")))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn run(&self, arguments: &[&str]) -> Output {
        in_a_home_of_its_own(Command::new(&self.0).args(arguments))
    }

    pub fn template(&self, chart: &str, release: &str, arguments: &[&str]) -> Result<String, String> {
        let chart = format!("charts/{chart}");
        let output = self.run(&[&["template", release, &chart, "--kube-version", "1.36.3"], arguments].concat());
        let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        if output.status.success() { Ok(text) } else { Err(errors) }
    }

    fn objects(&self, chart: &str, release: &str, arguments: &[&str]) -> Vec<Value> {
        let text = self.template(chart, release, arguments).unwrap_or_else(|errors| panic!("{arguments:?}: {errors}"));
        documents(&text)
    }
}

/// What Helm knows of servers and repositories is in its home.
fn in_a_home_of_its_own(command: &mut Command) -> Output {
    let home = tempfile::tempdir().unwrap();
    command.env("HOME", home.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env_remove("KUBECONFIG").stdin(std::process::Stdio::null());
    command.output().unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let object = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    object.unwrap_or_else(|| panic!("no {kind} {name} in {}", names(objects).join(", ")))
}

fn names(objects: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
    };
    objects.iter().map(name).collect()
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

/// What the operator makes of the arguments of a Deployment.
fn flags(deployment: &Value) -> RunArgs {
    let arguments = container(deployment)["args"].as_array().unwrap();
    let line = std::iter::once("aviary").chain(arguments.iter().map(|argument| argument.as_str().unwrap()));
    match Cli::parse_from(line.map(OsString::from), |_| None) {
        Ok(Cli { command: Verb::Run(run) }) => *run,
        Ok(_) => panic!("{arguments:?} is not `run`"),
        Err(error) => panic!("{arguments:?}: {error}"),
    }
}

fn aviary(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_aviary")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lint_finds_nothing() {
    let Some(helm) = Helm::find() else { return };
    for chart in CHARTS {
        let output = helm.run(&["lint", "--strict", &format!("charts/{chart}")]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{chart}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("[WARNING]"), "{said}");
    }
}

#[test]
fn flaggers_own_values_are_taken() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.objects("aviary", "flagger", &["-f", "tests/charts/flagger-values.yaml"]);
    let deployment = find(&objects, "Deployment", "flagger");
    assert_eq!(container(deployment)["args"], json!(["run", "--log-level=info"]));
    let affinity = deployment["spec"]["template"]["spec"]["affinity"].to_string();
    assert!(affinity.contains(r#""app.kubernetes.io/name":"aviary""#), "{affinity}");
    let objects = helm.objects("loadtester", "flagger-loadtester", &["-f", "tests/charts/loadtester-values.yaml"]);
    assert_eq!(
        container(find(&objects, "Deployment", "flagger-loadtester"))["args"],
        json!(["serve", "--port=8080", "--log-level=info", "--timeout=1h"])
    );
}

#[test]
fn values_become_flags() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.objects(
        "aviary",
        "aviary",
        &[
            "--namespace=ops",
            "--set=logLevel=warn,meshProvider=istio,namespace=a\\,b,selectorLabels=app,configTracking.enabled=false",
            "--set=includeLabelPrefix=x,threadiness=3,clusterName=c,noCrossNamespaceRefs=true,slack.user=u",
            "--set=kubeconfigQPS=7,kubeconfigBurst=8,leaderElection.enabled=true,leaderElection.replicaCount=2",
            "--set=leaderElection.leaseDuration=20s,metricsErrors=fail,metricsOutageLimit=1m,trafficSettleTime=0s",
            "--set=controlplane.kubeconfig.secretName=mesh",
        ],
    );
    let deployment = find(&objects, "Deployment", "aviary");
    let run = flags(deployment);
    assert_eq!(
        (run.log_level.as_str(), run.mesh_provider.as_str(), run.namespaces()),
        ("warn", "istio", vec!["a".into(), "b".into()])
    );
    assert!(!run.enable_config_tracking && run.no_cross_namespace_refs && run.enable_leader_election);
    assert_eq!(
        (run.selector_labels.as_str(), run.include_label_prefix.as_str(), run.cluster_name.as_str()),
        ("app", "x", "c")
    );
    assert_eq!((run.kubeconfig_qps, run.kubeconfig_burst, run.threadiness, run.slack_user.as_str()), (7.0, 8, 3, "u"));
    assert_eq!((run.leader_election_namespace.as_str(), run.election_timing().lease.as_secs()), ("ops", 20));
    assert_eq!((run.metrics_outage_limit.as_secs(), run.traffic_settle_time.as_secs()), (60, 0));
    // The file is where its volume is mounted.
    let mount = &container(deployment)["volumeMounts"][0];
    assert_eq!(run.kubeconfig_service_mesh, format!("{}/kubeconfig", mount["mountPath"].as_str().unwrap()));
    assert_eq!(deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"], "mesh");
    assert_eq!((&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]), (&json!(2), &Value::Null));
}

/// Numbers of a values file are floating-point numbers to Helm, and a million is written 1e+06 by what writes texts.
#[test]
fn numbers_stay_as_they_were_written() {
    let Some(helm) = Helm::find() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        &file,
        "{kubeconfigBurst: 1000000, kubeconfigQPS: 0.5, image: {tag: 20260101}, podAnnotations: {port: 8080, scrape: true}}",
    )
    .unwrap();
    let objects = helm.objects("aviary", "aviary", &["-f", file.path().to_str().unwrap(), "--set=podLabels.cost=7"]);
    let deployment = find(&objects, "Deployment", "aviary");
    let run = flags(deployment);
    assert_eq!((run.kubeconfig_burst, run.kubeconfig_qps), (1_000_000, 0.5));
    assert_eq!(container(deployment)["image"], "aviary:20260101");
    // Labels and annotations are texts, or the API server refuses the Deployment.
    let pod = &deployment["spec"]["template"]["metadata"];
    assert_eq!((&pod["annotations"]["port"], &pod["annotations"]["scrape"]), (&json!("8080"), &json!("true")));
    assert_eq!(pod["labels"]["cost"], "7");
    for chart in ["loadtester", "grafana", "envoy"] {
        std::fs::write(&file, "{image: {tag: 20260101}, podLabels: {app: mine, cost: 7}}").unwrap();
        let objects = helm.objects(chart, chart, &["-f", file.path().to_str().unwrap()]);
        let template = &find(&objects, "Deployment", chart)["spec"]["template"];
        assert_eq!(
            (&template["metadata"]["labels"]["app"], &template["metadata"]["labels"]["cost"]),
            (&json!("mine"), &json!("7"))
        );
        assert!(template["spec"]["containers"][0]["image"].as_str().unwrap().ends_with(":20260101"), "{template}");
    }
}

/// What the tests have run is what the chart installs.
#[test]
fn the_charts_envoy_is_the_benchs() {
    let Some(helm) = Helm::find() else { return };
    let versions = include_str!("real/versions");
    let tested = versions.lines().find_map(|line| line.strip_prefix("ENVOY=")).unwrap();
    let objects = helm.objects("envoy", "envoy", &[]);
    assert_eq!(container(find(&objects, "Deployment", "envoy"))["image"], format!("envoyproxy/envoy:v{tested}"));
}

/// Without what only one of the two has: where it came from, and how it was made.
fn plain(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|label, _| label.ends_with("/name") || label.ends_with("/instance"));
        if let Some(annotations) = object["spec"]["template"]["metadata"]["annotations"].as_object_mut() {
            annotations.remove("checksum/secrets");
        }
    }
    objects.retain(|object| object["kind"] != "Namespace");
    objects.sort_by_key(|object| names(std::slice::from_ref(object)));
    objects
}

/// One source for rights, flags, probes and the rest would be hard to read in two languages; so there are two, and they are equal.
#[test]
fn the_chart_and_the_plain_manifests_are_the_same_objects() {
    let Some(helm) = Helm::find() else { return };
    let version = env!("CARGO_PKG_VERSION");
    let (elected, elected_here) = (
        ["--set=leaderElection.enabled=true,leaderElection.replicaCount=2,podDisruptionBudget.enabled=true"],
        ["--replicas=2", "--enable-leader-election"],
    );
    let cases: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&elected, &elected_here),
        (
            &[elected[0], "--set=namespace=team-a\\,team-b", "--set=image.repository=r/a", "--set=image.tag=1"],
            &[&elected_here[..], &["--namespace=team-a,team-b"]].concat(),
        ),
        (
            &["--set=slack.token=t,slack.channel=c,eventWebhook=http://e.example.com/"],
            &["--slack-token=t", "--slack-channel=c", "--event-webhook=http://e.example.com/"],
        ),
        (
            &["--set=metricsServer=http://p:1,meshProvider=istio,metricsErrors=fail"],
            &["--mesh-provider=istio", "--metrics-server=http://p:1", "--metrics-errors=fail"],
        ),
    ];
    for (values, flags) in cases {
        let rendered = helm.objects("aviary", "aviary", &[&["--namespace=aviary-system"], values].concat());
        let image = if values.iter().any(|value| value.contains("image")) {
            "--image=r/a:1".to_owned()
        } else {
            format!("--image=aviary:{version}")
        };
        let printed = documents(&aviary(&[&["manifests", "--no-crds", &image], flags].concat()));
        let (mut rendered, mut printed) = (plain(rendered), plain(printed));
        // The order of flags is of no account, and what is the default for a flag need not be said.
        for objects in [&mut rendered, &mut printed] {
            let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").unwrap();
            let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array_mut().unwrap();
            arguments.sort_by_key(ToString::to_string);
            arguments.retain(|argument| argument != "--mesh-provider=istio");
        }
        assert_eq!(names(&rendered), names(&printed), "{values:?}");
        for (rendered, printed) in rendered.iter().zip(&printed) {
            assert_eq!(rendered, printed, "{values:?}");
        }
    }
}

#[test]
fn rights_are_those_of_aviary_rbac() {
    let Some(helm) = Helm::find() else { return };
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&["--set=rbac.providers={istio}"], &["--mesh-provider=istio"]),
        (
            &["--set=namespace=team-a\\, team-b,leaderElection.enabled=true"],
            &["--namespace=team-a,team-b", "--enable-leader-election"],
        ),
        (
            &["--set=leaderElection.enabled=true,serviceAccount.name=aviary"],
            &["--enable-leader-election", "--leader-election-namespace=aviary-system"],
        ),
    ];
    for (values, flags) in cases {
        let mut rendered = helm.objects("aviary", "aviary", &[&["--namespace=aviary-system"], values].concat());
        rendered.retain(|object| {
            object["kind"] == "ServiceAccount" || object["apiVersion"].as_str().unwrap().starts_with("rbac")
        });
        let strip = |mut objects: Vec<Value>| {
            objects.iter_mut().for_each(|object| drop(object["metadata"].as_object_mut().unwrap().remove("labels")));
            objects.sort_by_key(|object| names(std::slice::from_ref(object)));
            objects
        };
        assert_eq!(strip(rendered), strip(documents(&aviary(&[&["rbac"], flags].concat()))), "{values:?}");
    }
    let none = helm.objects(
        "aviary",
        "aviary",
        &["--set=rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine"],
    );
    assert_eq!(names(&none), ["Deployment default/aviary"]);
    assert_eq!(none[0]["spec"]["template"]["spec"]["serviceAccountName"], "mine");
}

#[test]
fn what_is_wrong_or_not_served_is_refused_by_name() {
    let Some(helm) = Helm::find() else { return };
    for (chart, value, problem) in [
        ("aviary", "meshProvidr=istio", "meshProvidr"),
        (
            "aviary",
            "rbac.pspEnabled=true",
            "rbac.pspEnabled=true: Kubernetes has had no PodSecurityPolicies since 1.25",
        ),
        ("aviary", "rbac.providers={isto}", "/rbac/providers/0"),
        ("aviary", "leaderElection.replicaCount=two", "/leaderElection/replicaCount"),
        (
            "aviary",
            "leaderElection.leaseDuration=15",
            "at '/leaderElection/leaseDuration': got number, want null or string",
        ),
        ("aviary", "controlLoopInterval=soon", "at '/controlLoopInterval': 'soon'"),
        ("aviary", "kubeconfigQPS=many", "at '/kubeconfigQPS': 'many'"),
        ("aviary", "metricsErrors=ignore", "at '/metricsErrors': value must be one of 'hold', 'fail'"),
        ("aviary", "noCrossNamespaceRefs=yes", "at '/noCrossNamespaceRefs'"),
        ("aviary", "image.pullPolicy=always", "at '/image/pullPolicy'"),
        (
            "aviary",
            "podLabels.app\\.kubernetes\\.io/name=x",
            "podLabels.app.kubernetes.io/name: the chart selects its pods",
        ),
        ("aviary", "leaderElection.replicaCount=2", "leaderElection.replicaCount=2: set leaderElection.enabled"),
        ("loadtester", "appmesh.enabled=true", "App Mesh is not served"),
        ("loadtester", "cmd.time=1h", "time"),
        ("loadtester", "meshName=x", "App Mesh is not served"),
        ("loadtester", "rbac.scope=all", "at '/rbac/scope'"),
        ("grafana", "token=x", "token: Weave Cloud is gone"),
        ("grafana", "service.type=Public", "at '/service/type'"),
        (
            "envoy",
            "smi.apiVersions.trafficSplits=v1alpha5",
            "at '/smi/apiVersions/trafficSplits': value must be one of 'v1alpha1'",
        ),
        ("envoy", "upstreams.a.backends.b.weight=100", "at '/upstreams/a/backends/b': missing property 'port'"),
        ("envoy", "upstreams.a.smi.enable=true", "additional properties 'enable' not allowed"),
        (
            "envoy",
            "upstreams.a.backends.b.weight=90,upstreams.a.backends.b.port=80",
            "upstreams.a.backends: the weights sum to 90",
        ),
        (
            "envoy",
            "upstreams.a.backends.b.weight=100,upstreams.a.backends.b.port=80,\
             upstreams.c.backends.d.weight=100,upstreams.c.backends.d.port=80",
            "upstreams.c.domains: * is a domain of upstream a, too",
        ),
    ] {
        let errors = helm.template(chart, "aviary", &["--set", value]).expect_err(value);
        assert!(errors.contains(problem), "{value}: {errors}");
    }
}

#[test]
fn options_render() {
    let Some(helm) = Helm::find() else { return };
    let options = "podMonitor.enabled=true,podMonitor.additionalLabels.a=b,serviceMonitor.enabled=true,\
                   linkerdAuthPolicy.create=true,podDisruptionBudget.enabled=true,existingSecret=chats,env[0].name=A,env[0].value=b";
    let objects = helm.objects("aviary", "canaries", &["--namespace=ops", "--set", options]);
    let deployment = find(&objects, "Deployment", "canaries-aviary");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (kind, selector) in
        [("PodMonitor", "matchLabels"), ("ServiceMonitor", "matchLabels"), ("PodDisruptionBudget", "matchLabels")]
    {
        assert_eq!(&find(&objects, kind, "canaries-aviary")["spec"]["selector"][selector], labels, "{kind}");
    }
    assert_eq!(&find(&objects, "Service", "canaries-aviary")["spec"]["selector"], labels);
    assert_eq!(find(&objects, "PodMonitor", "canaries-aviary")["metadata"]["labels"]["a"], "b");
    assert_eq!(
        find(&objects, "AuthorizationPolicy", "prometheus-admin-canaries-aviary")["metadata"]["namespace"],
        "linkerd-viz"
    );
    assert_eq!(container(deployment)["envFrom"], json!([{"secretRef": {"name": "chats"}}]));
    assert_eq!(container(deployment)["env"], json!([{"name": "A", "value": "b"}]));

    let mut created = helm.objects("aviary", "aviary", &["--skip-crds", "--set=crd.create=true"]);
    created.retain(|object| object["kind"] == "CustomResourceDefinition");
    let mut definitions = documents(&aviary(&["crds"]));
    for objects in [&mut created, &mut definitions] {
        objects.sort_by_key(|object| names(std::slice::from_ref(object)));
    }
    assert_eq!(created, definitions);

    let options = "istio.enabled=true,istio.gateway.enabled=true,istio.tls.enabled=true,rbac.create=true,rbac.scope=cluster,\
                   cmd.namespaceRegexp=team-.*,extraArgs[0]=--x";
    let objects = helm.objects("loadtester", "flagger-loadtester", &["--set", options]);
    assert_eq!(
        find(&objects, "VirtualService", "flagger-loadtester")["spec"]["gateways"],
        json!(["flagger-loadtester", "mesh"])
    );
    let spec = &find(&objects, "Deployment", "flagger-loadtester")["spec"]["template"]["spec"];
    assert_eq!(
        spec["serviceAccountName"],
        find(&objects, "ClusterRoleBinding", "flagger-loadtester")["subjects"][0]["name"]
    );
    assert_eq!(spec["containers"][0]["args"].as_array().unwrap()[4..], ["--namespace-regexp=team-.*", "--x"]);

    let objects = helm.objects("grafana", "grafana", &["--set=password=s3cr3t"]);
    assert_eq!(find(&objects, "Secret", "grafana")["stringData"]["GF_SECURITY_ADMIN_PASSWORD"], "s3cr3t");
    assert!(!find(&objects, "Deployment", "grafana").to_string().contains("ANONYMOUS"));
}

/// Debian's Prometheus knows no Kubernetes; what it would find there is written down.
#[test]
fn the_bundled_prometheus_scrapes_pods_that_ask_for_it() {
    let Some(tools) = tools() else { return };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/aviary/files/prometheus.yml");
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let jobs = config["scrape_configs"].as_array_mut().unwrap();
    for job in jobs.iter_mut() {
        job.as_object_mut().unwrap().remove("kubernetes_sd_configs").unwrap();
    }
    let meta = |name: &str| format!("__meta_kubernetes_{name}");
    jobs[0]["static_configs"] = json!([
        {"targets": ["10.0.0.1:9898"], "labels": {
            meta("pod_annotation_prometheus_io_scrape"): "true",
            meta("pod_annotation_prometheus_io_port"): "9102",
            meta("pod_annotation_prometheus_io_path"): "/stats/prometheus",
            meta("namespace"): "test", meta("pod_name"): "envoy-1", meta("pod_label_app"): "envoy",
        }},
        {"targets": ["10.0.0.2:9898"]},
    ]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("prometheus.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    // It comes with Prometheus, in the same directory.
    let promtool = std::fs::canonicalize(tools.join("prometheus")).unwrap().with_file_name("promtool");
    let run = |arguments: &[&str]| {
        let output = Command::new(&promtool).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let path = path.to_str().unwrap();
    run(&["check", "config", "--syntax-only", path]);
    let found: Value =
        serde_json::from_slice(&run(&["check", "service-discovery", "--timeout=1s", path, "kubernetes-pods"])).unwrap();
    let mut labels: Vec<Value> = found.as_array().unwrap().iter().map(|target| target["labels"].clone()).collect();
    labels.retain(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()));
    assert_eq!(labels.len(), 1, "only the pod that asks for it: {found}");
    for (label, value) in [
        ("__address__", "10.0.0.1:9102"),
        ("__metrics_path__", "/stats/prometheus"),
        ("app", "envoy"),
        ("kubernetes_namespace", "test"),
        ("kubernetes_pod_name", "envoy-1"),
    ] {
        assert_eq!(labels[0][label], value, "{found}");
    }
}

/// Without Helm: `aviary manifests | kubectl apply --server-side -f -`, and then what the Deployment says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_manifests_install_an_operator_in_a_sandbox() {
    let sandbox = Sandbox::start(&["--speed=60", "--namespace=test"]);
    let client = sandbox.client().await;
    for object in documents(&aviary(&["manifests", "--image=aviary:1", "-slack-token=t", "--mesh-provider=istio"])) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let api = api(client.clone(), group, version, &types.kind, object.metadata.namespace.as_deref());
        let name = object.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("kubectl").force(), &Patch::Apply(&object)).await.unwrap();
    }
    let deployments = api(client.clone(), "apps", "v1", "Deployment", Some("aviary-system"));
    eventually("the Deployment is available", async || {
        deployments.get("aviary").await.unwrap().data["status"]["availableReplicas"] == 1
    })
    .await;
    let installed = serde_json::to_value(deployments.get("aviary").await.unwrap()).unwrap();
    let arguments = container(&installed)["args"].as_array().unwrap();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(|argument| argument.as_str().unwrap()).collect();
    let operator = sandbox.operator(&arguments);
    operator.wait_ready().await;
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = container(&installed)[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(operator.get(path).await.unwrap().0, 200, "{path}");
    }
    create_through(client.clone(), deployment("test", "podinfo", "podinfo:6.0.0")).await;
    create_through(client.clone(), canary("test", "podinfo")).await;
    let canaries = api(client, "flagger.app", "v1beta1", "Canary", Some("test"));
    eventually("Initialized", async || canaries.get("podinfo").await.unwrap().data["status"]["phase"] == "Initialized")
        .await;
}

/// `UPDATE_GENERATED=1 cargo test` rewrites them.
#[test]
fn renderings_are_as_checked_in() {
    let Some(helm) = Helm::find() else { return };
    for (chart, release) in [("aviary", "aviary"), ("loadtester", "flagger-loadtester")] {
        let rendered = helm.template(chart, release, &["--namespace=aviary-system"]).unwrap();
        let path = format!("{}/tests/charts/{chart}.yaml", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &rendered).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == rendered, "{path} is out of date: run UPDATE_GENERATED=1 cargo test charts");
    }
}

/// The otomator's install command, up to the message: flags and environment of the chart's Deployment, the binary, a BirdWatch. Only
/// Slack is somewhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slack_hears_of_a_birdwatch_by_the_token_that_the_chart_was_given() {
    let Some(helm) = Helm::find() else { return };
    let sandbox = Sandbox::start(&["--speed=20", "--error-rate=aleph:v04=0.5", "--namespace=test"]);
    let (slack, mut posts) = slack().await;
    let values = format!("slackToken=s3cr3t,slack.url={slack},prometheusUrl={}", sandbox.prometheus());
    let objects = helm.objects("aviary", "birdwatch", &["--set", &values]);
    let secrets = find(&objects, "Secret", "birdwatch")["stringData"].as_object().unwrap().clone();
    let secrets: Vec<(String, String)> =
        secrets.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect();
    let arguments = container(find(&objects, "Deployment", "birdwatch"))["args"].as_array().unwrap().clone();
    let kubeconfig = format!("--kubeconfig={}", sandbox.kubeconfig().display());
    let arguments: Vec<&str> = arguments.iter().map(|one| one.as_str().unwrap()).chain([kubeconfig.as_str()]).collect();
    let operator = Operator::start_with_environment(&arguments, &secrets);
    operator.wait_ready().await;

    let client = sandbox.client().await;
    let [service, birdwatch] = ["service.yaml", "aleph.yaml"]
        .map(|file| std::fs::read_to_string(format!("docs/systems/birdwatch/{file}")).unwrap());
    for mut object in documents(&service).into_iter().chain(documents(&birdwatch)) {
        object["metadata"]["namespace"] = json!("test");
        create_through(client.clone(), object).await;
    }
    for expected in [
        "New canary version v04 detected for aleph.test",
        "Canary aleph.test is sick, all traffic is back on production",
    ] {
        let post = tokio::time::timeout(PATIENCE, posts.recv()).await.expect(expected).unwrap();
        assert_eq!(post.0.as_deref(), Some("Bearer s3cr3t"));
        assert_eq!((&post.1["channel"], &post.1["attachments"][0]["text"]), (&json!("deployment"), &json!(expected)));
    }
}

/// Answers for Slack, and hands on who says to ask, and what was said.
async fn slack() -> (String, tokio::sync::mpsc::UnboundedReceiver<(Option<String>, Value)>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/api/chat.postMessage", listener.local_addr().unwrap());
    let (sender, posts) = tokio::sync::mpsc::unbounded_channel();
    let take = async move |headers: axum::http::HeaderMap, body: String| {
        let token = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let _ = sender.send((token, serde_json::from_str(&body).unwrap()));
    };
    let router = axum::Router::new().route("/api/chat.postMessage", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, posts)
}
