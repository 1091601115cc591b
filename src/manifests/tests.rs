#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::args::{Cli, Command, ManifestsArgs};

fn args(flags: &[&str]) -> ManifestsArgs {
    let argv = ["aviary", "manifests"].iter().chain(flags).map(OsString::from);
    match Cli::parse_from(argv, |_| Some("http://the-shells.example.com".to_owned())).map(|cli| cli.command) {
        Ok(Command::Manifests(args)) => *args,
        Ok(_) => panic!("{flags:?} is another verb"),
        Err(error) => panic!("{flags:?}: {error}"),
    }
}

fn objects(flags: &[&str]) -> Vec<Value> {
    let args = args(flags);
    let given = args.run_flags().unwrap_or_else(|error| panic!("{flags:?}: {error}"));
    super::objects(&args, &given)
}

fn refusal(flags: &[&str]) -> String {
    args(flags).run_flags().err().expect("refused").to_string()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or(&Value::Null)
}

fn container(objects: &[Value]) -> &Value {
    &of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn flags_of_the_operator_are_its_arguments_in_either_notation() {
    for flags in [
        &["--mesh-provider=istio", "--enable-leader-election"][..],
        &["-mesh-provider", "istio", "-enable-leader-election=true"],
        &["--", "--mesh-provider", "istio", "--enable-leader-election"],
    ] {
        assert_eq!(
            container(&objects(flags))["args"],
            json!([
                "run",
                "--mesh-provider=istio",
                "--enable-leader-election=true",
                "--log-level=info",
                "--leader-election-namespace=aviary-system"
            ]),
            "{flags:?}"
        );
    }
    assert_eq!(container(&objects(&["-log-level=warn"]))["args"], json!(["run", "--log-level=warn"]));
    assert_eq!(container(&objects(&["-port=9000"]))["ports"][0]["containerPort"], 9000);
}

#[test]
fn tokens_are_in_a_secret_and_nowhere_else() {
    let objects = objects(&["--slack-token=s3cr3t", "-event-webhook=http://s3cr3t.example.com"]);
    let secret = of_kind(&objects, "Secret");
    assert_eq!(
        secret["stringData"],
        json!({"SLACK_TOKEN": "s3cr3t", "EVENT_WEBHOOK_URL": "http://s3cr3t.example.com"})
    );
    assert_eq!(container(&objects)["envFrom"][0]["secretRef"]["name"], secret["metadata"]["name"]);
    let others = objects.iter().filter(|object| object["kind"] != "Secret");
    assert!(!json!(others.collect::<Vec<_>>()).to_string().contains("s3cr3t"));
    // What the shell that asks for manifests has in its environment is none of the operator's business.
    assert!(of_kind(&self::objects(&[]), "Secret").is_null());
}

#[test]
fn namespaces_that_are_watched_have_roles() {
    let kinds = |flags: &[&str]| -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
        let rights = objects(flags).into_iter().filter(|object| text(&object["kind"]).ends_with("Role"));
        rights.map(|role| format!("{} {}", text(&role["kind"]), text(&role["metadata"]["namespace"]))).collect()
    };
    assert_eq!(kinds(&[]), ["ClusterRole *"]);
    assert_eq!(kinds(&["--namespace", "a,b"]), ["Role a", "Role b"]);
    assert_eq!(kinds(&["--install-namespace=x", "-enable-leader-election"]), ["ClusterRole *", "Role x"]);
    assert_eq!(kinds(&["-enable-leader-election", "-leader-election-namespace=y"]), ["ClusterRole *", "Role y"]);
}

#[test]
fn what_makes_no_sense_in_a_pod_is_refused() {
    for (flags, problem) in [
        (&["--kubeconfig=x"][..], "leave --kubeconfig out"),
        (&["-version"], "leave --version out"),
        (&["--replicas=2"], "add --enable-leader-election"),
        (&["--imge=x"], "unexpected argument '--imge'"),
        (&["-metrics-server=prometheus"], "expected http://"),
        (&["-mesh-provider=isto"], "--mesh-provider"),
    ] {
        let error = refusal(flags);
        assert!(error.contains(problem), "{flags:?}: {error}");
    }
}

#[test]
fn definitions_come_first_and_can_be_left_out() {
    let kinds = |flags: &[&str]| -> Vec<String> {
        objects(flags).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    };
    let crd = "CustomResourceDefinition";
    let all = kinds(&[]);
    let definitions = all.iter().filter(|kind| *kind == crd).count();
    assert_eq!(definitions, aviary_crds::schema::all_crds().len());
    assert_eq!((all[0].as_str(), all[1 + definitions].as_str()), ("Namespace", "ServiceAccount"));
    assert!(all[1..=definitions].iter().all(|kind| kind == crd), "{all:?}");
    assert!(!kinds(&["--no-crds"]).contains(&crd.to_owned()));
    assert!(kinds(&["--replicas=2", "-enable-leader-election"]).contains(&"PodDisruptionBudget".to_owned()));
}
